"""Device environments as agents see them."""

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.envs.device import DeviceEnv, DeviceView, Step


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
