"""`scan` and `linear_recurrence` against slow loops: one meaning for every backend, direction, dtype and shape."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids import Resettable, linear_recurrence, scan
from memoroids.monoid import DenseAffine, DiagonalAffine, Max, Product, Sum
from memoroids.scan import BACKENDS, default_backend

each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_other_backend = pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "sequential"])
each_direction = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.complex64])
# Eagerly, every level of an associative scan would compile its operations anew.
compiled_scan = jax.jit(scan, static_argnames=("monoid", "reverse", "backend"))
compiled_recurrence = jax.jit(linear_recurrence, static_argnames=("reverse", "backend"))
WIDE = {np.float32: np.float64, np.complex64: np.complex128}


def normal(rng, shape, dtype=np.float32):
    values = rng.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)


# --- scan ------------------------------------------------------------------------------------------------------------


def dense(left, right):
    return right[0] @ left[0], right[0] @ left[1] + right[1]


def running_products(combine, identity, elements, *, initial=None, reverse=False, flags=None):
    """Every x_0 • … • x_t, or with `reverse` every x_t • … • x_T; a set flag forgets what was accumulated."""
    accumulated, out = identity if initial is None else initial, [None] * len(elements)
    for t in reversed(range(len(elements))) if reverse else range(len(elements)):
        if flags is not None and flags[t]:
            accumulated = identity
        accumulated = combine(elements[t], accumulated) if reverse else combine(accumulated, elements[t])
        out[t] = accumulated
    return out


def integer_affine(rng, length):
    """Affine maps over the integers modulo 2^32, where every order of evaluation gives the same bits."""
    low, high = -(2**31), 2**31
    return (
        rng.integers(low, high, (length, 2, 2)).astype(np.int32),
        rng.integers(low, high, (length, 2)).astype(np.int32),
    )


INTEGER_IDENTITY = (np.eye(2, dtype=np.int32), np.zeros(2, np.int32))


@each_backend
@each_direction
@pytest.mark.parametrize("starts", [False, True], ids=["from the identity", "from an initial element"])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 64])
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
    # Rotations shrunk a little: products neither explode nor vanish.
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
    decay = jnp.full(2, 0.9)
    np.testing.assert_array_equal(linear_recurrence(decay, x), linear_recurrence(decay, x, backend=default_backend()))


def zeros(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("elements", "backend", "message"),
    [
        ((zeros(4, 3), zeros(4, 3)), "warp", "unknown scan backend 'warp': choose one of sequential, associative"),
        (
            (zeros(4, 3), zeros(5, 3)),
            None,
            "the leaves of a scan must share one leading time axis, got lengths ['4', '5']",
        ),
        (
            [zeros(4, 3), zeros(4, 3)],
            None,
            "DiagonalAffine: an element, without its time axis, has structure PyTreeDef([*, *]), "
            "its identity has PyTreeDef((*, *))",
        ),
        (
            (zeros(4, 3), zeros(4, 2)),
            None,
            "DiagonalAffine: an element, without its time axis, is float32[2], its identity is float32[3]",
        ),
        (
            (zeros(4, 3), zeros(4, 3, dtype=jnp.int32)),
            None,
            "DiagonalAffine: an element, without its time axis, is int32[3], its identity is float32[3]",
        ),
    ],
)
def test_scan_refuses_what_does_not_fit_and_says_why(elements, backend, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        scan(DiagonalAffine(3), elements, backend=backend)


def test_scan_refuses_a_leaf_without_a_time_axis():
    with pytest.raises(ValueError, match="the leaves of a scan must share one leading time axis"):
        scan(DiagonalAffine(3), (zeros(4, 3), zeros()))


@each_backend
@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ((zeros(), zeros()), "initial is float32[], its identity is float32[3]"),
        ((zeros(1, 3), zeros(1, 3)), "initial is float32[1, 3], its identity is float32[3]"),
        ((zeros(3), zeros(3, dtype=jnp.int32)), "initial is int32[3], its identity is float32[3]"),
        (zeros(3), "initial has structure PyTreeDef(*), its identity has PyTreeDef((*, *))"),
    ],
    ids=["scalars", "an axis more", "integers", "one array"],
)
def test_scan_refuses_an_initial_element_that_does_not_fit_and_says_why(backend, initial, message):
    elements = (zeros(4, 3), zeros(4, 3))
    with pytest.raises(ValueError, match=f"^DiagonalAffine: {re.escape(message)}$"):
        scan(DiagonalAffine(3), elements, initial=initial, backend=backend)


# --- linear_recurrence -----------------------------------------------------------------------------------------------


def slow_recurrence(decay, x, reset, initial, reverse, stack=np.stack):
    """h_t = decay_t h_{t-1} + x_t, one step after the other; runs in NumPy, or in JAX to be differentiated."""
    length, h, out = x.shape[0], initial, {}
    for t in reversed(range(length)) if reverse else range(length):
        if reset is not None and reset[t]:
            h = None
        a = decay[t] if decay.ndim == x.ndim else decay
        h = x[t] if h is None else a * h + x[t]
        out[t] = h
    return stack([out[t] for t in range(length)])


LENGTH, WIDTH = 9, 2
RESET = np.isin(np.arange(LENGTH), (3, 4, 8))


@functools.cache
def recurrence_case(dtype, varying):
    """Decays on both sides of 1, an input, an initial state and weights."""
    rng = np.random.default_rng(7)
    shapes = ((LENGTH, WIDTH) if varying else (WIDTH,)), (LENGTH, WIDTH), (WIDTH,), (LENGTH, WIDTH)
    return [normal(rng, shape, dtype) for shape in shapes]


def value_and_gradients(recurrence, decay, x, initial, weight):
    """h, and the gradients of a real nonlinear function of it."""

    def loss(decay, x, initial):
        h = recurrence(decay, x, initial)
        return jnp.sum(jnp.real(weight * h) ** 2), h

    argnums = (0, 1) if initial is None else (0, 1, 2)
    gradients, h = jax.grad(loss, argnums=argnums, has_aux=True)(decay, x, initial)
    return h, *gradients


@functools.cache
def unrolled_gradients(dtype, varying, resets, reverse):
    def unrolled(decay, x, initial):
        return slow_recurrence(decay, x, RESET if resets else None, initial, reverse, jnp.stack)

    with jax.enable_x64(True):
        wide = [v.astype(WIDE[dtype]) for v in recurrence_case(dtype, varying)]
        _, *gradients = jax.jit(functools.partial(value_and_gradients, unrolled))(*wide)
        return [np.asarray(g) for g in gradients]


@each_backend
@each_direction
@each_dtype
@pytest.mark.parametrize("varying", [False, True], ids=["invariant", "varying"])
@pytest.mark.parametrize("resets", [False, True], ids=["no reset", "reset"])
def test_the_recurrence_and_its_gradients_equal_those_of_an_unrolled_loop(backend, reverse, dtype, varying, resets):
    decay, x, initial, weight = recurrence_case(dtype, varying)
    reset = RESET if resets else None

    def fast(decay, x, initial):
        flags = None if reset is None else jnp.asarray(reset)
        return linear_recurrence(decay, x, reset=flags, initial=initial, reverse=reverse, backend=backend)

    h, *gradients = jax.jit(functools.partial(value_and_gradients, fast))(decay, x, initial, weight)
    expected = slow_recurrence(
        *(v.astype(WIDE[dtype]) for v in (decay, x)), reset, initial.astype(WIDE[dtype]), reverse
    )
    assert h.dtype == dtype
    np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    unrolled = unrolled_gradients(dtype, varying, resets, reverse)
    for name, got, want in zip(("decay", "x", "initial"), gradients, unrolled, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max(), err_msg=name)


@each_backend
@each_direction
@pytest.mark.parametrize("resets", [False, True], ids=["no reset", "reset"])
def test_without_an_initial_state_the_recurrence_starts_from_nothing(backend, reverse, resets):
    decay, x, _, _ = recurrence_case(np.float32, True)
    reset = RESET if resets else None
    got = compiled_recurrence(decay, x, reset=reset, reverse=reverse, backend=backend)
    expected = slow_recurrence(decay.astype(np.float64), x.astype(np.float64), reset, None, reverse)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@each_backend
@each_direction
@pytest.mark.parametrize("length", [0, 1, 2, 64])
def test_the_recurrence_takes_any_length(rng, backend, reverse, length):
    decay, x, initial = normal(rng, (length, 3)) * np.float32(0.5), normal(rng, (length, 3)), normal(rng, 3)
    got = compiled_recurrence(decay, x, initial=initial, reverse=reverse, backend=backend)
    assert got.shape == (length, 3) and got.dtype == np.float32
    if length:
        wide = [v.astype(np.float64) for v in (decay, x, initial)]
        expected = slow_recurrence(wide[0], wide[1], None, wide[2], reverse)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay_shape", [(), (3,), (2, 1), (5, 2, 3)], ids=str)
@pytest.mark.parametrize(
    ("decay_dtype", "x_dtype"), [(np.float32, np.complex64), (np.complex64, np.float32)], ids=["real decay", "real x"]
)
def test_decay_broadcasts_over_the_state_and_dtypes_promote_with_gradients_in_their_own_shape_and_dtype(
    rng, decay_shape, decay_dtype, x_dtype
):
    x = normal(rng, (5, 2, 3), x_dtype)
    decay, weight = normal(rng, decay_shape, decay_dtype), normal(rng, x.shape, np.complex64)

    def fast(backend, decay, x, initial):
        return linear_recurrence(decay, x, initial=initial, backend=backend)

    def unrolled(decay, x, initial):
        decay = decay if decay.ndim == x.ndim else jnp.broadcast_to(decay, x.shape[1:])
        return slow_recurrence(decay, x, None, initial, False, jnp.stack)

    def compiled(recurrence):
        return jax.jit(functools.partial(value_and_gradients, recurrence))

    with jax.numpy_dtype_promotion("standard"):
        results = [compiled(functools.partial(fast, backend))(decay, x, None, weight) for backend in BACKENDS]
        with jax.enable_x64(True):
            wide = (decay.astype(WIDE[decay_dtype]), x.astype(WIDE[x_dtype]), None, weight.astype(np.complex128))
            expected = [np.asarray(v) for v in compiled(unrolled)(*wide)]
    for h, *gradients in results:
        assert h.dtype == np.complex64
        np.testing.assert_allclose(h, expected[0], rtol=1e-5, atol=1e-5)
        for got, want, argument in zip(gradients, expected[1:], (decay, x), strict=True):
            assert got.dtype == argument.dtype and got.shape == argument.shape
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@each_direction
@each_dtype
def test_second_derivatives_equal_those_of_an_unrolled_loop(rng, reverse, dtype):
    length = 4
    reset = np.arange(length) == 2
    # Real parameters throughout, so that a second derivative has one meaning for complex states too.
    parts = 2 if dtype is np.complex64 else 1
    arguments = tuple(rng.standard_normal((parts, *shape)) for shape in ((length, 1), (length, 1), (1,)))

    def gradient_norm(recurrence, *arguments):
        def loss(*arguments):
            h = recurrence(*(a[0] if parts == 1 else jax.lax.complex(a[0], a[1]) for a in arguments))
            return jnp.sum(jnp.sin(jnp.real(h)) + jnp.cos(jnp.imag(h)))

        gradients = jax.grad(loss, argnums=(0, 1, 2))(*arguments)
        return sum(jnp.sum(g**2) for g in gradients)

    def fast(backend, decay, x, initial):
        flags = jnp.asarray(reset)
        return linear_recurrence(decay, x, reset=flags, initial=initial, reverse=reverse, backend=backend)

    def unrolled(decay, x, initial):
        return slow_recurrence(decay, x, reset, initial, reverse, jnp.stack)

    def second(recurrence):
        return jax.jit(jax.grad(functools.partial(gradient_norm, recurrence), argnums=(0, 1, 2)))

    with jax.enable_x64(True):
        expected = [np.asarray(g) for g in second(unrolled)(*arguments)]
    for backend in BACKENDS:
        got = second(functools.partial(fast, backend))(*(a.astype(np.float32) for a in arguments))
        for g, want in zip(got, expected, strict=True):
            np.testing.assert_allclose(g, want, rtol=1e-4, atol=1e-4, err_msg=backend)


def test_forward_mode_is_refused_rather_than_wrong(rng):
    decay, x = jnp.full(2, 0.5), jnp.asarray(normal(rng, (3, 2)))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: linear_recurrence(decay, x), (x,), (x,))


@each_other_backend
@each_dtype
@pytest.mark.parametrize(("radius", "length"), [(0.9, 1024), (0.999, 64)])
def test_the_recurrence_errs_at_most_four_times_as_much_as_the_sequential_one(rng, backend, dtype, radius, length):
    width = 32
    phase = 1 if dtype is np.float32 else np.exp(1j * rng.uniform(0, 2 * np.pi, width))
    decay = np.broadcast_to(radius * phase, width).astype(dtype)
    x, initial, weight = (
        normal(rng, (length, width), dtype),
        normal(rng, width, dtype),
        normal(rng, (length, width), dtype),
    )

    # The gradients of Re Σ w h by hand: g runs the other way, and the decay collects g_t h_{t-1}.
    wide = [v.astype(WIDE[dtype]) for v in (decay, x, initial, weight)]
    h = slow_recurrence(wide[0], wide[1], None, wide[2], False)
    g = slow_recurrence(wide[0], wide[3], None, None, True)
    expected = (h, np.sum(g * np.concatenate((wide[2][None], h[:-1])), 0), g, wide[0] * g[0])

    @functools.partial(jax.jit, static_argnums=0)
    def run(backend, decay, x, initial):
        def f(decay, x, initial):
            return linear_recurrence(decay, x, initial=initial, backend=backend)

        h, pull = jax.vjp(f, decay, x, initial)
        return h, *pull(jnp.asarray(weight))

    def errors(backend):
        # Root mean square: the largest of many roundings depends too much on luck.
        got = run(backend, decay, x, initial)
        return [np.sqrt(np.mean(np.abs(np.asarray(v) - want) ** 2)) for v, want in zip(got, expected, strict=True)]

    ratios = np.array(errors(backend)) / np.array(errors("sequential"))
    assert (ratios <= 4).all(), f"error over the sequential one's, for h, decay, x, initial: {ratios}"


LENGTH_AROUND, CUT = 11, 5
POISONS = (np.nan, np.inf, -np.inf, 3.0)


@functools.cache
def around_a_reset(backend, reverse, dtype):
    """Inputs with one reset, each element's place in the direction of the scan, and h and gradients at some places.

    The last is a function of the inputs and of the `counted` elements: those whose outputs the loss reads.
    """
    rng = np.random.default_rng(3)
    inputs = *(normal(rng, (LENGTH_AROUND, 2), dtype) for _ in range(2)), normal(rng, 2, dtype)
    place = np.arange(LENGTH_AROUND)[::-1] if reverse else np.arange(LENGTH_AROUND)
    reset = jnp.asarray(place == CUT)

    @jax.jit
    def outputs_and_gradients(decay, x, initial, counted):
        def loss(decay, x):
            h = linear_recurrence(decay, x, reset=reset, initial=initial, reverse=reverse, backend=backend)
            return jnp.sum(jnp.where(counted[:, None], jnp.abs(h) ** 2, 0)), h

        (_, h), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(decay, x)
        return h, *gradients

    def at(counted, decay, x, initial):
        return [np.asarray(v)[counted] for v in outputs_and_gradients(decay, x, initial, counted)]

    return inputs, place, at


@each_backend
@each_direction
@each_dtype
def test_nothing_before_a_reset_reaches_outputs_and_gradients_after_it(backend, reverse, dtype):
    (decay, x, initial), place, at = around_a_reset(backend, reverse, dtype)
    after = place >= CUT
    clean = at(after, decay, x, initial)
    assert all(np.isfinite(v).all() and np.any(v != 0) for v in clean)
    for poison in POISONS:
        fill = np.array(poison, dtype)
        got = at(after, *(np.where(after[:, None], v, fill) for v in (decay, x)), np.full(2, fill))
        for g, want in zip(got, clean, strict=True):
            np.testing.assert_array_equal(g, want, err_msg=str(poison))


@each_backend
@each_direction
@each_dtype
@pytest.mark.parametrize("poisoned", ["x", "decay after the reset", "decay at the reset"])
def test_nothing_after_a_reset_reaches_gradients_before_it(backend, reverse, dtype, poisoned):
    (decay, x, initial), place, at = around_a_reset(backend, reverse, dtype)
    before = place < CUT
    where = {"x": place >= CUT, "decay after the reset": place > CUT, "decay at the reset": place == CUT}[poisoned]
    clean = at(before, decay, x, initial)
    assert all(np.isfinite(v).all() and np.any(v != 0) for v in clean)
    for poison in POISONS:
        fill = np.array(poison, dtype)
        other_decay, other_x = (np.where(where[:, None], fill, v) for v in (decay, x))
        got = at(before, decay, other_x, initial) if poisoned == "x" else at(before, other_decay, x, initial)
        for g, want in zip(got, clean, strict=True):
            np.testing.assert_array_equal(g, want, err_msg=str(poison))


@each_backend
@each_direction
@each_dtype
def test_the_decay_at_a_reset_is_never_read(backend, reverse, dtype):
    (decay, x, initial), place, at = around_a_reset(backend, reverse, dtype)
    everywhere, reset = np.ones(LENGTH_AROUND, bool), place == CUT
    clean = at(everywhere, decay, x, initial)
    np.testing.assert_array_equal(clean[1][reset], 0)
    for poison in POISONS:
        got = at(everywhere, np.where(reset[:, None], np.array(poison, dtype), decay), x, initial)
        for g, want in zip(got, clean, strict=True):
            np.testing.assert_array_equal(g, want, err_msg=str(poison))


@each_backend
@each_direction
def test_a_reset_at_the_first_element_discards_the_initial_state(rng, backend, reverse):
    x, decay = normal(rng, (4, 2)), jnp.full(2, 0.5)
    place = np.arange(4)[::-1] if reverse else np.arange(4)

    @jax.jit
    def run(initial, reset):
        def f(initial):
            return linear_recurrence(decay, x, reset=reset, initial=initial, reverse=reverse, backend=backend)

        h, pull = jax.vjp(f, initial)
        return h, pull(jnp.ones_like(h))[0]

    (clean, _), (h, gradient) = run(jnp.zeros(2), place == 0), run(jnp.full(2, np.nan), place == 0)
    np.testing.assert_array_equal(h, clean)
    np.testing.assert_array_equal(gradient, [0.0, 0.0])
    h, gradient = run(jnp.full(2, np.nan), place == 1)
    assert np.isnan(h[place == 0]).all() and np.isfinite(h[place > 0]).all()
    np.testing.assert_array_equal(gradient, [0.5, 0.5])


@each_backend
@each_direction
def test_a_batch_by_vmap_equals_one_at_a_time(rng, backend, reverse):
    batch, length, width = 3, 6, 2
    decay, x = normal(rng, (batch, length, width)), normal(rng, (batch, length, width))
    reset, initial = jnp.asarray(rng.random((batch, length)) < 0.3), normal(rng, (batch, width))

    def f(decay, x, reset, initial):
        def run(decay, x, initial):
            return linear_recurrence(decay, x, reset=reset, initial=initial, reverse=reverse, backend=backend)

        h, pull = jax.vjp(run, decay, x, initial)
        return h, pull(jnp.cos(h))

    together, one = jax.jit(jax.vmap(f))(decay, x, reset, initial), jax.jit(f)
    for i in range(batch):
        alone = one(decay[i], x[i], reset[i], initial[i])
        for got, want in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(got[i], want, rtol=1e-5, atol=1e-5)
    # Only x has a batch axis: the decay, the reset and the initial state are shared.
    shared = jax.jit(jax.vmap(f, in_axes=(None, 0, None, None)))(decay[0], x, reset[0], initial[0])
    for got, want in zip(jax.tree.leaves(shared), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-5)


@each_backend
@each_direction
def test_the_recurrence_takes_numpy_arrays_for_every_argument(rng, backend, reverse):
    decay, x, initial, reset = normal(rng, 2), normal(rng, (5, 2)), normal(rng, 2), np.arange(5) == 3
    got = linear_recurrence(decay, x, reset=reset, initial=initial, reverse=reverse, backend=backend)
    expected = slow_recurrence(*(v.astype(np.float64) for v in (decay, x)), reset, initial.astype(np.float64), reverse)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("decay", "x", "arguments", "message"),
    [
        (zeros(), zeros(), {}, "linear_recurrence: x needs a leading time axis, got a scalar"),
        (
            zeros(1, 3),
            zeros(4, 3),
            {},
            "linear_recurrence: decay (1, 3) with a time axis must have the shape of x (4, 3)",
        ),
        (zeros(2, 4, 3), zeros(4, 3), {}, "linear_recurrence: decay (2, 4, 3) has more axes than x (4, 3)"),
        (
            zeros(2),
            zeros(4, 3),
            {},
            "linear_recurrence: decay (2,) without a time axis does not broadcast to (3,)",
        ),
        (
            zeros(3),
            zeros(4, 3),
            {"reset": zeros(3, dtype=bool)},
            "linear_recurrence: reset (3,) must have shape (4,)",
        ),
        (
            zeros(3),
            zeros(4, 3),
            {"reset": zeros(4, 3, dtype=bool)},
            "linear_recurrence: reset (4, 3) must have shape (4,)",
        ),
        (zeros(3), zeros(4, 3), {"initial": zeros()}, "linear_recurrence: initial () must have shape (3,)"),
        (
            zeros(3),
            zeros(4, 3),
            {"backend": "warp"},
            "unknown scan backend 'warp': choose one of sequential, associative",
        ),
    ],
)
def test_the_recurrence_refuses_what_does_not_fit_and_says_why(decay, x, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        linear_recurrence(decay, x, **arguments)
