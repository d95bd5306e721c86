"""SAIL's gradient against exact enumeration of a small problem: no sampling, no tolerance for luck.

Log-linear policy pi_theta(y|x) proportional to exp(theta . phi(x, y)) over a few responses, a Bradley-Terry
teacher that also gives ties. J(theta) is summed over every (x, y1, y2, z) in plain numpy and differentiated
by five-point differences; the estimator's expectation is summed over every sample it could draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import Tensor

from sailctl.objectives import sail_loss

BETA = 0.7


@dataclass(frozen=True)
class Problem:
    """X prompts, Y responses, d features."""

    prompt: np.ndarray  # (X,) probability of each prompt
    phi: np.ndarray  # (X, Y, d)
    theta: np.ndarray  # (d,)
    theta_ref: np.ndarray  # (d,)
    quality: np.ndarray  # (X, Y) true reward that the teacher sees
    ties: bool

    def log_policy(self, theta: np.ndarray) -> np.ndarray:
        """(X, Y) log pi_theta(y|x)."""
        logits = self.phi @ theta
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def answers(self, x: int, y1: int, y2: int) -> dict[int, float]:
        """Probability of each label."""
        gap = self.quality[x, y1] - self.quality[x, y2]
        tie = 0.3 * np.exp(-abs(gap)) if self.ties else 0.0
        first = 1 / (1 + np.exp(-gap))
        return {1: (1 - tie) * first, -1: (1 - tie) * (1 - first), 0: tie}

    def samples(self) -> list[tuple[int, int, int, int, float]]:
        """Every (x, y1, y2, z) with the probability of x and of z; that of y1 and y2 is the policy's."""
        prompts, responses = self.quality.shape
        return [
            (x, y1, y2, z, self.prompt[x] * p)
            for x, y1, y2 in product(range(prompts), range(responses), range(responses))
            for z, p in self.answers(x, y1, y2).items()
            if p > 0
        ]

    def objective(self, theta: np.ndarray) -> float:
        """J(theta), the definition written out."""
        logp, ref = self.log_policy(theta), self.log_policy(self.theta_ref)
        total = 0.0
        for x, y1, y2, z, p in self.samples():
            h = BETA * (logp[x, y1] - ref[x, y1] - logp[x, y2] + ref[x, y2])
            first, second = -np.log1p(np.exp(-h)), -np.log1p(np.exp(h))
            label_logp = {1: first, -1: second, 0: (first + second) / 2}[z]
            total += p * np.exp(logp[x, y1] + logp[x, y2]) * label_logp
        return total

    def gradient(self) -> np.ndarray:
        """grad J by five-point differences (error of order step^4)."""
        step = 2e-3
        result = np.zeros_like(self.theta)
        for i in range(len(self.theta)):
            e = step * np.eye(len(self.theta))[i]
            outer = self.objective(self.theta + 2 * e) - self.objective(self.theta - 2 * e)
            inner = self.objective(self.theta + e) - self.objective(self.theta - e)
            result[i] = (8 * inner - outer) / (12 * step)
        return result


def make(prompts: int = 2, responses: int = 4, ties: bool = True, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(1, 3, prompts)
    return Problem(
        prompt=weight / weight.sum(),
        phi=rng.normal(size=(prompts, responses, 3)),
        theta=rng.normal(size=3),
        theta_ref=0.5 * rng.normal(size=3),
        quality=2 * rng.normal(size=(prompts, responses)),
        ties=ties,
    )


class Estimator:
    """``sail_loss`` on log-probabilities of chosen responses, as a learner would call it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.theta = torch.tensor(problem.theta, requires_grad=True)
        self.logp = torch.log_softmax(torch.tensor(problem.phi) @ self.theta, dim=1)
        self.probability = self.logp.detach().exp()
        self.ref = torch.tensor(problem.log_policy(problem.theta_ref))

    def losses(
        self, batch: list[tuple[int, int, int, int]], c: float, group: list[int] | None = None
    ) -> Tensor:
        x, y1, y2, z = (torch.tensor(column) for column in zip(*batch, strict=True))
        losses, _ = sail_loss(
            self.logp[x, y1],
            self.logp[x, y2],
            self.ref[x, y1],
            self.ref[x, y2],
            z.double(),
            beta=BETA,
            c=c,
            group=None if group is None else torch.tensor(group),
        )
        return losses

    def ascent(self, loss: Tensor) -> np.ndarray:
        """Minus the gradient of ``loss`` in theta."""
        (gradient,) = torch.autograd.grad(loss, self.theta, retain_graph=True)
        return -gradient.numpy()

    def expectation(self, c: float) -> np.ndarray:
        """Exact expectation of the one-pair estimator."""
        samples = self.problem.samples()
        losses = self.losses([sample[:4] for sample in samples], c)
        weight = [p * self.probability[x, y1] * self.probability[x, y2] for x, y1, y2, _, p in samples]
        assert sum(weight).item() == pytest.approx(1, abs=1e-12)
        return self.ascent((losses * torch.stack(weight)).sum())


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [True, False])
def test_expectation_with_c_one_is_the_gradient_of_j(seed: int, ties: bool) -> None:
    problem = make(seed=seed, ties=ties)
    assert distance(Estimator(problem).expectation(c=1.0), problem.gradient()) < 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("c", [0.0, 0.3, -1.0, 2.0])
def test_any_other_c_is_biased(seed: int, c: float) -> None:
    """Online DPO (c = 0) leaves out what theta does to the pairs that are drawn."""
    problem = make(seed=seed)
    truth = problem.gradient()
    assert distance(Estimator(problem).expectation(c=c), truth) > 0.02 * np.abs(truth).max()


def test_online_dpo_can_point_the_wrong_way() -> None:
    """Not a detail: among small problems there is one where T1 alone descends J."""
    cosines = []
    for seed in range(40):
        problem = make(seed=seed)
        t1, truth = Estimator(problem).expectation(c=0.0), problem.gradient()
        cosines.append(t1 @ truth / (np.linalg.norm(t1) * np.linalg.norm(truth)))
    assert min(cosines) < 0


def test_the_gradient_of_j_by_autograd_agrees_with_differences() -> None:
    """A second road to grad J: differentiate the enumerated sum, probabilities included."""
    problem = make()
    estimator = Estimator(problem)
    samples = problem.samples()
    label_logp = -estimator.losses([sample[:4] for sample in samples], c=0.0)
    weight = [p * (estimator.logp[x, y1] + estimator.logp[x, y2]).exp() for x, y1, y2, _, p in samples]
    ascent = -estimator.ascent((label_logp * torch.stack(weight)).sum())
    assert distance(ascent, problem.gradient()) < 1e-9


def two_pair_batches(problem: Problem, estimator: Estimator) -> list[tuple[list[tuple], float]]:
    """Every batch of two independent pairs, with its probability."""
    probability = estimator.probability.numpy()
    weighted = [
        ((x, y1, y2, z), p * probability[x, y1] * probability[x, y2]) for x, y1, y2, z, p in problem.samples()
    ]
    return [([a, b], p * q) for (a, p), (b, q) in product(weighted, weighted)]


@pytest.mark.parametrize("seed", [0, 1])
def test_baseline_keeps_the_expectation_and_cuts_the_variance(seed: int) -> None:
    """Mean and variance of the T2 part over every batch of two independent pairs."""
    problem = make(prompts=2, responses=3, ties=False, seed=seed)
    estimator = Estimator(problem)
    means, variances = {}, {}
    for group in (None, [0, 1]):
        estimates, weights = [], []
        for batch, probability in two_pair_batches(problem, estimator):
            t2 = estimator.losses(batch, 1.0, group).mean() - estimator.losses(batch, 0.0, group).mean()
            estimates.append(estimator.ascent(t2))
            weights.append(probability)
        name = "none" if group is None else "leave_one_out"
        assert sum(weights) == pytest.approx(1, abs=1e-12)
        means[name] = np.average(estimates, axis=0, weights=weights)
        deviation = np.square(np.array(estimates) - means[name]).sum(axis=1)
        variances[name] = float(np.average(deviation, weights=weights))

    truth = problem.gradient() - estimator.expectation(c=0.0)
    assert np.abs(truth).max() > 1e-2
    assert distance(means["none"], truth) < 1e-9
    assert distance(means["leave_one_out"], truth) < 1e-9
    assert variances["leave_one_out"] < variances["none"]


def test_pairs_that_share_a_segment_must_share_a_group() -> None:
    """Three forks give three pairs. A baseline from a pair that shares a segment shifts the expectation;
    one from the other group does not."""
    problem = make(prompts=1, responses=2, ties=False)
    estimator = Estimator(problem)
    log_policy = estimator.logp.detach().numpy()[0]
    pairs = list(combinations(range(3), 2))
    expected: dict[str, Tensor] = {"by group": torch.zeros(()), "by pair": torch.zeros(())}
    total = 0.0
    for forks in product(range(2), repeat=5):  # three forks of one prompt state, two of another
        drawn = [(forks[i], forks[j]) for i, j in pairs] + [(forks[3], forks[4])]
        for labels in product((1, -1), repeat=4):
            probability = float(np.exp(log_policy[list(forks)].sum()))
            for (y1, y2), z in zip(drawn, labels, strict=True):
                probability *= problem.answers(0, y1, y2)[z]
            batch = [(0, y1, y2, z) for (y1, y2), z in zip(drawn, labels, strict=True)]
            for name, group in {"by group": [0, 0, 0, 1], "by pair": [0, 1, 2, 3]}.items():
                loss = estimator.losses(batch, 1.0, group).mean()
                expected[name] = expected[name] + probability * loss
            total += probability
    assert total == pytest.approx(1, abs=1e-12)
    truth = problem.gradient()
    assert distance(estimator.ascent(expected["by group"]), truth) < 1e-9
    assert distance(estimator.ascent(expected["by pair"]), truth) > 1e-3
