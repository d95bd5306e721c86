"""The training loop of all algorithms: iterate, evaluate, log, save checkpoints, until the run is complete.

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

OnEvaluation = Callable[[int, float, GaussianPolicy], None]
"""Takes env steps, the mean return of an evaluation, and a copy of the evaluated policy."""


def train(config: RunConfig, overrides: list[str], on_evaluation: OnEvaluation | None = None) -> Path:
    """Train one policy and return its run directory.

    A finished run is not trained again. A stopped run resumes from its last checkpoint and ends with
    bit-identical numbers.

    Args:
        config: the composed configuration.
        overrides: the ``key=value`` words that produced ``config``, recorded in the run's provenance.
        on_evaluation: called with the policy of each evaluation in this process.

    Raises:
        UserError: when another process works on the run, or the reference policy does not fit the task.
        RunError: when training failed; the run directory keeps everything recorded so far.
        Interrupted: when one of ``SIGNALS`` stopped the run; its checkpoint is of the last iteration.
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
            clock, iteration, running = Clock(), 0, True
            dump = run.path / "nonfinite.safetensors"

            def evaluate_and_log(progress: dict[str, int]) -> float:
                with clock.measure("evaluate_s"):
                    policy, settings = algorithm.policy(), config.evaluation
                    result = evaluate(policy, simulator, settings.episodes, settings.seed)
                logger.evaluation(
                    **progress, returns=result.returns, lengths=result.lengths, success=result.success
                )
                if on_evaluation is not None:
                    on_evaluation(progress["env_steps"], result.mean, policy.snapshot())
                return result.mean

            if run.checkpoint is None:
                score = evaluate_and_log({"iteration": 0, "env_steps": 0, "labels": algorithm.labels})
                with dump_if_not_finite(dump):
                    algorithm.begin(clock)
            else:
                iteration, score = run.checkpoint["iteration"], run.checkpoint["score"]
                clock.restore(run.checkpoint["clock"])
                algorithm.restore(run.checkpoint["algorithm"])
            while running:
                env_steps_before = algorithm.env_steps
                with dump_if_not_finite(dump):
                    metrics = algorithm.iterate(clock, share_left(config, iteration, algorithm))
                iteration += 1
                running = not is_complete(config, iteration, algorithm)
                progress = {
                    "iteration": iteration,
                    "env_steps": algorithm.env_steps,
                    "labels": algorithm.labels,
                }
                if not running or evaluation_due(config, env_steps_before, algorithm.env_steps, iteration):
                    score = evaluate_and_log(progress)
                logger.log(progress | metrics | clock.read())
                if running and (stop.signal is not None or run.checkpoint_due(config.logger.checkpoint)):
                    states = {"clock": clock.state(), "algorithm": algorithm.state()}
                    run.keep({"iteration": iteration, "score": score, **states})
                    if stop.signal is not None:
                        raise Interrupted(stop.signal)
            save_policy(algorithm.policy(), run.path / "policy")
            logger.finish({**progress, **clock.read(), "last_return": score})
    return run.path


def is_complete(config: RunConfig, iteration: int, algorithm: Algorithm) -> bool:
    """Whether the run reached its env steps or iterations, or the algorithm is exhausted."""
    limit = config.algo.iterations
    iterated = limit is not None and iteration >= limit
    return algorithm.exhausted or algorithm.env_steps >= config.env_steps or iterated


def share_left(config: RunConfig, iteration: int, algorithm: Algorithm) -> float:
    """Remaining share of the run (1 at its start): the smallest of env steps, labels and iterations."""
    shares = [algorithm.labels_left]
    if config.algo.simulates:
        shares.append(1.0 - algorithm.env_steps / config.env_steps)
    if config.algo.iterations is not None:
        shares.append(1.0 - iteration / config.algo.iterations)
    return min(shares)


def evaluation_due(config: RunConfig, before: int, env_steps: int, iteration: int) -> bool:
    """Whether this iteration crossed a multiple of ``evaluation.every`` (env steps) or ``.iterations``."""
    if config.algo.simulates:
        return env_steps // config.evaluation.every > before // config.evaluation.every
    return iteration % config.evaluation.iterations == 0


@contextmanager
def dump_if_not_finite(path: Path) -> Iterator[None]:
    """Write the minibatch that produced NaN or infinity to ``path``.

    Raises:
        NonFiniteError: the original error, with ``path`` added to its message.
    """
    try:
        yield
    except NonFiniteError as error:
        dump_batch(error.batch, path)
        raise NonFiniteError(f"{error}; its minibatch is in {path}", error.batch) from None
