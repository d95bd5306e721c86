"""Where the labels of an iteration come from: the teacher, a reward model that learned from it, or nobody.

The one room that sees a teacher, its label budget and a reward model together. What leaves it for the learner
is answers alone: ``Preferences``, ``Rankings``, or bare ``Pairs`` that the policy labels itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sailctl.config import MODEL_RULES, Config, OracleConfig
from sailctl.foresight import Foresight
from sailctl.oracle import Teacher
from sailctl.queries import choose
from sailctl.reward import RewardEnsemble
from sailctl.rollout import Collected
from sailctl.seeding import Generators
from sailctl.state import State
from sailctl.types import (
    EnvSpec,
    FloatArray,
    JudgedRewards,
    Pairs,
    PreferenceData,
    Preferences,
    Rankings,
    SegmentBatch,
)

Score = Callable[[SegmentBatch, Pairs], FloatArray]
"""The learner's current score h (B,) of pairs: what an adversary among the teachers works against."""

TRUTHFUL = OracleConfig(
    inverse_temperature=None,
    normalise=False,
    discount=1.0,
    mistake=0.0,
    skip=0.0,
    equal=0.0,
    tie_margin=0.0,
    rho=0.0,
    bpref_compat=False,
    budget=None,
)
"""A teacher that names the higher return; over learned rewards, the labels of a reward model."""


class Labeller:
    """Puts questions to the teacher, teaches the reward model, and hands out an algorithm's labels."""

    def __init__(
        self, config: Config, spec: EnvSpec, generators: Generators, data: PreferenceData | None
    ) -> None:
        self._config = config
        self._rng = generators.queries
        self._data = data
        self._teacher = Teacher(config.oracle, generators.oracle, spec.horizon)
        self.model: RewardEnsemble | None = None
        """The learned reward, where there is one."""
        if config.algo.models_reward:
            self.model = RewardEnsemble(
                config.reward, spec.obs_dim, spec.act_dim, generators.ensemble, config.reward.bounded
            )
        self._seen = 0
        """Env steps that were collected so far."""
        self.foresight: Foresight | None = None
        """The value of what follows under it, where the labels count it."""
        if self.model is not None and config.algo.labels == "reward_model" and config.reward.foresight > 0:
            self.foresight = Foresight(config.reward, spec, generators.value)
        model_oracle = replace(TRUTHFUL, inverse_temperature=config.reward.inverse_temperature)
        self._model_teacher = Teacher(model_oracle, generators.labels, spec.horizon)

    @property
    def labels(self) -> int:
        """The teacher's answers so far, those recorded in the data set included."""
        return (0 if self._data is None else len(self._data)) + self._teacher.labels

    @property
    def exhausted(self) -> bool:
        """Whether there will be no more labels: the budget is spent, and nobody else gives any."""
        return self._config.algo.labels == "teacher" and self._teacher.spent

    @property
    def left(self) -> float:
        """Share of the budget that is left; 1 where there is none, or nobody asks."""
        budget = self._config.oracle.budget
        if budget is None or self._config.algo.labels != "teacher":
            return 1.0
        return 1.0 - self._teacher.labels / budget

    def learn_from_data(self) -> None:
        """Before the first iteration: teach the reward model, where there is one, what the data set holds.

        Raises:
            NonFiniteError: when the model is NaN or infinite after it.
        """
        if self.model is not None and self._data is not None:
            self.model.learn(self._data.segments, self._data.preferences)

    def label(self, collected: Collected, score: Score) -> Preferences | Rankings | Pairs:
        """The labels of one iteration, without the pairs that the teacher skipped or was not asked about."""
        labels = self._config.algo.labels
        if labels == "policy":
            return collected.pairs
        self._teacher.observe_episodes(collected.episode_returns)
        if self._config.rollout.pairing == "ranked":
            return self._rank(collected)
        shown = self._shown(collected)
        answers = self._ask(shown, score)
        if self.model is not None:
            self.model.learn(shown.window, answers)
            if labels == "reward_model":
                given = self._model_teacher.answer(collected.pairs, self._judged(self.model, collected))
                self._seen += collected.env_steps
                return given if self._seen > self._config.reward.start else none_of(given)
        return answers

    def metrics(self) -> dict[str, float]:
        """Share of questions skipped so far, and what the reward model knows, where there is one."""
        asked = self._teacher.labels + self._teacher.skipped
        metrics = {"skip_share": self._teacher.skipped / asked if asked else 0.0}
        for learned in (self.model, self.foresight):
            metrics |= {} if learned is None else learned.metrics()
        return metrics

    def state(self) -> State:
        """What the teacher, the reward model and the value of what follows know."""
        return {
            "teacher": self._teacher.state(),
            "model_teacher": self._model_teacher.state(),
            "model": None if self.model is None else self.model.state(),
            "foresight": None if self.foresight is None else self.foresight.state(),
            "seen": self._seen,
        }

    def restore(self, state: State) -> None:
        """Take back what ``state`` handed out."""
        self._teacher.restore(state["teacher"])
        self._model_teacher.restore(state["model_teacher"])
        if self.model is not None:
            self.model.restore(state["model"])
        if self.foresight is not None:
            self.foresight.restore(state["foresight"])
        self._seen = state["seen"]

    def _judged(self, model: RewardEnsemble, collected: Collected) -> JudgedRewards:
        """What the model says of each segment: of its steps, or, with foresight, of all that follows."""
        rewards = model.judge(collected.window)
        if self.foresight is None:
            return rewards
        worth = self.foresight.judge(collected.window, collected.ends, rewards)
        return JudgedRewards(worth[:, None], np.ones((len(worth), 1), np.float32))

    def _shown(self, collected: Collected) -> Collected:
        """What questions are about: the iteration's pairs of forks, or, for a model, unrelated segments."""
        reward = self._config.reward
        if self._config.algo.labels != "reward_model" or reward.questions != "unrelated":
            return collected
        pairs = matched_at_random(collected.segments.segments, self._rng)
        return replace(cut_short(collected, reward.cut, self._rng), pairs=pairs)

    def _ask(self, collected: Collected, score: Score) -> Preferences:
        """The teacher's answers to the chosen pairs."""
        algo, pairs = self._config.algo, collected.pairs
        if algo.queries is not None and algo.queries < len(pairs):
            chances = None
            if self.model is not None and algo.selection in MODEL_RULES:
                chances = self.model.chances(collected.window, pairs)
            chosen = choose(algo.selection, algo.queries, pairs, collected.window, chances, self._rng)
            pairs = pairs.take(chosen)
        against = score(collected.segments, pairs) if self._teacher.needs_score else None
        return self._teacher.answer(pairs, collected.judged, against)

    def _rank(self, collected: Collected) -> Rankings:
        """The teacher's rankings of all segments of the chosen prompts."""
        rows = np.arange(collected.segments.segments).reshape(-1, collected.segments.forks)
        queries = self._config.algo.queries
        if queries is not None and queries < len(rows):
            rows = rows[np.sort(self._rng.choice(len(rows), queries, replace=False))]
        return self._teacher.rank(rows, collected.judged)


def none_of(answers: Preferences) -> Preferences:
    """No answers."""
    return Preferences(answers.pairs.head(0), answers.label[:0])


def cut_short(collected: Collected, share: float, rng: np.random.Generator) -> Collected:
    """The same behaviour with a share of the windows cut after a random number of steps, 1 to L - 1.

    Between segments of one length a constant added to every reward cancels, and no answer tells it. Yet it
    says what a step more of life is worth, and so whether to fear the end of an episode. Of a long segment
    and a short one the constant decides.
    """
    count, steps = collected.window.mask.shape
    if share == 0 or steps < 2:
        return collected
    lengths = np.where(rng.random(count) < share, rng.integers(1, steps, count), steps)
    kept = (np.arange(steps) < lengths[:, None]).astype(np.float32)
    window, judged = collected.window, collected.judged
    return replace(
        collected,
        window=replace(window, mask=window.mask * kept),
        judged=JudgedRewards(judged.rewards * kept, judged.mask * kept),
    )


def matched_at_random(segments: int, rng: np.random.Generator) -> Pairs:
    """Each of the segments in one pair at most, with any other: as a rule two of different prompts."""
    order = rng.permutation(segments)
    half = segments // 2
    return Pairs(order[:half], order[half : 2 * half], np.arange(half))
