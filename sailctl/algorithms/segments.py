"""SAIL and its variants on forked segments: sample prompts and segments, label pairs, update the policy.

Includes the limits online and offline DPO, and the designs that mix in a data set of preferences. If all
samples come from a data set, nothing is simulated.
"""

from __future__ import annotations

from sailctl.algorithms.learner import Learner
from sailctl.algorithms.protocol import Algorithm, Clock
from sailctl.algorithms.start import check_in_ball, first_policy
from sailctl.config import Config, segment_lengths
from sailctl.core.seeding import named_generators
from sailctl.core.state import State
from sailctl.core.types import EnvSpec, Metrics, PreferenceData
from sailctl.data.datasets import check_fits, load_preferences
from sailctl.data.rollout import Collected, Collector
from sailctl.policies.policy import GaussianPolicy
from sailctl.preferences.labeller import Labeller
from sailctl.simulator.states import Simulator


class SegmentSAIL(Algorithm):
    """Every algorithm that updates the policy with ``Learner``.

    Raises:
        UserError: when the reference policy or the data set cannot be read, or does not fit the task.
    """

    def __init__(self, config: Config, simulator: Simulator) -> None:
        self._simulates = config.algo.simulates
        self._generators = named_generators(config.seed)
        self._policy = first_policy(config, simulator.spec, self._generators)
        check_in_ball(self._policy, config.algo.radius, config.algo.reference)
        data = offline_data(config, simulator.spec, self._policy)
        steps, judged = segment_lengths(config)
        self._collector = Collector(simulator, config.rollout, steps, judged, self._generators)
        reference = self._policy.snapshot()
        self._learner = Learner(
            self._policy, reference, config.algo, self._generators, data, config.rollout.prompts
        )
        self._labeller = Labeller(config, simulator.spec, self._generators, data)
        self._env_steps = 0

    @property
    def env_steps(self) -> int:
        """Number of env steps so far, including continuations of segments."""
        return self._env_steps

    @property
    def labels(self) -> int:
        """Number of labels so far: the teacher's and those in the data set."""
        return self._labeller.labels

    @property
    def labels_left(self) -> float:
        """Remaining share of the label budget; 1 if the run does not end with the budget."""
        return self._labeller.left

    @property
    def exhausted(self) -> bool:
        """Whether no more labels will come."""
        return self._labeller.exhausted

    def begin(self, clock: Clock) -> None:
        """Fit the reward model, if any, to the data set."""
        with clock.measure("label_s"):
            self._labeller.learn_from_data()

    def iterate(self, clock: Clock, left: float) -> Metrics:
        """One iteration, with new segments unless all samples come from a data set."""
        collected = comparisons = None
        env_steps_before = self._env_steps
        if self._simulates:
            with clock.measure("collect_s"):
                collected = self._collector.collect(self._policy)
            with clock.measure("label_s"):
                comparisons = self._labeller.label(collected, self._learner.score)
            self._env_steps += collected.env_steps
        with clock.measure("update_s"):
            segments = collected.segments if collected else None
            metrics = self._learner.update(segments, comparisons, left, env_steps_before)
        return metrics | self._labeller.metrics() | {"reward_per_step": reward_per_step(collected)}

    def policy(self) -> GaussianPolicy:
        """The trained policy."""
        return self._policy

    def state(self) -> State:
        """State of learner, chains, labeller and random generators."""
        return {
            "env_steps": self._env_steps,
            "learner": self._learner.state(),
            "collector": self._collector.state(),
            "labeller": self._labeller.state(),
            "generators": self._generators.state(),
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self._env_steps = state["env_steps"]
        self._learner.restore(state["learner"])
        self._collector.restore(state["collector"])
        self._labeller.restore(state["labeller"])
        self._generators.restore(state["generators"])


def reward_per_step(collected: Collected | None) -> float:
    """Mean true reward of the judged steps; NaN if nothing was simulated."""
    if collected is None:
        return float("nan")
    return float(collected.judged.rewards.sum()) / max(float(collected.judged.mask.sum()), 1.0)


def offline_data(config: Config, spec: EnvSpec, policy: GaussianPolicy) -> PreferenceData | None:
    """The data set of ``algo.data``; ``policy``, if new, gets its observation statistics.

    Raises:
        UserError: when it cannot be read, or is for another task.
    """
    if config.algo.data is None or not config.algo.reads_data:
        return None
    data = load_preferences(config.algo.data)
    check_fits(data, spec)
    if config.algo.reference == "initial":
        policy.observe(data.segments.obs[data.segments.mask > 0])
    return data
