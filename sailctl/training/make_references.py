"""Makes reference policies: trains on the true reward, chooses three snapshots, measures their returns."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sailctl.config import LEVELS, RunConfig, recorded
from sailctl.core.files import write_atomically
from sailctl.core.seeding import generator
from sailctl.core.types import DoubleArray, UserError
from sailctl.policies.policy import GaussianPolicy
from sailctl.policies.references import ABOUT, folder_of
from sailctl.runs.checkpoint import save_policy
from sailctl.runs.provenance import provenance
from sailctl.runs.results import load_run
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.states import Simulator
from sailctl.training.evaluate import evaluate, play
from sailctl.training.train import train

SHARES = dict(zip(LEVELS, (0.15, 0.5, 1.0), strict=True))
"""Target of each level: its share of the best policy's gain in return over random actions."""
EPISODES = 50
"""Episodes per reported return; their initial states differ from those used to choose the policies."""
SEED = 2026
"""Seed of the initial states of the reported returns."""


@dataclass(frozen=True)
class Snapshot:
    """A policy during training."""

    env_steps: int
    mean: float
    """Mean true return of its evaluation."""
    policy: GaussianPolicy


def make_reference(config: RunConfig, overrides: Sequence[str], out: Path) -> Path:
    """Train by ``config``, choose ``weak``, ``medium`` and ``expert``; return the task's folder in ``out``.

    The folder contains a policy for each level and ``reference.json``: configuration, provenance, learning
    curve of all snapshots, and returns over ``EPISODES`` episodes from other initial states.

    Raises:
        UserError: when the algorithm does not train on the true reward, or the folder exists.
        RunError: when training failed; no files are left.
    """
    if getattr(config.algo, "reward", "model") != "true":
        raise UserError(f"algo={config.algo.name} does not train on the true reward; choose ppo or sac")
    folder = folder_of(config.env.id, out)
    if folder.exists():
        raise UserError(f"{folder} exists: remove it first, or choose another --out")
    snapshots: list[Snapshot] = []

    def record(env_steps: int, mean: float, policy: GaussianPolicy) -> None:
        snapshots.append(Snapshot(env_steps, mean, policy))

    with tempfile.TemporaryDirectory() as scratch:
        run = load_run(train(replace(config, out=scratch), list(overrides), record))
        wall_s = run.status["wall_s"]
    simulator = open_simulator(config.env.id, config.threads)
    random = random_returns(simulator)
    selected = choose(snapshots, float(random.mean()))
    levels = {level: measured_returns(selected[level], simulator) for level in LEVELS}
    gain = levels["expert"]["mean"] - random.mean()
    about = {
        "task": config.env.id,
        "algorithm": config.algo.name,
        "command": ["sailctl", "reference", *overrides],
        "env_steps": snapshots[-1].env_steps,
        "wall_s": wall_s,
        "episodes": EPISODES,
        "seed": SEED,
        "random": summary(random),
        "levels": {
            level: {**numbers, "share": float((numbers["mean"] - random.mean()) / gain)}
            for level, numbers in levels.items()
        },
        "curve": [[snapshot.env_steps, snapshot.mean] for snapshot in snapshots],
        "config": recorded(replace(config, out="runs")),
        "provenance": provenance(["sailctl", "reference", *overrides]),
    }
    simulator.close()
    for level in LEVELS:
        save_policy(selected[level].policy, folder / level)
    write_atomically(folder / ABOUT, to_text(about))
    return folder


def to_text(about: dict[str, Any]) -> str:
    """JSON text with one key per line and one point of the curve per line."""
    points = [json.dumps(point) for point in about["curve"]]
    text = json.dumps(about | {"curve": ["@"]}, indent=1)
    return text.replace('"@"', ",\n  ".join(points)) + "\n"


def choose(snapshots: Sequence[Snapshot], random: float) -> dict[str, Snapshot]:
    """For each level, the snapshot whose share of the best gain over ``random`` is nearest to its target."""
    best = max(snapshot.mean for snapshot in snapshots)
    shares = np.array([(snapshot.mean - random) / (best - random) for snapshot in snapshots])
    return {level: snapshots[int(np.abs(shares - share).argmin())] for level, share in SHARES.items()}


def measured_returns(snapshot: Snapshot, simulator: Simulator) -> dict[str, float]:
    """True returns of a policy with its mean action, and with sampled actions (``noisy_mean``)."""
    deterministic = evaluate(snapshot.policy, simulator, EPISODES, SEED)
    noise = generator(SEED, "policy")

    def sampled_action(obs: DoubleArray) -> DoubleArray:
        draws = noise.standard_normal((len(obs), snapshot.policy.spec.act_dim), dtype=np.float32)
        return snapshot.policy.to_controls(snapshot.policy.act(obs, draws))

    noisy = play(sampled_action, simulator, EPISODES, SEED)
    return {
        "at_env_steps": snapshot.env_steps,
        **summary(deterministic.returns),
        "length": float(deterministic.lengths.mean()),
        "noisy_mean": float(noisy.returns.mean()),
    }


def random_returns(simulator: Simulator) -> DoubleArray:
    """(EPISODES,) true returns of actions drawn uniformly from the actuators' range."""
    rng, spec = generator(SEED, "policy"), simulator.spec

    def random_action(obs: DoubleArray) -> DoubleArray:
        return rng.uniform(spec.act_low, spec.act_high, (len(obs), spec.act_dim))

    return play(random_action, simulator, EPISODES, SEED).returns


def summary(returns: DoubleArray) -> dict[str, float]:
    """Mean, sample standard deviation (ddof=1), lowest and highest return."""
    return {
        "mean": float(returns.mean()),
        "sd": float(returns.std(ddof=1)),
        "lowest": float(returns.min()),
        "highest": float(returns.max()),
    }
