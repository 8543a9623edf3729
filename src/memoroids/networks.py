"""Networks around a memory: encoder, memory, decoder and heads, the same for training and for acting."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.layers import Block
from memoroids.memoroid import Memory, State
from memoroids.memory import Factory


class Dueling(eqx.Module):
    """Q(s, a) = V(s) + A(s, a) - mean_a A(s, a): (width,) → (actions,) (Wang et al. 2016, Equation 9).

    Both heads start with zero biases and weights a tenth of the usual size, so that first values are small beside
    rewards of a few hundredths.
    """

    value: eqx.nn.Linear
    advantage: eqx.nn.Linear

    def __init__(self, width: int, actions: int, *, key: jax.Array):
        value_key, advantage_key = jax.random.split(key)
        self.value = _small(eqx.nn.Linear(width, 1, key=value_key))
        self.advantage = _small(eqx.nn.Linear(width, actions, key=advantage_key))

    def __call__(self, x: jax.Array) -> jax.Array:
        advantage = self.advantage(x)
        return self.value(x) + advantage - jnp.mean(advantage)


def _small(linear: eqx.nn.Linear) -> eqx.nn.Linear:
    scaled = (0.1 * linear.weight, jnp.zeros(linear.weight.shape[0]))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), linear, scaled)


class QNetwork(eqx.Module):
    """One block, the memory, two blocks and dueling heads, each `width` wide (Morad et al. 2024, Appendix H).

    The first block sees the partial transition (o, b): the begin flag is a feature beside the observation's, so that
    even a memory whose f reads only o can tell the first step from the others.

        q, state = network(observation, begin)                    # (T, observation_size), (T,) → (T, actions)
        q_t, state = network.step(observation_t, begin_t, state)  # acting, O(1) in time

    `memory` is a factory from `memoroids.memory.REGISTRY` or the user's own, called with `width` for both sizes and
    `sizes`. Raises what the factory raises, and `TypeError` where it does not give a `Memory`.
    """

    encoder: Block
    memory: Memory
    decoder: tuple[Block, Block]
    head: Dueling

    def __init__(
        self,
        observation_size: int,
        actions: int,
        memory: Factory,
        *,
        key: jax.Array,
        width: int = 256,
        sizes: dict[str, Any] | None = None,
    ):
        encoder_key, memory_key, first_key, second_key, head_key = jax.random.split(key, 5)
        self.encoder = Block(observation_size + 1, width, key=encoder_key)
        self.memory = memory(width, width, key=memory_key, **(sizes or {}))
        if not isinstance(self.memory, Memory):
            raise TypeError(f"the memory factory gave {type(self.memory).__name__}, not a memoroids.Memory")
        if any(leaf.size == 0 for leaf in jax.tree.leaves(eqx.filter(self.memory, eqx.is_array))):
            raise ValueError("the memory has a parameter without elements: every size must be at least 1")
        self.decoder = (Block(width, width, key=first_key), Block(width, width, key=second_key))
        self.head = Dueling(width, actions, key=head_key)

    def initial_state(self) -> State:
        return self.memory.initial_state()

    def _encode(self, observation: jax.Array, begin: jax.Array) -> jax.Array:
        return self.encoder(jnp.append(observation, begin.astype(observation.dtype)))

    def _decode(self, s: jax.Array) -> jax.Array:
        first, second = self.decoder
        return self.head(second(first(s)))

    def __call__(
        self, observation: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        s, state = self.memory(jax.vmap(self._encode)(observation, begin), begin, state, backend=backend)
        return jax.vmap(self._decode)(s), state

    def step(self, observation: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        s, state = self.memory.step(self._encode(observation, begin), begin, state)
        return self._decode(s), state
