"""Battleship beside POPGym's, and the probability of each board."""

from collections import Counter
from fractions import Fraction
from typing import Any

import jax
import numpy as np
import pytest

from memoroids.envs.device import make_device, squares
from memoroids.envs.device.battleship import Battleship
from popgym_beside import Episode, levels, popgym_env, random_actions, same_episode


def board(words: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(squares.holds(words, np.arange(side * side))).reshape(side, side)


@levels("Battleship")
@pytest.mark.parametrize("how", ["random", "all hits", "the last square"])
def test_battleship(name, how, rng):
    env, theirs = make_device(name), popgym_env(name)
    assert isinstance(env, Battleship)
    for seed in range(3):
        actions = random_actions(env, rng)
        ships = board(Episode(env, seed, actions).states.ships[0], env.board_size)
        hits, misses = (rng.permutation(np.argwhere(which)) for which in (ships, ~ships))
        if how == "all hits":
            actions = np.resize(hits, actions.shape)
        elif how == "the last square":
            actions = np.concatenate((hits[:-1], misses, hits[-1:]))
        episode = Episode(env, seed, actions.astype(np.int32))
        assert episode.first == theirs.reset(seed=seed)[0]
        theirs.board = ships.astype(np.int8)
        length = same_episode(episode, theirs, np.asarray)
        assert length == (12 if how == "all hits" else env.max_length)
        paid = episode.steps.reward[:length].sum()
        if how != "random":
            np.testing.assert_allclose(paid, 1.0 if how == "all hits" else 0.0, atol=1e-5)


def boards(size: int, ships: tuple[int, ...]) -> dict[frozenset, Fraction]:
    """The probability of each set of squares if POPGym's ships are placed one by one, by trying every draw."""
    found: dict[frozenset, Fraction] = {frozenset(): Fraction(1)}
    for ship in ships:
        after: dict[frozenset, Fraction] = {}
        for taken, chance in found.items():
            places: Counter[frozenset] = Counter()
            for i in range(size):
                for j in range(size):
                    for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                        place = [(i + di * n, j + dj * n) for n in range(ship)]
                        if all(0 <= at < size for pair in place for at in pair) and not taken & set(place):
                            places[frozenset(place)] += 1
            for place, times in places.items():
                both = taken | place
                after[both] = after.get(both, Fraction(0)) + chance * Fraction(times, places.total())
        found = after
    return found


@pytest.mark.parametrize(("size", "ships"), [(4, (2, 3)), (4, (3, 1))])
def test_boards_have_popgyms_probabilities(size, ships):
    env = Battleship(size, ships)
    episodes = 20_000
    drawn = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(3), episodes))[0].ships
    counts = Counter(np.asarray(drawn)[:, 0].tolist())
    expected = {
        sum(1 << (i * size + j) for i, j in taken): float(chance) * episodes
        for taken, chance in boards(size, ships).items()
    }
    assert counts.keys() <= expected.keys()
    statistic = sum((counts[key] - number) ** 2 / number for key, number in expected.items())
    degrees = len(expected) - 1
    assert statistic < degrees + 5 * np.sqrt(2 * degrees)


def test_crowded_boards_that_are_accepted_hold_all_ships():
    env = Battleship(5, (4, 3, 2, 1))
    ships = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 5_000))[0].ships
    assert np.all(np.asarray(jax.lax.population_count(ships)).sum(1) == 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ship_sizes": ()}, "ship_sizes must be numbers from 1 to board_size 8, got []"),
        ({"ship_sizes": (2, 9), "board_size": 8}, "ship_sizes must be numbers from 1 to board_size 8, got [2, 9]"),
        ({"ship_sizes": (2, 2, 3), "board_size": 3}, "the ships [2, 2, 3] may not find a place one after the other"),
        ({"ship_sizes": (1,), "board_size": 1}, "may not find a place"),
        ({"board_size": 200}, "board_size must be from 1 to 64, got 200"),
    ],
)
def test_ships_that_do_not_fit(options: dict[str, Any], message: str):
    with pytest.raises(ValueError) as error:
        make_device("BattleshipEasy", options)
    assert message in str(error.value)
