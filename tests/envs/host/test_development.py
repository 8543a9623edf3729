"""The environments of development: what they show, what they pay, and that none of them can be had without a memory."""

import importlib.util
import itertools
import subprocess
import sys
import warnings
from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from memoroids.envs import HostEnv, reward_threshold
from memoroids.envs.host import development
from memoroids.envs.host.development import LAKE, frozen_lake, tmaze
from memoroids.envs.observations import Mixed

MADE = [name for name in development.FACTORIES if name != "lunar_lander" or importlib.util.find_spec("Box2D")]
LONGEST = {"cartpole": 500, "pendulum": 200, "lunar_lander": 1_000, "tmaze": 33, "frozen_lake": 14}
SOLVED = {"cartpole": 475, "pendulum": None, "lunar_lander": 200, "tmaze": 0.95, "frozen_lake": 0.95}


@pytest.mark.parametrize("name", MADE)
def test_gymnasiums_checker_finds_nothing(name: str):
    with warnings.catch_warnings():
        # That it is wrapped, and that a torque is not between -1 and 1.
        warnings.filterwarnings("ignore", ".*(different from the unwrapped|symmetric and normalized).*")
        check_env(getattr(development, name)(), skip_render_check=True)  # drawing needs pygame


@pytest.mark.parametrize("name", MADE)
def test_agents_know_the_longest_episode_and_when_it_is_solved(name: str):
    env = HostEnv(f"{development.__name__}:{name}")
    assert env.max_length == LONGEST[name] and reward_threshold(env.id, env.env) == SOLVED[name]
    env.close()


@pytest.mark.parametrize(
    ("name", "id_", "seen"),
    [("cartpole", "CartPole-v1", [0, 2]), ("pendulum", "Pendulum-v1", [0, 1]), ("lunar_lander", "", [0, 1, 4, 6, 7])],
)
def test_positions_and_angles_are_seen_and_velocities_are_not(name: str, id_: str, seen: list[int]):
    if name not in MADE:
        pytest.skip("needs Box2D")
    hidden, whole = getattr(development, name)(), gym.make(id_ or "LunarLander-v3")
    whole.action_space.seed(3)
    assert hidden.observation_space.shape == (len(seen),)
    pairs = [(hidden.reset(seed=5)[0], whole.reset(seed=5)[0])]
    for _ in range(8):
        action = whole.action_space.sample()
        pairs.append((hidden.step(action)[0], whole.step(action)[0]))
    for part, all_of_it in pairs:
        np.testing.assert_array_equal(part, all_of_it[seen])


def played(env: gym.Env, seed: int, act: Any) -> tuple[float, int, bool]:
    """The return, the length and whether it was truncated, of an episode of `act(observations so far)`."""
    seen, total = [env.reset(seed=seed)[0]], 0.0
    for step in itertools.count(1):
        observation, reward, terminated, truncated, _ = env.step(act(seen))
        seen.append(observation)
        total += float(reward)
        if terminated or truncated:
            return total, step, truncated
    raise AssertionError


@pytest.mark.parametrize("length", [1, 10, 50])
def test_who_remembers_the_first_observation_of_a_tmaze_gets_1_in_the_fewest_steps(length: int):
    env = tmaze(length)
    found = [played(env, seed, lambda seen: 1 + seen[0] if seen[-1] == 3 else 0) for seed in range(40)]
    assert set(found) == {(1.0, length + 1, False)}


def test_without_memory_a_tmaze_gives_what_a_guess_gives():
    env = tmaze(4)
    for policy in itertools.product(range(3), repeat=4):  # an action for every observation
        returns = [played(env, seed, lambda seen: policy[seen[-1]])[0] for seed in range(60)]  # noqa: B023
        assert np.mean(returns) <= 0.5 + 2 * np.sqrt(0.25 / 60)
    returns = [played(env, seed, lambda seen: int(seen[-1] == 3))[0] for seed in range(60)]
    assert 0.3 < np.mean(returns) < 0.7


def test_a_tmaze_shows_the_way_once_and_ends_after_three_times_its_length():
    env = tmaze(4)
    firsts = {env.reset(seed=seed)[0] for seed in range(20)}
    assert firsts == {0, 1}
    env.reset(seed=0)
    assert [env.step(action)[0] for action in (1, 2, 0, 0, 0, 0, 0)] == [2, 2, 2, 2, 2, 3, 3]
    assert played(env, 0, lambda seen: 0) == (0.0, 15, True)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        tmaze(0)


def shortest(env: gym.Env) -> list[int]:
    """The actions of a shortest way over `LAKE`, found by breadth-first search with a copy of each situation."""
    waiting = deque([()])
    while waiting:
        actions = waiting.popleft()
        env.reset(seed=0)
        results = [env.step(action) for action in actions]
        if results and results[-1][1] == 1:
            return list(actions)
        if not any(result[2] for result in results) and len(actions) < 6:
            waiting.extend((*actions, action) for action in range(4))
    raise AssertionError


def test_the_lake_is_crossed_in_six_steps_with_a_memory_and_never_without():
    env = frozen_lake()
    way = shortest(env)
    assert len(way) == 6
    assert played(env, 0, lambda seen: way[len(seen) - 1]) == (1.0, 6, False)
    # A policy without memory is an action for each of the observations, of which ice with a hole beside it is one.
    env.reset(seed=0)
    met = sorted(
        {tuple(env.get_wrapper_attr("observation")(place)) for place in range(9) if "".join(LAKE)[place] != "H"}
    )
    returns = []
    for policy in itertools.product(range(4), repeat=len(met)):
        chosen = dict(zip(met, policy, strict=True))
        returns.append(played(env, 0, lambda seen: chosen[tuple(seen[-1])])[0])  # noqa: B023
    assert max(returns) == 0.0


def test_a_slippery_lake_leads_elsewhere_now_and_then():
    way = shortest(frozen_lake())
    env = frozen_lake(is_slippery=True, success_rate=0.8)
    returns = [played(env, seed, lambda seen: way[min(len(seen) - 1, 5)])[0] for seed in range(100)]
    assert 0.05 < np.mean(returns) < 0.6  # 0.8^6 = 0.26


def test_the_module_needs_neither_the_package_nor_jax():
    path = Path(development.__file__)
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('development', {str(path)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "module.tmaze(3).reset(seed=0)\n"
        "print([name for name in ('jax', 'memoroids') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("name", "longest"), [("minigrid:MiniGrid-MemoryS7-v0", 245), ("minigrid:MiniGrid-RedBlueDoors-6x6-v0", 720)]
)
def test_minigrids_are_seen_as_symbols_without_their_texts(name: str, longest: int):
    pytest.importorskip("minigrid")
    env = HostEnv(name)
    assert isinstance(env.layout, Mixed) and env.layout.size == 7 * 7 * 3 + 4 and env.max_length == longest
    assert [stop - start for start, stop, _ in env.layout.symbols] == [7 * 7 * 3]
    assert len(env.notices) == 2
    assert env.notices[0] == f"{name}: observation['mission'] is text, which the agent does not see"
    seen, whole = env.reset(0), env.env.unwrapped.gen_obs()
    assert sorted(seen[-4:]) == [0, 0, 0, 1] or sorted(seen[:4]) == [0, 0, 0, 1]
    assert sorted(seen) == sorted([*whole["image"].ravel(), 0, 0, 0, 1])
    env.close()
