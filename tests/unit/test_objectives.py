"""SAIL's loss against plain numpy, its limits bit for bit, its gradient against formulas and differences."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sailctl.objectives import dpo_loss, leave_one_group_out, pair_score, sail_loss

BETA = 0.3
LABELS = (1.0, -1.0, 0.0, 1.0, -1.0, 1.0, 0.0, -1.0)
GROUPS = (0, 0, 0, 7, 7, 3, 3, 3)


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


def gradients(losses: Tensor, logps: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(losses.sum(), logps[:2]))


def test_scores_and_losses_equal_plain_numpy() -> None:
    logps, label, group = batch()
    h, label_logp = numpy_label_logp(logps, label, BETA)
    np.testing.assert_allclose(pair_score(*logps, BETA).detach().numpy(), h, rtol=1e-12)

    for groups in (None, group):
        losses, metrics = sail_loss(*logps, label, beta=BETA, c=0.4, group=groups)
        baseline = 0.0 if groups is None else slow_baseline(label_logp, group.numpy())
        factor = 0.4 * (label_logp - baseline)
        total = (logps[0] + logps[1]).detach().numpy()
        np.testing.assert_allclose(losses.detach().numpy(), -label_logp - factor * total, rtol=1e-12)

        answered = label.numpy() != 0
        sigma = 1 / (1 + np.exp(-h))
        expected = {
            "h_abs": np.abs(h).mean(),
            "F": label_logp.mean(),
            "accuracy": (np.sign(h) == label.numpy())[answered].mean(),
            "t1_weight": (BETA * np.abs((1 + label.numpy()) / 2 - sigma)).mean(),
            "t2_weight": np.abs(factor).mean(),
        }
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            assert metrics[name].shape == ()
            assert not metrics[name].requires_grad
            assert metrics[name].item() == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_groups", [True, False])
def test_c_zero_is_dpo_bit_for_bit(dtype: torch.dtype, with_groups: bool) -> None:
    logps, label, group = batch(dtype)
    losses, metrics = sail_loss(*logps, label, beta=BETA, c=0.0, group=group if with_groups else None)
    dpo = dpo_loss(pair_score(*logps, BETA), label)
    assert torch.equal(losses, dpo)
    assert metrics["t2_weight"].item() == 0
    for ours, theirs in zip(gradients(losses, logps), gradients(dpo, logps), strict=True):
        assert torch.equal(ours, theirs)


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


@given(seed=st.integers(0, 2**32 - 1), beta=st.floats(1e-3, 5), c=st.floats(0, 2), grouped=st.booleans())
def test_swapping_the_segments_and_the_label_changes_nothing(
    seed: int, beta: float, c: float, grouped: bool
) -> None:
    logps, label, group = batch(seed=seed)
    l1, l2, r1, r2 = logps
    groups = group if grouped else None
    losses, metrics = sail_loss(l1, l2, r1, r2, label, beta=beta, c=c, group=groups)
    swapped, swapped_metrics = sail_loss(l2, l1, r2, r1, -label, beta=beta, c=c, group=groups)
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


@pytest.mark.parametrize("c", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("with_groups", [True, False])
def test_gradient_is_minus_t1_minus_t2(c: float, with_groups: bool) -> None:
    """d/dlogp of T1 is +-beta (p - sigma(h)) with p the probability of the label; of T2 it is c (F - b)."""
    logps, label, group = batch()
    h, label_logp = numpy_label_logp(logps, label, BETA)
    losses, _ = sail_loss(*logps, label, beta=BETA, c=c, group=group if with_groups else None)
    grad_1, grad_2 = gradients(losses, logps)
    t1 = BETA * ((1 + label.numpy()) / 2 - 1 / (1 + np.exp(-h)))
    t2 = c * (label_logp - (slow_baseline(label_logp, group.numpy()) if with_groups else 0.0))
    np.testing.assert_allclose(grad_1.numpy(), -t1 - t2, rtol=1e-10)
    np.testing.assert_allclose(grad_2.numpy(), t1 - t2, rtol=1e-10)


def test_t1_gradient_equals_finite_differences() -> None:
    logps, label, _ = batch()

    def dpo(l1: Tensor, l2: Tensor) -> Tensor:
        return sail_loss(l1, l2, *logps[2:], label, beta=BETA, c=0.0, group=None)[0]

    assert torch.autograd.gradcheck(dpo, tuple(logps[:2]), eps=1e-6, atol=1e-8)


def test_t2_gradient_equals_finite_differences_with_f_held() -> None:
    """Central differences of sum(-c (F - b) (logp_1 + logp_2)) with F and b computed once, in numpy."""
    logps, label, group = batch()
    c, step = 0.7, 1e-5
    _, label_logp = numpy_label_logp(logps, label, BETA)
    held = label_logp - slow_baseline(label_logp, group.numpy())

    with_t2, _ = sail_loss(*logps, label, beta=BETA, c=c, group=group)
    without, _ = sail_loss(*logps, label, beta=BETA, c=0.0, group=group)
    ours = gradients(with_t2 - without, logps)

    points = [logp.detach().numpy() for logp in logps[:2]]

    def surrogate(l1: np.ndarray, l2: np.ndarray) -> float:
        return float((-c * held * (l1 + l2)).sum())

    for k in (0, 1):
        for i in range(len(LABELS)):
            up, down = [p.copy() for p in points], [p.copy() for p in points]
            up[k][i] += step
            down[k][i] -= step
            slope = (surrogate(*up) - surrogate(*down)) / (2 * step)
            assert ours[k][i].item() == pytest.approx(slope, abs=1e-8)


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
    with pytest.raises(ValueError, match="must all be"):
        pair_score(logps[0][:1], *logps[1:], BETA)
    with pytest.raises(ValueError, match="labels"):
        sail_loss(*logps, label[:1], beta=BETA, c=0.0, group=None)
    with pytest.raises(ValueError, match="groups"):
        sail_loss(*logps, label, beta=BETA, c=1.0, group=group[:1])


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
