"""What a protocol has yet to train: its runs, without those whose curves were saved before.

A saved run is known by its id (``config.run_id``) and its seed. The id stands for everything that changes the
numbers of a run, so saved runs of other settings, or of a version of sailctl that computes other numbers, are
recognised and refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence, Set
from pathlib import Path

from sailctl.analysis.evidence import Trial
from sailctl.analysis.trials import load_trials
from sailctl.config import run_id
from sailctl.core.types import UserError
from sailctl.sweeps.compose import as_sweeps, compose_jobs

Key = tuple[str, int]
"""Id and seed of a run."""


def key(trial: Trial) -> Key:
    """Id and seed of a run; the id is empty in evidence that was saved without it."""
    return str(trial.origin.get("id", "")), trial.seed


def ids_of(sweep: Sequence[str]) -> set[str]:
    """Ids of the runs of a sweep (words of ``sailctl train -m``)."""
    return {run_id(job.config) for job in compose_jobs(sweep, multirun=True).jobs}


def saved_runs(saved: Path, ids: Set[str]) -> list[Trial]:
    """The runs of the evidence ``saved`` (a CSV file, or none there) that ended, all with one of these ids.

    Raises:
        UserError: when some have another id or none, so that new runs would replace them.
    """
    if not saved.is_file():
        return []
    trials = load_trials([saved])
    if others := [trial for trial in trials if key(trial)[0] not in ids]:
        raise UserError(
            f"{saved} holds {len(others)} of {len(trials)} runs of other settings or of a version that "
            "computes other numbers: move it away, or give another folder with --results"
        )
    ended = [trial for trial in trials if trial.state in ("finished", "failed")]
    print(f"{saved}: {len(ended)} saved runs are not trained again")
    return ended


def missing_sweeps(sweep: Sequence[str], seeds: int, saved: Collection[Key]) -> list[list[str]]:
    """Sweeps of the runs of ``sweep`` with the seeds 0, 1, ..., ``seeds`` - 1 that are not in ``saved``."""
    jobs: defaultdict[tuple[int, ...], list[list[str]]] = defaultdict(list)
    for job in compose_jobs(sweep, multirun=True).jobs:
        identity = run_id(job.config)
        jobs[tuple(seed for seed in range(seeds) if (identity, seed) not in saved)].append(job.overrides)
    return [
        [*words, f"seed={','.join(map(str, lacking))}"]
        for lacking, same_seeds in jobs.items()
        if lacking
        for words in as_sweeps(same_seeds)
    ]
