"""The backends of the linear recurrence: which exist, which are available here, and how to run one of them."""

from functools import partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.kernels import native
from memoroids.algebra.monoid import DiagonalAffine
from memoroids.algebra.resettable import Resettable
from memoroids.algebra.scan import default_backend as default_scan_backend
from memoroids.algebra.scan import in_blocks, out_of_blocks, scan

BACKENDS = ("native", "sequential", "blocked", "associative", "pallas", "mosaic")


HOPPER = 9.0
"""The compute capability from which on Mosaic lowers Pallas kernels."""


def unavailable_reason(backend: str) -> str | None:
    """Why `backend` is not available on this platform or in this installation, or None if it is."""
    platform = jax.default_backend()
    if backend == "native":
        return f"it needs a CPU, but JAX runs on {platform}" if platform != "cpu" else native.missing()
    if backend in ("pallas", "mosaic") and platform != "gpu":
        return f"it needs a GPU, but JAX runs on {platform}"
    if backend == "mosaic" and float(getattr(jax.devices()[0], "compute_capability", 0)) < HOPPER:
        return f"it needs a GPU of compute capability {HOPPER} or above"
    return None


def available_backends() -> tuple[str, ...]:
    """The backends that are available on this platform and in this installation."""
    return tuple(backend for backend in BACKENDS if unavailable_reason(backend) is None)


def default_backend() -> str:
    """The default backend: "native" on a single CPU device if it was compiled, else the default of `scan`.

    XLA does not partition a foreign function over several devices, so with more than one CPU device "native" is not
    the default.
    """
    one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    return "native" if one_cpu and native.missing() is None else default_scan_backend()


def resolve_backend(backend: str | None) -> str:
    """`backend`, or the default for None. Raises `ValueError` if it does not exist or is not available here."""
    if backend is None:
        return default_backend()
    choices = ", ".join(available_backends())
    if backend not in BACKENDS:
        raise ValueError(f"linear_recurrence: unknown backend {backend!r}; choose one of {choices}")
    if (reason := unavailable_reason(backend)) is not None:
        raise ValueError(f"linear_recurrence: backend {backend!r} is not available: {reason}; choose one of {choices}")
    return backend


def run_forward(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    """h (T, …), in the dtype of `initial`, computed by `backend` from arguments already checked and converted."""
    if backend == "sequential":
        return _sequential(reverse, decay, x, reset, initial)
    if backend in ("native", "pallas", "mosaic"):
        rows, flat_initial = _flat(x, x.ndim), initial.reshape(-1)
        flat_decay = _flat(decay, x.ndim)
        if backend == "native":
            h = native.forward(flat_decay, rows, _flags(reset, x), flat_initial, reverse=reverse)
        else:  # Pallas is slow to import, and only a GPU needs it
            kernel = import_module(f"memoroids.algebra.kernels.{backend}_recurrence")
            h = kernel.recurrence(flat_decay, rows, reset, flat_initial, reverse=reverse)
        return h.reshape(x.shape)
    x = x.astype(initial.dtype)
    if decay.ndim == x.ndim or backend == "associative":
        return _by_scan(backend, reverse, decay, x, reset, initial)
    return _blocked(reverse, decay, x, reset, initial)


def run_native_backward(
    reverse: bool, decay: jax.Array, reset: jax.Array | None, initial: jax.Array, h: jax.Array, h_bar: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and `decay` given h and its cotangent `h_bar`, in one pass of the native kernel."""
    rows, flat_decay, flags = partial(_flat, axes=h.ndim), _flat(decay, h.ndim), _flags(reset, h)
    g, decay_bar = native.backward(flat_decay, flags, rows(h_bar), rows(h), initial.reshape(-1), reverse=reverse)
    return g.reshape(h.shape), decay_bar.reshape(decay.shape)


def expand_flags(flags: jax.Array, like: jax.Array) -> jax.Array:
    """`flags` (T,) broadcast over the other axes of `like` (T, …)."""
    return lax.broadcast_in_dim(flags, like.shape, (0,))


def _sequential(
    reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    varying = decay.ndim == x.ndim

    def step(h: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        a, x_t, reset_t = inputs
        decayed = (a if varying else decay) * h
        # Selected after the product, so that not even a NaN in the decay of a reset step reaches h.
        kept = decayed if reset_t is None else jnp.where(reset_t, jnp.zeros((), h.dtype), decayed)
        h = kept + x_t.astype(h.dtype)
        return h, h

    return lax.scan(step, initial, (decay if varying else None, x, reset), reverse=reverse)[1]


def _blocked(reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array) -> jax.Array:
    """Runs all blocks from state 0 in parallel, then adds to each block the state that enters it, decayed.

    The entering state counts only up to the first reset of the block.
    """
    zero = jnp.zeros((), x.dtype)
    xs, resets = in_blocks((x, _flags(reset, x)), (zero, jnp.zeros((), bool)), reverse)  # (L, B, …), (L, B)

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        h, power, no_reset_yet = carry
        x_t, reset_t = inputs
        h = jnp.where(expand_flags(reset_t, h), zero, decay[None] * h) + x_t
        carry = h, decay * power, no_reset_yet & ~reset_t
        return carry, carry

    start = jnp.zeros_like(xs[0]), jnp.ones_like(decay), jnp.ones(xs.shape[1], bool)
    _, (h, power, no_reset_yet) = lax.scan(step, start, (xs, resets))

    def enter(carry: jax.Array, total: Any) -> tuple[jax.Array, jax.Array]:
        h, without_reset = total
        return jnp.where(without_reset, power[-1] * carry, zero) + h, carry

    _, entering = lax.scan(enter, initial, (h[-1], no_reset_yet[-1]))
    carried = power[:, None] * entering[None]
    kept = lax.broadcast_in_dim(no_reset_yet, h.shape, (0, 1))
    return out_of_blocks(h + jnp.where(kept, carried, zero), x.shape[0], reverse)


def _by_scan(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    # A reversed recurrence is the forward recurrence of the flipped sequence.
    flip = (lambda tree: jax.tree.map(lambda leaf: jnp.flip(leaf, 0), tree)) if reverse else (lambda t: t)
    monoid = DiagonalAffine(x.shape[1:], x.dtype)
    decay = decay if decay.ndim == x.ndim else jnp.broadcast_to(decay, x.shape)
    if reset is not None:
        # At a reset the decay multiplies the identity, so it must not matter, not even if it is NaN.
        decay = jnp.where(expand_flags(reset, x), jnp.ones((), x.dtype), decay)
    elements = flip((decay, x))
    start = (jnp.ones_like(initial), initial)
    if reset is None:
        return flip(scan(monoid, elements, initial=start, backend=backend)[1])
    flagged = (elements, flip(reset))
    (_, h), _ = scan(Resettable(monoid), flagged, initial=(start, jnp.zeros((), bool)), backend=backend)
    return flip(h)


def _flat(array: jax.Array, axes: int) -> jax.Array:
    """Flattens the axes of the state: an array of `axes` axes (T, …) to (T, C), one without time axis to (C,)."""
    return array.reshape(array.shape[0], -1) if array.ndim == axes else array.reshape(-1)


def _flags(reset: jax.Array | None, like: jax.Array) -> jax.Array:
    """`reset` (T,), or flags that are all False if it is None, for `like` (T, …)."""
    return jnp.zeros(like.shape[:1], bool) if reset is None else reset
