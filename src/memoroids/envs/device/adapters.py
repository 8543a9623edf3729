"""Environments of other JAX libraries as `DeviceEnv`s, which distinguish termination from truncation."""

import abc
import dataclasses
import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device.environment import DeviceEnv, EnvState, Step

NEVER = 2**30
"""A time limit that no episode reaches."""


class Library(NamedTuple):
    """A library of environments: a function that lists its ids, and a function (id, **options) -> DeviceEnv."""

    ids: Callable[[], Iterable[str]]
    make: Callable[..., DeviceEnv]


class Held:
    """A library's environment and its parameters, hashed by identity, since they need not be hashable themselves."""

    def __init__(self, env: Any, params: Any = None):
        self.env, self.params = env, params


class _Adapted(DeviceEnv):
    """Steps without the library's automatic resets, and keeps shapes and dtypes of the state from step to step."""

    held: Held = eqx.field(static=True)
    max_length: int = eqx.field(static=True)
    min_length: int = eqx.field(static=True, default=1)

    @property
    def env(self) -> Any:
        """The library's environment."""
        return self.held.env

    @property
    def params(self) -> Any:
        """The library's parameters of the environment, None if it has none."""
        return self.held.params

    @abc.abstractmethod
    def _begin(self, key: jax.Array) -> tuple[EnvState, Any]: ...

    @abc.abstractmethod
    def _go(self, state: EnvState, action: jax.Array, key: jax.Array) -> tuple[EnvState, Step]: ...

    def reset(self, key: jax.Array) -> tuple[EnvState, Any]:
        """See `DeviceEnv.reset`."""
        state, observation = self._begin(key)
        return self._settled(state), observation

    def step(self, state: EnvState, action: jax.Array, key: jax.Array) -> tuple[EnvState, Step]:
        """See `DeviceEnv.step`; reward and end flags become scalars."""
        state, (observation, reward, terminated, truncated) = self._go(state, action, key)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        ends = (jnp.asarray(end, bool).reshape(()) for end in (terminated, truncated))
        return self._settled(state), Step(observation, reward, *ends)

    def _settled(self, state: EnvState) -> EnvState:
        """A state cast to dtypes that fit both a reset and a step: a reset may return Python numbers."""
        key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
        space = self.action_space
        action = jax.ShapeDtypeStruct(space.shape or (), jnp.float32 if isinstance(space, spaces.Box) else jnp.int32)
        first = jax.eval_shape(self._begin, key)[0]
        later = jax.eval_shape(self._go, first, action, key)[0]

        def settle(leaf: Any, first: Any, later: Any) -> jax.Array:
            leaf = jnp.asarray(leaf)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return leaf
            return leaf.astype(jnp.promote_types(first.dtype, later.dtype)).reshape(first.shape)

        return jax.tree.map(settle, state, first, later)


class Gymnax(_Adapted):
    """An environment of gymnax, stepped by its `step_env`.

    From version 1.0 on gymnax distinguishes termination from truncation. Before, its `done` merges them: the episode
    counts as terminated if `is_terminal` holds with a time limit out of reach, and otherwise as truncated.
    """

    @property
    def observation_space(self) -> gym.Space:
        """The counterpart of gymnax's observation space."""
        return self._space("observation_space")

    @property
    def action_space(self) -> gym.Space:
        """The counterpart of gymnax's action space."""
        return self._space("action_space")

    def _space(self, which: str) -> gym.Space:
        # The bounds are JAX arrays, which must be concrete even while something else is traced.
        with jax.ensure_compile_time_eval():
            return _gymnax_space(getattr(self.env, which)(self.params))

    def _begin(self, key: jax.Array) -> tuple[EnvState, Any]:
        observation, state = self.env.reset_env(key, self.params)
        return state, observation

    def _go(self, state: EnvState, action: jax.Array, key: jax.Array) -> tuple[EnvState, Step]:
        observation, state, reward, end, _ = self.env.step_env(key, state, action, self.params)
        if hasattr(self.env, "is_truncated"):
            return state, Step(observation, reward, end, self.env.is_truncated(state, self.params))
        terminated = self.env.is_terminal(state, self.params.replace(max_steps_in_episode=NEVER))
        return state, Step(observation, reward, terminated, jnp.logical_and(end, jnp.logical_not(terminated)))


def _gymnax_space(space: Any) -> gym.Space:
    match type(space).__name__:
        case "Discrete":
            return spaces.Discrete(int(space.n))
        case "Box":
            low, high = (np.broadcast_to(np.asarray(bound), space.shape) for bound in (space.low, space.high))
            dtype: Any = np.dtype(space.dtype)
            return spaces.Box(low.astype(dtype), high.astype(dtype), space.shape, dtype)
        case "Dict":
            return spaces.Dict({name: _gymnax_space(part) for name, part in space.spaces.items()})
        case "Tuple":
            return spaces.Tuple([_gymnax_space(part) for part in space.spaces])
    raise ValueError(f"gymnax space {space} has no counterpart in Gymnasium")


def _make_gymnax(id_: str, **options: Any) -> DeviceEnv:
    """Options that are fields of the environment's parameters are set there; the others go to its constructor."""
    gymnax = importlib.import_module("gymnax")
    fields = {field.name for field in dataclasses.fields(gymnax.make(id_)[1])}
    env, params = gymnax.make(id_, **{name: value for name, value in options.items() if name not in fields})
    params = params.replace(**{name: value for name, value in options.items() if name in fields})
    return Gymnax(held=Held(env, params), max_length=int(params.max_steps_in_episode))


class Navix(_Adapted):
    """An environment of navix, which distinguishes truncation (step type 1) from termination (2).

    Symbolic grids have a MultiDiscrete space, which flattens to one-hot vectors.
    """

    @property
    def observation_space(self) -> gym.Space:
        """The space of the environment's `observation_fn`: images, symbols, categories or numbers."""
        shape = jax.eval_shape(self.env.reset, jax.random.key(0)).observation.shape
        if len(shape) == 3 and "rgb" in getattr(self.env.observation_fn, "__name__", ""):
            return spaces.Box(0, 255, shape, np.uint8)
        if len(shape) == 3 and shape[-1] == len(NAVIX_SYMBOL):
            return spaces.MultiDiscrete(np.broadcast_to(NAVIX_SYMBOL, shape))
        if len(shape) == 2:  # categories, with -1 for walls
            return spaces.MultiDiscrete(np.full(shape, NAVIX_SYMBOL[0] + 1), start=np.full(shape, -1))
        return spaces.Box(-np.inf, np.inf, shape, np.float32)

    @property
    def action_space(self) -> gym.Space:
        """The actions of the environment's `action_set`."""
        return spaces.Discrete(len(self.env.action_set))

    def _begin(self, key: jax.Array) -> tuple[EnvState, Any]:
        timestep = self.env.reset(key)
        return timestep, timestep.observation

    def _go(self, state: EnvState, action: jax.Array, key: jax.Array) -> tuple[EnvState, Step]:
        # `step` would also compute a reset, for the case that the episode has ended.
        timestep = self.env._step(state, action)
        end = timestep.step_type
        return timestep, Step(timestep.observation, timestep.reward, end == 2, end == 1)


NAVIX_SYMBOL = (11, 6, 4)
"""The numbers of kinds of things, colours and states on a square."""


def _make_navix(id_: str, **options: Any) -> DeviceEnv:
    """The option `observation_fn` may be the name of a function in `navix.observations`."""
    navix = importlib.import_module("navix")
    if isinstance(name := options.get("observation_fn"), str):
        options = {**options, "observation_fn": getattr(navix.observations, name)}
    env = navix.make(id_, **options)
    return Navix(held=Held(env), max_length=int(env.max_steps))


class XMiniGrid(_Adapted):
    """An environment of xminigrid; the end of an episode is a termination if its discount is 0, else a truncation.

    Observations are MultiDiscrete, tiles and colours, which flatten to one-hot vectors.
    """

    @property
    def observation_space(self) -> gym.Space:
        """The tile and the colour of each square in view."""
        constants = importlib.import_module("xminigrid.core.constants")
        shape = self.env.observation_shape(self.params)
        return spaces.MultiDiscrete(np.broadcast_to((constants.NUM_TILES, constants.NUM_COLORS), shape))

    @property
    def action_space(self) -> gym.Space:
        """The actions of the environment."""
        return spaces.Discrete(self.env.num_actions(self.params))

    def _begin(self, key: jax.Array) -> tuple[EnvState, Any]:
        timestep = self.env.reset(self.params, key)
        return timestep, timestep.observation

    def _go(self, state: EnvState, action: jax.Array, key: jax.Array) -> tuple[EnvState, Step]:
        timestep = self.env.step(self.params, state, action)
        terminated = timestep.last() & (timestep.discount == 0)
        return timestep, Step(timestep.observation, timestep.reward, terminated, timestep.last() & ~terminated)


def _make_xminigrid(id_: str, **options: Any) -> DeviceEnv:
    """Options are fields of the environment's parameters."""
    env, params = importlib.import_module("xminigrid").make(id_, **options)
    return XMiniGrid(held=Held(env, params), max_length=int(params.max_steps))


LIBRARIES = {
    "gymnax": Library(lambda: importlib.import_module("gymnax").registered_envs, _make_gymnax),
    "navix": Library(lambda: importlib.import_module("navix").registry(), _make_navix),
    "xminigrid": Library(lambda: importlib.import_module("xminigrid").registered_environments(), _make_xminigrid),
}
"""The libraries by the prefix of their environments' names, which is also the name of the extra."""
