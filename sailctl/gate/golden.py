"""Golden trajectories: the losses and gradient norms of the first updates of every algorithm, kept in a file.

They say whether the numbers changed, not whether learning became worse: a wrong sign shows in the first
updates, long before a return does. Every algorithm of ``conf/algo`` is trained for ``UPDATES`` iterations
with the settings of ``SETTINGS``; those that need a data set get one that is collected first. Beside them are
the experiments that the published results are made with. The same code on the
same machine gives the same bits. Another processor rounds differently, and the differences grow from update
to update: ``TOLERANCE`` is what is let through.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sailctl.analysis.trials import read_columns, write_table
from sailctl.config import AlgoConfig, conf_dir, kind_of, read_option
from sailctl.core.types import DoubleArray, UserError
from sailctl.runs.provenance import provenance
from sailctl.runs.results import METRICS
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.collect import collect
from sailctl.training.train import train

UPDATES = 20
SERIES = ("loss", "grad_norm")
"""Columns of ``metrics.csv`` that are kept."""

COMMON = (
    "env=reacher-v5",  # smooth and without contacts: rounding does not turn answers around
    "policy.hidden=[32,32]",
    "evaluation.every=1_000_000",
    "evaluation.iterations=1_000_000",
    "evaluation.episodes=1",
    "reward.epochs=5",
    "logger.wandb=disabled",
    "logger.progress=false",
    "seed=0",
)
SETTINGS = {
    "segments": (
        *COMMON,
        "reward.hidden=[64,64]",
        "reward.steps=null",
        "reward.thin=1",
        "rollout.prompts=8",
        "rollout.segment_length=10",
        "rollout.label_horizon=20",
        "algo.epochs=2",
        "algo.minibatches=2",
        f"algo.iterations={UPDATES}",
        "env_steps=1_000_000",
    ),
    "actions": (
        *COMMON,
        "algo.envs=4",
        "algo.interval=40",
        f"env_steps={40 * UPDATES}",
        "algo.learning_starts=80",
        "algo.warmup=20",
        "algo.batch=32",
        "algo.hidden=[32,32]",
        "algo.initial_queries=8",
        "algo.queries=4",
        "algo.query_interval=200",
        "algo.window=10",
    ),
}
"""By kind of run. One on actions has no update in its first iterations: rows that are no number."""
EXPERIMENTS = {
    "experiment=value": ("algo=sail_revkl_segments", "reward.start=0", "reward.steps=20"),
    # Swimmer has reference policies, and no contacts either.
    "experiment=alignment_segments": (
        "algo=sail_segments",
        "algo.c=0.003",
        "reward.start=0",
        "reward.steps=20",
        "env=swimmer-v5",
    ),
}
"""What is trained as the algorithms on segments are, with these words beside or in place of theirs."""
JUMPING = ("sail_robust",)
"""Algorithms without a trajectory: the subgradient of rho |h| jumps where rounding decides the sign of h."""
PAIRS = 64
"""Answers in the data set of the algorithms that need one."""

TOLERANCE = {"max": 1e-4, "mean": 3e-5}
"""Largest drift that passes: of any one update, and in the mean over all; shares of the series' size.

Some 80 times what other instruction sets of one processor make of it (``results/gate_golden.csv``)."""


@dataclass(frozen=True)
class Drift:
    """How far one series of one algorithm is from the stored one, in shares of its root mean square."""

    algorithm: str
    series: str
    largest: float
    """Of any one update; infinite where one side is not a number and the other is."""
    mean: float
    """Over all updates."""

    @property
    def passes(self) -> bool:
        """Whether both are within ``TOLERANCE``."""
        return self.largest <= TOLERANCE["max"] and self.mean <= TOLERANCE["mean"]


Trajectories = Mapping[str, Mapping[str, DoubleArray]]
"""``{algorithm or experiment: {series: (UPDATES,) values}}``"""


def trajectories(names: Sequence[str], overlay: Path | None = None) -> dict[str, dict[str, DoubleArray]]:
    """Train what has these names for ``UPDATES`` updates each, in a temporary folder.

    ``overlay`` is a user's own folder of config groups.

    Raises:
        UserError: when one cannot be composed.
        RunError: when one had to stop.
    """
    found = {}
    with TemporaryDirectory() as place:
        data = Path(place) / "pairs.parquet"
        for name in names:
            words = [*_words(name, overlay), f"out={place}"]
            if name not in EXPERIMENTS and needs_data(_values(name, overlay)):
                if not data.is_file():
                    _collect(data)
                words.append(f"algo.data={data}")
            (job,) = compose_jobs(words, overlay=overlay).jobs
            columns = read_columns(train(job.config, words) / METRICS, SERIES)
            found[name] = {series: columns[series] for series in SERIES}
    return found


def names(overlay: Path | None = None) -> list[str]:
    """All that has a trajectory: ``algorithms`` but those that are ``JUMPING``, then ``EXPERIMENTS``."""
    return [*(name for name in algorithms(overlay) if name not in JUMPING), *EXPERIMENTS]


def algorithms(overlay: Path | None = None) -> list[str]:
    """Names of the files in ``conf/algo``, and of those in ``algo`` of a user's own folder, but baselines.

    A baseline (its file has the key ``learner``) is the work of Stable-Baselines3, and has no such series.
    """
    folders = [folder for folder in (overlay, conf_dir()) if folder is not None]
    files = [file for folder in folders for file in (folder / "algo").glob("*.yaml")]
    found = {file.stem for file in files}
    return sorted(name for name in found if "learner" not in _values(name, overlay))


def drifts(stored: Trajectories, now: Trajectories) -> list[Drift]:
    """How far ``now`` is from ``stored``, for each algorithm and series of ``stored``."""
    return [
        _drift(algorithm, series, old, now[algorithm][series])
        for algorithm, kept in stored.items()
        for series, old in kept.items()
    ]


def _drift(algorithm: str, series: str, old: DoubleArray, new: DoubleArray) -> Drift:
    if len(new) != len(old) or not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return Drift(algorithm, series, np.inf, np.inf)
    size = max(float(np.sqrt(np.nanmean(old**2))), 1e-12)
    shares = np.abs(new - old) / size
    return Drift(algorithm, series, float(np.nanmax(shares)), float(np.nanmean(shares)))


def save(found: Trajectories, path: Path, about: Mapping[str, object]) -> None:
    """Write a row per algorithm and update into ``path`` (``*.csv``), and a ``.json`` of the same name.

    ``about`` (JSON values) joins the JSON file.

    Raises:
        UserError: when they cannot be written.
    """
    lines = [",".join(("algorithm", "update", *SERIES))]
    for name, series in found.items():
        for update, values in enumerate(zip(*(series[key] for key in SERIES), strict=True), start=1):
            lines.append(",".join((name, str(update), *(repr(float(value)) for value in values))))
    settings = {kind: list(words) for kind, words in SETTINGS.items()}
    record = {**about, "settings": settings, "pairs": PAIRS, **provenance(["sailctl", "regress"])}
    write_table(path, lines, record)


def load(path: Path) -> Trajectories:
    """The trajectories of ``save``.

    Raises:
        UserError: when they cannot be read.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path)
        return {
            str(name): {series: rows[series].to_numpy(dtype=np.float64) for series in SERIES}
            for name, rows in table.groupby("algorithm", sort=False)
        }
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def history(path: Path) -> list[dict[str, object]]:
    """Every update of the stored trajectories, the latest last.

    Raises:
        UserError: when the JSON file cannot be understood.
    """
    try:
        return list(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["history"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path.with_suffix('.json')}: {error!r}") from error


def _words(name: str, overlay: Path | None) -> list[str]:
    """What ``sailctl train`` is told."""
    own, kind = [f"algo={name}"], "segments"
    if name in EXPERIMENTS:
        own = [name, *EXPERIMENTS[name]]
    else:
        kind = kind_of(_values(name, overlay).get("responses"), None)
    told = {word.partition("=")[0] for word in own}
    return own + [word for word in SETTINGS[kind] if word.partition("=")[0] not in told]


def _values(name: str, overlay: Path | None) -> dict[str, Any]:
    """What a file of ``conf/algo`` sets, with what it takes over."""
    return read_option("algo", name, [folder for folder in (overlay, conf_dir()) if folder is not None])


def needs_data(values: Mapping[str, Any]) -> bool:
    """Whether an algorithm with these settings learns from a data set."""
    return (
        kind_of(values.get("responses"), values.get("learner")) == "segments"
        and AlgoConfig(**values).needs_data
    )


def _collect(file: Path) -> None:
    """A data set of the task; the line that ``collect`` prints is for its users."""
    (job,) = compose_jobs(["algo=sail_segments", *SETTINGS["segments"]]).jobs
    with redirect_stdout(io.StringIO()):
        collect(job.config, PAIRS, file, ["sailctl", "collect"])
