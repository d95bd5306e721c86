"""Writes the numbers of a run to its own files first, then to mirrors whose failure does not stop it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from sailctl.core.types import UserError
from sailctl.runs.wandb_mirror import WandbMirror, mirror_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sailctl.config import LoggerConfig, RunConfig
    from sailctl.runs.recorder import Run

_NOT_A_METRIC = ("iteration", "env_steps")  # columns that index a row; they are not drawn as curves


class Mirror(Protocol):
    """A copy of the numbers for display."""

    def log(self, row: Mapping[str, float]) -> None:
        """Show one row, which has ``env_steps`` and any other columns."""

    def close(self) -> None:
        """Close the mirror at the end of the run."""


class Logger:
    """Sends every row to the run's files and to its mirrors; as a context manager it closes the run.

    An exception that leaves the ``with`` block is recorded as a failure (or as an interrupt) and propagates.
    A block that ends without ``finish`` finishes the run with an empty summary.

    Example::

        check_mirrors(config.logger)  # before the run directory exists
        with Logger(open_run(config, sys.argv), config) as log:
            log.evaluation(env_steps=n, labels=m, iteration=i, returns=returns, lengths=lengths)
            log.log({"iteration": i, "env_steps": n, "labels": m, "loss": loss})
            log.finish({"final_return": final})
    """

    def __init__(self, run: Run, config: RunConfig) -> None:
        self._run = run
        self._mirrors: list[Mirror] = []
        self._wandb: WandbMirror | None = None
        self._last_evaluation: tuple[int, float] | None = None
        self._open = True
        # Without simulation env steps stay constant, so progress is measured in iterations.
        along = "env_steps" if config.algo.simulates else "iteration"
        total = config.env_steps if config.algo.simulates else config.algo.iterations
        try:
            if config.logger.wandb != "disabled":
                self._wandb = mirror_of(run.path, config, along)
                self._mirrors.append(self._wandb)
            if config.logger.tensorboard:
                folder = run.path / "tensorboard"
                self._mirrors.append(TensorBoardMirror(folder, along, run.resumed_from[along]))
            if config.logger.progress and sys.stderr.isatty():
                self._mirrors.append(ProgressBar(total, run.path, along))
        except BaseException as error:
            self.fail(error)
            raise

    def log(self, row: Mapping[str, float]) -> None:
        """Log one iteration; ``row`` has ``PLACE_COLUMNS`` and the columns of the first row.

        The logger adds the column ``eval_return``: the mean return of a preceding ``evaluation`` with the
        same ``iteration``, otherwise NaN.

        Raises:
            ValueError: when the columns of ``row`` differ from the first row's, or include ``eval_return``.
        """
        if "eval_return" in row:
            raise ValueError("eval_return is computed by the logger; leave it out of the row")
        mean = math.nan
        if self._last_evaluation is not None and self._last_evaluation[0] == row["iteration"]:
            mean = self._last_evaluation[1]
        self._last_evaluation = None
        self._run.log({**row, "eval_return": mean})
        for mirror in self._mirrors:
            mirror.log(row)

    def evaluation(
        self,
        *,
        env_steps: int,
        labels: int,
        iteration: int,
        returns: Sequence[float] | NDArray[np.float64],
        lengths: Sequence[int] | NDArray[np.int64],
        success: Sequence[Sequence[bool]] | NDArray[np.bool_] | None = None,
    ) -> None:
        """Log one evaluation of E episodes, before the row of the same ``iteration``.

        Args:
            env_steps: env steps so far.
            labels: labels so far.
            iteration: iteration of the policy; 0 is the policy before any update, which has no row.
            returns: (E,) true returns.
            lengths: (E,) episode lengths in control steps.
            success: (E, 2) success at any step, and at the last step, for a task that defines success. They
                become the columns ``success_max`` and ``success_final``; mirrors get their means.

        Raises:
            ValueError: when there is no episode, or the arguments differ in their number of episodes.
        """
        episodes = list(zip(returns, lengths, strict=True))
        if not episodes:
            raise ValueError("an evaluation needs at least one episode")
        place = {"env_steps": env_steps, "labels": labels, "iteration": iteration}
        rows: list[dict[str, float]] = [
            {**place, "episode": episode, "return": float(score), "length": int(length)}
            for episode, (score, length) in enumerate(episodes)
        ]
        means = {"eval_return": sum(row["return"] for row in rows) / len(rows)}
        if success is not None:
            for row, (ever, last) in zip(rows, success, strict=True):
                row.update(success_max=int(ever), success_final=int(last))
            means |= {
                key: sum(row[key] for row in rows) / len(rows) for key in ("success_max", "success_final")
            }
        self._run.evaluation(rows)
        self._last_evaluation = (iteration, means["eval_return"])
        for mirror in self._mirrors:
            mirror.log({**place, **means})

    def finish(self, summary: Mapping[str, object]) -> None:
        """Record that the run finished; ``summary`` (JSON values) becomes part of its status."""
        self._open = False
        self._run.finish(summary)
        self._close_mirrors(0, summary)

    def fail(self, error: BaseException) -> None:
        """Record that ``error`` stopped the run."""
        self._open = False
        self._run.fail(error)
        self._close_mirrors(1, {})

    def _close_mirrors(self, exit_code: int, summary: Mapping[str, object]) -> None:
        if self._wandb is not None:
            self._wandb.outcome(exit_code, summary)
        for mirror in self._mirrors:
            mirror.close()

    def __enter__(self) -> Logger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._open:
            return
        if error is None:
            self.finish({})
        else:
            self.fail(error)


def check_mirrors(config: LoggerConfig) -> None:
    """Refuse mirrors that cannot work, before a run directory exists.

    A missing W&B is not refused: the run prints a warning.

    Raises:
        UserError: when TensorBoard is requested and not installed.
    """
    if config.tensorboard and find_spec("tensorboard") is None:
        raise UserError("logger.tensorboard=true needs the tensorboard package: pip install tensorboard")


class TensorBoardMirror:
    """Scalars along env steps (or iterations), as TensorBoard event files in ``folder``."""

    def __init__(self, folder: Path, along: str, resumed_from: int | None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._along = along
        # TensorBoard then hides the earlier rows of iterations that are repeated.
        purge = None if resumed_from is None else resumed_from + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge)

    def log(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name not in _NOT_A_METRIC:
                self._writer.add_scalar(name, float(value), int(row[self._along]))

    def close(self) -> None:
        self._writer.close()


class ProgressBar:
    """One line on stderr: env steps (or iterations), their rate, time left, labels, last true return."""

    def __init__(self, total: int | None, path: Path, along: str) -> None:
        from tqdm import tqdm

        self._along = along
        self._bar = tqdm(
            total=total,
            desc="/".join(path.parts[-3:]),
            unit=" env steps" if along == "env_steps" else " iterations",
            unit_scale=True,
            dynamic_ncols=True,
            file=sys.stderr,
        )
        self._shown: dict[str, str] = {}

    def log(self, row: Mapping[str, float]) -> None:
        if "labels" in row:
            self._shown["labels"] = f"{int(row['labels']):,}"
        if "eval_return" in row:
            self._shown["return"] = f"{row['eval_return']:.1f}"
        self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update(int(row[self._along]) - self._bar.n)

    def close(self) -> None:
        self._bar.close()
