"""Objectives as pure functions of log-probability tensors, without policy, config, device or optimiser."""

from sailctl.objectives.actions import (
    action_labels,
    effective_beta,
    label_temperature,
    pathwise_action_loss,
    pessimistic_value,
    ranked_action_loss,
    score_action_loss,
)
from sailctl.objectives.clipping import clipped_log_prob
from sailctl.objectives.kl import gaussian_kl, kl_penalty
from sailctl.objectives.projection import project_ball
from sailctl.objectives.ranking import plackett_luce, ranking_cost, ranking_loss
from sailctl.objectives.robust import label_cost, robust_cost
from sailctl.objectives.sail import dpo_loss, leave_one_group_out, pair_score, sail_loss, score_function_terms

__all__ = [
    "action_labels",
    "clipped_log_prob",
    "dpo_loss",
    "effective_beta",
    "gaussian_kl",
    "kl_penalty",
    "label_cost",
    "label_temperature",
    "leave_one_group_out",
    "pair_score",
    "pathwise_action_loss",
    "pessimistic_value",
    "plackett_luce",
    "project_ball",
    "ranked_action_loss",
    "ranking_cost",
    "ranking_loss",
    "robust_cost",
    "sail_loss",
    "score_action_loss",
    "score_function_terms",
]
