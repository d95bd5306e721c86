"""What a run records of its configuration: the settings that its algorithm reads, and no others.

Every run is composed with all groups. A baseline on the true reward has no teacher and no segments, and a run
with the teacher's own reward has no reward model: what is configured of them changes nothing, and a record
that named it would claim what was not done.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from sailctl.config.schema import ActionsRun, Config, PPORun, RunConfig, SACRun, to_dict

_ASKING = ("algo.initial_queries", "algo.queries", "algo.query_interval", "algo.selection")
_SEGMENTS = ("env.segment_length", "env.label_horizon", "env.value_horizon", "rollout.*")
_VALUE = (
    "reward.value_horizon",
    "reward.inverse_temperature",
    "reward.questions",
    "reward.start",
    "reward.gae_lambda",
)
"""Settings of labels that look ahead, which the forms on segments alone have."""


def unread(config: RunConfig) -> tuple[str, ...]:
    """Patterns of the settings that a run of this algorithm never reads, whatever their values."""
    if isinstance(config, PPORun | SACRun):
        own = ("policy.normalise",) if isinstance(config, SACRun) else ()
        if config.algo.reward == "true":
            start = ("algo.learning_starts",) if isinstance(config, PPORun) else ("algo.relabel",)
            return (*own, *start, *_ASKING, *_SEGMENTS, "oracle.*", "reward.*")
        lengths = ("rollout.[!sl]*", "rollout.start_fraction", "env.value_horizon")
        return (*own, *lengths, *_VALUE, "reward.bounded", "reward.cut")
    if isinstance(config, ActionsRun):
        if config.algo.reward == "teacher":
            asking = (*(key for key in _ASKING if key != "algo.query_interval"), "algo.window", "algo.recent")
            return (*asking, *_SEGMENTS, "oracle.*", "reward.*")
        return (*_SEGMENTS, *_VALUE)
    assert isinstance(config, Config)
    if config.algo.models_reward:
        return ()
    return ("env.discount", "reward.[!i]*")


def recorded(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested dictionaries, without what is ``unread``."""
    patterns, found = unread(config), to_dict(config)
    for group, values in found.items():
        if isinstance(values, dict):
            kept = {
                key: value
                for key, value in values.items()
                if not any(fnmatchcase(f"{group}.{key}", pattern) for pattern in patterns)
            }
            found[group] = kept
    return found
