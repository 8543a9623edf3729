"""Which scan backend for this machine? `linear_recurrence` with each, forward and with gradient."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memoroids.benchmarks.timing import compile_seconds, medians
from memoroids.scan import BACKENDS, default_backend, linear_recurrence

CHANNELS = 256


def run(repeats: int) -> None:
    """Prints milliseconds and compile seconds of a time-invariant linear recurrence with resets."""
    print(f"linear_recurrence, {CHANNELS} channels, on {jax.devices()[0]}; default backend: {default_backend()}")
    print(f"{'T':>7} {'dtype':10}{'pass':10}" + "".join(f"{b + ' ms':>16}{'compile s':>11}" for b in BACKENDS))
    for length, dtype in itertools.product((1_024, 16_384), (jnp.float32, jnp.complex64)):
        key = jax.random.key(0)
        x = jax.random.normal(key, (length, CHANNELS)).astype(dtype)
        decay = jnp.linspace(0.9, 0.999, CHANNELS).astype(dtype)
        reset = jax.random.bernoulli(key, 0.02, (length,))

        def forward(decay: Any, x: Any, backend: str, reset: Any = reset) -> Any:
            return linear_recurrence(decay, x, reset=reset, backend=backend)

        def loss(decay: Any, x: Any, backend: str, forward: Any = forward) -> Any:
            return jnp.sum(jnp.square(jnp.abs(forward(decay, x, backend))))

        for name, function in (("forward", forward), ("gradient", jax.grad(loss, (0, 1)))):
            compiled, seconds = {}, {}
            for backend in BACKENDS:
                lowered = jax.jit(function, static_argnums=2).lower(decay, x, backend)
                seconds[backend], compiled[backend] = compile_seconds(lowered)
            calls = {b: partial(f, decay, x) for b, f in compiled.items()}
            times = medians(calls, repeats)
            figures = "".join(f"{1e3 * times[b]:16.2f}{seconds[b]:11.2f}" for b in BACKENDS)
            print(f"{length:7,} {jnp.dtype(dtype).name:10}{name:10}{figures}")
