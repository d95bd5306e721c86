"""Everything that a teacher has answered so far, with the segments that it was asked about.

To add an answer costs what the answer holds, however many are known: arrays double when they are full.
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
    """Answers in the order in which they came, each about two rows of the segments.

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
        """(O,) mean and (O,) standard deviation, never 0, of the observations of the steps taken."""
        return self._mean.numpy(), np.sqrt(self._var.numpy() + VARIANCE_FLOOR)

    def add(self, segments: SegmentBatch, preferences: Preferences) -> None:
        """Keep these answers, and those of the segments that they name.

        Args:
            segments: (S, H) steps; H may differ from call to call. Steps that were not taken are added to
                the end of the shorter ones.
            preferences: answers about rows of ``segments``.
        """
        asked = np.stack([preferences.pairs.first, preferences.pairs.second], axis=1)
        used, place = np.unique(asked, return_inverse=True)
        named = segments.take(used)
        before = self._segments
        steps = max(self._mask.shape[1], named.mask.shape[1])
        self._obs = _put(self._obs, before, named.obs, steps)
        self._actions = _put(self._actions, before, named.actions, steps)
        self._mask = _put(self._mask, before, named.mask, steps)
        self._segments += named.segments
        self._pairs = _put(self._pairs, self._answers, place.reshape(-1, 2) + before, 2)
        self._label = _put(self._label, self._answers, preferences.label)
        self._answers += len(preferences)
        merge_moments(self._mean, self._var, self._count, named.obs[named.mask > 0])

    def state(self) -> State:
        """All answers, their segments and the moments; the room that is still empty is left out."""
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
        """Load what ``state`` returned."""
        self._obs, self._actions, self._mask = state["obs"], state["actions"], state["mask"]
        self._pairs, self._label = state["pairs"], state["label"]
        self._segments, self._answers = len(self._obs), len(self._label)
        self._mean, self._var, self._count = (torch.as_tensor(state[k]) for k in ("mean", "var", "count"))

    def take(self, rows: IntArray) -> SegmentBatch:
        """A copy of the segments in these rows."""
        return SegmentBatch(self._obs[rows], self._actions[rows], self._mask[rows], forks=1)

    def latest(self, count: int) -> tuple[SegmentBatch, Preferences]:
        """The last ``count`` answers, or all, and the segments that they name."""
        pairs, label = self.pairs[-count:], self.label[-count:]
        used, place = np.unique(pairs, return_inverse=True)
        first, second = place.reshape(-1, 2).T
        return self.take(used), Preferences(Pairs(first, second, np.arange(len(label))), label)


def _put(into: Array, start: int, rows: Array, steps: int | None = None) -> Array:
    """``rows`` written into ``into`` from row ``start`` on, in a new array where there is no room.

    ``steps`` is the length of the second axis, no less than it was; what is not written is 0.
    """
    end = start + len(rows)
    room = len(into) if end <= len(into) else max(end, 2 * len(into))
    wide = into.shape[1:] if steps is None else (steps, *into.shape[2:])
    if (room, *wide) != into.shape:
        larger = np.zeros((room, *wide), into.dtype)
        larger[(slice(start), *map(slice, into.shape[1:]))] = into[:start]
        into = larger
    into[(slice(start, end), *map(slice, rows.shape[1:]))] = rows
    return into
