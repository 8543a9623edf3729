"""How fast are device environments? Random steps per second, including resets, against POPGym's in Python."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
from gymnasium import spaces
from jax import lax

from memoroids.benchmarks.timing import medians
from memoroids.envs import popgym_ids, short_name
from memoroids.envs.device import DEVICE, DeviceEnv, make_device
from memoroids.envs.device.restarts import restarted

NUM_ENVS, SLOTS, PYTHON_STEPS = 16_384, 256, 4_000


def device_steps(env: DeviceEnv, num_envs: int, slots: int) -> Callable[[], dict[str, jax.Array]]:
    """A function that steps `num_envs` environments for `slots` slots and returns sums over what it observed.

    In each slot, an environment takes a step, or is reset if its episode is over. If all episodes have the same length,
    `slots` is rounded up to whole episodes. The sums are `transitions`, int32, and `reward` and `observation`, float32.
    """
    rounds = -(-slots // (env.max_length + 1)) if env.min_length == env.max_length else 0
    slots = rounds * (env.max_length + 1) or slots

    def slot(carry: Any, at: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        state, final, key = carry
        for_actions, for_steps, for_resets = jax.random.split(jax.random.fold_in(key, at), 3)
        actions = _random_actions(env.action_space, for_actions, num_envs)
        state, step = jax.vmap(env.step)(state, actions, jax.random.split(for_steps, num_envs))

        resets = jax.random.split(for_resets, num_envs)
        state, observation = restarted(env.reset, resets, final, (state, step.observation))
        seen = {
            "transitions": jnp.sum(~final, dtype=jnp.int32),
            "reward": jnp.sum(jnp.where(final, 0, step.reward)),
            # Without this sum, XLA would not compute the observations.
            "observation": sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(observation)),
        }
        return (state, ~final & (step.terminated | step.truncated), key), seen

    @jax.jit
    def run(state: Any, final: jax.Array, key: jax.Array) -> tuple[Any, jax.Array, dict[str, jax.Array]]:
        (state, final, _), seen = lax.scan(slot, (state, final, key), jnp.arange(slots))
        return state, final, jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), seen)

    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), num_envs))
    carry: list[Any] = [state, jnp.zeros(num_envs, bool), jax.random.key(1)]

    def advance() -> dict[str, jax.Array]:
        state, final, seen = run(*carry)
        carry[:] = state, final, jax.random.fold_in(carry[2], 0)
        return seen

    return advance


def _random_actions(space: gym.Space, key: jax.Array, num_envs: int) -> jax.Array:
    if isinstance(space, spaces.Box):
        low, high = jnp.asarray(space.low), jnp.asarray(space.high)
        return jax.random.uniform(key, (num_envs, *space.shape), minval=low[None], maxval=high[None])
    if isinstance(space, spaces.Discrete):
        return (jax.random.bits(key, (num_envs,)) % jnp.uint32(space.n)).astype(jnp.int32)
    assert isinstance(space, spaces.MultiDiscrete)
    sizes = jnp.asarray(space.nvec, jnp.uint32)
    return (jax.random.bits(key, (num_envs, sizes.size)) % sizes[None]).astype(jnp.int32)


def python_steps(id_: str, steps: int) -> Callable[[], None]:
    """A function that takes `steps` random steps in POPGym's environment, without Gymnasium's wrappers."""
    env = gym.make(id_, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    env.action_space.seed(0)

    def advance() -> None:
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()

    return advance


def measure(
    repeats: int, names: Sequence[str], *, num_envs: int = NUM_ENVS, slots: int = SLOTS, python: int = PYTHON_STEPS
) -> list[dict[str, Any]]:
    """For each name: transitions per second on device and in Python, timed alternately, and their ratio."""
    ids = {short_name(id_): id_ for id_ in popgym_ids()}
    rows = []
    for name in names:
        device = device_steps(make_device(name), num_envs, slots)
        transitions = [int(device()["transitions"])]

        def on_device(device: Any = device, transitions: list[int] = transitions) -> None:
            transitions.append(int(device()["transitions"]))

        times = medians({"device": on_device, "python": python_steps(ids[name], python)}, repeats)
        # The first call starts all environments at once; only later calls are representative.
        counted = sorted(transitions[1:])[len(transitions[1:]) // 2]
        rates = {"device": counted / times["device"], "python": python / times["python"]}
        rows.append({"name": name, **rates, "ratio": rates["device"] / rates["python"]})
    return rows


def run(repeats: int, names: Sequence[str] = tuple(DEVICE), num_envs: int = NUM_ENVS) -> list[dict[str, Any]]:
    """Prints the rates of every device environment that POPGym implements in Python, and the lowest ratio."""
    print(f"random steps per second, including resets; {num_envs:,} environments in one scan on {jax.devices()[0]}")
    print(f"{'environment':34}{'device':>14}{'POPGym':>12}{'ratio':>9}")
    rows = []
    for name in names:
        rows += measure(repeats, (name,), num_envs=num_envs)
        row = rows[-1]
        print(f"{name:34}{row['device']:14,.0f}{row['python']:12,.0f}{row['ratio']:9,.0f}", flush=True)
    print(f"lowest ratio: {min(row['ratio'] for row in rows):,.0f}")
    return rows
