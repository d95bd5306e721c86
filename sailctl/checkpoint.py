"""Exact and safe policy files: safetensors beside JSON, no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sailctl.config import PolicyConfig
from sailctl.files import POLICY, find_policy, write_atomically
from sailctl.policy import GaussianPolicy
from sailctl.types import EnvSpec, UserError

FORMAT = 1
"""Version of the file format, raised when a reader of the old one could not read the new one."""
TENSORS = "policy.safetensors"


def save_policy(policy: GaussianPolicy, folder: Path) -> None:
    """Write ``policy.safetensors`` and then ``policy.json`` into ``folder``, each of them atomically."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    spec = asdict(policy.spec)
    spec["act_low"], spec["act_high"] = policy.spec.act_low.tolist(), policy.spec.act_high.tolist()
    tensors = save({k: v.contiguous() for k, v in policy.state_dict().items()})
    about: dict[str, Any] = {"format": FORMAT, "policy": asdict(policy.config), "spec": spec}
    about["sha256"] = checksum(about, tensors)
    write_atomically(folder / TENSORS, tensors)
    write_atomically(folder / POLICY, (json.dumps(about, indent=2) + "\n").encode())


def load_policy(place: str | Path) -> GaussianPolicy:
    """The policy in ``place``: a run directory, or a folder with ``policy.json``.

    Raises:
        UserError: when there is none, or when its files do not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    description = find_policy(place)
    if description is None:
        raise UserError(f"there is no {POLICY} in {place} or in {Path(place) / 'policy'}")
    folder = description.parent
    try:
        about: dict[str, Any] = json.loads(description.read_text())
        if about["format"] != FORMAT:
            raise UserError(f"{description} has format {about['format']}; this version reads {FORMAT}")
        tensors = (folder / TENSORS).read_bytes()
        if about.pop("sha256") != checksum(about, tensors):
            raise ValueError(f"{POLICY} and {TENSORS} are damaged, or not of one policy")
        spec = dict(about["spec"])
        spec["act_low"], spec["act_high"] = np.array(spec["act_low"]), np.array(spec["act_high"])
        policy = GaussianPolicy(PolicyConfig(**about["policy"]), EnvSpec(**spec), np.random.default_rng(0))
        policy.load_state_dict(load(tensors))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the policy in {folder} cannot be read: {reason}") from error
    return policy


def checksum(about: Mapping[str, Any], tensors: bytes) -> str:
    """SHA-256 of the description and the tensors together: a flipped bit or a mixed pair of files shows."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode() + tensors).hexdigest()


def dump_batch(batch: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors by name as one safetensors file."""
    from safetensors.torch import save

    write_atomically(path, save({name: tensor.contiguous() for name, tensor in batch.items()}))
