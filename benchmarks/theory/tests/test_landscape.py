"""The curvature of J and of both KL divergences, and the thresholds of gamma."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from benchmarks.theory.ball import shell_points
from benchmarks.theory.landscape.curvature import Curvature, largest, smallest
from benchmarks.theory.landscape.many_problems import failure
from benchmarks.theory.landscape.one_problem import two_responses
from benchmarks.theory.landscape.thresholds import any_radius_threshold, share_concave
from benchmarks.theory.problem import hessian, random_problem
from benchmarks.theory.tests.parameters import random_parameters

COUNT = 30


@pytest.mark.parametrize("seed", range(3))
def test_curvature_of_kl_ref_pi_is_the_fisher_information(seed: int) -> None:
    problem = random_problem(seed)
    curvature = Curvature.at(problem, 3 * random_parameters(COUNT))
    assert (curvature.ref_pi - curvature.fisher).abs().max() < 1e-10 * curvature.fisher.abs().max()
    assert (curvature.pi_ref - curvature.fisher).abs().max() > 0.1
    assert smallest(curvature.fisher).min() > 0


def test_kl_pi_ref_bends_down_beyond_a_known_point() -> None:
    """Two responses, uniform reference: KL(pi_theta || pi_ref) is convex up to the root of
    theta tanh(theta / 2) = 1 and concave after it, where a larger gamma makes matters worse."""
    problem = two_responses()
    low, high = 1.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.tanh(middle / 2) < 1 else (low, middle)
    around = torch.tensor([[low - 1e-4], [low + 1e-4]], dtype=torch.float64)
    curvature = Curvature.at(problem, around)
    before, after = curvature.pi_ref.flatten().tolist()
    assert before > 0 > after
    beyond = Curvature.at(problem, torch.tensor([[2.0]], dtype=torch.float64))
    worst = [float(beyond.penalised(gamma, "kl_pi_ref")) for gamma in (0.0, 1.0, 10.0, 100.0)]
    assert worst == sorted(worst)
    assert worst[0] > 0
    assert float(beyond.penalised(10.0, "kl_ref_pi")) < 0
    distance, _ = failure(problem, torch.zeros(1, dtype=torch.float64), 2.0)
    assert distance == pytest.approx(low, abs=2.0 / 50)


@pytest.mark.parametrize("seed", range(4))
def test_thresholds_are_in_order_and_the_last_needs_no_ball(seed: int) -> None:
    problem = random_problem(seed)
    points = shell_points(3, 6.0, directions=60, shells=10)
    curvature = Curvature.at(problem, points)
    tight = float(curvature.penalised(0.0, "kl_ref_pi").max())
    bound = float(largest(curvature.objective).max() / smallest(curvature.fisher).min())
    anywhere = any_radius_threshold(problem)
    assert 0 < tight < anywhere < bound
    assert share_concave(curvature, 1.01 * tight) == 1
    assert share_concave(curvature, 0.9 * tight) < 1
    assert share_concave(curvature, 0.0) < 1


def test_a_direction_that_no_response_differs_in_stays_flat() -> None:
    """There the Fisher information is singular, and so is the Hessian of J: no gamma gives a modulus."""
    problem = random_problem(0)
    phi = problem.phi.clone()
    phi[..., 2] = torch.arange(3, dtype=torch.float64)[:, None]
    flat = dataclasses.replace(problem, phi=phi)
    theta = random_parameters(1)[0]
    for matrix in (flat.fisher(theta), hessian(flat.objective, theta)):
        assert matrix[2].abs().max() < 1e-14
