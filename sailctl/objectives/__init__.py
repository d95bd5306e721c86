"""Pure maths on log-probability tensors, one file per idea: no policy, config, device or optimiser."""

from sailctl.objectives.clipping import clipped_log_prob
from sailctl.objectives.kl import gaussian_kl, kl_penalty
from sailctl.objectives.projection import project_ball
from sailctl.objectives.ranking import plackett_luce, ranking_loss
from sailctl.objectives.robust import moreau_gradient, prox_abs, prox_mean_abs, robust_cost
from sailctl.objectives.sail import dpo_loss, leave_one_group_out, pair_score, sail_loss, score_function_terms

__all__ = [
    "clipped_log_prob",
    "dpo_loss",
    "gaussian_kl",
    "kl_penalty",
    "leave_one_group_out",
    "moreau_gradient",
    "pair_score",
    "plackett_luce",
    "project_ball",
    "prox_abs",
    "prox_mean_abs",
    "ranking_loss",
    "robust_cost",
    "sail_loss",
    "score_function_terms",
]
