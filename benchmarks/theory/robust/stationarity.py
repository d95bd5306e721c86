"""How many samples the updates need until the gradient of the Moreau envelope is small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.ball import points_in_ball
from benchmarks.theory.problem import Problem, random_problem, reference_parameters
from benchmarks.theory.prox import moreau_gradient
from benchmarks.theory.robust.convexity import modulus
from benchmarks.theory.robust.loss import KINKS, RADIUS, STUDIED, loss
from benchmarks.theory.robust.proximal import FINEST, proximal_points, smoothed_minima
from benchmarks.theory.robust.steps import VARIANTS, Steps, run
from benchmarks.theory.statistics import RESAMPLES, bootstrap_means, interval, line
from sailctl.core.types import DoubleArray

SEEDS = 20
HORIZONS = tuple(2**power for power in range(8, 17))
"""T, samples of a run."""
STEP = 0.5
"""The step size of a run is STEP / sqrt(T): the power is the theory's, the constant is not."""
NEARBY = 0.5
"""Distance of the starts from the reference."""
LOOKS = 4
"""Iterates of a run, evenly spread, at which the Moreau envelope is computed."""
STEP_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
STEP_HORIZON = 2**12


@dataclass(frozen=True)
class Setting:
    """The problem that is studied, at one rho."""

    problem: Problem
    rho: float
    modulus: float
    """m on the ball."""
    place: Tensor
    """(d,) the minimum of L_rho in the ball."""
    least: float
    """Its value there."""

    @classmethod
    def at(cls, rho: float) -> Setting:
        """m and the minimum, both found from many starts."""
        problem = random_problem(STUDIED, quality=0.5)
        m, _ = modulus(partial(loss, problem, rho), RADIUS, [])
        reference = reference_parameters(problem)[None]
        search = torch.cat([reference, points_in_ball(20, problem.dimension, RADIUS, seed=11)])
        found = torch.cat([reference, smoothed_minima(problem, rho, search, FINEST)])
        values = loss(problem, rho, found)
        return cls(problem, rho, m, found[values.argmin()], float(values.min()))

    def gap(self, theta: DoubleArray) -> DoubleArray:
        """(...) L_rho at (..., d) parameters minus its minimum."""
        gap: DoubleArray = loss(self.problem, self.rho, torch.from_numpy(theta)).numpy() - self.least
        return gap

    def stationarity(self, theta: DoubleArray) -> tuple[DoubleArray, float]:
        """(...) squared length of the gradient of the Moreau envelope at (..., d) parameters, and the largest
        error bound of a gradient's length."""
        flat = theta.reshape(-1, theta.shape[-1])
        points, bound = proximal_points(self.problem, self.rho, torch.from_numpy(flat), self.modulus)
        gradient = moreau_gradient(flat, points.numpy(), 1 / (2 * self.modulus))
        square: DoubleArray = (gradient**2).sum(axis=1).reshape(theta.shape[:-1])
        return square, float(bound.max()) * 2 * self.modulus


def nearby(problem: Problem) -> DoubleArray:
    """(SEEDS, d) starts around the reference."""
    direction = points_in_ball(SEEDS, problem.dimension, 1.0, seed=10)
    around = NEARBY * direction / direction.norm(dim=-1, keepdim=True)
    start: DoubleArray = (reference_parameters(problem) + around).numpy()
    return start


def looks(horizon: int) -> list[int]:
    """Step counts spread evenly over a run, each in the middle of its part, and the last one."""
    return [int(horizon * (look + 0.5) / LOOKS) for look in range(LOOKS)] + [horizon]


def stationarity_rows(settings: Sequence[Setting]) -> tuple[list[Row], list[Row]]:
    """E|grad of the Moreau envelope|^2 at a random iterate of runs of T samples, and how T grows with 1/eps.

    ``slope`` is that of log T on log(1/eps), with eps the mean *squared* length, over all horizons. For eps
    the length itself it is twice as large.
    """
    rng, arms = np.random.default_rng(0), [(each, name) for each in settings for name in VARIANTS]
    problem = settings[0].problem
    start = np.concatenate([nearby(problem)] * len(arms))
    rows: list[Row] = []
    squares = np.empty((len(arms), len(HORIZONS), SEEDS))
    for column, horizon in enumerate(HORIZONS):
        length = STEP / math.sqrt(horizon)
        steps = Steps.joined([Steps.of(name, each.rho, length, SEEDS) for each, name in arms])
        runs = run(problem, start, steps, looks(horizon), rng).reshape(LOOKS + 1, len(arms), SEEDS, -1)
        for index, (each, name) in enumerate(arms):
            square, error = each.stationarity(runs[:, index])
            squares[index, column] = square[:LOOKS].mean(axis=0)
            rows.append(
                {
                    "rho": each.rho,
                    "minimum": KINKS[each.rho],
                    "variant": name,
                    "samples": horizon,
                    "step": length,
                    "m": each.modulus,
                    "seeds": SEEDS,
                    **mean_columns(squares[index, column], rng),
                    "mean_square_last": float(square[-1].mean()),
                    "loss_gap_last": float(each.gap(runs[-1, index]).mean()),
                    "error_bound": error,
                }
            )
    return rows, [
        slope_row(each, name, square, rng) for (each, name), square in zip(arms, squares, strict=True)
    ]


def slope_row(setting: Setting, variant: str, squares: DoubleArray, rng: np.random.Generator) -> Row:
    """The slope of log T on log(1/eps) for (horizons, seeds) squared gradients."""

    def slope(curve: DoubleArray) -> float:
        return line(-np.log(curve), np.log(HORIZONS))[0]

    drawn = rng.integers(SEEDS, size=(RESAMPLES, len(HORIZONS), SEEDS))
    low, high = interval([slope(np.take_along_axis(squares, seeds, axis=1).mean(axis=1)) for seeds in drawn])
    mean = squares.mean(axis=1)
    return {
        "rho": setting.rho,
        "minimum": KINKS[setting.rho],
        "variant": variant,
        "eps_largest": float(mean.max()),
        "eps_smallest": float(mean.min()),
        "slope": slope(mean),
        "slope_low": low,
        "slope_high": high,
        "slope_for_the_length": 2 * slope(mean),
    }


def mean_columns(values: DoubleArray, rng: np.random.Generator) -> Row:
    """The mean over seeds, with its bootstrap interval."""
    low, high = interval(bootstrap_means(values, rng))
    return {"mean_square": float(values.mean()), "mean_square_low": low, "mean_square_high": high}


def step_size_rows(setting: Setting) -> list[Row]:
    """Stationarity of the composite and the subgradient step at other step sizes."""
    rng, arms = np.random.default_rng(1), [(factor, name) for factor in STEP_FACTORS for name in VARIANTS[:2]]
    length = STEP / math.sqrt(STEP_HORIZON)
    steps = Steps.joined([Steps.of(name, setting.rho, factor * length, SEEDS) for factor, name in arms])
    start = np.concatenate([nearby(setting.problem)] * len(arms))
    runs = run(setting.problem, start, steps, looks(STEP_HORIZON), rng)
    square, _ = setting.stationarity(runs)
    gaps = setting.gap(runs[-1]).reshape(len(arms), SEEDS).mean(axis=1)
    return [
        {
            "rho": setting.rho,
            "variant": name,
            "samples": STEP_HORIZON,
            "step": factor * length,
            "seeds": SEEDS,
            **mean_columns(each, rng),
            "loss_gap_last": float(gap),
        }
        for (factor, name), each, gap in zip(
            arms, square[:LOOKS].mean(axis=0).reshape(len(arms), SEEDS), gaps, strict=True
        )
    ]
