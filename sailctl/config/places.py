"""Where configuration files and reference policies lie."""

from __future__ import annotations

import re
from pathlib import Path

from sailctl.config.schema import LEVELS, RunConfig
from sailctl.core.files import find_policy
from sailctl.core.types import UserError

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the installed package."""

REFERENCES = PACKAGE / "references"
"""Folder of the reference policies: ``<task>/<level>/policy.json``."""


def conf_dir() -> Path:
    """The folder of the shipped configuration: inside the package (wheel) or beside it (checkout).

    Raises:
        UserError: when neither place holds ``config.yaml``.
    """
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"the configuration folder is missing beside {PACKAGE}; reinstall sailctl")


def reference_place(config: RunConfig) -> Path | None:
    """``policy.json`` of the policy that ``algo.reference`` names; None for ``initial``, or without one."""
    reference = config.algo.reference
    if reference in LEVELS:
        return find_policy(REFERENCES / plain_name(config.env.id) / reference)
    return None if reference == "initial" else find_policy(reference)


def plain_name(task: str) -> str:
    """A task id as the name of a folder: ``my_module:MyEnv-v0`` becomes ``my_module-MyEnv-v0``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", task)
