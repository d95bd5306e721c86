"""Time and memory of comparing many runs: 1,000 run directories of 200 rows, 10,000 resamples.

The directories (5 tasks, 10 arms, 20 seeds) are written first, with random curves; then ``sailctl compare``
runs on them as a user would run it, in a process of its own, and its wall-clock and largest memory are taken.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.record import arguments, write
from sailctl.config import Config
from sailctl.runs.recorder import open_run
from sailctl.runs.results import CONFIG, METRICS, PROVENANCE, STATUS
from sailctl.sweeps.compose import compose_jobs

TASKS = ("halfcheetah-v5", "hopper-v5", "walker2d-v5", "swimmer-v5", "reacher-v5")
GAMMAS = np.linspace(0.0, 0.9, 10).round(1)
SEEDS = 20
ROWS = 200
EVERY = 10
"""Rows from one evaluation to the next."""
EPISODES = 10
RESAMPLES = 10_000


def write_runs(folder: Path) -> int:
    """1,000 finished runs with random curves; returns how many."""
    rng = np.random.default_rng(0)
    count = 0
    for task in TASKS:
        (job,) = compose_jobs([f"env={task}", "algo=sail_revkl_segments", f"out={folder}"]).jobs
        for gamma in GAMMAS:
            config = replace(job.config, algo=replace(job.config.algo, gamma=float(gamma)))
            for seed in range(SEEDS):
                write_run(replace(config, seed=seed), rng)
                count += 1
    return count


def write_run(config: Config, rng: np.random.Generator) -> None:
    run = open_run(config, ["sailctl", "train"])
    level = 0.0
    for iteration in range(ROWS + 1):
        place = {"iteration": iteration, "env_steps": 5_000 * iteration, "labels": 64 * iteration}
        if iteration % EVERY == 0:
            returns = level + rng.normal(0, 30, EPISODES)
            run.evaluation(
                [{**place, "episode": i, "return": r, "length": 1000} for i, r in enumerate(returns)]
            )
        if iteration:
            level += rng.normal(10, 30)
            numbers = {f"metric_{i}": x for i, x in enumerate(rng.normal(size=20))}
            run.log({**place, **numbers, "kl_ref_pi": rng.random(), "wall_s": float(iteration)})
    run.finish({})


def compared(folder: Path, *words: str) -> dict[str, float]:
    """Seconds and MB of one ``sailctl compare``; the largest child of this process so far is that one."""
    command = [sys.executable, "-m", "sailctl", "compare", str(folder), "--by", "algo.gamma", *words]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall_s": round(wall, 2), "peak_mb": round(usage.ru_maxrss / 1024, 1)}


def main() -> int:
    asked = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = write_runs(folder)
        size = {
            file: (next(folder.rglob(file))).stat().st_size for file in (CONFIG, PROVENANCE, STATUS, METRICS)
        }
        rows = [
            {"runs": runs, "rows": ROWS, "resamples": RESAMPLES, "repetition": i}
            | compared(folder, "--resamples", str(RESAMPLES))
            for i in range(3)
        ]
    about = {"what": __doc__, "asked": {"wall_s": 10, "peak_mb": 1000}, "bytes_of_a_run": size}
    write(asked.results, "comparing", rows, about)
    return 0 if all(row["wall_s"] < 10 and row["peak_mb"] < 1000 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
