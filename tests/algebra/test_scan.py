"""`scan` against slow loops: every backend and direction gives the same result."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arrays import normal
from memoroids import Resettable, scan
from memoroids.algebra.monoid import DenseAffine, DiagonalAffine, Max, Product, Sum
from memoroids.algebra.scan import BACKENDS, default_backend

each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_other_backend = pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "sequential"])
each_direction = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
# Without jit, every level of an associative scan compiles its operations again.
compiled_scan = jax.jit(scan, static_argnames=("monoid", "reverse", "backend"))


def dense(left, right):
    return right[0] @ left[0], right[0] @ left[1] + right[1]


def running_products(combine, identity, elements, *, initial=None, reverse=False, flags=None):
    """Every x_0 • … • x_t, or with `reverse` every x_t • … • x_T; a flag resets the accumulated product."""
    accumulated, out = identity if initial is None else initial, [None] * len(elements)
    for t in reversed(range(len(elements))) if reverse else range(len(elements)):
        if flags is not None and flags[t]:
            accumulated = identity
        accumulated = combine(elements[t], accumulated) if reverse else combine(accumulated, elements[t])
        out[t] = accumulated
    return out


def integer_affine(rng, length):
    """Affine maps over the integers modulo 2^32, where the order of evaluation does not affect the bits."""
    low, high = -(2**31), 2**31
    return (
        rng.integers(low, high, (length, 2, 2)).astype(np.int32),
        rng.integers(low, high, (length, 2)).astype(np.int32),
    )


INTEGER_IDENTITY = (np.eye(2, dtype=np.int32), np.zeros(2, np.int32))


@each_backend
@each_direction
@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_monoid_without_numbers_gives_an_empty_result(backend, reverse, length):
    elements = jnp.zeros((length, 0)), jnp.zeros((length, 2, 0))
    got = scan(Product(Sum(0), Max((2, 0))), elements, reverse=reverse, backend=backend)
    assert [leaf.shape for leaf in got] == [(length, 0), (length, 2, 0)]


@each_backend
@each_direction
@pytest.mark.parametrize("starts", [False, True], ids=["from the identity", "from an initial element"])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 64])
@pytest.mark.one_in(2)
def test_scan_equals_a_loop_bit_for_bit_where_arithmetic_is_exact_and_order_matters(
    rng, backend, reverse, starts, length
):
    elements = integer_affine(rng, length)
    initial = jax.tree.map(lambda leaf: leaf[0], integer_affine(rng, 1)) if starts else None
    expected = running_products(
        dense, INTEGER_IDENTITY, list(zip(*elements, strict=True)), initial=initial, reverse=reverse
    )
    monoid = DenseAffine(2, jnp.int32)
    got = compiled_scan(monoid, elements, initial=initial, reverse=reverse, backend=backend)
    for part, leaf in enumerate(got):
        assert leaf.dtype == np.int32 and leaf.shape == elements[part].shape
        np.testing.assert_array_equal(leaf, np.array([e[part] for e in expected]).reshape(leaf.shape))


@each_backend
@each_direction
def test_a_resettable_scan_is_a_loop_that_forgets_at_flags(rng, backend, reverse):
    length = 23
    elements, flags = integer_affine(rng, length), rng.random(length) < 0.3
    initial = jax.tree.map(lambda leaf: leaf[0], integer_affine(rng, 1))
    expected = running_products(
        dense, INTEGER_IDENTITY, list(zip(*elements, strict=True)), initial=initial, reverse=reverse, flags=flags
    )
    (a, x), b = compiled_scan(
        Resettable(DenseAffine(2, jnp.int32), reverse=reverse),
        (elements, flags),
        initial=(initial, jnp.zeros((), bool)),
        reverse=reverse,
        backend=backend,
    )
    np.testing.assert_array_equal(a, np.array([e[0] for e in expected]))
    np.testing.assert_array_equal(x, np.array([e[1] for e in expected]))
    or_so_far = np.logical_or.accumulate(flags[::-1])[::-1] if reverse else np.logical_or.accumulate(flags)
    np.testing.assert_array_equal(b, or_so_far)


@each_backend
def test_scan_of_a_product_runs_each_factor_alone(rng, backend):
    total, peak = normal(rng, (9, 3)), normal(rng, (9,))
    got_total, got_peak = compiled_scan(Product(Sum(3), Max(())), (total, peak), backend=backend)
    np.testing.assert_allclose(got_total, np.cumsum(total.astype(np.float64), 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got_peak, np.maximum.accumulate(peak))


@each_backend
@each_direction
def test_scan_maps_over_a_batch_and_compiles(rng, backend, reverse):
    elements = [integer_affine(rng, 6) for _ in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *elements)
    monoid = DenseAffine(2, jnp.int32)
    got = jax.jit(jax.vmap(lambda e: scan(monoid, e, reverse=reverse, backend=backend)))(batch)
    for i, sequence in enumerate(elements):
        expected = running_products(dense, INTEGER_IDENTITY, list(zip(*sequence, strict=True)), reverse=reverse)
        np.testing.assert_array_equal(got[1][i], np.array([e[1] for e in expected]))


@each_backend
@each_direction
def test_gradients_of_scan_equal_those_of_an_unrolled_loop(rng, backend, reverse):
    length = 6
    elements, initial = (normal(rng, (length, 2, 2)), normal(rng, (length, 2))), (normal(rng, (2, 2)), normal(rng, 2))

    def loss(products):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in products)

    def fast(elements, initial):
        return loss(scan(DenseAffine(2), elements, initial=initial, reverse=reverse, backend=backend))

    def unrolled(elements, initial):
        pairs = [(elements[0][t], elements[1][t]) for t in range(length)]
        products = running_products(dense, None, pairs, initial=initial, reverse=reverse)
        return sum(loss(product) for product in products)

    got = jax.jit(jax.grad(fast, argnums=(0, 1)))(elements, initial)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, (elements, initial))
        expected = jax.tree.map(np.asarray, jax.jit(jax.grad(unrolled, argnums=(0, 1)))(*wide))
    for g, want in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, want, rtol=1e-4, atol=1e-4)


@each_other_backend
@each_direction
def test_scan_errs_at_most_four_times_as_much_as_the_sequential_one(rng, backend, reverse):
    length, size = 256, 3
    # Slightly contracting rotations, so that products neither explode nor vanish.
    a = np.linalg.qr(rng.standard_normal((length, size, size)))[0].astype(np.float32) * np.float32(0.99)
    elements = (a, normal(rng, (length, size)))
    wide = [(a[t].astype(np.float64), elements[1][t].astype(np.float64)) for t in range(length)]
    expected = running_products(dense, (np.eye(size), np.zeros(size)), wide, reverse=reverse)
    expected = [np.array([e[part] for e in expected]) for part in range(2)]

    def errors(backend):
        got = jax.jit(lambda e: scan(DenseAffine(size), e, reverse=reverse, backend=backend))(elements)
        return [np.abs(np.asarray(g) - want).max() for g, want in zip(got, expected, strict=True)]

    for error, sequential in zip(errors(backend), errors("sequential"), strict=True):
        assert error <= 4 * sequential


def test_the_default_backend_is_one_of_the_backends_and_is_what_none_means(rng):
    assert default_backend() in BACKENDS
    x = jnp.asarray(normal(rng, (50, 2)))
    np.testing.assert_array_equal(scan(Sum(2), x), scan(Sum(2), x, backend=default_backend()))


def zeros(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("elements", "backend", "message"),
    [
        (
            (zeros(4, 3), zeros(4, 3)),
            "warp",
            "scan: unknown backend 'warp'; choose one of sequential, blocked, associative",
        ),
        (
            (zeros(4, 3), zeros(5, 3)),
            None,
            "scan: all leaves must have a leading time axis of the same length, got 4, 5",
        ),
        (
            [zeros(4, 3), zeros(4, 3)],
            None,
            "DiagonalAffine: an element, without its time axis, has structure PyTreeDef([*, *]), "
            "but the identity has PyTreeDef((*, *))",
        ),
        (
            (zeros(4, 3), zeros(4, 2)),
            None,
            "DiagonalAffine: an element, without its time axis, is float32[2], but the identity is float32[3]",
        ),
        (
            (zeros(4, 3), zeros(4, 3, dtype=jnp.int32)),
            None,
            "DiagonalAffine: an element, without its time axis, is int32[3], but the identity is float32[3]",
        ),
    ],
)
def test_scan_refuses_what_does_not_fit_and_says_why(elements, backend, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        scan(DiagonalAffine(3), elements, backend=backend)


def test_scan_refuses_a_leaf_without_a_time_axis():
    message = "scan: all leaves must have a leading time axis of the same length, got a scalar, 4"
    with pytest.raises(ValueError, match=f"^{message}$"):
        scan(DiagonalAffine(3), (zeros(4, 3), zeros()))


@each_backend
@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ((zeros(), zeros()), "initial is float32[], but the identity is float32[3]"),
        ((zeros(1, 3), zeros(1, 3)), "initial is float32[1, 3], but the identity is float32[3]"),
        ((zeros(3), zeros(3, dtype=jnp.int32)), "initial is int32[3], but the identity is float32[3]"),
        (zeros(3), "initial has structure PyTreeDef(*), but the identity has PyTreeDef((*, *))"),
    ],
    ids=["scalars", "an axis more", "integers", "one array"],
)
def test_scan_refuses_an_initial_element_that_does_not_fit_and_says_why(backend, initial, message):
    elements = (zeros(4, 3), zeros(4, 3))
    with pytest.raises(ValueError, match=f"^DiagonalAffine: {re.escape(message)}$"):
        scan(DiagonalAffine(3), elements, initial=initial, backend=backend)
