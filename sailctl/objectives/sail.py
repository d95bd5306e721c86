"""SAIL: preference optimisation that knows its data come from the policy it changes.

Ding et al. 2024, arXiv 2406.15567. The single-level objective, to be maximised over the policy's parameters
theta, is J(theta) = E[ F ] with F = log sigma(z h), over pairs and labels z that theta itself may have drawn.
Its gradient has a term for each way in which theta enters:

    T1 = E[ grad F ]                                              through the score h: DPO
    T2 = c * E[ F * (grad log pi(tau_1) + grad log pi(tau_2)) ]   where the segments are drawn from pi_theta
    T3 = c * E[ F * grad log p_theta(z) ]                         where the label is drawn from p_theta

with p_theta(z) = sigma(z h) and no gradient through the factor F; c = 1 is the exact gradient. The paper's
designs differ in what is drawn: DDP has T1 + T3, DPP all three, DPR (and SAIL here) T1 + T2. Since
log p_theta(z) is F itself, T3 = c * E[ grad(F^2) / 2 ]; and since the mean of grad log p_theta(z) over its
own labels is zero, T1 vanishes in expectation wherever the label is the policy's own. DDP therefore moves by
T3 alone on those samples: it maximises minus the entropy of sigma(h), which makes the policy surer of what it
already prefers.

The log-probabilities are those of the first H control steps of each segment. When the teacher judges L > H
steps, the steps after H are the same policy simply running on, so they depend on theta as well: neither T1
nor T2 differentiates that continuation, and with L > H even c = 1 leaves it out of the gradient. Likewise
T2 is exact only while the segments come from pi_theta itself, not from an earlier policy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sailctl.objectives.robust import robust_cost


def pair_score(
    logp_1: Tensor,
    logp_2: Tensor,
    ref_logp_1: Tensor,
    ref_logp_2: Tensor,
    beta: float,
) -> Tensor:
    """Score h of each pair: how much more the policy than its reference favours the first segment.

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

    F = log sigma(z h) is the log-probability of the label under the policy's implicit reward. A label may be
    soft: z = 2p - 1 says that the first is preferred with probability p, and F = p log sigma(h) +
    (1-p) log sigma(-h). A tie (z = 0) is such a label.

    Args:
        h: (B,) pair scores.
        label: (B,) z: +1 first preferred, -1 second preferred, 0 tie, or any number between.

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

    A baseline for T2 must not depend on the segments whose log-probability it multiplies, or it shifts the
    expectation; pairs that share a segment must therefore share a group.

    Args:
        values: (B,) one number per pair.
        group: (B,) integers; pairs of different groups are independent.

    Returns:
        (B,) means, 0 when there is only one group.

    Raises:
        ValueError: when the two shapes differ.
    """
    if group.shape != values.shape:
        raise ValueError(f"groups {tuple(group.shape)} and values {tuple(values.shape)} must be of one shape")
    others = (group[:, None] != group[None, :]).to(values.dtype)
    return others @ values / others.sum(dim=1).clamp(min=1)


def score_function_terms(
    losses: Tensor, *, c: float, group: Tensor | None, drawn: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Add to each loss the surrogate whose gradient accounts for what theta itself has drawn (T2 and T3).

    The surrogate is -c * (F - b) * log p_theta(drawn) with F - b held constant: its value means nothing, only
    its gradient does. Do not compare losses with c > 0 over time; log F. F <= 0 always, so without a
    baseline b everything that is drawn is pushed away; the leave-one-group-out mean of F keeps the
    expectation and cuts the variance.

    Args:
        losses: (B,) minus F of each sample.
        c: weight of the terms, >= 0; with 0 the losses are returned as they are.
        group: (B,) integers, samples that share something drawn share a group; None is b = 0 (no baseline).
            With a single group there is nothing to average and b = 0 too.
        drawn: (B,) log-probability of all that theta drew for the sample; None when it drew nothing.

    Returns:
        (B,) losses and (B,) the factors c * (F - b), zero when nothing was added.
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
    """Loss of each pair whose gradient is *minus* the gradient of its design (see the module's head).

    The language-model code that the SAIL authors released divides T2 by the log-probability inside a gradient
    hook; that is not this gradient.

    With rho > 0 the value of a pair is F minus the robust cost (``robust_cost``) in every term: Li et al.
    2026, arXiv 2602.20457, decomposition of the worst-case objective.

    c = 0 is DPO bit for bit, rho = 0 is SAIL bit for bit: what would add nothing is not built.

    Args:
        logp_1: (B,) log pi_theta of the first segment, summed over its H masked steps (nats).
        logp_2: (B,) the same of the second segment.
        ref_logp_1: (B,) log pi_ref of the first segment, without gradient.
        ref_logp_2: (B,) the same of the second segment.
        label: (B,) z: +1 first preferred, -1 second preferred, 0 tie, or any number between (``dpo_loss``).
        beta: scale of the implicit reward, > 0.
        c: weight of T2 and T3, >= 0; 1 is the exact gradient.
        group: (B,) integers, pairs that share a segment share a group; None is no baseline.
        responses: whether the segments were drawn from pi_theta (T2), or are data.
        policy_labels: whether the labels were drawn from p_theta (T3), or are somebody else's.
        rho: bound on how far the true preference may lie from the labels', from 0 to 1.
        worst_case: ``exact`` charges rho |h|; ``clipped`` takes the label as the probability of the answer
            and keeps the adversary's within [0, 1].

    Returns:
        (B,) losses, and 0-d metrics without gradient:

        - ``h_abs``: mean |h|;
        - ``F``: mean F, without the robust cost (log 1/2 = -0.69 is chance, 0 is certain and right);
        - ``accuracy``: share of pairs where the sign of h is that of the label, ties left out; a soft label
          counts as much as it is sure, |z|; h = 0 counts 1/2, and a batch of nothing but ties gives 1/2
          (chance) so that the number is always finite;
        - ``robust_cost``: mean robust cost, 0 when rho is;
        - ``t1_weight``, ``t2_weight``: mean size of the factor that each term puts on grad log pi of one
          segment, |dF/dlog pi| and c |F - b|, in the same unit (T3 puts the product of the two).

    Raises:
        ValueError: when the tensors are not all of one shape (B,), or ``worst_case`` is neither of the two.
    """
    h = pair_score(logp_1, logp_2, ref_logp_1, ref_logp_2, beta)
    label_logp = -dpo_loss(h, label)
    losses, cost = -label_logp, torch.zeros_like(h)
    if rho != 0:
        cost = robust_cost(h, rho, label_chance(label, worst_case))
        losses = losses + cost
    parts = [logp_1 + logp_2] * responses + [label_logp] * policy_labels
    drawn = sum(parts[1:], parts[0]) if parts else None
    losses, factor = score_function_terms(losses, c=c, group=group, drawn=drawn)

    with torch.no_grad():
        answered = label.abs().sum().clamp(min=torch.finfo(h.dtype).tiny)
        metrics = {
            "h_abs": h.abs().mean(),
            "F": label_logp.mean(),
            "accuracy": (1 + (label * h.sign()).sum() / answered) / 2,
            "robust_cost": cost.mean(),
            "t1_weight": beta * ((1 + label) / 2 - h.sigmoid()).abs().mean(),
            "t2_weight": factor.abs().mean(),
        }
    return losses, metrics


def label_chance(label: Tensor, worst_case: str) -> Tensor | None:
    """What ``robust_cost`` is to take as P(first preferred): None for ``exact``, (1 + z) / 2 for ``clipped``.

    Raises:
        ValueError: when ``worst_case`` is neither of the two.
    """
    if worst_case == "exact":
        return None
    if worst_case == "clipped":
        return (1 + label) / 2
    raise ValueError(f"the worst case is exact or clipped, not {worst_case!r}")
