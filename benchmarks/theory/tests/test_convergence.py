"""Maxima, exact paths and stochastic ascent of SAIL and SAIL-RevKL, in seconds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.theory import ball
from benchmarks.theory.convergence import ascent, cases, objectives, paths
from benchmarks.theory.convergence.noise import gradient_variance
from benchmarks.theory.convergence.objectives import ARMS, PAPER, RADIUS, SAMPLED, Objective
from benchmarks.theory.convergence.samples import Sampled
from benchmarks.theory.convergence.spheres import radius_rows
from benchmarks.theory.problem import Problem, random_problem
from benchmarks.theory.sampling import draw_answers, log_policy
from benchmarks.theory.tests.parameters import random_parameters
from sailctl.objectives import project_ball, sail_loss


@pytest.fixture(autouse=True, scope="module")
def _fewer_starts() -> Iterator[None]:
    """Enough for the problems of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "STARTS", 40)
        yield


# Maxima


@pytest.mark.parametrize("seed", [4, 6])
def test_no_point_of_the_ball_is_above_the_global_maximum(seed: int) -> None:
    """Inside the ball (problem 4) and on its boundary (problem 6)."""
    problem = random_problem(seed, quality=1.0)
    objective = objectives.objectives(problem, ARMS[:2])
    places, values = objectives.global_maxima(objective)
    assert (places.norm(dim=-1) <= RADIUS * (1 + 1e-12)).all()
    points = ball.points_in_ball(20_000, 3, RADIUS, seed=9)
    points = torch.cat([points, ball.project(1e3 * points, RADIUS)])
    for row in range(2):
        one = Objective(problem, objective.ref_pi[row], objective.pi_ref[row])
        assert one(points).max() <= values[row]
        near = ball.project(places[row] + 1e-3 * random_parameters(500), RADIUS)
        assert one(near).max() <= values[row]


@pytest.mark.parametrize(("direction", "seed"), [("kl_ref_pi", 6), ("kl_pi_ref", 4)])
def test_the_bias_of_gamma_is_bounded_and_grows(direction: str, seed: int) -> None:
    problem = random_problem(seed, quality=1.0)
    gammas = (0.0, 0.003, 0.03, 0.3, 3.0)
    places, _ = objectives.global_maxima(objectives.objectives(problem, [(direction, g) for g in gammas]))
    value, kl = problem.objective(places), problem.kl(places, direction)
    bias, tight = value[0] - value, torch.tensor(gammas) * (kl[0] - kl)
    assert (bias <= tight + 1e-12).all()
    assert (bias.diff() > 0).all()
    assert (kl.diff() < 0).all()


# Stochastic ascent


def samples_of(counts: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt, preferred and other response of every sample of one minibatch."""
    rows = np.repeat(np.argwhere(counts), counts[counts > 0], axis=0)
    return tuple(torch.from_numpy(column) for column in rows.T)


def learners_gradient(problem: Problem, theta: Tensor, counts: np.ndarray, weights: np.ndarray) -> Tensor:
    """Minus the gradient of the project's loss and of the exact KL in the prompts drawn."""
    theta = theta.clone().requires_grad_()
    logp = problem.logp(theta)
    x, better, worse = samples_of(counts)
    swap = torch.arange(len(x)) % 2 == 0  # the same answer, asked for the other way round
    first, second = torch.where(swap, worse, better), torch.where(swap, better, worse)
    losses, _ = sail_loss(
        logp[x, first],
        logp[x, second],
        problem.ref_logp[x, first],
        problem.ref_logp[x, second],
        torch.where(swap, -1.0, 1.0).double(),
        beta=problem.beta,
        c=1.0,
        group=torch.arange(len(x)),
    )
    ref = problem.ref_logp
    ref_pi = (ref.exp() * (ref - logp)).sum(dim=-1)[x]
    pi_ref = (logp.exp() * (logp - ref)).sum(dim=-1)[x]
    loss = (losses + weights[0] * ref_pi + weights[1] * pi_ref).mean()
    (gradient,) = torch.autograd.grad(loss, theta)
    return -gradient


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_the_batched_gradient_is_that_of_the_projects_loss(beta: float) -> None:
    problem = random_problem(3, beta=beta)
    theta, rng = random_parameters(6, scale=2.0), np.random.default_rng(0)
    weights = rng.uniform(0, 1, size=(6, 2))
    logp = log_policy(problem, theta.numpy())
    torch.testing.assert_close(torch.from_numpy(logp), problem.logp(theta), rtol=0, atol=1e-13)
    counts = draw_answers(problem, logp, 16, rng)
    batched = ascent.sampled_gradient(problem, logp, counts, weights)
    for row in range(6):
        alone = learners_gradient(problem, theta[row], counts[row], weights[row])
        np.testing.assert_allclose(batched[row], alone.numpy(), rtol=0, atol=1e-13)


def test_its_mean_is_the_gradient_of_the_enumerated_objective() -> None:
    """Within 4.5 standard errors of 40,000 minibatches."""
    problem, weights = random_problem(2), (0.3, 0.1)
    theta = random_parameters(1)[0]
    objective = Objective(problem, *torch.tensor(weights, dtype=torch.float64))
    truth = ball.derivatives(objective, theta[None])[1][0].numpy()
    many = np.tile(theta.numpy(), (40_000, 1))
    logp = log_policy(problem, many)
    counts = draw_answers(problem, logp, 4, np.random.default_rng(1))
    drawn = ascent.sampled_gradient(problem, logp, counts, np.tile(weights, (len(many), 1)))
    error = np.abs(drawn.mean(axis=0) - truth) / (drawn.std(axis=0) / np.sqrt(len(many)))
    assert error.max() < 4.5


def test_the_enumerated_variance_is_that_of_the_minibatches() -> None:
    problem, weights = random_problem(2), (0.3, 0.1)
    theta = random_parameters(1)[0]
    objective = Objective(problem, *torch.tensor(weights, dtype=torch.float64))
    many = np.tile(theta.numpy(), (20_000, 1))
    logp = log_policy(problem, many)
    counts = draw_answers(problem, logp, 256, np.random.default_rng(1))
    drawn = ascent.sampled_gradient(problem, logp, counts, np.tile(weights, (len(many), 1)))
    sampled = 256 * drawn.var(axis=0).sum()
    assert sampled == pytest.approx(gradient_variance(objective, theta), rel=0.03)


def test_steps_are_projected_as_the_project_projects() -> None:
    problem = random_problem(3)
    start = np.array([[0.6, -0.4, 0.2], [0.1, 0.2, 0.3]])
    length, weights = np.array([1000.0, 0.1]), np.zeros((2, 2))
    rng = np.random.default_rng(7)
    (after,) = ascent.stochastic_ascent(problem, start, weights, length, [1], rng)
    rng = np.random.default_rng(7)
    logp = log_policy(problem, start)
    counts = draw_answers(problem, logp, ascent.BATCH, rng)
    moved = start + length[:, None] * ascent.sampled_gradient(problem, logp, counts, weights)
    for row in range(2):
        theta = torch.from_numpy(moved[row].copy())
        project_ball([theta], RADIUS)
        np.testing.assert_allclose(after[row], theta.numpy(), rtol=1e-15)
    assert np.linalg.norm(moved[0]) > RADIUS


def test_the_noise_ball_is_the_step_times_a_quarter_of_the_variance() -> None:
    """Mean over 100 runs, within a tenth."""
    problem = random_problem(7, quality=1.0)
    objective = objectives.objectives(problem, ARMS[PAPER : PAPER + 1])
    place, best = objectives.global_maxima(objective)
    weights = objectives.weights_of(ARMS[PAPER : PAPER + 1] * 100).numpy()
    runs = ascent.stochastic_ascent(
        problem,
        np.tile(place.numpy(), (100, 1)),
        weights,
        np.full(100, 0.05),
        range(300, 1001, 40),
        np.random.default_rng(0),
    )
    one = Objective(problem, objective.ref_pi[0], objective.pi_ref[0])
    gap = best.item() - one(torch.from_numpy(runs)).mean().item()
    predicted = 0.05 * gradient_variance(one, place[0]) / (4 * ascent.BATCH)
    assert gap == pytest.approx(predicted, rel=0.1)


def test_the_first_mean_below_eps_is_what_counts() -> None:
    gap = np.array([[4.0, 4.0], [1.0, 4.0], [1.0, 1.0], [2.0, 2.0]])
    run = Sampled(np.array([1.0, 2.0, 4.0, 8.0]), gap)
    assert run.reach(2.5) == 2.0
    assert run.reach(1.0) == 4.0
    assert run.reach(0.5) == np.inf
    assert run.reach(1.0, np.array([0, 0])) == 2.0
    assert run.reach_of_runs(1.0) == [2.0, 4.0]


# Exact paths


@pytest.fixture(scope="module")
def studied() -> list[paths.Studied]:
    """Problem 7 from its three starts, 300 exact steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "PROBLEMS", (7,))
        patch.setattr(paths, "ITERATIONS", 300)
        return paths.study(cases.cases())


def test_only_the_papers_penalty_leads_to_the_maximum_from_everywhere(
    studied: list[paths.Studied],
) -> None:
    rows = {(row["start"], row["objective"], row["gamma"]): row for row in paths.path_rows(studied)}
    for start in ("reference", "saddle", "plateau"):
        row = rows[start, *ARMS[PAPER]]
        assert row["reached"]
        assert row["mu_path"] > 0.03
        assert row["worst_over_bound"] <= 1 + 1e-9
        assert row["late_r2"] > 0.999
    for arm in SAMPLED:
        assert rows["reference", *arm]["reached"]
    for arm in ARMS[0], ARMS[2]:
        assert not rows["plateau", *arm]["reached"]
        assert rows["plateau", *arm]["mu_path"] < 1e-6


def test_far_out_mu_falls_like_the_radius_with_the_papers_penalty_and_to_nothing_with_the_other(
    studied: list[paths.Studied],
) -> None:
    rows = radius_rows(studied)
    for gamma in (0.3, 3.0):
        mu = {(row["objective"], row["radius"]): row["mu"] for row in rows if row["gamma"] == gamma}
        assert 0.3 < mu["kl_ref_pi", 32.0] / mu["kl_ref_pi", 16.0] < 0.7
        assert 0 < mu["kl_pi_ref", 32.0] < 1e-20


def test_the_starts_are_what_they_are_called(studied: list[paths.Studied]) -> None:
    start = {known.case.name: known.case.start[None] for known in studied}
    objective = studied[0].case.problem.objective
    _, slope, curvature = ball.derivatives(objective, start["saddle"])
    assert slope.norm() < 2e-3
    assert torch.linalg.eigvalsh(curvature)[0, -1] > 0.01
    assert ball.derivatives(objective, start["plateau"])[1].norm() < 5e-3
    assert (studied[0].case.problem.kl(start["reference"], "kl_ref_pi")).abs().max() < 1e-14
