"""Cells of other people as memories: their loop, their resets, and what is refused."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids import check_memory
from memoroids.interop.cell_memory import CellMemory

INPUT, SIZE = 3, 4
BEGIN = np.array([1, 0, 0, 1, 0, 1, 0, 0], bool)


def cell(parameters, carry, x):
    w, u = parameters
    h, count = carry
    h = jnp.tanh(w @ x + u @ h)
    return (h, count + 1), h * count


def initial_carry():
    return jnp.full(SIZE, 0.5, jnp.float32), jnp.ones((), jnp.float32)


def memory():
    keys = jax.random.split(jax.random.key(0))
    parameters = jax.random.normal(keys[0], (SIZE, INPUT)), jax.random.normal(keys[1], (SIZE, SIZE))
    return CellMemory(jax.tree_util.Partial(cell, parameters), initial_carry, INPUT, SIZE)


def test_a_cell_is_a_lawful_memory():
    check_memory(memory())


def test_it_is_the_cells_own_loop_from_its_initial_carry_at_every_begin(rng):
    model, x = memory(), rng.standard_normal((8, INPUT)).astype(np.float32)
    w, u = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(model))
    want, h, count = [], np.full(SIZE, 9.0), 9.0
    for t in range(8):
        if BEGIN[t]:
            h, count = np.full(SIZE, 0.5), 1.0
        h = np.tanh(w @ x[t] + u @ h)
        want.append(h * count)
        count += 1
    s, (last, steps) = model(x, BEGIN)
    np.testing.assert_allclose(s, np.stack(want), atol=1e-6)
    np.testing.assert_allclose(last, h, atol=1e-6)
    assert steps == count


def test_an_equinox_cell_is_trained_and_its_initial_carry_is_not(rng):
    class Adder(eqx.Module):
        gain: jax.Array

        def __call__(self, carry, x):
            carry = carry + self.gain * x
            return carry, carry

    model = CellMemory(Adder(jnp.ones(2, jnp.float32)), lambda: jnp.full(2, 3.0), 2, 2)
    assert len(jax.tree.leaves(model)) == 1
    x = rng.standard_normal((4, 2)).astype(np.float32)
    gradient = eqx.filter_grad(lambda m: jnp.sum(m(x, np.arange(4) == 0)[0]))(model)
    np.testing.assert_allclose(gradient.cell.gain, (x * [[4], [3], [2], [1]]).sum(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (lambda carry, x: (carry[:2], carry), "the cell must keep its carry, ((4,), 'float32'), and returns ((2,), "
            "'float32')"),
        (lambda carry, x: (carry, carry[:2]), "the cell must return y of shape (4,), got ShapeDtypeStruct(shape=(2,), "
            "dtype=float32)"),
    ],
)  # fmt: skip
def test_a_cell_that_changes_its_carry_or_returns_another_shape_is_refused(cell, message):
    with pytest.raises(ValueError, match=f"^CellMemory: {re.escape(message)}$"):
        CellMemory(cell, lambda: jnp.zeros(4), INPUT, SIZE)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="CellMemory: output_size must be an integer of at least 1, got 0"):
        CellMemory(lambda carry, x: (carry, x), lambda: jnp.zeros(1), 1, 0)
