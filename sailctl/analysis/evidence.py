"""Runs as evidence: what each scored, which arm it belongs to, and proof that arms differ in nothing else.

A ``Trial`` is what a comparison needs of a run. ``trials`` reads and writes them, and
``arms`` sorts them into arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
"""What a learning curve can be drawn along, and its name in figures."""

CURVES = ("iteration", "env_steps", "labels", "wall_s", "returns", "lengths", "kl", "cpu_s")
"""Fields of a trial with a number for each evaluation."""


@dataclass(frozen=True)
class Trial:
    """One run, as a comparison sees it. E evaluations, the first one before training (iteration 0)."""

    task: str
    """Id of the task."""
    algorithm: str
    """Name of the algorithm."""
    seed: int
    """Seed of the run."""
    state: str
    """One of ``results.STATES``."""
    error: str | None
    """Why it failed."""
    settings: Mapping[str, object]
    """``{"algo.beta": 0.1, ...}``: the configuration without ``config.NUMBERLESS``."""
    origin: Mapping[str, object]
    """Versions, ``commit``, ``dirty``, ``cpu``, ``started`` and ``command`` that it was made with."""
    place: str
    """Where it was read from."""
    iteration: DoubleArray
    """(E,) iterations done at each evaluation, rising from 0."""
    env_steps: DoubleArray
    """(E,) env steps simulated by then."""
    labels: DoubleArray
    """(E,) labels used by then."""
    wall_s: DoubleArray
    """(E,) seconds since the run began; 0 at iteration 0."""
    returns: DoubleArray
    """(E,) mean true return of the evaluation's episodes."""
    lengths: DoubleArray
    """(E,) mean length of the episodes in control steps."""
    kl: DoubleArray
    """(E,) mean KL(ref || pi) per state of the iterations since the evaluation before; NaN if unknown."""
    before: DoubleArray
    """(N,) returns of the episodes before training."""
    after: DoubleArray
    """(N,) returns of the episodes of the last evaluation."""
    cpu_s: DoubleArray
    """(E,) processor time of its process by then, in seconds; NaN where it was not recorded."""
    window: tuple[float, float] | None = None
    """Env steps at which a comparison ends on this task, and those between two of its evaluations; None for
    the run's own."""

    @property
    def finished(self) -> bool:
        """Whether it did all that it was asked to do, and was evaluated after training began."""
        return self.state == "finished" and bool((self.iteration > 0).any())

    @property
    def foreign(self) -> bool:
        """Whether it comes from a file of curves, and nothing is known of its settings."""
        return "foreign" in self.origin

    @property
    def simulates(self) -> bool:
        """Whether it simulated anything to learn from; without, its curve goes along iterations alone."""
        responses, w = self.settings.get("algo.responses", "segments"), self.settings.get("algo.w", 1.0)
        return responses != "data" and w != 0

    @property
    def asks(self) -> bool:
        """Whether a teacher is asked for labels: nobody is where the true reward is told."""
        return self.settings.get("algo.reward", "model") == "model"

    def has(self, key: str) -> bool:
        """Whether ``key`` is a setting of this run: recorded, and of a group that its algorithm reads."""
        unread = () if self.asks else ("oracle", "reward")
        learner = self.settings.get("algo.learner")
        if learner and not self.asks:
            unread = (*unread, "rollout")
        if learner == "sac":
            unread = (*unread, "policy")
        return key in self.settings and key.partition(".")[0] not in unread

    @property
    def final(self) -> float:
        """Mean return at the end (see ``at_the_end``)."""
        return self.at_the_end(self.returns)

    def at_the_end(self, values: DoubleArray) -> float:
        """Mean of ``values`` (E,) over the window of env steps that all runs of a comparison share.

        The window has ``FINAL_EVALUATIONS`` points, the last at its end and the others as far apart as
        evaluations are; between two evaluations after training began, values are interpolated in env steps,
        and beyond them the nearest is taken. Where nothing is simulated it is the mean of the last
        ``FINAL_EVALUATIONS`` evaluations. NaN without one after training began.
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
        """Env steps that it was to simulate, or that it did, where these are fewer or nothing is told."""
        told = self.settings.get("env_steps")
        return min(float(str(told)) if told is not None else np.inf, float(self.env_steps[-1]))

    @property
    def spacing(self) -> float:
        """Env steps from one evaluation to the next: as configured, or the median where nothing is told."""
        told = self.settings.get("evaluation.every")
        if told is not None:
            return float(str(told))
        return float(np.median(np.diff(self.env_steps))) if len(self.env_steps) > 1 else 1.0

    def along(self, axis: str) -> DoubleArray:
        """(E,) the values of one of ``AXES``."""
        values: DoubleArray = getattr(self, axis)
        return values


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration, on every task and seed."""

    name: str
    """The algorithm, and what sets it apart from other arms of that algorithm."""
    algorithm: str
    """Name of the algorithm."""
    settings: Mapping[str, object]
    """Values of the settings in which arms differ."""
    trials: tuple[Trial, ...]
    """Its runs, by task and seed."""

    @property
    def asks(self) -> bool:
        """Whether its runs ask a teacher for labels."""
        return any(trial.asks for trial in self.trials)

    def has(self, key: str) -> bool:
        """Whether ``key`` is a setting of its runs: an arm cannot share one that its algorithm lacks."""
        return any(trial.has(key) for trial in self.trials)

    def on(self, task: str) -> list[Trial]:
        """Its runs on one task, by seed."""
        return [trial for trial in self.trials if trial.task == task]


@dataclass(frozen=True)
class Evidence:
    """Arms that may be compared, and what is to be said about that."""

    arms: tuple[Arm, ...]
    """By name."""
    tasks: tuple[str, ...]
    """Tasks that every arm has."""
    compared: Mapping[str, Mapping[str, object]]
    """``{setting: {arm: value}}`` of the settings in which arms may differ and do."""
    caveats: tuple[str, ...]
    """What else differs: the comparison was made all the same, because its user said so."""
    notes: tuple[str, ...]
    """What a reader should know and that makes no comparison unfair."""

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
        known = ", ".join(repr(arm.name) for arm in self.arms)
        raise UserError(f"no arm is called '{name}'; the arms are {known}")


# Settings


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
