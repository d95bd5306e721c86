"""Sweeps through submitit: as jobs of SLURM, or as processes on this machine.

In the process of the command, ``QueueLauncher`` submits the jobs and waits for their outcomes. In a job,
``requeueing`` requeues a run that a signal stops, so that it resumes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sailctl.core.types import RunError, UserError
from sailctl.sweeps.outcomes import RESUMABLE, Outcome, read_outcome, tell, write_outcome
from sailctl.training.stopping import Interrupted, Stop

if TYPE_CHECKING:
    from submitit.core.core import Job
    from submitit.core.job_environment import SignalHandler

OURS = "hydra_plugins.sailctl_launchers"
"""Module in which Hydra finds the launchers of this file."""
NEEDED = {OURS: ("submitit", "slurm"), "hydra_plugins.hydra_ray_launcher": ("ray", "ray")}
"""By module of launchers: the package that they need besides Hydra's plugin, and the extra with both."""
IN_QUEUE = (
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "RESIZING",
    "STAGE_OUT",
    "COMPLETING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "SPECIAL_EXIT",
)
"""SLURM states of a job that is in the queue, or will return to it."""
ASKED_EVERY_S = 5.0
"""Seconds between two queries of the queue."""
STOPPED_WITHIN_S = 20.0
"""Seconds after Ctrl-C until processes on this machine get a second signal."""


def check_launcher(launcher: DictConfig) -> None:
    """Check that the launcher can start jobs on this machine.

    Raises:
        UserError: when it cannot; the message says what to install.
    """
    target = str(launcher.get("_target_"))
    for place, (package, extra) in NEEDED.items():
        if not target.startswith(f"{place}."):
            continue
        if not (find_spec(package) and find_spec(f"hydra_plugins.hydra_{package}_launcher")):
            raise UserError(f"this launcher needs {package}: pip install 'sailctl[{extra}]'")
        if not find_spec(place):
            raise UserError(f"sailctl is installed without its launchers ({place}): reinstall it")
    if target.endswith(".SlurmLauncher"):
        from shutil import which

        if missing := [name for name in ("sbatch", "srun", "squeue", "scontrol") if which(name) is None]:
            raise UserError(
                f"hydra/launcher=slurm needs SLURM, but {missing[0]} is not installed here: "
                "use a machine of the cluster, or hydra/launcher=joblib"
            )


def outlives(launcher: DictConfig) -> bool:
    """Whether jobs of this launcher continue after the command that started them ends, as on a cluster."""
    return str(launcher.get("_target_")).endswith(".SlurmLauncher")


# In the process of the command


class QueueLauncher(Launcher):
    """Submits the jobs of a sweep to submitit like Hydra's plugin, and waits for all of them.

    The plugin waits for the jobs one after the other, aborts at the first without a result, and does not
    detect cancelled jobs when SLURM keeps no accounting records.
    """

    cluster = ""
    grace_s = 15.0
    """Seconds to wait for the outcome file of an ended job, which may appear late on a shared folder."""

    def __init__(self, **params: Any) -> None:
        self._params = {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in params.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes to a launcher before the launch."""
        self._context, self._function, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start the jobs and wait until all have ended; their outcomes are in the folder of the launch."""
        folder = Path(str(self._config.hydra.sweep.dir))
        jobs = self._submit(job_overrides, initial_job_idx)
        try:
            self._wait(jobs, job_overrides, initial_job_idx, folder)
        except KeyboardInterrupt:
            self._interrupted(jobs)
            raise
        return []

    def _submit(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job[Any]]:
        import submitit
        from hydra_plugins.hydra_submitit_launcher import submitit_launcher
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        # The plugin itself is the job function, so that its processes do not depend on this class.
        launchers = {"slurm": submitit_launcher.SlurmLauncher, "local": submitit_launcher.LocalLauncher}
        plugin = launchers[self.cluster](**self._params)
        plugin.setup(hydra_context=self._context, task_function=self._function, config=self._config)
        params = dict(self._params)
        options = {f"{self.cluster}_max_num_timeout": params.pop("max_num_timeout", 0)}
        executor = submitit.AutoExecutor(str(params.pop("submitit_folder")), cluster=self.cluster, **options)
        common = {field.name for field in fields(BaseQueueConf)}
        executor.update_parameters(
            **{name if name in common else f"{self.cluster}_{name}": value for name, value in params.items()}
        )
        state = Singleton.get_state()
        numbers = [first + place for place in range(len(job_overrides))]
        return executor.map_array(
            plugin,
            [list(words) for words in job_overrides],
            ["hydra.sweep.dir"] * len(numbers),
            numbers,
            [str(number) for number in numbers],  # required by the plugin, and not used
            [state] * len(numbers),
        )

    def _wait(
        self, jobs: Sequence[Job[Any]], job_overrides: Sequence[Sequence[str]], first: int, folder: Path
    ) -> None:
        pending = {first + place: job for place, job in enumerate(jobs)}
        ended_at: dict[int, float] = {}
        queried = time.monotonic()
        while pending:
            time.sleep(0.5)
            for number in list(pending):
                if (outcome := read_outcome(folder, number)) is not None:
                    tell([*job_overrides[number - first]], outcome)
                    del pending[number]
            if time.monotonic() - queried < ASKED_EVERY_S:
                continue
            queried = time.monotonic()
            for number, ended in self._ended(pending).items():
                if ended is None:
                    ended_at.pop(number, None)
                elif queried - ended_at.setdefault(number, queried) >= self.grace_s:
                    job = pending[number]
                    log = job.paths.stderr
                    detail = f"job {job.job_id} ended ({ended}) before its run finished: see {log}"
                    write_outcome(folder, number, job_overrides[number - first], Outcome("failed", detail))

    @abstractmethod
    def _ended(self, jobs: dict[int, Job[Any]]) -> dict[int, str | None]:
        """How each job ended according to the queue; None while it is, or may return, in the queue."""

    @abstractmethod
    def _interrupted(self, jobs: Sequence[Job[Any]]) -> None:
        """Handle an interrupt of the waiting command."""


class SlurmLauncher(QueueLauncher):
    """One SLURM job per run, all in one job array."""

    cluster = "slurm"

    def _ended(self, jobs: dict[int, Job[Any]]) -> dict[int, str | None]:
        states = states_of({job.job_id for job in jobs.values()})
        if states is None:  # the queue did not answer
            return {}
        by_number = {number: states.get(job.job_id, "not in the queue") for number, job in jobs.items()}
        return {number: None if state in IN_QUEUE else state for number, state in by_number.items()}

    def _interrupted(self, jobs: Sequence[Job[Any]]) -> None:
        number = jobs[0].job_id.partition("_")[0]
        print(f"sailctl: the jobs stay in the queue; cancel them with: scancel {number}", file=sys.stderr)


class LocalLauncher(QueueLauncher):
    """One process on this machine per run, all at the same time."""

    cluster = "local"
    grace_s = 0.0

    def _submit(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job[Any]]:
        # A terminal sends Ctrl-C to all its processes. Submitit's processes between this one and the runs
        # must ignore it, so that only the runs handle it. Child processes inherit an ignored signal.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return super()._submit(job_overrides, first)
        finally:
            signal.signal(signal.SIGINT, before)

    def _ended(self, jobs: dict[int, Job[Any]]) -> dict[int, str | None]:
        return {number: job.state.lower() if job.done() else None for number, job in jobs.items()}

    def _interrupted(self, jobs: Sequence[Job[Any]]) -> None:
        """Wait for the jobs, which save a checkpoint after Ctrl-C; after a time limit terminate them."""
        deadline = time.monotonic() + STOPPED_WITHIN_S
        while any(not job.done() for job in jobs):
            if time.monotonic() > deadline:
                for job in jobs:
                    if not job.done():
                        os.kill(int(job.job_id), signal.SIGTERM)
                return
            time.sleep(0.1)


def states_of(jobs: set[str]) -> dict[str, str] | None:
    """State of each job that SLURM still lists, by id (``12_0`` in an array); None without an answer."""
    ids = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={ids}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return {} if "Invalid job id" in done.stderr else None
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


# In a job


@contextmanager
def requeueing(most: int) -> Iterator[None]:
    """In a submitit job, requeue a run that a signal stops, after it has saved its checkpoint.

    The signals are SIGTERM (preemption), and the one that SLURM sends before the time limit (SIGUSR2). The
    process then ends. Outside a submitit job this does nothing.

    Args:
        most: maximum number of times that a job is requeued.

    Raises:
        RunError: when a signal stopped the run and it is not requeued.
    """
    queue = _submitits_handler()
    if queue is None:
        yield
        return
    number = getattr(signal, f"SIG{queue.env.USR_SIG}")

    def forward(number: int, frame: FrameType | None) -> None:
        running = signal.getsignal(signal.SIGTERM)
        if not isinstance(running, Stop):
            raise Interrupted(number)  # training has not started
        if running.signal is None:  # queues send several signals; a second one would stop the run at once
            running(number, frame)

    numbers = {number, signal.SIGTERM, signal.SIGINT}
    for handled in numbers:
        signal.signal(handled, forward)
    try:
        yield
    except Interrupted as stopped:
        for handled in numbers:
            signal.signal(handled, signal.SIG_IGN)
        raise RunError(f"{stopped}; {_requeued(queue, number, stopped.signal, most)}") from stopped
    finally:
        for handled in numbers:
            signal.signal(handled, signal.SIG_IGN)  # the job is about to end


def _submitits_handler() -> SignalHandler | None:
    """Submitit's signal handler in this process; None outside a submitit job."""
    if "submitit" not in sys.modules:
        return None
    from submitit.core.job_environment import JobEnvironment, SignalHandler

    handler = signal.getsignal(getattr(signal, f"SIG{JobEnvironment.USR_SIG}"))
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, SignalHandler) else None


def _requeued(queue: SignalHandler, number: int, by: int, most: int) -> str:
    """Requeue this job and end this process; return the reason if it is not requeued."""
    from submitit.core.utils import UncompletedJobError

    if queue.env.name() == "slurm":
        if by == signal.SIGINT:
            return RESUMABLE
        states = states_of({queue.env.job_id}) or {}
        if states.get(queue.env.job_id, "RUNNING") != "RUNNING":
            sys.exit(128 + by)  # cancelled, or preempted and requeued by SLURM itself
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= most:
            return f"it was requeued {most} times, which is the limit (hydra.launcher.max_num_timeout)"
    elif by != number:
        return RESUMABLE
    try:
        queue.checkpoint_and_try_requeue(number)
    except (UncompletedJobError, OSError, subprocess.SubprocessError) as error:
        return f"it cannot be requeued: {' '.join(str(error).split())}"
    raise AssertionError("submitit ends the process")  # pragma: no cover
