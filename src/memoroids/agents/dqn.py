"""Double Dueling DQN on tapes or segments, with any memory or none (van Hasselt 2016, Wang 2016).

Actions of several parts have action values and targets for each part (Tavakoli 2018).
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from memoroids.agents import optimiser as optimisers
from memoroids.agents.base import Agent, AgentType, Plan, TrainingShare, Traits
from memoroids.agents.branches import best, greedy, over_parts, taken
from memoroids.agents.distributions import epsilon_greedy
from memoroids.agents.losses import double_q_target, huber_of_mean, huber_td, lambda_target, weighted_mean
from memoroids.agents.networks import QNetwork
from memoroids.agents.normaliser import observed
from memoroids.agents.reward_scale import RewardScale, in_units_of_reward, scaled
from memoroids.memory.memoroid import State
from memoroids.replay import Sample, SegmentSample


@dataclass(frozen=True)
class DQNConfig:
    """Settings of DQN; those of the paper are the preset `paper` (Morad et al. 2024, Appendix H)."""

    learning_rate: float = 5e-4
    """Adam's learning rate after warm-up."""
    learning_rate_end: float | None = 0.0
    """Learning rate at the last update, reached linearly over training; None: constant."""
    warmup: int = 0
    """Updates over which the learning rate rises linearly from 0."""
    max_grad_norm: float = 0.5
    """Largest global norm of a gradient; larger gradients are scaled down to it."""
    polyak: float = 0.95
    """Share of its old value that a target parameter keeps at each update; the rest is the online parameter."""
    discount: float = 0.99
    """Discount factor γ per step."""
    lambda_: float = 0.9
    """λ of the targets, λ-returns to the end of each episode in a batch: 0 is the one-step target of the paper. Returns
    after an action that the current policy would not take count as well (Peng and Williams 1996)."""
    next_state: Literal["tape", "recomputed"] = "tape"
    """Memory state of a target's next observation: tape, from the same pass over the tape; recomputed, from a second
    pass that does not see the first observation, as in the paper's code."""
    loss: Literal["huber", "huber-of-mean"] = "huber"
    """huber: the mean Huber loss of the transitions; huber-of-mean: the Huber loss of their mean absolute error, as in
    the paper's code for segments."""
    scale_rewards: bool = True
    """Learn rewards in units of a typical return, so that settings fit whatever unit the environment's rewards have."""

    def __post_init__(self) -> None:
        optimisers.check(self, shares=("polyak", "discount", "lambda_"))


class DQNState(NamedTuple):
    """The fields of an `AdamState` and the target network's parameters."""

    params: Any
    optimiser: optax.OptState
    updates: jax.Array
    skipped: jax.Array
    divergence: optimisers.Divergence
    scale: RewardScale | None
    target: Any


def dqn(config: DQNConfig, network: QNetwork, plan: Plan) -> Agent:
    """Double Dueling DQN for networks with the structure of `network`, whose parameters `init` copies into the state.

        agent = dqn(DQNConfig(), network, Plan(batch_size=1_000))
        state = agent.init(network)
        state, metrics, td_errors = agent.update(state, sample, key)

    See `memoroids.agents.base.Agent`; `update` does not use its key. Without a share of training, the learning rate
    stays as at its beginning.
    """
    static = eqx.partition(network, eqx.is_inexact_array)[1]
    optimiser = optimisers.adam(config)

    def init(network: QNetwork) -> DQNState:
        state = optimisers.init(optimiser, network, scale_rewards=config.scale_rewards)
        # The state is donated to updates, so its arrays must not share buffers.
        return DQNState(*state, target=jax.tree.map(jnp.copy, state.params))

    def with_params(params: Any) -> QNetwork:
        return eqx.combine(params, static)

    def act(
        params: Any, memory: State, observation: jax.Array, begin: jax.Array, epsilon: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, State]:
        q, memory = with_params(params).step(observation, begin, memory)
        return epsilon_greedy(q, epsilon, key), memory

    def loss(
        params: Any, target_params: Any, sample: Sample | SegmentSample
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array]]:
        tape, weight = sample.flat
        # One pass of each network over the batch gives the values of all states and next states.
        recompute = config.next_state == "recomputed"
        q, q_tp1 = sample.run(with_params(params), recompute_next_state=recompute)
        _, q_tp1_target = sample.run(with_params(target_params), recompute_next_state=recompute)
        q_tp1 = jax.lax.stop_gradient(q_tp1)
        if config.lambda_:
            target = lambda_target(tape, taken(q_tp1_target, greedy(q_tp1)), config.discount, config.lambda_)
        else:
            target = double_q_target(tape.reward, tape.terminated, q_tp1, q_tp1_target, config.discount)
        losses, error = huber_td(q, tape.action, target)
        if config.loss == "huber":
            value = weighted_mean(losses, weight, plan.batch_size)
        else:
            value = huber_of_mean(error, weight, plan.batch_size)
        # Metrics are unweighted means over the transitions of the batch.
        counted = (weight > 0).astype(jnp.float32)
        total = jnp.maximum(jnp.sum(counted), 1.0)
        metrics = {
            "td_error": weighted_mean(jnp.abs(error), counted, 1.0) / total,
            "q_mean": weighted_mean(over_parts(q, best(q)), counted, 1.0) / total,
            "transitions": jnp.sum(counted),
            "slots": jnp.full((), weight.size, jnp.float32),
        }
        return value, (metrics, jnp.where(tape.transition, error, 0))

    def update(
        state: DQNState, sample: Sample | SegmentSample, key: jax.Array, share: TrainingShare | None = None
    ) -> tuple[DQNState, dict[str, jax.Array], jax.Array]:
        del key

        def follow(params: Any) -> dict[str, Any]:
            return {"target": optax.incremental_update(params, state.target, 1 - config.polyak)}

        factor = optimisers.decay(config, share and share.after)
        state, sample = scaled(observed(state, sample.tape), sample, config.discount)
        after, metrics, td_errors = optimisers.descend(
            optimiser, state, loss, state.target, sample, factor=factor, follow=follow
        )
        return after, in_units_of_reward(after, metrics), td_errors

    return Agent(init, with_params, act, update, DQN.traits)


DQN = AgentType(
    settings=DQNConfig,
    network=QNetwork,
    make=dqn,
    traits=Traits(
        learns_from_replay=True,
        continuous_actions=False,
        action_values=True,
        exploration="epsilon",
        factored_actions=True,
    ),
    numbers=optimisers.NUMBERS | {"discount", "polyak"},
)
