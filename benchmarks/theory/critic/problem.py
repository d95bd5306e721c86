"""Problems of a few states, with a log-linear Gaussian policy of one action and a smooth value.

The mean action of a state is linear in its features, and the standard deviation is fixed. Expectations over
pairs of actions are Gauss-Hermite quadratures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sailctl.objectives import pathwise_action_loss, score_action_loss
from sailctl.policies.policy import log_density

STATES, FEATURES, WAVES = 4, 3, 3
STD = 0.3
"""Standard deviation of the policy and of its reference."""
NODES = 16
"""Quadrature nodes of each action where nothing else is said."""
DENSE = 64
"""Nodes of each action in ``slope``."""


@dataclass(frozen=True)
class Waves:
    """Random smooth functions of the action, one per problem and state: sums of sines."""

    amplitude: Tensor
    """(P, X, W)."""
    frequency: Tensor
    """(P, X, W) in radians per unit of action."""
    phase: Tensor
    """(P, X, W) in radians."""

    def __call__(self, actions: Tensor) -> Tensor:
        """(P, X, ...) values of actions (P, X, ...)."""
        shape = (*self.amplitude.shape[:2], *(1,) * (actions.ndim - 2), -1)
        amplitude, frequency, phase = (
            part.view(shape) for part in (self.amplitude, self.frequency, self.phase)
        )
        return (amplitude * torch.sin(frequency * actions[..., None] + phase)).sum(-1)


@dataclass(frozen=True)
class Problems:
    """P problems of X states that are equally likely."""

    features: Tensor
    """(P, X, D)."""
    reference: Tensor
    """(P, D) parameters of the reference policy."""
    value: Callable[[Tensor], Tensor]
    """Q of actions (P, X, ...)."""

    def mean(self, theta: Tensor) -> Tensor:
        """(P, X) mean actions for parameters (P, D)."""
        return (self.features @ theta[..., None]).squeeze(-1)

    def kl(self, theta: Tensor) -> Tensor:
        """(P,) KL to the reference in nats, the same in both directions because the deviations are equal."""
        return ((self.mean(theta) - self.mean(self.reference)) / STD).square().mean(dim=1) / 2

    def expected_value(self, theta: Tensor, value: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """(P,) E[Q(s, a)] over states and actions; of another value if one is given."""
        eps, weights = nodes()
        actions = self.mean(theta)[..., None] + STD * eps
        return ((value or self.value)(actions) * weights).sum(-1).mean(dim=1)


def nodes(count: int = NODES) -> tuple[Tensor, Tensor]:
    """(count,) standard normal nodes and their weights."""
    eps, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(eps), torch.from_numpy(weights / weights.sum())


def pair_nodes(count: int = NODES) -> tuple[Tensor, Tensor]:
    """(count^2, 2) nodes of pairs, and their weights."""
    eps, weights = nodes(count)
    return torch.cartesian_prod(eps, eps), torch.outer(weights, weights).flatten()


def random_waves(count: int, seed: int) -> Waves:
    """Functions of ``count`` problems, with a standard deviation of about 1."""
    rng = np.random.default_rng(seed)
    shape = (count, STATES, WAVES)
    drawn = rng.normal(size=shape), rng.uniform(0.5, 3.0, shape), rng.uniform(0, 2 * np.pi, shape)
    amplitude, frequency, phase = map(torch.from_numpy, drawn)
    return Waves(amplitude * (2 / WAVES) ** 0.5, frequency, phase)


def random_problems(count: int, seed: int = 0) -> Problems:
    """Problems with random features, reference and value."""
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(rng.normal(size=(count, STATES, FEATURES)) / FEATURES**0.5)
    reference = torch.from_numpy(0.3 * rng.normal(size=(count, FEATURES)))
    return Problems(features, reference, random_waves(count, seed + 1))


def per_state(
    problems: Problems,
    theta: Tensor,
    form: str,
    *,
    beta: float,
    c: float,
    tau: float,
    value: Callable[[Tensor], Tensor] | None = None,
    count: int = NODES,
) -> tuple[Tensor, Tensor]:
    """(P, X) ascent direction T1 + c T2 in the mean action of each state, and the deviation of one sample.

    Both are exact up to the quadrature with ``count`` nodes for each action. The estimator is the project's
    own: ``form`` is ``pathwise`` or ``score``.
    """
    eps, weights = pair_nodes(count)
    mean = problems.mean(theta)[..., None].expand(-1, -1, len(eps)).clone().requires_grad_()
    ref_mean = problems.mean(problems.reference)[..., None, None, None]
    std = torch.full((1,), STD, dtype=torch.float64).log()
    actions = mean[..., None] + STD * eps
    fixed = actions.detach()

    def density(points: Tensor, centre: Tensor) -> Tensor:
        return log_density(points[..., None], centre, std).flatten(0, 2)

    live = mean[..., None, None]
    q = (value or problems.value)(actions if form == "pathwise" else fixed).flatten(0, 2)
    if form == "pathwise":
        logp, ref_logp = density(actions, live.detach()), density(actions, ref_mean)
        losses, _ = pathwise_action_loss(
            q, logp, ref_logp, temperature=tau, beta=beta, c=c, with_metrics=False
        )
    else:
        logp, ref_logp = density(fixed, live), density(fixed, ref_mean)
        losses, _ = score_action_loss(q, logp, ref_logp, temperature=tau, beta=beta, c=c, baseline=False)
    (slope,) = torch.autograd.grad(losses.sum(), mean)
    ascent = -slope
    expected = (ascent * weights).sum(-1)
    return expected, ((ascent.square() * weights).sum(-1) - expected.square()).clamp(min=0).sqrt()


def slope(
    problems: Problems,
    mean: Tensor,
    *,
    beta: float,
    tau: float,
    value: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """(P, X) T1 in the mean action of each state.

    It is beta E[(sigma(u_1 - u_2) - sigma(h)) (eps_1 - eps_2)] / std with u = Q / tau: the score-function
    form, which is what ``per_state`` computes with c = 0, with many more nodes: values are needed at single
    actions, not at pairs. The pathwise form would need still more, because sharp labels change in a thin band
    of pairs.
    """
    eps, weights = nodes(DENSE)
    actions = mean[..., None] + STD * eps
    u = (value or problems.value)(actions) / tau
    r = beta * (actions * ((mean - problems.mean(problems.reference)) / STD**2)[..., None])
    w = (u[..., :, None] - u[..., None, :]).sigmoid() - (r[..., :, None] - r[..., None, :]).sigmoid()
    pairs = torch.outer(weights, weights) * (eps[:, None] - eps) / STD
    return beta * (w * pairs).sum(dim=(-2, -1))


def ascent(
    problems: Problems,
    theta: Tensor,
    *,
    beta: float,
    tau: float,
    gamma: float = 0.0,
    value: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """(P, D) exact gradient T1 - gamma grad KL in the parameters (c = 0), labelled by ``value``."""
    mean = problems.mean(theta)
    along = slope(problems, mean, beta=beta, tau=tau, value=value)
    along = along - gamma * (mean - problems.mean(problems.reference)) / STD**2
    return (along[..., None] * problems.features).mean(dim=1)


def where_it_stops(
    problems: Problems,
    *,
    beta: float,
    tau: float,
    gamma: float = 0.0,
    value: Callable[[Tensor], Tensor] | None = None,
    steps: int = 400,
) -> Tensor:
    """(P, D) parameters after exact ascent from the reference: where the pull of the reference stops it.

    Steps are those of Adam with a rate that falls to 0, so that one setting serves pulls of all sizes.
    """
    theta = problems.reference.clone().requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    for _ in range(steps):
        theta.grad = -ascent(problems, theta.detach(), beta=beta, tau=tau, gamma=gamma, value=value)
        optimiser.step()
        schedule.step()
    return theta.detach()
