"""How steadily the runs of a protocol learned: where they began and ended, how far they fell, what they took.

All are in scores, 0 being random actions and 1 the expert, and medians over the seeds of an arm on a task.
Read from a protocol's committed curves:

    python -m benchmarks.stability actions
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import record
from benchmarks.record import RESULTS
from sailctl.analysis.evidence import Trial
from sailctl.analysis.trials import load_trials
from sailctl.core.types import DoubleArray
from sailctl.policies.references import scale_of_references

ASKED = 0.9
"""Score that a task is asked to end with."""


def stability(trials: Sequence[Trial]) -> list[dict[str, object]]:
    """A row for each algorithm on each task, and one for each algorithm over its tasks.

    - ``start`` and ``final``: scores of the first and of the last evaluation;
    - ``worst_gain``: the least that a seed ends above its start; below 0 it ends below it;
    - ``dip``: how far the lowest evaluation lies below the start, at least 0;
    - ``jump``: median size of the falls from one evaluation to the next, 0 where none falls;
    - ``minutes``: wall-clock of a run, of whatever else the machine did meanwhile.

    A run that failed counts as it was when it failed, and among ``failed``. Over tasks ``final`` is the mean
    of the medians, ``worst_gain`` the least, ``dip``, ``jump`` and ``minutes`` the largest, and
    ``reached`` counts the tasks whose median final score is at least ``ASKED``.
    """
    rows: list[dict[str, object]] = []
    for algorithm in dict.fromkeys(trial.algorithm for trial in trials):
        mine = [trial for trial in trials if trial.algorithm == algorithm]
        over = list(_by_task(mine))
        rows += [{"algorithm": algorithm, "task": task, **found} for task, found in over]
        columns = {name: np.array([found[name] for _, found in over]) for name in over[0][1]}
        rows.append(
            {
                "algorithm": algorithm,
                "task": "all",
                "seeds": int(columns["seeds"].min()),
                "failed": int(columns["failed"].sum()),
                "start": columns["start"].mean(),
                "final": columns["final"].mean(),
                "worst_gain": columns["worst_gain"].min(),
                **{name: columns[name].max() for name in ("dip", "jump", "minutes")},
                "reached": int((columns["final"] >= ASKED).sum()),
            }
        )
    return [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def _by_task(trials: Sequence[Trial]) -> Iterator[tuple[str, dict[str, float]]]:
    scale = scale_of_references()
    for task in sorted({trial.task for trial in trials}):
        low, high = scale[task]
        on = [trial for trial in trials if trial.task == task]
        curves = [(trial.returns - low) / (high - low) for trial in on]
        yield (
            task,
            {
                "seeds": len(on),
                "failed": sum(not trial.finished for trial in on),
                "start": float(np.median([curve[0] for curve in curves])),
                "final": float(np.median([curve[-1] for curve in curves])),
                "worst_gain": min(float(curve[-1] - curve[0]) for curve in curves),
                "dip": float(np.median([max(0.0, float(curve[0] - curve.min())) for curve in curves])),
                "jump": float(np.median([_fall(curve) for curve in curves])),
                "minutes": float(np.median([trial.wall_s[-1] / 60 for trial in on])),
            },
        )


def _fall(curve: DoubleArray) -> float:
    """Median size of the falls between neighbouring evaluations of a curve, 0 where there is none."""
    falls = -np.diff(curve)
    return float(np.median(falls[falls > 0])) if (falls > 0).any() else 0.0


def write_stability(folder: Path) -> None:
    """``stability.csv`` beside the curves ``runs.csv`` of ``folder``."""
    record.write(folder, "stability", stability(load_trials([folder / "runs.csv"])), {"runs": "runs.csv"})


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("protocol", help="a folder of results/protocols")
    write_stability(RESULTS / "protocols" / parser.parse_args().protocol)


if __name__ == "__main__":
    main()
