"""What peers are compared with: the bare MuJoCo loop, sailctl's simulator, its VecEnv, its training."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.throughput import bare_rate, random_behaviour
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.vecenv import SimulatorVecEnv
from sailctl_envs import ALL_TASKS


def main(asked: dict) -> None:
    measured = KINDS[asked["kind"]](asked)
    versions = {name: version(name) for name in ("sailctl", "mujoco", "numpy", "torch", "stable-baselines3")}
    print(json.dumps({**measured, "versions": versions}))


def limit(asked: dict) -> dict[str, float]:
    """One bare loop, times the cores."""
    simulator = TaskSimulator(ALL_TASKS[asked["task"].lower()]())
    rate = bare_rate(simulator, *random_behaviour(simulator), asked["seconds"])
    return {"env_steps_per_s": asked["cores"] * rate}


def stepping(asked: dict) -> dict[str, float]:
    """The simulator, with a fresh start put wherever an episode ended."""
    simulator = open_simulator(asked)
    spec, rng = simulator.spec, np.random.default_rng(asked["seed"])
    actions = rng.uniform(spec.act_low, spec.act_high, (256, asked["envs"], spec.act_dim))
    states = simulator.reset(asked["envs"], rng)
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < asked["seconds"]:
        step = simulator.step(states, actions[steps % len(actions)])
        ended = np.flatnonzero(step.done)
        states = step.states.put(ended, simulator.reset(len(ended), rng)) if len(ended) else step.states
        steps += 1
    return {"env_steps_per_s": steps * asked["envs"] / (time.perf_counter() - start)}


def vecenv(asked: dict) -> dict[str, float]:
    """The simulator as a VecEnv of Stable-Baselines3."""
    envs = SimulatorVecEnv(open_simulator(asked), asked["envs"], asked["seed"])
    rng = np.random.default_rng(asked["seed"])
    actions = rng.uniform(-1.0, 1.0, (256, asked["envs"], *envs.action_space.shape)).astype(np.float32)
    envs.step(actions[0])
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < asked["seconds"]:
        envs.step(actions[steps % len(actions)])
        steps += 1
    return {"env_steps_per_s": steps * asked["envs"] / (time.perf_counter() - start)}


def ppo(asked: dict) -> dict[str, float]:
    """PPO of Stable-Baselines3 on that VecEnv, wrapped as its own ``make_vec_env`` wraps."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    envs = VecMonitor(SimulatorVecEnv(open_simulator(asked), asked["envs"], asked["seed"]))
    model = PPO("MlpPolicy", envs, device="cpu", seed=asked["seed"], **asked["ppo"])
    start = time.perf_counter()
    model.learn(asked["steps"])
    return {"env_steps_per_s": model.num_timesteps / (time.perf_counter() - start)}


def train(asked: dict) -> dict[str, float]:
    """``sailctl train``, stopped by the clock: what its own records say of the time until then.

    Its evaluations run on the clock; the true return is that of the last one, every 100,000 env steps.
    """
    with tempfile.TemporaryDirectory() as out:
        words = [f"env={asked['task'].lower()}", f"algo={asked['algo']}", f"seed={asked['seed']}"]
        words += [f"threads={asked['cores']}", f"out={out}", "env_steps=1_000_000_000"]
        command = [sys.executable, "-m", "sailctl", "train", *words, "logger.wandb=disabled"]
        training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            while (rows := read_rows(Path(out), "metrics.csv")).empty or max(rows.wall_s) < asked["seconds"]:
                if training.poll() is not None:
                    raise SystemExit(training.communicate()[1])
                time.sleep(0.2)
            evaluations = read_rows(Path(out), "evaluations.csv")
        finally:
            training.terminate()
            training.communicate()
    rows = rows[rows.wall_s <= asked["seconds"]]
    if rows.empty:
        raise SystemExit(f"no iteration within {asked['seconds']:g} s")
    last = rows.iloc[-1]
    scores = evaluations[evaluations.iteration <= last.iteration].groupby("iteration")["return"].mean()
    return {
        "env_steps_per_s": last.env_steps / last.wall_s,
        "labels_per_s": last.labels / last.wall_s,
        "true_return": scores.iloc[-1],
        "seconds": last.wall_s,
    }


def read_rows(out: Path, name: str) -> pd.DataFrame:
    """The whole rows of the file ``name`` of the only run below ``out``; none before it has any."""
    for path in out.rglob(name):
        whole = path.read_text().rpartition("\n")[0]
        if whole:
            return pd.read_csv(StringIO(whole))
    return pd.DataFrame()


def open_simulator(asked: dict) -> TaskSimulator:
    return TaskSimulator(ALL_TASKS[asked["task"].lower()](), asked["cores"])


KINDS = {"limit": limit, "stepping": stepping, "vecenv": vecenv, "ppo": ppo, "train": train}

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
