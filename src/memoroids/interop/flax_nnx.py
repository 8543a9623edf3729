"""Memories as flax.nnx modules, and flax.nnx cells as memories. Needs the extra flax."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.interop.cell_memory import CellMemory
from memoroids.interop.unbound import broadcast_state, factory_of, over_batch, parameters_of, with_parameters
from memoroids.memory.memoroid import Memory, State
from memoroids.memory.registry import Factory

try:
    from flax import nnx
except ImportError as error:
    raise ImportError("memoroids.interop.flax_nnx needs the extra flax: pip install 'memoroids[flax]'") from error


class MemoryModule(nnx.Module):
    """A memory as an nnx module, whose parameters are `nnx.Param`, by path.

    module = MemoryModule("lru", 3, 64, rngs=nnx.Rngs(0))
    s, state = module(x, begin)              # x (…, T, 3), begin (…, T) bool, s (…, T, 64)
    s_t, state = module.step(x_t, begin_t, module.initial_state((batch,)))
    """

    def __init__(self, memory: str | Factory, input_size: int, output_size: int, *, rngs: nnx.Rngs, **sizes: Any):
        """`memory`, a name of the registry or a factory, with its `sizes`; parameters are drawn with `rngs.params`."""
        build = factory_of(memory)

        def make(key: jax.Array) -> Memory:
            return build(input_size, output_size, key=key, **sizes)

        self._make = make
        self.parameters = nnx.Dict({path: nnx.Param(leaf) for path, leaf in parameters_of(make(rngs.params())).items()})

    def __call__(self, x: jax.Array, begin: jax.Array, state: State | None = None) -> tuple[jax.Array, State]:
        """The Markov states (…, T, output_size) of x (…, T, input_size) and begin (…, T), and the last state."""
        memory = self._memory()
        if state is None:
            state = broadcast_state(memory.initial_state(), x.shape[:-2])
        return over_batch(memory, x.ndim - 2)(x, begin, state)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """The Markov state (…, output_size) of one step x (…, input_size), begin (…), and the new state."""
        return over_batch(self._memory().step, x.ndim - 1)(x, begin, state)

    def initial_state(self, batch: tuple[int, ...] = ()) -> State:
        """The state before the first step, with these leading axes."""
        return broadcast_state(self._memory().initial_state(), batch)

    def _memory(self) -> Memory:
        shapes = eqx.filter_eval_shape(self._make, jax.random.key(0))
        return with_parameters(shapes, {path: parameter[...] for path, parameter in self.parameters.items()})


def memory_of_cell(cell: Any, input_size: int) -> CellMemory:
    """An nnx cell (carry, x) → (carry, y), such as `nnx.GRUCell`, as a memory that agents train.

    The memory starts with a copy of the cell's parameters. The initial carry is the cell's own, made once; call this
    outside of `jit`. Raises `ValueError` if y is not a vector.
    """
    graph, parameters, rest = nnx.split(cell, nnx.Param, ...)
    x = jnp.zeros(input_size, jnp.float32)
    carry = jax.device_get(cell.initialize_carry(x.shape, nnx.Rngs(0)))

    def apply(parameters: Any, carry: Any, x: jax.Array) -> Any:
        return nnx.merge(graph, parameters, rest)(carry, x)

    _, y = jax.eval_shape(apply, parameters, carry, x)
    if y.ndim != 1:
        raise ValueError(f"memory_of_cell: the cell must return a vector for x {x.shape}, got {y.shape}")
    partial = jax.tree_util.Partial(apply, jax.tree.map(jnp.copy, parameters))
    return CellMemory(partial, lambda: jax.tree.map(jnp.asarray, carry), input_size, y.shape[0])
