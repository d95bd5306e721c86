"""Writes what a benchmark measured: a tidy CSV and, beside it, a JSON record of how it was made."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from sailctl.core.files import write_atomically
from sailctl.runs.provenance import provenance

STARTED = datetime.now(UTC).isoformat(timespec="seconds")
RESULTS = Path(__file__).resolve().parent.parent / "results"

Row = dict[str, object]
"""A row of a table, by column."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the option that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write the CSV and JSON into")
    return parser


def write(folder: Path, name: str, rows: Sequence[Mapping[str, object]], about: Mapping[str, object]) -> None:
    """Write ``name.csv`` and ``name.json`` into ``folder`` and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    record = {**about, **provenance(["python", *sys.orig_argv[1:]])}
    record["started"] = STARTED
    record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_atomically(folder / f"{name}.json", json.dumps(record, indent=2) + "\n")
    print(table.to_string(index=False))
    print(f"written: {folder / name}.csv, {folder / name}.json")
