"""POPGym's tasks with nothing hidden that a policy could use: the twins beside which a memory is judged."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device import squares
from memoroids.envs.device.bandit import MultiarmedBandit
from memoroids.envs.device.battleship import Battleship
from memoroids.envs.device.cards import KINDS, Autoencode, CountRecall, HigherLower, RepeatFirst, RepeatPrevious
from memoroids.envs.device.cartpole import (
    NoisyPositionOnlyCartPole,
    PositionOnlyCartPole,
    VelocityOnlyCartPole,
)
from memoroids.envs.device.concentration import NONE, Concentration
from memoroids.envs.device.environment import DeviceEnv, EnvState, Step
from memoroids.envs.device.labyrinth import LabyrinthEscape, LabyrinthExplore
from memoroids.envs.device.minesweeper import MineSweeper
from memoroids.envs.device.pendulum import NoisyPositionOnlyPendulum, PositionOnlyPendulum


@dataclass(frozen=True)
class Hidden:
    """What a task hides: `size` numbers of its state, (size,) float32 between -1 and 1."""

    size: Callable[[Any], int]
    of: Callable[[Any, Any], jax.Array]


class Observed(DeviceEnv):
    """A task of POPGym whose observation also holds what it hides: `hidden`, (size,) float32."""

    requires_previous_action: ClassVar[bool] = False
    env: DeviceEnv

    def __check_init__(self) -> None:
        if type(self.env) not in HIDDEN:
            raise ValueError(f"nothing is known of what {type(self.env).__name__} hides")

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the task."""
        return self.env.max_length

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the task."""
        return self.env.min_length

    @property
    def observation_space(self) -> gym.Space:
        """The task's own observation, `own`, and `hidden`."""
        size = HIDDEN[type(self.env)].size(self.env)
        # Known bounds, so that agents do not have to learn a scale.
        return spaces.Dict({"hidden": spaces.Box(-1, 1, (size,), np.float32), "own": self.env.observation_space})

    @property
    def action_space(self) -> gym.Space:
        """That of the task."""
        return self.env.action_space

    def reset(self, key: jax.Array) -> tuple[EnvState, dict[str, Any]]:
        """The task's reset."""
        state, observation = self.env.reset(key)
        return state, self._all(state, observation)

    def step(self, state: EnvState, action: jax.Array, key: jax.Array) -> tuple[EnvState, Step]:
        """The task's step."""
        state, step = self.env.step(state, action, key)
        return state, step._replace(observation=self._all(state, step.observation))

    def _all(self, state: EnvState, observation: Any) -> dict[str, Any]:
        hidden = HIDDEN[type(self.env)].of(self.env, state)
        return {"hidden": hidden.astype(jnp.float32), "own": observation}


def observed(factory: Callable[..., DeviceEnv]) -> Callable[..., Observed]:
    """A factory of the twins of what a factory makes, with the same options."""

    # A wrapper has the signature of what it wraps, so that unknown options are named.
    @functools.wraps(factory, assigned=(), updated=())
    def twin(**options: Any) -> Observed:
        return Observed(env=factory(**options))  # pyright: ignore[reportCallIssue]: its lengths are properties

    return twin


def _one_hot(index: jax.Array, known: jax.Array, size: int) -> jax.Array:
    return jnp.where(known, jax.nn.one_hot(index, size), 0)


def _bits(words: jax.Array, number: int) -> jax.Array:
    return squares.holds(words, jnp.arange(number, dtype=jnp.int32))


def _labyrinth(env: Any, state: Any) -> jax.Array:
    rows, columns = env.shape
    walls = ~_bits(state.maze.free, rows * columns)
    scale = jnp.asarray((rows, columns), jnp.float32)
    way = (state.maze.exit - state.position) / scale
    return jnp.concatenate((state.position / scale, way, walls, _bits(state.visited, rows * columns)))


def _moving(state: Any) -> jax.Array:
    # The bounds of an episode, and speeds that are hardly ever exceeded.
    return jnp.clip(state.moving / jnp.asarray((2.4, 3.0, 0.21, 3.0)), -1, 1)


def _swinging(env: Any, state: Any) -> jax.Array:
    return jnp.stack((jnp.cos(state.angle), jnp.sin(state.angle), state.speed / 8))


def _answer(env: Any, state: Any) -> jax.Array:
    answer, asking = env.answer(state)
    return _one_hot(answer, asking, env.action_space.n)


_ANSWER = Hidden(lambda env: env.action_space.n, _answer)
_CARTPOLE = Hidden(lambda env: 4, lambda env, state: _moving(state))
_PENDULUM = Hidden(lambda env: 3, _swinging)
_LABYRINTH = Hidden(lambda env: 4 + 2 * env.shape[0] * env.shape[1], _labyrinth)
HIDDEN: dict[type[DeviceEnv], Hidden] = {
    RepeatFirst: _ANSWER,
    RepeatPrevious: _ANSWER,
    Autoencode: _ANSWER,
    CountRecall: _ANSWER,
    HigherLower: Hidden(
        lambda env: KINDS["ranks"],
        lambda env, state: jnp.diff(state.left, prepend=jnp.uint16(0)) * (KINDS["ranks"] / env.cards),
    ),
    MultiarmedBandit: Hidden(lambda env: env.num_bandits, lambda env, state: state.chance),
    MineSweeper: Hidden(
        lambda env: 2 * env.side**2,
        lambda env, state: jnp.concatenate([_bits(words, env.side**2) for words in (state.mines, state.viewed)]),
    ),
    Battleship: Hidden(
        lambda env: 2 * env.board_size**2,
        lambda env, state: jnp.concatenate([_bits(words, env.board_size**2) for words in (state.ships, state.shots)]),
    ),
    Concentration: Hidden(
        lambda env: env.cards * (env.kinds + 1),
        lambda env, state: jnp.concatenate(
            (jax.nn.one_hot(state.kinds, env.kinds).ravel(), _one_hot(state.turned, state.turned != NONE, env.cards))
        ),
    ),
    PositionOnlyCartPole: _CARTPOLE,
    NoisyPositionOnlyCartPole: _CARTPOLE,
    VelocityOnlyCartPole: _CARTPOLE,
    PositionOnlyPendulum: _PENDULUM,
    NoisyPositionOnlyPendulum: _PENDULUM,
    LabyrinthEscape: _LABYRINTH,
    LabyrinthExplore: _LABYRINTH,
}
"""What each task hides."""
