"""Closed-form KL divergences against torch, numerical integration and the Fisher information."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from sailctl.objectives import gaussian_kl, kl_penalty


def gaussians(seed: int = 0, shape: tuple[int, ...] = (5, 7, 3)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means (..., A) and state-independent log stds (A,) of two Gaussians."""
    rng = np.random.default_rng(seed)
    mean_p, mean_q = (torch.tensor(rng.normal(size=shape)) for _ in range(2))
    log_std_p, log_std_q = (torch.tensor(rng.normal(-0.5, 0.7, shape[-1:])) for _ in range(2))
    return mean_p, log_std_p, mean_q, log_std_q


@pytest.mark.parametrize("shape", [(3,), (4, 1), (5, 7, 3)])
def test_equals_torch_distributions(shape: tuple[int, ...]) -> None:
    mean_p, log_std_p, mean_q, log_std_q = gaussians(shape=shape)
    p = Independent(Normal(mean_p, log_std_p.exp()), 1)
    q = Independent(Normal(mean_q, log_std_q.exp()), 1)
    ours = gaussian_kl(mean_p, log_std_p, mean_q, log_std_q)
    assert ours.shape == shape[:-1]
    torch.testing.assert_close(ours, kl_divergence(p, q))


@given(
    mean_p=st.floats(-2, 2),
    mean_q=st.floats(-2, 2),
    log_std_p=st.floats(-1, 1),
    log_std_q=st.floats(-1, 1),
)
def test_equals_numerical_integration(
    mean_p: float, mean_q: float, log_std_p: float, log_std_q: float
) -> None:
    """KL is the integral of p log(p/q); the trapezium rule is as good as exact on so smooth an integrand."""
    width = np.exp(log_std_p)
    x = np.linspace(mean_p - 14 * width, mean_p + 14 * width, 2001)

    def log_density(mean: float, log_std: float) -> np.ndarray:
        return -0.5 * ((x - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)

    log_p, log_q = log_density(mean_p, log_std_p), log_density(mean_q, log_std_q)
    integral = np.trapezoid(np.exp(log_p) * (log_p - log_q), x)
    ours = gaussian_kl(
        *(torch.tensor([v], dtype=torch.float64) for v in (mean_p, log_std_p, mean_q, log_std_q))
    )
    assert ours.item() == pytest.approx(integral, abs=1e-10, rel=1e-10)


def test_directions_are_what_their_names_say() -> None:
    mean, log_std, ref_mean, ref_log_std = gaussians()
    pi = Independent(Normal(mean, log_std.exp()), 1)
    ref = Independent(Normal(ref_mean, ref_log_std.exp()), 1)
    ref_pi = kl_penalty("kl_ref_pi", mean, log_std, ref_mean, ref_log_std)
    pi_ref = kl_penalty("kl_pi_ref", mean, log_std, ref_mean, ref_log_std)
    torch.testing.assert_close(ref_pi, kl_divergence(ref, pi))
    torch.testing.assert_close(pi_ref, kl_divergence(pi, ref))
    assert torch.all((ref_pi - pi_ref).abs() > 1e-3)


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="kl_ref_pi or kl_pi_ref, not 'reverse'"):
        kl_penalty("reverse", *gaussians())


@pytest.mark.parametrize("direction", ["kl_ref_pi", "kl_pi_ref"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_exactly_where_equal_and_nowhere_else(direction: str, dtype: torch.dtype) -> None:
    mean, log_std, _, _ = (x.to(dtype) for x in gaussians())
    assert torch.all(kl_penalty(direction, mean, log_std, mean.clone(), log_std.clone()) == 0)
    for k in range(mean.shape[-1]):
        for sign in (-1, 1):
            step = sign * 0.01 * torch.eye(mean.shape[-1], dtype=dtype)[k]
            assert torch.all(kl_penalty(direction, mean + step, log_std, mean, log_std) > 0)
            assert torch.all(kl_penalty(direction, mean, log_std + step, mean, log_std) > 0)


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-6, 1e-3, 1.0]))
def test_never_negative_beyond_rounding(seed: int, scale: float) -> None:
    mean, log_std, shift, log_shift = gaussians(seed)
    values = gaussian_kl(mean, log_std, mean + scale * shift, log_std + scale * log_shift)
    assert torch.all(values > -1e-15)


@pytest.mark.parametrize("direction", ["kl_ref_pi", "kl_pi_ref"])
def test_gradient_equals_finite_differences(direction: str) -> None:
    mean, log_std, ref_mean, ref_log_std = gaussians(shape=(2, 3))
    inputs = (mean.requires_grad_(), log_std.requires_grad_())
    assert torch.autograd.gradcheck(lambda m, s: kl_penalty(direction, m, s, ref_mean, ref_log_std), inputs)


@pytest.mark.parametrize("direction", ["kl_ref_pi", "kl_pi_ref"])
def test_gradient_vanishes_at_the_reference(direction: str) -> None:
    mean, log_std, _, _ = gaussians()
    inputs = (mean.clone().requires_grad_(), log_std.clone().requires_grad_())
    penalty = kl_penalty(direction, *inputs, mean, log_std).sum()
    for gradient in torch.autograd.grad(penalty, inputs):
        assert torch.all(gradient.abs() < 1e-12)


STATES, FEATURES, ACTIONS = 4, 3, 2


def hessian(direction: str, weights: Tensor, features: Tensor, std: Tensor, ref_std: Tensor) -> Tensor:
    """Hessian in ``weights`` (flattened) of the mean penalty, mean action = features @ weights."""
    ref_mean = torch.tensor(np.random.default_rng(9).normal(size=(STATES, ACTIONS)))

    def penalty(flat: Tensor) -> Tensor:
        mean = features @ flat.view(FEATURES, ACTIONS)
        return kl_penalty(direction, mean, std.log(), ref_mean, ref_std.log()).mean()

    return torch.autograd.functional.hessian(penalty, weights.flatten())


def fisher_information(weights: Tensor, features: Tensor, std: Tensor) -> Tensor:
    """E[score score^T] over states and actions of pi, by Gauss-Hermite quadrature (exact at this degree)."""
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(5)
    noise = torch.tensor(np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, ACTIONS))
    mass = torch.tensor(np.outer(node_weights, node_weights).ravel() / (2 * np.pi))
    actions = (features @ weights)[:, None, :] + std * noise

    def logp(flat: Tensor) -> Tensor:
        mean = features @ flat.view(FEATURES, ACTIONS)
        return Independent(Normal(mean[:, None, :], std), 1).log_prob(actions)

    score = torch.autograd.functional.jacobian(logp, weights.flatten())
    return torch.einsum("snk,snl,n->kl", score, score, mass) / STATES


def test_hessian_in_a_log_linear_policy_is_the_fisher_information() -> None:
    """Mean linear in features, std fixed. It holds for kl_ref_pi whatever the reference's own std is."""
    rng = np.random.default_rng(3)
    features = torch.tensor(rng.normal(size=(STATES, FEATURES)))
    std, ref_std = torch.tensor([0.5, 1.5]), torch.tensor([1.0, 0.4])
    std, ref_std = std.double(), ref_std.double()
    for _ in range(3):
        weights = torch.tensor(3 * rng.normal(size=(FEATURES, ACTIONS)))
        fisher = fisher_information(weights, features, std)
        ours = hessian("kl_ref_pi", weights, features, std, ref_std)
        torch.testing.assert_close(ours, fisher, rtol=1e-10, atol=1e-12)
        assert torch.linalg.eigvalsh(ours).min() > 1e-3
        other = hessian("kl_pi_ref", weights, features, std, ref_std)
        assert (other - fisher).abs().max() > 0.1
        same_std = hessian("kl_pi_ref", weights, features, std, std)
        torch.testing.assert_close(same_std, fisher, rtol=1e-10, atol=1e-12)


def test_only_kl_ref_pi_is_convex_in_natural_parameters() -> None:
    """A Gaussian with both natural parameters free (m / s^2, -1 / (2 s^2)) is log-linear too. There the
    curvature of kl_ref_pi is the Fisher information everywhere; kl_pi_ref bends the other way once the
    policy is narrow (twice the reference's precision or more)."""
    ref_mean, ref_log_std = torch.zeros(1).double(), torch.zeros(1).double()

    def penalty(direction: str) -> object:
        def value(natural: Tensor) -> Tensor:
            variance = -1 / (2 * natural[1])
            mean, log_std = natural[0] * variance, variance.log() / 2
            return kl_penalty(direction, mean[None], log_std[None], ref_mean, ref_log_std)

        return value

    lowest = {"kl_ref_pi": [], "kl_pi_ref": []}
    for mean, variance in [(0.0, 1.0), (0.5, 0.3), (-2.0, 0.1), (1.0, 3.0)]:
        natural = torch.tensor([mean / variance, -1 / (2 * variance)], dtype=torch.float64)
        # covariance of the sufficient statistics (a, a^2)
        fisher = torch.tensor(
            [
                [variance, 2 * mean * variance],
                [2 * mean * variance, 2 * variance**2 + 4 * mean**2 * variance],
            ],
            dtype=torch.float64,
        )
        curvature = torch.autograd.functional.hessian(penalty("kl_ref_pi"), natural)
        torch.testing.assert_close(curvature, fisher)
        for direction, values in lowest.items():
            bend = torch.autograd.functional.hessian(penalty(direction), natural)
            values.append(torch.linalg.eigvalsh(bend).min().item())
    assert min(lowest["kl_ref_pi"]) > 0
    assert min(lowest["kl_pi_ref"]) < -1e-3
