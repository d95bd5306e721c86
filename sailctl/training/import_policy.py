"""Imports a policy that Stable-Baselines3 saved (PPO, A2C or SAC, a ``.zip``) as a reference policy.

Nothing in the file is executed: the weights are read as plain tensors (``torch.load`` with ``weights_only``),
the rest of the description as JSON, and pickled parts are not opened. Observation statistics of
``VecNormalize`` come from an ``.npz`` file, because the library saves them as a pickle.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN
from torch import Tensor, nn
from torch.nn.functional import linear

from sailctl.algorithms.sac import MIN_STD, squashed_std
from sailctl.config import PolicyConfig, RunConfig
from sailctl.core.types import DoubleArray, EnvSpec, UserError
from sailctl.core.words import first_line
from sailctl.policies.policy import OBS_CLIP, VARIANCE_FLOOR, GaussianPolicy
from sailctl.policies.references import folder_of
from sailctl.runs.checkpoint import save_policy
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.states import Simulator
from sailctl.training.evaluate import evaluate, play

LARGEST = 2**28
"""Largest number of bytes of a part of the file, and of all weights."""
SB3_EPSILON = 1e-8
"""What ``VecNormalize`` adds to each variance by default."""
DAMAGED = (
    *(OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged file may raise."""
EPISODES = 10
"""Episodes in which the deviation of SAC's actions is averaged, and the imported policy is measured."""
SEED = 2026
"""Seed of their initial states."""


@dataclass(frozen=True)
class Saved:
    """What is read of a file of Stable-Baselines3."""

    tensors: Mapping[str, Tensor]
    """Parameters by name."""
    about: Mapping[str, Any]
    """The JSON description."""

    def layers(self, *prefixes: str) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of the linear layers whose names begin so, in the order of the names."""
        names = [name for prefix in prefixes for name in self.tensors if name.startswith(prefix)]
        weights = [name for name in names if name.endswith(".weight")]
        biases = [name.removesuffix("weight") + "bias" for name in weights]
        return [
            (self.tensors[weight], self.tensors[bias])
            for weight, bias in zip(weights, biases, strict=True)
            if bias in self.tensors
        ]


def read_saved(path: Path) -> Saved:
    """Read the weights and the description of a ``.zip`` file of Stable-Baselines3.

    Raises:
        UserError: when it is not such a file.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip file" if path.is_file() else "there is no such file")
        with zipfile.ZipFile(path) as archive:
            parts = {}
            for name in ("data", "policy.pth"):
                if archive.getinfo(name).file_size > LARGEST:
                    raise ValueError(f"{name} has more than {LARGEST:,} bytes")
                parts[name] = archive.read(name)
        about = dict(json.loads(parts["data"]))
        about["policy_kwargs"] = dict(about.get("policy_kwargs") or {})
        about["action_space"] = dict(about.get("action_space") or {})
        tensors = torch.load(io.BytesIO(parts["policy.pth"]), map_location="cpu", weights_only=True)
        if sum(tensor.nelement() * 4 for tensor in tensors.values()) > LARGEST:
            raise ValueError(f"its weights have more than {LARGEST:,} bytes")
        tensors = {str(name): tensor.float() for name, tensor in tensors.items()}
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError("its weights are not all finite")
        return Saved(tensors, about)
    except UnpicklingError as error:
        raise UserError(f"{path} holds more than plain weights; nothing of it was executed") from error
    except DAMAGED as error:
        reason = first_line(error) or type(error).__name__
        raise UserError(f"{path} is not a model that Stable-Baselines3 saved: {reason}") from error


def import_policy(path: Path, stats: Path | None, simulator: Simulator) -> GaussianPolicy:
    """The actor of a saved model as a ``GaussianPolicy`` for the task of ``simulator``.

    Its mean action is the deterministic action of the model. PPO's and A2C's deviation is kept; SAC's, which
    depends on the state, becomes its mean over states that the policy visits.

    Args:
        path: ``.zip`` file of PPO, A2C or SAC with an ``MlpPolicy``.
        stats: ``.npz`` file with ``mean`` and ``var`` of the observations (``VecNormalize``'s ``obs_rms``);
            None if the model saw raw observations.
        simulator: of the task.

    Raises:
        UserError: when the file cannot be read, or its policy has no equivalent here or another task.
    """
    saved, spec = read_saved(path), simulator.spec
    if saved.layers("actor.latent_pi."):
        layers, kind = saved.layers("actor.latent_pi.", "actor.mu."), "squashed"
    else:
        layers = saved.layers("mlp_extractor.policy_net.", "action_net.")
        kind = {"Tanh": "mlp", "ReLU": "relu"}.get(_activation(saved, "Tanh"), "")
    _check(path, saved, layers, kind, spec)
    hidden = [len(bias) for _, bias in layers[:-1]]
    config = PolicyConfig(kind, hidden, 0, 1.0, True, stats is not None)
    policy = GaussianPolicy(config, spec, np.random.default_rng(0))
    with torch.no_grad():
        targets = [layer for layer in policy.net.modules() if isinstance(layer, nn.Linear)]
        for target, (weight, bias) in zip(targets, layers, strict=True):
            target.weight.copy_(weight)
            target.bias.copy_(bias)
        if stats is not None:
            _set_statistics(policy, stats)
        centre, half = _units(path, saved, spec)
        if kind == "squashed":  # scales its actions by itself
            policy.log_std.copy_(_deviation(saved, policy, simulator).log())
        else:
            targets[-1].weight.div_(half[:, None])
            targets[-1].bias.sub_(centre).div_(half)
            policy.log_std.copy_(saved.tensors["log_std"] - half.log())
    return policy


def _activation(saved: Saved, default: str) -> str:
    """Name of the activation, from its text in the description; it is there if it is not the default."""
    chosen = saved.about["policy_kwargs"].get("activation_fn", default)
    return str(chosen).rstrip("'>").rpartition(".")[2]


def _check(path: Path, saved: Saved, layers: list[tuple[Tensor, Tensor]], kind: str, spec: EnvSpec) -> None:
    """Refuse a policy that has no equivalent, or belongs to another task."""
    if len(layers) < 2:
        raise UserError(
            f"{path} has no policy that can be imported: it must be PPO, A2C or SAC, MlpPolicy, with "
            "hidden layers"
        )
    if any("features_extractor" in name for name in saved.tensors):
        raise UserError(f"{path} has a features extractor of its own, which has no equivalent here")
    if saved.about.get("use_sde"):
        raise UserError(f"{path} was trained with use_sde=True; its noise has no equivalent here")
    if kind == "squashed" and _activation(saved, "ReLU") != "ReLU":
        raise UserError(f"{path} is SAC with activation {_activation(saved, 'ReLU')}; ReLU can be imported")
    if not kind:
        raise UserError(f"{path} has activation {_activation(saved, 'Tanh')}; Tanh and ReLU can be imported")
    _check_shapes(path, saved, layers, kind)
    widths = layers[0][0].shape[1], len(layers[-1][1])
    if widths != (spec.obs_dim, spec.act_dim):
        raise UserError(
            f"{path} observes {widths[0]} numbers and has {widths[1]} actions; "
            f"{spec.id} has {spec.obs_dim} and {spec.act_dim}"
        )


def _check_shapes(path: Path, saved: Saved, layers: list[tuple[Tensor, Tensor]], kind: str) -> None:
    """Refuse layers that do not follow from one another, and a deviation that is missing or does not."""
    chained = [tuple(weight.shape) for weight, _ in layers] == [
        (len(bias), layers[k - 1][0].shape[0] if k else layers[0][0].shape[-1])
        for k, (_, bias) in enumerate(layers)
    ]
    flat = all(bias.ndim == 1 for _, bias in layers)
    width, actions = len(layers[-2][1]), len(layers[-1][1])
    noise = {
        "squashed": {"actor.log_std.weight": (actions, width), "actor.log_std.bias": (actions,)},
    }.get(kind, {"log_std": (actions,)})
    found = {name: tuple(saved.tensors[name].shape) for name in noise if name in saved.tensors}
    if not (chained and flat and found == noise):
        raise UserError(f"{path} has layers of shapes that are not those of an MlpPolicy")


def _units(path: Path, saved: Saved, spec: EnvSpec) -> tuple[Tensor, Tensor]:
    """(A,) centre and half range of the actions of the saved model."""
    space = saved.about["action_space"]
    try:
        low, high = (
            np.array(str(space[end]).strip("[]").split(), dtype=np.float64) for end in ("low", "high")
        )
        low, high = np.broadcast_to(low, spec.act_dim), np.broadcast_to(high, spec.act_dim)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} does not say the range of its actions") from error
    ones = np.ones(spec.act_dim)
    ranges = ((spec.act_low, spec.act_high), (-ones, ones))
    if not any(np.allclose(low, ends[0]) and np.allclose(high, ends[1]) for ends in ranges):
        raise UserError(f"{path} has actions from {low} to {high}; {spec.id} needs its own range, or -1 to 1")
    return torch.from_numpy((low + high) / 2).float(), torch.from_numpy((high - low) / 2).float()


def _set_statistics(policy: GaussianPolicy, stats: Path) -> None:
    """Set the observation statistics of a policy from an ``.npz`` file."""
    shape = (policy.spec.obs_dim,)
    try:
        with np.load(stats, allow_pickle=False) as arrays:
            mean, var = arrays["mean"].astype(np.float64), arrays["var"].astype(np.float64)
            count = float(arrays["count"]) if "count" in arrays else 1.0
            clip = float(arrays["clip"]) if "clip" in arrays else OBS_CLIP
    except DAMAGED as error:
        raise UserError(f"{stats} must be an .npz file with mean and var: {first_line(error)}") from error
    if mean.shape != shape or var.shape != shape or not (np.isfinite([mean, var]).all() and (var >= 0).all()):
        raise UserError(f"{stats} must hold mean and var >= 0 of {shape[0]} numbers, got {mean.shape}")
    if clip != OBS_CLIP:
        raise UserError(f"{stats} clips observations at {clip:g}; {OBS_CLIP:g} can be imported")
    policy.obs_mean.copy_(torch.from_numpy(mean))
    policy.obs_var.copy_(torch.from_numpy(np.maximum(var + SB3_EPSILON - VARIANCE_FLOOR, 0.0)))
    policy.obs_count.fill_(count)


def _deviation(saved: Saved, policy: GaussianPolicy, simulator: Simulator) -> Tensor:
    """(A,) deviation of SAC's actions, the mean over the states of some episodes of its mean action."""
    visited: list[DoubleArray] = []

    def mean_action(obs: DoubleArray) -> DoubleArray:
        visited.append(obs)
        return policy.to_controls(policy.act(obs, None))

    play(mean_action, simulator, EPISODES, SEED)
    latent = policy.features(torch.from_numpy(np.concatenate(visited).astype(np.float32)))
    for weight, bias in saved.layers("actor.latent_pi."):
        latent = linear(latent, weight, bias).relu()
    (mean_layer,), (std_layer,) = saved.layers("actor.mu."), saved.layers("actor.log_std.")
    log_std = linear(latent, *std_layer).clamp(LOG_STD_MIN, LOG_STD_MAX)
    return squashed_std(linear(latent, *mean_layer), log_std).mean(0).clamp(min=MIN_STD)


def keep_imported(path: Path, stats: Path | None, config: RunConfig, out: Path) -> Path:
    """Import a policy for the task of ``config`` and print its true return.

    Args:
        path: ``.zip`` file, see ``import_policy``.
        stats: ``.npz`` file, or None.
        config: gives the task and the threads of the simulator.
        out: parent of the task's folder.

    Returns:
        The folder of the policy, for ``algo.reference``.

    Raises:
        UserError: like ``import_policy``, and when the folder exists.
    """
    folder = folder_of(config.env.id, out) / path.stem
    if folder.exists():
        raise UserError(f"{folder} exists: remove it first, or choose another --out")
    simulator = open_simulator(config.env.id, config.threads)
    policy = import_policy(path, stats, simulator)
    returns = evaluate(policy, simulator, EPISODES, SEED).returns
    simulator.close()
    try:
        save_policy(policy, folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    print(f"true return {returns.mean():.1f} +- {returns.std(ddof=1):.1f} over {EPISODES} episodes")
    return folder
