"""POPGym's mine sweeper on a hidden board."""

from functools import cache
from typing import ClassVar, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device import squares
from memoroids.envs.device.draws import below
from memoroids.envs.device.environment import DeviceEnv, Step

BOARDS = {"easy": (4, 2), "medium": (6, 6), "hard": (8, 10)}
"""The side of the board in squares, and the number of mines, for each difficulty."""


class Board(NamedTuple):
    """The squares with mines and those viewed before, each (words,) uint32 (`squares`).

    `time`: the number of transitions so far, int32.
    """

    mines: jax.Array
    viewed: jax.Array
    time: jax.Array


@cache
def _around(side: int) -> np.ndarray:
    """For each square the set of itself and its neighbours, (squares, words) uint32."""
    row, column = np.divmod(np.arange(side * side), side)
    return squares.packed((np.abs(row[:, None] - row) <= 1) & (np.abs(column[:, None] - column) <= 1))


class MineSweeper(DeviceEnv):
    """The observation is the number of mines around the chosen square, but not which square was chosen."""

    requires_previous_action: ClassVar[bool] = True
    difficulty: str = eqx.field(static=True, default="easy")

    def __check_init__(self) -> None:
        if self.difficulty not in BOARDS:
            raise ValueError(f"difficulty must be one of {', '.join(BOARDS)}, got {self.difficulty!r}")

    @property
    def side(self) -> int:
        """The side of the board in squares."""
        return BOARDS[self.difficulty][0]

    @property
    def num_mines(self) -> int:
        """The number of mines."""
        return BOARDS[self.difficulty][1]

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of squares without a mine."""
        return self.side**2 - self.num_mines

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """1, since the first square may be a mine."""
        return 1

    @property
    def observation_space(self) -> gym.Space:
        """The number of mines on the chosen square and around it."""
        return spaces.Discrete(min(self.num_mines + 1, 10))

    @property
    def action_space(self) -> gym.Space:
        """The row and the column of the chosen square."""
        return spaces.MultiDiscrete([self.side] * 2)

    def reset(self, key: jax.Array) -> tuple[Board, jax.Array]:
        """Places the mines."""
        mines = jnp.zeros(squares.words_for(self.side**2), jnp.uint32)
        # Floyd's sampling: one draw per mine, and all sets of squares are equally likely.
        drawn = jax.random.bits(key, (self.num_mines,))
        for i, last in enumerate(range(self.side**2 - self.num_mines, self.side**2)):
            square = squares.one(below(drawn[i], last + 1), mines.size)
            mines = mines | jnp.where(jnp.any(mines & square), squares.one(jnp.uint32(last), mines.size), square)
        zero = jnp.zeros((), jnp.int32)
        return Board(mines, jnp.zeros_like(mines), zero), zero

    def step(self, state: Board, action: jax.Array, key: jax.Array) -> tuple[Board, Step]:
        """Opens a square; the episode terminates at a mine or when all other squares have been opened."""
        square = action[0] * self.side + action[1]
        chosen, around = squares.one(square, state.mines.size), jnp.asarray(_around(self.side))[square]
        mine, seen = jnp.any(state.mines & chosen), jnp.any(state.viewed & chosen)
        viewed = jnp.where(mine, state.viewed, state.viewed | chosen)
        time = state.time + 1
        terminated = mine | (squares.count(viewed) == self.max_length)
        success = 1 / self.max_length
        reward = jnp.where(mine, -0.5 - success, jnp.where(seen, -0.5 / (self.max_length - 2), success))
        step = Step(
            squares.count(state.mines & around),
            reward.astype(jnp.float32),
            terminated,
            (time == self.max_length) & ~terminated,
        )
        return Board(state.mines, viewed, time), step
