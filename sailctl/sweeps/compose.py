"""Composes and checks the runs of a command line with Hydra, and describes a configuration."""

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
    RunConfig,
    conf_dir,
    leaf_types,
    meanings,
    recorded,
    register,
    to_config,
    unknown_key,
)
from sailctl.core.types import UserError
from sailctl.core.words import did_you_mean, first_line, show
from sailctl.runs.recorder import run_path

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


RENAMED = {"submitit_slurm": "slurm", "submitit_local": "local", "ray": "ray_tasks"}
"""Launchers of Hydra's plugins that are not supported, and the launcher of sailctl that replaces each."""
SCHEMAS = {
    "hydra_plugins.sailctl_launchers.SlurmLauncher": "submitit_slurm",
    "hydra_plugins.sailctl_launchers.LocalLauncher": "submitit_local",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": "ray",
}
"""By class of a launcher: the plugin configuration that defines the types of its settings."""


@dataclass(frozen=True)
class Job:
    """One run of a command line, composed and checked."""

    overrides: list[str]
    """``key=value`` words of this run, without Hydra's own."""
    composed: DictConfig
    """The configuration that Hydra composed, with its ``hydra`` node."""
    config: RunConfig
    """The checked configuration of the run."""


@dataclass(frozen=True)
class Plan:
    """The runs of a command line, and how to launch them."""

    jobs: list[Job]
    multirun: bool
    """Whether Hydra runs it as a sweep (``-m``, or ``hydra.mode`` in a configuration)."""
    arguments: list[str]
    """Overrides for Hydra, including the search path of the extra config folder."""


def compose_jobs(overrides: Sequence[str], *, multirun: bool = False, overlay: Path | None = None) -> Plan:
    """Compose and check every run of a command line, before any of them starts.

    ``overlay`` is a user's own folder of config groups, searched after the shipped one.

    Raises:
        UserError: on the first error, with a message of one line.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from hydra.types import RunMode

    # Hydra cannot parse an unquoted ~.
    overrides = [re.sub(r"^([\w.]+)=(~[^,']*)$", r"\1='\2'", word) for word in overrides]
    search_path = [] if overlay is None else [_search_path(overlay)]
    register()
    with initialize_config_dir(str(conf_dir()), job_name="sailctl", version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        overrides = [_as_written(parser, word) for word in overrides]
        parsed = [_parse(parser, text) for text in overrides]
        hydra_words = [str(item.input_line) for item in parsed if item.is_hydra_override()] + search_path
        run_items = [item for item in parsed if not item.is_hydra_override()]
        dependent = [item for item in run_items if _depends_on_sweep(item, run_items)]
        fixed = [
            str(item.input_line) for item in run_items if not (item.is_sweep_override() or item in dependent)
        ]
        base = _compose(hydra_words + fixed)
        _refuse_renamed(base)
        multirun = multirun or base.hydra.mode == RunMode.MULTIRUN
        if multirun:
            _check_launcher(base.hydra.launcher)
            if str(base.hydra.sweep.dir) != f"{base.out}/.sweeps":
                raise UserError(
                    "hydra.sweep.dir is a new folder below out for each launch: set out=FOLDER instead"
                )
            if not str(base.hydra.sweeper._target_).endswith(".BasicSweeper"):
                raise UserError("hydra/sweeper must be basic: a training returns no value to optimise")
            params = [
                _parse(parser, f"{key}={value}") for key, value in (base.hydra.sweeper.params or {}).items()
            ]
            try:
                batch = product(*(_choices(item) for item in [*params, *run_items]))
            except HydraException as error:
                raise UserError(f"this sweep cannot be enumerated: {first_line(error)}") from error
            jobs = [_job([*words], hydra_words) for words in batch]
            if not jobs:
                raise UserError("the sweep is empty: one of its keys has no value")
            _refuse_duplicates(jobs)
        else:
            _refuse_sweeps(run_items)
            jobs = [Job(fixed, base, to_config(base))]
    # Hydra composes once without the swept keys. A sweep over one value keeps a dependent key out of that.
    for item in dependent:
        key, _, value = str(item.input_line).partition("=")
        overrides = [f"{key}=choice({value})" if word == item.input_line else word for word in overrides]
    return Plan(jobs, multirun, [*overrides, *search_path])


def as_sweeps(jobs: Sequence[list[str]]) -> list[list[str]]:
    """Words of ``sailctl train -m`` for jobs: one sweep if they are all combinations of their values.

    Otherwise each job is a sweep by itself.

    Args:
        jobs: ``key=value`` words of each job, the same keys in the same order.
    """
    words = [list(dict.fromkeys(column)) for column in zip(*jobs, strict=True)]
    if math.prod(map(len, words)) != len(jobs):
        return list(jobs)
    return [[",".join([first, *(word.partition("=")[2] for word in others)]) for first, *others in words]]


def _refuse_renamed(composed: DictConfig) -> None:
    """Refuse the launchers of ``RENAMED``, and a user's configurations that are built on them."""
    from omegaconf import OmegaConf

    chosen = str(composed.hydra.runtime.choices.get("hydra/launcher"))
    if chosen in RENAMED:
        raise _renamed(chosen)
    target = str(OmegaConf.select(composed, "hydra.launcher._target_"))
    if target.startswith("hydra_plugins.hydra_submitit_launcher."):
        old = "submitit_slurm" if target.endswith(".SlurmLauncher") else "submitit_local"
        raise UserError(f"hydra/launcher={chosen} is built on {old}: build it on {RENAMED[old]}")


def _renamed(launcher: str) -> UserError:
    return UserError(f"hydra/launcher={launcher} is not supported: use hydra/launcher={RENAMED[launcher]}")


def _check_launcher(launcher: DictConfig) -> None:
    """Refuse settings that the launcher's plugin does not accept."""
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
    except ConfigLoadError:  # its plugin is not installed; ``check_launcher`` raises for that
        return
    except OmegaConfBaseException as error:
        raise UserError(f"hydra.launcher.{error.full_key}: {first_line(error)}") from error
    if launcher.get("n_jobs") == 0:
        raise UserError("hydra.launcher.n_jobs must be at least 1, or -1 for one job per core, got 0")


def _choices(item: Override) -> list[str]:
    """All ``key=value`` words that one word of a sweep expands to, as in Hydra's basic sweeper."""
    key = item.get_key_element()
    if not item.is_sweep_override():
        return [f"{key}={item.get_value_element_as_str()}"]
    if not item.is_discrete_sweep():
        raise UserError(f"this sweep cannot be enumerated: {item.input_line!r} is not a finite set")
    return [f"{key}={value}" for value in item.sweep_string_iterator()]


def _depends_on_sweep(item: Override, items: Sequence[Override]) -> bool:
    """Whether ``item`` sets a key within a group that is swept; other options may lack the key."""
    swept = {other.key_or_group for other in items if other.is_sweep_override()}
    return not item.is_sweep_override() and item.key_or_group.partition(".")[0] in swept


def _job(words: list[str], hydra_words: list[str]) -> Job:
    composed = _compose(hydra_words + words)
    return Job(words, composed, to_config(composed))


def _search_path(overlay: Path) -> str:
    if not overlay.is_dir():
        raise UserError(f"--config-dir must be an existing folder, got '{overlay}'")
    return f"hydra.searchpath=[{quoted(f'file://{overlay.resolve()}')}]"


def quoted(text: str | Path) -> str:
    """``text`` as a quoted value of a Hydra override."""
    # Hydra reads backslashes literally, except directly before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), str(text))
    return f"'{escaped}'"


def _as_written(parser: OverridesParser, text: str) -> str:
    """``text`` with quotes around values of string settings that Hydra would parse as number or boolean.

    Without quotes ``out=2026_11_28`` would become the folder 20261128, and ``out=1e5`` the folder 100000.0.
    """
    from hydra.errors import HydraException

    key, _, value = text.partition("=")
    if leaf_types().get(key) not in (str, str | None) or not re.fullmatch(r"[\w.+-]+(,[\w.+-]+)*", value):
        return text
    words = []
    for word in value.split(","):
        try:
            parsed = parser.parse_override(f"{key}={word}").value()
        except HydraException:
            return text
        words.append(quoted(word) if isinstance(parsed, bool | int | float) else word)
    return f"{key}={','.join(words)}"


def _parse(parser: OverridesParser, text: str) -> Override:
    """Parse one ``key=value`` word.

    Raises:
        UserError: when it cannot be parsed, or is not an override that sailctl supports.
    """
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
        options = list(error.options or [])
        if group == "hydra/launcher":
            if option in RENAMED:
                raise _renamed(option) from error
            options = [name for name in options if name not in RENAMED]
        listed = f"{did_you_mean(option, options)} (known: {', '.join(options)})"
        raise UserError(f"unknown {group or 'configuration'} '{option}'{listed}") from error
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        cause = error.__cause__
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            key = str(cause.full_key)
            raise unknown_key(key, _chosen(key.partition(".")[0], words)) from error
        text = " ".join(f"{error} {first_line(cause) if cause else ''}".split())
        raise UserError(f"the configuration cannot be composed: {text}") from error


def _chosen(group: str, words: Sequence[str]) -> str | None:
    """The option of a group: that of the command line, or the default of ``config.yaml``."""
    import yaml

    choices = [word.partition("=")[2] for word in words if word.partition("=")[0] == group]
    if choices:
        return choices[-1]
    defaults = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return next((str(entry[group]) for entry in defaults if isinstance(entry, dict) and group in entry), None)


def _refuse_sweeps(parsed: Sequence[Override]) -> None:
    types = leaf_types()
    for item in parsed:
        if item.is_sweep_override():
            key, text = item.key_or_group, str(item.input_line)
            listed = f", or write {key}=[...] for a list" if get_origin(types.get(key)) is list else ""
            raise UserError(f"{text!r} holds several values; add -m to run one job for each{listed}")


def _refuse_duplicates(jobs: Sequence[Job]) -> None:
    seen: dict[Path, int] = {}
    for number, job in enumerate(jobs):
        first = seen.setdefault(run_path(job.config), number)
        if first != number:
            same, other = " ".join(jobs[first].overrides), " ".join(job.overrides)
            raise UserError(f"the sweep contains the same run twice: '{same}' and '{other}'")


def describe(cfg: DictConfig, choices: Mapping[str, str | None]) -> str:
    """The resolved settings of a run of ``cfg`` as YAML, with a comment on the meaning of each.

    ``choices`` gives the option of each group.

    Raises:
        UserError: like ``to_config``.
    """
    config = to_config(cfg)
    values = recorded(config)
    lines = []
    if choices.get("experiment"):
        lines.append(f"# experiment={choices['experiment']}")
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            option = choices.get(key)
            lines += ["", f"{key}:" + (f"  # {key}={option}" if option else "")]
            lines += _aligned(value, meanings(config.kind if key == "algo" else key), "  ")
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
