"""Trials made by hand, for tests of what compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sailctl.analysis.evidence import Trial

SETTINGS: dict[str, object] = {
    "algo.name": "sail",
    "algo.gamma": 0.0,
    "algo.beta": 1.0,
    "algo.responses": "policy",
    "algo.w": 1.0,
    "oracle.mistake": 0.0,
    "evaluation.every": 1000,
    "env_steps": 5000,
}
ORIGIN: dict[str, object] = {
    "sailctl": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "mujoco": "3.17.0",
    "numpy": "2.4.6",
    "gymnasium": "1.4.0",
    "commit": "a" * 40,
    "dirty": False,
    "cpu": "a processor",
    "started": "2026-11-21T00:00:00+00:00",
    "command": "sailctl train",
}


def make_trial(
    returns: Sequence[float] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0),
    *,
    task: str = "hopper-v5",
    algorithm: str = "sail",
    seed: int = 0,
    state: str = "finished",
    error: str | None = None,
    labels_each: int = 10,
    settings: Mapping[str, object] | None = None,
    origin: Mapping[str, object] | None = None,
) -> Trial:
    """A run evaluated before training and then every 1,000 env steps, one iteration and one second each."""
    at = np.arange(len(returns), dtype=np.float64)
    scores = np.array(returns, dtype=np.float64)
    own = {"env.id": task, "env.segment_length": len(task), "algo.name": algorithm}
    return Trial(
        task=task,
        algorithm=algorithm,
        seed=seed,
        state=state,
        error=error,
        settings={**SETTINGS, **own, **(settings or {})},
        origin={**ORIGIN, **(origin or {})},
        place=f"runs/{task}/{algorithm}/x-s{seed}",
        iteration=at,
        env_steps=1000 * at,
        labels=labels_each * at,
        wall_s=at,
        cpu_s=at,
        returns=scores,
        lengths=np.full(len(at), 100.0),
        kl=np.where(at > 0, 0.01 * at, np.nan),
        before=scores[:1],
        after=scores[-1:],
    )
