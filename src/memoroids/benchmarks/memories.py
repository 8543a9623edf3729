"""What does each memory cost over a sequence? Loss and gradient against a copy of its states and its products."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.benchmarks.measurement import Measurement, copy_calls, measure
from memoroids.benchmarks.timing import compile_seconds
from memoroids.benchmarks.update import matrix_program, products
from memoroids.memory import REGISTRY

LENGTH, WIDTH, RESET_EVERY = 8_192, 256, 50


def figures(
    repeats: int, length: int = LENGTH, width: int = WIDTH, names: tuple[str, ...] = tuple(REGISTRY)
) -> Iterator[Measurement]:
    """Σ s², forward alone and with its gradient in parameters and inputs, for each memory at its default sizes.

    Both limits are those of the gradient. The copy moves the states of all steps, inputs and outputs, forwards and
    backwards: each is read and written once in either direction. Kernels in chunks need not write the states of all
    steps, and may be faster than it.
    """
    x = jax.random.normal(jax.random.key(1), (length, width))
    begin = jnp.arange(length) % RESET_EVERY == 0
    for name in names:
        memory = REGISTRY[name](width, width, key=jax.random.key(0))
        forward, gradient = _programs(memory, begin)
        seconds, compiled = compile_seconds(jax.jit(gradient).lower(memory, x))
        forward_seconds, compiled_forward = compile_seconds(jax.jit(forward).lower(memory, x))
        matrix, operands = matrix_program(list(products(jax.make_jaxpr(gradient)(memory, x).jaxpr)))
        calls = {
            "ours": lambda compiled=compiled, memory=memory: compiled(memory, x),
            "forward alone": lambda compiled=compiled_forward, memory=memory: compiled(memory, x),
        }
        copies = copy_calls(2 * length * (4 * 2 * width + _bytes(memory.initial_state())) * 2)
        limits = {
            "its matrix products": lambda matrix=matrix, operands=operands: matrix(operands),
            "a copy of its states, inputs and outputs": copies["copy of the same size, donated"],
        }
        memories = {
            "ours": compiled.memory_analysis().temp_size_in_bytes,
            "forward alone": compiled_forward.memory_analysis().temp_size_in_bytes,
        }
        what = f"{name}, loss and gradient, T={length:,}, width {width}"
        compile_times = {"ours": seconds, "forward alone": forward_seconds}
        yield measure(what, calls, repeats, limits=limits, compile=compile_times, bytes=memories)


def _programs(memory: Any, begin: jax.Array) -> tuple[Any, Any]:
    def forward(memory: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(memory(x, begin)[0]))

    def gradient(memory: Any, x: jax.Array) -> Any:
        return eqx.filter_value_and_grad(lambda both: forward(*both))((memory, x))

    return forward, gradient


def _bytes(state: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))
