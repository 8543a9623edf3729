"""Scans of any monoid over time, by several equivalent backends with a default for each platform."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.monoid import Element, Monoid

BACKENDS = ("sequential", "blocked", "associative")

# On two CPU cores, sequential is the fastest at every size measured, with or without gradient (`memoroids bench scan`).
# On accelerators, every step of a sequential scan launches a kernel, so logarithmic depth should win; not measured.
_DEFAULT_BACKEND = {"cpu": "sequential"}


def default_backend() -> str:
    """The default backend on the platform JAX runs on."""
    return _DEFAULT_BACKEND.get(jax.default_backend(), "associative")


def resolve_backend(backend: str | None) -> str:
    """`backend`, or the platform's default for None. Raises `ValueError` if it does not exist."""
    backend = default_backend() if backend is None else backend
    if backend not in BACKENDS:
        raise ValueError(f"scan: unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    return backend


def _length(tree: Any) -> int:
    lengths = {leaf.shape[0] if leaf.ndim else -1 for leaf in jax.tree.leaves(tree)}
    if len(lengths) != 1 or -1 in lengths:
        got = ", ".join("a scalar" if length < 0 else str(length) for length in sorted(lengths)) or "no leaves"
        raise ValueError(f"scan: all leaves must have a leading time axis of the same length, got {got}")
    return lengths.pop()


def _check_element(monoid: Monoid, element: Element, what: str) -> None:
    """Raises `ValueError` unless `element` looks like the identity: the scan would fail with an unclear message."""
    name, expected = type(monoid).__name__, jax.eval_shape(monoid.identity)
    if jax.tree.structure(expected) != jax.tree.structure(element):
        raise ValueError(
            f"{name}: {what} has structure {jax.tree.structure(element)}, "
            f"but the identity has {jax.tree.structure(expected)}"
        )
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(element), strict=True):
        if (want.shape, want.dtype) != (got.shape, got.dtype):
            raise ValueError(
                f"{name}: {what} is {got.dtype}{list(got.shape)}, but the identity is {want.dtype}{list(want.shape)}"
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

    Forward: `initial` • x_0 • … • x_t for every t. With `reverse=True`: x_t • x_{t+1} • … • x_{T-1} • `initial`. In
    both directions the operands stay in the order of time.

    **Arguments:** `elements`, a pytree like `monoid.identity()` with a leading time axis T on every leaf; `initial`,
    one element without the time axis (default: the identity); `backend`, "sequential" (`lax.scan`, O(T) depth),
    "blocked" (√T blocks in parallel, O(√T) depth, twice the operations) or "associative" (`lax.associative_scan`,
    O(log T) depth). The default is "sequential" on CPUs and "associative" elsewhere.

    **Returns:** a pytree like `elements`.

    Raises `ValueError` if the backend does not exist, or if `elements` or `initial` do not have the structure, shapes
    and dtypes of the identity. Source: Morad et al. 2024, Section 3 and Equation 7.
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
    if backend == "blocked":
        return _blocked(monoid, elements, monoid.identity() if initial is None else initial, reverse)
    return _associative(monoid, elements, initial, reverse)


def in_blocks(tree: Any, filler: Any, reverse: bool) -> Any:
    """Reshapes leaves (T, …) to (L, B, …): B blocks of L consecutive steps, in the direction of the scan.

    L is √T rounded up. The last block is padded with `filler`, a pytree of leaves without a time axis.
    """

    def cut(leaf: jax.Array, fill: jax.Array) -> jax.Array:
        steps = leaf.shape[0]
        length = math.isqrt(steps - 1) + 1
        blocks = -(-steps // length)
        leaf = jnp.flip(leaf, 0) if reverse else leaf
        rest = jnp.broadcast_to(fill, (blocks * length - steps, *leaf.shape[1:]))
        leaf = jnp.concatenate((leaf, rest)) if rest.shape[0] else leaf
        return jnp.swapaxes(leaf.reshape(blocks, length, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(cut, tree, filler)


def out_of_blocks(tree: Any, steps: int, reverse: bool) -> Any:
    """The inverse of `in_blocks`, for a sequence of `steps` steps."""

    def join(leaf: jax.Array) -> jax.Array:
        leaf = jnp.swapaxes(leaf, 0, 1)
        leaf = leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])[:steps]
        return jnp.flip(leaf, 0) if reverse else leaf

    return jax.tree.map(join, tree)


def _blocked(monoid: Monoid, elements: Element, initial: Element, reverse: bool) -> Element:
    steps = _length(elements)

    def combine(accumulated: Element, x: Element) -> Element:
        return monoid.combine(x, accumulated) if reverse else monoid.combine(accumulated, x)

    def step(carry: Element, x: Element) -> tuple[Element, Element]:
        carry = jax.vmap(combine)(carry, x)
        return carry, carry

    blocks = in_blocks(elements, monoid.identity(), reverse)
    first = jax.tree.map(lambda leaf: leaf[0], blocks)
    _, rest = lax.scan(step, first, jax.tree.map(lambda leaf: leaf[1:], blocks))
    local = jax.tree.map(lambda one, more: jnp.concatenate((one[None], more)), first, rest)

    def enter(carry: Element, total: Element) -> tuple[Element, Element]:
        return combine(carry, total), carry

    _, entering = lax.scan(enter, initial, jax.tree.map(lambda leaf: leaf[-1], local))
    whole = jax.vmap(lambda within: jax.vmap(combine)(entering, within))(local)
    return out_of_blocks(whole, steps, reverse)


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
        # lax passes the accumulated future as the left operand; in the order of time it is the right one.
        return lax.associative_scan(lambda future, now: combine(now, future), elements, reverse=True)
    return lax.associative_scan(combine, elements)
