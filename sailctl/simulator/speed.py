"""Speed of the simulator relative to its upper bound, a loop of ``mj_step`` alone, measured in turns.

Loop and simulator use the same controls, drawn in advance, and restart from the same state every ``STEPS``
control steps.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import mujoco
import numpy as np

from sailctl.core.types import DoubleArray
from sailctl.simulator.batched import TaskSimulator
from sailctl_envs import ALL_TASKS

STEPS = 50
"""Control steps between two restarts."""


@dataclass(frozen=True)
class Rates:
    """Control steps per second, for each turn of the measurement."""

    bare: DoubleArray
    """(turns,) one loop of ``mj_step``, with no other load."""
    together: DoubleArray
    """(turns,) sum of parallel loops, as many as the simulator has threads."""
    simulator: DoubleArray
    """(turns,) the simulator, including observations, rewards and terminations."""


def measure(task: str, threads: int, states: int = 128, turns: int = 1, seconds: float = 0.5) -> Rates:
    """Rates of one of sailctl's own tasks with ``states`` states; each number takes ``seconds``."""
    simulator = TaskSimulator(ALL_TASKS[task](), threads)
    starts, controls = random_behaviour(simulator)
    rates = Rates(*np.empty((3, turns)))
    for turn in range(turns):
        rates.bare[turn] = bare_rate(simulator, starts, controls, seconds)
        with ThreadPoolExecutor(threads) as pool:  # MuJoCo releases the interpreter lock while it steps
            loops = [pool.submit(bare_rate, simulator, starts, controls, seconds) for _ in range(threads)]
            rates.together[turn] = sum(loop.result() for loop in loops)
        rates.simulator[turn] = simulator_rate(simulator, controls[0], states, seconds)
    simulator.close()
    return rates


def random_behaviour(simulator: TaskSimulator) -> tuple[DoubleArray, DoubleArray]:
    """(1, nstate) an initial state, and (1, STEPS, A) controls, uniform over the range of the actuators."""
    spec = simulator.spec
    controls = np.random.default_rng(0).uniform(spec.act_low, spec.act_high, (1, STEPS, spec.act_dim))
    return simulator.reset(1, np.random.default_rng(0)).physics, controls


def bare_rate(simulator: TaskSimulator, starts: DoubleArray, controls: DoubleArray, seconds: float) -> float:
    """Control steps per second of a loop of ``mj_step`` that replays recorded controls.

    Args:
        simulator: provides the model.
        starts: (M, nstate) initial states.
        controls: (M, T, A) controls of each of them.
        seconds: minimum duration of the measurement.
    """
    model, data = simulator.model, mujoco.MjData(simulator.model)
    frame_skip, done, start = simulator.task.frame_skip, 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for state, sequence in zip(starts, controls, strict=True):
            mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
            for control in sequence:
                data.ctrl[:] = control
                mujoco.mj_step(model, data, nstep=frame_skip)
        done += controls.shape[0] * controls.shape[1]
    return done / (time.perf_counter() - start)


def simulator_rate(simulator: TaskSimulator, controls: DoubleArray, count: int, seconds: float) -> float:
    """Control steps per second of ``count`` states with the same ``controls`` (STEPS, A)."""
    first = simulator.reset(1, np.random.default_rng(0)).fork(count)
    actions = [np.tile(control, (count, 1)) for control in controls]
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        states = first
        for action in actions:
            states = simulator.step(states, action).states
        done += STEPS * count
    return done / (time.perf_counter() - start)
