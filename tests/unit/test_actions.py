"""SAIL on single actions: labels, limits bit for bit, many actions as pairs, rankings, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from sailctl.objectives import (
    action_labels,
    label_temperature,
    pathwise_action_loss,
    pessimistic_value,
    ranked_action_loss,
    ranking_loss,
    sail_loss,
    score_action_loss,
)
from tests.drawn_actions import Case, Draw, Loss, gradients, sample

FORMS = {"pathwise": Case.pathwise, "score": Case.score}
TEACHERS = {"trusted": {}, "exact": {"rho": 0.3}, "clipped": {"rho": 0.6, "worst_case": "clipped"}}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
each_teacher = pytest.mark.parametrize("teacher", TEACHERS.values(), ids=TEACHERS)


def chosen(draw: Draw, actions: list[int]) -> Draw:
    return Draw(*(getattr(draw, name)[:, actions] for name in ("q", "logp", "ref_logp", "logp_fixed")))


@each_form
@each_teacher
def test_many_actions_are_the_mean_over_their_pairs_in_any_order(
    form: Callable[..., Loss], teacher: dict[str, object]
) -> None:
    case, theta, draw = sample(5)
    case = replace(case, **teacher)
    losses, _ = form(case, draw, 0.7)
    pairs = torch.stack([form(case, chosen(draw, list(pair)), 0.7)[0] for pair in combinations(range(4), 2)])
    torch.testing.assert_close(losses, pairs.mean(dim=0))
    torch.testing.assert_close(gradients(losses, theta), gradients(pairs.mean(dim=0), theta))
    turned, _ = form(case, chosen(draw, [2, 0, 3, 1]), 0.7)
    torch.testing.assert_close(losses, turned)
    torch.testing.assert_close(gradients(losses, theta), gradients(turned, theta))


# Limits


@pytest.mark.parametrize("c", [0.0, 0.7])
@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("states", [1, 2, 5])
@each_teacher
def test_the_score_form_is_sail_on_all_pairs_with_soft_labels(
    c: float, baseline: bool, states: int, teacher: dict[str, object]
) -> None:
    case, theta, draw = sample(states)
    case = replace(case, **teacher)
    losses, metrics = case.score(draw, c, baseline)
    first, second = np.array(list(combinations(range(4), 2))).T
    logp, ref = draw.logp_fixed, draw.ref_logp.detach()
    q = draw.q.detach()
    p = ((q[:, first] - q[:, second]) / case.tau).sigmoid()
    pairs = [x.flatten() for x in (logp[:, first], logp[:, second], ref[:, first], ref[:, second])]
    group = torch.arange(states).repeat_interleave(6) if baseline else None
    expected, same = sail_loss(
        *pairs, (2 * p - 1).flatten(), beta=case.beta, c=c, group=group,
        rho=case.rho, worst_case=case.worst_case,
    )  # fmt: skip
    torch.testing.assert_close(losses, expected.view(states, 6).mean(dim=1))
    torch.testing.assert_close(gradients(losses, theta), gradients(expected / 6, theta))
    same["label_entropy"] = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    assert metrics.keys() == same.keys()
    for name, value in metrics.items():
        torch.testing.assert_close(value, same[name], msg=name)
        assert not value.requires_grad


@pytest.mark.parametrize("c", [0.0, 0.7])
def test_two_actions_without_a_baseline_are_a_pair_of_sail_bit_for_bit(c: float) -> None:
    case, theta, draw = sample(6, forks=2)
    losses, _ = case.score(draw, c)
    pair = (*draw.logp_fixed.unbind(dim=1), *draw.ref_logp.detach().unbind(dim=1))
    label = action_labels(draw.q, case.tau)[:, 0]
    expected, _ = sail_loss(*pair, label, beta=case.beta, c=c, group=None)
    assert torch.equal(losses, expected)
    assert torch.equal(gradients(losses, theta), gradients(expected, theta))


def test_c_zero_never_builds_t2() -> None:
    """Even an infinite sum of log-probabilities, or an infinite score, which T2 would turn into NaN, leaves
    no trace."""
    logp = torch.full((2, 3), 3e38, requires_grad=True)
    losses, _ = score_action_loss(
        torch.rand(2, 3), logp, torch.zeros(2, 3), temperature=1.0, beta=0.5, c=0.0, baseline=True
    )
    (gradient,) = torch.autograd.grad(losses.sum(), logp)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(gradient).all()


@each_teacher
@pytest.mark.parametrize("c", [0.0, 0.7])
def test_both_forms_have_the_same_metrics(c: float, teacher: dict[str, object]) -> None:
    case, _, draw = sample(5)
    case = replace(case, **teacher)
    pathwise, score = case.pathwise(draw, c)[1], case.score(draw, c, True)[1]
    assert pathwise.keys() == score.keys()
    for name, value in pathwise.items():
        torch.testing.assert_close(value, score[name], msg=name)
        assert not value.requires_grad
    assert (pathwise["t2_weight"] > 0) == (c > 0)


@pytest.mark.parametrize("c", [0.0, 0.7])
@pytest.mark.parametrize("forks", [2, 4])
def test_the_pathwise_loss_without_rho_has_the_gradient_of_its_terms_alone(c: float, forks: int) -> None:
    """Written out for each pair: w at one moving action, less w at the other, and F where c is not 0. What
    rho needs may be anything while rho is 0."""
    case, theta, draw = sample(6, forks=forks)
    u, r = draw.q / case.tau, case.beta * (draw.logp - draw.ref_logp)
    written = []
    for i, j in combinations(range(forks), 2):
        here = (r[:, i] - r[:, j].detach()).sigmoid() - (u[:, i] - u[:, j].detach()).sigmoid()
        there = (r[:, i].detach() - r[:, j]).sigmoid() - (u[:, i].detach() - u[:, j]).sigmoid()
        t1, z = case.beta * (here - there), 2 * (u[:, i] - u[:, j]).sigmoid() - 1
        h, first = r[:, i] - r[:, j], (1 + z) / 2
        minus_f = -(
            first * torch.nn.functional.logsigmoid(h) + (1 - first) * torch.nn.functional.logsigmoid(-h)
        )
        written.append(t1 + c * minus_f if c else t1)
    expected = torch.stack(written, dim=1).mean(dim=1)
    nothing = torch.full_like(draw.q, math.nan)
    losses, metrics = replace(case, worst_case="clipped").pathwise(replace(draw, logp_fixed=nothing), c)
    torch.testing.assert_close(gradients(losses, theta), gradients(expected, theta), rtol=1e-12, atol=1e-15)
    assert metrics["robust_cost"] == 0


def test_the_teacher_is_trusted_by_default_and_the_worst_case_exact() -> None:
    case, _, draw = sample(4)
    moving, fixed = (draw.q, draw.logp, draw.ref_logp), (draw.q, draw.logp_fixed, draw.ref_logp.detach())
    plain, plain_pathwise = case.score(draw, 0.7)[0], case.pathwise(draw, 0.7)[0]
    exact = replace(case, rho=0.3)
    losses, _ = score_action_loss(*fixed, temperature=0.8, beta=0.4, c=0.7, baseline=False)
    assert torch.equal(losses, plain)
    losses, _ = score_action_loss(*fixed, temperature=0.8, beta=0.4, c=0.7, baseline=False, rho=0.3)
    assert torch.equal(losses, exact.score(draw, 0.7)[0])
    losses, _ = pathwise_action_loss(*moving, temperature=0.8, beta=0.4, c=0.7)
    assert torch.equal(losses, plain_pathwise)
    losses, _ = pathwise_action_loss(
        *moving, temperature=0.8, beta=0.4, c=0.7, rho=0.3, logp_fixed=draw.logp_fixed
    )
    assert torch.equal(losses, exact.pathwise(draw, 0.7)[0])


@pytest.mark.parametrize("clipped", [True, False])
def test_t2_of_the_pathwise_loss_equals_finite_differences(clipped: bool) -> None:
    """Of c (cost - F) in the values and log-densities, which are the actions' alone; F and the cost are those
    of the score form, whose value means something."""
    case, _, draw = sample(3, forks=3, rho=0.3)
    case = replace(case, worst_case="clipped" if clipped else "exact")
    point = [x.detach().requires_grad_() for x in (draw.q, draw.logp, draw.ref_logp)]

    def pathwise(c: float) -> Tensor:
        return case.pathwise(Draw(*point, draw.logp_fixed.detach()), c)[0].sum()

    def value(q: Tensor, logp: Tensor, ref_logp: Tensor) -> float:
        held = replace(draw, q=q, logp_fixed=logp, ref_logp=ref_logp)
        return 0.7 * float(case.score(held, 0.0)[0].sum())

    t2 = [
        with_c - without
        for with_c, without in zip(
            torch.autograd.grad(pathwise(0.7), point), torch.autograd.grad(pathwise(0.0), point), strict=True
        )
    ]
    held = [x.detach() for x in point]
    for which, gradient in enumerate(t2):
        for place in np.ndindex(*gradient.shape):
            step = torch.zeros_like(gradient)
            step[place] = 1e-6
            up, down = (
                value(*(x + sign * step if i == which else x for i, x in enumerate(held))) for sign in (1, -1)
            )
            assert gradient[place].item() == pytest.approx((up - down) / 2e-6, abs=1e-8)


# Labels


def test_labels_are_two_p_minus_one_of_each_pair() -> None:
    q = torch.tensor([[1.0, 3.0, 3.0], [-2.0, 0.5, 7.0]], dtype=torch.float64, requires_grad=True)
    labels = action_labels(q, torch.tensor(0.7, dtype=torch.float64))
    apart = torch.tensor([[-2.0, -2.0, 0.0], [-2.5, -9.0, -6.5]], dtype=torch.float64)
    torch.testing.assert_close(labels, 2 * (apart / 0.7).sigmoid() - 1)
    assert not labels.requires_grad
    assert action_labels(q, 0.0).tolist() == [[-1, -1, 0], [-1, -1, -1]]
    assert not action_labels(q, 0.0).requires_grad


def test_the_temperature_is_kappa_times_the_mean_difference() -> None:
    q = torch.tensor([[1.0, 3.0, 3.0], [-2.0, 0.5, 7.0]], requires_grad=True)
    tau = label_temperature(q, 0.5)
    assert tau.item() == pytest.approx(0.5 * (2 + 2 + 0 + 2.5 + 9 + 6.5) / 6)
    assert tau.shape == ()
    assert not tau.requires_grad
    assert label_temperature(q, 0.0) == 0
    assert label_temperature(10 * q, 0.5).item() == pytest.approx(10 * tau.item())
    torch.testing.assert_close(
        action_labels(10 * q - 3, label_temperature(10 * q - 3, 0.5)), action_labels(q, tau)
    )


def test_pessimism_goes_from_the_mean_of_two_critics_to_the_smaller_and_beyond() -> None:
    answers = torch.tensor([[[1.0, 3.0]], [[2.0, -1.0]]], requires_grad=True)
    assert torch.equal(pessimistic_value(answers, 1.0), answers.amin(0))
    torch.testing.assert_close(pessimistic_value(answers, 0.0), answers.mean(0))
    torch.testing.assert_close(pessimistic_value(answers, 2.0), torch.tensor([[0.5, -3.0]]))
    (slope,) = torch.autograd.grad(pessimistic_value(answers, 2.0).sum(), answers)
    assert slope.flatten().tolist() == [1.5, -0.5, -0.5, 1.5]


def test_doubt_softens_the_labels_of_the_states_in_which_two_critics_contradict_each_other() -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_normal((2, 5, 3))
    values[1, 0] = values[0, 0] + 1.0  # they agree about all differences in this state
    answers = torch.tensor(values, requires_grad=True)
    q = pessimistic_value(answers, 1.0)
    plain = label_temperature(q, 0.5, answers, 0.0)
    assert torch.equal(plain, label_temperature(q, 0.5))
    tau = label_temperature(q, 0.5, answers, 2.0)
    assert tau.shape == (5, 1)
    assert not tau.requires_grad
    apart = [values[:, :, i] - values[:, :, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    expected = plain.item() + 2.0 * np.mean([np.abs(one - two) for one, two in apart], axis=0)
    np.testing.assert_allclose(tau[:, 0].numpy(), expected)
    assert tau[0].item() == pytest.approx(plain.item())
    softer = action_labels(q, tau).abs()
    assert (softer[1:] < action_labels(q, plain).abs()[1:]).all()
    torch.testing.assert_close(
        action_labels(10 * q, label_temperature(10 * q, 0.5, 10 * answers, 2.0)).abs(), softer
    )
    for kappa, doubt, given in ((0.5, -1.0, answers), (0.5, 1.0, None), (0.0, 1.0, answers)):
        with pytest.raises(ValueError, match="doubt"):
            label_temperature(q, kappa, given, doubt)


@pytest.mark.parametrize("form", ["score", "pathwise"])
def test_a_temperature_of_each_state_is_that_of_a_batch_of_one(form: str) -> None:
    case, _, draw = sample(3, forks=3)
    taus = torch.tensor([[0.3], [1.0], [4.0]], dtype=torch.float64)
    whole, _ = getattr(replace(case, tau=taus), form)(draw, 0.7)
    for state in range(3):
        alone, _ = getattr(replace(case, tau=taus[state, 0]), form)(draw, 0.7)
        torch.testing.assert_close(whole[state], alone[state])


def test_one_state_without_a_temperature_is_refused_among_others() -> None:
    case, _, draw = sample(3, forks=3)
    for wrong in (0.0, -1.0):
        taus = torch.tensor([[0.3], [wrong], [4.0]], dtype=torch.float64)
        with pytest.raises(ValueError, match="a temperature above 0"):
            replace(case, tau=taus).pathwise(draw, 0.7)
    with pytest.raises(ValueError, match=r"must be >= 0, not -1"):
        action_labels(draw.q, taus)


@pytest.mark.parametrize("c", [0.0, 0.3, 1.0])
def test_both_forms_report_the_same_metrics_and_none_where_none_are_wanted(c: float) -> None:
    case, _, draw = sample(5, forks=3)
    assert case.pathwise(draw, c)[1] == case.score(draw, c, baseline=True)[1]
    held = {"temperature": case.tau, "beta": case.beta, "c": c}
    losses, metrics = pathwise_action_loss(draw.q, draw.logp, draw.ref_logp, **held, with_metrics=False)
    assert metrics == {}
    assert torch.equal(losses, case.pathwise(draw, c)[0])


def test_equal_values_say_nothing_and_divide_nothing_by_zero() -> None:
    q = torch.full((4, 3), 1e3)
    assert label_temperature(q, 2.0).item() == pytest.approx(2e-6)
    case, _, draw = sample(4, forks=3)
    for kappa in (0.0, 1.0):
        tau = label_temperature(q, kappa)
        assert not action_labels(q, tau).any()
        losses, metrics = replace(case, tau=tau).score(replace(draw, q=q.double()), 1.0)
        assert torch.isfinite(losses).all()
        assert metrics["label_entropy"].item() == pytest.approx(math.log(2))
        assert metrics["accuracy"] == 0.5


def test_a_small_kappa_is_hard_labels() -> None:
    case, theta, draw = sample(6)
    hard, hard_metrics = replace(case, tau=0.0).score(draw, 0.7, True)
    tau = label_temperature(draw.q, 1e-9)
    soft, metrics = replace(case, tau=tau).score(draw, 0.7, True)
    assert torch.equal(hard, soft)
    assert torch.equal(gradients(hard, theta), gradients(soft, theta))
    assert metrics["label_entropy"] == hard_metrics["label_entropy"] == 0
    softer = [replace(case, tau=label_temperature(draw.q, kappa)) for kappa in (1e-1, 1e-2, 1e-3)]
    errors = [float((each.score(draw, 0.7, True)[0] - hard).abs().max().detach()) for each in softer]
    assert errors[0] > errors[1] > errors[2]


# Rankings


@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("baseline", [True, False])
def test_actions_are_ranked_by_value_the_best_first(baseline: bool, rho: float) -> None:
    q = torch.tensor([[0.0, 2.0, 1.0], [5.0, 4.0, 6.0], [1.0, 0.0, -1.0]])
    order = torch.tensor([[1, 2, 0], [2, 0, 1], [0, 1, 2]])
    _, theta, draw = sample(3, forks=3)
    logp, ref = draw.logp_fixed, draw.ref_logp.detach()
    losses, metrics = ranked_action_loss(q, logp, ref, beta=0.4, c=0.7, baseline=baseline, rho=rho)
    expected, same = ranking_loss(
        logp.gather(1, order), ref.gather(1, order), beta=0.4, c=0.7, baseline=baseline, rho=rho
    )
    assert torch.equal(losses, expected)
    assert torch.equal(gradients(losses, theta), gradients(expected, theta))
    assert metrics == same


def test_a_ranking_of_two_actions_is_a_pair_with_a_hard_label() -> None:
    case, theta, draw = sample(6, forks=2)
    ranked, _ = ranked_action_loss(
        draw.q, draw.logp_fixed, draw.ref_logp.detach(), beta=case.beta, c=0.7, baseline=True
    )
    pair, _ = replace(case, tau=0.0).score(draw, 0.7, True)
    torch.testing.assert_close(ranked, pair)
    torch.testing.assert_close(gradients(ranked, theta), gradients(pair, theta))


# What is refused


def test_wrong_shapes_are_refused() -> None:
    case, _, draw = sample(3, rho=0.1)
    flat, alone, fewer = (lambda x: x[:, 0]), (lambda x: x[:, :1]), (lambda x: x[:2])

    def ranked(draw: Draw) -> Loss:
        return ranked_action_loss(draw.q, draw.logp_fixed, draw.ref_logp, beta=1.0, c=0.0, baseline=False)

    def pathwise(draw: Draw) -> Loss:
        return case.pathwise(draw, 0.0)

    def score(draw: Draw) -> Loss:
        return case.score(draw, 0.0)

    used = {pathwise: ("q", "logp", "ref_logp", "logp_fixed"), score: ("q", "logp_fixed", "ref_logp")}
    used[ranked] = used[score]
    for loss, names in used.items():
        for cut in (flat, alone):
            with pytest.raises(ValueError, match=r"of one shape \(B, K\)"):
                loss(Draw(*(cut(getattr(draw, name)) for name in ("q", "logp", "ref_logp", "logp_fixed"))))
        for name in names:
            with pytest.raises(ValueError, match=r"of one shape \(B, K\)"):
                loss(replace(draw, **{name: fewer(getattr(draw, name))}))
    for cut in (flat, alone):
        with pytest.raises(ValueError, match=r"of one shape \(B, K\)"):
            action_labels(cut(draw.q), 1.0)
        with pytest.raises(ValueError, match=r"of one shape \(B, K\)"):
            label_temperature(cut(draw.q), 1.0)


def test_what_has_no_pathwise_gradient_is_refused() -> None:
    case, _, draw = sample(3)
    for tau in (0.0, torch.zeros(()), -1.0):
        with pytest.raises(ValueError, match="temperature above 0"):
            replace(case, tau=tau).pathwise(draw, 0.0)
    with pytest.raises(ValueError, match="needs logp_fixed"):
        replace(case, rho=0.1).pathwise(replace(draw, logp_fixed=None), 0.0)
    for form in FORMS.values():
        with pytest.raises(ValueError, match="exact, clipped or contaminated"):
            form(replace(case, rho=0.1, worst_case="Exact"), draw, 0.0)


def test_negative_temperatures_are_refused() -> None:
    case, _, draw = sample(3)
    with pytest.raises(ValueError, match="kappa must be >= 0, not -1"):
        label_temperature(draw.q, -1.0)
    with pytest.raises(ValueError, match=r"must be >= 0, not -0\.5"):
        replace(case, tau=-0.5).score(draw, 0.0)
