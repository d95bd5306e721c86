"""Synthetic teachers: true segment returns in, preferences out. The label budget lives here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sailctl.config import OracleConfig
from sailctl.types import DoubleArray, JudgedRewards, Pairs, Preferences, RunError


class Teacher:
    """Answers which segment of a pair has the higher true return, and counts every answer.

    ``oracle`` always names the higher return. ``stochastic`` follows Bradley-Terry:
    P(first preferred) = sigmoid(inverse_temperature * (return of first - return of second)), on raw
    returns [B-Pref, Lee et al. 2021, the rational teacher]. Returns that differ by no more than
    ``tie_margin`` are a tie for either of them.
    """

    def __init__(self, config: OracleConfig, rng: np.random.Generator) -> None:
        self._config = config
        self._rng = rng
        self.labels = 0
        """Answers given so far."""

    @property
    def remaining(self) -> int | None:
        """Answers left in the budget; None without a budget."""
        budget = self._config.budget
        return None if budget is None else budget - self.labels

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self.remaining == 0

    def answer(self, pairs: Pairs, judged: JudgedRewards) -> Preferences:
        """Labels for the pairs, or for the first of them where the budget ends among them.

        Raises:
            RunError: when a return is NaN or infinite: no answer would mean anything.
        """
        if self.remaining is not None:
            pairs = pairs.head(self.remaining)
        returns = judged.returns
        if not np.isfinite(returns).all():
            raise RunError(f"the true return of {(~np.isfinite(returns)).sum()} segments is not finite")
        label = self._label(returns[pairs.first] - returns[pairs.second])
        self.labels += len(pairs)
        return Preferences(pairs, label)

    def _label(self, difference: DoubleArray) -> NDArray[np.float32]:
        if self._config.teacher == "stochastic":
            chance = bradley_terry(difference, self._config.inverse_temperature)
            label = np.where(self._rng.random(len(difference)) < chance, 1.0, -1.0)
        else:
            label = np.sign(difference)
        return np.where(np.abs(difference) <= self._config.tie_margin, 0.0, label).astype(np.float32)


def bradley_terry(difference: DoubleArray, inverse_temperature: float) -> DoubleArray:
    """(B,) P(first preferred) = sigmoid(inverse_temperature * difference), without overflow."""
    chance: DoubleArray = 0.5 * (1.0 + np.tanh(0.5 * inverse_temperature * difference))
    return chance
