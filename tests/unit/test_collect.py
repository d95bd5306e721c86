"""``sailctl collect`` as a user runs it: what is in the file, what is refused, what is left behind."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sailctl.cli.main import main
from sailctl.config import Config
from sailctl.core.seeding import named_generators
from sailctl.core.types import Pairs, PreferenceData, Preferences
from sailctl.data.datasets import KEY, check_fits, load_preferences
from sailctl.policies.policy import GaussianPolicy
from sailctl.preferences.oracle import Teacher
from sailctl.runs.checkpoint import save_policy
from sailctl.simulator.batched import TaskSimulator
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.collect import PATIENCE
from sailctl_envs import ALL_TASKS

PENDULUM = (
    "env=invertedpendulum-v5",
    "rollout.prompts=4",
    "rollout.segment_length=5",
    "rollout.label_horizon=8",
    "policy.hidden=[8]",
)
CHEETAH = ("env=halfcheetah-v5", *PENDULUM[1:])


def collect(out: Path, pairs: int, *overrides: str) -> int:
    """Exit code of one command line; of two values for a key the last one counts."""
    chosen = {word.split("=", 1)[0]: word for word in overrides}
    return main(["collect", "--pairs", str(pairs), *chosen.values(), "--out", str(out)])


def collected(out: Path, pairs: int, *overrides: str) -> PreferenceData:
    assert collect(out, pairs, *overrides) == 0
    return load_preferences(out)


def about(out: Path) -> dict[str, Any]:
    return json.loads(pq.read_schema(out).metadata[KEY])["about"]


def config_of(*overrides: str) -> Config:
    return compose_jobs(overrides).jobs[0].config


# What is in the file


def test_answers_of_the_teacher_about_one_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "cheetah.parquet"
    data = collected(out, 6, *CHEETAH)
    simulator = TaskSimulator(ALL_TASKS["halfcheetah-v5"]())
    check_fits(data, simulator.spec)
    assert len(data) == 6, "it stops in the middle of the second batch of four"
    assert data.segments.mask.shape == (12, 8), "all that the teacher judged"
    assert data.steps == 5

    table = pd.read_parquet(out)
    returns = table[["return_1", "return_2"]].to_numpy()
    np.testing.assert_array_equal(data.preferences.label, np.sign(returns[:, 0] - returns[:, 1]))
    assert len(set(returns.ravel())) == 12
    np.testing.assert_array_equal(data.segments.obs[0::2, 0], data.segments.obs[1::2, 0])
    assert len({start.tobytes() for start in data.segments.obs[0::2, 0]}) == 6
    assert len(set(data.preferences.pairs.group)) == 6
    assert capsys.readouterr().out == (
        f"{out}: 6 pairs (0 ties), 0 skipped, 128 env steps, mean length 8.0 of 8, "
        f"{out.stat().st_size / 1000:.1f}kB\n"
    )


def test_it_records_where_the_answers_come_from(tmp_path: Path):
    out = tmp_path / "a.parquet"
    assert collect(out, 3, *PENDULUM, "seed=7") == 0
    record = about(out)
    origin = record.pop("provenance")
    assert origin["command"] == [
        *("sailctl", "collect", "--pairs", "3"),
        *(*PENDULUM, "seed=7", "--out", str(out)),
    ]
    assert {"sailctl", "git", "packages", "cpu", "started"} <= set(origin)
    config = record.pop("config")
    assert (config["seed"], config["env"]["id"], config["rollout"]["label_horizon"]) == (
        7,
        "invertedpendulum-v5",
        8,
    )
    assert {key: record[key] for key in ("labels", "skipped")} == {"labels": 3, "skipped": 0}
    assert 3 <= record["env_steps"] <= 4 * 2 * 8
    assert list(record) == ["labels", "ties", "skipped", "env_steps"]


@pytest.mark.parametrize("reference", [False, True])
def test_the_policy_is_the_one_that_training_would_start_from_and_stays_so(reference: bool, tmp_path: Path):
    """With hardly any noise, every action in the file is that policy's mean action."""
    words = [*CHEETAH, "policy.initial_std=1e-6", "seed=5"]
    config = config_of(*words, "algo=sail_segments", "algo.minibatches=4")
    spec = TaskSimulator(ALL_TASKS["halfcheetah-v5"]()).spec
    policy = GaussianPolicy(config.policy, spec, named_generators(99 if reference else 5).init)
    if reference:
        policy.observe(np.random.default_rng(0).normal(2.0, 3.0, (100, 17)).astype(np.float32))
        save_policy(policy, tmp_path / "policy")
        words.append(f"algo.reference={tmp_path / 'policy'}")
    data = collected(tmp_path / "a.parquet", 9, *words)
    mean = policy.act(data.segments.obs.reshape(-1, 17).astype(np.float64), None)
    np.testing.assert_allclose(data.segments.actions.reshape(-1, 6), mean, rtol=0, atol=1e-5)
    assert np.abs(mean).max() > 1e-3, "an action of nothing would show nothing"


def test_the_same_seed_makes_the_same_file_whatever_the_threads(tmp_path: Path):
    files = [tmp_path / f"{name}.parquet" for name in "abc"]
    for file, words in zip(files, (["seed=1"], ["seed=1", "threads=2"], ["seed=2"]), strict=True):
        assert collect(file, 5, *PENDULUM, "oracle=stochastic", *words) == 0
    one, two, other = (pq.read_table(file) for file in files)
    assert one.equals(two)
    assert not one.equals(other)
    first, second = about(files[0]), about(files[1])
    assert first["config"].pop("threads") != second["config"].pop("threads")
    for record in (first, second):
        del record["provenance"]["started"], record["provenance"]["command"]
    assert first == second


def test_pairs_that_share_a_segment_share_a_group(tmp_path: Path):
    data = collected(
        tmp_path / "a.parquet", 7, *CHEETAH, "rollout.prompts=2", "rollout.forks=3", "algo.minibatches=2"
    )
    np.testing.assert_array_equal(data.preferences.pairs.group, [0, 0, 0, 1, 1, 1, 2])
    first, second = data.segments.obs[0::2], data.segments.obs[1::2]
    np.testing.assert_array_equal(first[0], first[1])
    np.testing.assert_array_equal(second[0], first[2])
    np.testing.assert_array_equal(second[1], second[2])
    assert not np.array_equal(second[0], second[1])


def test_segments_of_different_states_can_be_compared(tmp_path: Path):
    data = collected(tmp_path / "a.parquet", 6, *CHEETAH, "rollout.pairing=unrelated")
    starts = data.segments.obs[:, 0]
    assert (starts[0::2] != starts[1::2]).any(axis=1).all()
    assert len(set(data.preferences.pairs.group)) == 6


def test_segments_that_fell_are_shorter(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "a.parquet"
    data = collected(
        out, 12, *PENDULUM, "rollout.segment_length=20", "rollout.label_horizon=20", "policy.initial_std=1"
    )
    lengths = pd.read_parquet(out)[["length_1", "length_2"]].to_numpy()
    np.testing.assert_array_equal(data.segments.mask.sum(axis=1), lengths.ravel())
    assert lengths.min() < 20
    assert f"mean length {lengths.mean():.1f} of 20" in capsys.readouterr().out


def test_ties_are_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "a.parquet"
    data = collected(out, 5, *CHEETAH, "oracle.tie_margin=1000")
    assert (data.preferences.label == 0).all()
    assert "5 pairs (5 ties), 0 skipped" in capsys.readouterr().out
    assert about(out)["ties"] == 5


def test_a_budget_that_just_allows_the_pairs_will_do(tmp_path: Path):
    assert len(collected(tmp_path / "a.parquet", 5, *PENDULUM, "oracle.budget=5")) == 5


def test_skipped_pairs_are_no_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The pendulum earns 1 per step until it falls, so that the teacher skips pairs that soon fall."""
    words = [
        *PENDULUM,
        "rollout.segment_length=20",
        "rollout.label_horizon=20",
        "policy.initial_std=1",
        "rollout.start_fraction=0",
    ]
    every, some = tmp_path / "every.parquet", tmp_path / "some.parquet"
    assert collect(every, 30, *words) == 0
    assert collect(some, 30, *words, "oracle.skip=45") == 0
    skipped = int(re.findall(r"(\d+) skipped", capsys.readouterr().out)[-1])
    assert len(load_preferences(some)) == 30
    assert about(some)["skipped"] == skipped > 0
    assert about(some)["env_steps"] > about(every)["env_steps"]
    best = [pd.read_parquet(file)[["return_1", "return_2"]].max(axis=1) for file in (every, some)]
    assert best[1].mean() > best[0].mean()


def test_a_teacher_that_skips_everything_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "a.parquet"
    assert collect(out, 10_000, *PENDULUM, "oracle.skip=1e6") == 1
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"sailctl: the teacher skipped all pairs of 100 consecutive iterations, after \d+ answers; .*\n",
        error,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("every", "code"), [(PATIENCE, 0), (PATIENCE + 1, 1)])
def test_a_teacher_that_answers_now_and_then_is_waited_for(
    every: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Rare(Teacher):
        sessions = 0

        def answer(self, pairs: Pairs, *rest: Any) -> Preferences:
            self.sessions += 1
            return super().answer(pairs.head(0 if self.sessions % every else 1), *rest)

    monkeypatch.setattr("sailctl.training.collect.Teacher", Rare)
    words = [*PENDULUM, "rollout.segment_length=1", "rollout.label_horizon=1"]
    assert collect(tmp_path / "a.parquet", 2, *words) == code
    assert (tmp_path / "a.parquet").exists() == (code == 0)


def test_an_interrupt_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TaskSimulator, "step", interrupted)
    assert collect(tmp_path / "a.parquet", 5, *PENDULUM) == 130
    assert capsys.readouterr().err == "sailctl: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("progress", ["true", "false"])
def test_a_terminal_shows_progress_unless_it_is_turned_off(
    progress: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert collect(tmp_path / "a.parquet", 5, *PENDULUM, f"logger.progress={progress}") == 0
    assert ("5/5" in capsys.readouterr().err) == (progress == "true")


# What is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs=0"], "--pairs must be at least 1, got 0"),
        (["--pairs=-3"], "--pairs must be at least 1, got -3"),
        (["--pairs=many"], "argument --pairs: invalid int value: 'many' (see sailctl collect --help)"),
        (["--pairs=5", "oracle.budget=4"], "oracle.budget must be null, or at least --pairs=5, got 4"),
        (
            ["rollout=ranked"],
            "rollout.pairing must be forked or unrelated: a data set holds pairs, not rankings",
        ),
        (["oracle=worst_case"], "oracle.rho must be 0, got 0.1: "),
        (["seed=0,1"], "sailctl collect makes one file: leave out -m, and give each key one value"),
        (["env=hopper-v5,walker2d-v5"], "sailctl collect makes one file: "),
        (["-m"], "sailctl collect makes one file: "),
        (["hydra.mode=MULTIRUN", "seed=0,1"], "sailctl collect makes one file: "),
        (["oracle.skpi=1"], "unknown key 'oracle.skpi'; did you mean 'oracle.skip'?"),
        (["rollout.segment_length=0"], "rollout.segment_length must be from 1 to 1000"),
        (["rollout.segment_length=0", "algo=sail"], "rollout.segment_length must be from 1 to 1000"),
        (["--config-dir=nowhere"], "--config-dir must be an existing folder, got 'nowhere'"),
        (["--out=answers.csv"], "a file of preferences is called *.parquet, got 'answers.csv'"),
        (["--out=old.parquet"], "old.parquet exists already; choose another name, or remove it"),
        (["--out=old.parquet/a.parquet"], "cannot write into "),
        (["algo.reference=nowhere"], "algo.reference must be initial, weak, medium, expert, or a run"),
        (
            ["algo.reference=reacher"],
            "algo.reference=reacher is a policy for reacher-v5, not for halfcheetah-v5",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_before_anything_is_simulated(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(TaskSimulator, "step")
    reacher = GaussianPolicy(
        config_of().policy, TaskSimulator(ALL_TASKS["reacher-v5"]()).spec, np.random.default_rng(0)
    )
    save_policy(reacher, tmp_path / "reacher")
    Path("old.parquet").write_text("old")
    assert main(["collect", "--pairs=5", "--out=new.parquet", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sailctl: {message}")
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.parquet", "reacher"]
    assert Path("old.parquet").read_text() == "old"


@pytest.mark.parametrize(("given", "missing"), [("--pairs=5", "--out"), ("--out=a.parquet", "--pairs")])
def test_both_options_are_needed(given: str, missing: str, capsys: pytest.CaptureFixture[str]):
    assert main(["collect", given]) == 2
    assert capsys.readouterr().err == (
        f"sailctl: the following arguments are required: {missing} (see sailctl collect --help)\n"
    )


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["collect", "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("usage: sailctl collect --pairs N --out FILE.parquet")


def test_a_users_folder_of_options_is_read(tmp_path: Path):
    (tmp_path / "mine" / "oracle").mkdir(parents=True)
    (tmp_path / "mine" / "oracle" / "blind.yaml").write_text("defaults:\n  - oracle\ntie_margin: 1000\n")
    words = ["oracle=blind", "--config-dir", str(tmp_path / "mine")]
    out = tmp_path / "a.parquet"
    assert main(["collect", "--pairs=2", f"--out={out}", *PENDULUM, *words]) == 0
    assert (load_preferences(out).preferences.label == 0).all()


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert collect(Path("cheetah.parquet"), 4, *CHEETAH) == 0
    examples = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        exec(compile(example, "data.md", "exec"), {})
    data = load_preferences("pendulum.parquet")
    assert (data.task, len(data)) == ("invertedpendulum-v5", 20)
    lengths = data.segments.mask.sum(axis=1)
    np.testing.assert_array_equal(data.preferences.label, np.sign(lengths[0::2] - lengths[1::2]))
    assert np.abs(data.segments.actions).max() <= 1
