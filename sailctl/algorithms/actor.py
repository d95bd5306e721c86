"""SAIL on single actions: a policy that is moved by preferences between actions it would take.

In each state of a minibatch the policy draws K actions. The critic says which of two is worth more, and how
surely (``objectives.actions``); the objective is SAIL's, its penalty that of SAIL-RevKL, in closed form for
each state. Nothing is simulated for it, and nothing here has seen a reward.
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

RISING = 500
"""Updates in which the learning rate rises from 0 to its value."""


class Actor:
    """The policy that is trained, the reference it is compared with, and the average that is handed out.

    All three see states through the policy's present observation statistics: what moves one against another
    is the gradient alone.

    Args:
        policy: trained in place.
        config: objective, reference and optimiser.
        rng: where the actions that are compared are drawn from.
    """

    def __init__(self, policy: GaussianPolicy, config: ActionsConfig, rng: np.random.Generator) -> None:
        self.policy = policy
        self.reference = policy.snapshot()
        self.average = policy.snapshot()
        """A running mean of the policy's parameters: what is evaluated and saved."""
        self.updates = 0
        """Updates done so far."""
        self.left = 1.0
        """Share of the run that is left, which the learning rate follows with ``anneal``."""
        self.least_std = config.least_std
        """What no standard deviation falls below at an update."""
        self._minibatch: dict[str, Tensor] = {}
        """Of the last update, for whoever asks why a number is not finite."""
        self._config = config
        self._rng = rng
        self._parameters = [p for p in policy.parameters() if p.requires_grad]
        self._optimiser = torch.optim.Adam(self._parameters, lr=config.lr, fused=True)

    @torch.no_grad()
    def draw(self, features: Tensor) -> Tensor:
        """(B, A) an action of the policy in each of the states (B, F)."""
        mean = self.policy.mean(features)
        return mean + self.policy.log_std.exp() * self._noise(*mean.shape)

    def observe(self, obs: FloatArray) -> None:
        """Merge raw observations (N, O) into the statistics that states are seen through."""
        self.policy.observe(obs)
        for other in (self.reference, self.average):
            for mine, theirs in zip(other.buffers(), self.policy.buffers(), strict=True):
                mine.copy_(theirs)

    def update(self, features: Tensor, critic: Critic, measured: bool = True) -> dict[str, Tensor]:
        """One gradient step on the states (B, F) of a minibatch; the reference follows where it is due.

        Returns:
            Diagnostics taken before the step, scalars without gradient; none unless ``measured``: they take a
            fifth of the time.

        Raises:
            NonFiniteError: when the loss or its gradient is NaN or infinite, before the step, with the
                minibatch.
        """
        config, policy = self._config, self.policy
        mean, log_std = policy.mean(features), policy.log_std
        with torch.no_grad():
            ref_mean = self.reference.mean(features)
        losses, metrics = self._loss(features, mean, ref_mean, critic, measured)
        loss = losses.mean()
        theirs = ref_mean, self.reference.log_std
        if config.gamma > 0.0:
            loss = loss + config.gamma * kl_penalty(config.kl, mean, log_std, *theirs).mean()
        # Beyond the actuators' range all actions are one, and no value leads a mean back that has left it.
        loss = loss + (mean.abs() - 1.0).clamp(min=0.0).square().sum(dim=1).mean()
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        limit = math.inf if config.max_grad_norm is None else config.max_grad_norm
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, limit)
        for what, number in (("loss", loss.detach()), ("gradient", grad_norm)):
            if not math.isfinite(float(number)):
                raise self._not_finite(f"the {what} of the policy", self._minibatch)
        if measured:
            with torch.no_grad():
                directions = ("kl_ref_pi", "kl_pi_ref")
                metrics |= {name: kl_penalty(name, mean, log_std, *theirs).mean() for name in directions}
                metrics |= {
                    "loss": metrics["robust_cost"] - metrics["F"] + config.gamma * metrics[config.kl],
                    "grad_norm": grad_norm,
                }
        self._set_rate()
        self._optimiser.step()
        with torch.no_grad():
            log_std.clamp_(min=math.log(self.least_std))
        if config.radius is not None:
            project_ball(self._parameters, config.radius)
        self.updates += 1
        self._follow()
        return metrics if measured else {}

    def refuse_non_finite(self) -> None:
        """Stop where a parameter is not a number.

        Raises:
            NonFiniteError: with the parameters and the minibatch of the last update.
        """
        parameters = {name: value.detach() for name, value in self.policy.named_parameters()}
        if not all(torch.isfinite(value).all() for value in parameters.values()):
            raise self._not_finite("the policy", parameters | self._minibatch)

    def state(self) -> State:
        """Policy, reference, average, optimiser, number of updates."""
        return {
            "policy": module_state(self.policy),
            "reference": module_state(self.reference),
            "average": module_state(self.average),
            "optimiser": optimiser_state(self._optimiser),
            "updates": self.updates,
        }

    def restore(self, state: State) -> None:
        """Load what ``state`` returned; the policy is changed in place."""
        restore_module(self.policy, state["policy"])
        restore_module(self.reference, state["reference"])
        restore_module(self.average, state["average"])
        restore_optimiser(self._optimiser, state["optimiser"])
        self.updates = state["updates"]

    def _loss(
        self, features: Tensor, mean: Tensor, ref_mean: Tensor, critic: Critic, measured: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,) losses of K actions in each state, and metrics."""
        config, log_std, ref_log_std = self._config, self.policy.log_std, self.reference.log_std
        states, choices = len(features), config.actions
        noise = self._noise(states, choices, mean.shape[-1])
        actions = mean[:, None] + log_std.exp() * noise
        fixed, seen = actions.detach(), features[:, None].expand(states, choices, -1)
        self._minibatch = {"features": features, "actions": fixed, "ref_mean": ref_mean}
        if config.gradient == "pathwise":
            answers = critic.values(seen, actions)
            q = pessimistic_value(answers, config.pessimism)
            self._minibatch["values"] = q.detach()
            losses, metrics = pathwise_action_loss(
                q,
                log_density(actions, mean.detach()[:, None], log_std.detach()),
                log_density(actions, ref_mean[:, None], ref_log_std),
                temperature=label_temperature(q, config.kappa, answers, config.doubt),
                beta=config.beta,
                c=config.c,
                rho=config.rho,
                worst_case=config.worst_case,
                logp_fixed=log_density(fixed, mean[:, None], log_std) if config.rho > 0 else None,
                measured=measured,
            )
            return losses, metrics | {"q": q.detach().mean()}
        with torch.no_grad():
            answers = critic.values(seen, fixed)
            q = pessimistic_value(answers, config.pessimism)
            self._minibatch["values"] = q
            ref_logp = log_density(fixed, ref_mean[:, None], ref_log_std)
        logp = log_density(fixed, mean[:, None], log_std)
        baseline = config.baseline == "leave_one_out"
        if config.comparison == "ranking":
            losses, metrics = ranked_action_loss(
                q, logp, ref_logp, beta=config.beta, c=config.c, baseline=baseline
            )
        else:
            losses, metrics = score_action_loss(
                q,
                logp,
                ref_logp,
                temperature=label_temperature(q, config.kappa, answers, config.doubt),
                beta=config.beta,
                c=config.c,
                baseline=baseline,
                rho=config.rho,
                worst_case=config.worst_case,
            )
        return losses, metrics | {"q": q.mean()}

    def _not_finite(self, what: str, shown: dict[str, Tensor]) -> NonFiniteError:
        return NonFiniteError(
            f"{what} is not finite after {self.updates} updates; "
            f"a smaller algo.lr than {self._config.lr} may help",
            shown,
        )

    def _set_rate(self) -> None:
        """The learning rate of the next update, which rises in the first ones.

        The first steps of Adam have the length of the rate whatever the gradient is, and a policy that can do
        something already would be off its path before the moments of its gradients are known.
        """
        share = self.left if self._config.anneal else 1.0
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.lr * share * min(1.0, (self.updates + 1) / RISING)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average on, and the reference where it is due."""
        for mine, theirs in zip(self.average.parameters(), self.policy.parameters(), strict=True):
            mine.lerp_(theirs, self._config.average)
        if self._config.reference_interval and self.updates % self._config.reference_interval == 0:
            self.reference = self.policy.snapshot()

    def _noise(self, *shape: int) -> Tensor:
        return torch.from_numpy(self._rng.standard_normal(shape, dtype=np.float32))
