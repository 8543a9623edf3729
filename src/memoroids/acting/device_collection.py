"""Collection on device: copies of a JAX environment stepped together, one slot of each one's tape at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.resettable import select
from memoroids.envs.device.view import DeviceView
from memoroids.memory.memoroid import State
from memoroids.tape import Tape, blank

Act = Callable[..., tuple[jax.Array, State]]
"""`act(params, memory, observation, begin, explore, key)`, unbatched, of any algorithm."""


class EnvStates(NamedTuple):
    """n copies of an environment and the policy's memory of each, between two slots of their tapes.

    `env` and `memory`, leaves (n, …); `observation` (n, …), what the next slot shows; `begin` and `final` (n,) bool,
    whether it opens an episode, or only holds the last observation of one; `spoiled` (n,) bool, whether the episode has
    shown or paid something that is not finite; `number` (n,) int32, of the episode, in the order of their starts;
    `total` (n,), its rewards so far; `started` and `slot`, int32, episodes and slots so far.
    """

    env: Any
    memory: State
    observation: jax.Array
    begin: jax.Array
    final: jax.Array
    spoiled: jax.Array
    number: jax.Array
    total: jax.Array
    started: jax.Array
    slot: jax.Array


class CollectedSlots(NamedTuple):
    """N slots of n tapes, leaves (n, N, …), and where an episode's final slot is, its number and its total reward.

    `faults` (n, N) bool: whether an episode was spoiled there, which is padding then.
    """

    tape: Tape
    number: jax.Array
    total: jax.Array
    faults: jax.Array


def start(view: DeviceView, memory: State, num_envs: int, key: jax.Array) -> EnvStates:
    """`copies` workers, each at the beginning of an episode; `memory` is one copy's initial state."""
    number = jnp.arange(num_envs, dtype=jnp.int32)
    env, observation = jax.vmap(view.reset)(_keys(key, jnp.full((), -1, jnp.int32), num_envs)[0])
    return EnvStates(
        env=env,
        # Distinct arrays: donated buffers may not alias each other.
        memory=jax.tree.map(lambda leaf: jnp.array(jnp.broadcast_to(leaf, (num_envs, *leaf.shape))), memory),
        observation=observation,
        begin=jnp.ones(num_envs, bool),
        final=jnp.zeros(num_envs, bool),
        spoiled=~_finite(observation),
        number=number,
        total=jnp.zeros(num_envs),
        started=jnp.full((), num_envs, jnp.int32),
        slot=jnp.zeros((), jnp.int32),
    )


def collect_slots(
    view: DeviceView,
    act: Act,
    params: Any,
    env_states: EnvStates,
    key: jax.Array,
    slots: int,
    *,
    explore: Callable[[jax.Array], jax.Array],
    axis: str | None = None,
) -> tuple[EnvStates, CollectedSlots]:
    """The next `slots` slots of every worker's tape.

    A slot is a transition, or the final observation of an episode, after which the copy begins the next one. What is
    drawn depends on `key`, the copy and the slot alone. `explore(number)`, of episode numbers (n,), is how much the
    policy explores; `axis` names the mapped axis of runs, where there is one.

    An episode that shows or pays something that is not finite is dropped whole: from the slot it is found in, its slots
    are padding, in these slots also the ones before; what came of it earlier stays an episode without an end, which no
    replay takes in.

    Copies are reset behind one condition for all: under `vmap` both sides of one for each would run at every slot.
    """
    num_envs = env_states.begin.shape[0]

    def slot(env_states: EnvStates, _: None) -> tuple[EnvStates, tuple[CollectedSlots, jax.Array]]:
        act_key, env_key, reset_key = _keys(key, env_states.slot, num_envs)
        action, memory = jax.vmap(act, (None, 0, 0, 0, 0, 0))(
            params, env_states.memory, env_states.observation, env_states.begin, explore(env_states.number), act_key
        )
        env, (observation, reward, terminated, truncated) = jax.vmap(view.step)(env_states.env, action, env_key)
        final = env_states.final

        def begun() -> tuple[Any, jax.Array]:
            fresh = jax.vmap(view.reset)(reset_key)
            return jax.vmap(select)(final, fresh, (env, observation))

        due = jnp.any(final)
        if axis is not None:
            # A sum over the mapped axis is one number for all runs, so the condition stays a condition.
            due = lax.psum(due.astype(jnp.int32), axis) > 0
        env, observation = lax.cond(due, begun, lambda: (env, observation))
        found = ~(_finite(observation) & (final | jnp.isfinite(reward)))
        spoiled = (env_states.spoiled & ~final) | found
        written = Tape(
            observation=env_states.observation,
            begin=env_states.begin,
            action=jax.vmap(select)(final, jnp.zeros_like(action), action),
            reward=jnp.where(final, 0, reward),
            terminated=terminated & ~final,
            truncated=truncated & ~terminated & ~final,
            transition=~final,
        )
        after = EnvStates(
            env=env,
            memory=memory,
            observation=observation,
            begin=final,
            final=~final & (terminated | truncated),
            spoiled=spoiled,
            number=jnp.where(final, env_states.started + jnp.cumsum(final.astype(jnp.int32)) - 1, env_states.number),
            total=jnp.where(final, 0, env_states.total + reward),
            started=env_states.started + jnp.sum(final, dtype=jnp.int32),
            slot=env_states.slot + 1,
        )
        # The first observation of all was found before there was a slot to count it in.
        faults = spoiled & (final | ~env_states.spoiled | (env_states.slot == 0))
        # Of the episode that this slot is of: what its step has brought counts already.
        mine = jnp.where(final, env_states.spoiled, spoiled)
        return after, (CollectedSlots(written, env_states.number, env_states.total, faults), mine)

    env_states, ys = lax.scan(slot, env_states, length=slots)
    (tape, number, total, faults), spoiled = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), ys)
    # Once spoiled, an episode stays so: the next slot that is tells whether it is of the same one.
    at = jnp.where(spoiled, jnp.arange(slots), slots)
    following = lax.cummin(at, axis=1, reverse=True)
    of = jnp.take_along_axis(number, jnp.minimum(following, slots - 1), axis=1)
    dropped = (following < slots) & (of == number)
    return env_states, CollectedSlots(jax.vmap(blank)(tape, dropped), number, total, faults)


def _finite(observation: jax.Array) -> jax.Array:
    """(n,) bool: whether each of (n, …) is finite throughout."""
    return jnp.all(jnp.isfinite(observation), axis=tuple(range(1, observation.ndim)))


def append_next_observation(collected: Tape, env_states: EnvStates) -> Tape:
    """Collected tapes (n, N, …) with one slot more, (n, N + 1, …): what `env_states`, as they are now, see next.

    It holds only that observation, for its value; where an episode begins there instead, the slot is padding.
    """
    none = env_states.begin | env_states.spoiled

    def append(leaf: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.concatenate((leaf, last[:, None]), axis=1)

    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:, 0]), collected)
    observation = jax.vmap(select)(none, jnp.zeros_like(env_states.observation), env_states.observation)
    last = Tape(
        observation=observation,
        begin=none,
        action=zeros.action,
        reward=zeros.reward,
        terminated=zeros.terminated,
        truncated=zeros.truncated,
        transition=zeros.transition,
    )
    return jax.tree.map(append, collected, last)


def play(view: DeviceView, act: Act, params: Any, memory: State, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One greedy episode for each of the keys (m,): returns (m,) float32 and lengths (m,) int32.

    The return of one that shows or pays something that is not finite is NaN.
    """
    num_envs = keys.shape[0]
    env, observation = jax.vmap(lambda key: view.reset(jax.random.fold_in(key, 0)))(keys)
    memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_envs, *leaf.shape)), memory)
    zeros = jnp.zeros(num_envs)
    total = jnp.where(_finite(observation), zeros, jnp.nan)
    begun = (env, memory, observation, total, zeros.astype(jnp.int32), zeros.astype(bool), jnp.zeros((), jnp.int32))

    def going(carry: Any) -> jax.Array:
        *_, over, step = carry
        return ~jnp.all(over) & (step < view.max_length)

    def step(carry: Any) -> Any:
        env, memory, observation, total, length, over, step = carry
        # The mode of a policy draws nothing, the environment does.
        drawn = jax.vmap(lambda key: jax.random.fold_in(key, step + 1))(keys)
        begin = jnp.broadcast_to(step == 0, over.shape)
        action, memory = jax.vmap(act, (None, 0, 0, 0, 0, 0))(params, memory, observation, begin, zeros, drawn)
        env, (observation, reward, terminated, truncated) = jax.vmap(view.step)(env, action, drawn)
        total = total + jnp.where(over, 0, jnp.where(_finite(observation) & jnp.isfinite(reward), reward, jnp.nan))
        length = length + ~over
        return env, memory, observation, total, length, over | terminated | truncated, step + 1

    *_, total, length, _, _ = lax.while_loop(going, step, begun)
    return total, length


def _keys(key: jax.Array, slot: jax.Array, num_envs: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A key for the policy, the environment and a reset, of each copy, at one slot."""
    at = jax.random.fold_in(key, slot)
    keys = jax.vmap(lambda copy: jax.random.split(jax.random.fold_in(at, copy), 3))(jnp.arange(num_envs))
    return keys[:, 0], keys[:, 1], keys[:, 2]
