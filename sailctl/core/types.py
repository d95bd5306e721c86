"""Immutable data types shared by several folders, and the errors that are shown to the user.

A label ``z`` is ``+1`` if the *first* segment of a pair is preferred, ``-1`` if the second is, and ``0`` for
a tie (a soft label with weight 1/2 on both answers, excluded from accuracies). A ranking lists the segments
of a prompt from best to worst.

Letters in shapes: P prompts, K forks of each prompt, S = P * K segments in prompt-major order (segment
``p * K + k`` is fork ``k`` of prompt ``p``), H control steps in the log-probability of a segment, L >= H
control steps that the teacher judges, B pairs, G rankings, O observation size, A action size.
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
"""Numbers of one iteration, by column name."""


class UserError(Exception):
    """Invalid input of the user; the message is one line that says what to change (exit code 2)."""


class BusyError(UserError):
    """Another process works on the same run or folder."""


class RunError(Exception):
    """A valid run had to stop; the message is one line with the reason (exit code 1)."""


class NonFiniteError(RunError):
    """NaN or infinity appeared in an update.

    ``batch`` is the minibatch of the update, by name; the training loop saves it in the run directory.
    """

    def __init__(self, message: str, batch: Mapping[str, torch.Tensor]) -> None:
        super().__init__(message)
        self.batch = batch


@dataclass(frozen=True)
class EnvSpec:
    """Properties of a task that the learner may use: sizes and times, but not the reward."""

    id: str
    """Task id, such as ``halfcheetah-v5``."""
    obs_dim: int
    """O, length of one observation."""
    act_dim: int
    """A, length of one action."""
    act_low: DoubleArray
    """(A,) lower bound of the controls."""
    act_high: DoubleArray
    """(A,) upper bound of the controls."""
    horizon: int
    """Control steps in one episode (the time limit)."""
    dt: float
    """Seconds of simulated time in one control step."""


@dataclass(frozen=True)
class SegmentBatch:
    """Segments of the policy's behaviour, without rewards: all that the learner sees of the simulator."""

    obs: FloatArray
    """(S, H, O) raw observations before each action."""
    actions: FloatArray
    """(S, H, A) actions drawn by the policy, in policy units, before clipping to the bounds."""
    mask: FloatArray
    """(S, H) 1 for executed steps, 0 after the end of the episode."""
    forks: int
    """K, number of segments of each prompt."""

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
        """A copy of the first ``steps`` steps of each segment."""
        obs, actions, mask = self.obs[:, :steps], self.actions[:, :steps], self.mask[:, :steps]
        return SegmentBatch(obs.copy(), actions.copy(), mask.copy(), self.forks)

    def take(self, rows: IntArray) -> SegmentBatch:
        """A copy of the chosen segments, with ``forks`` 1."""
        return SegmentBatch(self.obs[rows], self.actions[rows], self.mask[rows], forks=1)


@dataclass(frozen=True)
class JudgedRewards:
    """True rewards of segments, used by the teacher and by metrics only."""

    rewards: DoubleArray
    """(S, L) true reward of each control step; 0 after the end of the episode."""
    mask: FloatArray
    """(S, L) 1 for executed steps."""

    def __post_init__(self) -> None:
        if self.rewards.shape != self.mask.shape:
            raise ValueError(f"rewards {self.rewards.shape} and mask {self.mask.shape} disagree")

    @property
    def returns(self) -> DoubleArray:
        """(S,) undiscounted true return of each judged segment."""
        total: DoubleArray = self.rewards.sum(axis=1)
        return total


@dataclass(frozen=True)
class Ends:
    """Final states of the S segments of a batch."""

    obs: FloatArray
    """(S, O) observation after the last executed step."""
    terminated: BoolArray
    """(S,) whether that step terminated the episode."""


@dataclass(frozen=True)
class Transitions:
    """N control steps from any environments, for training a critic; without rewards."""

    obs: FloatArray
    """(N, O) raw observations before each action."""
    actions: FloatArray
    """(N, A) executed actions in policy units, clipped to -1 and 1."""
    next_obs: FloatArray
    """(N, O) observations after the steps; if a step ended its episode, the last one of that episode, not the
    first of the next."""
    terminated: BoolArray
    """(N,) whether the step reached a terminal state."""
    ended: BoolArray
    """(N,) whether the episode ended at this step, by termination or by the time limit."""

    def __post_init__(self) -> None:
        (steps,), pair = self.ended.shape, (self.obs.shape, self.next_obs.shape)
        if pair[0] != pair[1] or {*map(len, (self.obs, self.actions, self.terminated))} != {steps}:
            raise ValueError(
                f"obs {self.obs.shape}, actions {self.actions.shape}, next_obs {self.next_obs.shape}, "
                f"terminated {self.terminated.shape}, ended {self.ended.shape} disagree"
            )
        if (self.terminated & ~self.ended).any():
            raise ValueError("terminated steps must also be ended")

    def __len__(self) -> int:
        return int(self.ended.shape[0])


@dataclass(frozen=True)
class Pairs:
    """Queries for a teacher: pairs of segments of one batch."""

    first: IntArray
    """(B,) index of the first segment of each pair."""
    second: IntArray
    """(B,) index of the second segment of each pair."""
    group: IntArray
    """(B,) group of each pair; pairs with a common segment share a group, and groups are independent."""

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
        """The first ``n`` pairs, or all if there are fewer."""
        return self.take(np.arange(min(n, len(self))))


@dataclass(frozen=True)
class Preferences:
    """Answers of a teacher: one label per pair."""

    pairs: Pairs
    """The B compared pairs."""
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
    """Answers of a teacher that ranks all K segments of a prompt."""

    order: IntArray
    """(G, K) indices of the segments of each prompt, best first."""

    def __post_init__(self) -> None:
        if self.order.ndim != 2 or self.order.shape[1] < 2:
            raise ValueError(
                f"a ranking orders at least two segments: order must be (G, K), got {self.order.shape}"
            )

    def __len__(self) -> int:
        return int(self.order.shape[0])


@dataclass(frozen=True)
class PreferenceData:
    """A fixed data set of labelled pairs for offline alignment, without rewards."""

    task: str
    """Id of the task."""
    segments: SegmentBatch
    """2 B segments with all judged steps; pair i compares segments 2i and 2i + 1."""
    preferences: Preferences
    """The B answers."""
    steps: int
    """H, number of steps of each segment, from its start, in its log-probability."""

    def __post_init__(self) -> None:
        judged = self.segments.mask.shape[1]
        if not 1 <= self.steps <= judged:
            raise ValueError(
                f"steps must be from 1 to {judged}, the number of judged steps, got {self.steps}"
            )
        pairs, first = self.preferences.pairs, 2 * np.arange(len(self))
        if not (np.array_equal(pairs.first, first) and np.array_equal(pairs.second, first + 1)):
            raise ValueError("pair i of a data set compares its segments 2i and 2i + 1")

    def __len__(self) -> int:
        return len(self.preferences)

    def take(self, rows: IntArray) -> PreferenceData:
        """The chosen answers with their segments."""
        members = (2 * rows[:, None] + np.arange(2)).ravel()
        first = 2 * np.arange(len(rows))
        pairs = Pairs(first, first + 1, self.preferences.pairs.group[rows])
        return replace(
            self,
            segments=replace(self.segments.take(members), forks=2),
            preferences=Preferences(pairs, self.preferences.label[rows]),
        )

    def first_steps(self) -> PreferenceData:
        """The same answers with segments of H steps, as the learner sees them."""
        return replace(self, segments=self.segments.head(self.steps))
