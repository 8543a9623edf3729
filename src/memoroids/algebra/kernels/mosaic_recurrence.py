"""The linear recurrence as a Pallas kernel for GPUs from Hopper on, lowered through Mosaic."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu

from memoroids.algebra.kernels.planes import joined, next_state, planes_of
from memoroids.algebra.kernels.time_blocks import in_time_blocks

LANES = 128
"""Channels of a program: one for each thread of a warp group."""
GRID = ("batch", "block", "group")
"""The axes of the grid: sequences, blocks of time, groups of channels."""
SHARED_BYTES = 192 * 2**10
"""What the blocks of a program may take of the shared memory of a multiprocessor, 227 KiB on Hopper."""


def recurrence(
    decay: jax.Array,
    x: jax.Array,
    reset: jax.Array | None,
    initial: jax.Array,
    *,
    reverse: bool,
    interpret: Any = None,
    time_block: int | None = None,
    lanes: int = LANES,
) -> jax.Array:
    """h_t = decay_t h_{t-1} + x_t, where the first term is 0 if reset[t]; see `memoroids.linear_recurrence`.

    A program copies a block of time of `lanes` channels into shared memory, runs through it with a thread for each
    channel, and copies the states back, while the next program of its multiprocessor does the same. Lengths that are no
    multiple of a block, and channels that are none of `lanes`, are padded. Complex numbers are two real planes. Mapped
    axes become one axis of programs.

    **Arguments:** `x` (T, C); `decay` (C,), never broadcast over time, or (T, C); `reset` (T,) bool or None; `initial`
    (C,), in the dtype of the state; `interpret`: parameters of JAX's GPU interpret mode, which runs on any platform,
    slowly; `time_block`, consecutive steps of a program, by default as many as fit; `lanes`: other than `LANES` only in
    interpret mode.

    **Returns:** h (T, C), in the dtype of `initial`.
    """
    if time_block is None:
        planes = 2 if jnp.issubdtype(initial.dtype, jnp.complexfloating) else 1
        row = planes * lanes * (2 + (decay.ndim == x.ndim)) * jnp.finfo(initial.dtype).dtype.itemsize
        time_block = next(size for size in (128, 64, 32) if size * row <= SHARED_BYTES)
    options: dict[str, Any] = {"interpret": interpret, "lanes": lanes}
    return in_time_blocks(
        partial(_run, reverse=reverse, **options),
        decay,
        x,
        reset,
        initial,
        reverse=reverse,
        time_block=time_block,
        outer=lambda blocks: time_block,
        forward=partial(recurrence, reverse=False, **options),
    )


def _run(
    decay: jax.Array,
    x: jax.Array,
    start: jax.Array,
    reset: jax.Array | None,
    *,
    reverse: bool,
    totals: bool,
    time_block: int,
    interpret: Any,
    lanes: int,
) -> jax.Array:
    """Every time block from its row of `start` (blocks, C): all states (T, C), or with `totals` the last of each."""
    (steps, channels), blocks, dtype = x.shape, start.shape[0], start.dtype
    groups = -(-channels // lanes)
    # A program gets to what is padded after the steps that count.
    rows = (blocks * time_block - steps, 0) if reverse else (0, blocks * time_block - steps)
    columns = (0, groups * lanes - channels)
    varying = decay.ndim == x.ndim
    decay = jnp.pad(decay, (rows, columns) if varying else (columns,))
    x, start = jnp.pad(x, (rows, columns)), jnp.pad(start, ((0, 0), columns))
    flags = [] if reset is None else [jnp.pad(reset.astype(jnp.int32), rows)]

    plane = jnp.finfo(dtype).dtype
    arrays = planes_of(dtype, decay, x, start)
    planes = len(arrays[0])
    wide, single = (time_block, lanes), (lanes,)
    shared = [
        mosaic_gpu.SMEM(shape, of[0].dtype)
        for shape, of in zip((wide if varying else single, wide, single), arrays, strict=True)
        for _ in range(planes)
    ]
    shared += [mosaic_gpu.SMEM((time_block,), jnp.int32) for _ in flags]
    kept = [mosaic_gpu.SMEM(single if totals else wide, plane)] * planes
    kernel = partial(_kernel, planes=planes, varying=varying, resets=reset is not None, reverse=reverse, totals=totals)

    # Mosaic lowers no mapped axes, so a batch is an axis of the kernel's own, and mapped axes are merged with it.
    @custom_vmap
    def call(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        batch = inputs[0].shape[0]
        shape = jax.ShapeDtypeStruct((batch, *(start.shape if totals else x.shape)), plane)
        return mosaic_gpu.kernel(
            kernel,
            out_type=(shape,) * planes,
            grid=(batch, blocks, groups),
            grid_names=GRID,
            scratch_types=[*shared, *kept, mosaic_gpu.Barrier(num_arrivals=len(shared))],
            interpret=interpret,
        )(*inputs)

    @call.def_vmap
    def call_mapped(size: int, mapped: list[bool], *inputs: jax.Array) -> tuple[tuple[jax.Array, ...], Any]:
        whole = [a if its else jnp.broadcast_to(a, (size, *a.shape)) for a, its in zip(inputs, mapped, strict=True)]
        out = call(*[a.reshape(-1, *a.shape[2:]) for a in whole])
        return tuple(h.reshape(size, -1, *h.shape[1:]) for h in out), (True,) * planes

    inputs = [each for array in arrays for each in array] + flags
    h = joined([out[0] for out in call(*[each[None] for each in inputs])])
    if totals:
        return h[:, :channels]
    return h[rows[0] : rows[0] + steps, :channels]


def _kernel(*refs: Any, planes: int, varying: bool, resets: bool, reverse: bool, totals: bool) -> None:
    inputs = 3 * planes + resets
    sources, outputs, copies = refs[:inputs], refs[inputs : inputs + planes], refs[inputs + planes : -1]
    read, written, barrier = copies[:inputs], copies[inputs:], refs[-1]
    one, part, group = (lax.axis_index(name) for name in GRID)
    steps, lanes = read[planes].shape
    block = lax.axis_size(GRID[1]) - 1 - part if reverse else part
    rows, columns = pl.ds(block * steps, steps), pl.ds(group * lanes, lanes)
    places = [(one, rows, columns) if varying else (one, columns), (one, rows, columns), (one, part, columns)]
    places = [place for place in places for _ in range(planes)] + [(one, rows)] * resets
    for source, place, copy in zip(sources, places, read, strict=True):
        mosaic_gpu.copy_gmem_to_smem(source.at[place], copy, barrier)
    mosaic_gpu.barrier_wait(barrier)
    decay, x, start = (read[i * planes : (i + 1) * planes] for i in range(3))
    reset, dtype = read[3 * planes] if resets else None, start[0].dtype
    constant = None if varying else [ref[...].astype(dtype) for ref in decay]

    def step(i: jax.Array, h: Any) -> Any:
        row = steps - 1 - i if reverse else i
        a = [ref[row, :].astype(dtype) for ref in decay] if varying else constant
        # Mosaic selects between vectors by a vector only.
        cut = None if reset is None else jnp.broadcast_to(reset[row], (lanes,)) != 0
        h = tuple(next_state(a, h, [ref[row, :].astype(dtype) for ref in x], cut))
        if not totals:
            for ref, value in zip(written, h, strict=True):
                ref[row, :] = value
        return h

    h = lax.fori_loop(0, steps, step, tuple(ref[...] for ref in start))
    if totals:
        for ref, value in zip(written, h, strict=True):
            ref[...] = value
    mosaic_gpu.commit_smem()
    for ref, out in zip(written, outputs, strict=True):
        mosaic_gpu.copy_smem_to_gmem(ref, out.at[(one, part, columns) if totals else (one, rows, columns)])
    mosaic_gpu.wait_smem_to_gmem(0)
