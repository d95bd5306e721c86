"""Gaussian policies: with a tanh network, with a mean linear in fixed features (log-linear), or SAC's actor.

Actions are in *policy units*: -1 and +1 are the bounds of the controls. Sampled actions may exceed them, and
``to_controls`` clips. Log-probabilities are those of the sampled actions, before clipping. Observation
statistics are part of the policy: they are saved with it and copied into references.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sailctl.config import PolicyConfig
from sailctl.core.types import DoubleArray, EnvSpec, FloatArray

OBS_CLIP = 10.0
"""Normalised observations are clipped to this number of standard deviations."""
VARIANCE_FLOOR = 1e-6
"""Added to each variance, to avoid a division by zero for constant observations."""


class GaussianPolicy(nn.Module):
    """pi(a|s) = Normal(mean(s), diag(exp(log_std))^2), with a state-independent standard deviation.

    ``config.kind == "linear"`` with ``learn_std`` false is log-linear: log pi is linear in the parameters
    up to a normaliser that is quadratic in them. The theory of [RevKL] holds for this class.
    ``config.kind == "squashed"`` is tanh of a ReLU network: the mean is SAC's deterministic action. ``relu``
    lacks the final tanh; ``mlp`` uses tanh between layers.
    """

    obs_mean: Tensor
    obs_var: Tensor
    obs_count: Tensor

    def __init__(self, config: PolicyConfig, spec: EnvSpec, rng: np.random.Generator) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self.register_buffer("obs_mean", torch.zeros(spec.obs_dim, dtype=torch.float64))
        self.register_buffer("obs_var", torch.ones(spec.obs_dim, dtype=torch.float64))
        self.register_buffer("obs_count", torch.zeros((), dtype=torch.float64))
        if config.kind == "linear":
            self.fourier = FourierFeatures(spec.obs_dim, config.features, seed)
            self.net: nn.Module = orthogonal(spec.obs_dim + config.features, spec.act_dim, 0.01, seed)
        else:
            self.fourier = FourierFeatures(spec.obs_dim, 0, seed)
            relu, squashed = config.kind in ("relu", "squashed"), config.kind == "squashed"
            widths = [spec.obs_dim, *config.hidden]
            layers: list[nn.Module] = []
            for width, following in itertools.pairwise(widths):
                hidden = orthogonal(width, following, math.sqrt(2.0), seed)
                layers += [hidden, nn.ReLU() if relu else nn.Tanh()]
            layers.append(orthogonal(widths[-1], spec.act_dim, 0.01, seed))
            self.net = nn.Sequential(*layers, *([nn.Tanh()] if squashed else []))
        log_std = torch.full((spec.act_dim,), math.log(config.initial_std))
        self.log_std = nn.Parameter(log_std, requires_grad=config.learn_std)

    def features(self, obs: Tensor) -> Tensor:
        """(..., F) features of raw observations (..., O), which do not depend on trained parameters."""
        if self.config.normalise:
            scale = (self.obs_var + VARIANCE_FLOOR).rsqrt()
            obs = ((obs - self.obs_mean.float()) * scale.float()).clamp(-OBS_CLIP, OBS_CLIP)
        features: Tensor = self.fourier(obs)
        return features

    def mean(self, features: Tensor) -> Tensor:
        """(..., A) mean action in policy units for features (..., F)."""
        mean: Tensor = self.net(features)
        return mean

    def log_prob(self, mean: Tensor, actions: Tensor) -> Tensor:
        """(...) log-density of actions (..., A) in policy units under the Gaussians with mean (..., A)."""
        return log_density(actions, mean, self.log_std)

    def norm(self) -> float:
        """Euclidean norm of all trained parameters together, which the ball of SAIL-RevKL bounds."""
        return math.sqrt(sum(float(p.detach().square().sum()) for p in self.parameters() if p.requires_grad))

    def entropy(self) -> float:
        """Differential entropy in nats, equal in all states."""
        return float(self.log_std.detach().sum()) + 0.5 * self.spec.act_dim * math.log(2.0 * math.pi * math.e)

    @torch.no_grad()
    def act(self, obs: DoubleArray, noise: FloatArray | None) -> FloatArray:
        """(N, A) actions in policy units for raw observations (N, O).

        ``noise`` (N, A) is standard normal; None gives the mean action.
        """
        mean = self.mean(self.features(torch.from_numpy(obs.astype(np.float32)))).numpy()
        if noise is None:
            return mean
        actions: FloatArray = mean + np.exp(self.log_std.numpy()) * noise
        return actions

    def to_controls(self, actions: FloatArray) -> DoubleArray:
        """(N, A) controls in the actuators' units, within their bounds, for actions in policy units."""
        low, high = self.spec.act_low, self.spec.act_high
        controls: DoubleArray = low + 0.5 * (high - low) * (
            np.clip(actions, -1.0, 1.0).astype(np.float64) + 1.0
        )
        return controls

    def observe(self, obs: FloatArray) -> None:
        """Merge raw observations (N, O) into the running mean and variance."""
        if not self.config.normalise or len(obs) == 0:
            return
        merge_moments(self.obs_mean, self.obs_var, self.obs_count, obs)

    def predict(
        self,
        observation: np.ndarray[Any, Any],
        state: tuple[np.ndarray[Any, Any], ...] | None = None,
        episode_start: np.ndarray[Any, Any] | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray[Any, Any], None]:
        """Controls for one observation (O,) or many (N, O), like ``predict`` of Stable-Baselines3's policies.

        The policy is not recurrent: ``state`` and ``episode_start`` are ignored. With ``deterministic`` false
        the noise comes from torch's global generator.

        Raises:
            ValueError: when the last axis of the observation does not have length O.
        """
        obs = np.asarray(observation, dtype=np.float64)
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.spec.obs_dim:
            raise ValueError(
                f"{self.spec.id} observes {self.spec.obs_dim} numbers, got an array of shape {obs.shape}"
            )
        rows = np.atleast_2d(obs)
        noise = None if deterministic else torch.randn(len(rows), self.spec.act_dim).numpy()
        controls = self.to_controls(self.act(rows, noise)).astype(np.float32)
        return (controls[0] if obs.ndim == 1 else controls), None

    def snapshot(self) -> GaussianPolicy:
        """An independent copy with its observation statistics, without gradients."""
        return copy.deepcopy(self).requires_grad_(False)


def log_density(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(...) log-density of actions (..., A) under Gaussians with mean (..., A) and log deviations (A,)."""
    z = (actions - mean) * torch.exp(-log_std)
    constant = log_std.sum() + 0.5 * actions.shape[-1] * math.log(2.0 * math.pi)
    return -0.5 * z.square().sum(-1) - constant


def merge_moments(mean: Tensor, var: Tensor, count: Tensor, obs: FloatArray) -> None:
    """Merge rows (N, O) into a running mean and variance (O,), in place (parallel form of Chan et al.).

    ``count`` (0-d) is the number of rows so far.
    """
    added, previous = float(len(obs)), float(count)
    batch = torch.from_numpy(obs).double()
    total = previous + added
    delta = batch.mean(0) - mean
    squares = var * previous + batch.var(0, correction=0) * added + delta.square() * previous * added / total
    mean.add_(delta * (added / total))
    var.copy_(squares / total)
    count.fill_(total)


class FourierFeatures(nn.Module):
    """Observations and D random Fourier features sqrt(2/D) cos(w.s + b) of a Gaussian kernel of width 1."""

    frequency: Tensor
    phase: Tensor

    def __init__(self, obs_dim: int, features: int, seed: torch.Generator) -> None:
        super().__init__()
        self.count = features
        frequency = torch.randn(features, obs_dim, generator=seed) / math.sqrt(obs_dim)
        self.register_buffer("frequency", frequency)
        self.register_buffer("phase", 2.0 * math.pi * torch.rand(features, generator=seed))

    def forward(self, obs: Tensor) -> Tensor:
        """(..., O + D) for observations (..., O)."""
        if self.count == 0:
            return obs
        cosines = torch.cos(nn.functional.linear(obs, self.frequency, self.phase))
        return torch.cat([obs, math.sqrt(2.0 / self.count) * cosines], dim=-1)


def orthogonal(inputs: int, outputs: int, gain: float, seed: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights of the given gain, drawn with ``seed``, and zero bias."""
    layer = nn.Linear(inputs, outputs)  # draws from the global generator, but these values are replaced
    nn.init.orthogonal_(layer.weight, gain, generator=seed)
    nn.init.zeros_(layer.bias)
    return layer
