"""Oracle-robust SAIL: its decomposition, weak convexity, composite updates, and where they stop being exact.

1. Worst case: L_SAIL + rho E|h| against the largest loss over all teachers within rho of P*, searched by
   projected gradient ascent on the teacher. What the formula charges too much where P* is near 0 or 1.
2. Freezing: from which rho on the reference itself is a stationary point, and the minimum, of L_rho.
3. Weak convexity: the smallest m for which L_rho + m/2 |theta|^2 is convex on the ball.
4. Stationarity: samples until the gradient of the Moreau envelope is small, for the paper's composite update
   (gradient step, proximal map of the sampled rho |h|, projection), for the subgradient step, and for a
   composite update that forgets that theta draws the pairs of the penalty too.
5. Linearity: over several control steps h is quadratic in theta, and what that does to the proximal map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from benchmarks.record import arguments, write
from benchmarks.theory.ball import derivatives, minimise, points_in_ball, project
from benchmarks.theory.convergence import answer_chances, interval, line, log_policy
from benchmarks.theory.figures import BLACK, BLUE, GREEN, ORANGE, PINK, panels
from benchmarks.theory.gradient import Control, linear_policy, reference_parameters
from benchmarks.theory.landscape import maximise
from benchmarks.theory.problem import Problem, random_problem, stack
from sailctl.core.types import BoolArray, DoubleArray, IntArray, RunError
from sailctl.objectives import moreau_gradient, prox_abs, robust_cost

RADIUS = 4.0
PROBLEMS = 200
"""Random problems of the worst case, a random policy on each."""
RHOS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
FROZEN = 8
"""Random problems of part 2."""
BALLS = (0.5, 1.0, 2.0, 4.0, 8.0)
SEGMENTS = 20_000
"""Random segments on which convexity is put to the test."""
STUDIED = 7
"""Seed of the problem of parts 3 and 4."""
KINKS = {0.03: "smooth minimum", 0.1: "minimum on an edge", 0.16: "minimum at the reference"}
"""rho, and where the minimum of L_rho lies among the kinks of |h|."""
VARIANTS = ("composite", "subgradient", "composite, sampling forgotten")
SEEDS = 20
HORIZONS = tuple(2**power for power in range(8, 17))
"""T, samples of a run."""
STEP = 0.5
"""The step size of a run is STEP / sqrt(T): the power is the theory's, the constant is not."""
NEARBY, FAR = 0.5, 2.0
"""Starts: so far from the reference, or anywhere in a ball of that radius."""
FAR_SEEDS, FAR_HORIZON = 60, 2**14
STEP_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
STEP_HORIZON = 2**12
STYLES = 4
"""Iterates of a run, evenly spread, at which the Moreau envelope is looked at."""
FINEST = 9
"""|h| is smoothed by 10^-1, 10^-2, ... down to 10^-FINEST on the way to a proximal point."""
NEAR = 1e-6
"""Scores that small are 0 at the proximal point."""
RESAMPLES = 500

Row = dict[str, object]


# 1. Worst case


def worst_teacher(problem: Problem, theta: Tensor, rho: float) -> Tensor:
    """(..., X, Y, Y) the teacher within rho of P* and within [0, 1] for which J is least.

    Projected gradient descent on the probabilities themselves, P(y2 > y1) = 1 - P(y1 > y2) kept, with steps
    that cross the set at once: J is linear in them, so the second step already changes nothing.
    """
    low, high = (problem.chance - rho).clamp(min=0), (problem.chance + rho).clamp(max=1)
    upper = torch.ones_like(problem.chance).triu(1)
    free = problem.chance * upper
    for _ in range(100):
        leaf = free.clone().requires_grad_()
        chance = leaf * upper + (1 - leaf.mT) * upper.mT + 0.5 * (1 - upper - upper.mT)
        value = replace(problem, chance=chance).objective(theta).sum()
        (slope,) = torch.autograd.grad(value, leaf)
        following = torch.clamp(free - 1e12 * slope, low, high) * upper
        if torch.equal(following, free):
            return chance.detach()
        free = following
    raise RunError("the search for the worst teacher does not come to an end")


def worst_case_rows() -> list[Row]:
    """Three formulas for the cost of the worst teacher, against the search.

    ``exact`` is the paper's rho |h|, ``clipped`` keeps the adversary within [0, 1] around P*, and ``around
    labels`` is what ``worst_case: clipped`` does with labels that are drawn: it keeps it within [0, 1] around
    0 or 1, so that on average it charges rho P* where h > 0.
    """
    rows: list[Row] = []
    for quality in (0.3, 2.0):
        problem = stack([random_problem(seed, quality=quality) for seed in range(PROBLEMS)])
        theta = torch.from_numpy(np.random.default_rng(0).normal(size=(PROBLEMS, problem.dimension)))
        different = ~torch.eye(problem.chance.shape[-1], dtype=torch.bool)
        room = torch.minimum(problem.chance, 1 - problem.chance)[..., different]
        h, pairs, chance = problem.score(theta), problem.pairs(theta), problem.chance
        for rho in RHOS:
            worst = replace(problem, chance=worst_teacher(problem, theta, rho)).objective(theta)
            cost = problem.objective(theta) - worst
            drawn = chance * robust_cost(h, rho, torch.ones_like(h))
            drawn = drawn + (1 - chance) * robust_cost(h, rho, torch.zeros_like(h))
            charged = {
                "exact": problem.objective(theta) - problem.robust(theta, rho),
                "clipped": problem.objective(theta) - problem.robust(theta, rho, clipped=True),
                "around labels": (pairs * drawn).sum(dim=(-3, -2, -1)),
            }
            regular = (room >= rho).flatten(1).all(dim=1)
            for formula, price in charged.items():
                error = (price - cost).abs()
                rows.append(
                    {
                        "quality": quality,
                        "rho": rho,
                        "formula": formula,
                        "problems": PROBLEMS,
                        "share_degenerate_pairs": float((room < rho).double().mean()),
                        "non_degenerate_problems": int(regular.sum()),
                        "error_max": float(error.max()),
                        "error_max_non_degenerate": float(error[regular].max())
                        if regular.any()
                        else float("nan"),
                        "charged_over_true_median": float((price / cost).median()),
                        "charged_over_true_min": float((price / cost).min()),
                        "charged_over_true_max": float((price / cost).max()),
                    }
                )
    return rows


# 2. Freezing


def kink_slopes(problem: Problem) -> Tensor:
    """(X, Y, Y, d) gradients of h: beta (phi(x, y1) - phi(x, y2)), the same at every theta."""
    return problem.beta * (problem.phi[:, :, None, :] - problem.phi[:, None, :, :])


def freezing_rho(problem: Problem) -> float:
    """The smallest rho for which the reference is a stationary point of L_rho (derived).

    There h = 0 for every pair, and L_rho grows along v at the rate rho E|v . grad h| - v . grad J. So rho is
    the largest v . grad J / E|v . grad h| over all directions.
    """
    reference = reference_parameters(problem)
    slope = derivatives(problem.objective, reference[None])[1][0]
    bends, weight = kink_slopes(problem), problem.pairs(reference)

    def rate(directions: Tensor) -> Tensor:
        along = (bends @ directions.T).abs()
        return directions @ slope / (weight[..., None] * along).sum(dim=(0, 1, 2))

    found, _ = maximise(rate, points_in_ball(2000, problem.dimension, 1.0, seed=5), 1.0)
    return found


def freezing_rows() -> list[Row]:
    """``freezes_at``, and how far below L_rho(reference) the minimum in the ball lies just above it.

    ``half`` is max |P* - 1/2|: from there on a teacher that answers at random is in the set, and no policy
    predicts its answers better than the reference does. ``room`` is min(P*, 1 - P*), the largest rho for
    which the decomposition is exact.
    """
    rows: list[Row] = []
    for quality in (0.3, 0.7, 2.0):
        for seed in range(FROZEN):
            problem = random_problem(seed, quality=quality)
            different = ~torch.eye(problem.chance.shape[-1], dtype=torch.bool)
            chance = problem.chance[:, different]
            freezes, half = freezing_rho(problem), float((chance - 0.5).abs().max())
            rows.append(
                {
                    "quality": quality,
                    "problem": seed,
                    "room": float(torch.minimum(chance, 1 - chance).min()),
                    "freezes_at": freezes,
                    "half": half,
                    "below_reference_at_freezing": below_reference(problem, 1.001 * freezes),
                }
            )
    return rows


def below_reference(problem: Problem, rho: float) -> float:
    """L_rho at the reference less its least value found in the ball, 0 when nothing better was found."""
    found = smoothed_minima(problem, rho, points_in_ball(20, problem.dimension, RADIUS, seed=6), finest=6)
    return max(0.0, math.log(2) + float(problem.robust(found, rho).max()))


# 3. Weak convexity


def loss(problem: Problem, rho: float, theta: Tensor) -> Tensor:
    """(N,) L_rho."""
    return -problem.robust(theta, rho)


def penalty(problem: Problem, theta: Tensor) -> Tensor:
    """(N,) E|h|."""
    return (problem.pairs(theta) * problem.score(theta).abs()).sum(dim=(-3, -2, -1))


def downward_curvature(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """(N,) minus the smallest eigenvalue of the Hessian of a smooth piece."""
    lowest: Tensor = torch.linalg.eigvalsh(derivatives(function, theta)[2])[:, 0]
    return -lowest


def modulus_bound(problem: Problem) -> float:
    """m for the penalty alone, for any radius (derived).

    With s the scores of the responses (phi less its mean), the Hessian of E|h| away from its kinks is
    E[|h| ((s1 + s2)(s1 + s2)^T - 2 Fisher)] + 2 beta E[sign(h) (s1 s1^T - s2 s2^T)], which is at least
    -(2 E|h| + 4 beta) Fisher, E|h| <= 2 beta (log Y + max log 1/pi_ref), and the Fisher information of a
    prompt is at most a quarter of the largest squared distance between features. Kinks only bend upwards.
    """
    spread = math.log(problem.phi.shape[-2]) + float(-problem.ref_logp.min())
    widest = float((kink_slopes(problem) / problem.beta).square().sum(dim=-1).max())
    return 4 * problem.beta * (1 + spread) * widest / 4


def midpoint_excess(function: Callable[[Tensor], Tensor], modulus: float, radius: float, seed: int) -> float:
    """Largest violation of convexity of function + modulus/2 |.|^2 at the middle of random segments.

    A quarter of the segments is as long as the ball allows, the others are up to 1000 times shorter.
    """
    one = points_in_ball(SEGMENTS, 3, radius, seed)
    other = points_in_ball(SEGMENTS, 3, radius, seed + 1)
    share = torch.logspace(-3, 0, 4, dtype=torch.float64).repeat(SEGMENTS // 4)[:, None]
    other = one + share * (other - one)
    middle = (one + other) / 2
    excess = function(middle) - (function(one) + function(other)) / 2
    # |middle|^2 less the mean of both ends' is minus a quarter of the squared distance.
    curve = (one - other).square().sum(dim=-1) / 8
    return float((excess - modulus * curve).max())


def modulus(
    function: Callable[[Tensor], Tensor], radius: float, known: Sequence[Tensor]
) -> tuple[float, Tensor]:
    """m, the largest downward curvature in the ball, and where; points already known are looked at too."""
    points = points_in_ball(1500, 3, radius, seed=7)
    rim = project(1e3 * points[:300], radius)
    return maximise(
        partial(downward_curvature, function), torch.cat([points, rim, *known]), radius, rounds=25
    )


def convexity_rows() -> list[Row]:
    """m on balls of several radii for several rho, and segments that hold it to that."""
    problem = random_problem(STUDIED, quality=0.5)
    rows: list[Row] = []
    alone: list[float] = []
    for rho in (None, 0.0, *KINKS):
        function = partial(penalty, problem) if rho is None else partial(loss, problem, rho)
        known: list[Tensor] = []
        for index, radius in enumerate(BALLS):
            m, place = modulus(function, radius, known)
            known = [place[None]]
            if rho is None:
                alone.append(m)
                continue
            rows.append(
                {
                    "rho": rho,
                    "radius": radius,
                    "m": m,
                    "m_of_penalty": alone[index],
                    "m_of_penalty_any_radius": modulus_bound(problem),
                    "worst_point_norm": float(place.norm()),
                    "excess_at_1.01_m": midpoint_excess(function, 1.01 * m, radius, seed=8),
                    "excess_without": midpoint_excess(function, 0.0, radius, seed=8),
                }
            )
    return rows


# 4. Stationarity


def smoothed_minima(
    problem: Problem, rho: float, start: Tensor, finest: int, prox: tuple[Tensor, float] | None = None
) -> Tensor:
    """(N, d) local minima over the ball of L_rho, or of L_rho + |x - centre|^2 / (2 size).

    |h| is smoothed to sqrt(h^2 + w^2) - w, with w smaller by ten from round to round, each round started
    where the one before ended.

    Args:
        problem: one problem.
        rho: of the penalty.
        start: (N, d).
        finest: the last w is 10^-finest.
        prox: (N, d) centres and the size; None leaves the quadratic out.
    """

    def smoothed(width: float, x: Tensor) -> Tensor:
        h = problem.score(x)
        cost = (problem.pairs(x) * (torch.sqrt(h * h + width * width) - width)).sum(dim=(-3, -2, -1))
        value = rho * cost - problem.objective(x)
        return value if prox is None else value + (x - prox[0]).square().sum(dim=-1) / (2 * prox[1])

    x = start
    for power in range(1, finest + 1):
        x, _ = minimise(partial(smoothed, 10.0**-power), x, RADIUS, steps=15, tolerance=1e-7)
    return x


def proximal_points(problem: Problem, rho: float, theta: Tensor, modulus: float) -> tuple[Tensor, Tensor]:
    """argmin_x L_rho(x) + modulus |x - theta|^2 over the ball, for L_rho + modulus/2 |.|^2 convex.

    The size of the Moreau envelope is 1 / (2 modulus) (Davis and Drusvyatskiy 2019), so that the objective is
    strongly convex with that modulus. Smoothed Newton finds the point; scores below ``NEAR`` are then set to
    0 by the shortest move, and a subgradient v at the result says how far the minimum can be at most.

    Returns:
        (N, d) points and (N,) the bounds |v| / modulus on their distance to the minimum.
    """
    size = 1 / (2 * modulus)
    x = smoothed_minima(problem, rho, theta, FINEST, (theta, size))
    h, bends = problem.score(x).flatten(1), kink_slopes(problem).flatten(0, 2)
    active = h.abs() < NEAR
    push = h / torch.sqrt(h * h + 10.0 ** (-2 * FINEST))
    rows = bends * active[..., None]
    x = x - (torch.linalg.pinv(rows, rtol=1e-6) @ (h * active)[..., None])[..., 0]
    # On active pairs any slope of |h| between -1 and 1 will do: the smoothed one is nearly the best.
    slopes = torch.where(active, push, h.sign())

    def linearised(leaf: Tensor) -> Tensor:
        signed = (problem.pairs(leaf) * problem.score(leaf)).flatten(1)
        value = rho * (signed * slopes).sum(dim=-1) - problem.objective(leaf)
        return value + (leaf - theta).square().sum(dim=-1) / (2 * size)

    leaf = x.clone().requires_grad_()
    (v,) = torch.autograd.grad(linearised(leaf).sum(), leaf)
    return x, (x - project(x - v, RADIUS)).norm(dim=-1) / modulus


@dataclass(frozen=True)
class Steps:
    """How R runs step."""

    rho: DoubleArray
    """(R,) of the penalty."""
    length: DoubleArray
    """(R,) step sizes."""
    direct: BoolArray
    """(R,) whether the penalty is followed by its subgradient; otherwise by its proximal map."""
    counted: BoolArray
    """(R,) whether it is counted that theta draws the pairs of the penalty too."""

    @classmethod
    def of(cls, variant: str, rho: float, length: float, count: int) -> Steps:
        """``count`` runs of one of the ``VARIANTS``."""
        return cls(
            np.full(count, rho),
            np.full(count, length),
            np.full(count, variant == "subgradient"),
            np.full(count, "forgotten" not in variant),
        )

    @classmethod
    def joined(cls, parts: Sequence[Steps]) -> Steps:
        """All of them side by side."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))


def run(
    problem: Problem, start: DoubleArray, steps: Steps, marks: Sequence[int], rng: np.random.Generator
) -> DoubleArray:
    """R runs, a sample (prompt, two responses, label) in each step.

    Args:
        problem: one problem.
        start: (R, d).
        steps: how each run steps.
        marks: increasing step counts at which the parameters are kept.
        rng: draws everything.

    Returns:
        (len(marks), R, d) parameters.
    """
    theta, kept = start, []
    for before, mark in pairwise([0, *marks]):
        for _ in range(before, mark):
            logp = log_policy(problem, theta)
            theta = one_step(problem, theta, logp, draw_one(problem, logp, rng), steps)
        kept.append(theta)
    return np.stack(kept)


def draw_one(
    problem: Problem, logp: DoubleArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray]:
    """(R,) prompt, preferred and other response, one sample for each of R policies."""
    chances = answer_chances(problem, logp)
    heaped = chances.reshape(len(logp), -1).cumsum(axis=1)
    cell = (heaped < rng.random((len(logp), 1)) * heaped[:, -1:]).sum(axis=1)
    x, better, worse = np.unravel_index(cell, chances.shape[1:])
    return x, better, worse


def one_step(
    problem: Problem,
    theta: DoubleArray,
    logp: DoubleArray,
    sample: tuple[IntArray, IntArray, IntArray],
    steps: Steps,
) -> DoubleArray:
    """(R, d) parameters after a step on one sample each.

    That of ``sail_loss`` with c = 1 and no baseline, then ``prox_abs`` but for the direct ones, then
    ``project_ball``; the tests hold it against them.

    Args:
        problem: one problem.
        theta: (R, d).
        logp: (R, X, Y) log pi_theta.
        sample: as ``draw_one`` gives it.
        steps: how each run steps.
    """
    phi, ref_logp = problem.phi.numpy(), problem.ref_logp.numpy()
    x, better, worse = sample
    every = np.arange(len(theta))
    ratio = logp - ref_logp
    h = problem.beta * (ratio[every, x, better] - ratio[every, x, worse])
    value = np.minimum(h, 0.0) - np.log1p(np.exp(-np.abs(h)))
    bend = problem.beta * (phi[x, better] - phi[x, worse])
    mean = np.einsum("ry,ryd->rd", np.exp(logp[every, x]), phi[x])
    drawn = phi[x, better] + phi[x, worse] - 2 * mean
    pull = np.exp(value - h) - steps.direct * steps.rho * np.sign(h)
    ahead = pull[:, None] * bend + (value - steps.counted * steps.rho * np.abs(h))[:, None] * drawn
    moved = theta + steps.length[:, None] * ahead
    # The proximal map of one pair: along the bend until the score is 0, by length * rho bends at most.
    square = np.maximum((bend * bend).sum(axis=1), np.finfo(float).tiny)
    score = h + ((moved - theta) * bend).sum(axis=1)
    reach = steps.length * steps.rho * ~steps.direct
    moved -= np.clip(score / square, -reach, reach)[:, None] * bend
    norm = np.sqrt((moved * moved).sum(axis=1, keepdims=True))
    inside: DoubleArray = moved * np.minimum(1.0, RADIUS / np.maximum(norm, RADIUS))
    return inside


@dataclass(frozen=True)
class Setting:
    """The problem of part 4 at one rho."""

    problem: Problem
    rho: float
    modulus: float
    """m on the ball."""
    place: Tensor
    """(d,) where L_rho is least in the ball."""
    least: float
    """Its value there."""

    @classmethod
    def at(cls, rho: float) -> Setting:
        """m and the minimum, both searched from many starts."""
        problem = random_problem(STUDIED, quality=0.5)
        m, _ = modulus(partial(loss, problem, rho), RADIUS, [])
        reference = reference_parameters(problem)[None]
        search = torch.cat([reference, points_in_ball(20, problem.dimension, RADIUS, seed=11)])
        found = torch.cat([reference, smoothed_minima(problem, rho, search, FINEST)])
        values = loss(problem, rho, found)
        return cls(problem, rho, m, found[values.argmin()], float(values.min()))

    def gap(self, theta: DoubleArray) -> DoubleArray:
        """(...) L_rho at (..., d) parameters less its minimum."""
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
    """Iterates spread evenly over a run, each in the middle of its part, and the last one."""
    return [int(horizon * (look + 0.5) / STYLES) for look in range(STYLES)] + [horizon]


def stationarity_rows(settings: Sequence[Setting]) -> tuple[list[Row], list[Row]]:
    """E|grad of the Moreau envelope|^2 at a random iterate of runs of T samples, and what eps costs.

    ``slope`` is that of log T on log(1/eps), with eps the mean *squared* length, over all horizons; for eps
    the length itself it is twice as much.
    """
    rng, arms = np.random.default_rng(0), [(each, name) for each in settings for name in VARIANTS]
    problem = settings[0].problem
    start = np.concatenate([nearby(problem)] * len(arms))
    rows: list[Row] = []
    squares = np.empty((len(arms), len(HORIZONS), SEEDS))
    for column, horizon in enumerate(HORIZONS):
        length = STEP / math.sqrt(horizon)
        steps = Steps.joined([Steps.of(name, each.rho, length, SEEDS) for each, name in arms])
        runs = run(problem, start, steps, looks(horizon), rng).reshape(STYLES + 1, len(arms), SEEDS, -1)
        for index, (each, name) in enumerate(arms):
            square, error = each.stationarity(runs[:, index])
            squares[index, column] = square[:STYLES].mean(axis=0)
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


def bootstrap_means(values: DoubleArray, rng: np.random.Generator) -> DoubleArray:
    """(RESAMPLES,) means of (seeds,) values over resampled seeds."""
    means: DoubleArray = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    return means


def mean_columns(values: DoubleArray, rng: np.random.Generator) -> Row:
    """The mean over seeds, with its bootstrap interval."""
    low, high = interval(bootstrap_means(values, rng))
    return {"mean_square": float(values.mean()), "mean_square_low": low, "mean_square_high": high}


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


def step_size_rows(setting: Setting) -> list[Row]:
    """How the composite and the subgradient step bear other constants in the step size."""
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
            arms, square[:STYLES].mean(axis=0).reshape(len(arms), SEEDS), gaps, strict=True
        )
    ]


def sampling_rows(settings: Sequence[Setting]) -> list[Row]:
    """The two parts of grad E|h| (``penalty_parts``), far from the minimum and there: lengths and cosine.

    ``rho_drawing`` is what a method that forgets the second part leaves of the gradient of L_rho there.
    """
    rows: list[Row] = []
    for setting in settings:
        anywhere = points_in_ball(2000, setting.problem.dimension, FAR, seed=12)
        for place, theta in (("far", anywhere), ("minimum", setting.place[None])):
            held, drawn = penalty_parts(setting.problem, theta)
            rows.append(
                {
                    "rho": setting.rho,
                    "minimum": KINKS[setting.rho],
                    "at": place,
                    "held_pairs": float(held.norm(dim=-1).median()),
                    "drawing": float(drawn.norm(dim=-1).median()),
                    "cosine": float(torch.cosine_similarity(held, drawn, dim=-1).median()),
                    "rho_drawing": setting.rho * float(drawn.norm(dim=-1).median()),
                }
            )
    return rows


def far_rows(settings: Sequence[Setting]) -> list[Row]:
    """How far above the minimum, and how stationary, runs from far starts end."""
    rng, rows = np.random.default_rng(2), []
    for setting in settings:
        start = points_in_ball(FAR_SEEDS, setting.problem.dimension, FAR, seed=13).numpy()
        length = STEP / math.sqrt(FAR_HORIZON)
        steps = Steps.joined([Steps.of(name, setting.rho, length, FAR_SEEDS) for name in VARIANTS])
        (ends,) = run(setting.problem, np.concatenate([start] * len(VARIANTS)), steps, [FAR_HORIZON], rng)
        for name, end in zip(VARIANTS, ends.reshape(len(VARIANTS), FAR_SEEDS, -1), strict=True):
            gap = setting.gap(end)
            low, high = interval(bootstrap_means(gap, rng))
            rows.append(
                {
                    "rho": setting.rho,
                    "minimum": KINKS[setting.rho],
                    "variant": name,
                    "samples": FAR_HORIZON,
                    "seeds": FAR_SEEDS,
                    "loss_gap": float(gap.mean()),
                    "loss_gap_low": low,
                    "loss_gap_high": high,
                    "mean_square": float(setting.stationarity(end)[0].mean()),
                }
            )
    return rows


def penalty_parts(problem: Problem, theta: Tensor) -> tuple[Tensor, Tensor]:
    """(N, d) E[grad |h|] at held pairs, and E[|h| grad log(pi pi)], added because theta draws them."""
    leaf = theta.clone().requires_grad_()
    pairs, size = problem.pairs(leaf), problem.score(leaf).abs()
    (held,) = torch.autograd.grad((pairs.detach() * size).sum(), leaf, retain_graph=True)
    (drawn,) = torch.autograd.grad((pairs * size.detach()).sum(), leaf)
    return held, drawn


# 5. Linearity


@dataclass(frozen=True)
class SegmentPair:
    """Two segments of the linear system of part a of the lab, as theta's linear-Gaussian policy sees them."""

    score: float
    """h at theta."""
    slope: DoubleArray
    """(d,) its gradient."""
    bend: DoubleArray
    """(d, d) its Hessian, the same at every theta: h is quadratic."""

    def at(self, theta: DoubleArray, x: DoubleArray) -> float:
        """h at x."""
        move = x - theta
        return float(self.score + self.slope @ move + move @ self.bend @ move / 2)

    def exact_prox(self, theta: DoubleArray, weight: float) -> DoubleArray:
        """argmin_x weight |h(x)| + |x - theta|^2 / 2, for a weight small enough to keep it convex.

        With weight |h| = max u h over |u| <= weight, the minimum for a held u solves a linear system, and h
        falls along u: the saddle is where h = 0, or at an end of the interval.
        """
        eye = np.eye(len(theta))

        def held(u: float) -> DoubleArray:
            point: DoubleArray = theta - np.linalg.solve(eye + u * self.bend, u * self.slope)
            return point

        end = weight * np.sign(self.score)
        if np.sign(self.at(theta, held(end))) == np.sign(self.score):
            return held(end)
        low, high = 0.0, end
        for _ in range(200):
            middle = (low + high) / 2
            if np.sign(self.at(theta, held(middle))) == np.sign(self.score):
                low = middle
            else:
                high = middle
        return held((low + high) / 2)

    def linear_prox(self, theta: DoubleArray, weight: float) -> DoubleArray:
        """The same with h taken as linear around theta: what the learner does."""
        return prox_abs(theta, self.slope, float(self.score - self.slope @ theta), weight)


CONTROL_POLICY, CONTROL_REFERENCE = (-0.8, -0.6, -0.1), (-0.4, -0.2, 0.1)


def segment_scores(control: Control, theta: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """(T,) beta log pi_theta / pi_ref of each trajectory by the project's policy."""
    return control.beta * control.log_ratio(
        linear_policy(theta), linear_policy(CONTROL_REFERENCE), states, actions
    )


def trajectories(length: int) -> tuple[Control, Tensor, Tensor]:
    """Three-point quadrature rollouts of so many steps from the first start."""
    control = Control(segment=length, judged=length, nodes=3)
    with torch.no_grad():
        states, actions, _ = control.rollout(linear_policy(CONTROL_POLICY), control.STARTS[0])
    return control, states, actions


def segment_pair(control: Control, states: Tensor, actions: Tensor, one: int, other: int) -> SegmentPair:
    """h of two trajectories with its derivatives, for a policy of fixed standard deviation.

    log pi(a|s) is -(a - theta . f(s))^2 / (2 std^2) and a constant: quadratic in theta. On the same state the
    quadratic parts of two actions cancel, on the later, different states they do not.
    """
    features = torch.cat([states, torch.ones_like(states[..., :1])], dim=-1).numpy()
    theta = np.array(CONTROL_POLICY)
    variance = float(linear_policy(CONTROL_POLICY).log_std.exp().square())
    error = actions[..., 0].numpy() - features @ theta
    slope = control.beta / variance * np.einsum("tl,tld->td", error, features)
    bend = -control.beta / variance * np.einsum("tld,tle->tde", features, features)
    with torch.no_grad():
        score = segment_scores(control, torch.from_numpy(theta), states, actions).numpy()
    return SegmentPair(float(score[one] - score[other]), slope[one] - slope[other], bend[one] - bend[other])


WEIGHTS = tuple((0.2 * 0.5 ** np.arange(8)).tolist())
"""Step size times rho of the proximal maps that are compared."""


def linearity_rows() -> list[Row]:
    """How bent h is over H steps, and how far the prox-linear step lies from the proximal point for it.

    ``second_difference``: largest |h(theta + v) + h(theta - v) - 2 h(theta)| for random v of length 1, by
    the project's own policy, over the spread of h; ``distance``: from the linear to the exact proximal
    point, over the length of the step.
    """
    rows: list[Row] = []
    rng = np.random.default_rng(0)
    theta = torch.tensor(CONTROL_POLICY, dtype=torch.float64)
    for length in (1, 2, 3, 4):
        control, states, actions = trajectories(length)
        with torch.no_grad():
            middle = segment_scores(control, theta, states, actions)
            spread = middle.max() - middle.min()
            largest = 0.0
            for _ in range(20):
                v = torch.from_numpy(rng.normal(size=3))
                v = v / v.norm()
                ends = [segment_scores(control, theta + sign * v, states, actions) for sign in (1, -1)]
                second = ends[0] + ends[1] - 2 * middle
                largest = max(largest, float(second.max() - second.min()))
        pairs = [
            segment_pair(control, states, actions, *rng.choice(len(states), 2, replace=False))
            for _ in range(200)
        ]
        for weight in WEIGHTS:
            exact = [pair.exact_prox(theta.numpy(), weight) for pair in pairs]
            linear = [pair.linear_prox(theta.numpy(), weight) for pair in pairs]
            apart = np.linalg.norm(np.array(exact) - np.array(linear), axis=1)
            moved = np.linalg.norm(np.array(exact) - theta.numpy(), axis=1)
            rows.append(
                {
                    "H": length,
                    "second_difference": largest / float(spread),
                    "weight": weight,
                    "pairs": len(pairs),
                    "distance_median": float(np.median(apart / moved)),
                    "distance_max": float((apart / moved).max()),
                }
            )
    return rows


# Record and figure

SHADES = dict(zip(KINKS, (BLUE, GREEN, ORANGE), strict=True))


def draw(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Six panels, in the order of the records."""
    with panels(path, 2, 3, (4.0, 3.3)) as (_, axes):
        draw_worst_case(axes[0, 0], tables["theory_robust_worst_case"])
        draw_freezing(axes[0, 1], tables["theory_robust_freezing"])
        draw_convexity(axes[0, 2], tables["theory_robust_convexity"])
        draw_stationarity(axes[1, 0], tables["theory_robust_stationarity"])
        draw_step_sizes(axes[1, 1], tables["theory_robust_step_sizes"])
        draw_linearity(axes[1, 2], tables["theory_robust_linearity"])


def draw_worst_case(axes: Axes, worst: pd.DataFrame) -> None:
    """Largest distance of each formula to the searched worst case."""
    for formula, quality, column, colour, label in (
        ("around labels", 2.0, "error_max", PINK, "clipped around drawn labels"),
        ("exact", 2.0, "error_max", ORANGE, "$\\rho$ |h|, extreme teachers"),
        ("exact", 0.3, "error_max_non_degenerate", BLUE, "$\\rho$ |h|, $\\rho \\leq$ min(P*, 1 $-$ P*)"),
        ("clipped", 2.0, "error_max", GREEN, "clipped around P*, extreme teachers"),
    ):
        here = worst[(worst["formula"] == formula) & (worst["quality"] == quality)]
        axes.semilogy(here["rho"], here[column], color=colour, marker="o", ms=3, label=label)
    axes.set_ylim(1e-17, 1e8)
    axes.set(
        title=f"Worst case: {PROBLEMS} random problems",
        xlabel="$\\rho$",
        ylabel="largest error of the robust loss",
    )
    axes.legend(loc="upper left")


def draw_freezing(axes: Axes, freezing: pd.DataFrame) -> None:
    """Where the reference becomes stationary, against the range in which the formula is exact."""
    for quality, colour in zip((0.3, 0.7, 2.0), (BLUE, GREEN, ORANGE), strict=True):
        here = freezing[freezing["quality"] == quality]
        axes.plot(
            here["room"],
            here["freezes_at"],
            color=colour,
            marker="o",
            ms=4,
            ls="",
            label=f"quality of scale {quality:g}",
        )
    axes.plot([0, 0.4], [0, 0.4], color=BLACK, lw=0.8, label="below: frozen while exact")
    axes.set_ylim(0, 0.6)
    axes.set(
        title="The least $\\rho$ at which the reference is stationary",
        xlabel="largest $\\rho$ with an exact formula",
        ylabel="$\\rho$",
    )
    axes.legend(loc="upper center", ncols=2)


def draw_convexity(axes: Axes, convexity: pd.DataFrame) -> None:
    """m over the radius."""
    for (rho, here), colour in zip(convexity.groupby("rho"), (BLACK, *SHADES.values()), strict=True):
        axes.semilogx(here["radius"], here["m"], color=colour, marker="o", ms=3, label=f"$\\rho$ = {rho:g}")
    axes.set_xticks(BALLS, [f"{radius:g}" for radius in BALLS])
    axes.minorticks_off()
    axes.set_ylim(0, 1.15)
    axes.set(
        title=f"Weak convexity, problem {STUDIED}",
        xlabel="radius of the ball",
        ylabel="m: L$_\\rho$ + m/2 |$\\theta$|$^2$ is convex",
    )
    axes.legend(ncols=2, loc="upper left")


def draw_stationarity(axes: Axes, runs: pd.DataFrame) -> None:
    """Mean squared gradient of the Moreau envelope over the samples of a run."""
    for rho, where in KINKS.items():
        for variant, marker, style in (("composite", "o", "-"), ("subgradient", "x", "--")):
            here = runs[(runs["rho"] == rho) & (runs["variant"] == variant)]
            axes.loglog(
                here["samples"],
                here["mean_square"],
                color=SHADES[rho],
                marker=marker,
                ms=4,
                lw=0.8,
                ls=style,
                label=f"$\\rho$ = {rho:g}, {where}" if variant == "composite" else None,
            )
    axes.plot([], [], color=BLACK, marker="x", ms=4, lw=0.8, ls="--", label="subgradient steps instead")
    guide = np.array(HORIZONS, dtype=float)
    axes.loglog(guide, 0.5 / np.sqrt(guide), color=BLACK, lw=0.8, label="$1/\\sqrt{T}$")
    axes.set_ylim(top=0.6)
    axes.set(
        title="Composite updates: stationarity of a random iterate",
        xlabel="T, samples of the run",
        ylabel="squared gradient of the envelope",
    )
    axes.legend(loc="upper right")


def draw_step_sizes(axes: Axes, steps: pd.DataFrame) -> None:
    """Stationarity over the step size."""
    for variant, colour, marker in (("composite", BLUE, "o"), ("subgradient", ORANGE, "x")):
        here = steps[steps["variant"] == variant]
        mean = here["mean_square"]
        axes.errorbar(
            here["step"],
            mean,
            yerr=[mean - here["mean_square_low"], here["mean_square_high"] - mean],
            color=colour,
            marker=marker,
            ms=4,
            lw=0.9,
            label=variant,
        )
    axes.set(
        xscale="log",
        yscale="log",
        title=f"T = {STEP_HORIZON}, $\\rho$ = {steps['rho'].iloc[0]:g}: other step sizes",
        xlabel="step size",
        ylabel="squared gradient of the envelope",
    )
    axes.legend()


def draw_linearity(axes: Axes, linearity: pd.DataFrame) -> None:
    """Distance of the prox-linear step from the exact proximal point."""
    for length, colour in ((2, BLUE), (3, GREEN), (4, ORANGE)):
        here = linearity[linearity["H"] == length]
        axes.loglog(
            here["weight"], here["distance_median"], color=colour, marker="o", ms=3, label=f"H = {length}"
        )
        axes.loglog(here["weight"], here["distance_max"], color=colour, ls=":")
    axes.plot([], [], color=BLACK, ls=":", label="largest of 200 pairs")
    axes.plot([], [], ls="", label="H = 1: equal to rounding")
    axes.set(
        title="Control: is the prox-linear step the proximal one?",
        xlabel="step size times $\\rho$",
        ylabel="distance / length of the step",
    )
    axes.legend(loc="lower right")


def main() -> None:
    asked = arguments(__doc__).parse_args()
    settings = [Setting.at(rho) for rho in KINKS]
    stationarity, slopes = stationarity_rows(settings)
    records = {
        "theory_robust_worst_case": worst_case_rows(),
        "theory_robust_freezing": freezing_rows(),
        "theory_robust_convexity": convexity_rows(),
        "theory_robust_stationarity": stationarity,
        "theory_robust_slopes": slopes,
        "theory_robust_step_sizes": step_size_rows(settings[1]),
        "theory_robust_sampling": sampling_rows(settings),
        "theory_robust_far": far_rows(settings),
        "theory_robust_linearity": linearity_rows(),
    }
    for name, rows in records.items():
        write(asked.results, name, rows, {"what": __doc__, "radius": RADIUS})
    tables = {name: pd.DataFrame(rows) for name, rows in records.items()}
    draw(tables, asked.results / "theory_robust.png")


if __name__ == "__main__":
    main()
