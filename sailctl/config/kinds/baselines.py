"""The baselines, learners of Stable-Baselines3 on a true or a learned reward: settings and checks."""

from __future__ import annotations

from dataclasses import dataclass

from sailctl.config.checks import validate_lengths, validate_sessions, validate_widths
from sailctl.config.recorded import ASKING, SEGMENTS, VALUE
from sailctl.config.schema import RULES, Algo, RunConfig
from sailctl.config.settings import needed, setting

LEARNER = "the algorithm underneath: ppo | sac"
QUERY_INTERVAL = "env steps between sessions; a learned reward alone"


@dataclass(frozen=True)
class BaselineConfig(Algo):
    """Settings of both kinds of baseline: what they maximise, and what they ask the teacher for it."""

    learner: str = needed(LEARNER)
    reward: str = setting(
        "true",
        "what it maximises: true (the task's own reward) | model (learned from the teacher's answers)",
        choices=("true", "model"),
    )
    initial_queries: int = setting(
        0, "comparisons put to the teacher in the first session; a learned reward alone", least=0
    )
    queries: int = setting(
        0, "comparisons put to the teacher in each later session; a learned reward alone", least=0
    )
    query_interval: int = setting(10_000, QUERY_INTERVAL, least=1)
    selection: str = setting(
        "uniform",
        "how questions are chosen: uniform | disagreement | entropy | kcenter | kcenter_disagreement | "
        "kcenter_entropy (all but uniform choose among ten times as many)",
        choices=RULES,
    )


@dataclass(frozen=True)
class PPOConfig(BaselineConfig):
    """``conf/algo``, where ``learner`` is ``ppo``: PPO of Stable-Baselines3 on a true or a learned reward."""

    learner: str = setting("ppo", LEARNER)
    learning_starts: int = setting(
        0,
        "env steps before the first session, in which the policy only acts; a learned reward alone",
        least=0,
    )
    envs: int = setting(8, "episodes that run side by side", least=1)
    steps: int = setting(256, "control steps of each between two updates", least=1)
    batch: int = setting(64, "samples of a gradient step", least=1)
    epochs: int = setting(10, "passes over the samples of an update", least=1)
    lr: float = setting(0.0003, "learning rate", above=0)
    anneal: bool = setting(True, "decay the learning rate linearly to 0 over the run")
    gae_lambda: float = setting(0.95, "of generalised advantage estimation", above=0, most=1)
    clip: float = setting(0.2, "the ratio of new to old policy counts within 1 +- this", above=0)
    entropy: float = setting(0.0, "weight of the entropy bonus", least=0)
    value: float = setting(0.5, "weight of the value loss", least=0)
    max_grad_norm: float = setting(0.5, "gradients are clipped to this norm", above=0)
    normalise_reward: bool = setting(True, "divide rewards by the running deviation of the discounted return")
    reference: str = setting(
        "initial",
        "initial (start untrained) | weak | medium | expert | a run directory or policy folder: start "
        "from it",
    )


@dataclass(frozen=True)
class SACConfig(BaselineConfig):
    """``conf/algo``, where ``learner`` is ``sac``: SAC of Stable-Baselines3 on a true or a learned reward."""

    learner: str = setting("sac", LEARNER)
    query_interval: int = setting(20_000, QUERY_INTERVAL, least=1)
    learning_starts: int = setting(
        10_000, "env steps of uniformly drawn actions, without an update, at the start", least=0
    )
    pretrain: int = setting(
        0,
        "env steps after those in which novel states are sought instead of a reward; a learned reward alone",
        least=0,
    )
    relabel: bool = setting(
        True,
        "rewards of the whole replay buffer are computed anew after each session (false: after the first "
        "alone); a learned reward alone",
    )
    envs: int = setting(4, "episodes that run side by side", least=1)
    interval: int = setting(
        1000, "env steps of an iteration; sessions and evaluations come at its end", least=1
    )
    hidden: list[int] = setting([256, 256], "widths of the hidden layers of actor and critics")
    updates: float = setting(1.0, "gradient steps per env step", above=0)
    batch: int = setting(256, "samples of a gradient step", least=1)
    lr: float = setting(0.0003, "learning rate of actor, critics and temperature", above=0)
    tau: float = setting(0.005, "update rate of the target networks", above=0, most=1)
    target_every: int = setting(1, "gradient steps between two such times", least=1)
    entropy: float = setting(
        1.0, "temperature at the start, the weight of the entropy; it is learned", above=0
    )
    gamma: float = setting(
        0.0, "weight of KL(reference || actor) per state, before squashing; 0 is no penalty", least=0
    )
    reference_interval: int = setting(
        50_000,
        "env steps between snapshots of the actor as the new reference of the KL; 0 keeps the first for ever",
        least=0,
    )
    natural_kl: float | None = setting(
        None,
        "the actor takes steps of the natural gradient of at most this KL, in nats per state before "
        "squashing; null: Adam with algo.lr",
        above=0,
    )


@dataclass(frozen=True)
class BaselineRun(RunConfig):
    """A whole run of a baseline."""

    algo: PPOConfig | SACConfig

    def unread(self) -> tuple[str, ...]:
        """All that is asked, where the reward is the true one; else what labels of segments alone need."""
        if self.algo.reward == "true":
            return (*ASKING, *SEGMENTS, "oracle.*", "reward.*")
        lengths = ("rollout.[!sl]*", "rollout.start_fraction", "env.value_horizon")
        return (*lengths, *VALUE, "reward.bounded", "reward.cut")

    def check(self) -> None:
        """Refuse sessions that cannot be held."""
        if self.algo.reward == "model":
            validate_lengths(self)
            validate_sessions(self, self.algo.initial_queries, self.algo.queries)


@dataclass(frozen=True)
class PPORun(BaselineRun):
    """A whole run of a baseline that is built on PPO."""

    kind = "ppo"
    algorithm = "sailctl.algorithms.ppo:PPOBaseline"
    network = "ppo"
    algo: PPOConfig

    def unread(self) -> tuple[str, ...]:
        """As of every baseline; and on the true reward nothing waits for a session."""
        start = ("algo.learning_starts",) if self.algo.reward == "true" else ()
        return (*start, *super().unread())

    def check(self) -> None:
        """Refuse what PPO cannot do."""
        super().check()
        algo, policy = self.algo, self.policy
        whole = algo.envs * algo.steps
        self.require("algo.batch", algo.batch >= 2, "at least 2 with PPO, which standardises them")
        self.require("algo.batch", algo.batch <= whole, f"at most algo.envs * algo.steps = {whole}")
        self.require("policy.kind", policy.kind == "mlp", "mlp with PPO")
        self.require("policy.learn_std", policy.learn_std, "true with PPO")


@dataclass(frozen=True)
class SACRun(BaselineRun):
    """A whole run of a baseline that is built on SAC."""

    kind = "sac"
    algorithm = "sailctl.algorithms.sac:SACBaseline"
    algo: SACConfig

    def unread(self) -> tuple[str, ...]:
        """As of every baseline, and of the policy; on the true reward nothing is relabelled."""
        relabel = ("algo.relabel",) if self.algo.reward == "true" else ()
        return ("policy.[!i]*", *relabel, *super().unread())

    def check(self) -> None:
        """Refuse what SAC cannot do."""
        super().check()
        algo = self.algo
        validate_widths(self, "algo.hidden")
        before = f"above algo.learning_starts={algo.learning_starts}, before which nothing is learned"
        self.require("env_steps", self.env_steps > algo.learning_starts, before)
        steps, every = algo.envs * algo.updates, algo.target_every
        known = f"such that algo.envs={algo.envs} times it is a multiple of algo.target_every={every}"
        self.require("algo.updates", steps >= 1 and steps % every == 0, known)
        pretrains = algo.pretrain == 0 or algo.reward == "model"
        self.require("algo.pretrain", pretrains, "0 with algo.reward=true")
