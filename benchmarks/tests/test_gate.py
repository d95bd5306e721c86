"""Tests of the bugs made on purpose: each changes what is learned, in both forms, and none stays behind."""

from __future__ import annotations

import pytest

from benchmarks.gate import CONDITIONS
from sailctl.gate import golden

FORMS = ["sail_revkl", "sail_revkl_segments"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clean() -> golden.Trajectories:
    return golden.trajectories(FORMS)


@pytest.mark.parametrize("condition", [name for name in CONDITIONS if name != "clean"])
def test_a_bug_changes_the_first_updates_of_both_forms(condition: str, clean: golden.Trajectories):
    with CONDITIONS[condition]():
        broken = golden.trajectories(FORMS)
    moved = {drift.algorithm for drift in golden.drifts(clean, broken) if not drift.passes}
    assert moved == set(FORMS)


def test_no_bug_stays_behind(clean: golden.Trajectories):
    for bug in CONDITIONS.values():
        with bug():
            pass
    assert all(drift.largest == 0 for drift in golden.drifts(clean, golden.trajectories(FORMS)))
