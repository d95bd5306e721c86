"""``sailctl doctor``: checks what works on this machine, and says what to install for the rest.

MuJoCo is imported inside the checks, so that a missing MuJoCo is reported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sailctl.core.files import check_writable
from sailctl.core.types import UserError
from sailctl.simulator.video import offscreen_backend

DISK_GB = 1.0
"""Recommended free disk space, in GB; the records of a run take a few MB."""

WANDB_S = 40.0
"""Seconds after which Weights & Biases counts as not working."""

_WANDB = """
import sys, wandb
run = wandb.init(mode="offline", dir=sys.argv[1], settings=wandb.Settings(silent=True))
run.log({"x": 1.0})
run.finish()
"""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    works: bool
    detail: str
    """Result of the check, or advice."""
    needed: bool = True
    """Whether sailctl requires it."""


def diagnose() -> int:
    """Print one line per check; returns 0 if everything required works, otherwise 1."""
    with ThreadPoolExecutor() as pool:  # these checks wait for other processes
        rendering, wandb = pool.submit(check_rendering), pool.submit(check_wandb)
        findings = [check_python(), *check_packages(), check_simulation(), *check_folder()]
        findings += [*check_extras(), rendering.result(), wandb.result(), check_slurm()]
    if not any(finding.needed and not finding.works for finding in findings):
        findings.append(check_threads())  # last, so that no other check uses the cores
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        word = "ok" if finding.works else "FAILS" if finding.needed else "missing"
        print(f"{finding.name:<{width}}  {word:<7}  {finding.detail}")
    broken = [finding.name for finding in findings if finding.needed and not finding.works]
    print(f"\nmust be fixed: {', '.join(broken)}" if broken else "\nsailctl works here")
    return 1 if broken else 0


def check_python() -> Finding:
    """Whether this Python is new enough."""
    required = metadata.metadata("sailctl")["Requires-Python"]
    version = ".".join(map(str, sys.version_info[:3]))
    fits = SpecifierSet(required).contains(version)
    return Finding("Python", fits, version if fits else f"{version} is not {required}")


def check_packages() -> list[Finding]:
    """Whether the required packages are installed in supported versions."""
    requirements = [Requirement(line) for line in metadata.requires("sailctl") or ()]
    findings = [check_package(need) for need in requirements if applies(need)]
    failed = [finding for finding in findings if not finding.works]
    names = "mujoco", "gymnasium", "torch", "numpy", "stable-baselines3"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names if installed(name))
    summary = Finding("packages", True, f"{len(findings)} in supported versions: {versions}")
    return failed or [summary]


def check_package(need: Requirement) -> Finding:
    """Whether one package is installed in a supported version."""
    version = installed(need.name)
    if version is None:
        return Finding(f"package {need.name}", False, f"pip install '{need.name}{need.specifier}'")
    fits = need.specifier.contains(version, prereleases=True)
    advice = f"{version} is not {need.specifier}: pip install '{need.name}{need.specifier}'"
    return Finding(f"package {need.name}", fits, version if fits else advice)


def check_extras() -> list[Finding]:
    """Whether the packages of each optional extra are installed."""
    findings = []
    for extra in sorted(set(metadata.metadata("sailctl").get_all("Provides-Extra") or ()) - {"dev"}):
        requirements = [Requirement(line) for line in metadata.requires("sailctl") or ()]
        of_extra = [need for need in requirements if applies(need, extra) and not applies(need)]
        works = all(check_package(need).works for need in of_extra)
        versions = ", ".join(f"{need.name} {installed(need.name)}" for need in of_extra)
        detail = versions if works else f"pip install 'sailctl[{extra}]'"
        findings.append(Finding(f"extra {extra}", works, detail, needed=False))
    return findings


def applies(need: Requirement, extra: str = "") -> bool:
    """Whether a requirement applies to this machine, given the extra."""
    return need.marker is None or need.marker.evaluate({"extra": extra})


def installed(name: str) -> str | None:
    """Version of a package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_simulation() -> Finding:
    """Whether MuJoCo makes a step, with the same result twice."""
    try:
        from sailctl.simulator.batched import TaskSimulator
        from sailctl_envs import ALL_TASKS

        simulator = TaskSimulator(ALL_TASKS["halfcheetah-v5"]())
        states = simulator.reset(2, np.random.default_rng(0))
        action = np.full((2, simulator.spec.act_dim), 0.5)
        one, two = simulator.step(states, action), simulator.step(states, action)
        simulator.close()
    except Exception as error:  # any failure is a finding
        return Finding("simulation", False, f"{type(error).__name__}: {error}".split("\n", 1)[0])
    same = np.array_equal(one.states.physics, two.states.physics) and np.isfinite(one.states.physics).all()
    return Finding(
        "simulation", bool(same), "a step of HalfCheetah-v5, repeatable" if same else "not repeatable"
    )


def check_threads(seconds: float = 0.5) -> Finding:
    """Whether simulation on all cores is faster than on one."""
    from sailctl.simulator.batched import TaskSimulator
    from sailctl.simulator.speed import random_behaviour, simulator_rate
    from sailctl_envs import ALL_TASKS

    cores = len(os.sched_getaffinity(0))
    rates = []
    for threads in (1, cores):
        simulator = TaskSimulator(ALL_TASKS["halfcheetah-v5"](), threads)
        controls = random_behaviour(simulator)[1][0]
        rates.append(max(simulator_rate(simulator, controls, 256, seconds / 2) for _ in range(2)))
        simulator.close()
    gain = rates[1] / rates[0]
    detail = f"{cores} cores; {cores} threads step {gain:.1f} times as fast as one ({rates[0]:.0f} steps/s)"
    if cores == 1:
        return Finding("threads", True, f"1 core, {rates[0]:.0f} steps/s of HalfCheetah-v5", needed=False)
    works = gain > 1.2
    advice = "" if works else ": the cores are busy, or not available to this process"
    return Finding("threads", works, detail + advice, needed=False)


def check_rendering() -> Finding:
    """Whether videos can be rendered."""
    backend = offscreen_backend()
    detail = backend or "no videos; install libosmesa6 or libegl1 (OpenGL without a screen)"
    return Finding("rendering", backend is not None, detail, needed=False)


def check_wandb() -> Finding:
    """Whether Weights & Biases starts its process and records an offline run."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-c", _WANDB, folder],
                capture_output=True,
                text=True,
                timeout=WANDB_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            advice = f"no answer in {WANDB_S:.0f} s; logger.wandb=disabled turns it off"
            return Finding("W&B process", False, advice, needed=False)
    if done.returncode == 0:
        return Finding("W&B process", True, "records an offline run", needed=False)
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding("W&B process", False, f"{reason}; logger.wandb=disabled turns it off", needed=False)


def check_folder() -> list[Finding]:
    """Whether the current folder is writable and has free space."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 1e9
    try:
        check_writable(here)
        folder = Finding("folder", True, f"{here} is writable")
    except UserError as error:
        folder = Finding("folder", False, f"{error}; choose another with out=FOLDER")
    disk = f"{free:.0f} GB free" if free >= DISK_GB else f"{free:.1f} GB free, less than {DISK_GB:.0f}"
    return [folder, Finding("disk", free >= DISK_GB, disk)]


def check_slurm() -> Finding:
    """Whether SLURM is available."""
    command = shutil.which("sbatch")
    detail = command or "sbatch is not installed: runs of a sweep share this machine's cores"
    return Finding("SLURM", command is not None, detail, needed=False)
