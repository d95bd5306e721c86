"""Small runs of every kind, for tests of runs that are stopped, go on, or stand side by side."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from sailctl.config import RunConfig
from sailctl.runs.results import load_run
from sailctl.sweeps.compose import compose_jobs

SMALL = (
    "algo=sail_revkl_segments",
    "env=hopper-v5",
    "rollout.prompts=8",
    "rollout.segment_length=5",
    "rollout.label_horizon=5",
    "env_steps=1000000",
    "algo.iterations=7",
    "algo.epochs=2",
    "evaluation.every=400",
    "evaluation.iterations=3",
    "evaluation.episodes=2",
    "policy.hidden=[8]",
    "logger.wandb=disabled",
    "logger.progress=false",
    "logger.checkpoint=0",
)
REWARD = ("reward.hidden=[8]", "reward.members=2")
KINDS = {
    "sail": ("algo=sail_segments", "algo.reference_interval=3"),
    "revkl": ("algo=sail_revkl_segments", "algo.kl=kl_pi_ref", "algo.anneal=true"),
    "sgd": ("algo=sail_robust_segments", "algo.optimiser=sgd", "algo.target_kl=null", "algo.clip=0.1"),
    "linear": ("algo=dpo_online_segments", "policy=linear", "policy.features=8"),
    "teacher": (
        "algo=sail_segments",
        "oracle=stochastic",
        "oracle.normalise=true",
        "oracle.skip=0.1",
        "oracle.mistake=0.2",
        "oracle.rho=0.1",
        "oracle.budget=40",
    ),
    "ranked": (
        "algo=sail_segments",
        "rollout=ranked",
        "rollout.prompts=8",
        "rollout.segment_length=5",
        "rollout.label_horizon=5",
    ),
    "chosen": ("algo=sail_segments", "algo.queries=3", "algo.selection=disagreement", *REWARD),
    "starts": ("algo=sail_segments", "rollout.start_fraction=0.5", "rollout.restart=0.3"),
    "contacts": ("algo=sail_segments", "env=ant-v5", "evaluation.every=100000", "evaluation.episodes=1"),
    "memory": ("algo=sail_segments", "env=reacher-v5"),
    "observed": ("algo=sail_segments", "algo.reference_interval=0", "algo.observe=120"),
    "dpr": ("algo=sail_dpr", *REWARD),
    "dpp": ("algo=sail_dpp",),
    "offline": ("algo=dpo_offline",),
    "value": (
        "experiment=value",
        "algo=sail_segments",
        "reward.start=60",
        "rollout.prompts=8",
        *REWARD,
    ),
}
"""Of the algorithms on segments."""

SMALL_ACTIONS = (
    "env=hopper-v5",
    "env_steps=280",
    "evaluation.every=120",
    "evaluation.episodes=1",
    "policy.hidden=[8]",
    "reward.hidden=[8]",
    "reward.members=2",
    "reward.steps=2",
    "algo.envs=4",
    "algo.interval=40",
    "algo.learning_starts=40",
    "algo.warmup=5",
    "algo.batch=8",
    "algo.hidden=[8]",
    "algo.window=5",
    "algo.initial_queries=4",
    "algo.queries=2",
    "algo.query_interval=40",
    "logger.wandb=disabled",
    "logger.progress=false",
    "logger.checkpoint=0",
)
ACTIONS = {
    "actions": ("algo=sail", "algo.reference_interval=7", "algo.selection=disagreement", "algo.observe=100"),
    "actions_score": (
        "algo=sail_revkl",
        "algo.gradient=score",
        "algo.kl=kl_pi_ref",
        "algo.actions=3",
        "algo.recent=60",
    ),
    "actions_ranking": (
        "algo=dpo_online",
        "algo.gradient=score",
        "algo.comparison=ranking",
        "algo.actions=3",
        "algo.delay=1",
        "policy=linear",
        "policy.features=8",
    ),
    "actions_teacher": ("algo=sail", "algo.reward=teacher", "algo.steps=3", "env=reacher-v5"),
    "actions_robust": (
        "algo=sail_robust",
        "algo.worst_case=clipped",
        "oracle=stochastic",
        "oracle.normalise=true",
        "oracle.skip=0.1",
        "oracle.mistake=0.2",
        "oracle.budget=9",
    ),
}
"""Of the algorithms on single actions."""


def composed(out: Path, *words: str) -> RunConfig:
    """A later value of a key is the one that counts."""
    chosen = {word.split("=", 1)[0]: word for word in words}
    (job,) = compose_jobs([*chosen.values(), f"out={out}"]).jobs
    return job.config


def config_of(out: Path, *overrides: str) -> RunConfig:
    return composed(out, *SMALL, *overrides)


def actions_of(out: Path, *overrides: str) -> RunConfig:
    return composed(out, *SMALL_ACTIONS, *overrides)


def assert_same_run(one: Path, two: Path) -> None:
    first, second = load_run(one), load_run(two)
    timeless = [name for name in first.metrics if not name.endswith("_s")]
    pd.testing.assert_frame_equal(first.metrics[timeless], second.metrics[timeless], check_exact=True)
    assert list(first.metrics) == list(second.metrics)
    assert (one / "evaluations.csv").read_text() == (two / "evaluations.csv").read_text()
    policies = [load_file(path / "policy" / "policy.safetensors") for path in (one, two)]
    assert all(torch.equal(policies[0][name], policies[1][name]) for name in policies[0])
    ends = [{k: v for k, v in run.status.items() if not k.endswith("_s")} for run in (first, second)]
    assert ends[0] == ends[1]
    assert ends[0]["state"] == "finished"
