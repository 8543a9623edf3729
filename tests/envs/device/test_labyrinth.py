"""Labyrinths beside POPGym's, in POPGym's own mazes."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.envs.device import DeviceEnv, make_device, squares
from memoroids.envs.device.labyrinth import Walk
from memoroids.envs.device.mazes import Maze
from popgym_beside import levels, popgym_env, same_step

pytest.importorskip("mazelib")
LabyrinthExplore = pytest.importorskip("popgym.envs.labyrinth_explore").LabyrinthExplore


def walk_in(theirs: Any) -> Walk:
    """The state of the device environment in the maze that POPGym's environment has been reset to."""
    grid = np.asarray(theirs.maze.grid)
    rows, columns = grid.shape
    inside = grid == 0
    place = jnp.asarray(theirs.maze.start, jnp.int32)
    start = squares.one(place[0] * columns + place[1], squares.words_for(rows * columns))
    words = jnp.asarray(squares.packed(inside.ravel()))
    return Walk(Maze(words, place, jnp.asarray(theirs.maze.end, jnp.int32)), place, start, jnp.zeros((), jnp.int32))


@cache
def steps_of(env: DeviceEnv) -> Any:
    def play(state: Walk, actions: jax.Array) -> Any:
        return jax.lax.scan(lambda state, action: env.step(state, action, jax.random.key(0)), state, actions)[1]

    return jax.jit(play)


def actions_of(theirs: Any, how: str, length: int, rng: np.random.Generator) -> np.ndarray:
    """Random actions, or those that go through the whole maze, to the exit at last where it is open."""
    if how == "random":
        return rng.integers(4, size=length)
    moves, taken = {0: (0, -1), 1: (0, 1), 2: (-1, 0), 3: (1, 0)}, []
    grid, seen = theirs.maze.grid, {tuple(theirs.maze.start)}

    def go(at: tuple[int, int]) -> None:
        for action, (di, dj) in moves.items():
            to = at[0] + di, at[1] + dj
            inside = 0 <= to[0] < grid.shape[0] and 0 <= to[1] < grid.shape[1]
            if inside and grid[to] != 1 and to not in seen:
                seen.add(to)
                taken.append(action)
                go(to)
                taken.append(action ^ 1)

    go(tuple(theirs.maze.start))
    return np.resize(np.array(taken), length)


@levels("LabyrinthEscape", "LabyrinthExplore")
@pytest.mark.parametrize("how", ["random", "through all of it"])
def test_labyrinths(name, how, rng):
    env, theirs = make_device(name), popgym_env(name)
    lengths = []
    for seed in range(1 if how == "random" else 3):
        first, _ = theirs.reset(seed=seed)
        state = walk_in(theirs)
        np.testing.assert_array_equal(env._seen(state, jnp.asarray(4)), first)
        actions = actions_of(theirs, how, env.max_length, rng)
        steps = jax.tree.map(np.asarray, steps_of(env)(state, jnp.asarray(actions, jnp.int32)))
        for t, action in enumerate(actions):
            if same_step(jax.tree.map(lambda leaf, t=t: leaf[t], steps), theirs.step(int(action)), t, tolerance=1e-7):
                lengths.append(t + 1)
                assert steps.truncated[t] == (t + 1 == env.max_length)
                break
        else:
            pytest.fail("no end")
    if how != "random":
        assert max(lengths) < env.max_length


@pytest.mark.parametrize("dims", [(10, 18), (18, 6)])
def test_mazes_that_are_not_square_are_seen_as_in_popgym(dims, rng):
    theirs = LabyrinthExplore(maze_dims=dims, episode_length=200)
    env = make_device("LabyrinthExploreEasy", {"maze_dims": dims, "episode_length": 200})
    first, _ = theirs.reset(seed=3)
    state = walk_in(theirs)
    np.testing.assert_array_equal(env._seen(state, jnp.asarray(4)), first)
    actions = actions_of(theirs, "through all of it", env.max_length, rng)
    steps = jax.tree.map(np.asarray, steps_of(env)(state, jnp.asarray(actions, jnp.int32)))
    for t, action in enumerate(actions):
        if same_step(jax.tree.map(lambda leaf, t=t: leaf[t], steps), theirs.step(int(action)), t, tolerance=1e-7):
            break


@pytest.mark.parametrize("name", ["LabyrinthEscapeEasy", "LabyrinthExploreHard"])
def test_a_walk_starts_in_the_gap_of_a_new_maze(name):
    env = make_device(name)
    state, observation = jax.jit(env.reset)(jax.random.key(1))
    np.testing.assert_array_equal(state.position, state.maze.start)
    assert squares.count(state.visited) == 1 and state.time == 0
    view = np.asarray(observation)
    assert view[-1] == 4 and (view[:9] == 2).sum() == 1
    assert (view[:9] == 0).any()  # the cell behind the gap


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maze_dims": (9, 10)}, "maze_dims must be two even numbers of at least 2, got [9, 10]"),
        ({"maze_dims": (10,)}, "maze_dims must be two even numbers of at least 2, got [10]"),
        ({"maze_dims": (2, 2)}, "maze_dims must be larger than 2 x 2, a maze of one cell"),
        ({"episode_length": 1}, "episode_length must be at least 2, got 1"),
    ],
)
def test_options_that_are_wrong(options, message):
    with pytest.raises(ValueError) as error:
        make_device("LabyrinthEscapeEasy", options)
    assert str(error.value).endswith(message)
