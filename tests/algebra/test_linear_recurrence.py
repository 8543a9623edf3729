"""`linear_recurrence` against slow loops: every backend, direction, dtype and shape gives the same result."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arrays import WIDE, normal
from memoroids import linear_recurrence
from memoroids.algebra.kernels import native
from memoroids.algebra.recurrence_backends import available_backends, default_backend

BACKENDS = available_backends()
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_other_backend = pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "sequential"])
each_direction = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.complex64])
# Without jit, every operation of a backend compiles separately.
compiled_recurrence = jax.jit(linear_recurrence, static_argnames=("reverse", "backend"))


def zeros(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


def slow_recurrence(decay, x, reset, initial, reverse, stack=np.stack):
    """h_t = decay_t h_{t-1} + x_t step by step, in NumPy, or in JAX so that it can be differentiated."""
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
    """Decays above and below 1 in magnitude, an input, an initial state and weights."""
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
@pytest.mark.one_in(2)
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
    # All parameters are real, so that second derivatives are defined without ambiguity for complex states too.
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


@each_backend
@each_direction
@each_dtype
@pytest.mark.parametrize("varying", [False, True], ids=["invariant", "varying"])
@pytest.mark.one_in(2)
def test_forward_mode_equals_that_of_an_unrolled_loop(backend, reverse, dtype, varying):
    decay, x, initial, weight = recurrence_case(dtype, varying)
    arguments, dots = (decay, x, initial), (np.roll(decay, 1), weight, initial[::-1].copy())

    def fast(*arguments):
        decay, x, initial = arguments
        flags = jnp.asarray(RESET)
        return linear_recurrence(decay, x, reset=flags, initial=initial, reverse=reverse, backend=backend)

    def unrolled(decay, x, initial):
        return slow_recurrence(decay, x, RESET, initial, reverse, jnp.stack)

    with jax.enable_x64(True):
        wide = [[v.astype(WIDE[dtype]) for v in part] for part in (arguments, dots)]
        _, expected = jax.jit(functools.partial(jax.jvp, unrolled))(*wide)
        expected = np.asarray(expected)
    _, got = jax.jit(functools.partial(jax.jvp, fast))(arguments, dots)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@each_backend
def test_jacobians_of_both_modes_and_over_a_batch_are_the_same(rng, backend):
    decay, x, initial = (jnp.asarray(normal(rng, shape)) for shape in ((2,), (2, 4, 2), (2,)))

    def together(decay, x, initial):
        def one(x):
            return linear_recurrence(decay, x, reset=jnp.arange(4) == 2, initial=initial, backend=backend)

        return jnp.sin(jax.vmap(one)(x))

    def both(decay, x, initial):
        return [mode(together, argnums=(0, 1, 2))(decay, x, initial) for mode in (jax.jacfwd, jax.jacrev)]

    forward, reverse = jax.jit(both)(decay, x, initial)
    for name, got, want in zip(("decay", "x", "initial"), forward, reverse, strict=True):
        assert np.any(np.asarray(want) != 0)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=name)


@each_backend
@each_direction
def test_no_tangent_crosses_a_reset(backend, reverse):
    decay, x, initial, _ = recurrence_case(np.float32, True)
    place = np.arange(LENGTH)[::-1] if reverse else np.arange(LENGTH)
    reset, after = place == 4, (place >= 4)[:, None]

    @jax.jit
    def tangent(arguments, dots):
        def fast(decay, x, initial):
            return linear_recurrence(decay, x, reset=reset, initial=initial, reverse=reverse, backend=backend)

        return jax.jvp(fast, arguments, dots)[1]

    def bad(value):
        return np.where(after, value, np.float32(np.nan))

    clean = np.asarray(tangent((decay, x, initial), (x, decay, initial)))
    nothing = np.full_like(initial, np.nan)
    got = np.asarray(tangent((bad(decay), bad(x), nothing), (bad(x), bad(decay), nothing)))
    np.testing.assert_array_equal(got[place >= 4], clean[place >= 4])
    assert np.isnan(got[place < 4]).all()


@each_backend
@each_direction
@pytest.mark.parametrize("shape", [(7, 0), (7, 2, 0), (0, 3), (0, 0)], ids=str)
@pytest.mark.parametrize("varying", [False, True], ids=["invariant", "varying"])
def test_no_channels_and_no_steps_give_an_empty_result_and_gradients_of_zero(backend, reverse, shape, varying):
    decay, x, initial = zeros(*shape if varying else shape[1:]), zeros(*shape), zeros(*shape[1:])

    def run(decay, x, initial):
        reset = jnp.zeros(shape[0], bool)
        return linear_recurrence(decay, x, reset=reset, initial=initial, reverse=reverse, backend=backend)

    h, pull = jax.vjp(run, decay, x, initial)
    assert h.shape == shape and h.dtype == np.float32
    for got, argument in zip(pull(h), (decay, x, initial), strict=True):
        np.testing.assert_array_equal(got, np.zeros_like(argument))


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

    # The gradients of Re Σ w h by hand: g is the recurrence in the opposite direction, and that of the decay sums
    # g_t h_{t-1}.
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
        # The root mean square, since the largest of many rounding errors varies too much between seeds.
        got = run(backend, decay, x, initial)
        return [np.sqrt(np.mean(np.abs(np.asarray(v) - want) ** 2)) for v, want in zip(got, expected, strict=True)]

    ratios = np.array(errors(backend)) / np.array(errors("sequential"))
    assert (ratios <= 4).all(), f"error over the sequential one's, for h, decay, x, initial: {ratios}"


LENGTH_AROUND, CUT = 11, 5
POISONS = (np.nan, np.inf, -np.inf, 3.0)


@functools.cache
def around_a_reset(backend, reverse, dtype):
    """Inputs with one reset, the index of each step in the direction of the scan, and a function `at`.

    `at(counted, decay, x, initial)` returns h and the gradients at the steps of the mask `counted`, for a loss over the
    outputs at these steps.
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
    # Only x has a batch axis; decay, reset and initial state are shared.
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
            "linear_recurrence: reset is bool(3,), must be bool(4,)",
        ),
        (
            zeros(3),
            zeros(4, 3),
            {"reset": zeros(4, 3, dtype=bool)},
            "linear_recurrence: reset is bool(4, 3), must be bool(4,)",
        ),
        (zeros(3), zeros(4, 3), {"initial": zeros()}, "linear_recurrence: initial () must have shape (3,)"),
        (
            zeros(3),
            zeros(4, 3),
            {"initial": zeros(3, dtype=jnp.complex64)},
            "linear_recurrence: initial is complex64 but the state is float32; convert decay or x to complex",
        ),
        (
            zeros(3),
            zeros(4, 3),
            {"reset": zeros(4)},
            "linear_recurrence: reset is float32(4,), must be bool(4,)",
        ),
        (
            zeros(3),
            zeros(4, 3),
            {"backend": "warp"},
            f"linear_recurrence: unknown backend 'warp'; choose one of {', '.join(available_backends())}",
        ),
        (
            zeros(3),
            zeros(4, 3, dtype=jnp.int32),
            {},
            "linear_recurrence: x is int32, must be one of bfloat16, float16, float32, float64, complex64, complex128",
        ),
    ],
)
def test_the_recurrence_refuses_what_does_not_fit_and_says_why(decay, x, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        linear_recurrence(decay, x, **arguments)


on_a_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the native kernel and its message are a CPU's")


@on_a_cpu
@pytest.mark.parametrize(
    ("backend", "missing", "reason"),
    [
        ("pallas", None, "it needs a GPU, but JAX runs on cpu"),
        ("native", "it was never compiled", "it was never compiled"),
    ],
)
def test_a_backend_that_cannot_serve_here_is_refused_with_the_reason_and_the_choices(
    monkeypatch, backend, missing, reason
):
    if missing is not None:
        monkeypatch.setattr(native, "missing", lambda: missing)
    choices = [b for b in ("native", "sequential", "blocked", "associative") if b != backend]
    if native.missing() is not None:
        choices = [b for b in choices if b != "native"]
    message = f"linear_recurrence: backend {backend!r} is not available: {reason}; choose one of {', '.join(choices)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        linear_recurrence(zeros(3), zeros(4, 3), backend=backend)


@on_a_cpu
def test_without_the_compiled_kernel_the_default_is_the_sequential_loop(monkeypatch, rng):
    decay, x = jnp.full(2, 0.9), jnp.asarray(normal(rng, (50, 2)))
    np.testing.assert_array_equal(linear_recurrence(decay, x), linear_recurrence(decay, x, backend=default_backend()))
    monkeypatch.setattr(native, "missing", lambda: "it was never compiled")
    assert default_backend() == "sequential"
    linear_recurrence(decay, x)


@each_backend
@each_direction
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inputs_have_a_float32_state_and_gradients_of_their_own_dtype(rng, backend, reverse, dtype):
    decay, x, weight = jnp.asarray(rng.uniform(0.5, 0.99, 3), dtype), normal(rng, (70, 3)), normal(rng, (70, 3))
    x, reset = jnp.asarray(x, dtype), np.arange(70) == 40

    @jax.jit
    def run(decay, x):
        def f(decay, x):
            return linear_recurrence(decay, x, reset=reset, reverse=reverse, backend=backend)

        h, pull = jax.vjp(f, decay, x)
        return h, *pull(weight)

    h, decay_bar, x_bar = run(decay, x)
    assert (h.dtype, decay_bar.dtype, x_bar.dtype) == (np.float32, dtype, dtype)
    wide_decay, wide_x = (np.asarray(v, np.float64) for v in (decay, x))
    expected = slow_recurrence(wide_decay, wide_x, reset, None, reverse)
    np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-5)
    following = np.roll(reset, 1 if reverse else -1)
    g = slow_recurrence(wide_decay, weight.astype(np.float64), following, None, not reverse)
    np.testing.assert_allclose(np.asarray(x_bar, np.float64), g, rtol=1e-2, atol=1e-2)
    previous = np.roll(expected, -1 if reverse else 1, 0)
    previous[[-1 if reverse else 0]] = 0
    previous[reset] = 0
    np.testing.assert_allclose(np.asarray(decay_bar, np.float64), (g * previous).sum(0), rtol=1e-2, atol=1e-2)


# Long sequences test the edges of blocks and segments; the associative scan has none and compiles slowly for them.
SIZES = [(5_003, 1), (4_096, 1), (600, 130), (70, 3)]
EDGES = [(backend, *size) for backend in BACKENDS for size in SIZES if backend != "associative" or size[0] <= 600]


@pytest.mark.parametrize(("backend", "length", "width"), EDGES)
@each_direction
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.one_in(2)
def test_long_narrow_and_wide_sequences_equal_the_loop(rng, backend, reverse, length, width, dtype):
    decay = normal(rng, width, dtype)
    decay = (decay / np.abs(decay) * np.linspace(0.8, 1.0, width, dtype=np.float32)).astype(dtype)
    x, initial, reset = normal(rng, (length, width), dtype), normal(rng, width, dtype), rng.random(length) < 0.004
    h = compiled_recurrence(decay, x, reset=reset, initial=initial, reverse=reverse, backend=backend)
    expected = slow_recurrence(*(v.astype(WIDE[dtype]) for v in (decay, x)), reset, initial.astype(complex), reverse)
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=2e-4)


@each_backend
def test_a_number_that_is_not_finite_shows_up_to_the_end_of_its_episode_and_no_further(rng, backend):
    x, reset = normal(rng, (9_000, 1)), np.isin(np.arange(9_000), (300, 8_000))
    x[1_000] = np.nan
    h = np.asarray(compiled_recurrence(jnp.full(1, 0.5), x, reset=reset, backend=backend))
    assert np.isfinite(h[:1_000]).all() and np.isnan(h[1_000:8_000]).all() and np.isfinite(h[8_000:]).all()


@pytest.mark.parametrize("decay", [0.5, np.float64(0.5), 0.5 + 0.5j], ids=["float", "float64", "complex"])
def test_a_number_as_decay_takes_the_precision_of_x(rng, decay):
    x = normal(rng, (5, 2))
    dtype = np.complex64 if isinstance(decay, complex) else np.float32
    h = linear_recurrence(decay, x)
    assert h.dtype == dtype
    expected = slow_recurrence(np.asarray(decay), x.astype(np.complex128), None, None, False)
    np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-5)


def test_two_precisions_are_refused_with_the_dtypes_that_fit():
    message = (
        "linear_recurrence: decay is float64 but x is complex64, which differ in precision; "
        "convert decay to one of bfloat16, float16, float32, complex64, or convert x"
    )
    with jax.enable_x64(True), pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        linear_recurrence(jnp.zeros(3, jnp.float64), zeros(4, 3, dtype=jnp.complex64))
