"""The training loop: prompts -> segments -> preferences -> update -> log, until steps or labels are spent."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sailctl.checkpoint import dump_batch, load_policy, save_policy
from sailctl.config import Config, segment_lengths
from sailctl.evaluate import evaluate
from sailctl.learner import Learner
from sailctl.logger import Logger, check_mirrors
from sailctl.oracle import Teacher
from sailctl.policy import GaussianPolicy
from sailctl.results import create_run
from sailctl.rollout import Collector
from sailctl.seeding import Generators, named_generators
from sailctl.simulator import Simulator
from sailctl.types import EnvSpec, NonFiniteError, UserError
from sailctl_envs import ALL_TASKS


def train(config: Config, overrides: list[str]) -> Path:
    """Train one policy from preferences alone and return its run directory.

    ``overrides`` are the ``key=value`` words that made ``config``, kept in the run's provenance.

    Raises:
        UserError: when the run exists already, or the reference policy does not fit the task.
        RunError: when the run had to stop; its directory keeps all that came before.
    """
    # One thread: the networks are small, and the order of float additions must not depend on a thread count.
    torch.set_num_threads(1)
    check_mirrors(config.logger)
    generators = named_generators(config.seed)
    simulator = Simulator(ALL_TASKS[config.env.id](), config.threads)
    policy = first_policy(config, simulator.spec, generators)
    steps, judged = segment_lengths(config)
    collector = Collector(simulator, config.rollout, steps, judged, generators)
    teacher = Teacher(config.oracle, generators.oracle)
    learner = Learner(policy, policy.snapshot(), config.algo, generators.minibatch)

    run = create_run(config, ["sailctl", "train", *overrides])
    with Logger(run, config) as logger:
        clock, env_steps, iteration, going, score = Clock(), 0, 0, True, float("nan")
        while going:
            with clock.measure("collect_s"):
                collected = collector.collect(policy)
            preferences = teacher.answer(collected.pairs, collected.judged)
            with clock.measure("update_s"), dumped_when_not_finite(run.path / "nonfinite.safetensors"):
                metrics = learner.update(collected.segments, preferences)
            iteration += 1
            before, env_steps = env_steps, env_steps + collected.env_steps
            going = env_steps < config.env_steps and not teacher.spent
            place = {"iteration": iteration, "env_steps": env_steps, "labels": teacher.labels}
            if not going or env_steps // config.evaluation.every > before // config.evaluation.every:
                with clock.measure("evaluate_s"):
                    result = evaluate(policy, simulator, config.evaluation.episodes, config.evaluation.seed)
                score = result.mean
                logger.evaluation(**place, returns=result.returns, lengths=result.lengths)
            judged_steps = max(float(collected.judged.mask.sum()), 1.0)
            train_reward = float(collected.judged.rewards.sum()) / judged_steps
            logger.log(place | metrics | {"reward_per_step": train_reward} | clock.read())
        save_policy(policy, run.path / "policy")
        logger.finish({**place, **clock.read(), "last_return": score})
    simulator.close()
    return run.path


def first_policy(config: Config, spec: EnvSpec, generators: Generators) -> GaussianPolicy:
    """The policy that training starts from: a new one, or the reference that ``algo.reference`` names.

    Raises:
        UserError: when the reference was made for another task.
    """
    if config.algo.reference == "initial":
        return GaussianPolicy(config.policy, spec, generators.init)
    policy = load_policy(config.algo.reference)
    if policy.spec.id != spec.id:
        raise UserError(
            f"algo.reference={config.algo.reference} is a policy for {policy.spec.id}, not for {spec.id}"
        )
    return policy


class Clock:
    """Seconds spent in each part of a run so far, and since it began."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time inside the block to ``part``."""
        start = time.perf_counter()
        yield
        self._spent[part] += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Seconds by part; ``wall_s`` is all of them and what lies between."""
        parts = {part: self._spent[part] for part in ("collect_s", "update_s", "evaluate_s")}
        return parts | {"wall_s": time.perf_counter() - self._start}


@contextmanager
def dumped_when_not_finite(path: Path) -> Iterator[None]:
    """Write the minibatch in which NaN or infinity appeared to ``path`` before the run stops."""
    try:
        yield
    except NonFiniteError as error:
        dump_batch(error.batch, path)
        raise NonFiniteError(f"{error}; its minibatch is in {path}", error.batch) from None
