"""The linear recurrence with a custom reverse pass: its gradient is the same recurrence, run in the other direction."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memoroids.algebra.recurrence_backends import expand_flags, run_forward, run_native_backward


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def differentiable_recurrence(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    """`run_forward` with reverse-mode derivatives of every order, for `decay`, `x` and `initial`.

    The reverse pass keeps h, `decay`, `reset` and `initial`, but not x.
    """
    return run_forward(backend, reverse, decay, x, reset, initial)


def _recurrence_fwd(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> tuple[jax.Array, Any]:
    h: Any = differentiable_recurrence(backend, reverse, decay, x, reset, initial)
    return h, (decay, x[:0], reset, initial, h)  # of x only the dtype is needed


def _recurrence_bwd(backend: str, reverse: bool, residuals: Any, h_bar: jax.Array) -> tuple[Any, Any, None, Any]:
    decay, like_x, reset, initial, h = residuals
    cotangents: Any = _cotangents(backend, reverse, decay, reset, initial, h, h_bar)
    g, decay_bar = cotangents
    first = -1 if reverse else 0
    initial_bar = (decay[first] if decay.ndim == h.ndim else decay) * g[first]
    if reset is not None:
        initial_bar = jnp.where(reset[first], jnp.zeros((), h.dtype), initial_bar)
    return decay_bar, g.astype(like_x.dtype), None, initial_bar


differentiable_recurrence.defvjp(_recurrence_fwd, _recurrence_bwd)


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
    """The cotangents of x and `decay`, in one pass if the backend has a kernel for both.

    A kernel has no derivatives of its own, so this function is differentiated as `_cotangents_by_recurrence`.
    """
    if backend == "native":
        return run_native_backward(reverse, decay, reset, initial, h, h_bar)
    return _cotangents_by_recurrence(backend, reverse, decay, reset, initial, h, h_bar)


def _cotangents_fwd(backend: str, reverse: bool, *inputs: Any) -> tuple[Any, Any]:
    return _cotangents(backend, reverse, *inputs), inputs


def _cotangents_bwd(backend: str, reverse: bool, inputs: Any, cotangents: Any) -> Any:
    decay, reset, *others = inputs

    def unfused(decay: jax.Array, *others: jax.Array) -> Any:
        return _cotangents_by_recurrence(backend, reverse, decay, reset, *others)

    decay_bar, *bars = jax.vjp(unfused, decay, *others)[1](cotangents)
    return decay_bar, None, *bars


_cotangents.defvjp(_cotangents_fwd, _cotangents_bwd)


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
    previous = jnp.concatenate((h[1:], initial[None]) if reverse else (initial[None], h[:-1]))
    product = g * previous
    if reset is not None:
        product = jnp.where(expand_flags(reset, h), jnp.zeros((), h.dtype), product)
    return g, product if varying else jnp.sum(product, axis=0)
