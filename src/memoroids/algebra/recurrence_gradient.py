"""The derivatives of the linear recurrence, which are linear recurrences: in its direction and in the other one."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memoroids.algebra.linear_map import Arrays, linear_map
from memoroids.algebra.recurrence_backends import expand_flags, run_forward, run_native_backward


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def differentiable_recurrence(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    """`run_forward` with derivatives of every order and mode, for `decay`, `x` and `initial`.

    The reverse pass keeps h, `decay`, `reset` and `initial`, but not x.
    """
    return run_forward(backend, reverse, decay, x, reset, initial)


@differentiable_recurrence.defjvp
def _recurrence_jvp(backend: str, reverse: bool, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    decay, x, reset, initial = primals
    decay_dot, x_dot, _, initial_dot = tangents
    h: Any = differentiable_recurrence(backend, reverse, decay, x, reset, initial)
    residuals = (decay, initial, h) if reset is None else (decay, initial, h, reset)
    dots = decay_dot, x_dot.astype(h.dtype), initial_dot
    (h_dot,) = linear_map(_tangent, _transposed, (backend, reverse), residuals, dots)
    return h, h_dot


def _tangent(backend: str, reverse: bool, residuals: Arrays, dots: Arrays) -> Arrays:
    """ḣ_t = decay_t ḣ_{t-1} + ẋ_t + ȧ_t h_{t-1}, where the first and the last term are 0 if t is reset."""
    (decay, initial, h, *flags), (decay_dot, x_dot, initial_dot) = residuals, dots
    reset = flags[0] if flags else None
    decay_dot = decay_dot if decay_dot.ndim == h.ndim else decay_dot[None]
    added = _kept(decay_dot * _previous(reverse, initial, h), reset)
    h_dot: Any = differentiable_recurrence(backend, reverse, decay, x_dot + added, reset, initial_dot)
    return (h_dot,)


def _transposed(backend: str, reverse: bool, residuals: Arrays, cotangents: Arrays) -> Arrays:
    """The cotangents of `decay`, x and `initial`."""
    (decay, initial, h, *flags), (h_bar,) = residuals, cotangents
    reset = flags[0] if flags else None
    both: Any = _cotangents(backend, reverse, decay, reset, initial, h, h_bar)
    g, decay_bar = both
    first = -1 if reverse else 0
    initial_bar = (decay[first] if decay.ndim == h.ndim else decay) * g[first]
    if reset is not None:
        initial_bar = jnp.where(reset[first], jnp.zeros((), h.dtype), initial_bar)
    return decay_bar, g, initial_bar


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _cotangents(
    backend: str,
    reverse: bool,
    decay: jax.Array,
    reset: jax.Array | None,
    initial: jax.Array,
    h: jax.Array,
    h_bar: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and `decay`, in one pass if the backend has a kernel for both.

    A kernel has no derivatives of its own, so this function is differentiated as `_cotangents_by_recurrence`.
    """
    if backend == "native":
        return run_native_backward(reverse, decay, reset, initial, h, h_bar)
    return _cotangents_by_recurrence(backend, reverse, decay, reset, initial, h, h_bar)


@_cotangents.defjvp
def _cotangents_jvp(backend: str, reverse: bool, primals: Any, tangents: Any) -> Any:
    return jax.jvp(partial(_cotangents_by_recurrence, backend, reverse), primals, tangents)


def _cotangents_by_recurrence(
    backend: str,
    reverse: bool,
    decay: jax.Array,
    reset: jax.Array | None,
    initial: jax.Array,
    h: jax.Array,
    h_bar: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """g_t = h̄_t + decay_{t+1} g_{t+1}, the cotangent of x_t, and g_t h_{t-1}, the cotangent of decay_t.

    Here t + 1 is the next step in the direction of the recurrence. If t + 1 is reset, g_t = h̄_t; if t is reset, the
    cotangent of decay_t is 0. For a time-invariant decay, its cotangents are summed over time.
    """
    varying = decay.ndim == h.ndim

    def following(values: jax.Array) -> jax.Array:
        parts = (values[:1], values[:-1]) if reverse else (values[1:], values[-1:])
        return jnp.concatenate(parts)

    g: Any = differentiable_recurrence(
        backend,
        not reverse,
        following(decay) if varying else decay,
        h_bar,
        None if reset is None else following(reset),
        jnp.zeros_like(initial),
    )
    product = _kept(g * _previous(reverse, initial, h), reset)
    return g, product if varying else jnp.sum(product, axis=0)


def _previous(reverse: bool, initial: jax.Array, h: jax.Array) -> jax.Array:
    """h_{t-1} for every t, in the direction of the recurrence."""
    return jnp.concatenate((h[1:], initial[None]) if reverse else (initial[None], h[:-1]))


def _kept(values: jax.Array, reset: jax.Array | None) -> jax.Array:
    """`values` (T, …), with 0 in the steps that are reset."""
    return values if reset is None else jnp.where(expand_flags(reset, values), jnp.zeros((), values.dtype), values)
