"""What do matrix states cost with the chunked backend? A Linear Transformer layer against the scan of its monoid."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from memoroids.benchmarks.measurement import Measurement, measure
from memoroids.benchmarks.timing import compile_seconds
from memoroids.benchmarks.update import matrix_program, products
from memoroids.memory import LinearTransformer


def figures(
    repeats: int, sizes: tuple[tuple[int, int, int], ...] = ((8_192, 128, 128), (1_100, 16, 256))
) -> Iterator[Measurement]:
    """Loss and gradient for each of `sizes`, (T, j = k, width)."""
    for length, size, width in sizes:
        key = jax.random.key(0)
        layer = LinearTransformer(width, width, key=key, key_size=size, value_size=size)
        x, begin = jax.random.normal(key, (length, width)), jax.random.bernoulli(key, 0.02, (length,))

        def loss(layer: Any, backend: str, x: Any = x, begin: Any = begin) -> jax.Array:
            return jnp.mean(jnp.square(layer(x, begin, backend=backend)[0]))

        calls, seconds, memory = {}, {}, {}
        for name, backend in (("ours", "chunked"), ("plain scan of the monoid", "sequential")):
            lowered = jax.jit(jax.value_and_grad(loss), static_argnums=1).lower(layer, backend)
            seconds[name], compiled = compile_seconds(lowered)
            memory[name] = compiled.memory_analysis().temp_size_in_bytes
            calls[name] = lambda compiled=compiled, layer=layer: compiled(layer)
        found = products(jax.make_jaxpr(jax.value_and_grad(loss), static_argnums=1)(layer, "chunked").jaxpr)
        matrix, operands = matrix_program(list(found))
        limits = {"its matrix products": lambda matrix=matrix, operands=operands: matrix(operands)}
        what = f"Linear Transformer layer, loss and gradient, T={length:,}, j=k={size}, width {width}"
        yield measure(what, calls, repeats, limits=limits, compile=seconds, bytes=memory)
