"""The linear recurrence in C++ for CPUs, called by XLA through its foreign function interface (recurrence.cpp).

It is compiled when the package is installed, as a library for every processor and, on x86, one for those with AVX2 and
FMA. If that was not possible, the other backends of `memoroids.linear_recurrence` remain available. Setting the
environment variable MEMOROIDS_KERNEL=portable chooses the library for every processor.
"""

import contextlib
import ctypes
import functools
import os
from pathlib import Path

import jax
import numpy as np

TARGETS = ("memoroids_forward", "memoroids_backward")
DTYPES = ("float32", "float64", "bfloat16", "complex64", "complex128")
SWITCH = "MEMOROIDS_KERNEL"
PORTABLE, AVX2 = (Path(__file__).with_name(name) for name in ("_recurrence.so", "_recurrence_avx2.so"))


@functools.cache
def missing() -> str | None:
    """Why the kernel cannot be used, or None if it can; its functions are then registered with XLA.

    Raises `ValueError` if MEMOROIDS_KERNEL is set to something else than `portable`.
    """
    if os.environ.get(SWITCH, "portable") != "portable":
        raise ValueError(f"{SWITCH} must be portable or not set, got {os.environ[SWITCH]!r}")
    if not PORTABLE.exists():
        return "it was not compiled when memoroids was installed, which needs a C++ compiler"
    try:
        library = _fastest()
        for name in TARGETS:
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except (OSError, AttributeError, RuntimeError) as error:
        return f"{PORTABLE.name} cannot be loaded: {error}"
    return None


def _fastest() -> ctypes.CDLL:
    """The fastest library that this processor can run, which the portable one knows, or the one that is asked for."""
    library = ctypes.cdll.LoadLibrary(str(PORTABLE))
    if SWITCH not in os.environ and library.memoroids_has_avx2() and AVX2.exists():
        with contextlib.suppress(OSError):
            return ctypes.cdll.LoadLibrary(str(AVX2))
    return library


def _options(reverse: bool, varying: bool) -> dict[str, np.int32]:
    return {"reverse": np.int32(reverse), "varying": np.int32(varying)}


def forward(decay: jax.Array, x: jax.Array, reset: jax.Array, initial: jax.Array, *, reverse: bool) -> jax.Array:
    """h (T, C), in the dtype of `initial`, from x (T, C), decay (C,) or (T, C), reset (T,) bool and initial (C,)."""
    call = jax.ffi.ffi_call(
        "memoroids_forward", jax.ShapeDtypeStruct(x.shape, initial.dtype), vmap_method="broadcast_all"
    )
    return call(decay, x, reset, initial, **_options(reverse, decay.ndim == x.ndim))


def backward(
    decay: jax.Array, reset: jax.Array, h_bar: jax.Array, h: jax.Array, initial: jax.Array, *, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x, (T, C), and of decay, of its shape, given h and h̄ (T, C); all but reset have one dtype."""
    shapes = jax.ShapeDtypeStruct(h.shape, h.dtype), jax.ShapeDtypeStruct(decay.shape, h.dtype)
    call = jax.ffi.ffi_call("memoroids_backward", shapes, vmap_method="broadcast_all")
    x_bar, decay_bar = call(decay, reset, h_bar, h, initial, **_options(reverse, decay.ndim == h.ndim))
    return x_bar, decay_bar
