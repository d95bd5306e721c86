"""Several runs side by side in one process: what they ask for at the same moment is done at once.

A run that others can join is a generator. It yields an ``Ask`` wherever something is worth sharing, such as a
control step of the simulator, and is sent the answer. ``alone`` answers the asks of one run as they come;
``together`` has many runs wait for each other, and answers all asks of one kind in one go. Every run draws
from generators of its own, so who is beside it changes nothing that it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Ask(Protocol):
    """Something that a run wants done."""

    @property
    def kind(self) -> Hashable:
        """Asks of one kind can be answered at once."""

    def answer(self) -> Any:
        """What is sent back."""

    def answer_all(self, asks: Sequence[Any]) -> Sequence[Any]:
        """What is sent back to each of ``asks``, which are of this kind; this one is among them."""


Work = Generator[Ask, Any, T]
"""A run, or a part of one, that says what it wants done and ends with a result."""


class Meeting:
    """Asks for nothing, and is answered when all that still run have come to one: they go on in step."""

    kind = "meeting"

    def answer(self) -> None:
        """Alone nobody waits."""

    def answer_all(self, asks: Sequence[Meeting]) -> list[None]:
        """All have come."""
        return [None] * len(asks)


def alone(work: Work[T]) -> T:
    """Do what ``work`` asks for as it asks, and return its result."""
    proceed: Callable[[], Ask] = partial(next, work)
    while True:
        try:
            ask = proceed()
        except StopIteration as end:
            result: T = end.value
            return result
        proceed = _answered(work, ask)


def together(works: Sequence[Work[T]]) -> list[T]:
    """Do what all of ``works`` ask for, as much at once as can be, and return their results in this order.

    What most of them wait for is done first. An error in an answer goes to those alone whom it concerns; one
    that a work lets out ends all of them, and is raised.
    """
    waiting: dict[int, Ask] = {}
    results: dict[int, T] = {}

    def proceed(number: int, step: Callable[[], Ask]) -> None:
        try:
            waiting[number] = step()
        except StopIteration as end:
            results[number] = end.value

    try:
        for number, work in enumerate(works):
            proceed(number, partial(next, work))
        while waiting:
            wanted = Counter(ask.kind for ask in waiting.values() if ask.kind != Meeting.kind)
            kind = wanted.most_common(1)[0][0] if wanted else Meeting.kind
            numbers = sorted(number for number, ask in waiting.items() if ask.kind == kind)
            asks = [waiting.pop(number) for number in numbers]
            for number, step in zip(numbers, _all_answered([works[n] for n in numbers], asks), strict=True):
                proceed(number, step)
    except BaseException as error:
        for work in works:  # those that still run close their files
            with suppress(BaseException):
                work.throw(error)
        raise
    return [results[number] for number in range(len(works))]


def _answered(work: Work[T], ask: Ask) -> Callable[[], Ask]:
    """How ``work`` goes on: with the answer, or with the error that answering met."""
    try:
        return partial(work.send, ask.answer())
    except Exception as error:
        return partial(work.throw, error)


def _all_answered(works: Sequence[Work[T]], asks: Sequence[Ask]) -> Sequence[Callable[[], Ask]]:
    if len(asks) > 1:
        with suppress(Exception):  # of one of them: each alone finds out whether it is its own
            answers = asks[0].answer_all(asks)
            return [partial(work.send, answer) for work, answer in zip(works, answers, strict=True)]
    return [_answered(work, ask) for work, ask in zip(works, asks, strict=True)]
