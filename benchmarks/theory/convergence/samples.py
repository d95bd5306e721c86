"""How many samples stochastic ascent needs until the mean gap over seeds is eps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import Row
from benchmarks.theory.convergence.ascent import BATCH, SEEDS, stochastic_ascent
from benchmarks.theory.convergence.noise import variance_at_maximum
from benchmarks.theory.convergence.objectives import ARMS, PAPER, SAMPLED, weights_of
from benchmarks.theory.convergence.paths import Studied, Trace, gaps_of
from benchmarks.theory.statistics import RESAMPLES, interval, line
from sailctl.core.types import DoubleArray, IntArray

EPSILONS = tuple(np.geomspace(3e-3, 3e-5, 7).tolist())
PATIENCE = 4.0
"""Budget of a stochastic run, in units of what exact ascent would need."""
MARKS = 250
"""How many times in a stochastic run the exact gap is computed."""


@dataclass(frozen=True)
class Sampled:
    """Runs of one case at one eps (or of the decreasing schedule, which is the same for all)."""

    samples: DoubleArray
    """(marks,) samples taken so far."""
    gap: DoubleArray
    """(marks, seeds) exact distance to the arm's own global maximum."""
    predicted: float = float("nan")
    """Samples that exact ascent with the same steps needs to reach eps / 2. The noise ball adds eps / 2."""

    def reach(self, eps: float, seeds: IntArray | None = None) -> float:
        """Samples until the mean gap is at most eps; infinite when the budget is too small."""
        mean = (self.gap if seeds is None else self.gap[:, seeds]).mean(axis=1)
        return self.first(mean <= eps)

    def reach_of_runs(self, eps: float) -> list[float]:
        """The same for each run alone."""
        return [self.first(run <= eps) for run in self.gap.T]

    def first(self, done: NDArray[np.bool_]) -> float:
        """Samples at the first mark where ``done`` is true; infinite when it never is."""
        return float(self.samples[done.argmax()]) if done.any() else np.inf


def marks_until(steps: int) -> list[int]:
    """Step counts, evenly spread on a logarithmic scale."""
    return [int(mark) for mark in np.unique(np.geomspace(1, steps, MARKS).round())]


def time_to(path: Trace, arm: int, gap: float) -> float:
    """Iterations / L of exact ascent until the gap is ``gap``, interpolated on a logarithmic scale.

    Infinite when the path does not get there.
    """
    after = int((path.gap[:, arm] <= gap).argmax())
    if after == 0:
        return float("inf")
    high, low = np.log(path.gap[after - 1 : after + 1, arm])
    return float((after - 1 + (high - np.log(gap)) / (high - low)) / path.smoothness[arm])


def sample(known: Studied) -> dict[tuple[str, str], list[Sampled]]:
    """Stochastic runs of a case by arm and schedule, one entry for each eps.

    ``constant``: steps of length 2 eps BATCH / tr C, whose noise ball is eps / 2. All arms take the tr C of
    the paper's arm. ``decreasing``: steps of length 1 / (mu k + L) with mu of the exact path, the paper's
    arm only. Every run may take ``PATIENCE`` times what exact ascent needs to reach eps / 2.
    """
    rng = np.random.default_rng(known.case.seed)
    variance, largest = variance_at_maximum(known, PAPER), known.trace.smoothness[PAPER]
    runs: dict[tuple[str, str], list[Sampled]] = {(name, "constant"): [] for name, _ in SAMPLED}
    weights = np.repeat(weights_of(SAMPLED).numpy(), SEEDS, axis=0)
    start = known.case.start.numpy()
    for eps in EPSILONS:
        step = min(2 * eps * BATCH / variance, 1 / largest)
        marks = marks_until(int(PATIENCE * time_to(known.trace, PAPER, eps / 2) / step))
        theta = stochastic_ascent(
            known.case.problem,
            np.tile(start, (len(weights), 1)),
            weights,
            np.full(len(weights), step),
            marks,
            rng,
        ).reshape(len(marks), len(SAMPLED), SEEDS, -1)
        for index, (name, _) in enumerate(SAMPLED):
            gap = gaps_of(known, index, theta[:, index])
            exact = BATCH * time_to(known.trace, index, eps / 2) / step
            runs[name, "constant"].append(Sampled(BATCH * np.array(marks, dtype=float), gap, exact))
    constant = known.trace.constant()[PAPER]
    theta = stochastic_ascent(
        known.case.problem,
        np.tile(start, (SEEDS, 1)),
        weights_of(ARMS[PAPER : PAPER + 1] * SEEDS).numpy(),
        np.full(SEEDS, 1 / largest),
        marks,
        rng,
        decay=constant,
    )
    gap = gaps_of(known, PAPER, theta)
    runs["kl_ref_pi", "decreasing"] = [Sampled(BATCH * np.array(marks, dtype=float), gap)] * len(EPSILONS)
    return runs


def sample_rows(studied: Sequence[Studied]) -> tuple[list[Row], list[Row]]:
    """Samples to reach each eps, and the slopes of their logarithms on log(1/eps)."""
    rows: list[Row] = []
    slopes: list[Row] = []
    inverse = -np.log(EPSILONS)
    for known in studied:
        rng = np.random.default_rng(known.case.seed)
        start = known.trace.gap[0, PAPER]
        near_linear = line(inverse, np.log(np.log(2 * start / np.array(EPSILONS)) / np.array(EPSILONS)))[0]
        for (name, schedule), runs in sample(known).items():
            label = {**known.case.label, "objective": name, "schedule": schedule}
            needed = [run.reach(eps) for run, eps in zip(runs, EPSILONS, strict=True)]
            expected = [run.predicted for run in runs]
            for run, eps, samples, predicted in zip(runs, EPSILONS, needed, expected, strict=True):
                alone = run.reach_of_runs(eps)
                rows.append(
                    {
                        **label,
                        "eps": eps,
                        "samples": samples,
                        "predicted": predicted,
                        "samples_median_run": float(np.median(alone)),
                        "censored": float(np.isinf(alone).mean()),
                        "seeds": SEEDS,
                        "gap_start": float(known.trace.gap[0, [arm for arm, _ in SAMPLED].index(name)]),
                        "budget": run.samples[-1],
                        "gap_end": float(run.gap[-1].mean()),
                    }
                )
            again = []
            for _ in range(RESAMPLES):
                drawn = [
                    run.reach(eps, rng.integers(SEEDS, size=SEEDS))
                    for run, eps in zip(runs, EPSILONS, strict=True)
                ]
                again.append(slope_or_nan(inverse, drawn))
            low, high = interval(again)
            slopes.append(
                {
                    **label,
                    "reached": int(np.isfinite(needed).sum()),
                    "of": len(EPSILONS),
                    "slope": slope_or_nan(inverse, needed),
                    "slope_low": low,
                    "slope_high": high,
                    "slope_predicted": slope_or_nan(inverse, expected),
                    "slope_of_near_linear": near_linear,
                }
            )
    return rows, slopes


def slope_or_nan(inverse: DoubleArray, samples: Sequence[float]) -> float:
    """Slope of log samples on log(1/eps), NaN where an eps is not reached."""
    return line(inverse, np.log(samples))[0] if np.isfinite(samples).all() else float("nan")
