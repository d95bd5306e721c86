"""Pure maths on log-probability tensors, one file per idea: no policy, config, device or optimiser."""

from sailctl.objectives.kl import gaussian_kl, kl_penalty
from sailctl.objectives.projection import project_ball
from sailctl.objectives.sail import dpo_loss, leave_one_group_out, pair_score, sail_loss

__all__ = [
    "dpo_loss",
    "gaussian_kl",
    "kl_penalty",
    "leave_one_group_out",
    "pair_score",
    "project_ball",
    "sail_loss",
]
