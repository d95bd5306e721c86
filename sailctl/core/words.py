"""Values and mistakes in the words of YAML and of a command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sailctl.core.types import UserError


def require(allowed: bool, key: str, what: str, value: object, known: Iterable[str] = ()) -> None:
    """Let pass what is allowed.

    Raises:
        UserError: as ``refused`` words it.
    """
    if not allowed:
        raise refused(key, what, value, known)


def refused(key: str, what: str, value: object, known: Iterable[str] = ()) -> UserError:
    """``key must be what, got value``, and the nearest of the ``known`` names."""
    return UserError(f"{key} must be {what}, got {show(value)}{did_you_mean(str(value), known)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name, if need be in another case, or nothing."""
    names = [*known]
    other_case = {name.casefold(): name for name in reversed(names)}
    near = difflib.get_close_matches(word, names, n=1)
    near = near or [other_case[name] for name in difflib.get_close_matches(word.casefold(), other_case, n=1)]
    return f"; did you mean '{near[0]}'?" if near else ""


def show(value: object) -> str:
    """``value`` as it is written in YAML or on a command line."""
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, str):
        return repr(value)
    return words[value] if value is None or isinstance(value, bool) else str(value)


def first_line(error: BaseException) -> str:
    """What OmegaConf or Hydra says, without the bookkeeping (full_key, object_type) of its later lines."""
    return str(error).split("\n", 1)[0]
