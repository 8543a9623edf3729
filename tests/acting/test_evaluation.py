"""Evaluation is greedy or sampled, repeatable, on its own seeds, and does not change what is being trained."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids import tape as tapes
from memoroids.acting.evaluation import DeviceEvaluator, Evaluation, Evaluations, Evaluator
from memoroids.agents.base import Plan
from memoroids.agents.dqn import DQNConfig, dqn
from memoroids.agents.networks import QNetwork
from memoroids.agents.ppo import PPOConfig
from memoroids.envs import HostEnv
from memoroids.envs.device import DeviceEnv, DeviceView
from memoroids.envs.device.environment import Step
from memoroids.envs.host.vector import LocalEnvs
from memoroids.memory import REGISTRY
from memoroids.replay import tape_buffer
from memoroids.runs import checkpoint
from memoroids.runs.build import build
from memoroids.runs.load import evaluate_run
from memoroids.runs.run_directory import CHECKPOINTS
from memoroids.runs.seeds import EVALUATE, FINAL, RANDOM, TRAIN, environment_seeds
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train

ENV = "test-evaluate/Guess-v0"


class Guess(gym.Env):
    """Five steps of noise; pays where the action is the sign of the noise before. Keeps every seed it was given."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    seeds: list[int] = []  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None:
            Guess.seeds.append(seed)
        self.t, self.paid = 0, 0
        return self._look(), {}

    def step(self, action: int):
        reward = float(action == self.paid) * (1 + self.t / 10)
        self.t += 1
        return self._look(), reward, self.t == 5, False, {}

    def _look(self) -> np.ndarray:
        noise = self.np_random.normal(size=2).astype(np.float32)
        self.paid = int(noise[0] > 0)
        return noise


gym.register(ENV, entry_point=Guess)


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "env": ENV,
        "memory": "gru",
        "width": 8,
        "random_episodes": 4,
        "updates_per_episode": 1,
        "checkpoint_every": 500,
        "train_episodes": 6,
        "batch_size": 20,
        "buffer_size": 200,
        "num_envs": 2,
        "eval_every": 1,
        "eval_episodes": 2,
        "final_episodes": 3,
        "agent": DQNConfig(learning_rate=1e-2, warmup=0),
    }
    return TrainConfig.of(**settings | changes)


def state_of(settings: TrainConfig, run_dir: Path) -> list[np.ndarray]:
    """All that training changes: parameters, target, optimiser and the whole replay ring."""
    parts = build(settings)
    example = tapes.episode(np.zeros((2, 2), np.float32), np.zeros(1, np.int32), np.zeros(1), True, False)
    path = checkpoint.latest(run_dir / CHECKPOINTS)
    learner = checkpoint.restore(path, "learner", parts.agent.init(parts.network))
    ring = tape_buffer(settings.replay.buffer_size, 1, 1).init(example)
    return [np.asarray(leaf) for leaf in jax.tree.leaves((learner, checkpoint.restore(path, "replay", ring)))]


def test_training_is_the_same_bit_for_bit_however_often_it_is_evaluated(tmp_path: Path):
    often, seldom = config(eval_every=1), config(eval_every=1000, eval_episodes=5)
    each = train(often, tmp_path / "often")
    once = train(seldom, tmp_path / "seldom")
    assert (len(each.rows), len(once.rows)) == (6, 1)
    mean = np.mean([row["train_return"] for row in each.rows])
    np.testing.assert_allclose(once.rows[0]["train_return"], mean, rtol=1e-12)
    left, right = state_of(often, tmp_path / "often"), state_of(seldom, tmp_path / "seldom")
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)
    initial = jax.tree.leaves(eqx.filter(build(often).network, eqx.is_inexact_array))
    assert any(not np.array_equal(a, b) for a, b in zip(left, initial, strict=False)), "nothing was learned at all"


def evaluator(num_envs: int) -> tuple[Evaluator, QNetwork, Any]:
    network = QNetwork(2, 2, REGISTRY["gru"], key=jax.random.key(3), width=8)
    algorithm = dqn(DQNConfig(), network, Plan())
    envs = [HostEnv(ENV) for _ in range(num_envs)]
    return Evaluator(LocalEnvs(envs), algorithm.act, network.initial_state()), network, algorithm.init(network).params


def assert_equal(left: Evaluation, right: Evaluation) -> None:
    np.testing.assert_array_equal(left.returns, right.returns)
    np.testing.assert_array_equal(left.lengths, right.lengths)


def test_the_same_parameters_and_seeds_give_the_same_episodes_each_time_and_with_any_num_envs():
    evaluate, _, params = evaluator(2)
    first = evaluate(params, 7, lambda n: n).greedy
    other = evaluate(params, 7, lambda n: n + 100).greedy
    assert not np.array_equal(first.returns, other.returns)
    assert_equal(evaluate(params, 7, lambda n: n).greedy, first)
    assert_equal(evaluator(3)[0](params, 7, lambda n: n).greedy, first)


def test_evaluation_is_greedy_and_starts_each_episode_with_an_empty_memory():
    evaluate, network, params = evaluator(2)
    step = eqx.filter_jit(network.step)
    returns = []
    for seed in range(6):
        env, state, total = gym.make(ENV, disable_env_checker=True), network.initial_state(), 0.0
        observation, over, begin = env.reset(seed=seed)[0], False, True
        while not over:
            q, state = step(observation, np.asarray(begin), state)
            observation, reward, over, _, _ = env.step(int(np.argmax(q)))
            total, begin = total + reward, False
        returns.append(total)
    played, sampled = evaluate(params, 6, lambda n: n)
    assert sampled is None
    np.testing.assert_allclose(played.returns, returns, rtol=1e-12)
    np.testing.assert_array_equal(played.lengths, np.full(6, 5))
    assert played.mean == pytest.approx(np.mean(returns))


class Ones(gym.Env):
    """Ten steps that pay for action 1."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int):
        self.t += 1
        return np.zeros(1, np.float32), float(action), self.t == 10, False, {}


gym.register("test-evaluate/Ones-v0", entry_point=Ones)


class DeviceOnes(DeviceEnv):
    """`Ones` on device; episodes are numbered by nothing, so that only draws of the policy tell them apart."""

    max_length: int = eqx.field(static=True, default=10)
    min_length: int = eqx.field(static=True, default=10)
    observation_space = Ones.observation_space
    action_space = Ones.action_space

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        return jnp.zeros((), jnp.int32), jnp.zeros(1)

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, Step]:
        return state + 1, Step(jnp.zeros(1), action.astype(jnp.float32), state + 1 == 10, jnp.zeros((), bool))


PROBABILITY = 0.3


def unlikely_one(params: Any, memory: Any, observation: Any, begin: Any, explore: Any, key: jax.Array) -> Any:
    """A policy that takes action 1 with `PROBABILITY`, and whose mode is 0."""
    sampled = jax.random.bernoulli(key, PROBABILITY)
    return jnp.where(explore > 0, sampled, False).astype(jnp.int32), memory


def any_evaluator(where: str, stochastic: bool, num_envs: int = 5) -> Evaluator | DeviceEvaluator:
    if where == "host":
        envs = LocalEnvs([HostEnv("test-evaluate/Ones-v0") for _ in range(num_envs)])
        return Evaluator(envs, unlikely_one, (), stochastic=stochastic)
    view = DeviceView("ones", DeviceOnes())
    return DeviceEvaluator(view, unlikely_one, (), num_envs, stochastic=stochastic)


@pytest.mark.parametrize("where", ["host", "device"])
def test_a_policy_is_evaluated_by_its_mode_and_by_sampling_from_it(where: str):
    evaluate = any_evaluator(where, stochastic=True)
    greedy, sampled = evaluate((), 203, lambda n: n)
    assert sampled is not None and len(sampled.returns) == len(greedy.returns) == 203
    np.testing.assert_array_equal(greedy.returns, np.zeros(203))
    np.testing.assert_array_equal(sampled.lengths, np.full(203, 10))
    error = np.sqrt(10 * PROBABILITY * (1 - PROBABILITY) / 203)
    assert abs(sampled.mean - 10 * PROBABILITY) < 4 * error
    assert abs(sampled.returns.std() - error * np.sqrt(203)) < 0.3

    again, other = (evaluate((), 203, lambda n, first=first: n + first).sampled for first in (0, 1_000))
    assert again is not None and other is not None
    assert_equal(again, sampled)
    assert not np.array_equal(other.returns, sampled.returns), "the draws of one evaluation are those of another"
    wider = any_evaluator(where, stochastic=True, num_envs=7)((), 203, lambda n: n).sampled
    assert wider is not None
    assert_equal(wider, sampled)

    only, none = any_evaluator(where, stochastic=False)((), 5, lambda n: n)
    np.testing.assert_array_equal(only.returns, np.zeros(5))
    assert none is None


def test_the_evaluation_that_counts_comes_first_and_must_be_there():
    greedy, sampled = (evaluation([value]) for value in (1.0, 2.0))
    both, one = Evaluations(greedy, sampled), Evaluations(greedy)
    assert both.chosen(True) is sampled and both.chosen(False) is greedy and one.chosen(False) is greedy
    assert list(both.named(True)) == ["sampled", "greedy"] and list(both.named(False)) == ["greedy", "sampled"]
    assert list(one.named(False)) == ["greedy"]
    with pytest.raises(ValueError, match="sample from their policy"):
        one.named(True)
    joined = Evaluations.joined([both, both])
    assert joined.greedy.returns.tolist() == [1.0, 1.0]
    assert joined.sampled is not None and joined.sampled.returns.tolist() == [2.0, 2.0]
    assert Evaluations.joined([one, one]).sampled is None


@pytest.mark.parametrize("env", [ENV, "device:toy_env:Lengths"])
@pytest.mark.one_in(2)
def test_which_evaluation_counts_changes_what_is_reported_and_not_what_is_learned(env: str, tmp_path: Path):
    values: dict[str, Any] = {"algorithm": "ppo", "env": env, "random_episodes": 0, "agent": PPOConfig(minibatches=2)}
    values |= {
        "train_episodes": 200 if env == ENV else 12,
        "eval_every": 2,
        "rollout": 6 if env != ENV else None,
        "updates_per_episode": 1,
    }
    settings = config(**values)
    assert settings.evaluation.stochastic and not config().evaluation.stochastic
    sampled, greedy = (train(settings.replace(stochastic=way), tmp_path / str(way)) for way in (True, False))
    assert [row["eval_return"] for row in sampled.rows] == [row["eval_sampled"] for row in sampled.rows]
    assert [row["eval_return"] for row in greedy.rows] == [row["eval_greedy"] for row in greedy.rows]
    for name in ("eval_sampled", "eval_greedy", "loss", "train_return"):
        assert [row[name] for row in sampled.rows] == [row[name] for row in greedy.rows]
    assert any(row["eval_sampled"] != row["eval_greedy"] for row in greedy.rows)
    assert sampled.finals is not None and sampled.finals.sampled is not None
    assert sampled.final is sampled.finals.sampled and greedy.final is not None
    for outcome, way in ((sampled, "sampled"), (greedy, "greedy")):
        summary = json.loads((outcome.run_dir / "summary.json").read_text())
        assert summary["evaluation"] == way and summary["final_return"] == summary[f"final_return_{way}"]
        assert summary["final_return_sampled"] == sampled.final.mean
        assert summary["final_return_greedy"] == greedy.final.mean
        best = max(outcome.rows, key=lambda row: row["eval_return"])
        assert summary["best_episode"] == best["episode"]


def evaluation(returns: Any) -> Evaluation:
    return Evaluation(np.asarray(returns, float), np.ones(len(returns), int))


@pytest.mark.parametrize("returns", [[1.0, -1.0, 0.5, 0.25], [0.0, 0.0, 0.0, 9.0], [-3.0], [2.0] * 5])
def test_the_interval_holds_the_mean_and_stays_within_the_returns(returns: list[float]):
    low, high = evaluation(returns).interval()
    assert min(returns) <= low <= evaluation(returns).mean <= high <= max(returns)
    assert evaluation(returns).interval() == (low, high)


def test_the_interval_is_that_of_a_mean_and_widens_with_its_level():
    returns = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = evaluation(returns).interval()
    half = 1.96 * returns.std() / np.sqrt(400)
    np.testing.assert_allclose((low, high), (returns.mean() - half, returns.mean() + half), atol=0.15 * half)
    wider = evaluation(returns).interval(0.99)
    narrower = evaluation(returns).interval(0.5)
    assert wider[0] < low < narrower[0] < narrower[1] < high < wider[1]


def test_no_environment_seed_is_used_twice_in_a_run_and_its_evaluations(tmp_path: Path):
    Guess.seeds.clear()
    settings = config(eval_every=2, updates_per_episode=0)
    train(settings, tmp_path / "run")
    evaluate_run(tmp_path / "run", 4, seed=0)
    evaluate_run(tmp_path / "run", 4, seed=1)
    # Two of random play, random and training ones, three evaluations of two, the final one of three, and two reports.
    assert len(Guess.seeds) == 2 + 4 + 6 + 3 * 2 + 3 + 2 * 4
    assert len(set(Guess.seeds)) == len(Guess.seeds)


def test_runs_of_other_seeds_play_other_episodes():
    played = {
        environment_seeds(seed, stream)(number)
        for seed in range(5)
        for stream in (RANDOM, TRAIN, FINAL)
        for number in range(50)
    }
    assert len(played) == 5 * 3 * 50


def test_evaluations_never_meet_a_training_seed_in_a_run_as_long_as_the_longest_preset():
    # 10,000 random and 40,000 training episodes; 20 greedy ones after every tenth, 100 at the end.
    trained = {
        environment_seeds(0, stream)(number)
        for stream, count in ((RANDOM, 10_000), (TRAIN, 40_000))
        for number in range(count)
    }
    met = [
        (episode, number)
        for episode in range(10, 40_001, 10)
        for number in range(20)
        if environment_seeds(0, EVALUATE, episode)(number) in trained
    ]
    met += [(-1, n) for n in range(100) if environment_seeds(0, FINAL)(n) in trained]
    assert met == []
