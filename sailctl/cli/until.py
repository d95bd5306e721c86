"""``sailctl train -m ... until=decided``: adds seeds to a sweep until a sequential test has decided.

A round trains the next batch of seeds of all arms that are not decided, and of the baseline. After each round
the test of ``analysis.sequential`` looks at all runs so far. Its error rate holds over all looks, so stopping
early is valid. The same command continues an interrupted sweep: finished runs are not trained again, and the
test has fixed random numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sailctl.analysis.arms import gather
from sailctl.analysis.compare import Comparison, compare
from sailctl.analysis.contrasts import Options
from sailctl.analysis.evidence import CURVES, Trial, flat_settings
from sailctl.analysis.scores import choose_scale
from sailctl.analysis.sequential import Plan, check_plan, progress, undecided_arms
from sailctl.analysis.trials import load_trials
from sailctl.config import recorded
from sailctl.core.types import DoubleArray, UserError
from sailctl.runs.recorder import run_path
from sailctl.sweeps.compose import Job, as_sweeps, compose_jobs
from sailctl.sweeps.launch import launch_sweep

WORD = "until=decided"
"""The word of the command line that asks for it."""


def train_until_decided(words: Sequence[str], options: argparse.Namespace) -> int:
    """Train batches of seeds until every arm is decided, or the last batch is trained.

    Args:
        words: ``key=value`` words of the sweep, without ``until``.
        options: ``multirun``, ``fresh``, ``fail_fast``, ``cfg``, ``config_dir``, ``batch``, ``batches``,
            ``baseline`` and ``by`` of the command line.

    Returns:
        Exit code: 1 if a run failed (it counts with the lowest return), 2 if a job was refused.

    Raises:
        UserError: when the sweep has nothing to compare or chooses seeds itself, or an option does not fit.
        Interrupted: when a signal stopped it.
    """
    plan = Plan(options.batch, options.batches)
    check_plan(plan)
    if not options.multirun:
        raise UserError(f"{WORD} compares the arms of a sweep: add -m")
    if options.fresh or options.cfg:
        raise UserError(f"{WORD} cannot be combined with {'--fresh' if options.fresh else '--cfg'}")
    if any(word.partition("=")[0] == "seed" for word in words):
        raise UserError(f"{WORD} chooses the seeds itself: leave out seed=, and set --batch and --batches")
    pending = compose_jobs([*words, "seed=0"], multirun=True, overlay=options.config_dir).jobs
    _check_arms(pending, options)
    launcher = [word for word in words if word.startswith("hydra")]
    return _train_batches(pending, launcher, plan, options)


def _train_batches(
    pending: list[Job], launcher: Sequence[str], plan: Plan, options: argparse.Namespace
) -> int:
    """Train and test batch by batch the arms of ``pending``, which has one job for each on each task."""
    trained: list[Path] = []
    worst = 0
    for look in range(plan.batches):
        seeds = range(look * plan.batch, (look + 1) * plan.batch)
        print(f"batch {look + 1} of {plan.batches}: seeds {seeds[0]} to {seeds[-1]}", flush=True)
        for sweep in as_sweeps([_without_seed(job) for job in pending]):
            chosen = f"seed={','.join(map(str, seeds))}"
            batch = compose_jobs([*launcher, *sweep, chosen], multirun=True, overlay=options.config_dir)
            code = launch_sweep(batch, options.fail_fast)
            if code == 2 or (code and options.fail_fast):
                return code
            worst = max(worst, code)
            trained += [run_path(job.config) for job in batch.jobs]
        comparison = _compared(trained, options)
        decisions, sentences = progress(comparison, plan)
        print("\n".join(sentences), flush=True)
        undecided = undecided_arms(decisions, plan)
        if not undecided:
            break
        pending = [job for job in pending if _arm(job, comparison) in (*undecided, comparison.baseline)]
    arms = len(comparison.evidence.arms) * len(comparison.evidence.tasks)
    most = arms * plan.batch * plan.batches
    print(f"{len(trained)} runs, of {most} at most: {1 - len(trained) / most:.0%} saved")
    return worst


def _without_seed(job: Job) -> list[str]:
    return [word for word in job.overrides if not word.startswith("seed=")]


def _check_arms(jobs: Sequence[Job], options: argparse.Namespace) -> None:
    """Refuse what the comparison after the first batch would refuse, as far as settings go."""
    tasks = [job.config.env.id for job in jobs]
    if lonely := [task for task in dict.fromkeys(tasks) if tasks.count(task) < 2]:
        raise UserError(
            f"{WORD} needs at least two arms on each task, and {lonely[0]} has one: "
            "sweep over algorithms or settings, such as algo=sail,sail_revkl"
        )
    if len(set(tasks)) > 1 and choose_scale(None, sorted(set(tasks)))[1] == "runs":
        raise UserError(f"{WORD} over several tasks needs reference policies of each: see sailctl reference")
    try:
        evidence = gather([_without_curves(job) for job in jobs], options.by or ["algo.*"])
    except UserError as error:
        reason = str(error).partition("; ")[0].removeprefix("these runs cannot be compared: ")
        raise UserError(f"{WORD}: {reason}; name the compared settings with --by") from error
    if options.baseline is not None:
        evidence.arm(options.baseline)


def _without_curves(job: Job) -> Trial:
    """The run of a job as it will be compared, before it has been trained."""
    none: DoubleArray = np.zeros(0)
    settings = flat_settings(recorded(job.config))
    task, algorithm = job.config.env.id, job.config.algo.name
    curves: dict[str, Any] = dict.fromkeys((*CURVES, "before", "after"), none)
    return Trial(task, algorithm, job.config.seed, "finished", None, settings, {}, "", **curves)


def _compared(runs: Sequence[Path], options: argparse.Namespace) -> Comparison:
    trials = load_trials(runs)
    scale, source = choose_scale(None, sorted({trial.task for trial in trials}))
    evidence = gather(trials, options.by or ["algo.*"])
    return compare(evidence, Options(options.baseline, scale, source))


def _arm(job: Job, comparison: Comparison) -> str:
    """Name of the arm to which the run of ``job`` belongs."""
    place = str(run_path(job.config).resolve())
    return next(
        arm.name for arm in comparison.evidence.arms if place in {trial.place for trial in arm.trials}
    )
