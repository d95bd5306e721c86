"""What cannot work is refused before anything is built."""

from __future__ import annotations

import re
from pathlib import Path

from sailctl.config.algorithms import ActionsConfig, AlgoConfig, PPOConfig, SACConfig
from sailctl.config.places import reference_place
from sailctl.config.ranges import validate_ranges
from sailctl.config.schema import (
    LEVELS,
    ActionsRun,
    Config,
    PolicyConfig,
    PPORun,
    RunConfig,
    SACRun,
    to_dict,
)
from sailctl.config.words import require
from sailctl.core import tasks
from sailctl.core.types import UserError

PROJECT = r"a name that W&B allows: at most 128 characters, and none of / \ # ? % :"


def is_project(name: str) -> bool:
    """Whether W&B takes ``name`` for a project."""
    return re.fullmatch(r"[^/\\#?%:]{1,128}", name) is not None


def validate(config: RunConfig) -> None:
    """Refuse what cannot work, before anything is built.

    Raises:
        UserError: one line that names the key, the value and what is allowed.
    """
    validate_ranges(to_dict(config))
    _validate_names(config)
    _validate_rollout(config)
    _validate_policy(config.policy)
    _validate_widths("reward.hidden", config.reward.hidden)
    _validate_reference(config)
    if isinstance(config, Config):
        _validate_design(config)
    elif isinstance(config, ActionsRun):
        _validate_actions(config)
    elif isinstance(config, PPORun | SACRun):
        _validate_baseline(config)
    else:
        raise TypeError(f"there are no checks for a {type(config).__name__}")
    _validate_teacher(config)


def _validate_names(config: RunConfig) -> None:
    tasks.horizon(config.env.id)  # refuses an unknown task
    plain = "a plain word of letters, digits, _ and - (it names a folder)"
    require(
        re.fullmatch(r"[A-Za-z0-9_-]+", config.algo.name) is not None, "algo.name", plain, config.algo.name
    )
    require(config.logger.project.strip() != "", "logger.project", "a name", config.logger.project)
    if config.logger.wandb != "disabled":
        require(is_project(config.logger.project), "logger.project", PROJECT, config.logger.project)
    require(
        config.logger.sweep is None or re.fullmatch(r"[A-Za-z0-9_-]+", config.logger.sweep) is not None,
        "logger.sweep",
        plain,
        config.logger.sweep,
    )
    require(config.out.strip() != "", "out", "a folder", config.out)
    require(not Path(config.out).is_file(), "out", "a folder, and there is a file of this name", config.out)


def _validate_rollout(config: RunConfig) -> None:
    rollout, horizon = config.rollout, tasks.horizon(config.env.id)
    require(rollout.forks >= 2, "rollout.forks", "at least 2", rollout.forks)
    if rollout.pairing == "unrelated":
        require(rollout.forks == 2, "rollout.forks", "2 when rollout.pairing=unrelated", rollout.forks)
        require(
            rollout.prompts >= 2,
            "rollout.prompts",
            "at least 2 when rollout.pairing=unrelated",
            rollout.prompts,
        )
    segment, judged = segment_lengths(config)
    episode = f"{horizon} (an episode of {config.env.id})"
    require(1 <= segment <= horizon, "rollout.segment_length", f"from 1 to {episode}", segment)
    require(
        segment <= judged <= horizon,
        "rollout.label_horizon",
        f"from {segment} (rollout.segment_length) to {episode}",
        judged,
    )
    if isinstance(config.algo, AlgoConfig) and config.algo.simulates:
        require(
            rollout.start_fraction == 1 or tasks.forks_anywhere(config.env.id),
            "rollout.start_fraction",
            f"1 with {config.env.id}, which can be forked at episode starts alone",
            rollout.start_fraction,
        )


def _validate_policy(policy: PolicyConfig) -> None:
    if policy.kind != "linear":
        require(policy.features == 0, "policy.features", "0 unless policy.kind=linear", policy.features)
        _validate_widths("policy.hidden", policy.hidden)


def _validate_widths(key: str, widths: list[int]) -> None:
    require(len(widths) >= 1, key, "at least one width, such as [64, 64]", widths)
    require(all(width >= 1 for width in widths), key, "widths of at least 1", widths)


def _validate_reference(config: RunConfig) -> None:
    reference = config.algo.reference
    if reference == "initial":
        return
    if reference in LEVELS:
        missing = (
            f"there is no {reference} reference policy of {config.env.id}: `sailctl reference` lists them"
        )
        if reference_place(config) is None:
            raise UserError(f"algo.reference={reference}: {missing}")
        return
    what = f"initial, {', '.join(LEVELS)}, or a run directory or policy folder (one that holds policy.json)"
    require(reference_place(config) is not None, "algo.reference", what, reference, LEVELS)


def _validate_baseline(config: PPORun | SACRun) -> None:
    """What a baseline needs beside its own numbers."""
    algo = config.algo
    require(algo.reward != "teacher", "algo.reward", "true or model with this algorithm", algo.reward)
    if algo.reward == "model":
        _validate_sessions(config, algo)
    if isinstance(algo, PPOConfig):
        whole = algo.envs * algo.steps
        require(algo.batch >= 2, "algo.batch", "at least 2 with PPO, which standardises them", algo.batch)
        require(algo.batch <= whole, "algo.batch", f"at most algo.envs * algo.steps = {whole}", algo.batch)
        require(config.policy.kind == "mlp", "policy.kind", "mlp with PPO", config.policy.kind)
        learnt = config.policy.learn_std
        require(learnt, "policy.learn_std", "true with PPO", learnt)
    else:
        _validate_widths("algo.hidden", algo.hidden)
        require(algo.entropy > 0, "algo.entropy", "above 0 with SAC", algo.entropy)
        learns = config.env_steps > algo.learning_starts
        before = f"above algo.learning_starts={algo.learning_starts}, before which nothing is learned"
        require(learns, "env_steps", before, config.env_steps)
        steps = algo.envs * algo.updates
        whole = steps >= 1 and steps % algo.target_every == 0
        known = (
            f"such that algo.envs={algo.envs} times it is a multiple of algo.target_every={algo.target_every}"
        )
        require(whole, "algo.updates", known, algo.updates)
        pretrains = algo.pretrain == 0 or algo.reward == "model"
        require(pretrains, "algo.pretrain", "0 with algo.reward=true", algo.pretrain)


def _validate_sessions(config: RunConfig, algo: ActionsConfig | PPOConfig | SACConfig) -> None:
    """What an algorithm needs that asks every so many env steps."""
    for key in ("initial_queries", "queries"):
        value = getattr(algo, key)
        require(value >= 1, f"algo.{key}", "at least 1 with algo.reward=model", value)
    budget = config.oracle.budget
    enough = budget is None or budget >= algo.initial_queries
    require(enough, "oracle.budget", f"at least algo.initial_queries={algo.initial_queries}", budget)
    pairs = config.rollout.pairing != "ranked"
    require(pairs, "rollout.pairing", f"forked or unrelated with algo={algo.name}", config.rollout.pairing)


def _validate_actions(config: ActionsRun) -> None:
    """What SAIL on actions needs beside its own numbers."""
    algo, horizon = config.algo, tasks.horizon(config.env.id)
    require(algo.reward != "true", "algo.reward", "model or teacher with this algorithm", algo.reward)
    if algo.reward == "model":
        _validate_sessions(config, algo)
    require(algo.actions >= 2, "algo.actions", "at least 2", algo.actions)
    require(algo.rho < 0.5, "algo.rho", "below 0.5, where no answer would mean anything", algo.rho)
    if algo.gradient == "pathwise":
        slope = "with algo.gradient=pathwise, which needs labels that have a slope"
        require(algo.kappa > 0, "algo.kappa", f"above 0 {slope}", algo.kappa)
        require(algo.comparison == "pairs", "algo.comparison", f"pairs {slope}", algo.comparison)
    if algo.kappa == 0:
        require(algo.doubt == 0, "algo.doubt", "0 with algo.kappa=0, which makes labels hard", algo.doubt)
    if algo.comparison == "ranking":
        require(
            algo.rho == 0, "algo.rho", "0 with algo.comparison=ranking: its bound is one of pairs", algo.rho
        )
    _validate_widths("algo.hidden", algo.hidden)
    correlation = algo.early_correlation
    require(correlation < 1, "algo.early_correlation", "below 1, where noise never changes", correlation)
    require(algo.window <= horizon, "algo.window", f"at most {horizon} (an episode)", algo.window)
    require(
        config.env.discount < 1,
        "env.discount",
        "below 1: the value of an action has no end",
        config.env.discount,
    )


def _validate_design(config: Config) -> None:
    """What an algorithm needs beside its own numbers: a data set, a limit, another group's settings."""
    algo, offline = config.algo, not config.algo.simulates
    form = "segments or data with this algorithm"
    require(algo.responses != "actions", "algo.responses", form, algo.responses)
    require(
        config.rollout.prompts % algo.minibatches == 0,
        "algo.minibatches",
        f"a divisor of rollout.prompts={config.rollout.prompts}",
        algo.minibatches,
    )
    require(
        algo.data is not None or not algo.needs_data,
        "algo.data",
        f"a data set of preferences with algo={algo.name}; `sailctl collect` makes one",
        algo.data,
    )
    if algo.data is not None:
        require(
            Path(algo.data).is_file(),
            "algo.data",
            "an existing file, as `sailctl collect` makes it",
            algo.data,
        )
    require(
        algo.iterations is not None or not offline,
        "algo.iterations",
        "a number: this run simulates nothing, so env_steps cannot end it",
        algo.iterations,
    )
    require(
        algo.labels != "reward_model" or algo.responses == "segments",
        "algo.responses",
        "segments with algo.labels=reward_model",
        algo.responses,
    )
    if algo.labels == "reward_model":
        require(
            algo.queries != 0 or algo.data is not None,
            "algo.queries",
            "above 0 without algo.data: the reward model would see no label",
            algo.queries,
        )
    elif algo.simulates and algo.labels == "teacher":
        require(algo.queries != 0, "algo.queries", "above 0 with algo.labels=teacher", algo.queries)
    if config.rollout.pairing == "ranked":
        require(algo.labels == "teacher", "algo.labels", "teacher with rollout.pairing=ranked", algo.labels)
        require(
            algo.rho == 0, "algo.rho", "0 with rollout.pairing=ranked: its bound is one of pairs", algo.rho
        )
        rule = algo.selection
        plain = algo.queries is None or rule == "uniform"
        require(plain, "algo.selection", "uniform with rollout.pairing=ranked", rule)
    require(algo.rho < 0.5, "algo.rho", "below 0.5, where no answer would mean anything", algo.rho)


def _validate_teacher(config: RunConfig) -> None:
    oracle, pairing = config.oracle, config.rollout.pairing
    if pairing == "ranked":
        for key in ("mistake", "equal", "tie_margin", "rho"):
            value = getattr(oracle, key)
            require(
                value == 0, f"oracle.{key}", "0 with rollout.pairing=ranked: it is defined for pairs", value
            )
        cost = config.rollout.forks - 1
        enough = oracle.budget is None or oracle.budget >= cost
        require(enough, "oracle.budget", f"at least {cost}, what one ranking costs", oracle.budget)
    if oracle.skip > 0 or oracle.equal > 0:
        _, judged = segment_lengths(config)
        whole = judged == tasks.horizon(config.env.id)
        require(
            config.rollout.start_fraction < 1 or whole,
            "rollout.start_fraction",
            "below 1 with oracle.skip or oracle.equal, unless whole episodes are judged: "
            "their threshold is a share of the episode return",
            config.rollout.start_fraction,
        )


def segment_lengths(config: RunConfig) -> tuple[int, int]:
    """H and L in control steps: ``null`` is a whole episode of the task."""
    horizon = tasks.horizon(config.env.id)
    segment, judged = config.rollout.segment_length, config.rollout.label_horizon
    return horizon if segment is None else segment, horizon if judged is None else judged
