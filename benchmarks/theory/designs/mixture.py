"""The mixture of a design and labelled pairs: its true gradient, and the estimator's expectation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.theory.estimator import ascent, expected_loss
from benchmarks.theory.problem import Problem

DESIGNS = {"DDP": "own", "DPP": "own", "DPR": "teacher", "DPR, reward model": "model"}
"""Whose labels the design's samples have; DDP's responses are data, the others' the policy's."""


@dataclass(frozen=True)
class Mixture:
    """A fixed set of labelled pairs and a design, with their weights. The problem may be several stacked."""

    problem: Problem
    pairs: Tensor
    """(..., X, Y, Y) share of each pair in the data."""
    recorded: Tensor
    """(..., X, Y, Y) share of +1 among the pair's recorded labels."""
    model: Tensor
    """(..., X, Y, Y) P(first preferred) of a reward model."""

    def chance(self, design: str, h: Tensor) -> Tensor:
        """(..., X, Y, Y) probability that the label of a design's sample is +1."""
        return {"own": h.sigmoid(), "teacher": self.problem.chance, "model": self.model}[DESIGNS[design]]

    def weight(self, design: str, theta: Tensor) -> Tensor:
        """(..., X, Y, Y) probability that a design's sample is that pair."""
        return self.pairs if design == "DDP" else self.problem.pairs(theta)

    def data_ascent(self, theta: Tensor, rho: float = 0.0) -> Tensor:
        """(..., d) expectation of the estimator on the data: offline DPO."""
        loss = partial(expected_loss, c=0.0, responses=False, rho=rho)
        return ascent(lambda leaf: loss(self.problem, leaf, self.pairs, self.recorded), theta)

    def design_ascent(self, design: str, theta: Tensor, c: float, rho: float = 0.0) -> Tensor:
        """(..., d) expectation of the estimator on the design's samples."""
        weight, chance = self.weight(design, theta), self.chance(design, self.problem.score(theta))
        loss = partial(
            expected_loss, c=c, responses=design != "DDP", policy_labels=DESIGNS[design] == "own", rho=rho
        )
        return ascent(lambda leaf: loss(self.problem, leaf, weight, chance), theta)

    def estimated(self, design: str, theta: Tensor, w: float, c: float, gamma: float, rho: float) -> Tensor:
        """(..., d) expectation of the estimator on the mixture, with KL penalty and robust cost."""
        data, own = self.data_ascent(theta, rho), self.design_ascent(design, theta, c, rho)
        penalty = ascent(lambda leaf: gamma * self.problem.kl(leaf, "kl_ref_pi").sum(), theta)
        return (1 - w) * data + w * own + penalty

    def true_gradient(self, design: str, theta: Tensor, w: float, gamma: float, rho: float) -> Tensor:
        """(..., d) gradient of the mixture's objective."""
        plain = ascent(lambda leaf: -self.objective(design, leaf, w, rho).sum(), theta)
        return plain - gamma * kl_gradient(self.problem, theta)

    def objective(self, design: str, theta: Tensor, w: float, rho: float) -> Tensor:
        """(...) the objective, written out: for each pair the worst teacher within rho of its labels."""
        h = self.problem.score(theta)

        def value(chance: Tensor) -> Tensor:
            ends = (p * logsigmoid(h) + (1 - p) * logsigmoid(-h) for p in (chance - rho, chance + rho))
            return torch.minimum(*ends)

        data = self.pairs * value(self.recorded)
        own = self.weight(design, theta) * value(self.chance(design, h))
        return ((1 - w) * data + w * own).sum(dim=(-3, -2, -1))


def kl_gradient(problem: Problem, theta: Tensor) -> Tensor:
    """(..., d) gradient of E_x KL(pi_ref || pi_theta): mean features minus those of the reference."""
    weight = problem.prompt[..., None] * (problem.logp(theta).exp() - problem.ref_logp.exp())
    return (weight[..., None] * problem.phi).sum(dim=(-3, -2))
