"""Losses on flat, weighted transitions, independent of recurrence, tapes and episodes."""

import jax
import jax.numpy as jnp
import optax

from memoroids.agents.branches import ActionValues, Branches, greedy, taken
from memoroids.returns import lambda_return
from memoroids.tape import Tape


def weighted_mean(values: jax.Array, weight: jax.Array, count: float | jax.Array) -> jax.Array:
    """Σ w ℓ / B over rows (N,) with B = `count`; rows of weight 0 are ignored, even if they are NaN."""
    return jnp.sum(jnp.where(weight > 0, weight * values, 0)) / count


def double_q_target(
    reward: jax.Array,
    terminated: jax.Array,
    q_tp1_online: ActionValues,
    q_tp1_target: ActionValues,
    discount: float,
) -> jax.Array:
    """The double Q-learning target r_t + γ Q'(s_{t+1}, argmax_a Q(s_{t+1}, a)), or r_t where terminated: (N,).

    The online network Q chooses the next action, the target network Q' values it: `q_tp1_online`, `q_tp1_target` (N,
    actions), or `Branches` of them, whose parts have a target each: (N, parts). A truncated transition bootstraps.
    Sources: van Hasselt et al. 2016, Equation 4; Tavakoli et al. 2018 for several parts.
    """
    value = taken(q_tp1_target, greedy(q_tp1_online))
    if isinstance(q_tp1_target, Branches):
        reward, terminated = reward[:, None], terminated[:, None]
    return reward + discount * jnp.where(terminated, 0, value)


def lambda_target(tape: Tape, value_tp1: jax.Array, discount: float, lambda_: float) -> jax.Array:
    """The λ-return of each slot of a tape, (N,), or of each part of its actions, (N, parts).

    `value_tp1`, of the same shape: the value of the best action in the next state. Sources: Peng and Williams 1996;
    Tavakoli et al. 2018 for several parts.
    """

    def of_part(value_tp1: jax.Array) -> jax.Array:
        flags = tape.terminated, tape.truncated
        return lambda_return(tape.reward, value_tp1, *flags, discount, lambda_, transition=tape.transition)

    return of_part(value_tp1) if value_tp1.ndim == 1 else jax.vmap(of_part, -1, -1)(value_tp1)


def huber_td(q: ActionValues, action: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Huber loss (δ = 1) of Q(s_t, a_t) against a constant target, and the TD error: (N,) each.

    `q` (N, actions), `action` (N,) int, `target` (N,). For actions of several parts, `Branches`, (N, parts) and (N,
    parts), the means over the parts, of absolute errors, so that those of opposite signs do not cancel. Sources: Mnih
    et al. 2015; Tavakoli et al. 2018 for several parts.
    """
    error = jax.lax.stop_gradient(target) - taken(q, action)
    return _over_parts(q, optax.losses.huber_loss(error), error)


def _over_parts(q: ActionValues, losses: jax.Array, error: jax.Array) -> tuple[jax.Array, jax.Array]:
    if isinstance(q, Branches):
        return jnp.mean(losses, axis=-1), jnp.mean(jnp.abs(error), axis=-1)
    return losses, error


def huber_of_mean(error: jax.Array, weight: jax.Array, count: float) -> jax.Array:
    """The Huber loss (δ = 1) of the weighted mean of absolute errors (N,), a scalar: the paper's code for segments.

    Its gradient is that of the mean absolute error, scaled by that mean as long as it is below 1: large errors have
    less influence than in `huber_td`.
    """
    return optax.losses.huber_loss(weighted_mean(jnp.abs(error), weight, count))


def squared_td(q: ActionValues, action: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """½ (y - Q(s_t, a_t))² against a constant target y, and the TD error: (N,) each.

    `q` (N, actions), `action` (N,) int, `target` (N,); for actions of several parts as in `huber_td`. Source: Gallici
    et al. 2024.
    """
    return _over_parts(q, *squared_error(taken(q, action), target))


def squared_error(value: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """½ (y - v)² of values v (N, …) against constant targets y (N, …), and the error y - v: (N, …) each."""
    error = jax.lax.stop_gradient(target) - value
    return 0.5 * jnp.square(error), error


def explained_variance(value: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """1 - Var(y - v) / Var(y) of values v against targets y, a scalar: 1 for perfect values, 0 for constant ones.

    `value` and `target` (N,), or (N, parts), over whose parts the mean is taken; `weight` (N,). At least -1, so that a
    mean over many batches is not that of the worst; 0 where the targets do not vary.
    """
    total = jnp.maximum(jnp.sum(weight), 1.0)

    def variance(x: jax.Array) -> jax.Array:
        return weighted_mean(jnp.square(x - weighted_mean(x, weight, total)), weight, total)

    def of_part(value: jax.Array, target: jax.Array) -> jax.Array:
        whole, left = variance(target), variance(target - value)
        return jnp.where(whole > 0, jnp.maximum(1 - left / jnp.where(whole > 0, whole, 1), -1), 0)

    rows = weight.shape[0]
    value, target = (jax.lax.stop_gradient(x).reshape(rows, -1) for x in (value, target))
    return jnp.mean(jax.vmap(of_part, -1)(value, target))


def ppo_clip(log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip_ratio: float) -> jax.Array:
    """The clipped surrogate loss -min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) with ρ = π(a) / π_old(a): (N,).

    `log_prob`, `old_log_prob` and `advantage` (N,); only `log_prob` has a gradient. ε is `clip_ratio`. Source: Schulman
    et al. 2017, Equation 7.
    """
    ratio = jnp.exp(log_prob - jax.lax.stop_gradient(old_log_prob))
    advantage = jax.lax.stop_gradient(advantage)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip_ratio, 1 + clip_ratio) * advantage)


def centred(values: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x minus the weighted mean of `values`, 0 where the weight is 0, and the sum of the weights, but at least 1."""
    total = jnp.maximum(jnp.sum(weight), 1.0)
    return jnp.where(weight > 0, values - weighted_mean(values, weight, total), 0), total


def standardise(values: jax.Array, weight: jax.Array, least: jax.Array | None = None) -> jax.Array:
    """(x - mean) / (std + 1e-8) with the weighted mean and deviation of `values` (N,); 0 in rows of weight 0.

    `least`: a scalar that stands for the deviation where that is smaller.
    """
    apart, total = centred(values, weight)
    deviation = jnp.sqrt(weighted_mean(jnp.square(apart), weight, total))
    return apart / ((deviation if least is None else jnp.maximum(deviation, least)) + 1e-8)
