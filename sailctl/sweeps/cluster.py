"""Sweeps in a queue, through submitit: SLURM's, or one that starts processes on this machine.

Where the sweep was asked for, ``QueueLauncher`` hands the jobs over and waits for what becomes of them. In a
job, ``requeueing`` sees to it that a run which is told to stop is queued again, and goes on.
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
from sailctl.sweeps.outcomes import Outcome, read_outcome, tell, write_outcome
from sailctl.training.stopping import Interrupted, Stop

if TYPE_CHECKING:
    from submitit.core.core import Job
    from submitit.core.job_environment import SignalHandler

OURS = "hydra_plugins.sailctl_launchers"
"""Where Hydra finds the launchers of this file."""
NEEDED = {OURS: ("submitit", "slurm"), "hydra_plugins.hydra_ray_launcher": ("ray", "ray")}
"""What the launchers of a place need beside Hydra's plugin for it, and the extra that brings both."""
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
"""States of SLURM in which a job is there, or will come back."""
ASKED_EVERY_S = 5.0
"""Seconds between two questions to the queue."""
STOPPED_WITHIN_S = 20.0
"""Seconds that processes of this machine have to end after Ctrl-C before they are told once more."""


def check_launcher(launcher: DictConfig) -> None:
    """Whether the chosen launcher can start jobs here.

    Raises:
        UserError: when it cannot, with what to install.
    """
    target = str(launcher.get("_target_"))
    for place, (package, extra) in NEEDED.items():
        if not target.startswith(f"{place}."):
            continue
        if not (find_spec(package) and find_spec(f"hydra_plugins.hydra_{package}_launcher")):
            raise UserError(f"this launcher needs {package}: pip install 'sailctl[{extra}]'")
        if not find_spec(place):
            raise UserError(f"sailctl is installed without its launchers ({place}): install it again")
    if target.endswith(".SlurmLauncher"):
        from shutil import which

        if missing := [name for name in ("sbatch", "srun", "squeue", "scontrol") if which(name) is None]:
            raise UserError(
                f"hydra/launcher=slurm needs SLURM, and there is no {missing[0]} here: "
                "use a machine of the cluster, or hydra/launcher=joblib"
            )


def outlives(launcher: DictConfig) -> bool:
    """Whether jobs of this launcher stay when the command that asked for them ends, as a cluster's do."""
    return str(launcher.get("_target_")).endswith(".SlurmLauncher")


# Where the sweep was asked for


class QueueLauncher(Launcher):
    """Hands the jobs of a sweep over to submitit as Hydra's plugin does, and waits for every one of them.

    The plugin waits for one job after the other, gives up with the first that left no result, and where SLURM
    keeps no accounts never learns of a job that was cancelled.
    """

    cluster = ""
    grace_s = 15.0
    """Seconds after a job has ended in which its outcome may still appear, on a slow shared folder."""

    def __init__(self, **params: Any) -> None:
        self._params = {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in params.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra tells a launcher before the jobs."""
        self._context, self._function, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start the jobs and wait until each has ended; what they return is in the launch's folder."""
        folder = Path(str(self._config.hydra.sweep.dir))
        jobs = self._submit(job_overrides, initial_job_idx)
        try:
            self._wait(jobs, job_overrides, initial_job_idx, folder)
        except KeyboardInterrupt:
            self._left(jobs)
            raise
        return []

    def _submit(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job[Any]]:
        import submitit
        from hydra_plugins.hydra_submitit_launcher import submitit_launcher
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        # The job itself is the plugin's: its processes need nothing of this class.
        launchers = {"slurm": submitit_launcher.SlurmLauncher, "local": submitit_launcher.LocalLauncher}
        plugin = launchers[self.cluster](**self._params)
        plugin.setup(hydra_context=self._context, task_function=self._function, config=self._config)
        params = dict(self._params)
        begun = {f"{self.cluster}_max_num_timeout": params.pop("max_num_timeout", 0)}
        executor = submitit.AutoExecutor(str(params.pop("submitit_folder")), cluster=self.cluster, **begun)
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
            [str(number) for number in numbers],  # of no use: a job asks submitit for its own
            [state] * len(numbers),
        )

    def _wait(
        self, jobs: Sequence[Job[Any]], job_overrides: Sequence[Sequence[str]], first: int, folder: Path
    ) -> None:
        left = {first + place: job for place, job in enumerate(jobs)}
        gone: dict[int, float] = {}
        asked = time.monotonic()
        while left:
            time.sleep(0.5)
            for number in list(left):
                if (outcome := read_outcome(folder, number)) is not None:
                    tell([*job_overrides[number - first]], outcome)
                    del left[number]
            if time.monotonic() - asked < ASKED_EVERY_S:
                continue
            asked = time.monotonic()
            for number, ended in self._ended(left).items():
                if ended is None:
                    gone.pop(number, None)
                elif asked - gone.setdefault(number, asked) >= self.grace_s:
                    job = left[number]
                    detail = f"job {job.job_id} ended ({ended}) before the run did: see {job.paths.stderr}"
                    write_outcome(folder, number, job_overrides[number - first], Outcome("failed", detail))

    @abstractmethod
    def _ended(self, jobs: dict[int, Job[Any]]) -> dict[int, str | None]:
        """How each job ended as far as the queue knows; None where it is there or may come back."""

    @abstractmethod
    def _left(self, jobs: Sequence[Job[Any]]) -> None:
        """Whoever waited does so no more."""


class SlurmLauncher(QueueLauncher):
    """One job of SLURM for each run, all in one array."""

    cluster = "slurm"

    def _ended(self, jobs: dict[int, Job[Any]]) -> dict[int, str | None]:
        states = states_of({job.job_id for job in jobs.values()})
        if states is None:  # the queue does not answer just now
            return {}
        found = {number: states.get(job.job_id, "not in the queue") for number, job in jobs.items()}
        return {number: None if state in IN_QUEUE else state for number, state in found.items()}

    def _left(self, jobs: Sequence[Job[Any]]) -> None:
        number = jobs[0].job_id.partition("_")[0]
        print(f"sailctl: the jobs stay in the queue; scancel {number} takes them out", file=sys.stderr)


class LocalLauncher(QueueLauncher):
    """One process of this machine for each run, all at once."""

    cluster = "local"
    grace_s = 0.0

    def _submit(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job[Any]]:
        # A terminal sends Ctrl-C to every process below it. Those between this one and the runs are to leave
        # it to the runs, and what ignores a signal hands that on to what it starts.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return super()._submit(job_overrides, first)
        finally:
            signal.signal(signal.SIGINT, before)

    def _ended(self, jobs: dict[int, Job[Any]]) -> dict[int, str | None]:
        return {number: job.state.lower() if job.done() else None for number, job in jobs.items()}

    def _left(self, jobs: Sequence[Job[Any]]) -> None:
        """Wait for them: told by Ctrl-C, each ends its iteration and keeps it."""
        end = time.monotonic() + STOPPED_WITHIN_S
        while any(not job.done() for job in jobs):
            if time.monotonic() > end:
                for job in jobs:
                    if not job.done():
                        os.kill(int(job.job_id), signal.SIGTERM)
                return
            time.sleep(0.1)


def states_of(jobs: set[str]) -> dict[str, str] | None:
    """State of each job that SLURM still knows, by its id (``12_0`` in an array); None without an answer."""
    ids = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    asked = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={ids}"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return {} if "Invalid job id" in done.stderr else None
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


# In a job


@contextmanager
def requeueing(most: int) -> Iterator[None]:
    """In a job of submitit's: a run that is told to stop is queued again, once it has kept its checkpoint.

    That is by SIGTERM (preemption), or by the signal that SLURM sends before the time limit (SIGUSR2). The
    process then ends. Elsewhere this does nothing.

    Args:
        most: how often one job may be queued again.

    Raises:
        RunError: when it was told to stop and is not queued again.
    """
    queue = _submitits_handler()
    if queue is None:
        yield
        return
    number = getattr(signal, f"SIG{queue.env.USR_SIG}")

    def told(number: int, frame: FrameType | None) -> None:
        running = signal.getsignal(signal.SIGTERM)
        if not isinstance(running, Stop):
            raise Interrupted(number)  # nothing has begun yet
        if running.signal is None:  # queues send several signals, and the second one would stop a run at once
            running(number, frame)

    numbers = {number, signal.SIGTERM, signal.SIGINT}
    for each in numbers:
        signal.signal(each, told)
    try:
        yield
    except Interrupted as stopped:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise RunError(f"{stopped}; {_requeued(queue, number, stopped.signal, most)}") from stopped
    finally:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)  # the end of the job is near enough


def _submitits_handler() -> SignalHandler | None:
    """What submitit has set up in this process to answer signals; None where it did not start it."""
    if "submitit" not in sys.modules:
        return None
    from submitit.core.job_environment import JobEnvironment, SignalHandler

    handler = signal.getsignal(getattr(signal, f"SIG{JobEnvironment.USR_SIG}"))
    found = getattr(handler, "__self__", None)
    return found if isinstance(found, SignalHandler) else None


def _requeued(queue: SignalHandler, number: int, by: int, most: int) -> str:
    """Queue this job again and end this process; where that is not to be, say why."""
    from submitit.core.utils import UncompletedJobError

    if queue.env.name() == "slurm":
        if by == signal.SIGINT:
            return "asked for again, it goes on"
        states = states_of({queue.env.job_id}) or {}
        if states.get(queue.env.job_id, "RUNNING") != "RUNNING":
            sys.exit(128 + by)  # cancelled, or preempted and queued again by SLURM itself
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= most:
            return f"it was queued again {most} times (hydra.launcher.max_num_timeout) and is no more"
    elif by != number:
        return "asked for again, it goes on"
    try:
        queue.checkpoint_and_try_requeue(number)
    except (UncompletedJobError, OSError, subprocess.SubprocessError) as error:
        return f"it cannot be queued again: {' '.join(str(error).split())}"
    raise AssertionError("submitit ends the process")  # pragma: no cover
