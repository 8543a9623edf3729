"""The native kernel: buffers that do not fit are refused, both libraries agree, and threads are capped."""

import ctypes
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arrays import normal
from memoroids import linear_recurrence
from memoroids.algebra.kernels import native

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu" or native.missing() is not None, reason="the native kernel was not compiled"
)

T, C = 5, 3
FORWARD = {"decay": (C,), "x": (T, C), "reset": (T,), "initial": (C,)}
BACKWARD = {"decay": (C,), "reset": (T,), "h_bar": (T, C), "h": (T, C), "initial": (C,)}


def call(target, shapes, results, *, varying=False, dtypes=None):
    dtypes = {"reset": bool} | (dtypes or {})
    arrays = [jnp.zeros(shape, dtypes.get(name, np.float32)) for name, shape in shapes.items()]
    results = [jax.ShapeDtypeStruct(shape, dtypes.get("result", np.float32)) for shape in results]
    out = jax.ffi.ffi_call(target, results)(*arrays, reverse=np.int32(0), varying=np.int32(varying))
    return jax.block_until_ready(out)


def forward(h=(T, C), varying=False, dtypes=None, **changed):
    return call("memoroids_forward", FORWARD | changed, [h], varying=varying, dtypes=dtypes)


def backward(g=(T, C), decay_bar=(C,), varying=False, dtypes=None, **changed):
    return call("memoroids_backward", BACKWARD | changed, [g, decay_bar], varying=varying, dtypes=dtypes)


def test_buffers_that_fit_are_taken():
    forward(), backward()
    forward(decay=(T, C), varying=True)
    backward(decay=(T, C), decay_bar=(T, C), varying=True)
    batch = {name: (2, *shape) for name, shape in FORWARD.items()}
    forward(h=(2, T, C), **batch)
    forward(dtypes={"x": jnp.bfloat16})


@pytest.mark.parametrize(
    ("function", "changed", "says"),
    [
        (forward, {"decay": (C + 1,)}, "the shape of decay"),
        (forward, {"decay": ()}, "the shape of decay"),
        (forward, {"varying": True}, "the shape of decay"),
        (forward, {"decay": (T - 1, C), "varying": True}, "the shape of decay"),
        (forward, {"x": (T,), "h": (T,)}, "x needs an axis of time"),
        (forward, {"x": (), "h": ()}, "x needs an axis of time"),
        (forward, {"x": (2, T, C), "h": (2, T, C)}, "the shape of decay"),
        (forward, {"reset": (T - 1,)}, "the shape of reset"),
        (forward, {"reset": (T, C)}, "the shape of reset"),
        (forward, {"initial": (C - 1,)}, "the shape of initial"),
        (forward, {"h": (T - 1, C)}, "the shape of h"),
        (forward, {"dtypes": {"decay": np.int8}}, "the dtype of decay"),
        (forward, {"dtypes": {"x": np.complex64}}, "the dtype of decay"),
        (forward, {"dtypes": {"reset": np.int32}}, "the dtype of reset"),
        (forward, {"dtypes": {"result": jnp.bfloat16}}, "the dtype of h"),
        (forward, {"dtypes": dict.fromkeys(("decay", "x", "initial", "result"), np.int32)}, "dtype not supported"),
        (backward, {"h": (T,), "h_bar": (T,), "g": (T,)}, "h needs an axis of time"),
        (backward, {"decay": (C - 1,)}, "the shape of decay"),
        (backward, {"reset": ()}, "the shape of reset"),
        (backward, {"h_bar": (T - 1, C)}, "the shape of h_bar"),
        (backward, {"initial": (T, C)}, "the shape of initial"),
        (backward, {"g": (T - 1, C)}, "the shape of g"),
        (backward, {"decay_bar": (1,)}, "the shape of decay_bar"),
        (backward, {"varying": True, "decay": (T, C)}, "the shape of decay_bar"),
        (backward, {"dtypes": {"h_bar": jnp.bfloat16}}, "the dtype of h_bar"),
    ],
)
def test_buffers_that_do_not_fit_are_refused_by_name(function, changed, says):
    with pytest.raises(jax.errors.JaxRuntimeError, match=says):
        function(**changed)


@functools.cache
def registered():
    """The targets of each library under names of their own."""
    names, portable = [], ctypes.cdll.LoadLibrary(str(native.PORTABLE))
    libraries = {"portable": portable}
    if portable.memoroids_has_avx2() and native.AVX2.exists():
        libraries["avx2"] = ctypes.cdll.LoadLibrary(str(native.AVX2))
    for name, library in libraries.items():
        for target in native.TARGETS:
            capsule = jax.ffi.pycapsule(getattr(library, target))
            jax.ffi.register_ffi_target(f"{target}_{name}", capsule, platform="cpu")
        names.append(name)
    return names


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize(("steps", "channels"), [(5_003, 1), (70, 35)])
@pytest.mark.parametrize("varying", [False, True], ids=["invariant", "varying"])
def test_the_portable_library_computes_what_the_fast_one_does(rng, dtype, steps, channels, varying):
    if registered() != ["portable", "avx2"]:
        pytest.skip("there is one library for this processor")
    x, h_bar = (normal(rng, (steps, channels), dtype) for _ in range(2))
    decay = normal(rng, (steps, channels) if varying else channels, dtype)
    decay, initial, reset = (
        (decay / (1.1 * np.abs(decay))).astype(dtype),
        normal(rng, channels, dtype),
        rng.random(steps) < 0.01,
    )
    options = {"reverse": np.int32(0), "varying": np.int32(varying)}
    h, back = jax.ShapeDtypeStruct(x.shape, dtype), [jax.ShapeDtypeStruct(a.shape, dtype) for a in (x, decay)]
    results = {}
    for name in registered():
        states = jax.ffi.ffi_call(f"memoroids_forward_{name}", h)(decay, x, reset, initial, **options)
        bars = jax.ffi.ffi_call(f"memoroids_backward_{name}", back)(decay, reset, h_bar, states, initial, **options)
        results[name] = [np.asarray(leaf) for leaf in (states, *bars)]
    for got, want in zip(results["portable"], results["avx2"], strict=True):
        # The one rounds a product before it is added, the other does not.
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_a_processor_without_the_instructions_gets_the_portable_library(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "AVX2", tmp_path / "absent.so")
    assert native._fastest()._name == str(native.PORTABLE)
    (tmp_path / "broken.so").write_bytes(b"not a library")
    monkeypatch.setattr(native, "AVX2", tmp_path / "broken.so")
    assert native._fastest()._name == str(native.PORTABLE)


def test_the_portable_library_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("MEMOROIDS_KERNEL", "portable")
    assert native._fastest()._name == str(native.PORTABLE)
    monkeypatch.setenv("MEMOROIDS_KERNEL", "fast")
    with pytest.raises(ValueError, match="MEMOROIDS_KERNEL must be portable or not set, got 'fast'"):
        native.missing.__wrapped__()


def test_without_a_library_the_reason_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "PORTABLE", tmp_path / "_recurrence.so")
    reason = native.missing.__wrapped__()
    assert reason is not None and "C++ compiler" in reason
    native.PORTABLE.write_bytes(b"not a library")
    reason = native.missing.__wrapped__()
    assert reason is not None and "_recurrence.so cannot be loaded" in reason


def test_the_gradient_is_one_call_of_the_kernel_in_each_direction():
    x, decay = jnp.ones((T, C)), jnp.ones(C)

    def loss(decay, x):
        return jnp.sum(jnp.sin(linear_recurrence(decay, x, backend="native")))

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(decay, x).as_text()
    assert [text.count(f"@{target}(") for target in native.TARGETS] == [1, 1]


def test_no_more_threads_are_used_than_narrow_rows_have_steps_for():
    used = ctypes.cdll.LoadLibrary(str(native.PORTABLE)).memoroids_threads
    used.argtypes, used.restype = [ctypes.c_int64], ctypes.c_int64
    assert [used(n) for n in (-1, 0, 1, 2, 64)] == [1, 1, 1, 2, 64]
    # Sequences of 4,096 steps or more are cut into eight segments for each thread, of one step at least.
    assert used(513) == used(100_000) and 8 * used(100_000) <= 4_096
