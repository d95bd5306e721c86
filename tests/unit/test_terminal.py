"""Tables keep to the width of the terminal, and lose no word of what is in their last column."""

from __future__ import annotations

import pytest

from sailctl.core.terminal import columns, in_columns, shortened
from sailctl.sweeps.listing import Job, table

ROWS = [
    ("run", "done", "what went wrong"),
    ("a-task/an-algorithm/0123abcd-s0", "7%", "not a number in an update"),
]


def test_a_table_without_a_limit_has_one_line_for_each_row() -> None:
    assert in_columns(ROWS, right=(1,)).splitlines() == [
        "run                              done  what went wrong",
        "a-task/an-algorithm/0123abcd-s0    7%  not a number in an update",
    ]


def test_the_last_cell_goes_below_a_line_that_is_too_wide() -> None:
    lines = in_columns(ROWS, right=(1,), most=45).splitlines()
    assert lines[2:] == ["a-task/an-algorithm/0123abcd-s0    7%", "    not a number in an update"]
    lines = in_columns(ROWS, right=(1,), most=28).splitlines()
    assert lines[2:] == ["a-task/an-...23abcd-s0    7%", "    not a number in an", "    update"]
    assert max(map(len, lines)) <= 28


def test_what_is_shortened_keeps_both_ends() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("0123456789" * 3, 11) == "0123...6789"


def test_status_keeps_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    error = "cannot write runs/swimmer-v5/sail/0123abcd-s0/metrics.csv: No space left on device"
    jobs = [
        Job(
            "swimmer-v5/sail_revkl_segments/0123abcd-s0",
            "",
            "failed",
            "",
            1_000_000,
            99_999,
            1.0,
            9.0,
            0.5,
            error,
        )
    ]
    monkeypatch.delenv("COLUMNS", raising=False)
    assert columns() is None
    assert len(table(jobs).splitlines()) == 2
    monkeypatch.setenv("COLUMNS", "80")
    lines = table(jobs).splitlines()
    assert max(map(len, lines)) <= 80
    assert error in " ".join(" ".join(lines).split())
