"""T1 + T2 is the gradient of J, and T1 alone is not: responses, fixed points and control."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.theory.control import POLICY, REFERENCE, Control, linear_policy
from benchmarks.theory.estimator import compare
from benchmarks.theory.gradient import fixed_points
from benchmarks.theory.gradient.responses import estimated, true_gradient
from benchmarks.theory.problem import alignment_value, random_problem, reference_parameters, stack
from benchmarks.theory.tests.parameters import random_parameters

COUNT = 30


# Responses


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_estimator_is_unbiased_at_c_one_alone(beta: float) -> None:
    problem = stack([random_problem(seed, beta=beta) for seed in range(COUNT)])
    theta = random_parameters(COUNT)
    truth = true_gradient(problem, theta)
    errors = {
        c: float(compare(estimated(problem, theta, c), truth)["relative_error_max"])
        for c in (0.0, 0.9, 1.0, 1.1)
    }
    assert errors.pop(1.0) < 1e-12
    assert min(errors.values()) > 0.05


def test_online_dpo_leads_downhill_at_some_points() -> None:
    problem = stack([random_problem(seed) for seed in range(COUNT)])
    theta = random_parameters(COUNT)
    truth = true_gradient(problem, theta)
    share = compare(estimated(problem, theta, 0.0), truth)["share_downhill"]
    assert 0.05 < float(share) < 0.5


def test_online_dpo_stops_at_the_best_aligned_policy_and_sail_does_not() -> None:
    """With every policy within reach, T1 = 0 where h is the difference of qualities: there
    E[quality] - beta KL(pi || ref) is as high as it can be, and J is not."""
    problems = fixed_points.well_conditioned(prompts=1, beta=1.0)[:10]
    problem = stack(problems)
    start = torch.stack([reference_parameters(each) for each in problems])
    online, sail = (fixed_points.settle(partial(estimated, problem, c=c), start)[0] for c in (0.0, 1.0))
    best = fixed_points.best_alignment_value(problem)
    assert (best - alignment_value(problem, online)).abs().max() < 1e-12
    assert (best - alignment_value(problem, sail)).min() > 1e-6
    assert (problem.objective(sail) - problem.objective(online)).min() > 1e-6
    assert true_gradient(problem, sail).norm(dim=-1).max() < 1e-9
    assert true_gradient(problem, online).norm(dim=-1).min() > 1e-4


# Control


def relative_error(control: Control, c: float) -> float:
    policy, reference = linear_policy(POLICY), linear_policy(REFERENCE)
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
    policy, reference = linear_policy(POLICY), linear_policy(REFERENCE)
    states, actions, returns = control.rollout(policy, control.STARTS[0])
    ratio = control.log_ratio(policy, reference, states, actions)
    same_first_action = actions[:, 0, 0] == actions[0, 0, 0]
    assert same_first_action.sum() == 3
    assert len(set(ratio[same_first_action].tolist())) == 1
    assert len(set(returns[same_first_action].tolist())) == 3


def test_the_control_gradient_agrees_with_differences() -> None:
    control, reference = Control(2, 2, 6), linear_policy(REFERENCE)
    truth = control.true_gradient(linear_policy(POLICY), reference)
    step = 1e-5
    for axis, slope in enumerate(truth):
        ends = [np.array(POLICY) for _ in range(2)]
        ends[0][axis] += step
        ends[1][axis] -= step
        high, low = (control.objective(linear_policy(end.tolist()), reference).item() for end in ends)
        assert slope.item() == pytest.approx((high - low) / (2 * step), abs=1e-9)
