"""Sessions with the teacher, every so many env steps, about windows of what was done lately.

The loop of PEBBLE (Lee et al. 2021, arXiv 2106.05091) as B-Pref has it (Lee et al. 2021, arXiv 2111.03026):
the teacher is shown pairs of windows, those among many candidates on which an ensemble of rewards disagrees,
and the ensemble is fitted to all answers so far.

True rewards are remembered for the teacher alone; what leaves for a learner is the learned reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from sailctl.config import OracleConfig, RewardConfig
from sailctl.core.seeding import Generators
from sailctl.core.state import State
from sailctl.core.types import DoubleArray, EnvSpec, FloatArray, IntArray, Pairs, SegmentBatch, Transitions
from sailctl.data.history import History
from sailctl.preferences.asker import Asker, cut_short
from sailctl.preferences.reward import RewardEnsemble

CANDIDATES = 10
"""Pairs of windows drawn for each one that is asked about, where a rule chooses (B-Pref: ``large_batch``)."""


@dataclass(frozen=True)
class Schedule:
    """When the teacher is asked, in env steps, and how much."""

    learning_starts: int
    """Env steps at which the first session comes, or once there is a window to ask about."""
    initial_queries: int
    """Questions of the first session."""
    query_interval: int
    """Env steps from one session to the next."""
    queries: int
    """Questions of every later session."""


class Sessions(Asker):
    """Remembers what a policy does in N environments, and asks about windows of it until the budget is spent.

    The questions of the first session are drawn uniformly, as B-Pref's are: nothing was learned that could
    choose. The ensemble is fitted to all answers so far after each session.

    Args:
        oracle: the teacher, with its budget.
        reward: widths, members and fit of the ensemble.
        schedule: when it is asked, and how much.
        selection: rule of ``choose`` from the second session on.
        window: control steps of a window that the teacher judges.
        history: where what is done is remembered, and windows are drawn from.
        spec: the task.
        generators: of the run; whoever made them keeps their state.
        bounded: whether learned rewards are from -1 to 1.
        cut: share of the windows in questions that are cut to a random length; 0 draws nothing.
        recent: env steps, the latest, that the windows of every second question are drawn from, so that the
            reward tells apart what the policy does now; None: all are drawn from all that the history holds.
    """

    def __init__(
        self,
        oracle: OracleConfig,
        reward: RewardConfig,
        schedule: Schedule,
        *,
        selection: str,
        window: int,
        history: History,
        spec: EnvSpec,
        generators: Generators,
        bounded: bool,
        cut: float = 0.0,
        recent: int | None = None,
    ) -> None:
        self._ensemble = RewardEnsemble(reward, spec.obs_dim, spec.act_dim, generators.ensemble, bounded)
        super().__init__(oracle, spec, generators, self._ensemble)
        self.history = history
        """What was done lately."""
        self._schedule, self._selection = schedule, selection
        self._window, self._cut = window, cut
        self._rows = None if recent is None else max(window, -(-recent // history.envs))
        """``recent`` in control steps of each environment, a window at least."""
        self._returns = np.zeros(history.envs)
        self._next = schedule.learning_starts

    @property
    def learned(self) -> bool:
        """Whether a reward was learned: the teacher has answered."""
        return self._teacher.labels > 0

    @property
    def spent(self) -> bool:
        """Whether there will be no more sessions: the label budget is spent."""
        return self._teacher.spent

    def remember(self, transitions: Transitions, rewards: DoubleArray) -> None:
        """One control step of all N environments, and its true rewards (N,), for the teacher alone."""
        self.history.add(transitions, rewards)
        self._returns += rewards
        self._teacher.observe_episodes(self._returns[transitions.ended])
        self._returns[transitions.ended] = 0.0

    def end_episodes(self) -> None:
        """All environments are reset: no window may go on, and no return of an unfinished episode counts."""
        self.history.end_episodes()
        self._returns[:] = 0.0

    def due(self, env_steps: int) -> bool:
        """Whether it is time for a session: labels are left, and there is something to ask about."""
        due = env_steps >= self._next and not self.spent
        return due and len(self.history.starts(self._window)) > 0

    def hold(self, env_steps: int) -> None:
        """Hold a session: draw candidates, choose among them, ask, and fit the ensemble to all answers."""
        count = self._schedule.queries if self.learned else self._schedule.initial_queries
        if self._teacher.remaining is not None:
            count = min(count, self._teacher.remaining)
        rule = self._selection if self.learned else "uniform"
        candidates = count if rule == "uniform" else CANDIDATES * count
        windows = self.history.windows(self._draw(candidates), self._window)
        segments, judged = cut_short(*windows, self._cut, self._rng)
        places = np.arange(candidates)
        pairs = Pairs(2 * places, 2 * places + 1, places)
        self._ask(segments, judged, pairs, count, rule, partial(self._score, segments))
        self._next = env_steps + self._schedule.query_interval

    def rewards(self, obs: FloatArray, actions: FloatArray) -> FloatArray:
        """(N,) learned rewards of actions (N, A) in observations (N, O); 0 before any answer.

        Raises:
            NonFiniteError: when an observation, an action or a reward is NaN or infinite.
        """
        if not self.learned:
            return np.zeros(len(obs), np.float32)
        steps = SegmentBatch(obs[:, None], actions[:, None], np.ones((len(obs), 1), np.float32), forks=1)
        return self._ensemble.judge(steps).rewards[:, 0].astype(np.float32)

    def rewards_of_all(self) -> FloatArray:
        """(M,) learned rewards of all steps that are remembered, in the order of ``History.places``.

        Raises:
            NonFiniteError: when an observation, an action or a reward is NaN or infinite.
        """
        steps = self.history.transitions(self.history.places())
        return self.rewards(steps.obs, steps.actions)

    def state(self) -> State:
        """Teacher, reward, and when the next session is; the history is kept by whoever made it."""
        return super().state() | {"returns": self._returns, "next": self._next}

    def restore(self, state: State) -> None:
        """Take back what ``state`` handed out."""
        super().restore(state)
        self._returns, self._next = state["returns"], state["next"]

    def _draw(self, pairs: int) -> IntArray:
        """(2 * pairs, 2) places where windows start, two after two of a pair."""
        starts = self.history.starts(self._window)
        drawn = starts[self._rng.integers(len(starts), size=(pairs, 2))]
        if self._rows is not None:
            latest = self.history.starts(self._window, self._rows)
            if len(latest):  # none where each of the latest episodes is shorter than a window
                drawn[::2] = latest[self._rng.integers(len(latest), size=drawn[::2].shape[:2])]
        return drawn.reshape(-1, 2)

    def _score(self, segments: SegmentBatch, pairs: Pairs) -> FloatArray:
        """(B,) what an adversary works against: the difference of learned returns, the learner's own view."""
        returns = self._ensemble.judge(segments).returns
        return (returns[pairs.first] - returns[pairs.second]).astype(np.float32)
