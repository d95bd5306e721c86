"""The page of tasks and the listing say what the task classes say."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks.tasks import THREADS, document
from sailctl.cli.doctor import applies, check_package, diagnose
from sailctl.cli.listing import columns, page, print_task, print_tasks
from sailctl.core.tasks import known_tasks
from sailctl.core.types import UserError
from sailctl_envs import ALL_TASKS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_made_from_the_tasks_and_their_measurements():
    """`python -m benchmarks.tasks --only page` makes it anew after a change of a task."""
    text = (DOCS / "tasks.md").read_text(encoding="utf-8")
    assert text == document()
    for name in ALL_TASKS:
        assert (DOCS / "tasks" / f"{name}.png").stat().st_size > 2000
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for threads in THREADS:
            assert f"\n| {threads:>7} |" in section


def test_a_page_says_what_the_model_and_the_class_say():
    text = page(ALL_TASKS["pusher-v5"]())
    assert "Push the cylinder to the goal (Gymnasium Pusher-v5)." in text
    assert "observation (23)" in text
    assert "r_wrist_roll_joint |       7 |   -2 |  2 |" in text
    assert "Horizon: 100 control steps of 0.05 s, each 5 physics sub-steps." in text
    assert "An episode ends only at the time limit." in text


def test_actuators_with_one_range_share_a_row():
    rows = [line for line in page(ALL_TASKS["humanoid-v5"]()).splitlines() if "-0.4" in line]
    assert len(rows) == 1
    assert "|      17 |" in rows[0]


def test_the_listing_has_a_row_for_every_task(capsys: pytest.CaptureFixture[str]):
    print_tasks()
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines[1 : 1 + len(known_tasks())]}
    assert list(rows) == list(known_tasks())
    assert rows["ant-v5"][1:7] == ["Gymnasium", "Ant-v5", "105", "8", "1000", "0.05"]
    assert "dmc" in rows["walker_walk"]
    assert "metaworld" in rows["door-open-v3"]


def test_an_unknown_task_has_no_page():
    with pytest.raises(UserError, match="no page for task 'ant-v4'"):
        print_task("ant-v4")


def test_columns_are_aligned_by_what_they_hold():
    rows = [("name", "n"), ("a", "1"), ("long", "10")]
    assert columns(rows) == "name   n\na      1\nlong  10"
    assert columns(rows, markdown=True) == "| name |  n |\n| ---- | -: |\n| a    |  1 |\n| long | 10 |"


def test_a_package_is_judged_by_its_range():
    assert check_package(Requirement("numpy>=1.0")).works
    old = check_package(Requirement("numpy<1.0"))
    assert not old.works
    assert "pip install 'numpy<1.0'" in old.detail
    missing = check_package(Requirement("no-such-package-of-sailctl>=2"))
    assert missing.detail == "pip install 'no-such-package-of-sailctl>=2'"


def test_requirements_of_extras_count_only_there():
    need = Requirement("tensorboard>=2; extra == 'tensorboard'")
    assert not applies(need)
    assert applies(need, "tensorboard")


def test_the_doctor_finds_a_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Everything else is tried for real."""

    def refuse(dir: Path) -> None:
        raise PermissionError(13, f"Permission denied: {dir}")

    monkeypatch.setattr("sailctl.cli.doctor.tempfile.TemporaryFile", refuse)
    assert diagnose() == 1
    out = capsys.readouterr().out
    assert "simulation" in out
    assert out.endswith("must be fixed: folder\n")
