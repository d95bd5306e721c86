"""The value of what follows a segment under a learned reward.

A reward model judges a segment only by the rewards within it, so a policy may learn to fall just after the
segment. Here a network learns the value of each state under the policy, V(s) = E[ sum_t d^t r(s_t, a_t) ] for
the learned reward r and a discount d, from lambda-returns (Sutton 1988: TD(lambda); Schulman et al. 2016,
arXiv 1506.02438: the generalised advantage, which is the lambda-return minus the value). The value of a
segment is the lambda-return of its first step: the rewards of its steps, and, with weight
(1 - lambda) lambda^t, the value of the state after step t. Nothing beyond the segment is simulated.

The value learns only from segments and learned rewards, never from true rewards.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from sailctl.config import RewardConfig
from sailctl.core.state import State, module_state, optimiser_state, restore_module, restore_optimiser
from sailctl.core.types import (
    BoolArray,
    DoubleArray,
    Ends,
    EnvSpec,
    FloatArray,
    JudgedRewards,
    NonFiniteError,
    SegmentBatch,
)
from sailctl.policies.policy import OBS_CLIP, VARIANCE_FLOOR, merge_moments
from sailctl.preferences.reward import Networks

EPOCHS = 3
"""Passes over the steps of an iteration."""
BATCHES = 8
"""Gradient steps per pass; fewer if there are fewer steps."""


class SegmentValue:
    """The value of states under the policy and a learned reward, fitted to the steps of each iteration.

    Args:
        config: ``value_horizon`` is the time constant in seconds of the discount d, ``gae_lambda`` is lambda;
            widths and learning rate are those of the ensemble's networks.
        spec: the task; its control step dt gives d = exp(-dt / value_horizon).
        rng: source of the initial parameters and of the order of the steps.
    """

    def __init__(self, config: RewardConfig, spec: EnvSpec, rng: np.random.Generator) -> None:
        self._config = config
        self._rng = rng
        self._discount = math.exp(-spec.dt / config.value_horizon)
        self._network = Networks(1, [spec.obs_dim, *config.hidden, 1], rng, config.activation)
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr=config.lr, fused=True)
        self._mean, self._var = torch.zeros(spec.obs_dim).double(), torch.ones(spec.obs_dim).double()
        self._count = torch.zeros(()).double()
        # A tenth of the value of a constant reward of 1, so that the network's outputs are of order 1.
        self._scale = 0.1 / (1.0 - self._discount)
        self._explained = math.nan

    def judge(self, segments: SegmentBatch, ends: Ends, rewards: JudgedRewards) -> DoubleArray:
        """The value of each segment; afterwards the network is fitted to these segments.

        Args:
            segments: (S, H) steps of the current policy.
            ends: the last states of the segments; a terminal state has value 0.
            rewards: (S, H) learned rewards of the steps.

        Returns:
            (S,) lambda-returns of the first steps, in units of the learned reward.

        Raises:
            NonFiniteError: when a value or a parameter is NaN or infinite.
        """
        taken = segments.mask > 0
        merge_moments(self._mean, self._var, self._count, segments.obs[taken])
        returns = lambda_returns(
            rewards.rewards,
            self._values(segments, ends),
            segments.mask,
            ends.terminated,
            self._discount,
            self._config.gae_lambda,
        )
        self._fit(segments.obs[taken], returns[taken])
        return returns[:, 0]

    def metrics(self) -> dict[str, float]:
        """``value_explained``: share of the last returns' variance the value explained before its fit."""
        return {"value_explained": self._explained}

    def state(self) -> State:
        """State of network and optimiser, moments of the observations, and the metric."""
        return {
            "network": module_state(self._network),
            "optimiser": optimiser_state(self._optimiser),
            "mean": self._mean,
            "var": self._var,
            "count": self._count,
            "explained": self._explained,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        restore_module(self._network, state["network"])
        restore_optimiser(self._optimiser, state["optimiser"])
        self._mean, self._var, self._count = (torch.as_tensor(state[k]) for k in ("mean", "var", "count"))
        self._explained = state["explained"]

    @torch.no_grad()
    def _values(self, segments: SegmentBatch, ends: Ends) -> DoubleArray:
        """(S, H) value of the state after each step; arbitrary where no step was taken."""
        after = np.concatenate([segments.obs[:, 1:], ends.obs[:, None]], axis=1)
        last = segments.mask.sum(axis=1).astype(np.int64) - 1
        after[np.arange(len(after)), last] = ends.obs
        values = self._network(self._inputs(after.reshape(1, -1, after.shape[-1])))
        self._refuse_non_finite(values)
        state_values: DoubleArray = self._scale * values.double().numpy().reshape(after.shape[:2])
        return state_values

    def _fit(self, obs: FloatArray, returns: DoubleArray) -> None:
        """Fit the network to the returns (N,) of the steps by gradient steps on the squared error."""
        inputs = self._inputs(obs[None])[0]
        targets = torch.from_numpy((returns / self._scale).astype(np.float32))
        with torch.no_grad():
            error = targets - self._network(inputs[None])[0]
        variance = targets.var(correction=0).clamp(min=1e-12)
        self._explained = 1.0 - float(error.var(correction=0) / variance)
        for _ in range(EPOCHS):
            for chosen in np.array_split(self._rng.permutation(len(targets)), min(BATCHES, len(targets))):
                rows = torch.from_numpy(chosen)
                loss = (self._network(inputs[None, rows])[0] - targets[rows]).square().mean()
                self._optimiser.zero_grad()
                torch.autograd.backward(loss)
                self._optimiser.step()
        for parameter in self._network.parameters():
            self._refuse_non_finite(parameter)

    def _inputs(self, obs: FloatArray) -> torch.Tensor:
        scale = (self._var + VARIANCE_FLOOR).rsqrt()
        return ((torch.from_numpy(obs) - self._mean) * scale).clamp(-OBS_CLIP, OBS_CLIP).float()

    def _refuse_non_finite(self, numbers: torch.Tensor) -> None:
        if not torch.isfinite(numbers).all():
            parameters = {name: value.detach() for name, value in self._network.named_parameters()}
            raise NonFiniteError(
                f"the state values are not finite; a smaller reward.lr than {self._config.lr} may help",
                parameters,
            )


def lambda_returns(
    rewards: DoubleArray,
    values: DoubleArray,
    mask: FloatArray,
    terminated: BoolArray,
    discount: float,
    trace: float,
) -> DoubleArray:
    """Targets of TD(lambda): G_t = r_t + d [ (1 - lambda) V(s_{t+1}) + lambda G_{t+1} ].

    After the last step taken, G is the value of the state reached, or 0 if it is terminal. Neither a time
    limit nor the end of the segment is terminal.

    Args:
        rewards: (S, H) rewards of the steps.
        values: (S, H) V of the state after each step.
        mask: (S, H) 1 for the steps taken, which are the first ones of a row, at least one.
        terminated: (S,) whether the last step taken reached a terminal state.
        discount: d, from 0 to 1.
        trace: lambda, from 0 (one reward and a value) to 1 (all rewards and the last value).

    Returns:
        (S, H) G, 0 where no step was taken.
    """
    steps = mask.shape[1]
    last = mask.sum(axis=1) - 1
    returns = np.zeros_like(values)
    for t in range(steps - 1, -1, -1):
        at_end = last == t
        after = values[:, t] * ~(at_end & terminated)
        following = np.where(at_end, after, returns[:, t + 1] if t + 1 < steps else after)
        target = rewards[:, t] + discount * ((1.0 - trace) * after + trace * following)
        returns[:, t] = target * (mask[:, t] > 0)
    return returns
