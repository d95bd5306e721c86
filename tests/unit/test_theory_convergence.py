"""The identities behind the theory lab's convergence and robustness, in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.theory import ball, convergence, robust
from benchmarks.theory.convergence import ARMS, PAPER, SAMPLED, Objective
from benchmarks.theory.gradient import reference_parameters
from benchmarks.theory.problem import Problem, random_problem
from sailctl.objectives import project_ball, prox_abs, prox_mean_abs, sail_loss


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


def test_far_out_mu_falls_like_the_radius_with_the_papers_penalty_and_to_nothing_with_the_other(
    studied: list[convergence.Studied],
) -> None:
    rows = convergence.radius_rows(studied)
    for gamma in (0.3, 3.0):
        mu = {(row["objective"], row["radius"]): row["mu"] for row in rows if row["gamma"] == gamma}
        assert 0.3 < mu["kl_ref_pi", 32.0] / mu["kl_ref_pi", 16.0] < 0.7
        assert 0 < mu["kl_pi_ref", 32.0] < 1e-20


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


# e. Robustness


def test_no_teacher_of_the_set_is_worse_than_the_worst() -> None:
    problem, theta = random_problem(3, quality=2.0), random_parameters(1)[0]
    worst = robust.worst_teacher(problem, theta, 0.2)
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
    for row in robust.worst_case_rows():
        if row["formula"] == "clipped":
            assert row["error_max"] < 1e-14
        if row["formula"] == "exact" and row["non_degenerate_problems"]:
            assert row["error_max_non_degenerate"] < 1e-14
        if row["formula"] == "exact":
            assert row["charged_over_true_min"] >= 1 - 1e-12
            assert (row["error_max"] > 1e-4) == (row["share_degenerate_pairs"] > 0)
        if row["formula"] == "around labels":
            assert row["charged_over_true_max"] < 1


@pytest.mark.parametrize("seed", [1, 7])
def test_the_reference_is_stationary_from_the_freezing_rho_on(seed: int) -> None:
    problem = random_problem(seed, quality=0.5)
    reference, freezes = reference_parameters(problem), robust.freezing_rho(problem)
    directions = random_parameters(20_000, seed=11)
    near = reference + 1e-5 * directions / directions.norm(dim=-1, keepdim=True)
    assert (robust.loss(problem, 1.03 * freezes, near) > np.log(2)).all()
    assert (robust.loss(problem, 0.97 * freezes, near) < np.log(2)).any()


def test_where_a_random_teacher_is_possible_nothing_beats_the_reference() -> None:
    problem = random_problem(1, quality=0.5)
    half = (problem.chance - 0.5).abs().max().item()
    points = ball.points_in_ball(5000, 3, 8.0, seed=3)
    assert (-problem.robust(points, half, clipped=True) >= np.log(2) - 1e-12).all()


def test_the_modulus_makes_the_loss_convex_and_is_needed() -> None:
    problem = random_problem(robust.STUDIED, quality=0.5)
    function = partial(robust.loss, problem, 0.1)
    m, place = robust.modulus(function, 2.0, [])
    assert robust.midpoint_excess(function, 1.01 * m, 2.0, seed=1) < 0
    curvature = ball.derivatives(function, place[None])[2][0]
    direction = torch.linalg.eigh(curvature)[1][:, 0]
    ends = torch.stack([place - 1e-3 * direction, place + 1e-3 * direction])
    excess = function(place[None])[0] - function(ends).mean()
    assert excess > 0.95 * m * 1e-6 / 2
    assert (robust.downward_curvature(partial(robust.penalty, problem), random_parameters(500)).max()) < (
        robust.modulus_bound(problem)
    )


@pytest.fixture(scope="module")
def prox() -> tuple[Problem, float, Tensor, Tensor, Tensor]:
    """A problem, rho, points, their proximal points for m = 0.7, and the bounds on their errors."""
    problem, rho = random_problem(robust.STUDIED, quality=0.5), 0.1
    around = reference_parameters(problem) + random_parameters(30, scale=0.3)
    theta = torch.cat([around, ball.points_in_ball(29, 3, 4.0, seed=2), torch.tensor([[3.99, 0.1, 0.1]])])
    return problem, rho, theta, *robust.proximal_points(problem, rho, theta, 0.7)


def test_no_point_is_below_the_proximal_point(prox: tuple[Problem, float, Tensor, Tensor, Tensor]) -> None:
    problem, rho, theta, points, bound = prox
    assert bound.max() < 1e-6
    assert (
        (problem.score(points).abs() == 0).flatten(1).sum(dim=1) > 12
    ).any()  # more than h(y, y): on kinks

    def value(x: Tensor) -> Tensor:
        return robust.loss(problem, rho, x) + 0.7 * (x - theta).square().sum(dim=-1)

    least = value(points)
    for scale in (1e-4, 1e-2, 1.0):
        for seed in range(40):
            other = ball.project(points + random_parameters(len(points), seed, scale), robust.RADIUS)
            assert (value(other) > least - 1e-13).all()


def test_the_bound_on_its_error_is_one(prox: tuple[Problem, float, Tensor, Tensor, Tensor]) -> None:
    """A proximal point is off by less than the bound of one that is found more roughly."""
    problem, rho, theta, points, _ = prox
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robust, "FINEST", 3)
        patch.setattr(robust, "NEAR", 1e-9)
        rough, bound = robust.proximal_points(problem, rho, theta, 0.7)
    error = (rough - points).norm(dim=-1)
    assert error.max() > 1e-5
    assert (error <= bound + 1e-6).all()


@pytest.mark.parametrize("variant", robust.VARIANTS)
def test_a_batched_step_is_that_of_the_project(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sail_loss`` without baseline, ``prox_abs`` and ``prox_mean_abs``, ``project_ball``."""
    monkeypatch.setattr(robust, "RADIUS", 1.0)
    problem, rho, length = random_problem(3, beta=0.7), 0.3, 0.4
    rng = np.random.default_rng(0)
    theta = random_parameters(60, scale=0.4).numpy()
    logp = convergence.log_policy(problem, theta)
    sample = robust.draw_one(problem, logp, rng)
    after = robust.one_step(problem, theta, logp, sample, robust.Steps.of(variant, rho, length, len(theta)))
    left = 0
    for row, (x, better, worse) in enumerate(zip(*sample, strict=True)):
        leaf = torch.from_numpy(theta[row]).requires_grad_()
        logp_row = problem.logp(leaf)
        losses, _ = sail_loss(
            logp_row[x, better][None],
            logp_row[x, worse][None],
            problem.ref_logp[x, better][None],
            problem.ref_logp[x, worse][None],
            torch.ones(1, dtype=torch.float64),
            beta=problem.beta,
            c=1.0,
            group=None,
            rho=0.0 if "forgotten" in variant else rho,
            proximal=variant == "composite",
        )
        (gradient,) = torch.autograd.grad(losses.mean(), leaf)
        expected = theta[row] - length * gradient.numpy()
        slope = problem.beta * (problem.phi[x, better] - problem.phi[x, worse]).numpy()
        if variant != "subgradient" and better != worse:
            offset = float(problem.score(leaf)[x, better, worse].detach() - slope @ theta[row])
            one = prox_abs(expected, slope, offset, length * rho)
            batch, _ = prox_mean_abs(expected, slope[None], np.array([offset]), length * rho)
            np.testing.assert_allclose(one, batch, rtol=0, atol=1e-7)
            expected = one
        inside = torch.from_numpy(expected)
        left += project_ball([inside], robust.RADIUS) > robust.RADIUS
        np.testing.assert_allclose(after[row], inside.numpy(), rtol=0, atol=1e-13)
    assert 0 < left < len(theta)


def test_single_samples_have_the_probabilities_of_the_problem() -> None:
    """Chi-square of 20,000 draws, 47 degrees of freedom."""
    problem, theta = random_problem(2), random_parameters(1).numpy()
    logp = convergence.log_policy(problem, theta.repeat(20_000, axis=0))
    sample = robust.draw_one(problem, logp, np.random.default_rng(0))
    counts = np.zeros(problem.chance.shape)
    np.add.at(counts, sample, 1)
    expected = 20_000 * 2 * (problem.pairs(torch.from_numpy(theta[0])) * problem.chance).numpy()
    assert ((counts - expected) ** 2 / expected).sum() < 47 + 4 * np.sqrt(2 * 47)


def test_the_parts_of_the_penaltys_gradient_add_up() -> None:
    problem, theta = random_problem(2), random_parameters(20)
    held, drawn = robust.penalty_parts(problem, theta)
    whole = ball.derivatives(partial(robust.penalty, problem), theta)[1]
    torch.testing.assert_close(held + drawn, whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_h_is_linear_over_one_step_and_quadratic_over_more(length: int) -> None:
    control, states, actions = robust.trajectories(length)
    theta = torch.tensor(robust.CONTROL_POLICY, dtype=torch.float64)
    moved = theta + 0.5 * random_parameters(1)[0]
    pair = robust.segment_pair(control, states, actions, 1, -1)
    with torch.no_grad():
        score = robust.segment_scores(control, moved, states, actions)
    assert pair.at(theta.numpy(), moved.numpy()) == pytest.approx(float(score[1] - score[-1]), abs=1e-12)
    assert (np.abs(pair.bend).max() < 1e-14) == (length == 1)


def test_the_exact_proximal_point_of_a_bent_score_is_the_minimum() -> None:
    control, states, actions = robust.trajectories(3)
    theta, rng = np.array(robust.CONTROL_POLICY), np.random.default_rng(0)
    inside = 0
    for one in range(0, 26, 2):
        pair = robust.segment_pair(control, states, actions, one, 26 - one // 2)
        weight = 0.02
        point = pair.exact_prox(theta, weight)
        inside += abs(pair.at(theta, point)) < 1e-12

        def value(x: np.ndarray, pair: robust.SegmentPair = pair, weight: float = weight) -> float:
            return weight * abs(pair.at(theta, x)) + ((x - theta) ** 2).sum() / 2

        for scale in (1e-4, 1e-2):
            for other in point + scale * rng.normal(size=(50, 3)):
                assert value(other) >= value(point) - 1e-15
    assert 0 < inside < 13
