"""The linear recurrence, the scan of diagonal affine maps: one meaning, several backends, a reverse pass of its own."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.kernels import native
from memoroids.algebra.monoid import DiagonalAffine
from memoroids.algebra.resettable import Resettable
from memoroids.algebra.scan import default_backend as default_scan_backend
from memoroids.algebra.scan import in_blocks, out_of_blocks, scan

BACKENDS = ("native", "sequential", "blocked", "associative", "pallas")

_STATE_DTYPES = {"bfloat16": "float32", "float16": "float32"} | {
    name: name for name in ("float32", "float64", "complex64", "complex128")
}

_COMPLEX = {"float32": "complex64", "float64": "complex128"}


def missing(backend: str) -> str | None:
    """Why `backend` cannot serve here, or None where it can."""
    platform = jax.default_backend()
    if backend == "native":
        return f"it runs on a CPU, not on {platform}" if platform != "cpu" else native.missing()
    if backend == "pallas" and platform != "gpu":
        return f"it runs on a GPU, not on {platform}"
    return None


def available_backends() -> tuple[str, ...]:
    """The backends that the platform and the installation can serve."""
    return tuple(backend for backend in BACKENDS if missing(backend) is None)


def default_backend() -> str:
    """The backend used where none is named: "native" on one CPU device, where it was built; else the scan's default.

    XLA does not split a foreign function over several devices, so with more than one the default is its own loop.
    """
    one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    return "native" if one_cpu and native.missing() is None else default_scan_backend()


def resolve_backend(backend: str | None) -> str:
    """`backend`, or the default for None. Raises `ValueError` for one that does not exist or cannot serve here."""
    if backend is None:
        return default_backend()
    choices = ", ".join(available_backends())
    if backend not in BACKENDS:
        raise ValueError(f"unknown linear_recurrence backend {backend!r}: choose one of {choices}")
    if (reason := missing(backend)) is not None:
        raise ValueError(f"linear_recurrence backend {backend!r} cannot serve: {reason}; choose one of {choices}")
    return backend


def linear_recurrence(
    decay: jax.typing.ArrayLike,
    x: jax.Array,
    *,
    reset: jax.Array | None = None,
    initial: jax.Array | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> jax.Array:
    """h_t = decay_t ⊙ h_{t-1} + x_t for every t: the scan of `DiagonalAffine`, with a reverse pass of its own.

    **Arguments:** `x` (T, …), real or complex; `decay`, of x's shape, or without the time axis (time-invariant, never
    broadcast over time) and then broadcastable to x.shape[1:]; `reset` (T,) bool: where set, the state that enters t,
    in the direction of the scan, is 0 (the identity); `initial`, of x.shape[1:]: the state before the first element
    (default 0); `reverse`: run from the end, h_t = decay_t h_{t+1} + x_t. `backend`: "native" (C++, one pass over
    memory, on a CPU), "sequential" (`lax.scan`), "blocked" (√T blocks side by side), "associative"
    (`lax.associative_scan`) or "pallas" (a kernel for GPUs); by default the fastest that was measured.

    **Returns:** h (T, …), in the promoted dtype of `decay` and `x`; half precision is widened: the state of bfloat16 or
    float16 inputs is float32.

    The associative backend multiplies decays up along time, so its error grows with the steps that a decay near 1 is
    remembered: at |decay| = 0.999 and 1,024 steps it is up to ten times the sequential one's.

    Nothing crosses a reset, forwards or backwards, NaN and inf included. Reverse-mode derivatives of every order;
    forward mode is not defined. Raises `ValueError` on shapes or dtypes that do not fit and on a backend that cannot
    serve.
    """
    x = jnp.asarray(x)
    if isinstance(decay, int | float | complex):  # a number takes the precision of x
        real = jnp.finfo(_state_dtype(x, "x")).dtype
        decay = jnp.asarray(decay, _COMPLEX[real.name] if isinstance(decay, complex) else real)
    decay = jnp.asarray(decay)
    dtype = _common_dtype(decay, x)
    if x.ndim == 0:
        raise ValueError("linear_recurrence: x needs a leading time axis, got a scalar")
    state_shape = x.shape[1:]
    if decay.ndim == x.ndim and decay.shape != x.shape:
        raise ValueError(f"linear_recurrence: decay {decay.shape} with a time axis must have the shape of x {x.shape}")
    if decay.ndim > x.ndim:
        raise ValueError(f"linear_recurrence: decay {decay.shape} has more axes than x {x.shape}")
    if decay.ndim < x.ndim:
        try:
            decay = jnp.broadcast_to(decay, state_shape)
        except ValueError:
            raise ValueError(
                f"linear_recurrence: decay {decay.shape} without a time axis does not broadcast to {state_shape}"
            ) from None
    reset = None if reset is None else jnp.asarray(reset)
    if reset is not None and (reset.shape != x.shape[:1] or reset.dtype != bool):
        raise ValueError(f"linear_recurrence: reset is {reset.dtype}{reset.shape}, must be bool{x.shape[:1]}")
    initial = jnp.zeros(state_shape, dtype) if initial is None else jnp.asarray(initial)
    if initial.shape != state_shape:
        raise ValueError(f"linear_recurrence: initial {initial.shape} must have shape {state_shape}")
    backend = resolve_backend(backend)
    if x.shape[0] == 0:
        return x.astype(dtype)
    # A half is widened where it is read, anything else here.
    x = x if x.dtype == jnp.bfloat16 and not jnp.iscomplexobj(decay) else x.astype(dtype)
    return _recurrence(backend, reverse, decay.astype(dtype), x, reset, initial.astype(dtype))


def _state_dtype(array: jax.Array, what: str) -> Any:
    if array.dtype.name not in _STATE_DTYPES:
        raise ValueError(f"linear_recurrence: {what} is {array.dtype}, choose one of {', '.join(_STATE_DTYPES)}")
    return jnp.dtype(_STATE_DTYPES[array.dtype.name])


def _common_dtype(decay: jax.Array, x: jax.Array) -> Any:
    """The state's dtype: complex if either is; both must be of one precision once halves are widened."""
    of_decay, of_x = _state_dtype(decay, "decay"), _state_dtype(x, "x")
    if jnp.finfo(of_decay).bits != jnp.finfo(of_x).bits:
        fitting = [name for name, state in _STATE_DTYPES.items() if jnp.finfo(state).bits == jnp.finfo(of_x).bits]
        raise ValueError(
            f"linear_recurrence: decay is {decay.dtype} and x {x.dtype}, two precisions; "
            f"give decay as one of {', '.join(fitting)}, or convert x"
        )
    return of_decay if jnp.issubdtype(of_decay, jnp.complexfloating) else of_x


def _flags(reset: jax.Array | None, like: jax.Array) -> jax.Array:
    """(T,) flags, none set where there are none, for `like` (T, …)."""
    return jnp.zeros(like.shape[:1], bool) if reset is None else reset


def _expand(flag: jax.Array, like: jax.Array) -> jax.Array:
    """(T,) flags with the axes of `like` (T, …)."""
    return lax.broadcast_in_dim(flag, like.shape, (0,))


def _run(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    if backend == "sequential":
        return _sequential(reverse, decay, x, reset, initial)
    if backend in ("native", "pallas"):
        rows, of_state = _flat(x, x.ndim), initial.reshape(-1)
        flat_decay = _flat(decay, x.ndim)
        if backend == "native":
            h = native.forward(flat_decay, rows, _flags(reset, x), of_state, reverse=reverse)
        else:
            from memoroids.algebra.kernels import pallas_recurrence  # Pallas is slow to import, and only a GPU needs it

            h = pallas_recurrence.recurrence(flat_decay, rows, reset, of_state, reverse=reverse)
        return h.reshape(x.shape)
    x = x.astype(initial.dtype)
    if decay.ndim == x.ndim or backend == "associative":
        return _by_scan(backend, reverse, decay, x, reset, initial)
    return _blocked(reverse, decay, x, reset, initial)


def _flat(array: jax.Array, axes: int) -> jax.Array:
    """The state's axes as one: (T, …) of `axes` axes to (T, C), without the time axis to (C,)."""
    return array.reshape(array.shape[0], -1) if array.ndim == axes else array.reshape(-1)


def _sequential(
    reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    varying = decay.ndim == x.ndim

    def step(h: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        a, x_t, reset_t = inputs
        decayed = (a if varying else decay) * h
        # Selected after the product, so that not even a NaN in the decay of a reset step gets through.
        kept = decayed if reset_t is None else jnp.where(reset_t, jnp.zeros((), h.dtype), decayed)
        h = kept + x_t.astype(h.dtype)
        return h, h

    return lax.scan(step, initial, (decay if varying else None, x, reset), reverse=reverse)[1]


def _blocked(reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array) -> jax.Array:
    """Blocks run from 0 side by side; what enters each is added afterwards, up to its first reset."""
    zero = jnp.zeros((), x.dtype)
    xs, resets = in_blocks((x, _flags(reset, x)), (zero, jnp.zeros((), bool)), reverse)  # (L, B, …), (L, B)

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        h, power, open_ = carry
        x_t, reset_t = inputs
        h = jnp.where(_expand(reset_t, h), zero, decay[None] * h) + x_t
        carry = h, decay * power, open_ & ~reset_t
        return carry, carry

    start = jnp.zeros_like(xs[0]), jnp.ones_like(decay), jnp.ones(xs.shape[1], bool)
    _, (h, power, open_) = lax.scan(step, start, (xs, resets))

    def enter(carry: jax.Array, total: Any) -> tuple[jax.Array, jax.Array]:
        h, is_open = total
        return jnp.where(is_open, power[-1] * carry, zero) + h, carry

    _, entering = lax.scan(enter, initial, (h[-1], open_[-1]))
    carried = power[:, None] * entering[None]
    kept = lax.broadcast_in_dim(open_, h.shape, (0, 1))
    return out_of_blocks(h + jnp.where(kept, carried, zero), x.shape[0], reverse)


def _by_scan(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    # The recurrence runs in the direction of the scan, so a reversed one is the forward one of the flipped sequence.
    flip = (lambda tree: jax.tree.map(lambda leaf: jnp.flip(leaf, 0), tree)) if reverse else (lambda t: t)
    monoid = DiagonalAffine(x.shape[1:], x.dtype)
    decay = decay if decay.ndim == x.ndim else jnp.broadcast_to(decay, x.shape)
    if reset is not None:
        # What decays at a reset is the identity, whatever the decay is.
        decay = jnp.where(_expand(reset, x), jnp.ones((), x.dtype), decay)
    elements = flip((decay, x))
    start = (jnp.ones_like(initial), initial)
    if reset is None:
        return flip(scan(monoid, elements, initial=start, backend=backend)[1])
    flagged = (elements, flip(reset))
    (_, h), _ = scan(Resettable(monoid), flagged, initial=(start, jnp.zeros((), bool)), backend=backend)
    return flip(h)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recurrence(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    return _run(backend, reverse, decay, x, reset, initial)


def _recurrence_fwd(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> tuple[jax.Array, Any]:
    h: Any = _recurrence(backend, reverse, decay, x, reset, initial)
    return h, (decay, x[:0], reset, initial, h)


def _recurrence_bwd(backend: str, reverse: bool, residuals: Any, h_bar: jax.Array) -> tuple[Any, Any, None, Any]:
    decay, like_x, reset, initial, h = residuals
    cotangents: Any = _cotangents(backend, reverse, decay, reset, initial, h, h_bar)
    g, decay_bar = cotangents
    first = -1 if reverse else 0
    initial_bar = (decay[first] if decay.ndim == h.ndim else decay) * g[first]
    if reset is not None:
        initial_bar = jnp.where(reset[first], jnp.zeros((), h.dtype), initial_bar)
    return decay_bar, g.astype(like_x.dtype), None, initial_bar


_recurrence.defvjp(_recurrence_fwd, _recurrence_bwd)


def _cotangents_by_recurrence(
    backend: str,
    reverse: bool,
    decay: jax.Array,
    reset: jax.Array | None,
    initial: jax.Array,
    h: jax.Array,
    h_bar: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """g_t = h̄_t + decay_{t+1} g_{t+1}, the cotangent of x_t, and g_t h_{t-1}, that of decay_t; cut at resets.

    With t+1 the next step in the direction of the scan; for a time-invariant decay the sum of its cotangents.
    """
    varying = decay.ndim == h.ndim

    def following(values: jax.Array) -> jax.Array:
        parts = (values[:1], values[:-1]) if reverse else (values[1:], values[-1:])
        return jnp.concatenate(parts)

    g: Any = _recurrence(
        backend,
        not reverse,
        following(decay) if varying else decay,
        h_bar,
        None if reset is None else following(reset),
        jnp.zeros_like(initial),
    )
    previous = jnp.concatenate((h[1:], initial[None]) if reverse else (initial[None], h[:-1]))
    product = g * previous
    if reset is not None:
        product = jnp.where(_expand(reset, h), jnp.zeros((), h.dtype), product)
    return g, product if varying else jnp.sum(product, axis=0)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _cotangents(
    backend: str,
    reverse: bool,
    decay: jax.Array,
    reset: jax.Array | None,
    initial: jax.Array,
    h: jax.Array,
    h_bar: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`_cotangents_by_recurrence`, in one pass where the backend has one."""
    if backend != "native":
        return _cotangents_by_recurrence(backend, reverse, decay, reset, initial, h, h_bar)
    rows, flat_decay, flags = partial(_flat, axes=h.ndim), _flat(decay, h.ndim), _flags(reset, h)
    g, decay_bar = native.backward(flat_decay, flags, rows(h_bar), rows(h), initial.reshape(-1), reverse=reverse)
    return g.reshape(h.shape), decay_bar.reshape(decay.shape)


def _cotangents_fwd(backend: str, reverse: bool, *inputs: Any) -> tuple[Any, Any]:
    return _cotangents(backend, reverse, *inputs), inputs


def _cotangents_bwd(backend: str, reverse: bool, inputs: Any, cotangents: Any) -> Any:
    decay, reset, *others = inputs

    def unfused(decay: jax.Array, *others: jax.Array) -> Any:
        return _cotangents_by_recurrence(backend, reverse, decay, reset, *others)

    decay_bar, *bars = jax.vjp(unfused, decay, *others)[1](cotangents)
    return decay_bar, None, *bars


_cotangents.defvjp(_cotangents_fwd, _cotangents_bwd)
