"""How long can a tape be? Loss and gradient of the two-layer LRU over tapes of up to 2^20 slots, in chunks."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memoroids._util.allocator import keep_freed_memory
from memoroids.benchmarks.measurement import Measurement
from memoroids.memory import REGISTRY
from memoroids.memory.chunks import in_chunks

LENGTHS, WIDTH, CHUNK = (16_384, 65_536, 262_144, 1_048_576), 256, 4_096


def gradient_seconds(length: int, chunk: int, repeats: int) -> tuple[float, int]:
    """Median seconds of loss and gradient over one tape, and the peak memory of this process in bytes."""
    keep_freed_memory()
    model = REGISTRY["lru"](WIDTH, WIDTH, key=jax.random.key(0))
    begin = jnp.asarray(np.random.default_rng(0).random(length) < 0.01)
    x = jax.block_until_ready(jax.random.normal(jax.random.key(1), (length, WIDTH)))

    @jax.jit
    def step(model: Any, x: jax.Array, begin: jax.Array) -> Any:
        def loss(model: Any) -> jax.Array:
            return jnp.mean(jnp.square(in_chunks(model, x, begin, chunk=chunk)[0]))

        return jax.value_and_grad(loss)(model)

    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(step(model, x, begin))
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])), peak_memory()


def peak_memory() -> int:
    """The peak resident memory of this process in bytes; on systems other than Linux it may include its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        kilobytes = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kilobytes.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def figures(repeats: int, lengths: tuple[int, ...] = LENGTHS, chunk: int = CHUNK) -> Iterator[Measurement]:
    """Each length in its own process, with its peak memory; the limit is the time per slot of the first length.

    The peak is that of the whole process, including the tape of 1 KiB per slot.
    """
    spawn = multiprocessing.get_context("spawn")
    a_slot = None
    for length in lengths:
        with ProcessPoolExecutor(1, spawn) as pool:
            seconds, peak = pool.submit(
                gradient_seconds, length, chunk, max(2, repeats * lengths[0] // length)
            ).result()
        a_slot = a_slot or seconds / length
        what = f"two-layer LRU, width {WIDTH}, loss and gradient, {length:,} slots, chunk {chunk:,}"
        limits = {f"at the time per slot of {lengths[0]:,} slots": a_slot * length}
        yield Measurement(what, seconds, limits=limits, bytes={"ours": peak})
