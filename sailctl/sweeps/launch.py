"""Runs of a checked command line, started by Hydra: one of them here, or a sweep by one of its launchers."""

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
from sailctl.sweeps.outcomes import Outcome, any_failed, read_outcome, tell, write_outcome
from sailctl.sweeps.standing import standing, stands, stopped_with
from sailctl.training.stopping import Interrupted

if TYPE_CHECKING:
    from omegaconf import DictConfig

FAIL_FAST = "fail-fast"
"""File in the folder of a launch whose jobs are not to begin once one has failed."""
ALONE = "alone"
"""File that holds the number of the one job that may begin just now."""


def launch(hydra_arguments: Sequence[str]) -> int:
    """Hand over to Hydra; return the exit code of a single job, 0 for a sweep."""
    import hydra

    # Hydra reads the command line itself, and without this setting prints errors and exits in our place.
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
    """Carries the exit code of a single job out through Hydra, which keeps what a job returns to itself."""

    def __init__(self, code: int) -> None:
        self.code = code


def run_job(cfg: DictConfig) -> None:
    """One training, called by Hydra here or in a launcher's process.

    Never raises for a failure, so that the other jobs of a sweep go on. A job of a sweep leaves its outcome
    in a file of the launch's folder, the one place that every launcher's processes share.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    fit_encoding()
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    asked_in = Path(hydra.runtime.cwd)  # hydra.job.chdir=true has a job work elsewhere
    if hydra.mode != RunMode.MULTIRUN:
        outcome = _attempt(cfg, overrides, asked_in, sweep=False)
        if outcome.state != "done":
            raise _JobEnded(_exit_code([outcome]))
        print(outcome.detail)
        return

    folder, number = Path(hydra.sweep.dir), int(hydra.job.num)
    alone = folder / ALONE
    if read_outcome(folder, number) or (alone.exists() and alone.read_text() != str(number)):
        return  # this round of the launch is about other jobs
    stays = outlives(hydra.launcher)
    if not (stays or stands(folder)):
        outcome = Outcome("skipped", "the sweep was stopped before")
    elif (folder / FAIL_FAST).exists() and any_failed(folder):
        outcome = Outcome("skipped", "another job had failed")
    else:
        _begun(folder, number).touch()
        try:
            with (
                nullcontext() if stays else stopped_with(folder),
                requeueing(int(hydra.launcher.get("max_num_timeout", 0))),
            ):
                outcome = _attempt(cfg, overrides, asked_in, sweep=True)
        except RunError as error:  # it was told to stop, and is not queued again
            outcome = Outcome("failed" if stays else "interrupted", str(error))
            tell(overrides, outcome)
        except Interrupted as stopped:
            outcome = Outcome("interrupted", f"{stopped}; asked for again, it goes on")
            tell(overrides, outcome)
    write_outcome(folder, number, overrides, outcome)
    _begun(folder, number).unlink(missing_ok=True)


def _begun(folder: Path, number: int) -> Path:
    """File that is there while a job runs, and stays behind where its process dies."""
    return folder / f"{number}.begun"


def _attempt(cfg: DictConfig, overrides: list[str], asked_in: Path, sweep: bool) -> Outcome:
    prefix = f"{' '.join(overrides)}: " if sweep and overrides else ""
    try:
        from sailctl.training.train import train as train_run

        config = to_config(cfg, None if asked_in == Path.cwd() else asked_in)
        if sweep:  # progress bars of jobs side by side would overwrite each other; a line says when one ends
            config = replace(config, logger=replace(config.logger, progress=False))
        with _tabled(config, sweep):
            path = train_run(config, overrides)
        if sweep:
            print(f"{prefix}done", flush=True)
        return Outcome("done", str(path))
    except BusyError as error:
        print(f"sailctl: {prefix}{error}", file=sys.stderr)
        return Outcome("busy" if sweep else "refused", str(error))
    except (UserError, RunError) as error:
        print(f"sailctl: {prefix}{error}", file=sys.stderr)
        return Outcome("refused" if isinstance(error, UserError) else "failed", str(error))
    except SystemExit as error:
        reason = f"something that the run called ends the process (exit code {error.code})"
        print(f"sailctl: {prefix}{reason}", file=sys.stderr)
        return Outcome("failed", reason)
    except Exception as error:  # let the other jobs of a sweep go on
        if isinstance(error, OSError) and error.errno in OUT_OF_REACH:
            reason = f"cannot write {error.filename or 'a file of the run'}: {error.strerror}"
            print(f"sailctl: {prefix}{reason}", file=sys.stderr)
            return Outcome("failed", reason)
        traceback.print_exc()  # not foreseen
        summary = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"sailctl: {prefix}unexpected {summary} (traceback above)", file=sys.stderr)
        return Outcome("failed", summary)


@contextmanager
def _tabled(config: RunConfig, sweep: bool) -> Iterator[None]:
    """Bring the sweep's table up to date when a job has ended, however it did."""
    try:
        yield
    finally:
        if sweep:
            with suppress(OSError, UserError):  # the table can be made again, the job cannot
                write_table(root_of(config))


def _exit_code(outcomes: Sequence[Outcome]) -> int:
    states = {outcome.state for outcome in outcomes}
    return 1 if states & {"failed", "skipped"} else 2 if "refused" in states else 0


def launch_sweep(plan: Plan, fail_fast: bool) -> int:
    """Run the jobs of a sweep, print how each one ended, and return the exit code of all.

    With ``fail_fast`` none begins once one has failed.

    Raises:
        UserError: when the launcher that was chosen cannot work here.
        Interrupted: when the sweep was told to stop; what became of each job is printed before.
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
    unknown = Outcome("failed", "it did not finish") if stopped is None else Outcome("skipped", "not begun")
    outcomes = [read_outcome(folder, number) or unknown for number in range(len(plan.jobs))]
    _print_table(plan.jobs, outcomes, folder)
    if stopped is not None:
        raise Interrupted(stopped)
    return _exit_code(outcomes)


def _launch_all(plan: Plan, folder: Path, stopped: Callable[[], bool]) -> None:
    """Launch the jobs until each has its outcome, also where processes of the launcher die.

    A launcher that loses a process ends all of them. Each job that had begun is then given one more process,
    by itself: the one that loses it again is at fault. The jobs that had not begun come after that.
    """
    words = ["--multirun", *plan.arguments, f"hydra.sweep.dir={quoted(folder.resolve())}"]
    numbers = range(len(plan.jobs))
    while (reason := _launched(words)) is not None and not stopped():
        begun = [n for n in numbers if _begun(folder, n).exists() and not read_outcome(folder, n)]
        if not begun:
            print(f"sailctl: the launcher stopped: {reason}", file=sys.stderr)
            return
        for number in begun:
            (folder / ALONE).write_text(str(number))
            if _launched(words) is not None and not stopped() and not read_outcome(folder, number):
                outcome = Outcome("failed", f"its process ended without a word: {reason}")
                write_outcome(folder, number, plan.jobs[number].overrides, outcome)
                tell(plan.jobs[number].overrides, outcome)
            (folder / ALONE).unlink()
            _begun(folder, number).unlink(missing_ok=True)


def _launched(words: Sequence[str]) -> str | None:
    """Have Hydra launch a sweep; why its launcher stopped before the end, None where it did not."""
    try:
        launch(words)
    except Exception as error:  # a launcher whose worker died, say
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def _new_folder(parent: Path) -> Path:
    """A fresh folder of this launch, so that sweeps never overwrite each other's bookkeeping."""
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
    room = columns()
    print(indent(in_columns(rows, most=None if room is None else room - 2), "  "))
