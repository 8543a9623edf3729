"""What moved each action of an episode: how much every earlier observation did, and what others in its place would do.

The derivative is that of `memoroids.analysis.sensitivity` (Morad et al. 2024, Equation 15), for every step instead of
the last one, for parts of observations apart, and for policies as well as for action values.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.agents.branches import Branches, value_of
from memoroids.agents.distributions import Categorical, FactoredCategorical, Gaussian

_AT_ONCE = 16
"""Steps that are differentiated at once, which bounds the memory needed."""


class Outputs(NamedTuple):
    """What a network says at each of T steps, in numbers for people."""

    options: jax.Array
    """(T, n): the probability of each action, its value Q, or the mean of each number of a continuous action."""
    value: jax.Array
    """(T,): the value of the state; for action values that of the best action."""


def outputs_of(out: Any) -> Outputs:
    """The outputs of a pass of a network with action values, or with a policy and a value."""
    if isinstance(out, tuple):
        policy, value = out
        if isinstance(policy, Gaussian):
            return Outputs(policy.mean, value)
        if isinstance(policy, FactoredCategorical):
            return Outputs(policy.logits.map(jax.nn.softmax).flat, value)
        return Outputs(jax.nn.softmax(policy.logits), value)
    if isinstance(out, Branches):
        return Outputs(out.flat, jnp.max(out.flat, axis=-1))
    return Outputs(out, jnp.max(out, axis=-1))


def kind_of(out: Any) -> str:
    """What the `options` of a network's outputs are: probability, value or mean."""
    if not isinstance(out, tuple):
        return "value"
    return "mean" if isinstance(out[0], Gaussian) else "probability"


def _moved(out: Any, action: jax.Array) -> jax.Array:
    """The numbers at one step whose derivatives are taken: ln π(a), Q(s, a), or the mean of a continuous action."""
    if not isinstance(out, tuple):
        return value_of(out, action)[None]
    policy = out[0]
    if isinstance(policy, Categorical | FactoredCategorical):
        return policy.log_prob(action)[None]
    return policy.mean


@eqx.filter_jit
def influence(network: Any, observation: jax.Array, action: jax.Array, groups: jax.Array) -> jax.Array:
    """How much each observation moved each action: the norm of the derivative with respect to parts of observations.

    **Args:** `observation` (T, …), one episode; `action` (T, …), those that were taken; `groups` (n, parts) of 0 and 1,
    which of the n numbers of an observation belong to which part.

    **Returns:** (T, T, parts) float32, indexed by the step of the action, the step of the observation, and the part; 0
    for observations after the action.
    """
    begin = jnp.arange(observation.shape[0]) == 0
    observation = observation.astype(jnp.float32)

    def row(t: jax.Array) -> jax.Array:
        def numbers(observation: jax.Array) -> jax.Array:
            out, _ = network(observation, begin)
            return _moved(jax.tree.map(lambda leaf: leaf[t], out), action[t])

        found, back = jax.vjp(numbers, observation)
        (derivatives,) = jax.vmap(back)(jnp.eye(found.shape[0]))
        squares = jnp.sum(jnp.square(derivatives), axis=0).reshape(observation.shape[0], -1)
        return jnp.sqrt(squares @ groups)

    return jax.lax.map(row, jnp.arange(observation.shape[0]), batch_size=_AT_ONCE)


@eqx.filter_jit
def passed(network: Any, observations: jax.Array) -> Outputs:
    """The outputs (N, T, …) of passes over N episodes (N, T, …)."""
    begin = jnp.arange(observations.shape[1]) == 0
    return jax.lax.map(lambda one: outputs_of(network(one, begin)[0]), observations, batch_size=_AT_ONCE)


@eqx.filter_jit
def states(network: Any, observation: jax.Array) -> list[jax.Array]:
    """The memory's state after each step of an episode, a list of arrays (T, …)."""

    def body(state: Any, inputs: tuple[jax.Array, jax.Array]) -> tuple[Any, list[jax.Array]]:
        _, state = network.step(*inputs, state)
        return state, jax.tree.leaves(state)

    begin = jnp.arange(observation.shape[0]) == 0
    return jax.lax.scan(body, network.initial_state(), (observation, begin))[1]


class Components(NamedTuple):
    """Components of a memory's state over time, those that forget fastest first."""

    values: np.ndarray
    """(T, components) float32, each scaled to lie between 0 and 1; of complex ones the magnitude."""
    times: np.ndarray
    """(components,): steps after which a component has lost the correlation with itself, down to 1/e."""


def components(leaves: Sequence[Any], most: int = 64) -> Components:
    """The `most` components that vary most, relative to their size, of states over time (T, …)."""
    length = len(np.asarray(leaves[0])) if leaves else 0
    flat = [np.abs(np.asarray(leaf)).astype(np.float32).reshape(length, -1) for leaf in leaves]
    values = np.concatenate(flat, axis=1) if flat else np.zeros((length, 0), np.float32)
    if values.size == 0:  # a model without memory
        return Components(values, np.zeros(0, int))
    spread = values.max(0) - values.min(0)
    varying = np.flatnonzero(np.isfinite(spread) & (spread > 1e-6))
    order = varying[np.argsort(-(values.std(0) / (1e-6 + np.abs(values).mean(0)))[varying], kind="stable")][:most]
    chosen = values[:, order]
    times = np.asarray([correlation_time(column) for column in chosen.T])
    by_time = np.argsort(times, kind="stable")
    low = chosen.min(0)
    scaled = (chosen - low) / (chosen.max(0) - low)
    return Components(scaled[:, by_time], times[by_time])


def correlation_time(series: np.ndarray) -> int:
    """The first lag at which the autocorrelation of a series is below 1/e; its length if there is none."""
    centred = series - series.mean()
    power = float(centred @ centred)
    for lag in range(1, len(series)):
        if centred[lag:] @ centred[:-lag] < power / np.e:
            return lag
    return len(series)
