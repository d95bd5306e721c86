"""Small runs of every kind, for tests of runs that are stopped, go on, or stand side by side."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from sailctl.compose import compose_jobs
from sailctl.config import RunConfig
from sailctl.results import load_run

SMALL = (
    "env=hopper-v5",
    "rollout.prompts=8",
    "rollout.segment=5",
    "rollout.judged=5",
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
    "sail": ("algo=sail", "algo.refresh=3"),
    "revkl": ("algo=sail_revkl", "algo.kl=kl_pi_ref", "algo.anneal=true"),
    "sgd": ("algo=sail_robust", "algo.optimiser=sgd", "algo.target_kl=null", "algo.clip=0.1"),
    "proximal": (
        "algo=sail_robust",
        "algo.optimiser=sgd",
        "algo.step=proximal",
        "policy=linear",
        "policy.features=4",
    ),
    "linear": ("algo=dpo_online", "policy=linear", "policy.features=8"),
    "teacher": (
        "algo=sail",
        "oracle=stochastic",
        "oracle.normalise=true",
        "oracle.skip=0.1",
        "oracle.mistake=0.2",
        "oracle.rho=0.1",
        "oracle.budget=40",
    ),
    "ranked": ("algo=sail", "rollout=ranked", "rollout.prompts=8", "rollout.segment=5", "rollout.judged=5"),
    "chosen": ("algo=sail", "algo.queries=3", "algo.selection=disagreement", *REWARD),
    "starts": ("algo=sail", "rollout.start_fraction=0.5", "rollout.restart=0.3"),
    "contacts": ("algo=sail", "env=ant-v5", "evaluation.every=100000", "evaluation.episodes=1"),
    "memory": ("algo=sail", "env=reacher-v5"),
    "dpr": ("algo=sail_dpr", *REWARD),
    "dpp": ("algo=sail_dpp",),
    "offline": ("algo=dpo_offline",),
    "foresight": ("experiment=foresight", "algo=sail", "reward.start=60", "rollout.prompts=8", *REWARD),
}


def composed(out: Path, *words: str) -> RunConfig:
    """A later value of a key is the one that counts."""
    chosen = {word.split("=", 1)[0]: word for word in words}
    (job,) = compose_jobs([*chosen.values(), f"out={out}"]).jobs
    return job.config


def config_of(out: Path, *overrides: str) -> RunConfig:
    return composed(out, *SMALL, *overrides)


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
