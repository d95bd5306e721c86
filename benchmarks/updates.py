"""Updates a second of SAIL on actions, beside the floor of its networks and beside SAC of Stable-Baselines3.

One update is one gradient step of both critics and, every ``algo.delay``-th time, one of the actor. The floor
is what the networks alone cost: forward, backward and Adam of the same networks on minibatches of the same
sizes that never change, without sampling, losses, targets that move, or anything that is measured. SAC is
Stable-Baselines3's, with networks of the same widths and the same minibatch: one step of both critics, of the
actor and of the temperature. All take turns in one process, on one thread; ratios are taken within a turn.

``variants`` are ways to go faster that were tried, each beside the form that is used, in the same turns.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from stable_baselines3 import SAC
from torch import Tensor, nn

from benchmarks.record import arguments, write
from sailctl.algorithms.actions import GROUP, ActionSAIL
from sailctl.algorithms.critic import TwinNetworks, frozen_view
from sailctl.algorithms.protocol import Clock
from sailctl.algorithms.sb3 import record_metrics
from sailctl.config import ActionsConfig, ActionsRun
from sailctl.policies.policy import GaussianPolicy
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.states import Simulator
from sailctl.simulator.vecenv import SimulatorVecEnv
from sailctl.sweeps.compose import compose_jobs

FILLED = 4000
"""Env steps in the buffers while updates are measured."""
Step = Callable[[], None]


def ours(task: str, simulator: Simulator) -> tuple[ActionSAIL, Step]:
    """The algorithm with a filled buffer, and its updates as training groups them, ``GROUP`` at a time."""
    words = [
        f"env={task}",
        "algo=sail_revkl",
        f"algo.learning_starts={FILLED}",
        "algo.initial_queries=50",
        "algo.warmup=0",
    ]
    config = compose_jobs([*words, f"out={mkdtemp()}"]).jobs[0].config
    assert isinstance(config, ActionsRun)
    algorithm, clock = ActionSAIL(config, simulator), Clock()
    while algorithm.env_steps < FILLED + config.algo.interval:
        algorithm.iterate(clock, 1.0)
    return algorithm, lambda: algorithm.learn(GROUP, defaultdict(list))


def floor(algo: ActionsConfig, policy: GaussianPolicy, obs_dim: int, act_dim: int) -> Step:
    """``GROUP`` updates of the networks alone."""
    rng = np.random.default_rng(0)
    critics = TwinNetworks([obs_dim + act_dim, *algo.hidden, 1], rng)
    held, targets = frozen_view(critics), copy.deepcopy(critics).requires_grad_(False)
    actor, reference = copy.deepcopy(policy).requires_grad_(True), policy.snapshot()
    optimisers = [torch.optim.Adam(part.parameters(), fused=True) for part in (critics, actor.net)]
    features = torch.randn(algo.batch, obs_dim)
    inputs, wanted = torch.randn(algo.batch, obs_dim + act_dim), torch.randn(algo.batch)
    drawn = torch.randn(algo.batch * algo.actions, obs_dim + act_dim, requires_grad=True)

    def update(number: int) -> None:
        with torch.no_grad():
            actor.net(features)
            targets(inputs)
        descend(optimisers[0], (critics(inputs) - wanted).square().mean())
        if number % algo.delay == 0:
            with torch.no_grad():
                reference.net(features)
            torch.autograd.grad(held(drawn).sum(), drawn)
            descend(optimisers[1], actor.net(features).square().mean())

    def step() -> None:
        for number in range(GROUP):
            update(number)

    return step


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One gradient step."""
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    optimiser.step()


def sac(algo: ActionsConfig, widths: list[int], simulator: Simulator) -> Step:
    """``GROUP`` updates of Stable-Baselines3's SAC with the same critics, actor and minibatch."""
    env = SimulatorVecEnv(simulator, algo.envs, 0)
    model = SAC(
        "MlpPolicy",
        env,
        learning_starts=FILLED,
        batch_size=algo.batch,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": {"pi": widths, "qf": algo.hidden}},
        device="cpu",
    )
    record_metrics(model)
    model.learn(FILLED + algo.envs)
    return lambda: model.train(gradient_steps=GROUP, batch_size=algo.batch)


def variants(algo: ActionsConfig, inputs: int) -> dict[str, tuple[Step, Step]]:
    """Pairs of steps: as it is, and as it might be."""
    rng = np.random.default_rng(0)

    def critic_step(
        networks: nn.Module, batch: int, fused: bool = True, half: bool = False, steps: int = GROUP
    ) -> Step:
        kind = {"fused": True} if fused else {"foreach": True}
        optimiser = torch.optim.Adam(networks.parameters(), **kind)
        seen, wanted = torch.randn(batch, inputs), torch.randn(batch)

        def step() -> None:
            for _ in range(steps):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                    loss = (networks(seen) - wanted).square().mean()
                descend(optimiser, loss)

        return step

    def twins() -> TwinNetworks:
        return TwinNetworks([inputs, *algo.hidden, 1], rng)

    plain = critic_step(twins(), algo.batch)
    found = {
        "Adam by foreach instead of fused": (plain, critic_step(twins(), algo.batch, fused=False)),
        "two networks one after the other": (plain, critic_step(Apart(inputs, algo.hidden), algo.batch)),
        "bfloat16 by autocast": (plain, critic_step(twins(), algo.batch, half=True)),
        "half as many updates of twice the batch": (
            plain,
            critic_step(twins(), 2 * algo.batch, steps=GROUP // 2),
        ),
        "twice as many updates of half the batch": (
            plain,
            critic_step(twins(), algo.batch // 2, steps=GROUP * 2),
        ),
    }
    if shutil.which("g++"):
        compiled = torch.compile(twins())
        found["torch.compile (default)"] = (plain, critic_step(compiled, algo.batch))
    return found


class Apart(nn.Module):
    """The two critics as two modules of PyTorch."""

    def __init__(self, inputs: int, hidden: list[int]) -> None:
        super().__init__()
        self.both = nn.ModuleList(self._one([inputs, *hidden]) for _ in range(2))

    def forward(self, inputs: Tensor) -> Tensor:
        """(2, N) values."""
        return torch.stack([network(inputs).squeeze(-1) for network in self.both])

    @staticmethod
    def _one(widths: list[int]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            normalised = nn.LayerNorm(following, elementwise_affine=False)
            layers += [nn.Linear(width, following), normalised, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def seconds(step: Step, least: float) -> float:
    """Wall-clock of one call of ``step``, over calls that take ``least`` seconds together."""
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < least:
        step()
        calls += 1
    return spent / calls


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tasks", nargs="+", default=["halfcheetah-v5", "hopper-v5", "walker_walk"])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for task in asked.tasks:
        simulator = open_simulator(task)
        algorithm, step = ours(task, simulator)
        policy, spec = algorithm.policy(), simulator.spec
        algo = compose_jobs([f"env={task}", "algo=sail_revkl"]).jobs[0].config.algo
        assert isinstance(algo, ActionsConfig)
        contenders = {
            "sailctl": step,
            "floor": floor(algo, policy, spec.obs_dim, spec.act_dim),
            "SAC of Stable-Baselines3": sac(algo, policy.config.hidden, simulator),
        }
        rates = turns_of(contenders, asked.turns, asked.seconds)
        for name, rate in rates.items():
            rows.append(row(task, name, rate, rates["sailctl"] / rate))
        for name, (as_is, other) in variants(algo, spec.obs_dim + spec.act_dim).items():
            rates = turns_of({"as it is": as_is, name: other}, asked.turns, asked.seconds)
            rows.append(row(task, f"critics alone: {name}", rates[name], rates["as it is"] / rates[name]))
    write(Path(asked.results), "updates", rows, {"what": __doc__})


def turns_of(contenders: dict[str, Step], turns: int, least: float) -> dict[str, np.ndarray]:
    """(turns,) updates a second of each, the contenders taking turns."""
    for step in contenders.values():
        step()
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, step in contenders.items():
            measured[name].append(GROUP / seconds(step, least))
    return {name: np.array(rates) for name, rates in measured.items()}


def row(task: str, name: str, rate: np.ndarray, ratio: np.ndarray) -> dict[str, object]:
    """One line of the table."""
    return {
        "task": task,
        "what": name,
        "updates_per_s": round(float(np.median(rate))),
        "sailctl_ratio": round(float(np.median(ratio)), 3),
        "ratio_lowest": round(float(ratio.min()), 3),
        "ratio_highest": round(float(ratio.max()), 3),
        "turns": len(ratio),
    }


if __name__ == "__main__":
    main()
