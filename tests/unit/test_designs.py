"""Designs in the learner: which samples, labels and weights reach the objective."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from sailctl.algorithms.learner import DATA_DIAGNOSTICS, DIAGNOSTICS, Learner
from sailctl.config import AlgoConfig, PolicyConfig
from sailctl.core.seeding import generator, named_generators
from sailctl.core.types import (
    EnvSpec,
    NonFiniteError,
    Pairs,
    PreferenceData,
    Preferences,
    Rankings,
    SegmentBatch,
)
from sailctl.data.rollout import forked_pairs
from sailctl.policies.policy import GaussianPolicy

PLAIN = AlgoConfig(
    name="plain",
    beta=0.4,
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
    reference_interval=0,
    observe=0,
    optimiser="sgd",
    lr=0.5,
    anneal=False,
    target_kl=None,
    clip=None,
    epochs=1,
    minibatches=1,
    max_grad_norm=None,
    iterations=None,
)
LINEAR = PolicyConfig("linear", [], 5, 0.6, False, False)
SPEC = EnvSpec("toy-v0", 4, 2, -np.ones(2), np.ones(2), 100, 0.1)
PROMPTS, STEPS = 8, 5


def policy_of(seed: int) -> GaussianPolicy:
    policy, rng = GaussianPolicy(LINEAR, SPEC, np.random.default_rng(0)), np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.from_numpy(rng.normal(0, 0.1, parameter.shape).astype(np.float32)))
    return policy


def segments_of(seed: int, forks: int = 2, steps: int = STEPS, shared_start: bool = False) -> SegmentBatch:
    rng = np.random.default_rng(seed)
    rows = PROMPTS * forks
    mask = (np.arange(steps) < rng.integers(1, steps + 1, rows)[:, None]).astype(np.float32)
    obs = rng.normal(0.5, 1.0, (rows, steps, 4)).astype(np.float32)
    if shared_start:
        obs[:, 0] = np.repeat(obs[::forks, 0], forks, axis=0)
    actions = rng.normal(0.0, 0.7, (rows, steps, 2)).astype(np.float32)
    return SegmentBatch(obs * mask[..., None], actions * mask[..., None], mask, forks)


def labels_of(seed: int, pairs: Pairs) -> Preferences:
    rng = np.random.default_rng(seed)
    return Preferences(
        pairs, rng.choice([-1.0, 0.0, 1.0], len(pairs), p=[0.45, 0.1, 0.45]).astype(np.float32)
    )


SEGMENTS = segments_of(1)
ANSWERS = labels_of(2, forked_pairs(PROMPTS, 2))
DATA = PreferenceData("toy-v0", segments_of(3), labels_of(4, forked_pairs(PROMPTS, 2)), STEPS)


def learner_of(config: AlgoConfig, data: PreferenceData | None = DATA, seed: int = 0) -> Learner:
    return Learner(policy_of(1), policy_of(2), config, named_generators(seed), data, PROMPTS)


def vector(learner: Learner) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(learner.policy.net.parameters()).detach().clone()


def moved(learner: Learner, *arguments: object) -> torch.Tensor:
    """How far one update takes the parameters."""
    before = vector(learner)
    learner.update(*arguments)
    return vector(learner) - before


def scores(segments: SegmentBatch, pairs: Pairs) -> torch.Tensor:
    """h of pairs at the learner's start, with gradient, in float64; and its policy."""
    return ratio_of(policy_of(1), segments, pairs)


def ratio_of(policy: GaussianPolicy, segments: SegmentBatch, pairs: Pairs) -> torch.Tensor:
    logp = log_prob(policy, segments)
    ratio = PLAIN.beta * (logp - log_prob(policy_of(2), segments))
    return ratio[pairs.first] - ratio[pairs.second]


def log_prob(policy: GaussianPolicy, segments: SegmentBatch) -> torch.Tensor:
    obs, actions, mask = map(torch.from_numpy, (segments.obs, segments.actions, segments.mask))
    return (policy.log_prob(policy.mean(policy.features(obs)), actions) * mask).sum(-1)


def ascent(policy: GaussianPolicy, value: torch.Tensor) -> torch.Tensor:
    """What one SGD step on minus the mean of ``value`` does."""
    gradients = torch.autograd.grad(value.mean(), list(policy.net.parameters()))
    return PLAIN.lr * torch.cat([gradient.ravel() for gradient in gradients])


# Sources


def test_without_weight_on_the_data_a_data_set_changes_nothing():
    one, two = learner_of(PLAIN), learner_of(PLAIN, data=None)
    assert one.update(SEGMENTS, ANSWERS) == two.update(SEGMENTS, ANSWERS)
    assert torch.equal(vector(one), vector(two))


@pytest.mark.parametrize("design", ["dpp", "dpr", "ddp"])
def test_a_mixture_step_is_the_weighted_sum_of_its_sources(design: str):
    """w = 1/2 draws as many pairs from the data as w = 0 does, so that the three steps can be compared."""
    config = replace(
        PLAIN,
        labels="teacher" if design == "dpr" else "policy",
        responses="data" if design == "ddp" else "segments",
        gamma=0.2,
        rho=0.1,
    )
    given = () if design == "ddp" else (SEGMENTS, ANSWERS if design == "dpr" else ANSWERS.pairs)
    if design == "ddp":  # both of its parts are drawn from the data, one after the other
        stream = generator(0, "data")
        stream.choice(len(DATA), PROMPTS, replace=False)
        expected_rows = stream.choice(len(DATA), PROMPTS, replace=False)
        recorded = learner_of(replace(config, w=0.0), DATA.take(expected_rows))
        alone = moved(recorded)
    else:
        alone = moved(learner_of(replace(config, w=0.0)))
    both = moved(learner_of(replace(config, w=0.5)), *given)
    design_alone = moved(learner_of(replace(config, w=1.0)), *given)
    assert float(both.norm()) > 1e-3
    assert float((design_alone - alone).norm()) > 0.1 * float(both.norm())
    torch.testing.assert_close(both, 0.5 * alone + 0.5 * design_alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("w", [0.2, 0.5, 0.8])
def test_the_data_bring_as_many_pairs_as_their_weight_asks_for(w: float, monkeypatch: pytest.MonkeyPatch):
    learner = learner_of(replace(PLAIN, w=w))
    sizes: list[list[int]] = []
    step = learner._step

    def watched(parts: list, chosen: list[np.ndarray]) -> dict[str, float]:
        sizes.append([len(rows) for rows in chosen])
        return step(parts, chosen)

    monkeypatch.setattr(learner, "_step", watched)
    learner.update(SEGMENTS, ANSWERS)
    assert sizes == [[PROMPTS, min(round(PROMPTS * (1 - w) / w), len(DATA))]]


def test_offline_dpo_is_the_textbook_step_on_the_data():
    config = replace(PLAIN, w=0.0, c=0.0, responses="data")
    policy, preferences = policy_of(1), DATA.preferences
    h = ratio_of(policy, DATA.segments, preferences.pairs)
    first = torch.from_numpy((1 + preferences.label) / 2)
    value = first * logsigmoid(h) + (1 - first) * logsigmoid(-h)
    torch.testing.assert_close(moved(learner_of(config)), ascent(policy, value), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("c", [0.0, 0.7])
def test_recorded_segments_have_no_term_of_their_own_drawing(c: float):
    """The data are not drawn from the policy: with recorded labels c changes nothing, bit for bit."""
    config = replace(PLAIN, w=0.0, responses="data")
    assert torch.equal(moved(learner_of(replace(config, c=c))), moved(learner_of(replace(config, c=0.0))))


@pytest.mark.parametrize("responses", ["segments", "data"])
def test_own_labels_are_drawn_from_the_policy_as_it_is(responses: str):
    """The step of DPP and DDP with the labels redrawn here from the same stream, the terms written out."""
    config = replace(PLAIN, labels="policy", responses=responses, c=0.6, baseline="none")
    policy = policy_of(1)
    segments, pairs = (
        (SEGMENTS, ANSWERS.pairs) if responses == "segments" else (DATA.segments, DATA.preferences.pairs)
    )
    order = generator(0, "minibatch").permutation(PROMPTS)
    if responses == "data":
        rows = generator(0, "data").choice(len(DATA), PROMPTS, replace=False)
        order = np.argsort(pairs.group[rows], kind="stable")[order]
        pairs = pairs.take(rows)
    pairs = pairs.take(order)
    h = ratio_of(policy, segments, pairs)
    drawn = generator(0, "labels").random(PROMPTS) < h.detach().sigmoid().numpy()
    label = torch.from_numpy(np.where(drawn, 1.0, -1.0).astype(np.float32))
    assert abs(float(label.sum())) < PROMPTS, "both labels must occur"
    value = logsigmoid(label * h)
    surrogate = value + 0.6 * value.detach() * value
    if responses == "segments":
        logp = log_prob(policy, segments)
        surrogate = surrogate + 0.6 * value.detach() * (logp[pairs.first] + logp[pairs.second])
    given = (SEGMENTS, ANSWERS.pairs) if responses == "segments" else ()
    torch.testing.assert_close(
        moved(learner_of(config), *given), ascent(policy, surrogate), rtol=1e-4, atol=1e-6
    )


def test_labels_of_a_teacher_are_not_read_where_the_policy_labels():
    config = replace(PLAIN, labels="policy")
    flipped = Preferences(ANSWERS.pairs, -ANSWERS.label)
    steps = [moved(learner_of(config), SEGMENTS, answers) for answers in (ANSWERS, flipped, ANSWERS.pairs)]
    assert torch.equal(steps[0], steps[1])
    assert torch.equal(steps[0], steps[2])


def test_nobody_doubts_labels_that_the_policy_gave_itself():
    """rho is a bound on a teacher: DPP's own part has no robust cost, its data part has."""
    config = replace(PLAIN, labels="policy")
    for w, same in ((1.0, True), (0.5, False)):
        one = moved(learner_of(replace(config, w=w, rho=0.0)), SEGMENTS, ANSWERS.pairs)
        two = moved(learner_of(replace(config, w=w, rho=0.3)), SEGMENTS, ANSWERS.pairs)
        assert torch.equal(one, two) == same


# Rankings


def test_a_ranking_of_two_is_a_pair():
    order = np.where(ANSWERS.label[:, None] >= 0, [[0, 1]], [[1, 0]]) + 2 * np.arange(PROMPTS)[:, None]
    sure = Preferences(ANSWERS.pairs, np.where(ANSWERS.label >= 0, 1, -1).astype(np.float32))
    config = replace(PLAIN, gamma=0.3)
    pairs = moved(learner_of(config), SEGMENTS, sure)
    torch.testing.assert_close(
        moved(learner_of(config), SEGMENTS, Rankings(order)), pairs, rtol=1e-4, atol=1e-6
    )


def test_rankings_are_learned():
    """Orders that some policy of the same kind explains: their likelihood and the scores follow."""
    segments = segments_of(5, forks=4)
    with torch.no_grad():
        wanted = (log_prob(policy_of(7), segments) - log_prob(policy_of(2), segments)).numpy().reshape(-1, 4)
    order = np.argsort(-wanted, axis=1) + 4 * np.arange(PROMPTS)[:, None]
    learner = learner_of(replace(PLAIN, c=0.0, lr=0.05, minibatches=4))
    history = [learner.update(segments, Rankings(order)) for _ in range(60)]
    assert history[-1]["F"] > history[0]["F"] + 0.5
    assert history[-1]["accuracy"] > 0.9


def test_only_the_steps_that_count_are_learned_from():
    """What the teacher judged beyond them changes no bit."""
    config, short = replace(PLAIN, w=0.5), replace(DATA, steps=3)
    long, cut = (learner_of(config, data) for data in (short, short.first_steps()))
    assert long.update(SEGMENTS, ANSWERS) == cut.update(SEGMENTS, ANSWERS)
    assert torch.equal(vector(long), vector(cut))
    whole = learner_of(config)
    whole.update(SEGMENTS, ANSWERS)
    assert not torch.equal(vector(long), vector(whole))


def test_the_data_bring_no_more_pairs_than_there_are():
    learner = learner_of(replace(PLAIN, w=1e-6))
    assert len(learner._parts(SEGMENTS, ANSWERS)[1].rows) == len(DATA)


def test_statistics_stay_where_a_reference_is_kept():
    """With a frozen reference the first segments set the statistics of both, and no later ones move h."""
    config = PolicyConfig("linear", [], 5, 0.6, False, True)
    policy = GaussianPolicy(config, SPEC, np.random.default_rng(0))
    learner = Learner(policy, policy.snapshot(), replace(PLAIN, c=0.0), named_generators(0))
    learner.update(SEGMENTS, ANSWERS)
    taken = SEGMENTS.obs[SEGMENTS.mask > 0]
    for one in (learner.policy, learner.reference):
        np.testing.assert_allclose(one.obs_mean, taken.mean(0), rtol=1e-5)
    before = [tensor.clone() for tensor in learner.policy.buffers()]
    learner.update(segments_of(11), ANSWERS)
    assert all(map(torch.equal, before, learner.policy.buffers()))


# Nothing to learn from, and what is not finite


def test_an_iteration_without_answers_leaves_the_policy_and_says_so():
    empty = Preferences(ANSWERS.pairs.head(0), ANSWERS.label[:0])
    learner = learner_of(PLAIN, data=None)
    before = vector(learner)
    metrics = learner.update(SEGMENTS, empty)
    assert torch.equal(before, vector(learner))
    assert all(math.isnan(metrics[name]) for name in DIAGNOSTICS)
    assert metrics.keys() == learner.update(SEGMENTS, ANSWERS).keys()


def test_an_iteration_without_answers_still_learns_from_the_data():
    learner = learner_of(replace(PLAIN, w=0.5))
    metrics = learner.update(SEGMENTS, Preferences(ANSWERS.pairs.head(0), ANSWERS.label[:0]))
    assert math.isnan(metrics["F"])
    assert all(math.isfinite(metrics[f"data_{name}"]) for name in DATA_DIAGNOSTICS)
    assert metrics.keys() == learner.update(SEGMENTS, ANSWERS).keys()


def test_what_is_not_finite_is_named_with_the_data_beside_it():
    learner = learner_of(replace(PLAIN, w=0.5))
    with torch.no_grad():
        learner.policy.net.weight[0, 0] = math.nan
    with pytest.raises(NonFiniteError) as caught:
        learner.update(SEGMENTS, ANSWERS)
    assert {"features", "label", "data_features", "data_label", "log_std"} <= caught.value.batch.keys()


def test_the_score_for_an_adversary_is_that_of_the_objective():
    h = learner_of(PLAIN).score(SEGMENTS, ANSWERS.pairs)
    np.testing.assert_allclose(h, scores(SEGMENTS, ANSWERS.pairs).detach().numpy(), rtol=1e-5, atol=1e-6)
