"""Disjoint streams of environment seeds."""

from collections.abc import Callable

RANDOM, TRAIN, EVALUATE, FINAL, REPORT, RANDOM_PLAY = range(6)
"""The streams: random episodes for the replay, training, evaluation during training, final evaluation, later
evaluations, random episodes before training that are only looked at."""


def check_episodes(episodes: int, seed: int) -> None:
    """Raises `ValueError` unless there is an episode to play and `seed` can choose its seeds."""
    if episodes < 1 or seed < 0:
        raise ValueError(f"episodes must be at least 1 and seed at least 0, got {episodes} and {seed}")


def environment_seeds(seed: int, stream: int, *index: int) -> Callable[[int], int]:
    """A function from episode number to 32-bit environment seed.

    Seeds of different run seeds, or of different `index`, are drawn independently; no two streams share a seed.
    """
    import numpy as np  # here, since commands check their options with this module before anything heavy is loaded

    def seed_of(number: int) -> int:
        drawn = int(np.random.SeedSequence((seed, stream, *index, number)).generate_state(1)[0])
        return (drawn & ~7) | stream  # the lowest bits hold the stream, since random draws could collide

    return seed_of
