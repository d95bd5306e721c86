"""The identities of the theory lab in seconds: gradients, curvature and designs, without sampling."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.record import write
from benchmarks.theory import designs, gradient, landscape
from benchmarks.theory.gradient import Control, compare, linear_policy
from benchmarks.theory.problem import Problem, hessian, random_problem, stack

COUNT = 30


def random_parameters(count: int, dimension: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).normal(size=(count, dimension)))


# Problems


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
    theta = gradient.reference_parameters(problem)
    torch.testing.assert_close(problem.logp(theta), problem.ref_logp)
    assert problem.win_rate(theta).item() == pytest.approx(0.5, abs=1e-12)


# a. Gradients


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_estimator_is_unbiased_at_c_one_alone(beta: float) -> None:
    problem = stack([random_problem(seed, beta=beta) for seed in range(COUNT)])
    theta = random_parameters(COUNT)
    truth = gradient.true_gradient(problem, theta)
    errors = {
        c: float(compare(gradient.estimated(problem, theta, c), truth)["relative_error_max"])
        for c in (0.0, 0.9, 1.0, 1.1)
    }
    assert errors.pop(1.0) < 1e-12
    assert min(errors.values()) > 0.05


def test_online_dpo_leads_downhill_at_some_points() -> None:
    problem = stack([random_problem(seed) for seed in range(COUNT)])
    theta = random_parameters(COUNT)
    truth = gradient.true_gradient(problem, theta)
    share = compare(gradient.estimated(problem, theta, 0.0), truth)["share_downhill"]
    assert 0.05 < float(share) < 0.5


def test_online_dpo_stops_at_the_best_aligned_policy_and_sail_does_not() -> None:
    """With every policy within reach, T1 = 0 where h is the difference of qualities: there
    E[quality] - beta KL(pi || ref) is as high as it can be, and J is not."""
    problems = gradient.well_conditioned(prompts=1, beta=1.0)[:10]
    problem = stack(problems)
    start = torch.stack([gradient.reference_parameters(each) for each in problems])
    online, sail = (gradient.settle(partial(gradient.estimated, problem, c=c), start)[0] for c in (0.0, 1.0))
    best = gradient.best_alignment_value(problem)
    assert (best - gradient.alignment_value(problem, online)).abs().max() < 1e-12
    assert (best - gradient.alignment_value(problem, sail)).min() > 1e-6
    assert (problem.objective(sail) - problem.objective(online)).min() > 1e-6
    assert gradient.true_gradient(problem, sail).norm(dim=-1).max() < 1e-9
    assert gradient.true_gradient(problem, online).norm(dim=-1).min() > 1e-4


def relative_error(control: Control, c: float) -> float:
    policy, reference = linear_policy(gradient.POLICY), linear_policy(gradient.REFERENCE)
    truth = control.true_gradient(policy, reference)
    return float((control.estimated(policy, reference, c) - truth).norm() / truth.norm())


def test_in_control_the_estimator_is_unbiased_to_quadrature_precision() -> None:
    coarse, fine = (relative_error(Control(2, 2, nodes), c=1.0) for nodes in (4, 16))
    assert fine < 1e-8 < 1e-4 < coarse
    assert relative_error(Control(2, 2, 16), c=0.0) > 0.1


def test_judging_on_after_the_segment_biases_even_c_one() -> None:
    assert relative_error(Control(segment=1, judged=1, nodes=12), c=1.0) < 1e-5
    assert relative_error(Control(segment=1, judged=2, nodes=12), c=1.0) > 1e-2


def test_steps_after_the_segment_count_for_the_label_alone() -> None:
    control = Control(segment=1, judged=2, nodes=3)
    policy, reference = linear_policy(gradient.POLICY), linear_policy(gradient.REFERENCE)
    states, actions, returns = control.rollout(policy, control.STARTS[0])
    ratio = control.log_ratio(policy, reference, states, actions)
    same_first_action = actions[:, 0, 0] == actions[0, 0, 0]
    assert same_first_action.sum() == 3
    assert len(set(ratio[same_first_action].tolist())) == 1
    assert len(set(returns[same_first_action].tolist())) == 3


def test_the_control_gradient_agrees_with_differences() -> None:
    control, reference = Control(2, 2, 6), linear_policy(gradient.REFERENCE)
    truth = control.true_gradient(linear_policy(gradient.POLICY), reference)
    step = 1e-5
    for axis, slope in enumerate(truth):
        ends = [np.array(gradient.POLICY) for _ in range(2)]
        ends[0][axis] += step
        ends[1][axis] -= step
        high, low = (control.objective(linear_policy(end.tolist()), reference).item() for end in ends)
        assert slope.item() == pytest.approx((high - low) / (2 * step), abs=1e-9)


# b. Curvature


@pytest.mark.parametrize("seed", range(3))
def test_curvature_of_kl_ref_pi_is_the_fisher_information(seed: int) -> None:
    problem = random_problem(seed)
    curvature = landscape.Curvature.at(problem, 3 * random_parameters(COUNT))
    assert (curvature.ref_pi - curvature.fisher).abs().max() < 1e-10 * curvature.fisher.abs().max()
    assert (curvature.pi_ref - curvature.fisher).abs().max() > 0.1
    assert landscape.smallest(curvature.fisher).min() > 0


def test_kl_pi_ref_bends_down_beyond_a_known_point() -> None:
    """Two responses, uniform reference: KL(pi_theta || pi_ref) is convex up to the root of
    theta tanh(theta / 2) = 1 and concave after it, where a larger gamma makes matters worse."""
    problem = landscape.two_responses()
    low, high = 1.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.tanh(middle / 2) < 1 else (low, middle)
    around = torch.tensor([[low - 1e-4], [low + 1e-4]], dtype=torch.float64)
    curvature = landscape.Curvature.at(problem, around)
    before, after = curvature.pi_ref.flatten().tolist()
    assert before > 0 > after
    beyond = landscape.Curvature.at(problem, torch.tensor([[2.0]], dtype=torch.float64))
    worst = [float(beyond.penalised(gamma, "kl_pi_ref")) for gamma in (0.0, 1.0, 10.0, 100.0)]
    assert worst == sorted(worst)
    assert worst[0] > 0
    assert float(beyond.penalised(10.0, "kl_ref_pi")) < 0
    distance, _ = landscape.failure(problem, torch.zeros(1, dtype=torch.float64), 2.0)
    assert distance == pytest.approx(low, abs=2.0 / 50)


@pytest.mark.parametrize("seed", range(4))
def test_thresholds_are_in_order_and_the_last_needs_no_ball(seed: int) -> None:
    problem = random_problem(seed)
    points = landscape.shell_points(3, 6.0, directions=60, shells=10)
    curvature = landscape.Curvature.at(problem, points)
    tight = float(curvature.penalised(0.0, "kl_ref_pi").max())
    bound = float(landscape.largest(curvature.objective).max() / landscape.smallest(curvature.fisher).min())
    anywhere = landscape.any_radius_threshold(problem)
    assert 0 < tight < anywhere < bound
    assert landscape.share_concave(curvature, 1.01 * tight) == 1
    assert landscape.share_concave(curvature, 0.9 * tight) < 1
    assert landscape.share_concave(curvature, 0.0) < 1


def test_a_direction_that_no_response_differs_in_stays_flat() -> None:
    """There the Fisher information is singular, and so is the Hessian of J: no gamma gives a modulus."""
    problem = random_problem(0)
    phi = problem.phi.clone()
    phi[..., 2] = torch.arange(3, dtype=torch.float64)[:, None]
    flat = dataclasses.replace(problem, phi=phi)
    theta = random_parameters(1)[0]
    for matrix in (flat.fisher(theta), hessian(flat.objective, theta)):
        assert matrix[2].abs().max() < 1e-14


def test_maximise_finds_the_boundary_and_the_inside() -> None:
    points = landscape.shell_points(3, 2.0, directions=30, shells=5)
    slope = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)
    value, where = landscape.maximise(lambda theta: theta @ slope, points, 2.0)
    assert value == pytest.approx(6.0, abs=1e-9)
    assert where.norm().item() == pytest.approx(2.0, abs=1e-9)
    value, _ = landscape.maximise(lambda theta: -(theta - slope / 4).square().sum(-1), points, 2.0)
    assert value == pytest.approx(0.0, abs=1e-9)


# f. Designs


@pytest.fixture(scope="module")
def mixture() -> designs.Mixture:
    return designs.mixtures(10, beta=0.7)


@pytest.mark.parametrize(("design", "extra"), list(product(designs.DESIGNS, designs.EXTRAS)))
def test_each_design_ascends_its_mixture(mixture: designs.Mixture, design: str, extra: str) -> None:
    theta = random_parameters(10, 4)
    gamma, rho = designs.EXTRAS[extra]
    truth = mixture.true_gradient(design, theta, 0.4, gamma, rho)
    exact, online = (mixture.estimated(design, theta, 0.4, c, gamma, rho) for c in (1.0, 0.0))
    assert float(compare(exact, truth)["relative_error_max"]) < 1e-12
    assert float(compare(online, truth)["relative_error_median"]) > 1e-2


@pytest.mark.parametrize("design", ["DDP", "DPP"])
def test_own_labels_give_t1_no_mean(mixture: designs.Mixture, design: str) -> None:
    theta = random_parameters(10, 4)
    assert mixture.design_ascent(design, theta, c=0.0).abs().max() < 1e-15
    assert mixture.design_ascent(design, theta, c=1.0).abs().max() > 1e-2


def test_ddp_ascends_minus_the_entropy_of_its_own_labels(mixture: designs.Mixture) -> None:
    theta = random_parameters(10, 4)

    def entropy(leaf: Tensor) -> Tensor:
        certain = mixture.problem.score(leaf).sigmoid()
        return (mixture.pairs * (torch.special.entr(certain) + torch.special.entr(1 - certain))).sum()

    truth = gradient.ascent(entropy, theta)
    torch.testing.assert_close(mixture.design_ascent("DDP", theta, c=1.0), truth, rtol=1e-12, atol=1e-15)


def test_own_labels_cannot_leave_the_reference(mixture: designs.Mixture) -> None:
    """At h = 0 every design that labels its own samples stands still, whatever c is."""
    theta = designs.starts(mixture.problem)
    for design in ("DDP", "DPP"):
        assert mixture.design_ascent(design, theta, c=1.0).abs().max() < 1e-12
    assert mixture.design_ascent("DPR", theta, c=1.0).abs().max() > 1e-2


def test_the_reward_model_of_dpr_knows_the_labels_alone() -> None:
    """Fitted to labels of one pair, it prefers the winner of that pair and is undecided on the others."""
    counts = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    counts[0, 0, 0, 1] = 4.0
    chance = designs.fitted_chance(counts)
    assert chance[0, 0, 1] > 0.7
    assert chance[0, 0, 2] == pytest.approx(1 - float(chance[0, 1, 2]))
    reward = torch.logit(chance[0, 0, 1]) / 2
    assert 4 * torch.sigmoid(-2 * reward).item() == pytest.approx(reward.item(), abs=1e-9)


# Records


def test_a_record_names_the_command_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["/somewhere/python3", "-m", "benchmarks.theory.gradient", "--results", "here"]
    monkeypatch.setattr(sys, "orig_argv", given)
    write(tmp_path, "name", [{"a": 1}], {"what": "a test"})
    record = json.loads((tmp_path / "name.json").read_text())
    assert record["command"] == ["python", *given[1:]]


def test_problem_shapes_are_as_documented() -> None:
    problem: Problem = random_problem(0, prompts=2, responses=5, dimension=3)
    theta = random_parameters(7)
    assert problem.logp(theta).shape == (7, 2, 5)
    assert problem.pairs(theta).shape == (7, 2, 5, 5)
    assert problem.fisher(theta).shape == (7, 3, 3)
    torch.testing.assert_close(problem.pairs(theta).sum(dim=(-3, -2, -1)), torch.ones(7, dtype=torch.float64))
