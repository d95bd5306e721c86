"""A small control problem in which every expectation is an integral: a linear system and a Gaussian policy.

The integrals over actions are Gauss-Hermite sums, more precise with more nodes. The policy is the project's
own ``GaussianPolicy`` with a linear mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sailctl.config import PolicyConfig
from sailctl.core.types import EnvSpec
from sailctl.objectives import kl_penalty, sail_loss
from sailctl.policies.policy import GaussianPolicy

STD = 0.5
"""Standard deviation of the actions."""
REFERENCE = (-0.4, -0.2, 0.1)
POLICY = (-0.8, -0.6, -0.1)
"""Mean actions of the reference and of a policy: theta, for (position, velocity, 1)."""


def linear_policy(theta: Sequence[float] | Tensor) -> GaussianPolicy:
    """The project's log-linear policy: mean = theta . (position, velocity, 1)."""
    config = PolicyConfig(
        kind="linear", hidden=[], features=0, initial_std=STD, learn_std=False, normalise=False
    )
    spec = EnvSpec("cart", 2, 1, np.array([-1.0]), np.array([1.0]), horizon=3, dt=0.5)
    policy = GaussianPolicy(config, spec, np.random.default_rng(0)).double()
    vector_to_parameters(torch.as_tensor(theta, dtype=torch.float64), policy.net.parameters())
    return policy


def flat_gradient(value: Tensor, policy: GaussianPolicy) -> Tensor:
    """(d,) gradient of a scalar in the policy's trained parameters."""
    return parameters_to_vector(torch.autograd.grad(value, list(policy.net.parameters())))


@dataclass(frozen=True)
class Control:
    """A cart with friction, pushed towards the origin; the teacher compares undiscounted quadratic costs.

    State (position, velocity), one action. All integrals over actions are Gauss-Hermite sums.
    """

    segment: int
    """H, steps of the segment: their log-probabilities make the score."""
    judged: int
    """L >= H, steps that the teacher compares."""
    nodes: int
    """Quadrature nodes for each action."""
    beta: float = 0.5
    """Scale of the pair score."""

    DYNAMICS = torch.tensor([[1.0, 0.5], [0.0, 0.8]], dtype=torch.float64)
    PUSH = torch.tensor([0.1, 0.5], dtype=torch.float64)
    STARTS = torch.tensor([[1.0, 0.0], [-0.5, 0.8]], dtype=torch.float64)
    """Start states, equally likely."""

    def noise(self) -> tuple[Tensor, Tensor]:
        """(T, L) standard normal nodes of every trajectory and (T,) their weights, T = nodes ** L."""
        points, mass = np.polynomial.hermite_e.hermegauss(self.nodes)
        grids = np.meshgrid(*[points] * self.judged, indexing="ij")
        masses = np.meshgrid(*[mass / mass.sum()] * self.judged, indexing="ij")
        flat = np.stack(grids, axis=-1).reshape(-1, self.judged)
        return torch.from_numpy(flat), torch.from_numpy(np.prod(masses, axis=0).ravel())

    def rollout(self, policy: GaussianPolicy, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States (T, L, 2), actions (T, L, 1) and returns (T,), differentiable in the policy's parameters."""
        noise, _ = self.noise()
        state = start.expand(len(noise), 2)
        states, actions, returns = [], [], torch.zeros(len(noise), dtype=torch.float64)
        for t in range(self.judged):
            action = policy.mean(policy.features(state)) + policy.log_std.exp() * noise[:, t, None]
            states.append(state)
            actions.append(action)
            state = state @ self.DYNAMICS.T + action * self.PUSH
            returns = returns - state.square().sum(-1) - 0.1 * action.square().sum(-1)
        return torch.stack(states, dim=1), torch.stack(actions, dim=1), returns

    def log_ratio(
        self, policy: GaussianPolicy, reference: GaussianPolicy, states: Tensor, actions: Tensor
    ) -> Tensor:
        """(T,) log pi_theta / pi_ref of the first H steps, for one standard deviation."""
        states, actions = states[:, : self.segment], actions[:, : self.segment]
        ours, theirs = (actions - policy.mean(states)).square(), (actions - reference.mean(states)).square()
        return ((theirs - ours) / (2 * torch.exp(2 * policy.log_std))).sum(dim=(1, 2))

    def objective(self, policy: GaussianPolicy, reference: GaussianPolicy) -> Tensor:
        """J, every pair of trajectories from each start."""
        _, weight = self.noise()
        total = torch.zeros((), dtype=torch.float64)
        for start in self.STARTS:
            states, actions, returns = self.rollout(policy, start)
            ratio = self.beta * self.log_ratio(policy, reference, states, actions)
            h = ratio[:, None] - ratio[None, :]
            chance = torch.sigmoid(returns[:, None] - returns[None, :])
            value = chance * logsigmoid(h) + (1 - chance) * logsigmoid(-h)
            total = total + weight @ value @ weight / len(self.STARTS)
        return total

    def true_gradient(self, policy: GaussianPolicy, reference: GaussianPolicy) -> Tensor:
        """(d,) gradient of J through actions, dynamics, labels and scores."""
        return flat_gradient(self.objective(policy, reference), policy)

    def estimated(self, policy: GaussianPolicy, reference: GaussianPolicy, c: float) -> Tensor:
        """(d,) expectation of T1 + c T2 from ``sail_loss``, given states, actions and labels."""
        _, weight = self.noise()
        total = torch.zeros((), dtype=torch.float64)
        count = len(weight)
        rows, columns = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
        for start in self.STARTS:
            with torch.no_grad():
                states, actions, returns = self.rollout(policy, start)
                chance = torch.sigmoid(returns[rows] - returns[columns])
                states, actions = states[:, : self.segment], actions[:, : self.segment]
                ref_logp = reference.log_prob(reference.mean(reference.features(states)), actions).sum(-1)
            logp = policy.log_prob(policy.mean(policy.features(states)), actions).sum(-1)
            for label, probability in ((1.0, chance), (-1.0, 1 - chance)):
                losses, _ = sail_loss(
                    logp[rows],
                    logp[columns],
                    ref_logp[rows],
                    ref_logp[columns],
                    torch.full_like(chance, label),
                    beta=self.beta,
                    c=c,
                    group=None,
                )
                total = total - losses @ (weight[rows] * weight[columns] * probability) / len(self.STARTS)
        return flat_gradient(total, policy)

    def mean_return(self, policy: GaussianPolicy) -> Tensor:
        """E[return] of the L judged steps."""
        _, weight = self.noise()
        returns = [self.rollout(policy, start)[2] for start in self.STARTS]
        return torch.stack(returns).mean(dim=0) @ weight

    def segment_kl(self, policy: GaussianPolicy, reference: GaussianPolicy) -> Tensor:
        """E[KL(pi_theta || pi_ref)] of whole segments."""
        _, weight = self.noise()
        total = torch.zeros((), dtype=torch.float64)
        for start in self.STARTS:
            states, actions, _ = self.rollout(policy, start)
            total = total + weight @ self.log_ratio(policy, reference, states, actions) / len(self.STARTS)
        return total

    def visited_kl(self, policy: GaussianPolicy, reference: GaussianPolicy, through_states: bool) -> Tensor:
        """E[KL(pi_ref || pi_theta)] over the states of the first H steps.

        Without ``through_states`` the states are held constant, as the learner holds them.
        """
        _, weight = self.noise()
        total = torch.zeros((), dtype=torch.float64)
        for start in self.STARTS:
            states = self.rollout(policy, start)[0][:, : self.segment]
            states = states if through_states else states.detach()
            kl = kl_penalty(
                "kl_ref_pi", policy.mean(states), policy.log_std, reference.mean(states), reference.log_std
            )
            total = total + weight @ kl.mean(dim=1) / len(self.STARTS)
        return total
