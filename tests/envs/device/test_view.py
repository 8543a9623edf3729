"""DeviceView: the observations of a device environment are those of `HostEnv`."""

import math
from typing import Any

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from memoroids.envs import HostEnv
from memoroids.envs.device import DeviceEnv, DeviceView, Step
from memoroids.envs.observations import Mixed

PICTURE = np.random.default_rng(0).integers(0, 256, (3, 36, 40), dtype=np.uint8)


class Seen(DeviceEnv):
    """Shows a picture with channels first; beside it, with `mixed`, the number of steps and a category."""

    max_length: int = 3
    min_length: int = 3
    mixed: bool = True

    @property
    def observation_space(self) -> gym.Space:
        picture = spaces.Box(0, 255, PICTURE.shape, np.uint8)
        return spaces.Dict({"kind": spaces.Discrete(2), "see": spaces.Tuple((picture,))}) if self.mixed else picture

    @property
    def action_space(self) -> gym.Space:
        return spaces.Discrete(2)

    def _show(self, time):
        return {"kind": time % 2, "see": (jnp.asarray(PICTURE),)} if self.mixed else jnp.asarray(PICTURE)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), self._show(0)

    def step(self, state, action, key):
        return state + 1, Step(self._show(state + 1), jnp.ones(()), state + 1 == 3, jnp.zeros((), bool))


def test_images_beside_other_parts_come_first_in_the_row():
    view = DeviceView("seen", Seen(), previous_action=True)
    assert view.layout == Mixed(((36, 40, 3),), 4) and view.observation_shape == (4324,)
    state, first = view.reset(jax.random.key(0))
    _, step = view.step(state, jnp.asarray(1), jax.random.key(1))
    for row, rest in ((first, [1, 0, 0, 0]), (step.observation, [0, 1, 0, 1])):
        assert row.dtype == jnp.float32
        np.testing.assert_array_equal(row[:4320].reshape(36, 40, 3), np.moveaxis(PICTURE, 0, -1))
        np.testing.assert_array_equal(row[4320:], rest)


def test_an_image_alone_stays_bytes_with_its_channels_last():
    view = DeviceView("seen", Seen(mixed=False))
    _, image = view.reset(jax.random.key(0))
    assert view.layout == view.observation_shape == (36, 40, 3) and image.dtype == jnp.uint8
    np.testing.assert_array_equal(image, np.moveaxis(PICTURE, 0, -1))
    assert DeviceView("seen", Seen(mixed=False), observation="vector").observation_shape == (4320,)


class Photograph(DeviceEnv):
    """An image of one value, which is declared as uint8."""

    kind: Any = jnp.uint8
    max_length: int = 3
    min_length: int = 3

    @property
    def observation_space(self) -> gym.Space:
        return gym.spaces.Box(0, 255, (40, 40, 3), np.uint8)

    @property
    def action_space(self) -> gym.Space:
        return gym.spaces.Discrete(2)

    def reset(self, key: jax.Array):
        return jnp.zeros(()), jnp.full((40, 40, 3), 44, self.kind)

    def step(self, state: Any, action: jax.Array, key: jax.Array):
        return state, Step(jnp.full((40, 40, 3), 44, self.kind), jnp.ones(()), jnp.asarray(False), jnp.asarray(False))


def test_an_image_of_another_type_is_not_cut_to_bytes():
    seen = jax.jit(DeviceView("p", Photograph()).reset)(jax.random.key(0))[1]
    assert seen.dtype == np.uint8 and np.all(np.asarray(seen) == 44)
    view = DeviceView("p", Photograph(kind=jnp.int32))
    with pytest.raises(ValueError, match="p returned an image of int32, but its space is of uint8"):
        view.reset(jax.random.key(0))


class Told(DeviceEnv):
    """Shows the action that it received last, as a vector."""

    space: gym.Space = eqx.field(static=True)
    max_length: int = 3
    min_length: int = 3

    @property
    def observation_space(self) -> gym.Space:
        return gym.spaces.Box(-200, 200, (math.prod(self.space.shape or ()),), np.float32)

    @property
    def action_space(self) -> gym.Space:
        return self.space

    def reset(self, key: jax.Array):
        return jnp.zeros(()), jnp.zeros(self.observation_space.shape)

    def step(self, state: Any, action: jax.Array, key: jax.Array):
        assert action.shape == self.space.shape and action.dtype == jnp.int32
        return state, Step(action.ravel().astype(jnp.float32), jnp.ones(()), jnp.asarray(False), jnp.asarray(False))


ACTIONS = {
    "parts": (spaces.MultiDiscrete([10] * 10), np.asarray([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], np.int32)),
    "with a start": (spaces.MultiDiscrete([30, 40], start=[-5, 100]), np.asarray([29, 39], np.int32)),
    "a board": (spaces.MultiDiscrete(np.full((2, 2), 20)), np.asarray([1, 2, 3, 4], np.int32)),
    "bits": (spaces.MultiBinary(11), np.asarray([0, 1] * 5 + [1], np.int32)),
    "a few parts": (spaces.MultiDiscrete([3, 2, 4], start=[1, 0, 2]), np.int32(17)),
    "a few bits": (spaces.MultiBinary((2, 2)), np.int32(11)),
}


@pytest.mark.parametrize("kind", ACTIONS)
def test_actions_of_several_parts_are_those_of_the_host(kind: str):
    space, action = ACTIONS[kind]

    class Host(gym.Env):
        """The same environment for Gymnasium."""

        observation_space, action_space = Told(space).observation_space, space

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
            return np.zeros(self.observation_space.shape, np.float32), {}

        def step(self, action: np.ndarray):
            return action.ravel().astype(np.float32), 1.0, False, False, {}

    gym.register("test-view/Told-v0", entry_point=Host)
    host = HostEnv("test-view/Told-v0", previous_action=True)
    del gym.registry["test-view/Told-v0"]
    view = DeviceView("told", Told(space), previous_action=True)
    assert view.actions == host.actions and view.observation_shape == host.observation_shape
    state, first = view.reset(jax.random.key(0))
    np.testing.assert_array_equal(first, host.reset(0))
    _, step = jax.jit(view.step)(state, jnp.asarray(action), jax.random.key(1))
    np.testing.assert_array_equal(step.observation, host.step(action)[0])
