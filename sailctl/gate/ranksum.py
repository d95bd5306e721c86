"""Exact rank-sum test for scores lower than a baseline's, its false-alarm rate and its power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import rankdata

from sailctl.analysis.evidence import Trial
from sailctl.analysis.statistics import Estimate, difference, proportion
from sailctl.core.types import DoubleArray

DRAWS = 4_000
"""Number of simulated gate runs for the false-alarm rate."""
POWER, POWER_DRAWS, POWER_STEP = 0.8, 1_000, 0.025
"""Power at the smallest detected drop, simulated gate runs per drop, and step between drops."""


@dataclass(frozen=True)
class Operating:
    """Operating characteristics of the test."""

    false_alarms: Estimate
    """Share of simulated gate runs without a change that fail, with its interval."""
    caught: float
    """Smallest drop detected with power ``POWER``, as a share of the gain in training; inf if none is."""


def scores_of(trials: Sequence[Trial]) -> DoubleArray:
    """(n,) final scores; minus infinity for a run that did not finish."""
    return np.array([trial.final if trial.finished else -math.inf for trial in trials])


def worse_p(now: DoubleArray, baseline: DoubleArray) -> float:
    """Exact one-sided p-value: probability of a rank sum at most this low under all relabellings.

    Tied scores get their mean rank; the null distribution is that of the observed ranks.
    """
    doubled = np.rint(2 * rankdata(np.concatenate([now, baseline]))).astype(int)
    below = _rank_sums(tuple(sorted(doubled)), len(now))
    return float(below[doubled[: len(now)].sum()])


@cache
def _rank_sums(ranks: tuple[int, ...], size: int) -> DoubleArray:
    """Probability that ``size`` ranks drawn without replacement sum to at most 0, 1, 2, ..."""
    ways = np.zeros((size + 1, sum(ranks) + 1))
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank]
    below = np.cumsum(ways[size])
    return np.asarray(below / below[-1])


def mean_difference(now: DoubleArray, baseline: DoubleArray, floor: float) -> Estimate:
    """Mean of ``now`` minus mean of ``baseline``, with its interval; a failed run is scored as ``floor``."""
    arms = [np.where(np.isfinite(scores), scores, floor) for scores in (now, baseline)]
    return difference(arms[:1], arms[1:])


def too_few(gate: int, baseline: int, alpha: float) -> str | None:
    """An error message if the test can never fail at ``alpha`` with so few seeds, else None."""
    if gate < 1 or baseline <= gate or math.comb(baseline, gate) * alpha < 1:
        return (
            f"{gate} seeds of the gate and {baseline} of the baseline cannot reach alpha={alpha:g}; "
            "use more seeds"
        )
    return None


def operating(baseline: DoubleArray, gate_seeds: int, alpha: float, gain: float) -> Operating:
    """False-alarm rate and smallest detected drop, by simulation from the scores of the baseline.

    Each simulated gate draws ``gate_seeds`` of the scores and tests them against the others. For the power,
    a share of ``gain`` is subtracted from the drawn scores. The others are fewer than the whole baseline, so
    the true power is slightly higher.
    """
    count = _alarms(baseline, gate_seeds, alpha, 0.0, DRAWS)
    for step in range(1, round(1 / POWER_STEP) + 1):
        share = step * POWER_STEP
        if _alarms(baseline, gate_seeds, alpha, share * gain, POWER_DRAWS) >= POWER * POWER_DRAWS:
            return Operating(proportion(count, DRAWS), share)
    return Operating(proportion(count, DRAWS), math.inf)


def _alarms(baseline: DoubleArray, size: int, alpha: float, drop: float, draws: int) -> int:
    """The number of ``draws`` simulated gate runs with scores lowered by ``drop`` in which the test fails."""
    m, rng = len(baseline), np.random.default_rng(0)
    orders = rng.permuted(np.broadcast_to(np.arange(m), (draws, m)), axis=1)
    now, others = baseline[orders[:, :size], None] - drop, baseline[orders[:, None, size:]]
    doubled_wins = 2 * (now > others).sum(axis=(1, 2)) + (now == others).sum(axis=(1, 2))
    below = _rank_sums(tuple(range(2, 2 * m + 1, 2)), size)
    return int((below[doubled_wins + size * (size + 1)] <= alpha).sum())
