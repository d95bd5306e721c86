"""SAIL on single actions, and its limits: settings and checks."""

from __future__ import annotations

from dataclasses import dataclass

from sailctl.config.checks import validate_sessions, validate_widths
from sailctl.config.recorded import ASKING, SEGMENTS, VALUE
from sailctl.config.sail import SAILConfig
from sailctl.config.schema import RULES, RunConfig
from sailctl.config.settings import setting
from sailctl.core import tasks


@dataclass(frozen=True)
class ActionsConfig(SAILConfig):
    """``conf/algo``, where ``responses`` is ``actions``: SAIL on actions, labelled by a learned value."""

    responses: str = setting(
        "actions",
        "what is compared: actions (drawn in remembered states, labelled by a learned value); for "
        "segments take the algorithm of this name with _segments behind it",
        choices=("actions",),
    )
    reward: str = setting(
        "model",
        "what the value is of: model (a reward learned from the teacher's answers) | teacher (its own "
        "reward of each step: an upper bound, no learning from preferences)",
        choices=("model", "teacher"),
    )
    beta: float = setting(
        0.3,
        "scale of the pair score h; the larger, the nearer to the reference a label is satisfied",
        above=0,
    )
    c: float = setting(
        0.3, "weight of the gradient through what is sampled (T2); 1 is exact, 0 leaves it out", least=0
    )
    gradient: str = setting(
        "pathwise",
        "how T1 and T2 are estimated: pathwise (through the actions, by the slope of the value) | score "
        "(by log-probabilities alone); the same in expectation",
        choices=("pathwise", "score"),
    )
    actions: int = setting(2, "K, actions that are drawn in a state and compared, all pairs of them", least=2)
    comparison: str = setting(
        "pairs",
        "how: pairs | ranking (all K at once, by Plackett-Luce; algo.gradient=score alone)",
        choices=("pairs", "ranking"),
    )
    kappa: float = setting(
        1.0,
        "softness of the labels, in units of the mean difference of two values; 0 names the better action "
        "(algo.gradient=score alone)",
        least=0,
    )
    doubt: float = setting(
        1.0,
        "extra label temperature of a state, in units of how far the two critics differ about its pairs; "
        "0 is none",
        least=0,
    )
    pessimism: float = setting(
        2.0,
        "the value is the mean of the two critics minus this times half their difference: 1 is the smaller "
        "of the two, 0 the mean",
        least=0,
    )
    baseline: str = setting(
        "leave_one_out",
        "subtracted from F where c weighs it: leave_one_out | none (algo.gradient=score alone)",
        choices=("leave_one_out", "none"),
    )
    reference_interval: int = setting(
        100,
        "actor updates between snapshots of the policy as the new reference; 0 keeps the reference for ever",
        least=0,
    )
    average: float = setting(
        0.005,
        "update rate of the moving average of the policy's parameters, which is evaluated and saved; 1 is "
        "the policy itself",
        above=0,
        most=1,
    )
    least_std: float = setting(
        0.2,
        "least standard deviation of the noise of executed actions, in policy units",
        above=0,
    )
    final_std: float = setting(
        0.05,
        "least standard deviation of the policy at the end of the run; it falls linearly from least_std",
        above=0,
    )
    early_std: float = setting(
        0.3,
        "both of these at the start of the run; they decay to their usual values over algo.settle env steps",
        above=0,
    )
    early_correlation: float = setting(
        0.8,
        "correlation of the action noise of neighbouring steps at the start of the run; it decays to 0 over "
        "algo.settle env steps",
        least=0,
    )
    settle: int = setting(
        50_000, "env steps over which early_std and early_correlation decay; 0 uses neither", least=0
    )
    short_episodes: float = setting(
        1.0,
        "in every second environment episodes are cut at this share of the time limit, but not below "
        "algo.window, so that the states in which episodes start are seen often; 1 cuts none",
        above=0,
        most=1,
    )
    initial_queries: int = setting(200, "comparisons put to the teacher in the first session", least=0)
    queries: int = setting(50, "comparisons put to the teacher in each later session", least=0)
    query_interval: int = setting(5000, "env steps between sessions", least=1)
    selection: str = setting(
        "uniform",
        "how questions are chosen: uniform | disagreement | entropy | kcenter | kcenter_disagreement | "
        "kcenter_entropy (all but uniform choose among ten times as many)",
        choices=RULES,
    )
    window: int = setting(50, "control steps of a segment that the teacher is shown", least=1)
    recent: int | None = setting(
        20_000,
        "each question compares a segment of the latest so many env steps with one of the whole buffer, so "
        "that the answers tell whether behaviour has become better; null: both are of the whole buffer",
        least=1,
    )
    envs: int = setting(20, "episodes that run side by side", least=1)
    noiseless: float = setting(
        0.25,
        "share of the episodes in which the policy takes its mean action, as in evaluations",
        least=0,
        most=1,
    )
    interval: int = setting(1000, "env steps of an iteration", least=1)
    learning_starts: int = setting(
        5000,
        "env steps before the first session and the first update: uniformly drawn actions (but in the "
        "noiseless episodes), or those of the reference",
        least=0,
    )
    warmup: int = setting(1000, "updates of the critic alone before the first of the actor", least=0)
    updates: float = setting(0.5, "updates of the critic per env step", above=0)
    delay: int = setting(2, "updates of the critic for each one of the actor", least=1)
    batch: int = setting(256, "states of an update", least=1)
    lr: float = setting(0.001, "learning rate of the actor (Adam)", above=0)
    anneal: bool = setting(True, "decay the learning rate linearly to 0 over the run")
    hidden: list[int] = setting([128, 128], "widths of the hidden layers of the critic")
    critic_lr: float = setting(0.001, "learning rate of the critic (Adam)", above=0)
    steps: int = setting(3, "n of the n-step targets", least=1)
    tau: float = setting(0.02, "update rate of the target networks", above=0, most=1)


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
        validate_sessions(self, algo.initial_queries, algo.queries)
        self.require("algo.rho", algo.rho < 0.5, "below 0.5, where no answer would mean anything")
        if algo.gradient == "pathwise":
            slope = "with algo.gradient=pathwise, which needs labels that have a slope"
            self.require("algo.kappa", algo.kappa > 0, f"above 0 {slope}")
            self.require("algo.comparison", algo.comparison == "pairs", f"pairs {slope}")
        if algo.kappa == 0:
            self.require("algo.doubt", algo.doubt == 0, "0 with algo.kappa=0, which makes labels hard")
        if algo.comparison == "ranking":
            of_rankings = algo.rho == 0 or algo.worst_case == "contaminated"
            ranked = "contaminated with algo.comparison=ranking: the others are bounds of pairs"
            self.require("algo.worst_case", of_rankings, ranked)
        validate_widths(self, "algo.hidden")
        self.require(
            "algo.early_correlation", algo.early_correlation < 1, "below 1, where noise never changes"
        )
        self.require("algo.window", algo.window <= horizon, f"at most {horizon} (an episode)")
        self.require("env.discount", self.env.discount < 1, "below 1: the value of an action has no end")
