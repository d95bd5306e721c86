"""A composed configuration as checked, frozen objects; objects as YAML; and the hash that names a run."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_args, get_origin, get_type_hints

from sailctl.config.checks import validate
from sailctl.config.code import code_version
from sailctl.config.places import reference_place
from sailctl.config.schema import GROUPS, NUMBERLESS, RUNS, Config, RunConfig, kind_of, to_dict
from sailctl.config.words import did_you_mean, first_line, refused
from sailctl.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def to_config(cfg: DictConfig) -> RunConfig:
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
        kind = kind_of(OmegaConf.select(own, "algo.responses"), OmegaConf.select(own, "algo.learner"))
        config = OmegaConf.to_object(OmegaConf.merge(_schema(kind), values))
    except MissingMandatoryValue as error:
        made = " (`sailctl collect` makes such a file)" if error.full_key == "algo.data" else ""
        raise UserError(f"{error.full_key} has no value; set it with {error.full_key}=...{made}") from error
    except InterpolationResolutionError as error:
        raise UserError(f"{error.full_key} cannot be resolved: {first_line(error)}") from error
    except ConfigKeyError as error:
        raise unknown_key(str(error.full_key)) from error
    except OmegaConfBaseException as error:
        key = str(error.full_key).split("[")[0]
        what, value = _in_words(leaf_types().get(key)), OmegaConf.select(cfg, key)
        if isinstance(value, float) and value.is_integer():
            what += f", written {int(value)}"
        raise refused(key, what, value) from error
    if not isinstance(config, RunConfig):
        raise TypeError(f"expected a Config, composed a {type(config).__name__}")
    validate(config)
    return config


def to_yaml(config: RunConfig) -> str:
    """The configuration as YAML that composes to the same configuration again."""
    import yaml

    text: str = yaml.safe_dump(to_dict(config), sort_keys=False)
    return text


def run_id(config: RunConfig) -> str:
    """Eight hexadecimal digits that stand for everything that changes the numbers of a run but its seed.

    That is its configuration, the policy and the data that it names, and the code that makes the numbers.
    """
    numbers = {key: value for key, value in to_dict(config).items() if key not in NUMBERLESS}
    if (policy := reference_place(config)) is not None:
        # What is in the reference changes the numbers, not where it lies; its description holds a checksum.
        numbers["algo"]["reference"] = hashlib.sha256(policy.read_bytes()).hexdigest()
    if isinstance(config, Config) and config.algo.data is not None:
        numbers["algo"]["data"] = hashlib.sha256(Path(config.algo.data).read_bytes()).hexdigest()
    canonical = json.dumps({"code": code_version(), **numbers}, sort_keys=True, allow_nan=False)
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
        found |= dict(_types(run, ""))
    return found


def _types(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from _types(cast("type", hint), f"{prefix}{name}.")
        elif get_origin(hint) is not ClassVar:
            yield prefix + name, hint


def _in_words(hint: Any) -> str:
    nullable = isinstance(hint, UnionType)
    kind = get_args(hint)[0] if nullable else hint
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return words.get(kind, "a list of whole numbers, such as [64, 64]") + (" or null" if nullable else "")


def unknown_key(key: str) -> UserError:
    """The error about a key that does not exist, with the nearest one that does."""
    if key in leaf_types():
        group = key.partition(".")[0]
        return UserError(
            f"{key} is no setting of the chosen {group}: sailctl train --cfg job {group}=... lists them"
        )
    known = [*leaf_types(), *GROUPS, "experiment"]
    last_words = {name.rpartition(".")[2]: name for name in reversed(known)}
    hint = did_you_mean(key, known)
    if not hint and (near := difflib.get_close_matches(key.rpartition(".")[2], last_words, n=1)):
        hint = f"; did you mean '{last_words[near[0]]}'?"
    return UserError(f"unknown key '{key}'{hint or '; sailctl train --cfg job lists all keys'}")
