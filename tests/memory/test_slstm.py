"""sLSTM: several heads, the stabiliser, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sequence_formulas import slstm

from memoroids.memory import SLSTM

SIZE, LENGTH = 6, 9


def sequence():
    rng = np.random.default_rng(2)
    memory = SLSTM(3, SIZE, heads=2, key=jax.random.key(0))
    memory = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), memory)
    return memory, rng.standard_normal((LENGTH, 3)).astype(np.float32), np.isin(np.arange(LENGTH), (0, 4))


def test_each_head_reads_its_own_cells_only():
    memory, x, begin = sequence()
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), memory)
    s, state = memory(x, begin)
    expected, after = slstm(wide, x.astype(np.float64), begin, None)
    np.testing.assert_allclose(s, np.stack(expected), atol=1e-5)
    for got, want in zip(state, after, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_gates_of_any_size_stay_finite_and_the_normaliser_is_at_least_one(scale: float):
    memory, x, begin = sequence()

    def states(x):
        def body(state, inputs):
            s, state = memory.step(*inputs, state)
            return state, (s, state[2])

        return jax.lax.scan(body, memory.initial_state(), (x, jnp.asarray(begin)))[1]

    s, n = states(scale * x)
    assert np.all(np.abs(s) <= 1) and np.all(n >= 1)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(states(x)[0]))(scale * x)).all()


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"^SLSTM: heads must divide output_size, got heads=4, output_size=6$"):
        SLSTM(3, 6, key=jax.random.key(0), heads=4)
