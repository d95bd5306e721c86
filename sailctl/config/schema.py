"""One dataclass per config group: the schema of every run. Values live in ``conf/``, types here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class EnvConfig:
    """``conf/env``: the task, and the segment lengths and the look ahead that suit it."""

    id: str
    segment_length: int
    label_horizon: int
    value_horizon: float
    discount: float


@dataclass(frozen=True)
class RolloutConfig:
    """``conf/rollout``: prompts, forks and lengths (control steps) of the compared segments."""

    prompts: int
    forks: int
    segment_length: int | None
    label_horizon: int | None
    start_fraction: float
    restart: float
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
    activation: str
    lr: float
    epochs: int
    target_accuracy: float
    batch: int
    steps: int | None
    thin: int
    bounded: bool
    questions: str
    cut: float
    start: int
    value_horizon: float
    gae_lambda: float
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
    """``conf/algo``, where it names no other kind: SAIL on segments, its reference and optimiser."""

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
    reference_interval: int
    observe: int | None
    optimiser: str
    lr: float
    anneal: bool
    target_kl: float | None
    clip: float | None
    epochs: int
    minibatches: int
    max_grad_norm: float | None
    iterations: int | None

    @property
    def simulates(self) -> bool:
        """Whether the policy is rolled out at all: it is not when every sample comes from a data set."""
        return self.responses == "segments" and self.w > 0

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
class ActionsConfig:
    """``conf/algo``, where ``responses`` is ``actions``: SAIL on actions, labelled by a learned value."""

    name: str
    responses: str
    reward: str
    beta: float
    c: float
    gradient: str
    actions: int
    comparison: str
    kappa: float
    baseline: str
    rho: float
    worst_case: str
    gamma: float
    kl: str
    radius: float | None
    reference: str
    reference_interval: int
    observe: int | None
    average: float
    least_std: float
    early_std: float
    settle: int
    initial_queries: int
    queries: int
    query_interval: int
    selection: str
    window: int
    recent: int | None
    envs: int
    noiseless: float
    interval: int
    learning_starts: int
    warmup: int
    updates: float
    delay: int
    batch: int
    lr: float
    anneal: bool
    max_grad_norm: float | None
    hidden: list[int]
    critic_lr: float
    steps: int
    tau: float

    simulates: ClassVar[bool] = True
    iterations: ClassVar[None] = None


@dataclass(frozen=True)
class PPOConfig:
    """``conf/algo``, where ``learner`` is ``ppo``: PPO of Stable-Baselines3 on a true or a learned reward."""

    name: str
    learner: str
    reward: str
    initial_queries: int
    queries: int
    query_interval: int
    selection: str
    learning_starts: int
    envs: int
    steps: int
    batch: int
    epochs: int
    lr: float
    anneal: bool
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
    initial_queries: int
    queries: int
    query_interval: int
    selection: str
    learning_starts: int
    pretrain: int
    relabel: bool
    envs: int
    interval: int
    hidden: list[int]
    updates: float
    batch: int
    lr: float
    tau: float
    target_every: int
    entropy: float
    gamma: float
    reference_interval: int

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
    """``conf/logger``: how a run is written and watched; nothing here changes its numbers."""

    wandb: str
    project: str
    tensorboard: bool
    progress: bool
    sweep: str | None
    checkpoint: float
    fresh: bool
    any_version: bool


@dataclass(frozen=True)
class RunConfig:
    """A whole run of any algorithm: what the logger, the run record and the comparison know."""

    algo: AlgoConfig | ActionsConfig | PPOConfig | SACConfig
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
    """A whole run of SAIL, of one of its variants or limits, on segments."""

    algo: AlgoConfig


@dataclass(frozen=True)
class ActionsRun(RunConfig):
    """A whole run of SAIL, or of one of its variants or limits, on single actions."""

    algo: ActionsConfig


@dataclass(frozen=True)
class PPORun(RunConfig):
    """A whole run of a baseline that is built on PPO."""

    algo: PPOConfig


@dataclass(frozen=True)
class SACRun(RunConfig):
    """A whole run of a baseline that is built on SAC."""

    algo: SACConfig


RUNS: dict[str, type[RunConfig]] = {"segments": Config, "actions": ActionsRun, "ppo": PPORun, "sac": SACRun}
"""The kinds of run, by what ``kind_of`` says of ``algo``."""


FORMS = ("segments", "actions")
"""Kinds of run that are SAIL: ``algo.responses`` tells them apart."""


def kind_of(responses: str | None, learner: str | None) -> str:
    """The kind of run, a key of ``RUNS``, by ``algo.responses`` and ``algo.learner`` (None: no such key)."""
    if learner in RUNS:
        return learner
    return "actions" if responses == "actions" else "segments"


GROUPS = ("algo", "env", "oracle", "rollout", "policy", "reward", "evaluation", "logger")
"""Config groups, each with its dataclass. (``conf/experiment`` holds values of any of them.)"""

LEVELS = ("weak", "medium", "expert")
"""Reference policies that ship with the suite."""

NUMBERLESS = ("logger", "out", "threads", "seed")
"""Top-level keys left out of ``run_id``: they do not change the numbers, or (seed) are named beside it."""

MODEL_RULES = ("disagreement", "entropy", "kcenter_disagreement", "kcenter_entropy")
"""Rules of ``algo.selection`` that look at a reward model."""


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain nested dictionaries, lists and scalars."""
    return asdict(config)
