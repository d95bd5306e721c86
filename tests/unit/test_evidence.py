"""Runs as evidence: nothing is lost on the way, and unfair comparisons are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from sailctl.analysis.arms import gather
from sailctl.analysis.evidence import Trial
from sailctl.analysis.trials import load_trials, save_trials
from sailctl.config import Config
from sailctl.core.types import RunError, UserError
from sailctl.runs.recorder import open_run
from sailctl.sweeps.compose import compose_jobs
from tests.trials import make_trial


@pytest.fixture(scope="module")
def shipped() -> Config:
    return compose_jobs(["env=hopper-v5", "algo=sail"]).jobs[0].config


@pytest.fixture
def config(shipped: Config, tmp_path: Path) -> Config:
    return replace(shipped, out=str(tmp_path / "runs"))


def write_run(config: Config, evaluations: int = 3, error: Exception | None = None) -> Path:
    """Two iterations from one evaluation of two episodes to the next."""
    run = open_run(config, ["sailctl", "train", "algo=sail"])
    for iteration in range(2 * evaluations + 1):
        place = {"iteration": iteration, "env_steps": 1000 * iteration, "labels": 10 * iteration}
        if iteration % 2 == 0:
            episodes = ((0, 100.0 * iteration - 1), (1, 100.0 * iteration + 1))
            run.evaluation([{**place, "episode": k, "return": r, "length": 50 + k} for k, r in episodes])
        if iteration:
            run.log({**place, "kl_ref_pi": float(iteration), "wall_s": 0.5 * iteration, "loss": 1.0})
    run.finish({}) if error is None else run.fail(error)
    return run.path


def same(one: Trial, other: Trial) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b
        for a, b in (
            (getattr(one, f.name), getattr(other, f.name)) for f in fields(Trial) if f.name != "place"
        )
    )


# Reading and writing


def test_a_run_directory_becomes_a_trial(config: Config):
    (trial,) = load_trials([write_run(replace(config, seed=7))])
    assert (trial.task, trial.algorithm, trial.seed, trial.state) == ("hopper-v5", "sail", 7, "finished")
    assert trial.iteration.tolist() == [0, 2, 4, 6]
    assert trial.env_steps.tolist() == [0, 2000, 4000, 6000]
    assert trial.labels.tolist() == [0, 20, 40, 60]
    assert trial.wall_s.tolist() == [0, 1, 2, 3]
    assert trial.returns.tolist() == [0, 200, 400, 600]
    assert trial.lengths.tolist() == [50.5] * 4
    np.testing.assert_array_equal(trial.kl, [np.nan, 1.5, 3.5, 5.5])
    assert trial.before.tolist() == [-1, 1]
    assert trial.after.tolist() == [599, 601]
    assert trial.settings["algo.beta"] == config.algo.beta
    assert not {"seed", "out", "threads", "logger.wandb"} & set(trial.settings)
    assert trial.origin["command"] == "sailctl train algo=sail"
    assert trial.origin["torch"]


def test_the_final_score_is_the_mean_of_the_last_three_evaluations_of_training():
    assert make_trial([900, 10, 20, 60]).final == 30
    assert make_trial([900, 10, 20]).final == 15
    assert make_trial([900, 900, 10, 20, 60]).final == 30
    assert np.isnan(make_trial([900]).final)
    assert not make_trial([900]).finished


def test_a_run_that_failed_before_anything_is_a_trial_too(config: Config):
    run = open_run(config, [])
    run.fail(RunError("NaN in the loss"))
    (trial,) = load_trials([run.path])
    assert (trial.state, trial.error, len(trial.returns), trial.finished) == (
        "failed",
        "NaN in the loss",
        0,
        False,
    )


def test_a_line_that_a_killed_run_did_not_finish_is_no_row(config: Config):
    path = write_run(config)
    for name in ("metrics.csv", "evaluations.csv"):
        with (path / name).open("a") as file:
            file.write("7,7000,7")
    (trial,) = load_trials([path])
    assert trial.iteration.tolist() == [0, 2, 4, 6]


def test_settings_of_another_version_need_not_be_all_there():
    old = replace(make_trial(), settings={"algo.name": "sail"})
    new = replace(make_trial(algorithm="dpo_online"), settings={"algo.name": "dpo_online", "algo.new": 1})
    assert old.simulates
    assert [arm.name for arm in gather([old, new], ["oracle.*"], force=True).arms] == ["dpo_online", "sail"]


def test_saved_evidence_is_read_back_exactly(config: Config, tmp_path: Path):
    write_run(config)
    write_run(replace(config, seed=1), 1, RunError('it "failed", and\nsaid so'))
    strong = replace(config, algo=replace(config.algo, gamma=0.1 + 0.2, name="sail_revkl"))
    write_run(replace(strong, seed=2**40))
    trials = load_trials([tmp_path / "runs"])
    saved = tmp_path / "new" / "evidence.csv"
    save_trials(trials, saved, {"reason": "a test"})
    again = load_trials([saved])
    assert len(again) == 3
    assert all(same(one, other) for one, other in zip(trials, again, strict=True))
    assert json.loads(saved.with_suffix(".json").read_text())["reason"] == "a test"
    assert str(tmp_path) not in saved.read_text() + saved.with_suffix(".json").read_text()


def test_directories_and_saved_evidence_mix_and_one_folder_given_twice_counts_once(
    config: Config, tmp_path: Path
):
    path = write_run(config)
    save_trials(load_trials([path]), tmp_path / "old.csv")
    assert [t.place for t in load_trials([path, path.parent, tmp_path / "old.csv"])] == [
        str(path.resolve()),
        f"{tmp_path / 'old.csv'}, run 0",
    ]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda csv: csv.unlink(), "no such file: .*evidence.csv"),
        (lambda csv: csv.with_suffix(".json").unlink(), "no such file: .*evidence.json"),
        (lambda csv: csv.with_suffix(".json").write_text("{"), "evidence.json is not JSON"),
        (lambda csv: csv.with_suffix(".json").write_text("[]"), "it lists no runs"),
        (
            lambda csv: csv.with_suffix(".json").write_text('{"runs": [{}], "settings": {}}'),
            "not saved evidence",
        ),
        (lambda csv: csv.write_text("run,iteration\n0,zero\n"), "cannot read .*evidence.csv"),
        (lambda csv: csv.write_text("run,iteration\n0\n"), "cannot read .*evidence.csv"),
    ],
)
def test_broken_evidence_is_refused_in_one_line(break_it, message: str, tmp_path: Path):
    csv = tmp_path / "evidence.csv"
    save_trials([make_trial()], csv)
    break_it(csv)
    with pytest.raises(UserError, match=message) as refusal:
        load_trials([csv])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace(",", ";"),
        lambda text: "\n".join([text.split("\n")[0], *reversed(text.split("\n")[1:-1])]),
    ],
    ids=["bom", "crlf", "no last newline", "semicolons", "reversed"],
)
def test_saved_evidence_may_pass_through_other_programs(change: Callable[[str], str], tmp_path: Path):
    trials = [make_trial(seed=seed) for seed in range(2)]
    csv = tmp_path / "saved.csv"
    save_trials(trials, csv)
    csv.write_text(change(csv.read_text()), newline="")
    assert all(same(one, other) for one, other in zip(load_trials([csv]), trials, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], r"run 1 \(sail on hopper-v5, seed 1\) has 5 rows.* 6 were saved"),
        (lambda rows: [*rows, rows[-1]], r"run 1 .* has the row of iteration 5 twice"),
        (lambda rows: rows[:6], r"run 1 .* has 0 rows, and 6 were saved"),
        (lambda rows: [*rows[:-1], rows[-1].replace(",5,100,", ",6,100,")], "run 1 .* has other numbers"),
        (lambda rows: [*rows[:-1], rows[-1].replace(",5,100,", ",,100,")], r"run 1 .* \(of iteration 5\)"),
        (lambda rows: [*rows, rows[-1].replace("1,", "7,", 1)], "rows of a run 7, which was not saved"),
    ],
    ids=["removed", "doubled", "run gone", "changed", "empty", "foreign"],
)
def test_damaged_evidence_is_refused_and_the_run_is_named(
    change: Callable[[list[str]], list[str]], message: str, tmp_path: Path
):
    csv = tmp_path / "saved.csv"
    save_trials([make_trial(seed=seed) for seed in range(2)], csv)
    head, *rows = csv.read_text().splitlines()
    csv.write_text("\n".join([head, *change(rows)]) + "\n")
    with pytest.raises(UserError, match=message) as error:
        load_trials([csv])
    assert "is damaged" in str(error.value)


def test_evidence_is_saved_as_csv(tmp_path: Path):
    with pytest.raises(UserError, match=r"saved as a .csv"):
        save_trials([make_trial()], tmp_path / "evidence.txt")


# Arms


def pair_of_arms(**other: object) -> list[Trial]:
    """Two arms, sail and sail_revkl, on two tasks with two seeds; ``other`` changes the second arm's runs."""
    places = [(task, seed) for task in ("hopper-v5", "swimmer-v5") for seed in (1, 0)]
    ours = [make_trial(task=task, seed=seed) for task, seed in places]
    values = {"algorithm": "sail_revkl", "settings": {"algo.gamma": 0.1}, **other}
    return ours + [make_trial(task=task, seed=seed, **values) for task, seed in places]


def test_runs_that_differ_in_the_compared_settings_are_arms():
    evidence = gather(pair_of_arms())
    assert [(arm.name, arm.algorithm) for arm in evidence.arms] == [
        ("sail", "sail"),
        ("sail_revkl", "sail_revkl"),
    ]
    assert evidence.tasks == ("hopper-v5", "swimmer-v5")
    assert [(t.task, t.seed) for t in evidence.arms[0].trials] == [
        ("hopper-v5", 0),
        ("hopper-v5", 1),
        ("swimmer-v5", 0),
        ("swimmer-v5", 1),
    ]
    assert evidence.compared == {
        "algo.gamma": {"sail": 0.0, "sail_revkl": 0.1},
        "algo.name": {"sail": "sail", "sail_revkl": "sail_revkl"},
    }
    assert (evidence.caveats, evidence.notes) == ((), ())


def test_settings_that_come_with_the_task_set_no_arms_apart():
    trials = [make_trial(task=task) for task in ("hopper-v5", "walker2d-v5")]
    assert trials[0].settings["env.segment_length"] != trials[1].settings["env.segment_length"]
    assert [arm.name for arm in gather(trials).arms] == ["sail"]


def test_arms_of_one_algorithm_are_named_by_what_sets_them_apart():
    trials = [make_trial(settings={"algo.gamma": g, "algo.beta": b}) for g in (0.1, 1.0) for b in (0.5, 1.0)]
    trials.append(make_trial(algorithm="dpo_online", settings={"algo.gamma": 0.0}))
    assert [arm.name for arm in gather(trials).arms] == [
        "dpo_online",
        "sail algo.beta=0.5 algo.gamma=0.1",
        "sail algo.beta=0.5 algo.gamma=1.0",
        "sail algo.beta=1.0 algo.gamma=0.1",
        "sail algo.beta=1.0 algo.gamma=1.0",
    ]


UNFAIR = [
    ({"settings": {"oracle.mistake": 0.1}}, r"oracle.mistake differs \(0.0, 0.1\)"),
    ({"settings": {"env_steps": 6000}}, r"env_steps differs \(5000, 6000\)"),
    ({"origin": {"commit": "b" * 40}}, r"the commit of the code differs \(aaaaaaaaaa, bbbbbbbbbb\)"),
    ({"origin": {"torch": "2.14.0"}}, r"the version of torch differs \(2.13.0, 2.14.0\)"),
    ({"state": "running"}, "4 running of 8 runs, such as .*: they count as failed"),
    ({"state": "interrupted"}, "4 interrupted of 8 runs"),
    ({"labels_each": 11}, r"unequal labels used on hopper-v5 \(sail 50, sail_revkl 55\)"),
    ({"returns": [0, 1, 2, 3]}, "unequal labels used on hopper-v5"),
]


@pytest.mark.parametrize(("change", "message"), UNFAIR)
def test_arms_that_differ_in_anything_else_are_refused(change: dict[str, object], message: str):
    settings = {"algo.gamma": 0.1, **change.get("settings", {})}
    trials = pair_of_arms(**{**change, "settings": settings})
    with pytest.raises(UserError, match=f"these runs cannot be compared: {message}") as refusal:
        gather(trials)
    assert "--force" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    evidence = gather(trials, force=True)
    assert any(message.split(r" \(")[0].split(",")[0] in caveat for caveat in evidence.caveats)


def test_commits_that_compute_the_same_numbers_may_differ_and_are_noted():
    later = {"commit": "b" * 40, "numbers": 16}
    trials = pair_of_arms(settings={"algo.gamma": 0.1}, origin=later)
    known = [replace(trial, origin={**trial.origin, "numbers": 16}) for trial in trials]
    assert "runs were made by several commits (aaaaaaaaaa, bbbbbbbbbb)" in gather(known).notes
    other = [replace(known[0], origin={**known[0].origin, "numbers": 15}), *known[1:]]
    for mixed in (trials, other):
        with pytest.raises(UserError, match="the commit of the code differs"):
            gather(mixed)


def test_label_budgets_that_are_compared_may_differ_and_env_steps_may_not():
    def budget(labels: int, **more: object) -> Trial:
        return make_trial(settings={"oracle.budget": 10 * labels}, labels_each=labels, **more)

    trials = [budget(10), budget(20)]
    assert len(gather(trials, ["oracle.budget"]).arms) == len(gather(trials, ["oracle.*"]).arms) == 2
    with pytest.raises(UserError, match=r"oracle.budget differs"):
        gather(trials)
    with pytest.raises(UserError, match="unequal env steps on hopper-v5"):
        gather([*trials, budget(30, returns=[0, 1, 2, 3])], ["oracle.budget"])
    same = [make_trial(settings={"oracle.mistake": m}, labels_each=m) for m in (1, 2)]
    with pytest.raises(UserError, match="unequal labels used"):
        gather(same, ["oracle.*"])


def test_what_is_named_may_differ_and_nothing_beside_it():
    trials = [make_trial(settings={"oracle.mistake": share}) for share in (0.0, 0.1)]
    assert [arm.name for arm in gather(trials, ["oracle.*"]).arms] == [
        "sail oracle.mistake=0.0",
        "sail oracle.mistake=0.1",
    ]
    both = [*trials, make_trial(settings={"oracle.mistake": 0.1, "algo.beta": 2.0})]
    with pytest.raises(UserError, match=r"algo.beta differs"):
        gather(both, ["oracle.mistake"])
    assert len(gather(both, ["oracle.mistake", "algo.beta"]).arms) == 3


def baseline(learner: str, **settings: object) -> Trial:
    """A run that is told the true reward; ``settings`` are what it recorded beside those of every run."""
    own = {"algo.learner": learner, "algo.reward": "true", **settings}
    trial = make_trial(algorithm=learner, labels_each=0, settings=own)
    return replace(
        trial, settings={key: value for key, value in trial.settings.items() if key != "algo.beta"}
    )


def test_what_an_arm_lacks_it_cannot_share_and_that_is_noted():
    asked = {"rollout.forks": 4, "reward.lr": 1e-3, "oracle.mistake": 0.1, "policy.kind": "mlp"}
    ours = [make_trial(settings=asked), make_trial(settings=asked, algorithm="sail_revkl")]
    evidence = gather([*ours, baseline("ppo", **{"policy.kind": "mlp"})])
    assert evidence.caveats == ()
    assert evidence.notes == (
        "not shared: ppo has no oracle.*, reward.*, rollout.*",
        "not shared: ppo trains on the true reward and uses no labels",
    )
    assert evidence.compared["rollout.forks"] == {"sail": 4, "sail_revkl": 4, "ppo": None}
    # A single setting that an arm lacks in a group of which it has others.
    more = [replace(trial, settings={**trial.settings, "policy.extra": 1}) for trial in ours]
    notes = gather([*more, baseline("ppo", **{"policy.kind": "mlp"})]).notes
    assert notes[0] == "not shared: ppo has no oracle.*, policy.extra, reward.*, rollout.*"


def test_what_is_recorded_and_not_read_sets_nothing_apart():
    """Records of baselines on the true reward hold a teacher, a reward model and rollouts, all unused."""
    asked = {"rollout.forks": 4, "reward.lr": 1e-3, "oracle.mistake": 0.1, "policy.kind": "squashed"}
    unread = {"rollout.forks": 2, "reward.lr": 1e-2, "policy.kind": "mlp"}
    evidence = gather([make_trial(settings=asked), baseline("sac", **unread)])
    assert evidence.notes[0] == "not shared: sac has no oracle.*, policy.*, reward.*, rollout.*"
    with pytest.raises(UserError, match=r"policy.kind differs \(mlp, squashed\)"):
        gather([make_trial(settings=asked), baseline("ppo", **unread)])


def test_those_that_have_a_setting_still_have_to_share_it():
    trials = [
        make_trial(settings={"rollout.forks": 4}),
        make_trial(settings={"rollout.forks": 2}, algorithm="sail_revkl"),
        baseline("ppo"),
    ]
    with pytest.raises(UserError, match=r"rollout.forks differs \(4, 2\)"):
        gather(trials)
    with pytest.raises(UserError, match=r"unequal labels used on hopper-v5 \(sail 50, sail_revkl 55\)"):
        gather([make_trial(), make_trial(algorithm="sail_revkl", labels_each=11), baseline("ppo")])
    with pytest.raises(UserError, match="unequal env steps"):
        gather([make_trial(range(9)), baseline("ppo")])


def test_a_task_that_an_arm_lacks_is_refused_or_left_out_of_the_comparison():
    trials = pair_of_arms()
    with pytest.raises(UserError, match="sail_revkl has no run on swimmer-v5"):
        gather(trials[:-2])
    assert gather(trials[:-2], force=True).tasks == ("hopper-v5",)
    apart = [make_trial(task="hopper-v5"), make_trial(task="swimmer-v5", algorithm="dpo_online")]
    with pytest.raises(UserError, match="no task was run by every arm"):
        gather(apart, force=True)


def test_one_run_twice_and_no_run_are_refused_always():
    with pytest.raises(UserError, match="the same run twice"):
        gather([make_trial(), make_trial()], force=True)
    with pytest.raises(UserError, match="no runs to compare"):
        gather([], force=True)


def test_a_forced_comparison_ends_where_the_smaller_budget_does():
    long = [
        make_trial(range(9), algorithm="sail_revkl", settings={"env_steps": 8000}, seed=s) for s in (0, 1)
    ]
    short = [make_trial(range(6), seed=s) for s in (0, 1)]
    evidence = gather([*long, *short], force=True)
    assert [trial.env_steps[-1] for trial in evidence.trials] == [5000] * 4
    assert [trial.final for trial in evidence.trials] == [4] * 4


def test_other_seeds_machines_and_changed_code_are_noted():
    trials = [make_trial(seed=0), make_trial(seed=1), make_trial(seed=1, algorithm="sail_revkl")]
    trials[0] = replace(trials[0], origin={**trials[0].origin, "dirty": True, "cpu": "another"})
    evidence = gather(trials)
    assert evidence.caveats == ()
    assert [note.split(":")[0] for note in evidence.notes] == [
        "arms were not run with the same seeds on hopper-v5",
        "some runs were made by code that differs from its commit",
        "runs were made on several machines (a processor, another)",
    ]


def test_an_unknown_arm_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="no arm is called 'revkl'; the arms are 'sail', 'sail_revkl'"):
        gather(pair_of_arms()).arm("revkl")


def test_what_goes_with_the_task_is_no_second_arm_though_another_algorithm_has_one_value_for_all():
    """Lengths by task in one algorithm, one length in the other: two arms, and the lengths are told."""
    trials = [
        make_trial(task=task, algorithm=algorithm, settings={"rollout.segment_length": segment})
        for algorithm, task, segment in (
            ("direct", "hopper-v5", 25),
            ("direct", "swimmer-v5", 50),
            ("short", "hopper-v5", 20),
            ("short", "swimmer-v5", 20),
        )
    ]
    evidence = gather(trials, force=True)
    assert [arm.name for arm in evidence.arms] == ["direct", "short"]
    assert evidence.tasks == ("hopper-v5", "swimmer-v5")
    assert evidence.arm("direct").settings["rollout.segment_length"] == "25, 50"
    assert evidence.arm("short").settings["rollout.segment_length"] == 20
    assert any("rollout.segment_length differs (25, 50, 20)" in caveat for caveat in evidence.caveats)
    with pytest.raises(UserError, match=r"rollout\.segment_length differs"):
        gather(trials)
