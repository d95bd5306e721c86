"""The curvature of J and of J - gamma KL on the ball ||theta|| <= B, for both directions of the KL.

All Hessians are exact. Three thresholds are compared above which gamma makes J - gamma KL(pi_ref || pi_theta)
concave on the ball:

- bound: M / lambda_F, with M the largest eigenvalue of Hess J and lambda_F the smallest of the Fisher
  information, both over the ball;
- tight: the largest eigenvalue of Hess J relative to the Fisher information, over the ball;
- any radius: 2 log 2 + 4 beta (1 + log Y + max log 1/pi_ref), which needs no ball at all (derived, see
  ``any_radius_threshold``).

With KL(pi_theta || pi_ref) there is no such threshold: the range of gamma that works, if any, is searched.
"""

from benchmarks.theory.landscape.many_problems import problem_rows
from benchmarks.theory.landscape.one_problem import ball_row

__all__ = [
    "ball_row",
    "problem_rows",
]
