"""One dataclass per config group, and one for a run: types, defaults, ranges and meanings.

``conf/`` holds what differs from the defaults, and what a run of no group has.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import Any, ClassVar

from sailctl.config.settings import needed, setting
from sailctl.core.words import require


@dataclass(frozen=True)
class Algo:
    """What every algorithm says of itself, as a setting or not."""

    name: str = needed("names the run directory and the group of runs")

    @property
    def reference(self) -> str:
        """Where training starts: ``initial``, a level of reference policies, or a folder."""
        return "initial"

    @property
    def simulates(self) -> bool:
        """Whether it acts in the task at all."""
        return True

    @property
    def iterations(self) -> int | None:
        """After so many the run ends; None: with ``env_steps``, or the label budget."""
        return None


@dataclass(frozen=True)
class EnvConfig:
    """``conf/env``: the task, and the segment lengths and the look ahead that suit it."""

    id: str = needed("task, with its version")
    segment_length: int = setting(25, "H, control steps of a segment whose log-probabilities count")
    label_horizon: int = setting(100, "L >= H, control steps the teacher judges")
    value_horizon: float = setting(
        2.0, "seconds that a learned label looks ahead where it does (reward.value_horizon)", least=0
    )
    discount: float = setting(
        0.99,
        "of future rewards, per control step, in what is learned of values (on actions, and by the "
        "baselines)",
        above=0,
        most=1,
    )


@dataclass(frozen=True)
class RolloutConfig:
    """``conf/rollout``: prompts, forks and lengths (control steps) of the compared segments."""

    prompts: int = setting(64, "prompts of an iteration, each one a simulator state", least=1)
    forks: int = setting(
        2,
        "segments rolled out from each prompt (K); K (K - 1) / 2 labels for pairs, K - 1 for a ranking",
        least=2,
    )
    segment_length: int | None = setting(
        None, "H, control steps whose log-probabilities count; null is a whole episode"
    )
    label_horizon: int | None = setting(
        None, "L >= H, control steps the teacher judges; null is a whole episode"
    )
    start_fraction: float = setting(
        0.5,
        "share of prompts that are episode starts; the others are states along on-policy chains",
        least=0,
        most=1,
    )
    restart: float = setting(
        0.0,
        "chance that a chain begins a new episode after an iteration, wherever it stands",
        least=0,
        most=1,
    )
    pairing: str = setting(
        "forked",
        "forked: every pair of segments of a prompt | ranked: all segments of a prompt at once | "
        "unrelated: segments of different prompts",
        choices=("forked", "unrelated", "ranked"),
    )


@dataclass(frozen=True)
class OracleConfig:
    """``conf/oracle``: the synthetic teacher and its label budget."""

    inverse_temperature: float | None = setting(
        None,
        "beta_T of Bradley-Terry on true returns: the larger, the surer; null always names the higher return",
        above=0,
    )
    normalise: bool = setting(
        False, "divide differences of returns by their running standard deviation before inverse_temperature"
    )
    discount: float = setting(
        1.0,
        "weight of a reward falls by this factor for each step before the end of the judged window; 1 "
        "weighs all alike",
        above=0,
        most=1,
    )
    mistake: float = setting(0.0, "share of answers that are flipped", least=0, most=1)
    skip: float = setting(
        0.0,
        "pairs are skipped whose better return is below this share of what an average window earns",
        least=0,
    )
    equal: float = setting(
        0.0, "returns that differ by less than this share of what an average window earns are a tie", least=0
    )
    tie_margin: float = setting(0.0, "returns that differ by no more than this are a tie", least=0)
    rho: float = setting(
        0.0,
        "an adversary moves the probability of each answer by up to this much against the current policy",
        least=0,
        most=1,
    )
    bpref_compat: bool = setting(
        False,
        "as the public B-Pref code: skip and equal are squared after their first threshold, equal returns "
        "favour the first segment",
    )
    budget: int | None = setting(
        None,
        "labels the teacher gives in all; when they are spent the run ends (a baseline: goes on by what "
        "it learned); null is no limit",
        least=1,
    )


@dataclass(frozen=True)
class RewardConfig:
    """``conf/reward``: the ensemble of learned rewards, where an algorithm uses one."""

    members: int = setting(3, "networks of the ensemble", least=1)
    hidden: list[int] = setting([64, 64], "widths of the hidden layers of each network")
    activation: str = setting(
        "leaky_relu", "of the hidden layers: tanh | leaky_relu (as B-Pref's)", choices=("tanh", "leaky_relu")
    )
    lr: float = setting(0.001, "learning rate (Adam)", above=0)
    epochs: int = setting(
        50, "passes at most over all labels known so far, each time new ones have come", least=1
    )
    target_accuracy: float = setting(
        0.97,
        "passes end early once the members explain more than this share of the labels; 1 never does",
        least=0,
        most=1,
    )
    batch: int = setting(64, "pairs in a gradient step", least=1)
    steps: int | None = setting(
        200, "gradient steps of a fit, on labels drawn from all known so far; null: whole passes", least=1
    )
    thin: int = setting(
        5,
        "a gradient step looks at each so many-th control step of a segment, which stands for its "
        "neighbours; 1 looks at all",
        least=1,
    )
    bounded: bool = setting(False, "rewards from -1 to 1, by a tanh; a baseline's always are")
    questions: str = setting(
        "forked",
        "what the teacher compares to teach the ensemble: forked (pairs that share a prompt) | unrelated "
        "(pairs of different prompts, which tell good states from bad ones)",
        choices=("forked", "unrelated"),
    )
    cut: float = setting(
        1.0,
        "share of the segments in unrelated questions, or in those about actions, that are cut at a "
        "random step: answers about unlike lengths tell what one more step is worth, which equal lengths "
        "leave open",
        least=0,
        most=1,
    )
    start: int = setting(
        0,
        "env steps in which the ensemble (and its value) only learn, before the first of their labels "
        "moves the policy",
        least=0,
    )
    value_horizon: float = setting(
        0.0,
        "the ensemble's labels count what follows a segment too, by a learned value of the state in which "
        "it ends: time constant of its discount, in seconds; 0 looks no further",
        least=0,
    )
    gae_lambda: float = setting(
        0.95, "lambda of that value: 0 trusts it after one step, 1 after the whole segment", least=0, most=1
    )
    inverse_temperature: float | None = setting(
        1.0,
        "beta_T of the labels that the ensemble gives, on its own scale; null always names the higher reward",
        above=0,
    )


@dataclass(frozen=True)
class PolicyConfig:
    """``conf/policy``: the Gaussian policy."""

    kind: str = setting(
        "mlp",
        "mlp: tanh network | relu: ReLU network | linear: mean linear in fixed features (log-linear when "
        "learn_std is false) | squashed: tanh of a ReLU network, as SAC acts",
        choices=("mlp", "relu", "linear", "squashed"),
    )
    hidden: list[int] = setting([64, 64], "widths of the hidden layers of a policy that is not linear")
    features: int = setting(
        0, "random Fourier features of a linear policy beside the observation itself", least=0
    )
    initial_std: float = setting(
        0.2, "standard deviation of the actions at the start; 1 is half the actuator range", above=0
    )
    learn_std: bool = setting(True, "learn the (state-independent) standard deviation")
    normalise: bool = setting(
        True, "normalise observations by running statistics that are part of the policy"
    )


@dataclass(frozen=True)
class EvaluationConfig:
    """``conf/evaluation``: how the true return is measured."""

    every: int = setting(
        100_000, "env steps between evaluations; the last policy is always evaluated", least=1
    )
    iterations: int = setting(10, "iterations between evaluations where nothing is simulated", least=1)
    episodes: int = setting(10, "episodes of an evaluation, deterministic actions, true return", least=1)
    seed: int = setting(12_345, "seed of the evaluation's initial states, the same for every run", least=0)


@dataclass(frozen=True)
class LoggerConfig:
    """``conf/logger``: how a run is written and watched; nothing here changes its numbers."""

    wandb: str = setting(
        "offline",
        "Weights & Biases: offline | online | disabled; where nothing is said, WANDB_MODE",
        choices=("offline", "online", "disabled"),
    )
    project: str = setting("sailctl", "W&B project; where nothing is said, WANDB_PROJECT")
    tensorboard: bool = setting(False, "also write TensorBoard event files into the run directory")
    progress: bool = setting(True, "progress bar, shown on a terminal only")
    sweep: str | None = setting(
        None, "folder in out for the runs of one sweep or suite, by name; null puts them into out itself"
    )
    checkpoint: float = setting(
        60,
        "seconds between checkpoints (more where they would cost a hundredth of the run), from which a "
        "run that was stopped goes on; 0 keeps one after every iteration",
        least=0,
    )
    fresh: bool = setting(
        False, "a new run even where the same one is there already, in a folder with a number behind its name"
    )
    any_version: bool = setting(
        False,
        "go on with a run that was begun under other versions of sailctl, Python, torch, MuJoCo, NumPy, "
        "Gymnasium or Stable-Baselines3, whose numbers may differ",
    )


@dataclass(frozen=True)
class RunConfig:
    """A whole run of any algorithm: what the logger, the run record and the comparison know.

    A kind of algorithm is a class below this one in a file of ``kinds``: it has a name, the type of its
    settings, and the place of what does the work.
    """

    kind: ClassVar[str]
    """Its name: what ``algo.learner`` says, or ``algo.responses`` where that is not there."""
    algorithm: ClassVar[str]
    """Its ``Algorithm``, ``module:Class``, imported where it is made: some libraries are slow to load."""
    network: ClassVar[str] = "mlp"
    """The file of ``conf/policy`` that is used where none is asked for."""

    algo: Algo
    env: EnvConfig
    oracle: OracleConfig
    rollout: RolloutConfig
    policy: PolicyConfig
    reward: RewardConfig
    evaluation: EvaluationConfig
    logger: LoggerConfig
    seed: int = needed("every random draw of the run follows from this", least=0)
    env_steps: int = needed(
        "simulated control steps to train for; all count, continuations too; the run ends with the iteration "
        "that reaches them",
        least=1,
    )
    threads: int = needed("C threads of the simulator; the numbers do not depend on it", least=1)
    out: str = needed("folder that holds the run directories")

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            RUNS[cls.kind] = cls

    def unread(self) -> tuple[str, ...]:
        """Patterns of the settings that a run of this algorithm never reads, whatever their values."""
        return ()

    def check(self) -> None:
        """Refuse what this algorithm cannot do, beyond what holds for all (``checks.validate``)."""

    def reads(self, key: str) -> bool:
        """Whether a run of this algorithm reads the setting."""
        return not any(fnmatchcase(key, pattern) for pattern in self.unread())

    def require(self, key: str, allowed: bool, what: str) -> None:
        """Let pass the value of ``key`` where it is allowed or unread, or say in a ``UserError`` what is."""
        require(allowed or not self.reads(key), key, what, attrgetter(key)(self))


RUNS: dict[str, type[RunConfig]] = {}
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

RULES = ("uniform", "disagreement", "entropy", "kcenter", "kcenter_disagreement", "kcenter_entropy")
"""Values of ``algo.selection``."""
MODEL_RULES = ("disagreement", "entropy", "kcenter_disagreement", "kcenter_entropy")
"""Those that look at a reward model."""

NUMBERLESS = ("logger", "out", "threads", "seed")
"""Top-level keys left out of ``run_id``: they do not change the numbers, or (seed) are named beside it."""


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain nested dictionaries, lists and scalars."""
    return asdict(config)
