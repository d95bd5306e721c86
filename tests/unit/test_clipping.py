"""The bound on how far an iteration moves a step: gradients end where they lead further."""

from __future__ import annotations

import pytest
import torch

from sailctl.objectives import clipped_log_prob

BEFORE = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.3, -0.7]], dtype=torch.float64)
MOVED = torch.tensor([[0.3, -0.3, 0.1], [-0.1, 0.19, -0.25]], dtype=torch.float64)
"""Beyond 0.2: raised, lowered, -; -, -, lowered."""


@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        # Descent raises log pi where the weight of the loss is below 0: the first may not rise further.
        ((-1.0, -1.0, -1.0, -1.0, -1.0, -1.0), (0, 1, 1, 1, 1, 1)),
        ((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), (1, 0, 1, 1, 1, 0)),
        ((-2.0, 3.0, 5.0, -7.0, 11.0, -13.0), (0, 0, 1, 1, 1, 1)),
    ],
)
def test_a_gradient_ends_where_it_leads_further(weights: tuple[float, ...], kept: tuple[int, ...]):
    logp = (BEFORE + MOVED).requires_grad_()
    given = torch.tensor(weights, dtype=torch.float64).reshape(2, 3)
    bounded = clipped_log_prob(logp, BEFORE, 0.2)
    assert torch.equal(bounded, logp)
    (given * bounded).sum().backward()
    assert torch.equal(logp.grad, given * torch.tensor(kept).reshape(2, 3))


def test_a_step_that_moved_by_exactly_the_bound_keeps_its_gradient():
    logp = torch.tensor([[0.25, 0.26]], dtype=torch.float64, requires_grad=True)
    (-clipped_log_prob(logp, torch.zeros(1, 2, dtype=torch.float64), 0.25)).sum().backward()
    assert logp.grad.tolist() == [[-1.0, 0.0]]


def test_it_is_the_clipped_surrogate_of_ppo():
    """min(r A, clip(r) A) of Schulman et al. 2017, whose bounds are on r: the same steps are left out."""
    rng = torch.Generator().manual_seed(0)
    before = torch.randn(500, 1, generator=rng, dtype=torch.float64)
    moved = 0.3 * torch.randn(500, 1, generator=rng, dtype=torch.float64)
    advantage = torch.randn(500, 1, generator=rng, dtype=torch.float64)

    theirs = (before + moved).requires_grad_()
    ratio = (theirs - before).exp()
    bounds = torch.tensor([-0.2, 0.2], dtype=torch.float64).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(bounds[0], bounds[1]) * advantage)
    surrogate.sum().neg().backward()

    ours = (before + moved).requires_grad_()
    loss = -(advantage * (clipped_log_prob(ours, before, 0.2) - before).exp()).sum()
    loss.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=0)
    assert 0.1 < (ours.grad == 0).double().mean() < 0.9


def test_without_a_bound_nothing_is_added():
    logp = BEFORE.clone().requires_grad_()
    assert clipped_log_prob(logp, BEFORE, None) is logp


def test_a_tensor_without_gradient_passes():
    assert torch.equal(clipped_log_prob(BEFORE + MOVED, BEFORE, 0.2), BEFORE + MOVED)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        clipped_log_prob(BEFORE, BEFORE[:, :2], 0.2)
