"""Data sets of answered pairs: one Parquet file, exact to the bit, checked when it is read, no pickle.

One row is one answered pair. ``group``, ``label`` and the steps taken (``length_1``, ``length_2``) are
whole numbers; ``obs_1``, ``obs_2``, ``actions_1`` and ``actions_2`` are flat lists of all steps that were
judged, one after the other: T * O numbers of observations for T steps, T * A of actions. ``return_1`` and
``return_2`` are for people; nothing that learns reads them. The schema's metadata describe the file in
JSON, under the key ``sailctl``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from sailctl.core.files import check_writable, write_atomically
from sailctl.core.tasks import known_tasks
from sailctl.core.types import (
    BoolArray,
    DoubleArray,
    EnvSpec,
    FloatArray,
    IntArray,
    Pairs,
    PreferenceData,
    Preferences,
    RunError,
    SegmentBatch,
    UserError,
)

LARGEST_ACTION = 100.0  # in policy units, where 1 is an end of the actuators' range

FORMAT = 1
"""Version of the file format, raised when a reader of the old one could not read the new one."""
KEY = b"sailctl"
"""Key of the schema's metadata that holds the description of the file."""

NUMBERS = pa.large_list(pa.field("element", pa.float32(), nullable=False))
CONTENT = {
    "group": pa.int64(),
    "label": pa.int8(),
    "length_1": pa.int64(),
    "length_2": pa.int64(),
    "obs_1": NUMBERS,
    "obs_2": NUMBERS,
    "actions_1": NUMBERS,
    "actions_2": NUMBERS,
}
"""Columns that make a data set, with their types; there is no null in them."""
FOR_PEOPLE = {"return_1": pa.float64(), "return_2": pa.float64()}
"""Columns beside them, null where a return is not known."""


# Writing


def save_preferences(
    path: str | Path,
    data: PreferenceData,
    about: Mapping[str, object],
    returns: DoubleArray | None = None,
) -> None:
    """Write ``data`` into a new file, whole or not at all. Steps that were not taken are left out.

    Args:
        path: file to make, ``*.parquet``; missing folders are made.
        data: B answered pairs.
        about: where they come from, as JSON values.
        returns: (B, 2) true returns of the judged windows, for people; NaN, or None at all, is unknown.

    Raises:
        UserError: when the file exists or cannot be made, or ``data`` is not what ``from_arrays`` allows.
        RunError: when writing breaks off, as on a full disk; no file is left.
    """
    path = Path(path)
    check_new(path)
    data = _checked(data)
    table = _table(data, np.full((len(data), 2), np.nan) if returns is None else returns)
    described = _describe(data, about)
    described["sha256"] = checksum(described, table)
    metadata = {KEY: json.dumps(described).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        # Simulated numbers hardly repeat: dictionaries would cost space, splitting bytes saves some.
        use_dictionary=False,
        use_byte_stream_split=True,
        write_page_checksum=True,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, sink.getvalue().to_pybytes())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


def check_new(path: Path) -> None:
    """Refuse a place where ``save_preferences`` could not make a file.

    Raises:
        UserError: for another suffix, a file that exists, or a folder that cannot be written.
    """
    if path.suffix != ".parquet":
        raise UserError(f"a file of preferences is called *.parquet, got '{path}'")
    if path.exists():
        raise UserError(f"{path} exists already; choose another name, or remove it")
    check_writable(path.parent)


def checksum(described: Mapping[str, Any], table: pa.Table) -> str:
    """SHA-256 of the description (its ``sha256`` left out) and of the columns of ``CONTENT``."""
    own = {key: value for key, value in described.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for name in CONTENT:
        digest.update(np.ascontiguousarray(_values(table, name)).data)
    return digest.hexdigest()


def _describe(data: PreferenceData, about: Mapping[str, object]) -> dict[str, Any]:
    segments = data.segments
    try:
        plain = json.loads(json.dumps(dict(about), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"about must hold JSON values: {error}") from error
    return {
        "format": FORMAT,
        "task": data.task,
        "obs_dim": segments.obs.shape[-1],
        "act_dim": segments.actions.shape[-1],
        "segment": data.steps,
        "judged": segments.mask.shape[-1],
        "about": plain,
    }


def _table(data: PreferenceData, returns: DoubleArray) -> pa.Table:
    if returns.shape != (len(data), 2):
        raise UserError(f"returns must be an array ({len(data)}, 2), got shape {returns.shape}")
    segments, preferences = data.segments, data.preferences
    columns = {
        "group": pa.array(preferences.pairs.group),
        "label": pa.array(preferences.label.astype(np.int8)),
    }
    for side in (0, 1):
        taken = segments.mask[side::2] > 0
        lengths = taken.sum(axis=1)
        columns |= {
            f"length_{side + 1}": pa.array(lengths),
            f"obs_{side + 1}": _lists(segments.obs[side::2][taken], lengths),
            f"actions_{side + 1}": _lists(segments.actions[side::2][taken], lengths),
            f"return_{side + 1}": pa.array(returns[:, side], from_pandas=True),
        }
    fields = [pa.field(name, kind, nullable=False) for name, kind in CONTENT.items()]
    fields += [pa.field(name, kind) for name, kind in FOR_PEOPLE.items()]
    return pa.table(columns, schema=pa.schema(fields))


def _lists(steps: FloatArray, lengths: IntArray) -> pa.Array:
    """One list for each segment out of the steps (N, W) of all of them, ``lengths`` (B,) steps in each."""
    ends = steps.shape[1] * np.concatenate([[0], np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(ends), pa.array(steps.ravel()), type=NUMBERS)


# Reading


def load_preferences(path: str | Path) -> PreferenceData:
    """The data set in a file that ``save_preferences`` wrote, bit for bit; its returns are not read.

    Raises:
        UserError: when there is no such file, it is damaged or of another format, or no file of preferences.
    """
    described, table = _read(Path(path))
    try:
        return _from_table(described, table)
    except (UserError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not hold what it should: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], pa.Table]:
    """The description and the columns of ``CONTENT``, with the checksum they were written with."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; `sailctl collect` makes files of preferences")
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if KEY not in metadata:
                raise UserError(f"{path} is not a file of preferences; sailctl.save_preferences writes them")
            described: dict[str, Any] = json.loads(metadata[KEY])
            if described["format"] != FORMAT:
                raise UserError(f"{path} has format {described['format']}; this version reads {FORMAT}")
            table = file.read(columns=list(CONTENT))
        if described["sha256"] != checksum(described, table):
            raise ValueError("its contents do not match its checksum")
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no whole Parquet file, or damaged: {reason}") from error
    return described, table


def _from_table(described: Mapping[str, Any], table: pa.Table) -> PreferenceData:
    for name, kind in CONTENT.items():
        if table.schema.field(name).type != kind or table[name].null_count:
            raise UserError(f"column {name} is not of {kind} without nulls")
    lengths = np.stack([_values(table, "length_1"), _values(table, "length_2")], axis=1)
    steps = int(described["judged"])
    if not ((lengths >= 1) & (lengths <= steps)).all():
        raise UserError(f"a segment has 1 to {steps} steps, got {lengths.min()} to {lengths.max()}")
    mask = np.arange(steps) < lengths[..., None]
    return assemble(
        str(described["task"]),
        _steps(table, "obs", mask, int(described["obs_dim"])),
        _steps(table, "actions", mask, int(described["act_dim"])),
        _values(table, "label"),
        mask,
        _values(table, "group"),
        int(described["segment"]),
    )


def _steps(table: pa.Table, name: str, mask: BoolArray, width: int) -> FloatArray:
    """(B, 2, L, W) the lists of both segments; 0 where ``mask`` (B, 2, L) says that no step was taken."""
    array = np.zeros((*mask.shape, width), dtype=np.float32)
    for side in (0, 1):
        column, taken = f"{name}_{side + 1}", mask[:, side]
        sizes = pc.list_value_length(table[column]).to_numpy()
        if not np.array_equal(sizes, width * taken.sum(axis=1)):
            raise UserError(f"column {column} does not have {width} numbers for each step taken")
        array[:, side][taken] = _values(table, column).reshape(-1, width)
    return array


def _values(table: pa.Table, name: str) -> NDArray[Any]:
    """The numbers of a column, those of all its lists one after the other."""
    column = table[name]
    values: NDArray[Any] = (pc.list_flatten(column) if CONTENT[name] == NUMBERS else column).to_numpy()
    return values


# Checking


def from_arrays(
    task: str,
    obs: ArrayLike,
    actions: ArrayLike,
    label: ArrayLike,
    mask: ArrayLike | None = None,
    group: ArrayLike | None = None,
    steps: int | None = None,
) -> PreferenceData:
    """A data set out of arrays from elsewhere. What they hold where ``mask`` is 0 is not looked at.

    Args:
        task: id of the task, such as ``halfcheetah-v5``.
        obs: (B, 2, L, O) raw observations before each action, of the first and the second segment.
        actions: (B, 2, L, A) actions in policy units: -1 and +1 are the ends of the actuators' range.
        label: (B,) +1 first preferred, -1 second preferred, 0 tie.
        mask: (B, 2, L) 1 where a step was taken, 0 after the segment's end; None when all were taken.
        group: (B,) whole numbers, equal for pairs that share a segment; None when no pairs do.
        steps: H, the first steps, whose log-probabilities count; None is all L that were judged.

    Raises:
        UserError: one line that names the array and what is wrong with it.
    """
    made = assemble(task, obs, actions, label, mask, group, steps)
    given = np.asarray(label)
    if given.dtype.kind == "b" or set(given.tolist()) == {0, 1}:
        raise UserError(
            "label must be +1 (first preferred), -1 (second preferred) or 0 (tie), not one of two values: "
            "of 0 and 1 make 2 * y - 1 where 1 means the first, 1 - 2 * y where 1 means the second"
        )
    if (largest := float(np.abs(made.segments.actions).max())) > LARGEST_ACTION:
        raise UserError(
            f"actions must be in policy units, -1 to +1 over the actuators' range, got {largest:g}; "
            "for controls u between low and high they are 2 * (u - low) / (high - low) - 1"
        )
    return made


def assemble(
    task: str,
    obs: ArrayLike,
    actions: ArrayLike,
    label: ArrayLike,
    mask: ArrayLike | None,
    group: ArrayLike | None,
    steps: int | None,
) -> PreferenceData:
    """As ``from_arrays``, for numbers that are known to be ours: any labels and actions will do."""
    if not (isinstance(task, str) and task):
        raise UserError(f"task must be the id of a task, such as 'halfcheetah-v5', got {task!r}")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int | np.integer)):
        raise UserError(f"steps must be a whole number or None, got {steps!r}")
    observations = _array("obs", obs, "B, 2, L, O", (None, 2, None, None))
    pairs, _, judged, _ = observations.shape
    acts = _array("actions", actions, "B, 2, L, A", (pairs, 2, judged, None))
    labels = _array("label", label, "B", (pairs,))
    marks = _array(
        "mask", np.ones((pairs, 2, judged)) if mask is None else mask, "B, 2, L", (pairs, 2, judged)
    )
    groups = _array("group", np.arange(pairs) if group is None else group, "B", (pairs,))
    if not np.isin(labels, (-1, 0, 1)).all():
        raise UserError("label must be +1 (first preferred), -1 (second preferred) or 0 (tie)")
    if groups.dtype.kind not in "iu":
        raise UserError(f"group must hold whole numbers, got {groups.dtype}")
    if not np.isin(marks, (0, 1)).all():
        raise UserError("mask must be 1 where a step was taken and 0 elsewhere")
    if not marks[..., 0].all() or (marks[..., 1:] > marks[..., :-1]).any():
        raise UserError("mask must be 1 from the first step of each segment to its last, then 0 to the end")
    counted = judged if steps is None else int(steps)
    if not 1 <= counted <= judged:
        raise UserError(f"steps must be from 1 to {judged}, the steps of a segment, got {counted}")
    taken = marks.reshape(2 * pairs, judged) > 0
    first = 2 * np.arange(pairs)
    return PreferenceData(
        task,
        SegmentBatch(
            _taken_steps("obs", observations, taken),
            _taken_steps("actions", acts, taken),
            taken.astype(np.float32),
            forks=2,
        ),
        Preferences(
            Pairs(first, first + 1, groups.astype(np.int64)), labels.astype(np.int8).astype(np.float32)
        ),
        counted,
    )


def check_fits(data: PreferenceData, spec: EnvSpec) -> None:
    """Refuse a data set of another task.

    Raises:
        UserError: when the task's id differs, or the size of an observation or an action.
    """
    if data.task != spec.id:
        choice = "env=" if data.task in known_tasks() else "env=gymnasium env.id="
        raise UserError(f"these preferences are of {data.task}, not of {spec.id}; choose {choice}{data.task}")
    for name, array, size in (
        ("observations", data.segments.obs, spec.obs_dim),
        ("actions", data.segments.actions, spec.act_dim),
    ):
        if array.shape[-1] != size:
            raise UserError(
                f"these preferences have {name} of {array.shape[-1]} numbers, those of {spec.id} have {size}"
            )


def _checked(data: PreferenceData) -> PreferenceData:
    """``data`` anew through ``from_arrays``, so that nothing is written that could not be read."""
    segments, answers = data.segments, data.preferences
    obs, actions, mask = (
        array.reshape(len(data), 2, *array.shape[1:])
        for array in (segments.obs, segments.actions, segments.mask)
    )
    return assemble(data.task, obs, actions, answers.label, mask, answers.pairs.group, data.steps)


def _array(name: str, value: ArrayLike, letters: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """``value`` as an array of numbers of the given shape (None: any size but 0)."""
    try:
        array: NDArray[Any] = np.asarray(value)
    except ValueError as error:
        raise UserError(f"{name} must be an array ({letters}): {error}") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{name} must hold numbers, got {array.dtype}")
    expected = ", ".join(
        letter if size is None else str(size) for letter, size in zip(letters.split(", "), shape, strict=True)
    )
    fits = array.ndim == len(shape) and all(
        size in (None, got) for size, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise UserError(f"{name} must be an array ({expected}), got shape {array.shape}")
    if array.size == 0:
        raise UserError(f"{name} is empty: shape {array.shape}")
    return array


def _taken_steps(name: str, array: NDArray[Any], taken: BoolArray) -> FloatArray:
    """(2 B, L, W) the steps of ``array`` (B, 2, L, W) that were taken, and 0 elsewhere."""
    with np.errstate(over="ignore"):  # what is too large for 32 bits becomes infinite, and is refused
        steps = array.reshape(*taken.shape, -1).astype(np.float32)
    steps[~taken] = 0.0
    if not np.isfinite(steps).all():
        raise UserError(f"{name} must be finite (in 32 bits) wherever a step was taken")
    return steps
