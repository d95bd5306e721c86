"""Stable-Baselines3's own vectorised environments: control steps per second, alone and under its PPO."""

import json
import sys
import time
from importlib.metadata import version

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

KINDS = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}


def main(asked):
    kind, count, seed = KINDS[asked["kind"]], asked["envs"], asked["seed"]
    envs = make_vec_env(asked["task"], count, seed=seed, vec_env_cls=kind)
    rate = ppo(envs, asked) if "ppo" in asked else stepping(envs, asked)
    envs.close()
    versions = {name: version(name) for name in ("stable-baselines3", "gymnasium", "mujoco", "torch")}
    print(json.dumps({"env_steps_per_s": rate, "versions": versions}))


def stepping(envs, asked):
    envs.reset()
    rng = np.random.default_rng(asked["seed"])
    space = envs.action_space
    actions = rng.uniform(space.low, space.high, (256, envs.num_envs, *space.shape)).astype(space.dtype)
    envs.step(actions[0])
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < asked["seconds"]:
        envs.step(actions[steps % len(actions)])
        steps += 1
    return steps * envs.num_envs / (time.perf_counter() - start)


def ppo(envs, asked):
    model = PPO("MlpPolicy", envs, device="cpu", seed=asked["seed"], **asked["ppo"])
    start = time.perf_counter()
    model.learn(asked["steps"])
    return model.num_timesteps / (time.perf_counter() - start)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
