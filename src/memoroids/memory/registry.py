"""The registry of memory models, over which tests, the command line and the documentation iterate."""

from functools import partial
from typing import Protocol

import jax

from memoroids._util.imports import import_named
from memoroids._util.messages import suggest
from memoroids.memory.ffm import FFM
from memoroids.memory.gru import GRU
from memoroids.memory.linear_transformer import LinearTransformer
from memoroids.memory.lru import LRU
from memoroids.memory.memoroid import Memory, Stack
from memoroids.memory.mlp import MLP
from memoroids.memory.s5 import S5


class Factory(Protocol):
    """A callable that builds a memory model."""

    def __call__(self, input_size: int, output_size: int, *, key: jax.Array) -> Memory:
        """A model whose parameters are drawn with `key`; further keyword arguments are the sizes of the model."""
        ...


# The default sizes are those of the paper (Morad et al. 2024, Appendix H): two layers of 128 complex numbers for S5 and
# LRU, 16 × 16 for the Linear Transformer, 64 × 4 for FFM.
REGISTRY: dict[str, Factory] = {
    "lru": partial(Stack.of, LRU, layers=2),
    "s5": partial(Stack.of, S5, layers=2),
    "ffm": FFM,
    "linear_transformer": LinearTransformer,
    "gru": GRU,
    "mlp": MLP,
}
"""name → factory(input_size, output_size, *, key, **sizes)."""


def resolve_memory(name: str) -> Factory:
    """The memory factory registered as `name`, or imported from `name` = "package.module:factory".

    Raises `ValueError`, with a message of one line, if there is no such factory.
    """
    if ":" in name:
        return import_named(name, "memory", "callable", callable)
    if name in REGISTRY:
        return REGISTRY[name]
    raise ValueError(f"unknown memory {name!r}{suggest(name, REGISTRY)}")
