"""One update: labelled pairs in, a moved policy and a dictionary of numbers out.

The learner is given ``SegmentBatch`` and ``Preferences``; no type that it can reach holds a reward.
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
    distance,
    minibatch_of,
    part_of,
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
"""Numbers of an update; those of the data set beside a design are ``data_*`` for the ones in ``OF_DATA``."""
OF_DATA = ("h_abs", "F", "accuracy")
FURTHEST = 2.0
"""Passes over an iteration end when the policy has moved by more than so many times ``target_kl``."""
SLOWEST, FASTEST = 0.1, 1.5
"""Factors by which ``target_kl`` changes the learning rate from one iteration to the next, at most."""
LOWEST, HIGHEST = 0.01, 10.0
"""Shares of ``lr`` that ``target_kl`` keeps the learning rate between: where the labels are all ties nothing
moves, and the first that is not must not find a rate that has risen without end."""


class Learner:
    """Every form of SAIL on segments: one update, with different sources of samples and coefficients.

    maximise w J_design(theta) + (1 - w) J_data(theta) - gamma E_s[KL], theta on the ball of ``radius``
    (SAIL [Ding et al. 2024], designs DDP, DPP and DPR of the single-level objective; RevKL [Wu et al. 2026],
    penalised and projected objective; Robust [Li et al. 2026], J minus rho E|h|). Policy responses, a
    teacher's labels and w = 1 are SAIL-RevKL; without gamma and radius that is SAIL, without c online DPO.
    w = 0 and c = 0 is offline DPO.

    ``data`` is the data set of ``config.data``; an iteration learns from (1 - w) / w times as many of its
    pairs as there are ``prompts`` (from all of them at most): with two forks single samples weigh alike.

    With ``target_kl`` the learning rate follows how far the last iterations moved the policy, as the penalty
    of Schulman et al. 2017 (arXiv 1707.06347, section 4) does: one step is nothing to a policy that acts with
    much noise, and the end of one that acts with little.

    The observation statistics follow the segments of the first ``observe`` env steps, those of the reference
    only when it is replaced. With ``observe`` 0 both keep the ones that training starts with, and what moves
    one against the other is the gradient alone; where there are none yet, those of the first segments.
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
        """Updates done so far."""
        self._config = config
        self._rng = generators
        self._data = None if data is None else data.first_steps()
        self._prompts = prompts
        self._parameters = [p for p in policy.parameters() if p.requires_grad]
        optimisers = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self._pace = 1.0
        self._lr = config.lr
        self._optimiser = optimisers[config.optimiser](self._parameters, lr=config.lr, fused=True)

    def update(
        self,
        segments: SegmentBatch | None = None,
        comparisons: Comparisons | None = None,
        left: float = 1.0,
        env_steps: int = 0,
    ) -> dict[str, float]:
        """Epochs x minibatches of gradient steps on what the policy just did, the data set, or both.

        ``left`` is the share of the run that is left, which the learning rate follows with ``anneal``;
        ``env_steps`` is how many came before these segments, which ``observe`` counts.

        Returns the diagnostics of the last epoch (over its minibatches; NaN where there was nothing to
        learn from, since the teacher skipped every question, say).

        Raises:
            NonFiniteError: when a segment, a loss, a gradient or a parameter is NaN or infinite; it carries
                the batch.
        """
        if self._config.reference_interval and self.updates % self._config.reference_interval == 0:
            self.reference = self.policy.snapshot()
        share = left if self._config.anneal else 1.0
        self._lr = self._config.lr * self._pace * share
        for group in self._optimiser.param_groups:
            group["lr"] = self._lr
        observe = self._config.observe
        if segments is not None and observe == 0 and not self.policy.obs_count:
            for policy in (self.policy, self.reference):
                policy.observe(segments.obs[segments.mask > 0])
        parts = self._parts(segments, comparisons)
        history, moved = self._passes(
            parts, None if self._config.target_kl is None else self._config.target_kl * share
        )
        if segments is not None and (observe is None or env_steps < observe):
            self.policy.observe(segments.obs[segments.mask > 0])
        self.updates += 1
        labels = [part.label for part in parts if part.label is not None]
        return self._means(history) | {
            "tie_share": float(np.mean(labels[0] == 0)) if labels else 0.0,
            "kl_moved": moved,
            "entropy": self.policy.entropy(),
            "lr": self._lr,
            "std": float(self.policy.log_std.detach().exp().mean()),
            "param_norm": self.policy.norm(),
        }

    @torch.no_grad()
    def score(self, segments: SegmentBatch, pairs: Pairs) -> FloatArray:
        """(B,) h of pairs, under the policy and the reference that the last update was made against.

        Raises:
            NonFiniteError: when a segment is not finite.
        """
        batch = self._prepared(segments)
        ratio = self._config.beta * (batch.behaviour_logp.sum(-1) - batch.ref_logp)
        h: FloatArray = (ratio[pairs.first] - ratio[pairs.second]).numpy()
        return h

    def state(self) -> State:
        """Policy, reference, optimiser, and where the learning rate stands."""
        return {
            "policy": module_state(self.policy),
            "reference": module_state(self.reference),
            "optimiser": optimiser_state(self._optimiser),
            "updates": self.updates,
            "pace": self._pace,
        }

    def restore(self, state: State) -> None:
        """Load what ``state`` returned; the policy is changed in place."""
        restore_module(self.policy, state["policy"])
        self.reference = self.policy.snapshot()
        restore_module(self.reference, state["reference"])
        restore_optimiser(self._optimiser, state["optimiser"])
        self.updates, self._pace = state["updates"], state["pace"]

    # Sources

    def _parts(self, segments: SegmentBatch | None, comparisons: Comparisons | None) -> list[Part]:
        """The sources of one update: the design first, then the data set with its recorded labels."""
        config, parts = self._config, []
        own = config.labels == "policy"
        if segments is not None and comparisons is not None and len(comparisons):
            batch = self._prepared(segments)
            parts.append(part_of(batch, comparisons, config.w, responses=True, own_labels=own))
        if self._data is not None and config.responses == "data" and config.w > 0:
            parts.append(self._drawn_from_data(self._data, self._prompts, config.w, own_labels=own))
        if self._data is not None and config.w < 1:
            share = (1 - config.w) / config.w if config.w > 0 else 1.0
            count = min(max(1, round(share * self._prompts)), len(self._data))
            recorded = self._drawn_from_data(self._data, count, 1 - config.w, own_labels=False)
            parts.append(replace(recorded, prefix="data_" if config.w > 0 else ""))
        return parts

    def _drawn_from_data(self, data: PreferenceData, count: int, weight: float, own_labels: bool) -> Part:
        rows = self._rng.data.choice(len(data), count, replace=count > len(data))
        drawn = data.take(rows)
        batch = self._prepared(drawn.segments)
        return part_of(batch, drawn.preferences, weight, responses=False, own_labels=own_labels)

    def _prepared(self, segments: SegmentBatch) -> UpdateBatch:
        return prepare(segments, self.policy, self.reference, f"update {self.updates + 1}")

    # Passes and steps

    def _passes(self, parts: Sequence[Part], target_kl: float | None) -> tuple[list[dict[str, float]], float]:
        """Epochs x minibatches of gradient steps, fewer when the policy has moved too far for ``target_kl``.

        Returns the diagnostics of the last pass's steps, and KL(before || after) per visited state.
        """
        history: list[dict[str, float]] = []
        if not parts:
            return history, math.nan
        log_std = self.policy.log_std.detach().clone()
        furthest = math.inf if target_kl is None else FURTHEST * target_kl
        groups = [rows_by_group(part.group) for part in parts]
        steps = min([self._config.minibatches, *(len(rows) for rows in groups)])
        moved, taken = 0.0, 0
        for _ in range(self._config.epochs):
            if moved > furthest:
                break
            history.clear()
            orders = [np.array_split(self._rng.minibatch.permutation(len(rows)), steps) for rows in groups]
            for step in range(steps):
                chosen = [
                    np.concatenate([rows[g] for g in order[step]])
                    for rows, order in zip(groups, orders, strict=True)
                ]
                history.append(self._step(parts, chosen))
                taken += 1
                if target_kl is not None:
                    moved = distance(parts, self.policy, log_std)
                    if moved > furthest:
                        break
        if target_kl is None:
            return history, distance(parts, self.policy, log_std)
        # KL grows with the square of the way, and the way with the rate and the steps of it that were taken.
        wanted = math.sqrt(target_kl / max(moved, 1e-12)) * taken / (self._config.epochs * steps)
        self._pace *= min(max(wanted, SLOWEST), FASTEST)
        self._pace = min(max(self._pace, LOWEST), HIGHEST)
        return history, moved

    def _step(self, parts: Sequence[Part], chosen: Sequence[IntArray]) -> dict[str, float]:
        """One gradient step on the chosen samples of each part.

        Returns the diagnostics, taken before the step.
        """
        config = self._config
        loss = torch.zeros(())
        diagnostics: dict[str, float] = {}
        for part, samples in zip(parts, chosen, strict=True):
            own, metrics = self._loss(part, samples)
            loss = own if part.weight == 1 else loss + part.weight * own
            wanted = OF_DATA if part.prefix else metrics
            diagnostics |= {part.prefix + name: float(metrics[name]) for name in wanted}

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
        """Mean loss of the samples, the KL penalty included, and metrics; each segment is evaluated once,
        however many samples share it."""
        config, batch = self._config, part.batch
        used, place = np.unique(part.rows[samples], return_inverse=True)
        rows, places = torch.from_numpy(used), torch.from_numpy(place.reshape(len(samples), -1))
        mask, ref_mean = batch.mask[rows], batch.ref_mean[rows]
        mean = self.policy.mean(batch.features[rows])
        steps = step_log_prob(self.policy, mean, batch.actions[rows], mask)
        logp = clipped_log_prob(steps, batch.behaviour_logp[rows], config.clip).sum(-1)
        ours, theirs = logp[places], batch.ref_logp[rows][places]
        if part.label is None and not part.own_labels:
            losses, metrics = ranking_loss(
                ours, theirs, beta=config.beta, c=config.c, baseline=config.baseline == "leave_one_out"
            )
        else:
            scored = ours[:, 0], ours[:, 1], theirs[:, 0], theirs[:, 1]
            losses, metrics = sail_loss(
                *scored,
                self._labels(part, samples, scored),
                beta=config.beta,
                c=config.c,
                group=torch.from_numpy(part.group[samples]) if config.baseline == "leave_one_out" else None,
                responses=part.responses,
                own_labels=part.own_labels,
                rho=0.0 if part.own_labels else config.rho,
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
    def _labels(self, part: Part, samples: IntArray, scored: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """The recorded labels, or new ones drawn from p_theta(z) = sigma(z h) of the policy as it is now."""
        if part.label is not None:
            return torch.from_numpy(part.label[samples])
        chance = pair_score(*scored, self._config.beta).sigmoid().numpy()
        drawn = np.where(self._rng.labels.random(len(samples)) < chance, 1.0, -1.0)
        return torch.from_numpy(drawn.astype(np.float32))

    def _means(self, history: Sequence[dict[str, float]]) -> dict[str, float]:
        """Mean of each diagnostic, the largest of a ``_max``; NaN for one that no step has brought."""
        mixed = self._data is not None and 0 < self._config.w < 1
        names = [*DIAGNOSTICS, *(f"data_{name}" for name in OF_DATA if mixed)]
        found = {name: [row[name] for row in history if name in row] for name in names}
        return {
            name: float((np.max if name.endswith("_max") else np.mean)(values)) if values else math.nan
            for name, values in found.items()
        }

    def _mean_kl(self, direction: str, mean: Tensor, ref_mean: Tensor, mask: Tensor) -> Tensor:
        """KL per visited state, averaged over the states of the minibatch (how often each is visited depends
        on theta too; as in the published objective, that is not differentiated)."""
        kl = kl_penalty(direction, mean, self.policy.log_std, ref_mean, self.reference.log_std)
        return (kl * mask).sum() / mask.sum().clamp(min=1.0)

    def _refuse_non_finite(
        self, numbers: dict[str, float], parts: Sequence[Part], chosen: Sequence[IntArray]
    ) -> None:
        bad = [f"{name} {value}" for name, value in numbers.items() if not math.isfinite(value)]
        if not bad:
            return
        given = minibatch_of(parts, chosen) | {"log_std": self.policy.log_std.detach().clone()}
        raise NonFiniteError(f"update {self.updates + 1} is not finite: {', '.join(bad)}", given)
