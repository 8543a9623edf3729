"""A fourth agent, as a user would write it: advantage actor-critic, one gradient step a rollout (Mnih et al. 2016)."""

from dataclasses import dataclass
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.agents import optimiser as optimisers
from memoroids.agents.base import Agent, AgentType, Plan, Traits
from memoroids.agents.dqn import DQN, DQNConfig, dqn
from memoroids.agents.losses import squared_error, weighted_mean
from memoroids.agents.networks import ActorCritic, QNetwork
from memoroids.returns import gae


@dataclass(frozen=True)
class A2CConfig:
    """Settings of the learner."""

    learning_rate: float = 1e-3
    """Adam's learning rate after warm-up."""
    learning_rate_end: float | None = None
    """Learning rate at the last gradient step; None keeps it constant."""
    warmup: int = 0
    """Gradient steps over which the learning rate rises linearly from 0."""
    max_grad_norm: float = 0.5
    """Largest global norm of a gradient."""
    trace: float = 0.9
    """λ of the advantages."""


def a2c(config: A2CConfig, network: ActorCritic, plan: Plan) -> Agent:
    """Advantage actor-critic with the structure of `network`."""
    static = eqx.partition(network, eqx.is_inexact_array)[1]
    optimiser = optimisers.adam(config)

    def with_params(params):
        return eqx.combine(params, static)

    def act(params, memory, observation, begin, explore, key):
        (policy, _), memory = with_params(params).step(observation, begin, memory)
        return jnp.where(explore > 0, policy.sample(key), policy.mode()), memory

    def loss(params, rollout):
        (policy, value), (_, value_tp1) = rollout.run(with_params(params))
        tape = rollout.tape
        advantage = jax.vmap(partial(gae, discount=0.99, lambda_=config.trace))(
            tape.reward, value, value_tp1, tape.terminated, tape.truncated, transition=tape.transition
        )
        advantage = jax.lax.stop_gradient(advantage)
        weight = tape.transition.astype(jnp.float32)
        mean = partial(weighted_mean, weight=weight, count=jnp.maximum(jnp.sum(weight), 1.0))
        value_losses, error = squared_error(value, advantage + value)
        total = mean(value_losses - policy.log_prob(tape.action) * advantage - 0.01 * policy.entropy())
        counts = {"transitions": jnp.sum(weight), "slots": jnp.full((), weight.size, jnp.float32)}
        return total, ({"td_error": mean(jnp.abs(error)), "q_mean": mean(value), **counts}, None)

    def update(state, rollout, key, share):
        del key
        return optimisers.descend(optimiser, state, loss, rollout, factor=optimisers.decay(config, share.after))

    return Agent(partial(optimisers.init, optimiser), with_params, act, update, A2C.traits)


A2C = AgentType(
    settings=A2CConfig,
    network=ActorCritic,
    make=a2c,
    traits=Traits(learns_from_replay=False, continuous_actions=True, action_values=False, exploration="policy"),
)
NOT_AN_AGENT = a2c


def twice(config: DQNConfig, network: QNetwork, plan: Plan) -> Agent:
    """DQN that takes two gradient steps on each sample."""
    once = dqn(config, network, plan)

    def update(state, sample, key, share):
        middle = share._replace(after=share.at(0, 2))
        state, first, _ = once.update(state, sample, key, middle)
        state, second, td_errors = once.update(state, sample, key, share)
        sums = {name: first[name] + second[name] for name in first}
        counts = ("transitions", "slots")
        return state, {name: leaf if name in counts else leaf / 2 for name, leaf in sums.items()}, td_errors

    return once._replace(update=update, gradient_steps=2)


TWICE = AgentType(DQNConfig, QNetwork, twice, DQN.traits)
