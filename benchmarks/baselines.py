"""Learning curves of the baselines beside SAIL-RevKL: Reacher, 40,000 env steps, at most 300 labels.

The true reward goes to PPO and SAC alone. SAC and PEBBLE take a quarter of a gradient step per env step, and
fewer seeds, because gradient steps are what costs. It is a short protocol: it shows that each of them learns
under the suite's teacher, budget and record, not which one is best.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.record import arguments

ALL = [
    "env=reacher-v5", "env_steps=40_000", "oracle.budget=300", "policy.initial_std=0.4",
    "evaluation.every=4_000", "evaluation.episodes=20", "logger.wandb=disabled",
]  # fmt: skip
ASKING = ["algo.first=50", "algo.queries=25", "algo.every=3000"]
ON_POLICY = ["algo.envs=16", "algo.steps=64", "algo.batch=256", "algo.start=4000"]
OFF_POLICY = ["algo.updates=0.25", "algo.target_every=1"]
SWEEPS = (
    ["algo=sail_revkl", "seed=range(0,5)"],
    ["algo=ppo,rlhf_ppo", "seed=range(0,5)", *ON_POLICY, *ASKING],
    ["algo=pebble", "seed=range(0,3)", *OFF_POLICY, *ASKING, "algo.pretrain=3000"],
    ["algo=sac", "seed=range(0,3)", *OFF_POLICY],
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
