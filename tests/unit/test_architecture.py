"""The order of folders is drawn as it is checked, and light modules stay light.

That imports keep the order is checked by ``make check`` (``tool.importlinter`` in pyproject.toml).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from sailctl.config.convert import NUMBERS

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "mujoco", "wandb", "matplotlib", "pandas", "pyarrow", "stable_baselines3")


def test_the_readme_draws_the_order_that_is_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    section = (ROOT / "README.md").read_text().split("## How it is built")[1].split("\n## ")[0]
    assert re.findall(r"(?m)^    (\w+)  ", section) == contracts[0]["layers"]


def test_each_folder_says_what_lives_there():
    folders = list((ROOT / "sailctl").glob("*/__init__.py"))
    assert len(folders) > 10
    assert [path for path in folders if not path.read_text().startswith('"""')] == []


def test_light_modules_stay_light():
    """``sailctl --help`` answers at once because heavy libraries load inside the verbs that need them."""
    code = (
        "import sys, sailctl, sailctl.cli.main, sailctl.config, sailctl.core.types\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_runs_have_another_name_once_golden_trajectories_were_renewed():
    """Each renewal is an entry of the history, and raises ``NUMBERS`` by one."""
    golden = json.loads((ROOT / "results" / "baselines" / "golden.json").read_text())
    assert len(golden["history"]) == NUMBERS
