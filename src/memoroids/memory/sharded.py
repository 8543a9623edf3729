"""One tape on several devices: `scan`, `linear_recurrence` and memories whose time axis is sharded over a mesh axis.

Each device scans its own shard; the devices then exchange the final elements, one per device; last, each combines the
element accumulated before its shard with the results of its scan.
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
from memoroids.memory.memoroid import GatedMemoroid, LinearMemoroid, Memoroid, Memory, Stack, State


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
    """`memoroids.scan` of elements whose time axis is sharded over the mesh axis `axis`.

    **Arguments:** as in `scan`, where T must be divisible by the number of devices along `axis`; `initial` is
    replicated on all devices.

    **Returns:** a pytree like `elements`, its time axis sharded over `axis`. Operands keep their order, so the result
    equals that of `scan` bit for bit if the operator is exact, as over integers. Reverse-mode derivatives are defined.

    Raises `ValueError` if the mesh has no such axis or T is not divisible, and as `scan` does.
    Source: the three phases of a blocked scan (Blelloch 1990).
    """
    like: Any = jax.eval_shape(lambda e, i: scan(monoid, e, initial=i, backend=backend), elements, initial)
    length = jax.tree.leaves(like)[0].shape[0]
    _check_parts("sharded_scan", length, mesh, axis)
    if length == 0:
        return elements
    # The monoid's arrays are passed as arguments, so that their cotangents are summed over the devices.
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
    """`memoroids.linear_recurrence` of an x whose time axis is sharded over the mesh axis `axis`.

    **Arguments:** as in `linear_recurrence`, where T must be divisible by the number of devices along `axis`; `initial`
    and a `decay` without time axis are replicated on all devices. Such a decay is never broadcast over T: each device
    holds only the powers that its own shard needs, decay^1 … decay^n.

    **Returns:** h (T, …) in the promoted dtype, its time axis sharded over `axis`. Each device sends its last h and the
    product of its decays; the state that enters a shard is added, decayed, up to the shard's first reset.

    Neither values nor gradients cross a reset, not even NaN and inf. Reverse-mode derivatives of every order are
    defined. Raises `ValueError` if the mesh has no such axis or T is not divisible, and as `linear_recurrence` does.
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
        # The running products of the decays are the recurrence from 1 with zero input; they are 0 from a reset on.
        products = run(decay, jnp.zeros_like(x), reset, jnp.ones_like(initial), backend)
        seen = None
        if reset is not None:
            seen = lax.cummax(reset.astype(jnp.int32), axis=0, reverse=reverse).astype(bool)
        product, end, cut = _gather(_last((products, own, seen), reverse), axis)
        ends = run(product, end, cut, initial, "sequential")
        entering = _entering(initial, ends, axis, reverse)[None]
        if seen is not None:
            # Selected before the product, since the entering state may be NaN.
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
    """`model(x, begin, state)` of one tape whose time axis is sharded over the mesh axis `axis`.

    **Arguments:** `model`, a `Memoroid` or a `Stack` of them; `x` (T, input_size) and `begin` (T,) bool, where T must
    be divisible by the number of devices along `axis`; `state`, replicated on all devices; `backend`, one of
    `linear_recurrence` for a `GatedMemoroid`, else of `scan`: backends of the model's own do not apply.

    **Returns:** s (T, output_size), its time axis sharded over `axis`, and the final state, replicated on all devices.

    Raises `TypeError` if a model is not a memoroid whose state is an element of its monoid, and `ValueError` if T = 0
    and as `sharded_scan` does.
    """
    _check_parts("sharded_memory", x.shape[0], mesh, axis)
    if x.shape[0] == 0:
        raise ValueError(f"sharded_memory: a sequence needs at least one step, got x of shape {x.shape}")
    states: State = model.initial_state() if state is None else state
    if isinstance(model, Stack):
        after = []
        for layer, before in zip(model.bound().layers, states, strict=True):
            x, layer_state = sharded_memory(layer, x, begin, before, mesh=mesh, axis=axis, backend=backend)
            after.append(layer_state)
        return x, tuple(after)
    if not isinstance(model, Memoroid):
        raise TypeError(
            f"sharded_memory: {type(model).__name__} is not a memoroid, so its time axis cannot be sharded; "
            "use a Memoroid or a Stack of them"
        )
    if not isinstance(model, GatedMemoroid):
        element = jax.eval_shape(model.monoid.identity)
        if jax.tree.structure(states) != jax.tree.structure(element):
            raise TypeError(
                f"sharded_memory: the state of {type(model).__name__} is only a part of its monoid's elements, so its "
                "time axis cannot be sharded"
            )
    along, everywhere = NamedSharding(mesh, PartitionSpec(axis)), NamedSharding(mesh, PartitionSpec())
    x, begin = lax.with_sharding_constraint((x, begin), along)
    if isinstance(model, GatedMemoroid):
        constant = isinstance(model, LinearMemoroid)
        decay, drive = (model.decay(), jax.vmap(model.drive)(x, begin)) if constant else jax.vmap(model.lift)(x, begin)
        h = sharded_linear_recurrence(decay, drive, mesh=mesh, axis=axis, reset=begin, initial=states, backend=backend)
    else:
        elements, start = (jax.vmap(model.lift)(x, begin), begin), (states, jnp.zeros((), bool))
        h, _ = sharded_scan(Resettable(model.monoid), elements, mesh=mesh, axis=axis, initial=start, backend=backend)
    s = lax.with_sharding_constraint(jax.vmap(model.readout)(h, x, begin), along)
    return s, lax.with_sharding_constraint(_last(h, reverse=False), everywhere)


def _check_parts(name: str, length: int, mesh: Mesh, axis: str) -> None:
    if axis not in mesh.axis_names:
        raise ValueError(f"{name}: the mesh has no axis {axis!r}; its axes are {', '.join(map(str, mesh.axis_names))}")
    devices = mesh.shape[axis]
    if length % devices:
        below, above = length - length % devices, length - length % devices + devices
        fits = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"{name}: {length} steps cannot be divided equally over the {devices} devices of mesh axis {axis!r}; "
            f"use a multiple of {devices}, the nearest {fits}"
        )


def _on_parts(part: Callable[..., Any], mesh: Mesh, axis: str, shared: Any, divided: Any) -> Any:
    """`part(shared, divided)` on every device along `axis`, with `divided` and the result sharded on the first axis."""
    # check_vma is off, since user-defined operators and custom reverse passes do not annotate which values vary over
    # devices. The only collective is an all_gather, and the cotangents of `shared` are summed over devices either way.
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
    """What enters this device's shard: the end of the shard before it in the direction of the scan, or `start`."""
    index = lax.axis_index(axis)

    def pick(first: jax.Array, rest: jax.Array) -> jax.Array:
        parts = (rest[1:], first[None]) if reverse else (first[None], rest[:-1])
        return jnp.concatenate(parts)[index]

    return jax.tree.map(pick, start, ends)
