"""The proximal map of one pair and the gradient of the Moreau envelope, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.theory.prox import moreau_gradient, prox_abs

SEEDS = st.integers(0, 2**32 - 1)
WEIGHTS = st.sampled_from([1e-3, 0.1, 1.0, 10.0])


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


def test_moreau_gradient_is_that_of_the_envelope() -> None:
    """Envelope of phi = rho |slope . x + offset|: min_x phi(x) + |x - theta|^2 / (2 size)."""
    rng = np.random.default_rng(7)
    theta, slope, offset = rng.normal(size=4), rng.normal(size=4), rng.normal()
    rho, size, step = 0.6, 0.3, 1e-6

    def envelope(point: np.ndarray) -> float:
        x = prox_abs(point, slope, offset, size * rho)
        return float(rho * abs(slope @ x + offset) + ((x - point) ** 2).sum() / (2 * size))

    for scale in (1.0, 1e-3):  # far from the kink, and where the prox lands on it
        point = theta - (1 - scale) * (slope @ theta + offset) / (slope @ slope) * slope
        ours = moreau_gradient(point, prox_abs(point, slope, offset, size * rho), size)
        differences = [(envelope(point + e) - envelope(point - e)) / (2 * step) for e in step * np.eye(4)]
        np.testing.assert_allclose(ours, differences, atol=1e-8)
        assert np.abs(ours).max() > 1e-4


def test_moreau_gradient_vanishes_where_the_proximal_point_is_the_point() -> None:
    theta = np.array([1.0, -2.0])
    assert moreau_gradient(theta, theta, 0.1).tolist() == [0.0, 0.0]
    assert moreau_gradient(theta, theta / 2, 0.5).tolist() == [1.0, -2.0]
