"""Policy update of SAIL and its variants on preferences between segments.

The learner sees ``SegmentBatch`` and ``Preferences``, neither of which contains a reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sailctl.algorithms.sources import (
    Comparisons,
    Part,
    UpdateBatch,
    kl_since_update_began,
    make_part,
    minibatch_of,
    prepare,
    rows_by_group,
    step_log_prob,
)
from sailctl.config import AlgoConfig
from sailctl.core.seeding import Generators
from sailctl.core.state import State, module_state, optimiser_state, restore_module, restore_optimiser
from sailctl.core.types import (
    FloatArray,
    IntArray,
    NonFiniteError,
    Pairs,
    PreferenceData,
    SegmentBatch,
)
from sailctl.objectives import (
    clipped_log_prob,
    kl_penalty,
    pair_score,
    project_ball,
    ranking_loss,
    sail_loss,
)
from sailctl.policies.policy import GaussianPolicy

DIAGNOSTICS = (
    "h_abs",
    "F",
    "accuracy",
    "robust_cost",
    "t1_weight",
    "t2_weight",
    "kl_ref_pi",
    "kl_pi_ref",
    "ratio_drift",
    "ratio_drift_max",
    "loss",
    "grad_norm",
)
"""Diagnostics of an update."""
DATA_DIAGNOSTICS = ("h_abs", "F", "accuracy")
"""Diagnostics of a data set that is mixed with a design; their columns begin with ``data_``."""
MAX_KL_FACTOR = 2.0
"""The steps of an iteration stop when the policy has moved by more than this multiple of ``target_kl``."""
MIN_LR_FACTOR, MAX_LR_FACTOR = 0.1, 1.5
"""Bounds of the factor by which ``target_kl`` changes the learning rate after an iteration."""
MIN_LR_SCALE, MAX_LR_SCALE = 0.01, 10.0
"""Bounds of the learning rate under ``target_kl``, relative to ``lr``. The policy does not move while all
labels are ties; without an upper bound, the learning rate would then grow in every iteration."""


class Learner:
    """The update of all SAIL variants on segments, which differ in the source of samples and in coefficients.

    maximise w J_design(theta) + (1 - w) J_data(theta) - gamma E_s[KL], theta in the ball of ``radius``
    (SAIL [Ding et al. 2024], designs DDP, DPP and DPR of the single-level objective; RevKL [Wu et al. 2026],
    penalised and projected objective; Robust [Li et al. 2026], J minus rho E|h|). SAIL-RevKL has responses of
    the policy, labels of a teacher, and w = 1. Without gamma and radius it is SAIL, and also without c it is
    online DPO. w = 0 and c = 0 is offline DPO.

    ``data`` is the data set of ``config.data``. Each iteration samples (1 - w) / w times as many pairs from
    it as there are ``prompts``, and not more than it contains: with two forks every sample has equal weight.

    With ``target_kl`` the learning rate adapts to the KL of the last iterations, as the adaptive penalty of
    Schulman et al. 2017 (arXiv 1707.06347, section 4) does, because the KL of one gradient step depends
    strongly on the standard deviation of the policy.

    The policy's observation statistics are updated during the first ``observe`` env steps; the reference gets
    new ones when it is replaced. With ``observe`` 0 both keep their initial statistics (those of the first
    segments if there are none), so that only the gradient changes the KL between them.
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        reference: GaussianPolicy,
        config: AlgoConfig,
        generators: Generators,
        data: PreferenceData | None = None,
        prompts: int = 1,
    ) -> None:
        self.policy = policy
        self.reference = reference
        self.updates = 0
        """Number of updates so far."""
        self._config = config
        self._rng = generators
        self._data = None if data is None else data.first_steps()
        self._prompts = prompts
        self._parameters = [p for p in policy.parameters() if p.requires_grad]
        optimisers = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self._lr_scale = 1.0
        self._optimiser = optimisers[config.optimiser](self._parameters, lr=config.lr, fused=True)

    def update(
        self,
        segments: SegmentBatch | None = None,
        comparisons: Comparisons | None = None,
        left: float = 1.0,
        env_steps: int = 0,
    ) -> dict[str, float]:
        """Epochs x minibatches of gradient steps on the policy's segments, the data set, or both.

        Args:
            segments: segments of the policy; None when it does not act.
            comparisons: comparisons of ``segments``.
            left: remaining share of the run; the learning rate is proportional to it with ``anneal``.
            env_steps: env steps before these segments, for ``observe``.

        Returns:
            Means of the diagnostics over the minibatches of the last epoch; NaN without samples, for example
            when the teacher skipped every query.

        Raises:
            NonFiniteError: when a segment, a loss, a gradient or a parameter is NaN or infinite; with the
                batch.
        """
        config = self._config
        if config.reference_interval and self.updates % config.reference_interval == 0:
            self.reference = self.policy.snapshot()
        share = left if config.anneal else 1.0
        lr = config.lr * self._lr_scale * share
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        if segments is not None and config.observe == 0 and not self.policy.obs_count:
            for policy in (self.policy, self.reference):
                policy.observe(segments.obs[segments.mask > 0])
        parts = self._parts(segments, comparisons)
        history, moved = self._epochs(parts, None if config.target_kl is None else config.target_kl * share)
        if segments is not None and (config.observe is None or env_steps < config.observe):
            self.policy.observe(segments.obs[segments.mask > 0])
        self.updates += 1
        labels = [part.label for part in parts if part.label is not None]
        return self._means(history) | {
            "tie_share": float(np.mean(labels[0] == 0)) if labels else 0.0,
            "kl_moved": moved,
            "entropy": self.policy.entropy(),
            "lr": lr,
            "std": float(self.policy.log_std.detach().exp().mean()),
            "param_norm": self.policy.norm(),
        }

    @torch.no_grad()
    def score(self, segments: SegmentBatch, pairs: Pairs) -> FloatArray:
        """(B,) h of pairs, under the current policy and reference.

        Raises:
            NonFiniteError: when a segment is not finite.
        """
        batch = self._prepare(segments)
        ratio = self._config.beta * (batch.behaviour_logp.sum(-1) - batch.ref_logp)
        h: FloatArray = (ratio[pairs.first] - ratio[pairs.second]).numpy()
        return h

    def state(self) -> State:
        """State of policy, reference and optimiser, the number of updates, and the learning-rate scale."""
        return {
            "policy": module_state(self.policy),
            "reference": module_state(self.reference),
            "optimiser": optimiser_state(self._optimiser),
            "updates": self.updates,
            "pace": self._lr_scale,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned; the policy is changed in place."""
        restore_module(self.policy, state["policy"])
        self.reference = self.policy.snapshot()
        restore_module(self.reference, state["reference"])
        restore_optimiser(self._optimiser, state["optimiser"])
        self.updates, self._lr_scale = state["updates"], state["pace"]

    # Sources

    def _parts(self, segments: SegmentBatch | None, comparisons: Comparisons | None) -> list[Part]:
        """The samples of one update: of the design first, then of the data set with its recorded labels."""
        config, parts = self._config, []
        policy_labels = config.labels == "policy"
        if segments is not None and comparisons is not None and len(comparisons):
            batch = self._prepare(segments)
            parts.append(make_part(batch, comparisons, config.w, responses=True, policy_labels=policy_labels))
        if self._data is not None and config.responses == "data" and config.w > 0:
            parts.append(self._sample_data(self._data, self._prompts, config.w, policy_labels))
        if self._data is not None and config.w < 1:
            share = (1 - config.w) / config.w if config.w > 0 else 1.0
            count = min(max(1, round(share * self._prompts)), len(self._data))
            recorded = self._sample_data(self._data, count, 1 - config.w, policy_labels=False)
            parts.append(replace(recorded, prefix="data_" if config.w > 0 else ""))
        return parts

    def _sample_data(self, data: PreferenceData, count: int, weight: float, policy_labels: bool) -> Part:
        pairs = data.take(self._rng.data.choice(len(data), count, replace=count > len(data)))
        batch = self._prepare(pairs.segments)
        return make_part(batch, pairs.preferences, weight, responses=False, policy_labels=policy_labels)

    def _prepare(self, segments: SegmentBatch) -> UpdateBatch:
        return prepare(segments, self.policy, self.reference, f"update {self.updates + 1}")

    # Epochs and steps

    def _epochs(self, parts: Sequence[Part], target_kl: float | None) -> tuple[list[dict[str, float]], float]:
        """Epochs x minibatches of gradient steps, stopped early when the KL exceeds its limit.

        Returns:
            The diagnostics of the last epoch's steps, and KL(before || after) per visited state.
        """
        history: list[dict[str, float]] = []
        if not parts:
            return history, math.nan
        log_std = self.policy.log_std.detach().clone()
        max_kl = math.inf if target_kl is None else MAX_KL_FACTOR * target_kl
        groups = [rows_by_group(part.group) for part in parts]
        steps = min([self._config.minibatches, *(len(rows) for rows in groups)])
        moved, steps_done = 0.0, 0
        for _ in range(self._config.epochs):
            if moved > max_kl:
                break
            history.clear()
            orders = [np.array_split(self._rng.minibatch.permutation(len(rows)), steps) for rows in groups]
            for step in range(steps):
                chosen = [
                    np.concatenate([rows[g] for g in order[step]])
                    for rows, order in zip(groups, orders, strict=True)
                ]
                history.append(self._step(parts, chosen))
                steps_done += 1
                if target_kl is not None:
                    moved = kl_since_update_began(parts, self.policy, log_std)
                    if moved > max_kl:
                        break
        if target_kl is None:
            return history, kl_since_update_began(parts, self.policy, log_std)
        # The KL grows with the square of the distance, and the distance with learning rate times steps.
        factor = math.sqrt(target_kl / max(moved, 1e-12)) * steps_done / (self._config.epochs * steps)
        self._lr_scale *= min(max(factor, MIN_LR_FACTOR), MAX_LR_FACTOR)
        self._lr_scale = min(max(self._lr_scale, MIN_LR_SCALE), MAX_LR_SCALE)
        return history, moved

    def _step(self, parts: Sequence[Part], chosen: Sequence[IntArray]) -> dict[str, float]:
        """One gradient step on the chosen samples of each part; returns the diagnostics before the step."""
        config = self._config
        loss = torch.zeros(())
        diagnostics: dict[str, float] = {}
        for part, samples in zip(parts, chosen, strict=True):
            part_loss, metrics = self._loss(part, samples)
            loss = part_loss if part.weight == 1 else loss + part.weight * part_loss
            names = DATA_DIAGNOSTICS if part.prefix else metrics
            diagnostics |= {part.prefix + name: float(metrics[name]) for name in names}

        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        limit = math.inf if config.max_grad_norm is None else config.max_grad_norm
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))
        numbers = {"loss": float(loss.detach()), "gradient norm": grad_norm}
        self._refuse_non_finite(numbers, parts, chosen)
        self._optimiser.step()
        param_norm = project_ball(self._parameters, config.radius)
        self._refuse_non_finite({"parameter norm": param_norm}, parts, chosen)
        return diagnostics | {"loss": numbers["loss"], "grad_norm": grad_norm}

    def _loss(self, part: Part, samples: IntArray) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of the samples with the KL penalty, and metrics.

        A segment that several samples share is evaluated once.
        """
        config, batch = self._config, part.batch
        used, index = np.unique(part.rows[samples], return_inverse=True)
        rows, members = torch.from_numpy(used), torch.from_numpy(index.reshape(len(samples), -1))
        mask, ref_mean = batch.mask[rows], batch.ref_mean[rows]
        mean = self.policy.mean(batch.features[rows])
        steps = step_log_prob(self.policy, mean, batch.actions[rows], mask)
        logp = clipped_log_prob(steps, batch.behaviour_logp[rows], config.clip).sum(-1)
        policy_logp, ref_logp = logp[members], batch.ref_logp[rows][members]
        baseline = config.baseline == "leave_one_out"
        if part.label is None and not part.policy_labels:
            losses, metrics = ranking_loss(
                policy_logp, ref_logp, beta=config.beta, c=config.c, baseline=baseline, rho=config.rho
            )
        else:
            pair_logp = policy_logp[:, 0], policy_logp[:, 1], ref_logp[:, 0], ref_logp[:, 1]
            losses, metrics = sail_loss(
                *pair_logp,
                self._labels(part, samples, pair_logp),
                beta=config.beta,
                c=config.c,
                group=torch.from_numpy(part.group[samples]) if baseline else None,
                responses=part.responses,
                policy_labels=part.policy_labels,
                rho=0.0 if part.policy_labels else config.rho,
                worst_case=config.worst_case,
            )
        loss = losses.mean()
        if config.gamma > 0.0:
            loss = loss + config.gamma * self._mean_kl(config.kl, mean, ref_mean, mask)
        with torch.no_grad():
            drift = (logp - batch.behaviour_logp[rows].sum(-1)).abs()
            metrics |= {
                "kl_ref_pi": self._mean_kl("kl_ref_pi", mean, ref_mean, mask),
                "kl_pi_ref": self._mean_kl("kl_pi_ref", mean, ref_mean, mask),
                "ratio_drift": drift.mean(),
                "ratio_drift_max": drift.max(),
            }
        return loss, metrics

    @torch.no_grad()
    def _labels(
        self, part: Part, samples: IntArray, pair_logp: tuple[Tensor, Tensor, Tensor, Tensor]
    ) -> Tensor:
        """The recorded labels, or labels drawn from p_theta(z) = sigma(z h) of the current policy."""
        if part.label is not None:
            return torch.from_numpy(part.label[samples])
        probability = pair_score(*pair_logp, self._config.beta).sigmoid().numpy()
        labels = np.where(self._rng.labels.random(len(samples)) < probability, 1.0, -1.0)
        return torch.from_numpy(labels.astype(np.float32))

    def _means(self, history: Sequence[dict[str, float]]) -> dict[str, float]:
        """Mean of each diagnostic over the steps, maximum of those named ``*_max``; NaN without a value."""
        mixed = self._data is not None and 0 < self._config.w < 1
        names = [*DIAGNOSTICS, *(f"data_{name}" for name in DATA_DIAGNOSTICS if mixed)]
        values_of = {name: [row[name] for row in history if name in row] for name in names}
        return {
            name: float((np.max if name.endswith("_max") else np.mean)(values)) if values else math.nan
            for name, values in values_of.items()
        }

    def _mean_kl(self, direction: str, mean: Tensor, ref_mean: Tensor, mask: Tensor) -> Tensor:
        """Mean KL over the visited states of the minibatch.

        As in the published objective, the dependence of the state distribution on theta is not
        differentiated.
        """
        kl = kl_penalty(direction, mean, self.policy.log_std, ref_mean, self.reference.log_std)
        return (kl * mask).sum() / mask.sum().clamp(min=1.0)

    def _refuse_non_finite(
        self, numbers: dict[str, float], parts: Sequence[Part], chosen: Sequence[IntArray]
    ) -> None:
        bad = [f"{name} {value}" for name, value in numbers.items() if not math.isfinite(value)]
        if not bad:
            return
        minibatch = minibatch_of(parts, chosen) | {"log_std": self.policy.log_std.detach().clone()}
        raise NonFiniteError(f"update {self.updates + 1} is not finite: {', '.join(bad)}", minibatch)
