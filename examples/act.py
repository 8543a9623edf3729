"""Acting with what a run has learned: (observation, state) → (action, state), one step at a time.

`python examples/act.py RUN` plays one greedy episode with the newest checkpoint of a run directory.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from memoroids.runs.run_directory import load


def play(run: Path, seed: int = 0) -> float:
    """The return of one greedy episode."""
    config, parts, params = load(run)
    act = jax.jit(parts.algorithm.act)
    env, memory = parts.host.example, parts.network.initial_state()
    observation, begin, total, over = env.reset(seed), True, 0.0, False
    while not over:
        epsilon, key = jnp.zeros(()), jax.random.key(0)
        action, memory = act(params, memory, observation, jnp.asarray(begin), epsilon, key)
        observation, reward, terminated, truncated = env.step(int(action))
        total, over, begin = total + reward, terminated or truncated, False
    print(f"{config.memory} on {config.env}: return {total:.3f}")
    return total


if __name__ == "__main__":
    play(Path(sys.argv[1]))
