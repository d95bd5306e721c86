"""Data sets of preferences: exact to the bit, read by pandas, refused in one line when anything is wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import sailctl
from sailctl.core.types import EnvSpec, PreferenceData, RunError, UserError
from sailctl.data.datasets import (
    KEY,
    check_fits,
    checksum,
    from_arrays,
    load_preferences,
    save_preferences,
)

TASK = "reacher-v5"
RETURNS = np.array([[1.5, -2.0], [0.1, np.nan], [7.0, 7.0], [-1e-300, 3e300]])


def sample(pairs: int = 4, judged: int = 5, obs_dim: int = 3, act_dim: int = 2) -> PreferenceData:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, judged + 1, (pairs, 2, 1))
    return from_arrays(
        TASK,
        rng.normal(size=(pairs, 2, judged, obs_dim)),
        rng.normal(size=(pairs, 2, judged, act_dim)),
        np.resize([1, -1, 0], pairs),
        np.arange(judged) < lengths,
        np.resize([4, 4, 9], pairs),
        steps=2,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.parquet"
    save_preferences(path, sample(), {"by": "hand"}, RETURNS)
    return path


def bits(data: PreferenceData) -> list[tuple[str, tuple[int, ...], bytes]]:
    segments, pairs = data.segments, data.preferences.pairs
    everything = (
        segments.obs,
        segments.actions,
        segments.mask,
        data.preferences.label,
        pairs.first,
        pairs.second,
        pairs.group,
    )
    return [(array.dtype.str, array.shape, array.tobytes()) for array in everything]


def assert_same(one: PreferenceData, two: PreferenceData) -> None:
    assert (one.task, one.steps, one.segments.forks) == (two.task, two.steps, two.segments.forks)
    assert bits(one) == bits(two)


def assert_refused(path: Path, what: str = "") -> None:
    with pytest.raises(UserError) as refused:
        load_preferences(path)
    message = str(refused.value)
    assert str(path) in message
    assert what in message
    assert "\n" not in message


# The round trip


def test_a_data_set_comes_back_bit_for_bit(file: Path):
    assert_same(load_preferences(file), sample())
    assert [path.name for path in file.parent.iterdir()] == ["sample.parquet"]


@given(data=st.data())
@settings(max_examples=40)
def test_any_finite_numbers_come_back_bit_for_bit(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    pairs, judged, obs_dim, act_dim = data.draw(array_shapes(min_dims=4, max_dims=4, max_side=4))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)  # -0.0 and subnormal ones included
    lengths = data.draw(arrays(np.int64, (pairs, 2), elements=st.integers(1, judged)))
    labels = arrays(np.int64, pairs, elements=st.sampled_from([-1, 0, 1]))
    made = from_arrays(
        TASK,
        data.draw(arrays(np.float32, (pairs, 2, judged, obs_dim), elements=finite)),
        data.draw(arrays(np.float32, (pairs, 2, judged, act_dim), elements=st.floats(-100, 100, width=32))),
        data.draw(labels.filter(lambda label: set(label.tolist()) != {0, 1})),
        np.arange(judged) < lengths[..., None],
        data.draw(arrays(np.int64, pairs)),
        data.draw(st.none() | st.integers(1, judged)),
    )
    path = tmp_path_factory.mktemp("any") / "any.parquet"
    save_preferences(path, made, {})
    assert_same(load_preferences(path), made)


def test_the_rows_of_a_pair_stand_side_by_side():
    obs = np.arange(2 * 2 * 3 * 1).reshape(2, 2, 3, 1)
    data = from_arrays(TASK, obs, -obs, [1, -1])
    np.testing.assert_array_equal(data.segments.obs[:, 0, 0], [0, 3, 6, 9])
    np.testing.assert_array_equal(data.segments.actions[:, 0, 0], [0, -3, -6, -9])
    np.testing.assert_array_equal(data.preferences.pairs.first, [0, 2])
    np.testing.assert_array_equal(data.preferences.pairs.second, [1, 3])
    np.testing.assert_array_equal(data.preferences.label, [1, -1])
    assert data.segments.mask.all(), "all steps were taken, unless a mask says otherwise"
    assert len(set(data.preferences.pairs.group)) == 2, "pairs are independent, unless groups say otherwise"


def test_what_stands_after_the_end_of_a_segment_is_not_looked_at(tmp_path: Path):
    obs, actions = np.ones((1, 2, 3, 2)), np.ones((1, 2, 3, 1))
    mask = np.array([[[1, 1, 1], [1, 0, 0]]])
    obs[0, 1, 1:], actions[0, 1, 1:] = np.nan, np.inf
    data = from_arrays(TASK, obs, actions, [1], mask)
    np.testing.assert_array_equal(data.segments.obs[1], [[1, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(data.segments.actions[1], [[1], [0], [0]])
    save_preferences(tmp_path / "a.parquet", data, {})
    assert_same(load_preferences(tmp_path / "a.parquet"), data)


def test_folders_on_the_way_are_made(tmp_path: Path):
    save_preferences(tmp_path / "a" / "b" / "c.parquet", sample(), {})
    assert_same(sailctl.load_preferences(str(tmp_path / "a" / "b" / "c.parquet")), sample())


def test_steps_that_only_the_teacher_judged_are_kept_and_told_apart(tmp_path: Path):
    """A reward model needs all that was judged; a learner is given the first steps alone."""
    rng = np.random.default_rng(0)
    obs, actions = rng.normal(size=(4, 2, 6, 3)), rng.normal(size=(4, 2, 6, 2))
    data = from_arrays(TASK, obs, actions, np.array([1, -1, 0, 1]), steps=2)
    path = tmp_path / "long.parquet"
    save_preferences(path, data, {})
    again = load_preferences(path)
    assert_same(again, data)
    assert (again.steps, again.segments.mask.shape) == (2, (8, 6))
    short = again.first_steps()
    np.testing.assert_array_equal(short.segments.obs, data.segments.obs[:, :2])
    assert (short.steps, short.segments.mask.shape) == (2, (8, 2))
    assert again.take(np.array([1, 1])).steps == 2
    for steps in (0, 7):
        with pytest.raises(UserError, match="steps must be from 1 to 6"):
            from_arrays(TASK, obs, actions, np.array([1, -1, 0, 1]), steps=steps)


# What people read


def test_pandas_reads_it(file: Path):
    table = pd.read_parquet(file)
    data = sample()
    assert list(table.columns) == [
        "group",
        "label",
        "length_1",
        "length_2",
        "obs_1",
        "obs_2",
        "actions_1",
        "actions_2",
        "return_1",
        "return_2",
    ]
    np.testing.assert_array_equal(table.group, [4, 4, 9, 4])
    np.testing.assert_array_equal(table.label, [1, -1, 0, 1])
    np.testing.assert_array_equal(table[["return_1", "return_2"]], RETURNS)
    assert pq.read_table(file)["return_2"].null_count == 1, "unknown is null, for readers other than pandas"
    for i, row in enumerate(table.itertuples()):
        for side, length, obs, actions in (
            (0, row.length_1, row.obs_1, row.actions_1),
            (1, row.length_2, row.obs_2, row.actions_2),
        ):
            assert obs.dtype == np.float32
            np.testing.assert_array_equal(obs.reshape(length, -1), data.segments.obs[2 * i + side, :length])
            np.testing.assert_array_equal(
                actions.reshape(length, -1), data.segments.actions[2 * i + side, :length]
            )
            assert data.segments.mask[2 * i + side].sum() == length


def test_the_file_says_what_it_is(file: Path):
    described = json.loads(pq.read_schema(file).metadata[KEY])
    assert len(described.pop("sha256")) == 64
    assert described == {
        "format": 1,
        "task": TASK,
        "obs_dim": 3,
        "act_dim": 2,
        "segment": 2,
        "judged": 5,
        "about": {"by": "hand"},
    }


def test_returns_are_not_read_for_learning(file: Path, tmp_path: Path):
    without = tmp_path / "without.parquet"
    save_preferences(without, sample(), {"by": "hand"})
    assert pd.read_parquet(without)[["return_1", "return_2"]].isna().all(axis=None)
    assert_same(load_preferences(without), sample())

    # Where the bytes of the returns are destroyed, whoever reads them notices.
    parts = pq.read_metadata(file).row_group(0)
    columns = [parts.column(i) for i in range(parts.num_columns)]
    damaged = bytearray(file.read_bytes())
    for column in columns:
        if column.path_in_schema.startswith("return"):
            end = column.data_page_offset + column.total_compressed_size
            damaged[column.data_page_offset : end] = b"\xff" * column.total_compressed_size
    file.write_bytes(damaged)
    with pytest.raises(OSError, match="Couldn't deserialize"):
        pd.read_parquet(file)
    assert_same(load_preferences(file), sample())


def test_a_reader_can_check_the_returns_by_the_checksum_of_their_page(file: Path):
    raw, value = file.read_bytes(), np.float64(1.5).tobytes()
    table = pq.read_table(file, columns=["return_1"])
    assert table["return_1"][0].as_py() == np.frombuffer(value)[0]
    column = next(
        part
        for i in range(10)
        if (part := pq.read_metadata(file).row_group(0).column(i)).path_in_schema == "return_1"
    )
    last = column.data_page_offset + column.total_compressed_size - 1
    file.write_bytes(raw[:last] + bytes([raw[last] ^ 1]) + raw[last + 1 :])
    with pytest.raises(OSError, match="CRC"):
        pd.read_parquet(file, page_checksum_verification=True)


# Damage


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    assert_refused(tmp_path / "nowhere.parquet", "there is no file")
    assert_refused(tmp_path, "there is no file")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"group,label\n1,1\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_not_parquet_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "a.parquet").write_bytes(content)
    assert_refused(tmp_path / "a.parquet", "is damaged, or not a Parquet file")


def test_a_foreign_table_is_refused(tmp_path: Path):
    pd.DataFrame({"label": [1, -1]}).to_parquet(tmp_path / "a.parquet")
    assert_refused(tmp_path / "a.parquet", "is not a file of preferences")


def test_a_truncated_file_is_refused(file: Path):
    whole = file.read_bytes()
    for length in range(0, len(whole), len(whole) // 50):
        file.write_bytes(whole[:length])
        assert_refused(file)


def test_a_flipped_bit_is_refused_or_changes_nothing(file: Path):
    whole = file.read_bytes()
    refused = 0
    for place in np.random.default_rng(0).integers(0, 8 * len(whole), 400):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        try:  # a bit of a return, say, or of the name of the program that wrote the file
            assert_same(load_preferences(file), sample())
        except UserError:
            assert_refused(file)
            refused += 1
    assert refused > 100


def rewrite(
    file: Path,
    change: Callable[[pa.Table], pa.Table] = lambda table: table,
    sign: bool = True,
    **described: object,
) -> None:
    """Change a file as somebody would who knows its format, with a checksum that fits (``sign``) or not."""
    table = pq.read_table(file)
    about = json.loads(table.schema.metadata[KEY]) | described
    table = change(table)
    if sign:
        about["sha256"] = checksum(about, table)
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(about)}), file)


def replaced(name: str, values: object, kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    """The table with other values (of the same type, or of ``kind``) in one column."""

    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        array = pa.array(values, type=kind or table.schema.field(name).type)
        return table.set_column(place, pa.field(name, array.type), array)

    return change


def numbers(file: Path, name: str) -> list[list[float]]:
    return pq.read_table(file)[name].to_pylist()


def test_rewriting_as_it_was_changes_nothing(file: Path):
    rewrite(file)
    assert_same(load_preferences(file), sample())


@pytest.mark.parametrize(
    "change",
    [
        replaced("label", [-1, -1, 0, 1]),
        replaced("group", [4, 5, 9, 4]),
        lambda table: table.slice(0, 3),
        lambda table: table.take([1, 0, 2, 3]),
    ],
)
def test_edited_contents_are_refused(change: Callable[[pa.Table], pa.Table], file: Path):
    rewrite(file, change, sign=False)
    assert_refused(file, "its contents do not match its checksum")


@pytest.mark.parametrize(
    "described", [{"task": "hopper-v5"}, {"about": {}}, {"segment": 6}, {"sha256": "0"}, {"extra": 1}]
)
def test_an_edited_description_is_refused(described: dict[str, object], file: Path):
    rewrite(file, sign=False, **described)
    assert_refused(file, "its contents do not match its checksum")


def test_another_format_is_refused(file: Path):
    rewrite(file, format=2)
    assert_refused(file, "has format 2; this version reads 1")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["obs_1", "obs_2", "actions_1", "actions_2"])
def test_numbers_that_are_not_finite_are_refused(name: str, value: float, file: Path):
    values = numbers(file, name)
    values[2][-1] = value
    rewrite(file, replaced(name, values))
    assert_refused(file, f"{name[:-2]} must be finite")


@pytest.mark.parametrize(
    ("change", "described", "message"),
    [
        (replaced("label", [1, 2, 0, 1]), {}, "label must be +1"),
        (replaced("label", [1, None, 0, 1]), {}, "column label is not of int8 without nulls"),
        (replaced("label", [1, 1, 0, 1], pa.int64()), {}, "column label is not of int8"),
        (replaced("group", [1.0, 1.0, 1.0, 1.0], pa.float64()), {}, "column group is not of int64"),
        (replaced("length_1", [0, 1, 1, 1]), {}, "a segment has 1 to 5 steps, got 0 to"),
        (replaced("length_2", [1, 6, 1, 1]), {}, "a segment has 1 to 5 steps, got 1 to 6"),
        (replaced("obs_1", [[1.0]] * 4), {}, "column obs_1 does not have 3 numbers for each step taken"),
        (replaced("actions_2", [[]] * 4), {}, "column actions_2 does not have 2 numbers"),
        (lambda table: table.slice(0, 0), {}, "obs is empty"),
        (lambda table: table, {"obs_dim": 4}, "column obs_1 does not have 4 numbers"),
        (lambda table: table, {"obs_dim": None}, "has invalid contents"),
        (lambda table: table, {"segment": 6}, "steps must be from 1 to 5"),
        (lambda table: table, {"judged": 3}, "a segment has 1 to 3 steps, got 1 to"),
    ],
)
def test_contents_of_another_shape_are_refused(
    change: Callable[[pa.Table], pa.Table], described: dict[str, object], message: str, file: Path
):
    rewrite(file, change, **described)
    assert_refused(file, message)


def test_a_missing_column_is_refused(file: Path):
    rewrite(file, lambda table: table.drop_columns(["actions_1"]), sign=False)
    assert_refused(file, "actions_1")


# Writing


def test_a_file_that_exists_is_left_alone(file: Path):
    before = file.read_bytes()
    with pytest.raises(UserError, match="exists already"):
        save_preferences(file, sample(), {})
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "about", "returns", "message"),
    [
        ("a.csv", {}, None, r"is called \*\.parquet, got '.*a\.csv'"),
        ("a", {}, None, r"is called \*\.parquet"),
        ("text/a.parquet", {}, None, r"cannot write into .*text: Not a directory"),
        ("a.parquet", {"path": Path()}, None, r"about must hold JSON values"),
        ("a.parquet", {"loss": np.nan}, None, r"about must hold JSON values"),
        ("a.parquet", {}, np.zeros((3, 2)), r"returns must be an array \(4, 2\), got shape \(3, 2\)"),
    ],
)
def test_what_cannot_be_written_is_refused(
    name: str, about: dict[str, object], returns: np.ndarray | None, message: str, tmp_path: Path
):
    (tmp_path / "text").write_text("in the way")
    with pytest.raises(UserError, match=message):
        save_preferences(tmp_path / name, sample(), about, returns)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_data_set_that_could_not_be_read_is_not_written(tmp_path: Path):
    data = sample()
    data.segments.obs[0, 0, 0] = np.nan
    with pytest.raises(UserError, match="obs must be finite"):
        save_preferences(tmp_path / "a.parquet", data, {})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_stops_in_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"^cannot write .*a\.parquet: No space left on device$"):
        save_preferences(tmp_path / "a.parquet", sample(), {})
    assert list(tmp_path.iterdir()) == []


# Importing


GOOD = {
    "obs": np.zeros((2, 2, 3, 4)),
    "actions": np.zeros((2, 2, 3, 1)),
    "label": [1, -1],
    "mask": np.array([[[1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 1, 0]]]),
    "group": [0, 0],
}


def test_lists_floats_and_booleans_will_do():
    plain = {name: np.asarray(value).tolist() for name, value in GOOD.items()}
    plain["mask"] = (GOOD["mask"] > 0).tolist()
    plain["label"] = [1.0, -1.0]
    plain["group"] = np.array([0, 0], dtype=np.uint8)
    assert_same(from_arrays(TASK, **plain), from_arrays(TASK, **GOOD))


def with_value(name: str, place: tuple[int, ...], value: float) -> np.ndarray:
    array = np.array(GOOD[name], dtype=float)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("obs", np.zeros((2, 3, 4)), r"obs must be an array (B, 2, L, O), got shape (2, 3, 4)"),
        ("obs", np.zeros((2, 3, 3, 4)), r"obs must be an array (B, 2, L, O), got shape (2, 3, 3, 4)"),
        ("obs", np.zeros((0, 2, 3, 4)), r"obs is empty: shape (0, 2, 3, 4)"),
        ("obs", np.zeros((2, 2, 3, 0)), r"obs is empty"),
        ("obs", [[1.0], [1.0, 2.0]], r"obs must be an array (B, 2, L, O): "),
        ("obs", np.full((2, 2, 3, 4), "1"), r"obs must hold numbers, got <U1"),
        ("obs", with_value("obs", (1, 0, 0, 0), np.nan), r"obs must be finite"),
        ("obs", with_value("obs", (0, 1, 2, 3), 1e39), r"obs must be finite (in 32 bits)"),
        ("actions", np.zeros((2, 2, 4, 1)), r"actions must be an array (2, 2, 3, A), got shape (2, 2, 4, 1)"),
        ("actions", np.zeros((1, 2, 3, 1)), r"actions must be an array (2, 2, 3, A)"),
        ("actions", np.zeros((2, 2, 3, 0)), r"actions is empty"),
        ("actions", with_value("actions", (0, 0, 1, 0), -np.inf), r"actions must be finite"),
        ("label", [1, 0, 1], r"label must be an array (2), got shape (3,)"),
        ("label", [1, 2], r"label must be +1 (first preferred), -1 (second preferred) or 0 (tie)"),
        ("label", [1, 0.5], r"label must be +1"),
        ("label", [1, np.nan], r"label must be +1"),
        ("label", [True, False], r"label must be +1"),
        ("label", [True, True], r"label must be +1"),
        ("label", [1, 0], r"label must be +1"),
        ("label", [0.0, 1.0], r"label must be +1"),
        ("steps", 2.5, r"steps must be a whole number or None, got 2.5"),
        ("steps", True, r"steps must be a whole number or None, got True"),
        ("steps", "2", r"steps must be a whole number or None, got '2'"),
        ("task", None, r"task must be the id of a task, such as 'halfcheetah-v5', got None"),
        ("task", "", r"task must be the id of a task"),
        ("actions", with_value("actions", (0, 0, 1, 0), 1e6), r"actions must be in policy units"),
        ("mask", np.ones((2, 3)), r"mask must be an array (2, 2, 3), got shape (2, 3)"),
        (
            "mask",
            with_value("mask", (0, 0, 0), 0.5),
            r"mask must be 1 where a step was taken and 0 elsewhere",
        ),
        ("mask", with_value("mask", (0, 1, 1), 0), r"mask must be 1 from the first step of each segment"),
        ("mask", with_value("mask", (1, 0, 0), 0), r"mask must be 1 from the first step of each segment"),
        ("group", [0], r"group must be an array (2), got shape (1,)"),
        ("group", [0.0, 1.0], r"group must hold whole numbers, got float64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(name: str, value: object, message: str):
    with pytest.raises(UserError) as refused:
        from_arrays(**(GOOD | {"task": TASK, name: value}))
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_two_values_of_a_label_are_refused_with_the_conversion_and_may_be_saved_with_ties(tmp_path: Path):
    with pytest.raises(UserError, match=r"convert y to 2 \* y - 1 if 1 means the first, or to 1 - 2 \* y"):
        from_arrays(TASK, **(GOOD | {"label": np.array([0.3, -0.2]) > 0}))
    data = from_arrays(TASK, **(GOOD | {"label": [1, -1]}))
    ties = replace(data, preferences=replace(data.preferences, label=np.array([1, 0], dtype=np.float32)))
    save_preferences(tmp_path / "ties.parquet", ties, {})  # from us, who know what they mean
    assert_same(load_preferences(tmp_path / "ties.parquet"), ties)
    assert from_arrays(TASK, **GOOD, steps=np.int64(2)).steps == 2


def test_data_of_a_registered_environment_are_trained_on_by_its_id():
    with pytest.raises(UserError, match=r"choose env=gymnasium env\.id=InvertedPendulum-v5"):
        check_fits(replace(sample(), task="InvertedPendulum-v5"), spec())


def test_arrays_are_copied():
    obs = np.ones((1, 2, 3, 4), dtype=np.float32)
    data = from_arrays(TASK, obs, obs, [1], np.array([[[1, 1, 0], [1, 1, 1]]]))
    assert obs.all(), "the caller's array was changed"
    obs[:] = 7
    assert (data.segments.obs <= 1).all()


# Fitting a task


def spec(task: str = TASK, obs_dim: int = 3, act_dim: int = 2) -> EnvSpec:
    return EnvSpec(task, obs_dim, act_dim, -np.ones(act_dim), np.ones(act_dim), 50, 0.02)


def test_a_data_set_fits_its_own_task():
    check_fits(sample(), spec())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (spec("hopper-v5"), f"for {TASK}, not hopper-v5; choose env={TASK}"),
        (spec(obs_dim=4), f"observations of 3 numbers; those of {TASK} have 4"),
        (spec(act_dim=1), f"actions of 2 numbers; those of {TASK} have 1"),
    ],
)
def test_a_data_set_of_another_task_is_refused(other: EnvSpec, message: str):
    with pytest.raises(UserError, match=message):
        check_fits(sample(), other)


# From Python


def test_it_is_there_for_users_without_importing_torch_or_anything_before_use():
    code = (
        "import sys, sailctl\n"
        "assert 'numpy' not in sys.modules\n"
        "data = sailctl.from_arrays('reacher-v5', [[[[1]], [[2]]]], [[[[0]], [[0]]]], [1])\n"
        "assert isinstance(data, sailctl.PreferenceData)\n"
        "assert callable(sailctl.load_preferences) and callable(sailctl.save_preferences)\n"
        "assert 'torch' not in sys.modules\n"
        "assert set(sailctl.__all__) <= set(dir(sailctl))\n"
        "from sailctl import *\n"
        "assert callable(load_policy)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wrong_name_is_an_attribute_error():
    name = "load_prefs"
    with pytest.raises(AttributeError, match="module 'sailctl' has no attribute 'load_prefs'"):
        getattr(sailctl, name)
