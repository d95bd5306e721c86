"""Questions about the segments of an iteration, and the labels that its learner gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from sailctl.config import Config, OracleConfig
from sailctl.core.seeding import Generators
from sailctl.core.state import State
from sailctl.core.types import (
    EnvSpec,
    FloatArray,
    JudgedRewards,
    Metrics,
    Pairs,
    PreferenceData,
    Preferences,
    Rankings,
    SegmentBatch,
)
from sailctl.data.rollout import Collected
from sailctl.preferences.asker import Asker, cut_short
from sailctl.preferences.oracle import Teacher
from sailctl.preferences.reward import RewardEnsemble
from sailctl.preferences.value import SegmentValue

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


class Labeller(Asker):
    """Puts questions about an iteration's segments to the teacher, and hands out an algorithm's labels."""

    def __init__(
        self, config: Config, spec: EnvSpec, generators: Generators, data: PreferenceData | None
    ) -> None:
        algo, reward, model = config.algo, config.reward, None
        if algo.models_reward:
            model = RewardEnsemble(reward, spec.obs_dim, spec.act_dim, generators.ensemble, reward.bounded)
        super().__init__(config.oracle, spec, generators, model)
        self._config = config
        self._data = data
        self._seen = 0
        """Env steps that were collected so far."""
        self.value: SegmentValue | None = None
        """The value of what follows under the learned reward, where the labels count it."""
        if model is not None and algo.labels == "reward_model" and reward.value_horizon > 0:
            self.value = SegmentValue(reward, spec, generators.value)
        model_oracle = replace(TRUTHFUL, inverse_temperature=reward.inverse_temperature)
        self._model_teacher = Teacher(model_oracle, generators.labels, spec.horizon)

    @property
    def labels(self) -> int:
        """The teacher's answers so far, those recorded in the data set included."""
        return super().labels + (0 if self._data is None else len(self._data))

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
        algo = self._config.algo
        if algo.labels == "policy":
            return collected.pairs
        self._teacher.observe_episodes(collected.episode_returns)
        if self._config.rollout.pairing == "ranked":
            return self._rank(collected)
        shown, against = self._shown(collected), partial(score, collected.segments)
        answers = self._ask(shown.window, shown.judged, shown.pairs, algo.queries, algo.selection, against)
        if self.model is None or algo.labels != "reward_model":
            return answers
        given = self._model_teacher.answer(collected.pairs, self._judged(self.model, collected))
        self._seen += collected.env_steps
        return given if self._seen > self._config.reward.start else none_of(given)

    def metrics(self) -> Metrics:
        """Those of every asker, and how well the value of what follows is known."""
        return super().metrics() | ({} if self.value is None else self.value.metrics())

    def state(self) -> State:
        """What the teacher, the reward model and the value of what follows know."""
        return super().state() | {
            "model_teacher": self._model_teacher.state(),
            "value": None if self.value is None else self.value.state(),
            "seen": self._seen,
        }

    def restore(self, state: State) -> None:
        """Take back what ``state`` handed out."""
        super().restore(state)
        self._model_teacher.restore(state["model_teacher"])
        if self.value is not None:
            self.value.restore(state["value"])
        self._seen = state["seen"]

    def _judged(self, model: RewardEnsemble, collected: Collected) -> JudgedRewards:
        """What the model says of each segment: of its steps, or, with a value, of all that follows."""
        rewards = model.judge(collected.window)
        if self.value is None:
            return rewards
        worth = self.value.judge(collected.window, collected.ends, rewards)
        return JudgedRewards(worth[:, None], np.ones((len(worth), 1), np.float32))

    def _shown(self, collected: Collected) -> Collected:
        """What questions are about: the iteration's pairs of forks, or, for a model, unrelated segments."""
        reward = self._config.reward
        if self._config.algo.labels != "reward_model" or reward.questions != "unrelated":
            return collected
        pairs = matched_at_random(collected.segments.segments, self._rng)
        window, judged = cut_short(collected.window, collected.judged, reward.cut, self._rng)
        return replace(collected, window=window, judged=judged, pairs=pairs)

    def _rank(self, collected: Collected) -> Rankings:
        """The teacher's rankings of all segments of the chosen prompts."""
        rows = np.arange(collected.segments.segments).reshape(-1, collected.segments.forks)
        queries = self._config.algo.queries
        if queries is not None and queries < len(rows):
            rows = rows[np.sort(self._rng.choice(len(rows), queries, replace=False))]
        return self._teacher.rank(rows, collected.judged)


def matched_at_random(segments: int, rng: np.random.Generator) -> Pairs:
    """Each of the segments in one pair at most, with any other: as a rule two of different prompts."""
    order = rng.permutation(segments)
    half = segments // 2
    return Pairs(order[:half], order[half : 2 * half], np.arange(half))


def none_of(answers: Preferences) -> Preferences:
    """No answers."""
    return Preferences(answers.pairs.head(0), answers.label[:0])
