"""Mirrors a run to Weights & Biases.

W&B runs in a separate process. In the training process it would install exit hooks that wait for its service
without a time limit, replace ``sys.excepthook`` and share the interpreter lock. A separate process can be
killed when it hangs.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sailctl.core.files import write_atomically

if TYPE_CHECKING:
    from sailctl.config import RunConfig

WANDB_QUEUE = 1000  # capacity of the message queue; further messages are dropped
WANDB_FINISH_S = 20.0  # time limit for W&B at the end of a run, in seconds

TAG = 64
"""Maximum number of characters in a W&B tag; W&B rejects a run with a longer tag."""
_WANDB_REPORTED = 3  # exit code of the W&B process after it has printed its error


class WandbMirror:
    """One W&B run, written by a separate process; its failure costs the run one warning.

    Args:
        init: keyword arguments of ``wandb.init``, JSON values only; ``OF_THE_USER`` variables override them.
        folder: existing folder that W&B writes below.
        along: column of the x axis; None leaves the choice to W&B.
        capacity: length of the message queue; further messages are dropped, with one warning.
        finish_s: seconds after which ``close`` kills the process.
    """

    def __init__(
        self,
        init: Mapping[str, object],
        folder: Path,
        along: str | None,
        capacity: int = WANDB_QUEUE,
        finish_s: float = WANDB_FINISH_S,
    ) -> None:
        self._folder = Path(os.environ.get("WANDB_DIR") or folder)
        self._finish_s = finish_s
        self._warned_full = False
        self._outcome: dict[str, object] = {"exit_code": 1, "summary": {}}
        self._queue: queue.Queue[str | None] = queue.Queue(capacity)
        self._process: subprocess.Popen[str] | None = None
        code = "from sailctl.runs.wandb_mirror import wandb_process; wandb_process()"
        try:
            self._process = subprocess.Popen(
                # -P: the working folder contains a folder named wandb, which would shadow the package.
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                cwd=folder,
                env=_wandb_environment(folder, offline=init.get("mode") == "offline"),
                start_new_session=True,  # Ctrl-C must reach the run only, not W&B
            )
        except OSError as error:
            _warn(f"W&B is off for this run: {error}")
            return
        self._put({"init": _without_user_settings(init), "along": along, "finish_s": finish_s})
        threading.Thread(target=self._write, name="wandb-mirror", daemon=True).start()

    def log(self, row: Mapping[str, float]) -> None:
        if self._process is not None:
            self._put({"log": dict(row)})

    def media(self, images: Mapping[str, Path], tables: Mapping[str, Mapping[str, object]]) -> None:
        """Log images (.png files) and tables (``{"columns": [...], "data": [[...], ...]}``) by name."""
        if self._process is not None:
            files = {name: str(path.resolve()) for name, path in images.items()}
            self._put({"images": files, "tables": dict(tables)})

    def outcome(self, exit_code: int, summary: Mapping[str, object]) -> None:
        """Set the exit code (0 or 1) and summary that ``close`` sends."""
        self._outcome = {"exit_code": exit_code, "summary": dict(summary)}

    def close(self) -> None:
        if self._process is None:
            return
        deadline = time.monotonic() + self._finish_s
        end = _message({"finish": self._outcome})
        try:
            for item in (end, None):
                self._queue.put(item, timeout=max(0.0, deadline - time.monotonic()))
            code = self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except (queue.Full, subprocess.TimeoutExpired):
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1.0)
            _warn(
                f"W&B did not finish within {self._finish_s:g} s and was stopped; "
                f"its data so far are in {self._folder / 'wandb'}"
            )
            return
        if code not in (0, _WANDB_REPORTED):
            _warn(f"W&B stopped unexpectedly with exit code {code}; the run's own files are complete")

    def _put(self, message: Mapping[str, object]) -> None:
        try:
            self._queue.put_nowait(_message(message))
        except queue.Full:
            if not self._warned_full:
                self._warned_full = True
                _warn("W&B is too slow: some rows are not sent to it; the run's own files are complete")

    def _write(self) -> None:
        """Copy the queue to the pipe, in a thread, because writing blocks while W&B is busy."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                while (line := self._queue.get()) is not None:
                    pipe.write(line)
                    pipe.flush()
        except OSError:
            # The process has ended; it or ``close`` reports why. Empty the queue to unblock ``close``.
            while self._queue.get() is not None:
                pass


def wandb_process() -> None:
    """Body of the W&B process: log the JSON lines of stdin to one W&B run.

    Lines: ``{"init": ..., "along": ..., "finish_s": ...}``, then any number of ``{"log": row}`` and
    ``{"images": ..., "tables": ...}``, then ``{"finish": ...}``.
    Input that ends without ``finish`` means that the training process died.
    """
    source = os.fdopen(os.dup(0), "r")
    stderr = os.fdopen(os.dup(2), "w", buffering=1)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)

    messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    first = json.loads(source.readline())

    def receive() -> None:
        for line in source:
            messages.put(json.loads(line))
        messages.put(None)
        time.sleep(first["finish_s"])
        os._exit(1)  # the training process, which would kill a hanging W&B, is gone

    threading.Thread(target=receive, daemon=True).start()
    try:
        _feed_wandb(first["init"], first["along"], messages)
    except BaseException as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"sailctl: warning: W&B is off for this run: {reason[:300]}", file=stderr)
        os._exit(_WANDB_REPORTED)  # skip W&B's exit hooks, which may wait for the failed service


def _feed_wandb(
    init: dict[str, Any], along: str | None, messages: queue.SimpleQueue[dict[str, Any] | None]
) -> None:
    import wandb

    run = wandb.init(**init, settings=wandb.Settings(console="off", silent=True))
    if along is not None:
        run.define_metric("*", step_metric=along)
    end: dict[str, Any] = {"exit_code": 1, "summary": {}}
    while (message := messages.get()) is not None:
        if "finish" in message:
            end = message["finish"]
            break
        if "log" in message:
            # With the step number W&B ignores rows that it received before the run was resumed.
            run.log(message["log"], step=message["log"].get("iteration"))
        else:
            pictures = {name: wandb.Image(path) for name, path in message["images"].items()}
            tables = {name: wandb.Table(**table) for name, table in message["tables"].items()}
            run.log({**pictures, **tables})
    run.summary.update(end["summary"])
    run.finish(exit_code=end["exit_code"])


def mirror_of(path: Path, config: RunConfig, along: str) -> WandbMirror:
    """Start the mirror of a run directory."""
    from sailctl.config import recorded

    task, algorithm = config.env.id, config.algo.name
    init = {
        "project": config.logger.project,
        "name": f"{algorithm}-{path.name}",
        # Runs of a group differ in their seed only, so that W&B's averages over groups are averages of arms.
        "group": wandb_group(path),
        "job_type": "train",
        "tags": [tag[:TAG] for tag in (task, algorithm)],
        "config": recorded(config),
        "mode": config.logger.wandb,
        "dir": str(path.resolve()),
        # A resumed run continues the same W&B run.
        "id": wandb_id(path),
        "resume": "allow",
    }
    return WandbMirror(init, path, along)


def wandb_id(path: Path) -> str:
    """The id of a run directory's W&B run: generated on first use and stored in the directory."""
    file = path / "wandb" / "id"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, secrets.token_hex(6))
    return file.read_text(encoding="utf-8")


def wandb_group(path: Path) -> str:
    """The W&B group of a run directory: its task, its algorithm, and the hash of its configuration."""
    task, algorithm, name = path.resolve().parts[-3:]
    return f"{task}/{algorithm}/{name.rpartition('-s')[0]}"


OF_THE_USER = {
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "tags": "WANDB_TAGS",
    "dir": "WANDB_DIR",
}
"""Arguments of ``wandb.init`` that W&B's own environment variables override."""


def _without_user_settings(init: Mapping[str, Any]) -> dict[str, Any]:
    """``init`` without the arguments set in the environment, which W&B would ignore otherwise."""
    return {key: value for key, value in init.items() if not os.environ.get(OF_THE_USER.get(key, ""))}


def _wandb_environment(folder: Path, *, offline: bool) -> dict[str, str]:
    """This process's environment and import path, with W&B's cache and data below ``folder``."""
    environment = dict(os.environ)
    environment.pop("WANDB_SERVICE", None)  # would connect to the service of another run
    environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    store = folder.resolve() / "wandb"
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        environment.setdefault(name, str(store / "cache"))
    if user_dir := environment.get("WANDB_DIR"):  # the process has another working folder
        environment["WANDB_DIR"] = os.path.abspath(user_dir)
        with suppress(OSError):  # W&B then falls back to a folder of its own
            os.makedirs(user_dir, exist_ok=True)
    if offline:
        environment.setdefault("WANDB_ERROR_REPORTING", "false")
    return environment


def _message(message: Mapping[str, object]) -> str:
    return json.dumps(message, default=float) + "\n"


def _warn(text: str) -> None:
    print(f"sailctl: warning: {text}", file=sys.stderr)
