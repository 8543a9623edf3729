"""JAX environments as the rest of the package sees them: the counterpart of `HostEnv`, to be compiled and mapped."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device.environment import DeviceEnv, EnvState, Step
from memoroids.envs.interface import Interface, Joined
from memoroids.envs.observations import Part
from memoroids.envs.spaces import Continuous, action_parts, action_width, options_of


class ViewState(NamedTuple):
    """The environment's own state, and the number of steps since the reset, int32."""

    env: EnvState
    step: jax.Array


class TracedInterface(Interface):
    """An `Interface` in JAX: pure functions, exactly as `memoroids.envs.host.translation.Translator` has them.

    They raise `ValueError`, when they are traced, for an image that is not uint8.
    """

    def native(self, action: jax.Array) -> jax.Array:
        """An action in the environment's own form."""
        if isinstance(self.actions, Continuous):
            space = self.action_space
            return self._clipped(action).reshape(space.shape or ())
        space = self.action_space
        sizes, start = action_parts(space)
        if isinstance(space, spaces.Discrete):
            return action + int(start[0])
        native = options_of(self.actions, sizes, action) + jnp.asarray(start, jnp.int32)
        return native.reshape(space.shape or ())

    def _clipped(self, action: jax.Array) -> jax.Array:
        assert isinstance(self.actions, Continuous)
        return jnp.clip(action, jnp.asarray(self.actions.low), jnp.asarray(self.actions.high))

    def observe(self, observation: Any, action: jax.Array | None, reward: jax.Array, step: jax.Array) -> jax.Array:
        """What agents see after `step` steps of an episode; `action` and `reward` are the last, None at a begin."""
        periods = self.seen["step_periods"]
        if self._image:
            return self._pixels(self._image, observation)
        seen = self._observations
        flat = [self._pixels(part, observation).astype(jnp.float32).ravel() for part in seen.images]
        flat += [_flat(part.space, part.of(observation)) for part in seen.vectors]
        if self.previous_action:
            flat.append(jnp.zeros(action_width(self.action_space)) if action is None else self._encoded(action))
        if self.previous_reward:
            flat.append(reward[None])
        if periods:
            angle = 2 * math.pi * step / jnp.asarray(periods, jnp.float32)
            flat += [jnp.sin(angle), jnp.cos(angle)]
        return jnp.concatenate(flat)

    def _pixels(self, part: Part, observation: Any) -> jax.Array:
        """An image (H, W, C) uint8. Raises `ValueError` for another dtype."""
        image = jnp.asarray(part.of(observation))
        if image.dtype != jnp.uint8:
            raise ValueError(f"{self.id} returned an image of {image.dtype}, but its space is of uint8")
        assert part.image is not None
        return jnp.moveaxis(image, 0, -1) if part.channels_first else image.reshape(part.image)

    def _encoded(self, action: jax.Array) -> jax.Array:
        """The encoding of an action in the next observation."""
        if isinstance(self.actions, Continuous):
            return self._clipped(action)
        sizes, _ = action_parts(self.action_space)
        part = np.repeat(np.arange(len(sizes)), sizes)
        option = np.arange(sum(sizes)) - np.cumsum((0, *sizes[:-1]))[part]
        return (options_of(self.actions, sizes, action)[part] == option).astype(jnp.float32)


class DeviceView(TracedInterface):
    """A `DeviceEnv` with float32 vectors or uint8 images out and one action in, in the form that networks give.

    `seen`: how observations are seen, keyword arguments of `Interface`; without `previous_action` the environment says
    whether it is appended. Raises `ValueError` for a space that is not supported, or if something is to be appended to
    an image.
    """

    def __init__(self, name: str, env: DeviceEnv, *, previous_action: Joined = None, **seen: Any):
        super().__init__(
            name,
            env.observation_space,
            env.action_space,
            previous_action=previous_action,
            wants_previous_action=env.requires_previous_action,
            **seen,
        )
        self.env = env
        self.max_length, self.min_length = env.max_length, env.min_length

    @property
    def fixed_length(self) -> bool:
        """Whether all episodes have the same number of transitions."""
        return self.min_length == self.max_length

    def reset(self, key: jax.Array) -> tuple[ViewState, jax.Array]:
        """The first state of an episode, and its first observation, of `observation_shape`."""
        state, observation = self.env.reset(key)
        step = jnp.zeros((), jnp.int32)
        return ViewState(state, step), self.observe(observation, None, jnp.zeros(()), step)

    def step(self, state: ViewState, action: jax.Array, key: jax.Array) -> tuple[ViewState, Step]:
        """Takes one action, an int32 scalar, (parts,) int32 or (size,) floats.

        If both end flags are set, only terminated is kept.
        """
        native = self.native(action)
        env_state, (observation, reward, terminated, truncated) = self.env.step(state.env, native, key)
        step = state.step + 1
        reward = jnp.asarray(reward, jnp.float32)
        observation = self.observe(observation, action, reward, step)
        return ViewState(env_state, step), Step(observation, reward, terminated, truncated & ~terminated)


def _flat(space: Any, value: Any) -> jax.Array:
    """The numbers of a part that is no image, (n,) float32: discrete values one-hot."""
    match space:
        case spaces.Discrete():
            return jax.nn.one_hot(jnp.asarray(value) - int(space.start), int(space.n))
        case spaces.MultiDiscrete():
            index = (jnp.asarray(value) - jnp.asarray(space.start, jnp.int32)).ravel()
            return jnp.concatenate([jax.nn.one_hot(i, int(n)) for i, n in zip(index, space.nvec.ravel(), strict=True)])
    return jnp.asarray(value, jnp.float32).ravel()
