"""Golden trajectories: stored losses and gradient norms of the first updates of every algorithm.

They detect changed numbers, not worse learning: a wrong sign is visible in the first updates, long before it
affects a return. Every algorithm of ``conf/algo``, and every experiment of ``EXPERIMENTS``, is trained for
``UPDATES`` iterations with the settings of ``SETTINGS``. Algorithms that need a data set get one that is
collected first. The same code on the same machine gives bit-identical numbers. Other processors round
differently, and the differences grow with each update: ``TOLERANCE`` limits them.
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
"""Stored columns of ``metrics.csv``."""

COMMON = (
    "env=reacher-v5",  # smooth and without contacts, so that rounding does not flip answers
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
"""Settings by kind of run. Runs on actions have no update in their first iterations (NaN)."""
EXPERIMENTS = {
    "experiment=value": ("algo=sail_revkl_segments", "reward.start=0", "reward.steps=20"),
    # Swimmer has reference policies, and no contacts.
    "experiment=alignment_segments": (
        "algo=sail_segments",
        "algo.c=0.003",
        "reward.start=0",
        "reward.steps=20",
        "env=swimmer-v5",
    ),
}
"""Experiments that use the settings of ``segments`` and these words, which override them."""
JUMPING = ("sail_robust",)
"""Algorithms without a trajectory: the subgradient of rho |h| is discontinuous, so rounding changes it."""
PAIRS = 64
"""Number of answers in the collected data set."""

TOLERANCE = {"max": 1e-4, "mean": 3e-5}
"""Largest accepted drift of a single update, and of the mean, relative to the root mean square of a series.

About 80 times the drift between instruction sets of one processor (``results/gate_golden.csv``)."""


@dataclass(frozen=True)
class Drift:
    """Deviation of one series from the stored one, relative to the root mean square of the stored one."""

    algorithm: str
    series: str
    largest: float
    """Largest over all updates; infinite if only one of the two values is NaN."""
    mean: float
    """Mean over all updates."""

    @property
    def passes(self) -> bool:
        """Whether ``largest`` and ``mean`` are within ``TOLERANCE``."""
        return self.largest <= TOLERANCE["max"] and self.mean <= TOLERANCE["mean"]


Trajectories = Mapping[str, Mapping[str, DoubleArray]]
"""``{algorithm or experiment: {series: (UPDATES,) values}}``"""


def trajectories(names: Sequence[str], overlay: Path | None = None) -> dict[str, dict[str, DoubleArray]]:
    """Train the named algorithms and experiments for ``UPDATES`` updates each, in a temporary folder.

    ``overlay`` is a user's own folder of config groups.

    Raises:
        UserError: when a configuration cannot be composed.
        RunError: when a run fails.
    """
    results = {}
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
            results[name] = {series: columns[series] for series in SERIES}
    return results


def names(overlay: Path | None = None) -> list[str]:
    """Names with a trajectory: ``algorithms`` except ``JUMPING``, then ``EXPERIMENTS``."""
    return [*(name for name in algorithms(overlay) if name not in JUMPING), *EXPERIMENTS]


def algorithms(overlay: Path | None = None) -> list[str]:
    """Names of the algorithms in ``conf/algo`` and in ``algo`` of the user's folder, without baselines.

    A baseline (its file has the key ``learner``) runs in Stable-Baselines3, which records no such series.
    """
    folders = [folder for folder in (overlay, conf_dir()) if folder is not None]
    files = [file for folder in folders for file in (folder / "algo").glob("*.yaml")]
    stems = {file.stem for file in files}
    return sorted(name for name in stems if "learner" not in _values(name, overlay))


def drifts(stored: Trajectories, now: Trajectories) -> list[Drift]:
    """The drift of ``now`` from ``stored`` for each algorithm and series of ``stored``."""
    return [
        _drift(algorithm, series, old, now[algorithm][series])
        for algorithm, old_series in stored.items()
        for series, old in old_series.items()
    ]


def _drift(algorithm: str, series: str, old: DoubleArray, new: DoubleArray) -> Drift:
    if len(new) != len(old) or not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return Drift(algorithm, series, np.inf, np.inf)
    size = max(float(np.sqrt(np.nanmean(old**2))), 1e-12)
    shares = np.abs(new - old) / size
    return Drift(algorithm, series, float(np.nanmax(shares)), float(np.nanmean(shares)))


def save(results: Trajectories, path: Path, about: Mapping[str, object]) -> None:
    """Write one row per algorithm and update to ``path`` (``*.csv``), and a ``.json`` file of the same name.

    ``about`` (JSON values) becomes part of the JSON file.

    Raises:
        UserError: when the files cannot be written.
    """
    lines = [",".join(("algorithm", "update", *SERIES))]
    for name, series in results.items():
        for update, values in enumerate(zip(*(series[key] for key in SERIES), strict=True), start=1):
            lines.append(",".join((name, str(update), *(repr(float(value)) for value in values))))
    settings = {kind: list(words) for kind, words in SETTINGS.items()}
    record = {**about, "settings": settings, "pairs": PAIRS, **provenance(["sailctl", "regress"])}
    write_table(path, lines, record)


def load(path: Path) -> Trajectories:
    """Read the trajectories that ``save`` wrote.

    Raises:
        UserError: when the file cannot be read.
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
    """Entries of all updates of the stored trajectories, oldest first.

    Raises:
        UserError: when the JSON file is not readable.
    """
    try:
        return list(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["history"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path.with_suffix('.json')}: {error!r}") from error


def _words(name: str, overlay: Path | None) -> list[str]:
    """The ``key=value`` words with which ``sailctl train`` trains this name."""
    specific, kind = [f"algo={name}"], "segments"
    if name in EXPERIMENTS:
        specific = [name, *EXPERIMENTS[name]]
    else:
        kind = kind_of(_values(name, overlay).get("responses"), None)
    keys = {word.partition("=")[0] for word in specific}
    return specific + [word for word in SETTINGS[kind] if word.partition("=")[0] not in keys]


def _values(name: str, overlay: Path | None) -> dict[str, Any]:
    """The settings of a file of ``conf/algo``, including those of its defaults."""
    return read_option("algo", name, [folder for folder in (overlay, conf_dir()) if folder is not None])


def needs_data(values: Mapping[str, Any]) -> bool:
    """Whether an algorithm with these settings learns from a data set."""
    return (
        kind_of(values.get("responses"), values.get("learner")) == "segments"
        and AlgoConfig(**values).needs_data
    )


def _collect(file: Path) -> None:
    """Collect the data set, without the line that ``collect`` prints."""
    (job,) = compose_jobs(["algo=sail_segments", *SETTINGS["segments"]]).jobs
    with redirect_stdout(io.StringIO()):
        collect(job.config, PAIRS, file, ["sailctl", "collect"])
