"""Provenance of results: versions, commit, machine, command line."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sailctl import __version__
from sailctl.config.convert import NUMBERS
from sailctl.config.places import PACKAGE
from sailctl.core.types import UserError
from sailctl.runs.claims import queued_job

_PACKAGES = (
    "torch",
    "mujoco",
    "numpy",
    "gymnasium",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "pandas",
    "pyarrow",
    "wandb",
    "stable-baselines3",
)
_COMPUTING = ("torch", "mujoco", "numpy", "gymnasium", "stable-baselines3")


def provenance(command: Sequence[str]) -> dict[str, object]:
    """Versions, commit of the source checkout (None without one), CPU, command line, start time in UTC.

    ``numbers`` goes up when a change changes the numbers of runs: commits with the same one compute the same.
    """
    return {
        "sailctl": __version__,
        "numbers": NUMBERS,
        "git": _git_state(PACKAGE.parent),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "command": list(command),
        "job": queued_job(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def refuse_other_versions(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to resume a run under versions that differ from those it was started with.

    Args:
        path: the run directory.
        then: ``provenance`` at the start of the run.
        now: ``provenance`` of this process.

    Raises:
        UserError: when the version of sailctl, Python or a numerical package differs.
    """
    versions = [
        {"sailctl": about.get("sailctl"), "Python": about.get("python")}
        | {name: about.get("packages", {}).get(name) for name in _COMPUTING}
        for about in (then, now)
    ]
    changed = [
        f"{name} {old} (now {versions[1][name]})"
        for name, old in versions[0].items()
        if old != versions[1][name]
    ]
    if changed:
        raise UserError(
            f"{path} was started with {', '.join(changed)}, which may change its numbers: "
            "install those versions, resume with logger.any_version=true, or start a new run with --fresh"
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(root: Path) -> dict[str, object] | None:
    """Commit of the checkout at ``root``, and whether files outside results/ differ; None without one."""
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", ".", ":!results")
    except (OSError, subprocess.SubprocessError) as error:
        message = getattr(error, "stderr", None) or str(error)
        reason = " ".join(str(message).split())
        print(f"sailctl: warning: the commit of the code is unknown: {reason[:200]}", file=sys.stderr)
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(root: Path, *arguments: str) -> str:
    # Git refuses checkouts of other users. This one is safe: its code runs in this process anyway.
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _cpu_model() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
