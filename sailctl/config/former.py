"""Settings of earlier versions: what they are called now, and which are gone.

Records of runs made before are read through ``present``. Who writes a former name is told the new one.
"""

from __future__ import annotations

from collections.abc import Mapping

RENAMED: dict[str, str] = {
    "env.segment": "env.segment_length",
    "rollout.segment": "rollout.segment_length",
    "env.judged": "env.label_horizon",
    "rollout.judged": "rollout.label_horizon",
    "env.foresight": "env.value_horizon",
    "reward.foresight": "reward.value_horizon",
    "reward.trace": "reward.gae_lambda",
    "reward.enough": "reward.target_accuracy",
    "algo.refresh": "algo.reference_interval",
    "algo.first": "algo.initial_queries",
    "algo.every": "algo.query_interval",
    "algo.start": "algo.learning_starts",
}
"""Former key -> key."""

GONE: dict[str, object] = {"rollout.continuation": "policy", "algo.step": "gradient"}
"""Key that there is no more -> its value in runs that do what runs do now."""

NEW: dict[str, tuple[str, object]] = {"algo.natural_kl": ("algo.target_every", None)}
"""Key that older runs lack -> a key that they have where this one belongs, and its value of what they did."""


def present(settings: Mapping[str, object]) -> dict[str, object]:
    """Flat settings of a run of any version, under the names of this one.

    A setting that is gone is left out where its value was the one that is left. Else it stays, and tells the
    run from those of now. A setting that is new has the value of what runs did before.
    """
    named = {
        RENAMED.get(key, key): value
        for key, value in settings.items()
        if key not in GONE or GONE[key] != value
    }
    return {key: value for key, (beside, value) in NEW.items() if beside in named} | named


def where_it_went(key: str) -> str | None:
    """What a person who wrote a former key is told; None for any other key."""
    if key in RENAMED:
        return f"{key} is {RENAMED[key]} now"
    if key in GONE:
        return f"{key} is gone: all runs do what {GONE[key]!r} did"
    return None
