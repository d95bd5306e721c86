"""Frozen data types that travel between folders, and the two errors a user can meet.

One convention, written once: a label ``z`` is ``+1`` when the *first* segment of a pair is preferred,
``-1`` when the second is, and ``0`` for a tie (a soft label: weight 1/2 on both answers, left out of
accuracy figures). A ranking lists the segments of a prompt from the best to the worst.

Shapes use these letters: P prompts, K forks of each prompt, S = P * K segments in prompt-major order
(segment ``p * K + k`` is fork ``k`` of prompt ``p``), H control steps whose log-probabilities count,
L >= H control steps the teacher judges, B pairs, G rankings, O observation size, A action size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Metrics = dict[str, float]
"""Numbers of an iteration by the names of their columns."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message is one line that says what to do (exit 2)."""


class BusyError(UserError):
    """Another process is doing what was asked for."""


class RunError(Exception):
    """A run that started correctly had to stop; the message is one line that says why (exit 1)."""


class NonFiniteError(RunError):
    """NaN or infinity appeared in an update.

    ``batch`` holds the offending minibatch by name, for the training loop to write beside the run.
    """

    def __init__(self, message: str, batch: Mapping[str, torch.Tensor]) -> None:
        super().__init__(message)
        self.batch = batch


@dataclass(frozen=True)
class EnvSpec:
    """What the learner may know of a task: sizes and times, never the reward."""

    id: str
    """Task id with its version, such as ``halfcheetah-v5``."""
    obs_dim: int
    """O, length of one observation."""
    act_dim: int
    """A, length of one action."""
    act_low: DoubleArray
    """(A,) lowest control that the actuators take."""
    act_high: DoubleArray
    """(A,) highest control that the actuators take."""
    horizon: int
    """Control steps in one episode (the time limit)."""
    dt: float
    """Seconds of simulated time in one control step."""


@dataclass(frozen=True)
class SegmentBatch:
    """What the policy did: all that the learner sees of the simulator. There is no reward in it."""

    obs: FloatArray
    """(S, H, O) raw observations before each action."""
    actions: FloatArray
    """(S, H, A) actions as the policy drew them, in policy units, before clipping to the actuators."""
    mask: FloatArray
    """(S, H) 1 where the step was taken, 0 after the segment's episode ended."""
    forks: int
    """K, segments of each prompt."""

    def __post_init__(self) -> None:
        segments, steps = self.mask.shape
        if self.obs.shape[:2] != (segments, steps) or self.actions.shape[:2] != (segments, steps):
            raise ValueError(
                f"obs {self.obs.shape}, actions {self.actions.shape}, mask {self.mask.shape} disagree"
            )
        if self.forks < 1 or segments % self.forks:
            raise ValueError(f"{segments} segments are not a whole number of prompts of {self.forks} forks")

    @property
    def segments(self) -> int:
        """S, the number of segments."""
        return int(self.mask.shape[0])

    def head(self, steps: int) -> SegmentBatch:
        """The first ``steps`` steps of each segment, in memory of their own."""
        obs, actions, mask = self.obs[:, :steps], self.actions[:, :steps], self.mask[:, :steps]
        return SegmentBatch(obs.copy(), actions.copy(), mask.copy(), self.forks)

    def take(self, rows: IntArray) -> SegmentBatch:
        """A copy of the chosen segments, single (``forks`` 1)."""
        return SegmentBatch(self.obs[rows], self.actions[rows], self.mask[rows], forks=1)


@dataclass(frozen=True)
class JudgedRewards:
    """True rewards of the same segments. Made by the rollout, read by the teacher (and metrics) alone."""

    rewards: DoubleArray
    """(S, L) true reward of each control step; 0 where no step was taken."""
    mask: FloatArray
    """(S, L) 1 where the step was taken."""

    def __post_init__(self) -> None:
        if self.rewards.shape != self.mask.shape:
            raise ValueError(f"rewards {self.rewards.shape} and mask {self.mask.shape} disagree")

    @property
    def returns(self) -> DoubleArray:
        """(S,) undiscounted true return of each judged window."""
        total: DoubleArray = self.rewards.sum(axis=1)
        return total


@dataclass(frozen=True)
class Ends:
    """Where the S segments of a batch ended."""

    obs: FloatArray
    """(S, O) observation after the last step that was taken."""
    terminated: BoolArray
    """(S,) whether that step ended the episode for good."""


@dataclass(frozen=True)
class Transitions:
    """N control steps, of as many environments or of any: what a critic learns from. No reward is in it."""

    obs: FloatArray
    """(N, O) raw observations before each action."""
    actions: FloatArray
    """(N, A) actions in policy units, as the actuators took them: from -1 to 1."""
    next_obs: FloatArray
    """(N, O) observations that the steps led to; where one ended its episode, the last of that episode, not
    the first of the next one."""
    terminated: BoolArray
    """(N,) whether the step ended its episode for good: nothing follows."""
    ended: BoolArray
    """(N,) whether the episode ended with this step at all: terminated, or cut off by the time limit."""

    def __post_init__(self) -> None:
        (steps,), pair = self.ended.shape, (self.obs.shape, self.next_obs.shape)
        if pair[0] != pair[1] or {*map(len, (self.obs, self.actions, self.terminated))} != {steps}:
            raise ValueError(
                f"obs {self.obs.shape}, actions {self.actions.shape}, next_obs {self.next_obs.shape}, "
                f"terminated {self.terminated.shape}, ended {self.ended.shape} disagree"
            )
        if (self.terminated & ~self.ended).any():
            raise ValueError("a step that terminated its episode ended it")

    def __len__(self) -> int:
        return int(self.ended.shape[0])


@dataclass(frozen=True)
class Pairs:
    """Questions for a teacher: which segments of one batch are to be compared."""

    first: IntArray
    """(B,) row of the first segment of each pair."""
    second: IntArray
    """(B,) row of the second segment of each pair."""
    group: IntArray
    """(B,) pairs that share a segment share a group; pairs of different groups are independent."""

    def __post_init__(self) -> None:
        shapes = {self.first.shape, self.second.shape, self.group.shape}
        if len(shapes) != 1 or self.first.ndim != 1:
            raise ValueError(f"first, second, group must all be (B,), got {sorted(shapes)}")

    def __len__(self) -> int:
        return int(self.first.shape[0])

    def take(self, rows: IntArray | BoolArray) -> Pairs:
        """The chosen pairs."""
        return Pairs(self.first[rows], self.second[rows], self.group[rows])

    def head(self, n: int) -> Pairs:
        """The first ``n`` pairs."""
        return self.take(np.arange(min(n, len(self))))


@dataclass(frozen=True)
class Preferences:
    """Answers of a teacher: one label for each pair."""

    pairs: Pairs
    """The B pairs that were compared."""
    label: FloatArray
    """(B,) z: +1 first preferred, -1 second preferred, 0 tie."""

    def __post_init__(self) -> None:
        if self.label.shape != self.pairs.first.shape:
            raise ValueError(f"{len(self.pairs)} pairs but labels of shape {self.label.shape}")
        if not np.isin(self.label, (-1.0, 0.0, 1.0)).all():
            raise ValueError("a label is +1 (first preferred), -1 (second preferred) or 0 (tie)")

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Rankings:
    """Answers of a teacher that orders all K segments of a prompt at once."""

    order: IntArray
    """(G, K) rows of the segments of each prompt, the best first."""

    def __post_init__(self) -> None:
        if self.order.ndim != 2 or self.order.shape[1] < 2:
            raise ValueError(
                f"a ranking orders at least two segments: order must be (G, K), got {self.order.shape}"
            )

    def __len__(self) -> int:
        return int(self.order.shape[0])


@dataclass(frozen=True)
class PreferenceData:
    """A fixed data set of answered pairs: what offline alignment learns from. There is no reward in it."""

    task: str
    """Id of the task that the segments are from."""
    segments: SegmentBatch
    """2 B segments, all steps that were judged; pair i compares rows 2i and 2i + 1."""
    preferences: Preferences
    """The B answers."""
    steps: int
    """H, the first steps of each segment, whose log-probabilities count."""

    def __post_init__(self) -> None:
        judged = self.segments.mask.shape[1]
        if not 1 <= self.steps <= judged:
            raise ValueError(f"the steps that count are 1 to {judged}, the steps judged, got {self.steps}")
        pairs, place = self.preferences.pairs, 2 * np.arange(len(self))
        if not (np.array_equal(pairs.first, place) and np.array_equal(pairs.second, place + 1)):
            raise ValueError("pair i of a data set compares its segments 2i and 2i + 1")

    def __len__(self) -> int:
        return len(self.preferences)

    def take(self, rows: IntArray) -> PreferenceData:
        """The chosen answers, with their segments."""
        both = (2 * rows[:, None] + np.arange(2)).ravel()
        segments = self.segments
        place = 2 * np.arange(len(rows))
        return PreferenceData(
            self.task,
            SegmentBatch(segments.obs[both], segments.actions[both], segments.mask[both], 2),
            Preferences(
                Pairs(place, place + 1, self.preferences.pairs.group[rows]), self.preferences.label[rows]
            ),
            self.steps,
        )

    def first_steps(self) -> PreferenceData:
        """The same answers with the H steps alone whose log-probabilities count: what a learner sees."""
        return replace(self, segments=self.segments.head(self.steps))
