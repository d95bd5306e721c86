"""The critic: it learns a value that is known, its copies follow, and no action trains it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sailctl.algorithms.critic import Critic, clamp
from sailctl.core.types import NonFiniteError

DISCOUNT, ACTED = 0.8, 0.5


def critic_of(seed: int = 0, lr: float = 3e-3, tau: float = 0.05) -> Critic:
    return Critic(3, [32, 32], lr, tau, np.random.default_rng(seed))


def batch_of(rng: np.random.Generator, count: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Two states, +1 and -1, that follow each other; the reward is the state times the action."""
    state = torch.from_numpy(rng.choice([-1.0, 1.0], count).astype(np.float32))
    actions = torch.from_numpy(rng.uniform(-1, 1, (count, 1)).astype(np.float32))
    return features(state), actions, state * actions[:, 0]


def features(state: Tensor) -> Tensor:
    return torch.stack([state, 1 - state], dim=1)


def test_a_known_value_is_learned():
    """The policy always does ACTED: V(s) = s (ACTED - DISCOUNT V), so Q(s, a) = s (a - DISCOUNT V)."""
    critic, rng = critic_of(), np.random.default_rng(1)
    for _ in range(1500):
        seen, actions, reward = batch_of(rng)
        followed = critic.target(features(-seen[:, 0]), torch.full_like(actions, ACTED))
        critic.update(seen, actions, reward + DISCOUNT * followed)
    value = ACTED / (1 + DISCOUNT)
    state = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    actions = torch.tensor([-0.8, 0.0, 0.8, -0.8, 0.0, 0.8])
    found = critic.values(features(state), actions[:, None]).amin(0)
    torch.testing.assert_close(found, state * (actions - DISCOUNT * value), rtol=0, atol=0.1)
    assert critic.updates == 1500


def test_the_copies_behind_the_targets_take_over_exactly_tau():
    critic, rng = critic_of(tau=0.25), np.random.default_rng(2)
    for _ in range(3):
        before = {name: value.clone() for name, value in critic.state()["targets"].items()}
        critic.update(*batch_of(rng))
        state = critic.state()
        for name, old in before.items():
            assert torch.equal(state["targets"][name], old.lerp(state["networks"][name], 0.25)), name
        assert any(not torch.equal(state["targets"][name], state["networks"][name]) for name in before)


def test_targets_are_of_the_copies_and_values_of_what_is_trained():
    critic, rng = critic_of(), np.random.default_rng(3)
    seen, actions, _ = batch_of(rng)
    assert torch.equal(critic.values(seen, actions).amin(0), critic.target(seen, actions))
    for _ in range(20):
        critic.update(*batch_of(rng))
    assert not torch.allclose(critic.values(seen, actions).amin(0), critic.target(seen, actions), atol=1e-3)
    known = critic.state()
    other = critic_of(seed=9)
    other.restore(known)
    assert torch.equal(other.values(seen, actions), critic.values(seen, actions))
    assert torch.equal(other.target(seen, actions), critic.target(seen, actions))


def test_the_smaller_of_two_answers_counts_in_targets():
    critic, rng = critic_of(), np.random.default_rng(4)
    seen, actions, _ = batch_of(rng)
    both = critic._networks(torch.cat([seen, actions], dim=1))
    assert both.shape == (2, 64)
    assert (both[0] < both[1]).any()
    assert (both[0] > both[1]).any()
    torch.testing.assert_close(critic.values(seen, actions), both)
    torch.testing.assert_close(critic.target(seen, actions), torch.minimum(*both))


def test_a_value_has_its_gradient_in_the_actions_and_none_in_the_parameters():
    critic, rng = critic_of(), np.random.default_rng(5)
    for _ in range(20):
        critic.update(*batch_of(rng))
    before = {name: value.clone() for name, value in critic.state()["networks"].items()}
    seen, actions, _ = batch_of(rng)
    wide = actions[:, None].expand(-1, 4, -1).clone().requires_grad_()
    both = critic.values(seen[:, None].expand(-1, 4, -1), wide)
    assert both.shape == (2, 64, 4)
    value = both.amin(0)
    critic._networks.zero_grad(set_to_none=True)
    value.sum().backward()
    step = torch.full_like(actions, 1e-2)
    up, down = (critic.values(seen, actions + side * step).amin(0) for side in (1, -1))
    slope = (up - down) / 2e-2
    inside = actions[:, 0].abs() < 0.98
    torch.testing.assert_close(wide.grad[inside, 0, 0], slope[inside], rtol=0.2, atol=0.05)
    assert all(parameter.grad is None for parameter in critic._networks.parameters())
    assert all(torch.equal(critic.state()["networks"][name], old) for name, old in before.items())


def test_an_action_beyond_the_range_is_worth_what_its_limit_is():
    critic, rng = critic_of(), np.random.default_rng(6)
    seen, actions, _ = batch_of(rng)
    assert torch.equal(critic.values(seen, 10 * actions), critic.values(seen, (10 * actions).clamp(-1, 1)))
    assert torch.equal(critic.target(seen, 10 * actions), critic.target(seen, (10 * actions).clamp(-1, 1)))


def test_a_slope_beyond_the_range_leads_back_into_it_and_never_further_out():
    actions = torch.tensor([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], requires_grad=True)
    for sign, kept in ((1.0, [0, 1, 1, 1, 1, 1]), (-1.0, [1, 1, 1, 1, 1, 0])):
        actions.grad = None
        torch.autograd.backward((sign * clamp(actions)).sum())  # descent goes down with sign 1, up with -1
        assert actions.grad is not None
        assert actions.grad.tolist() == [sign * number for number in kept]
    assert clamp(actions).tolist() == actions.clamp(-1, 1).tolist()


def test_the_error_is_that_before_the_step():
    critic, rng = critic_of(), np.random.default_rng(7)
    seen, actions, wanted = batch_of(rng)
    both = critic._networks(torch.cat([seen, actions], dim=1)).detach()
    error = critic.update(seen, actions, wanted)
    assert float(error) == pytest.approx(float((both - wanted).square().mean()), rel=1e-5)


def test_what_is_not_a_number_is_refused():
    critic, rng = critic_of(), np.random.default_rng(8)
    seen, actions, wanted = batch_of(rng)
    critic.update(seen, actions, wanted)
    critic.refuse_non_finite()
    before = torch.nn.utils.parameters_to_vector(critic._networks.parameters()).detach().clone()
    wanted[3] = torch.nan
    with pytest.raises(
        NonFiniteError, match=r"error of the critic is not finite after 1 updates; a smaller algo"
    ) as found:
        critic.update(seen, actions, wanted)
    assert torch.equal(torch.nn.utils.parameters_to_vector(critic._networks.parameters()), before)
    given = {"features": seen, "actions": actions, "targets": wanted}
    assert found.value.batch.keys() == given.keys()
    for name, tensor in given.items():
        assert torch.equal(found.value.batch[name].nan_to_num(7.0), tensor.nan_to_num(7.0))


def test_parameters_that_are_not_finite_are_shown_with_the_last_minibatch():
    critic, rng = critic_of(), np.random.default_rng(8)
    seen, actions, wanted = batch_of(rng)
    critic.update(seen, actions, wanted)
    with torch.no_grad():
        next(iter(critic._networks.parameters()))[0, 0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"the critic is not finite after 1 updates") as found:
        critic.refuse_non_finite()
    shown = found.value.batch
    assert shown["features"] is seen
    assert shown["actions"] is actions
    assert shown["targets"] is wanted
    assert any(not torch.isfinite(tensor).all() for tensor in shown.values())
