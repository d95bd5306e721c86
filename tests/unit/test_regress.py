"""The gate: its exact test, what it knows about itself, verdicts and exit codes, and one gate end to end."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import mannwhitneyu

from sailctl.analysis.evidence import Trial, flat_settings
from sailctl.analysis.trials import load_trials, save_trials
from sailctl.config import to_dict
from sailctl.core.types import RunError, UserError
from sailctl.gate import golden, ranksum, regress
from sailctl.gate.baselines import Protocol, load_baseline
from sailctl.gate.ranksum import operating, scores_of, too_few, worse_p
from sailctl.gate.regress import changed_settings

TINY = [
    "algo=sail_revkl_segments",
    "env=reacher-v5",
    "rollout.prompts=4",
    "rollout.segment_length=5",
    "rollout.label_horizon=10",
    "env_steps=300",
    "evaluation.every=100",
    "evaluation.episodes=1",
    "policy.hidden=[4]",
]
PROTOCOL = Protocol("tiny", TINY, [1000, 1001, 1002], 0.05)
SCORES = np.array([5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0])


@cache
def settings_of_protocol() -> dict[str, object]:
    return flat_settings(to_dict(regress.compose(PROTOCOL)))


def trial(seed: int, final: float, state: str = "finished") -> Trial:
    """A run whose curve starts at 0 and ends at ``final``."""
    two = np.array([0.0, final])
    settings = settings_of_protocol()
    return Trial(
        task="reacher-v5",
        algorithm="sail_revkl_segments",
        seed=seed,
        state=state,
        error=None if state == "finished" else "something broke",
        settings=settings,
        origin={},
        place="",
        iteration=np.array([0.0, 5.0]),
        env_steps=np.array([0.0, 300.0]),
        labels=np.array([0.0, 20.0]),
        wall_s=np.array([0.0, 1.0]),
        returns=two,
        lengths=np.array([50.0, 50.0]),
        kl=np.array([np.nan, 0.1]),
        cpu_s=np.array([0.0, 1.0]),
        before=two[:1],
        after=two[1:],
    )


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    """A folder with a baseline of eight seeds that score 5 to 12."""
    entry = {"reason": "first", "date": "2026-11-21", "commit": "abc", "dirty": False, "cpu": "a CPU"}
    about = {"protocol": vars(PROTOCOL), "history": [entry]}
    file = tmp_path / "baselines" / "reacher-v5-sail_revkl_segments-tiny.csv"
    save_trials([trial(seed, score) for seed, score in enumerate(SCORES)], file, about)
    return file.parent


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what the runs of the gate are to be, instead of training them."""

    def given(*found: Trial | str | type[BaseException]) -> None:
        def run_seeds(_config, _overrides, seeds, *_):
            if isinstance(found[0], type):
                raise found[0]
            return dict(zip(seeds, itertools.cycle(found), strict=False))

        monkeypatch.setattr(regress, "run_seeds", run_seeds)

    return given


# The test


def by_enumeration(now: np.ndarray, baseline: np.ndarray) -> float:
    """Share of all relabellings whose count of wins is at most the one observed."""
    scores = np.concatenate([now, baseline])

    def wins(chosen: tuple[int, ...]) -> float:
        rest = [i for i in range(len(scores)) if i not in chosen]
        return sum(float(scores[i] > scores[j]) + (scores[i] == scores[j]) / 2 for i in chosen for j in rest)

    observed = wins(tuple(range(len(now))))
    found = [wins(chosen) for chosen in itertools.combinations(range(len(scores)), len(now))]
    return float(np.mean(np.array(found) <= observed))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([1.0, 2.0, 4.0], [3.0, 5.0, 6.0, 7.0]),
        ([9.0, 8.0], [3.0, 5.0, 6.0, 7.0]),
        ([1.0, 1.0, 4.0], [1.0, 4.0, 4.0, 7.0]),
        ([-math.inf, -math.inf, 4.0], [-math.inf, 3.0, 4.0, 7.0, 8.0]),
    ],
)
def test_the_p_value_is_the_share_of_relabellings(ours: list[float], theirs: list[float]):
    assert worse_p(np.array(ours), np.array(theirs)) == pytest.approx(
        by_enumeration(np.array(ours), np.array(theirs)), abs=1e-12
    )


def test_the_p_value_is_that_of_mann_and_whitney():
    rng = np.random.default_rng(1)
    for _ in range(20):
        ours, theirs = rng.normal(-0.5, 1, 6), rng.normal(0, 1, 30)
        expected = mannwhitneyu(ours, theirs, alternative="less", method="exact").pvalue
        assert worse_p(ours, theirs) == pytest.approx(expected, rel=1e-9)


def test_the_smallest_p_value_is_one_in_all_relabellings():
    assert worse_p(np.array([1.0, 2.0]), np.arange(3.0, 9.0)) == pytest.approx(1 / math.comb(8, 2))


def test_a_failed_run_is_the_worst():
    baseline = np.arange(1.0, 9.0)
    failed = worse_p(np.array([-math.inf, 5.5]), baseline)
    assert failed == worse_p(np.array([0.5, 5.5]), baseline)
    assert scores_of([trial(0, 3.0), trial(1, 3.0, "failed")]).tolist() == [3.0, -math.inf]


@pytest.mark.parametrize(
    ("gate", "baseline", "alpha", "judges"),
    [(3, 8, 1 / 56, True), (3, 8, 0.0178, False), (3, 3, 0.5, False), (0, 8, 0.5, False)],
)
def test_too_few_seeds_are_noticed(gate: int, baseline: int, alpha: float, judges: bool):
    assert (too_few(gate, baseline, alpha) is None) == judges  # 8 choose 3 is 56


# What it knows about itself


def test_false_alarms_of_simulated_gates_are_those_of_the_exact_test():
    rng = np.random.default_rng(2)
    known = operating(rng.normal(size=30), 6, 0.05, 1.0)
    sums = ranksum._rank_sums(tuple(range(2, 62, 2)), 6)
    size = sums[sums <= 0.05].max()
    assert known.false_alarms.low <= size <= known.false_alarms.high
    assert 0.03 < size <= 0.05


def test_the_drop_that_is_caught_shrinks_with_more_seeds_and_grows_with_the_spread():
    normal = np.random.default_rng(3).normal(10, 1, 30)
    few, many = (operating(normal, seeds, 0.01, 10.0).caught for seeds in (4, 12))
    wide = operating(10 + 2 * (normal - 10), 4, 0.01, 10.0).caught
    assert many < few < wide <= 1
    assert many * 10 == pytest.approx(
        1.27, abs=0.3
    )  # (2.33 + 0.84) sqrt(1/12 + 1/18), and ranks cost a little


def test_a_drop_that_cannot_be_caught():
    assert operating(np.array([0.0, 100.0] * 6), 3, 0.02, 1.0).caught == math.inf


# Verdicts


def test_the_same_scores_are_not_worse(baseline: Path, now, capsys: pytest.CaptureFixture[str]):
    now(trial(1000, 8.1), trial(1001, 9.1), trial(1002, 7.1))
    assert regress.check([baseline]) == 0
    text = capsys.readouterr().out
    assert "OK: not worse than the baseline" in text
    assert "8 seeds, final score 8.5 (sd 2.45)" in text
    assert "3 seeds, final score 8.1 (sd 1); difference -0.4" in text
    assert "false alarm in" in text
    assert "1 not worse (exit code 0)" in text


def test_lower_scores_are_worse(baseline: Path, now, capsys: pytest.CaptureFixture[str]):
    now(trial(1000, 1.0), trial(1001, 2.0), trial(1002, 3.0))
    assert regress.check([baseline]) == 1
    assert f"p = {1 / math.comb(11, 3):.4f}" in capsys.readouterr().out


def test_runs_that_fail_are_worse(baseline: Path, now, capsys: pytest.CaptureFixture[str]):
    now(trial(1000, 20.0, "failed"), "it did not even start", trial(1002, 20.0, "failed"))
    assert regress.check([baseline]) == 1
    assert "3 seeds, 3 failed, no score; difference -8.5" in capsys.readouterr().out


def test_better_scores_pass_and_are_noticed(baseline: Path, now, capsys: pytest.CaptureFixture[str]):
    now(trial(1000, 21.0), trial(1001, 22.0), trial(1002, 23.0))
    assert regress.check([baseline]) == 0
    assert "better than the baseline: " in capsys.readouterr().out


def test_an_interrupted_gate_has_not_judged(baseline: Path, now):
    now(KeyboardInterrupt)
    assert regress.check([baseline]) == 2


def test_a_setting_that_the_algorithm_never_reads_may_change(
    baseline: Path, now, capsys: pytest.CaptureFixture[str]
):
    now(trial(1000, 21.0), trial(1001, 22.0), trial(1002, 23.0))
    file = next(baseline.glob("*.json"))
    about = json.loads(file.read_text())
    about["settings"]["reward.steps"] = 17  # the labels are the teacher's
    file.write_text(json.dumps(about))
    assert regress.check([baseline]) == 0
    assert "not worse" in capsys.readouterr().out


def test_changed_settings_are_named_and_not_judged(baseline: Path, now, capsys: pytest.CaptureFixture[str]):
    now(trial(1000, 1.0))
    file = next(baseline.glob("*.json"))
    about = json.loads(file.read_text())
    about["settings"]["algo.lr"] = 0.5
    file.write_text(json.dumps(about))
    assert regress.check([baseline]) == 2
    text = capsys.readouterr().out
    assert "COULD NOT JUDGE: the settings have changed (algo.lr: 0.5 -> 0.0003)" in text
    assert "--update" in text


def test_a_setting_that_is_new_is_no_change():
    assert changed_settings({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}) == []
    assert changed_settings({"a": 1, "b": 2}, {"a": 3}) == ["a: 1 -> 3", "b: 2 -> gone"]


def test_a_protocol_that_no_longer_composes(baseline: Path, now, capsys: pytest.CaptureFixture[str]):
    now(trial(1000, 1.0))
    file = next(baseline.glob("*.json"))
    file.write_text(file.read_text().replace("rollout.prompts=4", "rollout.promts=4"))
    assert regress.check([baseline]) == 2
    assert "COULD NOT JUDGE: unknown" in capsys.readouterr().out


def test_a_baseline_that_cannot_be_read(baseline: Path, capsys: pytest.CaptureFixture[str]):
    next(baseline.glob("*.json")).write_text('{"runs": []}')
    assert regress.check([baseline]) == 2
    assert "is not a baseline of this version" in capsys.readouterr().out


def test_too_few_seeds_cannot_judge(baseline: Path, now, capsys: pytest.CaptureFixture[str]):
    file = next(baseline.glob("*.json"))
    about = json.loads(file.read_text())
    about["protocol"]["alpha"] = 0.001
    file.write_text(json.dumps(about))
    now(trial(1000, 1.0))
    assert regress.check([baseline]) == 2
    assert "cannot reach alpha=0.001" in capsys.readouterr().out


def test_no_baseline_at_all(tmp_path: Path):
    with pytest.raises(UserError, match="no baseline in"):
        regress.check([tmp_path])


def test_worse_goes_before_could_not_judge(baseline: Path, now):
    now(trial(1000, 1.0), trial(1001, 2.0), trial(1002, 3.0))
    (baseline / "other.csv").write_text("nonsense")
    assert regress.check([baseline]) == 1


def test_runs_of_an_earlier_gate_are_not_taken_for_new_ones(baseline: Path, tmp_path: Path, now):
    now(trial(1000, 8.0))
    (tmp_path / "out" / "reacher-v5-sail_revkl_segments-tiny").mkdir(parents=True)
    with pytest.raises(UserError, match="without earlier runs"):
        regress.check([baseline], tmp_path / "out")


# Updating


def test_an_update_keeps_the_seeds_and_every_reason(baseline: Path, now):
    now(*(trial(seed, 2.0 * score) for seed, score in enumerate(SCORES)))
    assert regress.update([baseline], "  twice as\n good ") == 0
    renewed = load_baseline(next(baseline.glob("*.csv")))
    assert scores_of(renewed.trials).tolist() == (2 * SCORES).tolist()
    assert [entry["reason"] for entry in renewed.history] == ["first", "twice as good"]
    assert renewed.protocol == PROTOCOL


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_an_update_needs_a_reason(baseline: Path, now, reason: str):
    now(trial(0, 99.0))
    before = {file: file.read_bytes() for file in baseline.iterdir()}
    with pytest.raises(UserError, match="needs a reason"):
        regress.update([baseline], reason)
    assert before == {file: file.read_bytes() for file in baseline.iterdir()}


def test_an_update_whose_run_cannot_start_writes_nothing(baseline: Path, now):
    now("no such file")
    before = {file: file.read_bytes() for file in baseline.iterdir()}
    with pytest.raises(RunError, match="seed 0 could not start: no such file"):
        regress.update([baseline], "why")
    assert before == {file: file.read_bytes() for file in baseline.iterdir()}


@pytest.mark.parametrize(
    ("protocol", "seeds", "match"),
    [
        (PROTOCOL, range(3), "cannot reach alpha"),
        (PROTOCOL, [*range(8), 1001], "seed 1001 is both a gate seed and a baseline seed"),
        (replace(PROTOCOL, overrides=[*TINY, "seed=3"]), range(8), "seed=3: a protocol cannot set seed"),
        (
            replace(PROTOCOL, overrides=[*TINY, "logger.wandb=online"]),
            range(8),
            "a protocol cannot set seed, out or logger",
        ),
        (replace(PROTOCOL, overrides=["env=reachr-v5"]), range(8), "unknown env"),
    ],
)
def test_a_protocol_that_could_never_judge_is_refused(
    protocol: Protocol, seeds: list[int], match: str, tmp_path: Path, now
):
    now(trial(0, 1.0))
    with pytest.raises(UserError, match=match):
        regress.create(tmp_path / "new", protocol, seeds, "why")
    assert not (tmp_path / "new").exists()


def test_an_existing_baseline_is_not_made_twice(baseline: Path, now):
    now(trial(0, 1.0))
    with pytest.raises(UserError, match="exists; update it without --new"):
        regress.create(baseline, PROTOCOL, range(8), "why")


# End to end


def test_a_gate_from_its_first_baseline_to_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    series = {"loss": np.linspace(1, 0, 20), "grad_norm": np.ones(20)}
    monkeypatch.setattr(golden, "trajectories", lambda names, _: dict.fromkeys(names, series))
    folder, out = tmp_path / "baselines", tmp_path / "runs"
    protocol = replace(PROTOCOL, gate_seeds=[1000, 1001], alpha=0.2)
    assert regress.create(folder, protocol, range(4), "first one", out / "a", jobs=1) == 0
    found = load_trials([folder / "reacher-v5-sail_revkl_segments-tiny.csv"])
    assert [run.seed for run in found] == list(range(4))
    assert all(run.finished for run in found)

    assert regress.check([folder], out / "b", jobs=2) == 0
    text = capsys.readouterr().out
    assert "2 not worse (exit code 0)" in text
    trained = load_trials([out / "b"])
    assert sorted(run.seed for run in trained) == protocol.gate_seeds
    assert all(f"seed {run.seed}   {run.final:.4g}\n" in text for run in trained)

    stored = golden.load(folder / "golden.csv")
    shifted = {name: {**kept, "loss": kept["loss"] + 0.1} for name, kept in stored.items()}
    monkeypatch.setattr(golden, "trajectories", lambda *_: shifted)
    assert regress.check([folder / "golden.csv"]) == 1
    assert "OTHER NUMBERS" in capsys.readouterr().out

    monkeypatch.setattr(golden, "trajectories", lambda *_: 1 / 0)
    assert regress.check([folder / "golden.csv"]) == 1
    assert "WORSE: ZeroDivisionError" in capsys.readouterr().out

    monkeypatch.setattr(golden, "algorithms", lambda _: [*stored, "mine"])
    assert regress.check([folder / "golden.csv"]) == 2
    assert "mine has no golden trajectory" in capsys.readouterr().out


# In another project's CI

ACTION = Path(__file__).parents[2] / ".github" / "actions" / "regress"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_shell_script_hands_on_the_verdict(code: int, tmp_path: Path):
    stub = tmp_path / "sailctl"
    stub.write_text(f'#!/bin/sh\necho "asked: $*"\necho trouble >&2\nexit {code}\n')
    stub.chmod(0o755)
    summary, output, out = tmp_path / "summary", tmp_path / "output", tmp_path / "kept"
    names = {"SAILCTL": stub, "OUT": out, "GITHUB_STEP_SUMMARY": summary, "GITHUB_OUTPUT": output}
    done = subprocess.run(
        ["bash", ACTION / "regress.sh", "bars", "--jobs", "2"],
        env={"PATH": os.environ["PATH"], **{name: str(value) for name, value in names.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    said = f"asked: regress --out {out}/runs bars --jobs 2\ntrouble\n"
    assert done.stdout == said
    assert (out / "report.txt").read_text() == said
    assert summary.read_text() == f"```\n{said}```\n"
    assert output.read_text() == f"code={code}\n"


def test_the_action_runs_the_script_with_its_inputs():
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    steps = action["runs"]["steps"]
    text = json.dumps(steps)
    assert sorted(action["inputs"]) == sorted(set(re.findall(r"inputs\.(\w+)", text)))
    assert all("shell" in step for step in steps if "run" in step), "a composite action needs to be told"
    (gate,) = [step for step in steps if step.get("id") == "gate"]
    assert gate["run"] == 'bash "$ACTION/regress.sh" $ARGUMENTS $BASELINES'
    assert action["outputs"]["code"]["value"] == "${{ steps.gate.outputs.code }}"
