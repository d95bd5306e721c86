"""Point estimates, 95% intervals and tests for scores of a few seeds on a few tasks.

A *stratum* is the scores of one task, a 1-D array over seeds; *strata* are one such array for each task, whose
lengths may differ. Every score is a finite number: the caller gives a failed seed the score of the floor and
never drops it. A random draw comes from the generator that is passed in, so the same input gives the same numbers.

``docs/statistics.md`` has every formula, its source and the coverage that was measured for its interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import special, stats

from sailctl.types import BoolArray, DoubleArray, IntArray, UserError

LEVEL = 0.95
"""Confidence level of every interval."""

Strata = Sequence[DoubleArray]
Statistic = Callable[[DoubleArray], DoubleArray]
"""Maps concatenated scores of shape (draws, n_total) to (draws,)."""

_CELLS = 2**20
"""Scores resampled at a time: bounds memory to some tens of MB."""


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


def bootstrap(
    strata: Strata, statistic: Statistic, rng: np.random.Generator, draws: int = 10_000
) -> Estimate:
    """Stratified bootstrap: runs resampled within each task, expanded percentile interval (Hesterberg 2015).

    The ends are nan where a task has one seed. Raises UserError for an empty task or a score that is not finite.
    """
    arm = _checked(strata)
    value = float(statistic(np.concatenate(arm)[None])[0])
    replicates = _replicates(arm, statistic, rng, draws)
    return _expanded(value, replicates, _variances(arm, statistic, rng), [len(x) for x in arm])


def difference(
    ours: Strata, theirs: Strata, statistic: Statistic, rng: np.random.Generator, draws: int = 10_000
) -> Estimate:
    """``statistic(ours) - statistic(theirs)``; the two arms are resampled independently, within tasks."""
    arms = _checked(ours), _checked(theirs)
    value = float(statistic(np.concatenate(arms[0])[None])[0] - statistic(np.concatenate(arms[1])[None])[0])
    replicates = _replicates(arms[0], statistic, rng, draws) - _replicates(arms[1], statistic, rng, draws)
    variances = np.concatenate([_variances(arm, statistic, rng) for arm in arms])
    return _expanded(value, replicates, variances, [len(x) for arm in arms for x in arm])


def probability_of_improvement(
    ours: Strata, theirs: Strata, rng: np.random.Generator, draws: int = 10_000
) -> Estimate:
    """Mean over tasks of P(a run of ours scores higher than one of theirs): U/(nm), a tie counts 1/2."""
    pairs = _paired_tasks(ours, theirs)
    value, replicates = 0.0, np.zeros(draws)
    for x, y in pairs:
        wins = (np.sign(x[:, None] - y[None, :]) + 1) / 2
        value += float(wins.mean()) / len(pairs)
        shares_x = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), draws) / len(x)
        shares_y = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), draws) / len(y)
        replicates += ((shares_x @ wins) * shares_y).sum(axis=1) / len(pairs)
    sizes = [min(len(x), len(y)) for x, y in pairs]
    interval = _expanded(value, replicates, np.ones(len(pairs)), sizes)
    return Estimate(value, max(0.0, interval.low), min(1.0, interval.high))


def performance_profile(
    strata: Strata, thresholds: DoubleArray, rng: np.random.Generator, draws: int = 2_000
) -> DoubleArray:
    """Share of runs that score above each of T thresholds, and its pointwise 95% band.

    Returns (T, 3): share, low, high.
    """
    rows = []
    for threshold in thresholds:
        above = [(x > threshold).astype(np.float64) for x in _checked(strata)]
        estimate = bootstrap(above, lambda scores: np.asarray(scores.mean(axis=-1)), rng, draws)
        rows.append([estimate.value, estimate.low, estimate.high])
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
    half = _student(variances, [len(x) for x in tasks]) * math.sqrt(variances.sum())
    return Estimate(value, value - half, value + half)


def hedges_g(ours: DoubleArray, theirs: DoubleArray) -> Estimate:
    """Hedges' g of one task: the standardised mean difference, corrected for its bias.

    The interval inverts the noncentral t distribution. All nan where an arm has no second seed or where no score
    differs from its arm's mean.
    """
    (x,), (y,) = _checked([ours]), _checked([theirs])
    df = len(x) + len(y) - 2
    scale = math.sqrt(1 / len(x) + 1 / len(y))
    pooled = math.sqrt((((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / df) if df > 0 else 0.0
    if min(len(x), len(y)) < 2 or pooled == 0:
        return Estimate(math.nan, math.nan, math.nan)
    d = float(x.mean() - y.mean()) / pooled
    correction = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    low, high = (float(special.nctdtrinc(df, p, d / scale)) * scale for p in _TAILS[::-1])
    return Estimate(d * correction, low, high)


def pooled_hedges_g(ours: Strata, theirs: Strata) -> Estimate:
    """Mean over tasks of Hedges' g; the intervals of the tasks are combined by MOVER (Zou and Donner 2008)."""
    return _mean_of([hedges_g(x, y) for x, y in _paired_tasks(ours, theirs)])


def permutation_test(
    ours: Strata,
    theirs: Strata,
    rng: np.random.Generator,
    draws: int = 10_000,
    alternative: Literal["two-sided", "less", "greater"] = "two-sided",
) -> float:
    """p-value of equal means (mean over tasks), arms exchanged within tasks; "greater" means that ours is higher.

    The statistic is studentised (Janssen 1997), so that unequal variances do not break it. All arrangements are
    enumerated where there are at most ``draws``; otherwise the p-value is (1 + hits) / (1 + draws). Never 0.
    """
    pairs = _paired_tasks(ours, theirs)
    studentised = min(min(len(x), len(y)) for x, y in pairs) > 1
    exact = math.prod(math.comb(len(x) + len(y), len(x)) for x, y in pairs) <= draws
    total, variance = np.zeros(1), np.zeros(1)
    for x, y in pairs:
        scores = np.concatenate([x, y])
        shifted, spread = _split(
            scores - scores.mean(), _arrangements(len(x), len(scores), exact, draws, rng)
        )
        if exact:
            total, variance = np.add.outer(total, shifted).ravel(), np.add.outer(variance, spread).ravel()
        else:
            total, variance = total + shifted, variance + spread
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(total / np.sqrt(variance), nan=0.0) if studentised else total
    t = {"two-sided": np.abs(t), "greater": t, "less": -t}[alternative]
    hits = t >= t[0] - 1e-9 * abs(t[0]) if np.isfinite(t[0]) else t >= t[0]
    return float(hits.mean())


def holm(p_values: DoubleArray) -> DoubleArray:
    """Holm's adjusted p-values, in the order given: those below 0.05 keep the family-wise error at 0.05."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def proportion(count: int, total: int) -> Estimate:
    """A share and Wilson's score interval, which stays within [0, 1] and is defined at 0 and at ``total``."""
    if not 0 <= count <= total or total == 0:
        raise UserError(f"a share of {count} out of {total} is not defined")
    z = float(special.ndtri(_TAILS[1]))
    share = count / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def time_to_threshold(times: DoubleArray, reached: BoolArray) -> Estimate:
    """Kaplan-Meier median of times that are right-censored where ``reached`` is False.

    Brookmeyer and Crowley's interval on the log(-log) scale. inf where the curve does not come down to a half.
    """
    at, alive, variance = _kaplan_meier(times, reached)
    z = float(special.ndtri(_TAILS[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        step = z * np.sqrt(variance) / np.log(alive)
        low = np.where(alive < 1, alive ** np.exp(-step), 1.0)
        high = np.where((alive > 0) & (alive < 1), alive ** np.exp(step), alive)
    return Estimate(_first_at_half(at, alive), _first_at_half(at, low), _first_at_half(at, high))


def survival(times: DoubleArray, reached: BoolArray) -> tuple[DoubleArray, DoubleArray]:
    """Kaplan-Meier curve: times (0, then every distinct time in order), and the share not there yet just after."""
    at, alive, _ = _kaplan_meier(times, reached)
    return at, alive


def area_under_curve(x: DoubleArray, y: DoubleArray) -> float:
    """Trapezoid of y (E,) over increasing x (E,), divided by the length of x: a mean of y, in the units of y."""
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
    """Power of the two-sided two-sample t-test for an effect ``g`` with ``seeds`` in each arm."""
    if seeds < 2:
        return math.nan
    df, shift = 2 * seeds - 2, abs(g) * math.sqrt(seeds / 2)
    critical = float(special.stdtrit(df, 1 - alpha / 2))
    return float(1 - special.nctdtr(df, shift, critical) + special.nctdtr(df, shift, -critical))


def seeds_needed(g: float, power: float = 0.8, alpha: float = 0.05, at_most: int = 1000) -> int | None:
    """Fewest seeds per arm whose t-test has that power for an effect ``g``; None beyond ``at_most``."""
    return next((n for n in range(2, at_most + 1) if _power(g, n, alpha) >= power), None)


_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_power = power


def _checked(strata: Strata) -> list[DoubleArray]:
    """The strata as float64; UserError for an empty one or a score that is not finite."""
    arrays = [np.asarray(x, dtype=np.float64) for x in strata]
    if not arrays or min(len(x) for x in arrays) == 0:
        raise UserError("a task has no scores: leave it out, or run its seeds")
    if not all(np.isfinite(x).all() for x in arrays):
        raise UserError("a score is not finite: give a failed seed the score of the floor")
    return arrays


def _paired_tasks(ours: Strata, theirs: Strata) -> list[tuple[DoubleArray, DoubleArray]]:
    if len(ours) != len(theirs):
        raise UserError(f"the arms have {len(ours)} and {len(theirs)} tasks: compare them on the same tasks")
    return list(zip(_checked(ours), _checked(theirs), strict=True))


def _resamples(
    arm: Sequence[DoubleArray], which: Sequence[bool], rng: np.random.Generator, draws: int
) -> Iterator[DoubleArray]:
    """Resamples (rows, n_total), some rows at a time, of the strata in ``which``; the others stay as they are."""
    rows = max(1, _CELLS // sum(len(x) for x in arm))
    for start in range(0, draws, rows):
        size = min(rows, draws - start)
        yield np.concatenate(
            [
                x[rng.integers(0, len(x), (size, len(x)))] if drawn else np.broadcast_to(x, (size, len(x)))
                for x, drawn in zip(arm, which, strict=True)
            ],
            axis=1,
        )


def _replicates(
    arm: Sequence[DoubleArray], statistic: Statistic, rng: np.random.Generator, draws: int
) -> DoubleArray:
    parts = [statistic(sample) for sample in _resamples(arm, [True] * len(arm), rng, draws)]
    return np.concatenate(parts)


def _variances(
    arm: Sequence[DoubleArray], statistic: Statistic, rng: np.random.Generator, draws: int = 200
) -> DoubleArray:
    """What each task contributes to the variance of the statistic: the others are held while it is resampled."""
    alone = np.eye(len(arm), dtype=bool)
    return np.array(
        [
            np.concatenate([statistic(s) for s in _resamples(arm, list(one), rng, draws)]).var()
            for one in alone
        ]
    )


def _student(variances: DoubleArray, sizes: Sequence[int]) -> float:
    """Student's quantile for a sum of independent estimates, with Welch and Satterthwaite's degrees of freedom."""
    if variances.sum() == 0:
        return 0.0
    df = variances.sum() ** 2 / (variances**2 / (np.array(sizes) - 1)).sum()
    return float(special.stdtrit(df, _TAILS[1]))


def _expanded(
    value: float, replicates: DoubleArray, variances: DoubleArray, sizes: Sequence[int]
) -> Estimate:
    """Hesterberg's expanded percentile interval.

    A resample of n runs spreads as if their variance were divided by n, not n - 1, and normal quantiles ignore that
    the spread itself is estimated: both are made up for by taking percentiles further out.
    """
    n = np.array(sizes)
    if n.min() < 2:
        return Estimate(value, math.nan, math.nan)
    if variances.sum() == 0:
        return Estimate(value, float(replicates.min()), float(replicates.max()))
    unbiased = variances * n / (n - 1)
    z = _student(unbiased, sizes) * math.sqrt(unbiased.sum() / variances.sum())
    low, high = np.quantile(replicates, [special.ndtr(-z), special.ndtr(z)])
    return Estimate(value, float(low), float(high))


def _mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of independent estimates; the distances to the ends add up in squares (MOVER)."""
    value = float(np.mean([e.value for e in estimates]))
    below = math.sqrt(sum((e.value - e.low) ** 2 for e in estimates)) / len(estimates)
    above = math.sqrt(sum((e.high - e.value) ** 2 for e in estimates)) / len(estimates)
    return Estimate(value, value - below, value + above)


def _arrangements(first: int, total: int, exact: bool, draws: int, rng: np.random.Generator) -> IntArray:
    """Which scores go to the first arm, (arrangements, first); row 0 is the one observed."""
    if exact:
        return np.array(list(combinations(range(total), first)), dtype=np.int64)
    drawn = rng.permuted(np.broadcast_to(np.arange(total), (draws, total)), axis=1)[:, :first]
    return np.concatenate([np.arange(first)[None], drawn])


def _split(scores: DoubleArray, chosen: IntArray) -> tuple[DoubleArray, DoubleArray]:
    """Difference of the means of two groups and its unpooled variance, for every choice (A, n) of the first group."""
    n, m = chosen.shape[1], len(scores) - chosen.shape[1]
    first = scores[chosen]
    sums, squares = first.sum(axis=1), (first**2).sum(axis=1)
    other_sums, other_squares = scores.sum() - sums, (scores**2).sum() - squares
    floor = 1e-12 * float((scores**2).sum())
    spread = np.zeros(len(chosen))
    for size, total, square in ((n, sums, squares), (m, other_sums, other_squares)):
        around = square - total**2 / size
        spread += np.where(around > floor, around, 0.0) / (size * max(1, size - 1))
    return sums / n - other_sums / m, spread


def _kaplan_meier(times: DoubleArray, reached: BoolArray) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Times, the share still without the event, and Greenwood's variance of the logarithm of that share."""
    if len(times) == 0:
        raise UserError("there are no times: at least one run is needed")
    distinct = np.unique(times)
    at_risk = (times[None, :] >= distinct[:, None]).sum(axis=1)
    events = ((times[None, :] == distinct[:, None]) & reached[None, :]).sum(axis=1)
    alive = np.cumprod(1 - events / at_risk)
    with np.errstate(divide="ignore"):
        variance = np.cumsum(events / (at_risk * (at_risk - events)))
    return np.r_[0.0, distinct], np.r_[1.0, alive], np.r_[0.0, variance]


def _first_at_half(at: DoubleArray, alive: DoubleArray) -> float:
    """Where the curve comes down to a half; the middle of the stretch where it stays at exactly a half."""
    down = np.flatnonzero(alive <= 0.5 + 1e-12)
    return float(at[down[0]]) if len(down) else math.inf


def _worst(values: DoubleArray) -> float:
    """CVaR 5%: the mean of the lowest ceil(n / 20) values; nan where there are none."""
    if len(values) == 0:
        return math.nan
    return float(np.sort(values)[: math.ceil(len(values) / 20)].mean())
