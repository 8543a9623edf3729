"""Attention to windows: an independent loop, biases by distance, rotations, and numbers that are not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.algebra.band_attention import band_attention, by_distance

SIZE, STEPS, HEADS, WIDTH = 3, 4, 2, 5
COUNT = jnp.asarray([2, 3, 1, 2])


def arrays():
    rng = np.random.default_rng(0)
    shapes = (STEPS, HEADS, WIDTH), (SIZE - 1 + STEPS, HEADS, WIDTH), (SIZE - 1 + STEPS, HEADS, 3)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def loop(query, key, value, bias):
    out = np.zeros((STEPS, HEADS, 3))
    for t in range(STEPS):
        last = SIZE - 1 + t
        seen = range(last - int(COUNT[t]) + 1, last + 1)
        for head in range(HEADS):
            weights = np.exp([query[t, head] @ key[j, head] / np.sqrt(WIDTH) + bias[head, t, last - j] for j in seen])
            out[t, head] = sum(w * value[j, head] for w, j in zip(weights / weights.sum(), seen, strict=True))
    return out


def test_steps_read_the_last_entries_up_to_their_own():
    query, key, value = arrays()
    bias = np.random.default_rng(1).standard_normal((HEADS, STEPS, SIZE)).astype(np.float32)
    got = jax.jit(lambda q, k, v, b: band_attention(q, k, v, COUNT, by_distance(b)))(query, key, value, bias)
    np.testing.assert_allclose(got, loop(*(a.astype(np.float64) for a in (query, key, value, bias))), atol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38])
def test_what_is_not_attended_to_has_no_effect_and_what_is_spoils_only_its_steps(poison):
    arguments = [jnp.asarray(array) for array in arrays()]

    @jax.jit
    def run(query, key, value):
        def loss(query, key, value):
            out = band_attention(query, key, value, COUNT)
            return jnp.sum(jnp.sin(out[2:])), out

        gradient: Any = jax.grad(loss, (0, 1, 2), has_aux=True)
        return gradient(query, key, value)

    # Steps 2 and 3 attend to entries from 4 on.
    clean, clean_out = run(*arguments)
    query, key, value = (a.at[:n].set(poison) for a, n in zip(arguments, (2, 4, 4), strict=True))
    got, out = run(query, key, value)
    np.testing.assert_array_equal(out[2:], clean_out[2:])
    for g, want, n in zip(got, clean, (2, 4, 4), strict=True):
        np.testing.assert_array_equal(g[n:], want[n:])
    if not np.isfinite(poison):
        assert np.isnan(out[:2]).all()
    spoiled = band_attention(arguments[0], arguments[1].at[4].set(poison), arguments[2], COUNT)
    query, key, value = arguments
    np.testing.assert_array_equal(spoiled[1], band_attention(query, key, value, COUNT)[1])
    assert np.isnan(spoiled[2]).all() or np.isfinite(poison)
