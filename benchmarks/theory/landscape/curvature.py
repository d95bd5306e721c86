"""The Hessians of J and of both KL divergences, and their extreme eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.theory.problem import Problem

Value = Callable[[Tensor], Tensor]


def largest(matrices: Tensor) -> Tensor:
    """(N,) largest eigenvalues of symmetric matrices."""
    eigenvalues: Tensor = torch.linalg.eigvalsh(matrices)
    return eigenvalues[:, -1]


def smallest(matrices: Tensor) -> Tensor:
    """(N,) smallest eigenvalues of symmetric matrices."""
    eigenvalues: Tensor = torch.linalg.eigvalsh(matrices)
    return eigenvalues[:, 0]


def relative_largest(matrices: Tensor, fisher: Tensor) -> Tensor:
    """(N,) largest lambda with det(A - lambda F) = 0: positive exactly where A has a positive eigenvalue."""
    root = torch.linalg.cholesky(fisher)
    half = torch.linalg.solve_triangular(root, matrices, upper=False)
    whitened = torch.linalg.solve_triangular(root, half.mT, upper=False)
    return largest((whitened + whitened.mT) / 2)


def hessians_of_objective(problem: Problem, theta: Tensor) -> Tensor:
    """(N, d, d) Hessians of J at (N, d) points."""
    found: Tensor = torch.func.vmap(torch.func.hessian(problem.objective))(theta)
    return found


@dataclass(frozen=True)
class Curvature:
    """Hessians at N points."""

    objective: Tensor
    """(N, d, d) of J."""
    ref_pi: Tensor
    """(N, d, d) of E_x KL(pi_ref || pi_theta)."""
    pi_ref: Tensor
    """(N, d, d) of E_x KL(pi_theta || pi_ref)."""
    fisher: Tensor
    """(N, d, d) Fisher information of pi_theta, from the definition."""

    @classmethod
    def at(cls, problem: Problem, theta: Tensor) -> Curvature:
        """The Hessians of a problem at (N, d) points, by automatic differentiation."""

        def hessians(function: Value) -> Tensor:
            found: Tensor = torch.func.vmap(torch.func.hessian(function))(theta)
            return found

        return cls(
            objective=hessians(problem.objective),
            ref_pi=hessians(partial(problem.kl, direction="kl_ref_pi")),
            pi_ref=hessians(partial(problem.kl, direction="kl_pi_ref")),
            fisher=problem.fisher(theta),
        )

    def at_points(self, chosen: Tensor) -> Curvature:
        """The same at some of the points, by a boolean mask (N,)."""
        return Curvature(
            self.objective[chosen], self.ref_pi[chosen], self.pi_ref[chosen], self.fisher[chosen]
        )

    def penalised(self, gamma: float, direction: str) -> Tensor:
        """(N,) largest eigenvalue of Hess(J - gamma KL) relative to the Fisher information."""
        penalty = self.ref_pi if direction == "kl_ref_pi" else self.pi_ref
        return relative_largest(self.objective - gamma * penalty, self.fisher)
