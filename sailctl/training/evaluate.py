"""Evaluation: true returns of whole episodes from fixed seeds. Training never reads the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sailctl.core.files import check_writable
from sailctl.core.seeding import generator
from sailctl.core.types import BoolArray, DoubleArray, IntArray, UserError
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.checkpoint import load_policy
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.states import Simulator
from sailctl.simulator.video import render_video


@dataclass(frozen=True)
class Evaluation:
    """Whole episodes of one policy."""

    returns: DoubleArray
    """(E,) undiscounted true return of each episode."""
    lengths: IntArray
    """(E,) control steps of each episode."""
    path: DoubleArray | None
    """(T, nstate) simulator states of the first episode, None unless requested."""
    success: BoolArray | None
    """(E, 2) success at any step, and at the last step; None for a task that does not define success."""

    @property
    def mean(self) -> float:
        """Mean true return."""
        return float(self.returns.mean())


Act = Callable[[DoubleArray], DoubleArray]
"""Controls (N, A) in the actuators' units for observations (N, O)."""


def evaluate(
    policy: GaussianPolicy, simulator: Simulator, episodes: int, seed: int, keep_path: bool = False
) -> Evaluation:
    """Run ``episodes`` whole episodes with the mean action; ``seed`` alone determines the initial states.

    With ``keep_path`` the result contains the simulator states of the first episode.
    """

    def mean_action(obs: DoubleArray) -> DoubleArray:
        return policy.to_controls(policy.act(obs, None))

    return play(mean_action, simulator, episodes, seed, keep_path)


def play(act: Act, simulator: Simulator, episodes: int, seed: int, keep_path: bool = False) -> Evaluation:
    """Run ``episodes`` whole episodes under ``act``; ``seed`` alone determines the initial states.

    With ``keep_path`` the result contains the simulator states of the first episode.
    """
    states = simulator.reset(episodes, generator(seed, "eval"))
    rows = np.arange(episodes)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=np.int64)
    success, defined = np.zeros((episodes, 2), dtype=bool), False
    path = [states.physics[0].copy()]
    while len(rows):
        step = simulator.step(states, act(states.obs))
        returns[rows] += step.reward
        lengths[rows] += 1
        solved = np.zeros(len(rows), dtype=bool) if step.success is None else step.success
        defined = defined or step.success is not None
        success[rows, 0] |= solved
        success[rows, 1] = solved
        if keep_path and rows[0] == 0:
            path.append(step.states.physics[0].copy())
        running = ~step.done
        states, rows = step.states.take(running), rows[running]
    return Evaluation(returns, lengths, np.stack(path) if keep_path else None, success if defined else None)


def evaluate_run(run: Path, episodes: int, seed: int, video: Path | None) -> None:
    """Print the true returns of a run's final policy; with ``video``, write a video of the first episode.

    Raises:
        UserError: when ``run`` holds no readable policy, its task has no MuJoCo model to render, or the
            folder of ``video`` is not writable.
        RunError: when this machine cannot render (the returns are printed first).
    """
    policy = load_policy(run)
    if video is not None:
        check_writable(video.parent)
    simulator = open_simulator(policy.spec.id)
    model = simulator.model
    if video is not None and model is None:
        raise UserError(
            f"{policy.spec.id} cannot be rendered: its MuJoCo model is not available; leave out --video"
        )
    result = evaluate(policy, simulator, episodes, seed, keep_path=video is not None)
    print(f"{policy.spec.id}: {episodes} episodes with the mean action, initial states of seed {seed}")
    print(f"  true return  mean {result.mean:.1f}, sd {result.returns.std():.1f}", end="")
    print(f", lowest {result.returns.min():.1f}, highest {result.returns.max():.1f}")
    print(f"  length       mean {result.lengths.mean():.1f} of {policy.spec.horizon} control steps")
    if result.success is not None:
        ever, last = result.success.mean(axis=0)
        print(f"  success      in {ever:.0%} of the episodes at some step, in {last:.0%} at the last step")
    if video is not None and model is not None and result.path is not None:
        video.parent.mkdir(parents=True, exist_ok=True)
        render_video(model, result.path, video, simulator.camera, policy.spec.dt)
        print(f"  video        {video}")
