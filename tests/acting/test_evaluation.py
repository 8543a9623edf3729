"""Evaluation is greedy, repeatable, on its own seeds, and does not change what is being trained."""

from pathlib import Path
from typing import Any

import equinox as eqx
import gymnasium as gym
import jax
import numpy as np
import pytest

from memoroids import tape as tapes
from memoroids.acting.evaluation import Evaluation, Evaluator
from memoroids.agents.base import Plan
from memoroids.agents.dqn import DQNConfig, dqn
from memoroids.agents.networks import QNetwork
from memoroids.envs import HostEnv
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
    first = evaluate(params, 7, lambda n: n)
    other = evaluate(params, 7, lambda n: n + 100)
    assert not np.array_equal(first.returns, other.returns)
    assert_equal(evaluate(params, 7, lambda n: n), first)
    assert_equal(evaluator(3)[0](params, 7, lambda n: n), first)


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
    played = evaluate(params, 6, lambda n: n)
    np.testing.assert_allclose(played.returns, returns, rtol=1e-12)
    np.testing.assert_array_equal(played.lengths, np.full(6, 5))
    assert played.mean == pytest.approx(np.mean(returns))


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
    # Random and training episodes, three evaluations of two, the final one of three, and two reports.
    assert len(Guess.seeds) == 4 + 6 + 3 * 2 + 3 + 2 * 4
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
