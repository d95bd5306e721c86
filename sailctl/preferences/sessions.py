"""Sessions with the teacher at intervals of env steps, about windows of recent behaviour.

The loop of PEBBLE (Lee et al. 2021, arXiv 2106.05091) as in B-Pref (Lee et al. 2021, arXiv 2111.03026): the
teacher compares pairs of windows, selected from many candidates by the disagreement of a reward ensemble, and
the ensemble is fitted to all answers so far.

True rewards are stored for the teacher only; a learner gets the learned reward.
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
"""Candidate pairs per query, when a rule selects the queries (B-Pref: ``large_batch``)."""


@dataclass(frozen=True)
class Schedule:
    """Times of the sessions, in env steps, and their numbers of queries."""

    learning_starts: int
    """Env steps before the first session, which also requires a complete window."""
    initial_queries: int
    """Number of queries in the first session."""
    query_interval: int
    """Env steps between sessions."""
    queries: int
    """Number of queries in each later session."""


class Sessions(Asker):
    """Stores the behaviour of a policy in N environments and queries about windows of it, within the budget.

    The queries of the first session are drawn uniformly, as in B-Pref, before any reward is learned.
    After each session the ensemble is fitted to all answers so far.

    Args:
        oracle: the teacher, with its budget.
        reward: widths, members and fit of the ensemble.
        schedule: times and sizes of the sessions.
        selection: selection rule of ``choose``, from the second session on.
        window: length of a window in control steps.
        history: storage of the behaviour, from which windows are drawn.
        spec: the task.
        generators: of the run; their owner keeps their state.
        bounded: limit learned rewards to [-1, 1].
        cut: share of the queried windows that are truncated to a random length; 0 draws no random number.
        recent: the first window of each query is drawn from this number of latest env steps, the second from
            the whole history, so that the answers tell whether behaviour has become better or worse; None
            draws both from the whole history.
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
        """The stored behaviour."""
        self._schedule, self._selection = schedule, selection
        self._window, self._cut = window, cut
        self._rows = None if recent is None else max(window, -(-recent // history.envs))
        """``recent`` in control steps per environment, at least a window; None without ``recent``."""
        self._returns = np.zeros(history.envs)
        self._next = schedule.learning_starts

    @property
    def learned(self) -> bool:
        """Whether a reward has been learned, that is, the teacher has answered."""
        return self._teacher.labels > 0

    @property
    def spent(self) -> bool:
        """Whether the label budget is spent, so that no more sessions follow."""
        return self._teacher.spent

    def remember(self, transitions: Transitions, rewards: DoubleArray) -> None:
        """Store one control step of all N environments, with its true rewards (N,) for the teacher.

        Raises:
            RunError: when the true return of a finished episode is NaN or infinite.
        """
        self.history.add(transitions, rewards)
        self._returns += rewards
        self._teacher.observe_episodes(self._returns[transitions.ended])
        self._returns[transitions.ended] = 0.0

    def end_episodes(self) -> None:
        """Record a reset of all environments: windows do not span it, and partial returns are discarded."""
        self.history.end_episodes()
        self._returns[:] = 0.0

    def due(self, env_steps: int) -> bool:
        """Whether a session is due: its time has come, labels remain, and the history holds a window."""
        due = env_steps >= self._next and not self.spent
        return due and len(self.history.starts(self._window)) > 0

    def hold(self, env_steps: int) -> None:
        """Hold a session: draw candidates, select queries, query the teacher, and fit the ensemble.

        Raises:
            RunError: when a true return is NaN or infinite.
            NonFiniteError: when the ensemble is NaN or infinite.
        """
        count = self._schedule.queries if self.learned else self._schedule.initial_queries
        if self._teacher.remaining is not None:
            count = min(count, self._teacher.remaining)
        rule = self._selection if self.learned else "uniform"
        candidates = count if rule == "uniform" else CANDIDATES * count
        windows = self.history.windows(self._draw(candidates), self._window)
        segments, judged = cut_short(*windows, self._cut, self._rng)
        index = np.arange(candidates)
        pairs = Pairs(2 * index, 2 * index + 1, index)
        self._query(segments, judged, pairs, count, rule, partial(self._score, segments))
        self._next = env_steps + self._schedule.query_interval

    def rewards(self, obs: FloatArray, actions: FloatArray) -> FloatArray:
        """(N,) learned rewards of actions (N, A) in observations (N, O); 0 before the first answer.

        Raises:
            NonFiniteError: when an observation, an action or a reward is NaN or infinite.
        """
        if not self.learned:
            return np.zeros(len(obs), np.float32)
        steps = SegmentBatch(obs[:, None], actions[:, None], np.ones((len(obs), 1), np.float32), forks=1)
        return self._ensemble.judge(steps).rewards[:, 0].astype(np.float32)

    def rewards_of_all(self) -> FloatArray:
        """(M,) learned rewards of all M stored steps, in the order of ``History.places``.

        Raises:
            NonFiniteError: when an observation, an action or a reward is NaN or infinite.
        """
        steps = self.history.transitions(self.history.places())
        return self.rewards(steps.obs, steps.actions)

    def state(self) -> State:
        """State of the teacher, the reward and the schedule; the owner of the history keeps its state."""
        return super().state() | {"returns": self._returns, "next": self._next}

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        super().restore(state)
        self._returns, self._next = state["returns"], state["next"]

    def _draw(self, pairs: int) -> IntArray:
        """(2 * pairs, 2) places of the starts of windows; rows 2i and 2i + 1 form pair i."""
        starts = self.history.starts(self._window)
        drawn = starts[self._rng.integers(len(starts), size=(pairs, 2))]
        if self._rows is not None:
            latest = self.history.starts(self._window, self._rows)
            if len(latest):  # empty if all recent episodes are shorter than a window
                drawn[:, 0] = latest[self._rng.integers(len(latest), size=pairs)]
        return drawn.reshape(-1, 2)

    def _score(self, segments: SegmentBatch, pairs: Pairs) -> FloatArray:
        """(B,) the learner's score for an adversarial teacher: the difference of learned returns."""
        returns = self._ensemble.judge(segments).returns
        return (returns[pairs.first] - returns[pairs.second]).astype(np.float32)
