"""SAIL-RevKL converges: what holds of it along projected gradient ascent, exact and stochastic.

Log-linear policies on enumerable problems. Three objectives side by side: J (SAIL),
J - gamma KL(pi_ref || pi) (the paper's penalty, as its authors compute it) and J - gamma KL(pi || pi_ref).
Three kinds of start: the reference, the neighbourhood of a saddle of J, and a point where the policy is
almost deterministic.

1. Paths: exact ascent; the Polyak-Lojasiewicz constant mu = min |G|^2 / (2 gap) along it, with the gap to the
   global maximum in the ball, and G the gradient mapping of the projection. The same on whole spheres.
2. Noise: with a constant step the stochastic ascent ends in a ball whose size is that of the step. To first
   order in the step the mean gap in it is step * tr C / 4, C the covariance of the gradient (derived).
3. Samples: how many the stochastic ascent needs until the mean gap over seeds is eps.
4. Bias: what gamma takes from J: J(theta*) - J(theta_gamma) <= gamma KL(theta*), and from where.
"""

from benchmarks.theory.convergence.bias import bias_rows
from benchmarks.theory.convergence.noise import noise_rows
from benchmarks.theory.convergence.paths import path_rows
from benchmarks.theory.convergence.samples import sample_rows
from benchmarks.theory.convergence.spheres import radius_rows

__all__ = [
    "bias_rows",
    "noise_rows",
    "path_rows",
    "radius_rows",
    "sample_rows",
]
