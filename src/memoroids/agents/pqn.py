"""PQN, Q(λ) without replay or target network, on tapes with any memory or none (Gallici et al. 2024)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.agents import optimiser as optimisers
from memoroids.agents.distributions import epsilon_greedy
from memoroids.agents.losses import squared_td, weighted_mean
from memoroids.agents.networks import QNetwork
from memoroids.agents.optimiser import LearnerState
from memoroids.agents.rollout_batch import Rollout, minibatches, take_rows
from memoroids.memory.memoroid import State
from memoroids.returns import lambda_return


@dataclass(frozen=True)
class PQNConfig:
    """Settings of the learner."""

    learning_rate: float = 5e-4
    """Adam's learning rate after warm-up."""
    learning_rate_end: float | None = None
    """Learning rate at the last gradient step, reached linearly from the end of warm-up; None keeps it constant."""
    warmup: int = 0
    """Gradient steps over which the learning rate rises linearly from 0."""
    max_grad_norm: float = 10.0
    """Largest global norm of a gradient; longer ones are scaled down to it."""
    discount: float = 0.99
    """Discount factor γ for one step."""
    lambda_: float = 0.65
    """λ of the returns: 0 looks one step ahead, 1 to the end of the episode or the chunk."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 4
    """Parts of each pass, a gradient step each; every part holds whole tapes, so it must divide the copies."""

    def __post_init__(self) -> None:
        optimisers.check(self, shares=("discount", "lambda_"))
        for name in ("epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def steps(self) -> int:
        """Gradient steps on each rollout."""
        return self.epochs * self.minibatches


class PQN(NamedTuple):
    """The algorithm's pure functions for one network; made by `pqn`."""

    init: Callable[[QNetwork], LearnerState]
    network: Callable[[Any], QNetwork]
    act: Callable[..., tuple[jax.Array, State]]
    update: Callable[[LearnerState, Rollout, jax.Array], tuple[LearnerState, dict[str, jax.Array]]]


def pqn(config: PQNConfig, network: QNetwork, *, updates: int | None = None) -> PQN:
    """PQN with the structure of `network`; its parameters are in the state that `init` makes.

        algorithm = pqn(PQNConfig(), network)
        state = algorithm.init(network)
        network = algorithm.network(state.params)
        action, memory = algorithm.act(state.params, memory, observation, begin, epsilon, key)   # one environment
        state, metrics = algorithm.update(state, rollout, key)

    `updates`: how many gradient steps there will be in all, `config.steps` for each rollout, needed only where the
    learning rate falls to `learning_rate_end`.

    The functions are pure, unbatched and not jitted: compose, `vmap` and `jit` them outside. A minibatch whose loss or
    gradient is not finite changes nothing and is counted in `state.skipped`. Raises `ValueError` where the minibatches
    do not divide a rollout's tapes, or where `updates` is missing.
    """
    static = eqx.partition(network, eqx.is_inexact_array)[1]
    optimiser = optimisers.adam(config, updates)

    def with_params(params: Any) -> QNetwork:
        return eqx.combine(params, static)

    def act(
        params: Any, memory: State, observation: jax.Array, begin: jax.Array, epsilon: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, State]:
        q, memory = with_params(params).step(observation, begin, memory)
        return epsilon_greedy(q, epsilon, key), memory

    def targets(params: Any, rollout: Rollout) -> jax.Array:
        # The value of what a transition leads to is the best action's in the next slot.
        _, q_tp1 = rollout.run(with_params(params))
        tape = rollout.tape
        return jax.vmap(partial(lambda_return, discount=config.discount, lambda_=config.lambda_))(
            tape.reward, jnp.max(q_tp1, axis=-1), tape.terminated, tape.truncated, transition=tape.transition
        )

    def loss(params: Any, rollout: Rollout, target: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        q, _ = rollout.run(with_params(params))
        # From here on there is no time: flat transitions with a weight each.
        tape = rollout.tape
        q, weight = q.reshape(-1, q.shape[-1]), tape.transition.ravel().astype(jnp.float32)
        mean = partial(weighted_mean, weight=weight, count=jnp.maximum(jnp.sum(weight), 1.0))
        losses, error = squared_td(q, tape.action.ravel(), target.ravel())
        return mean(losses), {
            "td_error": mean(jnp.abs(error)),
            "q_mean": mean(jnp.max(q, axis=-1)),
            "transitions": jnp.sum(weight),
            "slots": jnp.full((), weight.size, jnp.float32),
        }

    def update(state: LearnerState, rollout: Rollout, key: jax.Array) -> tuple[LearnerState, dict[str, jax.Array]]:
        chosen = minibatches(key, rollout.tape.begin.shape[0], config.minibatches, config.epochs)
        batch = rollout, targets(state.params, rollout)

        def step(state: LearnerState, chosen: jax.Array) -> tuple[LearnerState, dict[str, jax.Array]]:
            return optimisers.descend(optimiser, state, loss, *take_rows(batch, chosen))

        state, metrics = jax.lax.scan(step, state, chosen)
        return state, optimisers.summary(metrics)

    return PQN(partial(optimisers.init, optimiser), with_params, act, update)
