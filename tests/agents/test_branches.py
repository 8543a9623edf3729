import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import parts_of

from memoroids.agents.branches import Branches, best, greedy, over_parts, taken, value_of

SIZES = [(3, 2, 4), (4, 2, 3, 2, 4), (2,) * 6, (1, 5, 1)]


def branches(sizes, rows=7):
    flat = np.random.default_rng(0).normal(size=(rows, sum(sizes))).astype(np.float32)
    return Branches(jnp.asarray(flat), sizes)


@pytest.mark.parametrize("sizes", SIZES)
def test_each_part_is_reduced_by_itself_whatever_the_order_of_sizes(sizes):
    q, rng = branches(sizes), np.random.default_rng(1)
    action = np.stack([rng.integers(size, size=7) for size in sizes], axis=1).astype(np.int32)
    parts = [np.asarray(part) for part in parts_of(q)]
    np.testing.assert_array_equal(greedy(q), np.stack([part.argmax(axis=-1) for part in parts], axis=1))
    np.testing.assert_array_equal(best(q), np.stack([part.max(axis=-1) for part in parts], axis=1))
    chosen = np.array([[part[row, action[row, d]] for d, part in enumerate(parts)] for row in range(7)])
    np.testing.assert_array_equal(taken(q, jnp.asarray(action)), chosen)
    np.testing.assert_allclose(value_of(q, jnp.asarray(action)), chosen.mean(axis=1), rtol=1e-5, atol=1e-6)
    assert greedy(q).dtype == jnp.int32


@pytest.mark.parametrize("sizes", SIZES)
def test_numbers_are_mapped_in_their_place(sizes):
    q = branches(sizes)
    centred = q.map(lambda block: block - block.mean(axis=-1, keepdims=True))
    want = np.concatenate([part - np.asarray(part).mean(axis=-1, keepdims=True) for part in parts_of(q)], axis=1)
    np.testing.assert_allclose(centred.flat, want, atol=1e-6)
    assert centred.sizes == sizes


def test_the_gradient_reaches_only_the_options_taken():
    q, action = branches((3, 2, 4), 1), jnp.asarray([[2, 0, 1]])
    slope = jax.grad(lambda flat: taken(Branches(flat, q.sizes), action).sum())(q.flat)
    np.testing.assert_array_equal(slope[0], [0, 0, 1, 1, 0, 0, 1, 0, 0])


def test_plain_action_values_are_one_part():
    q = jnp.asarray([[1.0, 3.0, 2.0], [0.0, -1.0, -2.0]])
    np.testing.assert_array_equal(greedy(q), [1, 0])
    np.testing.assert_array_equal(best(q), [3, 0])
    np.testing.assert_array_equal(taken(q, jnp.asarray([2, 1])), [2, -1])
    np.testing.assert_array_equal(value_of(q, jnp.asarray([2, 1])), [2, -1])
    np.testing.assert_array_equal(over_parts(q, jnp.asarray([5.0, 6.0])), [5, 6])


def test_a_program_does_not_grow_with_the_number_of_parts():
    def operations(parts):
        q = jax.ShapeDtypeStruct((5 * parts,), jnp.float32)
        return len(jax.make_jaxpr(lambda flat: best(Branches(flat, (2, 3) * parts)))(q).eqns)

    assert operations(100) == operations(4)
