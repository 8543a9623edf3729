"""Sensitivities for tests: profiles of given shares, a log of some, and the derivatives by a slow second way."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.agents.networks import QNetwork
from memoroids.analysis.sensitivity import Profile
from memoroids.tape import Tape

PNG = b"\x89PNG\r\n\x1a\n"

LOG = {10: [0.5, 0.25, 0.25], 20: [0.75, 0.25], 30: [1 / 3, 1 / 3, 1 / 3]}


def by_steps(network: QNetwork, tape: Tape) -> np.ndarray:
    """The same by forward derivatives of acting, one step at a time, without padding."""
    length, action = tape.slots - 1, int(tape.action[tape.slots - 2])

    def step(state: Any, t_and_observation: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        t, observation = t_and_observation
        q, state = network.step(observation, t == 0, state)
        return state, q[action]

    def value(observation: jax.Array) -> jax.Array:
        return jax.lax.scan(step, network.initial_state(), (jnp.arange(length), observation))[1][-1]

    derivative = jax.jit(jax.jacfwd(value))(jnp.asarray(tape.observation[:length]))
    return np.linalg.norm(np.asarray(derivative, np.float64), axis=1)[::-1]


def profile_of(*shares: float) -> Profile:
    return Profile.of([np.asarray(shares, float)])


def assert_picture(path: Path) -> None:
    assert path.read_bytes().startswith(PNG) and path.stat().st_size > 5_000
