"""The baselines: learners of Stable-Baselines3, on a true or a learned reward."""

from __future__ import annotations

from dataclasses import dataclass

from sailctl.config.algorithms import PPOConfig, SACConfig
from sailctl.config.checks import validate_sessions, validate_widths
from sailctl.config.recorded import ASKING, SEGMENTS, VALUE
from sailctl.config.schema import RunConfig


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
        """Refuse another reward, and sessions that cannot be held."""
        self.require("algo.reward", self.algo.reward != "teacher", "true or model with this algorithm")
        if self.algo.reward == "model":
            validate_sessions(self, self.algo)


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
        """As of every baseline, and statistics of observations; on the true reward nothing is relabelled."""
        relabel = ("algo.relabel",) if self.algo.reward == "true" else ()
        return ("policy.normalise", *relabel, *super().unread())

    def check(self) -> None:
        """Refuse what SAC cannot do."""
        super().check()
        algo = self.algo
        validate_widths(self, "algo.hidden")
        self.require("algo.entropy", algo.entropy > 0, "above 0 with SAC")
        before = f"above algo.learning_starts={algo.learning_starts}, before which nothing is learned"
        self.require("env_steps", self.env_steps > algo.learning_starts, before)
        steps, every = algo.envs * algo.updates, algo.target_every
        known = f"such that algo.envs={algo.envs} times it is a multiple of algo.target_every={every}"
        self.require("algo.updates", steps >= 1 and steps % every == 0, known)
        pretrains = algo.pretrain == 0 or algo.reward == "model"
        self.require("algo.pretrain", pretrains, "0 with algo.reward=true")
