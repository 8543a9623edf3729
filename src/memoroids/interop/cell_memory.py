"""Any recurrent cell (carry, x) → (carry, y) as a memory."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.resettable import select
from memoroids.memory.memoroid import CheckedMemory, State, check_sizes
from memoroids.memory.sequential import step_by_step

Cell = Callable[[Any, jax.Array], tuple[Any, jax.Array]]
"""(carry, x (input_size,)) → (carry, y (output_size,))."""


class CellMemory(CheckedMemory):
    """A memory whose step is that of a cell: (h', s) = cell(h, o), with the initial carry in place of h at a begin.

    Nothing is known of the cell's update, so steps run one after the other. State: the carry.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    cell: Cell
    initial_carry: Callable[[], Any] = eqx.field(static=True)

    def __init__(self, cell: Cell, initial_carry: Callable[[], Any], input_size: int, output_size: int):
        """**Arguments:** `cell`, for a single step and without a batch; a pytree whose arrays are its parameters, such
        as an Equinox module or `jax.tree_util.Partial(function, parameters)`; `initial_carry()`, the carry at the
        beginning of an episode; `input_size` and `output_size`, the lengths of x and y.

        Raises `ValueError`, naming the shapes, unless the cell keeps the shapes and dtypes of the carry and returns y
        (output_size,).
        """
        check_sizes("CellMemory", input_size=input_size, output_size=output_size)
        self.cell, self.initial_carry = cell, initial_carry
        self.input_size, self.output_size = input_size, output_size
        before = jax.eval_shape(initial_carry)
        after, y = eqx.filter_eval_shape(cell, before, jax.ShapeDtypeStruct((input_size,), jnp.float32))
        shapes = [jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), carry) for carry in (before, after)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"CellMemory: the cell must keep its carry, {shapes[0]}, and returns {shapes[1]}")
        if getattr(y, "shape", None) != (output_size,):
            raise ValueError(f"CellMemory: the cell must return y of shape {(output_size,)}, got {y}")

    def initial_state(self) -> State:
        """The initial carry."""
        return self.initial_carry()

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        del backend
        return step_by_step(self, x, begin, state)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One call of the cell, from the initial carry if `begin`."""
        state, s = self.cell(select(begin, self.initial_state(), state), x)
        return s, state
