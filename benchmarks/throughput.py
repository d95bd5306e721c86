"""TaskSimulator and training speed beside the physical limit: a bare ``mj_step`` loop in the same run.

The limit is threads x the rate of one thread that does nothing but ``mj_step(nstep=frame_skip)`` on
controls drawn beforehand. Bare loop and simulator take turns, see the same controls and start over from
the same state every 50 control steps, and the ratio is taken within each turn. A training run is measured
beside two such loops: random controls, and a replay of what its own final policy does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.record import arguments, write
from sailctl.runs.checkpoint import load_policy
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.speed import STEPS, bare_rate, measure, random_behaviour
from sailctl_envs import ALL_TASKS


def own_behaviour(simulator: TaskSimulator, run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Stretches of STEPS control steps of a run's final policy, noise included, that no end cuts short."""
    policy, rng = load_policy(run), np.random.default_rng(0)
    states, starts, controls = simulator.reset(64, rng), [], []
    for _ in range(4):
        start, sequence, whole = states.physics, [], np.ones(len(states), dtype=bool)
        for _ in range(STEPS):
            noise = rng.standard_normal((len(states), policy.spec.act_dim), dtype=np.float32)
            control = policy.to_controls(policy.act(states.obs, noise))
            step = simulator.step(states, control)
            sequence.append(control)
            whole &= ~step.done
            ended = np.flatnonzero(step.done)
            states = step.states.put(ended, simulator.reset(len(ended), rng))
        starts.append(start[whole])
        controls.append(np.stack(sequence, axis=1)[whole])
    return np.concatenate(starts), np.concatenate(controls)


def measure_simulator(task: str, threads: int, count: int, turns: int, seconds: float) -> dict[str, object]:
    """Rates and their ratio, medians over ``turns``."""
    rates = measure(task, threads, count, turns, seconds)
    row = summary("simulator, random controls", task, threads, count, rates.bare, rates.simulator)
    return row | {"bare_loops_together_steps_per_s": round(float(np.median(rates.together)))}


def measure_training(task: str, env_steps: int, turns: int, seconds: float) -> list[dict[str, object]]:
    """End-to-end rate of default runs, first iteration to last evaluation, beside two bare loops.

    One loop replays random controls from an episode start; the other replays what the run's own policy did,
    which has more contacts to solve.
    """
    from sailctl.sweeps.compose import compose_jobs
    from sailctl.training.train import train

    simulator = TaskSimulator(ALL_TASKS[task]())
    bare_random, bare_own, ours = np.empty(turns), np.empty(turns), np.empty(turns)
    for turn in range(turns):
        with tempfile.TemporaryDirectory() as out:
            overrides = [
                "algo=sail_revkl_segments",
                f"env={task}",
                f"env_steps={env_steps}",
                f"seed={turn}",
                f"out={out}",
            ]
            config = compose_jobs(overrides).jobs[0].config
            bare_random[turn] = bare_rate(simulator, *random_behaviour(simulator), seconds)
            run = train(config, overrides)
            last = pd.read_csv(run / "metrics.csv").iloc[-1]
            ours[turn] = last["env_steps"] / last["wall_s"]
            bare_own[turn] = bare_rate(simulator, *own_behaviour(simulator, run), seconds)
    states = config.rollout.prompts * config.rollout.forks
    return [
        summary("training, limit on random controls", task, 1, states, bare_random, ours),
        summary("training, limit on its own behaviour", task, 1, states, bare_own, ours),
    ]


def summary(
    what: str, task: str, threads: int, count: int, bare: np.ndarray, ours: np.ndarray
) -> dict[str, object]:
    """One row: medians of the rates, median and range of the ratio."""
    ratio = ours / (threads * bare)
    return {
        "what": what,
        "task": task,
        "threads": threads,
        "states": count,
        "bare_steps_per_s_and_thread": round(float(np.median(bare))),
        "steps_per_s": round(float(np.median(ours))),
        "ratio": round(float(np.median(ratio)), 3),
        "ratio_lowest": round(float(ratio.min()), 3),
        "ratio_highest": round(float(ratio.max()), 3),
        "turns": len(ratio),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tasks", nargs="+", default=["halfcheetah-v5", "hopper-v5", "walker2d-v5"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--states", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement")
    parser.add_argument(
        "--train-steps", type=int, default=200_000, help="env steps of a training run; 0 is none"
    )
    asked = parser.parse_args()
    rows = [
        measure_simulator(task, threads, count, asked.turns, asked.seconds)
        for task in asked.tasks
        for threads in asked.threads
        for count in asked.states
    ]
    if asked.train_steps:
        for task in asked.tasks:
            rows += measure_training(task, asked.train_steps, asked.turns, asked.seconds)
    write(Path(asked.results), "throughput", rows, {"what": __doc__})


if __name__ == "__main__":
    main()
