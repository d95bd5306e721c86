"""The initial policy of training: a new one, or a pretrained reference policy."""

from __future__ import annotations

from sailctl.config import RunConfig, reference_place
from sailctl.core.seeding import Generators
from sailctl.core.types import EnvSpec, UserError
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.checkpoint import load_policy


def first_policy(config: RunConfig, spec: EnvSpec, generators: Generators) -> GaussianPolicy:
    """The initial policy: a new one, or the reference policy of ``algo.reference``.

    Raises:
        UserError: when the reference is for another task.
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
    """Check that the projection onto the ball would not change the initial policy.

    Args:
        policy: the initial policy.
        radius: of the ball; None for no ball.
        reference: the value of ``algo.reference``.

    Raises:
        UserError: when the parameters lie outside the ball.
    """
    norm = policy.norm()
    if radius is not None and norm > radius:
        raise UserError(
            f"algo.radius must be above {norm:.4g}, the norm of the parameters of the {reference} "
            f"policy that training starts from, got {radius:g}"
        )
