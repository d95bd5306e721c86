"""Base class of ``Labeller`` and ``Sessions``: a teacher, and a reward model fitted to its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sailctl.config import MODEL_RULES, OracleConfig
from sailctl.core.seeding import Generators
from sailctl.core.state import State
from sailctl.core.types import EnvSpec, FloatArray, JudgedRewards, Metrics, Pairs, Preferences, SegmentBatch
from sailctl.preferences.oracle import Teacher
from sailctl.preferences.queries import choose
from sailctl.preferences.reward import RewardEnsemble


class Asker:
    """A teacher and an optional reward model that is fitted to its answers."""

    def __init__(
        self, oracle: OracleConfig, spec: EnvSpec, generators: Generators, model: RewardEnsemble | None
    ) -> None:
        self._rng = generators.queries
        self._teacher = Teacher(oracle, generators.oracle, spec.horizon)
        self.model = model
        """The reward model; None without one."""

    @property
    def labels(self) -> int:
        """Number of labels that the teacher has given so far."""
        return self._teacher.labels

    def metrics(self) -> Metrics:
        """``skip_share``, the share of queries skipped so far, and the metrics of the reward model."""
        queries = self._teacher.labels + self._teacher.skipped
        skipped = {"skip_share": self._teacher.skipped / queries if queries else 0.0}
        return skipped if self.model is None else skipped | self.model.metrics()

    def state(self) -> State:
        """State of the teacher and the reward model."""
        return {
            "teacher": self._teacher.state(),
            "model": None if self.model is None else self.model.state(),
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self._teacher.restore(state["teacher"])
        if self.model is not None:
            self.model.restore(state["model"])

    def _query(
        self,
        segments: SegmentBatch,
        judged: JudgedRewards,
        pairs: Pairs,
        count: int | None,
        rule: str,
        score: Callable[[Pairs], FloatArray],
    ) -> Preferences:
        """Query the teacher about ``count`` pairs chosen by ``rule``, and fit the model to the answers.

        Args:
            segments: (S, H) the segments, as the model sees them.
            judged: (S, L) their true rewards, as the teacher sees them.
            pairs: the candidate pairs of rows of ``segments``.
            count: maximum number of queries; None for all pairs.
            rule: selection rule of ``choose``.
            score: returns the learner's score (B,) of pairs; called only for an adversarial teacher.

        Raises:
            RunError: when a true return is NaN or infinite.
            NonFiniteError: when the model is NaN or infinite.
        """
        if count is not None and count < len(pairs):
            chances = None
            if self.model is not None and rule in MODEL_RULES:
                chances = self.model.chances(segments, pairs)
            pairs = pairs.take(choose(rule, count, pairs, segments, chances, self._rng))
        answers = self._teacher.answer(pairs, judged, score(pairs) if self._teacher.needs_score else None)
        if self.model is not None:
            self.model.learn(segments, answers)
        return answers


def cut_short(
    segments: SegmentBatch, judged: JudgedRewards, share: float, rng: np.random.Generator
) -> tuple[SegmentBatch, JudgedRewards]:
    """Truncate a random ``share`` of the segments to a random length of 1 to L - 1 steps.

    A constant added to every reward cancels between segments of equal length, so their answers cannot
    identify it. The constant is the value of surviving one more step, and therefore decides whether
    termination is good or bad. Comparisons of segments of different lengths identify it. A share of 0 draws
    no random number.
    """
    count, steps = segments.mask.shape
    if share == 0 or steps < 2:
        return segments, judged
    lengths = np.where(rng.random(count) < share, rng.integers(1, steps, count), steps)
    in_prefix = (np.arange(steps) < lengths[:, None]).astype(np.float32)
    return (
        replace(segments, mask=segments.mask * in_prefix),
        JudgedRewards(judged.rewards * in_prefix, judged.mask * in_prefix),
    )
