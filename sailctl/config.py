"""One dataclass per config group: the schema of every run. Values live in ``conf/``, types here.

A composed configuration becomes typed, checked, frozen objects, or a one-line ``UserError``; a hash names
it. Nothing here imports a simulator or a neural network.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_args, get_origin, get_type_hints

from sailctl import __version__, tasks
from sailctl.files import find_policy
from sailctl.types import UserError

if TYPE_CHECKING:
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

    inverse_temperature: float | None
    normalise: bool
    discount: float
    mistake: float
    skip: float
    equal: float
    tie_margin: float
    rho: float
    bpref_compat: bool
    budget: int | None


@dataclass(frozen=True)
class RewardConfig:
    """``conf/reward``: the ensemble of learned rewards, where an algorithm uses one."""

    members: int
    hidden: list[int]
    lr: float
    epochs: int
    enough: float
    batch: int
    inverse_temperature: float | None


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
    responses: str
    labels: str
    w: float
    data: str | None
    queries: int | None
    selection: str
    rho: float
    worst_case: str
    step: str
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
    iterations: int | None

    @property
    def simulates(self) -> bool:
        """Whether the policy is rolled out at all: it is not when every sample comes from a data set."""
        return self.responses == "policy" and self.w > 0

    @property
    def needs_data(self) -> bool:
        """Whether a part of the samples comes from a data set."""
        return self.w < 1 or self.responses == "data"

    @property
    def reads_data(self) -> bool:
        """Whether a data set, where there is one, is looked at: for samples, or to teach a reward model."""
        return self.needs_data or self.models_reward

    @property
    def models_reward(self) -> bool:
        """Whether a reward model is learned, to label pairs or to choose which of them the teacher sees."""
        chooses = self.queries is not None and self.selection in MODEL_RULES
        return self.simulates and (self.labels == "reward_model" or (self.labels == "teacher" and chooses))


@dataclass(frozen=True)
class PPOConfig:
    """``conf/algo``, where ``learner`` is ``ppo``: PPO of Stable-Baselines3 on a true or a learned reward."""

    name: str
    learner: str
    reward: str
    first: int
    queries: int
    every: int
    selection: str
    start: int
    envs: int
    steps: int
    batch: int
    epochs: int
    lr: float
    anneal: bool
    discount: float
    gae_lambda: float
    clip: float
    entropy: float
    value: float
    max_grad_norm: float
    normalise_reward: bool
    reference: str

    simulates: ClassVar[bool] = True
    iterations: ClassVar[None] = None


@dataclass(frozen=True)
class SACConfig:
    """``conf/algo``, where ``learner`` is ``sac``: SAC of Stable-Baselines3 on a true or a learned reward."""

    name: str
    learner: str
    reward: str
    first: int
    queries: int
    every: int
    selection: str
    start: int
    pretrain: int
    relabel: bool
    envs: int
    interval: int
    hidden: list[int]
    updates: float
    batch: int
    lr: float
    discount: float
    tau: float
    target_every: int
    entropy: float
    gamma: float
    refresh: int

    simulates: ClassVar[bool] = True
    iterations: ClassVar[None] = None
    reference: ClassVar[str] = "initial"


@dataclass(frozen=True)
class EvaluationConfig:
    """``conf/evaluation``: how the true return is measured."""

    every: int
    iterations: int
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
class RunConfig:
    """A whole run of any algorithm: what the logger, the run record and the comparison know."""

    algo: AlgoConfig | PPOConfig | SACConfig
    env: EnvConfig
    oracle: OracleConfig
    rollout: RolloutConfig
    policy: PolicyConfig
    reward: RewardConfig
    evaluation: EvaluationConfig
    logger: LoggerConfig
    seed: int
    env_steps: int
    threads: int
    out: str


@dataclass(frozen=True)
class Config(RunConfig):
    """A whole run of SAIL, of one of its variants or limits."""

    algo: AlgoConfig


@dataclass(frozen=True)
class PPORun(RunConfig):
    """A whole run of a baseline that is built on PPO."""

    algo: PPOConfig


@dataclass(frozen=True)
class SACRun(RunConfig):
    """A whole run of a baseline that is built on SAC."""

    algo: SACConfig


RUNS: dict[str, type[RunConfig]] = {"sail": Config, "ppo": PPORun, "sac": SACRun}
"""The kinds of run, by ``algo.learner``; SAIL's own options have no such key."""

GROUPS = ("algo", "env", "oracle", "rollout", "policy", "reward", "evaluation", "logger")
"""Config groups, each with its dataclass. (``conf/experiment`` holds values of any of them.)"""

LEVELS = ("weak", "medium", "expert")
"""Reference policies that ship with the suite."""

REFERENCES = Path(__file__).resolve().parent / "references"
"""Folder of the reference policies: ``<task>/<level>/policy.json``."""

LARGEST = 3.4e38
"""A larger setting is infinite to a policy, which computes in 32-bit floating point."""

NUMBERLESS = ("logger", "out", "threads", "seed")
"""Top-level keys left out of ``run_id``: they do not change the numbers, or (seed) are named beside it."""

MODEL_RULES = ("disagreement", "entropy", "kcenter_disagreement", "kcenter_entropy")
"""Rules of ``algo.selection`` that look at a reward model."""

ABOVE_ZERO = (
    "algo.beta",
    "algo.lr",
    "algo.radius",
    "algo.max_grad_norm",
    "algo.gae_lambda",
    "algo.clip",
    "algo.discount",
    "algo.tau",
    "algo.updates",
    "oracle.inverse_temperature",
    "oracle.discount",
    "policy.initial_std",
    "reward.lr",
    "reward.inverse_temperature",
)
NOT_NEGATIVE = (
    "algo.c",
    "algo.gamma",
    "algo.rho",
    "algo.queries",
    "algo.refresh",
    "algo.first",
    "algo.pretrain",
    "algo.start",
    "algo.entropy",
    "algo.value",
    "oracle.skip",
    "oracle.equal",
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
    "algo.iterations",
    "algo.every",
    "algo.envs",
    "algo.steps",
    "algo.batch",
    "algo.interval",
    "algo.target_every",
    "reward.members",
    "reward.epochs",
    "reward.batch",
    "evaluation.every",
    "evaluation.iterations",
    "evaluation.episodes",
    "env_steps",
    "threads",
)
SHARES = (
    "algo.w",
    "algo.discount",
    "algo.gae_lambda",
    "algo.tau",
    "rollout.start_fraction",
    "oracle.discount",
    "oracle.mistake",
    "oracle.rho",
    "reward.enough",
)
"""Probabilities and weights from 0 to 1."""
CHOICES = {
    "algo.learner": ("ppo", "sac"),
    "algo.reward": ("true", "model"),
    "algo.baseline": ("leave_one_out", "none"),
    "algo.responses": ("policy", "data"),
    "algo.labels": ("teacher", "reward_model", "policy"),
    "algo.selection": (
        "uniform",
        "disagreement",
        "entropy",
        "kcenter",
        "kcenter_disagreement",
        "kcenter_entropy",
    ),
    "algo.worst_case": ("exact", "clipped"),
    "algo.step": ("gradient", "proximal"),
    "algo.kl": ("kl_ref_pi", "kl_pi_ref"),
    "algo.optimiser": ("adam", "sgd"),
    "rollout.pairing": ("forked", "unrelated", "ranked"),
    "policy.kind": ("mlp", "linear", "squashed"),
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


def validate(config: RunConfig) -> None:
    """Refuse what cannot work, before anything is built.

    Raises:
        UserError: one line that names the key, the value and what is allowed.
    """
    values = dict(_leaves(to_dict(config)))
    for key, value in values.items():
        if isinstance(value, float) and not abs(value) <= LARGEST:
            raise _refused(key, "a finite number", value)
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    for key in filter(numbers.__contains__, ABOVE_ZERO):
        _require(numbers[key] > 0, key, "above 0", numbers[key])
    for key in filter(numbers.__contains__, NOT_NEGATIVE):
        _require(numbers[key] >= 0, key, "0 or more", numbers[key])
    for key in filter(numbers.__contains__, AT_LEAST_ONE):
        _require(numbers[key] >= 1, key, "at least 1", numbers[key])
    for key in filter(numbers.__contains__, SHARES):
        _require(0 <= numbers[key] <= 1, key, "from 0 to 1", numbers[key])
    for key in filter(values.__contains__, CHOICES):
        _require(values[key] in CHOICES[key], key, " or ".join(CHOICES[key]), values[key], CHOICES[key])
    _validate_names(config)
    _validate_rollout(config)
    _validate_policy(config.policy)
    _validate_widths("reward.hidden", config.reward.hidden)
    _validate_reference(config)
    if isinstance(config, Config):
        _validate_design(config)
    else:
        _validate_baseline(config)
    _validate_teacher(config)


def _validate_names(config: RunConfig) -> None:
    tasks.horizon(config.env.id)  # refuses an unknown task
    plain = "a plain word of letters, digits, _ and - (it names a folder)"
    _require(
        re.fullmatch(r"[A-Za-z0-9_-]+", config.algo.name) is not None, "algo.name", plain, config.algo.name
    )
    _require(config.logger.project.strip() != "", "logger.project", "a name", config.logger.project)
    _require(config.out.strip() != "", "out", "a folder", config.out)
    _require(not Path(config.out).is_file(), "out", "a folder, and there is a file of this name", config.out)


def _validate_rollout(config: RunConfig) -> None:
    rollout, horizon = config.rollout, tasks.horizon(config.env.id)
    _require(rollout.forks >= 2, "rollout.forks", "at least 2", rollout.forks)
    if rollout.pairing == "unrelated":
        _require(rollout.forks == 2, "rollout.forks", "2 when rollout.pairing=unrelated", rollout.forks)
        _require(
            rollout.prompts >= 2,
            "rollout.prompts",
            "at least 2 when rollout.pairing=unrelated",
            rollout.prompts,
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
    if isinstance(config.algo, AlgoConfig) and config.algo.simulates:
        _require(
            rollout.start_fraction == 1 or tasks.forks_anywhere(config.env.id),
            "rollout.start_fraction",
            f"1 with {config.env.id}, which can be forked at episode starts alone",
            rollout.start_fraction,
        )


def _validate_policy(policy: PolicyConfig) -> None:
    if policy.kind != "linear":
        _require(policy.features == 0, "policy.features", "0 unless policy.kind=linear", policy.features)
        _validate_widths("policy.hidden", policy.hidden)


def _validate_widths(key: str, widths: list[int]) -> None:
    _require(len(widths) >= 1, key, "at least one width, such as [64, 64]", widths)
    _require(all(width >= 1 for width in widths), key, "widths of at least 1", widths)


def _validate_reference(config: RunConfig) -> None:
    reference = config.algo.reference
    if reference == "initial":
        return
    if reference in LEVELS:
        missing = (
            f"there is no {reference} reference policy of {config.env.id}: `sailctl reference` lists them"
        )
        if reference_place(config) is None:
            raise UserError(f"algo.reference={reference}: {missing}")
        return
    what = f"initial, {', '.join(LEVELS)}, or a run directory or policy folder (one that holds policy.json)"
    _require(reference_place(config) is not None, "algo.reference", what, reference, LEVELS)


def reference_place(config: RunConfig) -> Path | None:
    """``policy.json`` of the policy that ``algo.reference`` names; None for ``initial``, or without one."""
    reference = config.algo.reference
    if reference in LEVELS:
        return find_policy(REFERENCES / plain_name(config.env.id) / reference)
    return None if reference == "initial" else find_policy(reference)


def _validate_baseline(config: RunConfig) -> None:
    """What a baseline needs beside its own numbers."""
    algo = config.algo
    if isinstance(algo, AlgoConfig):
        return
    if algo.reward == "model":
        for key in ("first", "queries"):
            value = getattr(algo, key)
            _require(value >= 1, f"algo.{key}", "at least 1 with algo.reward=model", value)
        budget = config.oracle.budget
        _require(
            budget is None or budget >= algo.first,
            "oracle.budget",
            f"at least algo.first={algo.first}",
            budget,
        )
        pairs = config.rollout.pairing != "ranked"
        _require(pairs, "rollout.pairing", "forked or unrelated with this algorithm", config.rollout.pairing)
    if isinstance(algo, PPOConfig):
        whole = algo.envs * algo.steps
        _require(algo.batch <= whole, "algo.batch", f"at most algo.envs * algo.steps = {whole}", algo.batch)
        _require(config.policy.kind == "mlp", "policy.kind", "mlp with PPO", config.policy.kind)
        learnt = config.policy.learn_std
        _require(learnt, "policy.learn_std", "true with PPO", learnt)
    elif isinstance(algo, SACConfig):
        _validate_widths("algo.hidden", algo.hidden)
        _require(algo.entropy > 0, "algo.entropy", "above 0 with SAC", algo.entropy)
        steps = algo.envs * algo.updates
        whole = steps >= 1 and steps % algo.target_every == 0
        known = (
            f"such that algo.envs={algo.envs} times it is a multiple of algo.target_every={algo.target_every}"
        )
        _require(whole, "algo.updates", known, algo.updates)
        pretrains = algo.pretrain == 0 or algo.reward == "model"
        _require(pretrains, "algo.pretrain", "0 with algo.reward=true", algo.pretrain)


def _validate_design(config: Config) -> None:
    """What an algorithm needs beside its own numbers: a data set, a limit, another group's settings."""
    algo, offline = config.algo, not config.algo.simulates
    _require(
        config.rollout.prompts % algo.minibatches == 0,
        "algo.minibatches",
        f"a divisor of rollout.prompts={config.rollout.prompts}",
        algo.minibatches,
    )
    _require(
        algo.data is not None or not algo.needs_data,
        "algo.data",
        "a file of preferences, as `sailctl collect` makes it, unless algo.responses=policy and algo.w=1",
        algo.data,
    )
    if algo.data is not None:
        _require(
            Path(algo.data).is_file(),
            "algo.data",
            "an existing file, as `sailctl collect` makes it",
            algo.data,
        )
    _require(
        algo.iterations is not None or not offline,
        "algo.iterations",
        "a number: this run simulates nothing, so env_steps cannot end it",
        algo.iterations,
    )
    _require(
        algo.labels != "reward_model" or algo.responses == "policy",
        "algo.responses",
        "policy with algo.labels=reward_model",
        algo.responses,
    )
    if algo.labels == "reward_model":
        _require(
            algo.queries != 0 or algo.data is not None,
            "algo.queries",
            "above 0 without algo.data: the reward model would see no label",
            algo.queries,
        )
    elif algo.simulates and algo.labels == "teacher":
        _require(algo.queries != 0, "algo.queries", "above 0 with algo.labels=teacher", algo.queries)
    if config.rollout.pairing == "ranked":
        _require(algo.labels == "teacher", "algo.labels", "teacher with rollout.pairing=ranked", algo.labels)
        _require(
            algo.rho == 0, "algo.rho", "0 with rollout.pairing=ranked: its bound is one of pairs", algo.rho
        )
        rule = algo.selection
        plain = algo.queries is None or rule == "uniform"
        _require(plain, "algo.selection", "uniform with rollout.pairing=ranked", rule)
    _require(algo.rho < 0.5, "algo.rho", "below 0.5, where no answer would mean anything", algo.rho)
    if algo.step == "proximal":
        linear = config.policy.kind == "linear" and not config.policy.learn_std
        known = "gradient, unless policy.kind=linear, policy.learn_std=false and algo.optimiser=sgd"
        _require(linear and algo.optimiser == "sgd", "algo.step", known, algo.step)
        exact = algo.worst_case == "exact"
        _require(exact, "algo.worst_case", "exact with algo.step=proximal", algo.worst_case)


def _validate_teacher(config: RunConfig) -> None:
    oracle, pairing = config.oracle, config.rollout.pairing
    if pairing == "ranked":
        for key in ("mistake", "equal", "tie_margin", "rho"):
            value = getattr(oracle, key)
            _require(
                value == 0, f"oracle.{key}", "0 with rollout.pairing=ranked: it is defined for pairs", value
            )
        cost = config.rollout.forks - 1
        enough = oracle.budget is None or oracle.budget >= cost
        _require(enough, "oracle.budget", f"at least {cost}, what one ranking costs", oracle.budget)
    if oracle.skip > 0 or oracle.equal > 0:
        _, judged = segment_lengths(config)
        whole = judged == tasks.horizon(config.env.id)
        _require(
            config.rollout.start_fraction < 1 or whole,
            "rollout.start_fraction",
            "below 1 with oracle.skip or oracle.equal, unless whole episodes are judged: "
            "their threshold is a share of the episode return",
            config.rollout.start_fraction,
        )


def plain_name(task: str) -> str:
    """A task id as the name of a folder: ``my_module:MyEnv-v0`` becomes ``my_module-MyEnv-v0``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", task)


def segment_lengths(config: RunConfig) -> tuple[int, int]:
    """H and L in control steps: ``null`` is a whole episode of the task."""
    horizon = tasks.horizon(config.env.id)
    segment, judged = config.rollout.segment, config.rollout.judged
    return horizon if segment is None else segment, horizon if judged is None else judged


def _require(allowed: bool, key: str, what: str, value: object, known: Iterable[str] = ()) -> None:
    if not allowed:
        raise _refused(key, what, value, known)


def _refused(key: str, what: str, value: object, known: Iterable[str] = ()) -> UserError:
    return UserError(f"{key} must be {what}, got {show(value)}{did_you_mean(str(value), known)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


# Converting


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
        learner = OmegaConf.select(own, "algo.learner", default="sail")
        config = OmegaConf.to_object(OmegaConf.merge(_schema(learner if learner in RUNS else "sail"), values))
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
        raise _refused(key, what, value) from error
    if not isinstance(config, RunConfig):
        raise TypeError(f"expected a Config, composed a {type(config).__name__}")
    validate(config)
    return config


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain nested dictionaries, lists and scalars."""
    return asdict(config)


def to_yaml(config: RunConfig) -> str:
    """The configuration as YAML that composes to the same configuration again."""
    import yaml

    text: str = yaml.safe_dump(to_dict(config), sort_keys=False)
    return text


def run_id(config: RunConfig) -> str:
    """Eight hexadecimal digits that stand for everything that changes the numbers of a run but its seed."""
    numbers = {key: value for key, value in to_dict(config).items() if key not in NUMBERLESS}
    if (policy := reference_place(config)) is not None:
        # What is in the reference changes the numbers, not where it lies; its description holds a checksum.
        numbers["algo"]["reference"] = hashlib.sha256(policy.read_bytes()).hexdigest()
    if isinstance(config, Config) and config.algo.data is not None:
        numbers["algo"]["data"] = hashlib.sha256(Path(config.algo.data).read_bytes()).hexdigest()
    canonical = json.dumps({"sailctl": __version__, **numbers}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


@cache
def _schema(learner: str) -> DictConfig:
    from omegaconf import OmegaConf

    run = RUNS[learner]
    schema: DictConfig = OmegaConf.structured(run)
    # OmegaConf makes frozen dataclasses read-only, even for the merge that fills them.
    OmegaConf.set_readonly(schema, None)
    for group, kind in get_type_hints(run).items():
        if is_dataclass(kind):
            schema[group] = OmegaConf.structured(kind)
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


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def show(value: object) -> str:
    """``value`` as it is written in YAML or on a command line."""
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, str):
        return repr(value)
    return words[value] if value is None or isinstance(value, bool) else str(value)


def first_line(error: BaseException) -> str:
    """What OmegaConf or Hydra says, without the bookkeeping (full_key, object_type) of its later lines."""
    return str(error).split("\n", 1)[0]


def unknown_key(key: str) -> UserError:
    """The error about a key that does not exist, with the nearest one that does."""
    known = [*leaf_types(), *GROUPS, "experiment"]
    last_words = {name.rpartition(".")[2]: name for name in reversed(known)}
    hint = did_you_mean(key, known)
    if not hint and (near := difflib.get_close_matches(key.rpartition(".")[2], last_words, n=1)):
        hint = f"; did you mean '{last_words[near[0]]}'?"
    return UserError(f"unknown key '{key}'{hint or '; sailctl train --cfg job lists all keys'}")
