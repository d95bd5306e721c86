"""How often the 95% intervals of ``sailctl.statistics`` hold the truth, by simulation, at 5, 10 and 20 seeds.

Each row gives a public function many samples from a population whose value is known. ``error`` is the
binomial standard error of ``coverage``. A task is shifted by half a standard deviation from the one before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks import record
from sailctl import statistics as st
from sailctl.statistics import Estimate
from sailctl.types import DoubleArray

DRAWS = 1_000
"""Resamples of an interval: a tenth of the default, which costs it next to nothing in coverage."""
SHIFT = 0.5
"""From one task to the next, in standard deviations."""

Draw = Callable[[np.random.Generator, tuple[int, ...]], DoubleArray]


@dataclass(frozen=True)
class Case:
    """An interval, the population that it is tried on, and the truth that it should hold."""

    interval: str
    population: str
    tasks: int
    seeds: int
    truth: float
    samples: int
    estimate: Callable[[np.random.Generator], Estimate]


def _bimodal(rng: np.random.Generator, shape: tuple[int, ...]) -> DoubleArray:
    """One seed in five collapses."""
    return np.where(rng.random(shape) < 0.2, rng.normal(0.0, 0.1, shape), rng.normal(1.0, 0.15, shape))


POPULATIONS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "gamma(2)": lambda rng, shape: rng.gamma(2.0, size=shape),
    "lognormal(0.75)": lambda rng, shape: rng.lognormal(0.0, 0.75, shape),
    "t(5)": lambda rng, shape: rng.standard_t(5, shape),
    "bimodal": _bimodal,
}


def main() -> None:
    parser = record.arguments(__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the samples, for a quick look")
    chosen = parser.parse_args()
    rows = []
    for seeds in (10, 5, 20):
        for cases in (_scores(seeds), _comparisons(seeds), _shares_and_times(seeds)):
            rows += [_measure(case, math.ceil(chosen.share * case.samples)) for case in cases]
    record.write(chosen.results, "coverage", rows, {"level": st.LEVEL, "draws": DRAWS, "shift": SHIFT})


def _measure(case: Case, samples: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    found = [case.estimate(rng) for _ in range(samples)]
    coverage = sum(e.low <= case.truth <= e.high for e in found) / samples
    return {
        "interval": case.interval,
        "population": case.population,
        "tasks": case.tasks,
        "seeds": case.seeds,
        "truth": round(case.truth, 4),
        "coverage": round(coverage, 4),
        "error": round(math.sqrt(coverage * (1 - coverage) / samples), 4),
        "width": round(sum(e.high - e.low for e in found) / samples, 4),
        "samples": samples,
    }


def _scores(seeds: int) -> Iterator[Case]:
    """Mean, IQM, and the difference of two IQMs: the intervals that resample."""
    for name, draw in POPULATIONS.items():
        many = draw(np.random.default_rng(1), (8, 100_000))
        yield Case("mean", name, 1, seeds, float(many.mean()), 2_000, partial(_mean, draw, seeds))
        for tasks in (1, 3, 8) if seeds == 10 else (1, 3):
            shifts = SHIFT * float(many.std()) * np.arange(float(tasks))[:, None]
            truth = float(st.iqm((many[:tasks] + shifts).ravel()))
            samples = 2_000 if tasks == 1 or (tasks, seeds) == (3, 10) else 1_000
            yield Case("IQM", name, tasks, seeds, truth, samples, partial(_iqm, draw, seeds, shifts))
            if seeds == 10 or tasks == 1:
                for spread, truth_of in ((1, 0.0), (3, 2 * truth)):
                    label = f"difference of IQMs, spread {spread}:1"
                    estimate = partial(_difference, draw, seeds, shifts, spread)
                    yield Case(label, name, tasks, seeds, truth_of, samples, estimate)


def _mean(draw: Draw, seeds: int, rng: np.random.Generator) -> Estimate:
    return st.bootstrap([draw(rng, (seeds,))], lambda scores: np.asarray(scores.mean(axis=-1)), rng, DRAWS)


def _strata(draw: Draw, seeds: int, shifts: DoubleArray, rng: np.random.Generator) -> list[DoubleArray]:
    return list(draw(rng, (len(shifts), seeds)) + shifts)


def _iqm(draw: Draw, seeds: int, shifts: DoubleArray, rng: np.random.Generator) -> Estimate:
    return st.bootstrap(_strata(draw, seeds, shifts, rng), st.iqm, rng, DRAWS)


def _difference(
    draw: Draw, seeds: int, shifts: DoubleArray, spread: float, rng: np.random.Generator
) -> Estimate:
    ours = [spread * x for x in _strata(draw, seeds, shifts, rng)]
    return st.difference(ours, _strata(draw, seeds, shifts, rng), st.iqm, rng, DRAWS)


def _comparisons(seeds: int) -> Iterator[Case]:
    """Probability of improvement, paired difference and Hedges' g."""
    for name, draw in POPULATIONS.items():
        one, other = draw(np.random.default_rng(2), (2, 400_000))
        chances = (0.5, 0.7, 0.9)
        gaps = {spread: np.quantile(other - spread * one, chances) for spread in (1, 3)}
        for tasks in (1, 3, 8):
            for spread in gaps:
                for chance, gap in zip(chances, gaps[spread], strict=True):
                    label = f"probability of improvement, spread {spread}:1"
                    estimate = partial(_improvement, draw, seeds, tasks, spread, gap)
                    yield Case(label, name, tasks, seeds, chance, 2_000, estimate)
            paired = partial(_paired, draw, seeds, tasks)
            yield Case("paired difference", name, tasks, seeds, 0.0, 4_000, paired)
            for effect in (0.0, 0.9):
                g = partial(_g, draw, seeds, tasks, effect * float(one.std()))
                yield Case("Hedges' g", name, tasks, seeds, effect, 2_000 if tasks == 1 else 500, g)


def _improvement(
    draw: Draw, seeds: int, tasks: int, spread: float, gap: float, rng: np.random.Generator
) -> Estimate:
    ours, theirs = spread * draw(rng, (tasks, seeds)) + gap, draw(rng, (tasks, seeds))
    return st.probability_of_improvement(list(ours), list(theirs))


def _paired(draw: Draw, seeds: int, tasks: int, rng: np.random.Generator) -> Estimate:
    return st.paired_difference(list(2 * draw(rng, (tasks, seeds)) - 2 * draw(rng, (tasks, seeds))))


def _g(draw: Draw, seeds: int, tasks: int, gap: float, rng: np.random.Generator) -> Estimate:
    return st.pooled_hedges_g(list(draw(rng, (tasks, seeds)) + gap), list(draw(rng, (tasks, seeds))))


def _shares_and_times(seeds: int) -> Iterator[Case]:
    """Profile, proportion, and the median of times of which some are censored."""
    for name, draw in POPULATIONS.items():
        many = draw(np.random.default_rng(3), (8, 50_000))
        shares = np.array([0.1, 0.5, 0.8])
        for tasks in (1, 3, 8):
            shifts = SHIFT * float(many.std()) * np.arange(float(tasks))[:, None]
            thresholds = np.quantile(many[:tasks] + shifts, 1 - shares)
            for share, threshold in zip(shares, thresholds, strict=True):
                profile = partial(_profile, draw, seeds, shifts, threshold)
                yield Case("performance profile", name, tasks, seeds, float(share), 2_000, profile)
    for share in (0.05, 0.1, 0.2, 0.3, 0.5):
        yield Case("proportion", "binomial", 1, seeds, share, 10_000, partial(_proportion, seeds, share))
    for horizon, label in ((math.inf, "none"), (1.2, "30%"), (0.8, "45%")):
        times = partial(_time, seeds, horizon)
        yield Case("median time", f"exponential, {label} censored", 1, seeds, math.log(2), 4_000, times)


def _profile(
    draw: Draw, seeds: int, shifts: DoubleArray, threshold: float, rng: np.random.Generator
) -> Estimate:
    strata = _strata(draw, seeds, shifts, rng)
    return Estimate(*st.performance_profile(strata, np.array([threshold]), rng, DRAWS)[0])


def _proportion(seeds: int, share: float, rng: np.random.Generator) -> Estimate:
    return st.proportion(int(rng.binomial(seeds, share)), seeds)


def _time(seeds: int, horizon: float, rng: np.random.Generator) -> Estimate:
    times = rng.exponential(size=seeds)
    return st.time_to_threshold(np.minimum(times, horizon), times < horizon)


if __name__ == "__main__":
    main()
