"""Bounds of returns, beside slow loops and special cases."""

from itertools import permutations

import numpy as np
import pytest

from memoroids.experiments import return_bounds
from memoroids.experiments.return_bounds import bound, counted_cards, known_arm, optimistic_pulls, reachable


def test_the_bound_of_higher_lower_is_that_of_playing_it(monkeypatch: pytest.MonkeyPatch):
    # A deck of six cards of three ranks, each order of which is played.
    monkeypatch.setattr(return_bounds, "DECK", 6)
    monkeypatch.setattr(return_bounds, "KINDS", {"ranks": 3})
    total = 0.0
    orders = list(permutations([0, 0, 1, 1, 2, 2]))
    for order in orders:
        for t in range(1, 6):
            rest = order[t:]
            higher, lower = (sum(card > order[t - 1] for card in rest), sum(card < order[t - 1] for card in rest))
            right = order[t] > order[t - 1] if higher >= lower else order[t] < order[t - 1]
            total += 0 if order[t] == order[t - 1] else (1 if right else -1)
    expected = total / len(orders) / 6
    counted_cards.cache_clear()
    found = counted_cards(1, 50_000)
    counted_cards.cache_clear()
    assert found == pytest.approx(expected, abs=0.01)


def test_the_best_of_several_arms():
    best = np.random.default_rng(1).random((100_000, 10)).max(axis=1)
    assert known_arm(10) == pytest.approx(np.mean(2 * best - 1), abs=0.005)
    assert known_arm(1) == 0


def test_a_good_policy_is_between_chance_and_the_bound():
    found = optimistic_pulls(5, 100, episodes=300)
    assert 0.35 < found < known_arm(5)
    assert optimistic_pulls(1, 20, episodes=5_000) == pytest.approx(0, abs=0.04)


def test_what_is_known_of_popgyms_tasks():
    assert bound("HigherLowerEasy") == reachable("HigherLowerEasy") == pytest.approx(0.528, abs=0.002)
    assert bound("MultiarmedBanditMedium") == pytest.approx(19 / 21)
    assert bound("BattleshipEasy") is reachable("BattleshipEasy") is bound("Pong") is None
