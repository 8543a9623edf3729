"""Device environments by name: POPGym's tasks, ids of other libraries, or a user's own factories."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from memoroids._util.imports import import_named
from memoroids._util.messages import one_line, suggest
from memoroids.envs.device.adapters import LIBRARIES
from memoroids.envs.device.bandit import MultiarmedBandit
from memoroids.envs.device.battleship import Battleship
from memoroids.envs.device.cards import Autoencode, CountRecall, HigherLower, RepeatFirst, RepeatPrevious
from memoroids.envs.device.cartpole import NoisyPositionOnlyCartPole, PositionOnlyCartPole, VelocityOnlyCartPole
from memoroids.envs.device.concentration import Concentration
from memoroids.envs.device.environment import DeviceEnv
from memoroids.envs.device.labyrinth import LabyrinthEscape, LabyrinthExplore
from memoroids.envs.device.minesweeper import MineSweeper
from memoroids.envs.device.observed import observed
from memoroids.envs.device.pendulum import NoisyPositionOnlyPendulum, PositionOnlyPendulum

Factory = Callable[..., DeviceEnv]

LENGTHS = tuple({"max_episode_length": length} for length in (200, 400, 600))
NOISES = tuple({"noise_sigma": sigma} for sigma in (0.1, 0.2, 0.3))
MAZES = tuple({"maze_dims": (side, side)} for side in (10, 14, 18))
LEVELS: dict[str, tuple[Factory, tuple[dict[str, Any], ...]]] = {
    "RepeatFirst": (RepeatFirst, ({}, {"num_decks": 8}, {"num_decks": 16})),
    "RepeatPrevious": (RepeatPrevious, ({}, {"num_decks": 2, "k": 32}, {"num_decks": 3, "k": 64})),
    "CountRecall": (
        CountRecall,
        ({}, {"num_decks": 2, "deck_type": "suits"}, {"num_decks": 4, "deck_type": "ranks"}),
    ),
    "Autoencode": (Autoencode, ({}, {"num_decks": 2}, {"num_decks": 3})),
    "PositionOnlyCartPole": (PositionOnlyCartPole, LENGTHS),
    "VelocityOnlyCartpole": (VelocityOnlyCartPole, LENGTHS),
    "NoisyPositionOnlyCartPole": (NoisyPositionOnlyCartPole, NOISES),
    "MultiarmedBandit": (
        MultiarmedBandit,
        tuple({"num_bandits": 10 * i, "episode_length": 200 * i} for i in (1, 2, 3)),
    ),
    "MineSweeper": (MineSweeper, tuple({"difficulty": level} for level in ("easy", "medium", "hard"))),
    "PositionOnlyPendulum": (PositionOnlyPendulum, tuple({"max_episode_length": n} for n in (200, 150, 100))),
    "NoisyPositionOnlyPendulum": (NoisyPositionOnlyPendulum, NOISES),
    "HigherLower": (HigherLower, ({}, {"num_decks": 2}, {"num_decks": 3})),
    "Battleship": (Battleship, tuple({"board_size": side} for side in (8, 10, 12))),
    "Concentration": (
        Concentration,
        ({"deck_type": "colors"}, {"num_decks": 2, "deck_type": "colors"}, {"num_decks": 1, "deck_type": "ranks"}),
    ),
    "LabyrinthEscape": (LabyrinthEscape, MAZES),
    "LabyrinthExplore": (LabyrinthExplore, MAZES),
}
"""POPGym's tasks by POPGym's names: the factory, and its options for Easy, Medium and Hard."""

DEVICE: dict[str, Factory] = {
    f"{task}{level}": partial(factory, **options)
    for task, (factory, levels) in LEVELS.items()
    for level, options in zip(("Easy", "Medium", "Hard"), levels, strict=True)
}
"""Factories by short name."""

OBSERVED_PREFIX = "Observed"
OBSERVED: dict[str, Factory] = {f"{OBSERVED_PREFIX}{task}": observed(factory) for task, factory in DEVICE.items()}
"""Factories of their twins that hide nothing, which take the same options."""

_LISTED = 12
"""The most names that an error message lists if none is similar."""


def make_device(name: str, options: dict[str, Any] | None = None) -> DeviceEnv:
    """Makes a device environment from a short name, library:id (gymnax, navix, xminigrid) or package.module:Factory.

    `options`: keyword arguments for its factory. Raises `ValueError` with a message of one line for unknown names or
    options, if a library is not installed, and if the factory raises or returns no valid `DeviceEnv`.
    """
    options = options or {}
    factory = _factory(name)
    accepted = inspect.signature(factory).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted):
        known = [parameter.name for parameter in accepted]
        if unknown := [option for option in options if option not in known]:
            raise ValueError(
                f"environment {name!r} has no option {unknown[0]!r}{suggest(unknown[0], known, most=_LISTED)}"
            )
    try:
        env = factory(**options)
    except Exception as error:  # a user's or a library's factory may raise any exception
        given = f" with options {options}" if options else ""
        raise ValueError(f"cannot make environment {name!r}{given}: {one_line(error)}") from error
    if not isinstance(env, DeviceEnv):
        raise ValueError(f"environment {name!r} is of type {type(env).__name__}, not memoroids.envs.device.DeviceEnv")
    if not 1 <= env.min_length <= env.max_length:
        raise ValueError(
            f"environment {name!r}: needs 1 <= min_length <= max_length, got {env.min_length} and {env.max_length}"
        )
    return env


def _factory(name: str) -> Factory:
    named = DEVICE | OBSERVED
    short = {known.lower(): factory for known, factory in named.items()}
    if name.lower() in short:
        return short[name.lower()]
    before, colon, after = name.partition(":")
    if not colon:
        raise ValueError(f"unknown device environment {name!r}{suggest(name, named, most=_LISTED)}")
    if before in LIBRARIES:
        library = LIBRARIES[before]
        try:
            known = library.ids()
        except ImportError as error:
            raise ValueError(f"{name} needs the extra {before} ({error}): pip install 'memoroids[{before}]'") from error
        if after not in known:
            raise ValueError(f"{before} has no environment {after!r}{suggest(after, known, most=_LISTED)}")
        return partial(library.make, after)
    return import_named(name, "environment", "callable", callable)
