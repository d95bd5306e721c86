"""Problems that can be enumerated: shapes, stacks, qualities and the reference."""

from __future__ import annotations

import pytest
import torch

from benchmarks.theory.problem import Problem, random_problem, reference_parameters, stack
from benchmarks.theory.tests.parameters import random_parameters


def test_problem_shapes_are_as_documented() -> None:
    problem: Problem = random_problem(0, prompts=2, responses=5, dimension=3)
    theta = random_parameters(7)
    assert problem.logp(theta).shape == (7, 2, 5)
    assert problem.pairs(theta).shape == (7, 2, 5, 5)
    assert problem.fisher(theta).shape == (7, 3, 3)
    torch.testing.assert_close(problem.pairs(theta).sum(dim=(-3, -2, -1)), torch.ones(7, dtype=torch.float64))


def test_a_stack_of_problems_is_each_of_them() -> None:
    problems = [random_problem(seed) for seed in range(3)]
    theta = random_parameters(3)
    together = stack(problems)
    for name in ("objective", "mean_quality", "win_rate", "fisher", "score"):
        apart = torch.stack([getattr(p, name)(t) for p, t in zip(problems, theta, strict=True)])
        torch.testing.assert_close(getattr(together, name)(theta), apart)
    many = problems[0].objective(theta)
    torch.testing.assert_close(many, torch.stack([problems[0].objective(t) for t in theta]))


def test_quality_is_that_of_the_bradley_terry_teacher() -> None:
    problem = random_problem(0)
    quality = problem.quality()
    torch.testing.assert_close(torch.sigmoid(quality[:, :, None] - quality[:, None, :]), problem.chance)
    assert quality.mean(dim=-1).abs().max() < 1e-12


def test_win_rate_of_the_reference_is_one_half() -> None:
    problem = random_problem(1)
    theta = reference_parameters(problem)
    torch.testing.assert_close(problem.logp(theta), problem.ref_logp)
    assert problem.win_rate(theta).item() == pytest.approx(0.5, abs=1e-12)


def test_reference_parameters_are_those_of_the_reference() -> None:
    problem = random_problem(1)
    torch.testing.assert_close(problem.logp(reference_parameters(problem)), problem.ref_logp)
