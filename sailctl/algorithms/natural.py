"""Steps of the natural gradient for a Gaussian actor (Kakade 2001), with a bound on their KL.

As in TRPO (Schulman et al. 2015, arXiv 1502.05477, appendix C) the direction x solves (F + damping I) x = g
by conjugate gradients, with g the gradient of the loss and F the Fisher information of the actor. The step is
-sqrt(2 max_kl / x'(F + damping I) x) x. To second order its KL is max_kl x'Fx / x'(F + damping I) x: at most
max_kl, and the smaller the more the damping counts. There is no line search, so the loss may rise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3.sac.policies import Actor
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Optimizer

from sailctl.objectives import gaussian_kl

ITERATIONS = 10
"""Iterations of conjugate gradients, as in the public control code of [RevKL]."""
DAMPING = 0.1
"""Added to the diagonal of the Fisher information, as in that code."""
SOLVED = 1e-10
"""Squared residual at which the iterations end."""


class NaturalGradient(Optimizer):
    """An optimiser of SAC's actor whose steps have at most a given KL before squashing.

    Args:
        actor: the actor, whose parameters have the gradient of its loss.
        states: gives the observations (B, O) over which the Fisher information is averaged.
        max_kl: bound on KL(before || after a step) in nats per state, to second order; > 0.
    """

    def __init__(self, actor: Actor, states: Callable[[], Tensor], max_kl: float) -> None:
        super().__init__(actor.parameters(), {"max_kl": max_kl})
        self._actor, self._states, self._max_kl = actor, states, max_kl
        self._parameters = list(actor.parameters())

    def step(self, closure: Any = None) -> Any:
        """One step, or none without a gradient. ``closure`` is not used."""
        gradient = parameters_to_vector([p.grad for p in self._parameters if p.grad is not None])
        product = self.damped_fisher()
        direction = conjugate_gradients(product, gradient)
        curvature = float(direction @ product(direction))
        if curvature != 0.0:  # a gradient that is not finite is passed on, so that the run is stopped
            scale = (2 * self._max_kl / curvature) ** 0.5
            with torch.no_grad():
                vector_to_parameters(
                    parameters_to_vector(self._parameters) - scale * direction, self._parameters
                )

    def damped_fisher(self) -> Callable[[Tensor], Tensor]:
        """The product of (F + damping I) with a vector of all parameters.

        F is the Hessian of the mean KL(actor before || actor) at the actor itself.
        """
        with torch.enable_grad():
            mean, log_std, _ = self._actor.get_action_dist_params(self._states())
            kl = gaussian_kl(mean.detach(), log_std.detach(), mean, log_std).mean()
            slope = parameters_to_vector(torch.autograd.grad(kl, self._parameters, create_graph=True))

        def product(vector: Tensor) -> Tensor:
            second = torch.autograd.grad(slope @ vector, self._parameters, retain_graph=True)
            return parameters_to_vector(second) + DAMPING * vector

        return product


def conjugate_gradients(product: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """(N,) x with ``product(x)`` near ``target`` (N,), for a positive definite product; 0 for target 0."""
    solution, residual = torch.zeros_like(target), target.clone()
    direction, squared = residual.clone(), float(residual @ residual)
    for _ in range(ITERATIONS):
        if squared < SOLVED:
            break
        image = product(direction)
        length = squared / float(direction @ image)
        solution = solution + length * direction
        residual = residual - length * image
        following = float(residual @ residual)
        direction = residual + following / squared * direction
        squared = following
    return solution
