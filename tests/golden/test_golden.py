"""The first updates of every algorithm are the stored ones; and the measure of how far they are is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sailctl.core.types import UserError
from sailctl.gate import golden

STORED = Path(__file__).parents[2] / "results" / "baselines" / "golden.csv"


@pytest.fixture(scope="module")
def now() -> golden.Trajectories:
    return golden.trajectories(golden.names())


def test_every_algorithm_and_experiment_has_a_golden_trajectory():
    assert list(golden.load(STORED)) == golden.names()


@pytest.mark.parametrize("name", golden.names())
def test_first_updates_are_the_stored_ones(name: str, now: golden.Trajectories):
    stored = golden.load(STORED)[name]
    found = golden.drifts({name: stored}, now)
    assert [drift.series for drift in found] == list(golden.SERIES)
    assert all(len(stored[series]) == golden.UPDATES for series in golden.SERIES)
    assert all(drift.passes for drift in found), found


def test_algorithms_do_not_share_a_trajectory():
    """Or a mix-up of two of them would pass."""
    losses = [tuple(series["loss"]) for series in golden.load(STORED).values()]
    assert len(set(losses)) == len(losses)


def test_drift_is_a_share_of_the_stored_root_mean_square():
    stored = {"sail": {"loss": np.array([3.0, -4.0, 0.0, 0.0])}}  # root mean square 2.5
    now = {"sail": {"loss": np.array([3.0, -4.5, 0.1, 0.0])}}
    (drift,) = golden.drifts(stored, now)
    assert drift.largest == pytest.approx(0.5 / 2.5)
    assert drift.mean == pytest.approx((0.5 + 0.1) / 4 / 2.5)


@pytest.mark.parametrize(
    ("one", "everywhere", "passes"), [(0.9, 0.9, True), (1.1, 0.0, False), (0.0, 1.1, False)]
)
def test_one_large_step_and_many_small_ones_are_both_too_far(one: float, everywhere: float, passes: bool):
    stored = {"sail": {"loss": np.ones(20)}}
    off = np.full(20, everywhere * golden.TOLERANCE["mean"])
    off[7] = max(off[7], one * golden.TOLERANCE["max"])
    if passes:  # the large one counts in the mean too
        off = np.minimum(off, golden.TOLERANCE["mean"])
    (drift,) = golden.drifts(stored, {"sail": {"loss": 1 + off}})
    assert drift.passes == passes


@pytest.mark.parametrize("new", [[1.0, np.nan, 1.0], [1.0, np.inf, 1.0], [1.0, 1.0]])
def test_what_is_no_number_any_more_is_infinitely_far(new: list[float]):
    (drift,) = golden.drifts({"sail": {"loss": np.ones(3)}}, {"sail": {"loss": np.array(new)}})
    assert drift.largest == np.inf
    assert not drift.passes


def test_saved_trajectories_are_read_back_bit_for_bit(tmp_path: Path):
    rng = np.random.default_rng(0)
    found = {name: {series: rng.normal(size=20) for series in golden.SERIES} for name in ("b", "a")}
    golden.save(found, tmp_path / "golden.csv", {"history": [{"reason": "first"}]})
    again = golden.load(tmp_path / "golden.csv")
    assert list(again) == ["b", "a"]
    assert all(np.array_equal(again[n][s], found[n][s]) for n in found for s in golden.SERIES)
    assert golden.history(tmp_path / "golden.csv") == [{"reason": "first"}]


def test_a_file_that_holds_something_else(tmp_path: Path):
    (tmp_path / "golden.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="cannot read"):
        golden.load(tmp_path / "golden.csv")
