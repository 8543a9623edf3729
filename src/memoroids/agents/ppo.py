"""Proximal Policy Optimisation on tapes, with any memory or none (Schulman et al. 2017)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.agents import optimiser as optimisers
from memoroids.agents.losses import ppo_clip, squared_error, standardise, weighted_mean
from memoroids.agents.networks import ActorCritic
from memoroids.agents.optimiser import LearnerState
from memoroids.agents.rollout_batch import Rollout, minibatches, take_rows
from memoroids.memory.memoroid import State
from memoroids.returns import gae


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the learner."""

    learning_rate: float = 5e-4
    """Adam's learning rate after warm-up."""
    learning_rate_end: float | None = None
    """Learning rate at the last gradient step, reached linearly from the end of warm-up; None keeps it constant."""
    warmup: int = 0
    """Gradient steps over which the learning rate rises linearly from 0."""
    max_grad_norm: float = 0.5
    """Largest global norm of a gradient; longer ones are scaled down to it."""
    discount: float = 0.99
    """Discount factor γ for one step."""
    lambda_: float = 0.95
    """λ of the generalised advantages: 0 looks one step ahead, 1 to the end of the episode or the chunk."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 4
    """Parts of each pass, a gradient step each; every part holds whole tapes, so it must divide the copies."""
    clip_ratio: float = 0.2
    """How far π(a) / π_old(a) may leave 1 before a sample stops pulling it further."""
    value_weight: float = 0.5
    """Weight of the value loss beside the policy loss."""
    entropy: float = 0.01
    """Weight of the policy's entropy, which is rewarded, at the first gradient step."""
    entropy_end: float | None = None
    """Weight of the entropy at the last gradient step, reached linearly; None keeps it constant."""
    normalise_advantages: bool = True
    """Shift and scale the advantages of each minibatch to mean 0 and standard deviation 1."""

    def __post_init__(self) -> None:
        optimisers.check(self, positive=("clip_ratio",), shares=("discount", "lambda_"))
        for name in ("epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("value_weight", "entropy", "entropy_end"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value}")

    @property
    def steps(self) -> int:
        """Gradient steps on each rollout."""
        return self.epochs * self.minibatches


class Batch(NamedTuple):
    """A rollout with what the network at entry made of it, arrays (n, slots): constants of the loss."""

    rollout: Rollout
    log_prob: jax.Array
    advantage: jax.Array
    target: jax.Array


class PPO(NamedTuple):
    """The algorithm's pure functions for one network; made by `ppo`."""

    init: Callable[[ActorCritic], LearnerState]
    network: Callable[[Any], ActorCritic]
    act: Callable[..., tuple[jax.Array, State]]
    update: Callable[[LearnerState, Rollout, jax.Array], tuple[LearnerState, dict[str, jax.Array]]]


def ppo(config: PPOConfig, network: ActorCritic, *, updates: int | None = None) -> PPO:
    """PPO with the structure of `network`; its parameters are in the state that `init` makes.

        algorithm = ppo(PPOConfig(), network)
        state = algorithm.init(network)
        network = algorithm.network(state.params)
        action, memory = algorithm.act(state.params, memory, observation, begin, explore, key)   # one environment
        state, metrics = algorithm.update(state, rollout, key)

    `explore`: 0 acts by the policy's mode, anything above samples. `updates`: how many gradient steps there will be in
    all, `config.steps` for each rollout, needed only where the learning rate or the entropy's weight has an end.

    The functions are pure, unbatched and not jitted: compose, `vmap` and `jit` them outside. A minibatch whose loss or
    gradient is not finite changes nothing and is counted in `state.skipped`. Raises `ValueError` where the minibatches
    do not divide a rollout's tapes, or where `updates` is missing.
    """
    static = eqx.partition(network, eqx.is_inexact_array)[1]
    optimiser = optimisers.adam(config, updates)
    if config.entropy_end is not None and updates is None:
        raise ValueError("entropy_end needs the number of updates")

    def with_params(params: Any) -> ActorCritic:
        return eqx.combine(params, static)

    def act(
        params: Any, memory: State, observation: jax.Array, begin: jax.Array, explore: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, State]:
        (policy, _), memory = with_params(params).step(observation, begin, memory)
        return jnp.where(explore > 0, policy.sample(key), policy.mode()), memory

    def at_entry(params: Any, rollout: Rollout) -> Batch:
        # One pass for everything: the value of what a transition leads to is the value in the next slot.
        (policy, value), (_, value_tp1) = rollout.run(with_params(params))
        tape = rollout.tape
        advantage = jax.vmap(partial(gae, discount=config.discount, lambda_=config.lambda_))(
            tape.reward, value, value_tp1, tape.terminated, tape.truncated, transition=tape.transition
        )
        return Batch(rollout, policy.log_prob(tape.action), advantage, advantage + value)

    def loss(params: Any, batch: Batch, entropy_weight: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        (policy, value), _ = batch.rollout.run(with_params(params))
        # From here on there is no time: flat transitions with a weight each.
        tape = batch.rollout.tape
        log_prob, entropy = policy.log_prob(tape.action).ravel(), policy.entropy().ravel()
        value, weight = value.ravel(), tape.transition.ravel().astype(jnp.float32)
        old_log_prob, advantage, target = (x.ravel() for x in batch[1:])
        total = jnp.maximum(jnp.sum(weight), 1.0)
        mean = partial(weighted_mean, weight=weight, count=total)

        if config.normalise_advantages:
            advantage = standardise(advantage, weight)
        value_losses, error = squared_error(value, target)
        policy_losses = ppo_clip(log_prob, old_log_prob, advantage, config.clip_ratio)
        losses = policy_losses + config.value_weight * value_losses - entropy_weight * entropy
        log_ratio = log_prob - old_log_prob
        return mean(losses), {
            "policy_loss": mean(policy_losses),
            "td_error": mean(jnp.abs(error)),
            "q_mean": mean(value),
            "entropy": mean(entropy),
            # An estimate of KL(π_old, π) that is never negative.
            "kl": mean(jnp.expm1(log_ratio) - log_ratio),
            "clipped": mean((jnp.abs(jnp.expm1(log_ratio)) > config.clip_ratio).astype(jnp.float32)),
            "transitions": jnp.sum(weight),
            "slots": jnp.full((), weight.size, jnp.float32),
        }

    def update(state: LearnerState, rollout: Rollout, key: jax.Array) -> tuple[LearnerState, dict[str, jax.Array]]:
        chosen = minibatches(key, rollout.tape.begin.shape[0], config.minibatches, config.epochs)
        batch = at_entry(state.params, rollout)
        share = 0.0 if updates is None else jnp.minimum(state.updates / updates, 1.0)
        end = config.entropy if config.entropy_end is None else config.entropy_end
        entropy_weight = config.entropy + share * (end - config.entropy)

        def step(state: LearnerState, chosen: jax.Array) -> tuple[LearnerState, dict[str, jax.Array]]:
            return optimisers.descend(optimiser, state, loss, take_rows(batch, chosen), entropy_weight)

        state, metrics = jax.lax.scan(step, state, chosen)
        return state, optimisers.summary(metrics)

    return PPO(partial(optimisers.init, optimiser), with_params, act, update)
