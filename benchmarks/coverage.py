"""How often the 95% intervals of ``analysis.statistics`` hold the truth, by simulation of 2 to 20 seeds.

Each row gives a public function many samples from a population whose value is known. ``coverage`` is the
share of intervals that hold it and ``error`` its binomial standard error; both are empty where there are too
few seeds for an interval. Where tasks differ, the spread of the last is ten times that of the first. What is
a share of counted runs cannot be covered alike at every truth: there it is an average over truths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks import record
from sailctl.analysis import statistics as st
from sailctl.analysis.statistics import Estimate
from sailctl.core.types import DoubleArray

SEEDS = (2, 3, 4, 5, 10, 20)
TASKS = (1, 8)
AIM = (0.93, 0.97)
SAMPLES = 4_000

Draw = Callable[[np.random.Generator, tuple[int, ...]], DoubleArray]
Held = Callable[[np.random.Generator], tuple[Estimate, float]]
"""Draws a sample; returns what is estimated from it, and the truth."""


@dataclass(frozen=True)
class Case:
    """An interval, and the population that it is tried on."""

    interval: str
    population: str
    tasks: int
    spreads: str
    """Whether arms, or tasks, have equal spread."""
    seeds: int
    held: Held


def _bimodal(rng: np.random.Generator, shape: tuple[int, ...]) -> DoubleArray:
    """One seed in five collapses."""
    return np.where(rng.random(shape) < 0.2, rng.normal(0.0, 0.1, shape), rng.normal(1.0, 0.15, shape)) - 0.8


POPULATIONS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t(5)": lambda rng, shape: rng.standard_t(5, shape),
    "gamma(2)": lambda rng, shape: rng.gamma(2.0, size=shape) - 2.0,
    "lognormal(0.75)": lambda rng, shape: rng.lognormal(0.0, 0.75, shape) - math.exp(0.75**2 / 2),
    "bimodal": _bimodal,
}
"""All have mean 0."""


def main() -> None:
    parser = record.arguments(__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the samples, for a quick look")
    chosen = parser.parse_args()
    cases = [*_means(), *_shares()]
    rows = [_measure(case, math.ceil(chosen.share * SAMPLES)) for case in cases]
    record.write(chosen.results, "coverage", rows, {"level": st.LEVEL, "aim": AIM})


def _measure(case: Case, samples: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    found = [case.held(rng) for _ in range(samples)]
    known = [(estimate, truth) for estimate, truth in found if math.isfinite(estimate.low)]
    row: dict[str, object] = {
        "interval": case.interval,
        "population": case.population,
        "tasks": case.tasks,
        "spreads": case.spreads,
        "seeds": case.seeds,
        "coverage": None,
        "error": None,
        "width": None,
        "in_the_aim": "too few seeds for an interval",
        "samples": samples,
    }
    if known:
        coverage = sum(e.low <= truth <= e.high for e, truth in known) / len(known)
        row["coverage"] = round(coverage, 4)
        row["error"] = round(math.sqrt(coverage * (1 - coverage) / len(known)), 4)
        row["width"] = round(sum(e.high - e.low for e, _ in known) / len(known), 4)
        row["in_the_aim"] = AIM[0] <= round(coverage, 2) <= AIM[1]
    return row


def _means() -> Iterator[Case]:
    """The mean of an arm, and the difference of two."""
    for name, draw in POPULATIONS.items():
        for tasks in TASKS:
            for apart in (False, True) if tasks > 1 else (False,):
                scales = np.geomspace(1, 10 if apart else 1, tasks)[:, None]
                tell = "tasks 1:10" if apart else "equal"
                for seeds in SEEDS:
                    yield Case("mean", name, tasks, tell, seeds, partial(_mean, draw, scales, seeds))
                for ratio in (1, 3):
                    tell = ", ".join(w for w in ("arms 3:1" * (ratio > 1), "tasks 1:10" * apart) if w)
                    for seeds in SEEDS:
                        held = partial(_difference, draw, scales, ratio, seeds)
                        yield Case("difference", name, tasks, tell or "equal", seeds, held)


def _mean(draw: Draw, scales: DoubleArray, seeds: int, rng: np.random.Generator) -> tuple[Estimate, float]:
    return st.mean(list(scales * draw(rng, (len(scales), seeds)))), 0.0


def _difference(
    draw: Draw, scales: DoubleArray, ratio: float, seeds: int, rng: np.random.Generator
) -> tuple[Estimate, float]:
    ours, theirs = (scales * draw(rng, (len(scales), seeds)) for _ in range(2))
    return st.difference(list(ratio * ours), list(theirs)), 0.0


def _shares() -> Iterator[Case]:
    """Probability of improvement, performance profile, and the share of runs that failed."""
    for name, draw in POPULATIONS.items():
        one, other = draw(np.random.default_rng(2), (2, 400_000))
        for ratio in (1, 3):
            gaps = np.sort(other - ratio * one)
            for tasks in TASKS:
                for seeds in SEEDS:
                    held = partial(_improvement, draw, gaps, ratio, tasks, seeds)
                    tell = "arms 3:1" if ratio > 1 else "equal"
                    yield Case("probability of improvement", name, tasks, tell, seeds, held)
    for tasks in TASKS:
        for seeds in SEEDS:
            yield Case("profile", "any", tasks, "equal", seeds, partial(_profile, tasks, seeds))
    for seeds in SEEDS:
        yield Case("share that failed", "binomial", 1, "equal", seeds, partial(_proportion, seeds))


def _improvement(
    draw: Draw, gaps: DoubleArray, ratio: float, tasks: int, seeds: int, rng: np.random.Generator
) -> tuple[Estimate, float]:
    truth = float(rng.uniform(0.05, 0.95))
    gap = gaps[int(truth * len(gaps))]
    ours, theirs = ratio * draw(rng, (tasks, seeds)) + gap, draw(rng, (tasks, seeds))
    return st.probability_of_improvement(list(ours), list(theirs)), truth


def _profile(tasks: int, seeds: int, rng: np.random.Generator) -> tuple[Estimate, float]:
    """The share of scores above a threshold depends on the task, and on nothing else of the population."""
    truths = np.clip(rng.uniform(0.05, 0.95) + rng.uniform(-0.2, 0.2, tasks), 0.02, 0.98)
    scores = (rng.random((tasks, seeds)) < truths[:, None]).astype(float)
    return Estimate(*st.performance_profile(list(scores), np.array([0.5]))[0]), float(truths.mean())


def _proportion(seeds: int, rng: np.random.Generator) -> tuple[Estimate, float]:
    truth = float(rng.random())
    return st.proportion(int(rng.binomial(seeds, truth)), seeds), truth


if __name__ == "__main__":
    main()
