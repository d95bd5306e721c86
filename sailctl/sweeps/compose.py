"""From a command line to checked runs, by Hydra; and the whole configuration with what each value means."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from sailctl.config import (
    GROUPS,
    RUNS,
    RunConfig,
    conf_dir,
    did_you_mean,
    first_line,
    leaf_types,
    meanings,
    recorded,
    register,
    show,
    to_config,
    unknown_key,
)
from sailctl.core.types import UserError
from sailctl.runs.recorder import run_path

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


RENAMED = {"submitit_slurm": "slurm", "submitit_local": "local", "ray": "ray_tasks"}
"""Launchers of Hydra's plugins, which are not to be used by themselves, and the one of ours for each."""
SCHEMAS = {
    "hydra_plugins.sailctl_launchers.SlurmLauncher": "submitit_slurm",
    "hydra_plugins.sailctl_launchers.LocalLauncher": "submitit_local",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": "ray",
}
"""By the class of a launcher, the configuration of a plugin that has the types of its settings."""


@dataclass(frozen=True)
class Job:
    """One run of a command line, composed and checked."""

    overrides: list[str]
    """``key=value`` words of this run (Hydra's own left out)."""
    composed: DictConfig
    """Everything that Hydra composed, its own node included."""
    config: RunConfig
    """The same as checked objects."""


@dataclass(frozen=True)
class Plan:
    """What a command line asks for."""

    jobs: list[Job]
    multirun: bool
    """Whether Hydra runs it as a sweep (``-m``, or ``hydra.mode`` in a configuration)."""
    arguments: list[str]
    """Overrides to hand to Hydra, the extra config folder included."""


def compose_jobs(overrides: Sequence[str], *, multirun: bool = False, overlay: Path | None = None) -> Plan:
    """Compose and check every run that a command line asks for, before any of them starts.

    ``overlay`` is a user's own folder of config groups, searched after the shipped one.

    Raises:
        UserError: one line about the first thing that is wrong.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from hydra.types import RunMode

    overrides = [
        re.sub(r"^([\w.]+)=(~[^,']*)$", r"\1='\2'", word) for word in overrides
    ]  # Hydra reads no bare ~
    search_path = [] if overlay is None else [_search_path(overlay)]
    register()
    with initialize_config_dir(str(conf_dir()), job_name="sailctl", version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        overrides = [_as_written(parser, word) for word in overrides]
        parsed = [_parse(parser, text) for text in overrides]
        own = [str(item.input_line) for item in parsed if item.is_hydra_override()] + search_path
        wanted = [item for item in parsed if not item.is_hydra_override()]
        riders = [item for item in wanted if _rides(item, wanted)]
        fixed = [str(item.input_line) for item in wanted if not (item.is_sweep_override() or item in riders)]
        base = _compose(own + fixed)
        _refuse_renamed(base)
        multirun = multirun or base.hydra.mode == RunMode.MULTIRUN
        if multirun:
            _check_launcher(base.hydra.launcher)
            if str(base.hydra.sweep.dir) != f"{base.out}/.sweeps":
                raise UserError(
                    "hydra.sweep.dir is chosen anew for each launch, in out: set out=FOLDER instead"
                )
            if not str(base.hydra.sweeper._target_).endswith(".BasicSweeper"):
                raise UserError("hydra/sweeper must be basic: a training returns no value to optimise")
            params = [
                _parse(parser, f"{key}={value}") for key, value in (base.hydra.sweeper.params or {}).items()
            ]
            try:
                batch = product(*(_choices(item) for item in [*params, *wanted]))
            except HydraException as error:
                raise UserError(f"this sweep cannot be listed: {first_line(error)}") from error
            jobs = [_job([*words], own) for words in batch]
            if not jobs:
                raise UserError("the sweep is empty: one of its keys has no value")
            _refuse_twins(jobs)
        else:
            _refuse_sweeps(wanted)
            jobs = [Job(fixed, base, to_config(base))]
    # As a choice of one, Hydra leaves a rider out of what it composes before it knows the option.
    alone = {str(item.input_line): f"{item.key_or_group}=choice({_text(item)})" for item in riders}
    return Plan(jobs, multirun, [*(alone.get(word, word) for word in overrides), *search_path])


def _refuse_renamed(composed: DictConfig) -> None:
    """Refuse the launchers that ours go before, and what a user built on one of them."""
    from omegaconf import OmegaConf

    chosen = str(composed.hydra.runtime.choices.get("hydra/launcher"))
    if chosen in RENAMED:
        raise _renamed(chosen)
    target = str(OmegaConf.select(composed, "hydra.launcher._target_"))
    if target.startswith("hydra_plugins.hydra_submitit_launcher."):
        old = "submitit_slurm" if target.endswith(".SlurmLauncher") else "submitit_local"
        raise UserError(f"hydra/launcher={chosen} is built on {old}: build it on {RENAMED[old]}")


def _renamed(launcher: str) -> UserError:
    return UserError(f"hydra/launcher={launcher} is called hydra/launcher={RENAMED[launcher]} now")


def _check_launcher(launcher: DictConfig) -> None:
    """Refuse settings that the launcher's plugin would not understand."""
    from hydra.core.config_store import ConfigStore
    from hydra.plugins.config_source import ConfigLoadError
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        if (name := SCHEMAS.get(str(launcher.get("_target_")))) is not None:
            schema = ConfigStore.instance().load(f"hydra/launcher/{name}.yaml").node
            OmegaConf.merge(
                schema, OmegaConf.masked_copy(launcher, [str(k) for k in schema if k in launcher])
            )
    except ConfigLoadError:  # its plugin is not installed, which ``check_launcher`` says
        return
    except OmegaConfBaseException as error:
        raise UserError(f"hydra.launcher.{error.full_key}: {first_line(error)}") from error
    if launcher.get("n_jobs") == 0:
        raise UserError("hydra.launcher.n_jobs must be at least 1, or -1 for one job per core, got 0")


def _choices(item: Override) -> list[str]:
    """Every ``key=value`` that one word of a sweep stands for, as Hydra's own sweeper has it."""
    key = item.get_key_element()
    if not item.is_sweep_override():
        return [f"{key}={item.get_value_element_as_str()}"]
    if not item.is_discrete_sweep():
        raise UserError(f"this sweep cannot be listed: {item.input_line!r} stands for values without number")
    return [f"{key}={value}" for value in item.sweep_string_iterator()]


def _rides(item: Override, wanted: Sequence[Override]) -> bool:
    """Whether ``item`` is one value of a group that is swept: other options may have no such key."""
    swept = {other.key_or_group for other in wanted if other.is_sweep_override()}
    return not item.is_sweep_override() and item.key_or_group.partition(".")[0] in swept


def _text(item: Override) -> str:
    return str(item.input_line).partition("=")[2]


def _job(words: list[str], own: list[str]) -> Job:
    composed = _compose(own + words)
    return Job(words, composed, to_config(composed))


def _search_path(overlay: Path) -> str:
    if not overlay.is_dir():
        raise UserError(f"--config-dir must be an existing folder, got '{overlay}'")
    return f"hydra.searchpath=[{quoted(f'file://{overlay.resolve()}')}]"


def quoted(text: str | Path) -> str:
    """``text`` as a quoted value of a Hydra override."""
    # A backslash stands for itself, but for those right before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), str(text))
    return f"'{escaped}'"


def _as_written(parser: OverridesParser, text: str) -> str:
    """``text`` with quotes around what is a word here and would be read as a number, or as true or false.

    Otherwise ``out=2026_11_28`` were the folder 20261128, and ``out=1e5`` the folder 100000.0.
    """
    from hydra.errors import HydraException

    key, _, value = text.partition("=")
    if leaf_types().get(key) not in (str, str | None) or not re.fullmatch(r"[\w.+-]+(,[\w.+-]+)*", value):
        return text
    words = []
    for word in value.split(","):
        try:
            read = parser.parse_override(f"{key}={word}").value()
        except HydraException:
            return text
        words.append(quoted(word) if isinstance(read, bool | int | float) else word)
    return f"{key}={','.join(words)}"


def _parse(parser: OverridesParser, text: str) -> Override:
    """One ``key=value`` word, refused when it cannot be an override of ours."""
    from hydra.errors import HydraException

    try:
        item = parser.parse_override(text)
    except (HydraException, ValueError, AssertionError) as error:
        name, equals, rest = text.partition("=")
        hint = f"; quote a value with special characters: \"{name}='{rest}'\"" if equals else ""
        raise UserError(f"cannot read {text!r}; write key=value{hint}") from error
    item.config_loader = parser.config_loader
    key, value = item.key_or_group, item.value()
    if key == "hydra.searchpath":
        raise UserError("hydra.searchpath is set by --config-dir FOLDER")
    if item.is_hydra_override():
        if item.is_sweep_override():
            raise UserError(f"{text!r} holds several values; Hydra's own options take one")
    elif item.is_add() or item.is_force_add() or item.is_delete():
        raise UserError(f"{text!r} would add or delete a key; only key=value for an existing key is possible")
    elif item.package is not None or key not in (*GROUPS, "experiment", *leaf_types()):
        raise unknown_key(item.get_key_element())
    elif key in (*GROUPS, "experiment") and not isinstance(value, str) and not item.is_sweep_override():
        raise UserError(f"{key} takes the name of a file in conf/{key}, got {show(value)}")
    return item


def _compose(words: list[str]) -> DictConfig:
    from hydra import compose
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
    from yaml import YAMLError

    try:
        return compose("config", words, return_hydra_config=True)
    except MissingConfigException as error:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        known = list(error.options or [])
        if group == "hydra/launcher":
            if option in RENAMED:
                raise _renamed(option) from error
            known = [name for name in known if name not in RENAMED]
        listed = f"{did_you_mean(option, known)} (known: {', '.join(known)})"
        raise UserError(f"unknown {group or 'configuration'} '{option}'{listed}") from error
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        cause = error.__cause__
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            key = str(cause.full_key)
            raise unknown_key(key, _chosen(key.partition(".")[0], words)) from error
        text = " ".join(f"{error} {first_line(cause) if cause else ''}".split())
        raise UserError(f"the configuration cannot be composed: {text}") from error


def _chosen(group: str, words: Sequence[str]) -> str | None:
    """The option of a group by the command line, or by the defaults of ``config.yaml``."""
    import yaml

    told = [word.partition("=")[2] for word in words if word.partition("=")[0] == group]
    if told:
        return told[-1]
    defaults = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return next((str(entry[group]) for entry in defaults if isinstance(entry, dict) and group in entry), None)


def _refuse_sweeps(parsed: Sequence[Override]) -> None:
    types = leaf_types()
    for item in parsed:
        if item.is_sweep_override():
            key, text = item.key_or_group, str(item.input_line)
            listed = f", or write {key}=[...] for a list" if get_origin(types.get(key)) is list else ""
            raise UserError(f"{text!r} holds several values; add -m to run one job for each{listed}")


def _refuse_twins(jobs: Sequence[Job]) -> None:
    seen: dict[Path, int] = {}
    for number, job in enumerate(jobs):
        first = seen.setdefault(run_path(job.config), number)
        if first != number:
            same, other = " ".join(jobs[first].overrides), " ".join(job.overrides)
            raise UserError(f"the sweep asks for the same run twice: '{same}' and '{other}'")


# Showing


def describe(cfg: DictConfig, choices: Mapping[str, str | None]) -> str:
    """What a run of ``cfg`` reads, resolved, as YAML, each value with what it means.

    ``choices`` names the option of each group.

    Raises:
        UserError: as ``to_config``.
    """
    config = to_config(cfg)
    values = recorded(config)
    kind = next(name for name, run in RUNS.items() if run is type(config))
    lines = []
    if choices.get("experiment"):
        lines.append(f"# experiment={choices['experiment']}")
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            option = choices.get(key)
            lines += ["", f"{key}:" + (f"  # {key}={option}" if option else "")]
            lines += _aligned(value, meanings(kind if key == "algo" else key), "  ")
    top = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    return "\n".join([*lines, "", *_aligned(top, meanings("run"), "")]).lstrip("\n") + "\n"


def _aligned(values: Mapping[str, Any], meaning: Mapping[str, str], indent: str) -> list[str]:
    import yaml

    pairs = {}
    for key, value in values.items():
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
        pairs[key] = f"{indent}{key}: {text.removesuffix('...' + chr(10)).strip()}"
    width = max(len(pair) for pair in pairs.values())
    return [f"{pair:<{width}}  # {meaning[key]}" for key, pair in pairs.items()]
