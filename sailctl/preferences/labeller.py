"""Queries about the segments of an iteration, and the labels for the learner."""

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
"""Returns the learner's current score h (B,) of pairs, which an adversarial teacher opposes."""

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
"""A teacher that prefers the higher return; applied to learned rewards it gives a reward model's labels."""


class Labeller(Asker):
    """Queries the teacher about the segments of an iteration and returns the labels of an algorithm.

    Args:
        config: the composed configuration.
        spec: the task.
        generators: of the run; their owner keeps their state.
        data: recorded preferences for the reward model; None without a data set.
    """

    def __init__(
        self, config: Config, spec: EnvSpec, generators: Generators, data: PreferenceData | None
    ) -> None:
        algo, reward, model = config.algo, config.reward, None
        if algo.models_reward:
            model = RewardEnsemble(reward, spec.obs_dim, spec.act_dim, generators.ensemble, reward.bounded)
        super().__init__(config.oracle, spec, generators, model)
        self._config = config
        self._data = data
        self._env_steps = 0
        """Env steps collected so far."""
        self.value: SegmentValue | None = None
        """The value of what follows a segment under the learned reward; None when labels ignore it."""
        if model is not None and algo.labels == "reward_model" and reward.value_horizon > 0:
            self.value = SegmentValue(reward, spec, generators.value)
        model_oracle = replace(TRUTHFUL, inverse_temperature=reward.inverse_temperature)
        self._model_teacher = Teacher(model_oracle, generators.labels, spec.horizon)

    @property
    def labels(self) -> int:
        """Number of labels so far: the teacher's and those in the data set."""
        return super().labels + (0 if self._data is None else len(self._data))

    @property
    def exhausted(self) -> bool:
        """Whether no more labels will come: the teacher is the only source, and its budget is spent."""
        return self._config.algo.labels == "teacher" and self._teacher.spent

    @property
    def left(self) -> float:
        """Remaining share of the label budget; 1 without a budget, or when the teacher gives no labels."""
        budget = self._config.oracle.budget
        if budget is None or self._config.algo.labels != "teacher":
            return 1.0
        return 1.0 - self._teacher.labels / budget

    def learn_from_data(self) -> None:
        """Fit the reward model, if any, to the data set, before the first iteration.

        Raises:
            NonFiniteError: when the model is NaN or infinite afterwards.
        """
        if self.model is not None and self._data is not None:
            self.model.learn(self._data.segments, self._data.preferences)

    def label(self, collected: Collected, score: Score) -> Preferences | Rankings | Pairs:
        """The labels of one iteration; skipped and unqueried pairs are left out.

        Raises:
            RunError: when a true return is NaN or infinite.
            NonFiniteError: when the reward model or the value is NaN or infinite.
        """
        algo = self._config.algo
        if algo.labels == "policy":
            return collected.pairs
        self._teacher.observe_episodes(collected.episode_returns)
        if self._config.rollout.pairing == "ranked":
            return self._rank(collected)
        queried, score_of = self._queried(collected), partial(score, collected.segments)
        answers = self._query(
            queried.window, queried.judged, queried.pairs, algo.queries, algo.selection, score_of
        )
        if self.model is None or algo.labels != "reward_model":
            return answers
        labelled = self._model_teacher.answer(collected.pairs, self._judged(self.model, collected))
        self._env_steps += collected.env_steps
        if self._env_steps > self._config.reward.start:
            return labelled
        return Preferences(labelled.pairs.head(0), labelled.label[:0])

    def metrics(self) -> Metrics:
        """The metrics of ``Asker``, and those of ``value``, if any."""
        return super().metrics() | ({} if self.value is None else self.value.metrics())

    def state(self) -> State:
        """State of the teachers, the reward model and the value."""
        return super().state() | {
            "model_teacher": self._model_teacher.state(),
            "value": None if self.value is None else self.value.state(),
            "seen": self._env_steps,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        super().restore(state)
        self._model_teacher.restore(state["model_teacher"])
        if self.value is not None:
            self.value.restore(state["value"])
        self._env_steps = state["seen"]

    def _judged(self, model: RewardEnsemble, collected: Collected) -> JudgedRewards:
        """Learned rewards (S, H) of the steps; with a value, the lambda-return (S, 1) of each segment."""
        rewards = model.judge(collected.window)
        if self.value is None:
            return rewards
        returns = self.value.judge(collected.window, collected.ends, rewards)
        return JudgedRewards(returns[:, None], np.ones((len(returns), 1), np.float32))

    def _queried(self, collected: Collected) -> Collected:
        """The candidate pairs: the iteration's pairs of forks, or unrelated pairs for a reward model."""
        reward = self._config.reward
        if self._config.algo.labels != "reward_model" or reward.questions != "unrelated":
            return collected
        pairs = matched_at_random(collected.segments.segments, self._rng)
        window, judged = cut_short(collected.window, collected.judged, reward.cut, self._rng)
        return replace(collected, window=window, judged=judged, pairs=pairs)

    def _rank(self, collected: Collected) -> Rankings:
        """The teacher's rankings of the forks of each queried prompt."""
        rows = np.arange(collected.segments.segments).reshape(-1, collected.segments.forks)
        queries = self._config.algo.queries
        if queries is not None and queries < len(rows):
            rows = rows[np.sort(self._rng.choice(len(rows), queries, replace=False))]
        return self._teacher.rank(rows, collected.judged)


def matched_at_random(segments: int, rng: np.random.Generator) -> Pairs:
    """Disjoint random pairs (floor(S / 2)) of the S segments, mostly from different prompts."""
    order = rng.permutation(segments)
    half = segments // 2
    return Pairs(order[:half], order[half : 2 * half], np.arange(half))
