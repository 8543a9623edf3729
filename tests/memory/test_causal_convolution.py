"""The causal convolution against a loop over single steps, with windows that cross the edges of sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.memory.causal_convolution import CausalConvolution


def slow(layer, x, begin, window):
    past, out = [*np.asarray(window)], []
    size = layer.weight.shape[0]
    for row, begins in zip(x, begin, strict=True):
        past = [np.zeros_like(row)] * (size - 1) if begins else past
        past = [*past, row]
        out.append(layer.bias + sum(layer.weight[i] * past[-1 - i] for i in range(size)))
        past = past[1:]
    return np.stack(out), np.reshape(past, (size - 1, x.shape[1]))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize(("length", "begins"), [(6, ()), (6, (0, 4)), (6, (2, 3)), (6, (5,)), (1, ()), (2, (1,))])
def test_outputs_and_window_equal_the_loop(size, length, begins, rng):
    layer = CausalConvolution(3, size, key=jax.random.key(0))
    x, begin = rng.standard_normal((length, 3)).astype(np.float32), np.isin(np.arange(length), begins)
    window = rng.standard_normal((size - 1, 3)).astype(np.float32)
    out, state = layer(x, jnp.asarray(begin), window)
    expected, after = slow(layer, x, begin, window)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_array_equal(state, after)
    stepped, state = layer.step(x[0], window)
    np.testing.assert_allclose(stepped, slow(layer, x[:1], [False], window)[0][0], atol=1e-6)


def test_nothing_crosses_a_begin_flag(rng):
    layer = CausalConvolution(2, 3, key=jax.random.key(0))
    x, begin = rng.standard_normal((6, 2)).astype(np.float32), np.arange(6) == 3
    bad = np.where(np.arange(6)[:, None] < 3, np.nan, x).astype(np.float32)
    want = layer(x, begin, np.zeros((2, 2), np.float32))
    got = layer(bad, begin, np.full((2, 2), np.nan, np.float32))
    np.testing.assert_array_equal(got[0][3:], want[0][3:])
    np.testing.assert_array_equal(got[1], want[1])
