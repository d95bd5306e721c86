"""What a run records of its configuration: the settings that its algorithm reads, and no others.

Every run is composed with all groups. A baseline on the true reward has no teacher and no segments, and a run
with the teacher's own reward has no reward model: what is configured of them changes nothing, and a record
that named it would claim what was not done.
"""

from __future__ import annotations

from typing import Any

from sailctl.config.schema import RunConfig, to_dict

ASKING = ("algo.initial_queries", "algo.queries", "algo.query_interval", "algo.selection")
SEGMENTS = ("env.segment_length", "env.label_horizon", "env.value_horizon", "rollout.*")
VALUE = (
    "reward.value_horizon",
    "reward.inverse_temperature",
    "reward.questions",
    "reward.start",
    "reward.gae_lambda",
)
"""Settings of labels that look ahead, which the forms on segments alone have."""


def recorded(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested dictionaries, without what is ``unread``."""
    found = to_dict(config)
    for group, values in found.items():
        if isinstance(values, dict):
            found[group] = {key: value for key, value in values.items() if config.reads(f"{group}.{key}")}
    return found
