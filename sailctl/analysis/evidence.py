"""Data types of a comparison: runs (``Trial``), arms, and the evidence of all arms.

``trials`` reads and writes trials, and ``arms`` groups them into arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sailctl.config import NUMBERLESS
from sailctl.core.types import DoubleArray, UserError

FINAL_EVALUATIONS = 3
"""The final score of a run is the mean of its curve at the last three multiples of ``evaluation.every``."""

AXES = {
    "env_steps": "env steps",
    "labels": "labels used",
    "wall_s": "wall-clock (s)",
    "cpu_s": "process CPU time (s)",
    "iteration": "iterations",
}
"""Possible x axes of a learning curve, with their names in figures."""

CURVES = ("iteration", "env_steps", "labels", "wall_s", "returns", "lengths", "kl", "cpu_s")
"""Fields of a trial with one number per evaluation."""


@dataclass(frozen=True)
class Trial:
    """The data of one run for a comparison: E evaluations, the first one before training (iteration 0)."""

    task: str
    """Id of the task."""
    algorithm: str
    """Name of the algorithm."""
    seed: int
    """Seed of the run."""
    state: str
    """One of ``results.STATES``."""
    error: str | None
    """Error message of a failed run; None otherwise."""
    settings: Mapping[str, object]
    """``{"algo.beta": 0.1, ...}``: the configuration without ``config.NUMBERLESS``."""
    origin: Mapping[str, object]
    """Versions, ``commit``, ``dirty``, ``cpu``, ``started``, ``command`` of the run. Evidence of
    older versions lacks ``id`` (``config.run_id``) and ``numbers`` (``config.convert.NUMBERS``)."""
    place: str
    """Path that it was read from."""
    iteration: DoubleArray
    """(E,) iterations completed at each evaluation, increasing from 0."""
    env_steps: DoubleArray
    """(E,) env steps simulated up to each evaluation."""
    labels: DoubleArray
    """(E,) labels used up to each evaluation."""
    wall_s: DoubleArray
    """(E,) wall-clock time since the start in seconds; 0 at iteration 0."""
    returns: DoubleArray
    """(E,) mean true return of the episodes of each evaluation."""
    lengths: DoubleArray
    """(E,) mean length of the episodes of each evaluation, in control steps."""
    kl: DoubleArray
    """(E,) mean KL(ref || pi) in nats per state over the iterations since the previous evaluation, or NaN."""
    before: DoubleArray
    """(N,) returns of the episodes of the evaluation before training."""
    after: DoubleArray
    """(N,) returns of the episodes of the last evaluation."""
    cpu_s: DoubleArray
    """(E,) processor time of its process in seconds; NaN if not recorded."""
    window: tuple[float, float] | None = None
    """Env steps at which the comparison on this task ends, and env steps between its evaluations; None uses
    ``budget`` and ``spacing`` of the run."""

    @property
    def finished(self) -> bool:
        """Whether the run is finished and was evaluated after training began."""
        return self.state == "finished" and bool((self.iteration > 0).any())

    @property
    def relative_place(self) -> str:
        """``place``, relative to the working folder if it is below it."""
        path, here = Path(self.place), Path.cwd()
        return str(path.relative_to(here)) if path.is_relative_to(here) else self.place

    @property
    def foreign(self) -> bool:
        """Whether it comes from a file of curves, so that its settings are unknown."""
        return "foreign" in self.origin

    @property
    def simulates(self) -> bool:
        """Whether training simulates; otherwise the curve has iterations as its only axis."""
        responses, w = self.settings.get("algo.responses", "segments"), self.settings.get("algo.w", 1.0)
        return responses != "data" and w != 0

    @property
    def asks(self) -> bool:
        """Whether a teacher gives labels; False for training on the true reward."""
        return self.settings.get("algo.reward", "model") == "model"

    def has(self, key: str) -> bool:
        """Whether ``key`` is recorded and belongs to a group that the algorithm of this run reads."""
        unread = () if self.asks else ("oracle", "reward")
        learner = self.settings.get("algo.learner")
        if learner and not self.asks:
            unread = (*unread, "rollout")
        if learner == "sac":
            unread = (*unread, "policy")
        return key in self.settings and key.partition(".")[0] not in unread

    @property
    def final(self) -> float:
        """Final mean return (see ``at_the_end``)."""
        return self.at_the_end(self.returns)

    def at_the_end(self, values: DoubleArray) -> float:
        """Mean of ``values`` (E,) over the window of env steps that all runs of a comparison share.

        The window has ``FINAL_EVALUATIONS`` points: its end, and earlier ones at the spacing of evaluations.
        Values are interpolated linearly in env steps between evaluations after training began, and constant
        beyond them. Without simulation it is the mean of the last ``FINAL_EVALUATIONS`` evaluations. NaN
        without an evaluation after training began.
        """
        trained = self.iteration > 0
        if not trained.any():
            return float("nan")
        if not self.simulates:
            return float(values[trained][-FINAL_EVALUATIONS:].mean())
        end, step = self.window or (self.budget, self.spacing)
        points = end - step * np.arange(max(1, min(FINAL_EVALUATIONS, np.ceil(end / step))))
        return float(np.interp(points, self.env_steps[trained], values[trained]).mean())

    @property
    def budget(self) -> float:
        """Configured env steps; those simulated if they are fewer, or if nothing is configured."""
        configured = self.settings.get("env_steps")
        return min(float(str(configured)) if configured is not None else np.inf, float(self.env_steps[-1]))

    @property
    def spacing(self) -> float:
        """Env steps between evaluations: as configured, otherwise their median."""
        configured = self.settings.get("evaluation.every")
        if configured is not None:
            return float(str(configured))
        return float(np.median(np.diff(self.env_steps))) if len(self.env_steps) > 1 else 1.0

    def along(self, axis: str) -> DoubleArray:
        """(E,) the values of one of ``AXES``."""
        values: DoubleArray = getattr(self, axis)
        return values


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration, on every task and seed."""

    name: str
    """The algorithm, and the settings that distinguish the arm from others of the same algorithm."""
    algorithm: str
    """Name of the algorithm."""
    settings: Mapping[str, object]
    """Values of the settings in which arms differ."""
    trials: tuple[Trial, ...]
    """Its runs, by task and seed."""

    @property
    def asks(self) -> bool:
        """Whether a teacher gives labels to its runs."""
        return any(trial.asks for trial in self.trials)

    def has(self, key: str) -> bool:
        """Whether any of its runs has the setting ``key`` (see ``Trial.has``)."""
        return any(trial.has(key) for trial in self.trials)

    def on(self, task: str) -> list[Trial]:
        """Its runs on one task, by seed."""
        return [trial for trial in self.trials if trial.task == task]


@dataclass(frozen=True)
class Evidence:
    """Comparable arms, with caveats and notes."""

    arms: tuple[Arm, ...]
    """By name."""
    tasks: tuple[str, ...]
    """Tasks that every arm was run on."""
    compared: Mapping[str, Mapping[str, object]]
    """``{setting: {arm: value}}`` of the settings in which the arms differ."""
    caveats: tuple[str, ...]
    """Other differences, which the user accepted (``force``)."""
    notes: tuple[str, ...]
    """Information for the reader that does not affect fairness."""

    @property
    def trials(self) -> list[Trial]:
        """All runs."""
        return [trial for arm in self.arms for trial in arm.trials]

    def arm(self, name: str) -> Arm:
        """The arm of this name.

        Raises:
            UserError: when there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        names = ", ".join(repr(arm.name) for arm in self.arms)
        raise UserError(f"no arm is called '{name}'; the arms are {names}")


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """The nested configuration as ``{"algo.beta": 0.1, ...}``, without ``config.NUMBERLESS``."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if not prefix and key in NUMBERLESS:
            continue
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def shared_settings(trials: Sequence[Trial]) -> dict[str, object]:
    """The settings that every run has with the same value."""
    first, *others = trials
    return {
        key: value
        for key, value in first.settings.items()
        if all(key in other.settings and other.settings[key] == value for other in others)
    }
