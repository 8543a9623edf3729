"""Scans over time: one meaning, several backends, and a default for each platform that was measured."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.monoid import DiagonalAffine, Element, Monoid
from memoroids.resettable import Resettable

BACKENDS = ("sequential", "associative")

# Two CPU cores: sequential is faster at every size measured, forward and with gradient (`memoroids bench scan`).
# Accelerators: a step of a sequential scan is a kernel launch, so the logarithmic depth wins; a choice by reason.
_DEFAULT_BACKEND = {"cpu": "sequential"}


def default_backend() -> str:
    """The backend used where none is named, chosen for the platform JAX runs on."""
    return _DEFAULT_BACKEND.get(jax.default_backend(), "associative")


def resolve_backend(backend: str | None) -> str:
    """`backend`, or the platform's default for None. Raises `ValueError` for one that does not exist."""
    backend = default_backend() if backend is None else backend
    if backend not in BACKENDS:
        raise ValueError(f"unknown scan backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    return backend


def _length(tree: Any) -> int:
    lengths = {leaf.shape[0] if leaf.ndim else -1 for leaf in jax.tree.leaves(tree)}
    if len(lengths) != 1 or -1 in lengths:
        raise ValueError(
            f"the leaves of a scan must share one leading time axis, got lengths {sorted(map(str, lengths))}"
        )
    return lengths.pop()


def _check_element(monoid: Monoid, element: Element, what: str) -> None:
    """What is scanned must look like the identity, or the scan would fail far from the cause."""
    name, expected = type(monoid).__name__, jax.eval_shape(monoid.identity)
    if jax.tree.structure(expected) != jax.tree.structure(element):
        raise ValueError(
            f"{name}: {what} has structure {jax.tree.structure(element)}, "
            f"its identity has {jax.tree.structure(expected)}"
        )
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(element), strict=True):
        if (want.shape, want.dtype) != (got.shape, got.dtype):
            raise ValueError(
                f"{name}: {what} is {got.dtype}{list(got.shape)}, its identity is {want.dtype}{list(want.shape)}"
            )


def scan(
    monoid: Monoid,
    elements: Element,
    *,
    initial: Element | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Element:
    """All running products of a sequence under a monoid.

    Forward: `initial` • x_0 • … • x_t for every t. With `reverse=True`: x_t • x_{t+1} • … • x_{T-1} • `initial`; the
    operands keep their order in time either way.

    **Arguments:** `elements`, a pytree like `monoid.identity()` with a leading time axis T on every leaf; `initial`,
    one element without the time axis (default: the identity); `backend`, "sequential" (`lax.scan`, O(T) depth) or
    "associative" (`lax.associative_scan`, O(log T) depth), default by platform.

    **Returns:** a pytree like `elements`.

    Raises `ValueError` for an unknown backend or elements that do not look like the identity.
    Source: Morad et al. 2024, Section 3 and Equation 7.
    """
    backend = resolve_backend(backend)
    if _length(elements) == 0:
        return elements
    element = jax.eval_shape(lambda e: jax.tree.map(lambda leaf: leaf[0], e), elements)
    _check_element(monoid, element, "an element, without its time axis,")
    if initial is not None:
        _check_element(monoid, jax.eval_shape(lambda: initial), "initial")
    if backend == "sequential":
        return _sequential(monoid, elements, monoid.identity() if initial is None else initial, reverse)
    return _associative(monoid, elements, initial, reverse)


def _sequential(monoid: Monoid, elements: Element, initial: Element, reverse: bool) -> Element:
    def step(carry: Element, x: Element) -> tuple[Element, Element]:
        carry = monoid.combine(x, carry) if reverse else monoid.combine(carry, x)
        return carry, carry

    return lax.scan(step, initial, elements, reverse=reverse)[1]


def _associative(monoid: Monoid, elements: Element, initial: Element | None, reverse: bool) -> Element:
    if initial is not None:
        end = -1 if reverse else 0
        first = jax.tree.map(lambda leaf: leaf[end], elements)
        first = monoid.combine(first, initial) if reverse else monoid.combine(initial, first)
        elements = jax.tree.map(lambda leaf, value: leaf.at[end].set(value), elements, first)
    combine = jax.vmap(monoid.combine)
    if reverse:
        # lax hands over the accumulated future as the left operand; in time it stands on the right.
        return lax.associative_scan(lambda future, now: combine(now, future), elements, reverse=True)
    return lax.associative_scan(combine, elements)


def linear_recurrence(
    decay: jax.Array,
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
    (default 0); `reverse`: run from the end, h_t = decay_t h_{t+1} + x_t; `backend` as in `scan`.

    **Returns:** h (T, …) in the promoted dtype of `decay` and `x`.

    The associative backend multiplies decays up along time, so its error grows with the steps that a decay near 1 is
    remembered: at |decay| = 0.999 and 1,024 steps it is up to ten times the sequential one's.

    Nothing crosses a reset, forwards or backwards, NaN and inf included. Reverse-mode derivatives of every order;
    forward mode is not defined. Raises `ValueError` on shapes that do not fit.
    """
    decay, x = jnp.asarray(decay), jnp.asarray(x)
    with jax.numpy_dtype_promotion("standard"):  # a real decay of a complex state is meant, however strict the session
        dtype = jnp.promote_types(decay.dtype, x.dtype)
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
    if reset is not None and reset.shape != x.shape[:1]:
        raise ValueError(f"linear_recurrence: reset {reset.shape} must have shape {x.shape[:1]}")
    initial = jnp.zeros(state_shape, dtype) if initial is None else jnp.asarray(initial)
    if initial.shape != state_shape:
        raise ValueError(f"linear_recurrence: initial {initial.shape} must have shape {state_shape}")
    backend = resolve_backend(backend)
    if x.shape[0] == 0:
        return x.astype(dtype)
    return _recurrence(backend, reverse, decay.astype(dtype), x.astype(dtype), reset, initial.astype(dtype))


def _run(
    backend: str, reverse: bool, decay: jax.Array, x: jax.Array, reset: jax.Array | None, initial: jax.Array
) -> jax.Array:
    varying = decay.ndim == x.ndim
    if backend == "sequential":

        def step(h: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
            a, x_t, reset_t = inputs
            decayed = (a if varying else decay) * h
            # Selected after the product, so that not even a NaN in the decay of a reset step gets through.
            kept = decayed if reset_t is None else jnp.where(reset_t, jnp.zeros((), h.dtype), decayed)
            h = kept + x_t
            return h, h

        return lax.scan(step, initial, (decay if varying else None, x, reset), reverse=reverse)[1]
    # The recurrence runs in the direction of the scan, so a reversed one is the forward one of the flipped sequence.
    flip = (lambda tree: jax.tree.map(lambda leaf: jnp.flip(leaf, 0), tree)) if reverse else (lambda t: t)
    monoid = DiagonalAffine(x.shape[1:], x.dtype)
    decay = decay if varying else jnp.broadcast_to(decay, x.shape)
    if reset is not None:
        # What decays at a reset is the identity, whatever the decay is.
        decay = jnp.where(lax.broadcast_in_dim(reset, x.shape, (0,)), jnp.ones((), x.dtype), decay)
    elements = flip((decay, x))
    start = (jnp.ones_like(initial), initial)
    if reset is None:
        return flip(_associative(monoid, elements, start, reverse=False)[1])
    flagged = (elements, flip(reset))
    (_, h), _ = _associative(Resettable(monoid), flagged, (start, jnp.zeros((), bool)), reverse=False)
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
    return h, (decay, reset, initial, h)


def _recurrence_bwd(backend: str, reverse: bool, residuals: Any, h_bar: jax.Array) -> tuple[Any, Any, None, Any]:
    # The cotangent g obeys the same recurrence in the other direction, g_t = h̄_t + decay_{t+1} g_{t+1}, cut where t+1
    # is reset: with t+1 the next element in the direction of the scan. Then x̄_t = g_t and decay̅_t = g_t h_{t-1}.
    decay, reset, initial, h = residuals
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
        product = jnp.where(lax.broadcast_in_dim(reset, h.shape, (0,)), jnp.zeros((), h.dtype), product)
    decay_bar = product if varying else jnp.sum(product, axis=0)
    first = -1 if reverse else 0
    initial_bar = (decay[first] if varying else decay) * g[first]
    if reset is not None:
        initial_bar = jnp.where(reset[first], jnp.zeros((), h.dtype), initial_bar)
    return decay_bar, g, None, initial_bar


_recurrence.defvjp(_recurrence_fwd, _recurrence_bwd)
