"""Calls ``reset`` and ``step`` of a user's environment, and checks the results against its spaces."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sailctl.core.types import DoubleArray, UserError

SUCCESS = ("success", "is_success")
"""Keys of ``info`` that report whether the task is solved."""


@dataclass(frozen=True)
class Answer:
    """Result of one step of the environment."""

    obs: DoubleArray
    """(O,) observation."""
    reward: float
    terminated: bool
    truncated: bool
    success: bool | None
    """Whether the task is solved; None if ``info`` does not report it."""

    @property
    def verdict(self) -> tuple[float, bool, bool, bool | None]:
        """All results except the observation."""
        return self.reward, self.terminated, self.truncated, self.success


class Answers:
    """Resets and steps an environment, and checks its results.

    Each method raises:
        UserError: when the environment fails, or a result violates Gymnasium's interface or the spaces.
    """

    def __init__(self, task_id: str, env: Any) -> None:
        self.env = env
        self._id = task_id

    def reset(self, seed: int) -> DoubleArray:
        """(O,) first observation of the episode with this seed."""
        answer = self._call("reset", lambda: self.env.reset(seed=seed))
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise self._error("reset", f"must return observation and info, and returns {described(answer)}")
        self._info("reset", answer[1])
        return self._obs("reset", answer[0])

    def step(self, action: DoubleArray) -> Answer:
        """One step with an (A,) action."""
        answer = self._call("step", lambda: self.env.step(action.astype(self.env.action_space.dtype)))
        if not isinstance(answer, tuple) or len(answer) != 5:
            form = "observation, reward, terminated, truncated and info"
            raise self._error("step", f"must return {form}, and returns {described(answer)}")
        obs, reward, terminated, truncated, info = answer
        if not is_number(reward):
            raise self._error("step", f"must return one number as reward, and returns {described(reward)}")
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            if not (is_number(value) and value in (0, 1)):
                text = f"must return true or false as {name}, and returns {described(value)}"
                raise self._error("step", text)
        self._info("step", info)
        success = self._success(info)
        return Answer(self._obs("step", obs), float(reward), bool(terminated), bool(truncated), success)

    def _call(self, method: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (Exception, SystemExit) as error:  # the user's environment may raise anything
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise self._error(method, f"fails: {reason} ({place.filename}:{place.lineno})") from error

    def _obs(self, method: str, obs: Any) -> DoubleArray:
        space = self.env.observation_space
        if not isinstance(space, spaces.Box):  # a wrapper flattens it
            return np.empty(0)
        if not is_numeric(obs) or np.shape(obs) != space.shape:
            size = " x ".join(map(str, space.shape))
            required = f"must return an observation of {size} numbers, as in its observation_space"
            raise self._error(method, f"{required}, and returns {described(obs)}")
        return np.asarray(obs, dtype=np.float64)

    def _info(self, method: str, info: Any) -> None:
        if not isinstance(info, dict):
            raise self._error(method, f"must return a dictionary as info, and returns {described(info)}")

    def _success(self, info: dict[str, Any]) -> bool | None:
        for key in SUCCESS:
            if key in info:
                if not (is_number(info[key]) and info[key] in (0, 1)):
                    text = f"must return true or false as info[{key!r}], and returns {described(info[key])}"
                    raise self._error("step", text)
                return bool(info[key])
        return None

    def _error(self, method: str, reason: str) -> UserError:
        return UserError(f"env.id={self._id}: its {method} {reason}")


def is_numeric(value: Any) -> bool:
    """Whether ``value`` is a number or an array of real numbers."""
    return (
        isinstance(value, bool | int | float | np.generic | np.ndarray)
        and np.asarray(value).dtype.kind in "biuf"
    )


def is_number(value: Any) -> bool:
    """Whether ``value`` is one real number or truth value, or an array of shape ()."""
    return is_numeric(value) and np.ndim(value) == 0


def described(value: Any) -> str:
    """A short description of an invalid result, for an error message."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if value is None or isinstance(value, bool | int | float | np.number):
        return str(value)
    return f"a {type(value).__name__}"
