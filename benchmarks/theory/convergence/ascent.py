"""Projected stochastic gradient ascent, many runs at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from benchmarks.theory.convergence.objectives import RADIUS
from benchmarks.theory.problem import Problem
from benchmarks.theory.sampling import draw_answers, log_policy
from sailctl.core.types import DoubleArray, IntArray

BATCH = 32
"""Pairs in a stochastic step."""
SEEDS = 20


def sampled_gradient(
    problem: Problem, logp: DoubleArray, counts: IntArray, weights: DoubleArray
) -> DoubleArray:
    """The direction of the learner: minus the mean gradient of ``sail_loss`` (c = 1) and of the KL penalty.

    Written out for a log-linear policy and for R minibatches at once. Each sample is a group of its own for
    the leave-one-out baseline. The KL is exact in each prompt drawn. The tests compare it with ``sail_loss``.

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
