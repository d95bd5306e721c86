"""Which code makes the numbers of a run, as a hash: comments, docstrings and layout have no part in it."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sailctl.config.places import PACKAGE

ROOMS = (
    "seeding",
    "simulator",
    "policy",
    "rollout",
    "oracle",
    "objectives",
    "data",
    "buffers",
    "reward",
    "foresight",
    "queries",
    "labelling",
    "sources",
    "learner",
    "critic",
    "actor",
    "evaluate",
    "vecenv",
    "stopping",
    "algorithms",
    "train",
)
"""Rooms that a number of a run passes through: all up to the learner, and what trains."""


@cache
def code_version() -> str:
    """A hash of the code of ``ROOMS`` and of the tasks, as this version of Python reads it."""
    found = hashlib.sha256()
    for folder, file in _sources():
        found.update(file.relative_to(folder).as_posix().encode())
        found.update(code_of(file.read_text(encoding="utf-8")).encode())
    return found.hexdigest()


def code_of(source: str) -> str:
    """What of a source is code: two that differ in comments, docstrings and layout alone give the same."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, name, None), list):
                setattr(node, name, [one for one in statements if not _is_text(one)])
    return ast.dump(tree)


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a text by itself, as docstrings are."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _sources() -> list[tuple[Path, Path]]:
    """Each file, with the folder that its name is told from."""
    envs = find_spec("sailctl_envs")
    assert envs is not None
    assert envs.origin is not None
    tasks = Path(envs.origin).parent
    places = [(PACKAGE, place) for room in ROOMS for place in (PACKAGE / room, PACKAGE / f"{room}.py")]
    places.append((tasks.parent, tasks))
    files = [
        (folder, file)
        for folder, place in places
        for file in (*sorted(place.rglob("*.py")), place)
        if file.suffix
    ]
    return [(folder, file) for folder, file in files if file.is_file()]
