"""Where training starts: a new policy, or one that can do something already."""

from __future__ import annotations

from sailctl.config import RunConfig, reference_place
from sailctl.core.seeding import Generators
from sailctl.core.types import EnvSpec, UserError
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.checkpoint import load_policy


def first_policy(config: RunConfig, spec: EnvSpec, generators: Generators) -> GaussianPolicy:
    """The policy that training starts from: a new one, or the reference that ``algo.reference`` names.

    Raises:
        UserError: when the reference was made for another task.
    """
    place = reference_place(config)
    if place is None:
        return GaussianPolicy(config.policy, spec, generators.init)
    policy = load_policy(place.parent)
    if policy.spec.id != spec.id:
        raise UserError(
            f"algo.reference={config.algo.reference} is a policy for {policy.spec.id}, not for {spec.id}"
        )
    return policy


def check_in_ball(policy: GaussianPolicy, radius: float | None, reference: str) -> None:
    """Refuse to train a policy that the first step would cut down to ``radius``.

    Args:
        policy: where training starts.
        radius: of the ball; None is no ball.
        reference: what ``algo.reference`` calls the policy.

    Raises:
        UserError: when it lies outside of the ball.
    """
    norm = policy.norm()
    if radius is not None and norm > radius:
        raise UserError(
            f"algo.radius must be above {norm:.4g}, the norm of the parameters of the {reference} "
            f"policy that training starts from, got {radius:g}"
        )
