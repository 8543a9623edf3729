"""Acting with a trained agent in a loop of one's own.

`python examples/act.py RUN` plays one greedy episode with the newest checkpoint of a run directory.
"""

import sys

import gymnasium as gym

import memoroids


def play(path: str, seed: int = 0) -> float:
    """The return of one greedy episode."""
    run = memoroids.load(path)
    agent, env = run.agent(stochastic=False), gym.make(run.config.env.id, **run.config.env.options)
    observation, _ = env.reset(seed=seed)
    total, reward, over = 0.0, 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(agent.act(observation, reward))
        total, over = total + float(reward), terminated or truncated
    print(f"{run.config.network.memory} on {run.config.env.id}: return {total:.3f}")
    return total


if __name__ == "__main__":
    play(sys.argv[1])
