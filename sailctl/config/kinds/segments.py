"""SAIL on forked segments, its designs and their limits: settings and checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sailctl.config.checks import validate_rollout
from sailctl.config.sail import SAILConfig
from sailctl.config.schema import MODEL_RULES, RULES, RunConfig
from sailctl.config.settings import setting
from sailctl.core import tasks


@dataclass(frozen=True)
class AlgoConfig(SAILConfig):
    """``conf/algo``, where it names no other kind: SAIL on segments, its reference and optimiser."""

    beta: float = setting(
        1.0,
        "scale of the pair score h; the larger, the nearer to the reference a label is satisfied",
        above=0,
    )
    c: float = setting(
        0.3,
        "weight of the gradient through what is sampled (T2 for responses, and that of self-given "
        "labels); 1 is exact, 0 leaves it out",
        least=0,
    )
    baseline: str = setting(
        "leave_one_out",
        "subtracted from F where c weighs it: leave_one_out | none",
        choices=("leave_one_out", "none"),
    )
    responses: str = setting(
        "segments",
        "where the segments of the design (DDP, DPP, DPR) come from: segments (rolled out by the policy) | "
        "data (the data set)",
        choices=("segments", "data"),
    )
    labels: str = setting(
        "teacher",
        "who labels the design's pairs: teacher (with responses=data: the recorded labels) | reward_model | "
        "policy (drawn from sigma(h))",
        choices=("teacher", "reward_model", "policy"),
    )
    w: float = setting(
        1.0,
        "weight of the design's pairs; 1 - w is the weight of the data set with its recorded labels",
        least=0,
        most=1,
    )
    data: str | None = setting(None, "file of preferences, as `sailctl collect` makes it; null is none")
    queries: int | None = setting(
        None, "comparisons of an iteration that are put to the teacher; null is all, 0 none", least=0
    )
    selection: str = setting(
        "uniform",
        "which ones: uniform | disagreement | entropy | kcenter | kcenter_disagreement | kcenter_entropy",
        choices=RULES,
    )
    reference_interval: int = setting(
        1,
        "iterations between snapshots of the policy as the new reference; 0 keeps the reference for ever",
        least=0,
    )
    optimiser: str = setting("adam", "adam | sgd", choices=("adam", "sgd"))
    lr: float = setting(0.0003, "learning rate", above=0)
    anneal: bool = setting(
        False,
        "the learning rate falls in proportion to what is left of the run: env steps, labels or "
        "iterations, whichever is nearest to its end",
    )
    target_kl: float | None = setting(
        0.01,
        "KL per visited state that an iteration is to move the policy by: the learning rate follows, and "
        "passes end at twice as much; null is a fixed learning rate",
        above=0,
    )
    clip: float | None = setting(
        None,
        "nats by which an iteration may move the log-probability of a step: its gradient ends there, the "
        "way back is free; null is no bound",
        above=0,
    )
    epochs: int = setting(5, "passes over each iteration's labelled pairs", least=1)
    minibatches: int = setting(4, "gradient steps in a pass; must divide rollout.prompts", least=1)
    iterations: int | None = setting(
        None, "the run ends after so many; null: with env_steps or the label budget", least=1
    )

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
class Config(RunConfig):
    """A whole run of SAIL, of one of its variants or limits, on segments."""

    kind = "segments"
    algorithm = "sailctl.algorithms.segments:SegmentSAIL"
    algo: AlgoConfig

    def unread(self) -> tuple[str, ...]:
        """Without a reward model no more than what the first fit would take of one."""
        return () if self.algo.models_reward else ("env.discount", "reward.[!i]*")

    def check(self) -> None:
        """Refuse what lacks a data set, a limit, or another group's settings."""
        algo, rollout, simulates = self.algo, self.rollout, self.algo.simulates
        validate_rollout(self)
        forks = not simulates or rollout.start_fraction == 1 or tasks.forks_anywhere(self.env.id)
        starts = f"1 with {self.env.id}, which can be forked at episode starts alone"
        self.require("rollout.start_fraction", forks, starts)
        divisor = f"a divisor of rollout.prompts={rollout.prompts}"
        self.require("algo.minibatches", rollout.prompts % algo.minibatches == 0, divisor)
        data = f"a data set of preferences with algo={algo.name}; `sailctl collect` makes one"
        self.require("algo.data", algo.data is not None or not algo.needs_data, data)
        file = algo.data is None or Path(algo.data).is_file()
        self.require("algo.data", file, "an existing file, as `sailctl collect` makes it")
        endless = "a number: this run simulates nothing, so env_steps cannot end it"
        self.require("algo.iterations", algo.iterations is not None or simulates, endless)
        asks = algo.queries != 0
        if algo.labels == "reward_model":
            rolled_out = algo.responses == "segments"
            self.require("algo.responses", rolled_out, "segments with algo.labels=reward_model")
            nothing = "above 0 without algo.data: the reward model would see no label"
            self.require("algo.queries", asks or algo.data is not None, nothing)
        elif simulates and algo.labels == "teacher":
            self.require("algo.queries", asks, "above 0 with algo.labels=teacher")
        if rollout.pairing == "ranked":
            ranked = "with rollout.pairing=ranked"
            self.require("algo.labels", algo.labels == "teacher", f"teacher {ranked}")
            of_rankings = algo.rho == 0 or algo.worst_case == "contaminated"
            bounds = f"contaminated {ranked}: the others are bounds of pairs"
            self.require("algo.worst_case", of_rankings, bounds)
            plain = algo.queries is None or algo.selection == "uniform"
            self.require("algo.selection", plain, f"uniform {ranked}")
        self.require("algo.rho", algo.rho < 0.5, "below 0.5, where no answer would mean anything")
