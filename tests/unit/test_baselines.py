"""Baselines: what is asked, what is learned from the answers, and what learners get to see of a reward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from torch.distributions import Normal, kl_divergence

from sailctl.algorithms.ppo import PPOBaseline, act_only
from sailctl.algorithms.ppo import make_model as make_ppo
from sailctl.algorithms.sac import (
    KLPenalty,
    Replay,
    SACBaseline,
    hold_session,
    make_model,
    novelty,
    replay_of,
    reset_critics,
    squashed_std,
    to_policy,
)
from sailctl.algorithms.sb3 import LearnedReward, sessions_of
from sailctl.config import PPORun, RunConfig, SACRun
from sailctl.core.seeding import named_generators
from sailctl.core.types import EnvSpec, NonFiniteError, Preferences, SegmentBatch, Transitions, UserError
from sailctl.data.history import History
from sailctl.policies.policy import GaussianPolicy
from sailctl.preferences.reward import RewardEnsemble
from sailctl.preferences.sessions import Schedule, Sessions
from sailctl.runs.checkpoint import load_policy, save_policy
from sailctl.runs.results import load_run
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.vecenv import SimulatorVecEnv
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.train import train

SPEC = EnvSpec("toy-v0", 3, 2, -np.ones(2), np.ones(2), 20, 0.1)
TASK = "env=invertedpendulum-v5"
SMALL = (
    TASK,
    "rollout.segment_length=4",
    "rollout.label_horizon=4",
    "reward.hidden=[8]",
    "reward.steps=2",
    "env_steps=160",
    "evaluation.every=80",
    "evaluation.episodes=1",
    "logger.wandb=disabled",
    "logger.progress=false",
)
TINY_SAC = (
    "algo.hidden=[8]",
    "algo.learning_starts=40",
    "algo.interval=40",
    "algo.batch=8",
    "algo.updates=0.5",
)
TINY_MODEL = ("algo.initial_queries=6", "algo.queries=4", "algo.query_interval=40", "oracle.budget=12")
TINY_PEBBLE = (*TINY_SAC, *TINY_MODEL, "algo.pretrain=40")
TINY_PPO = ("policy.hidden=[8]", "algo.envs=4", "algo.steps=10", "algo.batch=20", "algo.epochs=2")
TINY_RLHF = (*TINY_PPO, *TINY_MODEL, "algo.learning_starts=20")
SIZES = {"pebble": TINY_PEBBLE, "rlhf_ppo": TINY_RLHF, "sac": TINY_SAC, "ppo": TINY_PPO}


def config_of(algo: str, *overrides: str) -> RunConfig:
    """A small run of a baseline; a later value of a key is the one that counts."""
    size = SIZES.get(algo, TINY_PEBBLE)
    chosen = {word.split("=", 1)[0]: word for word in (*SMALL, *size, f"algo={algo}", *overrides)}
    (job,) = compose_jobs(list(chosen.values())).jobs
    return job.config


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_a_learner_takes_any_seed(algo: str, tmp_path: Path) -> None:
    config = config_of(algo, "seed=9223372036854775807", "env_steps=80", f"out={tmp_path}")
    assert load_run(train(config, [])).seed == 2**63 - 1


@pytest.mark.parametrize("key", ["seed", "evaluation.seed"])
def test_a_larger_seed_is_refused_for_all(key: str) -> None:
    for algo in ("ppo", "sac", "sail", "sail_segments"):
        with pytest.raises(UserError, match=f"{key} must be at most 9223372036854775807"):
            compose_jobs([f"algo={algo}", f"{key}=9223372036854775808"])


def sac_config(algo: str, *overrides: str) -> SACRun:
    config = config_of(algo, *overrides)
    assert isinstance(config, SACRun)
    return config


def ppo_config(algo: str, *overrides: str) -> PPORun:
    config = config_of(algo, *overrides)
    assert isinstance(config, PPORun)
    return config


def trained(out: Path, algo: str, *overrides: str) -> Path:
    return train(config_of(algo, *overrides, f"out={out}"), [])


def numbers(run: Path) -> pd.DataFrame:
    """The metrics without the columns that hold times."""
    metrics = load_run(run).metrics
    return metrics.drop(columns=[name for name in metrics if name.endswith("_s")])


def assert_same_policy(one: Path, other: Path) -> None:
    first, second = load_policy(one).state_dict(), load_policy(other).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def sessions_on(config: PPORun | SACRun, spec: EnvSpec, learning_starts: int) -> Sessions:
    return sessions_of(config, spec, named_generators(config.seed), learning_starts)


def asking(*overrides: str, envs: int = 4) -> Sessions:
    """One that asks about windows of four steps, and fits a reward well."""
    fit = (
        "reward.hidden=[16]",
        "reward.steps=null",
        "reward.epochs=60",
        "reward.lr=0.01",
        "oracle.budget=200",
        "algo.initial_queries=150",
    )
    return sessions_on(sac_config("pebble", *fit, f"algo.envs={envs}", *overrides), SPEC, learning_starts=40)


def behave(sessions: Sessions, steps: int, seed: int = 0, envs: int = 4) -> None:
    """Random behaviour whose true reward is the first action."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        obs = rng.normal(size=(envs, SPEC.obs_dim)).astype(np.float32)
        actions = rng.uniform(-1, 1, (envs, SPEC.act_dim)).astype(np.float32)
        over = np.full(envs, (step + 1) % SPEC.horizon == 0)
        done = Transitions(obs, actions, obs, terminated=np.zeros(envs, bool), ended=over)
        sessions.remember(done, actions[:, 0].astype(np.float64))


def probes(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    obs = rng.normal(size=(count, SPEC.obs_dim)).astype(np.float32)
    return obs, rng.uniform(-1, 1, (count, SPEC.act_dim)).astype(np.float32)


def test_a_reset_ends_windows_and_returns() -> None:
    sessions = asking("oracle.skip=0.1", "oracle.budget=null")
    behave(sessions, steps=3)
    sessions.end_episodes()
    behave(sessions, steps=3)
    assert not sessions.due(1000), "no window of four steps lies on one side"
    behave(sessions, steps=1)
    assert sessions.due(1000)


# What is asked and learned


@pytest.mark.parametrize("selection", ["uniform", "disagreement", "kcenter"])
def test_sessions_come_when_due_and_the_budget_is_spent_to_the_label(selection: str) -> None:
    sessions = asking(
        f"algo.selection={selection}", "algo.initial_queries=10", "algo.queries=7", "oracle.budget=20"
    )
    assert not sessions.due(40), "nothing has happened yet"
    behave(sessions, steps=30)
    assert [sessions.due(39), sessions.due(40)] == [False, True]
    sessions.hold(40)
    assert (sessions.labels, sessions.metrics()["reward_pairs"]) == (10, 10)
    assert [sessions.due(79), sessions.due(80)] == [False, True]
    sessions.hold(80)
    sessions.hold(120)
    assert (sessions.labels, sessions.metrics()["reward_pairs"]) == (20, 20)
    assert not sessions.due(10_000)


@pytest.mark.parametrize(("teacher", "sign"), [("oracle.mistake=0", 1), ("oracle.mistake=1", -1)])
def test_the_learned_reward_is_what_the_teacher_prefers(teacher: str, sign: int) -> None:
    """A teacher that is always wrong teaches the opposite."""
    sessions = asking(teacher)
    behave(sessions, steps=80)
    obs, actions = probes()
    assert not sessions.rewards(obs, actions).any(), "there is no reward before there are answers"
    sessions.hold(40)
    learned = sessions.rewards(obs, actions)
    assert sign * np.corrcoef(learned, actions[:, 0])[0, 1] > 0.7
    assert np.abs(learned).max() <= 1.0


def test_a_share_of_the_windows_in_questions_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher and the ensemble see the same of them; without a share nothing is drawn for it."""
    config, seen, drawn = sac_config("pebble", "algo.initial_queries=50", "oracle.budget=200"), [], []
    true_learn = RewardEnsemble.learn

    def learn(ensemble: RewardEnsemble, segments: SegmentBatch, answers: Preferences) -> None:
        seen.append(segments.mask.sum(axis=1))
        true_learn(ensemble, segments, answers)

    monkeypatch.setattr(RewardEnsemble, "learn", learn)
    for cut in (0.0, 0.5):
        generators = named_generators(0)
        sessions = Sessions(
            config.oracle,
            config.reward,
            Schedule(learning_starts=40, initial_queries=50, query_interval=40, queries=10),
            selection="uniform",
            window=4,
            history=History(200, 4, SPEC),
            spec=SPEC,
            generators=generators,
            bounded=True,
            cut=cut,
        )
        behave(sessions, steps=80)
        sessions.hold(40)
        drawn.append(generators.queries.bit_generator.state["state"]["state"])
    assert set(seen[0]) == {4.0}
    assert set(seen[1]) == {1.0, 2.0, 3.0, 4.0}
    assert 0.25 < (seen[1] < 4).mean() < 0.75
    only = named_generators(0).queries
    only.integers(len(sessions.history.starts(4)), size=100)
    assert drawn[0] == only.bit_generator.state["state"]["state"] != drawn[1]


def test_an_adversary_works_against_the_learned_reward() -> None:
    """With rho = 1 its answers are the opposite of what the ensemble thought."""
    sessions = asking("oracle=worst_case", "oracle.rho=1")
    behave(sessions, steps=80)
    obs, actions = probes()
    steps = SegmentBatch(obs[:, None], actions[:, None], np.ones((len(obs), 1), np.float32), 1)
    thought = sessions._ensemble.judge(steps).rewards[:, 0]
    sessions.hold(40)
    assert np.corrcoef(thought, sessions.rewards(obs, actions))[0, 1] < -0.5


def test_the_first_questions_are_drawn_uniformly() -> None:
    """So they are the same whatever the rule is."""
    losses = []
    for rule in ("uniform", "disagreement"):
        sessions = asking(f"algo.selection={rule}", "algo.initial_queries=10")
        behave(sessions, steps=80)
        sessions.hold(40)
        losses.append(sessions.metrics()["reward_loss"])
    assert losses[0] == losses[1]


def test_environments_hand_out_the_learned_reward_of_what_was_done() -> None:
    config = sac_config("pebble", "algo.envs=4")
    simulator = open_simulator(config.env.id)
    sessions = sessions_on(config, simulator.spec, learning_starts=0)
    env = LearnedReward(SimulatorVecEnv(simulator, 4, seed=0), sessions)
    rng, obs = np.random.default_rng(0), np.asarray(env.reset())
    for step in range(30):
        actions = rng.uniform(-2, 2, (4, 1)).astype(np.float32)
        expected = sessions.rewards(obs, np.clip(actions, -1, 1))
        obs_after, rewards, _, _ = env.step(actions)
        np.testing.assert_array_equal(rewards, expected)
        assert rewards.any() == (step >= 20)
        obs = np.asarray(obs_after).copy()
        if step == 19:
            sessions.hold(80)


@pytest.mark.parametrize("algo", ["pebble", "rlhf_ppo"])
def test_no_learner_sees_a_true_reward(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once all labels are given, true rewards that are nothing but noise change nothing."""
    plain = trained(tmp_path / "plain", algo, "oracle.budget=6")
    rng, original, held = np.random.default_rng(0), SimulatorVecEnv.step_wait, Sessions.hold
    spent = [False]

    def hold(sessions: Sessions, env_steps: int) -> None:
        held(sessions, env_steps)
        spent[0] = True

    def step_wait(env: SimulatorVecEnv) -> VecEnvStepReturn:
        obs, rewards, ended, infos = original(env)
        return obs, rng.normal(size=rewards.shape) if spent[0] else rewards, ended, infos

    monkeypatch.setattr(Sessions, "hold", hold)
    monkeypatch.setattr(SimulatorVecEnv, "step_wait", step_wait)
    noisy = trained(tmp_path / "noisy", algo, "oracle.budget=6")
    assert spent[0]
    assert numbers(plain)["labels"].iloc[-1] == 6
    pd.testing.assert_frame_equal(numbers(plain), numbers(noisy), check_exact=True)
    assert_same_policy(plain, noisy)


# Whole runs


@pytest.mark.parametrize("algo", ["pebble", "rlhf_ppo", "sac"])
def test_one_seed_is_one_run_and_labels_are_counted(algo: str, tmp_path: Path) -> None:
    one, same, other = (
        trained(tmp_path / name, algo, f"seed={seed}") for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    pd.testing.assert_frame_equal(numbers(one), numbers(same), check_exact=True)
    assert_same_policy(one, same)
    assert not numbers(one).equals(numbers(other))
    last = numbers(one).iloc[-1]
    assert last["env_steps"] >= 160, "a run goes on without new labels"
    assert last["labels"] == (0 if algo == "sac" else 12)
    assert (numbers(one)["labels"].diff().dropna() >= 0).all()


def test_ppo_acts_only_until_there_is_something_to_ask_about() -> None:
    config = ppo_config("rlhf_ppo", "algo.learning_starts=20")
    simulator = open_simulator(config.env.id)
    sessions = sessions_on(config, simulator.spec, config.algo.learning_starts)
    env = VecNormalize(LearnedReward(SimulatorVecEnv(simulator, 4, 0), sessions))
    model = make_ppo(config, env)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    assert act_only(model, env, sessions) == 20
    assert all(map(torch.equal, before, model.policy.parameters()))
    assert env.ret_rms.count < 1, "rewards of 0 enter no statistics"


def test_a_run_whose_acting_alone_takes_all_its_env_steps_ends_with_one_iteration(tmp_path: Path) -> None:
    metrics = numbers(trained(tmp_path, "rlhf_ppo", "algo.learning_starts=200"))
    assert metrics["iteration"].tolist() == [1]
    assert metrics["env_steps"].iloc[0] == 200 + 40


def test_a_baseline_that_is_not_finite_leaves_its_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_learn = SAC.learn

    def poisoned(model: SAC, *arguments: object, **named: object) -> None:
        true_learn(model, *arguments, **named)
        model.actor.mu.bias.data[0] = torch.nan

    monkeypatch.setattr(SAC, "learn", poisoned)
    with pytest.raises(NonFiniteError, match=r"SAC is not finite after \d+ env steps: actor\.mu\.bias"):
        trained(tmp_path, "sac")
    (dump,) = tmp_path.rglob("nonfinite.safetensors")
    assert torch.isnan(load_file(dump)["actor.mu.bias"][0])


def test_gamma_zero_is_pebble_bit_for_bit(tmp_path: Path) -> None:
    pebble = trained(tmp_path, "pebble")
    without, with_kl = (trained(tmp_path, "sail_mujoco_parity", f"algo.gamma={g}") for g in (0, 10))
    pd.testing.assert_frame_equal(numbers(pebble), numbers(without), check_exact=True)
    assert_same_policy(pebble, without)
    assert (numbers(with_kl)["kl_ref_pi"].iloc[2:] > 0).all()
    assert not numbers(with_kl)["actor_loss"].equals(numbers(pebble)["actor_loss"])


@pytest.mark.parametrize(("task", "discount"), [("swimmer-v5", 0.998), ("hopper-v5", 0.995)])
def test_baselines_learn_by_the_discount_of_the_task(task: str, discount: float) -> None:
    simulator = open_simulator(task)
    ppo = PPOBaseline(ppo_config("ppo", f"env={task}"), simulator)
    sac = SACBaseline(sac_config("sac", f"env={task}"), simulator)
    assert ppo._model.gamma == ppo._env.gamma == sac._model.gamma == discount
    assert ppo.policy().log_std.tolist() == [0.0] * simulator.spec.act_dim  # a standard deviation of 1


def test_every_evaluation_is_kept_with_a_policy_of_its_own(tmp_path: Path) -> None:
    kept: list[tuple[int, dict[str, torch.Tensor]]] = []

    def keep(env_steps: int, score: float, policy: GaussianPolicy) -> None:
        assert score > 0
        kept.append((env_steps, policy.state_dict()))

    train(sac_config("sac", f"out={tmp_path}"), [], keep)
    train(ppo_config("ppo", f"out={tmp_path}"), [], keep)
    assert [steps for steps, _ in kept] == [0, 80, 160] * 2
    assert not torch.equal(kept[1][1]["net.0.weight"], kept[2][1]["net.0.weight"])


# SAC


def sac_model(*overrides: str, sessions: Sessions | None = None) -> SAC:
    """One that has remembered a few dozen env steps and learned from some."""
    config = sac_config("pebble" if sessions else "sac", *overrides)
    plain = SimulatorVecEnv(open_simulator(config.env.id), config.algo.envs, config.seed)
    model = make_model(config, LearnedReward(plain, sessions) if sessions else plain)
    model.learn(80, log_interval=1000)
    return model


def test_a_policy_acts_as_the_deterministic_actor(tmp_path: Path) -> None:
    model = sac_model("algo.hidden=[16,8]")
    spec = open_simulator("invertedpendulum-v5").spec
    save_policy(to_policy(model, 0.2, spec), tmp_path)
    obs = np.random.default_rng(0).normal(0, 2, (50, spec.obs_dim))
    actions, _ = model.predict(obs.astype(np.float32), deterministic=True)
    np.testing.assert_allclose(load_policy(tmp_path).act(obs, None), actions, rtol=0, atol=1e-6)

    states = torch.from_numpy(replay_of(model).latest(spec.horizon))
    drawn = torch.stack([model.actor(states).detach() for _ in range(4000)])
    std = load_policy(tmp_path).log_std.detach().exp()
    torch.testing.assert_close(std, drawn.std(0).mean(0), rtol=0.02, atol=0.0)


def test_a_sac_run_is_a_reference_of_sail(tmp_path: Path) -> None:
    run = trained(tmp_path, "sac")
    words = [*SMALL, "rollout.prompts=4", "env_steps=64", "algo.epochs=1", "algo.minibatches=2"]
    (job,) = compose_jobs([*words, "algo=sail_segments", f"algo.reference={run}", f"out={tmp_path}"]).jobs
    policy = load_policy(train(job.config, []))
    assert (policy.config.kind, policy.config.normalise) == ("squashed", False)
    assert not torch.equal(policy.net[0].weight, load_policy(run).net[0].weight)


def test_the_deviation_of_a_squashed_gaussian() -> None:
    mean, log_std = torch.tensor([[0.0, 1.0, -2.0]]), torch.tensor([[-3.0, -1.0, 0.5]])
    noise = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.tanh(mean + log_std.exp() * noise).std(0)
    torch.testing.assert_close(squashed_std(mean, log_std)[0], expected, rtol=5e-3, atol=0.0)


def test_novelty_is_the_distance_to_the_nearest_others() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(size=(40, 3))
    expected = [np.sort(np.linalg.norm(known - row, axis=1))[5] for row in known[:7]]
    found = novelty(torch.from_numpy(known[:7]), torch.from_numpy(known), 5)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    few = novelty(torch.from_numpy(known[:2]), torch.from_numpy(known[:2]), 5)
    np.testing.assert_allclose(few.numpy(), np.linalg.norm(known[0] - known[1]), rtol=1e-6)


def filled_replay() -> Replay:
    rng = np.random.default_rng(1)
    boxes = (spaces.Box(-np.inf, np.inf, (SPEC.obs_dim,)), spaces.Box(-1.0, 1.0, (SPEC.act_dim,)))
    replay = Replay(400, *boxes, device="cpu", n_envs=4)
    for _ in range(30):
        obs, after = rng.normal(size=(2, 4, SPEC.obs_dim))
        actions = rng.uniform(-1, 1, (4, SPEC.act_dim))
        replay.add(obs, after, actions, rng.normal(size=4), np.zeros(4), [{}] * 4)
    return replay


def test_novelty_is_divided_by_its_running_deviation() -> None:
    replay = filled_replay()
    replay.rewards_novelty = True
    known = replay.observations[:30].reshape(-1, SPEC.obs_dim)
    seen: list[float] = []
    for _ in range(3):
        samples = replay.sample(16)
        distances = np.linalg.norm(samples.observations.numpy()[:, None] - known, axis=2)
        raw = np.sort(distances, axis=1)[:, 5]
        seen.extend(raw)
        np.testing.assert_allclose(samples.rewards.numpy()[:, 0], raw / np.std(seen), rtol=1e-3)


def test_relabelling_is_computing_every_reward_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sailctl.algorithms.sac.RELABEL_BATCH", 50)
    sessions, replay = asking(), filled_replay()
    behave(sessions, steps=80)
    sessions.hold(40)
    replay.relabel(sessions)
    expected = [sessions.rewards(replay.observations[row], replay.actions[row]) for row in range(30)]
    np.testing.assert_allclose(replay.rewards[:30], expected, rtol=0, atol=1e-6)
    assert np.abs(replay.rewards[:30]).max() > 0.1
    assert not replay.rewards[30:].any()


@pytest.mark.parametrize("relabel", [True, False])
def test_a_session_changes_the_rewards_that_are_remembered(relabel: bool) -> None:
    """The first one always, and it ends the search for novelty; a later one where memory is relabelled."""
    sessions = sessions_on(
        sac_config("pebble"), open_simulator("invertedpendulum-v5").spec, learning_starts=0
    )
    model = sac_model(sessions=sessions)
    replay = replay_of(model)
    replay.rewards_novelty = True
    assert not replay.rewards.any()
    hold_session(sessions, 80, model, relabel)
    first = replay.rewards.copy()
    assert first[:20].all()
    assert not replay.rewards_novelty
    hold_session(sessions, 120, model, relabel)
    assert np.array_equal(first, replay.rewards) == (not relabel)


def test_critics_start_afresh_and_nothing_else_does() -> None:
    model = sac_model()
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    reset_critics(model)
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("actor."), name
    assert all(map(torch.equal, model.critic.parameters(), model.critic_target.parameters()))
    assert not model.critic.optimizer.state
    assert model.actor.optimizer.state


def kl_of(model: SAC, reference: torch.nn.Module) -> torch.Tensor:
    obs = replay_of(model).sampled_obs
    mean, log_std, _ = model.actor.get_action_dist_params(obs)
    ref_mean, ref_log_std, _ = reference.get_action_dist_params(obs)
    both = Normal(ref_mean, ref_log_std.exp()), Normal(mean, log_std.exp())
    return kl_divergence(*both).sum(-1).mean()


def test_the_penalty_is_the_kl_of_the_gaussians_and_its_gradient() -> None:
    """Against torch.distributions, and finite differences of it."""
    model = sac_model()
    model.actor.double()
    model.actor.extract_features = lambda obs, _: obs  # Stable-Baselines3's makes single precision of them
    penalty = KLPenalty(model, gamma=0.3)
    reference = penalty._reference
    with torch.no_grad():
        for parameter in model.actor.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    replay_of(model).sampled_obs = replay_of(model).sampled_obs.double()
    parameters = list(model.actor.parameters())
    model.actor.optimizer.zero_grad()
    penalty._add_gradient()
    assert penalty.kl == pytest.approx(float(kl_of(model, reference).detach()), rel=1e-9)
    assert penalty.kl > 0.01
    for parameter in parameters:
        flat, gradient = parameter.data.view(-1), parameter.grad
        assert gradient is not None
        for i in (0, len(flat) - 1):
            kept = flat[i].item()
            sides = []
            for step in (1e-5, -1e-5):
                flat[i] = kept + step
                sides.append(float(kl_of(model, reference).detach()))
            flat[i] = kept
            assert float(gradient.view(-1)[i]) == pytest.approx(0.3 * (sides[0] - sides[1]) / 2e-5, abs=1e-8)
    penalty.replace_reference()
    assert float(kl_of(model, reference).detach()) == 0.0


def test_the_penalty_enters_each_step_of_the_actor() -> None:
    """A large one holds the actor at its reference; the critics know nothing of it."""
    moved = []
    for gamma in (1e-6, 1e6):
        torch.manual_seed(0)
        model = sac_model("algo.lr=0.001")
        penalty = KLPenalty(model, gamma)
        model.train(gradient_steps=30, batch_size=16)
        moved.append(penalty.kl)
    assert moved[1] < 0.1 * moved[0]


# Configuration


@pytest.mark.parametrize(
    ("algo", "override", "complaint"),
    [
        ("pebble", "algo.updates=0.3", r"algo\.updates must be such that algo\.envs=4 times it"),
        ("pebble", "algo.updates=0.25", r"multiple of algo\.target_every=2"),
        ("pebble", "algo.entropy=0", r"algo\.entropy must be above 0"),
        ("pebble", "algo.initial_queries=0", r"algo\.initial_queries must be at least 1"),
        ("pebble", "oracle.budget=5", r"oracle\.budget must be at least algo\.initial_queries=6"),
        ("sac", "algo.pretrain=10", r"algo\.pretrain must be 0 with algo\.reward=true"),
        ("ppo", "policy.kind=squashed", r"policy\.kind must be mlp with PPO"),
        ("rlhf_ppo", "algo.batch=41", r"algo\.batch must be at most"),
    ],
)
def test_what_cannot_work_is_refused(algo: str, override: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        config_of(algo, override)


def test_ppo_does_not_start_from_a_squashed_policy(tmp_path: Path) -> None:
    run = trained(tmp_path, "sac")
    with pytest.raises(UserError, match=r"policy\.kind=squashed.*PPO needs a tanh network"):
        trained(tmp_path, "ppo", f"algo.reference={run}")
