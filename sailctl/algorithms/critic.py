"""The critic: the action value Q(s, a) of the policy, learned off-policy from the replay buffer.

Two networks with different initial parameters learn the same Q. Targets use the smaller of the two values
(Fujimoto et al. 2018, arXiv 1802.09477: clipped double Q-learning), because a policy exploits overestimated
values; labels use both (``objectives.actions``). Targets are n-step returns and come from target networks.
Each hidden layer has layer normalisation before its ReLU (Ba et al. 2016, arXiv 1607.06450), which bounds the
extrapolation to actions outside the data and allows a large learning rate.

The rewards are those of the replay buffer: learned ones, or the teacher's with ``algo.reward=teacher``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from sailctl.core.networks import initial_layers
from sailctl.core.state import State, module_state, optimiser_state, restore_module, restore_optimiser
from sailctl.core.types import NonFiniteError


class Critic:
    """Twin Q-networks of a state's features and an action, with target networks.

    Args:
        inputs: F + A, number of features of a state and of components of an action.
        hidden: widths of the hidden layers.
        lr: learning rate (Adam).
        tau: weight of the current parameters in each update of the target networks.
        rng: source of the initial parameters.
    """

    def __init__(
        self, inputs: int, hidden: list[int], lr: float, tau: float, rng: np.random.Generator
    ) -> None:
        self._networks = TwinNetworks([inputs, *hidden, 1], rng)
        self._frozen = frozen_view(self._networks)
        self._targets = copy.deepcopy(self._networks).requires_grad_(False)
        self._optimiser = torch.optim.Adam(self._networks.parameters(), lr=lr, fused=True)
        self._lr, self._tau = lr, tau
        self.updates = 0
        """Number of updates so far."""
        self._minibatch: dict[str, Tensor] = {}
        """Tensors of the last update, saved when a number is not finite."""

    def values(self, features: Tensor, actions: Tensor) -> Tensor:
        """(2, ...) values of actions (..., A) in states (..., F), differentiable in the actions only.

        Actions beyond the actuators' range count as the limit, but keep its slope where it points back into
        the range, see ``Clamp``.
        """
        inputs = torch.cat([features, clamp(actions)], dim=-1)
        values: Tensor = self._frozen(inputs.flatten(0, -2))
        return values.view(2, *inputs.shape[:-1])

    @torch.no_grad()
    def target(self, features: Tensor, actions: Tensor) -> Tensor:
        """(B,) the smaller value of the target networks, for actions (B, A) in states (B, F)."""
        q: Tensor = self._targets(torch.cat([features, actions.clamp(-1.0, 1.0)], dim=1)).amin(0)
        return q

    def update(self, features: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
        """One gradient step on the squared error of both networks.

        Args:
            features: (B, F) states.
            actions: (B, A) executed actions, in [-1, 1].
            targets: (B,) n-step returns.

        Returns:
            Mean squared error before the step, 0-d without gradient.

        Raises:
            NonFiniteError: when the error is NaN or infinite. Raised before the step, with the minibatch.
        """
        self._minibatch = {"features": features, "actions": actions, "targets": targets}
        error = self._networks(torch.cat([features, actions], dim=1)) - targets
        loss = error.square().mean(dim=1).sum()
        if not math.isfinite(float(loss.detach())):
            raise self._not_finite("the error of the critic", self._minibatch)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        with torch.no_grad():
            for target, current in zip(self._targets.parameters(), self._networks.parameters(), strict=True):
                target.lerp_(current, self._tau)
        self.updates += 1
        mean_squared_error: Tensor = 0.5 * loss.detach()
        return mean_squared_error

    def refuse_non_finite(self) -> None:
        """Check the networks' parameters.

        Raises:
            NonFiniteError: when one is NaN or infinite; with the parameters and the last minibatch.
        """
        parameters = {name: value.detach() for name, value in self._networks.named_parameters()}
        if not all(torch.isfinite(value).all() for value in parameters.values()):
            raise self._not_finite("the critic", parameters | self._minibatch)

    def state(self) -> State:
        """State of networks, target networks and optimiser, and the number of updates."""
        return {
            "networks": module_state(self._networks),
            "targets": module_state(self._targets),
            "optimiser": optimiser_state(self._optimiser),
            "updates": self.updates,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        restore_module(self._networks, state["networks"])
        restore_module(self._targets, state["targets"])
        restore_optimiser(self._optimiser, state["optimiser"])
        self.updates = state["updates"]

    def _not_finite(self, subject: str, tensors: dict[str, Tensor]) -> NonFiniteError:
        return NonFiniteError(
            f"{subject} is not finite after {self.updates} updates; "
            f"a smaller algo.critic_lr than {self._lr} may help",
            tensors,
        )


class Clamp(torch.autograd.Function):
    """Clamping to [-1, 1] with the gradient of the identity, except where descent would lead further out.

    The plain clamp has no gradient beyond the limits, so a policy that samples there could not return. A
    penalty on such actions would lead it back everywhere, also where the limit is the best action. See the
    inverting gradients of Hausknecht and Stone 2016, arXiv 1511.04143.
    """

    @staticmethod
    def forward(ctx: Any, actions: Tensor) -> Tensor:
        """The clamped actions."""
        ctx.save_for_backward(actions)
        return actions.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient of a loss that is minimised, without its outward parts."""
        (actions,) = ctx.saved_tensors
        (gradient,) = gradients
        outward = (actions > 1.0) & (gradient < 0.0) | (actions < -1.0) & (gradient > 0.0)
        return gradient.masked_fill(outward, 0.0)


clamp: Callable[[Tensor], Tensor] = Clamp.apply
"""Actions clamped to [-1, 1], with the gradient of ``Clamp``."""


class TwinNetworks(nn.Module):
    """Two networks of equal shape in one batched evaluation: layer normalisation, ReLU, linear output.

    Initial weights and biases are uniform on +-1/sqrt(inputs of the layer).

    Args:
        widths: of inputs, hidden layers, and output (1).
        rng: source of the initial parameters.
    """

    def __init__(self, widths: list[int], rng: np.random.Generator) -> None:
        super().__init__()
        self.weights, self.biases = initial_layers(2, widths, rng)

    def forward(self, inputs: Tensor) -> Tensor:
        """(2, N) values of inputs (N, F + A)."""
        (weight, bias), *later_layers = zip(self.weights, self.biases, strict=True)
        outputs = torch.baddbmm(bias, inputs.expand(2, -1, -1), weight)
        for weight, bias in later_layers:
            outputs = torch.baddbmm(bias, layer_norm(outputs, outputs.shape[-1:]).relu(), weight)
        values: Tensor = outputs.squeeze(-1)
        return values


def frozen_view(networks: TwinNetworks) -> TwinNetworks:
    """Networks that share the memory of the parameters, but are differentiable in their inputs only."""
    frozen = copy.deepcopy(networks).requires_grad_(False)
    for shared, parameter in zip(frozen.parameters(), networks.parameters(), strict=True):
        shared.data = parameter.data
    return frozen
