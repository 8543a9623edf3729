"""POPGym's mine sweeper on a board that is never shown: a square is a bit, and counting neighbours is counting bits."""

from functools import cache
from typing import ClassVar, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device.draws import below
from memoroids.envs.device.environment import DeviceEnv, Step

BOARDS = {"easy": (4, 2), "medium": (6, 6), "hard": (8, 10)}
"""Squares a side, and mines."""


class Board(NamedTuple):
    """Squares with a mine and those seen before, each (words,) uint32 with square i in bit i % 32 of word i // 32.

    `time`: transitions so far, int32.
    """

    mines: jax.Array
    viewed: jax.Array
    time: jax.Array


@cache
def _around(side: int) -> np.ndarray:
    """Each square with its neighbours, (squares, words) uint32."""
    row, column = np.divmod(np.arange(side * side), side)
    near = (np.abs(row[:, None] - row) <= 1) & (np.abs(column[:, None] - column) <= 1)
    bits = np.zeros((side**2, 32 * _words(side)), np.uint64)
    bits[:, : side**2] = near
    return (bits.reshape(side**2, -1, 32) << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32)


def _words(side: int) -> int:
    return -(-(side**2) // 32)


def _alone(square: jax.Array, words: int) -> jax.Array:
    return jnp.where(jnp.arange(words, dtype=jnp.uint32) == square // 32, jnp.uint32(1) << (square % 32), 0)


class MineSweeper(DeviceEnv):
    """Shows how many mines there are around the square that was chosen, not which one that was."""

    requires_previous_action: ClassVar[bool] = True
    difficulty: str = eqx.field(static=True, default="easy")

    def __check_init__(self) -> None:
        if self.difficulty not in BOARDS:
            raise ValueError(f"difficulty must be one of {', '.join(BOARDS)}, got {self.difficulty!r}")

    @property
    def side(self) -> int:
        return BOARDS[self.difficulty][0]

    @property
    def num_mines(self) -> int:
        return BOARDS[self.difficulty][1]

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.side**2 - self.num_mines

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1

    @property
    def observation_space(self) -> gym.Space:
        return spaces.Discrete(min(self.num_mines + 1, 10))

    @property
    def action_space(self) -> gym.Space:
        return spaces.MultiDiscrete([self.side] * 2)

    def reset(self, key: jax.Array) -> tuple[Board, jax.Array]:
        mines = jnp.zeros(_words(self.side), jnp.uint32)
        # Floyd's sampling: every set of squares is equally likely after as many draws as there are mines.
        drawn = jax.random.bits(key, (self.num_mines,))
        for i, last in enumerate(range(self.side**2 - self.num_mines, self.side**2)):
            square = _alone(below(drawn[i], last + 1), mines.size)
            mines = mines | jnp.where(jnp.any(mines & square), _alone(jnp.uint32(last), mines.size), square)
        zero = jnp.zeros((), jnp.int32)
        return Board(mines, jnp.zeros_like(mines), zero), zero

    def step(self, state: Board, action: jax.Array, key: jax.Array) -> tuple[Board, Step]:
        square = action[0] * self.side + action[1]
        chosen, around = _alone(square.astype(jnp.uint32), state.mines.size), jnp.asarray(_around(self.side))[square]
        mine, seen = jnp.any(state.mines & chosen), jnp.any(state.viewed & chosen)
        viewed = jnp.where(mine, state.viewed, state.viewed | chosen)
        time = state.time + 1
        terminated = mine | (jnp.sum(jax.lax.population_count(viewed)) == self.max_length)
        success = 1 / self.max_length
        reward = jnp.where(mine, -0.5 - success, jnp.where(seen, -0.5 / (self.max_length - 2), success))
        count = jnp.sum(jax.lax.population_count(state.mines & around)).astype(jnp.int32)
        step = Step(count, reward.astype(jnp.float32), terminated, (time == self.max_length) & ~terminated)
        return Board(state.mines, viewed, time), step
