"""The summary run in W&B, read back from its offline file."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from sailctl.analysis.arms import gather
from sailctl.analysis.compare import Comparison, compare
from sailctl.analysis.contrasts import Options
from sailctl.analysis.summary import contrast_table, log_summary, performance_table
from tests.trials import make_trial
from tests.unit.test_logger import records_of


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    trials = [
        make_trial([0, 1, 2 + s, 3, 4], task=task, seed=s, algorithm=name, state=state)
        for task in ("hopper-v5", "swimmer-v5")
        for name, state in (("sail", "finished"), ("sail_revkl", "failed"))
        for s in range(3)
    ]
    return compare(gather(trials), Options(draws=200))


def test_the_offline_run_holds_pictures_tables_and_verdict(
    comparison: Comparison, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    picture = tmp_path / "profile.png"
    matplotlib.image.imsave(picture, np.zeros((4, 5, 3)))
    log_summary(comparison, {"profile": picture}, tmp_path, "offline", "p", "report")
    assert capfd.readouterr() == ("", "")

    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    records = records_of(file)
    (head,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (head.project, head.display_name, head.run_group, head.job_type) == (
        "p",
        "report",
        "comparison",
        "comparison",
    )
    assert sorted(head.tags) == ["comparison", "hopper-v5", "sail", "sail_revkl", "swimmer-v5"]
    config = {item.key: json.loads(item.value_json) for item in head.config.update}
    assert (config["baseline"], config["tasks"]) == ("sail", ["hopper-v5", "swimmer-v5"])
    assert config["compared"]["algo.name"] == {"sail": "sail", "sail_revkl": "sail_revkl"}

    logged: dict[str, dict[str, object]] = {}
    for record in records:
        for item in record.history.item if record.WhichOneof("record_type") == "history" else ():
            name, *inner = [item.key] if item.key else item.nested_key
            value = json.loads(item.value_json)
            logged.setdefault(name, {}).update({inner[0]: value} if inner else {"": value})
    image, table = logged["profile"], logged["performance"]
    assert (image["_type"], image["width"], image["height"]) == ("image-file", 5, 4)
    assert (file.parent / "files" / image["path"]).is_file()
    stored = json.loads((file.parent / "files" / table["path"]).read_text())
    assert stored["columns"] == performance_table(comparison)["columns"]
    assert len(stored["data"]) == 6
    assert logged["contrasts"]["nrows"] == len(comparison.contrasts)

    summary = {
        item.key: json.loads(item.value_json)
        for record in records
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
    assert summary["verdict"] == " ".join(comparison.verdict)
    assert summary["failed_share/sail_revkl"] == 1.0
    assert summary["final/sail"] == pytest.approx(comparison.of("sail", "all tasks").final.value)


def test_disabled_writes_nothing(comparison: Comparison, tmp_path: Path):
    log_summary(comparison, {}, tmp_path, "disabled", "p", "report")
    assert list(tmp_path.iterdir()) == []


def test_tables_have_a_row_for_everything_and_no_nan(comparison: Comparison):
    performance, contrasts = performance_table(comparison), contrast_table(comparison)
    first = dict(zip(performance["columns"], performance["data"][0], strict=True))
    row = comparison.performance[0]
    assert (first["arm"], first["task"], first["final_low"]) == (row.arm, row.task, row.final.low)
    assert len(contrasts["data"]) == len(comparison.contrasts)
    json.dumps([performance, contrasts], allow_nan=False)
