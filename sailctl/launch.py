"""Runs of a checked command line, started by Hydra: one of them here, or a sweep by one of its launchers."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sailctl.cluster import check_launcher, register, requeueing
from sailctl.compose import Job, Plan, quoted
from sailctl.config import Config, RunConfig, conf_dir, to_config, to_dict
from sailctl.outcomes import Outcome, any_failed, read_outcome, read_pack, tell, write_outcome, write_packs
from sailctl.sweeps import LAUNCHES, record_launch, root_of, write_table
from sailctl.tasks import METAWORLD
from sailctl.types import BusyError, RunError, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

OUT_OF_REACH = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""Why a file cannot be written, through no fault of this program."""
FAIL_FAST = "fail-fast"
"""File in the folder of a launch whose jobs are not to begin once one has failed."""


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
    """One training, or those of one pack, called by Hydra here or in a launcher's process.

    Never raises for a failure, so that the other jobs of a sweep go on. Jobs of a sweep are read from the
    launch's folder and leave their outcomes there: it is the one place that every launcher's processes share.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        (outcome,) = _attempt([to_config(cfg)], [list(hydra.overrides.task)])
        if outcome.state != "done":
            raise _JobEnded(_exit_code([outcome]))
        print(outcome.detail)
        return

    folder = Path(hydra.runtime.output_dir)
    pack = read_pack(folder, hydra.job.num)
    words = [job["words"] for job in pack]

    def note(number: int, outcome: Outcome) -> None:
        write_outcome(folder, pack[number]["number"], words[number], outcome)

    if (folder / FAIL_FAST).exists() and any_failed(folder):
        for number in range(len(pack)):
            note(number, Outcome("skipped", "another job had failed"))
        return
    configs = [_from_record(job["config"]) for job in pack]
    try:
        with _interruptible(), requeueing(int(hydra.launcher.get("max_num_timeout", 0))):
            _attempt(configs, words, note)
    except RunError as error:  # it was told to stop, and is not queued again
        for number, job in enumerate(pack):
            if read_outcome(folder, job["number"]) is None:
                note(number, Outcome("failed", str(error)))
                tell(words[number], Outcome("failed", str(error)))


@contextmanager
def _interruptible() -> Iterator[None]:
    """In a worker process of a launcher, let Ctrl-C end the job inside the block, and nothing outside it.

    Between jobs an interrupt is the launcher's to handle; the worker would answer it with a traceback.
    """
    if multiprocessing.current_process().name == "MainProcess":
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _attempt(
    configs: Sequence[RunConfig],
    words: Sequence[list[str]],
    note: Callable[[int, Outcome], None] | None = None,
) -> list[Outcome]:
    """Train these runs side by side; say how each one ended, and ``note`` it, as soon as it has."""
    outcomes: dict[int, Outcome] = {}

    def report(number: int, ended: Path | BaseException) -> None:
        if isinstance(ended, Path | Exception):  # what was interrupted has no outcome: it can go on
            prefix = f"{' '.join(words[number])}: " if note is not None and words[number] else ""
            outcomes[number] = _outcome(ended, prefix, sweep=note is not None)
            if note is not None:
                note(number, outcomes[number])
        if note is not None:
            with suppress(OSError, UserError):  # the table can be made again, the job cannot
                write_table(root_of(configs[number]))

    interrupted: KeyboardInterrupt | None = None
    try:
        if len(configs) > 1:
            from sailctl.train import train_pack

            runs = [config for config in configs if isinstance(config, Config)]
            ended = train_pack(runs, words, report)
            interrupted = next((one for one in ended if isinstance(one, KeyboardInterrupt)), None)
        else:
            from sailctl.train import train

            report(0, train(configs[0], words[0]))
    except Exception as error:  # let the other jobs of a sweep go on
        for number in set(range(len(configs))) - set(outcomes):
            report(number, error)
    except KeyboardInterrupt as error:
        interrupted = error
        report(0, error)
    if interrupted is not None:
        raise interrupted
    return [outcomes[number] for number in range(len(configs))]


def _outcome(ended: Path | Exception, prefix: str, sweep: bool) -> Outcome:
    """How a run ended, after it has been said in a line."""
    if isinstance(ended, Path):
        if sweep:
            print(f"{prefix}done", flush=True)
        return Outcome("done", str(ended))
    if isinstance(ended, UserError | RunError):
        print(f"sailctl: {prefix}{ended}", file=sys.stderr)
        failed = not isinstance(ended, UserError)
        busy = sweep and isinstance(ended, BusyError)
        return Outcome("failed" if failed else "busy" if busy else "refused", str(ended))
    if isinstance(ended, OSError) and ended.errno in OUT_OF_REACH:
        reason = f"cannot write {ended.filename or 'a file of the run'}: {ended.strerror}"
        print(f"sailctl: {prefix}{reason}", file=sys.stderr)
        return Outcome("failed", reason)
    traceback.print_exception(ended)  # not foreseen
    summary = f"{type(ended).__name__}: {' '.join(str(ended).split())}"
    print(f"sailctl: {prefix}unexpected {summary} (traceback above)", file=sys.stderr)
    return Outcome("failed", summary)


def _exit_code(outcomes: Sequence[Outcome]) -> int:
    states = {outcome.state for outcome in outcomes}
    return 1 if states & {"failed", "skipped"} else 2 if "refused" in states else 0


def launch_sweep(plan: Plan, fail_fast: bool) -> int:
    """Run the jobs of a sweep, print how each one ended, and return the exit code of all.

    With ``fail_fast`` none begins once one has failed.

    Raises:
        UserError: when the launcher that was chosen cannot work here.
    """
    check_launcher(plan.jobs[0].composed.hydra.launcher)
    configs = [job.config for job in plan.jobs]
    folder = _new_folder(root_of(configs[0]) / LAUNCHES)
    packs = packs_of(configs)
    write_packs(
        folder,
        [
            [{"number": n, "words": plan.jobs[n].overrides, "config": to_dict(configs[n])} for n in pack]
            for pack in packs
        ],
    )
    record_launch(folder, configs, [job.overrides for job in plan.jobs])
    write_table(root_of(configs[0]))
    if fail_fast:
        (folder / FAIL_FAST).touch()
    try:
        # Hydra hands as many jobs to the launcher as ``pack`` has values; each finds its pack by its number.
        numbered = ["hydra.sweeper.params=null", f"pack={','.join('1' * len(packs))}"]
        words = [word for word in plan.arguments if not word.startswith("pack=")]
        launch(["--multirun", *words, *numbered, f"hydra.sweep.dir={quoted(folder)}"])
    except Exception as error:  # a launcher whose worker died, say: report it beside what did finish
        summary = " ".join(str(error).split())
        print(f"sailctl: the launcher stopped: {type(error).__name__}: {summary}", file=sys.stderr)
    unknown = Outcome("failed", "it did not finish")
    outcomes = [read_outcome(folder, number) or unknown for number in range(len(plan.jobs))]
    _print_table(plan.jobs, outcomes, folder)
    return _exit_code(outcomes)


def packs_of(configs: Sequence[RunConfig]) -> list[list[int]]:
    """The numbers of the runs that share a process: at most ``pack`` that differ in seed and gamma alone.

    Baselines run by themselves, and so do tasks whose environments cannot be shared.
    """
    packs: list[list[int]] = []
    open_pack: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        key = str(number)
        if isinstance(config, Config) and config.env.id not in METAWORLD:
            key = repr(replace(config, seed=0, algo=replace(config.algo, gamma=0.0)))
        pack = open_pack.get(key)
        if pack is None or len(pack) == config.pack:
            pack = open_pack[key] = []
            packs.append(pack)
        pack.append(number)
    return packs


def _from_record(record: dict[str, Any]) -> RunConfig:
    """The configuration of a job of a sweep.

    It has no progress bar: those of jobs side by side would overwrite each other; a line says when one ends.
    """
    from omegaconf import OmegaConf

    config = to_config(OmegaConf.create(record))
    return replace(config, logger=replace(config.logger, progress=False))


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
        (" ".join(job.overrides) or "(none)", outcome.state, outcome.detail)
        for job, outcome in zip(jobs, outcomes, strict=True)
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for overrides, state, detail in rows:
        print(f"  {overrides:<{widths[0]}}  {state:<{widths[1]}}  {detail}")
