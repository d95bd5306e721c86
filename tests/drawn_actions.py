"""Policies of one and of three dimensions that draw single actions, for tests of objectives on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sailctl.objectives import pathwise_action_loss, score_action_loss

Loss = tuple[Tensor, dict[str, Tensor]]


def log_normal(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(...) for actions (..., A)."""
    z = (actions - mean) * torch.exp(-log_std)
    return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def wavy(actions: Tensor) -> Tensor:
    return torch.sin(1.3 * actions[..., 0]) + 0.2 * actions[..., 0].square()


def straight(actions: Tensor) -> Tensor:
    return 0.8 * actions[..., 0]


@dataclass(frozen=True)
class Case:
    """A policy of one action dimension, its reference, and the objective's settings."""

    theta: tuple[float, float]
    """Mean and log standard deviation of the policy."""
    reference: tuple[float, float]
    beta: float
    tau: float
    q: Callable[[Tensor], Tensor] = wavy
    rho: float = 0.0
    worst_case: str = "exact"

    def draw(self, eps: Tensor) -> tuple[Tensor, Draw]:
        """Parameters (2,) with gradient and what they draw by noise (N, K)."""
        theta = torch.tensor(self.theta, dtype=torch.float64, requires_grad=True)
        ref_mean, ref_log_std = torch.tensor(self.reference, dtype=torch.float64)
        actions = (theta[0] + theta[1].exp() * eps)[..., None]
        held, fixed = theta.detach(), actions.detach()
        return theta, Draw(
            q=self.q(actions),
            logp=log_normal(actions, held[0], held[1]),
            ref_logp=log_normal(actions, ref_mean, ref_log_std),
            logp_fixed=log_normal(fixed, theta[0], theta[1]),
        )

    def pathwise(self, draw: Draw, c: float) -> Loss:
        return pathwise_action_loss(
            draw.q, draw.logp, draw.ref_logp, temperature=self.tau, beta=self.beta, c=c,
            rho=self.rho, worst_case=self.worst_case, logp_fixed=draw.logp_fixed,
        )  # fmt: skip

    def score(self, draw: Draw, c: float, baseline: bool = False) -> Loss:
        return score_action_loss(
            draw.q, draw.logp_fixed, draw.ref_logp.detach(), temperature=self.tau, beta=self.beta, c=c,
            baseline=baseline, rho=self.rho, worst_case=self.worst_case,
        )  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """Actions of some states as the losses see them, all (N, K): values, log-densities at attached actions
    by the held density and by the reference, and log-densities of fixed actions with gradient in theta."""

    q: Tensor
    logp: Tensor
    ref_logp: Tensor
    logp_fixed: Tensor


def sample(states: int, forks: int = 4, rho: float = 0.0) -> tuple[Case, tuple[Tensor, Tensor], Draw]:
    """States with a policy of three action dimensions each, so that every state has its own gradient."""
    rng = np.random.default_rng(3)
    mean = torch.tensor([0.3, -0.2, 0.5]).double().expand(states, 1, 3).clone().requires_grad_()
    log_std = torch.tensor([-0.5, 0.0, -1.0]).double().expand(states, 1, 3).clone().requires_grad_()
    ref_mean, ref_log_std = torch.tensor([[0.0, 0.1, 0.2], [-0.2, -0.3, -0.6]]).double()
    actions = mean + log_std.exp() * torch.from_numpy(rng.normal(size=(states, forks, 3)))
    slopes = torch.tensor([1.0, -0.7, 0.5]).double()
    held = mean.detach(), log_std.detach()
    draw = Draw(
        q=torch.sin(actions @ slopes) - 0.3 * actions.square().sum(dim=-1),
        logp=log_normal(actions, *held),
        ref_logp=log_normal(actions, ref_mean, ref_log_std),
        logp_fixed=log_normal(actions.detach(), mean, log_std),
    )
    return Case((0, 0), (0, 0), beta=0.4, tau=0.8, rho=rho), (mean, log_std), draw


def gradients(losses: Tensor, theta: tuple[Tensor, ...]) -> Tensor:
    return torch.cat(torch.autograd.grad(losses.sum(), theta, retain_graph=True), dim=-1)
