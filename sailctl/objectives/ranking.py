"""The SAIL objective for rankings of all K segments of a prompt, with the Plackett-Luce model.

Plackett 1975 and Luce 1959, applied to DPO as in Rafailov et al. 2023 (arXiv 2305.18290, appendix on the
Plackett-Luce model): the best of K is chosen with probability softmax(r), then the best of the rest, and so
on, where r_k = beta * log(pi/pi_ref)(tau_k). For K = 2 the likelihood is sigma(h) of ``sail``. SAIL's
gradient has the same terms: T1 through r, and T2 through the K sampled segments.

If a share rho of the rankings is arbitrary, the value of a ranking is (1 - rho) F + rho F_worst, with F
its log-likelihood and F_worst that of the least likely order, which sorts the scores ascending: Wu et al.
2026, arXiv 2607.01715, the decomposition of their distributionally robust loss. For K = 2 it costs
rho max(0, z h), the ``contaminated`` case of ``robust``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sailctl.objectives.sail import score_function_terms


def plackett_luce(score: Tensor) -> Tensor:
    """(G,) log-probability of each ranking, for scores (G, K) of its segments from best to worst."""
    choices = [score[:, choice:].log_softmax(dim=1)[:, 0] for choice in range(score.shape[1])]
    return torch.stack(choices).sum(dim=0)


def ranking_cost(score: Tensor, likelihood: Tensor, rho: float) -> Tensor:
    """Largest loss of value of each ranking, if a share rho of the rankings is arbitrary.

    Args:
        score: (G, K) scores of its segments, in any order.
        likelihood: (G,) log-probability of the ranking.
        rho: from 0 to 1.

    Returns:
        (G,) rho times the difference to the least likely order, >= 0, and 0 if it is that order.
    """
    return rho * (likelihood - plackett_luce(score.sort(dim=1).values))


def ranking_loss(
    logp: Tensor, ref_logp: Tensor, *, beta: float, c: float, baseline: bool, rho: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each ranking whose gradient is *minus* the SAIL gradient T1 + T2, with F its log-likelihood.

    With rho > 0 the value of a ranking is F minus ``ranking_cost`` in both terms.

    Args:
        logp: (G, K) log pi_theta of the segments of each prompt, from best to worst (nats).
        ref_logp: (G, K) log pi_ref of the same, without gradient.
        beta: scale of the implicit reward, > 0.
        c: weight of T2, >= 0; 1 is the exact gradient, 0 is online DPO, bit for bit.
        baseline: subtract the mean value of the other prompts in T2.
        rho: share of arbitrary rankings, from 0 to 1; 0 is bit for bit the loss without.

    Returns:
        (G,) losses, and the metrics of ``sail_loss``: ``h_abs`` and ``accuracy`` are over the pairs that the
        ranking implies, ``t1_weight`` is that of F alone, over its segments.

    Raises:
        ValueError: when ``logp`` and ``ref_logp`` are not of one shape (G, K).
    """
    if logp.ndim != 2 or logp.shape != ref_logp.shape:
        raise ValueError(
            f"logp {tuple(logp.shape)} and ref_logp {tuple(ref_logp.shape)} must be of one shape (G, K)"
        )
    score = beta * (logp - ref_logp)
    likelihood = plackett_luce(score)
    losses, cost = -likelihood, torch.zeros_like(likelihood)
    if rho != 0:
        cost = ranking_cost(score, likelihood, rho)
        losses = losses + cost
    group = torch.arange(len(logp)) if baseline else None
    losses, factor = score_function_terms(losses, c=c, group=group, drawn=logp.sum(dim=1))
    better, worse = torch.triu_indices(logp.shape[1], logp.shape[1], 1)
    with torch.no_grad():
        h = score[:, better] - score[:, worse]
        metrics = {
            "h_abs": h.abs().mean(),
            "F": likelihood.mean(),
            "accuracy": (1 + h.sign().mean()) / 2,
            "robust_cost": cost.mean(),
            "t1_weight": beta * _choice_gradient(score).abs().mean(),
            "t2_weight": factor.abs().mean(),
        }
    return losses, metrics


def _choice_gradient(score: Tensor) -> Tensor:
    """(G, K) gradient of ``plackett_luce`` in the scores: chosen minus softmax, summed over the K choices."""
    gradient = torch.zeros_like(score)
    for choice in range(score.shape[1]):
        gradient[:, choice] += 1
        gradient[:, choice:] -= score[:, choice:].softmax(dim=1)
    return gradient
