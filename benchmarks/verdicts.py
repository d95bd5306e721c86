"""How often a comparison calls the worse arm better, or the better one worse, by simulation.

Each row plays one kind of experiment many times over: seeds of two arms are drawn, compared as ``sailctl
compare`` does, and the verdict is held against the true means. ``wrong`` is the share of verdicts with the
wrong sign (where the arms are equal, any verdict), ``limit`` what it may be (half the level, since the test
is two-sided; where the arms are equal, all of it), and ``right`` the share of right ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks import record
from benchmarks.coverage import POPULATIONS
from sailctl.analysis import statistics as st
from sailctl.analysis.contrasts import ALPHA, verdict_of
from sailctl.core.types import DoubleArray

SAMPLES = 2_000
PERMUTATIONS = 500
SEEDS = (2, 3, 5, 10)

Drawn = tuple[DoubleArray, DoubleArray, float]
"""(tasks, seeds) of the arm and of the baseline, and the true difference of their means over tasks."""


@dataclass(frozen=True)
class Case:
    """A kind of experiment."""

    experiment: str
    population: str
    tasks: int
    seeds: int
    draw: Callable[[np.random.Generator], Drawn]
    equal: bool = False


def main() -> None:
    parser = record.arguments(__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the samples, for a quick look")
    chosen = parser.parse_args()
    rows = [measure(case, math.ceil(chosen.share * SAMPLES)) for case in cases()]
    record.write(chosen.results, "verdicts", rows, {"alpha": ALPHA, "permutations": PERMUTATIONS})


def measure(case: Case, samples: int) -> dict[str, object]:
    """A row of the table."""
    rng = np.random.default_rng(0)
    wrong = right = 0
    for _ in range(samples):
        ours, theirs, truth = case.draw(rng)
        p = st.permutation_test(list(ours), list(theirs), rng, PERMUTATIONS)
        verdict = verdict_of(st.difference(list(ours), list(theirs)), p)
        if verdict != "undecided":
            sided = (verdict == "better") == (truth > 0) and not case.equal
            right, wrong = right + sided, wrong + (not sided)
    limit = ALPHA if case.equal else ALPHA / 2
    error = math.sqrt(limit * (1 - limit) / samples)
    return {
        "experiment": case.experiment,
        "population": case.population,
        "tasks": case.tasks,
        "seeds": case.seeds,
        "wrong": wrong / samples,
        "limit": limit,
        "within": wrong / samples <= limit + 2 * error,
        "right": right / samples,
        "samples": samples,
    }


def cases() -> Iterator[Case]:
    """Arms that are equal, arms of which one is worse in all tasks or in some, and arms of unlike shape."""
    for name in POPULATIONS:
        for tasks in (1, 8):
            for seeds in SEEDS:
                for gap, ratio, what in (
                    (0.0, 1.0, "equal arms"),
                    (-0.3, 1.0, "worse by 0.3 standard deviations"),
                    (-0.3, 3.0, "the same, and of three times the spread"),
                ):
                    yield Case(what, name, tasks, seeds, _shifted(name, tasks, seeds, gap, ratio), gap == 0)
    for name in POPULATIONS:
        for seeds in SEEDS:
            yield Case("better on six tasks, far worse on two", name, 8, seeds, _mixed(name, seeds))
            yield Case("any difference on each task", name, 8, seeds, _any(name, seeds))
    for seeds in SEEDS:
        yield Case("a seed in five collapses, beside a steady arm", "bimodal", 1, seeds, _shapes(1, seeds))
        yield Case("a seed in five collapses, beside a steady arm", "bimodal", 8, seeds, _shapes(8, seeds))


def _shifted(
    name: str, tasks: int, seeds: int, gap: float, ratio: float
) -> Callable[[np.random.Generator], Drawn]:
    draw, size = POPULATIONS[name], _size(name)

    def drawn(rng: np.random.Generator) -> Drawn:
        ours, theirs = draw(rng, (2, tasks, seeds))
        return ratio * ours + gap * size, theirs, gap

    return drawn


def _mixed(name: str, seeds: int) -> Callable[[np.random.Generator], Drawn]:
    """The middle half of all runs is better, and the mean is worse."""
    draw = POPULATIONS[name]
    gaps = np.r_[np.full(6, 3.0), np.full(2, -15.0)][:, None] * _size(name)

    def drawn(rng: np.random.Generator) -> Drawn:
        ours, theirs = draw(rng, (2, 8, seeds))
        return ours + gaps, theirs, float(gaps.mean())

    return drawn


def _any(name: str, seeds: int) -> Callable[[np.random.Generator], Drawn]:
    draw, size = POPULATIONS[name], _size(name)

    def drawn(rng: np.random.Generator) -> Drawn:
        gaps = size * rng.normal(size=(8, 1)) * rng.choice([0.1, 1.0, 3.0], (8, 1))
        ratios = rng.choice([0.3, 1.0, 3.0], (8, 1))
        ours, theirs = draw(rng, (2, 8, seeds))
        return ratios * ours + gaps, theirs, float(gaps.mean())

    return drawn


def _shapes(tasks: int, seeds: int) -> Callable[[np.random.Generator], Drawn]:
    """The arm has the lower mean, and looks better wherever no seed of it happens to collapse."""

    def drawn(rng: np.random.Generator) -> Drawn:
        ours = POPULATIONS["bimodal"](rng, (tasks, seeds))
        return ours, rng.normal(0.05, 0.1, (tasks, seeds)), -0.05

    return drawn


def _size(name: str) -> float:
    """Standard deviation of a population."""
    return float(POPULATIONS[name](np.random.default_rng(1), (100_000,)).std())


if __name__ == "__main__":
    main()
