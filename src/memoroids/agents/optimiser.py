"""What the optimisers of all algorithms share: clipped Adam on a schedule, and steps only along what is finite."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from memoroids.algebra.resettable import select


class OptimiserConfig(Protocol):
    """The settings that every algorithm's config has."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def learning_rate_end(self) -> float | None: ...
    @property
    def warmup(self) -> int: ...
    @property
    def max_grad_norm(self) -> float: ...


class Divergence(NamedTuple):
    """Of the gradient steps that were skipped because something was not finite: how many in a row, and what it was."""

    in_a_row: jax.Array
    """Steps skipped since the newest that was taken."""
    longest: jax.Array
    """The most ever skipped in a row."""
    tensors: jax.Array
    """(leaves + 2,) int32: how often each was not finite, in the order of `tensor_names`."""

    @classmethod
    def none(cls, params: Any) -> "Divergence":
        """That of a learner which has skipped nothing yet."""
        tensors = jnp.zeros(len(jax.tree.leaves(params)) + 2, jnp.int32)
        return cls(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), tensors)

    def after(self, nonfinite: jax.Array) -> "Divergence":
        """After one more step whose `nonfinite` (leaves + 2,) bool tells what was not finite."""
        in_a_row = jnp.where(jnp.any(nonfinite), self.in_a_row + 1, 0)
        return Divergence(in_a_row, jnp.maximum(self.longest, in_a_row), self.tensors + nonfinite.astype(jnp.int32))


def tensor_names(params: Any) -> list[str]:
    """What `Divergence.tensors` counts: the loss, the gradient of each leaf of `params` by its path, and its norm."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return ["loss", *(f"∂{jax.tree_util.keystr(path).removeprefix('.')}" for path, _ in leaves), "gradient norm"]


def grad_norm_and_nonfinite(loss: jax.Array, grads: Any) -> tuple[jax.Array, jax.Array]:
    """The global norm of a gradient, and what of loss, leaves and norm is not finite, (leaves + 2,) bool.

    The norm's own sums tell it, so that no gradient is read twice.
    """
    squares = jnp.stack([optax.tree.norm(leaf, squared=True) for leaf in jax.tree.leaves(grads)])
    norm = jnp.sqrt(jnp.sum(squares))
    return norm, ~jnp.isfinite(jnp.concatenate((loss[None], squares, norm[None])))


class LearnerState(NamedTuple):
    """All that learning changes: parameters, optimiser state, and counters of gradient steps, taken and skipped."""

    params: Any
    optimiser: optax.OptState
    updates: jax.Array
    skipped: jax.Array
    divergence: Divergence


def check(config: OptimiserConfig, *, positive: tuple[str, ...] = (), shares: tuple[str, ...] = ()) -> None:
    """Raises `ValueError` for the first setting out of range, by its name.

    `positive`: further fields that must be above 0; `shares`: fields that must be between 0 and 1.
    """
    for name in shares:
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise ValueError(f"{name} must be between 0 and 1, got {getattr(config, name)}")
    for name in ("learning_rate", "max_grad_norm", *positive):
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {getattr(config, name)}")
    if config.learning_rate_end is not None and not 0 <= config.learning_rate_end < math.inf:
        raise ValueError(f"learning_rate_end must be finite and not negative, got {config.learning_rate_end}")
    if config.warmup < 0:
        raise ValueError(f"warmup must not be negative, got {config.warmup}")


def adam(config: OptimiserConfig, updates: int | None) -> optax.GradientTransformation:
    """Adam on `schedule`, of gradients clipped to the global norm `config.clip`."""
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(schedule(config, updates)))


def schedule(config: OptimiserConfig, updates: int | None) -> optax.Schedule:
    """The learning rate: up from 0 over the warm-up, then constant or down to its end at the last of `updates`."""
    rate, warmup = config.learning_rate, config.warmup
    after = optax.constant_schedule(rate)
    if config.learning_rate_end is not None:
        if updates is None:
            raise ValueError("learning_rate_end needs the number of updates")
        after = optax.linear_schedule(rate, config.learning_rate_end, max(updates - warmup, 1))
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup]) if warmup else after


def init(optimiser: optax.GradientTransformation, network: eqx.Module) -> LearnerState:
    """The state before the first step, with copies of the network's parameters, since it may be donated."""
    params = jax.tree.map(jnp.copy, eqx.filter(network, eqx.is_inexact_array))
    zeros = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return LearnerState(params, optimiser.init(params), *zeros, Divergence.none(params))


def descend(
    optimiser: optax.GradientTransformation,
    state: LearnerState,
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    *batch: Any,
) -> tuple[LearnerState, dict[str, jax.Array]]:
    """One step down the gradient of `loss(params, *batch) -> (loss, metrics)`; adds `loss`, `grad_norm` to the metrics.

    Where loss or gradient is not finite nothing changes, and the step is counted in `skipped` and `divergence`.
    """
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params, *batch)
    norm, nonfinite = grad_norm_and_nonfinite(value, grads)
    steps, optimiser_state = optimiser.update(grads, state.optimiser, state.params)
    params = optax.apply_updates(state.params, steps)
    learned = state._replace(params=params, optimiser=optimiser_state, updates=state.updates + 1)
    kept = state._replace(skipped=state.skipped + 1)
    after = select(~jnp.any(nonfinite), learned, kept)._replace(divergence=state.divergence.after(nonfinite))
    return after, metrics | {"loss": value, "grad_norm": norm}


def summary(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Metrics of several steps (steps,) as those of one update: means, and sums of what was trained on."""
    counts = ("transitions", "slots")
    return {name: jnp.sum(value) if name in counts else jnp.mean(value) for name, value in metrics.items()}
