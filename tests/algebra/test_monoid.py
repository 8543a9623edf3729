"""The monoids of monoid.py: the laws hold exactly, and values equal those calculated by hand."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.algebra import monoid as monoids
from memoroids.algebra.monoid import DenseAffine, DiagonalAffine, Max, Monoid, Product, Sum

MONOIDS = {
    "sum": Sum(3),
    "sum of scalars": Sum(()),
    "sum of complex": Sum((2,), jnp.complex64),
    "sum of integers": Sum((2, 2), jnp.int32),
    "max": Max((2, 3)),
    "max of half precision": Max(2, jnp.bfloat16),
    "max of integers": Max(4, jnp.int32),
    "diagonal affine": DiagonalAffine((2, 3)),
    "diagonal affine, complex": DiagonalAffine(4, jnp.complex64),
    "dense affine": DenseAffine(3),
    "dense affine, complex": DenseAffine(2, jnp.complex64),
    "product": Product(Sum(2), Max(3), DenseAffine(2)),
    "product of products": Product(Product(DiagonalAffine(2), Sum((), jnp.int32)), Max(())),
}


def sample(monoid: Monoid, count: int, seed: int):
    """Elements of small nonzero integers, on which every operator here is exact, so that laws hold bit for bit."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        shape = (count, *leaf.shape)
        values = rng.choice([-3, -2, -1, 1, 2, 3], shape)
        if leaf.dtype == bool:
            values = values > 0
        elif jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            values = values + 1j * rng.integers(-3, 4, shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree.map(draw, monoid.identity())


@eqx.filter_jit
def both_sides(monoid, a, b, c):
    def one(a, b, c):
        combine, e = monoid.combine, monoid.identity()
        return {
            "left identity": (combine(e, a), a),
            "right identity": (combine(a, e), a),
            "associativity": (combine(combine(a, b), c), combine(a, combine(b, c))),
        }

    return jax.vmap(one)(a, b, c)


def assert_same(got, want, name=""):
    """Asserts equal structures, shapes, dtypes and bits, except for the sign of zero; NaN equals NaN."""
    assert jax.tree.structure(got) == jax.tree.structure(want), name
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.dtype == w.dtype, name
        np.testing.assert_array_equal(np.asarray(g), np.asarray(w), err_msg=name, strict=True)


def test_every_monoid_of_the_module_is_tested_here():
    defined = {
        cls
        for _, cls in inspect.getmembers(monoids, inspect.isclass)
        if issubclass(cls, Monoid) and not cls.__name__.startswith("_") and cls is not Monoid
    }
    assert defined == {type(m) for m in MONOIDS.values()}


@pytest.mark.parametrize("name", MONOIDS)
def test_both_identities_and_associativity_hold_exactly(name):
    monoid = MONOIDS[name]
    for law, (got, want) in both_sides(monoid, *(sample(monoid, 16, seed) for seed in range(3))).items():
        assert_same(got, want, law)


def test_the_affine_monoids_do_not_commute():
    for monoid in (DiagonalAffine(2), DenseAffine(2)):
        a, b = (jax.tree.map(lambda leaf: leaf[0], sample(monoid, 1, seed)) for seed in (1, 2))
        assert not np.array_equal(monoid.combine(a, b)[1], monoid.combine(b, a)[1])


def test_diagonal_affine_maps_compose_in_time():
    # h ↦ 2h + 3 followed by h ↦ 5h + 7 is h ↦ 10h + 22.
    a, x = DiagonalAffine(()).combine((jnp.array(2.0), jnp.array(3.0)), (jnp.array(5.0), jnp.array(7.0)))
    assert (float(a), float(x)) == (10.0, 22.0)


def test_dense_affine_maps_compose_in_time():
    swap, shear = jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([[1.0, 1.0], [0.0, 1.0]])
    first, second = (swap, jnp.array([1.0, 2.0])), (shear, jnp.array([10.0, 20.0]))
    a, x = DenseAffine(2).combine(first, second)
    np.testing.assert_array_equal(a, [[1.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(x, [13.0, 22.0])
    a, x = DenseAffine(2).combine(second, first)
    np.testing.assert_array_equal(a, [[0.0, 1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(x, [21.0, 12.0])


def test_complex_diagonal_affine_multiplies_without_conjugating():
    a, x = DiagonalAffine((), jnp.complex64).combine(
        (jnp.array(1j, jnp.complex64), jnp.array(2.0 + 1j, jnp.complex64)),
        (jnp.array(1j, jnp.complex64), jnp.array(1.0, jnp.complex64)),
    )
    assert complex(a) == -1.0
    assert complex(x) == 2j  # i (2 + i) + 1


def test_sum_and_max_combine_entry_by_entry():
    left, right = jnp.array([1.0, -2.0]), jnp.array([0.5, 4.0])
    np.testing.assert_array_equal(Sum(2).combine(left, right), [1.5, 2.0])
    np.testing.assert_array_equal(Max(2).combine(left, right), [1.0, 4.0])


def test_identities_are_the_textbooks():
    assert float(Sum(()).identity()) == 0.0
    assert float(Max(()).identity()) == -np.inf
    assert int(Max((), jnp.int32).identity()) == -(2**31)
    np.testing.assert_array_equal(DiagonalAffine(2).identity()[0], [1.0, 1.0])
    np.testing.assert_array_equal(DiagonalAffine(2).identity()[1], [0.0, 0.0])
    np.testing.assert_array_equal(DenseAffine(2).identity()[0], np.eye(2))
    np.testing.assert_array_equal(DenseAffine(2).identity()[1], [0.0, 0.0])


def test_a_product_combines_each_factor_by_its_own_operator():
    monoid = Product(Sum(()), Max(()), DiagonalAffine(()))
    one, two, three = jnp.array(1.0), jnp.array(2.0), jnp.array(3.0)
    total, largest, (a, x) = monoid.combine((one, three, (two, one)), (two, one, (three, two)))
    assert [float(v) for v in (total, largest, a, x)] == [3.0, 3.0, 6.0, 5.0]


def test_a_product_refuses_a_tuple_of_another_length():
    with pytest.raises(ValueError, match="zip"):
        Product(Sum(()), Sum(())).combine((jnp.zeros(()),), (jnp.zeros(()), jnp.zeros(())))
