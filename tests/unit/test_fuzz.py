"""Bad input of every kind ends in one clear line (`python -m benchmarks.fuzz` tries many more)."""

from __future__ import annotations

import pytest

from benchmarks.fuzz import MAKERS, Case, cases, complaint

CASES = list(cases(3 * len(MAKERS), seed=2026))


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}-{n}" for n, case in enumerate(CASES)])
def test_bad_input_is_one_line(case: Case):
    assert complaint(case) is None


def test_a_good_command_line_is_complained_about():
    assert complaint(Case("good", ["train", "algo=sail"])) == "exit code 99"
