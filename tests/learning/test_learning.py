"""Policies get better from preferences alone: short trainings over three seeds, judged statistically.

Every seed has to pass, so a change that breaks learning in one run of three is seen. The trainings are
short (seconds of CPU each): they show a gain far outside chance, not how good the algorithms become.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sailctl.algorithms.start import first_policy
from sailctl.config import Config
from sailctl.core.seeding import named_generators
from sailctl.runs.results import load_run
from sailctl.simulator.batched import TaskSimulator
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.evaluate import evaluate
from sailctl.training.train import train
from sailctl_envs import ALL_TASKS

pytestmark = pytest.mark.learning

SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])
ALGORITHMS = pytest.mark.parametrize("algo", ["sail_segments", "sail_revkl_segments"])


def config_of(out: Path, *overrides: str) -> Config:
    quiet = ("logger.wandb=disabled", "logger.progress=false", "evaluation.every=1_000_000_000")
    (job,) = compose_jobs([*overrides, *quiet, f"out={out}"]).jobs
    return job.config


@ALGORITHMS
@SEEDS
def test_the_cheetah_earns_more_with_every_step(tmp_path: Path, algo: str, seed: int):
    """The true reward per step of the policy that acts, in the last iterations against the first ones.

    An untrained policy's mean action barely moves (a return of about 0), so its return has to come up too.
    """
    words = (f"algo={algo}", f"seed={seed}", "env=halfcheetah-v5", "env_steps=200_000")
    run = load_run(train(config_of(tmp_path, *words), ["pytest"]))
    assert run.evaluations["return"].mean() > 300.0
    reward = run.metrics["reward_per_step"]
    first, last = reward.head(5), reward.tail(5)
    error = math.sqrt((first.var() + last.var()) / 5)
    assert last.mean() > first.mean() + 5 * error
    assert last.mean() > first.mean() + 0.05, "and by more than a rounding of the reward"


@ALGORITHMS
@SEEDS
def test_the_pendulum_stays_up_longer(tmp_path: Path, algo: str, seed: int):
    """The deterministic true return after training, far above that of the policy that training began with."""
    words = (f"algo={algo}", f"seed={seed}", "env=invertedpendulum-v5", "env_steps=60_000")
    config = config_of(tmp_path, *words)
    simulator = TaskSimulator(ALL_TASKS[config.env.id]())
    untrained = first_policy(config, simulator.spec, named_generators(config.seed))
    before = evaluate(untrained, simulator, 50, config.evaluation.seed).returns
    after = load_run(train(config, ["pytest"])).evaluations["return"]
    assert after.mean() > before.mean() + 5 * before.std()
