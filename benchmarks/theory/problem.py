"""Small problems in which every expectation is a sum: a log-linear policy over a few responses.

pi_theta(y|x) is proportional to exp(theta . phi(x, y)), so that log pi(y1|x) - log pi(y2|x), and with it the
pair score h, is linear in theta. Everything is float64 and differentiable by torch. Only ``draw`` samples.

Leading dimensions: theta may be (..., d), one policy each, and ``stack`` makes one problem of several. The
results then have the same leading dimensions. ``draw``, ``gradient`` and ``hessian`` take one theta.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sailctl.objectives import robust_cost


@dataclass(frozen=True)
class Problem:
    """X prompts with Y responses each, described by d features."""

    prompt: Tensor
    """(X,) probability of each prompt."""
    phi: Tensor
    """(X, Y, d) features of each response."""
    ref_logp: Tensor
    """(X, Y) log pi_ref(y|x)."""
    chance: Tensor
    """(X, Y, Y) P*(first preferred): chance[x, i, j] + chance[x, j, i] = 1."""
    beta: float
    """Scale of the pair score."""

    @property
    def dimension(self) -> int:
        """d, the number of parameters."""
        return int(self.phi.shape[-1])

    def logp(self, theta: Tensor) -> Tensor:
        """(X, Y) log pi_theta(y|x) for parameters (d,)."""
        return torch.log_softmax((self.phi * theta[..., None, None, :]).sum(dim=-1), dim=-1)

    def pairs(self, theta: Tensor) -> Tensor:
        """(X, Y, Y) probability that prompt x and the responses (i, j) to it are drawn."""
        probability = self.logp(theta).exp()
        return self.prompt[..., None, None] * probability[..., :, None] * probability[..., None, :]

    def score(self, theta: Tensor) -> Tensor:
        """(X, Y, Y) pair scores h."""
        ratio = self.beta * (self.logp(theta) - self.ref_logp)
        return ratio[..., :, None] - ratio[..., None, :]

    def objective(self, theta: Tensor) -> Tensor:
        """J(theta) = E[log sigma(z h)], pairs from pi_theta and labels from the teacher (SAIL)."""
        h = self.score(theta)
        value = self.chance * logsigmoid(h) + (1 - self.chance) * logsigmoid(-h)
        return (self.pairs(theta) * value).sum(dim=(-3, -2, -1))

    def kl(self, theta: Tensor, direction: str) -> Tensor:
        """E_x KL: ``kl_ref_pi`` is KL(pi_ref || pi_theta), ``kl_pi_ref`` is KL(pi_theta || pi_ref)."""
        logp = self.logp(theta)
        of, other = (self.ref_logp, logp) if direction == "kl_ref_pi" else (logp, self.ref_logp)
        return (self.prompt[..., None] * of.exp() * (of - other)).sum(dim=(-2, -1))

    def regularised(self, theta: Tensor, gamma: float, direction: str = "kl_ref_pi") -> Tensor:
        """J_gamma(theta) = J - gamma E_x[KL] (SAIL-RevKL)."""
        return self.objective(theta) - gamma * self.kl(theta, direction)

    def robust(self, theta: Tensor, rho: float, clipped: bool = False) -> Tensor:
        """-L_rho(theta): J minus the cost of the worst teacher within rho of P*."""
        cost = robust_cost(self.score(theta), rho, self.chance if clipped else None)
        return self.objective(theta) - (self.pairs(theta) * cost).sum(dim=(-3, -2, -1))

    def fisher(self, theta: Tensor) -> Tensor:
        """(d, d) Fisher information of pi_theta: E_x of the covariance of phi under pi_theta(.|x)."""
        probability = self.logp(theta).exp()[..., None]
        centred = self.phi - (probability * self.phi).sum(dim=-2, keepdim=True)
        weight = self.prompt[..., None, None] * probability
        return torch.einsum("...xyi,...xyj->...ij", weight * centred, centred)

    def quality(self) -> Tensor:
        """(X, Y) mean log-odds of each response against the others: the qualities of a
        Bradley-Terry teacher, centred to zero mean for each prompt."""
        return torch.logit(self.chance).mean(dim=-1)

    def mean_quality(self, theta: Tensor) -> Tensor:
        """E[quality] under pi_theta."""
        return (self.prompt[..., None] * self.logp(theta).exp() * self.quality()).sum(dim=(-2, -1))

    def win_rate(self, theta: Tensor) -> Tensor:
        """Chance that the teacher prefers a response of pi_theta to one of pi_ref."""
        ours, theirs = self.logp(theta).exp()[..., :, None], self.ref_logp.exp()[..., None, :]
        return (self.prompt[..., None, None] * ours * theirs * self.chance).sum(dim=(-3, -2, -1))

    def draw(
        self, theta: Tensor, count: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``count`` samples (x, y1, y2, z), each (count,): what a learner is given."""
        cells = self.pairs(theta).detach().numpy().ravel()
        chosen = rng.choice(len(cells), count, p=cells / cells.sum())
        x, y1, y2 = (torch.from_numpy(index) for index in np.unravel_index(chosen, self.chance.shape))
        first = torch.from_numpy(rng.random(count)) < self.chance[x, y1, y2]
        return x, y1, y2, torch.where(first, 1.0, -1.0).double()


def random_problem(
    seed: int,
    prompts: int = 3,
    responses: int = 4,
    dimension: int = 3,
    beta: float = 1.0,
    quality: float = 2.0,
) -> Problem:
    """A random problem: Bradley-Terry teacher on qualities of scale ``quality``, log-linear reference."""
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.uniform(1.0, 3.0, prompts))
    phi = torch.from_numpy(rng.normal(size=(prompts, responses, dimension)))
    reference = torch.from_numpy(0.5 * rng.normal(size=dimension))
    value = torch.from_numpy(quality * rng.normal(size=(prompts, responses)))
    return Problem(
        prompt=weight / weight.sum(),
        phi=phi,
        ref_logp=torch.log_softmax(phi @ reference, dim=-1),
        chance=torch.sigmoid(value[:, :, None] - value[:, None, :]),
        beta=beta,
    )


def stack(problems: Sequence[Problem]) -> Problem:
    """Problems of one shape and one beta as one, with a leading dimension."""
    (beta,) = {problem.beta for problem in problems}
    return Problem(
        prompt=torch.stack([problem.prompt for problem in problems]),
        phi=torch.stack([problem.phi for problem in problems]),
        ref_logp=torch.stack([problem.ref_logp for problem in problems]),
        chance=torch.stack([problem.chance for problem in problems]),
        beta=beta,
    )


def reference_parameters(problem: Problem) -> Tensor:
    """(d,) theta of the reference, which is log-linear too."""
    centred = (problem.phi - problem.phi.mean(dim=1, keepdim=True)).reshape(-1, problem.dimension)
    target = (problem.ref_logp - problem.ref_logp.mean(dim=1, keepdim=True)).reshape(-1, 1)
    solution: Tensor = torch.linalg.lstsq(centred, target).solution
    return solution[:, 0]


def alignment_value(problem: Problem, theta: Tensor) -> Tensor:
    """(...) E[quality] - beta KL(pi_theta || pi_ref): what alignment from human feedback maximises."""
    return problem.mean_quality(theta) - problem.beta * problem.kl(theta, "kl_pi_ref")


def gradient(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """(d,) exact gradient of a scalar function at theta."""
    result: Tensor = torch.func.grad(function)(theta)
    return result


def hessian(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """(d, d) exact Hessian of a scalar function at theta."""
    result: Tensor = torch.func.hessian(function)(theta)
    return result
