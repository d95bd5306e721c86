"""What a run knows at one moment, as nested dictionaries, and as bytes that show when a bit of them is wrong.

Everything that remembers something from one iteration to the next has ``state()``, which hands it out, and
``restore(state)``, which takes it back: training goes on from there bit for bit as if it had never stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


class DamagedError(Exception):
    """These bytes are not those of a state, or not all of them are."""


State = dict[str, Any]
"""Names and what is kept under them: arrays, tensors, numbers, texts, None, lists of those but arrays and
tensors, and further such dictionaries. Read from bytes, tensors come back as arrays."""

PLAIN, CHECKSUM = "plain", "sha256"
_ARRAY = "array"


def to_bytes(state: State) -> bytes:
    """The state as the content of a safetensors file: no pickle, and a checksum over all of it."""
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray[Any, Any]] = {}
    plain = json.dumps(_without_arrays(state, "", arrays))
    return save(arrays, metadata={PLAIN: plain, CHECKSUM: _checksum(plain, arrays)})


def from_bytes(content: bytes) -> State:
    """The state that ``to_bytes`` made bytes of, arrays in place of tensors.

    Raises:
        DamagedError: when it did not, or when they have changed since.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        end = 8 + int.from_bytes(content[:8], "little")
        about = json.loads(content[8:end])["__metadata__"]
        arrays = load(content)
        if about[CHECKSUM] != _checksum(about[PLAIN], arrays):
            raise DamagedError("its checksum is wrong")
        state: State = _with_arrays(json.loads(about[PLAIN]), arrays)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error
    return state


def module_state(module: nn.Module) -> State:
    """Parameters and buffers by name."""
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def restore_module(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Put parameters and buffers back, in place.

    Raises:
        RuntimeError: when they are those of another module.
    """
    module.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})


def optimiser_state(optimiser: torch.optim.Optimizer) -> State:
    """What the optimiser remembers of each parameter, by the parameter's number; its settings left out."""
    known = optimiser.state_dict()["state"]
    return {str(number): dict(values) for number, values in known.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Put back what the optimiser remembered; its settings stay as they are."""
    known = {
        int(number): {name: torch.as_tensor(value) for name, value in values.items()}
        for number, values in state.items()
    }
    optimiser.load_state_dict({"state": known, "param_groups": optimiser.state_dict()["param_groups"]})


def _without_arrays(value: Any, name: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_arrays(item, f"{name}/{key}", arrays) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        arrays[name] = np.asarray(value, order="C")
        return {_ARRAY: name}
    return value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) == {_ARRAY}:
        return arrays[value[_ARRAY]].copy()  # those of safetensors cannot be written to
    return {key: _with_arrays(item, arrays) for key, item in value.items()}


def _checksum(plain: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """SHA-256 of everything: numbers and texts, and name, type, shape and content of each array."""
    found = hashlib.sha256(plain.encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
