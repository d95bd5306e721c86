"""The expectation of the project's estimator, ``sail_loss``, and how it compares with a true gradient.

The expectation is exact: it is a sum over every pair and label that could be drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.problem import Problem
from sailctl.objectives import sail_loss


def expected_loss(
    problem: Problem,
    theta: Tensor,
    weight: Tensor,
    chance: Tensor,
    *,
    c: float,
    responses: bool = True,
    policy_labels: bool = False,
    rho: float = 0.0,
) -> Tensor:
    """Mean of ``sail_loss`` over every pair and label, all problems and parameters added up.

    Its gradient is the exact expectation of the estimator's gradient: samples have the probabilities
    ``weight`` and ``chance``, which are held constant.

    Args:
        problem: one problem, or several stacked.
        theta: (..., d) parameters.
        weight: (..., X, Y, Y) probability that a prompt and two responses are drawn.
        chance: (..., X, Y, Y) probability that the label drawn is +1.
        c: weight of T2 and T3.
        responses: passed on to ``sail_loss``.
        policy_labels: passed on to ``sail_loss``.
        rho: passed on to ``sail_loss``.
    """
    logp, shape = problem.logp(theta), weight.shape

    def sides(values: Tensor) -> tuple[Tensor, Tensor]:
        first, second = values[..., :, None].expand(shape), values[..., None, :].expand(shape)
        return first.reshape(-1), second.reshape(-1)

    one, two = sides(logp)
    ref_one, ref_two = sides(problem.ref_logp)
    total = torch.zeros((), dtype=logp.dtype)
    for label, probability in ((1.0, chance), (-1.0, 1 - chance)):
        losses, _ = sail_loss(
            one,
            two,
            ref_one,
            ref_two,
            torch.full_like(one, label),
            beta=problem.beta,
            c=c,
            group=None,
            responses=responses,
            policy_labels=policy_labels,
            rho=rho,
        )
        total = total + (losses * (weight * probability).detach().reshape(-1)).sum()
    return total


def ascent(loss: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """(..., d) minus the gradient of a scalar loss. The rows of theta must not mix in the loss."""
    leaf = theta.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    return -gradient


def compare(estimates: Tensor, truth: Tensor) -> Row:
    """How far (N, d) estimates are from (N, d) true gradients."""
    error = (estimates - truth).norm(dim=-1) / truth.norm(dim=-1)
    cosine = torch.cosine_similarity(estimates, truth, dim=-1)
    return {
        "points": len(truth),
        "relative_error_median": float(error.median()),
        "relative_error_max": float(error.max()),
        "cosine_q05": float(cosine.quantile(0.05)),
        "cosine_q25": float(cosine.quantile(0.25)),
        "cosine_median": float(cosine.median()),
        "share_downhill": float((cosine < 0).double().mean()),
    }
