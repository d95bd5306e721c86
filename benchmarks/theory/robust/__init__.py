"""Oracle-robust SAIL: its decomposition, weak convexity, composite updates, and where they stop being exact.

1. Worst case: L_SAIL + rho E|h| against the largest loss over all teachers within rho of P*, searched by
   projected gradient ascent on the teacher. What the formula charges too much where P* is near 0 or 1.
2. Sets: P within rho of P*, and P* with a share rho of arbitrary answers; the worst order of a ranking.
3. Freezing: from which rho on the reference itself is a stationary point, and the minimum, of L_rho.
4. Weak convexity: the smallest m for which L_rho + m/2 |theta|^2 is convex on the ball.
5. Stationarity: samples until the gradient of the Moreau envelope is small, for the paper's composite update
   (gradient step, proximal map of the sampled rho |h|, projection), for the subgradient step, and for a
   composite update that forgets that theta draws the pairs of the penalty too.
6. Linearity: over several control steps h is quadratic in theta, and what that does to the proximal map.
"""

from benchmarks.theory.robust.convexity import convexity_rows
from benchmarks.theory.robust.drawing import far_rows, sampling_rows
from benchmarks.theory.robust.freezing import freezing_rows
from benchmarks.theory.robust.linearity import linearity_rows
from benchmarks.theory.robust.sets import rankings_rows, sets_rows
from benchmarks.theory.robust.stationarity import stationarity_rows, step_size_rows
from benchmarks.theory.robust.worst_case import worst_case_rows

__all__ = [
    "convexity_rows",
    "far_rows",
    "freezing_rows",
    "linearity_rows",
    "rankings_rows",
    "sampling_rows",
    "sets_rows",
    "stationarity_rows",
    "step_size_rows",
    "worst_case_rows",
]
