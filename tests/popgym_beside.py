"""Episodes of device environments and POPGym's own environments beside them, step by step."""

from functools import cache
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.envs import popgym_ids, short_name
from memoroids.envs.device import DeviceEnv, Step

IDS = {short_name(id_): id_ for id_ in popgym_ids()}
LEVELS = ("Easy", "Medium", "Hard")


def levels(*tasks: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [task + level for task in tasks for level in LEVELS])


def popgym_env(name: str) -> Any:
    return gym.make(IDS[name], disable_env_checker=True).unwrapped


@cache
def player(env: DeviceEnv) -> Any:
    """A function (key, step keys, actions, steer) -> states (T + 1, …), first observation, actions and steps (T, …).

    It always plays as many steps as the longest episode has; those after an end are meaningless. With `steer` a
    cart-pole is balanced instead of following the actions.
    """

    def play(key: jax.Array, keys: jax.Array, actions: Any, steer: Any) -> Any:
        state, observation = env.reset(key)

        def step(state: Any, given: Any) -> Any:
            action, key = given
            if hasattr(state, "moving"):
                action = jnp.where(steer, balance(state.moving), action)
            new, step = env.step(state, action, key)
            return new, (state, action, step)

        last, (states, taken, steps) = jax.lax.scan(step, state, (actions, keys))
        states = jax.tree.map(lambda every, end: jnp.concatenate((every, end[None])), states, last)
        return states, observation, taken, steps

    return play


@cache
def compiled(env: DeviceEnv) -> Any:
    return jax.jit(player(env))


def step_keys(seed: int, steps: int) -> jax.Array:
    # Always the same number, so that one compiled program serves all tasks.
    return jax.random.split(jax.random.key(seed + 1_000), 900)[:steps]


def balance(moving: jax.Array) -> jax.Array:
    return (moving @ jnp.array([0.1, 0.5, 10.0, 2.0]) > 0).astype(jnp.int32)


class Episode:
    """An episode of the device environment as NumPy arrays."""

    def __init__(self, env: DeviceEnv, seed: int, actions: Any, *, steer: bool = False):
        played = compiled(env)(jax.random.key(seed), step_keys(seed, len(actions)), jnp.asarray(actions), steer)
        self.states, self.first, self.actions, self.steps = jax.tree.map(np.asarray, played)

    def step(self, t: int) -> Step:
        return jax.tree.map(lambda leaf: leaf[t], self.steps)

    def state(self, t: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[t], self.states)


def random_actions(env: DeviceEnv, rng: np.random.Generator) -> np.ndarray:
    env.action_space.seed(int(rng.integers(2**31)))
    return np.stack([env.action_space.sample() for _ in range(env.max_length)])


def same_step(ours: Step, theirs: tuple, t: int, *, tolerance: float = 0.0) -> bool:
    """Compares all that a step returns; returns whether the step ended the episode."""
    observation, reward, terminated, truncated, _ = theirs
    for mine, its in zip(np.atleast_1d(ours.observation), np.atleast_1d(observation), strict=True):
        np.testing.assert_allclose(mine, its, rtol=0, atol=tolerance, err_msg=f"observation at step {t}")
    np.testing.assert_allclose(ours.reward, reward, rtol=1e-6, atol=tolerance, err_msg=f"reward at step {t}")
    assert (bool(ours.terminated), bool(ours.truncated)) == (bool(terminated), bool(truncated)), f"ends at step {t}"
    return bool(terminated or truncated)


def same_episode(episode: Episode, theirs: Any, native: Any = int) -> int:
    """Compares all steps with POPGym's environment, which has been reset; returns the length of the episode."""
    for t, action in enumerate(episode.actions):
        if same_step(episode.step(t), theirs.step(native(action)), t):
            return t + 1
    pytest.fail("POPGym's episode is longer than the device environment's max_length")


def stacked(deck: Any, kinds: np.ndarray, dealt: np.ndarray) -> None:
    """Makes a POPGym deck deal these kinds of cards; fails unless they are exactly the cards of the deck."""
    order = np.empty(len(dealt), int)
    for kind in range(kinds.max() + 1):
        assert np.sum(dealt == kind) == np.sum(kinds == kind)
        order[dealt == kind] = np.flatnonzero(kinds == kind)

    def reset(rng: Any = None) -> None:
        type(deck).reset(deck, shuffle=False)
        deck.idx = order[::-1].copy()

    deck.reset = reset


def shown(episode: Episode) -> np.ndarray:
    """All observations of an episode, including the first, (T + 1, …)."""
    parts = zip(np.atleast_1d(episode.first), np.atleast_2d(episode.steps.observation.T), strict=True)
    return np.stack([np.concatenate(([first], later)) for first, later in parts], axis=-1)


class Drawn:
    """Replaces a NumPy generator and returns given values."""

    def __init__(self, **drawn: Any):
        self.drawn = drawn

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.drawn[name]
