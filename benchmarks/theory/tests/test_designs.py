"""The designs DDP, DPP and DPR ascend their mixtures, and what own labels cannot do."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from benchmarks.theory.designs.data import fitted_chance, mixtures, starts
from benchmarks.theory.designs.identities import EXTRAS
from benchmarks.theory.designs.mixture import DESIGNS, Mixture
from benchmarks.theory.estimator import ascent, compare
from benchmarks.theory.tests.parameters import random_parameters


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return mixtures(10, beta=0.7)


@pytest.mark.parametrize(("design", "extra"), list(product(DESIGNS, EXTRAS)))
def test_each_design_ascends_its_mixture(mixture: Mixture, design: str, extra: str) -> None:
    theta = random_parameters(10, 4)
    gamma, rho = EXTRAS[extra]
    truth = mixture.true_gradient(design, theta, 0.4, gamma, rho)
    exact, online = (mixture.estimated(design, theta, 0.4, c, gamma, rho) for c in (1.0, 0.0))
    assert float(compare(exact, truth)["relative_error_max"]) < 1e-12
    assert float(compare(online, truth)["relative_error_median"]) > 1e-2


@pytest.mark.parametrize("design", ["DDP", "DPP"])
def test_own_labels_give_t1_no_mean(mixture: Mixture, design: str) -> None:
    theta = random_parameters(10, 4)
    assert mixture.design_ascent(design, theta, c=0.0).abs().max() < 1e-15
    assert mixture.design_ascent(design, theta, c=1.0).abs().max() > 1e-2


def test_ddp_ascends_minus_the_entropy_of_its_own_labels(mixture: Mixture) -> None:
    theta = random_parameters(10, 4)

    def entropy(leaf: Tensor) -> Tensor:
        certain = mixture.problem.score(leaf).sigmoid()
        return (mixture.pairs * (torch.special.entr(certain) + torch.special.entr(1 - certain))).sum()

    truth = ascent(entropy, theta)
    torch.testing.assert_close(mixture.design_ascent("DDP", theta, c=1.0), truth, rtol=1e-12, atol=1e-15)


def test_own_labels_cannot_leave_the_reference(mixture: Mixture) -> None:
    """At h = 0 every design that labels its own samples stands still, whatever c is."""
    theta = starts(mixture.problem)
    for design in ("DDP", "DPP"):
        assert mixture.design_ascent(design, theta, c=1.0).abs().max() < 1e-12
    assert mixture.design_ascent("DPR", theta, c=1.0).abs().max() > 1e-2


def test_the_reward_model_of_dpr_knows_the_labels_alone() -> None:
    """Fitted to labels of one pair, it prefers the winner of that pair and is undecided on the others."""
    counts = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    counts[0, 0, 0, 1] = 4.0
    chance = fitted_chance(counts)
    assert chance[0, 0, 1] > 0.7
    assert chance[0, 0, 2] == pytest.approx(1 - float(chance[0, 1, 2]))
    reward = torch.logit(chance[0, 0, 1]) / 2
    assert 4 * torch.sigmoid(-2 * reward).item() == pytest.approx(reward.item(), abs=1e-9)
