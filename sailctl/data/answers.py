"""Storage of all answers of a teacher, with the segments that it compared.

Arrays double when they are full, so that the cost of adding an answer does not grow with their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sailctl.core.state import State
from sailctl.core.types import DoubleArray, FloatArray, IntArray, Pairs, Preferences, SegmentBatch
from sailctl.policies.policy import VARIANCE_FLOOR, merge_moments

Array = np.ndarray[Any, Any]


class Answers:
    """Answers in the order of their arrival, each about two rows of the stored segments.

    Args:
        obs_dim: O.
        act_dim: A.
    """

    def __init__(self, obs_dim: int, act_dim: int) -> None:
        self._obs = np.zeros((0, 0, obs_dim), np.float32)
        self._actions = np.zeros((0, 0, act_dim), np.float32)
        self._mask = np.zeros((0, 0), np.float32)
        self._pairs = np.zeros((0, 2), np.int64)
        self._label = np.zeros(0, np.float32)
        self._segments, self._answers = 0, 0
        self._mean, self._var = torch.zeros(obs_dim).double(), torch.ones(obs_dim).double()
        self._count = torch.zeros(()).double()

    def __len__(self) -> int:
        """N, the number of answers."""
        return self._answers

    @property
    def pairs(self) -> IntArray:
        """(N, 2) rows of the first and the second segment of each answer."""
        return self._pairs[: self._answers]

    @property
    def label(self) -> FloatArray:
        """(N,) z: +1 first preferred, -1 second preferred, 0 tie."""
        return self._label[: self._answers]

    @property
    def moments(self) -> tuple[DoubleArray, DoubleArray]:
        """(O,) mean and (O,) standard deviation, above 0, of the observations of the executed steps."""
        return self._mean.numpy(), np.sqrt(self._var.numpy() + VARIANCE_FLOOR)

    def add(self, segments: SegmentBatch, preferences: Preferences) -> None:
        """Store these answers and the segments that they compare.

        Args:
            segments: (S, H) steps; H may differ between calls. Shorter segments are padded with masked steps.
            preferences: answers about rows of ``segments``.
        """
        rows = np.stack([preferences.pairs.first, preferences.pairs.second], axis=1)
        used, index = np.unique(rows, return_inverse=True)
        compared = segments.take(used)
        start = self._segments
        steps = max(self._mask.shape[1], compared.mask.shape[1])
        self._obs = _written(self._obs, start, compared.obs, steps)
        self._actions = _written(self._actions, start, compared.actions, steps)
        self._mask = _written(self._mask, start, compared.mask, steps)
        self._segments += compared.segments
        self._pairs = _written(self._pairs, self._answers, index.reshape(-1, 2) + start, 2)
        self._label = _written(self._label, self._answers, preferences.label)
        self._answers += len(preferences)
        merge_moments(self._mean, self._var, self._count, compared.obs[compared.mask > 0])

    def state(self) -> State:
        """All answers, their segments and the moments, without unused rows."""
        return {
            "obs": self._obs[: self._segments],
            "actions": self._actions[: self._segments],
            "mask": self._mask[: self._segments],
            "pairs": self.pairs,
            "label": self.label,
            "mean": self._mean,
            "var": self._var,
            "count": self._count,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self._obs, self._actions, self._mask = state["obs"], state["actions"], state["mask"]
        self._pairs, self._label = state["pairs"], state["label"]
        self._segments, self._answers = len(self._obs), len(self._label)
        self._mean, self._var, self._count = (torch.as_tensor(state[k]) for k in ("mean", "var", "count"))

    def take(self, rows: IntArray) -> SegmentBatch:
        """A copy of the segments in these rows."""
        return SegmentBatch(self._obs[rows], self._actions[rows], self._mask[rows], forks=1)

    def latest(self, count: int) -> tuple[SegmentBatch, Preferences]:
        """The latest ``count`` answers, or all if there are fewer, and the segments that they compare."""
        pairs, label = self.pairs[-count:], self.label[-count:]
        used, index = np.unique(pairs, return_inverse=True)
        first, second = index.reshape(-1, 2).T
        return self.take(used), Preferences(Pairs(first, second, np.arange(len(label))), label)


def _written(array: Array, start: int, rows: Array, steps: int | None = None) -> Array:
    """``array`` with ``rows`` written from row ``start`` on; a larger copy if ``array`` is too small.

    ``steps`` is the new length of the second axis, at least the old one. New elements are 0.
    """
    end = start + len(rows)
    capacity = len(array) if end <= len(array) else max(end, 2 * len(array))
    row_shape = array.shape[1:] if steps is None else (steps, *array.shape[2:])
    if (capacity, *row_shape) != array.shape:
        larger = np.zeros((capacity, *row_shape), array.dtype)
        larger[(slice(start), *map(slice, array.shape[1:]))] = array[:start]
        array = larger
    array[(slice(start, end), *map(slice, rows.shape[1:]))] = rows
    return array
