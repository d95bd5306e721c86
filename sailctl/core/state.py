"""Complete states of a run as nested dictionaries, and their serialisation with a checksum.

Every object that keeps data between iterations has ``state()``, which returns the data, and
``restore(state)``, which loads it. A restored run continues bit for bit like one that was never stopped.
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
    """The bytes are not a serialised state, or are damaged."""


State = dict[str, Any]
"""Values by name: arrays, tensors, numbers, strings, None, nested dictionaries, and lists without arrays or
tensors. Deserialised tensors are arrays."""

PLAIN, CHECKSUM = "plain", "sha256"
_ARRAY = "array"


def to_bytes(state: State) -> bytes:
    """The state as the content of a safetensors file (no pickle), with a checksum."""
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray[Any, Any]] = {}
    plain = json.dumps(_without_arrays(state, "", arrays))
    return save(arrays, metadata={PLAIN: plain, CHECKSUM: _checksum(plain, arrays)})


def from_bytes(content: bytes) -> State:
    """The state that ``to_bytes`` serialised, with arrays instead of tensors.

    Raises:
        DamagedError: when ``content`` is not the unchanged output of ``to_bytes``.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        end = 8 + int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8:end])["__metadata__"]
        arrays = load(content)
        if metadata[CHECKSUM] != _checksum(metadata[PLAIN], arrays):
            raise DamagedError("its checksum is wrong")
        state: State = _with_arrays(json.loads(metadata[PLAIN]), arrays)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error
    return state


def module_state(module: nn.Module) -> State:
    """Parameters and buffers by name."""
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def restore_module(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load parameters and buffers, in place.

    Raises:
        RuntimeError: when names or shapes do not match the module.
    """
    module.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})


def optimiser_state(optimiser: torch.optim.Optimizer) -> State:
    """The optimiser's statistics of each parameter, by the parameter's number, without its settings."""
    statistics = optimiser.state_dict()["state"]
    return {str(number): dict(values) for number, values in statistics.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Load the optimiser's statistics, and keep its settings."""
    statistics = {
        int(number): {name: torch.as_tensor(value) for name, value in values.items()}
        for number, values in state.items()
    }
    optimiser.load_state_dict({"state": statistics, "param_groups": optimiser.state_dict()["param_groups"]})


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
        return arrays[value[_ARRAY]].copy()  # the arrays of safetensors are read-only
    return {key: _with_arrays(item, arrays) for key, item in value.items()}


def _checksum(plain: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """SHA-256 of the plain values, and of name, type, shape and content of each array."""
    digest = hashlib.sha256(plain.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
