"""The reward model: an ensemble of networks fitted to the answers of a teacher.

Each member is a network r_psi(s, a), trained with the Bradley-Terry likelihood of the answers (Christiano et
al. 2017, arXiv 1706.03741; PEBBLE, Lee et al. 2021, arXiv 2106.05091: their preference predictor and its
cross-entropy), P(first preferred) = sigmoid(R_first - R_second) with R = sum_t m_t r(s_t, a_t). The members
have different initial parameters and see the answers in different orders; their disagreement indicates
missing answers.

The ensemble learns only from segments and preferences, never from true rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from sailctl.config import RewardConfig
from sailctl.core.networks import check_finite, initial_layers
from sailctl.core.state import State, module_state, optimiser_state, restore_module, restore_optimiser
from sailctl.core.types import (
    DoubleArray,
    IntArray,
    JudgedRewards,
    NonFiniteError,
    Pairs,
    Preferences,
    SegmentBatch,
)
from sailctl.data.answers import Answers
from sailctl.objectives import dpo_loss
from sailctl.policies.policy import OBS_CLIP

CHUNK = 16_384
"""Number of steps evaluated at once outside training, which bounds memory."""
METRIC_ANSWERS = 256
"""Number of latest answers in the metrics; all answers would soon take longer than the fit."""
CHANCE = math.log(2.0)
"""Loss of a random guess, in nats. An answer with a smaller loss is explained; a tie never is."""


class RewardEnsemble:
    """``config.members`` reward networks fitted to all answers so far; the reward is their mean.

    Args:
        config: number of members, widths, and settings of the fit.
        obs_dim: O.
        act_dim: A.
        rng: source of the initial parameters and of the order of the answers.
        bounded: a tanh limits rewards to [-1, 1], as in B-Pref. Answers without noise are separable, so
            unbounded rewards grow with every fit, and a bootstrapping critic cannot follow them.
    """

    def __init__(
        self,
        config: RewardConfig,
        obs_dim: int,
        act_dim: int,
        rng: np.random.Generator,
        bounded: bool = False,
    ) -> None:
        self._config = config
        self._rng = rng
        widths = [obs_dim + act_dim, *config.hidden, 1]
        self._networks = Networks(config.members, widths, rng, config.activation, bounded)
        self._optimiser = torch.optim.Adam(self._networks.parameters(), lr=config.lr, fused=True)
        self._answers = Answers(obs_dim, act_dim)
        self._metrics = dict.fromkeys(("reward_loss", "reward_accuracy", "reward_disagreement"), math.nan)

    def learn(self, segments: SegmentBatch, preferences: Preferences) -> None:
        """Store the answers, and fit the ensemble to all stored answers.

        With ``config.steps`` a fit takes exactly that many gradient steps, each on a random batch of stored
        answers. Otherwise a fit takes at most ``config.epochs`` passes over all stored answers. It ends after
        the first pass in which the share of explained answers, ties excluded, exceeds
        ``config.target_accuracy``, as in PEBBLE. Before a fit the normalisation of observations is updated
        from all stored steps. Without an answer, ``learn`` changes nothing and draws no random number.

        Args:
            segments: (S, H) steps; H may differ between calls.
            preferences: answers about rows of ``segments``; only the rows they compare are stored.

        Raises:
            NonFiniteError: when a segment, a loss or a parameter is NaN or infinite.
        """
        if len(preferences) == 0:
            return
        check_finite(segments, "the reward model")
        self._answers.add(segments, preferences)
        self._fit()
        self._update_metrics()

    @torch.no_grad()
    def judge(self, segments: SegmentBatch) -> JudgedRewards:
        """The learned reward of each step.

        Returns:
            (S, H) mean over the members, 0 where no step was taken, in units of log-odds: if the members
            agree, a segment whose return is higher by 1 is preferred with probability sigmoid(1) = 0.73.

        Raises:
            NonFiniteError: when a segment or a reward is NaN or infinite.
        """
        rewards = self._evaluate(segments).mean(0) * torch.from_numpy(segments.mask)
        return JudgedRewards(rewards.numpy(), segments.mask)

    @torch.no_grad()
    def chances(self, segments: SegmentBatch, pairs: Pairs) -> DoubleArray:
        """(M, B) P(first preferred) by each of the M members.

        Raises:
            NonFiniteError: when a segment or a reward is NaN or infinite.
        """
        chances: DoubleArray = self._logits(segments, pairs).sigmoid().numpy()
        return chances

    def metrics(self) -> dict[str, float]:
        """Metrics of the last fit on the latest ``METRIC_ANSWERS`` answers; NaN before the first fit.

        - ``reward_loss``: negative log-likelihood of an answer in nats, mean over answers and members;
        - ``reward_accuracy``: share of answers that the mean reward reproduces, ties excluded. Equal returns
          count 1/2. If all answers are ties, it is 1/2;
        - ``reward_disagreement``: standard deviation of P(first preferred) over the members, mean over
          answers;
        - ``reward_pairs``: number of stored answers.
        """
        return self._metrics | {"reward_pairs": float(len(self._answers))}

    def state(self) -> State:
        """State of networks, optimiser and answers, and the metrics of the last fit."""
        return {
            "networks": module_state(self._networks),
            "optimiser": optimiser_state(self._optimiser),
            "answers": self._answers.state(),
            "metrics": self._metrics,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        restore_module(self._networks, state["networks"])
        restore_optimiser(self._optimiser, state["optimiser"])
        self._answers.restore(state["answers"])
        self._metrics = dict(state["metrics"])

    def _fit(self) -> None:
        """Fit all members; each member sees the answers in a different order, as in PEBBLE."""
        if self._config.steps is None:
            self._fit_in_passes()
        else:
            shape = (self._config.members, self._config.batch)
            for _ in range(self._config.steps):
                self._step(self._rng.integers(len(self._answers), size=shape))
        self._refuse_non_finite(dict(self._networks.named_parameters()))

    def _fit_in_passes(self) -> None:
        indices = np.tile(np.arange(len(self._answers)), (self._config.members, 1))
        steps = math.ceil(len(self._answers) / self._config.batch)
        answered = self._config.members * np.count_nonzero(self._answers.label)
        for _ in range(self._config.epochs):
            orders = self._rng.permuted(indices, axis=1)
            explained = sum(self._step(chosen) for chosen in np.array_split(orders, steps, axis=1))
            if explained > self._config.target_accuracy * answered:
                break

    def _step(self, chosen: IntArray) -> int:
        """One gradient step of each member on its row of answers (M, B); returns the number explained.

        With ``config.thin`` = k only every k-th control step is evaluated, from a random offset: neighbouring
        steps are similar and have similar rewards.
        """
        pairs = self._answers.pairs[chosen]
        unique, inverse = np.unique(pairs, return_inverse=True)
        segments = self._thinned(self._answers.take(unique))
        rows = torch.from_numpy(inverse.reshape(pairs.shape))
        rewards = self._networks(self._inputs(segments)[rows].flatten(1, 3)).view(*pairs.shape, -1)
        mask = torch.from_numpy(segments.mask)[rows]
        losses = pair_losses(rewards, mask, torch.from_numpy(self._answers.label[chosen]))
        loss = losses.mean(1).sum()  # a sum, so that a member's gradient does not depend on their number
        self._refuse_non_finite({"loss": loss})
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        return int((losses < CHANCE).sum())

    def _thinned(self, segments: SegmentBatch) -> SegmentBatch:
        """Every ``config.thin``-th step, with its mask multiplied by ``thin``; 1 draws no random number."""
        thin = min(self._config.thin, segments.mask.shape[1])
        if thin == 1:
            return segments
        steps = slice(int(self._rng.integers(thin)), None, thin)
        obs, actions, mask = segments.obs[:, steps], segments.actions[:, steps], segments.mask[:, steps]
        return SegmentBatch(obs, actions, mask * np.float32(thin), segments.forks)

    @torch.no_grad()
    def _update_metrics(self) -> None:
        segments, answers = self._answers.latest(METRIC_ANSWERS)
        logits, label = self._logits(segments, answers.pairs), torch.from_numpy(answers.label).double()
        label_weight = label.abs().sum().clamp(min=1)
        accuracy = (1 + (label * logits.mean(0).sign()).sum() / label_weight) / 2
        self._metrics = {
            "reward_loss": float(dpo_loss(logits, label.expand_as(logits)).mean()),
            "reward_accuracy": float(accuracy),
            "reward_disagreement": float(logits.sigmoid().std(0, correction=0).mean()),
        }

    def _logits(self, segments: SegmentBatch, pairs: Pairs) -> Tensor:
        """(M, B) log-odds that the first segment of each pair is preferred, by each member."""
        returns = (self._evaluate(segments) * torch.from_numpy(segments.mask)).sum(-1)
        return returns[:, torch.from_numpy(pairs.first)] - returns[:, torch.from_numpy(pairs.second)]

    def _evaluate(self, segments: SegmentBatch) -> Tensor:
        """(M, S, H) rewards by each member in double precision, also for steps that were not taken."""
        check_finite(segments, "the reward model")
        inputs = self._inputs(segments)
        members, size = self._config.members, inputs.shape[-1]
        flat = inputs.reshape(-1, size)
        chunks = flat.chunk(math.ceil(len(flat) / CHUNK))
        rewards = torch.cat([self._networks(chunk.expand(members, -1, -1)) for chunk in chunks], dim=1)
        self._refuse_non_finite({"a reward": rewards})
        return rewards.double().view(members, *segments.mask.shape)

    def _inputs(self, segments: SegmentBatch) -> Tensor:
        """(S, H, O + A) inputs of the networks.

        Observations are normalised by the stored steps and clipped as in policies. Actions are clipped as by
        the actuators.
        """
        mean, std = self._answers.moments
        obs = ((segments.obs - mean) / std).clip(-OBS_CLIP, OBS_CLIP)
        actions = segments.actions.clip(-1.0, 1.0)
        return torch.from_numpy(np.concatenate([obs.astype(np.float32), actions], axis=-1))

    def _refuse_non_finite(self, numbers: Mapping[str, Tensor]) -> None:
        bad = [name for name, value in numbers.items() if not torch.isfinite(value).all()]
        if bad:
            parameters = {name: value.detach() for name, value in self._networks.named_parameters()}
            raise NonFiniteError(
                f"the reward model is not finite after {len(self._answers)} answers: {', '.join(bad)}; "
                f"a smaller reward.lr than {self._config.lr} may help",
                parameters,
            )


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "leaky_relu": leaky_relu}


class Networks(nn.Module):
    """M networks of the same shape, evaluated together, with a linear or tanh output.

    Initial weights and biases are uniform on +-1/sqrt(inputs of the layer), as in B-Pref.

    Args:
        members: M.
        widths: sizes of the input layer, the hidden layers, and the output layer (1).
        rng: source of the initial parameters.
        activation: a name in ``ACTIVATIONS``, for the hidden layers.
        bounded: apply a tanh to the output.
    """

    def __init__(
        self,
        members: int,
        widths: list[int],
        rng: np.random.Generator,
        activation: str,
        bounded: bool = False,
    ) -> None:
        super().__init__()
        self._activation, self._bounded = ACTIVATIONS[activation], bounded
        self.weights, self.biases = initial_layers(members, widths, rng)

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, N) outputs for inputs (M, N, I); the first axis is the member."""
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in hidden:
            inputs = self._activation(torch.baddbmm(bias, inputs, weight))
        rewards = torch.baddbmm(last[1], inputs, last[0]).squeeze(-1)
        return rewards.tanh() if self._bounded else rewards


def pair_losses(rewards: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    """Negative Bradley-Terry log-likelihood of each answer; a tie is half of each answer (a soft label).

    P(first preferred) = sigmoid(R_first - R_second) with R = sum_t m_t r_t. This is the loss of DPO with the
    difference of the learned returns as the score.

    Args:
        rewards: (..., 2, H) rewards of the steps of the two segments.
        mask: (..., 2, H) 1 where the step was taken.
        label: (...) +1 first preferred, -1 second preferred, 0 tie.

    Returns:
        (...) losses in nats, >= 0.
    """
    first, second = (rewards * mask).sum(-1).unbind(-1)
    return dpo_loss(first - second, label)
