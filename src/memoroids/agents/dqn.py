"""Double Dueling DQN on tapes or segments, with any memory or none (van Hasselt 2016, Wang 2016)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from memoroids.agents import optimiser as optimisers
from memoroids.agents.distributions import epsilon_greedy
from memoroids.agents.losses import double_q_target, huber_of_mean, huber_td, weighted_mean
from memoroids.agents.networks import QNetwork
from memoroids.algebra.resettable import select
from memoroids.memory.memoroid import State
from memoroids.replay import Sample, SegmentSample


@dataclass(frozen=True)
class DQNConfig:
    """Settings of the learner; the defaults are the paper's (Morad et al. 2024, Appendix H)."""

    learning_rate: float = 1e-4
    """Adam's learning rate after warm-up."""
    learning_rate_end: float | None = None
    """Learning rate at the last update, reached linearly from the end of warm-up; None keeps it constant."""
    warmup: int = 200
    """Updates over which the learning rate rises linearly from 0."""
    max_grad_norm: float = 0.01
    """Largest global norm of a gradient; longer ones are scaled down to it."""
    polyak: float = 0.995
    """Share of the target network that stays at each update; the rest comes from the online network."""
    discount: float = 0.99
    """Discount factor γ for one step."""
    next_state: Literal["tape", "recomputed"] = "tape"
    """Where the target's next state comes from: the same pass, or, as in the paper's code, a pass without o_0."""
    loss: Literal["huber", "huber-of-mean"] = "huber"
    """Mean of Huber losses, or, as the paper's code has it for segments, the Huber loss of the mean error."""

    def __post_init__(self) -> None:
        optimisers.check(self, shares=("polyak", "discount"))


class DQNState(NamedTuple):
    """All that learning changes: parameters, target parameters, optimiser state, and counters of updates."""

    params: Any
    target: Any
    optimiser: optax.OptState
    updates: jax.Array
    skipped: jax.Array
    divergence: optimisers.Divergence


class DQN(NamedTuple):
    """The algorithm's pure functions for one network; made by `dqn`."""

    init: Callable[[QNetwork], DQNState]
    network: Callable[[Any], QNetwork]
    act: Callable[..., tuple[jax.Array, State]]
    update: Callable[[DQNState, Sample | SegmentSample, int], tuple[DQNState, dict[str, jax.Array], jax.Array]]


def dqn(config: DQNConfig, network: QNetwork, *, updates: int | None = None) -> DQN:
    """Double Dueling DQN with the structure of `network`; its parameters are in the state that `init` makes.

        algorithm = dqn(DQNConfig(), network)
        state = algorithm.init(network)
        network = algorithm.network(state.params)
        action, memory = algorithm.act(state.params, memory, observation, begin, epsilon, key)   # one environment
        state, metrics, td_errors = algorithm.update(state, sample, batch_size)

    `td_errors` (N,) are those of `sample.flat`'s slots, 0 where there is no transition.

    `updates`: how many there will be in all, needed only where the learning rate falls to `learning_rate_end`.

    The functions are pure, unbatched and not jitted: compose, `vmap` and `jit` them outside. An update whose loss or
    gradient is not finite changes nothing and is counted in `state.skipped`.
    """
    static = eqx.partition(network, eqx.is_inexact_array)[1]
    optimiser = optimisers.adam(config, updates)

    def init(network: QNetwork) -> DQNState:
        params = eqx.filter(network, eqx.is_inexact_array)
        # Copies: the state is donated to updates, so no two of its arrays may be one.
        target = jax.tree.map(jnp.copy, params)
        params = jax.tree.map(jnp.copy, params)
        zeros = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return DQNState(params, target, optimiser.init(params), *zeros, optimisers.Divergence.none(params))

    def with_params(params: Any) -> QNetwork:
        return eqx.combine(params, static)

    def act(
        params: Any, memory: State, observation: jax.Array, begin: jax.Array, epsilon: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, State]:
        q, memory = with_params(params).step(observation, begin, memory)
        return epsilon_greedy(q, epsilon, key), memory

    def loss(
        params: Any, target_params: Any, sample: Sample | SegmentSample, count: int
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array]]:
        tape, weight = sample.flat
        # One pass of each network over the batch; the next state of a transition is the state in the next slot.
        recompute_next_state = config.next_state == "recomputed"
        q, q_tp1 = sample.run(with_params(params), recompute_next_state=recompute_next_state)
        _, q_tp1_target = sample.run(with_params(target_params), recompute_next_state=recompute_next_state)
        q_tp1 = jax.lax.stop_gradient(q_tp1)
        target = double_q_target(tape.reward, tape.terminated, q_tp1, q_tp1_target, config.discount)
        losses, error = huber_td(q, tape.action, target)
        value = weighted_mean(losses, weight, count) if config.loss == "huber" else huber_of_mean(error, weight, count)
        # Means over the transitions of the batch, whatever each one's importance is.
        counted = (weight > 0).astype(jnp.float32)
        total = jnp.maximum(jnp.sum(counted), 1.0)
        metrics = {
            "loss": value,
            "td_error": weighted_mean(jnp.abs(error), counted, 1.0) / total,
            "q_mean": weighted_mean(jnp.max(q, axis=-1), counted, 1.0) / total,
            "transitions": jnp.sum(counted),
            "slots": jnp.full((), weight.size, jnp.float32),
        }
        return value, (metrics, jnp.where(tape.transition, error, 0))

    def update(
        state: DQNState, sample: Sample | SegmentSample, count: int
    ) -> tuple[DQNState, dict[str, jax.Array], jax.Array]:
        grads, (metrics, td_errors) = jax.grad(loss, has_aux=True)(state.params, state.target, sample, count)
        norm, nonfinite = optimisers.grad_norm_and_nonfinite(metrics["loss"], grads)
        steps, optimiser_state = optimiser.update(grads, state.optimiser, state.params)
        params = optax.apply_updates(state.params, steps)
        target = optax.incremental_update(params, state.target, 1 - config.polyak)
        learned = state._replace(params=params, target=target, optimiser=optimiser_state, updates=state.updates + 1)
        kept = state._replace(skipped=state.skipped + 1)
        after = select(~jnp.any(nonfinite), learned, kept)._replace(divergence=state.divergence.after(nonfinite))
        return after, metrics | {"grad_norm": norm}, td_errors

    return DQN(init, with_params, act, update)
