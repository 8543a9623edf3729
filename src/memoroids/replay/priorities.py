"""Prioritised replay of episodes (Schaul et al. 2016; of whole sequences: Kapturowski et al. 2019)."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

_WAYS = 32
"""Children of each node of the tree of sums."""


@dataclass(frozen=True)
class PriorityConfig:
    """How strongly draws prefer episodes with large TD errors.

    An episode's priority is (η max|δ| + (1 - η) mean|δ| + floor)^α over its transitions, δ the TD error.
    """

    exponent: float = 0.6
    """α, how strongly draws follow the errors; 0 draws uniformly."""
    correction: float = 0.4
    """β, how far the weights in the loss correct for this; 1 gives the gradient of uniform draws, up to a factor."""
    mix: float = 0.9
    """η, the share of the episode's largest error in its priority; the rest is its mean error's."""
    floor: float = 1e-3
    """Added to every error, so that every episode can still be drawn."""

    def __post_init__(self) -> None:
        for name in ("correction", "mix"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.exponent < math.inf:
            raise ValueError(f"exponent must be finite and not negative, got {self.exponent}")
        if not 0 < self.floor < math.inf:
            raise ValueError(f"floor must be positive and finite, got {self.floor}")


def priorities(
    config: PriorityConfig, td_errors: jax.Array, draw: jax.Array, draws: int
) -> tuple[jax.Array, jax.Array]:
    """The priority of each of `draws` episodes, (draws,) float32, and whether it is valid, (draws,) bool.

    It is valid if the episode has transitions in the batch and all their errors are finite. `td_errors` (N,): the error
    of each slot. `draw` (N,) int32: the draw that each slot's transition belongs to, `draws` for slots without one.
    """
    errors = jnp.abs(td_errors)
    count = jax.ops.segment_sum(jnp.ones_like(errors), draw, draws)
    total = jax.ops.segment_sum(errors, draw, draws)
    largest = jnp.maximum(jax.ops.segment_max(errors, draw, draws), 0)
    mean = total / jnp.maximum(count, 1)
    value = (config.mix * largest + (1 - config.mix) * mean + config.floor) ** config.exponent
    return value, (count > 0) & jnp.isfinite(total)


def sums(leaves: jax.Array) -> list[jax.Array]:
    """A tree of sums over (n,) numbers: the levels as arrays (nodes, 32) of the children's sums, the root first."""
    levels = []
    while not levels or leaves.shape[0] > 1:
        leaves = jnp.pad(leaves, (0, -leaves.shape[0] % _WAYS))
        levels.append(leaves.reshape(-1, _WAYS))
        leaves = jnp.sum(levels[-1], axis=1)
    return levels[::-1]


def draw_proportionally(levels: list[jax.Array], key: jax.Array, draws: int) -> jax.Array:
    """Draws indices i of the leaves of `sums` with probability leaf_i / Σ leaves, (draws,) int32; never a leaf of 0.

    Each level has a random number of its own: a single float32 number would be too coarse for many leaves.
    """
    node = jnp.zeros((draws,), jnp.int32)
    shares = jax.random.uniform(key, (len(levels), draws, 1), jnp.float32)
    for rows, share in zip(levels, shares, strict=True):
        weights = rows[node]
        upto = jnp.cumsum(weights, axis=1)
        # Rounded sums need not increase, so zero leaves are excluded; a positive one always exceeds the share.
        upto = jnp.where(weights > 0, upto, 0)
        child = jnp.argmax(upto > share * jnp.max(upto, axis=1, keepdims=True), axis=1)
        node = node * _WAYS + child.astype(jnp.int32)
    return node
