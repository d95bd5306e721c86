"""Clipping of the change of log-probabilities in an iteration, as in PPO, for any loss."""

from __future__ import annotations

from torch import Tensor


def clipped_log_prob(logp: Tensor, behaviour_logp: Tensor, clip: float | None) -> Tensor:
    """The same log-probabilities, with zero gradient where descent would exceed the allowed change.

    In the clipped surrogate of PPO (Schulman et al. 2017, arXiv 1707.06347), the gradient is zero if the
    ratio of new to old probability has left 1 +- epsilon in the direction of the advantage. Here the bound is
    on the logarithm of the ratio, for the gradient of any loss: descent does not raise log pi of a step that
    is more than ``clip`` above its value at the start of the iteration, nor lower one that is as much below.
    Descent towards the initial value is not restricted. This distributes the change that a label demands over
    all steps of a segment, and bounds the change over many epochs.

    Args:
        logp: (S, H) log pi of each step, in nats.
        behaviour_logp: (S, H) the same of the policy that sampled the segments, without gradient.
        clip: largest change in nats, > 0; None for no bound, which returns the tensor itself.

    Returns:
        (S, H) the values of ``logp``.

    Raises:
        ValueError: when the two shapes differ.
    """
    if logp.shape != behaviour_logp.shape:
        raise ValueError(
            f"log-probabilities {tuple(logp.shape)} and {tuple(behaviour_logp.shape)} must be of one shape"
        )
    if clip is None:
        return logp
    change = (logp - behaviour_logp).detach()
    clipped = logp.clone()

    def clip_gradient(gradients: tuple[Tensor]) -> tuple[Tensor]:
        # Descent raises log pi where the gradient of the loss is negative.
        (gradient,) = gradients
        too_far = (gradient * change < 0) & (change.abs() > clip)
        return (gradient.masked_fill(too_far, 0.0),)

    if clipped.grad_fn is not None:
        clipped.grad_fn.register_prehook(clip_gradient)
    return clipped
