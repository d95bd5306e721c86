"""Remembers what a policy did, asks the teacher about it, and learns a reward from the answers.

The loop of PEBBLE (Lee et al. 2021, arXiv 2106.05091) as B-Pref has it (Lee et al. 2021, arXiv 2111.03026):
every so many env steps the teacher is shown pairs of windows of recent behaviour, those among many candidates
on which an ensemble of rewards disagrees, and the ensemble is fitted to all answers so far.

True rewards enter the memory for the teacher alone; what leaves it for a learner is the learned reward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sailctl.config import PPORun, SACRun, segment_lengths
from sailctl.oracle import Teacher
from sailctl.queries import choose
from sailctl.reward import RewardEnsemble
from sailctl.seeding import named_generators
from sailctl.state import State
from sailctl.types import (
    BoolArray,
    DoubleArray,
    EnvSpec,
    FloatArray,
    IntArray,
    JudgedRewards,
    Pairs,
    SegmentBatch,
)
from sailctl.vecenv import SimulatorVecEnv

CANDIDATES = 10
"""Pairs that are drawn for each one that is asked about, where a rule chooses (B-Pref: ``large_batch``)."""
EPISODES = 100
"""Episodes' worth of steps from which windows are drawn, the latest (B-Pref: ``max_size``)."""


class Asker:
    """Holds sessions with the teacher, and the reward that was learned in them.

    The first session comes at ``first_at`` env steps, or once there is a window to ask about; its questions
    are drawn uniformly, as B-Pref's are. The next one comes ``algo.every`` env steps after the last, until
    the label budget is spent.
    """

    def __init__(self, config: PPORun | SACRun, spec: EnvSpec, first_at: int) -> None:
        self._algo = config.algo
        self._window = segment_lengths(config)[1]
        self._generators = named_generators(config.seed)
        self._rng = self._generators.queries
        self._teacher = Teacher(config.oracle, self._generators.oracle, spec.horizon)
        self._ensemble = RewardEnsemble(
            config.reward, spec.obs_dim, spec.act_dim, self._generators.ensemble, bounded=True
        )
        rows = max(self._window, EPISODES * spec.horizon // config.algo.envs)
        self._memory = Memory(rows, config.algo.envs, spec)
        self._returns = np.zeros(config.algo.envs)
        self._next = first_at
        self.learned = False
        """Whether a reward was learned: the teacher has answered."""

    @property
    def labels(self) -> int:
        """The teacher's answers so far."""
        return self._teacher.labels

    def remember(
        self,
        obs: FloatArray,
        actions: FloatArray,
        rewards: DoubleArray,
        terminated: BoolArray,
        truncated: BoolArray,
    ) -> None:
        """One control step of all N environments.

        Args:
            obs: (N, O) observations before the step.
            actions: (N, A) actions in policy units, within the actuators' range.
            rewards: (N,) true rewards.
            terminated: (N,) the episode ended for good.
            truncated: (N,) the time limit ended it.
        """
        self._memory.add(obs, actions, rewards, terminated, truncated)
        self._returns += rewards
        ended = terminated | truncated
        self._teacher.observe_episodes(self._returns[ended])
        self._returns[ended] = 0.0

    def cut(self) -> None:
        """All environments are reset: no window may go on, and no return of an unfinished episode counts."""
        self._memory.cut()
        self._returns[:] = 0.0

    def due(self, env_steps: int) -> bool:
        """Whether it is time for a session: labels are left, and there is something to ask about."""
        due = env_steps >= self._next and not self._teacher.spent
        return due and len(self._memory.starts(self._window)) > 0

    def ask(self, env_steps: int) -> None:
        """Hold a session: draw candidates, choose among them, ask, and fit the ensemble to all answers."""
        algo = self._algo
        count = algo.queries if self.learned else algo.first
        if self._teacher.remaining is not None:
            count = min(count, self._teacher.remaining)
        rule = algo.selection if self.learned else "uniform"
        starts = self._memory.starts(self._window)
        candidates = count if rule == "uniform" else CANDIDATES * count
        drawn = starts[self._rng.integers(len(starts), size=2 * candidates)]
        segments, judged = self._memory.windows(drawn, self._window)
        places = np.arange(candidates)
        pairs = Pairs(2 * places, 2 * places + 1, places)

        chances = None if rule in ("uniform", "kcenter") else self._ensemble.chances(segments, pairs)
        pairs = pairs.take(choose(rule, count, pairs, segments, chances, self._rng))
        score = self._score(segments, pairs) if self._teacher.needs_score else None
        answers = self._teacher.answer(pairs, judged, score)
        self._ensemble.learn(segments, answers)
        self.learned = self._teacher.labels > 0
        self._next = env_steps + algo.every

    def rewards(self, obs: FloatArray, actions: FloatArray) -> FloatArray:
        """(N,) learned rewards, from -1 to 1, of actions (N, A) in observations (N, O); 0 before any answer.

        Raises:
            NonFiniteError: when an observation, an action or a reward is NaN or infinite.
        """
        if not self.learned:
            return np.zeros(len(obs), np.float32)
        steps = SegmentBatch(obs[:, None], actions[:, None], np.ones((len(obs), 1), np.float32), forks=1)
        return self._ensemble.judge(steps).rewards[:, 0].astype(np.float32)

    def metrics(self) -> dict[str, float]:
        """Share of questions skipped so far, and what the ensemble knows."""
        asked = self._teacher.labels + self._teacher.skipped
        share = self._teacher.skipped / asked if asked else 0.0
        return {"skip_share": share} | self._ensemble.metrics()

    def state(self) -> State:
        """Teacher, reward, what is remembered, when the next session is, and where all draws come from."""
        return {
            "generators": self._generators.state(),
            "teacher": self._teacher.state(),
            "ensemble": self._ensemble.state(),
            "memory": self._memory.state(),
            "returns": self._returns,
            "next": self._next,
            "learned": self.learned,
        }

    def restore(self, state: State) -> None:
        """Take back what ``state`` handed out."""
        self._generators.restore(state["generators"])
        self._teacher.restore(state["teacher"])
        self._ensemble.restore(state["ensemble"])
        self._memory.restore(state["memory"])
        self._returns, self._next, self.learned = state["returns"], state["next"], state["learned"]

    def _score(self, segments: SegmentBatch, pairs: Pairs) -> FloatArray:
        """(B,) what an adversary works against: the difference of learned returns, the learner's own view."""
        returns = self._ensemble.judge(segments).returns
        return (returns[pairs.first] - returns[pairs.second]).astype(np.float32)


class Memory:
    """The latest ``rows`` control steps of N environments side by side, oldest forgotten first."""

    def __init__(self, rows: int, envs: int, spec: EnvSpec) -> None:
        self._obs = np.zeros((rows, envs, spec.obs_dim), np.float32)
        self._actions = np.zeros((rows, envs, spec.act_dim), np.float32)
        self._rewards = np.zeros((rows, envs))
        self._terminated = np.zeros((rows, envs), bool)
        self._ended = np.zeros((rows, envs), bool)
        self._count = 0

    def add(
        self,
        obs: FloatArray,
        actions: FloatArray,
        rewards: DoubleArray,
        terminated: BoolArray,
        truncated: BoolArray,
    ) -> None:
        """One control step of all environments."""
        row = self._count % len(self._obs)
        self._obs[row], self._actions[row], self._rewards[row] = obs, actions, rewards
        self._terminated[row], self._ended[row] = terminated, terminated | truncated
        self._count += 1

    def cut(self) -> None:
        """The environments are reset: the last step of each was the last of its episode here."""
        if self._count:
            self._ended[(self._count - 1) % len(self._obs)] = True

    def starts(self, steps: int) -> IntArray:
        """(W, 2) row and environment where a window of ``steps`` may start: no reset lies inside it.

        One that ends early because the episode terminated is a window too, as it is in a rollout; one that
        the time limit, a cut or the present ends early is none.
        """
        order, ends = self._timeline()
        last = np.arange(len(order))[:, None] + steps - 1
        whole = (last <= ends) & (last < len(order))
        over = np.minimum(ends, len(order) - 1)
        fell = (ends < last) & (ends < len(order)) & np.take_along_axis(self._terminated[order], over, axis=0)
        return np.argwhere(whole | fell)

    def windows(self, starts: IntArray, steps: int) -> tuple[SegmentBatch, JudgedRewards]:
        """What happened in the windows of ``starts`` (S, 2), and its true rewards; 0 after an episode."""
        order, ends = self._timeline()
        row, env = starts.T
        places = row[:, None] + np.arange(steps)
        mask = (places <= ends[row, env][:, None]).astype(np.float32)
        at = order[np.minimum(places, len(order) - 1)], env[:, None]
        obs, actions = self._obs[at] * mask[..., None], self._actions[at] * mask[..., None]
        return SegmentBatch(obs, actions, mask, forks=1), JudgedRewards(self._rewards[at] * mask, mask)

    def state(self) -> State:
        """The rows that hold a step, and how many there have been."""
        filled = slice(min(self._count, len(self._obs)))
        return {"count": self._count, **{name: rows[filled] for name, rows in self._rows().items()}}

    def restore(self, state: State) -> None:
        """Take back what ``state`` handed out."""
        self._count = state["count"]
        for name, rows in self._rows().items():
            rows[: len(state[name])] = state[name]

    def _rows(self) -> dict[str, NDArray[Any]]:
        return {
            "obs": self._obs,
            "actions": self._actions,
            "rewards": self._rewards,
            "terminated": self._terminated,
            "ended": self._ended,
        }

    def _timeline(self) -> tuple[IntArray, IntArray]:
        """(T,) places of the rows, the oldest first; (T, N) the row in which the episode of each step ends.

        That row is T where the episode goes on.
        """
        order = np.arange(max(0, self._count - len(self._obs)), self._count) % len(self._obs)
        rows = np.arange(len(order))[:, None]
        ends = np.where(self._ended[order], rows, len(order))
        return order, np.minimum.accumulate(ends[::-1], axis=0)[::-1]


class LearnedReward(VecEnvWrapper):
    """Hands out the learned reward in place of the true one, which goes to the teacher's memory alone."""

    def __init__(self, venv: SimulatorVecEnv, asker: Asker) -> None:
        super().__init__(venv)
        self._simulated, self._asker = venv, asker
        self._obs = np.zeros((venv.num_envs, *(venv.observation_space.shape or ())), np.float32)
        self._actions: FloatArray = np.zeros((venv.num_envs, *(venv.action_space.shape or ())), np.float32)

    def reset(self) -> VecEnvObs:
        """(N, O) first observations of fresh episodes."""
        self._asker.cut()
        obs = self.venv.reset()
        self._obs = np.array(obs)
        return obs

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Take (N, A) actions; those beyond -1 and +1 are clipped."""
        self._actions = np.clip(actions, -1.0, 1.0)
        self.venv.step_async(self._actions)

    def step_wait(self) -> VecEnvStepReturn:
        """As the environments', but for (N,) rewards, which are the learned ones."""
        obs, true, ended, infos = self.venv.step_wait()
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        self._asker.remember(self._obs, self._actions, true.astype(np.float64), ended & ~truncated, truncated)
        learned = self._asker.rewards(self._obs, self._actions)
        self._obs = np.array(obs)
        return obs, learned, ended, infos

    def state(self) -> State:
        """The environments, the latest observations, and what the asker knows."""
        return {"simulated": self._simulated.state(), "obs": self._obs, "asker": self._asker.state()}

    def restore(self, state: State) -> None:
        """Take back what ``state`` handed out."""
        self._simulated.restore(state["simulated"])
        self._obs = state["obs"]
        self._asker.restore(state["asker"])
