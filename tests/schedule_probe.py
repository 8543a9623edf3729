"""Agents that learn nothing and record what their updates are told, for tests of schedules and budgets."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.agents import optimiser as optimisers
from memoroids.agents.base import Agent, AgentType, Plan, Traits
from memoroids.agents.networks import QNetwork

START, MIDDLE, END = 1, 0, 2
"""The action taken while ε is at its start, between its start and its end, and at its end."""
EPSILON = {"epsilon_start": 0.5, "epsilon_end": 0.25}


@dataclass(frozen=True)
class ProbeConfig:
    """Settings of the probe."""

    learning_rate: float = 1e-3
    """Not used."""
    max_grad_norm: float = 1.0
    """Not used."""


class ProbeState(NamedTuple):
    """A learner's state, and what its updates were told."""

    params: Any
    updates: jax.Array
    skipped: jax.Array
    divergence: Any
    first: jax.Array
    """The share of training before the first update."""
    last: jax.Array
    """The share of training after the newest update."""
    in_order: jax.Array
    """Whether the shares never fell."""
    transitions: jax.Array
    """Transitions in all batches."""
    actions: jax.Array
    """(2,): whether the first batch holds an action at the start of ε, the newest batch one at its end."""


def probe(config: ProbeConfig, network: QNetwork, plan: Plan) -> Agent:
    """An agent whose actions tell where ε stands."""
    del config, plan
    static = eqx.partition(network, eqx.is_inexact_array)[1]

    def init(network):
        params = jax.tree.map(jnp.copy, eqx.filter(network, eqx.is_inexact_array))
        zero = lambda dtype: jnp.zeros((), dtype)  # noqa: E731
        return ProbeState(
            params=params,
            updates=zero(jnp.int32),
            skipped=zero(jnp.int32),
            divergence=optimisers.Divergence.none(params),
            first=zero(jnp.float32),
            last=zero(jnp.float32),
            in_order=jnp.ones((), bool),
            transitions=zero(jnp.int32),
            actions=jnp.zeros(2, bool),
        )

    def act(params, memory, observation, begin, epsilon, key):
        del params, observation, begin, key
        start, end = (jnp.abs(epsilon - EPSILON[name]) < 1e-6 for name in ("epsilon_start", "epsilon_end"))
        return jnp.where(start, START, jnp.where(end, END, MIDDLE)), memory

    def update(state, batch, key, share):
        del key
        tape = batch.tape
        seen = [jnp.any((tape.action == action) & tape.transition) for action in (START, END)]
        is_first, number = state.updates == 0, jnp.sum(tape.transition, dtype=jnp.int32)
        state = state._replace(
            updates=state.updates + 1,
            first=jnp.where(is_first, share.before, state.first),
            last=jnp.asarray(share.after, jnp.float32),
            in_order=state.in_order & (share.before > state.last - 1e-6) & (share.after >= share.before),
            transitions=state.transitions + number,
            actions=jnp.stack((jnp.where(is_first, seen[0], state.actions[0]), seen[1])),
        )
        zero = jnp.zeros(())
        metrics = {name: zero for name in ("loss", "td_error", "q_mean", "grad_norm", "transitions", "slots")}
        return state, metrics, jnp.zeros(tape.begin.size)

    return Agent(init, lambda params: eqx.combine(params, static), act, update, Traits(**_TRAITS))


_TRAITS: dict[str, Any] = {
    "learns_from_replay": False,
    "continuous_actions": False,
    "action_values": True,
    "exploration": "epsilon",
}


def _with_replay(config: ProbeConfig, network: QNetwork, plan: Plan) -> Agent:
    return probe(config, network, plan)._replace(traits=REPLAY.traits)


ROLLOUT = AgentType(ProbeConfig, QNetwork, probe, Traits(**_TRAITS))
REPLAY = AgentType(ProbeConfig, QNetwork, _with_replay, Traits(**_TRAITS | {"learns_from_replay": True}))
