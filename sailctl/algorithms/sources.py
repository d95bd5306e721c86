"""Sources of samples in an update: which segments are compared, with which labels, and what is known of them.

What is prepared here once for an update depends on the policy as it is when the update begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sailctl.core.types import (
    FloatArray,
    IntArray,
    NonFiniteError,
    Pairs,
    Preferences,
    Rankings,
    SegmentBatch,
)
from sailctl.objectives import kl_penalty
from sailctl.policies.policy import GaussianPolicy

Comparisons = Preferences | Rankings | Pairs
"""What is known about segments: labelled pairs, rankings, or pairs that the policy is to label itself."""


@dataclass(frozen=True)
class UpdateBatch:
    """Tensors of one update, prepared once: nothing in it depends on the parameters being trained."""

    features: Tensor
    """(S, H, F) observations as the policy's trained part sees them (statistics frozen in an update)."""
    actions: Tensor
    """(S, H, A) actions in policy units."""
    mask: Tensor
    """(S, H) 1 where the step was taken."""
    behaviour_logp: Tensor
    """(S, H) log pi(a_t|s_t) of the policy as it was when the update began, 0 where no step was taken."""
    behaviour_mean: Tensor
    """(S, H, A) mean actions of that policy."""
    ref_logp: Tensor
    """(S,) log pi_ref(tau)."""
    ref_mean: Tensor
    """(S, H, A) mean actions of the reference."""


@dataclass(frozen=True)
class Part:
    """One source of samples in an update: a design, or the data set with its recorded labels."""

    batch: UpdateBatch
    rows: IntArray
    """(N, K) rows of the segments of each sample: the two of a pair, or a ranking's, the best first."""
    label: FloatArray | None
    """(N,) labels of pairs; None for rankings, and for pairs that the policy labels itself."""
    group: IntArray
    """(N,) samples that share a segment share a group."""
    weight: float
    """Weight in the mixture of sources."""
    responses: bool
    """Whether the segments were drawn from the policy."""
    own_labels: bool
    """Whether the policy labels the pairs itself."""
    prefix: str = ""
    """Put before the names of its diagnostics: ``data_`` for a data set beside a design."""


@torch.no_grad()
def prepare(
    segments: SegmentBatch, policy: GaussianPolicy, reference: GaussianPolicy, what: str
) -> UpdateBatch:
    """The tensors of an update on these segments.

    Args:
        segments: (S, H) steps.
        policy: as it is when the update begins.
        reference: what it is compared with.
        what: name of the update, for the error.

    Raises:
        NonFiniteError: when a segment is not finite; it carries the segments.
    """
    obs, actions = torch.from_numpy(segments.obs), torch.from_numpy(segments.actions)
    mask = torch.from_numpy(segments.mask)
    if not (torch.isfinite(obs).all() and torch.isfinite(actions).all()):
        given = {"obs": obs, "actions": actions, "mask": mask}
        raise NonFiniteError(f"{what} was given segments that are not finite", given)
    features = policy.features(obs)
    behaviour_mean = policy.mean(features)
    behaviour_logp = step_log_prob(policy, behaviour_mean, actions, mask)
    ref_mean = reference.mean(reference.features(obs))
    ref_logp = step_log_prob(reference, ref_mean, actions, mask).sum(-1)
    return UpdateBatch(features, actions, mask, behaviour_logp, behaviour_mean, ref_logp, ref_mean)


def part_of(
    batch: UpdateBatch, comparisons: Comparisons, weight: float, *, responses: bool, own_labels: bool
) -> Part:
    """The samples of one source; with ``own_labels`` a label that the pairs bring is not read."""
    if isinstance(comparisons, Rankings):
        rows, group = comparisons.order, np.arange(len(comparisons))
        return Part(batch, rows, None, group, weight, responses, own_labels=False)
    pairs = comparisons if isinstance(comparisons, Pairs) else comparisons.pairs
    label = None if isinstance(comparisons, Pairs) or own_labels else comparisons.label
    rows = np.stack([pairs.first, pairs.second], axis=1)
    return Part(batch, rows, label, pairs.group, weight, responses, own_labels)


def step_log_prob(policy: GaussianPolicy, mean: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """(S, H) m_t log pi(a_t|s_t) for means and actions (S, H, A) and mask (S, H)."""
    return policy.log_prob(mean, actions) * mask


def rows_by_group(group: IntArray) -> list[IntArray]:
    """The rows of each group, groups in ascending order."""
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order])) + 1
    return np.split(order, edges)


@torch.no_grad()
def distance(parts: Sequence[Part], policy: GaussianPolicy, log_std: Tensor) -> float:
    """KL per visited state from the policy as it was, with ``log_std``, when the update began."""
    total, states = 0.0, 0.0
    for part in parts:
        mask = part.batch.mask
        mean = policy.mean(part.batch.features)
        kl = kl_penalty("kl_ref_pi", mean, policy.log_std, part.batch.behaviour_mean, log_std)
        total, states = total + float((kl * mask).sum()), states + float(mask.sum())
    return total / max(states, 1.0)


def minibatch_of(parts: Sequence[Part], chosen: Sequence[IntArray]) -> dict[str, Tensor]:
    """The tensors of the chosen samples of each part, by name, to be written beside a run."""
    given: dict[str, Tensor] = {}
    for part, samples in zip(parts, chosen, strict=True):
        prefix = part.prefix
        batch, rows = part.batch, torch.from_numpy(part.rows[samples].ravel())
        given |= {
            f"{prefix}features": batch.features[rows],
            f"{prefix}actions": batch.actions[rows],
            f"{prefix}mask": batch.mask[rows],
            f"{prefix}ref_logp": batch.ref_logp[rows],
            f"{prefix}ref_mean": batch.ref_mean[rows],
        }
        if part.label is not None:
            given[f"{prefix}label"] = torch.from_numpy(part.label[samples])
    return given
