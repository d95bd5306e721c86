"""Gymnasium's vector environments: control steps per second, in one process or one in each."""

import json
import sys
import time
from importlib.metadata import version

import gymnasium
import numpy as np


def main(asked):
    envs = gymnasium.make_vec(asked["task"], asked["envs"], vectorization_mode=asked["kind"])
    envs.reset(seed=asked["seed"])
    rng = np.random.default_rng(asked["seed"])
    space = envs.single_action_space
    actions = rng.uniform(space.low, space.high, (256, asked["envs"], *space.shape)).astype(space.dtype)
    envs.step(actions[0])
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < asked["seconds"]:
        envs.step(actions[steps % len(actions)])
        steps += 1
    rate = steps * asked["envs"] / (time.perf_counter() - start)
    envs.close()
    versions = {name: version(name) for name in ("gymnasium", "mujoco", "numpy")}
    print(json.dumps({"env_steps_per_s": rate, "versions": versions}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
