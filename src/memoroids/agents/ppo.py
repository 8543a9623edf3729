"""Proximal Policy Optimisation on tapes, with any memory or none (Schulman et al. 2017)."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from memoroids.agents import optimiser as optimisers
from memoroids.agents.advantage_spread import AdvantageSpread
from memoroids.agents.base import Agent, AgentType, Plan, TrainingShare, Traits
from memoroids.agents.losses import explained_variance, ppo_clip, squared_error, standardise, weighted_mean
from memoroids.agents.networks import ActorCritic
from memoroids.agents.normaliser import observed
from memoroids.agents.reward_scale import RewardScale, in_units_of_reward, scaled
from memoroids.agents.rollout_batch import Rollout, check_minibatches, minibatches, take_rows
from memoroids.memory.memoroid import State
from memoroids.returns import gae
from memoroids.tape import Tape


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO."""

    learning_rate: float = 1e-3
    """Adam's learning rate after warm-up."""
    learning_rate_end: float | None = 0.0
    """Learning rate at the last gradient step, reached linearly over training; None: constant."""
    warmup: int = 0
    """Gradient steps over which the learning rate rises linearly from 0."""
    max_grad_norm: float = 0.5
    """Largest global norm of a gradient; larger gradients are scaled down to it."""
    discount: float = 0.99
    """Discount factor γ per step."""
    lambda_: float = 0.95
    """λ of generalised advantage estimation: 0 is the one-step error, 1 looks to the end of the episode or rollout."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 4
    """Minibatches per pass, a gradient step each; each holds whole tapes, so their number must divide num_envs."""
    clip_ratio: float = 0.2
    """ε of the clipped surrogate loss: beyond 1 ± ε the ratio π(a) / π_old(a) gains nothing more."""
    value_weight: float = 0.5
    """Weight of the value loss; that of the policy loss is 1."""
    entropy: float = 0.01
    """Weight of the entropy bonus at the beginning of training."""
    entropy_end: float | None = None
    """Weight of the entropy bonus at the last gradient step, reached linearly over training; None: constant."""
    prediction_weight: float = 0.0
    """Weight of an auxiliary loss: the squared error of the next observation, predicted from features and action."""
    scale_rewards: bool = True
    """Learn rewards in units of a typical return, so that settings fit whatever unit the environment's rewards have."""
    normalise_advantages: bool = True
    """Normalise the advantages of each minibatch to mean 0 and standard deviation 1."""
    advantage_window: int = 500_000
    """Transitions over which the deviation of advantages is averaged: a minibatch with a smaller one, as where rewards
    are rare and there was none, is divided by the average, so that its noise is not enlarged. 0: no average."""

    def __post_init__(self) -> None:
        optimisers.check(self, positive=("clip_ratio",), shares=("discount", "lambda_"))
        for name in ("epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.advantage_window < 0:
            raise ValueError(f"advantage_window must not be negative, got {self.advantage_window}")
        for name in ("value_weight", "entropy", "entropy_end", "prediction_weight"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value}")

    @property
    def steps(self) -> int:
        """Gradient steps per rollout."""
        return self.epochs * self.minibatches

    def entropy_at(self, share: Any) -> Any:
        """Weight of the entropy bonus after this share of training; None: at its beginning."""
        if self.entropy_end is None or share is None:
            return self.entropy
        return optimisers.linear(self.entropy, self.entropy_end, share)


class PPOState(NamedTuple):
    """The fields of an `AdamState`, and how far advantages spread; None where that is not averaged."""

    params: Any
    optimiser: optax.OptState
    updates: jax.Array
    skipped: jax.Array
    divergence: optimisers.Divergence
    scale: RewardScale | None
    spread: AdvantageSpread | None


class Batch(NamedTuple):
    """A rollout, and constants of the loss computed with the parameters before the update, (n, slots) each."""

    rollout: Rollout
    log_prob: jax.Array
    advantage: jax.Array
    target: jax.Array


def head_gradients(grads: Any) -> dict[str, jax.Array]:
    """The norms of the gradients of the two heads: `policy_grad` is the policy's pull, `value_grad` the value's.

    They stand for the pull at the features that the heads share, which would take a second backward pass to measure:
    both weigh the same features by the gradients at the heads' outputs.
    """
    return {f"{name}_grad": optax.tree.norm(getattr(grads.head, name)) for name in ("policy", "value")}


def policy_change(log_prob: jax.Array, old_log_prob: jax.Array, clip_ratio: float) -> dict[str, jax.Array]:
    """How far the policy has moved at each transition, (N,) each: `kl` and `clipped`.

    `kl`: a non-negative estimate of KL(π_old, π). `clipped`: 1 where the ratio of probabilities is past the clipping.
    """
    log_ratio = log_prob - old_log_prob
    past = jnp.abs(jnp.expm1(log_ratio)) > clip_ratio
    return {"kl": jnp.expm1(log_ratio) - log_ratio, "clipped": past.astype(jnp.float32)}


def at_entry(config: PPOConfig, network: ActorCritic, acted: ActorCritic | None, rollout: Rollout) -> Batch:
    """The rollout with what the network says of it before a gradient step; `acted`: what acted, if another."""
    # One pass gives the values of all states and next states.
    (policy, value), (_, value_tp1) = rollout.run(network)
    tape = rollout.tape
    advantage = jax.vmap(partial(gae, discount=config.discount, lambda_=config.lambda_))(
        tape.reward, value, value_tp1, tape.terminated, tape.truncated, transition=tape.transition
    )
    if acted is not None:
        (policy, _), _ = rollout.run(acted)
    return Batch(rollout, policy.log_prob(tape.action), advantage, advantage + value)


def judged(network: ActorCritic, rollout: Rollout) -> tuple[tuple[Any, jax.Array], jax.Array | float]:
    """The policy and the values of a rollout's slots, and the error with which the next observation was predicted.

    The error (n · slots,) is the mean over the parts of an observation, brought to unit scale, of the squared
    differences; 0 if the network predicts nothing. Source: after Ha & Schmidhuber 2018, without a separate model.
    """
    if network.predictor is None:
        return rollout.run(network)[0], 0.0
    out, features = rollout.run(network.with_features())[0]
    seen = jax.vmap(jax.vmap(network.at_unit_scale))(rollout.tape.observation)
    wanted = jax.vmap(Tape.next_slot)(rollout.tape, jax.lax.stop_gradient(seen))
    predicted = jax.vmap(jax.vmap(network.predictor))(features, rollout.tape.action)
    return out, jnp.mean(jnp.square(predicted - wanted), axis=-1).ravel()


def spread_after(spread: AdvantageSpread | None, batch: Batch, window: int) -> AdvantageSpread | None:
    """How far advantages spread after a batch; None if that is not averaged."""
    weight = batch.rollout.tape.transition.astype(jnp.float32)
    return spread and spread.after(batch.advantage, weight, window)


def ppo(config: PPOConfig, network: ActorCritic, plan: Plan) -> Agent:
    """PPO for networks with the structure of `network`, whose parameters `init` copies into the state.

        agent = ppo(PPOConfig(), network, Plan())
        state = agent.init(network)
        state, metrics, _ = agent.update(state, rollout, key)

    A minibatch with a non-finite loss or gradient is skipped and counted in `state.skipped`. `plan` is not used.
    `update` raises `ValueError` if the minibatches do not divide a rollout's tapes. Without a share of training,
    learning rate and entropy bonus stay as at its beginning.
    """
    del plan
    static = eqx.partition(network, eqx.is_inexact_array)[1]
    optimiser = optimisers.adam(config)

    averaged = config.normalise_advantages and config.advantage_window > 0

    def init(network: ActorCritic) -> PPOState:
        state = optimisers.init(optimiser, network, scale_rewards=config.scale_rewards)
        return PPOState(*state, spread=AdvantageSpread.unknown() if averaged else None)

    def with_params(params: Any) -> ActorCritic:
        return eqx.combine(params, static)

    def act(
        params: Any, memory: State, observation: jax.Array, begin: jax.Array, explore: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, State]:
        (policy, _), memory = with_params(params).step(observation, begin, memory)
        return jnp.where(explore > 0, policy.sample(key), policy.mode()), memory

    def loss(
        params: Any, batch: Batch, entropy_weight: jax.Array, spread: AdvantageSpread | None
    ) -> tuple[jax.Array, Any]:
        (policy, value), prediction_losses = judged(with_params(params), batch.rollout)
        # Flat transitions from here on, each with a weight.
        tape = batch.rollout.tape
        log_prob, entropy = policy.log_prob(tape.action).ravel(), policy.entropy().ravel()
        value, weight = value.ravel(), tape.transition.ravel().astype(jnp.float32)
        old_log_prob, advantage, target = (x.ravel() for x in batch[1:])
        total = jnp.maximum(jnp.sum(weight), 1.0)
        mean = partial(weighted_mean, weight=weight, count=total)

        if config.normalise_advantages:
            advantage = standardise(advantage, weight, spread and spread.deviation)
        value_losses, error = squared_error(value, target)
        policy_losses = ppo_clip(log_prob, old_log_prob, advantage, config.clip_ratio)
        losses = policy_losses + config.value_weight * value_losses - entropy_weight * entropy
        losses = losses + config.prediction_weight * prediction_losses
        metrics = {
            "policy_loss": mean(policy_losses),
            "td_error": mean(jnp.abs(error)),
            "q_mean": mean(value),
            "explained_variance": explained_variance(value, target, weight),
            "entropy": mean(entropy),
            **{name: mean(each) for name, each in policy_change(log_prob, old_log_prob, config.clip_ratio).items()},
            "transitions": jnp.sum(weight),
            "slots": jnp.full((), weight.size, jnp.float32),
        }
        return mean(losses), (metrics, None)

    def update(
        state: PPOState, rollout: Rollout, key: jax.Array, share: TrainingShare | None = None
    ) -> tuple[PPOState, dict[str, jax.Array], None]:
        chosen = minibatches(key, rollout.tape.begin.shape[0], config.minibatches, config.epochs)
        state, rollout = scaled(observed(state, rollout.tape), rollout, config.discount)
        acted = None if rollout.behaviour is None else with_params(rollout.behaviour)
        batch = at_entry(config, with_params(state.params), acted, rollout._replace(behaviour=None))
        state = state._replace(spread=spread_after(state.spread, batch, config.advantage_window))

        def step(state: PPOState, at: tuple[jax.Array, jax.Array]) -> tuple[PPOState, dict[str, jax.Array]]:
            i, rows = at
            done = share and share.at(i, config.steps)
            part, factor = take_rows(batch, rows), optimisers.decay(config, done)
            arguments = part, config.entropy_at(done), state.spread
            return optimisers.descend(optimiser, state, loss, *arguments, factor=factor, measure=head_gradients)[:2]

        state, metrics = jax.lax.scan(step, state, (jnp.arange(config.steps, dtype=jnp.float32), chosen))
        return state, in_units_of_reward(state, optimisers.summary(metrics)), None

    return Agent(init, with_params, act, update, PPO.traits, config.steps)


PPO = AgentType(
    settings=PPOConfig,
    network=ActorCritic,
    make=ppo,
    traits=Traits(
        learns_from_replay=False,
        continuous_actions=True,
        action_values=False,
        exploration="policy",
        factored_actions=True,
        told_actions=True,
    ),
    check=check_minibatches,
    network_options=lambda settings: {"predicts": settings.prediction_weight > 0},
    numbers=optimisers.NUMBERS | {"discount", "lambda_", "clip_ratio", "value_weight", "entropy", "entropy_end"},
)
