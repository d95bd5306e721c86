"""A composed configuration as checked, frozen objects; objects as YAML; and the hash that names a run."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, cast, get_args, get_type_hints

from sailctl.config.checks import validate
from sailctl.config.former import where_it_went
from sailctl.config.options import read_option
from sailctl.config.places import conf_dir, reference_place
from sailctl.config.recorded import recorded
from sailctl.config.schema import FORMS, GROUPS, LEVELS, NUMBERLESS, RUNS, RunConfig, kind_of
from sailctl.config.settings import leaves
from sailctl.core.files import place
from sailctl.core.types import UserError
from sailctl.core.words import did_you_mean, first_line, refused, show

if TYPE_CHECKING:
    from omegaconf import DictConfig


def to_config(cfg: DictConfig, base: Path | None = None) -> RunConfig:
    """The composed ``cfg`` (Hydra's own node left out) as checked, frozen, typed objects.

    Paths have ``~`` expanded, and begin at ``base`` where they are relative and it is given: the folder in
    which they were asked for, once the process has gone to another one.

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

    types = leaf_types()
    try:
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        values = cast("dict[str, Any]", OmegaConf.to_container(own, resolve=True, throw_on_missing=True))
        if "experiment" in values:
            raise UserError(
                "the file of this experiment must begin with the line '# @package _global_', and with no "
                "byte order mark before it"
            )
        kind = kind_of(OmegaConf.select(own, "algo.responses"), OmegaConf.select(own, "algo.learner"))
        if "policy" not in values:
            raise UserError(
                f"the file of algo={OmegaConf.select(own, 'algo.name')} chooses no policy; begin it with "
                f"'defaults: [/settings/{kind}@_here_, _self_]'"
            )
        types |= leaf_types(RUNS[kind])
        _check_form(kind, values.get("algo"))
        typed = _typed(_placed(values, base), types)
        config = cast("RunConfig", OmegaConf.to_object(OmegaConf.merge(_schema(kind), typed)))
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value; set it with {error.full_key}=...") from error
    except InterpolationResolutionError as error:
        raise UserError(f"{error.full_key} cannot be resolved: {first_line(error)}") from error
    except ConfigKeyError as error:
        name = OmegaConf.select(own, "algo.name") if str(error.full_key).startswith("algo.") else None
        raise unknown_key(str(error.full_key), None if name is None else str(name)) from error
    except OmegaConfBaseException as error:
        key = str(error.full_key).split("[")[0]
        raise refused(key, _in_words(types.get(key)), OmegaConf.select(cfg, key)) from error
    validate(config)
    return config


def _placed(values: dict[str, Any], base: Path | None) -> dict[str, Any]:
    """The composed values with their paths as ``files.place`` has them."""
    names = ("initial", *LEVELS)  # of reference policies that are no paths
    algo = values["algo"] if isinstance(values.get("algo"), dict) else {}
    for holder, key in ((values, "out"), (algo, "data"), (algo, "reference")):
        text = holder.get(key)
        if isinstance(text, str) and text.strip() and not (key == "reference" and text in names):
            holder[key] = str(place(text, base)) if base or text.startswith("~") else text
    return values


def _typed(values: Any, types: Mapping[str, Any], key: str = "") -> Any:
    """The composed values, with whole numbers where they were written as 1e6.

    Raises:
        UserError: for a number, or true or false, where a word belongs: how it was written is not known any
            more (YAML reads 2026_11_28 as 20261128).
    """
    if isinstance(values, dict):
        return {name: _typed(value, types, f"{key}.{name}".strip(".")) for name, value in values.items()}
    if isinstance(values, bool | int | float) and types.get(key) in (str, str | None):
        raise refused(key, "a word (in quotes, where YAML reads it as something else)", values)
    whole = isinstance(values, float) and values.is_integer() and types.get(key) in (int, int | None)
    return int(values) if whole else values


def _check_form(kind: str, algo: Any) -> None:
    """Refuse ``algo.responses`` of another form than that of which the algorithm has the settings.

    Raises:
        UserError: with the form that it has, and the algorithm of the form that was asked for.
    """
    if not isinstance(algo, dict):
        return
    settings = {form: {key for key in leaf_types(RUNS[form]) if key.startswith("algo.")} for form in FORMS}
    own = {f"algo.{key}" for key in algo}
    fitting = [form for form in FORMS if own <= settings[form]]
    if kind not in FORMS or not fitting or kind in fitting:
        return
    name = str(algo.get("name"))
    other = f"{name}_segments" if kind == "segments" else name.removesuffix("_segments")
    exists = (
        algo.get("responses") in FORMS and other != name and (conf_dir() / "algo" / f"{other}.yaml").is_file()
    )
    wanted = "actions" if fitting == ["actions"] else "segments or data"
    hint = f"; for {algo.get('responses')} use algo={other}" if exists else ""
    raise UserError(
        f"algo.responses must be {wanted} with algo={name}, got {show(algo.get('responses'))}{hint}"
    )


def to_yaml(config: RunConfig) -> str:
    """What a run records of its configuration, as YAML."""
    import yaml

    text: str = yaml.safe_dump(recorded(config), sort_keys=False)
    return text


NUMBERS = 16
"""Goes up when a change changes the numbers of runs, with an entry in the history of golden trajectories."""


def run_id(config: RunConfig) -> str:
    """Eight hexadecimal digits that stand for everything that changes the numbers of a run but its seed.

    That is what it reads of its configuration, the policy and the data that it names, and ``NUMBERS``.
    """
    numbers = {key: value for key, value in recorded(config).items() if key not in NUMBERLESS}
    if (policy := reference_place(config)) is not None:
        # What is in the reference changes the numbers, not where it lies; its description holds a checksum.
        numbers["algo"]["reference"] = hashlib.sha256(policy.read_bytes()).hexdigest()
    if (data := getattr(config.algo, "data", None)) is not None:
        numbers["algo"]["data"] = hashlib.sha256(Path(data).read_bytes()).hexdigest()
    canonical = json.dumps({"numbers": NUMBERS, **numbers}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


@cache
def _schema(kind: str) -> DictConfig:
    from omegaconf import OmegaConf

    run = RUNS[kind]
    schema: DictConfig = OmegaConf.structured(run)
    # OmegaConf makes frozen dataclasses read-only, even for the merge that fills them.
    OmegaConf.set_readonly(schema, None)
    for group, values in get_type_hints(run).items():
        if is_dataclass(values):
            schema[group] = OmegaConf.structured(values)
            OmegaConf.set_readonly(schema[group], None)
    return schema


def leaf_types(*runs: type[RunConfig]) -> dict[str, Any]:
    """The type of every value by its dotted key, as the dataclasses of these runs (or all) declare it."""
    found: dict[str, Any] = {}
    for run in reversed(runs or tuple(RUNS.values())):  # where two declare a key, the first one's type stands
        found |= {key: hint for key, hint, _ in leaves(run)}
    return found


def _in_words(hint: Any) -> str:
    nullable = isinstance(hint, UnionType)
    kind = get_args(hint)[0] if nullable else hint
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return words.get(kind, "a list of whole numbers, such as [64, 64]") + (" or null" if nullable else "")


def _options_with(key: str, chosen: str | None) -> list[str]:
    """Shipped options of the key's group that have it: those of the chosen one's name and another ending."""
    group, _, name = key.partition(".")
    if chosen is None:
        return []
    stem = chosen.removesuffix("_segments")
    shipped = [
        option for option in (stem, f"{stem}_segments") if (conf_dir() / group / f"{option}.yaml").is_file()
    ]
    return [
        option for option in shipped if option != chosen and name in read_option(group, option, [conf_dir()])
    ]


def unknown_key(key: str, chosen: str | None = None) -> UserError:
    """The error about a key that does not exist, with the nearest one that does.

    Args:
        key: what was asked for.
        chosen: the option of its group, where it is known.
    """
    if told := where_it_went(key):
        return UserError(told)
    if key in leaf_types():
        group = key.partition(".")[0]
        having = _options_with(key, chosen)
        hint = f"; {' and '.join(having)} {'has' if len(having) == 1 else 'have'} it" if having else ""
        return UserError(
            f"{key} is no setting of {group}={chosen or '...'}{hint}: "
            f"sailctl train --cfg job {group}={chosen or '...'} lists all"
        )
    known = [*leaf_types(), *GROUPS, "experiment"]
    last_words = {name.rpartition(".")[2]: name for name in reversed(known)}
    hint = did_you_mean(key, known)
    if not hint and (near := difflib.get_close_matches(key.rpartition(".")[2], last_words, n=1)):
        hint = f"; did you mean '{last_words[near[0]]}'?"
    return UserError(f"unknown key '{key}'{hint or '; sailctl train --cfg job lists all keys'}")
