"""The updates that are compared: composite, subgradient, and composite without part of the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from benchmarks.theory.problem import Problem
from benchmarks.theory.robust.loss import RADIUS
from benchmarks.theory.sampling import answer_chances, log_policy
from sailctl.core.types import BoolArray, DoubleArray, IntArray

VARIANTS = ("composite", "subgradient", "composite, sampling forgotten")


@dataclass(frozen=True)
class Steps:
    """The settings of R runs."""

    rho: DoubleArray
    """(R,) weights of the penalty."""
    length: DoubleArray
    """(R,) step sizes."""
    direct: BoolArray
    """(R,) whether a step takes the subgradient of the penalty instead of its proximal map."""
    counted: BoolArray
    """(R,) whether the gradient has the part from theta drawing the pairs of the penalty."""

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
        """The runs of all parts, one after the other."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))


def run(
    problem: Problem, start: DoubleArray, steps: Steps, marks: Sequence[int], rng: np.random.Generator
) -> DoubleArray:
    """R runs that take one sample (prompt, two responses, label) in each step.

    Args:
        problem: one problem.
        start: (R, d).
        steps: settings of each run.
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

    It is the step of ``sail_loss`` with c = 1 and no baseline, then ``prox_abs`` (not in direct runs), then
    ``project_ball``. The tests compare it with these functions.

    Args:
        problem: one problem.
        theta: (R, d).
        logp: (R, X, Y) log pi_theta.
        sample: from ``draw_one``.
        steps: settings of each run.
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
