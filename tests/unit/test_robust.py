"""The cost of an unreliable teacher, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sailctl.objectives import dpo_loss, label_cost, robust_cost

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


@given(h=st.floats(-5, 5), chance=st.floats(0, 1), rho=st.floats(0, 1))
def test_contaminated_cost_is_what_the_worst_arbitrary_answers_take(
    h: float, chance: float, rho: float
) -> None:
    """Highest loss over every (1 - rho) P* + rho Q; no more than that of P within rho of P* and in [0, 1]."""
    score, one = torch.tensor([h], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    first, second = dpo_loss(score, one).item(), dpo_loss(score, -one).item()

    def loss(p: float) -> float:
        return p * first + (1 - p) * second

    taken = max(loss((1 - rho) * chance + rho * q) for q in np.linspace(0, 1, 11)) - loss(chance)
    probability = torch.tensor([chance], dtype=torch.float64)
    cost = robust_cost(score, rho, probability, contaminated=True)
    assert cost.item() == pytest.approx(taken, abs=1e-12)
    assert cost <= robust_cost(score, rho, probability) + 1e-15


@given(h=st.floats(-5, 5), chance=st.floats(0, 1), rho=st.floats(0, 1))
def test_drawn_labels_estimate_the_contaminated_cost_without_bias(
    h: float, chance: float, rho: float
) -> None:
    score, one = torch.tensor([h], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    drawn = [label_cost(score, rho, z * one, "contaminated").item() for z in (1, -1)]
    assert drawn == [rho * max(0.0, h), rho * max(0.0, -h)]
    mean = chance * drawn[0] + (1 - chance) * drawn[1]
    soft = label_cost(score, rho, (2 * chance - 1) * one, "contaminated").item()
    assert mean == pytest.approx(soft, abs=1e-12)


def test_contaminated_answers_need_their_probability() -> None:
    with pytest.raises(ValueError, match="needs their probability"):
        robust_cost(torch.ones(1), 0.1, contaminated=True)


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
