"""The identities behind the theory lab's convergence and robustness, in seconds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.theory import ball, convergence
from benchmarks.theory.convergence import ARMS, PAPER, SAMPLED, Objective
from benchmarks.theory.gradient import reference_parameters
from benchmarks.theory.problem import Problem, random_problem
from sailctl.objectives import project_ball, sail_loss


@pytest.fixture(autouse=True, scope="module")
def _fewer_starts() -> Iterator[None]:
    """Enough for the problems of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convergence, "STARTS", 40)
        yield


def random_parameters(count: int, seed: int = 5, scale: float = 1.0) -> Tensor:
    return torch.from_numpy(scale * np.random.default_rng(seed).normal(size=(count, 3)))


# Newton's method on the ball


def test_the_minimum_of_a_quadratic_over_the_ball_is_the_projection_of_its_centre() -> None:
    centre = torch.tensor([[0.3, -0.2, 0.1], [4.0, 0.0, 3.0], [0.0, 0.0, -9.0]], dtype=torch.float64)
    found, error = ball.minimise(lambda x: (x - centre).square().sum(dim=-1), torch.zeros_like(centre), 2.0)
    torch.testing.assert_close(found, ball.project(centre, 2.0), rtol=0, atol=1e-12)
    assert error.max() < 1e-11


def test_a_stretched_quadratic_satisfies_the_conditions_of_its_multiplier() -> None:
    stretch = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    centre = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64)
    found, _ = ball.minimise(
        lambda x: (stretch * (x - centre) ** 2).sum(dim=-1), torch.zeros_like(centre), 1.0
    )
    assert found.norm().item() == pytest.approx(1.0, abs=1e-12)
    slope = 2 * stretch * (found - centre)
    assert torch.cosine_similarity(-slope, found).item() == pytest.approx(1.0, abs=1e-12)


def test_saddles_repel() -> None:
    """x^4/4 - x^2/2 + y^2 has a saddle at the origin and minima at (+-1, 0)."""
    start = torch.tensor([[1e-6, 0.5], [-1e-6, -0.5]], dtype=torch.float64)
    found, _ = ball.minimise(lambda x: x[:, 0] ** 4 / 4 - x[:, 0] ** 2 / 2 + x[:, 1] ** 2, start, 3.0)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("seed", [4, 6])
def test_no_point_of_the_ball_is_above_the_global_maximum(seed: int) -> None:
    """Inside the ball (problem 4) and on its boundary (problem 6)."""
    problem = random_problem(seed, quality=1.0)
    objective = convergence.objectives(problem, ARMS[:2])
    places, values = convergence.global_maxima(objective)
    assert (places.norm(dim=-1) <= convergence.RADIUS * (1 + 1e-12)).all()
    points = ball.points_in_ball(20_000, 3, convergence.RADIUS, seed=9)
    points = torch.cat([points, ball.project(1e3 * points, convergence.RADIUS)])
    for row in range(2):
        one = Objective(problem, objective.ref_pi[row], objective.pi_ref[row])
        assert one(points).max() <= values[row]
        near = ball.project(places[row] + 1e-3 * random_parameters(500), convergence.RADIUS)
        assert one(near).max() <= values[row]


# c. Convergence


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
    logp = convergence.log_policy(problem, theta.numpy())
    torch.testing.assert_close(torch.from_numpy(logp), problem.logp(theta), rtol=0, atol=1e-13)
    counts = convergence.draw_answers(problem, logp, 16, rng)
    batched = convergence.sampled_gradient(problem, logp, counts, weights)
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
    logp = convergence.log_policy(problem, many)
    counts = convergence.draw_answers(problem, logp, 4, np.random.default_rng(1))
    drawn = convergence.sampled_gradient(problem, logp, counts, np.tile(weights, (len(many), 1)))
    error = np.abs(drawn.mean(axis=0) - truth) / (drawn.std(axis=0) / np.sqrt(len(many)))
    assert error.max() < 4.5


def test_the_enumerated_variance_is_that_of_the_minibatches() -> None:
    problem, weights = random_problem(2), (0.3, 0.1)
    theta = random_parameters(1)[0]
    objective = Objective(problem, *torch.tensor(weights, dtype=torch.float64))
    many = np.tile(theta.numpy(), (20_000, 1))
    logp = convergence.log_policy(problem, many)
    counts = convergence.draw_answers(problem, logp, 256, np.random.default_rng(1))
    drawn = convergence.sampled_gradient(problem, logp, counts, np.tile(weights, (len(many), 1)))
    sampled = 256 * drawn.var(axis=0).sum()
    assert sampled == pytest.approx(convergence.gradient_variance(objective, theta), rel=0.03)


def test_steps_are_projected_as_the_project_projects() -> None:
    problem = random_problem(3)
    start = np.array([[0.6, -0.4, 0.2], [0.1, 0.2, 0.3]])
    length, weights = np.array([1000.0, 0.1]), np.zeros((2, 2))
    rng = np.random.default_rng(7)
    (after,) = convergence.stochastic_ascent(problem, start, weights, length, [1], rng)
    rng = np.random.default_rng(7)
    logp = convergence.log_policy(problem, start)
    counts = convergence.draw_answers(problem, logp, convergence.BATCH, rng)
    moved = start + length[:, None] * convergence.sampled_gradient(problem, logp, counts, weights)
    for row in range(2):
        theta = torch.from_numpy(moved[row].copy())
        project_ball([theta], convergence.RADIUS)
        np.testing.assert_allclose(after[row], theta.numpy(), rtol=1e-15)
    assert np.linalg.norm(moved[0]) > convergence.RADIUS


def test_the_noise_ball_is_the_step_times_a_quarter_of_the_variance() -> None:
    """Mean over 100 runs, within a tenth."""
    problem = random_problem(7, quality=1.0)
    objective = convergence.objectives(problem, ARMS[PAPER : PAPER + 1])
    place, best = convergence.global_maxima(objective)
    weights = convergence.weights_of(ARMS[PAPER : PAPER + 1] * 100).numpy()
    runs = convergence.stochastic_ascent(
        problem,
        np.tile(place.numpy(), (100, 1)),
        weights,
        np.full(100, 0.05),
        range(300, 1001, 40),
        np.random.default_rng(0),
    )
    one = Objective(problem, objective.ref_pi[0], objective.pi_ref[0])
    gap = best.item() - one(torch.from_numpy(runs)).mean().item()
    predicted = 0.05 * convergence.gradient_variance(one, place[0]) / (4 * convergence.BATCH)
    assert gap == pytest.approx(predicted, rel=0.1)


@pytest.fixture(scope="module")
def studied() -> list[convergence.Studied]:
    """Problem 7 from its three starts, 300 exact steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convergence, "PROBLEMS", (7,))
        patch.setattr(convergence, "ITERATIONS", 300)
        return convergence.study(convergence.cases())


def test_only_the_papers_penalty_leads_to_the_maximum_from_everywhere(
    studied: list[convergence.Studied],
) -> None:
    rows = {(row["start"], row["objective"], row["gamma"]): row for row in convergence.path_rows(studied)}
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


def test_the_starts_are_what_they_are_called(studied: list[convergence.Studied]) -> None:
    start = {known.case.name: known.case.start[None] for known in studied}
    objective = studied[0].case.problem.objective
    _, slope, curvature = ball.derivatives(objective, start["saddle"])
    assert slope.norm() < 2e-3
    assert torch.linalg.eigvalsh(curvature)[0, -1] > 0.01
    assert ball.derivatives(objective, start["plateau"])[1].norm() < 5e-3
    assert (studied[0].case.problem.kl(start["reference"], "kl_ref_pi")).abs().max() < 1e-14


@pytest.mark.parametrize(("direction", "seed"), [("kl_ref_pi", 6), ("kl_pi_ref", 4)])
def test_the_bias_of_gamma_is_bounded_and_grows(direction: str, seed: int) -> None:
    problem = random_problem(seed, quality=1.0)
    gammas = (0.0, 0.003, 0.03, 0.3, 3.0)
    places, _ = convergence.global_maxima(convergence.objectives(problem, [(direction, g) for g in gammas]))
    value, kl = problem.objective(places), problem.kl(places, direction)
    bias, tight = value[0] - value, torch.tensor(gammas) * (kl[0] - kl)
    assert (bias <= tight + 1e-12).all()
    assert (bias.diff() > 0).all()
    assert (kl.diff() < 0).all()


def test_the_first_mean_below_eps_is_what_counts() -> None:
    gap = np.array([[4.0, 4.0], [1.0, 4.0], [1.0, 1.0], [2.0, 2.0]])
    run = convergence.Sampled(np.array([1.0, 2.0, 4.0, 8.0]), gap)
    assert run.reach(2.5) == 2.0
    assert run.reach(1.0) == 4.0
    assert run.reach(0.5) == np.inf
    assert run.reach(1.0, np.array([0, 0])) == 2.0
    assert run.reach_of_runs(1.0) == [2.0, 4.0]


def test_reference_parameters_are_those_of_the_reference() -> None:
    problem = random_problem(1)
    torch.testing.assert_close(problem.logp(reference_parameters(problem)), problem.ref_logp)
