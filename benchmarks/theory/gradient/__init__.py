"""Is T1 + c T2 the gradient of J? Exactly at c = 1, and how far from it elsewhere.

The estimator is the project's own ``sail_loss``, summed over every sample that it could draw. The truth is
independent of it: J itself, enumerated (responses) or integrated (actions), and differentiated.

1. Responses: 1000 random problems for each beta, at a random theta.
2. Fixed points: where the flow of T1 + c T2 stops, and what J and the true quality are there.
3. Control: two actions of the project's Gaussian policy in a linear system, integrated by Gauss-Hermite
   quadrature. J is differentiated through the dynamics, which the estimator never sees.
"""

from benchmarks.theory.gradient.fixed_points import control_fixed_point_rows, fixed_point_rows
from benchmarks.theory.gradient.quadrature import control_bias_rows, quadrature_rows
from benchmarks.theory.gradient.responses import response_rows

__all__ = [
    "control_bias_rows",
    "control_fixed_point_rows",
    "fixed_point_rows",
    "quadrature_rows",
    "response_rows",
]
