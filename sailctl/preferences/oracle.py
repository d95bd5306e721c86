"""Synthetic teachers: true rewards of segments in, preferences or rankings out. The label budget lives here.

One teacher with a knob for each way of being wrong, in the order of B-Pref (Lee et al. 2021, arXiv
2111.03026: the simulated human teacher). With R the return of a judged window of L steps, T the time limit
of an episode, and dR the R of the first segment minus that of the second:

1. a threshold is a share of what an average window earns, eps * (mean of the last 10 episode returns) * L/T;
2. a pair is skipped where the better R is not above the ``skip`` threshold;
3. a pair is a tie where |dR| is below the ``equal`` threshold;
4. rewards are weighed by discount^(L - 1 - t), so that the last steps count most; from here on R is weighed;
5. P(first preferred) = sigmoid(inverse_temperature * dR), or the higher R where there is no temperature;
6. an adversary moves P by ``rho`` against the policy (Li et al. 2026, arXiv 2602.20457: pointwise bounded
   perturbation of the oracle);
7. the answer is drawn, flipped with probability ``mistake``, and replaced by 0 where the pair is a tie.

``docs/teachers.md`` explains the choices and what differs from the public code.
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
"""Episodes whose mean return the thresholds are shares of (B-Pref: the last ten of training)."""


class Teacher:
    """Answers which segment is better, as ``config`` has it, and counts every answer.

    ``horizon`` is T, the control steps of an episode. A teacher asked about the same questions draws the same
    random numbers whatever its knobs and its answers are: teachers can be compared question by question.
    """

    def __init__(self, config: OracleConfig, rng: np.random.Generator, horizon: int) -> None:
        self._config = config
        self._rng = rng
        self._horizon = horizon
        self._episodes: deque[float] = deque(maxlen=EPISODES)
        self._had_thresholds = False
        self._squares, self._differences = 0.0, 0
        self.labels = 0
        """Labels given so far: one for a pair, K - 1 for a ranking of K segments."""
        self.skipped = 0
        """Labels that skipped questions would have brought so far, counted in the same way."""
        self.spent = False
        """Whether the budget cannot pay for another question of the kind that was asked last."""

    @property
    def remaining(self) -> int | None:
        """Labels left in the budget; None without a budget."""
        budget = self._config.budget
        return None if budget is None else budget - self.labels

    @property
    def needs_score(self) -> bool:
        """Whether ``answer`` has to be given the scores that an adversary works against."""
        return self._config.rho > 0

    def state(self) -> State:
        """Counts, the last episodes' returns, and what returns are scaled by."""
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
        """Take back what ``state`` handed out."""
        self.labels, self.skipped, self.spent = state["labels"], state["skipped"], state["spent"]
        self._episodes = deque(state["episodes"], maxlen=EPISODES)
        self._had_thresholds = state["had_thresholds"]
        self._squares, self._differences = state["squares"], state["differences"]

    def observe_episodes(self, returns: DoubleArray) -> None:
        """Take note of the true returns (E,) of episodes that have ended, in the order in which they did.

        Raises:
            RunError: when one is NaN or infinite: no threshold would mean anything.
        """
        _refuse_non_finite(returns, "episodes")
        self._episodes.extend(returns.tolist())

    def answer(self, pairs: Pairs, judged: JudgedRewards, score: FloatArray | None = None) -> Preferences:
        """Labels for the pairs, skipped ones and those beyond the budget left out.

        Args:
            pairs: the B questions, asked in this order.
            judged: true rewards of the segments that they name.
            score: (B,) h_theta of each pair, positive where the policy favours the first; only rho needs it.

        Raises:
            RunError: when a return is NaN or infinite: no answer would mean anything.
            ValueError: when the score is missing and needed.
        """
        if self.needs_score and score is None:
            raise ValueError("oracle.rho > 0 needs the score of each pair")
        returns = judged.returns
        _refuse_non_finite(returns, "segments")
        skip, equal = self._thresholds(judged)
        draws = self._rng.random((len(pairs), 2))

        answered = self._admitted(returns[np.stack([pairs.first, pairs.second], axis=1)], skip)
        pairs, draws = pairs.take(answered), draws[answered]
        weighed = self._weighed(judged)
        difference = weighed[pairs.first] - weighed[pairs.second]
        chance = self._chance(difference)
        if score is not None:
            # It may leave [0, 1], which is clipping it: a draw in [0, 1) is below it always or never.
            chance = chance - self._config.rho * np.sign(score[answered].astype(np.float64))
        mistaken = draws[:, 1] < self._config.mistake
        label = np.where((draws[:, 0] < chance) != mistaken, 1.0, -1.0)
        label[self._ties(returns[pairs.first] - returns[pairs.second], difference, equal)] = 0.0
        return Preferences(pairs, label.astype(np.float32))

    def rank(self, rows: IntArray, judged: JudgedRewards) -> Rankings:
        """Orders of groups of segments, skipped groups and those beyond the budget left out.

        The best of K is chosen with probability softmax(inverse_temperature * R), then the best of the rest,
        and so on (Plackett 1975, Luce 1959); all at once by sorting R under Gumbel noise (Yellott 1977). Two
        segments are ranked as ``answer`` prefers them. Without a temperature the higher R comes first, and
        equal ones in random order.

        Args:
            rows: (G, K) segments of each group.
            judged: true rewards of the segments.

        Raises:
            RunError: when a return is NaN or infinite: no answer would mean anything.
        """
        returns = judged.returns
        _refuse_non_finite(returns, "segments")
        skip, _ = self._thresholds(judged)
        noise = self._rng.gumbel(size=rows.shape)

        answered = self._admitted(returns[rows], skip)
        rows, noise = rows[answered], noise[answered]
        utility = self._weighed(judged)[rows]
        if self._config.inverse_temperature is not None:
            one, other = np.triu_indices(rows.shape[1], 1)
            scale = self._scale(utility[:, one] - utility[:, other])
            utility = self._config.inverse_temperature * utility / scale + noise
        order = np.lexsort((noise, -utility))
        return Rankings(rows[np.arange(len(rows))[:, None], order])

    def _thresholds(self, judged: JudgedRewards) -> tuple[float, float]:
        """Returns of ``skip`` and ``equal`` for this session; 0 before the first episode has ended.

        In the public training loop of B-Pref the shares are multiplied in twice from the second session on.
        """
        mean = math.fsum(self._episodes) / max(len(self._episodes), 1)
        window = mean * judged.rewards.shape[1] / self._horizon
        power = 2 if self._config.bpref_compat and self._had_thresholds else 1
        self._had_thresholds = len(self._episodes) > 0
        return self._config.skip**power * window, self._config.equal**power * window

    def _admitted(self, returns: DoubleArray, skip: float) -> BoolArray:
        """(Q,) which questions are answered, given the returns (Q, K) of the segments in each; counts labels.

        A question is asked while the budget can pay for an answer, and skipped when it is not worth one.
        """
        price = returns.shape[1] - 1
        worth = returns.max(axis=1) > (skip if skip > 0 else -np.inf)
        asked: BoolArray = np.full(len(worth), True)
        if self.remaining is not None:
            answers_before = np.cumsum(worth) - worth
            asked = price * (answers_before + 1) <= self.remaining
        answered: BoolArray = asked & worth
        self.labels += price * int(answered.sum())
        self.skipped += price * int((asked & ~worth).sum())
        self.spent = self.remaining is not None and self.remaining < price
        return answered

    def _weighed(self, judged: JudgedRewards) -> DoubleArray:
        """(S,) returns in which the last step of the window counts most."""
        steps = judged.rewards.shape[1]
        weights = self._config.discount ** np.arange(steps - 1, -1, -1)
        total: DoubleArray = (judged.rewards * weights).sum(axis=1)
        return total

    def _chance(self, difference: DoubleArray) -> DoubleArray:
        """(B,) P(first preferred) of the differences, before anybody tampers with it."""
        if self._config.inverse_temperature is None:
            chance: DoubleArray = np.heaviside(difference, 1.0)  # argmax: of equals, the first
            return chance
        return bradley_terry(
            difference / self._scale(difference), inverse_temperature=self._config.inverse_temperature
        )

    def _scale(self, difference: DoubleArray) -> float:
        """What differences of returns are divided by: 1, or their running standard deviation.

        Which segment of a pair comes first means nothing, so each difference stands for both signs: the mean
        is 0, and the standard deviation the root of the mean square of all differences so far.
        """
        if not self._config.normalise:
            return 1.0
        self._squares += float(np.square(difference).sum())
        self._differences += difference.size
        return math.sqrt(self._squares / self._differences) if self._squares > 0 else 1.0

    def _ties(self, undiscounted: DoubleArray, difference: DoubleArray, equal: float) -> BoolArray:
        """(B,) pairs between which the teacher does not choose.

        ``equal`` is about undiscounted returns, as in B-Pref; ``tie_margin`` about those that are compared.
        """
        config = self._config
        tie: BoolArray = np.abs(undiscounted) < equal
        if config.bpref_compat and config.tie_margin == 0:
            return tie
        return tie | (np.abs(difference) <= config.tie_margin)


def bradley_terry(difference: DoubleArray, inverse_temperature: float) -> DoubleArray:
    """(B,) P(first preferred) = sigmoid(inverse_temperature * difference), without overflow."""
    chance: DoubleArray = 0.5 * (1.0 + np.tanh(0.5 * inverse_temperature * difference))
    return chance


def _refuse_non_finite(returns: DoubleArray, what: str) -> None:
    bad = int((~np.isfinite(returns)).sum())
    if bad:
        raise RunError(f"the true return of {bad} {what} is not finite")
