"""What single values of a configuration may be: ranges of numbers, and words to choose from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sailctl.config.words import refused, require

LARGEST = 3.4e38
"""A larger setting is infinite to a policy, which computes in 32-bit floating point."""

ABOVE_ZERO = (
    "algo.beta",
    "algo.lr",
    "algo.target_kl",
    "algo.radius",
    "algo.max_grad_norm",
    "algo.gae_lambda",
    "algo.clip",
    "algo.tau",
    "algo.updates",
    "algo.least_std",
    "algo.early_std",
    "algo.critic_lr",
    "algo.average",
    "env.discount",
    "oracle.inverse_temperature",
    "oracle.discount",
    "policy.initial_std",
    "reward.lr",
    "reward.inverse_temperature",
)

NOT_NEGATIVE = (
    "algo.settle",
    "algo.c",
    "algo.gamma",
    "algo.rho",
    "algo.queries",
    "algo.reference_interval",
    "algo.initial_queries",
    "algo.pretrain",
    "algo.learning_starts",
    "algo.kappa",
    "algo.doubt",
    "algo.pessimism",
    "algo.observe",
    "algo.warmup",
    "algo.entropy",
    "algo.value",
    "oracle.skip",
    "oracle.equal",
    "oracle.tie_margin",
    "reward.value_horizon",
    "env.value_horizon",
    "reward.start",
    "policy.features",
    "evaluation.seed",
    "logger.checkpoint",
    "seed",
)

AT_LEAST_ONE = (
    "rollout.prompts",
    "oracle.budget",
    "algo.epochs",
    "algo.minibatches",
    "algo.iterations",
    "algo.query_interval",
    "algo.envs",
    "algo.steps",
    "algo.batch",
    "algo.interval",
    "algo.target_every",
    "algo.window",
    "algo.recent",
    "algo.delay",
    "reward.members",
    "reward.epochs",
    "reward.batch",
    "reward.steps",
    "reward.thin",
    "evaluation.every",
    "evaluation.iterations",
    "evaluation.episodes",
    "env_steps",
    "threads",
)

SHARES = (
    "algo.noiseless",
    "algo.early_correlation",
    "algo.w",
    "algo.gae_lambda",
    "algo.tau",
    "algo.average",
    "env.discount",
    "rollout.start_fraction",
    "rollout.restart",
    "oracle.discount",
    "oracle.mistake",
    "oracle.rho",
    "reward.cut",
    "reward.target_accuracy",
    "reward.gae_lambda",
)
"""Probabilities and weights from 0 to 1."""

CHOICES = {
    "algo.reward": ("true", "model", "teacher"),
    "algo.baseline": ("leave_one_out", "none"),
    "algo.responses": ("actions", "segments", "data"),
    "algo.gradient": ("pathwise", "score"),
    "algo.comparison": ("pairs", "ranking"),
    "algo.labels": ("teacher", "reward_model", "policy"),
    "algo.selection": (
        "uniform",
        "disagreement",
        "entropy",
        "kcenter",
        "kcenter_disagreement",
        "kcenter_entropy",
    ),
    "algo.worst_case": ("exact", "clipped"),
    "algo.kl": ("kl_ref_pi", "kl_pi_ref"),
    "algo.optimiser": ("adam", "sgd"),
    "rollout.pairing": ("forked", "unrelated", "ranked"),
    "reward.questions": ("forked", "unrelated"),
    "reward.activation": ("tanh", "leaky_relu"),
    "policy.kind": ("mlp", "linear", "squashed"),
    "logger.wandb": ("offline", "online", "disabled"),
}


def validate_ranges(tree: Mapping[str, Any]) -> None:
    """Refuse a value that is outside of its range, whatever the others are.

    Args:
        tree: the configuration as nested dictionaries; a value of null is in every range.

    Raises:
        UserError: one line that names the key, the value and what is allowed.
    """
    values = dict(_leaves(tree))
    for key, value in values.items():
        if isinstance(value, float) and not abs(value) <= LARGEST:
            raise refused(key, "a finite number", value)
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    for key in filter(numbers.__contains__, ABOVE_ZERO):
        require(numbers[key] > 0, key, "above 0", numbers[key])
    for key in filter(numbers.__contains__, NOT_NEGATIVE):
        require(numbers[key] >= 0, key, "0 or more", numbers[key])
    for key in ("seed", "evaluation.seed"):
        require(numbers[key] < 2**63, key, f"at most {2**63 - 1}", numbers[key])
    for key in filter(numbers.__contains__, AT_LEAST_ONE):
        require(numbers[key] >= 1, key, "at least 1", numbers[key])
    for key in filter(numbers.__contains__, SHARES):
        require(0 <= numbers[key] <= 1, key, "from 0 to 1", numbers[key])
    for key in filter(values.__contains__, CHOICES):
        require(values[key] in CHOICES[key], key, " or ".join(CHOICES[key]), values[key], CHOICES[key])


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
