"""SAIL on forked segments, its designs and their limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sailctl.config.algorithms import AlgoConfig
from sailctl.config.schema import RunConfig
from sailctl.core import tasks


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
        self.require("algo.responses", algo.responses != "actions", "segments or data with this algorithm")
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
            self.require("algo.rho", algo.rho == 0, f"0 {ranked}: its bound is one of pairs")
            plain = algo.queries is None or algo.selection == "uniform"
            self.require("algo.selection", plain, f"uniform {ranked}")
        self.require("algo.rho", algo.rho < 0.5, "below 0.5, where no answer would mean anything")
