"""One tape over several devices: `scan`, `linear_recurrence` and memories whose time axis lies along a mesh axis.

Each device scans its part alone, the totals of the parts are exchanged, one element a device, and what comes before a
part is combined with the part's own results.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from memoroids.algebra.linear_recurrence import linear_recurrence
from memoroids.algebra.monoid import Element, Monoid
from memoroids.algebra.resettable import Resettable
from memoroids.algebra.scan import scan
from memoroids.memory.memoroid import LinearMemoroid, Memoroid, Memory, Stack, State


def sharded_scan(
    monoid: Monoid,
    elements: Element,
    *,
    mesh: Mesh,
    axis: str,
    initial: Element | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Element:
    """`memoroids.scan` of elements whose time axis is divided over the mesh axis `axis`.

    **Arguments:** as in `scan`, with T divisible by the devices along `axis`; `initial` is the same on every device.

    **Returns:** a pytree like `elements`, its time axis along `axis`. The operands keep their order, so where the
    operator is exact, as over integers, it is `scan` bit for bit. Reverse-mode derivatives.

    Raises `ValueError` for an axis the mesh does not have, a T that does not divide, and what `scan` refuses.
    Source: the three phases of a blocked scan (Blelloch 1990).
    """
    like: Any = jax.eval_shape(lambda e, i: scan(monoid, e, initial=i, backend=backend), elements, initial)
    length = jax.tree.leaves(like)[0].shape[0]
    _check_parts("sharded_scan", length, mesh, axis)
    if length == 0:
        return elements
    # Arrays of the monoid are arguments, so that their cotangents are summed over the devices.
    arrays, rest = eqx.partition(monoid, eqx.is_array)

    def part(shared: tuple[Any, Element | None], elements: Element) -> Element:
        arrays, initial = shared
        monoid = eqx.combine(arrays, rest)
        own = scan(monoid, elements, reverse=reverse, backend=backend)
        totals = _gather(_last(own, reverse), axis)
        start = monoid.identity() if initial is None else initial
        ends = scan(monoid, totals, initial=start, reverse=reverse, backend="sequential")
        entering = _entering(start, ends, axis, reverse)
        combine = (lambda e: monoid.combine(e, entering)) if reverse else (lambda e: monoid.combine(entering, e))
        return jax.vmap(combine)(own)

    return _on_parts(part, mesh, axis, (arrays, initial), elements)


def sharded_linear_recurrence(
    decay: jax.Array,
    x: jax.Array,
    *,
    mesh: Mesh,
    axis: str,
    reset: jax.Array | None = None,
    initial: jax.Array | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> jax.Array:
    """`memoroids.linear_recurrence` of an x whose time axis is divided over the mesh axis `axis`.

    **Arguments:** as in `linear_recurrence`, with T divisible by the devices along `axis`; `decay` without a time axis
    and `initial` are the same on every device. Such a decay is never broadcast over T: each device holds the powers
    that its own part needs, decay^1 … decay^n.

    **Returns:** h (T, …) in the promoted dtype, its time axis along `axis`. A device sends its last h and the product
    of its decays, and what entered its part is added up to the part's first reset alone.

    Nothing crosses a reset, forwards or backwards, NaN and inf included. Reverse-mode derivatives of every order.
    Raises `ValueError` for an axis the mesh does not have, a T that does not divide, and what `linear_recurrence`
    refuses.
    """
    decay, x = jnp.asarray(decay), jnp.asarray(x)
    like = jax.eval_shape(
        lambda a, x, b, i: linear_recurrence(a, x, reset=b, initial=i, backend=backend), decay, x, reset, initial
    )
    length, dtype = x.shape[0], like.dtype
    _check_parts("sharded_linear_recurrence", length, mesh, axis)
    if length == 0:
        return x.astype(dtype)
    varying = decay.ndim == x.ndim
    decay = (decay if varying else jnp.broadcast_to(decay, x.shape[1:])).astype(dtype)
    initial = jnp.zeros(x.shape[1:], dtype) if initial is None else jnp.asarray(initial).astype(dtype)
    reset = None if reset is None else jnp.asarray(reset)

    def part(shared: tuple[Any, jax.Array], divided: tuple[Any, jax.Array, Any]) -> jax.Array:
        (decay, initial), (decays, x, reset) = shared, divided
        decay = decay if decays is None else decays

        def run(decay: jax.Array, x: jax.Array, reset: Any, initial: Any, backend: str | None) -> jax.Array:
            return linear_recurrence(decay, x, reset=reset, initial=initial, reverse=reverse, backend=backend)

        own = run(decay, x, reset, None, backend)
        # The products of the decays so far are the recurrence of nothing from 1, and 0 from the first reset on.
        products = run(decay, jnp.zeros_like(x), reset, jnp.ones_like(initial), backend)
        seen = None
        if reset is not None:
            seen = lax.cummax(reset.astype(jnp.int32), axis=0, reverse=reverse).astype(bool)
        product, end, cut = _gather(_last((products, own, seen), reverse), axis)
        ends = run(product, end, cut, initial, "sequential")
        entering = _entering(initial, ends, axis, reverse)[None]
        if seen is not None:
            # Selected before the product: what entered may be a NaN.
            entering = jnp.where(lax.broadcast_in_dim(seen, x.shape, (0,)), jnp.zeros((), dtype), entering)
        return own + products * entering

    shared, divided = (None if varying else decay, initial), (decay if varying else None, x.astype(dtype), reset)
    return _on_parts(part, mesh, axis, shared, divided)


def sharded_memory(
    model: Memory,
    x: jax.Array,
    begin: jax.Array,
    state: State | None = None,
    *,
    mesh: Mesh,
    axis: str,
    backend: str | None = None,
) -> tuple[jax.Array, State]:
    """`model(x, begin, state)` of one tape whose time axis is divided over the mesh axis `axis`.

    **Arguments:** `model`, a `Memoroid` or a `Stack` of them; `x` (T, input_size) and `begin` (T,) bool, with T
    divisible by the devices along `axis`; `state`, the same on every device; `backend`, of `linear_recurrence` or
    `scan`: each part is scanned by its monoid, a model's own way of running in chunks does not apply.

    **Returns:** s (T, output_size), its time axis along `axis`, and the state after the last step, on every device.

    Raises `TypeError` for a memory that is no memoroid, and `ValueError` as `sharded_scan` does.
    """
    _check_parts("sharded_memory", x.shape[0], mesh, axis)
    if x.shape[0] == 0:
        raise ValueError(f"sharded_memory: a sequence needs at least one step, got x of shape {x.shape}")
    states: State = model.initial_state() if state is None else state
    if isinstance(model, Stack):
        after = []
        for layer, before in zip(model.layers, states, strict=True):
            x, layer_state = sharded_memory(layer, x, begin, before, mesh=mesh, axis=axis, backend=backend)
            after.append(layer_state)
        return x, tuple(after)
    if not isinstance(model, Memoroid):
        raise TypeError(
            f"sharded_memory: {type(model).__name__} is not a memoroid, so its parts cannot be run apart; "
            "a Memoroid or a Stack of them can"
        )
    along, everywhere = NamedSharding(mesh, PartitionSpec(axis)), NamedSharding(mesh, PartitionSpec())
    x, begin = lax.with_sharding_constraint((x, begin), along)
    if isinstance(model, LinearMemoroid):
        drive = jax.vmap(model.drive)(x, begin)
        h = sharded_linear_recurrence(
            model.decay(), drive, mesh=mesh, axis=axis, reset=begin, initial=states, backend=backend
        )
    else:
        elements, start = (jax.vmap(model.lift)(x, begin), begin), (states, jnp.zeros((), bool))
        h, _ = sharded_scan(Resettable(model.monoid), elements, mesh=mesh, axis=axis, initial=start, backend=backend)
    s = lax.with_sharding_constraint(jax.vmap(model.readout)(h, x, begin), along)
    return s, lax.with_sharding_constraint(_last(h, reverse=False), everywhere)


def _check_parts(name: str, length: int, mesh: Mesh, axis: str) -> None:
    if axis not in mesh.axis_names:
        raise ValueError(f"{name}: the mesh has no axis {axis!r}, its axes are {', '.join(map(str, mesh.axis_names))}")
    devices = mesh.shape[axis]
    if length % devices:
        below, above = length - length % devices, length - length % devices + devices
        fits = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"{name}: {length} steps do not divide over {devices} devices of mesh axis {axis!r}; "
            f"multiples of {devices} fit, the nearest {fits}"
        )


def _on_parts(part: Callable[..., Any], mesh: Mesh, axis: str, shared: Any, divided: Any) -> Any:
    """`part(shared, divided)` on every device along `axis`, `divided` and the result cut along their first axis."""
    # Operators and reverse passes are anyone's and know nothing of types that vary over devices, so these are not
    # checked; the only collective is an all_gather, and what is shared has its cotangents summed either way.
    mapped = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(axis)),
        out_specs=PartitionSpec(axis),
        check_vma=False,
    )
    return mapped(shared, divided)


def _last(tree: Any, reverse: bool) -> Any:
    """The last element in the direction of the scan."""
    return jax.tree.map(lambda leaf: leaf[0 if reverse else -1], tree)


def _gather(tree: Any, axis: str) -> Any:
    return jax.tree.map(lambda leaf: lax.all_gather(leaf, axis), tree)


def _entering(start: Any, ends: Any, axis: str, reverse: bool) -> Any:
    """What enters this device's part: the end of the part before it in the direction of the scan, or `start`."""
    index = lax.axis_index(axis)

    def pick(first: jax.Array, rest: jax.Array) -> jax.Array:
        parts = (rest[1:], first[None]) if reverse else (first[None], rest[:-1])
        return jnp.concatenate(parts)[index]

    return jax.tree.map(pick, start, ends)
