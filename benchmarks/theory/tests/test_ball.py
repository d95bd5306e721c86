"""Minima and maxima over the ball."""

from __future__ import annotations

import pytest
import torch

from benchmarks.theory import ball


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


def test_maximise_finds_the_boundary_and_the_inside() -> None:
    points = ball.shell_points(3, 2.0, directions=30, shells=5)
    slope = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)
    value, where = ball.maximise(lambda theta: theta @ slope, points, 2.0)
    assert value == pytest.approx(6.0, abs=1e-9)
    assert where.norm().item() == pytest.approx(2.0, abs=1e-9)
    value, _ = ball.maximise(lambda theta: -(theta - slope / 4).square().sum(-1), points, 2.0)
    assert value == pytest.approx(0.0, abs=1e-9)
