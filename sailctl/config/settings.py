"""A field of a dataclass of settings: its default, its range and what it means, which is shown to users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, cast, get_type_hints

from sailctl.core.words import refused, require

LARGEST = 3.4e38
"""A larger setting is infinite to a policy, which computes in 32-bit floating point."""
LARGEST_WHOLE = 2**63 - 1
"""A larger whole number does not fit into 64 bits."""


@dataclass(frozen=True)
class Range:
    """What a setting may be, whatever the others are: a number in bounds, or one of some words."""

    above: float | None = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.choices:
            return " or ".join(self.choices)
        if self.least is not None and self.most is not None:
            return f"from {self.least} to {self.most}"
        if self.above is not None:
            return f"above {self.above}" + ("" if self.most is None else f" and at most {self.most}")
        return "0 or more" if self.least == 0 else f"at least {self.least}"

    def __contains__(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
        )

    def check(self, key: str, value: Any) -> None:
        """Refuse a value of ``key`` that is outside; null is in every range.

        Raises:
            UserError: one line that names the key, the value and what is allowed.
        """
        if isinstance(value, float):
            require(abs(value) <= LARGEST, key, "a finite number", value)
        if isinstance(value, int):
            require(value <= LARGEST_WHOLE, key, f"at most {LARGEST_WHOLE}", value)
        if value is not None and value not in self:
            raise refused(key, str(self), value, self.choices)


def setting(default: Any, meaning: str, **limits: Any) -> Any:
    """A field with a default, and limits as ``Range`` takes them. A list is copied for each object."""
    metadata = {"meaning": meaning, "range": Range(**limits)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def needed(meaning: str, **limits: Any) -> Any:
    """A field that has no default: a file of ``conf`` or the command line gives it a value."""
    return field(metadata={"meaning": meaning, "range": Range(**limits)})


def leaves(kind: type) -> Iterator[tuple[str, Any, Range]]:
    """Dotted key, type and range of every setting of a dataclass, and of the dataclasses in it."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        if is_dataclass(hint):
            yield from ((f"{item.name}.{key}", *rest) for key, *rest in leaves(cast("type", hint)))
        else:
            yield item.name, hint, item.metadata["range"]
