"""HostEnv: any Gymnasium environment with a flat float vector or an image out and one action in."""

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from memoroids.envs import EnvironmentFault, HostEnv, popgym_ids, resolve_id
from memoroids.envs.observations import Mixed, Symbols
from memoroids.envs.spaces import Continuous, Factored

POPGYM = [name for name in popgym_ids() if "Pendulum" not in name]
PENDULUMS = [name for name in popgym_ids() if "Pendulum" in name]
NEED_PREVIOUS_ACTION = ("Bandit", "MineSweeper", "Battleship", "Concentration", "Labyrinth")
UNIT = spaces.Box(-1.0, 1.0, (2,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 40), np.uint8)


class Words(spaces.Space[str]):
    """A space of strings that is not Gymnasium's `Text`, as MiniGrid's missions are."""

    def __init__(self):
        super().__init__(dtype=str)


def zeros(t: int) -> np.ndarray:
    return np.zeros(2, np.float32)


class Scripted(gym.Env):
    """Returns scripted observations and rewards, and records the actions it receives."""

    def __init__(
        self,
        observation_space: spaces.Space = UNIT,
        action_space: spaces.Space | None = None,
        *,
        observe: Callable[[int], Any] = zeros,
        reward: Callable[[int], Any] = float,
        length: int = 100,
    ):
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(2) if action_space is None else action_space
        self.observe, self.reward, self.length = observe, reward, length
        self.t = 0
        self.received: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(0), {}

    def step(self, action: Any):
        self.t += 1
        self.received.append(action)
        return self.observe(self.t), self.reward(self.t), self.t == self.length, False, {}


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Registers the environment that a function makes under a new id, for the duration of a test."""
    names: list[str] = []

    def add(make: Callable[[], gym.Env], **options: Any) -> str:
        name = f"test-host/Scripted{len(names)}-v0"
        gym.register(name, entry_point=make, **options)
        names.append(name)
        return name

    yield add
    for name in names:
        del gym.registry[name]


def flat_size(space: spaces.Space) -> int:
    if isinstance(space, spaces.Box):
        return math.prod(space.shape)
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.Tuple):
        return sum(flat_size(part) for part in space.spaces)
    assert isinstance(space, spaces.Dict)
    return sum(flat_size(part) for part in space.spaces.values())


def play(env: HostEnv, seed: int, steps: int) -> tuple[np.ndarray, list[float]]:
    generator = np.random.default_rng(0)
    observations, rewards = [env.reset(seed)], []
    for _ in range(steps):
        observation, reward, terminated, truncated = env.step(int(generator.integers(env.actions)))
        observations.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            break
    return np.stack(observations), rewards


def test_popgym_has_forty_two_tasks_with_discrete_actions_and_six_without():
    assert len(POPGYM) == len(set(POPGYM)) == 42 and len(PENDULUMS) == 6
    assert {"popgym-RepeatFirstEasy-v0", "popgym-VelocityOnlyCartpoleHard-v0"} <= set(POPGYM)


@pytest.mark.parametrize("name", POPGYM)
def test_every_discrete_popgym_task_plays_with_the_sizes_of_its_spaces(name: str):
    env = HostEnv(name)
    native = gym.make(name, disable_env_checker=True)
    parts = (
        native.action_space.nvec if isinstance(native.action_space, spaces.MultiDiscrete) else [native.action_space.n]
    )
    asks = any(task in name for task in NEED_PREVIOUS_ACTION)
    assert env.previous_action is asks
    assert env.actions == math.prod(int(n) for n in parts)
    assert env.observation_size == flat_size(native.observation_space) + asks * int(sum(parts))
    observation = env.reset(3)
    for action in (0, env.actions - 1, env.actions // 2):
        assert observation.shape == (env.observation_size,)
        assert observation.dtype == np.float32
        assert np.isfinite(observation).all()
        observation, reward, terminated, truncated = env.step(action)
        assert type(reward) is float and math.isfinite(reward)
        assert type(terminated) is bool and type(truncated) is bool
        if terminated or truncated:
            observation = env.reset(4)
    env.close()


@pytest.mark.parametrize("name", PENDULUMS)
def test_continuous_actions_are_clipped_to_their_box_and_told_as_they_acted(name: str):
    env, native = HostEnv(name, previous_action=True), gym.make(name, disable_env_checker=True)
    assert env.actions == Continuous(1, (-2.0,), (2.0,))
    start, _ = native.reset(seed=5)
    np.testing.assert_allclose(env.reset(5), [*start, 0.0], rtol=1e-6)
    for action in (0.5, -9.0, 2.5):
        clipped = float(np.clip(action, -2, 2))
        shown, reward, *_ = native.step(np.asarray([clipped], np.float32))
        observation, mine, terminated, truncated = env.step(np.asarray([action], np.float32))
        np.testing.assert_allclose(observation, [*shown, clipped], rtol=1e-5)
        np.testing.assert_allclose(mine, float(reward), rtol=1e-5)
        assert not terminated and not truncated


@pytest.mark.parametrize("name", POPGYM)
def test_an_episode_of_a_popgym_task_depends_on_its_seed_alone(name: str):
    used = HostEnv(name)
    play(used, 1, 30)
    again, rewards_again = play(used, 2, 30)
    fresh, rewards_fresh = play(HostEnv(name), 2, 30)
    np.testing.assert_array_equal(again, fresh)
    assert rewards_again == rewards_fresh


def test_another_seed_gives_another_episode():
    env = HostEnv("RepeatPreviousHard")
    assert not np.array_equal(play(env, 1, 30)[0], play(env, 2, 30)[0])


def test_the_longest_episode_is_what_the_environment_declares(register: Callable[..., str]):
    assert HostEnv("popgym-RepeatFirstEasy-v0").max_length == 51
    assert HostEnv(register(Scripted, max_episode_steps=7)).max_length == 7
    assert HostEnv(register(Scripted)).max_length is None


def test_options_reach_the_environment_as_they_were_typed(register: Callable[..., str]):
    longer = HostEnv("popgym-RepeatPreviousEasy-v0", options={"k": 10, "num_decks": 2})
    assert longer.max_length == 103 and longer.env.unwrapped.k == 10  # pyright: ignore[reportAttributeAccessIssue]
    received: dict[str, Any] = {}

    def make(**options: Any) -> gym.Env:
        received.update(options)
        return Scripted()

    options = {"whole": 3, "real": 3.0, "flag": True, "word": "3"}
    HostEnv(register(make), options=options)
    assert [(name, type(value)) for name, value in received.items()] == [(n, type(v)) for n, v in options.items()]
    assert received == options


@pytest.mark.parametrize("options", [{"kk": 10}, {"k": 99}, {"num_decks": 1.5}, {"disable_env_checker": True}])
def test_options_that_an_environment_does_not_take_are_named(options: dict[str, Any]):
    with pytest.raises(ValueError) as error:
        HostEnv("RepeatPreviousEasy", options=options)
    message = one_line(error)
    assert "popgym-RepeatPreviousEasy-v0" in message and str(options) in message


OBSERVATIONS: dict[str, tuple[spaces.Space, Any, list[float] | None]] = {
    # The third element, if given, is the expected flat vector, written by hand.
    "box": (spaces.Box(-5, 5, (2, 3), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3), [0, 1, 2, 3, 4, 5]),
    "bytes": (spaces.Box(0, 255, (3,), np.uint8), np.array([0, 7, 255], np.uint8), [0, 7, 255]),
    "scalar": (spaces.Box(-5, 5, (), np.float64), np.float64(2.5), [2.5]),
    "discrete": (spaces.Discrete(4), 2, [0, 0, 1, 0]),
    "discrete with a start": (spaces.Discrete(4, start=-1), -1, [1, 0, 0, 0]),
    "multi-discrete": (spaces.MultiDiscrete([2, 3]), np.array([1, 0]), [0, 1, 1, 0, 0]),
    "multi-discrete with a start": (spaces.MultiDiscrete([2, 3], start=[5, 1]), np.array([6, 1]), [0, 1, 1, 0, 0]),
    "multi-discrete of two axes": (spaces.MultiDiscrete([[2, 3], [2, 2]]), np.array([[1, 2], [0, 1]]), None),
    "multi-binary": (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
    "tuple": (
        spaces.Tuple((spaces.Discrete(2), spaces.Box(-5, 5, (2,), np.float32))),
        (1, np.array([3, 4], np.float32)),
        [0, 1, 3, 4],
    ),
    "dict of a tuple": (
        spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(1)))}),
        {"a": (0, np.array([1], np.int8)), "b": 2},
        None,
    ),
}


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_observations_are_flattened_as_gymnasium_does(kind: str, register: Callable[..., str]):
    space, observation, by_hand = OBSERVATIONS[kind]
    env = HostEnv(register(lambda: Scripted(space, observe=lambda t: observation)))
    for flat in (env.reset(0), env.step(1)[0]):
        assert flat.dtype == np.float32
        np.testing.assert_array_equal(flat, np.asarray(flatten(space, observation), np.float32))
        assert env.observation_size == flat.size
        if by_hand is not None:
            np.testing.assert_array_equal(flat, by_hand)


@pytest.mark.parametrize("shape", [(40, 36), (40, 36, 1), (40, 36, 3), (3, 40, 36)])
def test_images_stay_bytes_with_their_channels_last(shape: tuple[int, ...], register: Callable[..., str]):
    generator = np.random.default_rng(0)
    shown = generator.integers(0, 256, (3, *shape), dtype=np.uint8)
    env = HostEnv(register(lambda: Scripted(spaces.Box(0, 255, shape, np.uint8), observe=lambda t: shown[t])))
    channels = 3 if 3 in shape else 1
    assert env.observation_shape == env.layout == (40, 36, channels) and env.observation_dtype == np.uint8
    for t in range(3):
        image = env.reset(0) if t == 0 else env.step(0)[0]
        assert image.dtype == np.uint8
        for channel in range(channels):
            plane = shown[t][channel] if shape[0] == 3 else shown[t].reshape(40, 36, channels)[..., channel]
            np.testing.assert_array_equal(image[..., channel], plane)


def test_parts_of_an_observation_are_seen_side_by_side(register: Callable[..., str]):
    generator = np.random.default_rng(0)
    picture, small = (generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((2, 36, 40), (2, 2)))
    space = spaces.Dict(
        {
            "a": spaces.Discrete(3),
            "b": spaces.Dict({"picture": spaces.Box(0, 255, (2, 36, 40), np.uint8), "said": spaces.Text(9)}),
            "c": spaces.Tuple((spaces.Box(0, 255, (2, 2), np.uint8), spaces.Box(-1, 1, (1,), np.float32))),
        }
    )
    value = {"a": 1, "b": {"picture": picture, "said": "go"}, "c": (small, np.asarray([0.5], np.float32))}
    name = register(lambda: Scripted(space, observe=lambda t: value))
    env = HostEnv(name, previous_action=True, step_periods=(4.0,))
    grid = Symbols(2880 + 3, 2880 + 3 + 4, 16)
    assert env.layout == Mixed(((36, 40, 2),), 3 + 4 + 1 + 2 + 2, (grid,)) and env.observation_dtype == np.float32
    assert env.notices[0] == f"{name}: observation['b']['said'] is text, which the agent does not see"
    assert "observation['c'][0] are read as symbols" in env.notices[1] and len(env.notices) == 2
    env.reset(0)
    row = env.step(1)[0]
    assert row.shape == env.observation_shape == (env.layout.size,) and row.dtype == np.float32
    np.testing.assert_array_equal(row[:2880].reshape(36, 40, 2), np.stack((picture[0], picture[1]), axis=-1))
    np.testing.assert_allclose(row[2880:], [0, 1, 0, *small.ravel(), 0.5, 0, 1, 1, 0], atol=1e-6)
    flat = HostEnv(name, observation="vector")
    assert flat.observation_shape == flat.layout == (2888,)
    np.testing.assert_array_equal(flat.reset(0), [0, 1, 0, *picture.ravel(), *small.ravel(), 0.5])


def test_an_image_beside_a_text_is_an_image_alone(register: Callable[..., str]):
    space = spaces.Dict({"screen": IMAGE, "mission": Words()})
    env = HostEnv(register(lambda: Scripted(space, observe=lambda t: {"screen": DARK + t, "mission": "go"})))
    assert env.layout == (36, 40, 1) and env.observation_dtype == np.uint8 and len(env.notices) == 1
    env.reset(0)
    np.testing.assert_array_equal(env.step(1)[0], np.ones((36, 40, 1)))


def test_a_part_that_is_not_in_its_space_is_a_fault(register: Callable[..., str]):
    space = spaces.Dict({"screen": IMAGE, "speed": UNIT, "said": Words()})
    right = {"screen": DARK, "speed": FINE, "said": "go"}
    for wrong in ({"screen": DARK.T}, {"screen": DARK * 1.0}, {"speed": FINE + 3}, {"speed": FINE * math.nan}):
        env = HostEnv(register(lambda wrong=wrong: Scripted(space, observe=lambda t: right | wrong)), check_bounds=True)
        with pytest.raises(EnvironmentFault) as error:
            env.reset(0)
        assert env.id in one_line(error)
    assert HostEnv(register(lambda: Scripted(space, observe=lambda t: right))).reset(0).shape == (1442,)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (6,), np.uint8),
        spaces.Box(0, 255, (2, 3), np.int32),
        spaces.Box(0, 1, (2, 3, 1), np.float32),
        spaces.Box(0, 255, (1, 2, 3, 1), np.uint8),
    ],
)
def test_boxes_that_are_no_images_are_flattened(space: spaces.Box, register: Callable[..., str]):
    env = HostEnv(register(lambda: Scripted(space, observe=lambda t: np.ones(space.shape, space.dtype))))
    assert env.observation_shape == (6,) and env.observation_dtype == np.float32
    observation = env.reset(0)
    assert observation.dtype == np.float32
    np.testing.assert_array_equal(observation, np.ones(6))


def test_an_image_handed_out_is_not_changed_by_later_steps(register: Callable[..., str]):
    shared = np.zeros((36, 40), np.uint8)

    def observe(t: int) -> np.ndarray:
        shared[:] = t
        return shared

    env = HostEnv(register(lambda: Scripted(IMAGE, observe=observe)))
    first = env.reset(0)
    env.step(1)
    np.testing.assert_array_equal(first, np.zeros((36, 40, 1)))


@pytest.mark.parametrize(
    ("seen", "actions", "joined"),
    [
        (UNIT, spaces.Discrete(2), True),
        (UNIT, spaces.MultiDiscrete([2, 3]), True),
        (UNIT, spaces.Discrete(1_024), True),
        (UNIT, spaces.Discrete(1_025), False),
        (UNIT, spaces.Box(-1, 1, (2,), np.float32), False),
        (IMAGE, spaces.Discrete(2), False),
    ],
)
def test_discrete_actions_can_be_joined_whatever_the_environment_wants(
    seen: spaces.Space, actions: spaces.Space, joined: bool, register: Callable[..., str]
):
    name = register(lambda: Scripted(seen, actions))
    env = HostEnv(name, previous_action="discrete")
    assert env.previous_action is joined and HostEnv(name).previous_action is False
    assert HostEnv(name, **env.seen).layout == env.layout


@pytest.mark.parametrize("joined", ["previous_action", "previous_reward"])
def test_nothing_is_joined_to_an_image(joined: str, register: Callable[..., str]):
    class Asking(Scripted):
        obs_requires_prev_action = True

    name = register(lambda: Asking(IMAGE, observe=lambda t: np.zeros((36, 40), np.uint8)))
    assert HostEnv(name).previous_action is False
    with pytest.raises(ValueError) as error:
        HostEnv(name, **{joined: True})
    message = one_line(error)
    assert name in message and "(36, 40, 1)" in message


def test_an_observation_handed_out_is_not_changed_by_later_steps(register: Callable[..., str]):
    shared = np.zeros(2, np.float32)

    def observe(t: int) -> np.ndarray:
        shared[:] = t / 10
        return shared

    env = HostEnv(register(lambda: Scripted(observe=observe)), previous_action=True)
    first = env.reset(0)
    env.step(1)
    np.testing.assert_array_equal(first, np.zeros(4))


def received_for_every_index(space: spaces.Space, number: int, register: Callable[..., str]) -> list[Any]:
    """What an environment receives for each of the `number` indices that its actions have."""
    env = HostEnv(register(lambda: Scripted(action_space=space)))
    assert env.actions == number
    env.reset(0)
    for action in range(number):
        env.step(action)
    return env.env.unwrapped.received  # pyright: ignore[reportAttributeAccessIssue]


def test_every_index_reaches_the_environment_as_its_own_vector_of_parts(register: Callable[..., str]):
    space = spaces.MultiDiscrete([2, 3, 4])
    received = received_for_every_index(space, 24, register)
    assert [tuple(vector) for vector in received] == list(itertools.product(range(2), range(3), range(4)))
    assert all(space.contains(vector) for vector in received)


def test_actions_start_where_their_space_starts(register: Callable[..., str]):
    cases = (
        (spaces.Discrete(3, start=-2), [-2, -1, 0]),
        (spaces.MultiDiscrete([2, 2], start=[1, 5]), [(1, 5), (1, 6), (2, 5), (2, 6)]),
    )
    for space, expected in cases:
        env = HostEnv(register(lambda space=space: Scripted(action_space=space)))
        env.reset(0)
        for action in range(env.actions):
            env.step(action)
        received = env.env.unwrapped.received  # pyright: ignore[reportAttributeAccessIssue]
        assert all(space.contains(action) for action in received)
        assert [tuple(a) if isinstance(a, np.ndarray) else a for a in received] == expected


MANY = {
    "parts": (spaces.MultiDiscrete([10] * 10), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]),
    "with a start": (spaces.MultiDiscrete([30, 40], start=[-5, 100], dtype=np.int16), [29, 39], [24, 139]),
    "a board": (spaces.MultiDiscrete(np.full((2, 2), 20)), [1, 2, 3, 4], [[1, 2], [3, 4]]),
    "bits": (spaces.MultiBinary(11), [0, 1] * 5 + [1], [0, 1] * 5 + [1]),
    "a board of bits": (spaces.MultiBinary((2, 6)), [0, 1] * 6, [[0, 1] * 3] * 2),
}


@pytest.mark.parametrize("kind", MANY)
def test_actions_of_many_parts_reach_the_environment_in_its_own_form(kind: str, register: Callable[..., str]):
    space, action, native = MANY[kind]
    env = HostEnv(register(lambda: Scripted(action_space=space)), previous_action=True)
    assert isinstance(env.actions, Factored) and env.observation_size == 2 + sum(env.actions.sizes)
    env.reset(0)
    observation, *_ = env.step(np.asarray(action, np.int32))
    (received,) = env.env.unwrapped.received  # pyright: ignore[reportAttributeAccessIssue]
    assert space.contains(received) and received.tolist() == native
    ones = [option == chosen for size, chosen in zip(env.actions.sizes, action, strict=True) for option in range(size)]
    np.testing.assert_array_equal(observation[2:], ones)


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (spaces.MultiDiscrete([2, 3]), [6, -1]),
        (spaces.Discrete(3), [3, -1]),
        (spaces.MultiDiscrete([30, 40]), [[30, 0], [0, 40], [-1, 0]]),
    ],
)
def test_an_action_out_of_its_range_is_not_taken_for_another(
    space: spaces.Space, actions: list[Any], register: Callable[..., str]
):
    env = HostEnv(register(lambda: Scripted(action_space=space)))
    env.reset(0)
    for action in actions:
        with pytest.raises(ValueError, match=r"action .* is not below"):
            env.step(np.asarray(action))


def test_a_few_bits_are_one_set_of_actions(register: Callable[..., str]):
    space = spaces.MultiBinary((2, 2))
    received = received_for_every_index(space, 16, register)
    assert all(space.contains(board) for board in received)
    assert [tuple(board.ravel()) for board in received] == list(itertools.product(range(2), repeat=4))


def test_the_previous_action_and_reward_follow_the_observation_and_are_zero_at_a_begin(register: Callable[..., str]):
    name = register(lambda: Scripted(action_space=spaces.MultiDiscrete([2, 3]), reward=lambda t: 0.5 * t))
    env = HostEnv(name, previous_action=True, previous_reward=True)
    assert env.observation_size == 2 + 5 + 1
    np.testing.assert_array_equal(env.reset(0), [0, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(env.step(4)[0], [0, 0, 0, 1, 0, 1, 0, 0.5])
    np.testing.assert_array_equal(env.step(0)[0], [0, 0, 1, 0, 1, 0, 0, 1.0])
    np.testing.assert_array_equal(env.reset(0), [0, 0, 0, 0, 0, 0, 0, 0])


def test_either_of_the_previous_action_and_reward_comes_alone(register: Callable[..., str]):
    name = register(lambda: Scripted(action_space=spaces.Discrete(3, start=7), reward=lambda t: -2.0))
    for kind, expected in (
        ({"previous_action": True}, [0, 0, 0, 1, 0]),
        ({"previous_reward": True}, [0, 0, -2]),
        ({}, [0, 0]),
    ):
        env = HostEnv(name, **kind)
        env.reset(0)
        np.testing.assert_array_equal(env.step(1)[0], expected)


def test_step_periods_follow_everything_as_sines_and_cosines_of_the_step(register: Callable[..., str]):
    name = register(lambda: Scripted(action_space=spaces.Discrete(2), reward=lambda t: -2.0))
    env = HostEnv(name, previous_reward=True, step_periods=(4.0, 12.0))
    assert env.observation_shape == (2 + 1 + 4,)
    first = env.reset(0)
    np.testing.assert_allclose(first[3:], [0, 0, 1, 1], atol=1e-6)
    third = [env.step(0)[0] for _ in range(3)][-1]
    assert third.dtype == np.float32 and third[2] == -2
    np.testing.assert_allclose(third[3:], [-1, 1, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(env.reset(0), first)


def test_the_user_overrules_what_the_environment_asks_for():
    assert HostEnv("MultiarmedBanditEasy", previous_action=False).observation_size == 2
    assert HostEnv("RepeatFirstEasy", previous_action=True).observation_size == 4 + 4


def test_a_time_limit_truncates_and_an_end_of_its_own_terminates(register: Callable[..., str]):
    limited = HostEnv(register(Scripted, max_episode_steps=2))
    limited.reset(0)
    assert limited.step(0)[2:] == (False, False)
    assert limited.step(0)[2:] == (False, True)
    ending = HostEnv(register(lambda: Scripted(length=1)))
    ending.reset(0)
    assert ending.step(0)[2:] == (True, False)


def test_short_names_of_popgym_tasks_are_found_in_any_case():
    assert resolve_id("RepeatFirstEasy") == "popgym-RepeatFirstEasy-v0"
    assert resolve_id("velocityonlycartpolehard") == "popgym-VelocityOnlyCartpoleHard-v0"
    assert resolve_id("popgym-MineSweeperEasy-v0") == "popgym-MineSweeperEasy-v0"
    assert resolve_id("CartPole-v1") == "CartPole-v1"
    assert resolve_id("package.module:Thing-v0") == "package.module:Thing-v0"


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RepeatFristEasy", "popgym-RepeatFirstEasy-v0"),
        ("popgym-RepeatFristEasy-v0", "popgym-RepeatFirstEasy-v0"),
        ("minesweepereasy-v0", "popgym-MineSweeperEasy-v0"),
        ("CartPol-v1", "CartPole-v1"),
    ],
)
def test_an_unknown_environment_is_answered_with_the_nearest(name: str, nearest: str):
    with pytest.raises(ValueError) as error:
        HostEnv(name)
    message = one_line(error)
    assert repr(name) in message and f"did you mean {nearest}" in message


def test_a_name_like_no_other_is_answered_with_where_to_look():
    with pytest.raises(ValueError) as error:
        HostEnv("qqqqqqqqqqqq")
    assert "memoroids list envs" in one_line(error)


@pytest.mark.parametrize("name", ["no_such_package_here:Thing-v0", "one:two:three"])
def test_an_environment_that_cannot_be_imported_is_named(name: str):
    with pytest.raises(ValueError) as error:
        HostEnv(name)
    assert name in one_line(error)


def test_an_environment_that_cannot_be_built_is_named(register: Callable[..., str]):
    def refuse() -> gym.Env:
        raise RuntimeError("no\nlicence")

    name = register(refuse)
    with pytest.raises((ValueError, EnvironmentFault)) as error:
        HostEnv(name)
    message = one_line(error)
    assert name in message and "no licence" in message


@pytest.mark.parametrize(
    "space", [spaces.Box(-np.inf, 1, (2,)), spaces.Sequence(spaces.Discrete(2)), spaces.Tuple((spaces.Discrete(2),))]
)
def test_actions_of_a_space_that_is_not_supported_are_refused(space: spaces.Space, register: Callable[..., str]):
    name = register(lambda: Scripted(action_space=space))
    with pytest.raises(ValueError) as error:
        HostEnv(name)
    message = one_line(error)
    assert name in message and type(space).__name__ in message and "Discrete" in message


@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (0,)), spaces.Box(-1, 1, (2, 0)), spaces.MultiDiscrete([])], ids=str
)
def test_a_space_without_an_action_is_refused(space: spaces.Space, register: Callable[..., str]):
    name = register(lambda: Scripted(action_space=space))
    with pytest.raises(ValueError, match=r"action space .* needs 0 network outputs, but from 1 to") as error:
        HostEnv(name)
    assert name in one_line(error)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_of_actions_whose_squares_are_not_finite_are_refused(dtype: type, register: Callable[..., str]):
    largest = float(np.finfo(np.float32).max)
    for low, high in ((-1, largest), (-largest, 1), (-1, 1e19)):
        name = register(lambda low=low, high=high: Scripted(action_space=spaces.Box(low, high, (2,), dtype)))
        with pytest.raises(ValueError, match=r"or a Box of floats with bounds of at most 1e\+18"):
            HostEnv(name)
    name = register(lambda: Scripted(action_space=spaces.Box(-1e18, 1e18, (2,), np.float64)))
    assert HostEnv(name).actions == Continuous(2, (-1e18,) * 2, (1e18,) * 2)


@pytest.mark.parametrize("which", ["observation_space", "action_space"])
@pytest.mark.parametrize(("value", "says"), [(None, "has none"), (4, "one of type int"), (len, "one of type builtin")])
def test_an_environment_without_spaces_is_refused(which: str, value: Any, says: str, register: Callable[..., str]):
    def make() -> gym.Env:
        env = Scripted()
        setattr(env, which, value)
        if value is None:
            delattr(env, which)
        return env

    name = register(make)
    with pytest.raises(ValueError, match=f"needs a gymnasium.Space as its {which}, but .*{says}") as error:
        HostEnv(name)
    assert name in one_line(error)


def test_observations_without_a_fixed_size_are_refused(register: Callable[..., str]):
    name = register(lambda: Scripted(spaces.Sequence(spaces.Discrete(2))))
    with pytest.raises(ValueError) as error:
        HostEnv(name)
    message = one_line(error)
    assert name in message and "Sequence" in message


def at(step: int, wrong: Any, right: Any) -> Callable[[int], Any]:
    def value(t: int) -> Any:
        if t == step and isinstance(wrong, Exception):
            raise wrong
        return wrong if t == step else right

    return value


FINE = np.zeros(2, np.float32)
DARK = np.zeros((36, 40), np.uint8)
FAULTS: dict[str, tuple[int, dict[str, Any], str]] = {
    # The step at which the fault occurs, the faulty script, and a word that the message must contain.
    "raises at reset": (0, {"observe": at(0, OSError("disk\nfull"), FINE)}, "disk full"),
    "raises in mid-episode": (2, {"observe": at(2, KeyError("lost"), FINE)}, "KeyError"),
    "nan at reset": (0, {"observe": at(0, np.array([0, np.nan]), FINE)}, "nan"),
    "nan in mid-episode": (2, {"observe": at(2, np.array([np.nan, 0]), FINE)}, "nan"),
    "infinity in mid-episode": (2, {"observe": at(2, np.array([0, -np.inf]), FINE)}, "inf"),
    "too few numbers": (1, {"observe": at(1, np.zeros(1), FINE)}, "shape (1,)"),
    "too many numbers": (2, {"observe": at(2, np.zeros((2, 2)), FINE)}, "shape (2, 2)"),
    "no numbers": (1, {"observe": at(1, "upside down", FINE)}, "shape ()"),
    "nan reward": (2, {"reward": at(2, math.nan, 0.0)}, "nan"),
    "infinite reward": (1, {"reward": at(1, math.inf, 0.0)}, "inf"),
    "no reward": (2, {"reward": at(2, None, 0.0)}, "None"),
    "a word for a reward": (1, {"reward": at(1, "plenty", 0.0)}, "plenty"),
    "rewards for several": (1, {"reward": at(1, np.zeros(2), 0.0)}, "reward"),
    "discrete past its end": (1, {"observation_space": spaces.Discrete(3), "observe": at(1, 3, 0)}, "Discrete(3)"),
    "an image of real numbers": (1, {"observation_space": IMAGE, "observe": at(1, DARK * 1.0, DARK)}, "float64"),
    "an image on its side": (2, {"observation_space": IMAGE, "observe": at(2, DARK.T, DARK)}, "(40, 36)"),
    "a ragged image": (1, {"observation_space": IMAGE, "observe": at(1, [[1], [1, 2]], DARK)}, "ValueError"),
    "discrete before its start": (1, {"observation_space": spaces.Discrete(3), "observe": at(1, -1, 0)}, "Discrete(3)"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_misbehaving_environment_is_named_with_the_step_and_the_fault(kind: str, register: Callable[..., str]):
    step, script, word = FAULTS[kind]
    name = register(lambda: Scripted(**script))
    env = HostEnv(name)

    def run() -> None:
        env.reset(11)
        for _ in range(step):
            env.step(0)

    with pytest.raises(EnvironmentFault) as error:
        run()
    message = one_line(error)
    assert name in message and word in message
    assert f"step {step}" in message or (step == 0 and "reset" in message)


INT64 = np.iinfo(np.int64)
INTEGERS = [np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]


def shown(observation_space: spaces.Space, value: Any, register: Callable[..., str], **options: Any) -> np.ndarray:
    """What an agent sees of an observation."""
    return HostEnv(register(lambda: Scripted(observation_space, observe=lambda t: value)), **options).reset(0)


@pytest.mark.parametrize("check_bounds", [True, False])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_that_their_type_cannot_hold_are_refused_and_its_extremes_are_not(
    dtype: np.dtype, check_bounds: bool, register: Callable[..., str]
):
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    unbounded = spaces.Box(-np.inf if low else low, np.inf if low else high, (1,), dtype.type)
    for value in (low, high, 0, 1):
        seen = shown(unbounded, np.asarray([value]), register, check_bounds=check_bounds)
        np.testing.assert_array_equal(seen, np.float32([value]))
    for value in (low - 1, high + 1, high + 5, -(2**63) if low == 0 else 2**64 - 1):
        with pytest.raises(EnvironmentFault) as error:
            shown(unbounded, np.asarray([value]), register, check_bounds=check_bounds)
        said = one_line(error)
        assert f"{value} at index 0 does not fit {dtype}" in said or "dtype object" in said, said


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_bounds_of_integers_are_exact(dtype: np.dtype, register: Callable[..., str]):
    high = int(np.iinfo(dtype).max)
    space = spaces.Box(1, np.asarray([high - 1], dtype), (1,), dtype.type)
    for value in (1, high - 1):
        np.testing.assert_array_equal(shown(space, np.asarray([value], dtype), register), np.float32([value]))
    for value in (0, high):
        with pytest.raises(EnvironmentFault, match=rf"{value} at index 0 is out of bounds \(--no-check-bounds"):
            shown(space, np.asarray([value], dtype), register, check_bounds=True)
        seen = shown(space, np.asarray([value], dtype), register)
        np.testing.assert_array_equal(seen, np.float32([value]))


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.uint64])
def test_an_integer_may_come_in_any_integer_type_that_holds_it(kind: type, register: Callable[..., str]):
    for space, expected in (
        (spaces.Box(0, 9, (1,), np.uint8), [3]),
        (spaces.MultiDiscrete([3], start=[1]), [0, 0, 1]),
        (spaces.MultiDiscrete([4], dtype=np.int8), [0, 0, 0, 1]),
        (spaces.Box(-9, 9, (1,), np.float16), [3]),
    ):
        np.testing.assert_array_equal(shown(space, np.asarray([3], kind), register), expected)
    np.testing.assert_array_equal(shown(spaces.Discrete(3, start=2), kind(3), register), [0, 1, 0])


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (spaces.Discrete(3, start=INT64.max - 2), np.uint64(2**63)),
        (spaces.Discrete(3, start=INT64.min), INT64.max),
        (spaces.Discrete(3, dtype=np.int8), 258),
        (spaces.Discrete(3, start=-1), 2),
        (spaces.MultiDiscrete([3, 3], dtype=np.int8), [1, 258]),
        (spaces.MultiDiscrete([3, 100], start=[0, 28], dtype=np.int8), [0, 128]),
        (spaces.MultiDiscrete([3, 3], start=[2, -1]), [2, 2]),
        (spaces.MultiBinary(2), [1, 256]),
        (spaces.MultiBinary(2), [1, 2]),
    ],
    ids=str,
)
@pytest.mark.parametrize("check_bounds", [True, False])
def test_values_outside_a_discrete_space_are_refused_whatever_their_type(
    space: spaces.Space, value: Any, check_bounds: bool, register: Callable[..., str]
):
    with pytest.raises(EnvironmentFault, match=r"does not fit|out of bounds"):
        shown(space, np.asarray(value), register, check_bounds=check_bounds)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_finite_numbers_beyond_what_a_tape_or_their_space_holds_are_named(dtype: type, register: Callable[..., str]):
    space, held = spaces.Box(-np.inf, np.inf, (2,), dtype), np.float16 if dtype is np.float16 else np.float32
    largest = float(np.finfo(held).max)
    np.testing.assert_array_equal(shown(space, np.asarray([0.5, -largest]), register), np.float32([0.5, -largest]))
    for check_bounds in (True, False):
        with pytest.raises(EnvironmentFault, match=f"at index 1 does not fit {np.dtype(held)}"):
            shown(space, np.asarray([0.5, -2 * largest]), register, check_bounds=check_bounds)


def test_bounds_as_large_as_their_type_are_bounds(register: Callable[..., str]):
    largest = np.finfo(np.float64).max
    space = spaces.Box(-largest, largest, (1,), np.float64)
    np.testing.assert_array_equal(shown(space, np.ones(1), register, check_bounds=True), [1])


def test_parts_of_an_action_have_the_type_of_their_space(register: Callable[..., str]):
    space = spaces.MultiDiscrete([2, 3], dtype=np.int8)
    env = HostEnv(register(lambda: Scripted(action_space=space)))
    env.reset(0)
    env.step(4)
    assert space.contains(env.env.unwrapped.received[0])  # pyright: ignore[reportAttributeAccessIssue]


def test_an_environment_of_the_old_gym_is_refused_at_its_first_step(register: Callable[..., str]):
    class Old(Scripted):
        def step(self, action: Any):
            return super().step(action)[:4]

    env = HostEnv(register(Old))
    env.reset(0)
    with pytest.raises(EnvironmentFault) as error:
        env.step(0)
    assert "step 1" in one_line(error)


@pytest.mark.parametrize("missing", ["ale_py", "cv2"])
def test_atari_without_its_extra_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError) as error:
        HostEnv("ALE/Asteroids-v5")
    message = one_line(error)
    assert "ALE/Asteroids-v5" in message and missing in message and "pip install 'memoroids[atari]'" in message


@pytest.fixture
def asteroids() -> Callable[..., HostEnv]:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    return lambda **options: HostEnv("ALE/Asteroids-v5", options=options)


def test_atari_shows_every_fourth_frame_alone_in_grey(asteroids: Callable[..., HostEnv]):
    env = asteroids()
    ale = env.env.unwrapped.ale  # pyright: ignore[reportAttributeAccessIssue]
    assert env.observation_shape == (84, 84, 1) and env.observation_dtype == np.uint8
    assert env.actions == 14 and env.previous_action is False and env.max_length is None
    assert ale.getFloat("repeat_action_probability") == 0.25
    assert env.reset(0).max() > 0
    frames, lives = ale.getEpisodeFrameNumber(), ale.lives()
    steps, terminated = 0, False
    while ale.lives() == lives:
        _, _, terminated, truncated = env.step(steps % 14)
        steps += 1
        assert not truncated and ale.getEpisodeFrameNumber() == frames + 4 * steps
    assert not terminated, "losing a life does not end the episode"


def test_an_episode_of_atari_depends_on_its_seed_alone(asteroids: Callable[..., HostEnv]):
    used = asteroids()
    other, _ = play(used, 1, 30)
    again, rewards_again = play(used, 2, 30)
    fresh, rewards_fresh = play(asteroids(), 2, 30)
    np.testing.assert_array_equal(again, fresh)
    assert rewards_again == rewards_fresh
    assert not np.array_equal(again, other)


def test_a_limit_of_atari_counts_steps_and_its_other_options_reach_the_emulator(asteroids: Callable[..., HostEnv]):
    env = asteroids(max_episode_steps=3, repeat_action_probability=0.0)
    ale = env.env.unwrapped.ale  # pyright: ignore[reportAttributeAccessIssue]
    assert env.max_length == 3 and ale.getFloat("repeat_action_probability") == 0.0
    env.reset(0)
    assert [env.step(0)[2:] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(ValueError) as error:
        asteroids(frameskip=4)
    assert "frame-skip" in one_line(error)


def test_an_unknown_game_is_answered_with_the_nearest(asteroids: Callable[..., HostEnv]):
    for name in ("ALE/Asteriods-v5", "ale/asteroids-v5"):
        with pytest.raises(ValueError, match="did you mean ALE/Asteroids-v5"):
            HostEnv(name)
