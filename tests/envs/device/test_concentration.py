"""Concentration beside POPGym's."""

import jax
import numpy as np
import pytest

from memoroids.envs.device import make_device
from memoroids.envs.device.concentration import Concentration
from popgym_beside import Episode, levels, popgym_env, random_actions, same_episode, stacked


def pairs(kinds: np.ndarray) -> np.ndarray:
    """Cards in an order that turns one pair after the other."""
    order = np.argsort(kinds, kind="stable")
    return order.astype(np.int32)


@levels("Concentration")
@pytest.mark.parametrize("how", ["random", "pairs", "twice the same", "again what is up", "few cards"])
def test_concentration(name, how, rng):
    env, theirs = make_device(name), popgym_env(name)
    assert isinstance(env, Concentration)
    actions = random_actions(env, rng)
    kinds = Episode(env, 0, actions).states.kinds[0]
    if how != "random":
        order = pairs(kinds)
        again = np.concatenate((order[:2], order[:1], order[2:3], order[:1], order[1:3], order))
        chosen = {"pairs": order, "twice the same": order[:1], "again what is up": again}
        actions = np.resize(chosen.get(how, order[rng.integers(6, size=env.max_length)]), env.max_length)
    episode = Episode(env, 0, actions)
    # The deck is not dealt: it lies on the table, first card first.
    stacked(theirs.deck, theirs.deck_idx_type, kinds[::-1])
    np.testing.assert_array_equal(episode.first, theirs.reset(seed=0)[0])
    length = same_episode(episode, theirs)
    # Seven turns of the second case come before the pairs, three of them to cards that are up.
    assert length == {"pairs": env.cards, "again what is up": env.cards + 7}.get(how, env.max_length)
    if how == "pairs":
        np.testing.assert_allclose(episode.steps.reward[:length].sum(), 1, rtol=1e-5)


def test_every_card_is_of_every_kind_equally_often():
    env = Concentration(1, "ranks")
    episodes = 5_200
    kinds = np.asarray(jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), episodes))[0].kinds)
    assert all((np.bincount(dealt, minlength=13) == 4).all() for dealt in kinds[:20])
    for card in (0, 25, 51):
        assert (
            np.sum((np.bincount(kinds[:, card]) - episodes / 13) ** 2 / (episodes / 13)) < 40
        )  # 12 degrees of freedom
    same = np.mean(kinds[:, 0] == kinds[:, 1])
    assert abs(same - 3 / 51) < 5 * np.sqrt(3 / 51 / episodes)


@pytest.mark.parametrize("deck_type", ["colors", "ranks"])
def test_several_decks_have_equally_many_cards_of_each_kind(deck_type):
    env = make_device("ConcentrationHard", {"num_decks": 5, "deck_type": deck_type})
    assert isinstance(env, Concentration)
    kinds = np.bincount(env.reset(jax.random.key(0))[0].kinds)
    np.testing.assert_array_equal(kinds, np.full(env.kinds, 260 // env.kinds))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deck_type": "suits"}, "deck_type must be colors or ranks, got 'suits'"),
        ({"num_decks": 0}, "num_decks must be at least 1, got 0"),
    ],
)
def test_options_that_are_wrong(options, message):
    with pytest.raises(ValueError) as error:
        make_device("ConcentrationEasy", options)
    assert str(error.value).endswith(message)
