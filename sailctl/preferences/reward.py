"""A learned reward: an ensemble of networks fitted to the answers of a teacher.

Each member is a network r_psi(s, a), trained with the Bradley-Terry likelihood of the answers (Christiano et
al. 2017, arXiv 1706.03741; PEBBLE, Lee et al. 2021, arXiv 2106.05091: their preference predictor and its
cross-entropy), P(first preferred) = sigmoid(sum_t m_t r(s_t, a_t) of the first - the same of the second). The
members start from different parameters and see the answers in different orders; where they disagree, answers
are missing.

The ensemble learns from segments and preferences alone: no true reward enters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from sailctl.config import RewardConfig
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
"""Steps that are evaluated at once outside training, which bounds the memory that it takes."""
MEASURED = 256
"""Answers, the latest, of which the metrics speak: all of them would soon take longer than the fit."""
CHANCE = math.log(2.0)
"""Loss of an answer by guessing; below it the answer is explained (a tie never is, and does not count)."""


class RewardEnsemble:
    """``config.members`` rewards learned from all answers so far; their mean is the reward that is used.

    Args:
        config: number of members, their widths, and how they are fitted.
        obs_dim: O.
        act_dim: A.
        rng: where initial parameters and the orders of the answers are drawn from.
        bounded: rewards are from -1 to 1, by a tanh, as B-Pref's. Answers without noise are separable: those
            without a bound grow with every fit, which a critic that bootstraps from them cannot follow.
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
        """Remember these answers, and fit all that are remembered.

        With ``config.steps`` these are so many gradient steps on answers drawn from memory. Otherwise they
        are passes over it, which end after ``config.epochs``, or earlier after the first one in which the
        members explained more of the answers (but ties) than ``config.enough`` (as PEBBLE's training does).
        The normalisation of the observations is that of the steps in memory, and is renewed first. Without an
        answer nothing happens, and nothing is drawn.

        Args:
            segments: (S, H) steps; H may differ from call to call.
            preferences: answers about rows of ``segments``; other rows are not remembered.

        Raises:
            NonFiniteError: when a segment, a loss or a parameter is NaN or infinite.
        """
        if len(preferences) == 0:
            return
        refuse_non_finite(segments)
        self._answers.add(segments, preferences)
        self._fit()
        self._measure()

    @torch.no_grad()
    def judge(self, segments: SegmentBatch) -> JudgedRewards:
        """The learned reward of each step, in place of the true one.

        Returns:
            (S, H) mean over the members, 0 where no step was taken. Its scale is that of log-odds: a return
            that is higher by 1 is preferred with probability sigmoid(1) = 0.73, where the members agree.

        Raises:
            NonFiniteError: when a segment or a reward is NaN or infinite.
        """
        rewards = self._evaluate(segments).mean(0) * torch.from_numpy(segments.mask)
        return JudgedRewards(rewards.numpy(), segments.mask)

    @torch.no_grad()
    def chances(self, segments: SegmentBatch, pairs: Pairs) -> DoubleArray:
        """(M, B) P(first preferred) by each of the M members, from 0 to 1.

        Raises:
            NonFiniteError: when a segment or a reward is NaN or infinite.
        """
        chances: DoubleArray = self._logits(segments, pairs).sigmoid().numpy()
        return chances

    def metrics(self) -> dict[str, float]:
        """What was known of the latest ``MEASURED`` answers after the last fit (NaN before the first).

        - ``reward_loss``: minus the log-likelihood of an answer, in nats; mean over answers and members;
        - ``reward_accuracy``: share of the answers that the mean reward gives too, ties left out; equal
          returns count 1/2, and nothing but ties gives 1/2, as for the policy;
        - ``reward_disagreement``: deviation (std) of P(first preferred) over the members, mean over answers;
        - ``reward_pairs``: all answers in memory, from the start.
        """
        return self._metrics | {"reward_pairs": float(len(self._answers))}

    def state(self) -> State:
        """Networks, optimiser, answers, and the metrics of the last fit."""
        return {
            "networks": module_state(self._networks),
            "optimiser": optimiser_state(self._optimiser),
            "answers": self._answers.state(),
            "metrics": self._metrics,
        }

    def restore(self, state: State) -> None:
        """Take back what ``state`` handed out."""
        restore_module(self._networks, state["networks"])
        restore_optimiser(self._optimiser, state["optimiser"])
        self._answers.restore(state["answers"])
        self._metrics = dict(state["metrics"])

    def _fit(self) -> None:
        """Gradient steps in which each member sees the answers in an order of its own (as PEBBLE's do)."""
        if self._config.steps is None:
            self._fit_in_passes()
        else:
            shape = (self._config.members, self._config.batch)
            for _ in range(self._config.steps):
                self._step(self._rng.integers(len(self._answers), size=shape))
        self._refuse_non_finite(dict(self._networks.named_parameters()))

    def _fit_in_passes(self) -> None:
        every = np.tile(np.arange(len(self._answers)), (self._config.members, 1))
        steps = math.ceil(len(self._answers) / self._config.batch)
        answered = self._config.members * np.count_nonzero(self._answers.label)
        for _ in range(self._config.epochs):
            orders = self._rng.permuted(every, axis=1)
            explained = sum(self._step(chosen) for chosen in np.array_split(orders, steps, axis=1))
            if explained > self._config.target_accuracy * answered:
                break

    def _step(self, chosen: IntArray) -> int:
        """One gradient step of each member on its row of answers (M, B); how many were explained.

        With ``config.thin`` it looks at each so many-th step, from a random one on: neighbours are alike, and
        what they earn is about what it earns.
        """
        both = self._answers.pairs[chosen]
        used, place = np.unique(both, return_inverse=True)
        segments, places = (
            self._thinned(self._answers.take(used)),
            torch.from_numpy(place.reshape(both.shape)),
        )
        rewards = self._networks(self._inputs(segments)[places].flatten(1, 3)).view(*both.shape, -1)
        mask = torch.from_numpy(segments.mask)[places]
        losses = pair_losses(rewards, mask, torch.from_numpy(self._answers.label[chosen]))
        loss = losses.mean(1).sum()  # a member's gradient does not depend on how many there are
        self._refuse_non_finite({"loss": loss})
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        return int((losses < CHANCE).sum())

    def _thinned(self, segments: SegmentBatch) -> SegmentBatch:
        """Each ``config.thin``-th step, counted so many times; without thinning nothing is drawn."""
        thin = min(self._config.thin, segments.mask.shape[1])
        if thin == 1:
            return segments
        kept = slice(int(self._rng.integers(thin)), None, thin)
        obs, actions, mask = segments.obs[:, kept], segments.actions[:, kept], segments.mask[:, kept]
        return SegmentBatch(obs, actions, mask * np.float32(thin), segments.forks)

    @torch.no_grad()
    def _measure(self) -> None:
        segments, answers = self._answers.latest(MEASURED)
        logits, label = self._logits(segments, answers.pairs), torch.from_numpy(answers.label).double()
        answered = label.abs().sum().clamp(min=1)
        accuracy = (1 + (label * logits.mean(0).sign()).sum() / answered) / 2
        self._metrics = {
            "reward_loss": float(dpo_loss(logits, label.expand_as(logits)).mean()),
            "reward_accuracy": float(accuracy),
            "reward_disagreement": float(logits.sigmoid().std(0, correction=0).mean()),
        }

    def _logits(self, segments: SegmentBatch, pairs: Pairs) -> Tensor:
        """(M, B) log-odds of the first segment of each pair by each member."""
        returns = (self._evaluate(segments) * torch.from_numpy(segments.mask)).sum(-1)
        return returns[:, torch.from_numpy(pairs.first)] - returns[:, torch.from_numpy(pairs.second)]

    def _evaluate(self, segments: SegmentBatch) -> Tensor:
        """(M, S, H) rewards of each member in double precision, for every step, whether taken or not."""
        refuse_non_finite(segments)
        inputs = self._inputs(segments)
        members, size = self._config.members, inputs.shape[-1]
        flat = inputs.reshape(-1, size)
        chunks = flat.chunk(math.ceil(len(flat) / CHUNK))
        rewards = torch.cat([self._networks(chunk.expand(members, -1, -1)) for chunk in chunks], dim=1)
        self._refuse_non_finite({"a reward": rewards})
        return rewards.double().view(members, *segments.mask.shape)

    def _inputs(self, segments: SegmentBatch) -> Tensor:
        """(S, H, O + A) observations on the scale of the memory, clipped as a policy's, and the actions,
        clipped as the actuators clip them."""
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
    """M networks of one shape, evaluated together: a linear output, or a tanh of it.

    Weights and biases are uniform on +-1/sqrt(inputs of the layer), as B-Pref's are.

    Args:
        members: M.
        widths: inputs, hidden layers, 1.
        rng: where the parameters are drawn from.
        activation: of the hidden layers, a name in ``ACTIVATIONS``.
        bounded: the output is a tanh.
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
        seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(widths):
            bound = 1.0 / math.sqrt(inputs)
            for kind, rows in ((self.weights, inputs), (self.biases, 1)):
                kind.append(nn.Parameter(torch.empty(members, rows, outputs)))
                nn.init.uniform_(kind[-1], -bound, bound, generator=seed)

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, N) rewards of inputs (M, N, O + A), the first axis being the member's."""
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in hidden:
            inputs = self._activation(torch.baddbmm(bias, inputs, weight))
        rewards = torch.baddbmm(last[1], inputs, last[0]).squeeze(-1)
        return rewards.tanh() if self._bounded else rewards


def pair_losses(rewards: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    """Minus the Bradley-Terry log-likelihood of each answer; a tie is half of either answer (a soft label).

    P(first preferred) = sigmoid(sum_t m_t r_t of the first - sum_t m_t r_t of the second): the loss of DPO,
    with the difference of the learned returns as the score.

    Args:
        rewards: (..., 2, H) rewards of the steps of the two segments.
        mask: (..., 2, H) 1 where the step was taken.
        label: (...) z: +1 first preferred, -1 second preferred, 0 tie.

    Returns:
        (...) losses in nats, >= 0.
    """
    first, second = (rewards * mask).sum(-1).unbind(-1)
    return dpo_loss(first - second, label)


def refuse_non_finite(segments: SegmentBatch) -> None:
    """Let only finite segments pass.

    Raises:
        NonFiniteError: when an observation or an action is NaN or infinite.
    """
    if np.isfinite(segments.obs).all() and np.isfinite(segments.actions).all():
        return
    given = {"obs": segments.obs, "actions": segments.actions, "mask": segments.mask}
    batch = {name: torch.from_numpy(values) for name, values in given.items()}
    raise NonFiniteError("the reward model was given segments that are not finite", batch)
