"""Runs that are killed again and again by SIGKILL, and gone on with, beside the same runs left alone.

Each kill comes at a moment drawn over the whole of a run's life, the start of the interpreter included. A run
is killed a few times and then left to end. What must be the same, to the bit: the policy, every row of the
metrics but the columns of seconds, the evaluations, and how many labels and rows there are.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import record
from benchmarks.record import RESULTS

COMMON = (
    "env_steps=12000",
    "rollout.prompts=8",
    "rollout.segment_length=5",
    "rollout.label_horizon=5",
    "evaluation.every=4000",
    "evaluation.episodes=1",
    "logger.checkpoint=0",
    "logger.wandb=disabled",
    "logger.progress=false",
)
KINDS = {
    "sail_revkl_segments": ("algo=sail_revkl_segments", "env=hopper-v5"),
    "sail_segments, stochastic teacher": (
        "algo=sail_segments",
        "env=walker2d-v5",
        "oracle=stochastic",
        "oracle.mistake=0.1",
    ),
    "sail_robust_segments": ("algo=sail_robust_segments", "env=cheetah_run", "algo.reference_interval=5"),
    "dpo_online_segments, linear policy": ("algo=dpo_online_segments", "env=reacher-v5", "policy=linear"),
    "reward model with a value": (
        "experiment=value",
        "algo=sail_segments",
        "env=hopper-v5",
        "reward.start=2000",
    ),
    "reference that moves": (
        "experiment=alignment_segments",
        "algo=sail_revkl_segments",
        "algo.c=0.003",
        "algo.gamma=0.01",
        "algo.radius=60",
        "env=swimmer-v5",
        "reward.start=2000",
    ),
    "pebble": (
        "algo=pebble",
        "env=reacher-v5",
        "env_steps=3000",
        "algo.learning_starts=400",
        "algo.pretrain=600",
        "algo.query_interval=500",
        "algo.interval=100",
        "algo.hidden=[32,32]",
        "algo.batch=32",
    ),
}
KILLS_OF_A_RUN = 4


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which runs are killed")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()

    kinds = list(KINDS)
    runs = -(-asked.kills // KILLS_OF_A_RUN)
    plan = [
        (kinds[n % len(kinds)], n, min(KILLS_OF_A_RUN, asked.kills - KILLS_OF_A_RUN * n)) for n in range(runs)
    ]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(asked.jobs) as pool:
        rows = list(pool.map(lambda job: crashed(Path(folder), asked.seed, *job), plan))
    exact = sum(int(str(row["kills"])) for row in rows if row["exact"])
    print(f"{asked.kills} kills in {runs} runs: {exact} gone on with to the bit")
    record.write(asked.results, "crashes", rows, {"kills": asked.kills, "seed of the moments": asked.seed})
    if exact < asked.kills:
        sys.exit(1)


def crashed(folder: Path, seed: int, kind: str, number: int, kills: int) -> dict[str, object]:
    """One run left alone, and the same one killed so many times before it may end."""
    rng = np.random.default_rng((seed, number))
    words = [*COMMON, *KINDS[kind], f"seed={number}"]
    began = time.perf_counter()
    left_alone(folder / f"{number}-whole", words)
    life = time.perf_counter() - began
    done, lives = 0, 1
    while done < kills:
        if killed_after(float(rng.uniform(0.0, life)), folder / f"{number}-killed-{lives}", words):
            done += 1
        else:
            lives += 1  # it ended before, which is looked at below; the kills that are left are another one's
    left_alone(folder / f"{number}-killed-{lives}", words)
    whole = outcome(folder / f"{number}-whole")
    ends = [outcome(folder / f"{number}-killed-{life}") for life in range(1, lives + 1)]
    row: dict[str, object] = {
        "run": kind,
        "seed": number,
        "kills": kills,
        "resumed": sum(end.resumed for end in ends),
        "rows": whole.rows,
        "rows lost": sum(whole.rows - end.rows for end in ends),
        "labels": whole.labels,
        "labels lost": sum(whole.labels - end.labels for end in ends),
        "exact": all(end.checksums == whole.checksums for end in ends),
    }
    print(row, flush=True)
    return row


def command(out: Path, words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "sailctl", "train", *words, f"out={out}"]


def left_alone(out: Path, words: Sequence[str]) -> None:
    subprocess.run(command(out, words), check=True, capture_output=True)


def killed_after(seconds: float, out: Path, words: Sequence[str]) -> bool:
    """Whether the run was still alive when it was killed; else it has ended."""
    with subprocess.Popen(
        command(out, words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with exit code {process.returncode}")
    return False


@dataclass(frozen=True)
class Outcome:
    """What a run left."""

    checksums: tuple[str, str, str]
    """Of its policy, its metrics but the columns of seconds, and its evaluations."""
    rows: int
    labels: int
    resumed: int
    """How often it went on from a checkpoint."""


def table(path: Path) -> list[list[str]]:
    """The metrics of a run as they were written, header first."""
    with (path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def checksums(path: Path) -> tuple[str, str, str]:
    """Of a run's policy, its metrics but the columns of seconds, and its evaluations."""
    header, *rows = table(path)
    timeless = [place for place, name in enumerate(header) if not name.endswith("_s")]
    cells = [[row[place] for place in timeless] for row in (header, *rows)]
    parts = (
        (path / "policy" / "policy.safetensors").read_bytes(),
        repr(cells).encode(),
        (path / "evaluations.csv").read_bytes(),
    )
    policy, metrics, evaluations = (hashlib.sha256(part).hexdigest() for part in parts)
    return policy, metrics, evaluations


def outcome(out: Path) -> Outcome:
    """Of the one run in ``out``."""
    (path,) = out.glob("*/*/*")
    header, *rows = table(path)
    made = json.loads((path / "provenance.json").read_text(encoding="utf-8"))
    return Outcome(
        checksums=checksums(path),
        rows=len(rows),
        labels=int(rows[-1][header.index("labels")]),
        resumed=len(made.get("resumed", [])),
    )


if __name__ == "__main__":
    main()
