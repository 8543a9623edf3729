"""An environment of your own, registered with Gymnasium: remember the first symbol, name it at the end.

Train on it with `memoroids train --env examples.your_environment:Recall-v0`.
"""

import gymnasium as gym
import numpy as np


class Recall(gym.Env):
    """Shows one of four symbols, then noise for seven steps; the last action must name the symbol."""

    observation_space = gym.spaces.Dict(
        {"symbol": gym.spaces.Discrete(5), "noise": gym.spaces.Box(-1, 1, (2,), np.float32)}
    )
    action_space = gym.spaces.Discrete(4)

    def _observe(self, symbol: int) -> dict:
        return {"symbol": symbol, "noise": self.np_random.uniform(-1, 1, 2).astype(np.float32)}

    def reset(self, *, seed=None, options=None):
        """The first observation, the only one that shows the symbol."""
        super().reset(seed=seed)
        self.symbol, self.left = int(self.np_random.integers(4)), 8
        return self._observe(self.symbol), {}

    def step(self, action):
        """Noise, and after the eighth action the reward."""
        self.left -= 1
        over = self.left == 0
        reward = (1.0 if action == self.symbol else -1.0) if over else 0.0
        return self._observe(4), reward, over, False, {}


gym.register("Recall-v0", entry_point=lambda **_: Recall())

if __name__ == "__main__":
    from memoroids.envs import HostEnv

    env = HostEnv("Recall-v0")
    print("observation", env.reset(seed=0), "actions", env.actions)
