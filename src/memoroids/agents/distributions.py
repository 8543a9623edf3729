"""Action distributions: categorical and Gaussian policies, and ε-greedy actions. Batch axes come first."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp


class Categorical(eqx.Module):
    """π(a) ∝ exp(logits_a) over actions 0 … n - 1: `logits` (…, n), actions int32 (…,)."""

    logits: jax.Array

    def log_prob(self, action: jax.Array) -> jax.Array:
        """ln π(a): (…,)."""
        chosen = jnp.take_along_axis(jax.nn.log_softmax(self.logits), action[..., None], axis=-1)
        return jnp.squeeze(chosen, axis=-1)

    def entropy(self) -> jax.Array:
        """The entropy in nats: (…,)."""
        log_prob = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_prob) * log_prob, axis=-1)

    def mode(self) -> jax.Array:
        """The most probable action: int32 (…,)."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def sample(self, key: jax.Array) -> jax.Array:
        """An action drawn with `key`: int32 (…,)."""
        return jax.random.categorical(key, self.logits).astype(jnp.int32)


class Gaussian(eqx.Module):
    """A Gaussian with diagonal covariance: `mean` and `log_std` (…, size), actions float32 (…, size)."""

    mean: jax.Array
    log_std: jax.Array

    def log_prob(self, action: jax.Array) -> jax.Array:
        """ln of the density at `action`: (…,)."""
        distance = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * jnp.square(distance) + self.log_std + 0.5 * math.log(2 * math.pi), axis=-1)

    def entropy(self) -> jax.Array:
        """The differential entropy in nats: (…,)."""
        return jnp.sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

    def mode(self) -> jax.Array:
        """The mean: (…, size)."""
        return self.mean

    def sample(self, key: jax.Array) -> jax.Array:
        """An action drawn with `key`: (…, size)."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape, self.mean.dtype)


def epsilon_greedy(q: jax.Array, epsilon: jax.Array, key: jax.Array) -> jax.Array:
    """argmax of `q` (actions,), or with probability `epsilon` a uniformly random action: int32 scalar."""
    explore_key, action_key = jax.random.split(key)
    random = jax.random.randint(action_key, (), 0, q.shape[0], jnp.int32)
    explore = jax.random.uniform(explore_key, dtype=jnp.float32) < epsilon
    return jnp.where(explore, random, jnp.argmax(q)).astype(jnp.int32)
