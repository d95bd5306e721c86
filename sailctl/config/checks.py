"""What cannot work is refused before anything is built."""

from __future__ import annotations

import re
from operator import attrgetter
from pathlib import Path

from sailctl.config.places import reference_place
from sailctl.config.schema import LEVELS, RunConfig
from sailctl.config.settings import leaves
from sailctl.core import tasks
from sailctl.core.types import UserError
from sailctl.core.words import refused, require

PROJECT = r"a name that W&B allows: at most 128 characters, and none of / \ # ? % :"


def is_project(name: str) -> bool:
    """Whether W&B takes ``name`` for a project."""
    return re.fullmatch(r"[^/\\#?%:]{1,128}", name) is not None


def validate(config: RunConfig) -> None:
    """Refuse what cannot work, before anything is built.

    A value outside of its range is refused always; one that does not fit others, if the algorithm reads it.

    Raises:
        UserError: one line that names the key, the value and what is allowed.
    """
    for key, _, allowed in leaves(type(config)):
        allowed.check(key, attrgetter(key)(config))
    _validate_names(config)
    if config.policy.kind != "linear":
        config.require("policy.features", config.policy.features == 0, "0 unless policy.kind=linear")
        validate_widths(config, "policy.hidden")
    validate_widths(config, "reward.hidden")
    _validate_reference(config)
    config.check()


def _validate_names(config: RunConfig) -> None:
    tasks.horizon(config.env.id)  # refuses an unknown task
    plain, word = "a plain word of letters, digits, _ and - (it names a folder)", r"[A-Za-z0-9_-]+"
    logger = config.logger
    config.require("algo.name", re.fullmatch(word, config.algo.name) is not None, plain)
    config.require("logger.project", logger.project.strip() != "", "a name")
    config.require("logger.project", logger.wandb == "disabled" or is_project(logger.project), PROJECT)
    config.require("logger.sweep", logger.sweep is None or bool(re.fullmatch(word, logger.sweep)), plain)
    config.require("out", config.out.strip() != "", "a folder")
    config.require("out", not Path(config.out).is_file(), "a folder, and there is a file of this name")


def validate_widths(config: RunConfig, key: str) -> None:
    """Refuse a network without hidden layers, or with an empty one."""
    widths = attrgetter(key)(config)
    config.require(key, len(widths) >= 1, "at least one width, such as [64, 64]")
    config.require(key, all(width >= 1 for width in widths), "widths of at least 1")


def _validate_reference(config: RunConfig) -> None:
    reference = config.algo.reference
    if reference == "initial" or reference_place(config) is not None:
        return
    if reference in LEVELS:
        missing = f"there is no {reference} reference policy of {config.env.id}"
        raise UserError(f"algo.reference={reference}: {missing}: `sailctl reference` lists them")
    what = f"initial, {', '.join(LEVELS)}, or a run directory or policy folder (one that holds policy.json)"
    raise refused("algo.reference", what, reference, LEVELS)


def validate_sessions(config: RunConfig, first: int, later: int) -> None:
    """What an algorithm needs that asks every so many env steps: how much in its first session and later."""
    for key, count in (("algo.initial_queries", first), ("algo.queries", later)):
        config.require(key, count >= 1, "at least 1 with algo.reward=model")
    budget = config.oracle.budget
    enough = budget is None or budget >= first
    config.require("oracle.budget", enough, f"at least algo.initial_queries={first}")


def validate_rollout(config: RunConfig) -> None:
    """Refuse segments that cannot be rolled out or judged, whatever the algorithm reads (for ``collect``)."""
    rollout, oracle = config.rollout, config.oracle
    if rollout.pairing == "unrelated":
        _require(config, "rollout.forks", rollout.forks == 2, "2 when rollout.pairing=unrelated")
        _require(config, "rollout.prompts", rollout.prompts >= 2, "at least 2 when rollout.pairing=unrelated")
    validate_lengths(config)
    if rollout.pairing == "ranked":
        for key in ("mistake", "equal", "tie_margin", "rho"):
            of_pairs = "0 with rollout.pairing=ranked: it is defined for pairs"
            _require(config, f"oracle.{key}", getattr(oracle, key) == 0, of_pairs)
        cost = rollout.forks - 1
        enough = oracle.budget is None or oracle.budget >= cost
        _require(config, "oracle.budget", enough, f"at least {cost}, what one ranking costs")
    if oracle.skip > 0 or oracle.equal > 0:
        whole = segment_lengths(config)[1] == tasks.horizon(config.env.id)
        _require(
            config,
            "rollout.start_fraction",
            rollout.start_fraction < 1 or whole,
            "below 1 with oracle.skip or oracle.equal, unless whole episodes are judged: "
            "their threshold is a share of the episode return",
        )


def validate_lengths(config: RunConfig) -> None:
    """Refuse segments that are longer than an episode, or than what the teacher judges of them."""
    horizon, (segment, judged) = tasks.horizon(config.env.id), segment_lengths(config)
    episode = f"{horizon} (an episode of {config.env.id})"
    _require(config, "rollout.segment_length", 1 <= segment <= horizon, f"from 1 to {episode}")
    longer = f"from {segment} (rollout.segment_length) to {episode}"
    _require(config, "rollout.label_horizon", segment <= judged <= horizon, longer)


def _require(config: RunConfig, key: str, allowed: bool, what: str) -> None:
    require(allowed, key, what, attrgetter(key)(config))


def segment_lengths(config: RunConfig) -> tuple[int, int]:
    """H and L in control steps: ``null`` is a whole episode of the task."""
    horizon = tasks.horizon(config.env.id)
    segment, judged = config.rollout.segment_length, config.rollout.label_horizon
    return horizon if segment is None else segment, horizon if judged is None else judged
