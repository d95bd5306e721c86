"""What a learned reward says about all that follows a segment: a value of the state in which it ends.

A reward model judges a segment by the rewards within it, so a policy learns to sprint into a fall. Here a
network learns the value of each state under the policy, V(s) = E[ sum_t d^t r(s_t, a_t) ] for the learned
reward r and a discount d, from lambda-returns (Sutton 1988: TD(lambda); Schulman et al. 2016,
arXiv 1506.02438: the generalised advantage, which is the lambda-return minus the value). A segment is then
worth the lambda-return of its first step: its own rewards, and beyond each of its steps, with the weight
(1 - lambda) lambda^t, the value of the state reached. Nothing has to be simulated after a segment's end.

The value learns from segments and learned rewards alone: no true reward enters.
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
"""Gradient steps in a pass, or as many as there are steps."""


class SegmentValue:
    """The value of states under the policy and a learned reward, fitted to one iteration after another.

    Args:
        config: ``value_horizon`` is the time constant in seconds of the discount d, ``gae_lambda`` is lambda;
            widths and learning rate are those of the ensemble's networks.
        spec: the task, whose control step gives d = exp(- step / value_horizon).
        rng: where initial parameters and the orders of the steps are drawn from.
    """

    def __init__(self, config: RewardConfig, spec: EnvSpec, rng: np.random.Generator) -> None:
        self._config = config
        self._rng = rng
        self._discount = math.exp(-spec.dt / config.value_horizon)
        self._network = Networks(1, [spec.obs_dim, *config.hidden, 1], rng, config.activation)
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr=config.lr, fused=True)
        self._mean, self._var = torch.zeros(spec.obs_dim).double(), torch.ones(spec.obs_dim).double()
        self._count = torch.zeros(()).double()
        # A tenth of what a reward of 1 for ever is worth: the network's outputs stay near 1.
        self._scale = 0.1 / (1.0 - self._discount)
        self._explained = math.nan

    def judge(self, segments: SegmentBatch, ends: Ends, rewards: JudgedRewards) -> DoubleArray:
        """What each segment is worth, and learn from it afterwards.

        Args:
            segments: (S, H) steps of the current policy.
            ends: where they ended; what was terminated is worth nothing more.
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
        """``value_explained``: share of the variance of the last returns that the value knew beforehand."""
        return {"value_explained": self._explained}

    def state(self) -> State:
        """Network, optimiser, moments of the observations, and the metric."""
        return {
            "network": module_state(self._network),
            "optimiser": optimiser_state(self._optimiser),
            "mean": self._mean,
            "var": self._var,
            "count": self._count,
            "explained": self._explained,
        }

    def restore(self, state: State) -> None:
        """Take back what ``state`` handed out."""
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
        reached: DoubleArray = self._scale * values.double().numpy().reshape(after.shape[:2])
        return reached

    def _fit(self, obs: FloatArray, returns: DoubleArray) -> None:
        """Gradient steps on the squared error of the steps' returns."""
        inputs = self._inputs(obs[None])[0]
        wanted = torch.from_numpy((returns / self._scale).astype(np.float32))
        with torch.no_grad():
            error = wanted - self._network(inputs[None])[0]
        spread = wanted.var(correction=0).clamp(min=1e-12)
        self._explained = 1.0 - float(error.var(correction=0) / spread)
        for _ in range(EPOCHS):
            for chosen in np.array_split(self._rng.permutation(len(wanted)), min(BATCHES, len(wanted))):
                rows = torch.from_numpy(chosen)
                loss = (self._network(inputs[None, rows])[0] - wanted[rows]).square().mean()
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
                f"the value of states is not finite; a smaller reward.lr than {self._config.lr} may help",
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
    """TD(lambda)'s targets: G_t = r_t + d [ (1 - lambda) V(s_{t+1}) + lambda G_{t+1} ].

    After the last step that was taken, G is the value of the state reached, or 0 where the episode was
    terminated there. Where the time limit ended it, or the segment, life is taken to go on.

    Args:
        rewards: (S, H) rewards of the steps.
        values: (S, H) V of the state after each step.
        mask: (S, H) 1 where the step was taken: the first one always, none after one that was not.
        terminated: (S,) whether the last step taken ended the episode for good.
        discount: d, from 0 to 1.
        trace: lambda, from 0 (one reward and a value) to 1 (all rewards, and the value at the end).

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
        whole = rewards[:, t] + discount * ((1.0 - trace) * after + trace * following)
        returns[:, t] = whole * (mask[:, t] > 0)
    return returns
