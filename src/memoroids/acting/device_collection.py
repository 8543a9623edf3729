"""Collection on device: JAX environments stepped together, each writing its own tape slot by slot."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memoroids.algebra.resettable import select
from memoroids.envs.device.restarts import restarted
from memoroids.envs.device.view import DeviceView
from memoroids.memory.memoroid import State
from memoroids.tape import Tape, blank

Act = Callable[..., tuple[jax.Array, State]]
"""`act(params, memory, observation, begin, explore, key)` of an agent, unbatched; see `memoroids.agents.base.Agent`."""


class EnvStates(NamedTuple):
    """n environments and the policy's memory of each, between two slots of their tapes.

    `env` and `memory`: leaves (n, …). `observation` (n, …): that of the next slot. `begin` and `final` (n,) bool:
    whether the next slot begins an episode, and whether it holds only the final observation of one. `spoiled` (n,)
    bool: whether the episode has had a non-finite observation or reward. `number` (n,) int32: the episode's number, in
    the order of starting. `total` (n,) float32: the sum of its rewards so far. `started` and `slot`, int32 scalars: how
    many episodes have started, and how many slots each environment has written.
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
    """N slots of n tapes, leaves (n, N, …).

    `number` (n, N) int32: the number of the slot's episode. `total` (n, N) float32: the sum of its rewards before the
    slot, which in its final slot is the return. `faults` (n, N) bool: whether an episode became spoiled in the slot;
    all slots of a spoiled episode are padding.
    """

    tape: Tape
    number: jax.Array
    total: jax.Array
    faults: jax.Array


def start(view: DeviceView, memory: State, num_envs: int, key: jax.Array) -> EnvStates:
    """`num_envs` environments, each at the beginning of an episode; `memory`: the initial state of one of them."""
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
    """Collects the next `slots` slots of each environment's tape.

    A slot holds a transition, or the final observation of an episode, after which the environment is reset. Random
    draws depend only on `key`, the environment's index and the slot. `explore(number)`: how much the policy explores in
    episodes with these numbers, (n,) → (n,). `axis`: the name of the mapped axis over runs, if there is one.

    An episode with a non-finite observation or reward is dropped: all its slots of this call are padding, and so are
    those that follow. Slots that earlier calls returned remain an episode without an end, which no replay stores.
    """
    num_envs = env_states.begin.shape[0]

    def slot(env_states: EnvStates, _: None) -> tuple[EnvStates, tuple[CollectedSlots, jax.Array]]:
        act_key, env_key, reset_key = _keys(key, env_states.slot, num_envs)
        action, memory = jax.vmap(act, (None, 0, 0, 0, 0, 0))(
            params, env_states.memory, env_states.observation, env_states.begin, explore(env_states.number), act_key
        )
        env, (observation, reward, terminated, truncated) = jax.vmap(view.step)(env_states.env, action, env_key)
        final = env_states.final

        env, observation = restarted(view.reset, reset_key, final, (env, observation), axis=axis)
        nonfinite = ~(_finite(observation) & (final | jnp.isfinite(reward)))
        spoiled = (env_states.spoiled & ~final) | nonfinite
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
        # A non-finite observation of the very first reset has no earlier slot to be counted in.
        faults = spoiled & (final | ~env_states.spoiled | (env_states.slot == 0))
        # Where the slot is final, `spoiled` is about the episode that begins in the next one.
        episode_spoiled = jnp.where(final, env_states.spoiled, spoiled)
        return after, (CollectedSlots(written, env_states.number, env_states.total, faults), episode_spoiled)

    env_states, ys = lax.scan(slot, env_states, length=slots)
    (tape, number, total, faults), spoiled = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), ys)
    # A spoiled episode stays spoiled to its end: a slot belongs to one if the next spoiled slot has the same number.
    at = jnp.where(spoiled, jnp.arange(slots), slots)
    next_spoiled = lax.cummin(at, axis=1, reverse=True)
    its_number = jnp.take_along_axis(number, jnp.minimum(next_spoiled, slots - 1), axis=1)
    dropped = (next_spoiled < slots) & (its_number == number)
    return env_states, CollectedSlots(jax.vmap(blank)(tape, dropped), number, total, faults)


def _finite(observation: jax.Array) -> jax.Array:
    """Whether all numbers of each environment's observation are finite, (n, …) → (n,) bool."""
    return jnp.all(jnp.isfinite(observation), axis=tuple(range(1, observation.ndim)))


def append_next_observation(collected: Tape, env_states: EnvStates) -> Tape:
    """Collected tapes with one more slot, (n, N, …) → (n, N + 1, …): the observation that follows in `env_states`.

    The slot holds no transition; targets bootstrap from its value. It is padding where the next observation begins
    another episode or the episode is spoiled.
    """
    padding = env_states.begin | env_states.spoiled

    def append(leaf: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.concatenate((leaf, last[:, None]), axis=1)

    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:, 0]), collected)
    observation = jax.vmap(select)(padding, jnp.zeros_like(env_states.observation), env_states.observation)
    last = Tape(
        observation=observation,
        begin=padding,
        action=zeros.action,
        reward=zeros.reward,
        terminated=zeros.terminated,
        truncated=zeros.truncated,
        transition=zeros.transition,
    )
    return jax.tree.map(append, collected, last)


def play(
    view: DeviceView, act: Act, params: Any, memory: State, keys: jax.Array, explore: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Plays one episode for each key (m,): returns (m,) float32 and lengths (m,) int32.

    `explore` (m,) float32: how much the policy explores in each episode, 0 for greedy ones. The return of an episode
    with a non-finite observation or reward is NaN.
    """
    num_envs = keys.shape[0]
    env, observation = jax.vmap(lambda key: view.reset(jax.random.fold_in(key, 0)))(keys)
    # The environment takes the numbers from 0 up, one for each step.
    policy_keys = jax.vmap(lambda key: jax.random.fold_in(key, np.uint32(2**32 - 1)))(keys)
    memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_envs, *leaf.shape)), memory)
    zeros = jnp.zeros(num_envs)
    total = jnp.where(_finite(observation), zeros, jnp.nan)
    initial = (env, memory, observation, total, zeros.astype(jnp.int32), zeros.astype(bool), jnp.zeros((), jnp.int32))

    def continues(carry: Any) -> jax.Array:
        *_, over, step = carry
        return ~jnp.all(over) & (step < view.max_length)

    def step(carry: Any) -> Any:
        env, memory, observation, total, length, over, step = carry
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, step + 1))(keys)
        act_keys = jax.vmap(lambda key: jax.random.fold_in(key, step))(policy_keys)
        begin = jnp.broadcast_to(step == 0, over.shape)
        action, memory = jax.vmap(act, (None, 0, 0, 0, 0, 0))(params, memory, observation, begin, explore, act_keys)
        env, (observation, reward, terminated, truncated) = jax.vmap(view.step)(env, action, step_keys)
        total = total + jnp.where(over, 0, jnp.where(_finite(observation) & jnp.isfinite(reward), reward, jnp.nan))
        length = length + ~over
        return env, memory, observation, total, length, over | terminated | truncated, step + 1

    *_, total, length, _, _ = lax.while_loop(continues, step, initial)
    return total, length


def _keys(key: jax.Array, slot: jax.Array, num_envs: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys for the policy, for stepping and for resetting each environment at one slot, (num_envs,) each."""
    slot_key = jax.random.fold_in(key, slot)
    keys = jax.vmap(lambda index: jax.random.split(jax.random.fold_in(slot_key, index), 3))(jnp.arange(num_envs))
    return keys[:, 0], keys[:, 1], keys[:, 2]
