"""An environment of your own in JAX, which compiles together with the agent: a T-maze.

Train on it with `memoroids train --env device:examples.device_environment:TMaze`.
"""

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp

from memoroids.envs.device import DeviceEnv, Step


class TMaze(DeviceEnv):
    """A corridor whose start shows which way to turn at its end: 1 or 2 is the way, 0 nothing, 3 the junction."""

    max_length: int = eqx.field(static=True)
    min_length: int = eqx.field(static=True)

    def __init__(self, corridor: int = 8):
        self.max_length = self.min_length = corridor + 1

    @property
    def observation_space(self):
        """One of four symbols."""
        return gym.spaces.Discrete(4)

    @property
    def action_space(self):
        """Left or right."""
        return gym.spaces.Discrete(2)

    def reset(self, key):
        """The state, a pytree of arrays, and the first observation."""
        way = jax.random.bernoulli(key).astype(jnp.int32)
        return (way, jnp.zeros((), jnp.int32)), 1 + way

    def step(self, state, action, key):
        """The next state, and what the agent gets: `jnp.where` takes the place of `if`."""
        way, time = state[0], state[1] + 1
        over = time == self.max_length
        reward = jnp.where(over, jnp.where(action == way, 1.0, -1.0), 0.0)
        seen = jnp.where(time == self.max_length - 1, 3, 0)
        return (way, time), Step(seen, reward, terminated=over, truncated=jnp.zeros((), bool))


def random_return(env: TMaze, key: jax.Array) -> jax.Array:
    """The return of one episode of random actions."""
    start, *keys = jax.random.split(key, env.max_length + 1)

    def step(state, key):
        state, result = env.step(state, jax.random.randint(key, (), 0, 2), key)
        return state, result.reward

    return jax.lax.scan(step, env.reset(start)[0], jnp.stack(keys))[1].sum()


if __name__ == "__main__":
    returns = jax.jit(jax.vmap(lambda key: random_return(TMaze(), key)))(jax.random.split(jax.random.key(0), 1_000))
    print(f"1,000 episodes of random actions: mean return {returns.mean():.3f}")
