"""Foreign curves: read or refused in one line, compared, and never taken for runs of which more is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sailctl.analysis.arms import gather
from sailctl.analysis.compare import Comparison, compare
from sailctl.analysis.contrasts import Options
from sailctl.analysis.report import latex, markdown, text, write_report
from sailctl.analysis.trials import load_trials, save_trials
from sailctl.core.types import UserError
from tests.trials import make_trial

HEAD = "task,algorithm,seed,env_steps,return\n"


def published(folder: Path, seeds: int = 5, every: int = 2500) -> Path:
    """SAC on Hopper, evaluated at other env steps than the own runs, columns and rows in another order."""
    rows = [
        f"{seed},{1.5 * at / 1000 + 0.01 * seed},{at},hopper-v5,sac"
        for at in range(5000, 0, -every)
        for seed in range(seeds)
    ]
    file = folder / "published.csv"
    file.write_text("\n".join(["seed,return,env_steps,task,algorithm", *rows]) + "\n")
    return file


@pytest.fixture
def beside(tmp_path: Path) -> Comparison:
    own = [make_trial(np.arange(6.0) + 0.01 * seed, algorithm="sac", seed=seed) for seed in range(5)]
    return compare(gather([*own, *load_trials([published(tmp_path)])]), Options(draws=200))


def test_foreign_curves_are_an_arm_of_their_own(beside: Comparison):
    assert [arm.name for arm in beside.evidence.arms] == ["sac", "sac (published.csv)"]
    foreign = beside.evidence.arms[1].trials[0]
    assert foreign.env_steps.tolist() == [2500, 5000]
    assert foreign.iteration.tolist() == [1, 2], "nothing is known of before training"
    assert beside.scales["hopper-v5"].zero == pytest.approx(0.02), "which own runs alone tell"
    assert foreign.window == (5000.0, 2500.0) == beside.evidence.arms[0].trials[0].window
    assert beside.headlines[0].verdict == "better"


def test_every_output_says_that_the_settings_are_unknown(beside: Comparison, tmp_path: Path):
    said = "the settings and the code of sac (published.csv) are unknown"
    write_report(beside, tmp_path / "report.html")
    outputs = (text(beside), markdown(beside), latex(beside), (tmp_path / "report.html").read_text())
    for words in outputs:
        assert said in " ".join(words.split())
    assert any(said in sentence for sentence in beside.verdict)


def test_foreign_curves_are_not_saved_as_evidence(beside: Comparison, tmp_path: Path):
    with pytest.raises(UserError, match="foreign curves are not saved"):
        save_trials(beside.evidence.trials, tmp_path / "all.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "holds no evaluation"),
        ("hopper-v5,sac,0,1000,many\n", "line 2: could not convert"),
        ("hopper-v5,sac,zero,1000,1\n", "line 2: invalid literal"),
        ("hopper-v5,sac,0\n", "line 2: "),
        ("hopper-v5,sac,0,1000,nan\n", "line 2: env_steps and return must be finite"),
        (
            "hopper-v5,sac,0,1000,1\nhopper-v5,sac,0,1000,2\n",
            "line 3: sac on hopper-v5, seed 0 has 1000",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(rows: str, message: str, tmp_path: Path):
    file = tmp_path / "odd.csv"
    file.write_text(HEAD + rows)
    with pytest.raises(UserError, match=message) as refusal:
        load_trials([file])
    assert "\n" not in str(refusal.value)
