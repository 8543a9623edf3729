"""The registry of memory models, which tests, command line and documents iterate over."""

from functools import partial
from typing import Protocol

import jax

from memoroids.memory.ffm import FFM
from memoroids.memory.gru import GRU
from memoroids.memory.linear_transformer import LinearTransformer
from memoroids.memory.lru import LRU
from memoroids.memory.memoroid import Memory, Stack
from memoroids.memory.mlp import MLP
from memoroids.memory.s5 import S5


class Factory(Protocol):
    """Builds a memory; further keyword arguments are the model's sizes."""

    def __call__(self, input_size: int, output_size: int, *, key: jax.Array) -> Memory: ...


# At the paper's sizes: S5 and LRU two layers of 128 complex, Linear Transformer 16 × 16, FFM 64 × 4 (Appendix H).
REGISTRY: dict[str, Factory] = {
    "lru": partial(Stack.of, LRU, layers=2),
    "s5": partial(Stack.of, S5, layers=2),
    "ffm": FFM,
    "linear_transformer": LinearTransformer,
    "gru": GRU,
    "mlp": MLP,
}
"""name → factory(input_size, output_size, *, key, **sizes)."""
