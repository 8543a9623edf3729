"""What the optimisers of all algorithms share: clipped Adam on a schedule, and steps only along what is finite."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from memoroids.resettable import select


class OptimiserConfig(Protocol):
    """The settings that every algorithm's config has."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def learning_rate_end(self) -> float | None: ...
    @property
    def warmup(self) -> int: ...
    @property
    def clip(self) -> float: ...


class LearnerState(NamedTuple):
    """All that learning changes: parameters, optimiser state, and counters of gradient steps."""

    params: Any
    optimiser: optax.OptState
    updates: jax.Array
    skipped: jax.Array


def check(config: OptimiserConfig, *, positive: tuple[str, ...] = (), shares: tuple[str, ...] = ()) -> None:
    """Raises `ValueError` for the first setting out of range, by its name.

    `positive`: further fields that must be above 0; `shares`: fields that must be between 0 and 1.
    """
    for name in shares:
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise ValueError(f"{name} must be between 0 and 1, got {getattr(config, name)}")
    for name in ("learning_rate", "clip", *positive):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")
    if config.learning_rate_end is not None and not config.learning_rate_end >= 0:
        raise ValueError(f"learning_rate_end must not be negative, got {config.learning_rate_end}")
    if config.warmup < 0:
        raise ValueError(f"warmup must not be negative, got {config.warmup}")


def adam(config: OptimiserConfig, updates: int | None) -> optax.GradientTransformation:
    """Adam on `schedule`, of gradients clipped to the global norm `config.clip`."""
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(schedule(config, updates)))


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
    return LearnerState(params, optimiser.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def descend(
    optimiser: optax.GradientTransformation,
    state: LearnerState,
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    *batch: Any,
) -> tuple[LearnerState, dict[str, jax.Array]]:
    """One step down the gradient of `loss(params, *batch) -> (loss, metrics)`; adds `loss`, `grad_norm` to the metrics.

    Where loss or gradient is not finite nothing changes, and the step is counted in `skipped`.
    """
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params, *batch)
    norm = optax.tree.norm(grads)
    steps, optimiser_state = optimiser.update(grads, state.optimiser, state.params)
    params = optax.apply_updates(state.params, steps)
    learned = LearnerState(params, optimiser_state, state.updates + 1, state.skipped)
    kept = state._replace(skipped=state.skipped + 1)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    return select(finite, learned, kept), metrics | {"loss": value, "grad_norm": norm}


def summary(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Metrics of several steps (steps,) as those of one update: means, and sums of what was trained on."""
    counts = ("transitions", "slots")
    return {name: jnp.sum(value) if name in counts else jnp.mean(value) for name, value in metrics.items()}
