"""Starts the runs of a checked command line with Hydra: one in this process, or a sweep by a launcher."""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from sailctl.config import RunConfig, conf_dir, register, to_config
from sailctl.core.files import OUT_OF_REACH
from sailctl.core.terminal import columns, fit_encoding, in_columns
from sailctl.core.types import BusyError, RunError, UserError
from sailctl.sweeps.cluster import check_launcher, outlives, requeueing
from sailctl.sweeps.compose import Job, Plan, quoted
from sailctl.sweeps.listing import LAUNCHES, differing, record_launch, root_of, write_table
from sailctl.sweeps.outcomes import RESUMABLE, Outcome, any_failed, read_outcome, tell, write_outcome
from sailctl.sweeps.standing import standing, stands, stopped_with
from sailctl.training.stopping import Interrupted

if TYPE_CHECKING:
    from omegaconf import DictConfig

FAIL_FAST = "fail-fast"
"""File in the folder of a launch; if it exists, no job starts after another has failed."""
ALONE = "alone"
"""File with the number of the only job that may start."""


def launch(hydra_arguments: Sequence[str]) -> int:
    """Run Hydra with these arguments; return the exit code of a single job, or 0 for a sweep."""
    import hydra

    # Hydra reads sys.argv. Without HYDRA_FULL_ERROR it prints errors and exits instead of raising.
    command, sys.argv = sys.argv, [sys.argv[0], *hydra_arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()
    try:
        hydra.main(str(conf_dir()), "config", version_base="1.3")(run_job)()
    except _JobEnded as ended:
        return ended.code
    finally:
        sys.argv = command
    return 0


class _JobEnded(BaseException):
    """Passes the exit code of a single job through Hydra, which discards the return value of a job."""

    def __init__(self, code: int) -> None:
        self.code = code


def run_job(cfg: DictConfig) -> None:
    """Train one run; called by Hydra in this process or in a launcher's process.

    A job of a sweep does not raise when it fails, so that the other jobs continue. It writes its outcome to a
    file in the folder of the launch, which the processes of all launchers share.

    Raises:
        _JobEnded: when a single job, outside a sweep, fails.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    fit_encoding()
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    started_in = Path(hydra.runtime.cwd)  # hydra.job.chdir=true changes the working folder of a job
    if hydra.mode != RunMode.MULTIRUN:
        outcome = _attempt(cfg, overrides, started_in, sweep=False)
        if outcome.state != "done":
            raise _JobEnded(_exit_code([outcome]))
        print(outcome.detail)
        return

    folder, number = Path(hydra.sweep.dir), int(hydra.job.num)
    alone = folder / ALONE
    if read_outcome(folder, number) or (alone.exists() and alone.read_text() != str(number)):
        return  # done before, or another job is repeated alone
    on_cluster = outlives(hydra.launcher)
    if not (on_cluster or stands(folder)):
        outcome = Outcome("skipped", "the sweep was stopped earlier")
    elif (folder / FAIL_FAST).exists() and any_failed(folder):
        outcome = Outcome("skipped", "another job failed")
    else:
        _marker(folder, number).touch()
        try:
            with (
                nullcontext() if on_cluster else stopped_with(folder),
                requeueing(int(hydra.launcher.get("max_num_timeout", 0))),
            ):
                outcome = _attempt(cfg, overrides, started_in, sweep=True)
        except RunError as error:  # a signal stopped it, and it is not requeued
            outcome = Outcome("failed" if on_cluster else "interrupted", str(error))
            tell(overrides, outcome)
        except Interrupted as stopped:
            outcome = Outcome("interrupted", f"{stopped}; {RESUMABLE}")
            tell(overrides, outcome)
    write_outcome(folder, number, overrides, outcome)
    _marker(folder, number).unlink(missing_ok=True)


def _marker(folder: Path, number: int) -> Path:
    """File that exists while a job runs, and remains if its process dies."""
    return folder / f"{number}.begun"


def _attempt(cfg: DictConfig, overrides: list[str], started_in: Path, sweep: bool) -> Outcome:
    """Train one run, print its outcome (of a single job only a failure), and return it."""
    words = overrides if sweep else []
    try:
        from sailctl.training.train import train as train_run

        config = to_config(cfg, None if started_in == Path.cwd() else started_in)
        if sweep:  # progress bars of parallel jobs would overwrite each other
            config = replace(config, logger=replace(config.logger, progress=False))
        with _table_updated(config, sweep):
            path = train_run(config, overrides)
        outcome = Outcome("done", str(path))
    except BusyError as error:
        outcome = Outcome("busy" if sweep else "refused", str(error))
    except (UserError, RunError) as error:
        outcome = Outcome("refused" if isinstance(error, UserError) else "failed", str(error))
    except SystemExit as error:
        reason = f"code called by the run exited the process (exit code {error.code})"
        outcome = Outcome("failed", reason)
    except Exception as error:  # so that the other jobs of a sweep continue
        if isinstance(error, OSError) and error.errno in OUT_OF_REACH:
            reason = f"cannot write {error.filename or 'a file of the run'}: {error.strerror}"
            outcome = Outcome("failed", reason)
        else:
            traceback.print_exc()
            summary = f"{type(error).__name__}: {' '.join(str(error).split())}"
            tell(words, Outcome("failed", f"unexpected {summary} (traceback above)"))
            return Outcome("failed", summary)
    if sweep or outcome.state != "done":
        tell(words, outcome)
    return outcome


@contextmanager
def _table_updated(config: RunConfig, sweep: bool) -> Iterator[None]:
    """Update the sweep's table when a job ends or fails."""
    try:
        yield
    finally:
        if sweep:
            with suppress(OSError, UserError):  # a missing table can be rewritten; an aborted job is lost
                write_table(root_of(config))


def _exit_code(outcomes: Sequence[Outcome]) -> int:
    states = {outcome.state for outcome in outcomes}
    return 1 if states & {"failed", "skipped"} else 2 if "refused" in states else 0


def launch_sweep(plan: Plan, fail_fast: bool) -> int:
    """Run the jobs of a sweep, print their outcomes, and return the exit code: 1 if any failed, 2 if refused.

    With ``fail_fast`` no job starts after another has failed.

    Raises:
        UserError: when the chosen launcher cannot work on this machine.
        Interrupted: when a signal stopped the sweep; the outcomes are printed first.
    """
    launcher = plan.jobs[0].composed.hydra.launcher
    check_launcher(launcher)
    configs = [job.config for job in plan.jobs]
    folder = _new_folder(root_of(configs[0]) / LAUNCHES)
    record_launch(folder, configs, [job.overrides for job in plan.jobs])
    write_table(root_of(configs[0]))
    if fail_fast:
        (folder / FAIL_FAST).touch()
    if outlives(launcher):
        _launch_all(plan, folder, lambda: False)
        stopped = None
    else:
        with standing(folder) as sweep:
            _launch_all(plan, folder, lambda: sweep.signal is not None)
            stopped = sweep.signal
    unknown = Outcome("failed", "it did not finish") if stopped is None else Outcome("skipped", "not started")
    outcomes = [read_outcome(folder, number) or unknown for number in range(len(plan.jobs))]
    _print_table(plan.jobs, outcomes, folder)
    if stopped is not None:
        raise Interrupted(stopped)
    return _exit_code(outcomes)


def _launch_all(plan: Plan, folder: Path, stopped: Callable[[], bool]) -> None:
    """Launch the jobs until each has an outcome, even if processes of the launcher die.

    When one process of a launcher dies, the launcher ends all of them. Each job that had started is then
    repeated alone; a job whose process dies again has failed. The other jobs are launched afterwards.
    """
    words = ["--multirun", *plan.arguments, f"hydra.sweep.dir={quoted(folder.resolve())}"]
    numbers = range(len(plan.jobs))
    while (reason := _launch_error(words)) is not None and not stopped():
        started = [n for n in numbers if _marker(folder, n).exists() and not read_outcome(folder, n)]
        if not started:
            print(f"sailctl: the launcher stopped: {reason}", file=sys.stderr)
            return
        for number in started:
            (folder / ALONE).write_text(str(number))
            if _launch_error(words) is not None and not stopped() and not read_outcome(folder, number):
                outcome = Outcome("failed", f"its process died without an error message: {reason}")
                write_outcome(folder, number, plan.jobs[number].overrides, outcome)
                tell(plan.jobs[number].overrides, outcome)
            (folder / ALONE).unlink()
            _marker(folder, number).unlink(missing_ok=True)


def _launch_error(words: Sequence[str]) -> str | None:
    """Launch a sweep with Hydra; returns the error that stopped the launcher, or None."""
    try:
        launch(words)
    except Exception as error:  # for example when a worker of the launcher died
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def _new_folder(parent: Path) -> Path:
    """Create the folder of this launch; its name is unique, so that sweeps do not overwrite each other."""
    folder = parent / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


def _print_table(jobs: Sequence[Job], outcomes: Sequence[Outcome], folder: Path) -> None:
    counts = Counter(outcome.state for outcome in outcomes)
    summary = ", ".join(f"{number} {state}" for state, number in counts.items())
    print(f"\n{len(jobs)} jobs: {summary} ({folder})")
    rows = [("overrides", "state", "run directory or error")]
    rows += [
        (" ".join(words) or "(none)", outcome.state, outcome.detail)
        for words, outcome in zip(differing([job.overrides for job in jobs]), outcomes, strict=True)
    ]
    width = columns()
    print(indent(in_columns(rows, most=None if width is None else width - 2), "  "))
