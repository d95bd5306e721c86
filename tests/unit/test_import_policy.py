"""Policies that Stable-Baselines3 saved, as reference policies."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize

from sailctl.cli.main import main
from sailctl.core.types import UserError
from sailctl.runs.checkpoint import load_policy
from sailctl.runs.results import find_runs, load_run
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.vecenv import SimulatorVecEnv
from sailctl.training.import_policy import import_policy

TASK = "invertedpendulum-v5"  # controls from -3 to 3
RELU = {"activation_fn": torch.nn.ReLU, "net_arch": {"pi": [16, 8], "vf": [8]}, "log_std_init": -1.0}
TANH = {"activation_fn": torch.nn.Tanh}
MODELS = {"ppo": (PPO, {}), "ppo relu": (PPO, RELU), "a2c": (A2C, {}), "sac": (SAC, {"net_arch": [16, 8]})}


def saved(model: BaseAlgorithm, folder: Path) -> Path:
    """The model with larger weights, so that actions differ, in a file."""
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(1.5)
    path = folder / "model.zip"
    model.save(path)
    return path


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("raw", [True, False], ids=["raw controls", "policy units"])
def test_an_imported_policy_acts_as_the_model(name: str, raw: bool, tmp_path: Path) -> None:
    """With the model trained on Gymnasium's environment, or on the suite's simulator."""
    simulator = open_simulator(TASK)
    env = gymnasium.make("InvertedPendulum-v5") if raw else SimulatorVecEnv(simulator, count=1, seed=0)
    kind, settings = MODELS[name]
    model = kind("MlpPolicy", env, policy_kwargs=settings, seed=1, device="cpu")
    policy = import_policy(saved(model, tmp_path), None, simulator)
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    controls, _ = model.predict(obs, deterministic=True)
    if not raw:
        controls = 3 * controls
    assert len(np.unique(controls)) > 10
    np.testing.assert_allclose(policy.predict(obs)[0], controls, atol=1e-5)
    std = policy.log_std.detach().exp()
    if kind is SAC:
        assert 0.05 < float(std) < 1.0
    else:
        torch.testing.assert_close(std, model.policy.log_std.detach().exp() / (3 if raw else 1))


def test_observation_statistics_are_those_of_the_wrapper(tmp_path: Path) -> None:
    simulator = open_simulator(TASK)
    env = VecNormalize(SimulatorVecEnv(simulator, count=1, seed=0))
    assert isinstance(env.obs_rms, RunningMeanStd)
    env.obs_rms.mean, env.obs_rms.var = np.array([0.1, -0.2, 0.3, 0.0]), np.array([0.5, 2.0, 1e-3, 4.0])
    model = PPO("MlpPolicy", env, seed=1, device="cpu")
    np.savez(tmp_path / "stats.npz", mean=env.obs_rms.mean, var=env.obs_rms.var, clip=env.clip_obs)
    policy = import_policy(saved(model, tmp_path), tmp_path / "stats.npz", simulator)
    obs = np.random.default_rng(0).normal(size=(50, 4))
    expected, _ = model.predict(env.normalize_obs(obs).astype(np.float32), deterministic=True)
    np.testing.assert_allclose(policy.predict(obs)[0], 3 * expected, atol=1e-4)


def test_alignment_starts_from_an_imported_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = PPO("MlpPolicy", gymnasium.make("InvertedPendulum-v5"), seed=1, device="cpu")
    command = ["reference", f"env={TASK}", "--from", str(saved(model, tmp_path))]
    assert main(command) == 0
    returns, folder = capsys.readouterr().out.splitlines()
    assert returns.startswith("true return ")
    assert folder == f"references/{TASK}/model"
    assert main(command) == 2
    assert "exists: remove it first" in capsys.readouterr().err
    tiny = "experiment=alignment env_steps=400 algo.learning_starts=200 algo.warmup=2 algo.initial_queries=5"
    words = [*tiny.split(), f"env={TASK}", f"algo.reference={folder}", "logger.wandb=disabled", "out=runs"]
    assert main(["train", *words]) == 0
    run = load_run(find_runs(Path("runs"))[0])
    assert run.state == "finished"
    assert load_policy(run.path).config == load_policy(folder).config


class Executed:
    """Its pickle would create a folder."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("executed",))


class Scaled(BaseFeaturesExtractor):
    """A features extractor with a parameter."""

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        super().__init__(space, space.shape[0])
        self.scale = torch.nn.Parameter(torch.full((space.shape[0],), 2.0))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return obs * self.scale


def archive(path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name, content in parts.items():
            target.writestr(name.replace("_pth", ".pth"), content)
    return path


def weights(**tensors: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = archive(tmp_path / "bad.zip", data=b"{}", policy_pth=pickle.dumps(Executed(), protocol=2))
    with pytest.raises(UserError, match="more than plain weights; nothing of it was executed"):
        import_policy(hostile, None, open_simulator(TASK))
    assert not (tmp_path / "executed").exists()


def test_what_cannot_be_imported_is_refused_in_one_line(tmp_path: Path) -> None:
    simulator = open_simulator(TASK)
    env = SimulatorVecEnv(simulator, count=1, seed=0)

    def refused(path: Path, stats: Path | None = None) -> str:
        with pytest.raises(UserError) as error:
            import_policy(path, stats, simulator)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "there is no such file" in refused(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("text")
    assert "it is no zip file" in refused(tmp_path / "text.zip")
    assert "no item named 'policy.pth'" in refused(archive(tmp_path / "empty.zip", data=b"{}"))
    plain = {"data": json.dumps({}).encode(), "policy_pth": weights(x=torch.zeros(2))}
    assert "it must be PPO, A2C or SAC" in refused(archive(tmp_path / "plain.zip", **plain))
    assert "it must be PPO, A2C or SAC" in refused(saved(TD3("MlpPolicy", env, device="cpu"), tmp_path))
    other = PPO("MlpPolicy", gymnasium.make("Hopper-v5"), device="cpu")
    assert "observes 11 numbers and has 3 actions; invertedpendulum-v5 has 4 and 1" in refused(
        saved(other, tmp_path)
    )
    sde = PPO("MlpPolicy", env, use_sde=True, device="cpu")
    assert "use_sde=True" in refused(saved(sde, tmp_path))
    assert "SAC with activation Tanh" in refused(
        saved(SAC("MlpPolicy", env, policy_kwargs=TANH, device="cpu"), tmp_path)
    )
    elu = PPO("MlpPolicy", env, policy_kwargs={"activation_fn": torch.nn.ELU}, device="cpu")
    assert "activation ELU" in refused(saved(elu, tmp_path))
    own = {"features_extractor_class": Scaled}
    assert "features extractor" in refused(
        saved(PPO("MlpPolicy", env, policy_kwargs=own, device="cpu"), tmp_path)
    )
    wide = gymnasium.make("InvertedPendulum-v5")
    wide.action_space = gymnasium.spaces.Box(-7.0, 7.0, (1,), np.float32)
    assert "needs its own range, or -1 to 1" in refused(saved(SAC("MlpPolicy", wide, device="cpu"), tmp_path))
    good = saved(PPO("MlpPolicy", env, device="cpu"), tmp_path)
    with zipfile.ZipFile(good) as whole:
        parts = {name: whole.read(name) for name in ("data", "policy.pth")}
    tensors = torch.load(io.BytesIO(parts["policy.pth"]), weights_only=True)
    changes = {
        "not all finite": {"log_std": torch.tensor([math.nan])},
        "not those of an MlpPolicy": {"log_std": torch.zeros(2)},
        "are not those of": {"mlp_extractor.policy_net.2.weight": torch.zeros(64, 1)},
        "shapes that are not": {"mlp_extractor.policy_net.2.weight": torch.zeros(64)},
        "has no policy": {"action_net.bias": None, "mlp_extractor.policy_net.0.bias": None},
    }
    for message, change in changes.items():
        changed = {name: part for name, part in {**tensors, **change}.items() if part is not None}
        odd = {"data": parts["data"], "policy_pth": weights(**changed)}
        assert message in refused(archive(tmp_path / "odd.zip", **odd))
    for about in (b"[]", b'{"policy_kwargs": "x"}', b'{"action_space": [1]}'):
        refused(archive(tmp_path / "odd.zip", data=about, policy_pth=parts["policy.pth"]))
    refused(archive(tmp_path / "odd.zip", data=parts["data"], policy_pth=b""))
    damaged = bytearray(good.read_bytes())
    damaged[damaged.find(parts["policy.pth"][:100]) + 5000] ^= 255
    (tmp_path / "damaged.zip").write_bytes(damaged)
    refused(tmp_path / "damaged.zip")
    np.save(tmp_path / "plain.npy", np.zeros(4))
    (tmp_path / "nothing.npz").touch()
    for stats in ("plain.npy", "nothing.npz"):
        assert "must be an .npz file" in refused(good, tmp_path / stats)
    np.savez(tmp_path / "short.npz", mean=np.zeros(3), var=np.ones(3))
    assert "mean and var >= 0 of 4 numbers" in refused(good, tmp_path / "short.npz")
    np.savez(tmp_path / "clipped.npz", mean=np.zeros(4), var=np.ones(4), clip=5.0)
    assert "clips observations at 5" in refused(good, tmp_path / "clipped.npz")
    assert "must be an .npz file" in refused(good, tmp_path / "text.zip")
