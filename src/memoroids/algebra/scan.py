"""Scans of any monoid over time: one meaning, several backends, and a default for each platform."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.monoid import Element, Monoid

BACKENDS = ("sequential", "blocked", "associative")

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
    one element without the time axis (default: the identity); `backend`, "sequential" (`lax.scan`, O(T) depth),
    "blocked" (√T blocks side by side, O(√T) depth, twice the operations) or "associative" (`lax.associative_scan`,
    O(log T) depth), default by platform.

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
    if backend == "blocked":
        return _blocked(monoid, elements, monoid.identity() if initial is None else initial, reverse)
    return _associative(monoid, elements, initial, reverse)


def in_blocks(tree: Any, filler: Any, reverse: bool) -> Any:
    """Leaves (T, …) as (L, B, …): B blocks of L neighbouring steps side by side, in the direction of the scan.

    L is √T rounded up; the end of the last block is filled with `filler`, a pytree of leaves without a time axis.
    """

    def cut(leaf: jax.Array, fill: jax.Array) -> jax.Array:
        steps = leaf.shape[0]
        length = math.isqrt(steps - 1) + 1
        blocks = -(-steps // length)
        leaf = jnp.flip(leaf, 0) if reverse else leaf
        rest = jnp.broadcast_to(fill, (blocks * length - steps, *leaf.shape[1:]))
        leaf = jnp.concatenate((leaf, rest)) if rest.size else leaf
        return jnp.swapaxes(leaf.reshape(blocks, length, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(cut, tree, filler)


def out_of_blocks(tree: Any, steps: int, reverse: bool) -> Any:
    """The inverse of `in_blocks`, for a sequence of `steps`."""

    def join(leaf: jax.Array) -> jax.Array:
        leaf = jnp.swapaxes(leaf, 0, 1)
        leaf = leaf.reshape(-1, *leaf.shape[2:])[:steps]
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
        # lax hands over the accumulated future as the left operand; in time it stands on the right.
        return lax.associative_scan(lambda future, now: combine(now, future), elements, reverse=True)
    return lax.associative_scan(combine, elements)
