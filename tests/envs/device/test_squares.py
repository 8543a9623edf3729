"""Sets of squares in words, beside sets of Python."""

import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.envs.device import squares


@pytest.mark.parametrize("size", [1, 31, 32, 33, 144])
def test_sets_hold_what_was_put_into_them(size, rng):
    sets = rng.random((7, size)) < 0.4
    words = squares.packed(sets)
    assert words.dtype == np.uint32 and words.shape == (7, squares.words_for(size))
    for members, of in zip(sets, words, strict=True):
        every = jnp.arange(size, dtype=jnp.int32)
        np.testing.assert_array_equal(squares.holds(jnp.asarray(of), every), members)
        assert squares.count(jnp.asarray(of)) == members.sum()
        built = jnp.zeros(of.size, jnp.uint32)
        for member in np.flatnonzero(members):
            built = built | squares.one(jnp.asarray(member, jnp.int32), of.size)
        np.testing.assert_array_equal(built, of)
