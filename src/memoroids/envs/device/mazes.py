"""Random mazes by the algorithm of hunt and kill, as mazelib makes those of POPGym, with the same probabilities."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memoroids.envs.device import squares
from memoroids.envs.device.draws import below, one_of


class Maze(NamedTuple):
    """The free squares within a maze, (words,) uint32 (`squares`), and two gaps in its outer wall on opposite sides.

    `start`, `exit`: (row, column) int32. Neither is one of the free squares.
    """

    free: jax.Array
    start: jax.Array
    exit: jax.Array


class _Carving(NamedTuple):
    """A maze in the making: visited cells (cells,) bool, free squares, the current cell, the hunts that are left."""

    visited: jax.Array
    free: jax.Array
    cell: jax.Array
    hunts: jax.Array


@functools.cache
def _neighbours(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """For each cell those above, below, left and right, itself where there is none; and the square between, int32."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    next_row = np.clip(row[:, None] + np.array([-1, 1, 0, 0]), 0, rows - 1)
    next_column = np.clip(column[:, None] + np.array([0, 0, -1, 1]), 0, columns - 1)
    between = (row[:, None] + next_row + 1) * (2 * columns + 1) + column[:, None] + next_column + 1
    return (next_row * columns + next_column).astype(np.int32), between.astype(np.int32)


def maze(key: jax.Array, shape: tuple[int, int]) -> Maze:
    """Makes a maze of `shape` squares, both odd, whose cells are the squares with two odd coordinates.

    A walk from a random cell carves passages to random cells that were not visited, until it has no such neighbour. A
    hunt draws a cell from which the walk goes on, if that cell was visited and has such a neighbour. There are as many
    hunts as squares, so a maze may stay incomplete, with a small probability.
    """
    rows, columns = (side // 2 for side in shape)
    cells, words = rows * columns, squares.words_for(shape[0] * shape[1])
    neighbours, between = (jnp.asarray(found) for found in _neighbours(rows, columns))
    first, walk, entrances = jax.random.split(key, 3)

    def square_of(cell: jax.Array) -> jax.Array:
        return squares.one((2 * (cell // columns) + 1) * shape[1] + 2 * (cell % columns) + 1, words)

    def carve(carving: _Carving, key: jax.Array) -> tuple[_Carving, None]:
        bits = jax.random.bits(key, (3,))
        visited, free, cell, hunts = carving
        open_ = ~visited[neighbours]  # a cell that is its own neighbour is visited whenever it counts
        frontier = visited & jnp.any(open_, axis=1)
        stuck = ~jnp.any(open_[cell])
        # The hunts until one finds a cell of the frontier are a geometric number: only that one matters.
        found = jnp.sum(frontier, dtype=jnp.int32) / jnp.float32(cells)
        uniform = (bits[0].astype(jnp.float32) + 1) / jnp.float32(2**32)
        needed = 1 + jnp.floor(jnp.log(uniform) / jnp.log1p(-found))
        goes_on = jnp.any(frontier) & (~stuck | (needed <= hunts))
        from_ = jnp.where(stuck, one_of(bits[1], frontier), cell)
        way = one_of(bits[2], open_[from_])
        to = neighbours[from_, way]
        after = _Carving(
            visited | (jnp.arange(cells) == to),
            free | square_of(to) | squares.one(between[from_, way], words),
            to,
            jnp.where(stuck, hunts - needed.astype(jnp.int32), hunts),
        )
        stopped = carving._replace(hunts=jnp.zeros_like(hunts))
        return jax.tree.map(lambda new, old: jnp.where(goes_on, new, old), after, stopped), None

    begin = below(jax.random.bits(first), cells).astype(jnp.int32)
    hunts = jnp.asarray(shape[0] * shape[1], jnp.int32)
    carving = _Carving(jnp.arange(cells) == begin, square_of(begin), begin, hunts)
    carving, _ = lax.scan(carve, carving, jax.random.split(walk, cells - 1))
    start, exit_ = _entrances(entrances, shape)
    return Maze(carving.free, start, exit_)


def _entrances(key: jax.Array, shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Gaps on opposite sides, (row, column) each: beside a random cell of a random side, and of the one opposite."""
    bits = jax.random.bits(key, (5,))
    end = jnp.asarray((shape[0] - 1, shape[1] - 1), jnp.int32)
    first, second = (
        2 * jnp.stack([below(one, side // 2) for one, side in zip(pair, shape, strict=True)]).astype(jnp.int32) + 1
        for pair in (bits[1:3], bits[3:5])
    )
    side = below(bits[0], 4).astype(jnp.int32)
    across = jnp.arange(2, dtype=jnp.int32) == side // 2  # the coordinate that is at an edge
    low, high = jnp.where(across, 0, first), jnp.where(across, end, second)
    mirrored = jnp.where(across, end, first), jnp.where(across, 0, second)
    return (
        jnp.where(side % 2 == 0, low, mirrored[0]),
        jnp.where(side % 2 == 0, high, mirrored[1]),
    )
