"""An agent of your own, to be run in the root of the repository: advantage actor-critic (Mnih et al. 2016)."""

from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.agents import optimiser
from memoroids.agents.base import Agent, AgentType, Plan, Traits
from memoroids.agents.networks import ActorCritic
from memoroids.cli.main import main
from memoroids.returns import gae


@dataclass(frozen=True)
class A2CConfig:
    """Each field is an option of the command line. `optimiser.adam` reads all but the last."""

    learning_rate: float = 1e-3
    learning_rate_end: float | None = None
    warmup: int = 0
    max_grad_norm: float = 0.5
    lambda_: float = 0.9


def make(config: A2CConfig, network: ActorCritic, plan: Plan) -> Agent:
    """Pure functions for one network; the parameters are in the state that `init` returns."""
    adam = optimiser.adam(config)
    with_params = partial(eqx.combine, eqx.partition(network, eqx.is_inexact_array)[1])

    def act(params, memory, observation, begin, explore, key):
        (policy, _), memory = with_params(params).step(observation, begin, memory)
        return jnp.where(explore > 0, policy.sample(key), policy.mode()), memory

    def loss(params, rollout):
        tape, mean = rollout.tape, partial(jnp.mean, where=rollout.tape.transition)
        (policy, value), (_, value_tp1) = rollout.run(with_params(params))  # in each slot, and in the next
        estimate = jax.vmap(partial(gae, discount=0.99, lambda_=config.lambda_))
        ends = tape.terminated, tape.truncated
        found = estimate(tape.reward, value, value_tp1, *ends, transition=tape.transition)
        advantage, target = jax.lax.stop_gradient((found, found + value))
        losses = 0.5 * (target - value) ** 2 - policy.log_prob(tape.action) * advantage - 0.01 * policy.entropy()
        return mean(losses), ({"td_error": mean(jnp.abs(advantage)), "q_mean": mean(value)}, None)

    def update(state, rollout, key, share):
        return optimiser.descend(adam, state, loss, rollout, factor=optimiser.decay(config, share.after))

    return Agent(partial(optimiser.init, adam), with_params, act, update, TRAITS)


TRAITS = Traits(
    learns_from_replay=False,
    continuous_actions=True,
    action_values=False,
    exploration="policy",
    factored_actions=True,
)
A2C = AgentType(A2CConfig, ActorCritic, make, TRAITS)

if __name__ == "__main__":
    command = "train --env device:RepeatPreviousEasy --algorithm examples.own_agent:A2C --memory ffm --steps 4000"
    with TemporaryDirectory() as run:
        main([*command.split(), "--final-episodes", "10", "--run-dir", run])
