"""Verdicts by simulation: the worse arm is not called better, and equal arms are rarely told apart."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.verdicts import Case, cases, measure
from sailctl.analysis import statistics
from sailctl.analysis.contrasts import verdict_of
from sailctl.analysis.statistics import Estimate

CHOSEN = [case for case in cases() if case.population == "normal" and (case.tasks, case.seeds) == (8, 5)]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.experiment)
def test_better_is_not_said_of_the_worse_arm(case: Case):
    row = measure(case, 300)
    assert row["within"], row


def test_what_the_interval_and_the_test_say_must_agree():
    apart, astride = Estimate(0.1, 0.05, 0.15), Estimate(0.1, -0.05, 0.25)
    assert verdict_of(apart, 0.01) == "better"
    assert verdict_of(apart, 0.01, better=-1) == "worse"
    assert verdict_of(Estimate(-0.1, -0.15, -0.05), 0.01) == "worse"
    assert {verdict_of(apart, 0.06), verdict_of(astride, 0.01)} == {"undecided"}
    assert verdict_of(Estimate(0.1, np.nan, np.nan), 0.001) == "undecided", "too few seeds for an interval"


def test_a_loss_on_two_tasks_of_eight_is_not_called_better():
    """The middle half of all runs is better, the mean over tasks is worse: the verdict is about the mean."""
    rng = np.random.default_rng(0)
    gaps = np.r_[np.full(6, 0.05), np.full(2, -0.35)][:, None]
    ours, theirs = (list(rng.normal(0.5, 0.01, (8, 5)) + shift) for shift in (gaps, 0.0))
    assert statistics.iqm(np.concatenate(ours)) > statistics.iqm(np.concatenate(theirs)) + 0.03
    p = statistics.permutation_test(ours, theirs, rng, 999)
    found = statistics.difference(ours, theirs)
    assert found.value == pytest.approx(-0.05, abs=0.01)
    assert p < 0.01
    assert verdict_of(found, p) == "worse"
