"""Steps that an iteration has moved far enough are moved no further."""

from __future__ import annotations

from torch import Tensor


def clipped_log_prob(logp: Tensor, behaviour_logp: Tensor, clip: float | None) -> Tensor:
    """The same log-probabilities, whose gradient ends where a step has already moved far the way it points.

    The bound of PPO (Schulman et al. 2017, arXiv 1707.06347: the clipped surrogate, whose gradient is zero
    where the ratio of new to old probability has left 1 +- epsilon in the direction that its advantage asks
    for), on the logarithm of the ratio and for the gradient of any loss: descent may not raise log pi of a
    step that stands more than ``clip`` above log pi when the iteration began, nor lower one that stands as
    much below. The way back is free. What a label asks of all steps of a segment is then spread over them,
    instead of over those that yield first, and more passes over the same segments do not run away.

    Args:
        logp: (S, H) log pi of each step, in nats.
        behaviour_logp: (S, H) the same of the policy that drew the segments, without gradient.
        clip: largest change in nats, > 0; None is no bound, and the tensor is returned as it is.

    Returns:
        (S, H) ``logp``, value for value.

    Raises:
        ValueError: when the two shapes differ.
    """
    if logp.shape != behaviour_logp.shape:
        raise ValueError(
            f"log-probabilities {tuple(logp.shape)} and {tuple(behaviour_logp.shape)} must be of one shape"
        )
    if clip is None:
        return logp
    moved = (logp - behaviour_logp).detach()
    bounded = logp.clone()

    def within(gradients: tuple[Tensor]) -> tuple[Tensor]:
        # Descent raises log pi where the gradient of the loss is negative.
        (gradient,) = gradients
        further = (gradient * moved < 0) & (moved.abs() > clip)
        return (gradient.masked_fill(further, 0.0),)

    if bounded.grad_fn is not None:
        bounded.grad_fn.register_prehook(within)
    return bounded
