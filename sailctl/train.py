"""The training loop: prompts -> segments -> labels -> update -> log, until steps or labels are spent.

The policy is evaluated before its first update, when an evaluation is due, and after its last update.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sailctl.checkpoint import dump_batch, load_policy, save_policy
from sailctl.config import AlgoConfig, Config, RunConfig, reference_place, segment_lengths
from sailctl.data import check_fits, load_preferences
from sailctl.evaluate import evaluate
from sailctl.labelling import Labeller
from sailctl.learner import Learner
from sailctl.logger import Logger, check_mirrors
from sailctl.loop import Clock, Interrupted, evaluation_due, stoppable
from sailctl.policy import GaussianPolicy
from sailctl.recorder import finished_run, open_run
from sailctl.rollout import Collected, Collector
from sailctl.seeding import Generators, named_generators
from sailctl.simulator import open_simulator
from sailctl.types import EnvSpec, NonFiniteError, PreferenceData, UserError


def train(config: RunConfig, overrides: list[str]) -> Path:
    """Train one policy and return its run directory: from preferences alone, or by a baseline.

    A run that was finished before is left as it is; one that was stopped goes on from its last checkpoint, to
    the same numbers, bit for bit. ``overrides`` are the ``key=value`` words that made ``config``, kept in the
    run's provenance.

    Raises:
        UserError: when another process works on the run, or the reference policy does not fit the task.
        RunError: when the run had to stop; its directory keeps all that came before.
        Interrupted: when it was told to stop, by SIGINT or SIGTERM; its checkpoint is of that iteration.
    """
    # One thread: the networks are small, and the order of float additions must not depend on a thread count.
    torch.set_num_threads(1)
    check_mirrors(config.logger)
    if (finished := finished_run(config)) is not None:
        return finished
    if not isinstance(config, Config):
        from sailctl.baselines import train_baseline

        return train_baseline(config, overrides)
    generators = named_generators(config.seed)
    simulator = open_simulator(config.env.id, config.threads)
    policy = first_policy(config, simulator.spec, generators)
    check_in_ball(policy, config.algo)
    data = offline_data(config, simulator.spec, policy)
    steps, judged = segment_lengths(config)
    collector = Collector(simulator, config.rollout, steps, judged, generators)
    learner = Learner(policy, policy.snapshot(), config.algo, generators, data, config.rollout.prompts)

    run = open_run(config, ["sailctl", "train", *overrides])
    with Logger(run, config) as logger, stoppable() as stop:
        clock, env_steps, iteration, going = Clock(), 0, 0, True
        dump = run.path / "nonfinite.safetensors"

        def evaluated(place: dict[str, int]) -> float:
            with clock.measure("evaluate_s"):
                result = evaluate(policy, simulator, config.evaluation.episodes, config.evaluation.seed)
            logger.evaluation(**place, returns=result.returns, lengths=result.lengths, success=result.success)
            return result.mean

        with clock.measure("label_s"), dumped_when_not_finite(dump):
            labeller = Labeller(config, simulator.spec, generators, data)
        # Generators last: whatever was made above has drawn from them.
        stateful = (learner, collector, labeller, clock, generators)
        if run.checkpoint is None:
            score = evaluated({"iteration": 0, "env_steps": 0, "labels": labeller.labels})
        else:
            for part in stateful:
                part.restore(run.checkpoint[type(part).__name__])
            env_steps, iteration = run.checkpoint["env_steps"], run.checkpoint["iteration"]
            score = run.checkpoint["score"]
        while going:
            left = share_left(config, env_steps, iteration, labeller)
            collected = comparisons = None
            if config.algo.simulates:
                with clock.measure("collect_s"):
                    collected = collector.collect(policy)
                with clock.measure("label_s"), dumped_when_not_finite(dump):
                    comparisons = labeller.label(collected, learner.score)
            with clock.measure("update_s"), dumped_when_not_finite(dump):
                metrics = learner.update(collected.segments if collected else None, comparisons, left)
            iteration += 1
            before, env_steps = env_steps, env_steps + (collected.env_steps if collected else 0)
            going = not labeller.exhausted and not limits_reached(config, env_steps, iteration)
            place = {"iteration": iteration, "env_steps": env_steps, "labels": labeller.labels}
            if not going or evaluation_due(config, before, env_steps, iteration):
                score = evaluated(place)
            reward = {"reward_per_step": reward_per_step(collected)}
            logger.log(place | metrics | labeller.metrics() | reward | clock.read())
            if going and (stop.signal is not None or run.checkpoint_due(config.logger.checkpoint)):
                known = {type(part).__name__: part.state() for part in stateful}
                run.keep({"iteration": iteration, "env_steps": env_steps, "score": score, **known})
                if stop.signal is not None:
                    raise Interrupted(stop.signal)
        save_policy(policy, run.path / "policy")
        logger.finish({**place, **clock.read(), "last_return": score})
    simulator.close()
    return run.path


def limits_reached(config: Config, env_steps: int, iteration: int) -> bool:
    """Whether the run has simulated or iterated as much as it was asked to."""
    iterations = config.algo.iterations
    return env_steps >= config.env_steps or (iterations is not None and iteration >= iterations)


def share_left(config: Config, env_steps: int, iteration: int, labeller: Labeller) -> float:
    """What is left of the run, 1 at its start: of env steps, labels and iterations the smallest share."""
    shares = [labeller.left]
    if config.algo.simulates:
        shares.append(1.0 - env_steps / config.env_steps)
    if config.algo.iterations is not None:
        shares.append(1.0 - iteration / config.algo.iterations)
    return min(shares)


def reward_per_step(collected: Collected | None) -> float:
    """Mean true reward of the judged steps; NaN where nothing was simulated."""
    if collected is None:
        return float("nan")
    return float(collected.judged.rewards.sum()) / max(float(collected.judged.mask.sum()), 1.0)


def offline_data(config: Config, spec: EnvSpec, policy: GaussianPolicy) -> PreferenceData | None:
    """The data set of ``algo.data``; a new policy takes its observation statistics from it.

    Raises:
        UserError: when it cannot be read, or is of another task.
    """
    if config.algo.data is None or not config.algo.reads_data:
        return None
    data = load_preferences(config.algo.data)
    check_fits(data, spec)
    if config.algo.reference == "initial":
        policy.observe(data.segments.obs[data.segments.mask > 0])
    return data


def first_policy(config: Config, spec: EnvSpec, generators: Generators) -> GaussianPolicy:
    """The policy that training starts from: a new one, or the reference that ``algo.reference`` names.

    Raises:
        UserError: when the reference was made for another task.
    """
    place = reference_place(config)
    if place is None:
        return GaussianPolicy(config.policy, spec, generators.init)
    policy = load_policy(place.parent)
    if policy.spec.id != spec.id:
        raise UserError(
            f"algo.reference={config.algo.reference} is a policy for {policy.spec.id}, not for {spec.id}"
        )
    return policy


def check_in_ball(policy: GaussianPolicy, algo: AlgoConfig) -> None:
    """Refuse to train a policy that the first step would cut down to ``algo.radius``.

    Raises:
        UserError: when it lies outside of the ball.
    """
    norm = policy.norm()
    if algo.radius is not None and norm > algo.radius:
        raise UserError(
            f"algo.radius must be above {norm:.4g}, the norm of the parameters of the {algo.reference} "
            f"policy that training starts from, got {algo.radius:g}"
        )


@contextmanager
def dumped_when_not_finite(path: Path) -> Iterator[None]:
    """Write the minibatch in which NaN or infinity appeared to ``path`` before the run stops."""
    try:
        yield
    except NonFiniteError as error:
        dump_batch(error.batch, path)
        raise NonFiniteError(f"{error}; its minibatch is in {path}", error.batch) from None
