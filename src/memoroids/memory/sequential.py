"""Models whose update is not associative: their scan over time, with all products of inputs taken outside it."""

import abc
from typing import Any

import jax
import jax.numpy as jnp

from memoroids.algebra.resettable import select
from memoroids.memory.memoroid import CheckedMemory, Memory, State


class SequentialMemory(CheckedMemory):
    """A memory whose steps run one after the other: h_t = update(project(o_t), h_{t-1}), s_t = read(h_t).

    A subclass defines `initial_state`, `project`, `update` and `read`. Everything that depends on the observation alone
    belongs in `project`: the sequence call computes it for all steps at once, as one matrix product, so that the loop
    over time holds the products with the state only. Pre-activations are leaves of their own, since XLA does not
    vectorise what reads a part of a larger array in a loop on CPUs.
    """

    @abc.abstractmethod
    def project(self, x: jax.Array) -> Any:
        """What one observation (input_size,) contributes to the pre-activations: a pytree, one leaf for each of them.

        Products are written x @ W.T, which maps over time without a transposition.
        """

    @abc.abstractmethod
    def update(self, inputs: Any, state: State) -> State:
        """The new state, given the projected observation, in float32, and the state before."""

    @abc.abstractmethod
    def read(self, state: State) -> jax.Array:
        """The Markov state (output_size,)."""

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One update, from the initial state if `begin`, and what is read from it."""
        state = self._advance(self.project(x), begin, state)
        return self.read(state), state

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        del backend

        def body(state: State, inputs: tuple[Any, jax.Array]) -> tuple[State, jax.Array]:
            state = self._advance(*inputs, state)
            return state, self.read(state)

        inputs = jax.vmap(self.project)(x)
        state, s = jax.lax.scan(body, state, (inputs, begin))
        return s, state

    def _advance(self, inputs: Any, begin: jax.Array, state: State) -> State:
        return _float32(self.update(_float32(inputs), select(begin, self.initial_state(), state)))


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def step_by_step(model: Memory, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
    """The Markov states (T, output_size) and the last state, by `model.step` at every step."""

    def body(state: State, inputs: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        s, state = model.step(*inputs, state)
        return state, s

    state, s = jax.lax.scan(body, state, (x, begin))
    return s, state
