"""State as bytes: everything comes back, and a single wrong bit shows."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sailctl.core.state import (
    DamagedError,
    State,
    from_bytes,
    module_state,
    optimiser_state,
    restore_module,
    restore_optimiser,
    to_bytes,
)

STATE: State = {
    "plain": {"int": 2**100, "float": 0.1, "nan": math.nan, "text": "é/x", "none": None, "list": [1, "a"]},
    "arrays": {
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), np.float32),
        "bool": np.array([True, False]),
        "turned": np.arange(6).reshape(2, 3).T,
    },
    "tensor": torch.arange(4, dtype=torch.float64),
    "nothing": {},
}


def test_everything_comes_back():
    found = from_bytes(to_bytes(STATE))
    assert math.isnan(found["plain"].pop("nan"))
    assert found["plain"] == {k: v for k, v in STATE["plain"].items() if k != "nan"}
    assert found["nothing"] == {}
    for name, array in STATE["arrays"].items():
        kept = found["arrays"][name]
        assert (kept.dtype, kept.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(kept, array)
        assert kept.flags.writeable
    np.testing.assert_array_equal(found["tensor"], STATE["tensor"].numpy())


@given(st.data())
def test_a_wrong_bit_shows(data: st.DataObject):
    content = bytearray(to_bytes(STATE))
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    with pytest.raises(DamagedError):
        from_bytes(bytes(content))


@pytest.mark.parametrize("length", [0, 4, 8, 100, -1])
def test_a_cut_file_shows(length: int):
    with pytest.raises(DamagedError):
        from_bytes(to_bytes(STATE)[:length])


@pytest.mark.parametrize(
    "content", [b"no", b"\xff" * 64, struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 2) + b"[]"]
)
def test_a_foreign_file_shows(content: bytes):
    with pytest.raises(DamagedError):
        from_bytes(content)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_an_optimiser_goes_on_where_it_stood(kind: type[torch.optim.Optimizer]):
    def made() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)
        return module, kind(module.parameters(), lr=0.1, fused=True)  # type: ignore[call-arg]

    def step(module: torch.nn.Linear, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        module(torch.ones(4, 3)).square().sum().backward()
        optimiser.step()

    one, first = made()
    restore_optimiser(first, from_bytes(to_bytes(optimiser_state(first))))  # before any step
    for _ in range(3):
        step(one, first)
    two, second = made()
    restore_module(two, from_bytes(to_bytes(module_state(one))))
    restore_optimiser(second, from_bytes(to_bytes(optimiser_state(first))))
    for _ in range(3):
        step(one, first)
        step(two, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
