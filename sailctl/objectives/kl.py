"""The penalty of SAIL-RevKL: the KL divergence between policy and reference in each visited state.

Wu et al., UAI 2026, arXiv 2606.31524: J_gamma = J - gamma * E_s[KL]. The paper calls it *reverse KL*. This
name often means the other direction, so both directions are named by their formula here. Their control code
computes KL(pi_ref || pi_theta) of Gaussians in closed form, before any squashing of the action. This
direction is the default because it is convex for log-linear policies (derived; tested numerically): there,
log pi_theta(a|s) is theta . phi(s, a) minus a log-normaliser, so the Hessian in theta of
KL(pi_ref || pi_theta) is the Fisher information of pi_theta for any reference, which is positive
semidefinite. The penalty adds this curvature to an objective that is not concave. The Hessian of
KL(pi_theta || pi_ref) can have negative eigenvalues, already at a fraction of a nat from the reference
(``python -m benchmarks.theory.landscape``; docs/theory.md).
"""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """KL(p || q) of diagonal Gaussians, in closed form, summed over the last dimension (nats).

    Args:
        mean_p: (..., A) means of p.
        log_std_p: log standard deviations of p, broadcastable to (..., A).
        mean_q: (..., A) means of q.
        log_std_q: log standard deviations of q, broadcastable to (..., A).

    Returns:
        (...) KL(p || q) = sum over A of log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2;
        exactly 0 where p equals q.
    """
    log_ratio = log_std_p - log_std_q
    shift = (mean_p - mean_q) * torch.exp(-log_std_q)
    return ((torch.expm1(2 * log_ratio) + shift.square()) / 2 - log_ratio).sum(dim=-1)


def kl_penalty(
    direction: str,
    mean: Tensor,
    log_std: Tensor,
    ref_mean: Tensor,
    ref_log_std: Tensor,
) -> Tensor:
    """KL between the policy and its reference in each state, in the given direction.

    Args:
        direction: ``kl_ref_pi`` is KL(pi_ref || pi_theta), ``kl_pi_ref`` is KL(pi_theta || pi_ref).
        mean: (..., A) action means of pi_theta.
        log_std: log standard deviations of pi_theta, broadcastable to (..., A).
        ref_mean: (..., A) action means of pi_ref.
        ref_log_std: log standard deviations of pi_ref, broadcastable to (..., A).

    Returns:
        (...) KL of each state in nats, summed over the action dimensions.

    Raises:
        ValueError: when ``direction`` is neither of the two.
    """
    if direction == "kl_ref_pi":
        return gaussian_kl(ref_mean, ref_log_std, mean, log_std)
    if direction == "kl_pi_ref":
        return gaussian_kl(mean, log_std, ref_mean, ref_log_std)
    raise ValueError(f"KL direction is kl_ref_pi or kl_pi_ref, not {direction!r}")
