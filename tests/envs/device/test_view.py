"""DeviceView: the observations of a device environment are those of `HostEnv`."""

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

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
