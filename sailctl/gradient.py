"""A gradient step's forward and backward pass, as something that several runs can ask for at once.

The networks of runs that are answered together are evaluated as one with a leading axis of runs. Each run's
loss is its own, and so are its gradients: no run's numbers depend on the others'.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sailctl.policy import GaussianPolicy

Metrics = dict[str, float]


@dataclass(frozen=True)
class Gradient:
    """Asks for the gradient of a loss in the policy's parameters, left in their ``grad``.

    The answer is what ``loss`` returned.
    """

    policy: GaussianPolicy
    features: Sequence[Tensor]
    """(..., F) what the policy is evaluated on, one for each source of samples."""
    loss: Callable[[Sequence[Tensor]], tuple[Tensor, Metrics]]
    """The loss, and metrics, for the mean actions (..., A) of each of ``features``."""

    kind = "gradient"

    def answer(self) -> tuple[Tensor, Metrics]:
        """By the policy's own network."""
        found = self.loss([self.policy.mean(features) for features in self.features])
        torch.autograd.backward(found[0])
        return found

    def answer_all(self, asks: Sequence[Gradient]) -> list[tuple[Tensor, Metrics]]:
        """By one network that holds those of all."""
        policies = [ask.policy for ask in asks for _ in ask.features]
        means = iter(means_together(policies, [features for ask in asks for features in ask.features]))
        found = [ask.loss([next(means) for _ in ask.features]) for ask in asks]
        torch.autograd.backward([loss for loss, _ in found])
        return found


def means_together(policies: Sequence[GaussianPolicy], features: Sequence[Tensor]) -> list[Tensor]:
    """(..., A) mean actions of each policy for its features (..., F): ``policy.mean``, for all at once.

    Those of one shape go through one network. Its products are those of the policies' own to the rounding of
    the linear algebra library, for most shapes bit for bit (``tests/unit/test_together.py``).
    """
    alike: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, own in enumerate(features):
        alike[tuple(own.shape)].append(place)
    means: dict[int, Tensor] = {}
    for shape, places in alike.items():
        if len(places) == 1:
            (place,) = places
            means[place] = policies[place].mean(features[place])
            continue
        stacked = torch.stack([features[place].flatten(0, -2) for place in places])
        found = _through([policies[place].net for place in places], stacked)
        means |= zip(places, found.view(len(places), *shape[:-1], -1).unbind(), strict=True)
    return [means[place] for place in range(len(features))]


def _through(networks: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """(R, N, A) outputs of R networks of one form for their inputs (R, N, F)."""
    for layers in zip(*map(_layers, networks), strict=True):
        if isinstance(layers[0], nn.Linear):
            weight = torch.stack([layer.weight for layer in layers])
            bias = torch.stack([layer.bias for layer in layers])
            inputs = torch.baddbmm(bias[:, None], inputs, weight.transpose(1, 2))
        else:
            inputs = layers[0](inputs)
    return inputs


def _layers(network: nn.Module) -> list[nn.Module]:
    return list(network) if isinstance(network, nn.Sequential) else [network]
