"""Reference policies: how they are chosen and made, and what hangs on them (starting points, the scale)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.references import words_of
from sailctl.analysis.scores import choose_scale
from sailctl.cli.main import main
from sailctl.config import LEVELS, REFERENCES, RunConfig, present, reference_place, run_id, to_dict
from sailctl.core.types import UserError
from sailctl.policies import references
from sailctl.policies.references import read_references, scale_of_references, table
from sailctl.runs.checkpoint import load_policy
from sailctl.simulator.registry import open_simulator
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.evaluate import evaluate
from sailctl.training.make_references import EPISODES, SEED, SHARES, Snapshot, choose, make_reference

SHIPPED = sorted(read_references())
TINY = [
    "algo=ppo", "env=invertedpendulum-v5", "env_steps=4096", "evaluation.every=1024", "evaluation.episodes=2",
    "algo.envs=4", "algo.steps=128", "algo.batch=128", "policy.hidden=[8]", "policy.initial_std=0.6",
    "logger.wandb=disabled",
]  # fmt: skip


def config_of(*words: str) -> RunConfig:
    return compose_jobs(list(words)).jobs[0].config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The references of a short training, as their folder."""
    return make_reference(config_of(*TINY), TINY, tmp_path_factory.mktemp("references"))


def test_levels_are_the_nearest_to_their_share_of_the_best_gain():
    returns = [20.0, 30.0, 100.0, 34.0, 60.0, 72.0, 119.0]  # random actions earn 20: the best gains 99
    snapshots = [Snapshot(step, mean, None) for step, mean in enumerate(returns)]
    chosen = choose(snapshots, random=20.0)
    assert {level: one.mean for level, one in chosen.items()} == {
        "weak": 34.0,
        "medium": 72.0,
        "expert": 119.0,
    }


def test_a_reference_is_what_its_record_says(made: Path):
    about = json.loads((made / "reference.json").read_text())
    assert about["task"] == "invertedpendulum-v5"
    assert [step for step, _ in about["curve"]] == [0, 1024, 2048, 3072, 4096]
    simulator = open_simulator("invertedpendulum-v5")
    for level in LEVELS:
        found = evaluate(load_policy(made / level), simulator, EPISODES, SEED)
        told = about["levels"][level]
        assert told["mean"] == pytest.approx(found.mean)
        assert told["length"] == pytest.approx(found.lengths.mean())
        assert told["at_env_steps"] in [step for step, _ in about["curve"]]
        gain = about["levels"]["expert"]["mean"] - about["random"]["mean"]
        assert told["share"] == pytest.approx((found.mean - about["random"]["mean"]) / gain)
    # Uniform actions of this range keep the pole up for few steps.
    assert 2 < about["random"]["mean"] < 15
    assert about["provenance"]["command"][:2] == ["sailctl", "reference"]


def test_a_reference_can_be_evaluated_by_itself(made: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["eval", str(made / "expert"), "--episodes", "2"]) == 0
    assert "invertedpendulum-v5: 2 episodes" in capsys.readouterr().out


def test_the_same_command_makes_the_same_policies(made: Path, tmp_path: Path):
    again = make_reference(config_of(*TINY), TINY, tmp_path)
    for level in LEVELS:
        assert (again / level / "policy.safetensors").read_bytes() == (
            made / level / "policy.safetensors"
        ).read_bytes()


def test_what_exists_is_left_alone_and_preferences_teach_no_reference(made: Path):
    with pytest.raises(UserError, match="exists: remove it first"):
        make_reference(config_of(*TINY), TINY, made.parent)
    with pytest.raises(UserError, match="does not train on the true reward; choose ppo or sac"):
        make_reference(config_of("algo=sail"), [], made.parent)


def test_a_level_names_the_policy_of_the_task(made: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sailctl.config.places.REFERENCES", made.parent)
    words = ["env=invertedpendulum-v5", "algo.reference=medium"]
    assert reference_place(config_of(*words)) == made / "medium" / "policy.json"
    with pytest.raises(UserError, match="there is no medium reference policy of hopper-v5"):
        config_of("env=hopper-v5", "algo.reference=medium")
    # What is in the policy names the run, not what it is called.
    place = f"algo.reference={made / 'medium'}"
    assert run_id(config_of(*words)) == run_id(config_of("env=invertedpendulum-v5", place))
    assert run_id(config_of(*words)) != run_id(config_of("env=invertedpendulum-v5"))


def test_the_scale_is_random_actions_to_the_expert(made: Path, monkeypatch: pytest.MonkeyPatch):
    about = json.loads((made / "reference.json").read_text())
    ends = (about["random"]["mean"], about["levels"]["expert"]["mean"])
    known = read_references(made.parent)
    monkeypatch.setattr(references, "read_references", lambda: known)
    assert scale_of_references() == {"invertedpendulum-v5": ends}
    assert choose_scale(None, ["invertedpendulum-v5"]) == ({"invertedpendulum-v5": ends}, "references")
    assert choose_scale(None, ["invertedpendulum-v5", "hopper-v5"]) == ({}, "runs")
    assert choose_scale("runs", ["invertedpendulum-v5"]) == ({}, "runs")
    with pytest.raises(UserError, match="there is no reference policy of hopper-v5"):
        choose_scale("references", ["hopper-v5"])
    assert f"{ends[1]:.0f} +- {about['levels']['expert']['sd']:.0f} (1.00)" in table()


@pytest.mark.parametrize("task", SHIPPED)
def test_shipped_references_fit_their_task_and_rise(task: str):
    about, simulator = read_references()[task], open_simulator(task)
    folder = REFERENCES / task
    means = [about["random"]["mean"], *(about["levels"][level]["mean"] for level in LEVELS)]
    assert means == sorted(means)
    untrained = (about["curve"][0][1] - means[0]) / (means[-1] - means[0])  # no policy of a run is weaker
    for level, share in SHARES.items():
        policy = load_policy(folder / level)
        assert policy.spec.id == task
        assert (policy.spec.obs_dim, policy.spec.act_dim) == (simulator.spec.obs_dim, simulator.spec.act_dim)
        assert about["levels"][level]["share"] == pytest.approx(max(share, untrained), abs=0.15)
        assert sum(file.stat().st_size for file in (folder / level).iterdir()) < 400_000
    # A few other episodes of a policy earn something like what the record says.
    few, told = evaluate(load_policy(folder / "weak"), simulator, 4, seed=1), about["levels"]["weak"]
    spread = told["highest"] - told["lowest"]
    assert told["lowest"] - spread < few.mean < told["highest"] + spread


@pytest.mark.parametrize("task", SHIPPED)
def test_the_command_of_a_shipped_reference_still_says_its_settings(task: str):
    """Of the groups that training on the true reward reads."""
    told = read_references()[task]["config"]
    now = to_dict(config_of(*words_of(task)))
    discount = told["algo"].pop("discount")  # a setting of the algorithm, when these were made
    assert (now["env"]["discount"], now["env"]["id"]) == (discount, told["env"]["id"])
    for group in ("algo", "policy", "evaluation"):
        told_now = present({f"{group}.{key}": value for key, value in told[group].items()})
        assert {f"{group}.{key}": value for key, value in now[group].items()} == told_now
    assert (now["seed"], now["env_steps"]) == (told["seed"], told["env_steps"])


def test_the_docs_show_the_table_as_it_is():
    page = Path(__file__).parents[2] / "docs" / "references.md"
    assert f"```text\n{table()}\n```" in page.read_text(encoding="utf-8")
