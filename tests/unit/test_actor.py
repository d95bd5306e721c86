"""The actor: what each update does to the policy, its reference and its average."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sailctl.algorithms.actor
from sailctl.algorithms.actor import LR_WARMUP, Actor
from sailctl.algorithms.critic import clamp
from sailctl.config import ActionsConfig, PolicyConfig
from sailctl.core.state import from_bytes, to_bytes
from sailctl.core.types import EnvSpec, NonFiniteError
from sailctl.policies.policy import GaussianPolicy, log_density
from sailctl.sweeps.compose import compose_jobs

SPEC = EnvSpec("toy-v0", 3, 2, -np.ones(2), np.ones(2), 100, 0.1)
BEST = torch.tensor([0.4, -0.3])


class Quadratic:
    """A value that is known: the nearer to BEST, the better, in every state."""

    def values(self, features: Tensor, actions: Tensor) -> Tensor:
        return -(actions - BEST).square().sum(-1).expand(2, *actions.shape[:-1])


@pytest.fixture(autouse=True)
def _no_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The learning rate is what it is from the first update on, but where its rise is what is tested."""
    monkeypatch.setattr(sailctl.algorithms.actor, "LR_WARMUP", 1)


def config_of(*words: str) -> ActionsConfig:
    return compose_jobs(["algo=sail", *words]).jobs[0].config.algo


def policy_of(learn_std: bool = True) -> GaussianPolicy:
    config = PolicyConfig("mlp", [16], 0, 0.3, learn_std, False)
    return GaussianPolicy(config, SPEC, np.random.default_rng(0))


def actor_of(*words: str, learn_std: bool = True) -> Actor:
    return Actor(policy_of(learn_std), config_of(*words), np.random.default_rng(1))


def states(count: int = 32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).normal(size=(count, 3)).astype(np.float32))


def updated(actor: Actor, times: int, critic: Any = None) -> list[dict[str, Tensor]]:
    return [actor.update(states(), critic or Quadratic()) for _ in range(times)]


def vector(policy: GaussianPolicy) -> Tensor:
    return torch.nn.utils.parameters_to_vector(policy.parameters()).detach().clone()


def test_the_reference_is_replaced_exactly_every_so_many_updates():
    actor = actor_of("algo.reference_interval=4")
    first = vector(actor.policy)
    changed = []
    for update in range(1, 13):
        before = vector(actor.reference)
        updated(actor, 1)
        if not torch.equal(before, vector(actor.reference)):
            changed.append(update)
            assert torch.equal(vector(actor.reference), vector(actor.policy))
    assert changed == [4, 8, 12]
    assert not torch.equal(first, vector(actor.reference))


def test_without_refreshing_the_reference_stays():
    actor = actor_of("algo.reference_interval=0")
    first = vector(actor.policy)
    updated(actor, 6)
    assert torch.equal(vector(actor.reference), first)
    assert not torch.equal(vector(actor.policy), first)


GRADIENTS = pytest.mark.parametrize("gradient", ["pathwise", "score"])


@GRADIENTS
@pytest.mark.parametrize(
    ("off", "on", "words"),
    [
        ("algo.gamma=0", "algo.gamma=0.5", ("algo.kl=kl_ref_pi", "algo.kl=kl_pi_ref")),
        ("algo.rho=0", "algo.rho=0.2", ("algo.worst_case=exact", "algo.worst_case=clipped")),
    ],
)
def test_without_its_weight_a_term_has_no_part_in_the_update(
    gradient: str, off: str, on: str, words: tuple[str, str]
):
    """Two kinds of a term that has no weight give the same parameters, bit for bit; with one, they differ."""
    common = (f"algo.gradient={gradient}", "algo.reference_interval=0", "algo.lr=0.05")

    def after(weight: str, kind: str) -> Tensor:
        actor = actor_of(*common, weight, kind)
        updated(actor, 8)
        return vector(actor.policy)

    without = [after(off, kind) for kind in words]
    assert torch.equal(*without)
    with_it = [after(on, kind) for kind in words]
    assert not torch.equal(with_it[0], without[0])
    assert not torch.equal(*with_it)


def test_without_gamma_rho_and_c_an_update_is_that_of_t1_alone():
    """One step of Adam on the pathwise form of T1, written out; online DPO, bit for bit."""
    words = (
        "algo.c=0",
        "algo.gamma=0",
        "algo.rho=0",
        "algo.reference_interval=0",
        "algo.beta=0.7",
        "algo.kappa=0.5",
        "algo.lr=3e-4",
    )
    actor, policy, rng = actor_of(*words), policy_of(), np.random.default_rng(1)
    reference = policy.snapshot()
    optimiser = torch.optim.Adam(policy.parameters(), lr=3e-4, fused=True)
    for _ in range(3):
        mean, log_std = policy.mean(states()), policy.log_std
        noise = torch.from_numpy(rng.standard_normal((32, 2, 2), dtype=np.float32))
        actions = mean[:, None] + log_std.exp() * noise
        q = Quadratic().values(states(), actions)[0]
        ours = log_density(actions, mean.detach()[:, None], log_std.detach())
        theirs = log_density(actions, reference.mean(states())[:, None].detach(), reference.log_std.detach())
        temperature = 0.5 * (q[:, 0] - q[:, 1]).detach().abs().mean()
        u, r = q / temperature, 0.7 * (ours - theirs)
        moved = [
            (r[:, i] - r[:, j].detach()).sigmoid() - (u[:, i] - u[:, j].detach()).sigmoid()
            for i, j in ((0, 1), (1, 0))
        ]
        loss = 0.7 * (moved[0] + moved[1]).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        updated(actor, 1)
    torch.testing.assert_close(vector(actor.policy), vector(policy), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("anneal", "length"), [("true", 0.25e-5), ("false", 1e-5)])
def test_the_learning_rate_falls_with_what_is_left_of_the_run(anneal: str, length: float):
    actor = actor_of("algo.lr=1e-5", f"algo.anneal={anneal}")
    actor.left = 0.25
    before = actor.policy.net[0].bias.detach().clone()
    updated(actor, 1)
    assert float((actor.policy.net[0].bias.detach() - before).abs().max()) == pytest.approx(length, rel=0.05)


def test_the_learning_rate_rises_to_its_value(monkeypatch: pytest.MonkeyPatch):
    """The first steps of Adam are as long as the rate; an actor that is restored goes on where it was."""
    monkeypatch.setattr(sailctl.algorithms.actor, "LR_WARMUP", 4)
    assert LR_WARMUP > 100

    def lengths(actor: Actor, times: int) -> list[float]:
        steps = []
        for _ in range(times):
            before = actor.policy.net[0].bias.detach().clone()
            updated(actor, 1)
            steps.append(float((actor.policy.net[0].bias.detach() - before).abs().max()))
        return steps

    actor = actor_of("algo.lr=1e-5", "algo.c=0")
    np.testing.assert_allclose(lengths(actor, 3), [0.25e-5, 0.5e-5, 0.75e-5], rtol=0.05)
    again = actor_of("algo.lr=1e-5", "algo.c=0")
    again.restore(actor.state())
    np.testing.assert_allclose(lengths(again, 3), [1e-5, 1e-5, 1e-5], rtol=0.05)


def test_a_mean_beyond_the_actuators_range_is_led_back():
    """No value says anything there: all such actions are one."""

    class Flat:
        def values(self, features: Tensor, actions: Tensor) -> Tensor:
            return 0.0 * actions.sum(-1).expand(2, *actions.shape[:-1])

    actor = actor_of("algo.lr=0.01", "algo.reference_interval=0", "algo.gradient=score")
    with torch.no_grad():
        actor.policy.net[-1].bias.copy_(torch.tensor([2.0, -3.0]))
    updated(actor, 400, Flat())
    assert actor.policy.mean(states()).abs().max() < 1.2


@pytest.mark.parametrize(("best", "led_back"), [(0.0, True), (2.0, False)])
def test_a_mean_beyond_the_actuators_range_is_led_back_where_the_value_says_so(best: float, led_back: bool):
    """Only where less is better: at a limit that is best, it stays."""

    class Peak:
        def values(self, features: Tensor, actions: Tensor) -> Tensor:
            return -(clamp(actions) - best).square().sum(-1).expand(2, *actions.shape[:-1])

    actor = actor_of("algo.lr=0.01", "algo.reference_interval=20", "algo.gamma=0")
    with torch.no_grad():
        actor.policy.net[-1].bias.copy_(torch.tensor([2.0, 3.0]))
    updated(actor, 400, Peak())
    mean = actor.policy.mean(states())
    assert bool((mean.abs() < 0.7).all()) is led_back
    assert bool((mean > 1.0).all()) is not led_back
    assert mean.max() < 3.5


@GRADIENTS
def test_c_weighs_t2(gradient: str):
    def after(*words: str) -> Tensor:
        actor = actor_of(f"algo.gradient={gradient}", "algo.reference_interval=0", *words)
        updated(actor, 4)
        return vector(actor.policy)

    assert torch.equal(after("algo.c=0"), after("algo.c=0", "algo.baseline=none"))
    assert not torch.equal(after("algo.c=0"), after("algo.c=1"))


def test_the_standard_deviation_stays_above_the_least():
    """A value that is sharp at its maximum asks for no noise at all."""
    actor = actor_of("algo.least_std=0.2", "algo.lr=0.05", "algo.reference_interval=5")
    updated(actor, 200)
    std = actor.policy.log_std.detach().exp()
    torch.testing.assert_close(std, torch.full((2,), 0.2), rtol=1e-5, atol=0)
    free = actor_of("algo.least_std=0.01", "algo.lr=0.05", "algo.reference_interval=5")
    updated(free, 200)
    assert float(free.policy.log_std.detach().exp().max()) < 0.2


def test_the_average_follows_by_its_share():
    actor = actor_of("algo.average=0.25", "algo.lr=0.01")
    for _ in range(3):
        before = vector(actor.average)
        updated(actor, 1)
        assert torch.equal(vector(actor.average), before.lerp(vector(actor.policy), 0.25))
    own = actor_of("algo.average=1", "algo.lr=0.01")
    updated(own, 3)
    assert torch.equal(vector(own.average), vector(own.policy))


def test_parameters_stay_within_the_ball():
    radius, common = policy_of().norm() + 0.05, ("algo.lr=0.05", "algo.least_std=0.05")
    held, free = (actor_of(*common, *words) for words in ((f"algo.radius={radius}",), ()))
    updated(free, 40)
    assert free.policy.norm() > radius
    for _ in range(40):
        updated(held, 1)
        assert held.policy.norm() <= radius * (1 + 1e-6)
    assert held.policy.norm() == pytest.approx(radius, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "tolerance"),
    [
        (("algo.gradient=pathwise",), 0.05),
        (("algo.gradient=pathwise", "algo.c=0", "algo.actions=4"), 0.05),
        (("algo.gradient=score", "algo.actions=4"), 0.1),
        (("algo.gradient=score", "algo.kappa=0", "algo.doubt=0", "algo.actions=4"), 0.1),
        (("algo.gradient=score", "algo.comparison=ranking", "algo.actions=4"), 0.1),
    ],
    ids=["pathwise", "pathwise-dpo", "score", "score-hard", "ranking"],
)
def test_the_mean_moves_to_the_maximum_of_a_known_value(words: tuple[str, ...], tolerance: float):
    actor = actor_of("algo.lr=0.01", "algo.reference_interval=10", "algo.average=0.05", *words)
    assert float((actor.policy.mean(states()).detach() - BEST).abs().max()) > 0.3
    metrics = updated(actor, 400)
    mean = actor.average.mean(states()).detach()
    assert float((mean.mean(0) - BEST).abs().max()) < tolerance
    assert float((mean - BEST).abs().max()) < 3 * tolerance
    if "algo.comparison=ranking" not in words:
        first, last = (
            float(torch.stack([m["q"] for m in part]).mean()) for part in (metrics[:20], metrics[-20:])
        )
        assert last > first


def test_diagnostics_are_of_the_policy_before_the_step():
    """At the reference both KL are 0; after one step of a large learning rate they are not."""
    actor = actor_of("algo.reference_interval=0", "algo.lr=0.1")
    first, second = updated(actor, 2)
    assert float(first["kl_ref_pi"]) == float(first["kl_pi_ref"]) == 0.0
    assert float(second["kl_ref_pi"]) > 1e-3


def test_observations_are_seen_through_the_same_statistics_by_all_three():
    config = PolicyConfig("mlp", [16], 0, 0.3, True, True)
    policy = GaussianPolicy(config, SPEC, np.random.default_rng(0))
    actor = Actor(policy, config_of(), np.random.default_rng(1))
    obs = np.random.default_rng(3).normal(5.0, 2.0, (50, 3)).astype(np.float32)
    actor.observe(obs)
    seen = policy.features(torch.from_numpy(obs))
    assert abs(float(seen.mean())) < 0.1
    for other in (actor.reference, actor.average):
        assert torch.equal(other.features(torch.from_numpy(obs)), seen)


def test_a_restored_actor_goes_on_as_the_one_that_was_kept():
    one, two = (actor_of("algo.reference_interval=3", "algo.lr=0.02") for _ in range(2))
    updated(one, 4)
    two.restore(from_bytes(to_bytes(one.state())))
    two._rng.bit_generator.state = one._rng.bit_generator.state
    for actor in (one, two):
        updated(actor, 5)
    for name in ("policy", "reference", "average"):
        assert torch.equal(vector(getattr(one, name)), vector(getattr(two, name)))


def test_what_is_not_a_number_is_refused():
    class Broken:
        def values(self, features: Tensor, actions: Tensor) -> Tensor:
            return math.nan * actions.sum(-1).expand(2, *actions.shape[:-1])

    actor = actor_of()
    updated(actor, 1)
    actor.refuse_non_finite()
    before = vector(actor.policy)
    what = r"loss of the policy is not finite after 1 updates; a smaller algo\.lr than 0\.001"
    with pytest.raises(NonFiniteError, match=what) as found:
        updated(actor, 1, Broken())
    assert torch.equal(vector(actor.policy), before)
    shown = found.value.batch
    assert torch.equal(shown["features"], states())
    assert shown["actions"].shape == (32, 2, 2)
    assert shown["ref_mean"].shape == (32, 2)
    assert torch.isnan(shown["values"]).all()


@pytest.mark.parametrize("gradient", ["pathwise", "score"])
def test_parameters_that_are_not_finite_are_shown_with_the_last_minibatch(gradient: str):
    actor = actor_of(f"algo.gradient={gradient}")
    updated(actor, 1)
    with torch.no_grad():
        actor.policy.log_std[0] = torch.nan
    with pytest.raises(NonFiniteError, match="the policy is not finite after 1 updates") as found:
        actor.refuse_non_finite()
    shown = found.value.batch
    assert torch.isnan(shown["log_std"][0])
    assert torch.equal(shown["values"], Quadratic().values(shown["features"], shown["actions"])[0])
