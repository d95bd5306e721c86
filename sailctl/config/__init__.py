"""The configuration of a run: its schema, its checks, its name.

A composed configuration becomes typed, checked, frozen objects, or a one-line ``UserError``; a hash names
it. Nothing here imports a simulator or a neural network.
"""

from __future__ import annotations

from sailctl.config.checks import PROJECT, is_project, segment_lengths, validate, validate_rollout
from sailctl.config.convert import leaf_types, run_id, to_config, to_yaml, unknown_key
from sailctl.config.former import present
from sailctl.config.kinds.actions import ActionsConfig, ActionsRun
from sailctl.config.kinds.baselines import BaselineRun, PPORun, SACRun
from sailctl.config.kinds.segments import AlgoConfig, Config
from sailctl.config.options import meanings, read_option, register
from sailctl.config.places import REFERENCES, conf_dir, plain_name, reference_place
from sailctl.config.recorded import recorded
from sailctl.config.schema import (
    GROUPS,
    LEVELS,
    MODEL_RULES,
    NUMBERLESS,
    RULES,
    RUNS,
    LoggerConfig,
    OracleConfig,
    PolicyConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    kind_of,
    to_dict,
)
from sailctl.config.settings import Range, leaves

__all__ = [
    "GROUPS",
    "LEVELS",
    "MODEL_RULES",
    "NUMBERLESS",
    "PROJECT",
    "REFERENCES",
    "RULES",
    "RUNS",
    "ActionsConfig",
    "ActionsRun",
    "AlgoConfig",
    "BaselineRun",
    "Config",
    "LoggerConfig",
    "OracleConfig",
    "PPORun",
    "PolicyConfig",
    "Range",
    "RewardConfig",
    "RolloutConfig",
    "RunConfig",
    "SACRun",
    "conf_dir",
    "is_project",
    "kind_of",
    "leaf_types",
    "leaves",
    "meanings",
    "plain_name",
    "present",
    "read_option",
    "recorded",
    "reference_place",
    "register",
    "run_id",
    "segment_lengths",
    "to_config",
    "to_dict",
    "to_yaml",
    "unknown_key",
    "validate",
    "validate_rollout",
]
