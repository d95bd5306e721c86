"""The robust loss: worst teachers, freezing, weak convexity, proximal points, updates and linearity."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.theory import ball
from benchmarks.theory.control import POLICY
from benchmarks.theory.problem import Problem, random_problem, reference_parameters
from benchmarks.theory.prox import prox_abs
from benchmarks.theory.robust import convexity, linearity, proximal, steps
from benchmarks.theory.robust.drawing import penalty_parts
from benchmarks.theory.robust.freezing import freezing_rho
from benchmarks.theory.robust.loss import RADIUS, STUDIED, loss, penalty
from benchmarks.theory.robust.sets import SETS, rankings_rows, sets_rows
from benchmarks.theory.robust.worst_case import worst_case_rows, worst_teacher
from benchmarks.theory.sampling import log_policy
from benchmarks.theory.tests.parameters import random_parameters
from sailctl.objectives import pair_score, project_ball, robust_cost, sail_loss

# Worst case and freezing


def test_no_teacher_of_the_set_is_worse_than_the_worst() -> None:
    problem, theta = random_problem(3, quality=2.0), random_parameters(1)[0]
    worst = worst_teacher(problem, theta, 0.2)
    assert ((worst - problem.chance).abs() <= 0.2 + 1e-15).all()
    assert (worst.min() >= 0) & (worst.max() <= 1)
    torch.testing.assert_close(worst + worst.mT, torch.ones_like(worst))
    least = dataclasses.replace(problem, chance=worst).objective(theta)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        noise = 0.4 * torch.rand(problem.chance.shape, generator=generator, dtype=torch.float64) - 0.2
        upper = (problem.chance + noise).clamp(0, 1).triu(1)
        other = upper + (1 - upper.mT).tril(-1) + 0.5 * torch.eye(problem.chance.shape[-1])
        assert dataclasses.replace(problem, chance=other).objective(theta) >= least


def test_the_decomposition_is_exact_while_no_teacher_is_certain() -> None:
    for row in worst_case_rows():
        if row["formula"] == "clipped":
            assert row["error_max"] < 1e-14
        if row["formula"] == "exact" and row["non_degenerate_problems"]:
            assert row["error_max_non_degenerate"] < 1e-14
        if row["formula"] == "exact":
            assert row["charged_over_true_min"] >= 1 - 1e-12
            assert (row["error_max"] > 1e-4) == (row["share_degenerate_pairs"] > 0)
        if row["formula"] == "around labels":
            assert row["charged_over_true_max"] < 1


def test_the_cost_of_each_set_is_that_of_its_worst_teacher() -> None:
    """On the grid of teachers, whose ends are in it; and so is what a pair teaches under each."""
    rows = sets_rows()
    for row in rows:
        assert row["cost"] == pytest.approx(row["searched"], abs=1e-12)
        if row["chance"] >= 0.5:
            assert row["best"] == pytest.approx(row["predicted"], abs=1e-3)
    by_set = {name: [row["cost"] for row in rows if row["set"] == name] for name in SETS}
    assert (np.array(by_set["contaminated"]) <= np.array(by_set["clipped"]) + 1e-15).all()
    assert (np.array(by_set["clipped"]) <= np.array(by_set["exact"]) + 1e-15).all()
    assert np.max(np.array(by_set["clipped"]) - by_set["contaminated"]) > 0.1


def test_no_order_is_worse_than_the_ascending_one() -> None:
    for row in rankings_rows():
        assert row["error_max"] < 1e-13
        assert row["cost_mean"] > 0.1


@pytest.mark.parametrize("seed", [1, 7])
def test_the_reference_is_stationary_from_the_freezing_rho_on(seed: int) -> None:
    problem = random_problem(seed, quality=0.5)
    reference, freezes = reference_parameters(problem), freezing_rho(problem)
    directions = random_parameters(20_000, seed=11)
    near = reference + 1e-5 * directions / directions.norm(dim=-1, keepdim=True)
    assert (loss(problem, 1.03 * freezes, near) > np.log(2)).all()
    assert (loss(problem, 0.97 * freezes, near) < np.log(2)).any()


def test_where_a_random_teacher_is_possible_nothing_beats_the_reference() -> None:
    problem = random_problem(1, quality=0.5)
    half = (problem.chance - 0.5).abs().max().item()
    points = ball.points_in_ball(5000, 3, 8.0, seed=3)
    assert (-problem.robust(points, half, clipped=True) >= np.log(2) - 1e-12).all()


# Weak convexity


def test_the_modulus_makes_the_loss_convex_and_is_needed() -> None:
    problem = random_problem(STUDIED, quality=0.5)
    function = partial(loss, problem, 0.1)
    m, place = convexity.modulus(function, 2.0, [])
    assert convexity.midpoint_excess(function, 1.01 * m, 2.0, seed=1) < 0
    curvature = ball.derivatives(function, place[None])[2][0]
    direction = torch.linalg.eigh(curvature)[1][:, 0]
    ends = torch.stack([place - 1e-3 * direction, place + 1e-3 * direction])
    excess = function(place[None])[0] - function(ends).mean()
    assert excess > 0.95 * m * 1e-6 / 2
    assert (convexity.downward_curvature(partial(penalty, problem), random_parameters(500)).max()) < (
        convexity.modulus_bound(problem)
    )


# Proximal points


@pytest.fixture(scope="module")
def prox() -> tuple[Problem, float, Tensor, Tensor, Tensor]:
    """A problem, rho, points, their proximal points for m = 0.7, and the bounds on their errors."""
    problem, rho = random_problem(STUDIED, quality=0.5), 0.1
    around = reference_parameters(problem) + random_parameters(30, scale=0.3)
    theta = torch.cat([around, ball.points_in_ball(29, 3, 4.0, seed=2), torch.tensor([[3.99, 0.1, 0.1]])])
    return problem, rho, theta, *proximal.proximal_points(problem, rho, theta, 0.7)


def test_no_point_is_below_the_proximal_point(prox: tuple[Problem, float, Tensor, Tensor, Tensor]) -> None:
    problem, rho, theta, points, bound = prox
    assert bound.max() < 1e-6
    assert (
        (problem.score(points).abs() == 0).flatten(1).sum(dim=1) > 12
    ).any()  # more than h(y, y): on kinks

    def value(x: Tensor) -> Tensor:
        return loss(problem, rho, x) + 0.7 * (x - theta).square().sum(dim=-1)

    least = value(points)
    for scale in (1e-4, 1e-2, 1.0):
        for seed in range(40):
            other = ball.project(points + random_parameters(len(points), seed=seed, scale=scale), RADIUS)
            assert (value(other) > least - 1e-13).all()


def test_the_bound_on_its_error_is_one(prox: tuple[Problem, float, Tensor, Tensor, Tensor]) -> None:
    """A proximal point is off by less than the bound of one that is found more roughly."""
    problem, rho, theta, points, _ = prox
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proximal, "FINEST", 3)
        patch.setattr(proximal, "NEAR", 1e-9)
        rough, bound = proximal.proximal_points(problem, rho, theta, 0.7)
    error = (rough - points).norm(dim=-1)
    assert error.max() > 1e-5
    assert (error <= bound + 1e-6).all()


# Updates


@pytest.mark.parametrize("variant", steps.VARIANTS)
def test_a_batched_step_is_that_of_the_project(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sail_loss`` without baseline, ``prox_abs``, ``project_ball``."""
    monkeypatch.setattr(steps, "RADIUS", 1.0)
    problem, rho, length = random_problem(3, beta=0.7), 0.3, 0.4
    rng = np.random.default_rng(0)
    theta = random_parameters(60, scale=0.4).numpy()
    logp = log_policy(problem, theta)
    sample = steps.draw_one(problem, logp, rng)
    after = steps.one_step(problem, theta, logp, sample, steps.Steps.of(variant, rho, length, len(theta)))
    left = 0
    for row, (x, better, worse) in enumerate(zip(*sample, strict=True)):
        leaf = torch.from_numpy(theta[row]).requires_grad_()
        logp_row = problem.logp(leaf)
        scored = [each[x, y][None] for each in (logp_row, problem.ref_logp) for y in (better, worse)]
        losses, _ = sail_loss(
            *scored,
            torch.ones(1, dtype=torch.float64),
            beta=problem.beta,
            c=1.0,
            group=None,
            rho=0.0 if "forgotten" in variant else rho,
        )
        if variant == "composite":  # the proximal map follows the cost of the pair that was drawn
            losses = losses - robust_cost(pair_score(*scored, problem.beta), rho)
        (gradient,) = torch.autograd.grad(losses.mean(), leaf)
        expected = theta[row] - length * gradient.numpy()
        slope = problem.beta * (problem.phi[x, better] - problem.phi[x, worse]).numpy()
        if variant != "subgradient" and better != worse:
            offset = float(problem.score(leaf)[x, better, worse].detach() - slope @ theta[row])
            expected = prox_abs(expected, slope, offset, length * rho)
        inside = torch.from_numpy(expected)
        left += project_ball([inside], steps.RADIUS) > steps.RADIUS
        np.testing.assert_allclose(after[row], inside.numpy(), rtol=0, atol=1e-13)
    assert 0 < left < len(theta)


def test_single_samples_have_the_probabilities_of_the_problem() -> None:
    """Chi-square of 20,000 draws, 47 degrees of freedom."""
    problem, theta = random_problem(2), random_parameters(1).numpy()
    logp = log_policy(problem, theta.repeat(20_000, axis=0))
    sample = steps.draw_one(problem, logp, np.random.default_rng(0))
    counts = np.zeros(problem.chance.shape)
    np.add.at(counts, sample, 1)
    expected = 20_000 * 2 * (problem.pairs(torch.from_numpy(theta[0])) * problem.chance).numpy()
    assert ((counts - expected) ** 2 / expected).sum() < 47 + 4 * np.sqrt(2 * 47)


def test_the_parts_of_the_penaltys_gradient_add_up() -> None:
    problem, theta = random_problem(2), random_parameters(20)
    held, drawn = penalty_parts(problem, theta)
    whole = ball.derivatives(partial(penalty, problem), theta)[1]
    torch.testing.assert_close(held + drawn, whole, rtol=0, atol=1e-14)


# Linearity


@pytest.mark.parametrize("length", [1, 2, 3])
def test_h_is_linear_over_one_step_and_quadratic_over_more(length: int) -> None:
    control, states, actions = linearity.trajectories(length)
    theta = torch.tensor(POLICY, dtype=torch.float64)
    moved = theta + 0.5 * random_parameters(1)[0]
    pair = linearity.segment_pair(control, states, actions, 1, -1)
    with torch.no_grad():
        score = linearity.segment_scores(control, moved, states, actions)
    assert pair.at(theta.numpy(), moved.numpy()) == pytest.approx(float(score[1] - score[-1]), abs=1e-12)
    assert (np.abs(pair.bend).max() < 1e-14) == (length == 1)


def test_the_exact_proximal_point_of_a_bent_score_is_the_minimum() -> None:
    control, states, actions = linearity.trajectories(3)
    theta, rng = np.array(POLICY), np.random.default_rng(0)
    inside = 0
    for one in range(0, 26, 2):
        pair = linearity.segment_pair(control, states, actions, one, 26 - one // 2)
        weight = 0.02
        point = pair.exact_prox(theta, weight)
        inside += abs(pair.at(theta, point)) < 1e-12

        def value(x: np.ndarray, pair: linearity.SegmentPair = pair, weight: float = weight) -> float:
            return weight * abs(pair.at(theta, x)) + ((x - theta) ** 2).sum() / 2

        for scale in (1e-4, 1e-2):
            for other in point + scale * rng.normal(size=(50, 3)):
                assert value(other) >= value(point) - 1e-15
    assert 0 < inside < 13
