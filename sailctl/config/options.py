"""The defaults of the dataclasses as options of Hydra, and what a file of ``conf/`` takes over from them.

Each file of a group begins with ``defaults: [/settings/<kind>@_here_, _self_]`` and goes on with what makes
its option differ: two files side by side are the ablation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from sailctl.config.schema import GROUPS, RUNS, RunConfig

SETTINGS = "/settings/"
"""Begins the name under which Hydra knows the defaults of a dataclass."""


def register() -> None:
    """Tell Hydra the defaults: of each kind of algorithm, and of each other group."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for kind, run in RUNS.items():
        chosen = [{"/policy@_global_.policy": run.network}, "_self_"]
        store.store(group="settings", name=kind, node={"defaults": chosen, **defaults_of(kind)})
    for group in GROUPS:
        if group != "algo":
            store.store(group="settings", name=group, node=defaults_of(group))


def defaults_of(kind: str) -> dict[str, Any]:
    """Defaults of a kind of algorithm (a key of ``RUNS``) or of a group; ``???`` where there is none."""
    found: dict[str, Any] = {}
    for item in fields(_dataclass(kind)):
        if item.default_factory is not MISSING:
            found[item.name] = item.default_factory()
        else:
            found[item.name] = "???" if item.default is MISSING else item.default
    return found


@cache
def meanings(kind: str) -> Mapping[str, str]:
    """What each setting of a kind of algorithm, of a group, or (``run``) of no group, means."""
    kept = fields(RunConfig if kind == "run" else _dataclass(kind))
    return {item.name: item.metadata["meaning"] for item in kept if item.metadata}


def _dataclass(kind: str) -> type:
    run, name = (RUNS[kind], "algo") if kind in RUNS else (RunConfig, kind)
    found: type = get_type_hints(run)[name]
    return found


def read_option(group: str, name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """What the file of an option sets, with what it takes over from others of its group.

    Args:
        group: of ``GROUPS``.
        name: of the option.
        folders: configuration folders, the one that goes before first.
    """
    import yaml

    files = [folder / group / f"{name}.yaml" for folder in folders]
    own = dict(yaml.safe_load(next(filter(Path.is_file, files)).read_text(encoding="utf-8")) or {})
    found: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, str) and entry.startswith(SETTINGS):
            found |= defaults_of(entry.removeprefix(SETTINGS).partition("@")[0])
        elif isinstance(entry, str) and entry != "_self_":
            found |= read_option(group, entry, folders)
    return found | own
