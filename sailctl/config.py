"""One dataclass per config group: the schema of every run. Values live in ``conf/``, types here.

Also everything between a command line and a checked ``Config``: composing it with Hydra, converting it to
the types below, refusing what cannot work (always a one-line ``UserError``), naming it by a hash, showing it.
Nothing here imports a simulator or a neural network.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin, get_type_hints

from sailctl import __version__
from sailctl.types import UserError

if TYPE_CHECKING:
    import yaml
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


@dataclass(frozen=True)
class EnvConfig:
    """``conf/env``: the task and the segment lengths that suit it."""

    id: str
    segment: int
    judged: int


@dataclass(frozen=True)
class RolloutConfig:
    """``conf/rollout``: prompts, forks and lengths (control steps) of the compared segments."""

    prompts: int
    forks: int
    segment: int | None
    judged: int | None
    start_fraction: float
    pairing: str


@dataclass(frozen=True)
class OracleConfig:
    """``conf/oracle``: the synthetic teacher and its label budget."""

    teacher: str
    inverse_temperature: float
    tie_margin: float
    budget: int | None


@dataclass(frozen=True)
class PolicyConfig:
    """``conf/policy``: the Gaussian policy."""

    kind: str
    hidden: list[int]
    features: int
    initial_std: float
    learn_std: bool
    normalise: bool


@dataclass(frozen=True)
class AlgoConfig:
    """``conf/algo``: the objective, its reference policy and its optimiser."""

    name: str
    beta: float
    c: float
    baseline: str
    gamma: float
    kl: str
    radius: float | None
    reference: str
    refresh: int
    optimiser: str
    lr: float
    epochs: int
    minibatches: int
    max_grad_norm: float | None


@dataclass(frozen=True)
class EvaluationConfig:
    """``conf/evaluation``: how the true return is measured."""

    every: int
    episodes: int
    seed: int


@dataclass(frozen=True)
class LoggerConfig:
    """``conf/logger``: mirrors of the local files; nothing here changes the numbers of a run."""

    wandb: str
    project: str
    tensorboard: bool
    progress: bool


@dataclass(frozen=True)
class Config:
    """A whole run."""

    algo: AlgoConfig
    env: EnvConfig
    oracle: OracleConfig
    rollout: RolloutConfig
    policy: PolicyConfig
    evaluation: EvaluationConfig
    logger: LoggerConfig
    seed: int
    env_steps: int
    threads: int
    out: str


GROUPS = ("algo", "env", "oracle", "rollout", "policy", "evaluation", "logger")
"""Config groups, each with its dataclass. (``conf/experiment`` holds values of any of them.)"""

NUMBERLESS = ("logger", "out", "threads", "seed")
"""Top-level keys left out of ``run_id``: they do not change the numbers, or (seed) are named beside it."""

ABOVE_ZERO = (
    "algo.beta",
    "algo.lr",
    "algo.radius",
    "algo.max_grad_norm",
    "oracle.inverse_temperature",
    "policy.initial_std",
)
NOT_NEGATIVE = (
    "algo.c",
    "algo.gamma",
    "algo.refresh",
    "oracle.tie_margin",
    "policy.features",
    "evaluation.seed",
    "seed",
)
AT_LEAST_ONE = (
    "rollout.prompts",
    "oracle.budget",
    "algo.epochs",
    "algo.minibatches",
    "evaluation.every",
    "evaluation.episodes",
    "env_steps",
    "threads",
)
CHOICES = {
    "algo.baseline": ("leave_one_out", "none"),
    "algo.kl": ("kl_ref_pi", "kl_pi_ref"),
    "algo.optimiser": ("adam", "sgd"),
    "oracle.teacher": ("oracle", "stochastic"),
    "rollout.pairing": ("forked", "unrelated"),
    "policy.kind": ("mlp", "linear"),
    "logger.wandb": ("offline", "online", "disabled"),
}


def conf_dir() -> Path:
    """The folder of the shipped configuration: inside the package (wheel) or beside it (checkout).

    Raises:
        UserError: when neither place holds ``config.yaml``.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"the configuration folder is missing beside {package}; reinstall sailctl")


# Checking


def validate(config: Config) -> None:
    """Refuse what cannot work, before anything is built.

    Raises:
        UserError: one line that names the key, the value and what is allowed.
    """
    values = dict(_leaves(to_dict(config)))
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _refused(key, "a finite number", value)
    for key in ABOVE_ZERO:
        _require(values[key] is None or values[key] > 0, key, "above 0", values[key])
    for key in NOT_NEGATIVE:
        _require(values[key] >= 0, key, "0 or more", values[key])
    for key in AT_LEAST_ONE:
        _require(values[key] is None or values[key] >= 1, key, "at least 1", values[key])
    for key, choices in CHOICES.items():
        _require(values[key] in choices, key, " or ".join(choices), values[key], choices)
    _validate_names(config)
    _validate_rollout(config)
    _validate_policy(config.policy)
    _validate_reference(config.algo.reference)


def _validate_names(config: Config) -> None:
    tasks = _horizons()
    known = f"a known task ({', '.join(tasks)})"
    _require(config.env.id in tasks, "env.id", known, config.env.id, tasks)
    plain = "a plain word of letters, digits, _ and - (it names a folder)"
    _require(
        re.fullmatch(r"[A-Za-z0-9_-]+", config.algo.name) is not None, "algo.name", plain, config.algo.name
    )
    _require(config.logger.project.strip() != "", "logger.project", "a name", config.logger.project)
    _require(config.out.strip() != "", "out", "a folder", config.out)
    _require(not Path(config.out).is_file(), "out", "a folder, and there is a file of this name", config.out)


def _validate_rollout(config: Config) -> None:
    rollout, horizon = config.rollout, _horizons()[config.env.id]
    _require(rollout.forks >= 2, "rollout.forks", "at least 2", rollout.forks)
    if rollout.pairing == "unrelated":
        _require(rollout.forks == 2, "rollout.forks", "2 when rollout.pairing=unrelated", rollout.forks)
        _require(
            rollout.prompts >= 2,
            "rollout.prompts",
            "at least 2 when rollout.pairing=unrelated",
            rollout.prompts,
        )
    _require(
        rollout.prompts % config.algo.minibatches == 0,
        "algo.minibatches",
        f"a divisor of rollout.prompts={rollout.prompts}",
        config.algo.minibatches,
    )
    _require(
        0 <= rollout.start_fraction <= 1, "rollout.start_fraction", "from 0 to 1", rollout.start_fraction
    )
    segment, judged = segment_lengths(config)
    episode = f"{horizon} (an episode of {config.env.id})"
    _require(1 <= segment <= horizon, "rollout.segment", f"from 1 to {episode}", segment)
    _require(
        segment <= judged <= horizon,
        "rollout.judged",
        f"from {segment} (rollout.segment) to {episode}",
        judged,
    )


def _validate_policy(policy: PolicyConfig) -> None:
    if policy.kind == "mlp":
        _require(
            len(policy.hidden) >= 1, "policy.hidden", "at least one width, such as [64, 64]", policy.hidden
        )
        _require(policy.features == 0, "policy.features", "0 unless policy.kind=linear", policy.features)
    _require(
        all(width >= 1 for width in policy.hidden), "policy.hidden", "widths of at least 1", policy.hidden
    )


def _validate_reference(reference: str) -> None:
    if reference == "initial":
        return
    folder = Path(reference)
    found = (folder / "policy.json").is_file() or (folder / "policy" / "policy.json").is_file()
    what = "initial, or an existing run directory or policy folder (one that holds policy.json)"
    _require(found, "algo.reference", what, reference)


def segment_lengths(config: Config) -> tuple[int, int]:
    """H and L in control steps: ``null`` is a whole episode of the task."""
    horizon = _horizons()[config.env.id]
    segment, judged = config.rollout.segment, config.rollout.judged
    return horizon if segment is None else segment, horizon if judged is None else judged


def _horizons() -> dict[str, int]:
    from sailctl_envs import ALL_TASKS

    return {name: task.horizon for name, task in ALL_TASKS.items()}


def _require(allowed: bool, key: str, what: str, value: object, known: Iterable[str] = ()) -> None:
    if not allowed:
        raise _refused(key, what, value, known)


def _refused(key: str, what: str, value: object, known: Iterable[str] = ()) -> UserError:
    return UserError(f"{key} must be {what}, got {_show(value)}{did_you_mean(str(value), known)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


# Converting


def to_config(cfg: DictConfig) -> Config:
    """The composed ``cfg`` (Hydra's own node left out) as checked, frozen, typed objects.

    Raises:
        UserError: for an unknown key, a missing value, a wrong type or a value that ``validate`` refuses.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import (
        ConfigKeyError,
        InterpolationResolutionError,
        MissingMandatoryValue,
        OmegaConfBaseException,
    )

    try:
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        values = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
        config = OmegaConf.to_object(OmegaConf.merge(_schema(), values))
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value; set it with {error.full_key}=...") from error
    except InterpolationResolutionError as error:
        raise UserError(f"{error.full_key} cannot be resolved: {_first_line(error)}") from error
    except ConfigKeyError as error:
        raise unknown_key(str(error.full_key)) from error
    except OmegaConfBaseException as error:
        key = str(error.full_key).split("[")[0]
        what, value = _in_words(leaf_types().get(key)), OmegaConf.select(cfg, key)
        if isinstance(value, float) and value.is_integer():
            what += f", written {int(value)}"
        raise _refused(key, what, value) from error
    if not isinstance(config, Config):
        raise TypeError(f"expected a Config, composed a {type(config).__name__}")
    validate(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain nested dictionaries, lists and scalars."""
    return asdict(config)


def to_yaml(config: Config) -> str:
    """The configuration as YAML that composes to the same configuration again."""
    import yaml

    text: str = yaml.safe_dump(to_dict(config), sort_keys=False)
    return text


def run_id(config: Config) -> str:
    """Eight hexadecimal digits that stand for everything that changes the numbers of a run but its seed."""
    numbers = {key: value for key, value in to_dict(config).items() if key not in NUMBERLESS}
    canonical = json.dumps({"sailctl": __version__, **numbers}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


@cache
def _schema() -> DictConfig:
    from omegaconf import OmegaConf

    schema: DictConfig = OmegaConf.structured(Config)
    # OmegaConf makes frozen dataclasses read-only, even for the merge that fills them.
    OmegaConf.set_readonly(schema, None)
    for group, kind in get_type_hints(Config).items():
        if is_dataclass(kind):
            schema[group] = OmegaConf.structured(kind)
            OmegaConf.set_readonly(schema[group], None)
    return schema


def leaf_types(kind: type = Config, prefix: str = "") -> dict[str, Any]:
    """The type of every value by its dotted key, as the dataclasses declare it."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            found |= leaf_types(cast("type", hint), f"{prefix}{name}.")
        else:
            found[prefix + name] = hint
    return found


def _in_words(hint: Any) -> str:
    nullable = isinstance(hint, UnionType)
    kind = get_args(hint)[0] if nullable else hint
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return words.get(kind, "a list of whole numbers, such as [64, 64]") + (" or null" if nullable else "")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _show(value: object) -> str:
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, str):
        return repr(value)
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _first_line(error: BaseException) -> str:
    # The later lines are OmegaConf's bookkeeping: full_key, object_type and the like.
    return str(error).split("\n", 1)[0]


# Composing


@dataclass(frozen=True)
class Job:
    """One run of a command line, composed and checked."""

    overrides: list[str]
    """``key=value`` words of this run (Hydra's own left out)."""
    composed: DictConfig
    """Everything that Hydra composed, its own node included."""
    config: Config
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
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from hydra.types import RunMode

    search_path = [] if overlay is None else [_search_path(overlay)]
    with initialize_config_dir(str(conf_dir()), job_name="sailctl", version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        parsed = [_parse(parser, text) for text in overrides]
        own = [str(item.input_line) for item in parsed if item.is_hydra_override()] + search_path
        wanted = [item for item in parsed if not item.is_hydra_override()]
        fixed = [str(item.input_line) for item in wanted if not item.is_sweep_override()]
        base = _compose(own + fixed)
        multirun = multirun or base.hydra.mode == RunMode.MULTIRUN
        if multirun:
            if not str(base.hydra.sweeper._target_).endswith(".BasicSweeper"):
                raise UserError("hydra/sweeper must be basic: a training returns no value to optimise")
            params = [
                _parse(parser, f"{key}={value}") for key, value in (base.hydra.sweeper.params or {}).items()
            ]
            try:
                (batch,) = BasicSweeper.split_arguments([*params, *wanted], None)
            except HydraException as error:
                raise UserError(f"this sweep cannot be listed: {_first_line(error)}") from error
            if not batch:
                raise UserError("the sweep is empty: one of its keys has no value")
            jobs = [_job(words, own) for words in batch]
            _refuse_twins(jobs)
        else:
            _refuse_sweeps(wanted)
            jobs = [Job(fixed, base, to_config(base))]
    return Plan(jobs, multirun, [*overrides, *search_path])


def _job(words: list[str], own: list[str]) -> Job:
    composed = _compose(own + words)
    return Job(words, composed, to_config(composed))


def _search_path(overlay: Path) -> str:
    if not overlay.is_dir():
        raise UserError(f"--config-dir must be an existing folder, got '{overlay}'")
    return f"hydra.searchpath=[{quoted(f'file://{overlay.resolve()}')}]"


def quoted(text: str | Path) -> str:
    """``text`` as a quoted value of a Hydra override."""
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


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
        raise UserError(f"{key} takes the name of a file in conf/{key}, got {_show(value)}")
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
        listed = f"{did_you_mean(option, known)} (known: {', '.join(known)})"
        raise UserError(f"unknown {group or 'configuration'} '{option}'{listed}") from error
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        cause = error.__cause__
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            raise unknown_key(str(cause.full_key)) from error
        text = " ".join(f"{error} {_first_line(cause) if cause else ''}".split())
        raise UserError(f"the configuration cannot be composed: {text}") from error


def unknown_key(key: str) -> UserError:
    """The error about a key that does not exist, with the nearest one that does."""
    known = [*leaf_types(), *GROUPS, "experiment"]
    last_words = {name.rpartition(".")[2]: name for name in reversed(known)}
    hint = did_you_mean(key, known)
    if not hint and (near := difflib.get_close_matches(key.rpartition(".")[2], last_words, n=1)):
        hint = f"; did you mean '{last_words[near[0]]}'?"
    return UserError(f"unknown key '{key}'{hint or '; sailctl train --cfg job lists all keys'}")


def _refuse_sweeps(parsed: Sequence[Override]) -> None:
    types = leaf_types()
    for item in parsed:
        if item.is_sweep_override():
            key, text = item.key_or_group, str(item.input_line)
            listed = f", or write {key}=[...] for a list" if get_origin(types.get(key)) is list else ""
            raise UserError(f"{text!r} holds several values; add -m to run one job for each{listed}")


def _refuse_twins(jobs: Sequence[Job]) -> None:
    seen: dict[tuple[str, ...], int] = {}
    for number, job in enumerate(jobs):
        config = job.config
        run = (config.out, config.env.id, config.algo.name, run_id(config), str(config.seed))
        first = seen.setdefault(run, number)
        if first != number:
            same, other = " ".join(jobs[first].overrides), " ".join(job.overrides)
            raise UserError(f"the sweep asks for the same run twice: '{same}' and '{other}'")


# Showing


def describe(cfg: DictConfig, choices: Mapping[str, str | None], overlay: Path | None = None) -> str:
    """``cfg`` resolved, as YAML, each value with the comment that stands where the value is defined.

    ``choices`` names the option of each group. A value whose own line has no comment (in a user's file, say)
    shows the one of the same key in a shipped option of its group.

    Raises:
        UserError: as ``to_config``.
    """
    folders = [conf_dir(), *([] if overlay is None else [overlay])]
    comments = _comments(folders, "", "config")
    lines = []
    if choices.get("experiment"):
        lines.append(f"# experiment={choices['experiment']}")
    for key, value in to_dict(to_config(cfg)).items():
        if isinstance(value, Mapping):
            option = choices.get(key)
            lines += ["", f"{key}:" + (f"  # {key}={option}" if option else "")]
            lines += _aligned(value, _comments(folders, key, str(option)), "  ")
    top = {key: value for key, value in to_dict(to_config(cfg)).items() if not isinstance(value, Mapping)}
    return "\n".join([*lines, "", *_aligned(top, comments, "")]).lstrip("\n") + "\n"


def _aligned(values: Mapping[str, Any], comments: Mapping[str, str], indent: str) -> list[str]:
    import yaml

    pairs = {}
    for key, value in values.items():
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
        pairs[key] = f"{indent}{key}: {text.removesuffix('...' + chr(10)).strip()}"
    width = max(len(pair) for pair in pairs.values())
    return [f"{pair:<{width}}  # {comments[key]}" if key in comments else pair for key, pair in pairs.items()]


def _comments(folders: Sequence[Path], group: str, option: str) -> dict[str, str]:
    """Comment of each key of one config file, completed from the shipped files of its group."""
    chosen = [folder / group / f"{option}.yaml" for folder in folders]
    found: dict[str, str] = {}
    for file in [*filter(Path.is_file, chosen), *sorted((conf_dir() / group).glob("*.yaml"))]:
        found = read_comments(file) | found
    return found


def read_comments(file: Path) -> dict[str, str]:
    """``{key: comment}`` of every ``key: value # comment`` line of a YAML file, keys dotted."""
    import yaml

    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()

    def visit(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, str]]:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                yield from visit(value, f"{name}.")
                continue
            rest = lines[value.end_mark.line][value.end_mark.column :].strip() if lines else ""
            if rest.startswith("#"):
                yield name, rest.removeprefix("#").strip()

    return dict(visit(yaml.compose(text), ""))
