"""Acting with a trained agent: (observation, state) → (action, state), one step at a time.

`python examples/act.py RUN` plays one greedy episode with the newest checkpoint of a run directory.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.runs.build import HostParts
from memoroids.runs.load import load


def play(run: Path, seed: int = 0) -> float:
    """The return of one greedy episode."""
    config, parts, params = load(run)
    if not isinstance(parts, HostParts):
        raise SystemExit(f"{run} has a device environment: this example steps one on the host")
    act = jax.jit(parts.agent.act)
    env, memory = parts.envs.example, parts.network.initial_state()
    observation, begin, total, over = env.reset(seed), True, 0.0, False
    while not over:
        epsilon, key = jnp.zeros(()), jax.random.key(0)
        action, memory = act(params, memory, observation, jnp.asarray(begin), epsilon, key)
        observation, reward, terminated, truncated = env.step(np.asarray(action))
        total, over, begin = total + reward, terminated or truncated, False
    print(f"{config.network.memory} on {config.env.id}: return {total:.3f}")
    return total


if __name__ == "__main__":
    play(Path(sys.argv[1]))
