"""Settings of each kind of algorithm, ``conf/algo``: types, defaults and meanings."""

from __future__ import annotations

from dataclasses import dataclass

from sailctl.config.settings import needed, setting

MODEL_RULES = ("disagreement", "entropy", "kcenter_disagreement", "kcenter_entropy")
"""Rules of ``algo.selection`` that look at a reward model."""


LEARNER = "the algorithm underneath: ppo | sac"
QUERY_INTERVAL = "env steps between sessions; a learned reward alone"


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
class AlgoConfig(Algo):
    """``conf/algo``, where it names no other kind: SAIL on segments, its reference and optimiser."""

    beta: float = setting(
        1.0, "scale of the pair score h; the larger, the nearer to the reference a label is satisfied"
    )
    c: float = setting(
        0.3,
        "weight of the gradient through what is sampled (T2 for responses, and that of self-given "
        "labels); 1 is exact, 0 leaves it out",
    )
    baseline: str = setting("leave_one_out", "subtracted from F where c weighs it: leave_one_out | none")
    responses: str = setting(
        "segments",
        "where the segments of the design (DDP, DPP, DPR) come from: segments (rolled out by the policy) | "
        "data (the data set)",
    )
    labels: str = setting(
        "teacher",
        "who labels the design's pairs: teacher (with responses=data: the recorded labels) | reward_model | "
        "policy (drawn from sigma(h))",
    )
    w: float = setting(
        1.0, "weight of the design's pairs; 1 - w is the weight of the data set with its recorded labels"
    )
    data: str | None = setting(None, "file of preferences, as `sailctl collect` makes it; null is none")
    queries: int | None = setting(
        None, "comparisons of an iteration that are put to the teacher; null is all, 0 none"
    )
    selection: str = setting(
        "uniform",
        "which ones: uniform | disagreement | entropy | kcenter | kcenter_disagreement | kcenter_entropy",
    )
    rho: float = setting(
        0.0,
        "the true preference may be off by this much from what the labels say: penalty rho |h|; 0 trusts "
        "them",
    )
    worst_case: str = setting(
        "exact",
        "exact: rho |h|, right where rho <= min(P, 1 - P) | clipped: probabilities stay in [0, 1], for a "
        "teacher that is never random",
    )
    gamma: float = setting(0.0, "weight of the KL penalty per visited state; 0 is no penalty")
    kl: str = setting(
        "kl_ref_pi",
        "direction of the KL: kl_ref_pi = KL(reference || policy) | kl_pi_ref = KL(policy || reference)",
    )
    radius: float | None = setting(
        None, "parameters are projected on the ball of this radius after each step; null is no ball"
    )
    reference: str = setting(
        "initial",
        "initial (start untrained) | weak | medium | expert | a run directory or policy folder: start from "
        "it (policy.* is then not read)",
    )
    reference_interval: int = setting(
        1, "iterations between snapshots of the policy as the new reference; 0 keeps the reference for ever"
    )
    observe: int | None = setting(
        None,
        "env steps in which the observation statistics follow what is seen; 0 keeps those of the "
        "reference; null is for ever",
    )
    optimiser: str = setting("adam", "adam | sgd")
    lr: float = setting(0.0003, "learning rate")
    anneal: bool = setting(
        False,
        "the learning rate falls in proportion to what is left of the run: env steps, labels or "
        "iterations, whichever is nearest to its end",
    )
    target_kl: float | None = setting(
        0.01,
        "KL per visited state that an iteration is to move the policy by: the learning rate follows, and "
        "passes end at twice as much; null is a fixed learning rate",
    )
    clip: float | None = setting(
        None,
        "nats by which an iteration may move the log-probability of a step: its gradient ends there, the "
        "way back is free; null is no bound",
    )
    epochs: int = setting(5, "passes over each iteration's labelled pairs")
    minibatches: int = setting(4, "gradient steps in a pass; must divide rollout.prompts")
    max_grad_norm: float | None = setting(1.0, "gradients are clipped to this norm; null is no limit")
    iterations: int | None = setting(
        None, "the run ends after so many; null: with env_steps or the label budget"
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
class ActionsConfig(Algo):
    """``conf/algo``, where ``responses`` is ``actions``: SAIL on actions, labelled by a learned value."""

    responses: str = setting(
        "actions",
        "what is compared: actions (drawn in remembered states, labelled by a learned value); for "
        "segments take the algorithm of this name with _segments behind it",
    )
    reward: str = setting(
        "model",
        "what the value is of: model (a reward learned from the teacher's answers) | teacher (its own "
        "reward of each step: an upper bound, no learning from preferences)",
    )
    beta: float = setting(
        0.3, "scale of the pair score h; the larger, the nearer to the reference a label is satisfied"
    )
    c: float = setting(
        0.3, "weight of the gradient through what is sampled (T2); 1 is exact, 0 leaves it out"
    )
    gradient: str = setting(
        "pathwise",
        "how T1 and T2 are estimated: pathwise (through the actions, by the slope of the value) | score "
        "(by log-probabilities alone); the same in expectation",
    )
    actions: int = setting(2, "K, actions that are drawn in a state and compared, all pairs of them")
    comparison: str = setting(
        "pairs", "how: pairs | ranking (all K at once, by Plackett-Luce; algo.gradient=score alone)"
    )
    kappa: float = setting(
        1.0,
        "softness of the labels, in units of the mean difference of two values; 0 names the better action "
        "(algo.gradient=score alone)",
    )
    doubt: float = setting(
        1.0,
        "extra label temperature of a state, in units of how far the two critics differ about its pairs; "
        "0 is none",
    )
    pessimism: float = setting(
        2.0,
        "the value is the mean of the two critics minus this times half their difference: 1 is the smaller "
        "of the two, 0 the mean",
    )
    baseline: str = setting(
        "leave_one_out",
        "subtracted from F where c weighs it: leave_one_out | none (algo.gradient=score alone)",
    )
    rho: float = setting(
        0.0,
        "the true preference may be off by this much from what the labels say: penalty rho |h|; 0 trusts "
        "them",
    )
    worst_case: str = setting(
        "exact", "exact: rho |h|, right where rho <= min(P, 1 - P) | clipped: probabilities stay in [0, 1]"
    )
    gamma: float = setting(0.0, "weight of the KL penalty per state; 0 is no penalty")
    kl: str = setting(
        "kl_ref_pi",
        "direction of the KL: kl_ref_pi = KL(reference || policy) | kl_pi_ref = KL(policy || reference)",
    )
    radius: float | None = setting(
        None, "parameters are projected on the ball of this radius after each step; null is no ball"
    )
    reference: str = setting(
        "initial",
        "initial (start untrained) | weak | medium | expert | a run directory or policy folder: start from "
        "it (policy.* is then not read)",
    )
    reference_interval: int = setting(
        100,
        "actor updates between snapshots of the policy as the new reference; 0 keeps the reference for ever",
    )
    observe: int | None = setting(
        None,
        "env steps in which the observation statistics follow what is seen; 0 keeps those of the "
        "reference; null is for ever",
    )
    average: float = setting(
        0.005,
        "update rate of the moving average of the policy's parameters, which is evaluated and saved; 1 is "
        "the policy itself",
    )
    least_std: float = setting(0.2, "least standard deviation of an action, in policy units")
    early_std: float = setting(
        0.3,
        "least standard deviation at the start of the run; it decays to least_std over algo.settle env steps",
    )
    early_correlation: float = setting(
        0.8,
        "correlation of the action noise of neighbouring steps at the start of the run; it decays to 0 over "
        "algo.settle env steps",
    )
    settle: int = setting(
        50_000, "env steps over which early_std and early_correlation decay; 0 uses neither"
    )
    initial_queries: int = setting(200, "comparisons put to the teacher in the first session")
    queries: int = setting(50, "comparisons put to the teacher in each later session")
    query_interval: int = setting(5000, "env steps between sessions")
    selection: str = setting(
        "uniform",
        "how questions are chosen: uniform | disagreement | entropy | kcenter | kcenter_disagreement | "
        "kcenter_entropy (all but uniform choose among ten times as many)",
    )
    window: int = setting(50, "control steps of a segment that the teacher is shown")
    recent: int | None = setting(
        20_000,
        "every second question is about segments of the latest so many env steps, so that the reward model "
        "is accurate on current behaviour; null: all questions are about the whole buffer",
    )
    envs: int = setting(20, "episodes that run side by side")
    noiseless: float = setting(
        0.25, "share of the episodes in which the policy takes its mean action, as in evaluations"
    )
    interval: int = setting(1000, "env steps of an iteration")
    learning_starts: int = setting(
        5000,
        "env steps before the first session and the first update: uniformly drawn actions (but in the "
        "noiseless episodes), or those of the reference",
    )
    warmup: int = setting(1000, "updates of the critic alone before the first of the actor")
    updates: float = setting(0.5, "updates of the critic per env step")
    delay: int = setting(2, "updates of the critic for each one of the actor")
    batch: int = setting(256, "states of an update")
    lr: float = setting(0.001, "learning rate of the actor (Adam)")
    anneal: bool = setting(True, "decay the learning rate linearly to 0 over the run")
    max_grad_norm: float | None = setting(
        1.0, "the actor's gradient is clipped to this norm; null is no limit"
    )
    hidden: list[int] = setting([128, 128], "widths of the hidden layers of the critic")
    critic_lr: float = setting(0.001, "learning rate of the critic (Adam)")
    steps: int = setting(3, "n of the n-step targets")
    tau: float = setting(0.02, "update rate of the target networks")


@dataclass(frozen=True)
class BaselineConfig(Algo):
    """Settings of both kinds of baseline: what they maximise, and what they ask the teacher for it."""

    learner: str = needed(LEARNER)
    reward: str = setting(
        "true", "what it maximises: true (the task's own reward) | model (learned from the teacher's answers)"
    )
    initial_queries: int = setting(
        0, "comparisons put to the teacher in the first session; a learned reward alone"
    )
    queries: int = setting(0, "comparisons put to the teacher in each later session; a learned reward alone")
    query_interval: int = setting(10_000, QUERY_INTERVAL)
    selection: str = setting(
        "uniform",
        "how questions are chosen: uniform | disagreement | entropy | kcenter | kcenter_disagreement | "
        "kcenter_entropy (all but uniform choose among ten times as many)",
    )


@dataclass(frozen=True)
class PPOConfig(BaselineConfig):
    """``conf/algo``, where ``learner`` is ``ppo``: PPO of Stable-Baselines3 on a true or a learned reward."""

    learner: str = setting("ppo", LEARNER)
    learning_starts: int = setting(
        0, "env steps before the first session, in which the policy only acts; a learned reward alone"
    )
    envs: int = setting(8, "episodes that run side by side")
    steps: int = setting(256, "control steps of each between two updates")
    batch: int = setting(64, "samples of a gradient step")
    epochs: int = setting(10, "passes over the samples of an update")
    lr: float = setting(0.0003, "learning rate")
    anneal: bool = setting(True, "decay the learning rate linearly to 0 over the run")
    gae_lambda: float = setting(0.95, "of generalised advantage estimation")
    clip: float = setting(0.2, "the ratio of new to old policy counts within 1 +- this")
    entropy: float = setting(0.0, "weight of the entropy bonus")
    value: float = setting(0.5, "weight of the value loss")
    max_grad_norm: float = setting(0.5, "gradients are clipped to this norm")
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
    query_interval: int = setting(20_000, QUERY_INTERVAL)
    learning_starts: int = setting(
        10_000, "env steps of uniformly drawn actions, without an update, at the start"
    )
    pretrain: int = setting(
        0,
        "env steps after those in which novel states are sought instead of a reward; a learned reward alone",
    )
    relabel: bool = setting(
        True,
        "rewards of the whole replay buffer are computed anew after each session (false: after the first "
        "alone); a learned reward alone",
    )
    envs: int = setting(4, "episodes that run side by side")
    interval: int = setting(1000, "env steps of an iteration; sessions and evaluations come at its end")
    hidden: list[int] = setting([256, 256], "widths of the hidden layers of actor and critics")
    updates: float = setting(1.0, "gradient steps per env step")
    batch: int = setting(256, "samples of a gradient step")
    lr: float = setting(0.0003, "learning rate of actor, critics and temperature")
    tau: float = setting(0.005, "update rate of the target networks")
    target_every: int = setting(1, "gradient steps between two such times")
    entropy: float = setting(1.0, "temperature at the start, the weight of the entropy; it is learned")
    gamma: float = setting(
        0.0, "weight of KL(reference || actor) per state, before squashing; 0 is no penalty"
    )
    reference_interval: int = setting(
        50_000,
        "env steps between snapshots of the actor as the new reference of the KL; 0 keeps the first for ever",
    )
