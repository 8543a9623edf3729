"""Runs in environments whose actions have many parts, on the host and on the device."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest

from interruptions import interrupted
from memoroids.agents.branches import Branches
from memoroids.envs.spaces import Factored
from memoroids.replay import tape_buffer
from memoroids.runs import checkpoint
from memoroids.runs.build import HostParts, build
from memoroids.runs.load import evaluate_run, load
from memoroids.runs.run_directory import CHECKPOINTS
from memoroids.runs.run_sensitivity import measure
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train
from memoroids.tape import episode

SPACES: dict[str, gym.Space] = {
    "ten tens": gym.spaces.MultiDiscrete([10] * 10),
    "bits": gym.spaces.MultiBinary(12),
    "mixed": gym.spaces.MultiDiscrete([40, 2, 40, 3]),
    "few": gym.spaces.MultiDiscrete([3, 2, 4]),
    "huge": gym.spaces.Discrete(2_000_000),
}


class Match(gym.Env):
    """Five steps, each of which pays the share of the parts of the action that are 1."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, space: str = "ten tens"):
        self.action_space = SPACES[space]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.left = 5
        return self._look(), {}

    def step(self, action: np.ndarray):
        assert self.action_space.contains(action), action
        self.left -= 1
        return self._look(), float(np.mean(action == 1)), self.left == 0, False, {}

    def _look(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


gym.register("test-action-spaces/Match-v0", entry_point=Match)
LEARNERS: dict[str, dict[str, Any]] = {
    "dqn": {"random_episodes": 4, "batch_size": 20, "buffer_size": 200, "updates_per_episode": 1},
    "ppo": {"epochs": 2, "minibatches": 2},
    "pqn": {"epochs": 2, "minibatches": 2},
}
SEGMENTS = {"batching": "segments", "segment_length": 3, "segment_state": "stored"}


def config(algorithm: str, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "env": "test-action-spaces/Match-v0",
        "algorithm": algorithm,
        "memory": "gru",
        "width": 8,
        "previous_action": True,
        "train_episodes": 8,
        "num_envs": 2,
        "eval_every": 4,
        "eval_episodes": 2,
        "final_episodes": 2,
    }
    return TrainConfig.of(**settings | LEARNERS[algorithm] | changes)


def on_device(**changes: Any) -> dict[str, Any]:
    return {"env": "device:toy_env:Lengths", "env_options": {"parts": 10}, "rollout": 6} | changes


def refusal(settings: TrainConfig) -> str:
    with pytest.raises(ValueError) as error:
        build(settings)
    assert "\n" not in str(error.value)
    return str(error.value)


RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "dqn": ("dqn", {}),
    "ppo": ("ppo", {}),
    "pqn": ("pqn", {}),
    "ppo, bits": ("ppo", {"env_options": {"space": "bits"}}),
    "dqn, mixed, segments": ("dqn", {"env_options": {"space": "mixed"}, **SEGMENTS}),
    "dqn, bits, mean error": ("dqn", {"env_options": {"space": "bits"}, "loss": "huber-of-mean"}),
    "dqn, device": ("dqn", on_device(prioritised=True)),
    "ppo, device": ("ppo", on_device()),
    "pqn, device": ("pqn", on_device()),
}


QUICK = ("ppo, bits", "dqn, mixed, segments", "dqn, device")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RUNS])
@pytest.mark.one_in(6)
def test_actions_of_many_parts_train_resume_evaluate_and_are_measured(name: str, tmp_path: Path):
    algorithm, changes = RUNS[name]
    settings = config(algorithm, **changes)

    assert interrupted(settings, tmp_path).final is None
    outcome = train(settings, tmp_path, resume=True)
    warnings = tmp_path / "warnings.txt"
    # So short a run may find that it has learned nothing.
    assert outcome.final is not None and (not warnings.exists() or "dropped" not in warnings.read_text())
    _, parts, params = load(tmp_path)
    start = parts.agent.init(parts.network).params
    for before, after in zip(jax.tree.leaves(start.head), jax.tree.leaves(params.head), strict=True):
        assert np.isfinite(after).all() and (np.asarray(before) != np.asarray(after)).any()
    parts.close()
    assert len(evaluate_run(tmp_path, 3, 0).greedy.returns) == 3
    if settings.agent_type().traits.action_values:
        assert measure(tmp_path, 2, 0).profile.episodes == 2


def test_replay_holds_the_option_of_each_part(tmp_path: Path):
    settings = config("dqn")
    train(settings, tmp_path)
    parts = build(settings)
    assert isinstance(parts, HostParts) and parts.envs.example.actions == Factored((10,) * 10)
    observation = np.zeros((2, 2 + 100), np.float32)
    example = episode(observation, np.zeros((1, 10), np.int32), np.zeros(1), True, False)
    like = tape_buffer(settings.replay.buffer_size, 1, 1).init(example)
    replay = checkpoint.restore(checkpoint.latest(tmp_path / CHECKPOINTS), "replay", like)
    tape = replay.tape
    action, told = np.asarray(tape.action), np.asarray(tape.observation)[:, 2:].reshape(-1, 10, 10)
    (taken,) = np.nonzero(np.asarray(tape.transition))
    assert taken.size > 20 and np.unique(action[taken]).size == 10
    # The observation after a transition tells the action that was taken in it.
    np.testing.assert_array_equal(told[taken + 1].argmax(axis=-1), action[taken])
    np.testing.assert_array_equal(told[taken + 1].sum(axis=-1), 1)
    parts.close()


@pytest.mark.parametrize(("space", "outputs"), [("ten tens", 100), ("bits", 24), ("mixed", 85), ("few", 24)])
def test_a_network_has_an_output_for_each_option_where_actions_are_many(space: str, outputs: int):
    parts = build(config("pqn", env_options={"space": space}))
    observation = np.zeros(parts.network.encoder.linear.in_features - 1, np.float32)
    q, _ = parts.network.step(observation, np.asarray(True), parts.network.initial_state())
    # A small product is one set of actions, as a plain array.
    flat = q if space == "few" else q.flat
    assert isinstance(q, jax.Array if space == "few" else Branches) and flat.shape == (outputs,)
    parts.close()


def test_more_outputs_than_a_network_can_have_are_refused_in_one_line():
    message = refusal(config("dqn", env_options={"space": "huge"}))
    assert "test-action-spaces/Match-v0" in message and "Discrete(2000000)" in message and "2,000,000" in message


def test_an_agent_of_one_s_own_that_knows_no_parts_is_refused_in_one_line():
    settings = TrainConfig.of(env="test-action-spaces/Match-v0", algorithm="own_agent:A2C", memory="gru", width=8)
    message = refusal(settings)
    assert "10 parts" in message and "own_agent:A2C" in message
    assert all(f"--algorithm {name}" in message for name in ("dqn", "ppo", "pqn"))
