"""The linear recurrence as a Pallas kernel for GPUs, lowered through Triton."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from memoroids.algebra.kernels.planes import joined, next_state, planes_of
from memoroids.algebra.kernels.time_blocks import in_time_blocks

# A program runs one block of time for one block of channels, with one thread per channel. 16,384 steps of 256 channels
# make 256 programs, about two for each multiprocessor of a large GPU; longer tapes and batches make more.
TIME_BLOCK, CHANNEL_BLOCK = 128, 128
# Rows loaded before the first of them is used, so that the latency of one load is hidden behind the others.
AHEAD = 32


def recurrence(
    decay: jax.Array,
    x: jax.Array,
    reset: jax.Array | None,
    initial: jax.Array,
    *,
    reverse: bool,
    interpret: bool = False,
    time_block: int = TIME_BLOCK,
    channel_block: int = CHANNEL_BLOCK,
    ahead: int = AHEAD,
) -> jax.Array:
    """h_t = decay_t h_{t-1} + x_t, where the first term is 0 if reset[t]; see `memoroids.linear_recurrence`.

    **Arguments:** `x` (T, C); `decay` (C,), never broadcast over time, or (T, C); `reset` (T,) bool or None; `initial`
    (C,), in the dtype of the state; `time_block`, consecutive steps per program; `channel_block`, channels per program
    (a power of two); `ahead`, rows a program loads at once; `interpret`: run on any platform, slowly.

    **Returns:** h (T, C), in the dtype of `initial`.

    If T fits one time block, x is read once and h written once: 8 bytes per number in float32. Otherwise x is read
    twice, the first time for the final state of each block: 12 bytes. If a batch fills the GPU, `time_block` may be T.
    Complex numbers are processed as two real planes.
    """
    options: dict[str, Any] = {"interpret": interpret, "channel_block": channel_block, "ahead": ahead}
    return in_time_blocks(
        partial(_run, reverse=reverse, **options),
        decay,
        x,
        reset,
        initial,
        reverse=reverse,
        time_block=time_block,
        # One program runs through the few blocks of a short tape sooner than three more launches would.
        outer=lambda blocks: blocks if blocks <= 2 * time_block else time_block,
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
    channel_block: int,
    ahead: int,
    interpret: bool,
) -> jax.Array:
    """Every time block from its row of `start` (parts, C): all states (T, C), or with `totals` the last of each."""
    (steps, channels), dtype, block = x.shape, start.dtype, (time_block, channel_block, ahead)
    arrays = planes_of(dtype, decay, x, start)
    flags = [] if reset is None else [reset.astype(jnp.int32)]
    plane = jnp.finfo(dtype).dtype
    shape = jax.ShapeDtypeStruct(start.shape if totals else x.shape, plane)
    kernel = partial(
        _kernel,
        planes=len(arrays[0]),
        steps=steps,
        channels=channels,
        varying=decay.ndim == x.ndim,
        resets=reset is not None,
        reverse=reverse,
        totals=totals,
        block=block,
    )
    out = pl.pallas_call(
        kernel,
        out_shape=[shape] * len(arrays[0]),
        grid=(start.shape[0], -(-channels // block[1])),
        interpret=interpret,
        compiler_params=None if interpret else triton.CompilerParams(num_warps=max(1, block[1] // 32)),
    )(*[plane for array in arrays for plane in array], *flags)
    return joined(out)


def _kernel(
    *refs: Any,
    planes: int,
    steps: int,
    channels: int,
    varying: bool,
    resets: bool,
    reverse: bool,
    totals: bool,
    block: tuple[int, int, int],
) -> None:
    decay, x, start = (refs[i * planes : (i + 1) * planes] for i in range(3))
    reset, out = refs[3 * planes] if resets else None, refs[-planes:]
    part = pl.program_id(0)
    channel = pl.program_id(1) * block[1] + jnp.arange(block[1])
    inside = channel < channels
    dtype = start[0].dtype

    def row(arrays: Any, *at: Any, mask: Any) -> list[jax.Array]:
        return [triton.load(a.at[(*at, channel)], mask=mask, other=0).astype(dtype) for a in arrays]

    constant = None if varying else row(decay, mask=inside)

    def several(k: Any, h: Any) -> Any:
        loaded = []
        for j in range(block[2]):
            i = k * block[2] + j
            place = part * block[0] + i
            # Rows past the end of the sequence or of this block are neither read nor written.
            ok = (i < block[0]) & (place < steps)
            t = jnp.where(ok, steps - 1 - place if reverse else place, 0)
            mask = inside & ok
            cut = None if reset is None else reset[t] != 0
            loaded.append((t, ok, mask, cut, row(decay, t, mask=mask) if varying else constant, row(x, t, mask=mask)))
        for t, ok, mask, cut, a, x_t in loaded:
            h = [jnp.where(ok, n, old) for n, old in zip(next_state(a, h, x_t, cut), h, strict=True)]
            if not totals:
                for ref, value in zip(out, h, strict=True):
                    triton.store(ref.at[t, channel], value, mask=mask)
        return tuple(h)

    h = lax.fori_loop(0, -(-block[0] // block[2]), several, tuple(row(start, part, mask=inside)))
    if totals:
        for ref, value in zip(out, h, strict=True):
            triton.store(ref.at[part, channel], value, mask=inside)
