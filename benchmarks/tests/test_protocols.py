"""The protocols of the benchmarks: what they would train can be trained, and holds their baseline."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.missing import ids_of, missing_sweeps, saved_runs
from benchmarks.protocols import PROTOCOLS, Protocol, at_equal_cost, compared, main, names_of, swept
from benchmarks.stability import stability
from sailctl.analysis.arms import gather
from sailctl.analysis.evidence import Trial, flat_settings
from sailctl.analysis.trials import load_trials, save_trials
from sailctl.config import to_dict
from sailctl.core.types import UserError
from sailctl.policies.references import scale_of_references
from sailctl.runs.results import find_runs
from sailctl.sweeps.compose import compose_jobs
from tests.trials import make_trial


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_can_be_trained_and_holds_its_baseline(name: str):
    protocol = PROTOCOLS[name]
    jobs = [
        job
        for sweep in protocol.sweeps
        for job in compose_jobs([*sweep, "env=hopper-v5,ant-v5"], multirun=True).jobs
    ]
    algorithm, *settings = protocol.compare[protocol.compare.index("--baseline") + 1].split()

    def is_baseline(config: dict) -> bool:
        told = [setting.partition("=")[::2] for setting in settings]
        chosen = [(key.split("."), value) for key, value in told]
        return config["algo"]["name"] == algorithm and all(
            str(config[group][key]) == value for (group, key), value in chosen
        )

    assert sum(is_baseline(to_dict(job.config)) for job in jobs) == 2  # one on each task


@pytest.mark.parametrize("name", [name for name, p in PROTOCOLS.items() if "--force" not in p.compare])
def test_the_arms_of_a_protocol_may_be_compared(name: str):
    """As far as settings go: what differs is what is compared, or what an arm lacks."""
    words = PROTOCOLS[name].compare
    compared = [value for word, value in pairwise(words) if word == "--by"]
    jobs = [
        job
        for sweep in PROTOCOLS[name].sweeps
        for job in compose_jobs([*sweep, "env=hopper-v5,ant-v5"], multirun=True).jobs
    ]
    trials = [
        replace(
            make_trial(task=job.config.env.id, algorithm=job.config.algo.name),
            settings=flat_settings(to_dict(job.config)),
        )
        for job in jobs
    ]
    evidence = gather(trials, compared or ["algo.*"])
    assert words[words.index("--baseline") + 1] in [arm.name for arm in evidence.arms]
    assert len(evidence.arms) == len(jobs) / 2


def test_some_algorithms_of_a_protocol():
    scratch = PROTOCOLS["scratch"]
    assert tuple(swept(scratch)) == scratch.sweeps
    some = swept(scratch, ["sail_revkl_segments", "ppo"])
    assert [words[:2] for words in some] == [
        ("experiment=value", "algo=sail_revkl_segments"),
        ("algo=ppo",),
    ]
    assert swept(scratch, ["sail_revkl_direct"]) == [scratch.sweeps[1]]
    assert names_of(scratch) == ["sail_segments", "sail_revkl_segments", "sail_revkl_direct", "ppo"]


def test_an_algorithm_that_a_protocol_has_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["protocols", "alignment", "--algorithms", "sail_segments", "sac"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert (
        "alignment has no sac; its algorithms are sail_segments, sail_robust_segments, sail_revkl_segments"
        in capsys.readouterr().err
    )


def test_at_equal_cost_a_slow_learner_is_cut_where_the_baseline_ended():
    """Hopper's scale put in by hand: scores of 0, 1, 2, ... at one evaluation after the other."""
    low, high = scale_of_references()["hopper-v5"]

    def returns(*scores: float) -> list[float]:
        return [low + score * (high - low) for score in scores]

    slow = make_trial(returns(0, 0.2, 0.2, 0.2, 0.8, 0.8, 0.8), algorithm="slow")
    trials = [
        *(make_trial(returns(0, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4), algorithm="ppo", seed=s) for s in (0, 1)),
        *(replace(slow, seed=s, cpu_s=2 * slow.cpu_s) for s in (0, 1)),
        replace(slow, algorithm="broken", state="failed"),
    ]
    found = {(row["at equal"], row["algorithm"]): row for row in at_equal_cost(trials, "ppo")}
    assert found["env_steps", "slow"]["score"] == pytest.approx(0.8)
    assert found["env_steps", "slow"]["share"] == 2.0
    assert found["cpu_s", "slow"]["score"] == pytest.approx(0.2), "half of its evaluations are within 6 s"
    assert found["cpu_s", "slow"]["share"] == 0.5
    assert found["env_steps", "broken"]["score"] == 0.0
    assert found["env_steps", "ppo"]["share"] == 1.0
    assert found["env_steps", "ppo"]["runs"] == 2
    assert {axis for axis, _ in found} == {"env_steps", "labels", "cpu_s"}
    old = [replace(trial, cpu_s=np.full(7, np.nan), labels=np.zeros(7)) for trial in trials]
    assert {row["at equal"] for row in at_equal_cost(old, "ppo")} == {"env_steps"}, (
        "what is not known is not said"
    )


def test_a_protocol_is_compared_with_its_baseline_once_that_is_there():
    protocol = PROTOCOLS["map_gamma"]
    assert compared(protocol, {"sail_revkl_segments"}) == list(protocol.compare)
    assert "--baseline" not in compared(protocol, {"sail"})
    assert compared(protocol, {"sail"})[:2] == list(protocol.compare[:2])


def test_steadiness_is_of_scores_and_counts_failed_seeds():
    low, high = scale_of_references()["hopper-v5"]

    def run(scores: list[float], seed: int, state: str = "finished"):
        return make_trial([low + (high - low) * score for score in scores], seed=seed, state=state)

    falls = run([0.5, 0.3, 0.6, 0.5, 0.9], seed=0)  # 0.2 below its start; falls of 0.2 and 0.1
    rises = run([0.5, 0.6, 0.7, 0.8, 1.0], seed=1)
    failed = run([0.5, 0.4], seed=2, state="failed")
    task, over = stability([falls, rises, failed])
    assert (task["algorithm"], task["task"]) == ("sail", "hopper-v5")
    assert (task["seeds"], task["failed"]) == (3, 1)
    assert task["start"] == pytest.approx(0.5)
    assert task["final"] == pytest.approx(0.9)
    assert task["worst_gain"] == pytest.approx(-0.1)
    assert task["dip"] == pytest.approx(0.1)
    assert task["jump"] == pytest.approx(0.1)
    assert task["minutes"] == pytest.approx(4 / 60, abs=1e-3)
    assert (over["task"], over["reached"], over["failed"]) == ("all", 1, 1)


def test_runs_that_are_saved_are_not_missing():
    sweep = ["algo=sail,sail_revkl", "env=hopper-v5,ant-v5", "env_steps=1000"]
    hopper = ids_of(["algo=sail", "env=hopper-v5", "env_steps=1000"])
    assert missing_sweeps(sweep, 2, set()) == [
        ["algo=sail,sail_revkl", "env=hopper-v5,ant-v5", "env_steps=1000", "seed=0,1"]
    ]
    assert missing_sweeps(sweep, 3, {(identity, 1) for identity in ids_of(sweep)}) == [
        ["algo=sail,sail_revkl", "env=hopper-v5,ant-v5", "env_steps=1000", "seed=0,2"]
    ]
    other_beta = {(identity, 0) for identity in ids_of([*sweep, "algo.beta=7"])}
    assert missing_sweeps(sweep, 1, other_beta) == missing_sweeps(sweep, 1, set())
    lacking = missing_sweeps(sweep, 2, {(identity, seed) for identity in hopper for seed in (0, 1)})
    assert sorted(words[:2] for words in lacking) == [
        ["algo=sail", "env=ant-v5"],
        ["algo=sail_revkl", "env=ant-v5"],
        ["algo=sail_revkl", "env=hopper-v5"],
    ]
    assert not missing_sweeps(sweep, 1, {(identity, 0) for identity in ids_of(sweep)})


def test_saved_runs_count_if_they_ended_and_others_are_not_replaced(tmp_path: Path):
    asked, other = {"id": "0123abcd"}, {"id": "99999999"}
    saved, mixed = tmp_path / "runs.csv", tmp_path / "mixed.csv"
    assert saved_runs(saved, {"0123abcd"}) == []
    mine = [
        make_trial(origin=asked, seed=0),
        make_trial(origin=asked, seed=1, state="failed"),
        make_trial(origin=asked, seed=2, state="interrupted"),
    ]
    save_trials(mine, saved)
    assert [trial.seed for trial in saved_runs(saved, {"0123abcd"})] == [0, 1]
    save_trials([*mine, make_trial(origin=other, seed=3), make_trial(seed=4)], mixed)
    with pytest.raises(UserError, match="holds 2 of 5 runs of other settings"):
        saved_runs(mixed, {"0123abcd"})


def test_more_seeds_are_added_to_saved_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder of the first runs is gone, as on another machine."""
    tiny = "algo=ppo algo.envs=2 algo.steps=8 algo.batch=16 algo.epochs=1 policy.hidden=[4]"
    protocol = Protocol("", (tuple(tiny.split()),), ("--baseline", "ppo"), ("hopper-v5", "swimmer-v5"))
    monkeypatch.setitem(PROTOCOLS, "tiny", protocol)

    def train(runs: str, *words: str) -> list[Trial]:
        places = f"--runs {tmp_path / runs} --results {tmp_path / 'results'}"
        command = f"protocols tiny --env-steps 16 {places}"
        monkeypatch.setattr("sys.argv", [*command.split(), *words])
        main()
        return load_trials([tmp_path / "results" / "tiny" / "runs.csv"])

    first, swimmer = train("one", "--seeds", "1")
    made_by = "sailctl.runs.provenance._git_state"
    monkeypatch.setattr(made_by, lambda _: {"commit": "b" * 40, "dirty": False})
    found = train("two", "--seeds", "2", "--tasks", "hopper-v5")
    assert [(trial.task, trial.seed) for trial in found] == [
        ("hopper-v5", 0),
        ("hopper-v5", 1),
        ("swimmer-v5", 0),
    ]
    for kept, before in ((found[0], first), (found[2], swimmer)):
        assert kept.origin == before.origin
        assert kept.returns.tolist() == before.returns.tolist()
    assert [path.name[-2:] for path in find_runs(tmp_path / "two")] == ["s1"]
