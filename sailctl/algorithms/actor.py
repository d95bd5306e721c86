"""Policy update of SAIL on single actions, from preferences between actions that the policy samples.

The policy samples K actions in each state of a minibatch. The critic's values give a soft label for each pair
of actions (``objectives.actions``). The objective is SAIL's; the KL penalty of SAIL-RevKL has a closed form
in each state. No simulation and no reward is used here.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from sailctl.algorithms.critic import Critic
from sailctl.config import ActionsConfig
from sailctl.core.state import State, module_state, optimiser_state, restore_module, restore_optimiser
from sailctl.core.types import FloatArray, NonFiniteError
from sailctl.objectives import (
    kl_penalty,
    label_temperature,
    pathwise_action_loss,
    pessimistic_value,
    project_ball,
    ranked_action_loss,
    score_action_loss,
)
from sailctl.policies.policy import GaussianPolicy, log_density

LR_WARMUP = 500
"""Updates during which the learning rate rises linearly to its full value."""


class Actor:
    """The trained policy, its reference, and a policy with averaged parameters.

    All three use the observation statistics of the trained policy, so that new statistics do not change the
    KL between them.

    Args:
        policy: trained in place.
        config: objective, reference and optimiser.
        rng: source of the sampled actions.
    """

    def __init__(self, policy: GaussianPolicy, config: ActionsConfig, rng: np.random.Generator) -> None:
        self.policy = policy
        self.reference = policy.snapshot()
        self.average = policy.snapshot()
        """Policy with an exponential moving average of the parameters; this one is evaluated and saved."""
        self.updates = 0
        """Number of updates so far."""
        self.left = 1.0
        """Remaining share of the run; the learning rate is proportional to it with ``anneal``."""
        self.least_std = config.least_std
        """Lower bound of the standard deviations after an update."""
        self._minibatch: dict[str, Tensor] = {}
        """Tensors of the last update, saved when a number is not finite."""
        self._config = config
        self._rng = rng
        self._parameters = [p for p in policy.parameters() if p.requires_grad]
        self._optimiser = torch.optim.Adam(self._parameters, lr=config.lr, fused=True)

    @torch.no_grad()
    def sample(self, features: Tensor) -> Tensor:
        """(B, A) one sampled action for each state (B, F)."""
        mean = self.policy.mean(features)
        return mean + self.policy.log_std.exp() * self._noise(*mean.shape)

    def observe(self, obs: FloatArray) -> None:
        """Merge raw observations (N, O) into the observation statistics of all three policies."""
        self.policy.observe(obs)
        for policy in (self.reference, self.average):
            for copied, current in zip(policy.buffers(), self.policy.buffers(), strict=True):
                copied.copy_(current)

    def update(self, features: Tensor, critic: Critic, with_metrics: bool = True) -> dict[str, Tensor]:
        """One gradient step on the states (B, F) of a minibatch, and a new reference if one is due.

        Returns:
            Metrics before the step, 0-d without gradient; empty without ``with_metrics``, which saves a fifth
            of the time.

        Raises:
            NonFiniteError: when the loss or its gradient is NaN or infinite. Raised before the step, with the
                minibatch.
        """
        config, policy = self._config, self.policy
        mean, log_std = policy.mean(features), policy.log_std
        with torch.no_grad():
            ref_mean = self.reference.mean(features)
        losses, metrics = self._loss(features, mean, ref_mean, critic, with_metrics)
        loss = losses.mean()
        reference = ref_mean, self.reference.log_std
        if config.gamma > 0.0:
            loss = loss + config.gamma * kl_penalty(config.kl, mean, log_std, *reference).mean()
        if config.gradient == "score":
            # Q is constant beyond the actuators' range, so only this term brings back a mean outside it. The
            # pathwise form has a slope there, see ``critic.Clamp``.
            loss = loss + (mean.abs() - 1.0).clamp(min=0.0).square().sum(dim=1).mean()
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        limit = math.inf if config.max_grad_norm is None else config.max_grad_norm
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, limit)
        for name, number in (("loss", loss.detach()), ("gradient", grad_norm)):
            if not math.isfinite(float(number)):
                raise self._not_finite(f"the {name} of the policy", self._minibatch)
        if with_metrics:
            with torch.no_grad():
                directions = ("kl_ref_pi", "kl_pi_ref")
                metrics |= {name: kl_penalty(name, mean, log_std, *reference).mean() for name in directions}
                metrics |= {
                    "loss": metrics["robust_cost"] - metrics["F"] + config.gamma * metrics[config.kl],
                    "grad_norm": grad_norm,
                }
        self._set_learning_rate()
        self._optimiser.step()
        with torch.no_grad():
            log_std.clamp_(min=math.log(self.least_std))
        if config.radius is not None:
            project_ball(self._parameters, config.radius)
        self.updates += 1
        self._update_average_and_reference()
        return metrics if with_metrics else {}

    def refuse_non_finite(self) -> None:
        """Check the policy's parameters.

        Raises:
            NonFiniteError: when one is NaN or infinite; with the parameters and the last minibatch.
        """
        parameters = {name: value.detach() for name, value in self.policy.named_parameters()}
        if not all(torch.isfinite(value).all() for value in parameters.values()):
            raise self._not_finite("the policy", parameters | self._minibatch)

    def state(self) -> State:
        """State of the three policies and the optimiser, and the number of updates."""
        return {
            "policy": module_state(self.policy),
            "reference": module_state(self.reference),
            "average": module_state(self.average),
            "optimiser": optimiser_state(self._optimiser),
            "updates": self.updates,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned; the policy is changed in place."""
        restore_module(self.policy, state["policy"])
        restore_module(self.reference, state["reference"])
        restore_module(self.average, state["average"])
        restore_optimiser(self._optimiser, state["optimiser"])
        self.updates = state["updates"]

    def _loss(
        self, features: Tensor, mean: Tensor, ref_mean: Tensor, critic: Critic, with_metrics: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,) losses of the states, from K sampled actions in each, and metrics."""
        config, log_std, ref_log_std = self._config, self.policy.log_std, self.reference.log_std
        noise = self._noise(len(features), config.actions, mean.shape[-1])
        actions = mean[:, None] + log_std.exp() * noise
        fixed, states = actions.detach(), features[:, None].expand(-1, config.actions, -1)
        self._minibatch = {"features": features, "actions": fixed, "ref_mean": ref_mean}
        if config.gradient == "pathwise":
            twin_values = critic.values(states, actions)
            q = pessimistic_value(twin_values, config.pessimism)
            self._minibatch["values"] = q.detach()
            losses, metrics = pathwise_action_loss(
                q,
                log_density(actions, mean.detach()[:, None], log_std.detach()),
                log_density(actions, ref_mean[:, None], ref_log_std),
                temperature=label_temperature(q, config.kappa, twin_values, config.doubt),
                beta=config.beta,
                c=config.c,
                rho=config.rho,
                worst_case=config.worst_case,
                logp_fixed=log_density(fixed, mean[:, None], log_std) if config.rho > 0 else None,
                with_metrics=with_metrics,
            )
            return losses, metrics | {"q": q.detach().mean()}
        with torch.no_grad():
            twin_values = critic.values(states, fixed)
            q = pessimistic_value(twin_values, config.pessimism)
            self._minibatch["values"] = q
            ref_logp = log_density(fixed, ref_mean[:, None], ref_log_std)
        logp = log_density(fixed, mean[:, None], log_std)
        baseline = config.baseline == "leave_one_out"
        if config.comparison == "ranking":
            losses, metrics = ranked_action_loss(
                q, logp, ref_logp, beta=config.beta, c=config.c, baseline=baseline, rho=config.rho
            )
        else:
            losses, metrics = score_action_loss(
                q,
                logp,
                ref_logp,
                temperature=label_temperature(q, config.kappa, twin_values, config.doubt),
                beta=config.beta,
                c=config.c,
                baseline=baseline,
                rho=config.rho,
                worst_case=config.worst_case,
            )
        return losses, metrics | {"q": q.mean()}

    def _not_finite(self, subject: str, tensors: dict[str, Tensor]) -> NonFiniteError:
        return NonFiniteError(
            f"{subject} is not finite after {self.updates} updates; "
            f"a smaller algo.lr than {self._config.lr} may help",
            tensors,
        )

    def _set_learning_rate(self) -> None:
        """Set the learning rate of the next update, with a linear warm-up.

        Adam's first steps have full length even for a noisy gradient. Without the warm-up they would damage a
        pretrained policy before Adam has estimated the moments of the gradient.
        """
        share = self.left if self._config.anneal else 1.0
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.lr * share * min(1.0, (self.updates + 1) / LR_WARMUP)

    @torch.no_grad()
    def _update_average_and_reference(self) -> None:
        for average, current in zip(self.average.parameters(), self.policy.parameters(), strict=True):
            average.lerp_(current, self._config.average)
        if self._config.reference_interval and self.updates % self._config.reference_interval == 0:
            self.reference = self.policy.snapshot()

    def _noise(self, *shape: int) -> Tensor:
        return torch.from_numpy(self._rng.standard_normal(shape, dtype=np.float32))
