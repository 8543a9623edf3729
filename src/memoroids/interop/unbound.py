"""A memory apart from its parameters: what modules of other libraries hold, and how they put it together again."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from memoroids.memory.memoroid import Memory, State
from memoroids.memory.registry import Factory, resolve_memory

Parameters = dict[str, jax.Array]
"""path → array, such as ".layers[0].b.weight"."""


def factory_of(memory: str | Factory) -> Factory:
    """The factory itself, or the one of this name. Raises `ValueError` for a name that stands for none."""
    return resolve_memory(memory) if isinstance(memory, str) else memory


def parameters_of(memory: Memory) -> Parameters:
    """Its trainable arrays, by path. Raises `ValueError` if it holds arrays that are not trained."""
    others = eqx.filter(memory, lambda leaf: eqx.is_array(leaf) and not eqx.is_inexact_array(leaf))
    for path, _ in jax.tree_util.tree_leaves_with_path(others):
        name = f"{type(memory).__name__}{jax.tree_util.keystr(path)}"
        raise ValueError(f"{name} is an array that is not trained: make it a static field, or compute it in the call")
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(memory, eqx.is_inexact_array))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def with_parameters(memory: Memory, parameters: Any) -> Memory:
    """The memory with these arrays in place of its own."""
    arrays, rest = eqx.partition(memory, lambda leaf: eqx.is_inexact_array(leaf) or _is_shape(leaf))
    leaves, tree = jax.tree_util.tree_flatten_with_path(arrays)
    named = [parameters[jax.tree_util.keystr(path)] for path, _ in leaves]
    return eqx.combine(jax.tree.unflatten(tree, named), rest)


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def over_batch(function: Callable[..., Any], axes: int) -> Callable[..., Any]:
    """`function`, mapped over this many leading axes of all its arguments."""
    for _ in range(axes):
        function = jax.vmap(function)
    return function


def broadcast_state(state: State, axes: tuple[int, ...]) -> State:
    """The state, repeated along leading axes of these lengths."""
    return jax.tree.map(lambda leaf: jax.numpy.broadcast_to(leaf, (*axes, *leaf.shape)), state)
