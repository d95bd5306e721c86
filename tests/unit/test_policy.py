"""Gaussian policies: densities, running statistics, actuator ranges, and Stable-Baselines3's ``predict``."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal

from sailctl.config import PolicyConfig
from sailctl.core.types import EnvSpec
from sailctl.policies.policy import GaussianPolicy
from sailctl.simulator.batched import TaskSimulator
from sailctl_envs import ALL_TASKS

MLP = PolicyConfig("mlp", [16, 8], 0, 0.6, True, True)
LINEAR = PolicyConfig("linear", [], 12, 0.4, False, True)
SPEC = EnvSpec("toy-v0", 4, 3, np.array([-1.0, -2.0, 0.0]), np.array([1.0, 3.0, 0.5]), 100, 0.1)

KINDS = pytest.mark.parametrize("config", [MLP, LINEAR], ids=["mlp", "linear"])


def policy_of(config: PolicyConfig, spec: EnvSpec = SPEC, seed: int = 0) -> GaussianPolicy:
    return GaussianPolicy(config, spec, np.random.default_rng(seed))


def trained(config: PolicyConfig, spec: EnvSpec = SPEC) -> GaussianPolicy:
    """A policy away from its start: random parameters, different deviations, statistics of real numbers."""
    policy, rng = policy_of(config, spec), np.random.default_rng(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.from_numpy(rng.normal(0, 0.3, parameter.shape).astype(np.float32)))
    policy.observe(rng.normal(2.0, 3.0, (50, spec.obs_dim)).astype(np.float32))
    return policy


@KINDS
def test_log_prob_is_the_normal_density(config: PolicyConfig):
    policy, seed = trained(config), torch.Generator().manual_seed(2)
    actions = torch.randn(5, 7, 3, generator=seed)
    mean = policy.mean(policy.features(torch.randn(5, 7, 4, generator=seed)))
    found = policy.log_prob(mean, actions)
    expected = Normal(mean.double(), policy.log_std.double().exp()).log_prob(actions.double()).sum(-1)
    assert found.shape == (5, 7)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_entropy_is_that_of_the_normal_distribution():
    policy = trained(MLP)
    expected = Normal(torch.zeros(3), policy.log_std.detach().exp()).entropy().sum()
    assert policy.entropy() == pytest.approx(float(expected), rel=1e-5)


@KINDS
def test_it_starts_near_the_middle_with_the_deviation_asked_for(config: PolicyConfig):
    policy = policy_of(config)
    np.testing.assert_allclose(policy.log_std.detach().exp(), config.initial_std, rtol=1e-6)
    assert policy.log_std.requires_grad == config.learn_std
    means = policy.act(np.random.default_rng(0).normal(size=(100, 4)), None)
    assert np.abs(means).max() < 0.2


def test_draws_have_the_mean_and_deviation_of_the_policy():
    policy, n = trained(MLP), 40_000
    obs = np.repeat(np.array([[0.5, -1.0, 2.0, 0.0]]), n, axis=0)
    noise = np.random.default_rng(0).standard_normal((n, 3), dtype=np.float32)
    actions, std = policy.act(obs, noise), np.exp(policy.log_std.detach().numpy())
    assert (np.abs(actions.mean(0) - policy.act(obs[:8], None)[0]) < 5 * std / np.sqrt(n)).all()
    np.testing.assert_allclose(actions.std(0), std, rtol=0.03)


def test_a_log_linear_policy_is_linear_up_to_a_quadratic_normaliser():
    """log pi(a|s) as a function of theta has one Hessian, whatever theta and whatever the action."""
    policy = policy_of(LINEAR).double()
    assert isinstance(policy.net, torch.nn.Linear)
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=16))
    weight = policy.net.weight.shape
    cut = weight.numel()

    def log_prob(theta: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        mean = torch.nn.functional.linear(features, theta[:cut].reshape(weight), theta[cut:])
        return policy.log_prob(mean, action)

    hessians = []
    for _ in range(4):
        theta = torch.from_numpy(rng.normal(size=cut + policy.net.bias.numel()))
        action = torch.from_numpy(rng.normal(size=3))
        hessians.append(torch.autograd.functional.hessian(lambda x, a=action: log_prob(x, a), theta))
    for other in hessians[1:]:
        torch.testing.assert_close(other, hessians[0], rtol=1e-9, atol=1e-9)
    assert torch.linalg.eigvalsh(hessians[0]).max() < 1e-9
    assert torch.linalg.eigvalsh(hessians[0]).min() < -1.0


def test_fourier_features_are_a_gaussian_kernel():
    """Inner products of the random features approach exp(-|x - y|^2 / 2d): width 1 per dimension."""
    policy = policy_of(replace(LINEAR, features=20_000, normalise=False))
    one, two = torch.tensor([0.3, -1.0, 0.5, 2.0]), torch.tensor([-0.4, 0.2, 1.5, 1.0])
    waves = [policy.features(x)[4:].double() for x in (one, two)]
    kernel = torch.exp(-(one - two).square().sum().double() / (2 * 4))
    assert float(waves[0] @ waves[1]) == pytest.approx(float(kernel), abs=0.04)
    torch.testing.assert_close(policy.features(one)[:4], one)


def test_features_have_no_parameters():
    policy = trained(LINEAR)
    assert not policy.features(torch.randn(5, 4)).requires_grad
    assert sorted(name for name, _ in policy.named_parameters()) == ["log_std", "net.bias", "net.weight"]


@pytest.mark.parametrize("task", ["halfcheetah-v5", "humanoid-v5", "pusher-v5"])  # within 1, 0.4 and 2
def test_controls_span_the_actuators_range(task: str):
    spec = TaskSimulator(ALL_TASKS[task]()).spec
    policy = policy_of(MLP, spec)
    ones = np.ones((1, spec.act_dim), np.float32)
    middle = 0.5 * (spec.act_low + spec.act_high)
    for action, expected in {
        -1.0: spec.act_low,
        1.0: spec.act_high,
        0.0: middle,
        0.5: 0.5 * (middle + spec.act_high),
        -7.0: spec.act_low,
        7.0: spec.act_high,
    }.items():
        np.testing.assert_allclose(policy.to_controls(action * ones)[0], expected, atol=1e-12)
    gym_space = gymnasium.make(ALL_TASKS[task].gymnasium_id).action_space
    np.testing.assert_allclose(spec.act_low, gym_space.low)
    np.testing.assert_allclose(spec.act_high, gym_space.high)


def test_controls_of_an_asymmetric_range():
    controls = policy_of(MLP).to_controls(np.array([[0.5, 0.5, 0.5]], np.float32))
    np.testing.assert_allclose(controls, [[0.5, 1.75, 0.375]])


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6), offset=st.floats(-1e3, 1e3))
def test_statistics_are_those_of_all_batches_together(sizes: list[int], offset: float):
    policy, rng = policy_of(MLP), np.random.default_rng(sum(sizes))
    scale = np.array([0.1, 1.0, 10.0, 100.0])
    batches = [(offset + scale * rng.normal(size=(n, 4))).astype(np.float32) for n in sizes]
    for batch in batches:
        policy.observe(batch)
    everything = np.concatenate(batches).astype(np.float64)
    assert float(policy.obs_count) == len(everything)
    if len(everything):
        np.testing.assert_allclose(policy.obs_mean, everything.mean(0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(policy.obs_var, everything.var(0), rtol=1e-7, atol=1e-9)
    else:
        assert (policy.obs_mean == 0).all()
        assert (policy.obs_var == 1).all()


def test_features_are_normalised_and_clipped():
    policy, rng = policy_of(MLP), np.random.default_rng(0)
    obs = rng.normal([5.0, -3.0, 0.0, 100.0], [2.0, 0.1, 1.0, 30.0], (500, 4)).astype(np.float32)
    policy.observe(obs)
    features = policy.features(torch.from_numpy(obs))
    np.testing.assert_allclose(features.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(features.std(0, correction=0), 1.0, rtol=1e-3)
    far = policy.features(torch.full((4,), 1e6))
    assert far.tolist() == [10.0] * 4


def test_an_observation_that_never_varies_stays_finite():
    policy = policy_of(MLP)
    policy.observe(np.full((10, 4), 3.0, np.float32))
    assert torch.isfinite(policy.features(torch.full((4,), 3.0))).all()
    assert policy.features(torch.full((4,), 4.0)).tolist() == [10.0] * 4


def test_without_normalisation_features_are_the_observations():
    policy = policy_of(replace(MLP, normalise=False))
    obs = torch.full((2, 4), 123.0)
    policy.observe(obs.numpy())
    assert float(policy.obs_count) == 0
    torch.testing.assert_close(policy.features(obs), obs, rtol=0, atol=0)


@KINDS
def test_one_seed_is_one_policy(config: PolicyConfig):
    torch.manual_seed(1)
    one = policy_of(config, seed=3).state_dict()
    torch.manual_seed(2)  # the global generator has no part in it
    two, other = policy_of(config, seed=3).state_dict(), policy_of(config, seed=4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    weights = "net.weight" if config.kind == "linear" else "net.0.weight"
    assert not torch.equal(one[weights], other[weights])


@KINDS
def test_a_snapshot_is_frozen_and_independent(config: PolicyConfig):
    policy = trained(config)
    obs = np.random.default_rng(0).normal(size=(6, 4))
    before = policy.act(obs, None)
    twin = policy.snapshot()
    np.testing.assert_array_equal(twin.act(obs, None), before)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    policy.observe(np.full((100, 4), 50.0, np.float32))
    np.testing.assert_array_equal(twin.act(obs, None), before)
    assert not np.allclose(policy.act(obs, None), before)
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert any(parameter.requires_grad for parameter in policy.parameters())


@KINDS
def test_predict_is_the_mean_action_in_actuator_units(config: PolicyConfig):
    policy = trained(config)
    obs = np.random.default_rng(0).normal(2.0, 3.0, (6, 4))
    controls, state = policy.predict(obs)
    assert state is None
    assert controls.shape == (6, 3)
    assert controls.dtype == np.float32
    np.testing.assert_allclose(controls, policy.to_controls(policy.act(obs, None)), rtol=1e-6)
    np.testing.assert_array_equal(controls, policy.predict(obs, deterministic=True)[0])
    single, _ = policy.predict(obs[0])
    assert single.shape == (3,)
    np.testing.assert_allclose(single, controls[0], rtol=1e-5, atol=1e-6)


def test_predict_draws_when_asked_to():
    policy, n = policy_of(replace(MLP, initial_std=0.2)), 5000
    obs = np.zeros((n, 4))
    torch.manual_seed(0)
    one, two = policy.predict(obs, deterministic=False)[0], policy.predict(obs, deterministic=False)[0]
    assert not np.array_equal(one, two)
    torch.manual_seed(0)
    np.testing.assert_array_equal(policy.predict(obs, deterministic=False)[0], one)
    half_range = 0.5 * (SPEC.act_high - SPEC.act_low)
    np.testing.assert_allclose(one.std(0), 0.2 * half_range, rtol=0.06)
    assert np.unique(one[:, 0]).size > n // 2, "each row has its own noise"
    loud = policy_of(replace(MLP, initial_std=5.0)).predict(obs, deterministic=False)[0]
    assert (loud >= SPEC.act_low.astype(np.float32)).all()
    assert (loud <= SPEC.act_high.astype(np.float32)).all()


@pytest.mark.parametrize("shape", [(), (3,), (5,), (2, 5), (4, 1), (2, 2, 4)])
def test_predict_refuses_observations_of_another_shape(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="toy-v0 observes 4 numbers"):
        policy_of(MLP).predict(np.zeros(shape))
