"""What packs of runs bring: wall-clock and memory of one sweep of eight seeds, by the size of its packs.

``sailctl train -m`` runs as a user would run it, on all cores, once for each size in every turn; the numbers
of all runs must be the same whatever the size. Ratios are of the times within one turn, since machines have
slow hours.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pandas as pd

from benchmarks.footprint import peak_mib
from benchmarks.record import arguments, write

SEEDS = 8
SIZES = (1, 2, 4, 8)
SWEEPS = {
    "defaults": ("algo=sail_revkl", "env=halfcheetah-v5", "env_steps=100000", "evaluation.every=20000"),
    "slow simulator": ("algo=sail_revkl", "env=hopper-v5", "env_steps=60000", "evaluation.every=20000"),
    "learned reward": ("experiment=foresight", "algo=sail_revkl", "env=cheetah_run", "env_steps=20000"),
    "small batches": (
        "algo=sail_revkl",
        "env=swimmer-v5",
        "rollout.prompts=8",
        "rollout.judged=50",
        "env_steps=20000",
        "evaluation.every=5000",
    ),
}


def swept(words: tuple[str, ...], size: int, out: Path) -> dict[str, float]:
    """Seconds and MiB of the sweep in packs of this size."""
    command = [sys.executable, "-m", "sailctl", "train", "-m", *words, f"pack={size}", f"out={out}"]
    command += [f"seed=range(0,{SEEDS})", "logger.wandb=disabled"]
    start = time.perf_counter()
    peak = peak_mib(command)
    return {"wall_s": time.perf_counter() - start, "peak_mib": peak}


def numbers(out: Path) -> dict[str, tuple[bytes, str]]:
    """By run: its policy, and its metrics but for the seconds."""
    found = {}
    for policy in sorted(out.glob("*/*/*/policy/policy.safetensors")):
        run = policy.parents[1]
        metrics = pd.read_csv(run / "metrics.csv", dtype=str)
        timeless = metrics[[name for name in metrics if not name.endswith("_s")]]
        found[str(run.relative_to(out))] = (policy.read_bytes(), timeless.to_csv())
    return found


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sweeps", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    asked = parser.parse_args()
    rows = []
    for name in asked.sweeps:
        turns: list[dict[int, dict[str, float]]] = []
        for _ in range(asked.turns):
            with tempfile.TemporaryDirectory() as folder:
                places = {size: Path(folder) / str(size) for size in SIZES}
                turns.append({size: swept(SWEEPS[name], size, place) for size, place in places.items()})
                kept = {size: numbers(place) for size, place in places.items()}
            if any(len(kept[size]) != SEEDS or kept[size] != kept[1] for size in SIZES):
                raise SystemExit(f"{name}: the numbers depend on the size of the packs")
        for size in SIZES:
            ratios = [turn[size]["wall_s"] / turn[1]["wall_s"] for turn in turns]
            rows.append(
                {
                    "sweep": name,
                    "runs": SEEDS,
                    "pack": size,
                    "wall_s": round(median(turn[size]["wall_s"] for turn in turns), 1),
                    "of_pack_1": round(median(ratios), 3),
                    "lowest": round(min(ratios), 3),
                    "highest": round(max(ratios), 3),
                    "peak_mib": round(max(turn[size]["peak_mib"] for turn in turns)),
                    "turns": asked.turns,
                    "same_numbers": True,
                }
            )
    about = {"sweeps": {name: list(SWEEPS[name]) for name in asked.sweeps}, "seeds": list(range(SEEDS))}
    write(asked.results, "packing", rows, about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
