"""Logs a comparison to Weights & Biases as one summary run, with figures, tables and verdict.

The compared runs are in W&B already, in one group per arm and task (``wandb_mirror.wandb_group``). The
summary run lists these groups in its configuration and has the arms and tasks as tags, so that filtering by
tag and grouping by group in W&B shows the same comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from sailctl import __version__
from sailctl.analysis.compare import Comparison, Performance
from sailctl.analysis.contrasts import Contrast
from sailctl.analysis.evidence import Trial
from sailctl.analysis.statistics import Estimate
from sailctl.runs.results import is_run
from sailctl.runs.wandb_mirror import TAG, WandbMirror, wandb_group

MODES = ("offline", "online", "disabled")


def log_summary(
    comparison: Comparison, figures: Mapping[str, Path], folder: Path, mode: str, project: str, name: str
) -> None:
    """Write the summary run below ``folder``/wandb; a failure only prints a warning.

    Args:
        comparison: the result to log.
        figures: image files (.png) by name.
        folder: existing folder.
        mode: one of ``MODES``; ``disabled`` does nothing.
        project: W&B project of the runs.
        name: name of the summary run.
    """
    if mode == "disabled":
        return
    evidence = comparison.evidence
    arms = [arm.name for arm in evidence.arms]
    init = {
        "project": project,
        "name": name,
        "group": "comparison",
        "job_type": "comparison",
        "tags": ["comparison", *dict.fromkeys(tag[:TAG] for tag in (*evidence.tasks, *arms))],
        "config": {
            "sailctl": __version__,
            "baseline": comparison.baseline,
            "arms": {arm.name: groups_of(arm.trials) for arm in evidence.arms},
            "tasks": list(evidence.tasks),
            "compared": {key: dict(values) for key, values in evidence.compared.items()},
            "caveats": list(evidence.caveats),
        },
        "mode": mode,
        "dir": str(folder.resolve()),
    }
    mirror = WandbMirror(init, folder, along=None)
    mirror.media(
        figures, {"performance": performance_table(comparison), "contrasts": contrast_table(comparison)}
    )
    mirror.outcome(0, summary_of(comparison))
    mirror.close()


def groups_of(trials: tuple[Trial, ...]) -> list[str]:
    """W&B groups of the runs of an arm whose run directories exist."""
    places = [Path(trial.place) for trial in trials]
    return sorted({wandb_group(place) for place in places if is_run(place)})


def summary_of(comparison: Comparison) -> dict[str, object]:
    """The W&B run summary: verdict, final scores, shares of failed seeds, differences and p-values."""
    summary: dict[str, object] = {"verdict": " ".join(comparison.verdict)}
    for row in comparison.performance:
        if row.task == comparison.scope:
            summary[f"final/{row.arm}"] = row.final.value
            summary[f"failed_share/{row.arm}"] = row.failed.value
    for contrast in comparison.headlines:
        summary[f"difference/{contrast.arm}"] = contrast.difference.value
        summary[f"p/{contrast.arm}"] = contrast.p_holm
    return summary


def performance_table(comparison: Comparison) -> dict[str, object]:
    """One row per arm and task, and over all tasks, with intervals."""
    head = ("arm", "task", "seeds", "unfinished", "collapsed")
    return _table(comparison.performance, head, ("final_return", "final", "auc", "failed"))


def contrast_table(comparison: Comparison) -> dict[str, object]:
    """One row per contrast with the baseline, with intervals."""
    head = ("measure", "arm", "baseline", "task", "g", "p", "p_holm", "power", "verdict")
    return _table(comparison.contrasts, head, ("difference", "improvement"))


def _table(
    rows: Sequence[Performance | Contrast], head: Sequence[str], estimates: Sequence[str]
) -> dict[str, object]:
    columns = [*head, *(f"{name}{end}" for name in estimates for end in ("", "_low", "_high"))]
    data = [
        [
            *(_json(getattr(row, name)) for name in head),
            *(n for e in estimates for n in _ends(getattr(row, e))),
        ]
        for row in rows
    ]
    return {"columns": columns, "data": data}


def _ends(estimate: Estimate) -> list[object]:
    return [_json(value) for value in (estimate.value, estimate.low, estimate.high)]


def _json(value: object) -> object:
    """``value``, or None if it is not finite, because JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
