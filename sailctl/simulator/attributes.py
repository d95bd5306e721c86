"""What an environment remembers beside MuJoCo's state: the attributes of it and of the wrappers around it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Attribute:
    """A plain attribute of the environment, or of a wrapper around it, that changes in an episode."""

    layer: int
    """0 is the outermost wrapper."""
    name: str
    shape: tuple[int, ...] | None
    """Of an array; None for a number."""
    kind: Any
    """Data type of the array, or type of the number."""

    @property
    def size(self) -> int:
        """Count of numbers."""
        return 1 if self.shape is None else math.prod(self.shape)


def plain_attributes(layers: Sequence[Any]) -> Iterator[tuple[tuple[int, str], object]]:
    """(layer, name) and a value to compare by, for the attributes made of numbers, words and arrays."""
    for layer, holder in enumerate(layers):
        for name, value in vars(holder).items():
            key = comparable(value)
            if key is not None and name != "_np_random_seed":  # Gymnasium's note of the last seed
                yield (layer, name), key


def comparable(value: object) -> object:
    """Something that is equal where plain ``value`` is the same bit for bit; None for what is not plain."""
    if isinstance(value, np.ndarray):
        return None if views_foreign_memory(value) else (value.shape, value.dtype.str, value.tobytes())
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return (type(value), repr(value))
    if isinstance(value, dict):
        return comparable([*value, *value.values()])
    if isinstance(value, list | tuple | set | deque):
        return (type(value), tuple(map(comparable, value)))
    return None


def views_foreign_memory(array: np.ndarray[Any, Any]) -> bool:
    """Whether the numbers lie in MuJoCo's own memory, which is restored anyway."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base is not None


def fits(kept: Attribute, value: object) -> bool:
    """Whether ``value`` still is of the type and shape that were seen."""
    if isinstance(value, np.ndarray):
        return bool(value.shape == kept.shape and value.dtype == kept.kind)
    return kept.shape is None and type(value) is kept.kind
