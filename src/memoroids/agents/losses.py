"""Plain losses on flat transitions, each with a weight: nothing here knows of recurrence, tapes or episodes."""

import jax
import jax.numpy as jnp
import optax


def weighted_mean(values: jax.Array, weight: jax.Array, count: float | jax.Array) -> jax.Array:
    """Σ w ℓ / B with a constant B = `count`; rows of weight 0 are not read, so they may be NaN."""
    return jnp.sum(jnp.where(weight > 0, weight * values, 0)) / count


def double_q_target(
    reward: jax.Array,
    terminated: jax.Array,
    q_tp1_online: jax.Array,
    q_tp1_target: jax.Array,
    discount: float,
) -> jax.Array:
    """r_t + γ Q'(s_{t+1}, argmax_a Q(s_{t+1}, a)), without the second term where terminated (N,).

    Chosen by the online network, valued by the target network, both (N, actions); truncation is not termination and
    bootstraps. Source: van Hasselt et al. 2016, Equation 4.
    """
    best = jnp.argmax(q_tp1_online, axis=-1)
    value = jnp.take_along_axis(q_tp1_target, best[:, None], axis=-1)[:, 0]
    return reward + discount * jnp.where(terminated, 0, value)


def huber_td(q: jax.Array, action: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Huber loss (δ = 1) of Q(s_t, a_t) against a constant target, for each of N rows, and the TD error.

    `q` (N, actions), `action` (N,) int, `target` (N,). Source: Mnih et al. 2015.
    """
    chosen = jnp.take_along_axis(q, action[:, None], axis=-1)[:, 0]
    error = jax.lax.stop_gradient(target) - chosen
    return optax.losses.huber_loss(error), error


def huber_of_mean(error: jax.Array, weight: jax.Array, count: float) -> jax.Array:
    """The Huber loss (δ = 1) of the weighted mean of absolute errors (N,), as the paper's code has it for segments.

    Its gradient is that of an absolute error scaled by the mean error, so it weighs large errors less than `huber_td`.
    """
    return optax.losses.huber_loss(weighted_mean(jnp.abs(error), weight, count))


def squared_td(q: jax.Array, action: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """½ (y - Q(s_t, a_t))² against a constant target y, for each of N rows, and the TD error.

    `q` (N, actions), `action` (N,) int, `target` (N,). Source: Gallici et al. 2024.
    """
    chosen = jnp.take_along_axis(q, action[:, None], axis=-1)[:, 0]
    return squared_error(chosen, target)


def squared_error(value: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """½ (y - v)² of values against constant targets, both (N,), and the error."""
    error = jax.lax.stop_gradient(target) - value
    return 0.5 * jnp.square(error), error


def ppo_clip(log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip_ratio: float) -> jax.Array:
    """-min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) with ρ = π(a) / π_old(a) for each of N rows; the last three are constants.

    Source: Schulman et al. 2017, Equation 7.
    """
    ratio = jnp.exp(log_prob - jax.lax.stop_gradient(old_log_prob))
    advantage = jax.lax.stop_gradient(advantage)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip_ratio, 1 + clip_ratio) * advantage)


def standardise(values: jax.Array, weight: jax.Array) -> jax.Array:
    """(x - mean) / (std + 1e-8) of `values` (N,), both weighted; rows of weight 0 are not read and give 0."""
    total = jnp.maximum(jnp.sum(weight), 1.0)
    centred = jnp.where(weight > 0, values - weighted_mean(values, weight, total), 0)
    return centred / (jnp.sqrt(weighted_mean(jnp.square(centred), weight, total)) + 1e-8)
