"""JAX environments as the rest of the package sees them: the counterpart of `HostEnv`, to be compiled and mapped."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device.environment import DeviceEnv, EnvState, Step
from memoroids.envs.observations import Mixed, Observations, Part, Treatment
from memoroids.envs.spaces import Continuous, action_parts, action_width, actions_of, options_of


class ViewState(NamedTuple):
    """The environment's own state, and the number of steps since the reset, int32."""

    env: EnvState
    step: jax.Array


class DeviceView:
    """A `DeviceEnv` with float32 vectors or uint8 images out and one action in, in the form that networks give.

    Observations are flattened, and previous actions, rewards and step periods appended, exactly as in `HostEnv`. A
    MultiDiscrete or MultiBinary action is one index into the product of its parts, or the option of each if there are
    many; a Box action is clipped to the Box.

    Raises `ValueError` for a space that is not supported, or if something is to be appended to an image. `reset` and
    `step` raise it, when they are traced, for an image that is not uint8.
    """

    def __init__(
        self,
        name: str,
        env: DeviceEnv,
        *,
        previous_action: bool | None = None,
        previous_reward: bool = False,
        step_periods: tuple[float, ...] = (),
        observation: Treatment = "auto",
    ):
        self.name, self.env = name, env
        self.actions = actions_of(name, env.action_space)
        """The number of discrete actions, the sizes of their parts, or the box of continuous ones."""
        self._observations = Observations(name, env.observation_space, observation)
        self.notices: list[str] = self._observations.notices
        """What the user should know about the environment, a line each."""
        image = self._image = self._observations.image
        if image and (previous_action or previous_reward or step_periods):
            raise ValueError(
                f"{name}: observations are images {image.image}: cannot append a previous action, reward or step "
                "periods"
            )
        if previous_action is None:
            previous_action = env.requires_previous_action and not image
        self.previous_action, self.previous_reward, self._periods = previous_action, previous_reward, step_periods
        encoded = action_width(env.action_space) * previous_action
        self.joined = encoded + previous_reward + 2 * len(step_periods)
        """How many numbers are joined to the environment's own observation."""
        self.ranges = self._observations.ranges(encoded, previous_reward, len(step_periods))
        """What is known of the scale of each element of an observation; None if it is an image."""
        self.layout = self._observations.layout(self.joined)
        """The shape of one observation as networks need it: (n,), (H, W, C) of an image, or `Mixed`."""
        self.observation_shape: tuple[int, ...] = (self.layout.size,) if isinstance(self.layout, Mixed) else self.layout
        self.max_length, self.min_length = env.max_length, env.min_length

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Observations.limits`: those of the environment's own observations."""
        return self._observations.limits()

    @property
    def fixed_length(self) -> bool:
        """Whether all episodes have the same number of transitions."""
        return self.min_length == self.max_length

    def reset(self, key: jax.Array) -> tuple[ViewState, jax.Array]:
        """The first state of an episode, and its first observation, of `observation_shape`."""
        state, observation = self.env.reset(key)
        step = jnp.zeros((), jnp.int32)
        return ViewState(state, step), self._observe(observation, None, jnp.zeros(()), step)

    def step(self, state: ViewState, action: jax.Array, key: jax.Array) -> tuple[ViewState, Step]:
        """Takes one action, an int32 scalar, (parts,) int32 or (size,) floats.

        If both end flags are set, only terminated is kept.
        """
        native = self._native(action)
        env_state, (observation, reward, terminated, truncated) = self.env.step(state.env, native, key)
        step = state.step + 1
        reward = jnp.asarray(reward, jnp.float32)
        observation = self._observe(observation, action, reward, step)
        return ViewState(env_state, step), Step(observation, reward, terminated, truncated & ~terminated)

    def _native(self, action: jax.Array) -> jax.Array:
        if isinstance(self.actions, Continuous):
            space = self.env.action_space
            return self._clipped(action).reshape(space.shape or ())
        space = self.env.action_space
        sizes, start = action_parts(space)
        if isinstance(space, spaces.Discrete):
            return action + int(start[0])
        native = options_of(self.actions, sizes, action) + jnp.asarray(start, jnp.int32)
        return native.reshape(space.shape or ())

    def _clipped(self, action: jax.Array) -> jax.Array:
        assert isinstance(self.actions, Continuous)
        return jnp.clip(action, jnp.asarray(self.actions.low), jnp.asarray(self.actions.high))

    def _observe(self, observation: Any, action: jax.Array | None, reward: jax.Array, step: jax.Array) -> jax.Array:
        if self._image:
            return self._pixels(self._image, observation)
        seen = self._observations
        flat = [self._pixels(part, observation).astype(jnp.float32).ravel() for part in seen.images]
        flat += [_flat(part.space, part.of(observation)) for part in seen.vectors]
        if self.previous_action:
            flat.append(jnp.zeros(action_width(self.env.action_space)) if action is None else self._encoded(action))
        if self.previous_reward:
            flat.append(reward[None])
        if self._periods:
            angle = 2 * math.pi * step / jnp.asarray(self._periods, jnp.float32)
            flat += [jnp.sin(angle), jnp.cos(angle)]
        return jnp.concatenate(flat)

    def _pixels(self, part: Part, observation: Any) -> jax.Array:
        """An image (H, W, C) uint8. Raises `ValueError` for another dtype."""
        image = jnp.asarray(part.of(observation))
        if image.dtype != jnp.uint8:
            raise ValueError(f"{self.name} returned an image of {image.dtype}, but its space is of uint8")
        assert part.image is not None
        return jnp.moveaxis(image, 0, -1) if part.channels_first else image.reshape(part.image)

    def _encoded(self, action: jax.Array) -> jax.Array:
        """The encoding of an action in the next observation."""
        if isinstance(self.actions, Continuous):
            return self._clipped(action)
        sizes, _ = action_parts(self.env.action_space)
        part = np.repeat(np.arange(len(sizes)), sizes)
        option = np.arange(sum(sizes)) - np.cumsum((0, *sizes[:-1]))[part]
        return (options_of(self.actions, sizes, action)[part] == option).astype(jnp.float32)


def _flat(space: Any, value: Any) -> jax.Array:
    """The numbers of a part that is no image, (n,) float32: discrete values one-hot."""
    match space:
        case spaces.Discrete():
            return jax.nn.one_hot(jnp.asarray(value) - int(space.start), int(space.n))
        case spaces.MultiDiscrete():
            index = (jnp.asarray(value) - jnp.asarray(space.start, jnp.int32)).ravel()
            return jnp.concatenate([jax.nn.one_hot(i, int(n)) for i, n in zip(index, space.nvec.ravel(), strict=True)])
    return jnp.asarray(value, jnp.float32).ravel()
