"""`Resettable` is a monoid, and neither values nor gradients cross a begin flag, not even NaN and inf."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_monoid import MONOIDS, assert_same, both_sides, sample

from memoroids import Resettable
from memoroids.algebra.monoid import DenseAffine, Sum
from memoroids.algebra.resettable import select

WRAPPED = {**MONOIDS, "resettable": Resettable(DenseAffine(2))}
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
INEXACT = [n for n, m in WRAPPED.items() if jnp.issubdtype(jax.tree.leaves(m.identity())[0].dtype, jnp.inexact)]


@DIRECTIONS
@pytest.mark.parametrize("name", WRAPPED)
def test_both_identities_and_associativity_hold_under_every_pattern_of_flags(name, reverse):
    monoid = Resettable(WRAPPED[name], reverse=reverse)
    patterns = np.array(list(itertools.product([False, True], repeat=3))).repeat(4, 0)
    a, b, c = ((sample(monoid.monoid, 32, seed), jnp.asarray(patterns[:, seed])) for seed in range(3))
    for law, (got, want) in both_sides(monoid, a, b, c).items():
        assert_same(got, want, law)


@pytest.mark.parametrize(
    ("reverse", "left_flag", "right_flag", "value"),
    [
        (False, False, False, 8),
        (False, False, True, 3),
        (False, True, False, 8),
        (False, True, True, 3),
        (True, False, False, 8),
        (True, False, True, 8),
        (True, True, False, 5),
        (True, True, True, 5),
    ],
)
def test_a_sum_is_reset_as_calculated_by_hand(reverse, left_flag, right_flag, value):
    left, right = (jnp.array(5.0), jnp.array(left_flag)), (jnp.array(3.0), jnp.array(right_flag))
    h, b = Resettable(Sum(()), reverse=reverse).combine(left, right)
    assert float(h) == value
    assert bool(b) == (left_flag or right_flag)


def test_the_identity_carries_no_flag():
    e, b = Resettable(Sum(2)).identity()
    np.testing.assert_array_equal(e, [0.0, 0.0])
    assert b.dtype == bool and b.shape == () and not bool(b)


@eqx.filter_jit
def value_and_gradients(monoid, kept, discarded):
    """The combined element, and the gradients of a nonlinear function of it with respect to both operands."""

    def loss(kept, discarded):
        kept, discarded = (kept, jnp.array(True)), (discarded, jnp.array(False))
        operands = (kept, discarded) if monoid.reverse else (discarded, kept)
        h, _ = monoid.combine(*operands)
        return sum(jnp.sum(jnp.abs(leaf) ** 2).astype(jnp.float32) for leaf in jax.tree.leaves(h)), h

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)(kept, discarded)


@DIRECTIONS
@pytest.mark.parametrize("name", INEXACT)
def test_what_a_flag_discards_reaches_neither_value_nor_gradient(name, reverse):
    monoid = Resettable(WRAPPED[name], reverse=reverse)
    kept, clean = (jax.tree.map(lambda leaf: leaf[0], sample(monoid.monoid, 1, seed)) for seed in (1, 2))
    (_, expected), (expected_gradient, _) = value_and_gradients(monoid, kept, clean)
    for poison in (np.nan, np.inf, -np.inf):

        def fill(leaf, poison=poison):
            return jnp.full_like(leaf, poison) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf

        (_, value), (gradient, discarded) = value_and_gradients(monoid, kept, jax.tree.map(fill, clean))
        assert_same(value, expected, f"value after {poison}")
        assert_same(gradient, expected_gradient, f"gradient after {poison}")
        for leaf in jax.tree.leaves(discarded):
            if leaf.dtype != jax.dtypes.float0:
                np.testing.assert_array_equal(leaf, np.zeros_like(leaf))
    assert any(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(expected_gradient) if g.dtype != jax.dtypes.float0)


def test_without_a_flag_a_nan_goes_on():
    h, _ = Resettable(Sum(())).combine((jnp.array(np.nan), jnp.array(True)), (jnp.array(1.0), jnp.array(False)))
    assert np.isnan(h)


def test_select_takes_one_side_leaf_by_leaf_and_lets_no_nan_through():
    bad, good = (jnp.full(2, np.nan), jnp.array(np.inf)), (jnp.ones(2), jnp.array(2.0))
    assert_same(select(jnp.array(False), bad, good), good)
    assert_same(select(jnp.array(True), good, bad), good)
