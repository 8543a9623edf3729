"""Twins that hide nothing: from what they show, the right action follows, and the task is the same."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.envs.device import DEVICE, DeviceEnv, make_device
from memoroids.envs.device.observed import Observed
from memoroids.envs.device.tasks import OBSERVED
from popgym_beside import random_actions


def played(twin: DeviceEnv, actions: Any, seed: int = 3) -> Any:
    keys = jax.random.split(jax.random.key(seed), len(actions))

    @jax.jit
    def play(actions: Any) -> Any:
        state, observation = twin.reset(jax.random.key(seed))
        return observation, jax.lax.scan(lambda state, at: twin.step(state, *at), state, (actions, keys))[1]

    return play(jnp.asarray(actions))


@pytest.mark.parametrize("name", OBSERVED)
@pytest.mark.one_in(3)
def test_a_twin_is_the_task_and_shows_numbers_within_its_bounds(name, rng):
    twin, task = make_device(name), make_device(name.removeprefix("Observed"))
    assert isinstance(twin, Observed) and twin.env == task and twin.action_space == task.action_space
    actions = random_actions(task, rng)[:40]
    first, steps = played(twin, actions)
    own, alone = played(task, actions)
    jax.tree.map(np.testing.assert_array_equal, first["own"], own)
    jax.tree.map(np.testing.assert_array_equal, steps._replace(observation=steps.observation["own"]), alone)
    space = twin.observation_space["hidden"]
    assert first["hidden"].dtype == np.float32 and first["hidden"].shape == space.shape
    assert np.all(np.abs(steps.observation["hidden"]) <= 1)


def followed(name: str, choose: Callable[[Any, DeviceEnv], Any], seed: int = 5) -> float:
    """The return of a policy that sees only the latest observation of a twin."""
    twin = make_device(f"Observed{name}")
    assert isinstance(twin, Observed)
    env = twin.env

    def step(carry: Any, key: jax.Array) -> Any:
        state, observation, over = carry
        state, after = twin.step(state, choose(observation, env), key)
        paid = jnp.where(over, 0, after.reward)
        return (state, after.observation, over | after.terminated | after.truncated), paid

    @jax.jit
    def play(key: jax.Array) -> jax.Array:
        begin = (*twin.reset(key), jnp.zeros((), bool))
        return jnp.sum(jax.lax.scan(step, begin, jax.random.split(key, env.max_length))[1])

    return float(np.mean([play(jax.random.key(seed + i)) for i in range(3)]))


def largest(observation: Any, env: Any) -> jax.Array:
    return jnp.argmax(observation["hidden"])


@pytest.mark.parametrize("task", ["RepeatFirst", "RepeatPrevious", "CountRecall", "Autoencode"])
@pytest.mark.parametrize("level", ["Easy", "Hard"])
def test_the_answer_of_a_card_game_is_shown(task, level):
    assert followed(task + level, largest) == pytest.approx(1, rel=1e-5)


def test_cards_that_are_left_are_shown():
    def likelier(observation: Any, env: Any) -> jax.Array:
        left, rank = observation["hidden"], observation["own"]
        ranks = jnp.arange(13)
        return jnp.where(jnp.sum(left * (ranks > rank)) >= jnp.sum(left * (ranks < rank)), 0, 1)

    assert followed("HigherLowerMedium", likelier) > 0.45


def test_boards_are_shown():
    def clear(observation: Any, env: Any) -> jax.Array:
        mines, viewed = observation["hidden"].reshape(2, -1)
        square = jnp.argmax((mines == 0) & (viewed == 0))
        return jnp.stack((square // env.side, square % env.side)).astype(jnp.int32)

    def part(observation: Any, env: Any) -> jax.Array:
        ships, shots = observation["hidden"].reshape(2, -1)
        square = jnp.argmax((ships == 1) & (shots == 0))
        return jnp.stack((square // env.board_size, square % env.board_size)).astype(jnp.int32)

    assert followed("MineSweeperHard", clear) == pytest.approx(1, rel=1e-5)
    assert followed("BattleshipMedium", part) == pytest.approx(1, rel=1e-5)


def test_cards_on_the_table_and_the_one_in_play_are_shown():
    def pair(observation: Any, env: Any) -> jax.Array:
        kinds = observation["hidden"][: env.cards * env.kinds].reshape(env.cards, env.kinds)
        turned = observation["hidden"][env.cards * env.kinds :]
        down = (observation["own"] == env.kinds) & (turned == 0)
        same = (kinds @ kinds.T)[jnp.argmax(turned)] == 1
        return jnp.argmax(down & (same | ~jnp.any(turned)))

    assert followed("ConcentrationHard", pair) == pytest.approx(1, rel=1e-5)
    assert followed("ConcentrationEasy", pair) == pytest.approx(1, rel=1e-5)


def test_the_best_arm_and_the_whole_state_of_what_moves_are_shown(rng):
    assert followed("MultiarmedBanditEasy", largest) > 0.5
    for name in ("NoisyPositionOnlyCartPoleHard", "VelocityOnlyCartpoleEasy"):
        twin = make_device(f"Observed{name}")
        state, observation = twin.reset(jax.random.key(0))
        state, step = twin.step(state, jnp.asarray(1), jax.random.key(1))
        scale = np.array([2.4, 3.0, 0.21, 3.0])
        np.testing.assert_allclose(step.observation["hidden"] * scale, state.moving, rtol=1e-5)
    twin = make_device("ObservedNoisyPositionOnlyPendulumHard")
    state, observation = twin.reset(jax.random.key(0))
    expected = [np.cos(state.angle), np.sin(state.angle), state.speed / 8]
    np.testing.assert_allclose(observation["hidden"], expected, rtol=1e-5)


def test_the_maze_and_the_way_out_are_shown():
    twin = make_device("ObservedLabyrinthEscapeEasy")
    state, observation = twin.reset(jax.random.key(0))
    hidden = np.asarray(observation["hidden"])
    np.testing.assert_allclose((hidden[:2] + hidden[2:4]) * 11, state.maze.exit, rtol=1e-5)
    walls, visited = hidden[4:].reshape(2, 11, 11)
    assert visited.sum() == 1 and visited[tuple(np.asarray(state.position))] == 1
    assert walls[1, 1] == 0 and walls[0, 0] == 1


def test_options_are_those_of_the_task():
    twin = make_device("observedrepeatpreviouseasy", {"k": 7})
    assert isinstance(twin, Observed) and twin.env == make_device("RepeatPreviousEasy", {"k": 7})
    with pytest.raises(ValueError, match=r"k must be from 1 to 51"):
        make_device("ObservedRepeatPreviousEasy", {"k": 99})
    with pytest.raises(ValueError, match=r"has no option 'kk'; did you mean k\?"):
        make_device("ObservedRepeatPreviousEasy", {"kk": 9})
    with pytest.raises(ValueError, match=r"did you mean ObservedRepeatFirstEasy"):
        make_device("ObservedRepeatFirstEasi")
    with pytest.raises(ValueError, match="nothing is known of what Observed hides"):
        Observed(twin)
    assert set(OBSERVED) == {f"Observed{name}" for name in DEVICE}
