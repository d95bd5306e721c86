"""The value of an action: discounted reward that follows it under the policy, learned from remembered steps.

Two networks learn the same value Q(s, a) from different parameters. Targets use the smaller of their two
answers (Fujimoto et al. 2018, arXiv 1802.09477: clipped double Q-learning), since a policy that climbs a
value finds where it errs upwards; labels use both (``objectives.actions``). Targets are of several steps,
and of slowly following copies. Each hidden layer is normalised before its ReLU (Ba et al. 2016, arXiv
1607.06450), which bounds what is said of actions that were never taken, and lets the learning rate be
large.

The critic learns from steps and the reward that the replay buffer hands out: no true reward enters, unless
that is what the run was asked to put there.
"""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from sailctl.core.state import State, module_state, optimiser_state, restore_module, restore_optimiser
from sailctl.core.types import NonFiniteError


class Critic:
    """Q of actions in states, as the policy's trained part sees those.

    Args:
        inputs: F + A, features of a state and components of an action.
        hidden: widths of the hidden layers.
        lr: learning rate (Adam).
        tau: share of the networks that the copies behind the targets take over at each update.
        rng: where initial parameters are drawn from.
    """

    def __init__(
        self, inputs: int, hidden: list[int], lr: float, tau: float, rng: np.random.Generator
    ) -> None:
        self._networks = TwinNetworks([inputs, *hidden, 1], rng)
        self._held = held_copy(self._networks)
        self._targets = copy.deepcopy(self._networks).requires_grad_(False)
        self._optimiser = torch.optim.Adam(self._networks.parameters(), lr=lr, fused=True)
        self._lr, self._tau = lr, tau
        self.updates = 0
        """Updates done so far."""
        self._minibatch: dict[str, Tensor] = {}
        """Of the last update, for whoever asks why a number is not finite."""

    def values(self, features: Tensor, actions: Tensor) -> Tensor:
        """(2, ...) both answers about actions (..., A) in states (..., F), with gradient in actions alone."""
        inputs = torch.cat([features, actions.clamp(-1.0, 1.0)], dim=-1)
        both: Tensor = self._held(inputs.flatten(0, -2))
        return both.view(2, *inputs.shape[:-1])

    @torch.no_grad()
    def target(self, features: Tensor, actions: Tensor) -> Tensor:
        """(B,) the smaller Q by the slowly following copies, for actions (B, A) in states (B, F)."""
        q: Tensor = self._targets(torch.cat([features, actions.clamp(-1.0, 1.0)], dim=1)).amin(0)
        return q

    def update(self, features: Tensor, actions: Tensor, wanted: Tensor) -> Tensor:
        """One gradient step on the squared error of both networks.

        Args:
            features: (B, F) states.
            actions: (B, A) actions taken there, within -1 and 1.
            wanted: (B,) targets.

        Returns:
            Mean squared error before the step, a scalar without gradient.

        Raises:
            NonFiniteError: when the error is NaN or infinite, before the step, with the minibatch.
        """
        self._minibatch = {"features": features, "actions": actions, "targets": wanted}
        error = self._networks(torch.cat([features, actions], dim=1)) - wanted
        loss = error.square().mean(dim=1).sum()
        if not math.isfinite(float(loss.detach())):
            raise self._not_finite("the error of the critic", self._minibatch)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        self._follow()
        self.updates += 1
        before: Tensor = 0.5 * loss.detach()
        return before

    def refuse_non_finite(self) -> None:
        """Stop where a parameter is not a number.

        Raises:
            NonFiniteError: with the parameters and the minibatch of the last update.
        """
        parameters = {name: value.detach() for name, value in self._networks.named_parameters()}
        if not all(torch.isfinite(value).all() for value in parameters.values()):
            raise self._not_finite("the critic", parameters | self._minibatch)

    def state(self) -> State:
        """Networks, their copies, optimiser, number of updates."""
        return {
            "networks": module_state(self._networks),
            "targets": module_state(self._targets),
            "optimiser": optimiser_state(self._optimiser),
            "updates": self.updates,
        }

    def restore(self, state: State) -> None:
        """Load what ``state`` returned."""
        restore_module(self._networks, state["networks"])
        restore_module(self._targets, state["targets"])
        restore_optimiser(self._optimiser, state["optimiser"])
        self.updates = state["updates"]

    def _not_finite(self, what: str, shown: dict[str, Tensor]) -> NonFiniteError:
        return NonFiniteError(
            f"{what} is not finite after {self.updates} updates; "
            f"a smaller algo.critic_lr than {self._lr} may help",
            shown,
        )

    @torch.no_grad()
    def _follow(self) -> None:
        for mine, theirs in zip(self._targets.parameters(), self._networks.parameters(), strict=True):
            mine.lerp_(theirs, self._tau)


class TwinNetworks(nn.Module):
    """Two networks of one shape, evaluated together: normalised ReLU layers and a linear output.

    Weights and biases are uniform on +-1/sqrt(inputs of the layer).

    Args:
        widths: inputs, hidden layers, 1.
        rng: where the parameters are drawn from.
    """

    def __init__(self, widths: list[int], rng: np.random.Generator) -> None:
        super().__init__()
        seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(widths):
            bound = 1.0 / math.sqrt(inputs)
            for kind, rows in ((self.weights, inputs), (self.biases, 1)):
                kind.append(nn.Parameter(torch.empty(2, rows, outputs)))
                nn.init.uniform_(kind[-1], -bound, bound, generator=seed)

    def forward(self, inputs: Tensor) -> Tensor:
        """(2, N) values of inputs (N, F + A)."""
        first, *others = zip(self.weights, self.biases, strict=True)
        both = torch.baddbmm(first[1], inputs.expand(2, -1, -1), first[0])
        for weight, bias in others:
            both = torch.baddbmm(bias, layer_norm(both, both.shape[-1:]).relu(), weight)
        values: Tensor = both.squeeze(-1)
        return values


def held_copy(networks: TwinNetworks) -> TwinNetworks:
    """The same parameters, in the same memory, held: gradients pass through to the inputs alone."""
    held = copy.deepcopy(networks).requires_grad_(False)
    for mine, theirs in zip(held.parameters(), networks.parameters(), strict=True):
        mine.data = theirs.data
    return held
