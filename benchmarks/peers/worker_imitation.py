"""imitation's preference comparisons (PPO on a reward model), stopped by the clock.

Settings are those of its own command ``train_preference_comparisons with seals_half_cheetah``: constants of
PPO, 5,000 comparisons of fragments of 100 steps in a million env steps, eight environments. Three differ, in
its favour where a run is short: an iteration is one episode of each environment (only whole episodes are
compared, and what an iteration lacks is simulated anew), the policy normalises what it observes, and the
reward model is trained 4 times longer than usual before the first iteration (not 200), the last two as in its
tutorial.
"""

import json
import sys
import time
from contextlib import suppress
from importlib.metadata import version

import gymnasium
import numpy as np
from imitation.algorithms import preference_comparisons
from imitation.policies.base import FeedForward32Policy, NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet, NormalizedRewardNet
from imitation.util import logger
from imitation.util.networks import RunningNorm
from imitation.util.util import make_vec_env
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnvWrapper

ENVS = 8
STEPS_PER_ITERATION = 8_000
STEPS_PER_COMPARISON = 200
STEPS_PER_SECOND = 4_000
"""For which the schedule of queries is laid out; it is slower, and the clock stops it before its end."""


class TimeUpError(Exception):
    pass


class Counted(VecEnvWrapper):
    """Counts every env step, those that are only compared included, and stops at the deadline."""

    steps = 0
    deadline = float("inf")

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        if time.perf_counter() >= self.deadline:
            raise TimeUpError
        self.steps += self.num_envs
        return self.venv.step_wait()


def main(asked):
    # Gymnasium 0.29 has version 4 of the tasks; HalfCheetah's is the same task.
    task = asked["task"] if asked["task"] in gymnasium.registry else asked["task"].replace("-v5", "-v4")
    rng = np.random.default_rng(asked["seed"])
    envs = Counted(make_vec_env(task, rng=rng, n_envs=ENVS, parallel=asked["kind"] == "subproc"))
    iterations = max(1, int(STEPS_PER_SECOND * asked["seconds"] / STEPS_PER_ITERATION))
    agent, training = build(envs, rng, asked["seed"], iterations)
    start = time.perf_counter()
    envs.deadline = start + asked["seconds"]
    steps = STEPS_PER_ITERATION * iterations
    with suppress(TimeUpError):
        training.train(steps, steps // STEPS_PER_COMPARISON)
    seconds = time.perf_counter() - start
    score, _ = evaluate_policy(agent, make_vec_env(task, rng=np.random.default_rng(12345), n_envs=10), 10)
    measured = {
        "env_steps_per_s": envs.steps / seconds,
        "labels_per_s": len(training.dataset) / seconds,
        "true_return": score,
        "seconds": seconds,
    }
    names = ("imitation", "stable-baselines3", "gymnasium", "mujoco", "torch")
    versions = {name: version(name) for name in names} | {"task": task}
    envs.close()
    print(json.dumps({**measured, "versions": versions}))


def build(envs, rng, seed, iterations):
    net = BasicRewardNet(envs.observation_space, envs.action_space, normalize_input_layer=RunningNorm)
    reward = NormalizedRewardNet(net, RunningNorm)
    agent = PPO(
        FeedForward32Policy,
        envs,
        policy_kwargs={
            "features_extractor_class": NormalizeFeaturesExtractor,
            "features_extractor_kwargs": {"normalize_class": RunningNorm},
        },
        device="cpu",
        seed=seed,
        n_steps=512 // ENVS,
        batch_size=64,
        clip_range=0.1,
        ent_coef=3.794797423594763e-06,
        gae_lambda=0.95,
        gamma=0.95,
        learning_rate=0.0003286871805949382,
        max_grad_norm=0.8,
        n_epochs=5,
        vf_coef=0.11483689492120866,
    )
    quiet = logger.configure("", format_strs=[])
    training = preference_comparisons.PreferenceComparisons(
        preference_comparisons.AgentTrainer(agent, reward, envs, rng, custom_logger=quiet),
        reward,
        num_iterations=iterations,
        fragmenter=preference_comparisons.RandomFragmenter(rng=rng, warning_threshold=0),
        preference_gatherer=preference_comparisons.SyntheticGatherer(rng=rng),
        reward_trainer=preference_comparisons.BasicRewardTrainer(
            preference_comparisons.PreferenceModel(reward),
            preference_comparisons.CrossEntropyRewardLoss(),
            rng=rng,
            epochs=3,
        ),
        fragment_length=100,
        initial_comparison_frac=0.1,
        initial_epoch_multiplier=4,
        query_schedule="hyperbolic",
        custom_logger=quiet,
    )
    return agent, training


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
