"""Priorities of episodes and draws by them (Schaul et al. 2016; of whole sequences: Kapturowski et al. 2019)."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

_WAYS = 32


@dataclass(frozen=True)
class PriorityConfig:
    """How much more often episodes of large TD errors are drawn.

    An episode's priority is (η max|δ| + (1 - η) mean|δ| + floor)^α over its transitions, δ the TD error.
    """

    exponent: float = 0.6
    """α, how far draws follow the errors; 0 draws uniformly."""
    correction: float = 0.4
    """β, how far weights in the loss undo that; 1 gives the gradient of uniform draws, up to a factor."""
    mix: float = 0.9
    """η, the share of an episode's largest error; the rest is that of its mean error."""
    floor: float = 1e-3
    """What is added to every error, so that no episode is left out for good."""

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
    """The priority of each of `draws` episodes (draws,), and whether it is one: it has transitions, all errors finite.

    `td_errors` (N,) of slots, `draw` (N,) int32: the episode of each slot's transition, `draws` where there is none.
    """
    errors = jnp.abs(td_errors)
    count = jax.ops.segment_sum(jnp.ones_like(errors), draw, draws)
    total = jax.ops.segment_sum(errors, draw, draws)
    largest = jnp.maximum(jax.ops.segment_max(errors, draw, draws), 0)
    mean = total / jnp.maximum(count, 1)
    value = (config.mix * largest + (1 - config.mix) * mean + config.floor) ** config.exponent
    return value, (count > 0) & jnp.isfinite(total)


def sums(leaves: jax.Array) -> list[jax.Array]:
    """The sums over blocks of (n,) numbers, over blocks of those, and so on: rows (m, ways), the topmost first."""
    levels = []
    while not levels or leaves.shape[0] > 1:
        leaves = jnp.pad(leaves, (0, -leaves.shape[0] % _WAYS))
        levels.append(leaves.reshape(-1, _WAYS))
        leaves = jnp.sum(levels[-1], axis=1)
    return levels[::-1]


def draw_proportionally(levels: list[jax.Array], key: jax.Array, draws: int) -> jax.Array:
    """(draws,) int32: indices i of the leaves under `sums`, each with probability leaf_i / Σ leaves, never one of 0.

    Each level is drawn from on its own: one float32 number for all would be too coarse for many leaves.
    """
    node = jnp.zeros((draws,), jnp.int32)
    shares = jax.random.uniform(key, (len(levels), draws, 1))
    for rows, share in zip(levels, shares, strict=True):
        weights = rows[node]
        upto = jnp.cumsum(weights, axis=1)
        # Rounded sums need not rise: only a leaf above 0 may be chosen, and one of them always ends above the share.
        upto = jnp.where(weights > 0, upto, 0)
        child = jnp.argmax(upto > share * jnp.max(upto, axis=1, keepdims=True), axis=1)
        node = node * _WAYS + child.astype(jnp.int32)
    return node
