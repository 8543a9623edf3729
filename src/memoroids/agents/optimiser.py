"""What all agents share of optimisation: clipped Adam, schedules, and gradient steps that skip non-finite values."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from memoroids.agents.reward_scale import RewardScale
from memoroids.algebra.resettable import select

NUMBERS = frozenset({"learning_rate", "learning_rate_end", "max_grad_norm"})
"""The settings of an `OptimiserConfig` that may be scalar arrays, see `memoroids.agents.base.AgentType.numbers`."""


class OptimiserConfig(Protocol):
    """The settings that `adam` needs of an agent; see e.g. `memoroids.agents.dqn.DQNConfig`."""

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate after warm-up."""
        ...

    @property
    def learning_rate_end(self) -> float | None:
        """Learning rate at the end of training; None: constant."""
        ...

    @property
    def warmup(self) -> int:
        """Updates over which the learning rate rises linearly from 0."""
        ...

    @property
    def max_grad_norm(self) -> float:
        """Largest global norm of a gradient."""
        ...


class Divergence(NamedTuple):
    """Counters of gradient steps skipped because of non-finite values: how many in a row, and in which tensors."""

    in_a_row: jax.Array
    """Steps skipped since the last one that was taken, an int32 scalar."""
    longest: jax.Array
    """The most steps ever skipped in a row, an int32 scalar."""
    tensors: jax.Array
    """(leaves + 2,) int32: how often each tensor was non-finite, in the order of `tensor_names`."""

    @classmethod
    def none(cls, params: Any) -> "Divergence":
        """The counters of a learner that has skipped nothing yet."""
        tensors = jnp.zeros(len(jax.tree.leaves(params)) + 2, jnp.int32)
        return cls(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), tensors)

    def after(self, nonfinite: jax.Array) -> "Divergence":
        """The counters after one more step; `nonfinite` (leaves + 2,) bool marks its non-finite tensors."""
        in_a_row = jnp.where(jnp.any(nonfinite), self.in_a_row + 1, 0)
        return Divergence(in_a_row, jnp.maximum(self.longest, in_a_row), self.tensors + nonfinite.astype(jnp.int32))


def tensor_names(params: Any) -> list[str]:
    """Names of the tensors in `Divergence.tensors`: the loss, each parameter's gradient, the global gradient norm."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return ["loss", *(f"∂{jax.tree_util.keystr(path).removeprefix('.')}" for path, _ in leaves), "gradient norm"]


def grad_norm_and_nonfinite(loss: jax.Array, grads: Any) -> tuple[jax.Array, jax.Array]:
    """The global norm of a gradient, and which of loss, leaves and norm are non-finite, (leaves + 2,) bool.

    The latter is read off the sums of squares that make up the norm, so that no gradient is read twice.
    """
    squares = jnp.stack([optax.tree.norm(leaf, squared=True) for leaf in jax.tree.leaves(grads)])
    norm = jnp.sqrt(jnp.sum(squares))
    return norm, ~jnp.isfinite(jnp.concatenate((loss[None], squares, norm[None])))


class AdamState(NamedTuple):
    """Everything that learning changes: parameters, optimiser state, and counters of taken and skipped gradient steps.

    `scale`: the unit in which it learns rewards; None: their own.

    An agent with further state declares a NamedTuple with these fields and its own, which `descend` accepts as well.
    """

    params: Any
    optimiser: optax.OptState
    updates: jax.Array
    skipped: jax.Array
    divergence: Divergence
    scale: RewardScale | None = None


Learner = TypeVar("Learner", bound=Any)
"""An `AdamState`, or a NamedTuple with its fields and others."""


def check(config: OptimiserConfig, *, positive: tuple[str, ...] = (), shares: tuple[str, ...] = ()) -> None:
    """Raises `ValueError` naming the first setting that is out of range.

    `positive`: further fields that must be positive and finite; `shares`: fields that must be between 0 and 1.
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


def adam(config: OptimiserConfig) -> optax.GradientTransformation:
    """Adam on gradients clipped to the global norm `config.max_grad_norm`, with a linear warm-up of the learning rate.

    `decay` gives the factor by which the learning rate changes over training, apart from the warm-up.
    """
    rate, warmup = config.learning_rate, config.warmup
    schedule = optax.constant_schedule(rate)
    if warmup:
        schedule = optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), schedule], [warmup])
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(schedule))


def decay(config: OptimiserConfig, share: Any) -> jax.Array | None:
    """The factor of the learning rate after this share of training; None: it is 1, as it is if the share is None."""
    if config.learning_rate_end is None or share is None:
        return None
    return linear(1.0, config.learning_rate_end / config.learning_rate, share)


def linear(start: float, end: float, share: Any) -> jax.Array:
    """From `start` to `end` linearly over training."""
    return (1 - share) * start + share * jnp.asarray(end, jnp.float32)


def init(optimiser: optax.GradientTransformation, network: eqx.Module, *, scale_rewards: bool = False) -> AdamState:
    """The state before the first step. It holds copies of the network's parameters, since it may be donated."""
    scale = RewardScale.unknown() if scale_rewards else None
    params = jax.tree.map(jnp.copy, eqx.filter(network, eqx.is_inexact_array))
    zeros = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return AdamState(params, optimiser.init(params), *zeros, Divergence.none(params), scale)


def descend(
    optimiser: optax.GradientTransformation,
    state: Learner,
    loss: Callable[..., tuple[jax.Array, tuple[dict[str, jax.Array], Any]]],
    *batch: Any,
    factor: jax.Array | None = None,
    follow: Callable[[Any], dict[str, Any]] = lambda params: {},
    measure: Callable[[Any], dict[str, jax.Array]] = lambda grads: {},
) -> tuple[Learner, dict[str, jax.Array], Any]:
    """One gradient step on `loss(params, *batch) -> (loss, (metrics, aux))`.

    `factor`: a factor of the learning rate, see `decay`. `follow(params)`: new values of further fields of the state,
    given the new parameters, such as a target network. `measure(grads)`: further metrics, of the gradient.

    If the loss or the gradient is non-finite, the step is skipped: only `skipped` and `divergence` change.

    **Returns:** the state after the step; the metrics, with `loss` and `grad_norm` added; `aux`, unchanged.
    """
    (value, (metrics, aux)), grads = jax.value_and_grad(loss, has_aux=True)(state.params, *batch)
    norm, nonfinite = grad_norm_and_nonfinite(value, grads)
    steps, optimiser_state = optimiser.update(grads, state.optimiser, state.params)
    if factor is not None:
        steps = jax.tree.map(lambda step: factor * step, steps)
    params = optax.apply_updates(state.params, steps)
    learned = state._replace(params=params, optimiser=optimiser_state, updates=state.updates + 1, **follow(params))
    kept = state._replace(skipped=state.skipped + 1)
    after = select(~jnp.any(nonfinite), learned, kept)._replace(divergence=state.divergence.after(nonfinite))
    return after, metrics | measure(grads) | {"loss": value, "grad_norm": norm}, aux


def summary(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Metrics (steps,) of several steps as those of one: sums of `transitions` and `slots`, means of the rest."""
    counts = ("transitions", "slots")
    return {name: jnp.sum(value) if name in counts else jnp.mean(value) for name, value in metrics.items()}
