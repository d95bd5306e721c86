"""SAIL: preference optimisation whose gradient includes the dependence of the data on the policy.

Ding et al. 2024, arXiv 2406.15567. The single-level objective, to be maximised over the policy's parameters
theta, is J(theta) = E[ F ] with F = log sigma(z h). The pairs and labels z may be samples of the policy. The
gradient has a term for each dependence on theta:

    T1 = E[ grad F ]                                              of the score h: DPO
    T2 = c * E[ F * (grad log pi(tau_1) + grad log pi(tau_2)) ]   of the segments, if sampled from pi_theta
    T3 = c * E[ F * grad log p_theta(z) ]                         of the label, if sampled from p_theta

with p_theta(z) = sigma(z h) and no gradient through the factor F; c = 1 is the exact gradient. The paper's
designs differ in what is sampled: DDP has T1 + T3, DPP all three, DPR (and SAIL here) T1 + T2. Since log
p_theta(z) = F, T3 = c * E[ grad(F^2) / 2 ]. For labels of the policy, the expectation of T1 is zero, because
the mean of grad log p_theta(z) over z is zero. On these samples DDP has T3 only: it maximises minus the
entropy of sigma(h), which strengthens the preferences that the policy already has.

The log-probabilities are those of the first H control steps of each segment. If the teacher judges L > H
steps, the steps after H also depend on theta, because the same policy takes them. Neither T1 nor T2
differentiates this continuation, so with L > H the gradient is incomplete even for c = 1. T2 is exact only
while the segments are samples of pi_theta itself, not of an earlier policy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sailctl.objectives.robust import label_cost


def pair_score(
    logp_1: Tensor,
    logp_2: Tensor,
    ref_logp_1: Tensor,
    ref_logp_2: Tensor,
    beta: float,
) -> Tensor:
    """Score h of each pair: the preference of the policy for the first segment, relative to the reference.

    h = beta * [log(pi/pi_ref)(tau_1) - log(pi/pi_ref)(tau_2)], the difference of the two implicit rewards
    (Rafailov et al. 2023, arXiv 2305.18290: the reward of DPO, whose partition function cancels between
    segments of one start state).

    Args:
        logp_1: (B,) log pi_theta of the first segment, summed over its H masked steps (nats).
        logp_2: (B,) the same of the second segment.
        ref_logp_1: (B,) log pi_ref of the first segment, without gradient.
        ref_logp_2: (B,) the same of the second segment.
        beta: scale of the implicit reward, > 0.

    Returns:
        (B,) h.

    Raises:
        ValueError: when the four are not of one shape (B,).
    """
    shapes = {tuple(logp.shape) for logp in (logp_1, logp_2, ref_logp_1, ref_logp_2)}
    if len(shapes) != 1 or logp_1.ndim != 1:
        raise ValueError(f"log-probabilities must all be (B,), got {sorted(shapes)}")
    return beta * ((logp_1 - ref_logp_1) - (logp_2 - ref_logp_2))


def dpo_loss(h: Tensor, label: Tensor) -> Tensor:
    """Loss -F of each pair, the loss of DPO (Rafailov et al. 2023, arXiv 2305.18290: their objective).

    F = log sigma(z h) is the log-probability of the label under the policy's implicit reward. A soft label
    z = 2p - 1 means that the first is preferred with probability p; then F = p log sigma(h) +
    (1-p) log sigma(-h). A tie (z = 0) is a soft label.

    Args:
        h: (B,) pair scores.
        label: (B,) z: +1 first preferred, -1 second preferred, 0 tie, or any number in between.

    Returns:
        (B,) -F >= 0; its gradient is minus T1.

    Raises:
        ValueError: when the two shapes differ.
    """
    if label.shape != h.shape:
        raise ValueError(f"labels {tuple(label.shape)} and scores {tuple(h.shape)} must be of one shape")
    first = (1 + label) / 2
    return -(first * logsigmoid(h) + (1 - first) * logsigmoid(-h))


def leave_one_group_out(values: Tensor, group: Tensor) -> Tensor:
    """Mean of ``values`` over the pairs of all *other* groups, for each pair.

    A baseline of T2 that depends on the segments whose log-probability it multiplies would bias the gradient.
    Pairs that share a segment must therefore share a group.

    Args:
        values: (B,) one number per pair.
        group: (B,) integers; pairs of different groups are independent.

    Returns:
        (B,) means; 0 if there is only one group.

    Raises:
        ValueError: when the two shapes differ.
    """
    if group.shape != values.shape:
        raise ValueError(f"groups {tuple(group.shape)} and values {tuple(values.shape)} must be of one shape")
    other_group = (group[:, None] != group[None, :]).to(values.dtype)
    return other_group @ values / other_group.sum(dim=1).clamp(min=1)


def score_function_terms(
    losses: Tensor, *, c: float, group: Tensor | None, drawn: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Add to each loss the surrogate of the score-function terms T2 and T3, for what the policy has sampled.

    The surrogate is -c * (F - b) * log p_theta(sampled) with F - b held constant. Only its gradient has a
    meaning, so losses with c > 0 cannot be compared over time; log F instead. Since F <= 0, the gradient
    without a baseline b lowers the probability of every sample. The leave-one-group-out mean of F as b does
    not change the expectation and reduces the variance.

    Args:
        losses: (B,) minus F of each sample.
        c: weight of the terms, >= 0; 0 returns the losses unchanged.
        group: (B,) integers, equal for samples that share a segment; None for no baseline (b = 0). With a
            single group, b = 0 too.
        drawn: (B,) log-probability of everything that the policy sampled; None if it sampled nothing.

    Returns:
        (B,) losses and (B,) the factors c * (F - b), zero if no term was added.
    """
    if c == 0 or drawn is None:
        return losses, torch.zeros_like(losses)
    value = -losses.detach()
    factor = c * (value - (0.0 if group is None else leave_one_group_out(value, group)))
    return losses - factor * drawn, factor


def sail_loss(
    logp_1: Tensor,
    logp_2: Tensor,
    ref_logp_1: Tensor,
    ref_logp_2: Tensor,
    label: Tensor,
    *,
    beta: float,
    c: float,
    group: Tensor | None,
    responses: bool = True,
    policy_labels: bool = False,
    rho: float = 0.0,
    worst_case: str = "exact",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each pair whose gradient is *minus* the gradient of its design (see the module docstring).

    The language-model code of the SAIL authors divides T2 by the log-probability inside a gradient hook,
    which is a different gradient.

    With rho > 0 the value of a pair is F minus the robust cost (``label_cost``) in every term: Li et al.
    2026, arXiv 2602.20457, decomposition of the worst-case objective.

    c = 0 is DPO bit for bit, rho = 0 is SAIL bit for bit.

    Args:
        logp_1: (B,) log pi_theta of the first segment, summed over its H masked steps (nats).
        logp_2: (B,) the same of the second segment.
        ref_logp_1: (B,) log pi_ref of the first segment, without gradient.
        ref_logp_2: (B,) the same of the second segment.
        label: (B,) z: +1 first preferred, -1 second preferred, 0 tie, or any number in between.
        beta: scale of the implicit reward, > 0.
        c: weight of T2 and T3, >= 0; 1 is the exact gradient.
        group: (B,) integers, equal for pairs that share a segment; None for no baseline.
        responses: whether the segments are samples of pi_theta (T2).
        policy_labels: whether the labels are samples of p_theta (T3).
        rho: bound of the adversary, from 0 to 1: on |P - p| between the true preference P and the label's
            p = (1 + z) / 2, or the share of contaminated answers.
        worst_case: ``exact``, ``clipped`` or ``contaminated``, see ``label_cost``.

    Returns:
        (B,) losses, and 0-d metrics without gradient:

        - ``h_abs``: mean |h|;
        - ``F``: mean F, without the robust cost; log 1/2 = -0.69 at h = 0, and 0 for certain, correct scores;
        - ``accuracy``: share of pairs where h has the sign of the label, without ties; a soft label has the
          weight |z|, h = 0 counts 1/2, and a batch of ties only has accuracy 1/2 (so it is always finite);
        - ``robust_cost``: mean robust cost, 0 for rho = 0;
        - ``t1_weight``, ``t2_weight``: mean absolute factor of grad log pi of one segment in each term,
          |dF/dlog pi| and c |F - b|, in the same unit (in T3 it is the product of both).

    Raises:
        ValueError: when the tensors are not all of one shape (B,), or ``worst_case`` is none of the three.
    """
    h = pair_score(logp_1, logp_2, ref_logp_1, ref_logp_2, beta)
    label_logp = -dpo_loss(h, label)
    losses, cost = -label_logp, torch.zeros_like(h)
    if rho != 0:
        cost = label_cost(h, rho, label, worst_case)
        losses = losses + cost
    sampled = [logp_1 + logp_2] * responses + [label_logp] * policy_labels
    drawn = sum(sampled[1:], sampled[0]) if sampled else None
    losses, factor = score_function_terms(losses, c=c, group=group, drawn=drawn)

    with torch.no_grad():
        label_weight = label.abs().sum().clamp(min=torch.finfo(h.dtype).tiny)
        metrics = {
            "h_abs": h.abs().mean(),
            "F": label_logp.mean(),
            "accuracy": (1 + (label * h.sign()).sum() / label_weight) / 2,
            "robust_cost": cost.mean(),
            "t1_weight": beta * ((1 + label) / 2 - h.sigmoid()).abs().mean(),
            "t2_weight": factor.abs().mean(),
        }
    return losses, metrics
