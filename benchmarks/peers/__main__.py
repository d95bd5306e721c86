"""sailctl beside its peers in stepping, PPO and preference learning, each in an environment of its own.

A contender is a name, a requirements file and a worker script that prints one line of JSON. Its virtual
environment is made once and kept. Contenders that are compared follow one another in every turn, in an order
that rotates from turn to turn, pinned to the same cores, with one thread for each numeric library; ratios are
taken within a turn, and medians stand beside the lowest and the highest turn.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.record import arguments, write

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TIMEOUT = 900.0
"""Seconds after which a worker is given up."""
REFERENCE = {"stepping": "sailctl", "ppo": "ppo-sailctl", "preferences": "sail_revkl_segments"}
"""Of each comparison, the contender that the others are divided by."""
LIMIT = "bare-mj_step"
PPO = {"n_steps": 256, "batch_size": 256, "n_epochs": 10}
"""What differs from Stable-Baselines3's defaults: a rollout of 4,096 steps of 16 environments."""


@dataclass(frozen=True)
class Contender:
    """One thing that is measured."""

    name: str
    comparison: str
    """``stepping``, ``ppo`` or ``preferences``: it is compared with what has the same."""
    worker: str
    """Name of the script."""
    requirements: str | None
    """Name of the requirements file and of the environment; None is the environment of sailctl itself."""
    settings: dict[str, object] = field(default_factory=dict)
    """What the worker is told beside task, cores, seconds and seed."""


CONTENDERS = (
    Contender(LIMIT, "stepping", "worker_sailctl", None, {"kind": "limit"}),
    Contender("sailctl", "stepping", "worker_sailctl", None, {"kind": "stepping", "envs": 64}),
    Contender("sailctl-vecenv", "stepping", "worker_sailctl", None, {"kind": "vecenv", "envs": 64}),
    Contender("envpool", "stepping", "worker_envpool", "envpool", {"envs": 64}),
    Contender("gymnasium-sync", "stepping", "worker_gymnasium", "gymnasium", {"kind": "sync", "envs": 16}),
    Contender("gymnasium-async", "stepping", "worker_gymnasium", "gymnasium", {"kind": "async", "envs": 16}),
    Contender("sb3-dummy", "stepping", "worker_sb3", "sb3", {"kind": "dummy", "envs": 16}),
    Contender("sb3-subproc", "stepping", "worker_sb3", "sb3", {"kind": "subproc", "envs": 16}),
    Contender("ppo-sailctl", "ppo", "worker_sailctl", None, {"kind": "ppo", "envs": 16, "ppo": PPO}),
    Contender("ppo-sb3-dummy", "ppo", "worker_sb3", "sb3", {"kind": "dummy", "envs": 16, "ppo": PPO}),
    Contender("ppo-sb3-subproc", "ppo", "worker_sb3", "sb3", {"kind": "subproc", "envs": 16, "ppo": PPO}),
    Contender(
        "sail_revkl_segments",
        "preferences",
        "worker_sailctl",
        None,
        {"kind": "train", "algo": "sail_revkl_segments"},
    ),
    Contender("imitation", "preferences", "worker_imitation", "imitation", {"kind": "dummy"}),
)


@dataclass(frozen=True)
class Measurement:
    """What one worker said in one turn, or why it said nothing."""

    contender: Contender
    cores: int
    turn: int
    values: dict[str, float] = field(default_factory=dict)
    """``env_steps_per_s`` and, of preference learning, ``labels_per_s``, ``true_return``, ``seconds``."""
    versions: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    """Why there are no values; empty where there are."""


class PeerError(Exception):
    """An environment could not be made, or a worker did not measure; the message says why."""


def main() -> None:
    parser = arguments(__doc__)
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--task", default="HalfCheetah-v5", help="Gymnasium's id of a task")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement of stepping")
    parser.add_argument(
        "--training-seconds", type=float, default=60.0, help="length of a preference learning run"
    )
    parser.add_argument("--ppo-steps", type=int, default=40_960, help="env steps of a PPO run")
    parser.add_argument(
        "--cores", type=int, nargs="+", default=[1, 2], help="training is measured on the last"
    )
    parser.add_argument(
        "--environments", type=Path, default=Path(".peers"), help="folder of the environments"
    )
    asked = parser.parse_args()
    chosen = [contender for contender in CONTENDERS if contender.name in asked.only]
    pythons = make_environments({contender.requirements for contender in chosen}, asked.environments)
    measurements = []
    for turn in range(asked.turns):
        for cores, group in groups(chosen, asked.cores):
            for contender in rotated(group, turn):
                length = asked.training_seconds if contender.comparison == "preferences" else asked.seconds
                told = {"task": asked.task, "cores": cores, "seed": turn, "seconds": length}
                told |= {"steps": asked.ppo_steps} | contender.settings
                measurements.append(measure(contender, cores, turn, pythons[contender.requirements], told))
                print(line(measurements[-1]), flush=True)
    about = {"what": __doc__, "asked": {name: str(value) for name, value in vars(asked).items()}}
    about |= {"ppo": PPO, "contenders": {contender.name: contender.settings for contender in chosen}}
    write(
        asked.results, "peers_turns", [row for m in measurements for row in turn_rows(m, asked.task)], about
    )
    write(asked.results, "peers", summary(measurements, asked.task), about)


def groups(contenders: Sequence[Contender], cores: Sequence[int]) -> Iterator[tuple[int, list[Contender]]]:
    """What is compared with each other: stepping on each number of cores, training on the last of them."""
    for comparison in REFERENCE:
        group = [contender for contender in contenders if contender.comparison == comparison]
        for count in cores if comparison == "stepping" else cores[-1:]:
            yield count, group


def rotated(group: Sequence[Contender], turn: int) -> list[Contender]:
    """The group, beginning with another contender in every turn."""
    first = turn % len(group) if group else 0
    return [*group[first:], *group[:first]]


def make_environments(requirements: Iterable[str | None], folder: Path) -> dict[str | None, str | PeerError]:
    """The Python of each environment below ``folder``, made where it is missing, or why it cannot be made."""
    pythons: dict[str | None, str | PeerError] = {None: sys.executable}
    for name in sorted(filter(None, requirements)):
        try:
            pythons[name] = make_environment(folder.resolve() / name, HERE / f"{name}.txt")
        except PeerError as failure:
            pythons[name] = failure
            print(f"{name}: {failure}", flush=True)
    return pythons


def make_environment(folder: Path, requirements: Path) -> str:
    """The Python of the virtual environment ``folder`` with all that the file ``requirements`` asks for.

    An environment that was made from the same requirements is used as it is.

    Raises:
        PeerError: when it cannot be made.
    """
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return str(python)
    print(f"{folder}: installing {requirements.name}", flush=True)
    make = [sys.executable, "-m", "venv", "--clear", str(folder)]
    install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
    for command in (make, install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(f"not installed: {reason(done.stderr or done.stdout)}")
    stamp.write_text(requirements.read_text())
    return str(python)


def measure(
    contender: Contender, cores: int, turn: int, python: str | PeerError, told: dict[str, object]
) -> Measurement:
    """What the worker of ``contender`` measures when ``python`` runs it on ``cores`` cores."""
    try:
        if isinstance(python, PeerError):
            raise python
        if contender.requirements is None:
            command = [python, "-m", f"benchmarks.peers.{contender.worker}"]
        else:
            command = [python, "-I", str(HERE / f"{contender.worker}.py")]
        values = run_worker([*command, json.dumps(told)], cores)
    except PeerError as failure:
        return Measurement(contender, cores, turn, failure=str(failure))
    versions = values.pop("versions")
    return Measurement(contender, cores, turn, values, versions)


def run_worker(command: Sequence[str], cores: int, timeout: float = TIMEOUT) -> dict:
    """The JSON in the last line that ``command`` prints when it runs on ``cores`` cores.

    Raises:
        PeerError: when it ends with an error or never, or prints something else.
    """
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    surroundings = {"cwd": ROOT, "env": os.environ | one_thread, "start_new_session": True}
    with pinned(cores), subprocess.Popen(command, **pipes, **surroundings) as worker:
        try:
            output, errors = worker.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise PeerError(f"not done after {timeout:g} s") from None
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)  # what it started too: environments, a training
    if worker.returncode:
        raise PeerError(f"exit code {worker.returncode}: {reason(errors)}")
    try:
        return json.loads(output.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        raise PeerError("the worker's last line is not JSON") from None


@contextmanager
def pinned(cores: int) -> Iterator[None]:
    """Inside the block this process, and what it starts, runs on ``cores`` of its cores.

    Raises:
        PeerError: when it has fewer.
    """
    before = os.sched_getaffinity(0)
    if len(before) < cores:
        raise PeerError(f"{cores} cores wanted, {len(before)} there")
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def reason(errors: str) -> str:
    """The last line that a program wrote before it failed; pip's last one that says ERROR."""
    lines = [text.strip() for text in errors.splitlines() if text.strip()]
    marked = [text for text in lines if text.startswith("ERROR:")]
    return (marked or lines or ["no message"])[-1]


def turn_rows(measurement: Measurement, task: str) -> list[dict[str, object]]:
    """One row for each quantity of a measurement, one with the reason where there is none."""
    place = {
        "turn": measurement.turn,
        "comparison": measurement.contender.comparison,
        "task": task,
        "cores": measurement.cores,
        "contender": measurement.contender.name,
    }
    values = measurement.values or {"": float("nan")}
    return [
        {**place, "quantity": name, "value": value, "failure": measurement.failure}
        for name, value in values.items()
    ]


def summary(measurements: Sequence[Measurement], task: str) -> list[dict[str, object]]:
    """One row for each contender, number of cores and quantity: median over turns, and ratios.

    Ratios are those of rates, taken within each turn: to the comparison's reference and, of stepping, to the
    bare MuJoCo loop. A contender that never measured anything has one row, which says why.
    """
    turns: defaultdict[tuple[str, int, str], dict[int, float]] = defaultdict(dict)
    said: defaultdict[tuple[str, int], list[Measurement]] = defaultdict(list)
    for measurement in measurements:
        name = measurement.contender.name
        said[name, measurement.cores].append(measurement)
        for quantity, value in measurement.values.items():
            turns[name, measurement.cores, quantity][measurement.turn] = value
    rows = []
    for (name, cores), told in said.items():
        comparison = told[0].contender.comparison
        worked = [measurement for measurement in told if not measurement.failure]
        failed = [measurement for measurement in told if measurement.failure]
        for quantity in worked[0].values if worked else ("",):
            ours = turns[name, cores, quantity]
            row = {"comparison": comparison, "task": task, "cores": cores, "contender": name}
            row |= {"quantity": quantity} | estimate("median", list(ours.values()))
            for against, other in (("reference", REFERENCE[comparison]), ("limit", LIMIT)):
                theirs = turns[other, cores, quantity] if quantity.endswith("_per_s") else {}
                shared = sorted(ours.keys() & theirs.keys())
                row |= estimate(f"of_{against}", [ours[turn] / theirs[turn] for turn in shared])
            row |= {"turns": len(worked), "failed": len(failed)}
            row["reason"] = failed[-1].failure if failed else ""
            versions = worked[-1].versions if worked else {}
            row["versions"] = " ".join(f"{package}={number}" for package, number in versions.items())
            rows.append(row)
    return rows


def estimate(name: str, values: Sequence[float]) -> dict[str, float]:
    """The median and the range over turns, as columns called ``name``; nan where there are too few values."""
    if not values:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    low, high = (min(values), max(values)) if len(values) > 1 else (float("nan"),) * 2
    return {name: float(np.median(values)), f"{name}_low": low, f"{name}_high": high}


def line(measurement: Measurement) -> str:
    """A measurement as one line for whoever waits."""
    place = f"turn {measurement.turn}, {measurement.contender.name} on {measurement.cores}"
    values = ", ".join(f"{name} {value:.4g}" for name, value in measurement.values.items())
    return f"{place}: {values or measurement.failure}"


if __name__ == "__main__":
    main()
