"""POPGym's labyrinths: escaping from one, and exploring one, with a view of the nearest squares."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device import squares
from memoroids.envs.device.environment import DeviceEnv, Step
from memoroids.envs.device.mazes import Maze, maze

FREE, WALL, START, GOAL, UNSEEN = range(5)
"""What a square may show. POPGym has a number for what is hidden, which it never shows."""
MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))
"""Left, right, up, down: (rows, columns)."""


class Walk(NamedTuple):
    """A maze, where the agent is, (row, column) int32, the squares it has visited, (words,) uint32 (`squares`).

    `time`: the number of transitions so far, int32.
    """

    maze: Maze
    position: jax.Array
    visited: jax.Array
    time: jax.Array


class _Labyrinth(DeviceEnv):
    requires_previous_action: ClassVar[bool] = True
    maze_dims: tuple[int, ...] = eqx.field(static=True, default=(10, 10), converter=tuple)
    episode_length: int = eqx.field(static=True, default=1024)

    def __check_init__(self) -> None:
        if len(self.maze_dims) != 2 or any(side < 2 or side % 2 for side in self.maze_dims):
            raise ValueError(f"maze_dims must be two even numbers of at least 2, got {list(self.maze_dims)}")
        if self.maze_dims == (2, 2):
            raise ValueError("maze_dims must be larger than 2 x 2, a maze of one cell")
        if self.episode_length < 2:
            raise ValueError(f"episode_length must be at least 2, got {self.episode_length}")

    @property
    def shape(self) -> tuple[int, int]:
        """The rows and columns of squares, outer walls included."""
        height, width = self.maze_dims
        return height + 1, width + 1

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """One transition less than `episode_length`, as in POPGym."""
        return self.episode_length - 1

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """1, since a promise about the shortest way would have to hold in every maze."""
        return 1

    @property
    def observation_space(self) -> gym.Space:
        """Nine squares around the agent, row by row, and the last action, 4 if there was none."""
        return spaces.MultiDiscrete(np.array([UNSEEN + 1] * 9 + [len(MOVES) + 1], np.int32))

    @property
    def action_space(self) -> gym.Space:
        """The direction to go: left, right, up or down."""
        return spaces.Discrete(len(MOVES))

    def reset(self, key: jax.Array) -> tuple[Walk, jax.Array]:
        """Makes a maze and enters it."""
        found = maze(key, self.shape)
        state = Walk(found, found.start, self._square(found.start), jnp.zeros((), jnp.int32))
        return state, self._seen(state, jnp.asarray(len(MOVES), jnp.int32))

    def _square(self, position: jax.Array) -> jax.Array:
        rows, columns = self.shape
        return squares.one(position[0] * columns + position[1], squares.words_for(rows * columns))

    def _moved(self, state: Walk, action: jax.Array) -> Walk:
        """The state after a move, which a wall or the edge of the maze may prevent."""
        last = jnp.asarray(self.shape, jnp.int32) - 1
        wished = jnp.clip(state.position + jnp.asarray(MOVES, jnp.int32)[action], 0, last)
        position = jnp.where(self._at(state.maze, wished) == WALL, state.position, wished)
        return Walk(state.maze, position, state.visited | self._square(position), state.time + 1)

    def _at(self, found: Maze, square: jax.Array) -> jax.Array:
        """What a square (row, column) of the maze shows."""
        free = squares.holds(found.free, square[0] * self.shape[1] + square[1])
        return jnp.where(jnp.all(square == found.start), START, jnp.where(free, FREE, WALL))

    def _seen(self, state: Walk, action: jax.Array) -> jax.Array:
        """The view (10,). At the upper and the left edge POPGym moves the view and fills what is missing with walls."""
        rows, columns = self.shape
        # POPGym limits rows by the number of columns, and columns by that of rows.
        limits = min(rows - 1, columns), min(columns - 1, rows)
        last = jnp.minimum(state.position + 1, jnp.asarray(limits, jnp.int32))

        def shown(offset: jax.Array) -> jax.Array:
            square = jnp.maximum(state.position - 1, 0) + offset
            return jnp.where(jnp.all(square <= last), self._at(state.maze, square), WALL)

        view = jax.vmap(shown)(jnp.asarray(np.argwhere(np.ones((3, 3))), jnp.int32))
        return jnp.append(view, action).astype(jnp.int32)


class LabyrinthEscape(_Labyrinth):
    """The reward is 1 at the exit, and a little is lost at each step."""

    def step(self, state: Walk, action: jax.Array, key: jax.Array) -> tuple[Walk, Step]:
        """Goes a step; the episode terminates at the exit, opposite to the entrance."""
        state = self._moved(state, action)
        out = jnp.all(state.position == state.maze.exit)
        reward = out - jnp.float32(1 / self.episode_length)
        return state, Step(self._seen(state, action), reward, out, state.time >= self.max_length)

    def _at(self, found: Maze, square: jax.Array) -> jax.Array:
        return jnp.where(jnp.all(square == found.exit), GOAL, super()._at(found, square))


class LabyrinthExplore(_Labyrinth):
    """Each new square is rewarded, and a little is lost at each step that finds none."""

    def step(self, state: Walk, action: jax.Array, key: jax.Array) -> tuple[Walk, Step]:
        """Goes a step; the episode terminates when all squares have been visited."""
        before = state.visited
        state = self._moved(state, action)
        inside = squares.count(state.maze.free)
        new = jnp.any(state.visited != before)
        reward = jnp.where(new, 1 / inside.astype(jnp.float32), jnp.float32(-1 / self.episode_length))
        # The entrance is visited from the beginning, and is not one of the squares inside.
        all_visited = squares.count(state.visited) == inside + 1
        return state, Step(self._seen(state, action), reward, all_visited, state.time >= self.max_length)
