"""Runs side by side do what each of them does alone, to the bit or to float32 rounding."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sailctl.cli import main
from sailctl.compose import compose_jobs
from sailctl.config import PolicyConfig
from sailctl.gradient import Gradient, means_together
from sailctl.launch import packs_of
from sailctl.learner import Learner
from sailctl.loop import Interrupted
from sailctl.policy import GaussianPolicy
from sailctl.results import load_run
from sailctl.simulator import ControlStep, open_simulator
from sailctl.together import Meeting, Work, alone, together
from sailctl.train import train, train_pack
from sailctl.types import BusyError, NonFiniteError, SegmentBatch
from tests.kinds import KINDS, SMALL, assert_same_run, config_of

QUICK = ("revkl", "foresight")
"""Kinds of run that `make test` looks at."""


ROUNDED = ("chosen", "memory")
"""Shapes for which a batch of products is rounded otherwise than each of them: the same to rounding."""


# Asks and answers


@dataclass(frozen=True)
class Double:
    """Asks for twice a number; who was answered together is noted."""

    number: int
    seen: list[tuple[int, ...]]
    kind: str = "double"

    def answer(self) -> int:
        if self.number < 0:
            raise ValueError("negative")
        self.seen.append((self.number,))
        return 2 * self.number

    def answer_all(self, asks: Sequence[Double]) -> list[int]:
        if any(ask.number < 0 for ask in asks):
            raise ValueError("one of them is negative")
        self.seen.append(tuple(ask.number for ask in asks))
        return [2 * ask.number for ask in asks]


def doubled(numbers: Sequence[int], seen: list[tuple[int, ...]], meet: bool = False) -> Work[list[int]]:
    found = []
    for number in numbers:
        if meet:
            yield Meeting()
        found.append((yield Double(number, seen)))
    return found


def test_asks_of_one_kind_are_answered_at_once_and_each_gets_its_own():
    seen: list[tuple[int, ...]] = []
    works = [doubled(numbers, seen) for numbers in ([1, 2, 3], [10], [20, 30])]
    assert together(works) == [[2, 4, 6], [20], [40, 60]]
    assert seen == [(1, 10, 20), (2, 30), (3,)]
    assert alone(doubled([4, 5], seen)) == [8, 10]
    assert seen[3:] == [(4,), (5,)]


def test_what_most_wait_for_comes_first():
    seen: list[tuple[int, ...]] = []
    odd = doubled([], seen)

    def other() -> Work[int]:
        answer: int = yield Double(7, seen, kind="rare")
        return answer

    assert together([other(), doubled([1], seen), doubled([2], seen), odd]) == [14, [2], [4], []]
    assert seen == [(1, 2), (7,)]


def test_a_meeting_waits_for_all_that_still_run():
    seen: list[tuple[int, ...]] = []

    def late(numbers: Sequence[int]) -> Work[list[int]]:
        first: int = yield Double(100, seen)
        return [first, *(yield from doubled(numbers, seen, meet=True))]

    works = [doubled([1, 2], seen, meet=True), late([3, 4, 5])]
    assert together(works) == [[2, 4], [200, 6, 8, 10]]
    assert seen == [(100,), (1, 3), (2, 4), (5,)]


def test_an_error_in_an_answer_goes_to_the_one_that_asked():
    seen: list[tuple[int, ...]] = []

    def careful(numbers: Sequence[int]) -> Work[list[int] | str]:
        try:
            return (yield from doubled(numbers, seen))
        except ValueError as error:
            return str(error)

    assert together([careful([1, 2]), careful([-1, 5]), careful([3])]) == [[2, 4], "negative", [6]]
    assert seen == [(1,), (3,), (2,)], "the first ones each alone, for the error of one of them"
    with pytest.raises(ValueError, match="negative"):
        alone(doubled([-1], seen))


def test_an_error_that_is_let_out_ends_all_of_them():
    seen: list[tuple[int, ...]] = []
    closed = []

    def closing() -> Work[list[int]]:
        try:
            return (yield from doubled([1, 2, 3, 4], seen))
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="negative"):
        together([closing(), doubled([5, -1], seen), closing()])
    assert closed == [True, True]


@pytest.mark.parametrize("task", ["hopper-v5", "ant-v5", "reacher-v5"])
def test_states_of_several_runs_step_as_they_do_alone(task: str):
    simulator = open_simulator(task)
    rng = np.random.default_rng(0)
    asks = []
    for count in (3, 1, 5):
        action = rng.uniform(-1, 1, (count, simulator.spec.act_dim))
        asks.append(ControlStep(simulator, simulator.reset(count, rng), action))
    for ask, shared in zip(asks, asks[0].answer_all(asks), strict=True):
        own = ask.answer()
        for name, value in own.states.save().items():
            np.testing.assert_array_equal(shared.states.save()[name], value)
        np.testing.assert_array_equal(shared.reward, own.reward)
        np.testing.assert_array_equal(shared.done, own.done)
    simulator.close()


# Networks


def policy_of(seed: int, **changes: object) -> GaussianPolicy:
    config = PolicyConfig("mlp", [16, 16], 0, 1.0, learn_std=True, normalise=True)
    spec = open_simulator("hopper-v5").spec
    return GaussianPolicy(replace(config, **changes), spec, np.random.default_rng(seed))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["mlp", "linear", "squashed"])
def test_one_network_for_several_policies_gives_the_means_and_gradients_of_each(kind: str):
    """To float32 rounding wherever this runs; test_runs_side_by_side_... shows that it is to the bit here."""
    features = 8 if kind == "linear" else 0
    seed = torch.Generator().manual_seed(1)
    shapes = [(6, 4), (6, 4), (3, 4), (6, 4)]
    policies = [policy_of(number, kind=kind, features=features) for number in range(len(shapes))]
    inputs = [torch.randn(*shape, 11 + features, generator=seed) for shape in shapes]
    shared = means_together(policies, inputs)
    for policy, own, mean in zip(policies, inputs, shared, strict=True):
        torch.testing.assert_close(mean, policy.mean(own), rtol=1e-5, atol=1e-6)

    def loss(policy: GaussianPolicy, means: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        total = means[0].square().mean() + policy.log_std.sum()
        return total, {"loss": float(total.detach())}

    def asked(own: GaussianPolicy, features: torch.Tensor) -> Gradient:
        return Gradient(own, [features], lambda means: loss(own, means))

    asks = [asked(*each) for each in zip(policies, inputs, strict=True)]
    together_found = asks[0].answer_all(asks)
    gradients = [[parameter.grad for parameter in policy.parameters()] for policy in policies]
    for ask, found, shared_gradient in zip(asks, together_found, gradients, strict=True):
        ask.policy.zero_grad()
        assert ask.answer()[1] == pytest.approx(found[1])
        for own, given in zip(ask.policy.parameters(), shared_gradient, strict=True):
            torch.testing.assert_close(given, own.grad, rtol=1e-5, atol=1e-6)


# Runs


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set for those that need one."""
    from sailctl.collect import collect

    folder = tmp_path_factory.mktemp("answers")
    collect(config_of(folder, "algo=sail"), 40, folder / "answers.parquet", [])
    return folder / "answers.parquet"


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_runs_side_by_side_end_as_each_of_them_alone(kind: str, answers: Path, tmp_path: Path):
    words = [*KINDS[kind], "algo.iterations=4"]
    if kind in ("dpr", "dpp", "offline"):
        words.append(f"algo.data={answers}")
    own = [("seed=0",), ("seed=1",)]
    if kind == "revkl":
        own.append(("seed=0", "algo.gamma=0.1"))
    packed = train_pack(
        [config_of(tmp_path / "packed", *words, *each) for each in own], [list(each) for each in own]
    )
    for each, path in zip(own, packed, strict=True):
        assert isinstance(path, Path), path
        alone_path = train(config_of(tmp_path / "alone", *words, *each), [])
        if kind in ROUNDED:
            one, two = (load_run(place).metrics for place in (path, alone_path))
            timeless = [name for name in one if not name.endswith("_s")]
            pd.testing.assert_frame_equal(one[timeless], two[timeless], rtol=1e-2, atol=1e-4)
        else:
            assert_same_run(path, alone_path)


def test_a_run_that_fails_leaves_those_beside_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    configs = [config_of(tmp_path / "packed", "algo=sail", f"seed={seed}") for seed in (0, 1)]
    updating = Learner.updating

    def poisoned(self: Learner, segments: SegmentBatch, *rest: object) -> Work[dict[str, float]]:
        if self is not victims[0] and len(victims) < 2:
            victims.append(self)
        if len(victims) == 2 and self is victims[1] and self.updates == 2:
            segments.actions[:, 0, 0] = np.nan
        return (yield from updating(self, segments, *rest))  # type: ignore[arg-type]

    victims: list[object] = [None]
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "updating", poisoned)
        reported: list[int] = []
        ended = train_pack(configs, [[], []], lambda number, _: reported.append(number))
    failed = next(number for number, one in enumerate(ended) if isinstance(one, Exception))
    assert isinstance(ended[failed], NonFiniteError)
    assert reported == [failed, 1 - failed], "at once, while the other one goes on"
    whole = ended[1 - failed]
    assert isinstance(whole, Path)
    assert_same_run(whole, train(replace(configs[1 - failed], out=str(tmp_path / "alone")), []))


def test_runs_that_are_stopped_side_by_side_go_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    configs = [config_of(tmp_path / "packed", "algo=sail", f"seed={seed}") for seed in (0, 1)]
    updating = Learner.updating

    def told(self: Learner, *arguments: object) -> Work[dict[str, float]]:
        if self.updates == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            monkeypatch.undo()
        return (yield from updating(self, *arguments))  # type: ignore[arg-type]

    monkeypatch.setattr(Learner, "updating", told)
    ended = train_pack(configs, [[], []])
    assert [str(one) for one in ended] == ["stopped by SIGTERM"] * 2
    assert all(isinstance(one, Interrupted) for one in ended)
    for config in configs:
        path = train(config, [])
        assert load_run(path).provenance["resumed"][0]["iteration"] == 4
        assert_same_run(path, train(replace(config, out=str(tmp_path / "alone")), []))


def test_what_another_process_works_on_is_left_to_it(tmp_path: Path):
    from sailctl.recorder import open_run

    configs = [config_of(tmp_path, "algo=sail", f"seed={seed}") for seed in (0, 1)]
    run = open_run(configs[0], [])
    busy, whole = train_pack(configs, [[], []])
    run.fail(KeyboardInterrupt())
    assert isinstance(busy, BusyError)
    assert isinstance(whole, Path)
    again = train_pack(configs, [[], []])
    assert again[1] == whole, "what is finished is left as it is"
    assert isinstance(again[0], Path)


def test_a_pack_holds_what_differs_in_seed_and_gamma_alone():
    def packed(*words: str, pack: int = 3) -> list[list[int]]:
        plan = compose_jobs([f"pack={pack}", *words], multirun=True)
        return packs_of([job.config for job in plan.jobs])

    assert packed("algo.gamma=0.1,1", "seed=0,1") == [[0, 1, 2], [3]]
    assert packed("seed=0,1", "algo=sail,sail_revkl") == [[0, 2], [1, 3]]
    assert packed("algo.beta=1,2") == [[0], [1]]
    assert packed("env=ant-v5,hopper-v5") == [[0], [1]]
    assert packed("algo=ppo,sac,pebble", "seed=0,1") == [[n] for n in range(6)], "baselines by themselves"
    assert packed("seed=0,1", pack=1) == [[0], [1]]


def test_a_sweep_in_packs_tells_how_each_of_its_runs_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    words = {word.split("=", 1)[0]: word for word in (*SMALL, "algo=sail", "algo.iterations=2")}
    sweep = ["-m", *words.values(), "pack=3", "seed=0,1,2,3", "hydra/launcher=basic", f"out={tmp_path / 'a'}"]
    assert main(["train", *sweep]) == 0
    said = capsys.readouterr().out
    assert "4 jobs: 4 done" in said
    assert [said.count(f" seed={seed}") for seed in range(4)] == [2, 2, 2, 2], (
        "when it ended, and in the table"
    )
    (launch,) = (tmp_path / "a/.sweeps").iterdir()
    packs = [json.loads(file.read_text()) for file in sorted((launch / "packs").iterdir())]
    assert [[run["number"] for run in pack] for pack in packs] == [[0, 1, 2], [3]]
    runs = sorted((tmp_path / "a").glob("hopper-v5/*/*"))
    assert [load_run(run).seed for run in runs] == [0, 1, 2, 3]
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "updating", None)  # nothing is trained again
        assert main(["train", *sweep]) == 0
    one = config_of(tmp_path / "alone", "algo=sail", "algo.iterations=2", "seed=1")
    assert_same_run(runs[1], train(one, []))
