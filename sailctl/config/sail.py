"""Settings that SAIL has in both forms, on actions and on segments."""

from __future__ import annotations

from dataclasses import dataclass

from sailctl.config.schema import Algo
from sailctl.config.settings import setting


@dataclass(frozen=True)
class SAILConfig(Algo):
    """The robust cost, the KL penalty and the ball, the reference, and the limit of the gradient."""

    rho: float = setting(
        0.0,
        "bound on the errors of the labels: the true preference may be off by this much, or this share of "
        "answers is arbitrary (algo.worst_case=contaminated); 0 trusts them",
        least=0,
    )
    worst_case: str = setting(
        "exact",
        "exact: rho |h|, right where rho <= min(P, 1 - P) | clipped: probabilities stay in [0, 1], for a "
        "teacher that is never random | contaminated: a share rho of the answers, or rankings, is arbitrary",
        choices=("exact", "clipped", "contaminated"),
    )
    gamma: float = setting(0.0, "weight of the KL penalty per visited state; 0 is no penalty", least=0)
    kl: str = setting(
        "kl_ref_pi",
        "direction of the KL: kl_ref_pi = KL(reference || policy) | kl_pi_ref = KL(policy || reference)",
        choices=("kl_ref_pi", "kl_pi_ref"),
    )
    radius: float | None = setting(
        None, "parameters are projected on the ball of this radius after each step; null is no ball", above=0
    )
    reference: str = setting(
        "initial",
        "initial (start untrained) | weak | medium | expert | a run directory or policy folder: start from "
        "it (policy.* is then not read)",
    )
    observe: int | None = setting(
        None,
        "env steps in which the observation statistics follow what is seen; 0 keeps those of the "
        "reference; null is for ever",
        least=0,
    )
    max_grad_norm: float | None = setting(
        1.0, "gradients are clipped to this norm; null is no limit", above=0
    )
