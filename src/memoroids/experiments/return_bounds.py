"""Returns that no policy can exceed on average, where they can be computed, and those of good policies."""

import functools
import math

import numpy as np

from memoroids.envs.device.bandit import MultiarmedBandit
from memoroids.envs.device.cards import DECK, KINDS, HigherLower
from memoroids.envs.device.tasks import DEVICE

DECKS = 20_000
"""Decks that are played for the mean return of the best guesses; its standard error is below 0.001."""


def bound(task: str) -> float | None:
    """The largest mean return of a task of POPGym, or more than that; None where none was worked out.

    HigherLower: that of the best policy, which counts cards. MultiarmedBandit: that of a policy which knows the best
    arm from the beginning.
    """
    env = DEVICE[task]() if task in DEVICE else None
    if isinstance(env, HigherLower):
        return counted_cards(env.num_decks)
    if isinstance(env, MultiarmedBandit):
        return known_arm(env.num_bandits)
    return None


def reachable(task: str) -> float | None:
    """The mean return of a policy that is known to be good; None where there is none here.

    HigherLower: that of the best policy. MultiarmedBandit: `optimistic_pulls`.
    """
    env = DEVICE[task]() if task in DEVICE else None
    if isinstance(env, MultiarmedBandit):
        return optimistic_pulls(env.num_bandits, env.episode_length)
    return bound(task)


def known_arm(arms: int) -> float:
    """2 E[max p] - 1 for winning probabilities that are uniform on [0, 1]: the mean of the largest is n / (n + 1)."""
    return 2 * arms / (arms + 1) - 1


@functools.cache
def counted_cards(num_decks: int, decks: int = DECKS) -> float:
    """The mean return of HigherLower's best policy, by simulation of `decks` shuffled decks, the same at each call.

    Guesses change nothing but their own reward, so the best one is the likelier of higher and lower given the cards
    that are left.
    """
    generator = np.random.default_rng(0)
    kinds = KINDS["ranks"]
    cards = np.repeat(np.arange(kinds), DECK // kinds * num_decks)
    dealt = generator.permuted(np.tile(cards, (decks, 1)), axis=1)
    left = np.full((decks, kinds), DECK // kinds * num_decks)
    each, total = np.arange(decks), np.zeros(decks)
    for last, card in zip(dealt.T[:-1], dealt.T[1:], strict=True):
        left[each, last] -= 1
        below = np.cumsum(left, axis=1)
        lower, higher = below[each, last] - left[each, last], below[:, -1] - below[each, last]
        right = np.where(higher >= lower, card > last, card < last)
        total += np.where(card == last, 0, np.where(right, 1, -1))
    return float(total.mean() / len(cards))


@functools.cache
def optimistic_pulls(arms: int, pulls: int, episodes: int = 2_000) -> float:
    """The mean return of an optimistic policy on MultiarmedBandit, by simulation of `episodes`, the same at each call.

    It pulls the arm whose posterior has the largest quantile, of order 1 - 1 / √(pulls that are left), where the
    posterior is taken for normal. Source: after Kaufmann et al. 2012, Bayes-UCB.
    """
    from scipy.stats import norm

    generator = np.random.default_rng(0)
    chance = generator.random((episodes, arms))
    wins, losses = np.ones((episodes, arms)), np.ones((episodes, arms))
    each, total = np.arange(episodes), 0.0
    for pull in range(pulls):
        tried = wins + losses
        mean = wins / tried
        spread = np.sqrt(mean * (1 - mean) / (tried + 1))
        quantile = norm.ppf(1 - 1 / max(2.0, math.sqrt(pulls - pull)))
        arm = (mean + quantile * spread).argmax(axis=1)
        won = generator.random(episodes) < chance[each, arm]
        wins[each, arm] += won
        losses[each, arm] += ~won
        total += float(np.mean(np.where(won, 1, -1)))
    return total / pulls
