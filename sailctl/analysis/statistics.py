"""Point estimates, 95% intervals and tests for the scores of a few seeds on a few tasks.

A *stratum* is a 1-D array of the scores of one task over seeds. *Strata* are one such array per task; their
lengths may differ. Every score is a finite number: the caller scores a failed seed as the floor and never
drops it. Random draws come from the generator that is passed in: equal inputs give equal numbers.

Intervals and tests refer to one quantity: the mean over tasks of the mean over seeds. ``docs/statistics.md``
gives each formula, its source, and the coverage of its interval.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import special

from sailctl.core.types import BoolArray, DoubleArray, UserError

LEVEL = 0.95
"""Confidence level of every interval."""
SEEDS_OF_A_MEAN = 3
"""Minimum number of seeds per task for the interval of a mean."""
SEEDS_OF_A_SHARE = 5
"""Minimum number of seeds per task for the interval of a probability of improvement or a profile."""
TOO_FEW = "too few seeds for an interval"

Strata = Sequence[DoubleArray]

_TAIL = (1 - LEVEL) / 2
_Z = float(special.ndtri(1 - _TAIL))


@dataclass(frozen=True)
class Estimate:
    """A point estimate and the ends of its 95% interval; nan if undefined."""

    value: float
    low: float
    high: float


def iqm(scores: DoubleArray, axis: int = -1) -> DoubleArray:
    """Interquartile mean (Agarwal et al. 2021): the mean without the floor(n/4) lowest and highest scores.

    It has no interval here, because no interval has sufficient coverage for few seeds.
    """
    from scipy.stats import trim_mean  # slow to load

    return np.asarray(trim_mean(scores, 0.25, axis=axis))


def mean(strata: Strata) -> Estimate:
    """Mean over tasks of the mean over seeds, with Student's t interval.

    The variance is the sum over tasks of s^2/n, divided by the squared number of tasks. Its degrees of
    freedom follow Welch (1938) and Satterthwaite (1946); for one task they are n - 1. With fewer than
    ``SEEDS_OF_A_MEAN`` seeds on a task the ends are nan.

    Raises:
        UserError: for a task without scores, or a score that is not finite.
    """
    arm = _checked(strata)
    return _with_interval(float(np.mean([x.mean() for x in arm])), arm, len(arm))


def difference(ours: Strata, theirs: Strata) -> Estimate:
    """``mean(ours) - mean(theirs)`` of two independent arms, with Welch's interval (see ``mean``).

    Raises:
        UserError: as ``mean``, and if the arms have different numbers of tasks.
    """
    pairs = _tasks(ours, theirs)
    value = float(np.mean([x.mean() - y.mean() for x, y in pairs]))
    return _with_interval(value, [side for pair in pairs for side in pair], len(pairs))


def probability_of_improvement(ours: Strata, theirs: Strata) -> Estimate:
    """Mean over tasks of P(a run of ours scores higher than a run of theirs): U/(nm), a tie counts 1/2.

    The interval is Wilson's, for the number of independent comparisons with the variance of the stratified
    bootstrap (after Mee 1990). It has positive width even if every run wins. With fewer than
    ``SEEDS_OF_A_SHARE`` seeds on a task its ends are nan.
    """
    pairs = _tasks(ours, theirs)
    wins = [(np.sign(x[:, None] - y[None, :]) + 1) / 2 for x, y in pairs]
    share = math.fsum(float(task_wins.mean()) for task_wins in wins) / len(pairs)
    if _fewest(side for pair in pairs for side in pair) < SEEDS_OF_A_SHARE:
        return Estimate(share, math.nan, math.nan)
    variance = math.fsum(_bootstrap_variance(task_wins) for task_wins in wins) / len(pairs) ** 2
    comparisons = len(pairs) ** 2 / sum(1 / min(len(x), len(y)) for x, y in pairs)
    return _wilson(share, _trials(share, variance, comparisons))


def performance_profile(strata: Strata, thresholds: DoubleArray) -> DoubleArray:
    """Share of all runs that score above each of T thresholds, with its pointwise 95% band.

    The band is Wilson's, for the number of independent runs with the variance of the share, estimated within
    tasks, but at least the number of runs.

    Returns:
        (T, 3) share, low, high; low and high are nan with fewer than ``SEEDS_OF_A_SHARE`` seeds on a task.
    """
    arm = _checked(strata)
    total = sum(len(x) for x in arm)
    rows = []
    for threshold in np.asarray(thresholds):
        above = [float((x > threshold).mean()) for x in arm]
        share = math.fsum(p * len(x) for p, x in zip(above, arm, strict=True)) / total
        variance = math.fsum(
            len(x) ** 2 * p * (1 - p) / max(1, len(x) - 1) for p, x in zip(above, arm, strict=True)
        )
        band = _wilson(share, _trials(share, variance / total**2, total))
        rows.append([band.value, band.low, band.high])
    profile = np.array(rows)
    if _fewest(arm) < SEEDS_OF_A_SHARE:
        profile[:, 1:] = math.nan
    return profile


def hedges_g(ours: Strata, theirs: Strata) -> float:
    """Mean over tasks of Hedges' (1981) g: bias-corrected difference of means in pooled standard deviations.

    nan if an arm has fewer than two seeds on a task, or neither arm varies on a task.
    """
    return math.fsum(_hedges_g(x, y) for x, y in _tasks(ours, theirs)) / len(ours)


def permutation_test(
    ours: Strata,
    theirs: Strata,
    rng: np.random.Generator,
    draws: int = 10_000,
    alternative: Literal["two-sided", "less", "greater"] = "two-sided",
) -> float:
    """Permutation p-value of ``difference`` = 0, with runs exchanged within tasks; "greater": ours is higher.

    The statistic is the difference divided by its standard error (studentised, Janssen 1997), so that the
    test is valid for unequal variances. If an arm has a single seed on a task, it is the plain difference. If
    there are at most ``draws`` arrangements, all are used. Otherwise ``draws`` random ones are drawn and the
    observed one is added (Phipson and Smyth 2010), so that p is never 0.
    """
    pairs = _tasks(ours, theirs)
    exact = math.prod(math.comb(len(x) + len(y), len(x)) for x, y in pairs) <= draws
    difference, variance = np.zeros(1), np.zeros(1)
    for x, y in pairs:
        chosen = _arrangements(len(x), len(y), exact, draws, rng)
        shift, spread = _split(np.concatenate([x, y]), chosen)
        if exact:
            difference = np.add.outer(difference, shift).ravel()
            variance = np.add.outer(variance, spread).ravel()
        else:
            difference, variance = difference + shift, variance + spread
    if min(len(x) for pair in pairs for x in pair) > 1:
        # Without any spread a nonzero difference is infinitely many standard errors.
        difference = difference / np.sqrt(np.maximum(variance, np.finfo(np.float64).tiny))
    t = {"two-sided": np.abs(difference), "greater": difference, "less": -difference}[alternative]
    rounding = 1e-9 * abs(t[0])
    return float((t >= t[0] - rounding).mean())


def holm(p_values: DoubleArray) -> DoubleArray:
    """Holm's adjusted p-values, in input order; rejecting those below 0.05 keeps the family-wise error."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def proportion(count: int, total: int) -> Estimate:
    """The share ``count / total`` with Wilson's (1927) score interval, of positive width also at 0 and 1.

    Raises:
        UserError: when ``total`` is 0, or ``count`` is not from 0 to ``total``.
    """
    if not 0 <= count <= total or total == 0:
        raise UserError(f"a share of {count} out of {total} is not defined")
    return _wilson(count / total, total)


def time_to_threshold(times: DoubleArray, reached: BoolArray) -> float:
    """Median of times (n,) that are right-censored where ``reached`` (n,) is False (Kaplan and Meier 1958).

    The first time at which the survival is at most 1/2; inf if it stays above. No interval of a median covers
    for few seeds, so it has none. Empty ``times`` raise a ``UserError``.
    """
    from scipy.stats import CensoredData, ecdf  # slow to load

    if len(times) == 0:
        raise UserError("no times given: at least one run is needed")
    survival = ecdf(CensoredData.right_censored(times, ~reached)).sf
    below = np.flatnonzero(survival.probabilities <= 0.5 + 1e-12)
    return float(survival.quantiles[below[0]]) if len(below) else math.inf


def area_under_curve(x: DoubleArray, y: DoubleArray) -> float:
    """Trapezoidal area under y (E,) over increasing x (E,), divided by the range of x; in units of y."""
    if len(x) < 2:
        return float(y[0])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / (x[-1] - x[0]))


def dispersion_across(curves: DoubleArray) -> float:
    """Mean over evaluations of the interquartile range over runs; ``curves`` is (n runs, E evaluations)."""
    high, low = np.percentile(curves, [75, 25], axis=0)
    return float((high - low).mean())


def dispersion_within(curve: DoubleArray) -> float:
    """Interquartile range of the centred differences between evaluations; ``curve`` is (E,)."""
    if len(curve) < 2:
        return math.nan
    steps = np.diff(curve)
    high, low = np.percentile(steps - steps.mean(), [75, 25])
    return float(high - low)


def short_term_risk(curve: DoubleArray) -> float:
    """CVaR 5% of the differences between evaluations: the mean of the lowest 5%; ``curve`` is (E,)."""
    return _worst(np.diff(curve))


def long_term_risk(curve: DoubleArray) -> float:
    """CVaR 95% of the drawdown: the mean of the largest 5%, >= 0; ``curve`` is (E,)."""
    return -_worst(-drawdown(curve))


def risk_across(scores: DoubleArray) -> float:
    """CVaR 5% over runs: the mean of the lowest 5% of the scores; ``scores`` is (n,)."""
    return _worst(scores)


def drawdown(curve: DoubleArray) -> DoubleArray:
    """(E,) best value so far minus the current value at each evaluation, >= 0."""
    return np.asarray(np.maximum.accumulate(curve) - curve)


def power(
    effect: float, ours: Strata, theirs: Strata, seeds: int | None = None, alpha: float = 0.05
) -> float:
    """Power of Welch's two-sided test for a true difference of ``effect``, given the observed variances.

    Args:
        effect: difference of the means over tasks, in units of score, fixed before the runs are seen.
        ours: scores of one arm by task.
        theirs: scores of the other arm by task.
        seeds: seeds per arm and task; None uses the observed numbers.
        alpha: level of the test.

    Returns:
        The power; nan if a task has a single seed, or no arm varies on any task.
    """
    sides = [side for pair in _tasks(ours, theirs) for side in pair]
    if _fewest(sides) < 2:
        return math.nan
    variances = np.array([x.var(ddof=1) for x in sides]) / len(ours) ** 2
    counts = np.array([len(x) for x in sides] if seeds is None else [seeds] * len(sides), dtype=np.float64)
    if not variances.any() or counts.min() < 2:
        return math.nan
    error, df = math.sqrt((variances / counts).sum()), _degrees(variances / counts, counts)
    critical = float(special.stdtrit(df, 1 - alpha / 2))
    shift = abs(effect) / error
    return 1 - _noncentral_t(critical, df, shift) + _noncentral_t(-critical, df, shift)


def seeds_needed(
    effect: float, ours: Strata, theirs: Strata, target: float = 0.8, at_most: int = 1000
) -> int | None:
    """Minimum seeds per arm and task with a ``power`` of ``target``; None if ``at_most`` are not enough."""
    if not power(effect, ours, theirs, at_most) >= target:
        return None
    return 2 + bisect_left(
        range(2, at_most + 1), target, key=lambda seeds: power(effect, ours, theirs, seeds)
    )


def _checked(strata: Strata) -> list[DoubleArray]:
    arrays = [np.asarray(x, dtype=np.float64) for x in strata]
    if not arrays or min(len(x) for x in arrays) == 0:
        raise UserError("a task has no scores: run its seeds, or leave it out for every arm")
    if not all(np.isfinite(x).all() for x in arrays):
        raise UserError("a score is not finite: score a failed seed as the floor")
    return arrays


def _tasks(ours: Strata, theirs: Strata) -> list[tuple[DoubleArray, DoubleArray]]:
    """Pairs of the scores of the two arms, by task."""
    if len(ours) != len(theirs):
        raise UserError(f"the arms have {len(ours)} and {len(theirs)} tasks: compare them on the same tasks")
    return list(zip(_checked(ours), _checked(theirs), strict=True))


def _fewest(sides: Iterable[DoubleArray]) -> int:
    """Smallest number of seeds."""
    return min(len(x) for x in sides)


def _with_interval(value: float, sides: Sequence[DoubleArray], tasks: int) -> Estimate:
    """``value`` (a mean over tasks of the means of ``sides`` or of their differences) with its t interval."""
    if _fewest(sides) < SEEDS_OF_A_MEAN:
        return Estimate(value, math.nan, math.nan)
    counts = np.array([len(x) for x in sides], dtype=np.float64)
    variances = np.array([x.var(ddof=1) for x in sides]) / counts / tasks**2
    if not variances.any():
        return Estimate(value, value, value)
    quantile = float(special.stdtrit(_degrees(variances, counts), 1 - _TAIL))
    half = quantile * math.sqrt(variances.sum())
    return Estimate(value, value - half, value + half)


def _degrees(variances: DoubleArray, counts: DoubleArray) -> float:
    """Welch's and Satterthwaite's degrees of freedom of a sum of estimated variances."""
    shares = variances / variances.sum()
    return float(1 / (shares**2 / (counts - 1)).sum())


def _hedges_g(ours: DoubleArray, theirs: DoubleArray) -> float:
    df = len(ours) + len(theirs) - 2
    squares = float(((ours - ours.mean()) ** 2).sum() + ((theirs - theirs.mean()) ** 2).sum())
    if min(len(ours), len(theirs)) < 2 or squares == 0:
        return math.nan
    correction = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    return correction * float(ours.mean() - theirs.mean()) / math.sqrt(squares / df)


def _bootstrap_variance(wins: DoubleArray) -> float:
    """Closed-form bootstrap variance of the mean of wins (n, m), with rows and columns resampled.

    Row effects, column effects and residuals are uncorrelated under the bootstrap, because the residuals sum
    to 0 over every row and column. So their variances add up (derived).
    """
    rows, columns = wins.mean(axis=1, keepdims=True), wins.mean(axis=0, keepdims=True)
    residuals = wins - rows - columns + wins.mean()
    return float(rows.var() / len(wins) + columns.var() / wins.shape[1] + residuals.var() / wins.size)


def _trials(share: float, variance: float, at_least: float) -> float:
    """Number of independent trials whose share has that variance; at least ``at_least``."""
    return max(at_least, share * (1 - share) / variance) if variance > 0 else at_least


def _wilson(share: float, trials: float) -> Estimate:
    z2 = _Z**2 / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
    # At 0 and 1 an end equals the share; clipping removes rounding errors.
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def _arrangements(first: int, second: int, exact: bool, draws: int, rng: np.random.Generator) -> DoubleArray:
    """(arrangements, first + second) 1 for scores assigned to the first arm, else 0; row 0 is observed."""
    observed = np.repeat([1.0, 0.0], [first, second])
    if exact:
        chosen = np.array(list(combinations(range(first + second), first)))
        arrangements = np.zeros((len(chosen), first + second))
        np.put_along_axis(arrangements, chosen, 1.0, axis=1)
        return arrangements
    # The indices of the smallest random numbers are a random subset without replacement.
    numbers = rng.random((draws, first + second))
    largest = np.partition(numbers, first - 1, axis=1)[:, first - 1]
    return np.concatenate([observed[None], numbers <= largest[:, None]])


def _split(scores: DoubleArray, chosen: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """(A,) difference of the two groups' means and its Welch variance, per arrangement (A, n + m)."""
    centred = scores - scores.mean()
    n, total_square = int(chosen[0].sum()), float((centred**2).sum())
    m = len(scores) - n
    sums, squares = chosen @ centred, chosen @ centred**2
    # All centred scores sum to 0, so the sum of the second group is minus that of the first.
    deviations = np.stack([squares - sums**2 / n, total_square - squares - sums**2 / m])
    deviations[deviations < 1e-12 * total_square] = 0.0
    weights = [1 / (n * max(1, n - 1)), 1 / (m * max(1, m - 1))]
    return sums / n + sums / m, np.asarray(weights @ deviations)


def _worst(values: DoubleArray) -> float:
    """CVaR 5%: the mean of the lowest ceil(n / 20) values; nan without values."""
    return float(np.sort(values)[: -(-len(values) // 20)].mean()) if len(values) else math.nan


@lru_cache(maxsize=4096)
def _chi_over_df(df: float) -> DoubleArray:
    """1000 quantiles of the ratio of sample to true standard deviation, at equal probabilities."""
    return np.asarray(np.sqrt(special.chdtri(df, (np.arange(1000) + 0.5) / 1000) / df))


def _noncentral_t(t: float, df: float, shift: float) -> float:
    """P(T <= t) of the noncentral t distribution, as an average: library routines fail far in the tails."""
    return float(special.ndtr(t * _chi_over_df(df) - shift).mean())
