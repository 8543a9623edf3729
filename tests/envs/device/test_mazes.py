"""Mazes: their probabilities beside an enumeration of all draws, and their shape beside mazelib's."""

import random
from collections import Counter
from functools import cache

import jax
import numpy as np
import pytest

from memoroids.envs.device import squares
from memoroids.envs.device.mazes import maze

Cell = tuple[int, int]


def grids(shape: tuple[int, int], number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mazes as bools (number, rows, columns), and their two gaps."""
    many = jax.jit(jax.vmap(lambda key: maze(key, shape)))(jax.random.split(jax.random.key(seed), number))
    every = np.arange(shape[0] * shape[1])
    free = np.stack([np.asarray(squares.holds(words, every)) for words in np.asarray(many.free)])
    return free.reshape(number, *shape), np.asarray(many.start), np.asarray(many.exit)


def beside(cell: Cell, shape: tuple[int, int], visited: frozenset[Cell]) -> list[Cell]:
    row, column = cell
    near = [(row - 2, column), (row + 2, column), (row, column - 2), (row, column + 2)]
    return [(i, j) for i, j in near if 0 < i < shape[0] and 0 < j < shape[1] and (i, j) not in visited]


def chances(shape: tuple[int, int]) -> dict[frozenset[Cell], float]:
    """The probability of each set of free squares, by following every draw of hunt and kill."""
    cells = [(i, j) for i in range(1, shape[0], 2) for j in range(1, shape[1], 2)]

    @cache
    def after_walk(free: frozenset[Cell], at: Cell, hunts: int) -> dict[frozenset[Cell], float]:
        visited = free & frozenset(cells)
        near = beside(at, shape, visited) if at in visited else []
        ends: Counter[frozenset[Cell]] = Counter()
        for new in near:
            between = ((new[0] + at[0]) // 2, (new[1] + at[1]) // 2)
            for end, chance in after_walk(free | {new, between}, new, hunts).items():
                ends[end] += chance / len(near)
        if near:
            return ends
        if not hunts or len(visited) == len(cells):
            return {free: 1.0}
        for cell in cells:
            for end, chance in after_walk(free, cell, hunts - 1).items():
                ends[end] += chance / len(cells)
        return ends

    found: Counter[frozenset[Cell]] = Counter()
    for cell in cells:
        for end, chance in after_walk(frozenset([cell]), cell, shape[0] * shape[1]).items():
            found[end] += chance / len(cells)
    return found


@pytest.mark.parametrize("shape", [(3, 5), (5, 5), (5, 7), (3, 13)])
def test_mazes_have_the_probabilities_of_hunt_and_kill(shape):
    number = 20_000
    free, _, _ = grids(shape, number)
    counts = Counter(frozenset((int(i), int(j)) for i, j in np.argwhere(grid)) for grid in free)
    expected = {end: chance * number for end, chance in chances(shape).items()}
    assert sum(expected.values()) == pytest.approx(number)
    assert counts.keys() <= expected.keys()
    often = {end: mean for end, mean in expected.items() if mean >= 5}
    statistic = sum((counts[end] - mean) ** 2 / mean for end, mean in often.items())
    rare = sum(mean for end, mean in expected.items() if end not in often)
    seldom = sum(counts[end] for end in expected if end not in often)
    assert abs(seldom - rare) <= 5 * np.sqrt(rare + 1)
    degrees = len(often)
    assert statistic < degrees + 5 * np.sqrt(2 * degrees)


def lengths(free: np.ndarray, start: np.ndarray, end: np.ndarray) -> int:
    """The steps from one gap to the other, -1 if there is no way."""
    distance = {tuple(map(int, start)): 0}
    queue = list(distance)
    for at in queue:
        for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            to = at[0] + step[0], at[1] + step[1]
            inside = 0 <= to[0] < free.shape[0] and 0 <= to[1] < free.shape[1]
            if inside and to not in distance and (free[to] or to == tuple(map(int, end))):
                distance[to] = distance[at] + 1
                queue.append(to)
    return distance.get(tuple(map(int, end)), -1)


def shapes(free: np.ndarray, start: np.ndarray, end: np.ndarray) -> list[float]:
    """What is compared of a maze: passages that run across, dead ends, crossings, and the length of the way out."""
    ways = free[:-2, 1:-1].astype(int) + free[2:, 1:-1] + free[1:-1, :-2] + free[1:-1, 2:]
    at_cells = ways[::2, ::2]
    return [
        free[1::2, 2:-1:2].sum(),
        (at_cells == 1).sum(),
        (at_cells == 3).sum(),
        free[1, 2] + free[-2, -3],
        lengths(free, start, end),
        free.sum(),
    ]


@pytest.mark.parametrize("shape", [(11, 11), (15, 15), (19, 19)])
def test_mazes_are_shaped_as_mazelibs(shape):
    mazelib = pytest.importorskip("mazelib")
    from mazelib.generate.HuntAndKill import HuntAndKill

    number = 300
    random.seed(7)
    theirs = []
    for _ in range(number):
        one = mazelib.Maze()
        one.generator = HuntAndKill(shape[0] // 2, shape[1] // 2)
        one.generate()
        one.generate_entrances(start_outer=True)
        theirs.append(shapes(one.grid == 0, np.array(one.start), np.array(one.end)))
    ours = [shapes(*each) for each in zip(*grids(shape, number), strict=True)]
    a, b = np.array(ours, float), np.array(theirs, float)
    error = np.sqrt((a.var(0) + b.var(0) + 1e-9) / number)
    np.testing.assert_array_less(np.abs(a.mean(0) - b.mean(0)) / error, 4.5)


def test_gaps_are_on_opposite_sides_beside_random_cells():
    shape, number = (5, 9), 8_000
    _, start, end = grids(shape, number)
    pairs = Counter((tuple(map(int, one)), tuple(map(int, other))) for one, other in zip(start, end, strict=True))
    expected = {}
    for i in (1, 3, 5, 7):
        for j in (1, 3, 5, 7):
            expected |= {((0, i), (4, j)): 1 / 64, ((4, i), (0, j)): 1 / 64}
    for i in (1, 3):
        for j in (1, 3):
            expected |= {((i, 0), (j, 8)): 1 / 16, ((i, 8), (j, 0)): 1 / 16}
    assert pairs.keys() <= expected.keys()
    statistic = sum((pairs[pair] - number * chance) ** 2 / (number * chance) for pair, chance in expected.items())
    assert statistic < 39 + 5 * np.sqrt(2 * 39)
