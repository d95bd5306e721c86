"""Plackett-Luce against its definition, and its loss: limits, gradients, and pairs as rankings of two."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sailctl.objectives import (
    leave_one_group_out,
    plackett_luce,
    ranking_cost,
    ranking_loss,
    sail_loss,
)

BETA = 0.3
FORKS = (2, 3, 5)


def batch(forks: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(G, K) log-probabilities of policy (with gradient) and reference, G = 6."""
    rng = np.random.default_rng(seed)
    logp, ref_logp = (torch.tensor(rng.normal(-5, 3, (6, forks)), dtype=dtype) for _ in range(2))
    return logp.requires_grad_(), ref_logp


def slow_likelihood(score: np.ndarray) -> np.ndarray:
    """Choose the best, then the best of the rest: log-probability of each row, one choice at a time."""
    result = []
    for row in score:
        chance = 1.0
        for k in range(len(row)):
            chance *= np.exp(row[k]) / sum(np.exp(rest) for rest in row[k:])
        result.append(np.log(chance))
    return np.array(result)


def slow_slope(score: np.ndarray) -> np.ndarray:
    """Derivative of ``slow_likelihood`` in each score, by five-point differences."""
    step, slope = 1e-3, np.zeros_like(score)
    for k in range(score.shape[1]):
        e = step * np.eye(score.shape[1])[k]
        outer = slow_likelihood(score + 2 * e) - slow_likelihood(score - 2 * e)
        slope[:, k] = (8 * (slow_likelihood(score + e) - slow_likelihood(score - e)) - outer) / (12 * step)
    return slope


def gradient(losses: Tensor, logp: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(losses.sum(), logp)
    return result


@pytest.mark.parametrize("forks", FORKS)
def test_likelihood_equals_the_definition(forks: int) -> None:
    score, _ = batch(forks)
    expected = slow_likelihood(score.detach().numpy())
    np.testing.assert_allclose(plackett_luce(score).detach().numpy(), expected, rtol=1e-12)
    assert torch.autograd.gradcheck(plackett_luce, (score,), atol=1e-8)


@given(score=st.lists(st.floats(-30, 30), min_size=2, max_size=5))
def test_probabilities_of_all_orders_sum_to_one(score: list[float]) -> None:
    orders = torch.tensor(list(permutations(score)), dtype=torch.float64)
    assert plackett_luce(orders).exp().sum().item() == pytest.approx(1, abs=1e-13)


def test_first_place_goes_by_softmax_whatever_the_rest_do() -> None:
    """Luce's choice: the orders that begin with a segment add up to its share of all worths."""
    score = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
    orders = torch.tensor(list(permutations(range(4))))
    chance = plackett_luce(score[orders]).exp()
    first = torch.stack([chance[orders[:, 0] == k].sum() for k in range(4)])
    torch.testing.assert_close(first, score.softmax(dim=0))


@given(seed=st.integers(0, 2**32 - 1), forks=st.integers(2, 5), shift=st.floats(-1e4, 1e4))
def test_what_all_segments_share_cancels(seed: int, forks: int, shift: float) -> None:
    score, _ = batch(forks, seed=seed)
    torch.testing.assert_close(plackett_luce(score + shift), plackett_luce(score), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_single_precision_is_enough_at_any_size(size: float, shift: float) -> None:
    """The gradient is a difference of chances, so that rounding of large scores may not reach it."""
    score = (size * batch(4)[0].detach() + shift).float().requires_grad_()
    exact = score.detach().double().requires_grad_()
    ours = gradient(plackett_luce(score), score).double()
    torch.testing.assert_close(ours, gradient(plackett_luce(exact), exact), rtol=0, atol=1e-6)


@pytest.mark.parametrize("forks", FORKS)
@pytest.mark.parametrize("baseline", [True, False])
def test_losses_and_metrics_equal_plain_numpy(forks: int, baseline: bool) -> None:
    logp, ref_logp = batch(forks)
    losses, metrics = ranking_loss(logp, ref_logp, beta=BETA, c=0.4, baseline=baseline)
    score = BETA * (logp - ref_logp).detach().numpy()
    likelihood = slow_likelihood(score)
    others = (likelihood.sum() - likelihood) / (len(likelihood) - 1) if baseline else 0.0
    factor = 0.4 * (likelihood - others)
    np.testing.assert_allclose(
        losses.detach().numpy(), -likelihood - factor * logp.detach().numpy().sum(axis=1), rtol=1e-12
    )
    gaps = np.array([[row[i] - row[j] for i in range(forks) for j in range(i + 1, forks)] for row in score])
    expected = {
        "h_abs": np.abs(gaps).mean(),
        "F": likelihood.mean(),
        "accuracy": (gaps > 0).mean(),
        "robust_cost": 0.0,
        "t1_weight": BETA * np.abs(slow_slope(score)).mean(),
        "t2_weight": np.abs(factor).mean(),
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name].shape == ()
        assert not metrics[name].requires_grad
        assert metrics[name].item() == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("forks", FORKS)
@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("c", [0.0, 0.3, 1.0])
def test_gradient_is_minus_t1_minus_t2(forks: int, baseline: bool, c: float) -> None:
    """d/dlogp of T1 is beta times the slope of the likelihood; of T2 it is c (F - b), for every segment."""
    logp, ref_logp = batch(forks)
    losses, _ = ranking_loss(logp, ref_logp, beta=BETA, c=c, baseline=baseline)
    score = BETA * (logp - ref_logp).detach().numpy()
    likelihood = slow_likelihood(score)
    others = (likelihood.sum() - likelihood) / (len(likelihood) - 1) if baseline else 0.0
    expected = -BETA * slow_slope(score) - (c * (likelihood - others))[:, None]
    np.testing.assert_allclose(gradient(losses, logp).numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("baseline", [True, False])
def test_c_zero_is_the_likelihood_alone_bit_for_bit(dtype: torch.dtype, baseline: bool) -> None:
    logp, ref_logp = batch(4, dtype)
    losses, metrics = ranking_loss(logp, ref_logp, beta=BETA, c=0.0, baseline=baseline)
    alone = -plackett_luce(BETA * (logp - ref_logp))
    assert torch.equal(losses, alone)
    assert torch.equal(gradient(losses, logp), gradient(alone, logp))
    assert metrics["t2_weight"].item() == 0


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 2e-6), (torch.float64, 2e-15)])
@pytest.mark.parametrize("c", [0.0, 0.4])
@pytest.mark.parametrize("baseline", [True, False])
def test_a_ranking_of_two_is_a_pair(dtype: torch.dtype, rounding: float, c: float, baseline: bool) -> None:
    """Equal to a few roundings, not bit for bit: log softmax here, log sigma there."""
    logp, ref_logp = batch(2, dtype)
    losses, metrics = ranking_loss(logp, ref_logp, beta=BETA, c=c, baseline=baseline)
    pairs, pair_metrics = sail_loss(
        *(logp[:, 0], logp[:, 1], ref_logp[:, 0], ref_logp[:, 1]),
        torch.ones(len(logp), dtype=dtype),
        beta=BETA,
        c=c,
        group=torch.arange(len(logp)) if baseline else None,
    )
    torch.testing.assert_close(losses, pairs, rtol=rounding, atol=rounding)
    torch.testing.assert_close(gradient(losses, logp), gradient(pairs, logp), rtol=rounding, atol=rounding)
    for name, value in pair_metrics.items():
        assert metrics[name].item() == pytest.approx(value.item(), rel=rounding, abs=rounding), name


@given(score=st.lists(st.floats(-30, 30), min_size=2, max_size=5), rho=st.floats(0, 1))
def test_the_worst_order_sorts_the_scores_ascending(score: list[float], rho: float) -> None:
    """The least likely of all orders, found by enumeration."""
    given = torch.tensor([score], dtype=torch.float64)
    likelihood = plackett_luce(given)
    least = plackett_luce(torch.tensor(list(permutations(score)), dtype=torch.float64)).min()
    cost = ranking_cost(given, likelihood, rho)
    assert cost.item() == pytest.approx(rho * (likelihood - least).item(), rel=1e-9, abs=1e-9)
    assert cost >= 0


@pytest.mark.parametrize("c", [0.0, 0.4])
@pytest.mark.parametrize("baseline", [True, False])
def test_a_robust_ranking_of_two_is_a_pair_with_contaminated_answers(c: float, baseline: bool) -> None:
    logp, ref_logp = batch(2)
    losses, metrics = ranking_loss(logp, ref_logp, beta=BETA, c=c, baseline=baseline, rho=0.3)
    pairs, pair_metrics = sail_loss(
        *(logp[:, 0], logp[:, 1], ref_logp[:, 0], ref_logp[:, 1]),
        torch.ones(len(logp), dtype=torch.float64),
        beta=BETA,
        c=c,
        group=torch.arange(len(logp)) if baseline else None,
        rho=0.3,
        worst_case="contaminated",
    )
    assert metrics["robust_cost"] > 0.01
    torch.testing.assert_close(losses, pairs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(losses, logp), gradient(pairs, logp), rtol=1e-12, atol=1e-12)
    for name, value in pair_metrics.items():
        assert metrics[name].item() == pytest.approx(value.item(), rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rho_zero_is_the_trusting_loss_bit_for_bit(dtype: torch.dtype) -> None:
    logp, ref_logp = batch(4, dtype)
    robust, metrics = ranking_loss(logp, ref_logp, beta=BETA, c=0.4, baseline=True, rho=0.0)
    trusting, same = ranking_loss(logp, ref_logp, beta=BETA, c=0.4, baseline=True)
    assert torch.equal(robust, trusting)
    assert torch.equal(gradient(robust, logp), gradient(trusting, logp))
    assert metrics == same
    assert metrics["robust_cost"] == 0


def test_if_all_rankings_are_arbitrary_the_value_is_that_of_the_worst() -> None:
    logp, ref_logp = batch(4)
    losses, metrics = ranking_loss(logp, ref_logp, beta=BETA, c=0.0, baseline=False, rho=1.0)
    score = BETA * (logp - ref_logp)
    torch.testing.assert_close(losses, -plackett_luce(score.sort(dim=1).values))
    assert metrics["robust_cost"] > 0.1


def test_the_gradient_of_the_robust_loss_is_that_of_finite_differences() -> None:
    logp, ref_logp = batch(4)

    def losses(logp: Tensor) -> Tensor:
        return ranking_loss(logp, ref_logp, beta=BETA, c=0.0, baseline=False, rho=0.3)[0]

    assert torch.autograd.gradcheck(losses, (logp,), atol=1e-8)


def test_the_baseline_is_the_mean_of_the_other_prompts() -> None:
    logp, ref_logp = batch(3)
    likelihood = plackett_luce(BETA * (logp - ref_logp)).detach()
    plain, _ = ranking_loss(logp, ref_logp, beta=BETA, c=1.0, baseline=False)
    lifted, _ = ranking_loss(logp, ref_logp, beta=BETA, c=1.0, baseline=True)
    others = leave_one_group_out(likelihood, torch.arange(6))
    torch.testing.assert_close(gradient(lifted - plain, logp), others[:, None].expand(6, 3))


def test_a_prompt_alone_has_no_baseline() -> None:
    logp, ref_logp = (x.detach()[:1].requires_grad_() for x in batch(3))
    with_baseline, _ = ranking_loss(logp, ref_logp, beta=BETA, c=1.0, baseline=True)
    without, _ = ranking_loss(logp, ref_logp, beta=BETA, c=1.0, baseline=False)
    assert torch.equal(with_baseline, without)


def test_descent_lifts_the_best_and_lowers_the_worst() -> None:
    logp, ref_logp = batch(5)
    losses, _ = ranking_loss(logp, ref_logp, beta=BETA, c=0.0, baseline=False)
    downhill = -gradient(losses, logp)
    assert torch.all(downhill[:, 0] > 0)
    assert torch.all(downhill[:, -1] < 0)
    # Only differences of scores count, so that nothing is gained by moving all segments together.
    torch.testing.assert_close(downhill.sum(dim=1), torch.zeros(6).double(), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("score", "accuracy"),
    [([3.0, 2.0, 1.0], 1.0), ([1.0, 2.0, 3.0], 0.0), ([2.0, 3.0, 1.0], 2 / 3), ([1.0, 1.0, 1.0], 0.5)],
)
def test_accuracy_is_over_the_pairs_that_the_ranking_implies(score: list[float], accuracy: float) -> None:
    logp = torch.tensor([score])
    _, metrics = ranking_loss(logp, torch.zeros_like(logp), beta=1.0, c=0.0, baseline=False)
    assert metrics["accuracy"].item() == pytest.approx(accuracy)


def test_wrong_shapes_are_refused_not_broadcast() -> None:
    logp, ref_logp = batch(3)
    for wrong in [(logp, ref_logp[:1]), (logp, ref_logp[:, :1]), (logp[0], ref_logp[0])]:
        with pytest.raises(ValueError, match=r"one shape \(G, K\)"):
            ranking_loss(*wrong, beta=BETA, c=1.0, baseline=True)
