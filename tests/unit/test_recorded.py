"""What a run records is what it did: settings that it reads, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path

import pytest

from sailctl.algorithms import make_algorithm
from sailctl.algorithms.protocol import Clock
from sailctl.config import RunConfig, recorded
from sailctl.simulator.registry import open_simulator
from tests.fixtures import ACTIONS, KINDS, SMALL, SMALL_ACTIONS, composed

GROUPS = ("env", "oracle", "rollout", "policy", "reward", "algo")
BASELINE = (
    "env=hopper-v5",
    "env_steps=400",
    "policy.hidden=[8]",
    "reward.hidden=[8]",
    "reward.members=2",
    "algo.envs=2",
    "algo.learning_starts=40",
    "algo.batch=8",
    "algo.initial_queries=4",
    "algo.queries=2",
    "algo.query_interval=40",
)
ON_PPO = (*BASELINE, "algo.steps=40")
ON_SAC = (*BASELINE, "algo.interval=40", "algo.hidden=[8]", "algo.updates=1")
RUNS = {
    "ppo": ("algo=ppo", *ON_PPO),
    "rlhf_ppo": ("algo=rlhf_ppo", *ON_PPO),
    "sac": ("algo=sac", *ON_SAC),
    "pebble": ("algo=pebble", *ON_SAC, "algo.pretrain=80"),
    "parity": ("algo=sail_mujoco_parity", *ON_SAC, "algo.pretrain=80"),
    **{name: (*SMALL_ACTIONS, *ACTIONS[name]) for name in ("actions", "actions_teacher", "actions_robust")},
    **{name: (*SMALL, *KINDS[name]) for name in ("revkl", "teacher", "chosen", "value")},
}
BY_VALUE = {
    "algo": {
        "baseline",
        "comparison",
        "kappa",
        "rho",
        "worst_case",
        "kl",
        "reference_interval",
        "relabel",
        "iterations",
        "selection",
    },
    "oracle": {"normalise"},
    "policy": {"features", "hidden"},
    "reward": {"target_accuracy", "epochs", "questions", "gae_lambda", "value_horizon", "start", "cut"},
}
"""Read or not by the value of another setting, which is recorded too."""
BEFORE = {
    "algo": {"name", "responses", "learner"},
    "env": {"id", "segment_length", "label_horizon", "value_horizon", "discount"},
}
"""What chooses the algorithm and the task, and values of which others are made, before a run begins."""
NOT_ALWAYS = {
    f"{group}.{key}" for table in (BY_VALUE, BEFORE) for group, keys in table.items() for key in keys
}


@contextmanager
def watched(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The dotted keys of all settings that are read within the block."""
    read: set[str] = set()
    for group in GROUPS:
        part = getattr(config, group)
        kind = type(part)
        names = {field.name for field in fields(kind)}

        def get(
            self: object, name: str, group: str = group, part: object = part, names: set[str] = names
        ) -> object:
            if self is part and name in names:
                read.add(f"{group}.{name}")
            return object.__getattribute__(self, name)

        monkeypatch.setattr(kind, "__getattribute__", get)
    yield read
    monkeypatch.undo()


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_records_what_it_reads_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = composed(tmp_path, *RUNS[name])
    written = {
        f"{group}.{key}" for group, values in recorded(config).items() if group in GROUPS for key in values
    }
    with (
        closing(open_simulator(config.env.id, 1)) as simulator,
        watched(config, monkeypatch) as read,
    ):
        algorithm, clock = make_algorithm(config, simulator), Clock()
        algorithm.begin(clock)
        for left in (1.0, 0.8, 0.6, 0.4, 0.2):
            algorithm.iterate(clock, left)
        algorithm.policy()
        found = set(read)
    assert found <= written, f"read and not recorded: {sorted(found - written)}"
    assert written - found <= NOT_ALWAYS, f"recorded, not read: {sorted(written - found - NOT_ALWAYS)}"


def test_of_a_policy_sac_records_its_first_deviation_alone(tmp_path: Path):
    """Kind and widths of what it trains are its own, whatever is configured."""
    for name in ("sac", "pebble", "parity"):
        assert [*recorded(composed(tmp_path, *RUNS[name]))["policy"]] == ["initial_std"]


def test_a_baseline_does_not_claim_unbounded_rewards(tmp_path: Path):
    """The code bounds the learned reward of a baseline, whatever ``reward.bounded`` says."""
    for name in ("rlhf_ppo", "pebble"):
        assert "bounded" not in recorded(composed(tmp_path, *RUNS[name]))["reward"]
    true = recorded(composed(tmp_path, *RUNS["ppo"]))
    assert (true["reward"], true["oracle"], true["rollout"], true["env"]) == (
        {},
        {},
        {},
        {"id": "hopper-v5", "discount": 0.995},
    )
