"""Does `linear_recurrence` run at memory bandwidth? Every backend, forward and with gradient, against a copy."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.linear_recurrence import linear_recurrence
from memoroids.algebra.recurrence_backends import available_backends, default_backend
from memoroids.benchmarks.measurement import Measurement, copy_calls, measure
from memoroids.benchmarks.timing import compile_calls

LENGTH, CHANNELS = 16_384, 256
BATCH, SEQUENCE = 128, 128
"""A batch of short sequences, the shape for which TorchRL reports the time of its recurrent cells, with 3% resets."""


def ours(backend: str, decay: jax.Array, x: jax.Array, reset: jax.Array) -> jax.Array:
    """`linear_recurrence` with one of its backends."""
    return linear_recurrence(decay, x, reset=reset, backend=backend)


def associative_scan(decays: jax.Array, x: jax.Array, *, reverse: bool = False) -> jax.Array:
    """The affine recurrence with `lax.associative_scan`; `decays` has the shape of `x`."""
    return lax.associative_scan(lambda a, b: (b[0] * a[0], b[0] * a[1] + b[1]), (decays, x), reverse=reverse)[1]


def associative(decay: jax.Array, x: jax.Array, reset: jax.Array) -> jax.Array:
    """The usual implementation with `lax.associative_scan`: a decay per step, 0 at resets, gradient by autodiff."""
    decays = jnp.where(reset[:, None], 0, jnp.broadcast_to(decay, x.shape)).astype(x.dtype)
    return associative_scan(decays, x)


def plain_scan(decay: jax.Array, x: jax.Array, reset: jax.Array) -> jax.Array:
    """The usual implementation with `lax.scan`, gradient by autodiff."""

    def step(h: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        h = jnp.where(inputs[1], 0, decay * h) + inputs[0]
        return h, h

    return lax.scan(step, jnp.zeros_like(x[0]), (x, reset))[1]


def memax_scan() -> dict[str, Callable[..., jax.Array]]:
    """The same recurrence with memax's resettable semigroup, if that package is installed."""
    if find_spec("memax") is None:
        return {}
    from memax.equinox.groups import Resettable  # pyright: ignore[reportMissingImports]
    from memax.equinox.scans import semigroup_scan  # pyright: ignore[reportMissingImports]
    from memax.equinox.semigroups.lru import LRUSemigroup  # pyright: ignore[reportMissingImports]

    def run(decay: jax.Array, x: jax.Array, reset: jax.Array) -> jax.Array:
        algebra = Resettable(LRUSemigroup(decay.size))
        elements = ((jnp.broadcast_to(decay, x.shape), x), reset)
        (_, h), _ = semigroup_scan(algebra, algebra.initialize_carry(), elements)
        return h

    return {"memax": run}


def figures(repeats: int, length: int = LENGTH, batch: int = BATCH) -> Iterator[Measurement]:
    """Forward pass, and forward pass with gradient, with resets and a time-invariant decay.

    One sequence in three dtypes, and a batch of sequences in float32.
    """
    for dtype, shape in (
        (jnp.float32, (length,)),
        (jnp.complex64, (length,)),
        (jnp.bfloat16, (length,)),
        (jnp.float32, (batch, SEQUENCE)),
    ):
        key = jax.random.key(0)
        x = jax.random.normal(key, (*shape, CHANNELS), jnp.float32 if dtype == jnp.bfloat16 else dtype).astype(dtype)
        decay = jnp.linspace(0.9, 0.999, CHANNELS).astype(dtype)
        reset = jax.random.bernoulli(key, 0.02 if len(shape) == 1 else 0.03, shape)
        ways: dict[str, Callable[..., jax.Array]] = {"ours": partial(ours, default_backend())}
        for backend in available_backends():
            if backend != default_backend():
                ways[f"ours, backend {backend}"] = partial(ours, backend)
        if dtype != jnp.bfloat16:
            ways |= {"lax.associative_scan": associative, "lax.scan": plain_scan}
        if dtype == jnp.complex64:
            ways |= memax_scan()
        if len(shape) > 1:
            ways = {name: jax.vmap(way, (None, 0, 0)) for name, way in ways.items()}
        state = 4 if dtype == jnp.bfloat16 else x.dtype.itemsize
        numbers = x.size

        def forward(way: Any, decay: Any, x: Any, h_bar: Any, reset: Any = reset) -> Any:
            del h_bar
            return way(decay, x, reset)

        def gradient(way: Any, decay: Any, x: Any, h_bar: Any, reset: Any = reset) -> Any:
            h, pull = jax.vjp(lambda decay, x: way(decay, x, reset), decay, x)
            return h, pull(h_bar)

        # Bytes that must move: x and h; for the gradient also h̄, h again, and x̄.
        moved = {"forward": numbers * (x.dtype.itemsize + state), "forward and gradient": 0}
        moved["forward and gradient"] = moved["forward"] + numbers * (2 * state + x.dtype.itemsize)
        h_bar = jax.random.normal(key, x.shape, jnp.float32 if dtype == jnp.bfloat16 else dtype)
        for name, function in (("forward", forward), ("forward and gradient", gradient)):
            programs = {name: partial(function, way) for name, way in ways.items()}
            calls, seconds = compile_calls(programs, decay, x, h_bar)
            size = "".join(f"B={each:,}, " for each in shape[:-1]) + f"T={shape[-1]:,}"
            what = f"linear recurrence, {name}, {jnp.dtype(dtype).name}, {size}, {CHANNELS} channels"
            yield measure(what, calls, repeats, limits=copy_calls(moved[name]), compile=seconds)
