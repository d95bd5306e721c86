"""Random problems with a few labelled pairs each, and a reward model fitted to these pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.theory.designs.mixture import Mixture
from benchmarks.theory.problem import Problem, hessian, random_problem, reference_parameters, stack

BETA, PAIRS = 0.3, 20
"""Scale of the pair score, and labelled pairs in each problem's data set, of the maps that are drawn."""


def mixtures(count: int, beta: float, pairs: int = PAIRS) -> Mixture:
    """``count`` random problems, each with ``pairs`` labelled pairs, stacked."""
    rng = np.random.default_rng(0)
    each = [
        labelled(random_problem(seed, responses=5, dimension=4, beta=beta, quality=1.0), pairs, rng)
        for seed in range(count)
    ]
    return Mixture(
        stack([mixture.problem for mixture in each]),
        *(
            torch.stack([getattr(mixture, name) for mixture in each])
            for name in ("pairs", "recorded", "model")
        ),
    )


def labelled(problem: Problem, count: int, rng: np.random.Generator) -> Mixture:
    """``count`` pairs of different responses of the reference, each with one label of the teacher."""
    counts = torch.zeros(2, *problem.chance.shape, dtype=torch.float64)
    prompts = rng.choice(len(problem.prompt), count, p=problem.prompt.numpy())
    for x in prompts:
        likely = problem.ref_logp[x].exp().numpy()
        first, second = rng.choice(len(likely), 2, replace=False, p=likely / likely.sum())
        lost = int(rng.random() >= problem.chance[x, first, second])
        counts[lost, x, first, second] += 1
    total = counts.sum(dim=0)
    return Mixture(problem, total / count, counts[0] / total.clamp(min=1), fitted_chance(counts))


def fitted_chance(counts: Tensor, steps: int = 8) -> Tensor:
    """(X, Y, Y) P(first preferred) of the Bradley-Terry rewards that are most probable given the labels and a
    standard normal prior (the true one), by Newton's method. ``counts`` is (2, X, Y, Y)."""
    shape = counts.shape[1:3]

    def surprise(flat: Tensor) -> Tensor:
        reward = flat.view(shape)
        h = reward[:, :, None] - reward[:, None, :]
        fit = counts[0] * logsigmoid(h) + counts[1] * logsigmoid(-h)
        return flat.square().sum() / 2 - fit.sum()

    flat = torch.zeros(shape, dtype=torch.float64).flatten()
    for _ in range(steps):
        flat = flat - torch.linalg.solve(hessian(surprise, flat), torch.func.grad(surprise)(flat))
    reward = flat.view(shape)
    return torch.sigmoid(reward[:, :, None] - reward[:, None, :])


def starts(problem: Problem) -> Tensor:
    """(N, d) parameters of the references of stacked problems."""
    parts = zip(problem.prompt, problem.phi, problem.ref_logp, problem.chance, strict=True)
    return torch.stack([reference_parameters(Problem(*each, problem.beta)) for each in parts])


def repeated(mixture: Mixture, times: int) -> Mixture:
    """The stacked problems repeated: times * N of them."""
    problem = mixture.problem

    def again(values: Tensor) -> Tensor:
        return values.repeat(times, *[1] * (values.ndim - 1))

    return Mixture(
        Problem(
            again(problem.prompt),
            again(problem.phi),
            again(problem.ref_logp),
            again(problem.chance),
            problem.beta,
        ),
        again(mixture.pairs),
        again(mixture.recorded),
        again(mixture.model),
    )
