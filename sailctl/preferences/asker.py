"""What both ways of asking share: a teacher, a reward model that learns from it, how a question is put."""

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
    """A teacher, and the reward model that learns from its answers, where there is one."""

    def __init__(
        self, oracle: OracleConfig, spec: EnvSpec, generators: Generators, model: RewardEnsemble | None
    ) -> None:
        self._rng = generators.queries
        self._teacher = Teacher(oracle, generators.oracle, spec.horizon)
        self.model = model
        """The learned reward, where there is one."""

    @property
    def labels(self) -> int:
        """The teacher's answers so far."""
        return self._teacher.labels

    def metrics(self) -> Metrics:
        """Share of questions skipped so far, and what the reward model knows, where there is one."""
        asked = self._teacher.labels + self._teacher.skipped
        skipped = {"skip_share": self._teacher.skipped / asked if asked else 0.0}
        return skipped if self.model is None else skipped | self.model.metrics()

    def state(self) -> State:
        """What the teacher and the reward model know."""
        return {
            "teacher": self._teacher.state(),
            "model": None if self.model is None else self.model.state(),
        }

    def restore(self, state: State) -> None:
        """Take back what ``state`` handed out."""
        self._teacher.restore(state["teacher"])
        if self.model is not None:
            self.model.restore(state["model"])

    def _ask(
        self,
        segments: SegmentBatch,
        judged: JudgedRewards,
        pairs: Pairs,
        count: int | None,
        rule: str,
        score: Callable[[Pairs], FloatArray],
    ) -> Preferences:
        """Put ``count`` of the pairs, chosen by ``rule``, or all of them, to the teacher; teach the model.

        Args:
            segments: what the model sees of the behaviour that is compared.
            judged: what the teacher sees of it.
            pairs: the candidates.
            count: questions at most; None for all.
            rule: of ``choose``.
            score: (B,) what an adversary among the teachers works against; called only for one.
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
    """The same behaviour with a share of the segments cut after a random number of steps, 1 to L - 1.

    Between segments of one length a constant added to every reward cancels, and no answer tells it. Yet it
    says what a step more of life is worth, and so whether to fear the end of an episode. Of a long segment
    and a short one the constant decides. A share of 0 draws nothing.
    """
    count, steps = segments.mask.shape
    if share == 0 or steps < 2:
        return segments, judged
    lengths = np.where(rng.random(count) < share, rng.integers(1, steps, count), steps)
    kept = (np.arange(steps) < lengths[:, None]).astype(np.float32)
    return (
        replace(segments, mask=segments.mask * kept),
        JudgedRewards(judged.rewards * kept, judged.mask * kept),
    )
