"""SAIL's loss against plain numpy, its limits bit for bit, its gradient against formulas and differences."""

from __future__ import annotations

from itertools import pairwise
from typing import TypedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sailctl.objectives import (
    dpo_loss,
    leave_one_group_out,
    pair_score,
    robust_cost,
    sail_loss,
    score_function_terms,
)

BETA = 0.3
LABELS = (1.0, -1.0, 0.0, 1.0, -1.0, 1.0, 0.0, -1.0)
GROUPS = (0, 0, 0, 7, 7, 3, 3, 3)


class Drawn(TypedDict):
    """What the policy itself has drawn."""

    responses: bool
    policy_labels: bool


class Robust(TypedDict, total=False):
    rho: float
    worst_case: str


DESIGNS: dict[str, Drawn] = {
    "offline": {"responses": False, "policy_labels": False},
    "DDP": {"responses": False, "policy_labels": True},
    "DPP": {"responses": True, "policy_labels": True},
    "DPR": {"responses": True, "policy_labels": False},
}
TEACHERS: dict[str, Robust] = {
    "trusted": {},
    "exact": {"rho": 0.3},
    "clipped": {"rho": 0.7, "worst_case": "clipped"},
    "contaminated": {"rho": 0.4, "worst_case": "contaminated"},
    "anything": {"rho": 1.0},
}
every_design = pytest.mark.parametrize("drawn", DESIGNS.values(), ids=DESIGNS)
every_teacher = pytest.mark.parametrize("robust", TEACHERS.values(), ids=TEACHERS)
grouped_or_not = pytest.mark.parametrize("with_groups", [True, False], ids=["baseline", "no baseline"])


def batch(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Four (B,) log-probabilities (the policy's two with gradient), labels and groups, B = 8."""
    rng = np.random.default_rng(seed)
    logps = [torch.tensor(rng.normal(-5, 3, len(LABELS)), dtype=dtype) for _ in range(4)]
    for logp in logps[:2]:
        logp.requires_grad_()
    return logps, torch.tensor(LABELS, dtype=dtype), torch.tensor(GROUPS)


def numpy_label_logp(logps: list[Tensor], label: Tensor, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """h and F, recomputed pair by pair."""
    scores, values = [], []
    for l1, l2, r1, r2, z in zip(*(x.detach().numpy() for x in (*logps, label)), strict=True):
        h = beta * (l1 - r1) - beta * (l2 - r2)
        first, second = -np.log1p(np.exp(-h)), -np.log1p(np.exp(h))
        scores.append(h)
        values.append({1.0: first, -1.0: second, 0.0: (first + second) / 2}[float(z)])
    return np.array(scores), np.array(values)


def slow_baseline(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    result = []
    for i in range(len(values)):
        others = [values[j] for j in range(len(values)) if group[j] != group[i]]
        result.append(sum(others) / len(others) if others else 0.0)
    return np.array(result)


def slow_cost(h: np.ndarray, label: np.ndarray, robust: Robust) -> tuple[np.ndarray, np.ndarray]:
    """The robust cost and its slope in h, pair by pair."""
    costs, slopes = [], []
    for score, z in zip(h, label, strict=True):
        rate, favoured = robust.get("rho", 0.0), (1 + z) / 2 if score > 0 else (1 - z) / 2
        if robust.get("worst_case") == "clipped":
            rate = min(rate, favoured)
        if robust.get("worst_case") == "contaminated":
            rate = rate * favoured
        costs.append(rate * abs(score))
        slopes.append(rate * np.sign(score))
    return np.array(costs), np.array(slopes)


def gradients(losses: Tensor, logps: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(losses.sum(), logps[:2], retain_graph=True))


@every_design
@every_teacher
@grouped_or_not
def test_losses_and_metrics_equal_plain_numpy(drawn: Drawn, robust: Robust, with_groups: bool) -> None:
    logps, label, group = batch()
    h, label_logp = numpy_label_logp(logps, label, BETA)
    np.testing.assert_allclose(pair_score(*logps, BETA).detach().numpy(), h, rtol=1e-12)

    groups = group if with_groups else None
    losses, metrics = sail_loss(*logps, label, beta=BETA, c=0.4, group=groups, **drawn, **robust)
    cost, _ = slow_cost(h, label.numpy(), robust)
    value = label_logp - cost
    baseline = slow_baseline(value, group.numpy()) if with_groups else 0.0
    factor = 0.4 * (value - baseline) * any(drawn.values())
    both = (logps[0] + logps[1]).detach().numpy()
    chosen = both * drawn["responses"] + label_logp * drawn["policy_labels"]
    np.testing.assert_allclose(losses.detach().numpy(), -value - factor * chosen, rtol=1e-12)

    answered = label.numpy() != 0
    sigma = 1 / (1 + np.exp(-h))
    expected = {
        "h_abs": np.abs(h).mean(),
        "F": label_logp.mean(),
        "accuracy": (np.sign(h) == label.numpy())[answered].mean(),
        "robust_cost": cost.mean(),
        "t1_weight": (BETA * np.abs((1 + label.numpy()) / 2 - sigma)).mean(),
        "t2_weight": np.abs(factor).mean(),
    }
    assert metrics.keys() == expected.keys()
    for name, number in expected.items():
        assert metrics[name].shape == ()
        assert not metrics[name].requires_grad
        assert metrics[name].item() == pytest.approx(number, rel=1e-12), name


def assert_same_bits(ours: Tensor, theirs: Tensor, logps: list[Tensor]) -> None:
    """Losses and their gradients, bit for bit."""
    assert torch.equal(ours, theirs)
    for here, there in zip(gradients(ours, logps), gradients(theirs, logps), strict=True):
        assert torch.equal(here, there)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_design
@grouped_or_not
def test_c_zero_is_dpo_bit_for_bit(dtype: torch.dtype, drawn: Drawn, with_groups: bool) -> None:
    logps, label, group = batch(dtype)
    groups = group if with_groups else None
    losses, metrics = sail_loss(*logps, label, beta=BETA, c=0.0, group=groups, **drawn)
    assert_same_bits(losses, dpo_loss(pair_score(*logps, BETA), label), logps)
    assert metrics["t2_weight"].item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_with_somebody_elses_labels_is_dpo_bit_for_bit_whatever_c(dtype: torch.dtype) -> None:
    logps, label, group = batch(dtype)
    offline = DESIGNS["offline"]
    losses, metrics = sail_loss(*logps, label, beta=BETA, c=1.0, group=group, **offline)
    assert_same_bits(losses, dpo_loss(pair_score(*logps, BETA), label), logps)
    assert metrics["t2_weight"].item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("worst_case", ["exact", "clipped", "contaminated"])
def test_rho_zero_is_sail_bit_for_bit(dtype: torch.dtype, worst_case: str) -> None:
    """SAIL written out, without a word about robustness."""
    logps, label, group = batch(dtype)
    dpo = dpo_loss(pair_score(*logps, BETA), label)
    value = -dpo.detach()
    sail = dpo - 0.4 * (value - leave_one_group_out(value, group)) * (logps[0] + logps[1])
    losses, metrics = sail_loss(*logps, label, beta=BETA, c=0.4, group=group, rho=0.0, worst_case=worst_case)
    assert_same_bits(losses, sail, logps)
    assert metrics["robust_cost"].item() == 0


def test_sail_is_the_default_design() -> None:
    logps, label, group = batch()
    plain, _ = sail_loss(*logps, label, beta=BETA, c=0.4, group=group)
    named, _ = sail_loss(
        *logps, label, beta=BETA, c=0.4, group=group, **DESIGNS["DPR"], rho=0, worst_case="exact"
    )
    assert_same_bits(plain, named, logps)
    robust, _ = sail_loss(*logps, label, beta=BETA, c=0.4, group=group, rho=0.3)
    named, _ = sail_loss(*logps, label, beta=BETA, c=0.4, group=group, rho=0.3, worst_case="exact")
    assert_same_bits(robust, named, logps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_c_zero_is_the_textbook_loss_of_chosen_and_rejected(dtype: torch.dtype) -> None:
    """The published form, with the winner put first, has no label in it: an independent road to -F."""
    logps, label, _ = batch(dtype)
    answered = label != 0
    l1, l2, r1, r2 = (logp[answered] for logp in logps)
    first = label[answered] > 0
    chosen, rejected = torch.where(first, l1 - r1, l2 - r2), torch.where(first, l2 - r2, l1 - r1)
    textbook = -torch.nn.functional.logsigmoid(BETA * (chosen - rejected))
    losses, _ = sail_loss(*logps, label, beta=BETA, c=0.0, group=None)
    assert torch.equal(losses[answered], textbook)
    for ours, theirs in zip(gradients(losses[answered], logps), gradients(textbook, logps), strict=True):
        assert torch.equal(ours, theirs)


def test_c_zero_never_builds_the_surrogate() -> None:
    """Even an infinite log-probability sum, which the surrogate would turn into NaN, leaves no trace."""
    logps, label, _ = batch(torch.float32)
    with torch.no_grad():
        for logp in logps:
            logp.fill_(3e38)
    assert torch.isinf(logps[0] + logps[1]).all()
    losses, _ = sail_loss(*logps, label, beta=BETA, c=0.0, group=None)
    assert torch.isfinite(losses).all()
    assert all(torch.isfinite(g).all() for g in gradients(losses, logps))


def test_a_tie_is_half_of_each_answer() -> None:
    logps, label, _ = batch()
    h = pair_score(*logps, BETA)
    tie = dpo_loss(h, torch.zeros_like(label))
    both = dpo_loss(h, torch.ones_like(label)) / 2 + dpo_loss(h, -torch.ones_like(label)) / 2
    torch.testing.assert_close(tie, both, rtol=1e-15, atol=0)
    assert torch.all(dpo_loss(torch.zeros(3), torch.zeros(3)) == np.float32(np.log(2)))
    (slope,) = torch.autograd.grad(dpo_loss(h, torch.zeros_like(label)).sum(), h)
    torch.testing.assert_close(slope, h.sigmoid() - 0.5)


@given(
    seed=st.integers(0, 2**32 - 1),
    beta=st.floats(1e-3, 5),
    c=st.floats(0, 2),
    grouped=st.booleans(),
    drawn=st.sampled_from(list(DESIGNS.values())),
    robust=st.sampled_from(list(TEACHERS.values())),
)
def test_swapping_the_segments_and_the_label_changes_nothing(
    seed: int, beta: float, c: float, grouped: bool, drawn: Drawn, robust: Robust
) -> None:
    logps, label, group = batch(seed=seed)
    l1, l2, r1, r2 = logps
    groups = group if grouped else None
    losses, metrics = sail_loss(l1, l2, r1, r2, label, beta=beta, c=c, group=groups, **drawn, **robust)
    swapped, swapped_metrics = sail_loss(
        l2, l1, r2, r1, -label, beta=beta, c=c, group=groups, **drawn, **robust
    )
    assert torch.equal(losses, swapped)
    for name, value in metrics.items():
        torch.testing.assert_close(value, swapped_metrics[name])
    assert torch.equal(pair_score(l1, l2, r1, r2, beta), -pair_score(l2, l1, r2, r1, beta))


def test_flipping_only_the_label_changes_the_loss() -> None:
    logps, label, _ = batch()
    losses, _ = sail_loss(*logps, label, beta=BETA, c=0.0, group=None)
    flipped, _ = sail_loss(*logps, -label, beta=BETA, c=0.0, group=None)
    answered = label != 0
    assert torch.all((losses - flipped).abs()[answered] > 1e-3)
    # log sigma(h) - log sigma(-h) = h
    torch.testing.assert_close(flipped - losses, label * pair_score(*logps, BETA))


@given(seed=st.integers(0, 2**32 - 1), beta=st.floats(1e-3, 5))
def test_beta_scales_the_log_ratios(seed: int, beta: float) -> None:
    (l1, l2, r1, r2), _, _ = batch(seed=seed)
    torch.testing.assert_close(pair_score(l1, l2, r1, r2, beta), beta * pair_score(l1, l2, r1, r2, 1.0))
    doubled = pair_score(l1 + (l1 - r1), l2 + (l2 - r2), r1, r2, beta)
    torch.testing.assert_close(doubled, pair_score(l1, l2, r1, r2, 2 * beta))


def test_what_both_segments_share_cancels_in_the_score() -> None:
    """Dynamics and the partition function of the start state add the same number to both log-ratios."""
    (l1, l2, r1, r2), _, _ = batch()
    shift = torch.linspace(-50, 50, len(LABELS), dtype=torch.float64)
    torch.testing.assert_close(
        pair_score(l1 + shift, l2 + shift, r1, r2, BETA), pair_score(l1, l2, r1, r2, BETA)
    )


@given(data=st.data(), pairs=st.integers(1, 12))
def test_baseline_equals_a_slow_loop(data: st.DataObject, pairs: int) -> None:
    group = np.array(data.draw(st.lists(st.integers(-2, 4), min_size=pairs, max_size=pairs)))
    values = np.array(data.draw(st.lists(st.floats(-20, 0), min_size=pairs, max_size=pairs)))
    ours = leave_one_group_out(torch.from_numpy(values), torch.from_numpy(group))
    np.testing.assert_allclose(ours.numpy(), slow_baseline(values, group), rtol=1e-12, atol=1e-300)


def test_one_group_has_no_baseline() -> None:
    logps, label, group = batch()
    alone, _ = sail_loss(*logps, label, beta=BETA, c=1.0, group=torch.full_like(group, 5))
    without, _ = sail_loss(*logps, label, beta=BETA, c=1.0, group=None)
    assert torch.equal(alone, without)


@every_design
@every_teacher
@grouped_or_not
@pytest.mark.parametrize("c", [0.0, 0.3, 1.0])
def test_gradient_is_minus_the_terms_of_the_design(
    drawn: Drawn, robust: Robust, with_groups: bool, c: float
) -> None:
    """d/dlogp of T1 is +-beta (p - sigma(h)), p the probability of the label; of what is drawn, c (V - b)
    times 1 for a response and the slope of T1 for a label. V is F minus the robust cost."""
    logps, label, group = batch()
    h, label_logp = numpy_label_logp(logps, label, BETA)
    groups = group if with_groups else None
    losses, _ = sail_loss(*logps, label, beta=BETA, c=c, group=groups, **drawn, **robust)
    grad_1, grad_2 = gradients(losses, logps)

    t1 = BETA * ((1 + label.numpy()) / 2 - 1 / (1 + np.exp(-h)))
    cost, cost_slope = slow_cost(h, label.numpy(), robust)
    direct = BETA * cost_slope
    value = label_logp - cost
    factor = c * (value - (slow_baseline(value, group.numpy()) if with_groups else 0.0))
    t2, t3 = factor * drawn["responses"], factor * drawn["policy_labels"] * t1
    np.testing.assert_allclose(grad_1.numpy(), -t1 + direct - t2 - t3, rtol=1e-10)
    np.testing.assert_allclose(grad_2.numpy(), t1 - direct - t2 + t3, rtol=1e-10)


@every_design
@every_teacher
@grouped_or_not
def test_gradient_equals_finite_differences_with_the_factor_held(
    drawn: Drawn, robust: Robust, with_groups: bool
) -> None:
    """Central differences, in numpy, of -F + cost - c (V - b) log p(drawn), with V and b computed once."""
    logps, label, group = batch()
    c, step = 0.7, 1e-5
    h, label_logp = numpy_label_logp(logps, label, BETA)
    held_cost, _ = slow_cost(h, label.numpy(), robust)
    value = label_logp - held_cost
    held = c * (value - (slow_baseline(value, group.numpy()) if with_groups else 0.0))

    def surrogate(l1: Tensor, l2: Tensor) -> float:
        h, label_logp = numpy_label_logp([l1, l2, *logps[2:]], label, BETA)
        cost, _ = slow_cost(h, label.numpy(), robust)
        chosen = drawn["responses"] * (l1 + l2).numpy() + drawn["policy_labels"] * label_logp
        return float((-label_logp + cost - held * chosen).sum())

    groups = group if with_groups else None
    losses, _ = sail_loss(*logps, label, beta=BETA, c=c, group=groups, **drawn, **robust)
    ours = gradients(losses, logps)
    points = [logp.detach() for logp in logps[:2]]
    for k in (0, 1):
        for i in range(len(LABELS)):
            up, down = [p.clone() for p in points], [p.clone() for p in points]
            up[k][i] += step
            down[k][i] -= step
            slope = (surrogate(*up) - surrogate(*down)) / (2 * step)
            assert ours[k][i].item() == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("c", [0.2, 1.0])
def test_t3_is_half_the_gradient_of_f_squared(c: float) -> None:
    """log p_theta(z) is F itself, so that F grad log p_theta(z) = grad(F^2) / 2 (no baseline)."""
    logps, label, _ = batch()
    with_t3, _ = sail_loss(*logps, label, beta=BETA, c=c, group=None, **DESIGNS["DDP"])
    without, _ = sail_loss(*logps, label, beta=BETA, c=0.0, group=None)
    t3 = gradients(without - with_t3, logps)
    expected = gradients(c * without.square() / 2, logps)
    for ours, theirs in zip(t3, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
        assert ours.abs().max() > 1e-2


@pytest.mark.parametrize("worst_case", ["exact", "clipped", "contaminated"])
def test_a_soft_label_is_the_mean_of_its_answers(worst_case: str) -> None:
    """Of the loss and of its gradient; a clipped adversary is stopped by the label's own probability."""
    logps, _, _ = batch()
    p = torch.linspace(0.02, 0.98, len(LABELS), dtype=torch.float64)
    soft, metrics = sail_loss(*logps, 2 * p - 1, beta=BETA, c=0.0, group=None, rho=0.3, worst_case=worst_case)
    h = pair_score(*logps, BETA)
    rate, favoured = torch.full_like(p, 0.3), torch.where(h > 0, p, 1 - p)
    if worst_case == "clipped":
        rate = torch.minimum(rate, favoured)
    if worst_case == "contaminated":
        rate = rate * favoured
    mean = p * dpo_loss(h, torch.ones_like(p)) + (1 - p) * dpo_loss(h, -torch.ones_like(p))
    torch.testing.assert_close(soft, mean + rate * h.abs())
    for ours, theirs in zip(gradients(soft, logps), gradients(mean + rate * h.abs(), logps), strict=True):
        torch.testing.assert_close(ours, theirs)
    right = ((2 * p - 1).sign() == h.sign()).double()
    expected = (right * (2 * p - 1).abs()).sum() / (2 * p - 1).abs().sum()
    torch.testing.assert_close(metrics["accuracy"], expected)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 0.1, 1.0])
def test_soft_labels_count_by_how_sure_they_are_however_unsure_all_are(size: float) -> None:
    h, zero = torch.tensor([2.0, -1.0, 3.0, 0.5]), torch.zeros(4)
    label = size * torch.tensor([1.0, 0.5, -0.25, 0.0])
    _, metrics = sail_loss(h, zero, zero, zero, label, beta=1.0, c=0.0, group=None)
    assert metrics["accuracy"].item() == pytest.approx(1 / 1.75)


def test_t1_vanishes_over_the_policys_own_labels() -> None:
    """Sum over z of p_theta(z) grad log p_theta(z) is grad 1 = 0, pair by pair."""
    logps, label, _ = batch()
    h = pair_score(*logps, BETA)
    chance = h.detach().sigmoid()
    mean = -chance * dpo_loss(h, torch.ones_like(label)) - (1 - chance) * dpo_loss(h, -torch.ones_like(label))
    for gradient in gradients(mean, logps):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-15)


def test_score_function_terms_are_minus_the_held_factor_times_what_was_drawn() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    drawn = torch.tensor([-3.0, -5.0, -7.0], requires_grad=True)
    total, factor = score_function_terms(losses, c=0.5, group=torch.tensor([0, 0, 1]), drawn=drawn)
    # F is -1, -2, -4; the baselines are -4, -4 and -1.5
    assert factor.tolist() == [1.5, 1.0, -1.25]
    assert total.tolist() == [1 + 4.5, 2 + 5, 4 - 8.75]
    by_loss, by_drawn = torch.autograd.grad(total.sum(), (losses, drawn))
    assert by_loss.tolist() == [1, 1, 1]
    assert by_drawn.tolist() == [-1.5, -1.0, 1.25]
    without, factor = score_function_terms(losses, c=0.5, group=None, drawn=drawn)
    assert factor.tolist() == [-0.5, -1.0, -2.0]
    assert without.tolist() == [1 - 1.5, 2 - 5, 4 - 14]


@pytest.mark.parametrize(("c", "drawn"), [(0.0, torch.ones(3)), (1.0, None)])
def test_score_function_terms_that_add_nothing_return_the_losses_themselves(
    c: float, drawn: Tensor | None
) -> None:
    losses = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    same, factor = score_function_terms(losses, c=c, group=None, drawn=drawn)
    assert same is losses
    assert factor.tolist() == [0, 0, 0]
    assert not factor.requires_grad


def test_robust_loss_is_sail_plus_the_cost() -> None:
    logps, label, _ = batch()
    h = pair_score(*logps, BETA)
    sail, _ = sail_loss(*logps, label, beta=BETA, c=0.0, group=None)
    robust, _ = sail_loss(*logps, label, beta=BETA, c=0.0, group=None, rho=0.3)
    torch.testing.assert_close(robust, sail + robust_cost(h, 0.3), rtol=1e-15, atol=0)


def test_gradient_ignores_the_size_of_the_log_probability() -> None:
    """Only log-ratios matter: dividing T2 by log pi, as the authors' released code does, would show here."""
    logps, label, group = batch()
    far = [(logp.detach() - 40).requires_grad_(logp.requires_grad) for logp in logps]
    grads = []
    for point in (logps, far):
        losses, _ = sail_loss(*point, label, beta=BETA, c=1.0, group=group)
        grads.append(gradients(losses, point))
    for here, there in zip(*grads, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-12)


def test_steps_of_gradient_ascent_move_towards_the_label() -> None:
    """Descending the loss raises the preferred segment's log-probability and lowers the other's (c = 0)."""
    logps, label, _ = batch()
    losses, _ = sail_loss(*logps, label, beta=BETA, c=0.0, group=None)
    grad_1, grad_2 = gradients(losses, logps)
    answered = label != 0
    assert torch.all((-grad_1 * label)[answered] > 0)
    assert torch.all((-grad_2 * label)[answered] < 0)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e8])
def test_large_scores_stay_finite(size: float) -> None:
    label = torch.tensor([1.0, -1.0, 0.0] * 2)
    l1 = torch.tensor([size] * 3 + [-size] * 3, requires_grad=True)
    zero = torch.zeros(6)
    l2 = torch.zeros(6, requires_grad=True)
    losses, metrics = sail_loss(l1, l2, zero, zero, label, beta=1.0, c=0.0, group=None)
    torch.testing.assert_close(losses, torch.tensor([0, size, size / 2, size, 0, size / 2]))
    grads = gradients(losses, [l1, l2])
    torch.testing.assert_close(grads[0], torch.tensor([0, 1, 0.5, -1, 0, -0.5]))
    assert all(torch.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("label", "h", "accuracy"),
    [
        ([1, -1, 1, -1], [2, -2, 1, -1], 1.0),
        ([1, -1, 1, -1], [-2, 2, -1, 1], 0.0),
        ([1, -1, 1, 1], [2, -2, -1, -1], 0.5),
        ([1, 0, 0, 0], [2, 3, -3, 0], 1.0),
        ([1, 1, -1, 0], [0, 1, -1, -5], 5 / 6),
        ([1, -1, 1, -1], [0, 0, 0, 0], 0.5),
        ([0, 0, 0, 0], [3, -3, 0, 1], 0.5),
    ],
)
def test_accuracy_leaves_ties_out_and_halves_zero_scores(
    label: list[float], h: list[float], accuracy: float
) -> None:
    zero = torch.zeros(4)
    _, metrics = sail_loss(
        torch.tensor(h, dtype=torch.float32), zero, zero, zero, torch.tensor(label, dtype=torch.float32),
        beta=1.0, c=0.5, group=None,
    )  # fmt: skip
    assert metrics["accuracy"].item() == pytest.approx(accuracy)


def test_wrong_shapes_are_refused_not_broadcast() -> None:
    logps, label, group = batch()
    column = [logp[:, None] for logp in logps]
    with pytest.raises(ValueError, match="must all be"):
        pair_score(*column, BETA)
    for i in range(4):
        with pytest.raises(ValueError, match="must all be"):
            pair_score(*logps[:i], logps[i][:1], *logps[i + 1 :], BETA)
    with pytest.raises(ValueError, match="labels"):
        sail_loss(*logps, label[:1], beta=BETA, c=0.0, group=None)
    with pytest.raises(ValueError, match="groups"):
        sail_loss(*logps, label, beta=BETA, c=1.0, group=group[:1])


def test_an_unknown_worst_case_is_refused() -> None:
    logps, label, group = batch()
    with pytest.raises(ValueError, match="exact, clipped or contaminated, not 'Exact'"):
        sail_loss(*logps, label, beta=BETA, c=1.0, group=group, rho=0.1, worst_case="Exact")


def test_a_smaller_c_is_between_dpo_and_sail() -> None:
    logps, label, group = batch()
    grads = [
        gradients(sail_loss(*logps, label, beta=BETA, c=c, group=group)[0], logps)[0]
        for c in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    steps = [after - before for before, after in pairwise(grads)]
    assert steps[0].abs().max() > 1e-2
    for step in steps[1:]:
        torch.testing.assert_close(step, steps[0])
