"""The reference policies that ship with sailctl: PPO or SAC on the true reward, by ``sailctl reference``.

Each task is trained once, by the settings below; they were found in a few single runs and are not tuned. What
is older than a default of ``algo=ppo`` or ``algo=sac`` is written out: the policies stay what they are. The
folders go into ``sailctl/references/`` (or ``--out``); what exists is left alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ALL = ["evaluation.episodes=5", "logger.wandb=disabled"]
EVERY = {"swimmer-v5": 8_000, "walker_stand": 2_000, "walker_walk": 4_000}
"""Env steps between policies to choose from, where learning is steeper."""
BATCH = "algo.batch=512"
PPO = ["algo=ppo", "algo.envs=32", "algo.steps=128", "env.discount=0.99"]
LARGER = [*PPO, "policy.initial_std=1.0", "algo.lr=5e-4", "algo.batch=1024"]
SAC = [
    "algo=sac", "algo.hidden=[128,128]", "algo.batch=128", "algo.envs=8", "algo.updates=0.5",
    "algo.learning_starts=1000", "algo.target_every=2", "algo.entropy=0.1",
]  # fmt: skip
TASKS = {
    "walker2d-v5": [*PPO, BATCH, "env_steps=2_000_000", "policy.initial_std=0.6"],
    "hopper-v5": [*PPO, BATCH, "env_steps=1_500_000", "policy.initial_std=1.0", "seed=2"],
    "swimmer-v5": [
        "algo=ppo", BATCH, "env_steps=1_000_000", "policy.initial_std=1.0",
        "algo.envs=16", "algo.steps=512", "algo.lr=6e-4", "algo.gae_lambda=0.98", "env.discount=0.9999",
    ],
    "halfcheetah-v5": ["env_steps=2_000_000", *LARGER],
    "cheetah_run": ["env_steps=6_000_000", *LARGER],
    "walker_walk": ["env_steps=240_000", *SAC],
    "walker_stand": ["env_steps=120_000", *SAC],
    "ant-v5": [*PPO, BATCH, "env_steps=1_000_000", "policy.initial_std=0.4"],
}  # fmt: skip
"""The core tasks, and the settings that differ from the defaults."""


def words_of(task: str) -> list[str]:
    """What ``sailctl reference`` is told for a task."""
    return [f"env={task}", *TASKS[task], f"evaluation.every={EVERY.get(task, 50_000)}", *ALL]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "sailctl" / "references")
    asked = parser.parse_args()
    for task in asked.tasks:
        if (asked.out / task).exists():
            print(f"{task}: exists, left alone", flush=True)
            continue
        words = words_of(task)
        print(f"sailctl reference {' '.join(words)}", flush=True)
        command = [sys.executable, "-m", "sailctl", "reference", *words, "--out", str(asked.out)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
