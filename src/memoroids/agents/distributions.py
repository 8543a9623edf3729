"""Action distributions: categorical, factored and Gaussian policies, and ε-greedy actions. Batch axes come first."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.agents.branches import ActionValues, Branches, greedy


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


class FactoredCategorical(eqx.Module):
    """Independent parts, π(a) = Π_d π_d(a_d), each a `Categorical` of its own: actions int32 (…, parts).

    `logits`: those of every option of every part, (…, Σ sizes).
    """

    logits: Branches

    def log_prob(self, action: jax.Array) -> jax.Array:
        """ln π(a), the sum of those of the parts: (…,)."""
        return jnp.sum(self.logits.reduce(lambda logits, chosen: Categorical(logits).log_prob(chosen), action), axis=-1)

    def entropy(self) -> jax.Array:
        """The entropy in nats, the sum of those of the parts: (…,)."""
        return jnp.sum(self.logits.reduce(lambda logits: Categorical(logits).entropy()), axis=-1)

    def mode(self) -> jax.Array:
        """The most probable action: int32 (…, parts)."""
        return greedy(self.logits)

    def sample(self, key: jax.Array) -> jax.Array:
        """An action drawn with `key`: int32 (…, parts)."""
        # The largest of logits with Gumbel noise has the distribution of the softmax.
        flat = self.logits.flat
        return greedy(Branches(flat + jax.random.gumbel(key, flat.shape, flat.dtype), self.logits.sizes))


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


def epsilon_greedy(q: ActionValues, epsilon: jax.Array, key: jax.Array) -> jax.Array:
    """The best action of `q` (actions,), or with probability `epsilon` a uniformly random one: int32 scalar.

    For actions of several parts (parts,), each of which is random with probability `epsilon`, whatever the others are.
    """
    explore_key, action_key = jax.random.split(key)
    chosen = greedy(q)
    options = jnp.asarray(q.sizes, jnp.int32) if isinstance(q, Branches) else q.shape[0]
    random = jax.random.randint(action_key, chosen.shape, 0, options, jnp.int32)
    explore = jax.random.uniform(explore_key, chosen.shape, jnp.float32) < epsilon
    return jnp.where(explore, random, chosen).astype(jnp.int32)
