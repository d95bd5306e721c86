"""The update: gradients worked out again in numpy, limits bit for bit, and no way to the reward."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

import sailctl.algorithms.learner
import sailctl.algorithms.sources
import sailctl.objectives
import sailctl.policies.policy
from sailctl.algorithms.learner import Learner
from sailctl.algorithms.sources import rows_by_group
from sailctl.config import AlgoConfig, PolicyConfig, RolloutConfig
from sailctl.core.seeding import named_generators
from sailctl.core.types import (
    EnvSpec,
    JudgedRewards,
    NonFiniteError,
    Pairs,
    PreferenceData,
    Preferences,
    SegmentBatch,
)
from sailctl.data.rollout import Collector, forked_pairs
from sailctl.policies.policy import GaussianPolicy
from sailctl.preferences.labeller import TRUTHFUL
from sailctl.preferences.oracle import Teacher
from sailctl.simulator.batched import TaskSimulator
from sailctl_envs import ALL_TASKS

SAIL = AlgoConfig(
    name="sail",
    beta=0.1,
    c=0.3,
    baseline="leave_one_out",
    responses="segments",
    labels="teacher",
    w=1.0,
    data=None,
    queries=None,
    selection="uniform",
    rho=0.0,
    worst_case="exact",
    gamma=0.0,
    kl="kl_ref_pi",
    radius=None,
    reference="initial",
    reference_interval=1,
    observe=None,
    optimiser="adam",
    lr=1e-3,
    anneal=False,
    target_kl=None,
    clip=None,
    epochs=3,
    minibatches=4,
    max_grad_norm=1.0,
    iterations=None,
)
REVKL = replace(SAIL, name="sail_revkl", gamma=0.1, radius=30.0)
MLP = PolicyConfig("mlp", [8], 0, 0.6, True, True)
LINEAR = PolicyConfig("linear", [], 5, 0.6, True, False)
SPEC = EnvSpec("toy-v0", 4, 2, -np.ones(2), np.ones(2), 100, 0.1)
PROMPTS, STEPS = 8, 6


def policy_of(config: PolicyConfig = MLP, seed: int = 0, scale: float = 0.2) -> GaussianPolicy:
    policy, rng = GaussianPolicy(config, SPEC, np.random.default_rng(0)), np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.from_numpy(rng.normal(0, scale, parameter.shape).astype(np.float32)))
    return policy


def data(seed: int = 0, forks: int = 2, steps: int = STEPS) -> tuple[SegmentBatch, Preferences]:
    """Segments of unequal length, and labels of all three kinds."""
    rng = np.random.default_rng(seed)
    rows = PROMPTS * forks
    mask = (np.arange(steps) < rng.integers(1, steps + 1, rows)[:, None]).astype(np.float32)
    obs = rng.normal(1.0, 2.0, (rows, steps, 4)).astype(np.float32) * mask[..., None]
    actions = rng.normal(0.0, 0.7, (rows, steps, 2)).astype(np.float32) * mask[..., None]
    pairs = forked_pairs(PROMPTS, forks)
    label = rng.choice([-1.0, 0.0, 1.0], len(pairs), p=[0.45, 0.1, 0.45]).astype(np.float32)
    return SegmentBatch(obs, actions, mask, forks), Preferences(pairs, label)


def learner_of(config: AlgoConfig, policy: GaussianPolicy | None = None, seed: int = 0) -> Learner:
    policy = policy_of() if policy is None else policy
    return Learner(policy, policy.snapshot(), config, named_generators(seed))


def after(config: AlgoConfig, updates: int = 4, forks: int = 2) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """The policy after some updates, and their metrics."""
    learner = learner_of(config)
    history = [learner.update(*data(seed, forks)) for seed in range(updates)]
    return learner.policy.state_dict(), history


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(one[name], two[name]) for name in one)


def moved(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(one[name], two[name]) for name in one)


# The gradient, against another implementation


def loss_in_numpy(
    theta: dict[str, np.ndarray],
    start: dict[str, np.ndarray],
    reference: dict[str, np.ndarray],
    config: AlgoConfig,
    features: np.ndarray,
    segments: SegmentBatch,
    preferences: Preferences,
) -> float:
    """The loss of one full batch in float64; what is held constant is evaluated at ``start``."""
    mask, actions = segments.mask.astype(np.float64), segments.actions.astype(np.float64)

    def means(p: dict[str, np.ndarray]) -> np.ndarray:
        return features @ p["net.weight"].T + p["net.bias"]

    def log_prob(p: dict[str, np.ndarray]) -> np.ndarray:
        std = np.exp(p["log_std"])
        density = -0.5 * ((actions - means(p)) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        return (density.sum(-1) * mask).sum(-1)

    def certainty(p: dict[str, np.ndarray]) -> np.ndarray:
        ratio = log_prob(p) - log_prob(reference)
        h = config.beta * (ratio[preferences.pairs.first] - ratio[preferences.pairs.second])
        log_sigmoid = {z: -np.log1p(np.exp(-z * h)) for z in (1, -1)}
        tie = 0.5 * (log_sigmoid[1] + log_sigmoid[-1])
        return np.select(
            [preferences.label > 0, preferences.label < 0], [log_sigmoid[1], log_sigmoid[-1]], tie
        )

    def robust_cost(p: dict[str, np.ndarray]) -> np.ndarray:
        ratio = config.beta * (log_prob(p) - log_prob(reference))
        h = ratio[preferences.pairs.first] - ratio[preferences.pairs.second]
        sure = (1 + preferences.label) / 2
        room = np.where(h > 0, sure, 1 - sure) if config.worst_case == "clipped" else np.ones_like(h)
        return np.minimum(config.rho, room) * np.abs(h)

    held, group = certainty(start) - robust_cost(start), preferences.pairs.group
    baseline = np.zeros(len(held))
    if config.baseline == "leave_one_out":
        baseline = np.array([held[group != g].mean() for g in group])
    logp = log_prob(theta)
    both = logp[preferences.pairs.first] + logp[preferences.pairs.second]
    value = certainty(theta) - robust_cost(theta)
    loss = (-value - config.c * (held - baseline) * both).mean()

    p, q = (reference, theta) if config.kl == "kl_ref_pi" else (theta, reference)
    var_p, var_q = np.exp(2 * p["log_std"]), np.exp(2 * q["log_std"])
    kl = 0.5 * (np.log(var_q / var_p) + (var_p + (means(p) - means(q)) ** 2) / var_q - 1).sum(-1)
    return float(loss + config.gamma * (kl * mask).sum() / mask.sum())


@pytest.mark.parametrize("forks", [2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {"c": 0.0},
        {"c": 1.0},
        {"c": 1.0, "baseline": "none"},
        {"c": 0.3, "gamma": 0.7},
        {"c": 0.3, "gamma": 0.7, "kl": "kl_pi_ref"},
        {"c": 0.0, "rho": 0.3},
        {"c": 1.0, "rho": 0.3, "worst_case": "clipped", "gamma": 0.7},
    ],
    ids=["dpo", "sail", "no-baseline", "kl_ref_pi", "kl_pi_ref", "robust", "clipped"],
)
def test_one_sgd_step_follows_the_finite_difference_gradient(changes: dict, forks: int):
    one_step = replace(
        SAIL,
        optimiser="sgd",
        lr=1.0,
        epochs=1,
        minibatches=1,
        max_grad_norm=None,
        reference_interval=0,
        beta=0.4,
    )
    config = replace(one_step, **changes)
    policy, reference = policy_of(LINEAR, seed=1, scale=0.1), policy_of(LINEAR, seed=2, scale=0.1)
    segments, preferences = data(3, forks)
    features = policy.features(torch.from_numpy(segments.obs)).double().numpy()
    names = [name for name, _ in policy.named_parameters()]
    start = {name: policy.state_dict()[name].double().numpy().copy() for name in names}
    fixed = {name: reference.state_dict()[name].double().numpy().copy() for name in names}

    Learner(policy, reference, config, named_generators(0)).update(segments, preferences)

    def loss(theta: dict[str, np.ndarray]) -> float:
        return loss_in_numpy(theta, start, fixed, config, features, segments, preferences)

    size = 1e-5
    for name in names:
        gradient = np.zeros_like(start[name])
        for index in np.ndindex(gradient.shape):
            up, down = ({k: v.copy() for k, v in start.items()} for _ in range(2))
            up[name][index] += size
            down[name][index] -= size
            gradient[index] = (loss(up) - loss(down)) / (2 * size)
        step = start[name] - policy.state_dict()[name].double().numpy()
        assert np.abs(gradient).max() > 1e-3
        np.testing.assert_allclose(step, gradient, rtol=2e-4, atol=2e-5, err_msg=name)


def test_the_gradient_is_cut_to_its_largest_norm():
    config = replace(SAIL, optimiser="sgd", lr=1.0, epochs=1, minibatches=1, c=1.0, beta=2.0)
    steps = {}
    for limit in (None, 0.05):
        learner = learner_of(replace(config, max_grad_norm=limit))
        start = torch.nn.utils.parameters_to_vector(learner.policy.parameters()).detach().clone()
        metrics = learner.update(*data())
        steps[limit] = start - torch.nn.utils.parameters_to_vector(learner.policy.parameters()).detach()
        assert metrics["grad_norm"] == pytest.approx(float(steps[None].norm()), rel=1e-3)
    assert float(steps[None].norm()) > 0.05
    assert float(steps[0.05].norm()) == pytest.approx(0.05, rel=1e-3)
    cosine = torch.nn.functional.cosine_similarity(steps[None], steps[0.05], dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("left", [1.0, 0.25])
def test_the_learning_rate_follows_what_is_left_of_the_run(left: float):
    config = replace(SAIL, optimiser="sgd", lr=0.1, epochs=1, minibatches=1)
    steps = {}
    for anneal in (False, True):
        learner = learner_of(replace(config, anneal=anneal))
        start = torch.nn.utils.parameters_to_vector(learner.policy.parameters()).detach().clone()
        metrics = learner.update(*data(), left)
        steps[anneal] = torch.nn.utils.parameters_to_vector(learner.policy.parameters()).detach() - start
        assert metrics["lr"] == pytest.approx(0.1 * left if anneal else 0.1)
    torch.testing.assert_close(steps[True], left * steps[False], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("lr", [5e-4, 1e-3, 0.1])
def test_the_learning_rate_finds_the_pace_of_the_target(lr: float):
    """From far too small and far too large, the steps come to move the policy by the KL asked for."""
    learner = learner_of(replace(SAIL, lr=lr, target_kl=0.01))
    moved, rates = [], []
    for update in range(30):
        before = learner.policy.snapshot()
        segments, preferences = data(update)
        metrics = learner.update(segments, preferences)
        taken = torch.from_numpy(segments.obs[segments.mask > 0])
        after = learner.policy.snapshot()
        for statistics in ("obs_mean", "obs_var", "obs_count"):  # gathered after the last step
            setattr(after, statistics, getattr(before, statistics))
        ours, theirs = (
            torch.distributions.Normal(policy.mean(policy.features(taken)), policy.log_std.exp())
            for policy in (before, after)
        )
        exact = torch.distributions.kl_divergence(ours, theirs).sum(-1).mean()
        assert metrics["kl_moved"] == pytest.approx(float(exact), rel=1e-3, abs=1e-7)
        moved.append(metrics["kl_moved"])
        rates.append(metrics["lr"])
    assert rates[0] == pytest.approx(lr)
    assert 0.01 / 2 < float(np.median(moved[-10:])) < 0.01 * 2
    assert all(lr / 100 <= rate * (1 + 1e-6) and rate <= 10 * lr * (1 + 1e-6) for rate in rates)


def test_passes_end_when_the_policy_has_moved_twice_as_far_as_asked(monkeypatch: pytest.MonkeyPatch):
    learner = learner_of(replace(SAIL, lr=0.03, target_kl=1e-3, epochs=5))
    taken, step = [], learner._step

    def watched(*arguments: object) -> dict[str, float]:
        assert not taken or learner._moved(arguments[0], log_std) <= 2e-3, "a step too many"
        taken.append(step(*arguments))
        return taken[-1]

    log_std = learner.policy.log_std.detach().clone()
    monkeypatch.setattr(learner, "_step", watched)
    metrics = learner.update(*data())
    assert 0 < len(taken) < 5 * 4
    assert metrics["kl_moved"] > 2e-3
    assert metrics["loss"] == pytest.approx(
        np.mean([one["loss"] for one in taken[4 * ((len(taken) - 1) // 4) :]])
    )


def test_a_target_that_is_never_met_changes_nothing_at_first():
    """The rate changes between iterations, not within one, so the first is that of a fixed rate."""
    fixed, history = after(SAIL, updates=1)
    paced, paced_history = after(replace(SAIL, target_kl=1e6), updates=1)
    assert_same(fixed, paced)
    assert history == paced_history


def test_the_target_falls_with_an_annealed_rate():
    """Passes end at a tenth of the way when a tenth of the run is left."""
    learner = learner_of(replace(SAIL, lr=0.3, target_kl=1.0, anneal=True, epochs=50))
    few = learner_of(replace(SAIL, lr=0.03, target_kl=0.1, epochs=50))
    assert learner.update(*data(), 0.1) == few.update(*data())
    assert_same(learner.policy.state_dict(), few.policy.state_dict())


def test_ties_do_not_let_the_rate_rise_without_end():
    learner = learner_of(replace(SAIL, c=0.0, target_kl=0.01))
    segments, preferences = data()
    ties = Preferences(preferences.pairs, np.zeros_like(preferences.label))
    rates = [learner.update(segments, ties)["lr"] for _ in range(12)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(10 * SAIL.lr)


def test_without_labels_the_pace_stays():
    learner = learner_of(replace(SAIL, target_kl=0.01))
    segments, preferences = data()
    nothing = Preferences(preferences.pairs.head(0), preferences.label[:0])
    metrics = learner.update(segments, nothing)
    assert math.isnan(metrics["kl_moved"])
    assert learner.update(segments, nothing)["lr"] == metrics["lr"] == SAIL.lr


def test_a_bound_on_steps_that_is_never_reached_changes_nothing():
    assert_same(after(SAIL)[0], after(replace(SAIL, clip=1e6))[0])


def test_the_first_step_of_an_iteration_is_that_without_a_bound():
    """Nothing has moved yet: the gradient is the objective's, however narrow the bound."""
    once = replace(REVKL, epochs=1, minibatches=1)
    assert_same(after(once)[0], after(replace(once, clip=1e-9))[0])


@pytest.mark.parametrize("forks", [2, 3])
def test_with_a_bound_many_passes_fit_the_labels_within_it(forks: int):
    """Most steps end near the bound instead of far beyond it, and the labels are still followed."""
    drift, accuracy = {}, {}
    for clip in (None, 0.1):
        learner = learner_of(replace(SAIL, c=0.0, lr=3e-3, epochs=60, clip=clip))
        segments, preferences = data(0, forks)
        before = learner.policy.snapshot()
        metrics = learner.update(segments, preferences)
        obs, actions = torch.from_numpy(segments.obs), torch.from_numpy(segments.actions)
        features = before.features(obs)
        with torch.no_grad():
            change = learner.policy.log_prob(learner.policy.mean(features), actions) - before.log_prob(
                before.mean(features), actions
            )
        drift[clip] = float(change[torch.from_numpy(segments.mask) > 0].abs().quantile(0.9))
        accuracy[clip] = metrics["accuracy"]
    assert drift[0.1] < 0.4 < 0.8 < drift[None]
    assert min(accuracy.values()) > 0.8


def test_updates_make_the_labels_likelier():
    """Against a fixed reference, on one batch of consistent labels, F rises and the accuracy with it."""
    learner = learner_of(replace(SAIL, reference_interval=0, observe=0, c=0.0, lr=3e-3))
    segments, preferences = data()
    answered = Preferences(preferences.pairs, np.where(preferences.label == 0, 1, preferences.label))
    history = [learner.update(segments, answered) for _ in range(20)]
    assert history[-1]["F"] > history[0]["F"] + 0.01
    assert history[-1]["accuracy"] > 0.9


# Limits


@pytest.mark.parametrize(
    ("radius", "kl", "forks"), [(None, "kl_ref_pi", 2), (1e9, "kl_pi_ref", 3), (math.inf, "kl_ref_pi", 2)]
)
def test_revkl_without_penalty_and_ball_is_sail_bit_for_bit(radius: float | None, kl: str, forks: int):
    sail, sail_history = after(SAIL, forks=forks)
    limit, history = after(replace(REVKL, gamma=0.0, radius=radius, kl=kl), forks=forks)
    assert_same(sail, limit)
    assert history == sail_history
    assert moved(sail, after(replace(REVKL, gamma=1e-3, radius=radius, kl=kl), forks=forks)[0])


def test_a_zero_coefficient_is_online_dpo_bit_for_bit():
    """c = 0 is DPO whatever the baseline, and its gradient is that of the DPO loss written out here."""
    dpo = after(replace(SAIL, name="dpo_online", c=0.0))[0]
    assert_same(dpo, after(replace(SAIL, c=0.0, baseline="none"))[0])
    assert moved(dpo, after(SAIL)[0])

    learner = learner_of(
        replace(
            SAIL,
            c=0.0,
            epochs=1,
            minibatches=1,
            reference_interval=0,
            observe=0,
            max_grad_norm=None,
            optimiser="sgd",
            lr=0.1,
        )
    )
    twin = learner.policy.snapshot()
    twin.requires_grad_(True)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    segments, preferences = data()
    twin.observe(segments.obs[segments.mask > 0])
    learner.update(segments, preferences)
    obs, actions, mask = map(torch.from_numpy, (segments.obs, segments.actions, segments.mask))
    logp = (twin.log_prob(twin.mean(twin.features(obs)), actions) * mask).sum(-1)
    ratio = logp - logp.detach()
    h = SAIL.beta * (ratio[preferences.pairs.first] - ratio[preferences.pairs.second])
    first = (1 + torch.from_numpy(preferences.label)) / 2
    torch.nn.functional.binary_cross_entropy_with_logits(h, first).backward()
    optimiser.step()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(parameter, learner.policy.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_the_two_directions_of_the_kl_are_two_algorithms():
    config = replace(REVKL, gamma=1.0, reference_interval=0, observe=0)
    assert moved(after(config)[0], after(replace(config, kl="kl_pi_ref"))[0])


def test_the_same_seed_gives_the_same_policy_and_another_seed_another():
    one, two, other = (learner_of(REVKL, seed=seed) for seed in (1, 1, 2))
    for learner in (one, two, other):
        for seed in range(3):
            learner.update(*data(seed))
    assert_same(one.policy.state_dict(), two.policy.state_dict())
    assert moved(one.policy.state_dict(), other.policy.state_dict())


# The reference and the ball


@pytest.mark.parametrize("refresh", [1, 2, 3])
def test_the_reference_is_refreshed_every_so_many_updates(refresh: int):
    learner = learner_of(replace(SAIL, reference_interval=refresh, epochs=1, minibatches=1))
    for update in range(7):
        before = learner.policy.snapshot()
        held = learner.reference
        metrics = learner.update(*data(update))
        if update % refresh == 0:
            assert learner.reference is not held
            assert_same(learner.reference.state_dict(), before.state_dict())
            assert metrics["h_abs"] == 0.0
            assert metrics["kl_ref_pi"] == metrics["kl_pi_ref"] == 0.0
            assert metrics["F"] == pytest.approx(math.log(0.5), rel=1e-6)
        else:
            assert learner.reference is held
            assert metrics["h_abs"] > 0.0
            assert min(metrics["kl_ref_pi"], metrics["kl_pi_ref"]) > 0.0


@pytest.mark.parametrize("refresh", [0, 3])
def test_a_new_policy_that_keeps_its_statistics_has_those_of_the_first_segments(refresh: int):
    learner = learner_of(replace(SAIL, reference_interval=refresh, observe=0))
    first, _ = data(9)
    seen = first.obs[first.mask > 0].astype(np.float64)
    for update in (9, 0, 1, 2, 3):
        learner.update(*data(update))
        for policy in (learner.policy, learner.reference):
            np.testing.assert_allclose(policy.obs_mean.numpy(), seen.mean(0), rtol=1e-6)
            assert float(policy.obs_count) == len(seen)


def test_statistics_of_a_policy_that_has_some_are_kept_whether_the_reference_moves_or_not():
    for refresh in (0, 1):
        policy = policy_of()
        policy.observe(np.random.default_rng(3).normal(2.0, 3.0, (50, 4)).astype(np.float32))
        before = {name: tensor.clone() for name, tensor in policy.named_buffers()}
        learner = learner_of(replace(SAIL, reference_interval=refresh, observe=0), policy)
        for update in range(3):
            learner.update(*data(update))
        assert_same(dict(learner.policy.named_buffers()), before)
        assert_same(dict(learner.reference.named_buffers()), before)


@pytest.mark.parametrize("refresh", [0, 1])
def test_statistics_follow_what_is_seen_in_the_first_env_steps(refresh: int):
    counts, seen = {}, [float(data(update)[0].mask.sum()) for update in range(4)]
    for observe in (None, 1, 200):
        learner = learner_of(replace(SAIL, reference_interval=refresh, observe=observe))
        for update in range(4):
            learner.update(*data(update), env_steps=100 * update)
        counts[observe] = float(learner.policy.obs_count)
    assert counts == {None: sum(seen), 1: seen[0], 200: seen[0] + seen[1]}


def test_a_kept_reference_has_the_statistics_that_it_began_with_while_the_policys_move_on():
    learner = learner_of(replace(SAIL, reference_interval=0))
    before = {name: tensor.clone() for name, tensor in learner.reference.state_dict().items()}
    for update in range(3):
        learner.update(*data(update))
    assert_same(dict(learner.reference.state_dict()), before)
    assert float(learner.policy.obs_count) > 0


def test_without_refresh_the_reference_stays_for_ever():
    learner = learner_of(replace(SAIL, reference_interval=0, observe=0))
    reference = learner.reference
    learner.update(*data(9))  # the first segments set the statistics of both
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    for update in range(5):
        learner.update(*data(update))
    assert learner.reference is reference
    assert_same(reference.state_dict(), before)
    assert moved(learner.policy.state_dict(), before)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_the_parameters_stay_on_the_ball(monkeypatch: pytest.MonkeyPatch, optimiser: str):
    radius, norms = 2.0, []
    learner = learner_of(replace(REVKL, radius=radius, optimiser=optimiser, lr=0.05))
    project = sailctl.algorithms.learner.project_ball

    def norm() -> float:
        return float(
            torch.nn.utils.parameters_to_vector(learner.policy.parameters()).detach().double().norm()
        )

    def watched(parameters: list[torch.Tensor], bound: float | None) -> float:
        before = project(parameters, bound)
        norms.append((before, norm()))
        return before

    monkeypatch.setattr(sailctl.algorithms.learner, "project_ball", watched)
    for update in range(3):
        metrics = learner.update(*data(update))
    assert len(norms) == 3 * REVKL.epochs * REVKL.minibatches
    assert max(before for before, _ in norms) > radius, "the example must leave the ball"
    assert max(inside for _, inside in norms) <= radius * (1 + 1e-6)
    assert metrics["param_norm"] == pytest.approx(norm(), rel=1e-5)


def test_a_fixed_deviation_is_not_trained_and_not_projected():
    policy = policy_of(replace(LINEAR, learn_std=False))
    before = policy.log_std.detach().clone()
    learner_of(replace(REVKL, radius=0.1), policy).update(*data())
    assert torch.equal(policy.log_std, before)
    norm = math.sqrt(sum(float(p.detach().square().sum()) for p in policy.net.parameters()))
    assert norm <= 0.1 * (1 + 1e-6)


# Diagnostics


def test_diagnostics_are_finite_and_sensible():
    for metrics in after(REVKL, updates=5, forks=3)[1]:
        assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
        assert metrics["kl_ref_pi"] > 0
        assert metrics["kl_pi_ref"] > 0
        assert metrics["F"] < 0
        assert 0 <= metrics["accuracy"] <= 1
        assert 0 <= metrics["ratio_drift"] <= metrics["ratio_drift_max"]
        assert metrics["grad_norm"] > 0


def test_diagnostics_describe_the_policy():
    learner = learner_of(SAIL)
    segments, preferences = data()
    metrics = learner.update(segments, preferences)
    assert metrics["tie_share"] == pytest.approx(float((preferences.label == 0).mean()))
    assert metrics["entropy"] == learner.policy.entropy()
    assert metrics["std"] == pytest.approx(float(learner.policy.log_std.detach().exp().mean()))


def test_nothing_has_drifted_before_the_first_step():
    assert learner_of(replace(SAIL, epochs=1, minibatches=1)).update(*data())["ratio_drift_max"] == 0.0
    assert learner_of(SAIL).update(*data())["ratio_drift_max"] > 0.0


def test_steps_that_were_not_taken_do_not_count():
    """What stands behind the end of a segment changes neither the policy nor its statistics."""
    segments, preferences = data()
    noise = np.random.default_rng(5).normal(size=segments.obs.shape).astype(np.float32)
    behind = (segments.mask == 0)[..., None]
    assert behind.any()
    filled = SegmentBatch(
        segments.obs + behind * noise,
        segments.actions + behind * noise[..., :2],
        segments.mask,
        segments.forks,
    )
    clean, dirty = learner_of(REVKL), learner_of(REVKL)
    assert clean.update(segments, preferences) == dirty.update(filled, preferences)
    assert_same(clean.policy.state_dict(), dirty.policy.state_dict())


def test_statistics_are_frozen_in_an_update_and_gathered_after_it(monkeypatch: pytest.MonkeyPatch):
    learner = learner_of(SAIL)
    segments, preferences = data()
    counts: list[float] = []
    step = learner._step

    def watched(*arguments: object) -> dict[str, float]:
        counts.append(float(learner.policy.obs_count))
        return step(*arguments)

    monkeypatch.setattr(learner, "_step", watched)
    learner.update(segments, preferences)
    assert counts == [0.0] * 12
    taken = segments.obs[segments.mask > 0].astype(np.float64)
    assert float(learner.policy.obs_count) == len(taken)
    np.testing.assert_allclose(learner.policy.obs_mean, taken.mean(0))


# Unusual batches


def test_a_batch_of_nothing_but_ties_trains():
    segments, preferences = data()
    metrics = learner_of(REVKL).update(
        segments, Preferences(preferences.pairs, np.zeros(PROMPTS, np.float32))
    )
    assert metrics["tie_share"] == 1.0
    assert metrics["accuracy"] == 0.5
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("answers", [1, 2, 3, 5])
def test_a_batch_cut_by_the_budget_trains(answers: int):
    """Fewer groups than minibatches, and a group (K = 3) of which only some pairs were answered."""
    segments, preferences = data(forks=3)
    cut = Preferences(preferences.pairs.head(answers), preferences.label[:answers])
    learner = learner_of(REVKL)
    before = {name: tensor.clone() for name, tensor in learner.policy.state_dict().items()}
    metrics = learner.update(segments, cut)
    assert all(math.isfinite(value) for value in metrics.values())
    assert moved(learner.policy.state_dict(), before)


def test_unanswered_segments_do_not_move_the_parameters():
    segments, preferences = data()
    half = Preferences(preferences.pairs.head(4), preferences.label[:4])
    other = SegmentBatch(
        np.concatenate([segments.obs[:8], segments.obs[8:] + 1]),
        np.concatenate([segments.actions[:8], segments.actions[8:] - 1]),
        segments.mask,
        segments.forks,
    )
    one, two = learner_of(REVKL), learner_of(REVKL)
    one.update(segments, half)
    two.update(other, half)
    for name, parameter in one.policy.named_parameters():
        assert torch.equal(parameter, two.policy.state_dict()[name])


def test_every_pair_is_used_once_in_each_epoch_and_groups_stay_together(monkeypatch: pytest.MonkeyPatch):
    learner = learner_of(SAIL)
    segments, preferences = data(forks=3)
    used: list[np.ndarray] = []
    step = learner._step

    def watched(parts: object, chosen: list[np.ndarray]) -> dict[str, float]:
        used.extend(chosen)
        return step(parts, chosen)

    monkeypatch.setattr(learner, "_step", watched)
    learner.update(segments, preferences)
    assert len(used) == 3 * 4
    for epoch in range(3):
        chosen = used[4 * epoch : 4 * epoch + 4]
        assert sorted(np.concatenate(chosen)) == list(range(24))
        for pairs in chosen:
            assert len(pairs) == 6
            assert np.bincount(preferences.pairs.group[pairs], minlength=8).tolist().count(3) == 2
    assert len({tuple(pairs) for pairs in used}) > 4, "the order must change from epoch to epoch"


def test_rows_by_group():
    rows = rows_by_group(np.array([4, 1, 4, 1, 9, 4]))
    assert [row.tolist() for row in rows] == [[1, 3], [0, 2, 5], [4]]


# Not finite


def poisoned(where: str, value: float) -> tuple[Learner, SegmentBatch, Preferences]:
    learner, (segments, preferences) = learner_of(REVKL), data()
    if where == "parameters":
        with torch.no_grad():
            learner.policy.net[0].weight[0, 0] = value
    elif where == "deviation":
        with torch.no_grad():
            learner.policy.log_std[0] = value
    else:
        getattr(segments, where)[5, 0, 1] = value
    return learner, segments, preferences


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("obs", math.nan),
        ("obs", math.inf),
        ("actions", math.nan),
        ("actions", math.inf),
        ("parameters", math.nan),
        ("parameters", math.inf),
        ("deviation", math.nan),
        ("deviation", math.inf),
    ],
)
def test_a_number_that_is_not_finite_stops_the_update_with_its_batch(where: str, value: float):
    learner, segments, preferences = poisoned(where, value)
    segments.mask[:] = 1.0
    before = {name: tensor.clone() for name, tensor in learner.policy.state_dict().items()}
    with pytest.raises(NonFiniteError, match="not finite") as caught:
        learner.update(segments, preferences)
    batch = caught.value.batch
    assert "\n" not in str(caught.value)
    if where in ("obs", "actions"):
        assert torch.isfinite(batch[where]).logical_not().sum() == 1
    else:
        assert {"features", "actions", "mask", "ref_logp", "ref_mean", "label", "log_std"} == batch.keys()
        assert len(batch["actions"]) == 2 * len(batch["label"]) > 0
    if math.isnan(value):
        after_it = learner.policy.state_dict()
        for name, tensor in before.items():
            torch.testing.assert_close(after_it[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_a_step_to_infinity_stops_the_update_in_which_it_happened():
    """A finite gradient times an absurd learning rate: no later loss is there to notice it."""
    one_step = replace(SAIL, optimiser="sgd", epochs=1, minibatches=1, max_grad_norm=None)
    config = replace(one_step, c=1e3, baseline="none", lr=3e38)
    with pytest.raises(NonFiniteError, match="parameter norm"):
        learner_of(config).update(*data())


def test_labels_that_are_not_finite_never_reach_the_learner():
    with pytest.raises(ValueError, match="a label is"):
        Preferences(forked_pairs(1, 2), np.array([math.nan], np.float32))


# The learner cannot reach the reward


def reachable(hint: object) -> Iterator[tuple[str, type]]:
    """Every field of every dataclass that a value of the annotated type can hold."""
    for argument in get_args(hint):
        yield from reachable(argument)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        for name, inner in get_type_hints(hint).items():
            yield name, hint
            yield from reachable(inner)


def test_no_type_that_the_learner_is_given_holds_a_reward():
    given = [
        hint for function in (Learner.update, Learner.__init__) for hint in get_type_hints(function).values()
    ]
    kinds = {kind for hint in given for kind in (hint, *get_args(hint))}
    assert {SegmentBatch, Preferences, PreferenceData} <= kinds
    found = set()
    for hint in given:
        found |= set(reachable(hint))
    owners = {owner for _, owner in found}
    assert {SegmentBatch, Preferences, Pairs} <= owners
    assert JudgedRewards not in owners
    assert not [name for name, _ in found if "reward" in name or "return" in name]
    assert ("rewards", JudgedRewards) in set(reachable(tuple[JudgedRewards, int])), "the walk must find them"
    spec = {name for name, _ in reachable(EnvSpec)}
    assert "act_low" in spec
    assert not [name for name in spec if "reward" in name]


def learner_sources() -> list[Path]:
    folder = Path(inspect.getfile(sailctl.objectives)).parent
    modules = (sailctl.algorithms.sources, sailctl.algorithms.learner, sailctl.policies.policy)
    return [*(Path(module.__file__) for module in modules), *sorted(folder.glob("*.py"))]


@pytest.mark.parametrize("file", learner_sources(), ids=lambda file: file.name)
def test_the_learners_code_names_no_reward(file: Path):
    seeing = {"simulator", "rollout", "oracle", "evaluate", "logger", "results", "sailctl_envs"}
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Name):
            names = [node.id]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.arg):
            names = [node.arg]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [module, *(alias.name for alias in node.names)]
            assert not [name for name in names if seeing.intersection(name.split("."))], (file, node.lineno)
        assert not [n for n in names if "reward" in n.lower() or "judged" in n.lower()], (file, node.lineno)


def test_rewards_replaced_by_noise_after_labelling_change_nothing():
    simulator = TaskSimulator(ALL_TASKS["invertedpendulum-v5"]())
    trained = []
    for tampered in (False, True):
        rng = named_generators(0)
        rollout = RolloutConfig(8, 2, None, None, 0.25, 0.0, "forked")
        collector = Collector(simulator, rollout, 6, 15, rng)
        policy = GaussianPolicy(PolicyConfig("mlp", [8], 0, 0.6, True, True), simulator.spec, rng.init)
        teacher = Teacher(TRUTHFUL, rng.oracle, simulator.spec.horizon)
        learner = Learner(policy, policy.snapshot(), REVKL, rng)
        history = []
        for iteration in range(4):
            collected = collector.collect(policy)
            preferences = teacher.answer(collected.pairs, collected.judged)
            if tampered:
                noise = np.random.default_rng(iteration).normal(0, 1e3, collected.judged.rewards.shape)
                collected.judged.rewards[:] = noise
            history.append(learner.update(collected.segments, preferences))
        trained.append((policy.state_dict(), history))
    (honest, one), (other, two) = trained
    assert_same(honest, other)
    assert one == two
    simulator.close()
