"""Where the flow d theta / dt = T1 + c T2 stops, and what J and the true quality are there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.control import REFERENCE, Control, linear_policy
from benchmarks.theory.gradient.responses import COEFFICIENTS, estimated, true_gradient
from benchmarks.theory.problem import Problem, alignment_value, random_problem, reference_parameters, stack

SETTLED = 100
"""Problems in each setting."""


# The flow


def settle(
    field: Callable[[Tensor], Tensor], start: Tensor, steps: int = 400, tolerance: float = 1e-11
) -> tuple[Tensor, Tensor]:
    """Follow d theta / dt = field(theta) from (N, d) starts until it stops.

    Linearly implicit Euler steps, which grow as the field shrinks (pseudo-transient continuation) and are
    at most 1/2 long, so that the flow's own fixed point is reached and not just any root.

    Returns:
        (N, d) where it stopped, and (N,) the largest real part of the eigenvalues of the field's Jacobian
        there: the point attracts the flow where it is negative.
    """
    theta, value = start, field(start)
    pace = torch.full(start.shape[:1], 0.5, dtype=start.dtype)
    eye = torch.eye(start.shape[-1], dtype=start.dtype)
    for _ in range(steps):
        size = value.norm(dim=-1)
        if size.max() < tolerance:
            break
        system = eye / pace[:, None, None] - jacobian(field, theta)
        step = torch.linalg.solve(system, value)
        theta = theta + step / (2 * step.norm(dim=-1, keepdim=True)).clamp(min=1.0)
        value = field(theta)
        pace = pace * (size / value.norm(dim=-1).clamp(min=tolerance)).clamp(0.5, 2.0)
    return theta, torch.linalg.eigvals(jacobian(field, theta)).real.amax(dim=-1)


def jacobian(field: Callable[[Tensor], Tensor], theta: Tensor, step: float = 1e-5) -> Tensor:
    """(N, d, d) derivative of a field at (N, d) points, by central differences."""
    axes = step * torch.eye(theta.shape[-1], dtype=theta.dtype)
    return torch.stack([(field(theta + e) - field(theta - e)) / (2 * step) for e in axes], dim=-1)


# Responses


def well_conditioned(prompts: int, beta: float) -> list[Problem]:
    """The first random problems whose Fisher information at the reference has no eigenvalue below 0.1."""
    found: list[Problem] = []
    seed = 0
    while len(found) < SETTLED:
        problem = random_problem(seed, prompts=prompts, beta=beta, quality=1.0)
        if torch.linalg.eigvalsh(problem.fisher(reference_parameters(problem)))[0] > 0.1:
            found.append(problem)
        seed += 1
    return found


def best_alignment_value(problem: Problem) -> Tensor:
    """(...) the maximum of ``alignment_value`` over all policies: beta E_x[log E_ref exp(quality / beta)]."""
    best = torch.logsumexp(problem.ref_logp + problem.quality() / problem.beta, dim=-1)
    return problem.beta * (problem.prompt * best).sum(dim=-1)


def chance_of_worst(problem: Problem, theta: Tensor) -> Tensor:
    """(...) probability that pi_theta gives the response of the lowest quality."""
    worst = problem.quality().argmin(dim=-1, keepdim=True)
    probability = problem.logp(theta).exp().gather(-1, worst)[..., 0]
    return (problem.prompt * probability).sum(dim=-1)


def fixed_point_rows() -> list[Row]:
    """J, its gradient and the true quality where the flow of T1 + c T2 stops.

    With one prompt, and one feature less than responses, theta can express every policy ("every policy").
    With three prompts and three features it can express few ("few policies").
    """
    rows: list[Row] = []
    for name, prompts in (("every policy", 1), ("few policies", 3)):
        problems = well_conditioned(prompts, beta=1.0)
        problem = stack(problems)
        start = torch.stack([reference_parameters(each) for each in problems])
        for c in COEFFICIENTS:
            theta, slowest = settle(partial(estimated, problem, c=c), start)
            reached, before = alignment_value(problem, theta), alignment_value(problem, start)
            rows.append(
                {
                    "setting": name,
                    "c": c,
                    "points": len(problems),
                    "field_max": float(estimated(problem, theta, c).norm(dim=-1).max()),
                    "slowest_rate_max": float(slowest.max()),
                    "gradient_of_J_median": float(true_gradient(problem, theta).norm(dim=-1).median()),
                    "J": float(problem.objective(theta).mean()),
                    "quality_gain": float((problem.mean_quality(theta) - problem.mean_quality(start)).mean()),
                    "win_rate": float(problem.win_rate(theta).mean()),
                    "worst_response": float(chance_of_worst(problem, theta).mean()),
                    "worst_response_at_start": float(chance_of_worst(problem, start).mean()),
                    "alignment_gain": float((reached - before).mean()),
                    "alignment_short_of_best": float((best_alignment_value(problem) - reached).mean()),
                }
            )
    return rows


# Control


def control_fixed_point_rows() -> list[Row]:
    """J and the true return (quality) where the flow of T1 + c T2 stops, starting at the reference."""
    control, reference = Control(segment=2, judged=2, nodes=8), linear_policy(REFERENCE)
    start = torch.tensor([REFERENCE], dtype=torch.float64)
    rows: list[Row] = []
    for c in COEFFICIENTS:

        def field(theta: Tensor, c: float = c) -> Tensor:
            return torch.stack([control.estimated(linear_policy(each), reference, c) for each in theta])

        theta, slowest = settle(field, start)
        policy = linear_policy(theta[0])
        with torch.no_grad():
            objective = control.objective(policy, reference)
            gain = control.mean_return(policy) - control.mean_return(reference)
            price = control.beta * control.segment_kl(policy, reference)
        rows.append(
            {
                "setting": "control",
                "c": c,
                "points": 1,
                "field_max": float(field(theta).norm()),
                "slowest_rate_max": float(slowest),
                "gradient_of_J_median": float(control.true_gradient(policy, reference).norm()),
                "J": float(objective),
                "quality_gain": float(gain),
                "alignment_gain": float(gain - price),
            }
        )
    return rows
