"""POPGym's battleship: a board of hidden ships, where a shot tells no more than whether it hit."""

from functools import cache
from typing import ClassVar, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device import squares
from memoroids.envs.device.draws import one_of
from memoroids.envs.device.environment import DeviceEnv, Step

LARGEST = 64
"""The largest side of a board."""


class Sea(NamedTuple):
    """The squares with ships and those shot at, each (words,) uint32 (`squares`).

    `time`: the number of transitions so far, int32.
    """

    ships: jax.Array
    shots: jax.Array
    time: jax.Array


@cache
def _places(board: int, ship: int) -> np.ndarray:
    """Every place of a ship on an empty board, (places, words) uint32."""
    found = []
    for across in (False, True) if ship > 1 else (False,):
        for i in range(board):
            for j in range(board - ship + 1):
                place = np.zeros((board, board), bool)
                place[i, j : j + ship] = True
                found.append((place if across else place.T).ravel())
    return squares.packed(np.array(found))


class Battleship(DeviceEnv):
    """The observation is whether the last shot hit a new part of a ship, but not where it went."""

    requires_previous_action: ClassVar[bool] = True
    board_size: int = eqx.field(static=True, default=10)
    ship_sizes: tuple[int, ...] = eqx.field(static=True, default=(2, 3, 3, 4), converter=tuple)

    def __check_init__(self) -> None:
        side, sizes = self.board_size, self.ship_sizes
        if not 1 <= side <= LARGEST:
            raise ValueError(f"board_size must be from 1 to {LARGEST}, got {side}")
        if not sizes or not all(1 <= size <= side for size in sizes):
            raise ValueError(f"ship_sizes must be numbers from 1 to board_size {side}, got {list(sizes)}")
        # As many places of the last ship as earlier ships can block at most: a square is in `size` of them each way.
        crowded = any(side * (side - size + 1) <= size * sum(sizes[:i]) for i, size in enumerate(sizes))
        if crowded or self.parts == self.max_length:
            raise ValueError(
                f"the ships {list(sizes)} may not find a place one after the other on a board of {side} x {side}: "
                "use fewer, shorter ones, or a larger board_size"
            )

    @property
    def parts(self) -> int:
        """The number of squares with ships."""
        return sum(self.ship_sizes)

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of squares."""
        return self.board_size**2

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As many shots as the ships have parts."""
        return self.parts

    @property
    def observation_space(self) -> gym.Space:
        """1 if the last shot hit, else 0."""
        return spaces.Discrete(2)

    @property
    def action_space(self) -> gym.Space:
        """The row and the column to shoot at."""
        return spaces.MultiDiscrete([self.board_size] * 2)

    def reset(self, key: jax.Array) -> tuple[Sea, jax.Array]:
        """Places the ships one after the other, each at one of the places that are left, all equally likely."""
        ships = jnp.zeros(squares.words_for(self.max_length), jnp.uint32)
        for size, bits in zip(self.ship_sizes, jax.random.bits(key, (len(self.ship_sizes),)), strict=True):
            places = jnp.asarray(_places(self.board_size, size))
            free = jax.vmap(lambda place, ships=ships: ~jnp.any(place & ships))(places)
            ships = ships | places[one_of(bits, free)]
        zero = jnp.zeros((), jnp.int32)
        return Sea(ships, jnp.zeros_like(ships), zero), zero

    def step(self, state: Sea, action: jax.Array, key: jax.Array) -> tuple[Sea, Step]:
        """Shoots at a square; the episode terminates when all parts of the ships have been hit."""
        shot = squares.one(action[0] * self.board_size + action[1], state.ships.size)
        hit = jnp.any(shot & state.ships & ~state.shots)
        shots, time = state.shots | shot, state.time + 1
        terminated = squares.count(shots & state.ships) == self.parts
        reward = jnp.where(hit, jnp.float32(1 / self.parts), jnp.float32(-1 / (self.max_length - self.parts)))
        step = Step(hit.astype(jnp.int32), reward, terminated, time >= self.max_length)
        return Sea(state.ships, shots, time), step
