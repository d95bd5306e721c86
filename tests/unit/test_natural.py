"""Natural gradient steps of SAC's actor, against explicit matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.sac.policies import Actor
from torch import Tensor
from torch.func import functional_call, hessian
from torch.nn.utils import parameters_to_vector

from sailctl.algorithms.natural import DAMPING, NaturalGradient, conjugate_gradients
from sailctl.algorithms.sac import SACBaseline, replay_of
from sailctl.config import to_config
from sailctl.objectives import gaussian_kl
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.vecenv import SimulatorVecEnv
from sailctl.sweeps.compose import compose_jobs


@pytest.fixture
def actor() -> Actor:
    """An actor with ten parameters: mean and log deviation are linear in four observations."""
    env = SimulatorVecEnv(open_simulator("invertedpendulum-v5"), count=1, seed=0)
    model = SAC("MlpPolicy", env, policy_kwargs={"net_arch": []}, seed=0, device="cpu")
    return model.actor


@pytest.fixture
def obs() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(50, 4))).float()


def set_gradient(actor: Actor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    for parameter in actor.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return parameters_to_vector([p.grad for p in actor.parameters() if p.grad is not None])


def mean_kl(actor: Actor, start: Tensor, vector: Tensor, obs: Tensor) -> Tensor:
    """KL(actor with the parameters ``start`` || with ``vector``)."""
    names, sizes = zip(*((n, p.shape) for n, p in actor.named_parameters()), strict=True)

    def outputs(flat: Tensor) -> tuple[Tensor, Tensor]:
        parts = flat.split([size.numel() for size in sizes])
        named = {f"a.{n}": part.view(s) for n, s, part in zip(names, sizes, parts, strict=True)}
        return functional_call(Outputs(actor), named, (obs,))

    (mean, log_std), (new_mean, new_log_std) = outputs(start), outputs(vector)
    return gaussian_kl(mean, log_std, new_mean, new_log_std).mean()


class Outputs(torch.nn.Module):
    """Mean and log deviation of an actor."""

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.a = actor

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std, _ = self.a.get_action_dist_params(obs)
        return mean, log_std


def test_the_product_is_that_of_the_fisher_information(actor: Actor, obs: Tensor) -> None:
    start = parameters_to_vector(actor.parameters()).detach()
    fisher = hessian(lambda vector: mean_kl(actor, start, vector, obs))(start)
    assert torch.linalg.eigvalsh(fisher).min() > -1e-5
    product = NaturalGradient(actor, lambda: obs, 0.01).damped_fisher()
    vector = torch.randn(len(start))
    torch.testing.assert_close(product(vector), fisher @ vector + DAMPING * vector, rtol=1e-4, atol=1e-5)


def test_a_step_solves_the_damped_system_and_has_its_length(actor: Actor, obs: Tensor) -> None:
    start = parameters_to_vector(actor.parameters()).detach().clone()
    fisher = hessian(lambda vector: mean_kl(actor, start, vector, obs))(start)
    damped = fisher + DAMPING * torch.eye(len(start))
    gradient = set_gradient(actor)
    direction = torch.linalg.solve(damped, gradient)
    scale = (2 * 1e-4 / (direction @ damped @ direction)).sqrt()
    NaturalGradient(actor, lambda: obs, 1e-4).step()
    moved = parameters_to_vector(actor.parameters()).detach() - start
    torch.testing.assert_close(moved, -scale * direction, rtol=1e-3, atol=1e-6)
    assert moved @ gradient < 0
    kl = float(mean_kl(actor, start, start + moved, obs))
    undamped = float(moved @ fisher @ moved) / 2
    assert kl == pytest.approx(undamped, rel=0.05)
    assert 1e-5 < kl <= 1.05e-4


def test_without_a_gradient_there_is_no_step(actor: Actor, obs: Tensor) -> None:
    start = parameters_to_vector(actor.parameters()).detach().clone()
    for parameter in actor.parameters():
        parameter.grad = torch.zeros_like(parameter)
    NaturalGradient(actor, lambda: obs, 0.01).step()
    assert torch.equal(parameters_to_vector(actor.parameters()), start)


def test_a_gradient_that_is_not_finite_is_not_hidden(actor: Actor, obs: Tensor) -> None:
    """The algorithm refuses such parameters after the iteration."""
    set_gradient(actor)
    next(iter(actor.parameters())).grad.fill_(torch.nan)
    NaturalGradient(actor, lambda: obs, 0.01).step()
    assert not torch.isfinite(parameters_to_vector(actor.parameters())).any()


def test_conjugate_gradients_end_when_the_system_is_solved() -> None:
    calls = []

    def product(vector: Tensor) -> Tensor:
        calls.append(1)
        return 2 * vector

    target = torch.tensor([1.0, -3.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(conjugate_gradients(product, target), target / 2)
    assert len(calls) == 1


def test_the_actor_of_a_run_takes_such_steps() -> None:
    words = (
        "algo=sail_mujoco_parity algo.natural_kl=0.01 algo.hidden=[8] algo.envs=2 algo.learning_starts=20 "
        "algo.pretrain=0 algo.updates=1 algo.interval=40 env_steps=200 env=invertedpendulum-v5"
    )
    config = to_config(compose_jobs(words.split()).jobs[0].composed)
    algorithm = SACBaseline(config, open_simulator(config.env.id))
    model = algorithm._model
    assert isinstance(model.actor.optimizer, NaturalGradient)
    obs = torch.randn(64, 4)
    replay_of(model).sampled_obs = obs
    before = [part.detach() for part in model.actor.get_action_dist_params(obs)[:2]]
    for parameter in model.actor.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.actor.optimizer.step()
    after = [part.detach() for part in model.actor.get_action_dist_params(obs)[:2]]
    assert 1e-3 < float(gaussian_kl(*before, *after).mean()) < 0.02
