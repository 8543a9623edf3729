"""Memories as flax.linen cells, and flax.linen cells as memories. Needs the extra flax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.interop.cell_memory import CellMemory
from memoroids.interop.unbound import broadcast_state, factory_of, over_batch, parameters_of, with_parameters
from memoroids.memory.memoroid import Memory, State
from memoroids.memory.registry import Factory

try:
    import flax.linen as nn
    from flax.core import FrozenDict
except ImportError as error:
    raise ImportError("memoroids.interop.flax_linen needs the extra flax: pip install 'memoroids[flax]'") from error


class MemoryCell(nn.RNNCellBase):
    """A memory as a cell: (carry, (x, begin)) → (carry, s), and `sequence` for all steps at once.

        cell = MemoryCell("lru", input_size=3, output_size=64)
        carry = cell.initialize_carry(key, (batch, 3))
        variables = cell.init(key, carry, (x_t, begin_t))
        carry, s_t = cell.apply(variables, carry, (x_t, begin_t))
        s, carry = cell.apply(variables, x, begin, method=cell.sequence)

    x_t is (…, input_size), begin_t (…) bool, s_t (…, output_size), and the carry the memory's state with the same
    leading axes; for `sequence`, x is (…, T, input_size) and begin (…, T). A begin flag resets before its step. The
    parameters are those of the memory by path, under "memory".
    """

    memory: str | Factory
    input_size: int
    output_size: int
    sizes: Mapping[str, Any] = dataclasses.field(default_factory=FrozenDict)
    """Keyword arguments of the memory."""

    def setup(self) -> None:
        """Draws the parameters, or takes those that are there."""
        self.parameters = self.param("memory", lambda key: parameters_of(self._build(key)))

    def __call__(self, carry: State, inputs: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        """One step: the new carry and the Markov state."""
        x, begin = inputs
        s, carry = over_batch(self._bound().step, x.ndim - 1)(x, begin, carry)
        return carry, s

    def sequence(self, x: jax.Array, begin: jax.Array, carry: State | None = None) -> tuple[jax.Array, State]:
        """All steps at once: the Markov states (…, T, output_size) and the last carry."""
        if carry is None:
            carry = broadcast_state(self._bound().initial_state(), x.shape[:-2])
        return over_batch(self._bound(), x.ndim - 2)(x, begin, carry)

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> State:
        """The memory's initial state, for x of `input_shape` (…, input_size). `rng` is not used."""
        del rng
        return broadcast_state(self._build(jax.random.key(0)).initial_state(), input_shape[:-1])

    @property
    def num_feature_axes(self) -> int:
        """1."""
        return 1

    @nn.nowrap
    def _build(self, key: jax.Array) -> Memory:
        return factory_of(self.memory)(self.input_size, self.output_size, key=key, **self.sizes)

    @nn.nowrap
    def _bound(self) -> Memory:
        shapes = eqx.filter_eval_shape(self._build, jax.random.key(0))
        return with_parameters(shapes, self.parameters)


def memory_of_cell(cell: nn.RNNCellBase, input_size: int, *, key: jax.Array) -> CellMemory:
    """A linen cell (carry, x) → (carry, y) as a memory that agents train; its parameters are drawn with `key`.

    The initial carry is the cell's own, drawn once; call this outside of `jit`. Raises `ValueError` if y is not a
    vector.
    """
    carry_key, parameter_key = jax.random.split(key)
    x = jnp.zeros(input_size, jnp.float32)
    carry = jax.device_get(cell.initialize_carry(carry_key, x.shape))
    variables = cell.init(parameter_key, carry, x)
    _, y = jax.eval_shape(cell.apply, variables, carry, x)
    if y.ndim != 1:
        raise ValueError(f"memory_of_cell: the cell must return a vector for x {x.shape}, got {y.shape}")
    partial = jax.tree_util.Partial(cell.apply, variables)
    return CellMemory(partial, lambda: jax.tree.map(jnp.asarray, carry), input_size, y.shape[0])
