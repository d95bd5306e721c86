"""The training loop, one for all algorithms: iterate, evaluate, log, keep, until the run is at its end.

The policy is evaluated before its first update, when an evaluation is due, and after its last update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from sailctl.algorithms import make_algorithm
from sailctl.algorithms.protocol import Algorithm, Clock
from sailctl.config import RunConfig
from sailctl.core.types import NonFiniteError
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.checkpoint import dump_batch, save_policy
from sailctl.runs.logger import Logger, check_mirrors
from sailctl.runs.recorder import finished_run, open_run
from sailctl.simulator.registry import open_simulator
from sailctl.training.evaluate import evaluate
from sailctl.training.stopping import Interrupted, stoppable

Keep = Callable[[int, float, GaussianPolicy], None]
"""Takes env steps, the mean return of an evaluation, and the policy that earned it, in memory of its own."""


def train(config: RunConfig, overrides: list[str], keep: Keep | None = None) -> Path:
    """Train one policy and return its run directory.

    A run that was finished before is left as it is; one that was stopped goes on from its last checkpoint, to
    the same numbers, bit for bit. ``overrides`` are the ``key=value`` words that made ``config``, kept in the
    run's provenance. ``keep`` is given the policy of each evaluation in this process.

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
    with closing(open_simulator(config.env.id, config.threads)) as simulator:
        algorithm = make_algorithm(config, simulator)
        run = open_run(config, ["sailctl", "train", *overrides])
        with Logger(run, config) as logger, stoppable() as stop:
            clock, iteration, going = Clock(), 0, True
            dump = run.path / "nonfinite.safetensors"

            def evaluated(place: dict[str, int]) -> float:
                with clock.measure("evaluate_s"):
                    policy, chosen = algorithm.policy(), config.evaluation
                    result = evaluate(policy, simulator, chosen.episodes, chosen.seed)
                logger.evaluation(
                    **place, returns=result.returns, lengths=result.lengths, success=result.success
                )
                if keep is not None:
                    keep(place["env_steps"], result.mean, policy.snapshot())
                return result.mean

            if run.checkpoint is None:
                score = evaluated({"iteration": 0, "env_steps": 0, "labels": algorithm.labels})
                with dumped_when_not_finite(dump):
                    algorithm.begin(clock)
            else:
                iteration, score = run.checkpoint["iteration"], run.checkpoint["score"]
                clock.restore(run.checkpoint["clock"])
                algorithm.restore(run.checkpoint["algorithm"])
            while going:
                before = algorithm.env_steps
                with dumped_when_not_finite(dump):
                    metrics = algorithm.iterate(clock, share_left(config, iteration, algorithm))
                iteration += 1
                going = not at_the_end(config, iteration, algorithm)
                place = {"iteration": iteration, "env_steps": algorithm.env_steps, "labels": algorithm.labels}
                if not going or evaluation_due(config, before, algorithm.env_steps, iteration):
                    score = evaluated(place)
                logger.log(place | metrics | clock.read())
                if going and (stop.signal is not None or run.checkpoint_due(config.logger.checkpoint)):
                    known = {"clock": clock.state(), "algorithm": algorithm.state()}
                    run.keep({"iteration": iteration, "score": score, **known})
                    if stop.signal is not None:
                        raise Interrupted(stop.signal)
            save_policy(algorithm.policy(), run.path / "policy")
            logger.finish({**place, **clock.read(), "last_return": score})
    return run.path


def at_the_end(config: RunConfig, iteration: int, algorithm: Algorithm) -> bool:
    """Whether the run has simulated or iterated as much as it was asked to, or has nothing left to learn."""
    limit = config.algo.iterations
    iterated = limit is not None and iteration >= limit
    return algorithm.exhausted or algorithm.env_steps >= config.env_steps or iterated


def share_left(config: RunConfig, iteration: int, algorithm: Algorithm) -> float:
    """What is left of the run, 1 at its start: of env steps, labels and iterations the smallest share."""
    shares = [algorithm.labels_left]
    if config.algo.simulates:
        shares.append(1.0 - algorithm.env_steps / config.env_steps)
    if config.algo.iterations is not None:
        shares.append(1.0 - iteration / config.algo.iterations)
    return min(shares)


def evaluation_due(config: RunConfig, before: int, env_steps: int, iteration: int) -> bool:
    """Whether this iteration passed a multiple of ``evaluation.every`` (env steps) or ``.iterations``."""
    if config.algo.simulates:
        return env_steps // config.evaluation.every > before // config.evaluation.every
    return iteration % config.evaluation.iterations == 0


@contextmanager
def dumped_when_not_finite(path: Path) -> Iterator[None]:
    """Write the minibatch in which NaN or infinity appeared to ``path`` before the run stops."""
    try:
        yield
    except NonFiniteError as error:
        dump_batch(error.batch, path)
        raise NonFiniteError(f"{error}; its minibatch is in {path}", error.batch) from None
