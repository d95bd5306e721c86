"""What an error of the value does to SAIL-RevKL, and to SAIL at equal beta_eff."""

from __future__ import annotations

from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.critic.problem import random_problems, random_waves, where_it_stops
from sailctl.objectives import effective_beta

PROBLEMS = 60
BETA, GAMMA, TAU = 0.3, 0.1, 0.3
SIZES = (0.0, 0.3, 1.0, 3.0, 10.0)
"""Standard deviation of the error of Q, in units of that of Q."""
RADIUS = 1.5
"""The ball around the reference: a policy that ends outside has left it."""


def error_rows() -> list[Row]:
    """For each size of the error and each algorithm, over random problems with a random error each.

    ``gain`` is the true value that ascent along the wrong one gained, ``believed`` what the wrong value
    promised; ``left`` is the share of policies that end farther than ``RADIUS`` from the reference.
    """
    problems = random_problems(PROBLEMS)
    error = random_waves(PROBLEMS, seed=99)
    arms = {
        "sail": {"beta": BETA},
        "sail_revkl": {"beta": BETA, "gamma": GAMMA},
        "sail_equal_beta": {"beta": effective_beta(BETA, GAMMA)},
    }
    rows: list[Row] = []
    for size in SIZES:

        def wrong(actions: Tensor, size: float = size) -> Tensor:
            return problems.value(actions) + size * error(actions)

        for name, settings in arms.items():
            theta = where_it_stops(problems, tau=TAU, value=wrong, **settings)
            start = problems.reference
            gain = problems.expected_value(theta) - problems.expected_value(start)
            believed = problems.expected_value(theta, wrong) - problems.expected_value(start, wrong)
            away = (theta - start).norm(dim=1)
            rows.append(
                {
                    "algorithm": name,
                    "error": size,
                    "gain_mean": float(gain.mean()),
                    "gain_q05": float(gain.quantile(0.05)),
                    "share_worse": float((gain < 0).double().mean()),
                    "believed_mean": float(believed.mean()),
                    "kl_median": float(problems.kl(theta).median()),
                    "distance_median": float(away.median()),
                    "left": float((away > RADIUS).double().mean()),
                }
            )
    return rows
