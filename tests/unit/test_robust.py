"""The price of an unreliable teacher, and proximal steps on it, against brute force and optimality."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sailctl.objectives import dpo_loss, moreau_gradient, prox_abs, prox_mean_abs, robust_cost

SEEDS = st.integers(0, 2**32 - 1)
WEIGHTS = st.sampled_from([1e-3, 0.1, 1.0, 10.0])


# The cost of a worst-case teacher


@given(h=st.floats(-5, 5), chance=st.floats(0, 1), rho=st.floats(0, 1))
def test_cost_is_what_the_worst_teacher_takes(h: float, chance: float, rho: float) -> None:
    """Highest loss over every P within rho of P* and within [0, 1]; it is linear in P, so an end is worst."""
    score, one = torch.tensor([h], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    first, second = dpo_loss(score, one).item(), dpo_loss(score, -one).item()

    def loss(p: float) -> float:
        return p * first + (1 - p) * second

    within = np.linspace(max(0.0, chance - rho), min(1.0, chance + rho), 11)
    taken = max(loss(p) for p in within) - loss(chance)
    cost = robust_cost(score, rho, torch.tensor([chance], dtype=torch.float64))
    assert cost.item() == pytest.approx(taken, abs=1e-12)


@given(h=st.floats(-5, 5), rho=st.floats(0, 1), share=st.floats(0, 1))
def test_exact_and_clipped_agree_where_the_teacher_is_unsure_enough(
    h: float, rho: float, share: float
) -> None:
    """rho <= min(P*, 1 - P*): the adversary stays within [0, 1] by itself."""
    score = torch.tensor([h], dtype=torch.float64)
    exact = robust_cost(score, rho)
    assert exact.item() == rho * abs(h)
    chance = torch.tensor([share], dtype=torch.float64)
    clipped = robust_cost(score, rho, chance)
    assert clipped <= exact
    if rho <= min(share, 1 - share):
        assert torch.equal(clipped, exact)


def test_clipped_cost_by_hand() -> None:
    h = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0, 0.0], requires_grad=True)
    chance = torch.tensor([1.0, 0.1, 0.0, 1.0, 0.9, 0.5, 0.7])
    cost = robust_cost(h, 0.3, chance)
    torch.testing.assert_close(cost, torch.tensor([0.6, 0.2, 0.0, 0.0, 0.2, 0.6, 0.0]))
    (slope,) = torch.autograd.grad(cost.sum(), h)
    torch.testing.assert_close(slope, torch.tensor([0.3, 0.1, 0.0, 0.0, -0.1, -0.3, 0.0]))


def test_exact_cost_has_slope_rho_and_none_at_zero() -> None:
    h = torch.tensor([2.0, -3.0, 0.0], requires_grad=True)
    (slope,) = torch.autograd.grad(robust_cost(h, 0.25).sum(), h)
    assert slope.tolist() == [0.25, -0.25, 0.0]


# The proximal map of one pair


def value(x: np.ndarray, theta: np.ndarray, slopes: np.ndarray, offsets: np.ndarray, weight: float) -> float:
    """What the proximal map of a minibatch minimises."""
    return float(weight * np.abs(slopes @ x + offsets).mean() + ((x - theta) ** 2).sum() / 2)


@given(seed=SEEDS, dimension=st.integers(1, 6), weight=WEIGHTS)
def test_prox_of_one_pair_is_the_minimum(seed: int, dimension: int, weight: float) -> None:
    """Brute force: no point of a fine line search, and none of a cloud, is lower."""
    rng = np.random.default_rng(seed)
    theta, slope, offset = rng.normal(size=dimension), rng.normal(size=dimension), rng.normal()
    x = prox_abs(theta, slope, offset, weight)

    def at(points: np.ndarray) -> np.ndarray:
        return weight * np.abs(points @ slope + offset) + ((points - theta) ** 2).sum(axis=-1) / 2

    along = theta - np.linspace(-2 * weight, 2 * weight, 401)[:, None] * slope
    cloud = x + np.exp(rng.uniform(-12, 1, (200, 1))) * rng.normal(size=(200, dimension))
    assert at(x) <= min(at(along).min(), at(cloud).min()) + 1e-13


@given(seed=SEEDS, dimension=st.integers(1, 6), weight=WEIGHTS)
def test_prox_of_one_pair_is_optimal(seed: int, dimension: int, weight: float) -> None:
    """KKT: theta - x = u slope, u = weight * sign(score at x), or |u| <= weight where that score is 0."""
    rng = np.random.default_rng(seed)
    theta, slope, offset = rng.normal(size=dimension), rng.normal(size=dimension), rng.normal()
    x = prox_abs(theta, slope, offset, weight)
    u = (theta - x) @ slope / (slope @ slope)
    np.testing.assert_allclose(theta - x, u * slope, atol=1e-12)
    left = slope @ x + offset
    if abs(left) > 1e-12:
        assert u == pytest.approx(weight * np.sign(left), rel=1e-9)
    assert abs(u) <= weight * (1 + 1e-9)


def test_prox_of_one_pair_by_hand() -> None:
    theta, slope = np.array([3.0, 1.0]), np.array([2.0, 0.0])
    # score 6 + 1 = 7 at theta; reaching 0 takes 7/4 slopes
    assert prox_abs(theta, slope, 1.0, 0.5).tolist() == [2.0, 1.0]
    assert prox_abs(theta, slope, 1.0, 100.0).tolist() == [-0.5, 1.0]
    assert prox_abs(theta, slope, -13.0, 0.5).tolist() == [4.0, 1.0]
    assert prox_abs(theta, slope, 1.0, 0.0).tolist() == [3.0, 1.0]
    assert prox_abs(theta, slope, -6.0, 0.5).tolist() == [3.0, 1.0]


# The proximal map of a minibatch


def problem(seed: int, pairs: int, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """theta, slopes, offsets."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=dimension), rng.normal(size=(pairs, dimension)), rng.normal(size=pairs)


def published(
    theta: np.ndarray, slopes: np.ndarray, offsets: np.ndarray, weight: float
) -> Iterator[tuple[np.ndarray, int]]:
    """Accelerated projected gradient with restarts on the dual, written as minimisation: the primal point
    after each number of steps, and the restarts so far."""
    bound, largest = weight / len(offsets), np.linalg.norm(slopes, 2) ** 2

    def stepped(u: np.ndarray) -> np.ndarray:
        slope = slopes @ (slopes.T @ u - theta) - offsets
        return np.clip(u - slope / largest, -bound, bound)

    u = y = np.zeros(len(offsets))
    t, restarts = 1.0, 0
    while True:
        yield theta - slopes.T @ u, restarts
        following = stepped(y)
        if (y - following) @ (following - u) > 0:
            t, y, restarts = 1.0, u, restarts + 1
            following = stepped(y)
        t_next = (1 + np.sqrt(1 + 4 * t * t)) / 2
        y = following + (t - 1) / t_next * (following - u)
        u, t = following, t_next


@pytest.mark.parametrize(
    ("pairs", "dimension", "seeds"),
    # In the last two, momentum holds u in a corner of the box that is not the solution: no restart is due.
    [(6, 9, range(10)), (12, 4, range(10)), (2, 2, [1053, 1338])],
)
def test_steps_are_those_of_the_published_algorithm(pairs: int, dimension: int, seeds: list[int]) -> None:
    restarted = []
    for seed in seeds:
        case = problem(seed, pairs, dimension)
        for steps, (expected, restarts) in enumerate(islice(published(*case, 5.0), 40)):
            x, _ = prox_mean_abs(*case, 5.0, tolerance=0.0, iterations=steps)
            np.testing.assert_allclose(x, expected, rtol=0, atol=1e-11)
            restarted.append(restarts > 0)
    assert any(restarted)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_it_stops_at_the_tolerance_and_not_long_after_it(tolerance: float, size: float) -> None:
    """Relative to the scale of the problem; 1e-12 is the default."""
    theta, slopes, offsets = problem(1, pairs=30, dimension=20)
    theta, offsets, weight = size * theta, size * offsets, size * 3.0
    given = {} if tolerance == 1e-12 else {"tolerance": tolerance}
    _, gap = prox_mean_abs(theta, slopes, offsets, weight, **given)
    scale = weight * np.abs(slopes @ theta + offsets).mean()
    assert 1e-3 * tolerance * scale < gap <= tolerance * scale


def test_nothing_to_do_changes_no_bit() -> None:
    theta, slopes, offsets = problem(5, pairs=4, dimension=3)
    at_zero = -slopes @ theta
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in [
            (slopes, offsets, 0.0),  # rho is 0
            (slopes, at_zero, 1.0),  # every score is 0 already
            (np.zeros_like(slopes), 1e3 * offsets, 1.0),  # no parameter moves any score
        ]:
            x, gap = prox_mean_abs(theta, *case, iterations=10**9)  # it returns at once
            assert np.array_equal(x, theta)
            assert gap == 0


@pytest.mark.parametrize("pairs", [3, 7])
@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 5, 8, 13, 21])
def test_the_gap_is_that_of_the_point_returned(pairs: int, iterations: int) -> None:
    """Cut short, the gap is still primal minus dual value of what is returned, and bounds the distance."""
    for seed in range(20):
        theta, slopes, offsets = problem(seed, pairs, dimension=8)
        x, gap = prox_mean_abs(theta, slopes, offsets, 5.0, iterations=iterations)
        u = np.linalg.pinv(slopes.T) @ (theta - x)
        dual = u @ (slopes @ theta + offsets) - ((slopes.T @ u) ** 2).sum() / 2
        assert gap == pytest.approx(value(x, theta, slopes, offsets, 5.0) - dual, abs=1e-11)
        best, _ = prox_mean_abs(theta, slopes, offsets, 5.0)
        assert ((x - best) ** 2).sum() / 2 <= gap + 1e-11


def minimum(theta: np.ndarray, slopes: np.ndarray, offsets: np.ndarray, weight: float) -> np.ndarray:
    """The minimiser by trying, for every pair, whether its score ends above, below or at zero: 3^B cases."""
    best, lowest = theta, np.inf
    for signs in product((-1, 0, 1), repeat=len(offsets)):
        chosen = np.array(signs)
        free = theta - weight / len(offsets) * slopes.T @ chosen
        flat = slopes[chosen == 0]
        x = free - np.linalg.pinv(flat) @ (flat @ free + offsets[chosen == 0])
        if (reached := value(x, theta, slopes, offsets, weight)) < lowest:
            best, lowest = x, reached
    return best


@given(seed=SEEDS, pairs=st.integers(1, 4), dimension=st.integers(1, 5), weight=WEIGHTS)
def test_prox_of_a_minibatch_is_the_minimum(seed: int, pairs: int, dimension: int, weight: float) -> None:
    """More pairs than dimensions included: then the scores cannot all be brought to zero."""
    theta, slopes, offsets = problem(seed, pairs, dimension)
    x, gap = prox_mean_abs(theta, slopes, offsets, weight)
    best = minimum(theta, slopes, offsets, weight)
    excess = value(x, theta, slopes, offsets, weight) - value(best, theta, slopes, offsets, weight)
    assert excess <= gap + 1e-13
    assert ((x - best) ** 2).sum() / 2 <= gap + 1e-13
    scale = weight * np.abs(slopes @ theta + offsets).mean()
    assert -1e-14 * scale <= gap <= max(1e-12, 1e-6 * scale)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weight", [0.1, 1.0, 10.0])
def test_prox_of_a_minibatch_is_optimal(seed: int, weight: float) -> None:
    """KKT with independent slopes: theta - x = slopes^T u, each u_i at its bound where its score is not 0."""
    theta, slopes, offsets = problem(seed, pairs=8, dimension=12)
    x, gap = prox_mean_abs(theta, slopes, offsets, weight)
    assert gap <= 1e-12 * weight * np.abs(slopes @ theta + offsets).mean()
    u, left, bound = np.linalg.pinv(slopes.T) @ (theta - x), slopes @ x + offsets, weight / 8
    np.testing.assert_allclose(slopes.T @ u, theta - x, atol=1e-12)
    assert np.all(np.abs(u) <= bound * (1 + 1e-9))
    apart = np.abs(left) > 1e-4
    np.testing.assert_allclose(u[apart], bound * np.sign(left[apart]), rtol=1e-5)
    assert apart.any() or weight == 10.0


@given(seed=SEEDS, dimension=st.integers(1, 6), weight=WEIGHTS)
def test_a_minibatch_of_one_pair_is_the_closed_form(seed: int, dimension: int, weight: float) -> None:
    theta, slopes, offsets = problem(seed, pairs=1, dimension=dimension)
    x, gap = prox_mean_abs(theta, slopes, offsets, weight)
    closed = prox_abs(theta, slopes[0], offsets[0], weight)
    np.testing.assert_allclose(x, closed, atol=1e-12)
    assert abs(gap) <= 1e-12


def test_no_iterations_leave_the_point_where_it_is() -> None:
    theta, slopes, offsets = problem(0, pairs=4, dimension=3)
    x, gap = prox_mean_abs(theta, slopes, offsets, 0.7, iterations=0)
    assert np.array_equal(x, theta)
    assert gap == pytest.approx(0.7 * np.abs(slopes @ theta + offsets).mean(), rel=1e-12)


def test_momentum_and_its_restarts_pay() -> None:
    """Twice as many pairs as dimensions and badly scaled features take 150 steps. After 400 steps of plain
    projected gradient, or of momentum without restarts, the relative gap is still above 1e-8."""
    theta, slopes, offsets = problem(2, pairs=64, dimension=32)
    slopes *= np.geomspace(0.1, 1.0, 32)
    _, gap = prox_mean_abs(theta, slopes, offsets, 3.0, iterations=180)
    assert gap <= 1e-12 * 3.0 * np.abs(slopes @ theta + offsets).mean()


@pytest.mark.parametrize("weight", [0.1, 100.0])
def test_equal_pairs_count_as_one_of_their_joint_weight(weight: float) -> None:
    theta, slopes, offsets = problem(3, pairs=2, dimension=4)
    rows = np.array([0, 0, 0, 1, 1, 1])
    x, _ = prox_mean_abs(theta, slopes[rows], offsets[rows], weight)
    once, _ = prox_mean_abs(theta, slopes, offsets, weight)
    np.testing.assert_allclose(x, once, atol=1e-6)


def test_a_large_weight_brings_every_score_to_zero_where_one_point_can() -> None:
    """The reference policy is such a point: all scores are zero there. The nearest of them is taken."""
    theta, slopes, _ = problem(4, pairs=3, dimension=6)
    reference = np.arange(6.0)
    x, _ = prox_mean_abs(theta, slopes, -slopes @ reference, 1e3)
    np.testing.assert_allclose(x, theta - np.linalg.pinv(slopes) @ slopes @ (theta - reference), atol=1e-6)


def test_slopes_of_zero_are_left_alone_among_others() -> None:
    theta, slopes, offsets = problem(6, pairs=2, dimension=3)
    padded = np.vstack([slopes, np.zeros((2, 3))])
    x, gap = prox_mean_abs(theta, padded, np.append(offsets, [5.0, -5.0]), 0.8)
    alone, _ = prox_mean_abs(theta, slopes, offsets, 0.4)
    np.testing.assert_allclose(x, alone, atol=1e-6)
    assert gap <= 1e-11


# The Moreau envelope


def test_moreau_gradient_is_that_of_the_envelope() -> None:
    """Envelope of phi = rho |slope . x + offset|: min_x phi(x) + |x - theta|^2 / (2 size)."""
    theta, slopes, offsets = problem(7, pairs=1, dimension=4)
    rho, size, step = 0.6, 0.3, 1e-6

    def envelope(point: np.ndarray) -> float:
        x = prox_abs(point, slopes[0], offsets[0], size * rho)
        return value(x, point, slopes, offsets, size * rho) / size

    for scale in (1.0, 1e-3):  # far from the kink, and where the prox lands on it
        point = theta - (1 - scale) * (slopes[0] @ theta + offsets[0]) / (slopes[0] @ slopes[0]) * slopes[0]
        ours = moreau_gradient(point, prox_abs(point, slopes[0], offsets[0], size * rho), size)
        differences = [(envelope(point + e) - envelope(point - e)) / (2 * step) for e in step * np.eye(4)]
        np.testing.assert_allclose(ours, differences, atol=1e-8)
        assert np.abs(ours).max() > 1e-4


def test_moreau_gradient_vanishes_where_the_proximal_point_is_the_point() -> None:
    theta = np.array([1.0, -2.0])
    assert moreau_gradient(theta, theta, 0.1).tolist() == [0.0, 0.0]
    assert moreau_gradient(theta, theta / 2, 0.5).tolist() == [1.0, -2.0]
