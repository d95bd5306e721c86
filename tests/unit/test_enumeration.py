"""The estimators' expectations against exact enumeration of a small problem: no sampling, no luck.

Log-linear policy pi_theta(y|x) proportional to exp(theta . phi(x, y)) over a few responses, a Bradley-Terry
teacher that also gives ties, a Plackett-Luce teacher that orders several responses. J(theta) is summed over
every sample in plain numpy and differentiated by five-point differences; the estimator's expectation is
summed over every sample it could draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product

import numpy as np
import pytest
import torch
from torch import Tensor

from sailctl.objectives import ranking_loss, sail_loss

BETA = 0.7


@dataclass(frozen=True)
class Design:
    """Who draws the responses and the labels, and how far the true preference may lie from the label's."""

    responses: bool = True  # by the policy, or from data
    policy_labels: bool = False  # by the policy, or by the teacher
    rho: float = 0.0
    worst_case: str = "exact"

    def cost(self, h: float, z: int) -> float:
        """What the adversary takes from a pair of that score and label."""
        rate, favoured = self.rho, {1: 1.0, -1: 0.0, 0: 0.5}[z if h > 0 else -z]
        if self.worst_case == "clipped":
            rate = min(rate, favoured)
        if self.worst_case == "contaminated":
            rate = rate * favoured
        return rate * abs(h)


OFFLINE, DDP, DPP, DPR = (
    Design(responses=False),
    Design(responses=False, policy_labels=True),
    Design(policy_labels=True),
    Design(),
)
ROBUST = [
    Design(design.responses, design.policy_labels, rho, worst_case)
    for design in (OFFLINE, DDP, DPP, DPR)
    for rho, worst_case in ((0.15, "exact"), (0.15, "clipped"), (0.8, "clipped"), (0.3, "contaminated"))
]


@dataclass(frozen=True)
class Problem:
    """X prompts, Y responses, d features."""

    prompt: np.ndarray  # (X,) probability of each prompt
    data: np.ndarray  # (X, Y) probability of each response in the data
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
        """Probability of each label of the teacher."""
        gap = self.quality[x, y1] - self.quality[x, y2]
        tie = 0.3 * np.exp(-abs(gap)) if self.ties else 0.0
        first = 1 / (1 + np.exp(-gap))
        return {1: (1 - tie) * first, -1: (1 - tie) * (1 - first), 0: tie}

    def samples(self, theta: np.ndarray, design: Design = DPR) -> list[tuple[int, int, int, int, float]]:
        """Every (x, y1, y2, z) that can be drawn, with its probability."""
        prompts, responses = self.quality.shape
        response = np.exp(self.log_policy(theta)) if design.responses else self.data
        found = []
        for x, y1, y2 in product(range(prompts), range(responses), range(responses)):
            first = 1 / (1 + np.exp(-self.score(theta, x, y1, y2)))
            labels = {1: first, -1: 1 - first} if design.policy_labels else self.answers(x, y1, y2)
            chance = self.prompt[x] * response[x, y1] * response[x, y2]
            found += [(x, y1, y2, z, chance * p) for z, p in labels.items() if p > 0]
        return found

    def score(self, theta: np.ndarray, x: int, y1: int, y2: int) -> float:
        ratio = self.log_policy(theta) - self.log_policy(self.theta_ref)
        return float(BETA * (ratio[x, y1] - ratio[x, y2]))

    def objective(self, theta: np.ndarray, design: Design = DPR) -> float:
        """The definition written out: J, less what the adversary takes."""
        total = 0.0
        for x, y1, y2, z, p in self.samples(theta, design):
            h = self.score(theta, x, y1, y2)
            first, second = -np.log1p(np.exp(-h)), -np.log1p(np.exp(h))
            label_logp = {1: first, -1: second, 0: (first + second) / 2}[z]
            total += p * (label_logp - design.cost(h, z))
        return total

    def gradient(self, design: Design = DPR) -> np.ndarray:
        """Gradient of the objective."""
        return differences(lambda theta: self.objective(theta, design), self.theta)


def differences(function: Callable[[np.ndarray], float], theta: np.ndarray) -> np.ndarray:
    """Gradient by five-point differences (error of order step^4)."""
    step = 2e-3
    result = np.zeros_like(theta)
    for i in range(len(theta)):
        e = step * np.eye(len(theta))[i]
        outer = function(theta + 2 * e) - function(theta - 2 * e)
        inner = function(theta + e) - function(theta - e)
        result[i] = (8 * inner - outer) / (12 * step)
    return result


def make(prompts: int = 2, responses: int = 3, ties: bool = True, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(1, 3, prompts)
    return Problem(
        prompt=weight / weight.sum(),
        data=rng.dirichlet(np.ones(responses), prompts),
        phi=rng.normal(size=(prompts, responses, 3)),
        theta=rng.normal(size=3),
        theta_ref=0.5 * rng.normal(size=3),
        quality=2 * rng.normal(size=(prompts, responses)),
        ties=ties,
    )


class Estimator:
    """The losses on log-probabilities of chosen responses, as a learner would call them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.theta = torch.tensor(problem.theta, requires_grad=True)
        self.logp = torch.log_softmax(torch.tensor(problem.phi) @ self.theta, dim=1)
        self.ref = torch.tensor(problem.log_policy(problem.theta_ref))

    def losses(
        self,
        batch: list[tuple[int, int, int, int]],
        c: float,
        group: list[int] | None = None,
        design: Design = DPR,
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
            responses=design.responses,
            policy_labels=design.policy_labels,
            rho=design.rho,
            worst_case=design.worst_case,
        )
        return losses

    def ascent(self, loss: Tensor) -> np.ndarray:
        """Minus the gradient of ``loss`` in theta."""
        (gradient,) = torch.autograd.grad(loss, self.theta, retain_graph=True)
        return -gradient.numpy()

    def expectation(self, c: float, design: Design = DPR) -> np.ndarray:
        """Exact expectation of the one-pair estimator."""
        samples = self.problem.samples(self.problem.theta, design)
        losses = self.losses([sample[:4] for sample in samples], c, design=design)
        weight = torch.tensor([sample[4] for sample in samples], dtype=torch.float64)
        assert weight.sum().item() == pytest.approx(1, abs=1e-12)
        return self.ascent((losses * weight).sum())


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("design", [OFFLINE, DDP, DPP, DPR], ids=["offline", "DDP", "DPP", "DPR"])
def test_expectation_with_c_one_is_the_gradient_of_j(design: Design, seed: int, ties: bool) -> None:
    problem = make(seed=seed, ties=ties)
    truth = problem.gradient(design)
    assert np.abs(truth).max() > 1e-3
    assert distance(Estimator(problem).expectation(c=1.0, design=design), truth) < 1e-9


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("design", ROBUST, ids=str)
def test_expectation_with_c_one_is_the_gradient_of_the_worst_case(design: Design, seed: int) -> None:
    """-(L_SAIL + rho E|h|), and its clipped form, ties included; without the cost the gradient is another."""
    problem = make(seed=seed)
    truth = problem.gradient(design)
    assert distance(Estimator(problem).expectation(c=1.0, design=design), truth) < 1e-9
    trusting = Design(design.responses, design.policy_labels)
    assert distance(Estimator(problem).expectation(c=1.0, design=trusting), truth) > 1e-3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("c", [0.0, 0.3, -1.0, 2.0])
@pytest.mark.parametrize("design", [DDP, DPP, DPR], ids=["DDP", "DPP", "DPR"])
def test_any_other_c_is_biased(design: Design, seed: int, c: float) -> None:
    """Online DPO (c = 0) leaves out what theta does to the samples that are drawn."""
    problem = make(seed=seed)
    truth = problem.gradient(design)
    assert distance(Estimator(problem).expectation(c, design), truth) > 0.02 * np.abs(truth).max()


@pytest.mark.parametrize("design", [DDP, DPP], ids=["DDP", "DPP"])
def test_t1_has_mean_zero_under_own_labels(design: Design) -> None:
    """DPO on labels that the policy gave itself learns nothing on average."""
    for seed in range(4):
        assert np.abs(Estimator(make(seed=seed)).expectation(c=0.0, design=design)).max() < 1e-14


def test_ddp_makes_the_policy_surer_of_what_it_prefers() -> None:
    """Its objective is minus the entropy of sigma(h) over the data's pairs."""
    problem = make(seed=2)

    def minus_entropy(theta: np.ndarray) -> float:
        total = 0.0
        for x, y1, y2, _, p in problem.samples(theta, OFFLINE):
            sure = 1 / (1 + np.exp(-problem.score(theta, x, y1, y2)))
            total += p * (sure * np.log(sure) + (1 - sure) * np.log(1 - sure))
        return total

    ddp = Estimator(problem).expectation(c=1.0, design=DDP)
    assert distance(ddp, differences(minus_entropy, problem.theta)) < 1e-9


def test_online_dpo_can_point_the_wrong_way() -> None:
    """Not a detail: among small problems there is one where T1 alone descends J."""
    cosines = []
    for seed in range(20):
        problem = make(seed=seed)
        t1, truth = Estimator(problem).expectation(c=0.0), problem.gradient()
        cosines.append(t1 @ truth / (np.linalg.norm(t1) * np.linalg.norm(truth)))
    assert min(cosines) < 0


def test_the_gradient_of_j_by_autograd_agrees_with_differences() -> None:
    """A second road to grad J: differentiate the enumerated sum, probabilities included."""
    problem = make()
    estimator = Estimator(problem)
    samples = problem.samples(problem.theta)
    label_logp = -estimator.losses([sample[:4] for sample in samples], c=0.0)
    weight = torch.stack(
        [
            problem.prompt[x]
            * problem.answers(x, y1, y2)[z]
            * (estimator.logp[x, y1] + estimator.logp[x, y2]).exp()
            for x, y1, y2, z, _ in samples
        ]
    )
    ascent = -estimator.ascent((label_logp * weight).sum())
    assert distance(ascent, problem.gradient()) < 1e-9


@pytest.mark.parametrize("design", [DDP, DPP, DPR], ids=["DDP", "DPP", "DPR"])
def test_baseline_keeps_the_expectation_and_cuts_the_variance(design: Design) -> None:
    """Mean and variance of what c adds, over every batch of two independent pairs."""
    problem = make(prompts=1, ties=False)
    estimator = Estimator(problem)
    samples = problem.samples(problem.theta, design)
    means, variances = {}, {}
    for group in (None, [0, 1]):
        estimates, weights = [], []
        for first, second in product(samples, samples):
            batch = [first[:4], second[:4]]
            added = (
                estimator.losses(batch, 1.0, group, design).mean()
                - estimator.losses(batch, 0.0, group, design).mean()
            )
            estimates.append(estimator.ascent(added))
            weights.append(first[4] * second[4])
        name = "none" if group is None else "leave_one_out"
        assert sum(weights) == pytest.approx(1, abs=1e-12)
        means[name] = np.average(estimates, axis=0, weights=weights)
        deviation = np.square(np.array(estimates) - means[name]).sum(axis=1)
        variances[name] = float(np.average(deviation, weights=weights))

    truth = problem.gradient(design) - estimator.expectation(0.0, design)
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


@dataclass(frozen=True)
class Rankings:
    """Every order of every K responses to every prompt."""

    problem: Problem
    x: np.ndarray  # (N,) prompt
    y: np.ndarray  # (N, K) responses, the best first
    chance: np.ndarray  # (N,) probability of the prompt, times that of the teacher's order

    def probability(self, theta: np.ndarray) -> np.ndarray:
        """(N,) probability of each, the policy's draw of the K responses included."""
        logp = self.problem.log_policy(theta)
        return self.chance * np.exp(logp[self.x[:, None], self.y].sum(axis=1))

    rho: float = 0.0  # share of arbitrary orders

    def objective(self, theta: np.ndarray) -> float:
        """J(theta) = E[(1 - rho) log-likelihood of the order + rho that of the worst order], written out."""
        ratio = self.problem.log_policy(theta) - self.problem.log_policy(self.problem.theta_ref)
        score = BETA * ratio[self.x[:, None], self.y]
        orders = [list(order) for order in permutations(range(score.shape[1]))]
        worst = np.min([np.log(order_chance(score[:, order])) for order in orders], axis=0)
        value = (1 - self.rho) * np.log(order_chance(score)) + self.rho * worst
        return float((self.probability(theta) * value).sum())

    def losses(self, estimator: Estimator, c: float, rows: Tensor, baseline: bool = False) -> Tensor:
        x, y = torch.tensor(self.x)[rows, None], torch.tensor(self.y)[rows]
        losses, _ = ranking_loss(
            estimator.logp[x, y], estimator.ref[x, y], beta=BETA, c=c, baseline=baseline, rho=self.rho
        )
        return losses

    def expectation(self, c: float) -> np.ndarray:
        """Exact expectation of the estimator of one ranking."""
        estimator = Estimator(self.problem)
        weight = torch.tensor(self.probability(self.problem.theta))
        assert weight.sum().item() == pytest.approx(1, abs=1e-12)
        losses = self.losses(estimator, c, torch.arange(len(self.x)))
        return estimator.ascent((losses * weight).sum())


def order_chance(score: np.ndarray) -> np.ndarray:
    """(N,) Plackett-Luce probability of orders whose scores (N, K) are given the best first."""
    worth = np.exp(score)
    chance = np.ones(len(score))
    for k in range(score.shape[1]):
        chance *= worth[:, k] / worth[:, k:].sum(axis=1)
    return chance


def every_ranking(problem: Problem, k: int) -> Rankings:
    prompts, responses = problem.quality.shape
    drawn = product(range(prompts), product(range(responses), repeat=k), permutations(range(k)))
    rows = [(x, [forks[i] for i in order]) for x, forks, order in drawn]
    x, y = (np.array(column) for column in zip(*rows, strict=True))
    return Rankings(problem, x, y, problem.prompt[x] * order_chance(problem.quality[x[:, None], y]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [2, 3, 4])
def test_expectation_over_every_ranking_is_the_gradient_of_its_j(k: int, seed: int) -> None:
    rankings = every_ranking(make(seed=seed), k)
    truth = differences(rankings.objective, rankings.problem.theta)
    assert np.abs(truth).max() > 1e-2
    assert distance(rankings.expectation(c=1.0), truth) < 1e-9
    for c in (0.0, 0.5, 2.0):
        assert distance(rankings.expectation(c), truth) > 0.02 * np.abs(truth).max()


@pytest.mark.parametrize("k", [2, 3])
def test_expectation_with_arbitrary_rankings_is_the_gradient_of_the_worst_case(k: int) -> None:
    rankings = replace(every_ranking(make(seed=1), k), rho=0.3)
    truth = differences(rankings.objective, rankings.problem.theta)
    assert distance(rankings.expectation(c=1.0), truth) < 1e-9
    assert distance(replace(rankings, rho=0.0).expectation(c=1.0), truth) > 0.02 * np.abs(truth).max()


def test_rankings_of_two_are_pairs() -> None:
    problem = make(ties=False)
    rankings = every_ranking(problem, 2)
    assert rankings.objective(problem.theta) == pytest.approx(problem.objective(problem.theta), rel=1e-12)
    for c in (0.0, 0.4, 1.0):
        assert distance(rankings.expectation(c), Estimator(problem).expectation(c)) < 1e-14


def test_baseline_of_other_prompts_keeps_the_expectation_of_rankings() -> None:
    """Over every batch of two independent prompts with three ranked responses each."""
    rankings = every_ranking(make(prompts=1, responses=2), 3)
    estimator = Estimator(rankings.problem)
    probability = rankings.probability(rankings.problem.theta)
    total = torch.zeros(())
    for i, j in product(range(len(probability)), repeat=2):
        losses = rankings.losses(estimator, 1.0, torch.tensor([i, j]), baseline=True)
        total = total + probability[i] * probability[j] * losses.mean()
    truth = differences(rankings.objective, rankings.problem.theta)
    assert distance(estimator.ascent(total), truth) < 1e-9
