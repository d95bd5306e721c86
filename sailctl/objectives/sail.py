"""SAIL: preference optimisation that knows its data come from the policy it changes.

Ding et al. 2024, arXiv 2406.15567, in the form with policy responses and the teacher's labels (DPR). The
single-level objective, to be maximised over the policy's parameters theta, is

    J(theta) = E[ F ],   F = log sigma(z h),   pairs drawn from pi_theta, labels z from the teacher,

and its gradient has two terms, because theta moves both the score h and the pairs that are drawn:

    T1 = E[ grad F ]                                              online DPO
    T2 = c * E[ F * (grad log pi(tau_1) + grad log pi(tau_2)) ]   no gradient through F; c = 1 is exact

The log-probabilities are those of the first H control steps of each segment. When the teacher judges L > H
steps, the steps after H are the same policy simply running on, so they depend on theta as well: neither T1
nor T2 differentiates that continuation, and with L > H even c = 1 leaves it out of the gradient. Likewise
T2 is exact only while the segments come from pi_theta itself, not from an earlier policy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


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

    F = log sigma(z h) is the log-probability of the label under the policy's implicit reward. A tie (z = 0)
    is a soft label: F = 1/2 log sigma(h) + 1/2 log sigma(-h).

    Args:
        h: (B,) pair scores.
        label: (B,) z: +1 first preferred, -1 second preferred, 0 tie.

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
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each pair whose gradient is *minus* the SAIL gradient T1 + T2 (see the module's head).

    The T2 part is a surrogate, -c * (F - b) * (log pi(tau_1) + log pi(tau_2)) with F - b held constant:
    its value means nothing, only its gradient does. Do not compare losses with c > 0 over time; log F.
    The language-model code that the SAIL authors released divides this term by the log-probability inside a
    gradient hook; that is not this gradient.

    F <= 0 always, so without a baseline b every segment drawn is pushed away. The leave-one-group-out mean
    of F keeps the expectation and cuts the variance.

    c = 0 is online DPO bit for bit: the surrogate is not built.

    Args:
        logp_1: (B,) log pi_theta of the first segment, summed over its H masked steps (nats).
        logp_2: (B,) the same of the second segment.
        ref_logp_1: (B,) log pi_ref of the first segment, without gradient.
        ref_logp_2: (B,) the same of the second segment.
        label: (B,) z: +1 first preferred, -1 second preferred, 0 tie.
        beta: scale of the implicit reward, > 0.
        c: weight of T2, >= 0; 1 is the exact gradient.
        group: (B,) integers, pairs that share a segment share a group; None is b = 0 (no baseline).
            With a single group there is nothing to average and b = 0 too.

    Returns:
        (B,) losses, and 0-d metrics without gradient:

        - ``h_abs``: mean |h|;
        - ``F``: mean F (log 1/2 = -0.69 is chance, 0 is certain and right);
        - ``accuracy``: share of pairs where the sign of h is the label, ties left out; h = 0 counts 1/2,
          and a batch of nothing but ties gives 1/2 (chance) so that the number is always finite;
        - ``t1_weight``, ``t2_weight``: mean size of the factor that each term puts on grad log pi of one
          segment, |dF/dlog pi| and c |F - b|, in the same unit.

    Raises:
        ValueError: when the tensors are not all of one shape (B,).
    """
    h = pair_score(logp_1, logp_2, ref_logp_1, ref_logp_2, beta)
    losses = dpo_loss(h, label)
    label_logp = -losses.detach()
    t2_factor = torch.zeros_like(label_logp)
    if c != 0:
        baseline = 0.0 if group is None else leave_one_group_out(label_logp, group)
        t2_factor = c * (label_logp - baseline)
        losses = losses - t2_factor * (logp_1 + logp_2)

    with torch.no_grad():
        answered = label.abs().sum().clamp(min=1)
        metrics = {
            "h_abs": h.abs().mean(),
            "F": label_logp.mean(),
            "accuracy": (1 + (label * h.sign()).sum() / answered) / 2,
            "t1_weight": beta * ((1 + label) / 2 - h.sigmoid()).abs().mean(),
            "t2_weight": t2_factor.abs().mean(),
        }
    return losses, metrics
