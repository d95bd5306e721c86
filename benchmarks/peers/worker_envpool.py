"""EnvPool's threads, all environments in step: control steps per second."""

import json
import sys
import time
from importlib.metadata import version

import envpool
import numpy as np


def main(asked):
    count, threads = asked["envs"], asked["cores"]
    envs = envpool.make(
        asked["task"], env_type="gymnasium", num_envs=count, num_threads=threads, seed=asked["seed"]
    )
    envs.reset()
    rng = np.random.default_rng(asked["seed"])
    space = envs.action_space
    actions = rng.uniform(space.low, space.high, (256, count, *space.shape)).astype(space.dtype)
    envs.step(actions[0])
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < asked["seconds"]:
        envs.step(actions[steps % len(actions)])
        steps += 1
    rate = steps * count / (time.perf_counter() - start)
    envs.close()
    versions = {name: version(name) for name in ("envpool", "gymnasium", "numpy")}
    print(json.dumps({"env_steps_per_s": rate, "versions": versions}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
