"""Tapes of any length in bounded memory: a model is run chunk by chunk, with exact gradients across chunks."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

DEFAULT_CHUNK = 16_384


def check_chunk(chunk: int | None) -> None:
    """Raises `ValueError` unless `chunk` is None or a positive number of slots."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 slot, or None for the default of {DEFAULT_CHUNK:,}; got {chunk}")


def in_chunks(
    model: Any, x: jax.Array, begin: jax.Array, state: Any = None, *, chunk: int | None = None, **options: Any
) -> tuple[Any, Any]:
    """`model(x, begin, state)`, computed chunk by chunk: the same outputs and gradients with less memory.

        s, state = in_chunks(model, x, begin, chunk=4_096)   # any Memory or `agents.networks.Recurrent`

    The state is carried from chunk to chunk, and the activations inside a chunk are recomputed in the reverse pass.
    Apart from x and the outputs, memory therefore grows with the chunk, not with the tape, at the cost of a second
    forward pass. Gradients are those of backpropagation through the whole tape, without truncation. Derivatives of
    second order need a backend other than "native", whose kernel has first ones only inside a scan.

    **Arguments:** `x` (T, …); `begin` (T,) bool; `state`, default the model's initial state; `chunk`, in slots, default
    16,384 (a tape that fits one chunk is run in one call); `options`, passed to the model.

    **Returns:** the model's outputs (T, …) and its state after the last slot. Raises `ValueError` for a chunk below 1.
    Source: Chen et al. 2016 (recomputation).
    """
    check_chunk(chunk)
    chunk = DEFAULT_CHUNK if chunk is None else chunk
    slots = begin.shape[0]
    state = model.initial_state() if state is None else state
    if slots <= chunk:
        return model(x, begin, state, **options)

    def run(state: Any, inputs: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        out, state = model(*inputs, state, **options)
        return state, out

    run = jax.checkpoint(run, prevent_cse=False)
    whole = slots // chunk * chunk
    stacked = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, chunk, *leaf.shape[1:]), (x, begin))
    state, out = lax.scan(run, state, stacked)
    out = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), out)
    if whole < slots:
        state, rest = run(state, (x[whole:], begin[whole:]))
        out = jax.tree.map(lambda one, other: jnp.concatenate((one, other)), out, rest)
    return out, state
