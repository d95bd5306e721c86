"""What launching costs: how much of the cores a sweep uses, and what its checkpoints take of a run.

A sweep of two algorithms, two tasks and four seeds goes through joblib, one run per core. Its efficiency is
the runs' own time (``wall_s`` of their status, which begins when a run opens its directory) per core,
divided by the wall-clock of the command. What is missing is the start of the interpreters, their imports,
and cores that wait for the last run. With --slurm the same sweep goes through SLURM, and each run is
compared with the one of joblib: metrics (but the columns of seconds), evaluations and policy, bit for bit.

The cost of checkpoints is the time inside ``Run.keep`` while a run trains for three minutes with the default
interval, as a share of these minutes; once with a policy alone, once with a reward model and its answers.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from unittest.mock import patch

from benchmarks.crashes import checksums
from benchmarks.record import arguments, write
from sailctl.core.state import State
from sailctl.runs.recorder import Run
from sailctl.runs.results import load_run
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.stopping import Interrupted
from sailctl.training.train import train

ALGORITHMS = ("sail_segments", "sail_revkl_segments")
TASKS = ("halfcheetah-v5", "hopper-v5")
SEEDS = 4
EFFICIENCY = 0.9
CHECKPOINTS = 0.02
"""What is asked of the share of a run that its checkpoints take, at most."""
KEPT = {
    "a policy alone": ("algo=sail_revkl_segments", "env=halfcheetah-v5"),
    "a reward model and its answers": ("experiment=value", "algo=sail_segments", "env=hopper-v5"),
}

Row = dict[str, object]


def main(words: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--slurm", action="store_true", help="also on SLURM, as `make slurm` starts one")
    parser.add_argument("--env-steps", type=int, default=500_000, help="of each run of the sweep")
    parser.add_argument(
        "--seconds", type=float, default=180.0, help="of each run whose checkpoints are timed"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of starting an interpreter with its imports")
    parser.add_argument(
        "--more", nargs="*", default=[], metavar="KEY=VALUE", help="other settings of all runs"
    )
    asked = parser.parse_args(words)
    if asked.slurm and (
        shutil.which("sinfo") is None or subprocess.run("sinfo", capture_output=True).returncode
    ):
        print("benchmarks.sweeps: there is no SLURM here; tests/slurm/local-slurm start", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sweep = [f"algo={','.join(ALGORITHMS)}", f"env={','.join(TASKS)}", f"seed=range(0,{SEEDS})"]
    sweep += [f"env_steps={asked.env_steps}", *asked.more]
    place = Path("runs/benchmarks")  # which every machine of a cluster sees, unlike a temporary directory
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        rows, met = swept("joblib", sweep, folder / "joblib")
        if asked.slurm:
            more, _ = swept("slurm", sweep, folder / "slurm")
            same = identical(folder / "joblib", folder / "slurm")
            runs = len(ALGORITHMS) * len(TASKS) * SEEDS
            more.append(row("SLURM", "runs that are those of joblib, bit for bit", same, "", f"{runs}"))
            rows, met = [*rows, *more], met and same == runs
        rows.append(row("", "interpreter and imports of a job", round(starting(asked.repeats), 2), "s", ""))
        for kind, settings in KEPT.items():
            more, cheap = kept(kind, [*settings, *asked.more], asked.seconds, folder / kind)
            rows, met = [*rows, *more], met and cheap
    about = {
        "what": __doc__,
        "sweep": sweep,
        "algorithms": ALGORITHMS,
        "tasks": TASKS,
        "seeds": list(range(SEEDS)),
        "cores used": cores(),
    }
    write(asked.results, "sweeps", rows, about)
    return 0 if met else 1


def row(where: str, what: str, value: float, unit: str, asked: str) -> Row:
    return {"where": where, "what": what, "value": value, "unit": unit, "asked": asked}


def cores() -> int:
    """Cores that this process may use, as joblib counts them."""
    return len(os.sched_getaffinity(0))


def swept(launcher: str, words: Sequence[str], out: Path) -> tuple[list[Row], bool]:
    """Run the sweep through a launcher; what it took, and whether it used the cores well enough."""
    name = {"slurm": "SLURM"}.get(launcher, launcher)
    command = [sys.executable, "-m", "sailctl", "train", "-m", *words, f"hydra/launcher={launcher}"]
    began = time.perf_counter()
    done = subprocess.run([*command, f"out={out}"], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    own = [float(load_run(run).status["wall_s"]) for run in runs_in(out)]
    share = efficiency(own, cores(), wall)
    rows = [
        row(name, "wall-clock of the sweep", round(wall, 1), "s", ""),
        row(name, f"own time of its {len(own)} runs", round(sum(own), 1), "s", ""),
        row(name, "efficiency", round(share, 3), "", f">= {EFFICIENCY}"),
    ]
    return rows, share >= EFFICIENCY


def efficiency(own: Sequence[float], used: int, wall: float) -> float:
    """Share of ``used`` cores over ``wall`` seconds in which runs made progress."""
    return sum(own) / used / wall


def runs_in(out: Path) -> list[Path]:
    return sorted(policy.parent for policy in out.glob("*/*/*/policy"))


def identical(one: Path, two: Path) -> int:
    """How many runs of ``one`` are in ``two``, the same bit for bit but for the seconds."""
    paths = [path.relative_to(one) for path in runs_in(one)]
    return sum(
        (two / path / "policy").is_dir() and checksums(one / path) == checksums(two / path) for path in paths
    )


def starting(repeats: int) -> float:
    """Seconds from the start of an interpreter until it could begin a run; the median of some."""
    command = [sys.executable, "-c", "import sailctl.sweeps.launch, sailctl.training.train"]
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(command, check=True)
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def kept(kind: str, words: Sequence[str], seconds: float, out: Path) -> tuple[list[Row], bool]:
    """Train for so many seconds; what checkpoints took, and whether that is little enough.

    The one that is kept because the time is over counts too: with the default interval it would be due.
    """
    (job,) = compose_jobs([*words, "env_steps=1000000000", "logger.progress=false", f"out={out}"]).jobs
    times: list[float] = []
    true_keep = Run.keep

    def timed(self: Run, state: State) -> None:
        began = time.perf_counter()
        true_keep(self, state)
        times.append(time.perf_counter() - began)

    clock = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    began = time.perf_counter()
    clock.start()
    try:
        with patch.object(Run, "keep", timed):
            train(job.config, list(words))
    except Interrupted:
        wall = time.perf_counter() - began
    finally:
        clock.cancel()
    (file, *_) = sorted(out.glob("*/*/*/checkpoints/*"), reverse=True)
    share = sum(times) / wall
    rows = [
        row(kind, f"checkpoints kept in {wall:.0f} s", len(times), "", ""),
        row(kind, "time of one checkpoint, median", round(1000 * median(times), 1), "ms", ""),
        row(kind, "size of the last one", round(file.stat().st_size / 1e6, 2), "MB", ""),
        row(kind, "share of the run in checkpoints", round(share, 5), "", f"< {CHECKPOINTS}"),
    ]
    return rows, share < CHECKPOINTS


if __name__ == "__main__":
    sys.exit(main())
