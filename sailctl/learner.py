"""One update: labelled pairs in, a moved policy and a dictionary of numbers out.

The learner is given ``SegmentBatch`` and ``Preferences``; no type that it can reach holds a reward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sailctl.config import AlgoConfig
from sailctl.objectives import kl_penalty, project_ball, sail_loss
from sailctl.policy import GaussianPolicy
from sailctl.types import IntArray, NonFiniteError, Preferences, SegmentBatch


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
    """(S,) log pi(tau) under the policy as it was when the update began."""
    ref_logp: Tensor
    """(S,) log pi_ref(tau)."""
    ref_mean: Tensor
    """(S, H, A) mean actions of the reference."""


class Learner:
    """SAIL, SAIL-RevKL and online DPO: the same update with other coefficients.

    maximise J(theta) - gamma E_s[KL], theta on the ball of ``radius``  (SAIL [Ding et al. 2024], single-level
    objective; RevKL [Wu et al. 2026], penalised and projected objective). gamma = 0 and no radius is SAIL,
    c = 0 as well is online DPO.
    """

    def __init__(
        self, policy: GaussianPolicy, reference: GaussianPolicy, config: AlgoConfig, rng: np.random.Generator
    ) -> None:
        self.policy = policy
        self.reference = reference
        self.updates = 0
        """Updates done so far."""
        self._config = config
        self._rng = rng
        self._parameters = [p for p in policy.parameters() if p.requires_grad]
        optimisers = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self._optimiser = optimisers[config.optimiser](self._parameters, lr=config.lr, fused=True)

    def update(self, segments: SegmentBatch, preferences: Preferences) -> dict[str, float]:
        """Epochs x minibatches of gradient steps on the labelled pairs.

        Returns the diagnostics of the last epoch (means over its minibatches).

        Raises:
            NonFiniteError: when a segment, a loss, a gradient or a parameter is NaN or infinite; it carries
                the batch.
        """
        if self._config.refresh and self.updates % self._config.refresh == 0:
            self.reference = self.policy.snapshot()
        batch = self._prepare(segments)
        groups = rows_by_group(preferences.pairs.group)
        history: list[dict[str, float]] = []
        for epoch in range(self._config.epochs):
            order = self._rng.permutation(len(groups))
            for chosen in np.array_split(order, min(self._config.minibatches, len(groups))):
                pairs = np.concatenate([groups[g] for g in chosen])
                last_epoch = epoch == self._config.epochs - 1
                metrics = self._step(batch, preferences, pairs, measured=last_epoch)
                if last_epoch:
                    history.append(metrics)
        self.policy.observe(segments.obs[segments.mask > 0])
        self.updates += 1
        means = {name: float(np.mean([row[name] for row in history])) for name in history[0]}
        labelled = preferences.label != 0
        return means | {
            "tie_share": float(1.0 - labelled.mean()),
            "entropy": self.policy.entropy(),
            "std": float(self.policy.log_std.detach().exp().mean()),
            "param_norm": math.sqrt(sum(float(p.detach().square().sum()) for p in self._parameters)),
        }

    @torch.no_grad()
    def _prepare(self, segments: SegmentBatch) -> UpdateBatch:
        obs, actions = torch.from_numpy(segments.obs), torch.from_numpy(segments.actions)
        mask = torch.from_numpy(segments.mask)
        if not (torch.isfinite(obs).all() and torch.isfinite(actions).all()):
            given = {"obs": obs, "actions": actions, "mask": mask}
            raise NonFiniteError(f"update {self.updates + 1} was given segments that are not finite", given)
        features = self.policy.features(obs)
        behaviour_logp = segment_log_prob(self.policy, self.policy.mean(features), actions, mask)
        ref_mean = self.reference.mean(self.reference.features(obs))
        ref_logp = segment_log_prob(self.reference, ref_mean, actions, mask)
        return UpdateBatch(features, actions, mask, behaviour_logp, ref_logp, ref_mean)

    def _step(
        self, batch: UpdateBatch, preferences: Preferences, pairs: IntArray, measured: bool
    ) -> dict[str, float]:
        """One gradient step on the chosen pairs; each segment is evaluated once, however many share it.

        Returns the diagnostics, taken before the step, when it is ``measured``; else nothing.
        """
        config = self._config
        first, second = preferences.pairs.first[pairs], preferences.pairs.second[pairs]
        used, place = np.unique(np.concatenate([first, second]), return_inverse=True)
        rows = torch.from_numpy(used)
        one, two = torch.from_numpy(place[: len(pairs)]), torch.from_numpy(place[len(pairs) :])
        mask, ref_logp, ref_mean = batch.mask[rows], batch.ref_logp[rows], batch.ref_mean[rows]

        mean = self.policy.mean(batch.features[rows])
        logp = segment_log_prob(self.policy, mean, batch.actions[rows], mask)
        group = torch.from_numpy(preferences.pairs.group[pairs])
        losses, metrics = sail_loss(
            logp[one],
            logp[two],
            ref_logp[one],
            ref_logp[two],
            torch.from_numpy(preferences.label[pairs]),
            beta=config.beta,
            c=config.c,
            group=group if config.baseline == "leave_one_out" else None,
        )
        loss = losses.mean()
        if config.gamma > 0.0:
            loss = loss + config.gamma * self._mean_kl(config.kl, mean, ref_mean, mask)

        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        limit = math.inf if config.max_grad_norm is None else config.max_grad_norm
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))
        numbers = {"loss": float(loss.detach()), "gradient norm": grad_norm}
        self._refuse_non_finite(numbers, batch, preferences, pairs)
        diagnostics: dict[str, float] = {}
        if measured:
            with torch.no_grad():
                drift = (logp - batch.behaviour_logp[rows]).abs()
                metrics |= {
                    "kl_ref_pi": self._mean_kl("kl_ref_pi", mean, ref_mean, mask),
                    "kl_pi_ref": self._mean_kl("kl_pi_ref", mean, ref_mean, mask),
                    "ratio_drift": drift.mean(),
                    "ratio_drift_max": drift.max(),
                }
            diagnostics = {name: float(value) for name, value in metrics.items()}
            diagnostics |= {"loss": numbers["loss"], "grad_norm": grad_norm}
        self._optimiser.step()
        param_norm = project_ball(self._parameters, config.radius)
        self._refuse_non_finite({"parameter norm": param_norm}, batch, preferences, pairs)
        return diagnostics

    def _mean_kl(self, direction: str, mean: Tensor, ref_mean: Tensor, mask: Tensor) -> Tensor:
        """KL per visited state, averaged over the states of the minibatch (how often each is visited depends
        on theta too; as in the published objective, that is not differentiated)."""
        kl = kl_penalty(direction, mean, self.policy.log_std, ref_mean, self.reference.log_std)
        return (kl * mask).sum() / mask.sum().clamp(min=1.0)

    def _refuse_non_finite(
        self, numbers: dict[str, float], batch: UpdateBatch, preferences: Preferences, pairs: IntArray
    ) -> None:
        bad = [f"{name} {value}" for name, value in numbers.items() if not math.isfinite(value)]
        if not bad:
            return
        first, second = preferences.pairs.first[pairs], preferences.pairs.second[pairs]
        rows = torch.from_numpy(np.concatenate([first, second]))
        raise NonFiniteError(
            f"update {self.updates + 1} is not finite: {', '.join(bad)}",
            {
                "features": batch.features[rows],
                "actions": batch.actions[rows],
                "mask": batch.mask[rows],
                "ref_logp": batch.ref_logp[rows],
                "ref_mean": batch.ref_mean[rows],
                "label": torch.from_numpy(preferences.label[pairs]),
                "log_std": self.policy.log_std.detach().clone(),
            },
        )


def segment_log_prob(policy: GaussianPolicy, mean: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """(S,) log pi(tau) = sum_t m_t log pi(a_t|s_t) for means and actions (S, H, A) and mask (S, H)."""
    return (policy.log_prob(mean, actions) * mask).sum(-1)


def rows_by_group(group: IntArray) -> list[IntArray]:
    """The rows of each group, groups in ascending order."""
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order])) + 1
    return np.split(order, edges)
