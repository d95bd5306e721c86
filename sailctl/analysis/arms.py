"""Groups runs into arms, and verifies that arms differ only in the compared settings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import pairwise

import numpy as np

from sailctl.analysis.evidence import AXES, CURVES, Arm, Evidence, Trial
from sailctl.core.types import UserError
from sailctl.core.words import show

BUDGET = "oracle.budget"
"""If this setting is compared, arms may use different numbers of labels."""

UNEQUAL = 0.05
"""Largest accepted difference in mean labels or env steps between arms, as a share of the larger.

It allows for the last iteration of a run, whose size depends on the lengths of its segments."""

_VERSIONS = ("sailctl", "commit", "python", "torch", "mujoco", "numpy", "gymnasium")


def gather(trials: Sequence[Trial], compared: Sequence[str] = ("algo.*",), force: bool = False) -> Evidence:
    """Group runs into arms, and verify that arms differ only in the compared settings.

    An arm may lack a setting, or use no labels because it trains on the true reward. Such a setting is
    verified only between the arms that have it, and a note names the other arms.

    Args:
        trials: the runs.
        compared: patterns of the compared settings, such as ``algo.*`` or ``algo.gamma``. The name of the
            algorithm may always differ.
        force: accept other differences, and record them as caveats of the evidence. Foreign curves, whose
            settings are unknown, are accepted with a caveat in any case.

    Raises:
        UserError: when there is no run or an arm contains a run twice; and without ``force`` when a run has
            not ended or something else differs: a setting, the version of the code or its packages, the
            labels or env steps used, or the tasks.
    """
    if not trials:
        raise UserError("no runs to compare")
    varying = varying_settings(trials)
    arms = _arms_of(trials, varying)
    for arm in arms:
        for one, other in pairwise(arm.trials):
            if (one.task, one.seed) == (other.task, other.seed):
                raise UserError(f"the same run twice: {one.place} and {other.place}")
    allowed = ("algo.name", *compared)
    # If label budgets are compared, unequal numbers of labels are intended.
    budgets = BUDGET in varying and any(fnmatchcase(BUDGET, pattern) for pattern in compared)
    foreign = list(_foreign(arms))
    recorded = [trial for trial in trials if not trial.foreign]
    caveats = [
        *_other_settings([key for key in varying if not any(fnmatchcase(key, p) for p in allowed)], arms),
        *_other_versions(recorded),
        *_unfinished(trials),
        *_missing_tasks(arms),
        *_unequal_budgets(arms, ("env_steps",) if budgets else ("labels", "env_steps")),
    ]
    if caveats and not force:
        more = f" (and {len(caveats) - 1} more)" if len(caveats) > 1 else ""
        raise UserError(
            f"these runs cannot be compared: {caveats[0]}{more}; "
            "choose other runs, name the compared settings with --by, or compare them anyway with --force"
        )
    tasks = sorted(set.intersection(*({trial.task for trial in arm.trials} for arm in arms)))
    if not tasks:
        raise UserError("these runs cannot be compared: no task was run by every arm")
    caveats = [*foreign, *caveats]
    arms = _windowed(arms)
    differing = {key: {arm.name: arm.settings[key] for arm in arms} for key in varying}
    other_keys = [key for key in varying if not key.startswith("algo.")]
    notes = (*_not_shared(other_keys, arms), *_notes(arms, tasks))
    return Evidence(tuple(arms), tuple(tasks), differing, tuple(caveats), notes)


def varying_settings(trials: Sequence[Trial]) -> list[str]:
    """Settings with several values on the same task, sorted. Differences between tasks do not count."""
    first: dict[str, Mapping[str, object]] = {}
    varying: set[str] = set()
    for trial in trials:
        reference = first.setdefault(trial.task, trial.settings)
        if reference != trial.settings:
            keys = {*reference, *trial.settings} - varying
            varying |= {key for key in keys if reference.get(key) != trial.settings.get(key)}
    return sorted(varying)


def _arms_of(trials: Sequence[Trial], varying: Sequence[str]) -> list[Arm]:
    """Group the runs of each algorithm by the settings in which its runs on the same task differ.

    Settings that vary only with the task, or only in other algorithms, do not split an arm.
    """
    algorithms = sorted({trial.algorithm for trial in trials})
    splitting = {name: varying_settings([t for t in trials if t.algorithm == name]) for name in algorithms}
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        values = {key: trial.settings.get(key) for key in splitting[trial.algorithm]}
        groups.setdefault(json.dumps([trial.algorithm, values], sort_keys=True), []).append(trial)
    arms = []
    for members in groups.values():
        first = members[0]
        words = [f"{key}={plain(first.settings.get(key))}" for key in splitting[first.algorithm]]
        members.sort(key=lambda trial: (trial.task, trial.seed))
        settings = {
            key: _common([trial.settings[key] if trial.has(key) else None for trial in members])
            for key in varying
        }
        arms.append(Arm(" ".join([first.algorithm, *words]), first.algorithm, settings, tuple(members)))
    return sorted(arms, key=lambda arm: arm.name)


def _common(values: Sequence[object]) -> object:
    """The value of a setting; all values as text if it varies with the task."""
    texts = dict.fromkeys(map(plain, values))
    return values[0] if len(texts) == 1 else ", ".join(texts)


def plain(value: object) -> str:
    """The value of a setting as text, without quotes around strings."""
    return value if isinstance(value, str) else show(value)


def _foreign(arms: Sequence[Arm]) -> Iterator[str]:
    """Caveats for arms of foreign curves, whose comparability cannot be verified."""
    for arm in arms:
        if arm.trials[0].foreign:
            yield f"the settings and the code of {arm.name} are unknown, only its curves are given"


def _other_settings(keys: Sequence[str], arms: Sequence[Arm]) -> Iterator[str]:
    for key in keys:
        values = dict.fromkeys(plain(arm.settings[key]) for arm in arms if arm.has(key))
        if len(values) > 1:
            yield f"{key} differs ({', '.join(values)})"


def _not_shared(keys: Sequence[str], arms: Sequence[Arm]) -> Iterator[str]:
    """Notes on settings that some arms have and others lack; a group without any setting is ``group.*``."""
    present = [key for key in keys if any(arm.has(key) for arm in arms)]
    for arm in (arm for arm in arms if not arm.trials[0].foreign):
        groups = {key.partition(".")[0] for key in arm.trials[0].settings if arm.has(key)}
        lacking = [key.partition(".") for key in present if not arm.has(key)]
        names = dict.fromkeys("".join(parts) if parts[0] in groups else f"{parts[0]}.*" for parts in lacking)
        if names:
            yield f"not shared: {arm.name} has no {', '.join(names)}"
        if not arm.asks and any(other.asks for other in arms):
            yield f"not shared: {arm.name} trains on the true reward and uses no labels"


def _other_versions(trials: Sequence[Trial]) -> Iterator[str]:
    numbers = {trial.origin.get("numbers") for trial in trials}
    same_numbers = len(numbers) == 1 and None not in numbers
    for name in _VERSIONS:
        if name == "commit" and same_numbers:  # no commit between them changed the numbers of runs
            continue
        versions = dict.fromkeys(str(trial.origin.get(name)) for trial in trials)
        if len(versions) > 1:
            values = ", ".join(value[:10] for value in list(versions)[:4])
            subject = "the commit of the code" if name == "commit" else f"the version of {name}"
            yield f"{subject} differs ({values}{', ...' if len(versions) > 4 else ''})"


def _unfinished(trials: Sequence[Trial]) -> Iterator[str]:
    unfinished = [trial for trial in trials if trial.state in ("running", "interrupted")]
    if unfinished:
        states = Counter(trial.state for trial in unfinished)
        counts = " and ".join(f"{count} {state}" for state, count in sorted(states.items()))
        yield f"{counts} of {len(trials)} runs, such as {unfinished[0].relative_place}: they count as failed"


def _missing_tasks(arms: Sequence[Arm]) -> Iterator[str]:
    tasks = {trial.task for arm in arms for trial in arm.trials}
    for arm in arms:
        if missing := sorted(tasks - {trial.task for trial in arm.trials}):
            yield f"{arm.name} has no run on {', '.join(missing)}"


def _unequal_budgets(arms: Sequence[Arm], axes: Sequence[str]) -> Iterator[str]:
    """Caveats for finished runs on the same task that used unequal labels or env steps."""
    for task in sorted({trial.task for arm in arms for trial in arm.trials}):
        for axis in axes:
            used = {
                arm.name: float(np.mean([trial.along(axis)[-1] for trial in finished]))
                for arm in arms
                if (axis != "labels" or arm.asks)
                and (finished := [t for t in arm.on(task) if t.finished and np.isfinite(t.along(axis)[-1])])
            }
            if used and max(used.values()) - min(used.values()) > UNEQUAL * max(used.values()):
                values = ", ".join(f"{name} {count:,.0f}" for name, count in used.items())
                yield f"unequal {AXES[axis]} on {task} ({values})"


def _windowed(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, with the common window of env steps of each task set in every run.

    The window ends at the smallest budget of the task. The spacing of its points is the largest spacing of
    evaluations of any run. A curve is cut after its first evaluation at or after the smallest configured
    budget; if budgets are equal, nothing is cut.
    """
    windows: dict[str, tuple[float, float]] = {}
    budgets: dict[str, float] = {}
    for trial in (t for arm in arms for t in arm.trials if t.simulates and t.finished):
        end, step = windows.get(trial.task, (np.inf, 0.0))
        windows[trial.task] = min(end, trial.budget), max(step, trial.spacing)
        configured = float(str(trial.settings.get("env_steps", trial.budget)))
        budgets[trial.task] = min(budgets.get(trial.task, np.inf), configured)

    def windowed(trial: Trial) -> Trial:
        if not trial.simulates or trial.task not in windows:
            return trial
        keep = slice(0, int(np.searchsorted(trial.env_steps, budgets[trial.task])) + 1)
        cut = {name: getattr(trial, name)[keep] for name in CURVES}
        return replace(trial, window=windows[trial.task], **cut)

    return [replace(arm, trials=tuple(windowed(trial) for trial in arm.trials)) for arm in arms]


def _notes(arms: Sequence[Arm], tasks: Sequence[str]) -> Iterator[str]:
    trials = [trial for arm in arms for trial in arm.trials]
    for task in tasks:
        seeds = {arm.name: tuple(trial.seed for trial in arm.on(task)) for arm in arms}
        if len(set(seeds.values())) > 1:
            common = set.intersection(*(set(arm_seeds) for arm_seeds in seeds.values()))
            yield f"arms were not run with the same seeds on {task}: {len(common)} are common to all"
    commits = {str(trial.origin.get("commit"))[:10] for trial in trials if not trial.foreign}
    if len(commits) > 1:
        yield f"runs were made by several commits ({', '.join(sorted(commits))})"
    if any(trial.origin.get("dirty") for trial in trials):
        yield "some runs were made by code that differs from its commit"
    cpus = sorted({str(trial.origin.get("cpu")) for trial in trials if not trial.foreign})
    if len(cpus) > 1:
        yield f"runs were made on several machines ({', '.join(cpus)}): wall-clock times do not compare"
