"""Samples of an update: the compared segments, their labels, and tensors computed once before its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sailctl.core.networks import check_finite
from sailctl.core.types import FloatArray, IntArray, Pairs, Preferences, Rankings, SegmentBatch
from sailctl.objectives import kl_penalty
from sailctl.policies.policy import GaussianPolicy

Comparisons = Preferences | Rankings | Pairs
"""Comparisons of segments: labelled pairs, rankings, or pairs without labels, which the policy labels."""


@dataclass(frozen=True)
class UpdateBatch:
    """Tensors of one update that do not change during its gradient steps."""

    features: Tensor
    """(S, H, F) features of the observations, with the observation statistics before the update."""
    actions: Tensor
    """(S, H, A) actions in policy units."""
    mask: Tensor
    """(S, H) 1 for executed steps."""
    behaviour_logp: Tensor
    """(S, H) log pi(a_t|s_t) of the policy before the update; 0 where no step was executed."""
    behaviour_mean: Tensor
    """(S, H, A) mean actions of the policy before the update."""
    ref_logp: Tensor
    """(S,) log pi_ref(tau)."""
    ref_mean: Tensor
    """(S, H, A) mean actions of the reference."""


@dataclass(frozen=True)
class Part:
    """The samples of one source: of a design, or of the data set with its recorded labels."""

    batch: UpdateBatch
    rows: IntArray
    """(N, K) rows of the segments of each sample: of a pair, or of a ranking from best to worst."""
    label: FloatArray | None
    """(N,) labels of pairs; None for rankings, and for pairs that the policy labels."""
    group: IntArray
    """(N,) group of each sample; samples that share a segment are in one group."""
    weight: float
    """Weight in the mixture of sources."""
    responses: bool
    """Whether the segments are samples of the policy."""
    policy_labels: bool
    """Whether the policy labels the pairs."""
    prefix: str = ""
    """Prefix of the names of the diagnostics: ``data_`` for a data set that is mixed with a design."""


@torch.no_grad()
def prepare(
    segments: SegmentBatch, policy: GaussianPolicy, reference: GaussianPolicy, update: str
) -> UpdateBatch:
    """The tensors of an update on these segments.

    Args:
        segments: (S, H) steps.
        policy: the policy before the update.
        reference: the reference policy.
        update: name of the update, for the error message.

    Raises:
        NonFiniteError: when a segment is NaN or infinite; with the segments.
    """
    check_finite(segments, update)
    obs, actions = torch.from_numpy(segments.obs), torch.from_numpy(segments.actions)
    mask = torch.from_numpy(segments.mask)
    features = policy.features(obs)
    behaviour_mean = policy.mean(features)
    behaviour_logp = step_log_prob(policy, behaviour_mean, actions, mask)
    ref_mean = reference.mean(reference.features(obs))
    ref_logp = step_log_prob(reference, ref_mean, actions, mask).sum(-1)
    return UpdateBatch(features, actions, mask, behaviour_logp, behaviour_mean, ref_logp, ref_mean)


def make_part(
    batch: UpdateBatch, comparisons: Comparisons, weight: float, *, responses: bool, policy_labels: bool
) -> Part:
    """The samples of one source; with ``policy_labels`` recorded labels are ignored."""
    if isinstance(comparisons, Rankings):
        rows, group = comparisons.order, np.arange(len(comparisons))
        return Part(batch, rows, None, group, weight, responses, policy_labels=False)
    pairs = comparisons if isinstance(comparisons, Pairs) else comparisons.pairs
    label = None if isinstance(comparisons, Pairs) or policy_labels else comparisons.label
    rows = np.stack([pairs.first, pairs.second], axis=1)
    return Part(batch, rows, label, pairs.group, weight, responses, policy_labels)


def step_log_prob(policy: GaussianPolicy, mean: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """(S, H) mask_t * log pi(a_t|s_t) for means and actions (S, H, A) and mask (S, H)."""
    return policy.log_prob(mean, actions) * mask


def rows_by_group(group: IntArray) -> list[IntArray]:
    """The rows of each group, groups in ascending order."""
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order])) + 1
    return np.split(order, edges)


@torch.no_grad()
def kl_since_update_began(parts: Sequence[Part], policy: GaussianPolicy, log_std: Tensor) -> float:
    """KL(before || now) per visited state; ``log_std`` is that of the policy before the update."""
    total, states = 0.0, 0.0
    for part in parts:
        mask = part.batch.mask
        mean = policy.mean(part.batch.features)
        kl = kl_penalty("kl_ref_pi", mean, policy.log_std, part.batch.behaviour_mean, log_std)
        total, states = total + float((kl * mask).sum()), states + float(mask.sum())
    return total / max(states, 1.0)


def minibatch_of(parts: Sequence[Part], chosen: Sequence[IntArray]) -> dict[str, Tensor]:
    """The tensors of the chosen samples of each part, by name, for the error of a non-finite update."""
    tensors: dict[str, Tensor] = {}
    for part, samples in zip(parts, chosen, strict=True):
        prefix = part.prefix
        batch, rows = part.batch, torch.from_numpy(part.rows[samples].ravel())
        tensors |= {
            f"{prefix}features": batch.features[rows],
            f"{prefix}actions": batch.actions[rows],
            f"{prefix}mask": batch.mask[rows],
            f"{prefix}ref_logp": batch.ref_logp[rows],
            f"{prefix}ref_mean": batch.ref_mean[rows],
        }
        if part.label is not None:
            tensors[f"{prefix}label"] = torch.from_numpy(part.label[samples])
    return tensors
