"""SAIL's designs DDP, DPP and DPR, mixed with weight w into a fixed set of labelled pairs.

1. Identities: the expectation of the project's estimator with c = 1 is the gradient of the mixture's
   objective, (1 - w) E_data[F] + w E_design[F], also with a KL penalty and with a robust cost; what c = 0
   leaves out; the policy's own labels give T1 no mean; DDP's objective is minus the entropy of sigma(h).
2. Maps: what ascending T1 + c (T2 + T3) does to the true quality, over (w, c), on problems with few labelled
   pairs. DPR is asked twice: with the teacher's fresh labels, and with those of a reward model that was
   fitted to the same few pairs.
"""

from benchmarks.theory.designs.identities import identity_rows, own_label_rows
from benchmarks.theory.designs.maps import map_rows

__all__ = [
    "identity_rows",
    "map_rows",
    "own_label_rows",
]
