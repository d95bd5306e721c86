"""SAIL-RevKL converges: what holds of it along projected gradient ascent, exact and stochastic.

Log-linear policies on enumerable problems. Three objectives side by side: J (SAIL),
J - gamma KL(pi_ref || pi) (the paper's penalty, as its authors compute it) and J - gamma KL(pi || pi_ref).
Three kinds of start: the reference, the neighbourhood of a saddle of J, and a point where the policy is
almost deterministic.

1. Paths: exact ascent; the Polyak-Lojasiewicz constant mu = min |G|^2 / (2 gap) along it, with the gap to the
   global maximum in the ball, and G the gradient mapping of the projection. The same on whole spheres.
2. Noise: with a constant step the stochastic ascent ends in a ball whose size is that of the step. To first
   order in the step the mean gap in it is step * tr C / 4, C the covariance of the gradient (derived).
3. Samples: how many the stochastic ascent needs until the mean gap over seeds is eps.
4. Bias: what gamma takes from J: J(theta*) - J(theta_gamma) <= gamma KL(theta*), and from where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.record import arguments, write
from benchmarks.theory.ball import derivatives, minimise, points_in_ball, project
from benchmarks.theory.figures import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, YELLOW, panels
from benchmarks.theory.gradient import reference_parameters
from benchmarks.theory.problem import Problem, random_problem, stack
from sailctl.core.types import DoubleArray, IntArray, RunError

PROBLEMS = (7, 4, 6)
"""Seeds of the problems; the first is the one in the figure's first panels."""
RADIUS = 6.0
GAMMA = 0.3
STARTS = 120
"""Starts of each search for a global maximum."""
ARMS = (
    ("sail", 0.0),
    ("kl_ref_pi", GAMMA),
    ("kl_pi_ref", GAMMA),
    ("kl_ref_pi", 3.0),
    ("kl_pi_ref", 3.0),
    ("kl_ref_pi", 0.03),
)
"""Penalty and gamma of each objective that is followed exactly."""
SAMPLED = ARMS[:3]
"""Those that are followed stochastically too."""
PAPER = 1
"""The paper's arm."""
COLOURS = {"sail": ORANGE, "kl_ref_pi": BLUE, "kl_pi_ref": GREEN}
NAMES = {"sail": "J (SAIL)", "kl_ref_pi": "KL(ref || $\\pi$)", "kl_pi_ref": "KL($\\pi$ || ref)"}
ITERATIONS = 4000
"""Longest exact path."""
RESOLVED = 1e-12
"""Smallest gap that float64 tells from rounding."""
RADII = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Spheres on which mu is looked at, outside the ball as well."""
SPHERE = 2000
"""Points on each."""
BATCH = 32
"""Pairs in a stochastic step."""
SEEDS = 20
NOISE_STEPS = (0.4, 0.2, 0.1, 0.05, 0.025)
NOISE_RUN = 3000
"""Steps of a run; the ball is measured over the second half."""
EPSILONS = tuple(np.geomspace(3e-3, 3e-5, 7).tolist())
PATIENCE = 4.0
"""Budget of a stochastic run, in units of what exact ascent would need."""
MARKS = 250
"""Moments of a stochastic run at which the exact gap is looked at."""
RESAMPLES = 500
GAMMAS = tuple(np.geomspace(1e-4, 3.0, 19).tolist())

Row = dict[str, object]


# The objectives and their maxima


@dataclass(frozen=True)
class Objective:
    """J - ref_pi KL(pi_ref || pi) - pi_ref KL(pi || pi_ref), one or one for each row of theta."""

    problem: Problem
    ref_pi: Tensor
    """(N,) weights, or 0-d."""
    pi_ref: Tensor
    """(N,) weights, or 0-d."""

    def __call__(self, theta: Tensor) -> Tensor:
        """(N,) values at (N, d) parameters."""
        penalty = self.ref_pi * self.problem.kl(theta, "kl_ref_pi")
        return self.problem.objective(theta) - penalty - self.pi_ref * self.problem.kl(theta, "kl_pi_ref")

    def repeat(self, count: int) -> Objective:
        """Each row ``count`` times over."""
        return Objective(
            self.problem, self.ref_pi.repeat_interleave(count), self.pi_ref.repeat_interleave(count)
        )


def weights_of(arms: Sequence[tuple[str, float]]) -> Tensor:
    """(N, 2) weights of KL(pi_ref || pi) and of KL(pi || pi_ref)."""
    return torch.tensor(
        [[gamma * (name == direction) for direction in ("kl_ref_pi", "kl_pi_ref")] for name, gamma in arms],
        dtype=torch.float64,
    )


def objectives(problem: Problem, arms: Sequence[tuple[str, float]]) -> Objective:
    """One row for each arm."""
    return Objective(problem, *weights_of(arms).T)


def global_maxima(objective: Objective) -> tuple[Tensor, Tensor]:
    """(N, d) where in the ball each row of an objective of one problem is largest, and (N,) its value there.

    The best of Newton's method from many starts, polished.

    Raises:
        RunError: when a best point is not stationary.
    """
    count = len(objective.ref_pi)
    starts = points_in_ball(STARTS, objective.problem.dimension, RADIUS, seed=0)
    starts = torch.cat([starts, reference_parameters(objective.problem)[None]])
    many = objective.repeat(len(starts))
    found, _ = minimise(lambda theta: -many(theta), starts.repeat(count, 1), RADIUS, steps=40)
    best = many(found).reshape(count, -1).argmax(dim=1)
    chosen = found.reshape(count, len(starts), -1)[torch.arange(count), best]
    chosen, error = minimise(lambda theta: -objective(theta), chosen, RADIUS, steps=300)
    if error.max() > 1e-9:
        raise RunError(f"the maximum is only stationary to {error.max():.1e}")
    return chosen, objective(chosen)


def local_maxima(objective: Objective) -> list[int]:
    """How many different local maxima Newton's method finds in the ball, for each row."""
    count = len(objective.ref_pi)
    starts = points_in_ball(STARTS, objective.problem.dimension, RADIUS, seed=1)
    many = objective.repeat(len(starts))
    found, error = minimise(lambda theta: -many(theta), starts.repeat(count, 1), RADIUS, steps=60)
    values = many(found).reshape(count, -1)
    return [
        len(np.unique(np.round(row[settled].numpy(), 6)))
        for row, settled in zip(values, (error < 1e-8).reshape(count, -1), strict=True)
    ]


# The starts


def saddle_of_j(problem: Problem) -> Tensor:
    """(d,) the stationary point of J nearest to the reference where J bends up in some direction.

    Levenberg-Marquardt steps on |grad J|^2 from many starts find stationary points of every kind.
    """
    theta = points_in_ball(400, problem.dimension, RADIUS, seed=2)
    damping = torch.full((len(theta), 1, 1), 1e-2, dtype=torch.float64)
    eye = torch.eye(problem.dimension, dtype=torch.float64)
    _, slope, curvature = derivatives(problem.objective, theta)
    for _ in range(60):
        step = torch.linalg.solve(curvature @ curvature + damping * eye, curvature @ slope[..., None])[..., 0]
        trial = project(theta - step, RADIUS)
        _, new_slope, new_curvature = derivatives(problem.objective, trial)
        better = new_slope.norm(dim=-1) < slope.norm(dim=-1)
        theta = torch.where(better[:, None], trial, theta)
        slope = torch.where(better[:, None], new_slope, slope)
        curvature = torch.where(better[:, None, None], new_curvature, curvature)
        damping = torch.where(better[:, None, None], damping / 4, damping * 4)
    bend = torch.linalg.eigvalsh(curvature)[:, -1]
    saddles = theta[(slope.norm(dim=-1) < 1e-10) & (bend > 1e-3) & (theta.norm(dim=-1) < 0.95 * RADIUS)]
    nearest: Tensor = saddles[(saddles - reference_parameters(problem)).norm(dim=-1).argmin()]
    return nearest


def plateau_of_j(problem: Problem) -> Tensor:
    """(d,) the flattest of many points at the rim of the ball: pi_theta hardly ever gives two answers."""
    points = points_in_ball(4000, problem.dimension, RADIUS, seed=3)
    points = 0.95 * RADIUS * points / points.norm(dim=-1, keepdim=True)
    slope = derivatives(problem.objective, points)[1]
    flattest: Tensor = points[slope.norm(dim=-1).argmin()]
    return flattest


@dataclass(frozen=True)
class Case:
    """A problem and where ascent starts on it."""

    problem: Problem
    seed: int
    name: str
    start: Tensor

    @property
    def label(self) -> Row:
        """Its columns in the records."""
        return {"problem": self.seed, "start": self.name}


def cases() -> list[Case]:
    """Every problem from every kind of start."""
    found = []
    for seed in PROBLEMS:
        problem = random_problem(seed, quality=1.0)
        beside = 1e-3 * torch.ones(problem.dimension, dtype=torch.float64)
        starts = {
            "reference": reference_parameters(problem),
            "saddle": saddle_of_j(problem) + beside,
            "plateau": plateau_of_j(problem),
        }
        found += [Case(problem, seed, name, start) for name, start in starts.items()]
    return found


# 1. Paths


@dataclass(frozen=True)
class Trace:
    """Exact projected gradient ascent of N objectives, K steps of length 1 / L."""

    gap: DoubleArray
    """(K, N) distance to the global maximum."""
    mapping: DoubleArray
    """(K, N) squared length of the gradient mapping G."""
    smoothness: DoubleArray
    """(N,) L, the largest curvature found in the ball."""
    end: Tensor
    """(N, d) where it has come to."""

    def constant(self) -> DoubleArray:
        """(N,) mu = min |G|^2 / (2 gap), where the gap is more than rounding."""
        ratio = np.divide(self.mapping, 2 * self.gap, out=np.full_like(self.gap, np.inf), where=self.seen())
        smallest: DoubleArray = ratio.min(axis=0)
        return smallest

    def seen(self) -> NDArray[np.bool_]:
        """(K, N) where the gap is more than rounding."""
        return self.gap > RESOLVED


def smoothness(objective: Objective, start: Tensor) -> Tensor:
    """(N,) largest |eigenvalue| of the Hessian of each row found in the ball, and at the start (d,)."""
    points = torch.cat([points_in_ball(2000, objective.problem.dimension, RADIUS, seed=4), start[None]])
    count = len(objective.ref_pi)
    curvature = derivatives(objective.repeat(len(points)), points.repeat(count, 1))[2]
    largest: Tensor = torch.linalg.eigvalsh(curvature).abs().reshape(count, -1).amax(dim=1)
    return largest


def trace(objective: Objective, start: Tensor, best: Tensor, largest: Tensor) -> Trace:
    """Follow exact projected gradient ascent from (N, d) starts.

    Args:
        objective: N rows.
        start: (N, d).
        best: (N,) values of the global maxima.
        largest: (N,) L.
    """
    gaps, mappings, theta = [], [], start
    for _ in range(ITERATIONS):
        leaf = theta.detach().requires_grad_()
        value = objective(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        following = project(theta + slope / largest[:, None], RADIUS)
        gaps.append((best - value).detach().numpy())
        mappings.append(((following - theta) * largest[:, None]).square().sum(dim=-1).numpy())
        theta = following
    return Trace(np.stack(gaps), np.stack(mappings), largest.numpy(), theta)


@dataclass(frozen=True)
class Studied:
    """A case with what is known of it exactly, for each arm."""

    case: Case
    objective: Objective
    place: Tensor
    """(arms, d) global maxima in the ball."""
    best: Tensor
    """(arms,) their values."""
    curvature: DoubleArray
    """(arms,) mu*, the smallest curvature at each."""
    maxima: list[int]
    """How many local maxima were found."""
    trace: Trace


def study(found: Sequence[Case]) -> list[Studied]:
    """Maxima and exact paths of all cases, the paths all in one go."""
    known = {}
    for case in found:
        if case.seed not in known:
            objective = objectives(case.problem, ARMS)
            place, best = global_maxima(objective)
            bend = torch.linalg.eigvalsh(derivatives(objective, place)[2])[:, -1]
            largest = smoothness(objective, case.start)
            known[case.seed] = objective, place, best, -bend.numpy(), local_maxima(objective), largest
    arms, count = len(ARMS), len(found)
    together = Objective(
        stack([case.problem for case in found for _ in ARMS]),
        *weights_of(ARMS).T.repeat(1, count),
    )
    start = torch.stack([case.start for case in found]).repeat_interleave(arms, dim=0)
    best = torch.cat([known[case.seed][2] for case in found])
    whole = trace(together, start, best, torch.cat([known[case.seed][5] for case in found]))
    parts = [slice(arms * index, arms * (index + 1)) for index in range(count)]
    return [
        Studied(
            case,
            *known[case.seed][:5],
            Trace(whole.gap[:, part], whole.mapping[:, part], whole.smoothness[part], whole.end[part]),
        )
        for case, part in zip(found, parts, strict=True)
    ]


def path_rows(studied: Sequence[Studied]) -> list[Row]:
    """mu, whether the path reaches the global maximum, and how straight log gap is against iterations.

    ``J_gap_end`` is what the path's end lacks of the maximum of J itself, whatever it has climbed.
    ``worst_over_bound`` is the largest gap_k / ((1 - mu / L)^k gap_0): at most 1 by the theorem.
    """
    rows: list[Row] = []
    for known in studied:
        constant, path = known.trace.constant(), known.trace
        behind = (known.best[0] - known.case.problem.objective(path.end)).numpy()
        for arm, (name, gamma) in enumerate(ARMS):
            gap, largest = path.gap[:, arm], path.smoothness[arm]
            steps = np.flatnonzero(path.seen()[:, arm])
            half = steps[len(steps) // 2 :]
            reached = bool(gap[-1] < RESOLVED)
            rate, straight = rate_of(gap, steps) if reached else (np.nan, np.nan)
            late_rate, late_straight = rate_of(gap, half) if reached else (np.nan, np.nan)
            bound = np.log1p(-constant[arm] / largest) * steps + np.log(gap[0])
            rows.append(
                {
                    **known.case.label,
                    "objective": name,
                    "gamma": gamma,
                    "local_maxima": known.maxima[arm],
                    "maximum_norm": float(known.place[arm].norm()),
                    "gap_start": float(gap[0]),
                    "gap_end": float(gap[-1]),
                    "J_gap_end": float(behind[arm]),
                    "reached": reached,
                    "iterations": len(steps),
                    "mu_path": float(constant[arm]),
                    "mu_at_maximum": float(known.curvature[arm]),
                    "L": float(largest),
                    "worst_over_bound": float(np.exp((np.log(gap[steps]) - bound).max())),
                    "rate": rate,
                    "r2": straight,
                    "late_rate": late_rate,
                    "late_r2": late_straight,
                }
            )
    return rows


def radius_rows(studied: Sequence[Studied]) -> list[Row]:
    """mu not on a path but on whole spheres: the smallest |grad|^2 / (2 gap) at random points of each.

    ``modulus`` is the smallest eigenvalue of minus the Hessian there: strong concavity needs it positive.
    Only for a gamma that holds the maximum well inside the ball, so that it is the maximum over all theta.
    """
    rows: list[Row] = []
    directions = points_in_ball(SPHERE, 3, 1.0, seed=12)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    for known in (each for each in studied if each.case.name == "reference"):
        for arm, (name, gamma) in enumerate(ARMS):
            if gamma < GAMMA:
                continue
            objective = Objective(
                known.case.problem, known.objective.ref_pi[arm], known.objective.pi_ref[arm]
            )
            for radius in RADII:
                value, slope, curvature = derivatives(objective, radius * directions)
                ratio = slope.square().sum(dim=-1) / (2 * (known.best[arm] - value))
                rows.append(
                    {
                        "problem": known.case.seed,
                        "objective": name,
                        "gamma": gamma,
                        "radius": radius,
                        "points": SPHERE,
                        "mu": float(ratio.min()),
                        "modulus": float(torch.linalg.eigvalsh(-curvature)[:, 0].min()),
                    }
                )
    return rows


def rate_of(gap: DoubleArray, steps: IntArray) -> tuple[float, float]:
    """How fast log gap falls at the given iterations (per iteration), and R^2 of the straight line."""
    slope, _, straight = line(steps.astype(float), np.log(gap[steps]))
    return -slope, straight


def line(x: DoubleArray, y: DoubleArray) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of least squares."""
    slope, intercept = np.polyfit(x, y, 1)
    spread = ((y - y.mean()) ** 2).sum()
    return float(slope), float(intercept), float(1 - ((y - slope * x - intercept) ** 2).sum() / spread)


# 2. and 3. Stochastic ascent


def answer_chances(problem: Problem, logp: DoubleArray) -> DoubleArray:
    """(R, X, Y, Y) probability that R policies draw (prompt, preferred, other response)."""
    probability = np.exp(logp)
    pairs = problem.prompt.numpy()[:, None, None] * probability[..., :, None] * probability[..., None, :]
    chances: DoubleArray = 2 * pairs * problem.chance.numpy()
    return chances


def draw_answers(problem: Problem, logp: DoubleArray, count: int, rng: np.random.Generator) -> IntArray:
    """(R, X, Y, Y) how often each of ``count`` samples was (prompt, preferred, other response)."""
    chances = answer_chances(problem, logp)
    flat = chances.reshape(len(logp), -1)
    drawn = rng.multinomial(count, flat / flat.sum(axis=1, keepdims=True))
    counts: IntArray = drawn.reshape(chances.shape)
    return counts


def sampled_gradient(
    problem: Problem, logp: DoubleArray, counts: IntArray, weights: DoubleArray
) -> DoubleArray:
    """What the learner climbs: minus the mean gradient of ``sail_loss`` (c = 1) and of the KL penalty.

    Written out for a log-linear policy and for R minibatches at once, each sample a group of its own for the
    leave-one-out baseline, the KL exact in each prompt drawn. The tests hold it against ``sail_loss``.

    Args:
        problem: one problem.
        logp: (R, X, Y) log pi_theta.
        counts: (R, X, Y, Y) samples by prompt, preferred and other response.
        weights: (R, 2) of KL(pi_ref || pi) and KL(pi || pi_ref).

    Returns:
        (R, d) directions of ascent.
    """
    phi, ref_logp = problem.phi.numpy(), problem.ref_logp.numpy()
    probability, ratio = np.exp(logp), logp - ref_logp
    size = counts.sum(axis=(1, 2, 3))[:, None, None, None]
    share = counts / size
    h = problem.beta * (ratio[..., :, None] - ratio[..., None, :])
    value = np.minimum(h, 0.0) - np.log1p(np.exp(-np.abs(h)))
    # F less the mean of the others' F: (F - mean of all) * size / (size - 1).
    factor = share * (value - (share * value).sum(axis=(1, 2, 3), keepdims=True)) * size / (size - 1)
    pull = share * problem.beta * np.exp(value - h)
    drawn = np.einsum("rxij->rxi", factor) + np.einsum("rxij->rxj", factor)
    along_phi = np.einsum("rxij->rxi", pull) - np.einsum("rxij->rxj", pull)
    along_phi += drawn - drawn.sum(axis=2, keepdims=True) * probability
    visited = np.einsum("rxij->rx", share)[..., None]
    mean_ratio = (probability * ratio).sum(axis=2, keepdims=True)
    along_phi -= weights[:, 0, None, None] * visited * (probability - np.exp(ref_logp))
    along_phi -= weights[:, 1, None, None] * visited * probability * (ratio - mean_ratio)
    gradient: DoubleArray = np.tensordot(along_phi, phi, axes=((1, 2), (0, 1)))
    return gradient


def log_policy(problem: Problem, theta: DoubleArray) -> DoubleArray:
    """(R, X, Y) log pi_theta for (R, d) parameters."""
    logits = np.tensordot(theta, problem.phi.numpy(), axes=(1, 2))
    logits -= logits.max(axis=2, keepdims=True)
    logp: DoubleArray = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    return logp


def stochastic_ascent(
    problem: Problem,
    start: DoubleArray,
    weights: DoubleArray,
    length: DoubleArray,
    marks: Sequence[int],
    rng: np.random.Generator,
    decay: float = 0.0,
) -> DoubleArray:
    """R runs of projected stochastic gradient ascent, ``BATCH`` samples in a step.

    Args:
        problem: one problem.
        start: (R, d).
        weights: (R, 2) of the two KL penalties.
        length: (R,) first step sizes; step number k = 0, 1, ... is 1 / (1 / length + decay k) long.
        marks: increasing step counts after which the parameters are kept; the last ends the runs.
        rng: draws everything.
        decay: 0 is constant steps.

    Returns:
        (len(marks), R, d) parameters.
    """
    theta, kept = start.copy(), []
    for before, mark in pairwise([0, *marks]):
        for step in range(before, mark):
            logp = log_policy(problem, theta)
            counts = draw_answers(problem, logp, BATCH, rng)
            theta += sampled_gradient(problem, logp, counts, weights) / (1 / length + decay * step)[:, None]
            norm = np.sqrt((theta * theta).sum(axis=1, keepdims=True))
            theta *= np.minimum(1.0, RADIUS / np.maximum(norm, RADIUS))
        kept.append(theta.copy())
    return np.stack(kept)


def gradient_variance(objective: Objective, theta: Tensor) -> float:
    """tr C at (d,) theta: variance of the gradient of one sample, whose baseline is the mean of F.

    Enumerated over every sample that could be drawn; C / BATCH is the covariance of a minibatch to first
    order in 1 / BATCH, since a leave-one-out mean of F is not quite the mean of F.
    """
    problem = objective.problem
    value, weight = problem.objective(theta), problem.pairs(theta)
    h, logp = problem.score(theta), problem.logp(theta)
    feature = problem.phi - (logp.exp()[..., None] * problem.phi).sum(dim=1, keepdim=True)
    one, two = feature[:, :, None, :], feature[:, None, :, :]
    ratio = logp - problem.ref_logp
    to_ref = ((logp.exp() - problem.ref_logp.exp())[..., None] * problem.phi).sum(dim=1)
    to_pi = ((logp.exp() * ratio)[..., None] * feature).sum(dim=1)
    penalty = (objective.ref_pi * to_ref + objective.pi_ref * to_pi)[:, None, None, :]
    mean, square = torch.zeros(problem.dimension, dtype=torch.float64), 0.0
    for label, chance in ((1.0, problem.chance), (-1.0, 1 - problem.chance)):
        through_score = label * torch.sigmoid(-label * h) * problem.beta
        through_draw = torch.nn.functional.logsigmoid(label * h) - value
        each = through_score[..., None] * (one - two) + through_draw[..., None] * (one + two) - penalty
        mean = mean + ((weight * chance)[..., None] * each).sum(dim=(0, 1, 2))
        square += float((weight * chance * each.square().sum(dim=-1)).sum())
    return square - float(mean @ mean)


def gaps_of(known: Studied, arm: int, theta: DoubleArray) -> DoubleArray:
    """(...) exact distance of (..., d) parameters to the global maximum of an arm."""
    objective = Objective(known.case.problem, known.objective.ref_pi[arm], known.objective.pi_ref[arm])
    gap: DoubleArray = (known.best[arm] - objective(torch.from_numpy(theta))).numpy()
    return gap


def variance_at_maximum(known: Studied, arm: int) -> float:
    """tr C of an arm where it is largest."""
    objective = Objective(known.case.problem, known.objective.ref_pi[arm], known.objective.pi_ref[arm])
    return gradient_variance(objective, known.place[arm])


def interval(samples: Sequence[float] | DoubleArray) -> tuple[float, float]:
    """95% bootstrap interval; NaN where any resample has no answer."""
    low, high = np.quantile(samples, (0.025, 0.975))
    return float(low), float(high)


def noise_rows(studied: Sequence[Studied]) -> tuple[list[Row], DoubleArray]:
    """Size of the ball that J - gamma KL(pi_ref || pi) ends in, for each step size, from the reference.

    Returns:
        The rows, and for the first problem (marks, steps sizes) mean gaps, a mark every ten steps.
    """
    rows: list[Row] = []
    curves: list[DoubleArray] = []
    marks = range(0, NOISE_RUN + 1, 10)
    for known in (each for each in studied if each.case.name == "reference"):
        rng = np.random.default_rng(known.case.seed)
        lengths = np.repeat(NOISE_STEPS, SEEDS)
        runs = stochastic_ascent(
            known.case.problem,
            np.tile(known.case.start.numpy(), (len(lengths), 1)),
            weights_of(ARMS[PAPER : PAPER + 1] * len(lengths)).numpy(),
            lengths,
            marks,
            rng,
        )
        gap = gaps_of(known, PAPER, runs).reshape(len(marks), len(NOISE_STEPS), SEEDS)
        curves.append(gap.mean(axis=2))
        ball = gap[len(marks) // 2 :].mean(axis=0)
        resampled = ball[:, rng.integers(SEEDS, size=(RESAMPLES, SEEDS))].mean(axis=2)
        slopes = [line(np.log(NOISE_STEPS), np.log(one))[0] for one in resampled.T]
        low, high = interval(slopes)
        for step, size in enumerate(NOISE_STEPS):
            rows.append(
                {
                    **known.case.label,
                    "step": size,
                    "seeds": SEEDS,
                    "gap": float(ball[step].mean()),
                    "gap_low": float(np.quantile(resampled[step], 0.025)),
                    "gap_high": float(np.quantile(resampled[step], 0.975)),
                    "predicted": size * variance_at_maximum(known, PAPER) / (4 * BATCH),
                    "slope": line(np.log(NOISE_STEPS), np.log(ball.mean(axis=1)))[0],
                    "slope_low": low,
                    "slope_high": high,
                }
            )
    return rows, curves[0]


@dataclass(frozen=True)
class Sampled:
    """Runs of one case at one eps (or of the decreasing schedule, which is the same for all)."""

    samples: DoubleArray
    """(marks,) samples taken so far."""
    gap: DoubleArray
    """(marks, seeds) exact distance to the arm's own global maximum."""
    predicted: float = float("nan")
    """Samples that exact ascent in the same steps would take to eps / 2: with the ball, that makes eps."""

    def reach(self, eps: float, seeds: IntArray | None = None) -> float:
        """Samples until the mean gap is at most eps; infinite when that does not happen in the budget."""
        mean = (self.gap if seeds is None else self.gap[:, seeds]).mean(axis=1)
        return self.first(mean <= eps)

    def reach_of_runs(self, eps: float) -> list[float]:
        """The same for each run alone."""
        return [self.first(run <= eps) for run in self.gap.T]

    def first(self, done: NDArray[np.bool_]) -> float:
        """Samples at the first mark where it is done."""
        return float(self.samples[done.argmax()]) if done.any() else np.inf


def marks_until(steps: int) -> list[int]:
    """Step counts, evenly spread on a logarithmic scale."""
    return [int(mark) for mark in np.unique(np.geomspace(1, steps, MARKS).round())]


def time_to(path: Trace, arm: int, gap: float) -> float:
    """Iterations / L of exact ascent until the gap is so small, interpolated on a logarithmic scale.

    Infinite when the path does not come there.
    """
    after = int((path.gap[:, arm] <= gap).argmax())
    if after == 0:
        return float("inf")
    high, low = np.log(path.gap[after - 1 : after + 1, arm])
    return float((after - 1 + (high - np.log(gap)) / (high - low)) / path.smoothness[arm])


def sample(known: Studied) -> dict[tuple[str, str], list[Sampled]]:
    """Stochastic runs of a case by arm and schedule, one entry for each eps.

    ``constant``: steps of length 2 eps BATCH / tr C, whose ball is eps / 2, the same for all arms (tr C of
    the paper's arm). ``decreasing``: steps of length 1 / (mu k + L) with mu of the exact path, the paper's
    arm only. Every run may take ``PATIENCE`` times what exact ascent needs to come to eps / 2.
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


# 4. Bias


def bias_rows(studied: Sequence[Studied]) -> list[Row]:
    """J(theta*) - J(theta_gamma) and |theta_gamma - theta*| at the global maxima in the ball.

    theta_gamma maximises J - gamma KL, where it is at least what it is at theta*. So J(theta*) -
    J(theta_gamma), the bias, is at most gamma (KL(theta*) - KL(theta_gamma)) <= gamma KL(theta*) (derived).
    ``distance_first_order`` is gamma |Hess J(theta*)^-1 grad KL(theta*)|, where theta* is inside the ball.
    """
    rows: list[Row] = []
    for known in (each for each in studied if each.case.name == "reference"):
        problem, best = known.case.problem, known.place[0]
        inside = bool(best.norm() < RADIUS * (1 - 1e-9))
        curvature = derivatives(problem.objective, best[None])[2][0]
        for direction in ("kl_ref_pi", "kl_pi_ref"):
            at_best = problem.kl(best, direction)
            pull = derivatives(partial(problem.kl, direction=direction), best[None])[1][0]
            shift = torch.linalg.solve(curvature, pull).norm()
            places, _ = global_maxima(objectives(problem, [(direction, gamma) for gamma in GAMMAS]))
            kl, value = problem.kl(places, direction), problem.objective(places)
            for index, gamma in enumerate(GAMMAS):
                rows.append(
                    {
                        "problem": known.case.seed,
                        "direction": direction,
                        "gamma": gamma,
                        "bias": float(problem.objective(best) - value[index]),
                        "tight_bound": float(gamma * (at_best - kl[index])),
                        "bound": float(gamma * at_best),
                        "distance": float((places[index] - best).norm()),
                        "distance_first_order": float(gamma * shift) if inside else float("nan"),
                    }
                )
    return rows


# Record and figure


def draw(
    studied: Sequence[Studied],
    paths: pd.DataFrame,
    noise: pd.DataFrame,
    curves: DoubleArray,
    samples: pd.DataFrame,
    bias: pd.DataFrame,
    path: Path,
) -> None:
    """Six panels, in the order of the records."""
    with panels(path, 2, 3, (4.0, 3.3)) as (_, axes):
        draw_paths(axes[0, 0], [known for known in studied if known.case.seed == PROBLEMS[0]])
        draw_constants(axes[0, 1], paths)
        draw_noise(axes[0, 2], noise[noise["problem"] == PROBLEMS[0]], curves)
        draw_samples(axes[1, 0], samples[samples["problem"] == PROBLEMS[0]])
        draw_censored(axes[1, 1], samples)
        draw_bias(axes[1, 2], bias[bias["direction"] == "kl_ref_pi"])


STYLES = {"reference": "-", "saddle": "--", "plateau": ":"}


def name_of(arm: tuple[str, float]) -> str:
    """An objective in a legend."""
    return NAMES[arm[0]] if arm[1] == 0 else f"J $-$ {arm[1]:g} {NAMES[arm[0]]}"


def draw_paths(axes: Axes, studied: Sequence[Studied]) -> None:
    """The gap along exact ascent."""
    for known in studied:
        for index, (objective, _) in enumerate(SAMPLED):
            gap = known.trace.gap[:, index]
            gap = gap[gap > RESOLVED][:80]
            axes.semilogy(gap, color=COLOURS[objective], ls=STYLES[known.case.name], lw=1.2)
    for arm in SAMPLED:
        axes.plot([], [], color=COLOURS[arm[0]], label=name_of(arm))
    for name, style in STYLES.items():
        axes.plot([], [], color=BLACK, ls=style, label=f"from the {name}")
    axes.set(
        title=f"Exact ascent, problem {PROBLEMS[0]}", xlabel="iterations", ylabel="gap to the global maximum"
    )
    axes.set_ylim(RESOLVED, 1e6)
    axes.legend(ncols=2, loc="upper center")


def draw_constants(axes: Axes, paths: pd.DataFrame) -> None:
    """mu along every path; what is below the axis is drawn on it."""
    for shift, arm in enumerate(ARMS):
        here = paths[(paths["objective"] == arm[0]) & (paths["gamma"] == arm[1])]
        axes.semilogy(
            here["start"].map(list(STYLES).index) + (shift - 2.5) * 0.14,
            here["mu_path"].clip(lower=RESOLVED),
            color=COLOURS[arm[0]],
            ls="",
            marker="^" if arm[1] > GAMMA else "v" if 0 < arm[1] < GAMMA else "o",
            ms=4,
            label=name_of(arm),
        )
    axes.set_xticks(range(len(STYLES)), [f"from the\n{name}" for name in STYLES])
    axes.set_ylim(RESOLVED / 3, 1e4)
    axes.set(
        title="PL constant along exact ascent, three problems", ylabel="$\\mu$ (at $10^{-12}$: that or less)"
    )
    axes.legend(ncols=2, loc="upper center")


def draw_noise(axes: Axes, noise: pd.DataFrame, curves: DoubleArray) -> None:
    """Mean gap of stochastic ascent with constant steps, and the ball that is predicted."""
    steps = 10 * np.arange(len(curves))
    for index, colour in enumerate((ORANGE, YELLOW, GREEN, BLUE, PINK)):
        row = noise.iloc[index]
        axes.semilogy(steps, curves[:, index], color=colour, lw=0.9, label=f"step {row['step']:g}")
        axes.axhline(row["predicted"], color=colour, ls=":")
    axes.plot([], [], color=BLACK, ls=":", label="step $\\cdot$ tr C / 4 per batch")
    axes.set_xlim(0, 1500)
    axes.set(
        title=f"Stochastic ascent with {NAMES['kl_ref_pi']}, problem {PROBLEMS[0]}",
        xlabel="steps",
        ylabel="gap, mean over seeds",
    )
    axes.legend()


def draw_samples(axes: Axes, samples: pd.DataFrame) -> None:
    """Samples to come to eps, with the near-linear law through the smallest eps."""
    for name, label, start, colour in (
        ("kl_ref_pi", name_of(ARMS[PAPER]), "reference", BLUE),
        ("kl_ref_pi", name_of(ARMS[PAPER]), "plateau", SKY),
        ("sail", NAMES["sail"], "reference", ORANGE),
    ):
        here = samples[
            (samples["objective"] == name) & (samples["start"] == start) & (samples["schedule"] == "constant")
        ]
        eps = here["eps"].to_numpy()
        axes.loglog(eps, here["samples"], color=colour, marker="o", ms=4, ls="", label=f"{label}, {start}")
        law = np.log(2 * here["gap_start"].to_numpy() / eps) / eps
        axes.loglog(eps, law * here["samples"].iloc[-1] / law[-1], color=colour, lw=0.9)
    axes.plot([], [], color=BLACK, lw=0.9, label="(1/$\\epsilon$) log(2 gap$_0$/$\\epsilon$)")
    axes.invert_xaxis()
    axes.set(
        title=f"Samples until the mean gap is $\\epsilon$, problem {PROBLEMS[0]}",
        xlabel="$\\epsilon$",
        ylabel="samples",
    )
    axes.legend()


def draw_censored(axes: Axes, samples: pd.DataFrame) -> None:
    """Share of runs that come to the smallest eps within the budget."""
    here = samples[(samples["eps"] == samples["eps"].min()) & (samples["schedule"] == "constant")]
    cases = list(dict.fromkeys(zip(here["problem"], here["start"], strict=True)))
    for shift, arm in enumerate(SAMPLED):
        share = 1 - here.loc[here["objective"] == arm[0], "censored"].to_numpy()
        places = np.arange(len(cases)) + (shift - 1) * 0.27
        bars = axes.bar(places, share, 0.27, color=COLOURS[arm[0]], label=name_of(arm))
        axes.bar_label(bars, fmt="%.2g", fontsize=7)
    axes.set_xticks(range(len(cases)), [f"problem {seed}\n{start}" for seed, start in cases])
    axes.tick_params(axis="x", labelsize=7)
    axes.set_ylim(0, 1.5)
    axes.set(title="Runs that come to the smallest $\\epsilon$ in the budget", ylabel="share")
    axes.legend(loc="upper center")


def draw_bias(axes: Axes, bias: pd.DataFrame) -> None:
    """What gamma takes from J, and the bound."""
    for seed, colour in zip(PROBLEMS, (BLUE, GREEN, ORANGE), strict=True):
        here = bias[bias["problem"] == seed]
        axes.loglog(
            here["gamma"], here["bias"], color=colour, marker="o", ms=3, lw=0.9, label=f"problem {seed}"
        )
        axes.loglog(here["gamma"], here["bound"], color=colour, ls=":")
    axes.plot([], [], color=BLACK, ls=":", label="bound $\\gamma$ KL at $\\theta$*")
    axes.set(
        title="Bias of the penalty KL(ref || $\\pi$)",
        xlabel="$\\gamma$",
        ylabel="J($\\theta$*) $-$ J($\\theta_\\gamma$)",
    )
    axes.legend()


def main() -> None:
    asked = arguments(__doc__).parse_args()
    studied = study(cases())
    paths = path_rows(studied)
    noise, curves = noise_rows(studied)
    samples, slopes = sample_rows(
        [known for known in studied if known.case.name == "reference" or known.case.seed == PROBLEMS[0]]
    )
    bias = bias_rows(studied)
    about = {"what": __doc__, "radius": RADIUS, "batch": BATCH}
    for name, rows in (
        ("theory_convergence_paths", paths),
        ("theory_convergence_radius", radius_rows(studied)),
        ("theory_convergence_noise", noise),
        ("theory_convergence_samples", samples),
        ("theory_convergence_slopes", slopes),
        ("theory_convergence_bias", bias),
    ):
        write(asked.results, name, rows, about)
    draw(
        studied,
        pd.DataFrame(paths),
        pd.DataFrame(noise),
        curves,
        pd.DataFrame(samples),
        pd.DataFrame(bias),
        asked.results / "theory_convergence.png",
    )


if __name__ == "__main__":
    main()
