"""Lossless files of policies and of whole runs: safetensors, JSON, checksums, no pickle.

A run keeps its last two checkpoints, ``checkpoints/<iteration>.safetensors``: its complete state after an
iteration. A damaged checkpoint is skipped, because the previous one leads to the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sailctl.config import PolicyConfig
from sailctl.core.files import POLICY, find_policy, write_atomically
from sailctl.core.state import DamagedError, State, from_bytes, to_bytes
from sailctl.core.types import EnvSpec, UserError
from sailctl.core.words import first_line
from sailctl.policies.policy import GaussianPolicy

FORMAT = 1
"""Version of the file format, incremented when older versions of sailctl cannot read the new format."""
TENSORS = "policy.safetensors"
CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in a run directory."""
KEPT = 2
"""Number of checkpoints kept: if the last one is damaged, the previous one is used."""


def save_policy(policy: GaussianPolicy, folder: Path) -> None:
    """Write ``policy.safetensors`` and then ``policy.json`` into ``folder``, each atomically."""
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
        UserError: when there is no policy, or its files are damaged or do not belong together.
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
            raise ValueError(f"{POLICY} and {TENSORS} are damaged, or belong to different policies")
        spec = dict(about["spec"])
        spec["act_low"], spec["act_high"] = np.array(spec["act_low"]), np.array(spec["act_high"])
        policy = GaussianPolicy(PolicyConfig(**about["policy"]), EnvSpec(**spec), np.random.default_rng(0))
        policy.load_state_dict(load(tensors))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = first_line(error) or type(error).__name__
        raise UserError(f"the policy in {folder} cannot be read: {reason}") from error
    return policy


def save_checkpoint(run: Path, iteration: int, state: State) -> None:
    """Save the state of a run after an iteration, and remove all but the last ``KEPT`` checkpoints.

    Raises:
        OSError: when the checkpoint cannot be written; earlier ones are not changed.
    """
    folder = run / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    for partial in folder.glob(".*"):  # left by a process that was killed while writing
        partial.unlink(missing_ok=True)
    write_atomically(folder / f"{iteration:09d}.safetensors", to_bytes({"format": FORMAT, **state}))
    for old in checkpoints(run)[:-KEPT]:
        old.unlink(missing_ok=True)


def load_checkpoint(run: Path) -> State | None:
    """The newest readable state of a run; None when the run has no checkpoint.

    Raises:
        UserError: when the run has checkpoints and none is readable.
    """
    paths = checkpoints(run)
    for path in reversed(paths):
        try:
            state = from_bytes(path.read_bytes())
            if state["format"] != FORMAT:
                raise DamagedError(f"it has format {state['format']}; this version reads {FORMAT}")
        except (OSError, DamagedError, KeyError) as error:
            reason = first_line(error) or type(error).__name__
            print(f"sailctl: warning: {path} cannot be used: {reason}", file=sys.stderr)
        else:
            return state
    if paths:
        raise UserError(
            f"no checkpoint in {run / CHECKPOINTS} is usable: remove that folder to restart this run, "
            "or start a new one with --fresh"
        )
    return None


def remove_checkpoints(run: Path) -> None:
    """Remove all checkpoints of a finished run, which has its policy instead."""
    for path in checkpoints(run):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        (run / CHECKPOINTS).rmdir()


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / CHECKPOINTS).glob("[0-9]*.safetensors"))


def checksum(about: Mapping[str, Any], tensors: bytes) -> str:
    """SHA-256 of description and tensors together: detects damage, and files of different policies."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode() + tensors).hexdigest()


def dump_batch(batch: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors by name as one safetensors file."""
    from safetensors.torch import save

    write_atomically(path, save({name: tensor.contiguous() for name, tensor in batch.items()}))
