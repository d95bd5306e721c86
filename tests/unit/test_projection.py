"""The ball ||theta|| <= B: what leaves it is put on its surface, what is inside is left bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sailctl.objectives import project_ball


def parameters(seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Weights, biases and a scalar, as of a small network."""
    rng = np.random.default_rng(seed)
    shapes = [(4, 3), (4,), (1, 4), ()]
    return [torch.nn.Parameter(torch.tensor(scale * rng.normal(size=shape), dtype=dtype)) for shape in shapes]


def flat(theta: list[Tensor]) -> np.ndarray:
    """Concatenation in float64."""
    return np.concatenate([p.detach().double().numpy().ravel() for p in theta])


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-6, 1e6),
    radius=st.floats(1e-6, 1e6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_projection(seed: int, scale: float, radius: float, dtype: torch.dtype) -> None:
    theta = parameters(seed, scale, dtype)
    before = flat(theta)
    norm = project_ball(theta, radius)
    after = flat(theta)
    assert norm == pytest.approx(np.linalg.norm(before), rel=1e-12)
    if norm <= radius:
        assert np.array_equal(before, after)
    else:
        assert np.linalg.norm(after) <= radius * (1 + 1e-6)
        # the nearest point of the ball: same direction, on the surface
        np.testing.assert_allclose(after, before * (radius / np.linalg.norm(before)), rtol=1e-6)


@pytest.mark.parametrize("radius", [None, math.inf])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_no_ball_changes_no_bit(radius: float | None, scale: float) -> None:
    theta = parameters(scale=scale)
    kept = [p.detach().clone() for p in theta]
    versions = [p._version for p in theta]
    assert project_ball(theta, radius) == pytest.approx(np.linalg.norm(flat(kept)), rel=1e-12)
    assert all(torch.equal(p, k) for p, k in zip(theta, kept, strict=True))
    assert [p._version for p in theta] == versions


def test_a_point_on_the_surface_is_inside() -> None:
    theta = [torch.tensor([3.0]), torch.tensor([[4.0]])]
    assert project_ball(theta, 5.0) == 5.0
    assert [p.item() for p in theta] == [3.0, 4.0]
    assert project_ball(theta, 2.5) == 5.0
    assert [p.item() for p in theta] == [1.5, 2.0]


def test_radius_is_of_all_parameters_together() -> None:
    theta = [torch.full((2,), 2.0), torch.full((2,), 2.0)]
    assert project_ball(iter(theta), 3.0) == 4.0
    for parameter in theta:
        torch.testing.assert_close(parameter, torch.full((2,), 1.5))


def test_no_point_of_the_ball_is_nearer() -> None:
    theta = parameters(scale=5.0, dtype=torch.float64)
    before = flat(theta)
    radius = 2.0
    project_ball(theta, radius)
    nearest = np.linalg.norm(before - flat(theta))
    rng = np.random.default_rng(1)
    for _ in range(200):
        point = rng.normal(size=before.shape)
        point *= radius * rng.uniform() / np.linalg.norm(point)
        assert np.linalg.norm(before - point) >= nearest
    assert nearest == pytest.approx(np.linalg.norm(before) - radius, rel=1e-12)


def test_leaves_parameters_learnable() -> None:
    theta = parameters(scale=10.0)
    loss = sum(p.square().sum() for p in theta)
    loss.backward()
    gradients = [p.grad.clone() for p in theta]
    project_ball(theta, 1.0)
    assert all(p.requires_grad and p.is_leaf and p.grad_fn is None for p in theta)
    assert all(torch.equal(p.grad, g) for p, g in zip(theta, gradients, strict=True))


def test_radius_zero_is_the_origin() -> None:
    theta = parameters()
    assert project_ball(theta, 0.0) > 0
    assert not flat(theta).any()
    assert project_ball(theta, 0.0) == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_non_finite_parameters_are_left_to_be_seen(broken: float) -> None:
    theta = parameters()
    with torch.no_grad():
        theta[1][0] = broken
    kept = [p.detach().clone() for p in theta]
    assert not math.isfinite(project_ball(theta, 1.0))
    for parameter, before in zip(theta, kept, strict=True):
        torch.testing.assert_close(parameter.detach(), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("radius", [-1.0, math.nan, -math.inf])
def test_an_impossible_radius_is_refused(radius: float) -> None:
    with pytest.raises(ValueError, match="radius of the ball"):
        project_ball(parameters(), radius)
