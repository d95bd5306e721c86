"""SAIL on single actions: its two gradient forms, its effective beta, and what an error of the value does.

1. Gradients: the pathwise and the score form against the derivative of J, and the noise of both.
2. First order: near the reference T1 is (beta / 2) [grad E[Q / tau] - beta grad KL], so that SAIL-RevKL(beta,
   gamma) moves as SAIL does with beta_eff = beta + 2 gamma / beta; and how far from it that is true.
3. Errors: the value is wrong by a given size. Where SAIL-RevKL and SAIL at equal beta_eff stop, what the true
   value of that is, and how many leave the ball. Here and in 2, T2 is left out (c = 0).
"""

from benchmarks.theory.critic.errors import error_rows
from benchmarks.theory.critic.first_order import effective_rows, first_order_rows
from benchmarks.theory.critic.gradients import gradient_rows

__all__ = ["effective_rows", "error_rows", "first_order_rows", "gradient_rows"]
