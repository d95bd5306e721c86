"""State of an environment outside MuJoCo's state: attributes of the environment and of its wrappers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Attribute:
    """An attribute of the environment or of a wrapper that changes within an episode."""

    layer: int
    """0 is the outermost wrapper."""
    name: str
    shape: tuple[int, ...] | None
    """Shape of an array; None for a number."""
    kind: Any
    """Data type of an array, or type of a number."""

    @property
    def size(self) -> int:
        """Number of values."""
        return 1 if self.shape is None else math.prod(self.shape)


def plain_attributes(layers: Sequence[Any]) -> Iterator[tuple[tuple[int, str], object]]:
    """(layer, name) and a comparable value of each attribute that consists of numbers, strings and arrays."""
    for layer, holder in enumerate(layers):
        for name, value in vars(holder).items():
            key = comparable(value)
            if key is not None and name != "_np_random_seed":  # Gymnasium stores the last seed in it
                yield (layer, name), key


def comparable(value: object) -> object:
    """A key that is equal for bitwise equal values; None for anything but numbers, strings and arrays."""
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
    """Whether ``array`` is a view of MuJoCo's memory, which is restored separately."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base is not None


def fits(attribute: Attribute, value: object) -> bool:
    """Whether ``value`` has the type and shape of ``attribute``."""
    if isinstance(value, np.ndarray):
        return bool(value.shape == attribute.shape and value.dtype == attribute.kind)
    return attribute.shape is None and type(value) is attribute.kind
