"""Point estimates, 95% intervals and tests for the scores of a few seeds on a few tasks.

A *stratum* is the scores of one task, a 1-D array over seeds; *strata* are one such array for each task, and
their lengths may differ. Every score is a finite number: the caller gives a failed seed the score of the
floor and never drops it. Random draws come from the generator passed in: same input, same numbers.

``docs/statistics.md`` has every formula, its source, and how well its interval covers.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import special
from scipy.optimize import brentq

from sailctl.types import BoolArray, DoubleArray, IntArray, UserError

LEVEL = 0.95
"""Confidence level of every interval."""

Strata = Sequence[DoubleArray]
Statistic = Callable[[DoubleArray], DoubleArray]
"""Maps scores (draws, n_total), the tasks side by side, to (draws,)."""

_TAIL = (1 - LEVEL) / 2
_Z = float(special.ndtri(1 - _TAIL))
_CELLS = 2**20
"""Scores that are resampled at a time: bounds memory to some tens of MB."""


@dataclass(frozen=True)
class Estimate:
    """A point estimate and the ends of its 95% interval; nan where they are undefined."""

    value: float
    low: float
    high: float


def iqm(scores: DoubleArray, axis: int = -1) -> DoubleArray:
    """Interquartile mean: the mean of what remains when floor(n/4) scores are cut off at either end.

    ``scipy.stats.trim_mean(scores, 0.25)``, as in rliable (Agarwal et al. 2021).
    """
    n = scores.shape[axis]
    cut = n // 4
    ordered = np.moveaxis(np.sort(scores, axis=axis), axis, -1)
    return np.asarray(ordered[..., cut : n - cut].mean(axis=-1))


@dataclass(frozen=True)
class Resampled:
    """A statistic of one arm, and what resampling its runs within each task does to it (``resample``)."""

    value: float
    replicates: DoubleArray
    """(draws,) the statistic of each resample."""
    variances: DoubleArray
    """(K,) what each task adds to the variance of the statistic."""
    again: float
    """Mean variance of the bootstrap of a resample."""
    seeds: IntArray
    """(K,) scores of each task."""


def resample(
    strata: Strata, statistic: Statistic, rng: np.random.Generator, draws: int = 10_000
) -> Resampled:
    """Stratified bootstrap: runs resampled within each task.

    Raises:
        UserError: for a task without scores, or one that is not finite.
    """
    arm = _checked(strata)
    return Resampled(
        float(statistic(np.concatenate(arm)[None])[0]),
        _replicates(arm, statistic, rng, draws),
        _variances(arm, statistic, rng),
        _variance_again(arm, statistic, rng),
        np.array([len(x) for x in arm]),
    )


def interval(resampled: Resampled) -> Estimate:
    """The statistic, with its expanded percentile interval (Hesterberg 2015): nan for a task of one seed."""
    return _expanded(resampled.value, resampled.replicates, [resampled])


def difference_of(ours: Resampled, theirs: Resampled) -> Estimate:
    """The statistic of one arm minus that of another, each resampled with draws of its own."""
    replicates = ours.replicates - theirs.replicates
    return _expanded(ours.value - theirs.value, replicates, [ours, theirs])


def bootstrap(
    strata: Strata, statistic: Statistic, rng: np.random.Generator, draws: int = 10_000
) -> Estimate:
    """The statistic of one arm, with the interval of ``resample``."""
    return interval(resample(strata, statistic, rng, draws))


def difference(
    ours: Strata, theirs: Strata, statistic: Statistic, rng: np.random.Generator, draws: int = 10_000
) -> Estimate:
    """``statistic(ours) - statistic(theirs)``; the two arms are resampled independently, within tasks."""
    return difference_of(*(resample(arm, statistic, rng, draws) for arm in (ours, theirs)))


def probability_of_improvement(ours: Strata, theirs: Strata) -> Estimate:
    """Mean over tasks of P(a run of ours scores higher than one of theirs): U/(nm), where a tie counts 1/2.

    Wilson's interval for as many independent comparisons as have the variance of the stratified bootstrap
    (after Mee 1990): it has some width even where every run wins and all resamples agree.
    """
    pairs = _tasks(ours, theirs)
    wins = [(np.sign(x[:, None] - y[None, :]) + 1) / 2 for x, y in pairs]
    share = math.fsum(float(won.mean()) for won in wins) / len(pairs)
    variance = math.fsum(_bootstrap_variance(won) for won in wins) / len(pairs) ** 2
    comparisons = len(pairs) ** 2 / sum(1 / min(len(x), len(y)) for x, y in pairs)
    return _wilson(share, _trials(share, variance, comparisons))


def performance_profile(
    strata: Strata, thresholds: DoubleArray, rng: np.random.Generator, draws: int = 2_000
) -> DoubleArray:
    """Share of all runs that score above each of T thresholds, with its pointwise 95% band.

    Returns (T, 3): share, low, high. Wilson's band, for as many independent runs as have the variance of the
    stratified bootstrap.
    """
    arm = _checked(strata)
    total = sum(len(x) for x in arm)
    rows = []
    for threshold in np.asarray(thresholds):
        above = [int((x > threshold).sum()) for x in arm]
        resampled = sum(
            rng.binomial(len(x), hits / len(x), draws) for x, hits in zip(arm, above, strict=True)
        )
        share = sum(above) / total
        band = _wilson(share, _trials(share, float(np.var(resampled)) / total**2, total))
        rows.append([band.value, band.low, band.high])
    return np.array(rows)


def paired_difference(differences_by_task: Strata) -> Estimate:
    """Mean over tasks of the mean difference between two arms that share their seeds, with a t interval.

    The degrees of freedom are Welch and Satterthwaite's over tasks; for one task n - 1.
    """
    tasks = _checked(differences_by_task)
    value = float(np.mean([x.mean() for x in tasks]))
    if min(len(x) for x in tasks) < 2:
        return Estimate(value, math.nan, math.nan)
    variances = np.array([x.var(ddof=1) / len(x) for x in tasks]) / len(tasks) ** 2
    half = _student(variances, np.array([len(x) for x in tasks])) * math.sqrt(variances.sum())
    return Estimate(value, value - half, value + half)


def hedges_g(ours: DoubleArray, theirs: DoubleArray) -> Estimate:
    """Hedges' g of one task: the difference of means in pooled standard deviations, less its bias.

    The interval is that of the true standardised difference, by inverting the noncentral t distribution. All
    nan where an arm has fewer than two seeds, or where neither arm has any spread.
    """
    ((x, y),) = _tasks([ours], [theirs])
    df = len(x) + len(y) - 2
    squares = float(((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum())
    if min(len(x), len(y)) < 2 or squares == 0:
        return Estimate(math.nan, math.nan, math.nan)
    d = float(x.mean() - y.mean()) / math.sqrt(squares / df)
    correction = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    scale = math.sqrt(1 / len(x) + 1 / len(y))
    low, high = (_noncentrality(d / scale, df, p) * scale for p in (1 - _TAIL, _TAIL))
    return Estimate(d * correction, low, high)


def pooled_hedges_g(ours: Strata, theirs: Strata) -> Estimate:
    """Mean over tasks of Hedges' g. Its ends come from those of the tasks by MOVER (Zou and Donner 2008)."""
    tasks = [hedges_g(x, y) for x, y in _tasks(ours, theirs)]
    value = math.fsum(g.value for g in tasks) / len(tasks)
    below = math.hypot(*(g.value - g.low for g in tasks)) / len(tasks)
    above = math.hypot(*(g.high - g.value for g in tasks)) / len(tasks)
    return Estimate(value, value - below, value + above)


def permutation_test(
    ours: Strata,
    theirs: Strata,
    rng: np.random.Generator,
    draws: int = 10_000,
    alternative: Literal["two-sided", "less", "greater"] = "two-sided",
) -> float:
    """p-value of equal means (their mean over tasks), arms exchanged within tasks; "greater": ours is higher.

    Studentised (Janssen 1997), so that unequal variances do not upset it, where no arm has a single seed on a
    task. All arrangements are taken where there are at most ``draws``; otherwise that many are drawn and the
    one observed is added (Phipson and Smyth 2010), so that it is never 0.
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
        # Where no arm has any spread, a difference is infinitely many standard errors.
        difference = difference / np.sqrt(np.maximum(variance, np.finfo(np.float64).tiny))
    t = {"two-sided": np.abs(difference), "greater": difference, "less": -difference}[alternative]
    rounding = 1e-9 * abs(t[0])
    return float((t >= t[0] - rounding).mean())


def holm(p_values: DoubleArray) -> DoubleArray:
    """Holm's adjusted p-values, in the order given: those below 0.05 keep the family-wise error at 0.05."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def proportion(count: int, total: int) -> Estimate:
    """A share and Wilson's (1927) score interval: within [0, 1], of some width even at 0 and at ``total``.

    Raises UserError for no trials, or for a count outside them.
    """
    if not 0 <= count <= total or total == 0:
        raise UserError(f"a share of {count} out of {total} is not defined: count runs that were started")
    return _wilson(count / total, total)


def time_to_threshold(times: DoubleArray, reached: BoolArray) -> Estimate:
    """Kaplan-Meier median of times (n,) that are right-censored where ``reached`` (n,) is False.

    The first time at which at most half are still missing, with Brookmeyer and Crowley's interval on the
    log(-log) scale. inf where the curve, or the end of its band, does not come down to a half.
    """
    at, alive, variance = _kaplan_meier(times, reached)
    inside = (alive > 0) & (alive < 1)
    log = np.log(np.where(inside, alive, 0.5))
    step = _Z * np.sqrt(np.where(inside, variance, 0.0)) / log
    low = np.where(inside, np.exp(log * np.exp(-step)), alive)
    high = np.where(inside, np.exp(log * np.exp(step)), 1.0)
    return Estimate(_at_half(at, alive), _at_half(at, low), _at_half(at, high))


def area_under_curve(x: DoubleArray, y: DoubleArray) -> float:
    """Trapezoid of y (E,) over increasing x (E,), divided by the length of x: a mean, in the units of y."""
    if len(x) < 2:
        return float(y[0])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / (x[-1] - x[0]))


def dispersion_across(curves: DoubleArray) -> float:
    """Mean over evaluations of the interquartile range over runs; ``curves`` is (n runs, E evaluations)."""
    high, low = np.percentile(curves, [75, 25], axis=0)
    return float((high - low).mean())


def dispersion_within(curve: DoubleArray) -> float:
    """Interquartile range of the differences between evaluations, less their mean; ``curve`` is (E,)."""
    if len(curve) < 2:
        return math.nan
    steps = np.diff(curve)
    high, low = np.percentile(steps - steps.mean(), [75, 25])
    return float(high - low)


def short_term_risk(curve: DoubleArray) -> float:
    """CVaR 5% of the differences between evaluations: the mean of the worst; ``curve`` is (E,)."""
    return _worst(np.diff(curve))


def long_term_risk(curve: DoubleArray) -> float:
    """CVaR 95% of the drawdown: the mean of the largest 5%, a number of at least 0; ``curve`` is (E,)."""
    return -_worst(-drawdown(curve))


def risk_across(scores: DoubleArray) -> float:
    """CVaR 5% over runs: the mean score of the worst 5%; ``scores`` is (n,)."""
    return _worst(scores)


def drawdown(curve: DoubleArray) -> DoubleArray:
    """Best value so far minus the value now, at every evaluation: (E,), at least 0."""
    return np.asarray(np.maximum.accumulate(curve) - curve)


def power(g: float, seeds: int, alpha: float = 0.05) -> float:
    """Power of the two-sided two-sample t-test at a true effect ``g``, with ``seeds`` in each arm."""
    return _power(g, seeds, alpha)


def seeds_needed(g: float, power: float = 0.8, alpha: float = 0.05, at_most: int = 1000) -> int | None:
    """Fewest seeds in each arm that give the t-test that power; None where ``at_most`` do not."""
    if not _power(g, at_most, alpha) >= power:
        return None
    return 2 + bisect_left(range(2, at_most + 1), power, key=lambda seeds: _power(g, seeds, alpha))


def _checked(strata: Strata) -> list[DoubleArray]:
    arrays = [np.asarray(x, dtype=np.float64) for x in strata]
    if not arrays or min(len(x) for x in arrays) == 0:
        raise UserError("a task has no scores: run its seeds, or leave it out for every arm")
    if not all(np.isfinite(x).all() for x in arrays):
        raise UserError("a score is not finite: give a failed seed the score of the floor")
    return arrays


def _tasks(ours: Strata, theirs: Strata) -> list[tuple[DoubleArray, DoubleArray]]:
    """The two arms task by task."""
    if len(ours) != len(theirs):
        raise UserError(f"the arms have {len(ours)} and {len(theirs)} tasks: compare them on the same tasks")
    return list(zip(_checked(ours), _checked(theirs), strict=True))


def _chunks(arm: Strata, draws: int) -> Iterator[list[DoubleArray]]:
    """The scores of each task (rows, n), repeated ``draws`` times in all."""
    most = max(1, _CELLS // sum(len(x) for x in arm))
    for start in range(0, draws, most):
        rows = min(most, draws - start)
        yield [np.broadcast_to(x, (rows, len(x))) for x in arm]


def _redrawn(scores: DoubleArray, rng: np.random.Generator) -> DoubleArray:
    """Every row of scores (rows, n), resampled with replacement."""
    return np.take_along_axis(scores, rng.integers(0, scores.shape[1], scores.shape), axis=1)


def _replicates(arm: Strata, statistic: Statistic, rng: np.random.Generator, draws: int) -> DoubleArray:
    return np.concatenate(
        [
            statistic(np.concatenate([_redrawn(x, rng) for x in tasks], axis=1))
            for tasks in _chunks(arm, draws)
        ]
    )


def _variance_again(arm: Strata, statistic: Statistic, rng: np.random.Generator, draws: int = 500) -> float:
    """Mean variance of the bootstrap of a resample, from two resamples of every resample."""
    squares = 0.0
    for tasks in _chunks(arm, draws):
        once = [_redrawn(x, rng) for x in tasks]
        one, other = (statistic(np.concatenate([_redrawn(x, rng) for x in once], axis=1)) for _ in range(2))
        squares += float(((one - other) ** 2).sum()) / 2
    return squares / draws


def _variances(arm: Strata, statistic: Statistic, rng: np.random.Generator, draws: int = 100) -> DoubleArray:
    """What each task adds to the variance of the statistic: it alone is resampled, the others are held."""
    tasks = [np.broadcast_to(x, (draws, len(x))) for x in arm]
    return np.array(
        [
            statistic(np.concatenate([*tasks[:k], _redrawn(x, rng), *tasks[k + 1 :]], axis=1)).var()
            for k, x in enumerate(tasks)
        ]
    )


def _student(variances: DoubleArray, seeds: IntArray) -> float:
    """Student's quantile, with Welch and Satterthwaite's degrees of freedom for independent contributions."""
    if variances.sum() == 0:
        return _Z
    shares = variances / variances.sum()
    return float(special.stdtrit(1 / (shares**2 / (seeds - 1)).sum(), 1 - _TAIL))


def _expanded(value: float, replicates: DoubleArray, arms: Sequence[Resampled]) -> Estimate:
    """Percentiles of the replicates, further out than 2.5% to make up for what a small sample hides.

    Normal quantiles forget that the spread is itself estimated: Student's do not. And resamples do not
    spread as samples do (for a mean, by (n - 1)/n in variance): a second bootstrap measures the ratio.
    """
    seeds = np.concatenate([arm.seeds for arm in arms])
    if seeds.min() < 2:
        return Estimate(value, math.nan, math.nan)
    quantile = _student(np.concatenate([arm.variances for arm in arms]), seeds)
    again = sum(arm.again for arm in arms)
    if again > 0:
        quantile *= float(replicates.std()) / math.sqrt(again)
    low, high = np.quantile(replicates, special.ndtr([-quantile, quantile]))
    return Estimate(value, float(low), float(high))


def _bootstrap_variance(wins: DoubleArray) -> float:
    """Variance of the mean of wins (n, m) when rows and columns are resampled, without any resampling.

    Row effects, column effects and the rest are uncorrelated under the bootstrap, because the rest sums to 0
    over every row and column; so their variances add up (derived).
    """
    rows, columns = wins.mean(axis=1, keepdims=True), wins.mean(axis=0, keepdims=True)
    rest = wins - rows - columns + wins.mean()
    return float(rows.var() / len(wins) + columns.var() / wins.shape[1] + rest.var() / wins.size)


def _trials(share: float, variance: float, at_least: float) -> float:
    """How many independent trials have a share of that variance; never fewer than ``at_least``."""
    return max(at_least, share * (1 - share) / variance) if variance > 0 else at_least


def _wilson(share: float, trials: float) -> Estimate:
    z2 = _Z**2 / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
    # At 0 and 1 the end is the share itself, and rounding must not put it on the wrong side.
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def _arrangements(first: int, second: int, exact: bool, draws: int, rng: np.random.Generator) -> DoubleArray:
    """Which scores go to the first arm: (arrangements, first + second) of 1 and 0, the observed on top."""
    observed = np.repeat([1.0, 0.0], [first, second])
    if exact:
        chosen = np.array(list(combinations(range(first + second), first)))
        arrangements = np.zeros((len(chosen), first + second))
        np.put_along_axis(arrangements, chosen, 1.0, axis=1)
        return arrangements
    # The places of the smallest of random numbers are a subset drawn without replacement.
    numbers = rng.random((draws, first + second))
    largest = np.partition(numbers, first - 1, axis=1)[:, first - 1]
    return np.concatenate([observed[None], numbers <= largest[:, None]])


def _split(scores: DoubleArray, chosen: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Difference of two groups' means and its Welch variance, for each choice (A, n + m) of the first."""
    centred = scores - scores.mean()
    n, total_square = int(chosen[0].sum()), float((centred**2).sum())
    m = len(scores) - n
    sums, squares = chosen @ centred, chosen @ centred**2
    # The sum of all centred scores is 0, so that of the second group is minus that of the first.
    around = np.stack([squares - sums**2 / n, total_square - squares - sums**2 / m])
    around[around < 1e-12 * total_square] = 0.0
    weights = [1 / (n * max(1, n - 1)), 1 / (m * max(1, m - 1))]
    return sums / n + sums / m, np.asarray(weights @ around)


def _kaplan_meier(times: DoubleArray, reached: BoolArray) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Times, the share still missing, and Greenwood's sum: the variance of the logarithm of that share."""
    if len(times) == 0:
        raise UserError("there are no times: at least one run is needed")
    distinct = np.unique(times)
    at_risk = (times >= distinct[:, None]).sum(axis=1)
    events = ((times == distinct[:, None]) & reached).sum(axis=1)
    left = at_risk - events
    variance = np.cumsum(np.divide(events, at_risk * left, out=np.full(len(left), np.inf), where=left > 0))
    return np.r_[0.0, distinct], np.r_[1.0, np.cumprod(left / at_risk)], np.r_[0.0, variance]


def _at_half(at: DoubleArray, share: DoubleArray) -> float:
    """The first time at which a share, up to rounding, is at most a half."""
    down = np.flatnonzero(share <= 0.5 + 1e-12)
    return float(at[down[0]]) if len(down) else math.inf


def _worst(values: DoubleArray) -> float:
    """CVaR 5%: the mean of the lowest ceil(n / 20) values; nan where there are none."""
    return float(np.sort(values)[: -(-len(values) // 20)].mean()) if len(values) else math.nan


@lru_cache(maxsize=4096)
def _chi_over_df(df: float) -> DoubleArray:
    """1000 equally likely values of a sample's standard deviation over the true one."""
    return np.asarray(np.sqrt(special.chdtri(df, (np.arange(1000) + 0.5) / 1000) / df))


def _noncentral_t(t: float, df: float, shift: float) -> float:
    """P(T <= t). An average that never fails, which library routines do far out in the tails."""
    return float(special.ndtr(t * _chi_over_df(df) - shift).mean())


def _noncentrality(t: float, df: float, p: float) -> float:
    """The shift at which P(T <= t) is p."""
    scaled = t * _chi_over_df(df)
    ends = float(scaled.min()) - 9, float(scaled.max()) + 9
    return float(brentq(lambda shift: float(special.ndtr(scaled - shift).mean()) - p, *ends))


def _power(g: float, seeds: int, alpha: float) -> float:
    if seeds < 2:
        return math.nan
    df, shift = 2 * seeds - 2, abs(g) * math.sqrt(seeds / 2)
    critical = float(special.stdtrit(df, 1 - alpha / 2))
    return 1 - _noncentral_t(critical, df, shift) + _noncentral_t(-critical, df, shift)
