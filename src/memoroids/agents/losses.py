"""Losses on flat, weighted transitions, independent of recurrence, tapes and episodes."""

import jax
import jax.numpy as jnp
import optax


def weighted_mean(values: jax.Array, weight: jax.Array, count: float | jax.Array) -> jax.Array:
    """Σ w ℓ / B over rows (N,) with B = `count`; rows of weight 0 are ignored, even if they are NaN."""
    return jnp.sum(jnp.where(weight > 0, weight * values, 0)) / count


def double_q_target(
    reward: jax.Array,
    terminated: jax.Array,
    q_tp1_online: jax.Array,
    q_tp1_target: jax.Array,
    discount: float,
) -> jax.Array:
    """The double Q-learning target r_t + γ Q'(s_{t+1}, argmax_a Q(s_{t+1}, a)), or r_t where terminated: (N,).

    The online network Q chooses the next action, the target network Q' values it: `q_tp1_online`, `q_tp1_target` (N,
    actions). A truncated transition bootstraps. Source: van Hasselt et al. 2016, Equation 4.
    """
    best = jnp.argmax(q_tp1_online, axis=-1)
    value = jnp.take_along_axis(q_tp1_target, best[:, None], axis=-1)[:, 0]
    return reward + discount * jnp.where(terminated, 0, value)


def huber_td(q: jax.Array, action: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Huber loss (δ = 1) of Q(s_t, a_t) against a constant target, and the TD error: (N,) each.

    `q` (N, actions), `action` (N,) int, `target` (N,). Source: Mnih et al. 2015.
    """
    chosen = jnp.take_along_axis(q, action[:, None], axis=-1)[:, 0]
    error = jax.lax.stop_gradient(target) - chosen
    return optax.losses.huber_loss(error), error


def huber_of_mean(error: jax.Array, weight: jax.Array, count: float) -> jax.Array:
    """The Huber loss (δ = 1) of the weighted mean of absolute errors (N,), a scalar: the paper's code for segments.

    Its gradient is that of the mean absolute error, scaled by that mean as long as it is below 1: large errors have
    less influence than in `huber_td`.
    """
    return optax.losses.huber_loss(weighted_mean(jnp.abs(error), weight, count))


def squared_td(q: jax.Array, action: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """½ (y - Q(s_t, a_t))² against a constant target y, and the TD error: (N,) each.

    `q` (N, actions), `action` (N,) int, `target` (N,). Source: Gallici et al. 2024.
    """
    chosen = jnp.take_along_axis(q, action[:, None], axis=-1)[:, 0]
    return squared_error(chosen, target)


def squared_error(value: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """½ (y - v)² of values v (N,) against constant targets y (N,), and the error y - v: (N,) each."""
    error = jax.lax.stop_gradient(target) - value
    return 0.5 * jnp.square(error), error


def ppo_clip(log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip_ratio: float) -> jax.Array:
    """The clipped surrogate loss -min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) with ρ = π(a) / π_old(a): (N,).

    `log_prob`, `old_log_prob` and `advantage` (N,); only `log_prob` has a gradient. ε is `clip_ratio`. Source: Schulman
    et al. 2017, Equation 7.
    """
    ratio = jnp.exp(log_prob - jax.lax.stop_gradient(old_log_prob))
    advantage = jax.lax.stop_gradient(advantage)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip_ratio, 1 + clip_ratio) * advantage)


def standardise(values: jax.Array, weight: jax.Array) -> jax.Array:
    """(x - mean) / (std + 1e-8) with the weighted mean and deviation of `values` (N,); 0 in rows of weight 0."""
    total = jnp.maximum(jnp.sum(weight), 1.0)
    centred = jnp.where(weight > 0, values - weighted_mean(values, weight, total), 0)
    return centred / (jnp.sqrt(weighted_mean(jnp.square(centred), weight, total)) + 1e-8)
