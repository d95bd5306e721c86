"""Collects data sets of preferences about one fixed policy (``sailctl collect``), for offline training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sailctl.algorithms.start import first_policy
from sailctl.config import ActionsRun, Config, RunConfig, recorded, segment_lengths
from sailctl.core.seeding import named_generators
from sailctl.core.types import Preferences, RunError, UserError
from sailctl.data.datasets import assemble, check_new, save_preferences
from sailctl.data.rollout import Collected, Collector
from sailctl.preferences.oracle import Teacher
from sailctl.runs.provenance import provenance
from sailctl.simulator.registry import open_simulator

PATIENCE = 100
"""Consecutive iterations without an answer after which collection stops with an error."""


def collect(config: RunConfig, pairs: int, out: Path, command: Sequence[str]) -> None:
    """Label pairs of segments of the initial policy, write the data set to ``out``, print one summary line.

    The policy and its observation statistics do not change.

    Args:
        config: the composed configuration; the policy is the one that training would start from.
        pairs: answers to collect. A tie counts. A skipped pair does not count and is not written.
        out: file to write.
        command: the command line, recorded verbatim.

    Raises:
        UserError: when the configuration does not allow collection, ``out`` exists, or ``out`` cannot be
            created. Raised before anything is simulated.
        RunError: when the teacher skips every pair of ``PATIENCE`` consecutive iterations, or writing fails.
            No file is left.
    """
    if not isinstance(config, Config | ActionsRun):
        raise UserError(f"algo={config.algo.name} is a baseline: leave it out, and set algo.reference")
    _check(config, pairs)
    check_new(out)
    # One thread, as in training: the order of float additions must not depend on a thread count.
    torch.set_num_threads(1)
    generators = named_generators(config.seed)
    simulator = open_simulator(config.env.id, config.threads)
    policy = first_policy(config, simulator.spec, generators)
    steps, judged = segment_lengths(config)
    collector = Collector(simulator, config.rollout, steps, judged, generators)
    # With this budget the teacher stops after exactly ``pairs`` answers, also in the middle of an iteration.
    teacher = Teacher(replace(config.oracle, budget=pairs), generators.oracle, simulator.spec.horizon)

    parts: list[dict[str, NDArray[Any]]] = []
    env_steps = unanswered = 0
    show_bar = config.logger.progress and sys.stderr.isatty()
    with tqdm(total=pairs, desc=str(out), unit=" pairs", disable=not show_bar, dynamic_ncols=True) as bar:
        while not teacher.spent:
            collected = collector.collect(policy)
            teacher.observe_episodes(collected.episode_returns)
            answers = teacher.answer(collected.pairs, collected.judged)
            parts.append(_arrays_of(collected, answers, first_group=len(parts) * config.rollout.prompts))
            env_steps += collected.env_steps
            bar.update(len(answers))
            unanswered = 0 if len(answers) else unanswered + 1
            if unanswered == PATIENCE:
                raise RunError(
                    f"the teacher skipped all pairs of {PATIENCE} consecutive iterations, after "
                    f"{teacher.labels} answers; lower oracle.skip, or set a better policy (algo.reference)"
                )
    simulator.close()

    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    returns = arrays.pop("returns")
    data = assemble(config.env.id, **arrays, steps=steps)
    ties, skipped = int((data.preferences.label == 0).sum()), teacher.skipped
    counts = {"labels": len(data), "ties": ties, "skipped": skipped, "env_steps": env_steps}
    about = {"provenance": provenance(command), "config": recorded(config), **counts}
    save_preferences(out, data, about, returns)
    mean_length = data.segments.mask.sum(axis=1).mean()
    print(
        f"{out}: {len(data)} pairs ({ties} ties), {skipped} skipped, {env_steps} env steps, "
        f"mean length {mean_length:.1f} of {judged}, {tqdm.format_sizeof(out.stat().st_size)}B"
    )


def _check(config: RunConfig, pairs: int) -> None:
    """Raise ``UserError`` for settings that a data set cannot represent or that require a learning policy."""
    budget, pairing = config.oracle.budget, config.rollout.pairing
    if pairs < 1:
        raise UserError(f"--pairs must be at least 1, got {pairs}")
    if budget is not None and budget < pairs:
        raise UserError(f"oracle.budget must be null, or at least --pairs={pairs}, got {budget}")
    if pairing == "ranked":
        raise UserError("rollout.pairing must be forked or unrelated: a data set holds pairs, not rankings")
    if config.oracle.rho > 0:
        raise UserError(
            f"oracle.rho must be 0, got {config.oracle.rho}: this teacher is adversarial to the "
            "policy that is trained, and collection trains no policy"
        )


def _arrays_of(collected: Collected, answers: Preferences, first_group: int) -> dict[str, NDArray[Any]]:
    """The arrays of ``assemble`` for the B answered pairs of one iteration, and their ``returns`` (B, 2)."""
    rows = np.stack([answers.pairs.first, answers.pairs.second], axis=1)
    window = collected.window
    return {
        "obs": window.obs[rows],
        "actions": window.actions[rows],
        "label": answers.label,
        "mask": window.mask[rows],
        "group": answers.pairs.group + first_group,
        "returns": collected.judged.returns[rows],
    }
