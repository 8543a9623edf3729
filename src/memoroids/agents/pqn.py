"""PQN, Q(λ) without replay or target network, on tapes with any memory or none (Gallici et al. 2024).

Actions of several parts have action values and λ-returns for each part (Tavakoli et al. 2018).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.agents import optimiser as optimisers
from memoroids.agents.base import Agent, AgentType, Plan, TrainingShare, Traits
from memoroids.agents.branches import best, over_parts, taken
from memoroids.agents.distributions import epsilon_greedy
from memoroids.agents.losses import explained_variance, lambda_target, squared_td, weighted_mean
from memoroids.agents.networks import QNetwork
from memoroids.agents.normaliser import observed
from memoroids.agents.optimiser import AdamState
from memoroids.agents.reward_scale import in_units_of_reward, scaled
from memoroids.agents.rollout_batch import Rollout, check_minibatches, minibatches, take_rows
from memoroids.memory.memoroid import State


@dataclass(frozen=True)
class PQNConfig:
    """Settings of PQN."""

    learning_rate: float = 5e-4
    """Adam's learning rate after warm-up."""
    learning_rate_end: float | None = 0.0
    """Learning rate at the last gradient step, reached linearly over training; None: constant."""
    warmup: int = 0
    """Gradient steps over which the learning rate rises linearly from 0."""
    max_grad_norm: float = 10.0
    """Largest global norm of a gradient; larger gradients are scaled down to it."""
    discount: float = 0.99
    """Discount factor γ per step."""
    lambda_: float = 0.95
    """λ of the λ-returns: 0 is the one-step target, 1 the return to the end of the episode or rollout."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 8
    """Minibatches per pass, a gradient step each; each holds whole tapes, so their number must divide num_envs."""
    scale_rewards: bool = True
    """Learn rewards in units of a typical return, so that settings fit whatever unit the environment's rewards have."""

    def __post_init__(self) -> None:
        optimisers.check(self, shares=("discount", "lambda_"))
        for name in ("epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def steps(self) -> int:
        """Gradient steps per rollout."""
        return self.epochs * self.minibatches


def pqn(config: PQNConfig, network: QNetwork, plan: Plan) -> Agent:
    """PQN for networks with the structure of `network`, whose parameters `init` copies into the state.

        agent = pqn(PQNConfig(), network, Plan())
        state = agent.init(network)
        state, metrics, _ = agent.update(state, rollout, key)

    A minibatch with a non-finite loss or gradient is skipped and counted in `state.skipped`. `plan` is not used.
    `update` raises `ValueError` if the minibatches do not divide a rollout's tapes. Without a share of training, the
    learning rate stays as at its beginning.
    """
    del plan
    static = eqx.partition(network, eqx.is_inexact_array)[1]
    optimiser = optimisers.adam(config)

    def with_params(params: Any) -> QNetwork:
        return eqx.combine(params, static)

    def act(
        params: Any, memory: State, observation: jax.Array, begin: jax.Array, epsilon: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, State]:
        q, memory = with_params(params).step(observation, begin, memory)
        return epsilon_greedy(q, epsilon, key), memory

    def targets(params: Any, rollout: Rollout) -> jax.Array:
        # The value of a next state is that of its best action.
        _, q_tp1 = rollout.run(with_params(params))
        target = partial(lambda_target, discount=config.discount, lambda_=config.lambda_)
        return jax.vmap(target)(rollout.tape, best(q_tp1))

    def loss(params: Any, rollout: Rollout, target: jax.Array) -> tuple[jax.Array, Any]:
        q, _ = rollout.run(with_params(params))
        # Flat transitions from here on, each with a weight.
        tape = rollout.tape
        weight = tape.transition.ravel().astype(jnp.float32)
        q, action, target = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (q, tape.action, target))
        mean = partial(weighted_mean, weight=weight, count=jnp.maximum(jnp.sum(weight), 1.0))
        losses, error = squared_td(q, action, target)
        metrics = {
            "td_error": mean(jnp.abs(error)),
            "q_mean": mean(over_parts(q, best(q))),
            "explained_variance": explained_variance(taken(q, action), target, weight),
            "transitions": jnp.sum(weight),
            "slots": jnp.full((), weight.size, jnp.float32),
        }
        return mean(losses), (metrics, None)

    def update(
        state: AdamState, rollout: Rollout, key: jax.Array, share: TrainingShare | None = None
    ) -> tuple[AdamState, dict[str, jax.Array], None]:
        chosen = minibatches(key, rollout.tape.begin.shape[0], config.minibatches, config.epochs)
        state, rollout = scaled(observed(state, rollout.tape), rollout, config.discount)
        batch = rollout, targets(state.params, rollout)

        def step(state: AdamState, at: tuple[jax.Array, jax.Array]) -> tuple[AdamState, dict[str, jax.Array]]:
            i, rows = at
            factor = optimisers.decay(config, share and share.at(i, config.steps))
            return optimisers.descend(optimiser, state, loss, *take_rows(batch, rows), factor=factor)[:2]

        state, metrics = jax.lax.scan(step, state, (jnp.arange(config.steps, dtype=jnp.float32), chosen))
        return state, in_units_of_reward(state, optimisers.summary(metrics)), None

    init = partial(optimisers.init, optimiser, scale_rewards=config.scale_rewards)
    return Agent(init, with_params, act, update, PQN.traits, config.steps)


PQN = AgentType(
    settings=PQNConfig,
    network=QNetwork,
    make=pqn,
    traits=Traits(
        learns_from_replay=False,
        continuous_actions=False,
        action_values=True,
        exploration="epsilon",
        factored_actions=True,
    ),
    check=check_minibatches,
    numbers=optimisers.NUMBERS | {"discount", "lambda_"},
)
