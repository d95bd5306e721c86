"""The records of benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.record import write


def test_a_record_names_the_command_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["/somewhere/python3", "-m", "benchmarks.theory.gradient", "--results", "here"]
    monkeypatch.setattr(sys, "orig_argv", given)
    write(tmp_path, "name", [{"a": 1}], {"what": "a test"})
    record = json.loads((tmp_path / "name.json").read_text())
    assert record["command"] == ["python", *given[1:]]
