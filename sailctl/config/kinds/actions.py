"""SAIL on single actions, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from sailctl.config.algorithms import ActionsConfig
from sailctl.config.checks import validate_sessions, validate_widths
from sailctl.config.recorded import ASKING, SEGMENTS, VALUE
from sailctl.config.schema import RunConfig
from sailctl.core import tasks


@dataclass(frozen=True)
class ActionsRun(RunConfig):
    """A whole run of SAIL, or of one of its variants or limits, on single actions."""

    kind = "actions"
    algorithm = "sailctl.algorithms.actions:ActionSAIL"
    network = "squashed"
    algo: ActionsConfig

    def unread(self) -> tuple[str, ...]:
        """All about segments; with the teacher's own reward all that is asked too."""
        if self.algo.reward == "model":
            return (*SEGMENTS, *VALUE)
        asking = (*(key for key in ASKING if key != "algo.query_interval"), "algo.window", "algo.recent")
        return (*asking, *SEGMENTS, "oracle.*", "reward.*")

    def check(self) -> None:
        """Refuse what does not go together."""
        algo, horizon = self.algo, tasks.horizon(self.env.id)
        self.require("algo.reward", algo.reward != "true", "model or teacher with this algorithm")
        if algo.reward == "model":
            validate_sessions(self, algo)
        self.require("algo.actions", algo.actions >= 2, "at least 2")
        self.require("algo.rho", algo.rho < 0.5, "below 0.5, where no answer would mean anything")
        if algo.gradient == "pathwise":
            slope = "with algo.gradient=pathwise, which needs labels that have a slope"
            self.require("algo.kappa", algo.kappa > 0, f"above 0 {slope}")
            self.require("algo.comparison", algo.comparison == "pairs", f"pairs {slope}")
        if algo.kappa == 0:
            self.require("algo.doubt", algo.doubt == 0, "0 with algo.kappa=0, which makes labels hard")
        if algo.comparison == "ranking":
            self.require(
                "algo.rho", algo.rho == 0, "0 with algo.comparison=ranking: its bound is one of pairs"
            )
        validate_widths(self, "algo.hidden")
        self.require(
            "algo.early_correlation", algo.early_correlation < 1, "below 1, where noise never changes"
        )
        self.require("algo.window", algo.window <= horizon, f"at most {horizon} (an episode)")
        self.require("env.discount", self.env.discount < 1, "below 1: the value of an action has no end")
