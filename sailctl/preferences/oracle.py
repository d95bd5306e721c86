"""Synthetic teachers: turn true rewards of segments into preferences or rankings, and keep the label budget.

One teacher has a parameter for each kind of error, applied in the order of B-Pref (Lee et al. 2021, arXiv
2111.03026: the simulated human teacher). With R the return of a judged window of L steps, T the time limit
of an episode, and dR the R of the first segment minus that of the second:

1. a threshold is a share of the mean return of a window, eps * (mean of the last 10 episode returns) * L/T;
2. a pair is skipped if the better R is not above the ``skip`` threshold;
3. a pair is a tie if |dR| is below the ``equal`` threshold;
4. rewards are discounted by discount^(L - 1 - t), so that the last steps count most; below, R is discounted;
5. P(first preferred) = sigmoid(inverse_temperature * dR), or, without a temperature, the higher R wins;
6. an adversary moves P by ``rho`` against the policy (Li et al. 2026, arXiv 2602.20457: pointwise bounded
   perturbation of the oracle);
7. the answer is drawn, flipped with probability ``mistake``, and replaced by 0 if the pair is a tie.

``docs/teachers.md`` explains the choices and the differences from the public code.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from sailctl.config import OracleConfig
from sailctl.core.state import State
from sailctl.core.types import (
    BoolArray,
    DoubleArray,
    FloatArray,
    IntArray,
    JudgedRewards,
    Pairs,
    Preferences,
    Rankings,
    RunError,
)

EPISODES = 10
"""Number of latest episodes whose mean return scales the thresholds (as in B-Pref)."""


class Teacher:
    """Answers which segment is better and counts every answer.

    The random numbers that it draws depend on the queries only, not on ``config`` or the answers: teachers
    can be compared query by query.

    Args:
        config: the parameters of the teacher, and the label budget.
        rng: source of the answers' randomness.
        horizon: T, the control steps of an episode.
    """

    def __init__(self, config: OracleConfig, rng: np.random.Generator, horizon: int) -> None:
        self._config = config
        self._rng = rng
        self._horizon = horizon
        self._episodes: deque[float] = deque(maxlen=EPISODES)
        self._had_thresholds = False
        self._squares, self._differences = 0.0, 0
        self.labels = 0
        """Number of labels given so far: one per pair, K - 1 per ranking of K segments."""
        self.skipped = 0
        """Number of labels of the skipped queries so far, counted in the same way."""
        self.spent = False
        """Whether the budget is too small for another query of the last kind."""

    @property
    def remaining(self) -> int | None:
        """Labels left in the budget; None without a budget."""
        budget = self._config.budget
        return None if budget is None else budget - self.labels

    @property
    def needs_score(self) -> bool:
        """Whether ``answer`` requires ``score``: the teacher is adversarial."""
        return self._config.rho > 0

    def state(self) -> State:
        """Counts, returns of the latest episodes, and the running scale of return differences."""
        return {
            "labels": self.labels,
            "skipped": self.skipped,
            "spent": self.spent,
            "episodes": list(self._episodes),
            "had_thresholds": self._had_thresholds,
            "squares": self._squares,
            "differences": self._differences,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self.labels, self.skipped, self.spent = state["labels"], state["skipped"], state["spent"]
        self._episodes = deque(state["episodes"], maxlen=EPISODES)
        self._had_thresholds = state["had_thresholds"]
        self._squares, self._differences = state["squares"], state["differences"]

    def observe_episodes(self, returns: DoubleArray) -> None:
        """Record the true returns (E,) of finished episodes, in the order of their ends.

        Raises:
            RunError: when a return is NaN or infinite.
        """
        _refuse_non_finite(returns, "episodes")
        self._episodes.extend(returns.tolist())

    def answer(self, pairs: Pairs, judged: JudgedRewards, score: FloatArray | None = None) -> Preferences:
        """Labels for the pairs; skipped pairs and those beyond the budget are left out.

        Args:
            pairs: the B queries, in this order.
            judged: (S, L) true rewards of the segments.
            score: (B,) h_theta of each pair, positive if the policy favours the first; required if rho > 0.

        Returns:
            Answers of +1 (first preferred), -1 (second preferred) or 0 (tie).

        Raises:
            RunError: when a return is NaN or infinite.
            ValueError: when ``score`` is required and missing.
        """
        if self.needs_score and score is None:
            raise ValueError("oracle.rho > 0 needs the score of each pair")
        returns = judged.returns
        _refuse_non_finite(returns, "segments")
        skip, equal = self._thresholds(judged)
        draws = self._rng.random((len(pairs), 2))

        answered = self._answered(returns[np.stack([pairs.first, pairs.second], axis=1)], skip)
        pairs, draws = pairs.take(answered), draws[answered]
        discounted = self._discounted_returns(judged)
        difference = discounted[pairs.first] - discounted[pairs.second]
        probability = self._probability(difference)
        if score is not None:
            # No clipping to [0, 1] is needed: draws from [0, 1) are always or never below a value outside.
            probability = probability - self._config.rho * np.sign(score[answered].astype(np.float64))
        mistaken = draws[:, 1] < self._config.mistake
        label = np.where((draws[:, 0] < probability) != mistaken, 1.0, -1.0)
        label[self._ties(returns[pairs.first] - returns[pairs.second], difference, equal)] = 0.0
        return Preferences(pairs, label.astype(np.float32))

    def rank(self, rows: IntArray, judged: JudgedRewards) -> Rankings:
        """Rankings of groups of K segments; skipped groups and those beyond the budget are left out.

        The best of K is chosen with probability softmax(inverse_temperature * R), then the best of the rest,
        and so on (Plackett 1975, Luce 1959). Sorting R plus Gumbel noise draws this order (Yellott 1977).
        For K = 2 the distribution is that of ``answer``. Without a temperature higher R come first,
        and equal R in random order.

        Args:
            rows: (G, K) segments of each group.
            judged: (S, L) true rewards of the segments.

        Raises:
            RunError: when a return is NaN or infinite.
        """
        returns = judged.returns
        _refuse_non_finite(returns, "segments")
        skip, _ = self._thresholds(judged)
        noise = self._rng.gumbel(size=rows.shape)

        answered = self._answered(returns[rows], skip)
        rows, noise = rows[answered], noise[answered]
        utility = self._discounted_returns(judged)[rows]
        if self._config.inverse_temperature is not None:
            first, second = np.triu_indices(rows.shape[1], 1)
            scale = self._scale(utility[:, first] - utility[:, second])
            utility = self._config.inverse_temperature * utility / scale + noise
        order = np.lexsort((noise, -utility))
        return Rankings(rows[np.arange(len(rows))[:, None], order])

    def _thresholds(self, judged: JudgedRewards) -> tuple[float, float]:
        """The ``skip`` and ``equal`` thresholds, in units of return; 0 before the first episode has ended.

        The public training loop of B-Pref multiplies the shares in twice from the second session on, which
        ``bpref_compat`` reproduces.
        """
        mean = math.fsum(self._episodes) / max(len(self._episodes), 1)
        window = mean * judged.rewards.shape[1] / self._horizon
        power = 2 if self._config.bpref_compat and self._had_thresholds else 1
        self._had_thresholds = len(self._episodes) > 0
        return self._config.skip**power * window, self._config.equal**power * window

    def _answered(self, returns: DoubleArray, skip: float) -> BoolArray:
        """(Q,) which queries are answered, given the returns (Q, K) of their segments; counts their labels.

        A query is made while the budget suffices for its answer, and skipped if no return exceeds ``skip``.
        """
        labels_per_query = returns.shape[1] - 1
        above_skip = returns.max(axis=1) > (skip if skip > 0 else -np.inf)
        affordable: BoolArray = np.full(len(above_skip), True)
        if self.remaining is not None:
            answers_before = np.cumsum(above_skip) - above_skip
            affordable = labels_per_query * (answers_before + 1) <= self.remaining
        answered: BoolArray = affordable & above_skip
        self.labels += labels_per_query * int(answered.sum())
        self.skipped += labels_per_query * int((affordable & ~above_skip).sum())
        self.spent = self.remaining is not None and self.remaining < labels_per_query
        return answered

    def _discounted_returns(self, judged: JudgedRewards) -> DoubleArray:
        """(S,) discounted returns, in which the last step of the window counts most."""
        steps = judged.rewards.shape[1]
        weights = self._config.discount ** np.arange(steps - 1, -1, -1)
        total: DoubleArray = (judged.rewards * weights).sum(axis=1)
        return total

    def _probability(self, difference: DoubleArray) -> DoubleArray:
        """(B,) P(first preferred) given the differences of returns (B,), without adversary and mistakes."""
        if self._config.inverse_temperature is None:
            # Of equal returns the first is preferred, as by argmax.
            probability: DoubleArray = np.heaviside(difference, 1.0)
            return probability
        return bradley_terry(
            difference / self._scale(difference), inverse_temperature=self._config.inverse_temperature
        )

    def _scale(self, difference: DoubleArray) -> float:
        """The divisor of differences of returns: 1, or their running standard deviation.

        The order of the segments in a pair is arbitrary, so the differences have mean 0, and their standard
        deviation is the root mean square of all differences so far.
        """
        if not self._config.normalise:
            return 1.0
        self._squares += float(np.square(difference).sum())
        self._differences += difference.size
        return math.sqrt(self._squares / self._differences) if self._squares > 0 else 1.0

    def _ties(self, undiscounted: DoubleArray, difference: DoubleArray, equal: float) -> BoolArray:
        """(B,) which pairs are ties.

        ``equal`` applies to undiscounted returns, as in B-Pref, and ``tie_margin`` to discounted returns.
        """
        config = self._config
        tie: BoolArray = np.abs(undiscounted) < equal
        if config.bpref_compat and config.tie_margin == 0:
            return tie
        return tie | (np.abs(difference) <= config.tie_margin)


def bradley_terry(difference: DoubleArray, inverse_temperature: float) -> DoubleArray:
    """(B,) P(first preferred) = sigmoid(inverse_temperature * difference), without overflow."""
    probability: DoubleArray = 0.5 * (1.0 + np.tanh(0.5 * inverse_temperature * difference))
    return probability


def _refuse_non_finite(returns: DoubleArray, subject: str) -> None:
    bad = int((~np.isfinite(returns)).sum())
    if bad:
        raise RunError(f"the true returns of {bad} {subject} are not finite")
