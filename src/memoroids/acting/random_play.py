"""Episodes of uniform random actions on host and device environments, and statistics of what they showed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.acting.policies import RandomPolicy
from memoroids.envs import EnvironmentFault
from memoroids.envs.device import DeviceView
from memoroids.envs.host.vector import HostEnvs
from memoroids.envs.spaces import Actions, Continuous, Factored

FAULTS = 3
"""Episodes that may be dropped for a fault of their environment; one more ends the play."""


class Observed(NamedTuple):
    """Statistics of each element of the observations, (n,) each; of none, where there was no observation.

    `mean`, `deviation`, `low`, `high`: float64. `moved`: bool, whether it changed within an episode.
    """

    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    moved: np.ndarray


class RandomPlay(NamedTuple):
    """What random actions brought.

    `returns`, `lengths` and `truncated` (episodes,): of the episodes that ended. `steps`: of all, also
    those that did not end. `rewards`: the least and the largest reward; NaN if there was none.
    """

    returns: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    steps: int
    rewards: tuple[float, float]
    observed: Observed


class _Moments:
    """Running sums of observations, around the first one, which keeps small deviations from a large mean exact."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, episode: Sequence[np.ndarray]) -> None:
        """Adds the observations of an episode, (T, n)."""
        x = np.asarray(episode, np.float64).reshape(len(episode), -1)
        if not self.count:
            self.first, zeros = x[0], np.zeros(x.shape[1])
            self.total, self.squares, self.moved = zeros, zeros.copy(), np.zeros(x.shape[1], bool)
            self.low, self.high = x[0], x[0]
        self.count += len(x)
        self.total += (x - self.first).sum(0)
        self.squares += np.square(x - self.first).sum(0)
        self.low, self.high = np.minimum(self.low, x.min(0)), np.maximum(self.high, x.max(0))
        self.moved |= (x != x[0]).any(0)

    def observed(self) -> Observed:
        if not self.count:
            none = np.zeros(0)
            return Observed(none, none, none, none, none.astype(bool))
        return _observed(self.count, self.first, self.total, self.squares, self.low, self.high, self.moved)


def _observed(count: Any, first: Any, total: Any, squares: Any, low: Any, high: Any, moved: Any) -> Observed:
    shift = total / max(count, 1)
    deviation = np.sqrt(np.maximum(squares / max(count, 1) - np.square(shift), 0))
    return Observed(first + shift, deviation, low, high, moved)


def play_on_host(
    envs: HostEnvs,
    seed_of: Callable[[int], int],
    policy_seed: int,
    episodes: int,
    most_steps: int,
    check: Callable[[], None] = lambda: None,
) -> RandomPlay:
    """Plays `episodes` random episodes one after the other in the first of `envs`, `most_steps` steps at most.

    `seed_of(number)`: the environment's seed for each episode from 0. `policy_seed`: the seed of the actions. `check`
    is called before each step, and may raise to end the play. An episode with a fault is dropped.
    """
    policy, moments = RandomPolicy(envs.example.actions, policy_seed), _Moments()
    ended: list[tuple[float, int, bool]] = []
    steps, number, faults, rewards = 0, 0, 0, (np.inf, -np.inf)
    while len(ended) < episodes and steps < most_steps and faults <= FAULTS:
        observations, total, length, truncated = [], 0.0, 0, None
        try:
            envs.abandon()
            observations.append(envs.reset(0, seed_of(number)))
            while truncated is None and steps < most_steps:
                check()
                at = np.asarray([number], np.int32), np.asarray([length], np.int32)
                action = policy(observations[-1][None], at[1] == 0, *at)[0]
                result = envs.step({0: action})[0]
                if isinstance(result, EnvironmentFault):
                    raise result
                observations.append(result.observation)
                steps, length, total = steps + 1, length + 1, total + result.reward
                rewards = min(rewards[0], result.reward), max(rewards[1], result.reward)
                if result.terminated or result.truncated:
                    truncated = not result.terminated
        except EnvironmentFault:
            faults += 1
        number += 1
        if observations:
            moments.add(observations)
        if truncated is not None:
            ended.append((total, length, truncated))
    returns, lengths, cut = (np.asarray([each[i] for each in ended], kind) for i, kind in enumerate((float, int, bool)))
    seen = rewards if steps else (np.nan, np.nan)
    return RandomPlay(returns, lengths, cut, steps, (float(seen[0]), float(seen[1])), moments.observed())


def uniform_action(actions: Actions, key: jax.Array) -> jax.Array:
    """A uniform random action: an int32 scalar, (parts,) int32 or (size,) float32."""
    if isinstance(actions, Continuous):
        low, high = jnp.asarray(actions.low, jnp.float32), jnp.asarray(actions.high, jnp.float32)
        return jax.random.uniform(key, (actions.size,), jnp.float32, low, high)
    if isinstance(actions, Factored):
        return jax.random.randint(key, (len(actions.sizes),), 0, jnp.asarray(actions.sizes, jnp.int32), jnp.int32)
    return jax.random.randint(key, (), 0, actions, jnp.int32)


def device_player(view: DeviceView, most_steps: int) -> Callable[[np.ndarray], RandomPlay]:
    """A function that plays a random episode for each seed (m,) uint32, of `most_steps` steps at most, compiled once.

    An episode with a non-finite observation or reward is dropped.
    """
    played = jax.jit(lambda seeds: _play(view, seeds, min(most_steps, view.max_length)))

    def play(seeds: np.ndarray) -> RandomPlay:
        found = jax.device_get(played(seeds))
        count, ended = int(found["count"]), found["ended"]
        returns, lengths, truncated = (found[name][ended] for name in ("total", "length", "truncated"))
        rewards = (float(found["least"]), float(found["largest"])) if found["length"].any() else (np.nan, np.nan)
        names = ("first", "sum", "squares", "low", "high")
        first, total, squares, low, high = (np.asarray(found[name], np.float64).ravel() for name in names)
        observed = _observed(count, first, total, squares, low, high, found["moved"].ravel())
        return RandomPlay(returns, lengths, truncated, int(found["length"].sum()), rewards, observed)

    return play


def _play(view: DeviceView, seeds: jax.Array, most_steps: int) -> dict[str, jax.Array]:
    """Plays all episodes together; sums over the observations are taken around the first one."""
    keys, m = jax.vmap(jax.random.key)(seeds), seeds.shape[0]
    env, observation = jax.vmap(lambda key: view.reset(jax.random.fold_in(key, 0)))(keys)
    first = observation.astype(jnp.float32)
    nothing, one = jnp.zeros(m), first[0]
    zeros, infinite = jnp.zeros_like(one), jnp.full(one.shape, jnp.inf)
    initial = {"count": jnp.zeros(()), "sum": zeros, "squares": zeros, "low": infinite, "high": -infinite}
    initial |= {"moved": zeros.astype(bool), "least": jnp.full((), jnp.inf), "largest": jnp.full((), -jnp.inf)}
    initial |= {"total": nothing, "length": nothing.astype(jnp.int32)}
    initial |= {name: nothing.astype(bool) for name in ("ended", "truncated", "spoiled")}

    def seen(stats: dict[str, jax.Array], observation: jax.Array, counted: jax.Array) -> dict[str, jax.Array]:
        x = observation.astype(jnp.float32)
        counted = counted & jnp.all(jnp.isfinite(x), axis=tuple(range(1, x.ndim)))
        mask = counted.reshape(m, *(1,) * one.ndim)
        shifted = jnp.where(mask, x - one[None], 0)
        return stats | {
            "count": stats["count"] + jnp.sum(counted),
            "sum": stats["sum"] + jnp.sum(shifted, 0),
            "squares": stats["squares"] + jnp.sum(jnp.square(shifted), 0),
            "low": jnp.minimum(stats["low"], jnp.min(jnp.where(mask, x, jnp.inf), 0)),
            "high": jnp.maximum(stats["high"], jnp.max(jnp.where(mask, x, -jnp.inf), 0)),
            "moved": stats["moved"] | jnp.any(mask & (x != first), 0),
        }

    def step(carry: Any) -> Any:
        env, stats, number = carry
        act_keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, np.uint32(2**32 - 1)), number))(keys)
        action = jax.vmap(lambda key: uniform_action(view.actions, key))(act_keys)
        env_keys = jax.vmap(lambda key: jax.random.fold_in(key, number + 1))(keys)
        env, (observation, reward, terminated, truncated) = jax.vmap(view.step)(env, action, env_keys)
        finite = jnp.all(jnp.isfinite(observation), axis=tuple(range(1, observation.ndim))) & jnp.isfinite(reward)
        open_ = ~stats["ended"] & ~stats["spoiled"]
        counted = open_ & finite
        stats = seen(stats, observation, counted)
        stats |= {
            "total": stats["total"] + jnp.where(counted, reward, 0),
            "length": stats["length"] + counted,
            "least": jnp.minimum(stats["least"], jnp.min(jnp.where(counted, reward, jnp.inf))),
            "largest": jnp.maximum(stats["largest"], jnp.max(jnp.where(counted, reward, -jnp.inf))),
            "ended": stats["ended"] | (counted & (terminated | truncated)),
            "truncated": stats["truncated"] | (counted & truncated & ~terminated),
            "spoiled": stats["spoiled"] | (open_ & ~finite),
        }
        return env, stats, number + 1

    def continues(carry: Any) -> jax.Array:
        _, stats, number = carry
        return (number < most_steps) & ~jnp.all(stats["ended"] | stats["spoiled"])

    stats = seen(initial, observation, jnp.ones(m, bool))
    _, stats, _ = jax.lax.while_loop(continues, step, (env, stats, jnp.zeros((), jnp.int32)))
    return stats | {"first": one}
