"""Data sets of preferences: one Parquet file, lossless, with a checksum, without pickle.

Each row is an answered pair. ``group``, ``label`` and the numbers of steps (``length_1``, ``length_2``) are
integers. ``obs_1``, ``obs_2``, ``actions_1`` and ``actions_2`` are flat lists over all judged steps: T * O
numbers for the observations of T steps, T * A for the actions. ``return_1`` and ``return_2`` are true returns
for information only; no learner reads them. The schema's metadata describe the file in JSON, under the key
``sailctl``.
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

LARGEST_ACTION = 100.0  # largest plausible action, in policy units: 1 is a bound of the controls

FORMAT = 1
"""Version of the file format; increased when older versions of sailctl cannot read new files."""
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
"""Columns of a data set, with their types; none contains nulls."""
RETURNS = {"return_1": pa.float64(), "return_2": pa.float64()}
"""Additional columns for information; null for an unknown return."""


# Writing


def save_preferences(
    path: str | Path,
    data: PreferenceData,
    about: Mapping[str, object],
    returns: DoubleArray | None = None,
) -> None:
    """Write ``data`` atomically to a new file, without masked steps.

    Args:
        path: file to create, ``*.parquet``; missing folders are created.
        data: B answered pairs.
        about: origin of the data, as JSON values.
        returns: (B, 2) true returns of the judged windows, for information; NaN for an unknown one, None if
            all are unknown.

    Raises:
        UserError: when the file exists or cannot be created, or ``data`` is invalid (see ``from_arrays``).
        RunError: when writing fails, for example on a full disk; no file is left.
    """
    path = Path(path)
    check_new(path)
    data = _checked(data)
    table = _table(data, np.full((len(data), 2), np.nan) if returns is None else returns)
    description = _describe(data, about)
    description["sha256"] = checksum(description, table)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({KEY: json.dumps(description).encode()}),
        sink,
        compression="zstd",
        # Simulated numbers rarely repeat: a dictionary would cost space, splitting the bytes saves some.
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
    """Check that ``save_preferences`` can create a file.

    Raises:
        UserError: when the suffix is wrong, the file exists, or the folder is not writable.
    """
    if path.suffix != ".parquet":
        raise UserError(f"a file of preferences is called *.parquet, got '{path}'")
    if path.exists():
        raise UserError(f"{path} exists already; choose another name, or remove it")
    check_writable(path.parent)


def checksum(description: Mapping[str, Any], table: pa.Table) -> str:
    """SHA-256 of the description (without ``sha256``) and of the columns of ``CONTENT``."""
    hashed = {key: value for key, value in description.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode())
    for name in CONTENT:
        digest.update(np.ascontiguousarray(_values(table, name)).data)
    return digest.hexdigest()


def _describe(data: PreferenceData, about: Mapping[str, object]) -> dict[str, Any]:
    segments = data.segments
    try:
        origin = json.loads(json.dumps(dict(about), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"about must hold JSON values: {error}") from error
    return {
        "format": FORMAT,
        "task": data.task,
        "obs_dim": segments.obs.shape[-1],
        "act_dim": segments.actions.shape[-1],
        "segment": data.steps,
        "judged": segments.mask.shape[-1],
        "about": origin,
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
    fields += [pa.field(name, kind) for name, kind in RETURNS.items()]
    return pa.table(columns, schema=pa.schema(fields))


def _lists(steps: FloatArray, lengths: IntArray) -> pa.Array:
    """One list per segment from the steps (N, W) of all segments, which have ``lengths`` (B,) steps."""
    ends = steps.shape[1] * np.concatenate([[0], np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(ends), pa.array(steps.ravel()), type=NUMBERS)


# Reading


def load_preferences(path: str | Path) -> PreferenceData:
    """Read the data set that ``save_preferences`` wrote, bit for bit, without the returns.

    Raises:
        UserError: when the file is missing, is damaged, has another format, or contains no preferences.
    """
    description, table = _read(Path(path))
    try:
        return _from_table(description, table)
    except (UserError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} has invalid contents: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], pa.Table]:
    """The description and the columns of ``CONTENT``; verifies the checksum."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; `sailctl collect` makes files of preferences")
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if KEY not in metadata:
                raise UserError(f"{path} is not a file of preferences; sailctl.save_preferences writes them")
            description: dict[str, Any] = json.loads(metadata[KEY])
            if description["format"] != FORMAT:
                raise UserError(f"{path} has format {description['format']}; this version reads {FORMAT}")
            table = file.read(columns=list(CONTENT))
        if description["sha256"] != checksum(description, table):
            raise ValueError("its contents do not match its checksum")
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged, or not a Parquet file: {reason}") from error
    return description, table


def _from_table(description: Mapping[str, Any], table: pa.Table) -> PreferenceData:
    for name, kind in CONTENT.items():
        if table.schema.field(name).type != kind or table[name].null_count:
            raise UserError(f"column {name} is not of {kind} without nulls")
    lengths = np.stack([_values(table, "length_1"), _values(table, "length_2")], axis=1)
    steps = int(description["judged"])
    if not ((lengths >= 1) & (lengths <= steps)).all():
        raise UserError(f"a segment has 1 to {steps} steps, got {lengths.min()} to {lengths.max()}")
    mask = np.arange(steps) < lengths[..., None]
    return assemble(
        str(description["task"]),
        _steps(table, "obs", mask, int(description["obs_dim"])),
        _steps(table, "actions", mask, int(description["act_dim"])),
        _values(table, "label"),
        mask,
        _values(table, "group"),
        int(description["segment"]),
    )


def _steps(table: pa.Table, name: str, mask: BoolArray, width: int) -> FloatArray:
    """(B, 2, L, W) the steps of both segments; 0 where ``mask`` (B, 2, L) is 0."""
    array = np.zeros((*mask.shape, width), dtype=np.float32)
    for side in (0, 1):
        column, taken = f"{name}_{side + 1}", mask[:, side]
        sizes = pc.list_value_length(table[column]).to_numpy()
        if not np.array_equal(sizes, width * taken.sum(axis=1)):
            raise UserError(f"column {column} does not have {width} numbers for each step taken")
        array[:, side][taken] = _values(table, column).reshape(-1, width)
    return array


def _values(table: pa.Table, name: str) -> NDArray[Any]:
    """The numbers of a column; lists are concatenated."""
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
    """A data set from the user's arrays. Values where ``mask`` is 0 are ignored.

    Args:
        task: id of the task, such as ``halfcheetah-v5``.
        obs: (B, 2, L, O) raw observations before each action, of the first and the second segment.
        actions: (B, 2, L, A) actions in policy units: -1 and +1 are the bounds of the controls.
        label: (B,) +1 first preferred, -1 second preferred, 0 tie.
        mask: (B, 2, L) 1 for executed steps, 0 after the end of the segment; None if all were executed.
        group: (B,) integers, equal for pairs that share a segment; None if no pairs do.
        steps: H, the number of first steps in the log-probability of a segment; None for all L steps.

    Raises:
        UserError: one line with the name of the array and the problem.
    """
    data = assemble(task, obs, actions, label, mask, group, steps)
    labels = np.asarray(label)
    if labels.dtype.kind == "b" or set(labels.tolist()) == {0, 1}:
        raise UserError(
            "label must be +1 (first preferred), -1 (second preferred) or 0 (tie), but has only 0 and 1: "
            "convert y to 2 * y - 1 if 1 means the first, or to 1 - 2 * y if 1 means the second"
        )
    if (largest := float(np.abs(data.segments.actions).max())) > LARGEST_ACTION:
        raise UserError(
            f"actions must be in policy units, -1 to +1 over the range of the controls, got {largest:g}; "
            "convert controls u between low and high to 2 * (u - low) / (high - low) - 1"
        )
    return data


def assemble(
    task: str,
    obs: ArrayLike,
    actions: ArrayLike,
    label: ArrayLike,
    mask: ArrayLike | None,
    group: ArrayLike | None,
    steps: int | None,
) -> PreferenceData:
    """Like ``from_arrays``, without its checks of plausible labels and actions, for sailctl's own data."""
    if not (isinstance(task, str) and task):
        raise UserError(f"task must be the id of a task, such as 'halfcheetah-v5', got {task!r}")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int | np.integer)):
        raise UserError(f"steps must be a whole number or None, got {steps!r}")
    observations = _array("obs", obs, "B, 2, L, O", (None, 2, None, None))
    pairs, _, judged, _ = observations.shape
    all_actions = _array("actions", actions, "B, 2, L, A", (pairs, 2, judged, None))
    labels = _array("label", label, "B", (pairs,))
    every_step = np.ones((pairs, 2, judged))
    masks = _array("mask", every_step if mask is None else mask, "B, 2, L", every_step.shape)
    groups = _array("group", np.arange(pairs) if group is None else group, "B", (pairs,))
    if not np.isin(labels, (-1, 0, 1)).all():
        raise UserError("label must be +1 (first preferred), -1 (second preferred) or 0 (tie)")
    if groups.dtype.kind not in "iu":
        raise UserError(f"group must hold whole numbers, got {groups.dtype}")
    if not np.isin(masks, (0, 1)).all():
        raise UserError("mask must be 1 where a step was taken and 0 elsewhere")
    if not masks[..., 0].all() or (masks[..., 1:] > masks[..., :-1]).any():
        raise UserError("mask must be 1 from the first step of each segment to its last, then 0 to the end")
    learned_steps = judged if steps is None else int(steps)
    if not 1 <= learned_steps <= judged:
        raise UserError(f"steps must be from 1 to {judged}, the steps of a segment, got {learned_steps}")
    taken = masks.reshape(2 * pairs, judged) > 0
    first = 2 * np.arange(pairs)
    return PreferenceData(
        task,
        SegmentBatch(
            _taken_steps("obs", observations, taken),
            _taken_steps("actions", all_actions, taken),
            taken.astype(np.float32),
            forks=2,
        ),
        Preferences(
            Pairs(first, first + 1, groups.astype(np.int64)), labels.astype(np.int8).astype(np.float32)
        ),
        learned_steps,
    )


def check_fits(data: PreferenceData, spec: EnvSpec) -> None:
    """Check that a data set is for the task of ``spec``.

    Raises:
        UserError: when the task id, or the size of an observation or an action, differs.
    """
    if data.task != spec.id:
        choice = "env=" if data.task in known_tasks() else "env=gymnasium env.id="
        raise UserError(f"these preferences are for {data.task}, not {spec.id}; choose {choice}{data.task}")
    for name, array, size in (
        ("observations", data.segments.obs, spec.obs_dim),
        ("actions", data.segments.actions, spec.act_dim),
    ):
        if array.shape[-1] != size:
            raise UserError(
                f"these preferences have {name} of {array.shape[-1]} numbers; those of {spec.id} have {size}"
            )


def _checked(data: PreferenceData) -> PreferenceData:
    """``data`` after the checks of ``assemble``, so that every written file can be read."""
    segments, answers = data.segments, data.preferences
    obs, actions, mask = (
        array.reshape(len(data), 2, *array.shape[1:])
        for array in (segments.obs, segments.actions, segments.mask)
    )
    return assemble(data.task, obs, actions, answers.label, mask, answers.pairs.group, data.steps)


def _array(name: str, value: ArrayLike, letters: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """``value`` as an array of numbers, after a check of its shape (None for any size above 0)."""
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
    """(2 B, L, W) the steps of ``array`` (B, 2, L, W); 0 for masked steps."""
    with np.errstate(over="ignore"):  # numbers too large for 32 bits become infinite, which is an error
        steps = array.reshape(*taken.shape, -1).astype(np.float32)
    steps[~taken] = 0.0
    if not np.isfinite(steps).all():
        raise UserError(f"{name} must be finite (in 32 bits) wherever a step was taken")
    return steps
