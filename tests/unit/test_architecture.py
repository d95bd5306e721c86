"""The rooms of ``sailctl`` form one line; an import may point left along it, never right."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sailctl.config.code import ROOMS, code_of, code_version

PACKAGE = Path(__file__).parents[2] / "sailctl"
TASKS = Path(__file__).parents[2] / "envs" / "sailctl_envs"

SHARED = {
    "types": set(),
    "seeding": set(),
    "terminal": set(),
    "files": {"types"},
    "state": set(),
    "tasks": {"types", "sailctl_envs"},
    "config": {"types", "files", "tasks"},
}
"""Rooms that everybody may import, and what they may import themselves."""

LINE = (
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
    "checkpoint",
    "claims",
    "wandb_mirror",
    "logger",
    "provenance",
    "results",
    "recorder",
    "references",
    "statistics",
    "foreign",
    "saved",
    "evidence",
    "trials",
    "arms",
    "scores",
    "contrasts",
    "compare",
    "sequential",
    "figures",
    "report",
)
"""Rooms in the order in which data flow; each may import the rooms before it."""

TOP = {
    "video": set(),
    "evaluate": {"video"},
    "speed": set(),
    "listing": {"speed"},
    "doctor": {"speed", "video"},
    "vecenv": set(),
    "stopping": set(),
    "algorithms": {"vecenv"},
    "train": {"algorithms", "evaluate", "stopping"},
    "collect": {"algorithms"},
    "schooling": {"evaluate", "train"},
    "compose": set(),
    "outcomes": set(),
    "sweeps": {"outcomes"},
    "standing": {"stopping"},
    "cluster": {"outcomes", "stopping"},
    "launch": {"cluster", "compose", "outcomes", "standing", "stopping", "sweeps", "train"},
    "summary": set(),
    "golden": {"compose", "train", "collect"},
    "ranksum": set(),
    "baselines": set(),
    "regress": {"compose", "train", "golden", "baselines", "ranksum"},
    "usage": set(),
    "parser": set(),
    "comparing": {"usage", "parser", "summary"},
    "cli": {
        "usage",
        "parser",
        "comparing",
        "baselines",
        "compose",
        "sweeps",
        "launch",
        "evaluate",
        "video",
        "collect",
        "summary",
        "regress",
        "schooling",
        "listing",
        "doctor",
    },
    "__init__": set(),
    "__main__": {"cli"},
}
"""What sits on the line: each may import the whole line, and of the top only what is named here."""

LOOPS = ("train", "algorithms", "evaluate", "vecenv", "stopping")
"""Rooms of the top that a number of a run passes through."""

HEAVY = ("torch", "mujoco", "wandb", "matplotlib", "pandas", "pyarrow", "stable_baselines3")


def allowed(room: str) -> set[str]:
    """Rooms that ``room`` may import beside itself."""
    if room in SHARED:
        return SHARED[room]
    everybody = {*SHARED, "sailctl_envs"}
    if room in LINE:
        return {*everybody, *LINE[: LINE.index(room)]}
    return {*everybody, *LINE, *TOP[room]}


def room_of(file: Path, package: Path) -> str:
    """The room a file belongs to: its own name, or that of the folder directly under the package."""
    return file.relative_to(package).parts[0].removesuffix(".py")


def imported_rooms(file: Path, package: Path) -> list[tuple[int, str]]:
    """Line and room of every import of ours in ``file``, wherever in the file it stands."""
    rooms = {room_of(path, package) for path in package.rglob("*.py")}
    folder = (package.name, *file.relative_to(package).parts[:-1])
    found: list[tuple[int, str]] = []

    def add(line: int, module: str, names: tuple[str, ...] = ()) -> None:
        parts = module.split(".")
        if parts[0] == "sailctl_envs":
            found.append((line, "sailctl_envs"))
        elif parts[0] == package.name and len(parts) > 1:
            found.append((line, parts[1]))
        elif parts == [package.name]:
            found.extend(
                (line, name if name in rooms else "__init__") for name in names if name != "__version__"
            )

    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    add(node.lineno, alias.name)
                    if alias.name == package.name:
                        for line, used in attributes_of(alias.asname or alias.name, tree):
                            add(line, package.name, (used,))
            case ast.ImportFrom(module=module, names=names, level=level):
                base = folder[: len(folder) - level + 1] if level else ()
                full = ".".join([*base, *([module] if module else [])])
                add(node.lineno, full, tuple(alias.name for alias in names))
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                add(node.lineno, name, ("*",))
    return found


def attributes_of(name: str, tree: ast.Module) -> list[tuple[int, str]]:
    """Line and attribute of every ``name.attribute`` in ``tree``."""
    return [
        (node.lineno, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    ]


def wrong_arrows(package: Path) -> list[str]:
    """One sentence for each import that points right, and for each file that no room was given."""
    complaints = []
    for file in sorted(package.rglob("*.py")):
        room = room_of(file, package)
        where = file.relative_to(package)
        if room not in {*SHARED, *LINE, *TOP}:
            complaints.append(f"{where} is in no room: give it a place in tests/unit/test_architecture.py")
            continue
        complaints += [
            f"{where}:{line}: {room} may not import {other}"
            for line, other in imported_rooms(file, package)
            if other != room and other not in allowed(room)
        ]
    return complaints


def test_no_import_points_right():
    assert wrong_arrows(PACKAGE) == []


def test_tasks_import_nothing_of_the_package():
    """Tasks can be used without the rest, so they may not know about it."""
    ours = [
        f"{file.name}:{node.lineno}"
        for file in TASKS.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "sailctl" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sailctl")
    ]
    assert ours == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("policy.py", "import sailctl.learner\n", "policy.py:1: policy may not import learner"),
        ("policy.py", "from sailctl.learner import Learner\n", "policy.py:1: policy may not import learner"),
        ("policy.py", "from sailctl import learner\n", "policy.py:1: policy may not import learner"),
        ("policy.py", "from . import learner\n", "policy.py:1: policy may not import learner"),
        ("policy.py", "from .learner import Learner\n", "policy.py:1: policy may not import learner"),
        ("policy.py", "from sailctl import load_policy\n", "policy.py:1: policy may not import __init__"),
        (
            "policy.py",
            "import sailctl as s\nf = s.load_policy\n",
            "policy.py:2: policy may not import __init__",
        ),
        ("policy.py", "def f():\n    import sailctl.learner\n", "policy.py:2: policy may not import learner"),
        (
            "policy.py",
            "import importlib\nimportlib.import_module('sailctl.learner')\n",
            "policy.py:2: policy may not import learner",
        ),
        (
            "objectives/dpo.py",
            "from ..learner import Learner\n",
            "objectives/dpo.py:1: objectives may not import learner",
        ),
        ("types.py", "import sailctl.seeding\n", "types.py:1: types may not import seeding"),
        ("types.py", "import sailctl_envs\n", "types.py:1: types may not import sailctl_envs"),
        ("evaluate.py", "import sailctl.train\n", "evaluate.py:1: evaluate may not import train"),
        (
            "attic.py",
            "",
            "attic.py is in no room: give it a place in tests/unit/test_architecture.py",
        ),
    ],
)
def test_a_wrong_arrow_is_found(tmp_path: Path, file: str, source: str, complaint: str):
    package = tmp_path / "sailctl"
    (package / "objectives").mkdir(parents=True)
    fine = (
        "import sailctl",
        "from sailctl import __version__",
        "from sailctl.policy import Policy",
        "sailctl.__version__",
    )
    (package / "learner.py").write_text("\n".join(fine))
    (package / file).write_text(source)
    assert wrong_arrows(package) == [complaint]


def test_light_modules_stay_light():
    """``sailctl --help`` answers at once because heavy libraries load inside the verbs that need them."""
    code = (
        "import sys, sailctl, sailctl.cli, sailctl.config, sailctl.types\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_the_name_of_a_run_follows_the_code_that_makes_its_numbers():
    """All rooms up to the learner but those that only carry things, and whatever trains."""
    assert set(ROOMS) == {*LINE[: LINE.index("checkpoint")], "seeding", *LOOPS}
    used = {room for name in LOOPS for room in TOP[name]} - {"video"}
    assert used <= set(ROOMS)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ('"""Other words."""\nx = 1\n', True),
        ("x = 1  # why\n", True),
        ("x = (\n    1\n)\n", True),
        ('x = 1\n"""What x is."""\n', True),
        ("x = 2\n", False),
        ("x = 1\ny = 1\n", False),
        ("x = '1'\n", False),
    ],
)
def test_what_counts_as_code(other: str, same: bool):
    assert (code_of(other) == code_of('"""A module."""\nx = 1\n')) == same


def test_a_run_of_changed_code_has_another_name(tmp_path: Path):
    """In a copy of the package, in which one number of an objective is another."""
    shutil.copytree(PACKAGE, tmp_path / "sailctl", ignore=shutil.ignore_patterns("__pycache__", "references"))
    code = "from sailctl.config.code import code_version; print(code_version())"

    def version() -> str:
        command = [sys.executable, "-c", code]
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{TASKS.parent}"}
        return subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).strip()

    assert version() == code_version()
    file = tmp_path / "sailctl" / "objectives" / "sail.py"
    text = file.read_text()
    file.write_text(f"{text}\n# nothing new\n")
    assert version() == code_version()
    file.write_text(f"{text}\nNEW = 1\n")
    assert version() != code_version()
