"""The noise ball: how far from the maximum stochastic ascent with a constant step stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.convergence.ascent import BATCH, SEEDS, stochastic_ascent
from benchmarks.theory.convergence.objectives import ARMS, PAPER, Objective, weights_of
from benchmarks.theory.convergence.paths import Studied, gaps_of
from benchmarks.theory.statistics import RESAMPLES, interval, line
from sailctl.core.types import DoubleArray

NOISE_STEPS = (0.4, 0.2, 0.1, 0.05, 0.025)
NOISE_RUN = 3000
"""Steps of a run; the ball is measured over the second half."""


def gradient_variance(objective: Objective, theta: Tensor) -> float:
    """tr C at (d,) theta: variance of the gradient of one sample, whose baseline is the mean of F.

    Enumerated over every sample that could be drawn. C / BATCH is the covariance of a minibatch to first
    order in 1 / BATCH, because a leave-one-out mean of F is not exactly the mean of F.
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


def variance_at_maximum(known: Studied, arm: int) -> float:
    """tr C at the global maximum of an arm."""
    objective = Objective(known.case.problem, known.objective.ref_pi[arm], known.objective.pi_ref[arm])
    return gradient_variance(objective, known.place[arm])


def noise_rows(studied: Sequence[Studied]) -> tuple[list[Row], DoubleArray]:
    """Size of the noise ball of J - gamma KL(pi_ref || pi) for each step size, starting at the reference.

    Returns:
        The rows, and for the first problem (marks, step sizes) mean gaps, with a mark every ten steps.
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
