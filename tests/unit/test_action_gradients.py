"""Both gradient forms of SAIL on single actions against their definition by quadrature, and each other.

In one dimension expectations are integrals over pairs of noise, computed to rounding: Gauss-Hermite where the
integrand is smooth, Gauss-Legendre on each side of a kink where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from sailctl.objectives import effective_beta, gaussian_kl, kl_penalty
from tests.drawn_actions import Case, gradients, log_normal, sample, straight, wavy

SMOOTH = {
    "near": Case((0.2, -0.3), (0.1, -0.2), beta=0.3, tau=1.0),
    "far": Case((0.5, -0.7), (-0.3, -0.4), beta=1.0, tau=0.7),
    "wide": Case((-0.4, 0.1), (0.2, 0.3), beta=0.5, tau=2.0),
    "straight": Case((0.1, -0.5), (0.4, -0.5), beta=2.0, tau=0.5, q=straight),
}
KINKED = {
    "exact": replace(SMOOTH["far"], rho=0.2),
    "exact, one std": replace(SMOOTH["straight"], rho=0.4),
    "clipped": replace(SMOOTH["far"], q=straight, rho=0.3, worst_case="clipped"),
    "contaminated": replace(SMOOTH["wide"], q=straight, rho=0.4, worst_case="contaminated"),
    "clipped by more than half": replace(SMOOTH["wide"], q=straight, rho=0.7, worst_case="clipped"),
}
smooth = pytest.mark.parametrize("case", SMOOTH.values(), ids=SMOOTH)
kinked = pytest.mark.parametrize("case", KINKED.values(), ids=KINKED)


# Quadrature


def hermite(count: int = 100) -> tuple[Tensor, Tensor]:
    """Noise (N, 2) of pairs and weights (N,)."""
    nodes, weights = (torch.from_numpy(x) for x in hermegauss(count))
    weights = weights / weights.sum()
    return torch.cartesian_prod(nodes, nodes), torch.outer(weights, weights).flatten()


def pieces(kinks: list[float]) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a standard normal, by Gauss-Legendre between neighbouring kinks."""
    edges = np.unique([x for x in (-9.0, -4.5, 0.0, 4.5, 9.0, *kinks) if abs(x) <= 9])
    nodes, weights = (np.array(x) for x in leggauss(24))
    half = np.diff(edges)[:, None] / 2
    points = (edges[:-1, None] + half * (1 + nodes)).ravel()
    density = (half * weights).ravel() * np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)
    return torch.from_numpy(points), torch.from_numpy(density)


def vertex(case: Case) -> float:
    """Where log pi/pi_ref turns, infinite where it is a line: h = 0 at a_1 = a_2 and a_1 + a_2 = 2 vertex."""
    (mean, log_std), (ref_mean, ref_log_std) = case.theta, case.reference
    sharp, ref_sharp = math.exp(-2 * log_std), math.exp(-2 * ref_log_std)
    return (ref_mean * ref_sharp - mean * sharp) / (ref_sharp - sharp) if sharp != ref_sharp else math.inf


def split(case: Case) -> tuple[Tensor, Tensor]:
    """As ``hermite``, for integrands with a kink at h = 0 and, clipped, at p = rho and 1 - rho (straight Q).

    The axes are the difference and the sum of the two noises.
    """
    mean, std = case.theta[0], math.exp(case.theta[1])
    kinks = [0.0]
    if case.worst_case == "clipped":
        edge = math.log(case.rho / (1 - case.rho)) * case.tau / (0.8 * std * math.sqrt(2))
        kinks += [edge, -edge]
    apart, by_apart = pieces(kinks)
    total, by_total = pieces([math.sqrt(2) * (vertex(case) - mean) / std])
    x, y = torch.cartesian_prod(apart, total).unbind(dim=1)
    return torch.stack([y + x, y - x], dim=1) / math.sqrt(2), torch.outer(by_apart, by_total).flatten()


def definition(case: Case, grid: tuple[Tensor, Tensor], c: float) -> np.ndarray:
    """T1 + T2 as the score-function integrals that define them, in plain numpy."""
    eps, weights = (x.numpy() for x in grid)
    a = case.theta[0] + math.exp(case.theta[1]) * eps
    q = case.q(torch.from_numpy(a)[..., None]).numpy()
    ratio = -(eps**2) / 2 - case.theta[1]
    ratio += ((a - case.reference[0]) * math.exp(-case.reference[1])) ** 2 / 2 + case.reference[1]
    p = 1 / (1 + np.exp(-(q[:, 0] - q[:, 1]) / case.tau))
    h = case.beta * (ratio[:, 0] - ratio[:, 1])
    room, favoured = np.full_like(p, case.rho), np.where(h > 0, p, 1 - p)
    if case.worst_case == "clipped":
        room = np.minimum(case.rho, favoured)
    if case.worst_case == "contaminated":
        room = case.rho * favoured
    value = -p * np.log1p(np.exp(-h)) - (1 - p) * np.log1p(np.exp(h)) - room * np.abs(h)
    score = np.stack([eps * math.exp(-case.theta[1]), eps**2 - 1])  # of mean and log std: (2, N, 2)
    w = p - 1 / (1 + np.exp(-h)) - room * np.sign(h)
    t1 = case.beta * w * (score[..., 0] - score[..., 1])
    return np.asarray((t1 + c * value * score.sum(axis=-1)) @ weights)


def ascent(losses: Tensor, weights: Tensor, theta: Tensor) -> np.ndarray:
    """Minus the gradient of the expected loss: the direction of a step."""
    (gradient,) = torch.autograd.grad((weights * losses).sum(), theta)
    return -gradient.numpy()


@smooth
@pytest.mark.parametrize("c", [0.0, 0.3, 1.0])
def test_both_forms_are_the_gradient_by_its_definition(case: Case, c: float) -> None:
    eps, weights = hermite()
    expected = definition(case, (eps, weights), c)
    assert np.abs(expected).max() > 1e-2
    for form in (case.pathwise, case.score):
        theta, draw = case.draw(eps)
        np.testing.assert_allclose(ascent(form(draw, c)[0], weights, theta), expected, rtol=0, atol=1e-9)


def objective(case: Case, grid: Callable[[Case], tuple[Tensor, Tensor]]) -> float:
    """J: without T2 the score form's loss is minus the value of a pair."""
    eps, weights = grid(case)
    return -float(case.score(case.draw(eps)[1], c=0.0)[0].detach() @ weights)


def differences(case: Case, grid: Callable[[Case], tuple[Tensor, Tensor]]) -> np.ndarray:
    """grad J by five-point differences: all ways in which theta enters, the drawing included."""
    step, slopes = 1e-3, []
    for axis in np.eye(2):
        at = [
            objective(replace(case, theta=tuple(np.array(case.theta) + k * step * axis)), grid)
            for k in (-2, -1, 1, 2)
        ]
        slopes.append((at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step))
    return np.array(slopes)


@smooth
def test_with_c_one_it_is_the_gradient_of_j(case: Case) -> None:
    eps, weights = hermite()
    theta, draw = case.draw(eps)
    expected = differences(case, lambda _: hermite())
    np.testing.assert_allclose(ascent(case.pathwise(draw, 1.0)[0], weights, theta), expected, atol=1e-8)


def test_a_density_with_live_parameters_is_another_gradient() -> None:
    """log pi of an action that moves with its own density has no slope in the mean at all."""
    case, (eps, weights) = SMOOTH["far"], hermite()
    theta, draw = case.draw(eps)
    actions = (theta[0] + theta[1].exp() * eps)[..., None]
    live = replace(draw, logp=log_normal(actions, theta[0], theta[1]))
    error = ascent(case.pathwise(live, 1.0)[0], weights, theta) - definition(case, (eps, weights), 1.0)
    assert np.abs(error).max() > 1e-2


# The robust cost


@kinked
@pytest.mark.parametrize("c", [0.0, 1.0])
def test_with_a_robust_cost_both_forms_are_the_gradient_by_its_definition(case: Case, c: float) -> None:
    eps, weights = split(case)
    expected = definition(case, (eps, weights), c)
    trusted = definition(replace(case, rho=0.0), (eps, weights), c)
    assert np.abs(expected - trusted).max() > 1e-2
    for form in (case.pathwise, case.score):
        theta, draw = case.draw(eps)
        np.testing.assert_allclose(ascent(form(draw, c)[0], weights, theta), expected, rtol=0, atol=1e-9)


@kinked
def test_with_a_robust_cost_and_c_one_it_is_the_gradient_of_the_worst_case(case: Case) -> None:
    eps, weights = split(case)
    theta, draw = case.draw(eps)
    found = ascent(case.pathwise(draw, 1.0)[0], weights, theta)
    np.testing.assert_allclose(found, differences(case, split), atol=1e-8)


def test_the_sign_of_a_score_has_no_pathwise_gradient_but_that_of_its_jump() -> None:
    """E[sign(h) grad log pi(a_1)]: the derivative of sign along the action is 0 at every sample, the truth is
    the density of pairs where h = 0, at a_1 = a_2 and at a_1 = 2 vertex - a_2."""
    case = KINKED["exact"]
    eps, weights = split(case)
    theta, draw = case.draw(eps)
    h = (draw.logp - draw.ref_logp) @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    (naive,) = torch.autograd.grad((weights * h.sign()).sum(), theta, allow_unused=True)
    assert naive is None or not naive.any()

    truth = -ascent(h.detach().sign() * draw.logp_fixed[:, 0], weights, theta)
    (mean, log_std), turn = case.theta, vertex(case)
    nodes, by_node = pieces([(turn - mean) / math.exp(log_std)])
    second = mean + math.exp(log_std) * nodes.numpy()
    bend = math.exp(-2 * case.reference[1]) - math.exp(-2 * log_std)
    jump = np.zeros(2)
    for first in (second, 2 * turn - second):
        z = (first - mean) / math.exp(log_std)
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / math.exp(log_std)
        moves = np.stack([np.ones_like(first), first - mean])
        jump += (2 * np.sign(bend * (first - turn)) * density * moves) @ by_node.numpy()
    np.testing.assert_allclose(truth, jump, atol=1e-9)
    assert np.abs(truth).min() > 0.01


# Many actions of many dimensions


@pytest.mark.parametrize(("c", "rho"), [(0.0, 0.0), (1.0, 0.0), (1.0, 0.1)])
def test_in_many_dimensions_both_forms_agree_and_the_pathwise_one_has_less_noise(
    c: float, rho: float
) -> None:
    case, theta, draw = sample(20_000 if rho else 8000, rho=rho)
    means, variances = [], []
    for losses in (case.pathwise(draw, c)[0], case.score(draw, c)[0]):
        gradient = gradients(losses, theta)[:, 0]
        means.append(gradient.mean(dim=0))
        variances.append(gradient.var(dim=0))
    z = (means[0] - means[1]) / ((variances[0] + variances[1]) / len(draw.q)).sqrt()
    assert z.abs().max() < 3.5
    assert (means[0] / (variances[0] / len(draw.q)).sqrt()).abs().max() > 10
    assert (variances[0] < variances[1]).all()
    assert variances[0].sum() < variances[1].sum() / (2 if rho else 5)


# RevKL and beta


@pytest.mark.parametrize("direction", ["kl_ref_pi", "kl_pi_ref"])
@pytest.mark.parametrize(("beta", "gamma"), [(0.3, 0.1), (1.0, 2.0), (0.5, 0.0)])
@pytest.mark.parametrize("c", [0.0, 1.0])
def test_near_the_reference_revkl_moves_as_sail_with_the_effective_beta(
    direction: str, beta: float, gamma: float, c: float
) -> None:
    """In direction, and beta / effective_beta times as far: the error is of the order of the distance."""
    eps, weights = hermite()
    ratios = []
    for near in (1e-2, 1e-3, 1e-4):
        case = Case(
            (0.2 + near * 0.7, -0.3 - near * 0.4), (0.2, -0.3), beta, 1.0, lambda a, near=near: near * wavy(a)
        )
        theta, draw = case.draw(eps)
        revkl = ascent(case.pathwise(draw, c)[0], weights, theta)
        held = torch.tensor(case.reference, dtype=torch.float64)
        kl = kl_penalty(direction, *(x[None] for x in (*theta, *held)))
        (pull,) = torch.autograd.grad(kl, theta)
        revkl -= gamma * pull.numpy()
        larger = replace(case, beta=effective_beta(beta, gamma))
        theta, draw = larger.draw(eps)
        sail = ascent(larger.pathwise(draw, c)[0], weights, theta)
        ratios.append(revkl / sail * larger.beta / beta)
    errors = [float(np.abs(ratio - 1).max()) for ratio in ratios]
    assert errors[2] < 1e-3
    assert errors[1] < 0.2 * errors[0] or errors[0] < 1e-9
    assert errors[2] < 0.2 * errors[1] or errors[1] < 1e-8


def test_far_from_the_reference_the_pull_of_sail_is_bounded_and_that_of_the_kl_is_not() -> None:
    """Equal values: T1 is SAIL's pull alone, beta E[(1/2 - sigma(h)) (grad log pi(a_1) - grad log pi(a_2))].
    It saturates at beta/2 times the mean distance of two scores, 2 / sqrt(pi) for the mean at unit std."""
    pulls, kls = [], []
    for distance in (1.0, 2.0, 4.0, 8.0):
        case = Case((distance, 0.0), (0.0, 0.0), beta=1.0, tau=1.0, q=lambda a: 0 * a[..., 0])
        eps, weights = split(case)
        theta, draw = case.draw(eps)
        pulls.append(-ascent(case.score(draw, 0.0)[0], weights, theta)[0])
        (slope,) = torch.autograd.grad(gaussian_kl(*(x[None] for x in (*theta, *torch.zeros(2)))), theta)
        kls.append(slope[0].item())
    assert kls == pytest.approx([1.0, 2.0, 4.0, 8.0])
    assert 0.3 < pulls[0] < pulls[1] < pulls[2] < pulls[3] < 1 / math.sqrt(math.pi) < 1.05 * pulls[3]
