"""SAIL on single actions: two forms of one gradient, its first order, and where ascent stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.theory.critic.errors import SIZES, TAU
from benchmarks.theory.critic.first_order import TEMPERATURES, first_order, first_order_rows
from benchmarks.theory.critic.gradients import derivative
from benchmarks.theory.critic.problem import (
    STD,
    Problems,
    ascent,
    per_state,
    random_problems,
    random_waves,
    slope,
    where_it_stops,
)
from sailctl.objectives import effective_beta

BETA, GAMMA = 0.3, 0.1


@pytest.fixture(scope="module")
def problems() -> Problems:
    return random_problems(5, seed=3)


@pytest.mark.parametrize("c", [0.0, 0.3, 1.0])
def test_both_forms_have_one_expectation_and_with_c_one_it_is_the_gradient(
    problems: Problems, c: float
) -> None:
    theta = problems.reference + 0.2
    forms = [
        per_state(problems, theta, form, beta=BETA, c=c, tau=1.0, count=40)[0]
        for form in ("pathwise", "score")
    ]
    torch.testing.assert_close(forms[0], forms[1], rtol=0, atol=1e-7)
    truth = derivative(problems, theta, BETA, 1.0)
    assert ((forms[0] - truth).abs().max() < 1e-6) == (c == 1.0)


def test_the_noise_is_that_of_sampled_pairs(problems: Problems) -> None:
    """The deviation of the score form at c = 0 against numpy, from its definition."""
    theta, tau = problems.reference + 0.2, 1.0
    _, noise = per_state(problems, theta, "score", beta=BETA, c=0.0, tau=tau)
    eps = np.random.default_rng(0).normal(size=(200_000, 2))
    mean, centre = (problems.mean(each)[0, 0].item() for each in (theta, problems.reference))
    actions = mean + STD * eps
    q = problems.value(torch.from_numpy(actions)[None, None].expand(5, 4, -1, -1))[0, 0].numpy()
    ratio = ((actions - centre) ** 2 - (actions - mean) ** 2) / (2 * STD**2)
    h, d = BETA * (ratio[:, 0] - ratio[:, 1]), (q[:, 0] - q[:, 1]) / tau
    w = 1 / (1 + np.exp(-d)) - 1 / (1 + np.exp(-h))
    sampled = BETA * w * (eps[:, 0] - eps[:, 1]) / STD
    assert noise[0, 0].item() == pytest.approx(sampled.std(), rel=0.01)


def test_the_first_order_formula_is_of_second_order(problems: Problems) -> None:
    errors = {row["scale"]: row["error_median"] for row in first_order_rows()}
    assert errors[0.01] < 1e-3
    assert errors[0.1] / errors[0.01] == pytest.approx(100, rel=0.2)
    away = problems.reference + 2.0
    exact = ascent(problems, away, beta=BETA, tau=0.3)
    assert ((first_order(problems, away, BETA, 0.3) - exact).norm() > 0.3 * exact.norm()).all()


def test_the_slope_is_that_of_the_estimator(problems: Problems) -> None:
    theta = problems.reference + 0.2
    expected, _ = per_state(problems, theta, "score", beta=BETA, c=0.0, tau=1.0, count=40)
    found = slope(problems, problems.mean(theta), beta=BETA, tau=1.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_more_nodes_do_not_change_the_slope_for_the_sharpest_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    problems, error = random_problems(20), random_waves(20, seed=99)

    def wrong(actions: torch.Tensor) -> torch.Tensor:
        return problems.value(actions) + max(SIZES) * error(actions)

    mean = problems.mean(problems.reference + 0.2)
    for tau, value in ((min(TEMPERATURES), problems.value), (TAU, wrong)):
        coarse = slope(problems, mean, beta=BETA, tau=tau, value=value)
        with monkeypatch.context() as patched:
            patched.setattr("benchmarks.theory.critic.problem.DENSE", 240)
            fine = slope(problems, mean, beta=BETA, tau=tau, value=value)
        assert float((coarse - fine).norm() / fine.norm()) < 0.02


def test_ascent_stops_where_the_gradient_is_none(problems: Problems) -> None:
    theta = where_it_stops(problems, beta=BETA, gamma=GAMMA, tau=1.0)
    start, end = (
        ascent(problems, each, beta=BETA, gamma=GAMMA, tau=1.0).norm(dim=1)
        for each in (problems.reference, theta)
    )
    assert (end < 1e-2 * start).all()


def test_equal_beta_stops_at_the_same_place_for_soft_labels_alone(problems: Problems) -> None:
    def distances(tau: float) -> tuple[float, float]:
        penalised = where_it_stops(problems, beta=BETA, gamma=GAMMA, tau=tau)
        plain = where_it_stops(problems, beta=effective_beta(BETA, GAMMA), tau=tau)
        apart = (penalised - plain).norm() / (penalised - problems.reference).norm()
        return float(apart), float((problems.kl(plain) / problems.kl(penalised)).median())

    soft, sharp = distances(30.0), distances(0.1)
    assert soft[0] < 0.02
    assert soft[1] == pytest.approx(1, abs=0.03)
    assert sharp[0] > 0.1
    assert sharp[1] != pytest.approx(1, abs=0.1)


def test_waves_are_evaluated_per_problem_and_state() -> None:
    waves = random_waves(2, seed=0)
    points = torch.linspace(-1, 1, 7, dtype=torch.float64).expand(2, 4, 7)
    by_hand = sum(
        waves.amplitude[1, 2, k] * torch.sin(waves.frequency[1, 2, k] * points[1, 2] + waves.phase[1, 2, k])
        for k in range(3)
    )
    torch.testing.assert_close(waves(points)[1, 2], by_hand)
