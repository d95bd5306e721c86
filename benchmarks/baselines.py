"""Learning curves of the baselines beside SAIL and SAIL-RevKL: HalfCheetah, 100,000 env steps, 1,000 labels.

The true reward goes to PPO and SAC alone. SAC, PEBBLE and the parity preset have small networks, a quarter of
a gradient step per env step and fewer seeds: gradient steps are what costs. It is a short protocol: it
shows what each learns in the first minutes under the suite's teacher, budget and record, not which ends best.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.record import arguments

ALL = [
    "env=halfcheetah-v5", "env_steps=100_000", "oracle.budget=1000",
    "evaluation.every=10_000", "logger.wandb=disabled",
]  # fmt: skip
ASKING = ["algo.initial_queries=100", "algo.queries=100", "algo.query_interval=10_000"]
ON_POLICY = ["algo.envs=16", "algo.steps=128", "algo.batch=256", "policy.initial_std=0.4"]
OFF_POLICY = ["algo.updates=0.25", "algo.target_every=1", "algo.hidden=[128,128]"]
SWEEPS = (
    ["algo=sail_segments,sail_revkl_segments", "seed=range(0,5)"],
    ["algo=ppo", "seed=range(0,5)", *ON_POLICY],
    ["algo=rlhf_ppo", "seed=range(0,5)", *ON_POLICY, *ASKING, "algo.learning_starts=10_000"],
    ["algo=pebble,sail_mujoco_parity", "seed=range(0,3)", *OFF_POLICY, *ASKING],
    ["algo=sac", "seed=range(0,3)", *OFF_POLICY, "algo.learning_starts=1000", "algo.entropy=0.1"],
)
"""Command lines of ``sailctl train -m`` beside ``ALL``."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/baselines"), help="folder of the runs")
    asked = parser.parse_args()
    sailctl = [sys.executable, "-m", "sailctl"]
    for sweep in SWEEPS:
        subprocess.run([*sailctl, "train", "-m", *ALL, *sweep, f"out={asked.out}"], check=True)
    saved = asked.results / "learning_baselines.csv"
    saved.unlink(missing_ok=True)
    compare = ["--by", "*", "--baseline", "ppo", "--scale", "runs", "--force", "--save", str(saved)]
    subprocess.run([*sailctl, "compare", str(asked.out), *compare], check=True)
    subprocess.run([*sailctl, "plot", str(saved), "--out", str(saved.with_suffix(".png"))], check=True)


if __name__ == "__main__":
    main()
