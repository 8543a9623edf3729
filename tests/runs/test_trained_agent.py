"""A trained agent in a loop of the user's own acts as it does in evaluations."""

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.envs import HostEnv
from memoroids.runs.build import build_acting
from memoroids.runs.settings import TrainConfig
from memoroids.runs.trained_agent import TrainedAgent

BOX = gym.spaces.Box(-1, 1, (3,), np.float32)
SPACES: dict[str, tuple[gym.Space, gym.Space]] = {
    "vector": (BOX, gym.spaces.Discrete(3, start=5)),
    "symbols": (
        gym.spaces.Tuple((gym.spaces.Discrete(4), gym.spaces.MultiBinary(2))),
        gym.spaces.MultiDiscrete([2, 3]),
    ),
    "image": (gym.spaces.Box(0, 255, (36, 36, 1), np.uint8), gym.spaces.Discrete(3)),
    "dict": (
        gym.spaces.Dict({"pixels": gym.spaces.Box(0, 255, (36, 40), np.uint8), "speed": BOX}),
        gym.spaces.MultiBinary(2),
    ),
    "grid": (
        gym.spaces.Dict({"facing": gym.spaces.Discrete(4), "seen": gym.spaces.Box(0, 255, (3, 3, 2), np.uint8)}),
        gym.spaces.Discrete(3),
    ),
    "many parts": (BOX, gym.spaces.MultiDiscrete([20, 20, 20])),
    "continuous": (BOX, gym.spaces.Box(-2, 3, (2,), np.float32)),
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dqn": ("vector", {"previous_action": True, "previous_reward": True, "step_periods": (4.0, 9.0)}),
    "ppo": ("symbols", {"algorithm": "ppo", "memory": "lru", "previous_action": True}),
    "image": ("image", {"memory": "mlp"}),
    "dict": ("dict", {"algorithm": "ppo", "previous_reward": True}),
    "grid": ("grid", {"algorithm": "ppo"}),
    "factored": ("many parts", {"algorithm": "ppo", "previous_action": True}),
    "continuous": ("continuous", {"algorithm": "ppo", "previous_action": True, "previous_reward": True}),
}


class Drawn(gym.Env):
    """Episodes of 7 steps with drawn observations and rewards; it keeps the actions that were taken."""

    def __init__(self, spaces: str = "vector"):
        self.observation_space, self.action_space = SPACES[spaces]

    def _look(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.taken: list[Any] = []
        return self._look(), {}

    def step(self, action: Any):
        assert self.action_space.contains(action), action
        self.taken.append(np.asarray(action))
        return self._look(), float(self.np_random.normal()), len(self.taken) == 7, False, {}


gym.register("test-trained-agent/Drawn-v0", entry_point=Drawn)


def parts_of(case: str) -> Any:
    spaces, settings = CASES[case]
    given = {"env": "test-trained-agent/Drawn-v0", "env_options": {"spaces": spaces}, "width": 8, "memory": "gru"}
    parts = build_acting(TrainConfig.of(**given | settings))
    return parts, parts.agent.init(parts.network).params


def by_steps(parts: Any, params: Any, seed: int) -> list[np.ndarray]:
    """The actions that the environment of a `HostEnv` gets from the agent's own `act`, greedy, step by step."""
    env = HostEnv("test-trained-agent/Drawn-v0", options={"spaces": env_spaces(parts)}, **parts.env.seen)
    act, memory = jax.jit(parts.agent.act), parts.network.initial_state()
    row, begin, over = env.reset(seed), True, False
    while not over:
        action, memory = act(params, memory, row, jnp.asarray(begin), jnp.zeros(()), jax.random.key(0))
        row, _, over, _ = env.step(np.asarray(action))
        begin = False
    return env.env.unwrapped.taken


def env_spaces(parts: Any) -> str:
    return next(
        name for name, (seen, _) in SPACES.items() if (seen, _) == (parts.env.observation_space, parts.env.action_space)
    )


def played(agent: TrainedAgent, seed: int, spaces: str) -> list[np.ndarray]:
    env = Drawn(spaces)
    observation, _ = env.reset(seed=seed)
    reward, over = 0.0, False
    agent.reset()
    while not over:
        observation, reward, over, _, _ = env.step(agent.act(observation, reward))
    return env.taken


@pytest.mark.parametrize("case", CASES)
def test_actions_are_those_of_the_agent_step_by_step_in_episode_after_episode(case):
    parts, params = parts_of(case)
    agent = TrainedAgent(parts, params)
    for seed in (0, 1):
        for got, want in zip(played(agent, seed, CASES[case][0]), by_steps(parts, params, seed), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["dqn", "dict"])
def test_several_environments_at_once_are_acted_in_as_each_alone(case):
    parts, params = parts_of(case)
    spaces = CASES[case][0]
    envs = gym.vector.SyncVectorEnv([lambda: Drawn(spaces)] * 2, autoreset_mode=gym.vector.AutoresetMode.DISABLED)
    agent = TrainedAgent(parts, params, num_envs=2)
    for seeds in ([0, 1], [2, 3]):
        observations, _ = envs.reset(seed=seeds)
        rewards, over = np.zeros(2), np.zeros(2, bool)
        agent.reset()
        while not over.any():
            observations, rewards, over, _, _ = envs.step(agent.act(observations, rewards))
        for env, seed in zip(envs.envs, seeds, strict=True):
            alone = TrainedAgent(parts, params)
            np.testing.assert_array_equal(env.unwrapped.taken, played(alone, seed, spaces))


def test_one_of_several_environments_begins_anew_while_the_other_goes_on():
    parts, params = parts_of("dqn")
    agent, twin = (TrainedAgent(parts, params, num_envs=2) for _ in range(2))
    rng = np.random.default_rng(0)
    before, after = rng.uniform(-1, 1, (5, 2, 3)).astype(np.float32), rng.uniform(-1, 1, (4, 2, 3)).astype(np.float32)
    for observation in before:
        agent.act(observation, np.ones(2))
    agent.reset(np.asarray([False, True]))
    fresh = TrainedAgent(parts, params)
    for observation in before:
        twin.act(observation, np.ones(2))
    for observation in after:
        first, second = agent.act(observation, np.ones(2))
        assert first == twin.act(observation, np.ones(2))[0]
        assert second == fresh.act(observation[1], 1.0)


def test_samples_follow_the_policy_and_repeat_with_their_seed():
    parts, params = parts_of("continuous")
    observation = np.zeros(3, np.float32)

    def drawn(seed: int, episodes: int = 30) -> np.ndarray:
        agent, taken = TrainedAgent(parts, params, stochastic=True, seed=seed), []
        for _ in range(episodes):
            agent.reset()
            taken.append(agent.act(observation, 0.0))
        return np.stack(taken)

    first = drawn(0)
    np.testing.assert_array_equal(first, drawn(0))
    assert not np.array_equal(first, drawn(1))
    assert (first.std(0) > 0.1).all()


def test_what_it_cannot_act_on_is_refused_in_one_line_and_forgotten():
    parts, params = parts_of("dqn")
    agent, twin = TrainedAgent(parts, params), TrainedAgent(parts, params)
    good = np.full(3, 0.5, np.float32)
    for each in (agent, twin):
        each.act(good)
    with pytest.raises(ValueError, match=r"Drawn-v0: got an observation at step 1 .* it has shape \(4,\)$"):
        agent.act(np.zeros(4, np.float32), 0.0)
    with pytest.raises(ValueError, match="Drawn-v0: got a non-finite observation at step 1"):
        agent.act(np.full(3, np.nan, np.float32), 0.0)
    with pytest.raises(ValueError, match=r"sees the last reward: pass it"):
        agent.act(good)
    with pytest.raises(ValueError, match="reward must be 1 finite numbers, got nan"):
        agent.act(good, np.nan)
    assert agent.act(good, 1.0) == twin.act(good, 1.0)
    with pytest.raises(ValueError, match="stochastic is for agents that sample"):
        TrainedAgent(parts, params, stochastic=True)
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        TrainedAgent(parts, params, num_envs=0)
    several = TrainedAgent(parts, params, num_envs=3)
    with pytest.raises(ValueError, match="got 2 observations for 3 environments"):
        several.act(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="begun must be 3 bools"):
        several.reset(np.asarray([0, 1, 2]))
