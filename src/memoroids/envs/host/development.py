"""Small Gymnasium environments that need a memory, on which the agents are developed.

The module imports Gymnasium and NumPy only, so that it can be loaded from its file where the package is not installed.
"""

import copy
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import RecordConstructorArgs

FACTORIES = ("cartpole", "pendulum", "lunar_lander", "tmaze", "frozen_lake")
"""The factories of this module. None imports what its options name, so a run that names one can be opened safely."""


class Seen(gym.ObservationWrapper, RecordConstructorArgs):
    """Shows some entries of a vector, those at `indices`: observations (len(indices),) of the environment's dtype."""

    def __init__(self, env: gym.Env, indices: tuple[int, ...]):
        RecordConstructorArgs.__init__(self, indices=indices)
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Box)
        self._indices = list(indices)
        self.observation_space = spaces.Box(space.low[self._indices], space.high[self._indices], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The entries that are seen."""
        return observation[self._indices]


def cartpole(*, render_mode: str | None = None) -> gym.Env:
    """CartPole-v1 without velocities: position of the cart (m) and angle of the pole (rad), (2,) float32.

    1 for each step, at most 500. Source: Barto, Sutton and Anderson 1983, hidden velocities as in Wierstra et al. 2007.
    """
    return Seen(gym.make("CartPole-v1", disable_env_checker=True, render_mode=render_mode), (0, 2))


def pendulum(*, render_mode: str | None = None) -> gym.Env:
    """Pendulum-v1 without its angular velocity: cosine and sine of the angle, (2,) float32.

    A torque in [-2, 2] N m, 200 steps, each with a reward between -16.3 and 0.
    """
    return Seen(gym.make("Pendulum-v1", disable_env_checker=True, render_mode=render_mode), (0, 1))


def lunar_lander(*, render_mode: str | None = None) -> gym.Env:
    """LunarLander-v3 without velocities: x, y, angle (rad) and the contacts of both legs, (5,) float32.

    At most 1,000 steps, solved from a return of 200. Needs Gymnasium's extra box2d.
    """
    # Box2D is imported here. Python warns of its types, and where warnings are errors, that ends the whole process.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        env = gym.make("LunarLander-v3", disable_env_checker=True, render_mode=render_mode)
    return Seen(env, (0, 1, 4, 6, 7))


class TMaze(gym.Env):
    """A corridor of `length` steps with a junction at its end; the first observation alone says which way to turn.

    Observations, an integer below 4: 0, turn left; 1, turn right; 2, corridor; 3, junction. Actions: 0, forward; 1,
    turn left; 2, turn right. Forward moves one step in the corridor and does nothing at the junction; a turn does
    nothing in the corridor and ends the episode at the junction, with a reward of 1 for the right one. All other
    rewards are 0.

    Source: Bakker 2002, with a single reward.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as in Gymnasium

    def __init__(self, length: int = 10, *, render_mode: str | None = None):
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.length, self.render_mode = length, render_mode
        self.observation_space, self.action_space = spaces.Discrete(4), spaces.Discrete(3)
        self._way = self._position = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Draws the way to turn and shows it."""
        super().reset(seed=seed)
        self._way, self._position = int(self.np_random.integers(2)), 0
        return self._way, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """One step; only a turn at the junction ends the episode."""
        turned = self._position == self.length and action != 0
        if not turned and action == 0:
            self._position = min(self._position + 1, self.length)
        reward = float(turned and action == 1 + self._way)
        return 3 if self._position == self.length else 2, reward, turned, False, {}


def tmaze(length: int = 10, *, render_mode: str | None = None) -> gym.Env:
    """`TMaze`, truncated after 3 (length + 1) steps, three times those of the best policy.

    The best return is 1, and that of a policy without memory at most 1/2; it counts as solved from 0.95.
    """
    return gym.make(
        EnvSpec(
            "TMaze-v0", lambda **options: TMaze(**options), reward_threshold=0.95, max_episode_steps=3 * (length + 1)
        ),
        length=length,
        disable_env_checker=True,
        render_mode=render_mode,
    )


LAKE = ("FFF", "FHF", "SHG")
"""From S up, across and down to G, around two holes; on both ways between edge and holes the same can be seen."""


class Surroundings(gym.ObservationWrapper, RecordConstructorArgs):
    """Shows where one cannot go from a place of a FrozenLake, instead of the place itself.

    Observations are (4,) int8, for left, down, right and up: 1, a hole or the edge; 0, ice, start or goal.
    """

    def __init__(self, env: gym.Env):
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        holes = env.get_wrapper_attr("desc") == b"H"
        self._closed, self._columns = np.pad(holes, 1, constant_values=True).astype(np.int8), holes.shape[1]
        self.observation_space = spaces.MultiBinary(4)

    def observation(self, observation: int) -> np.ndarray:
        """What surrounds the place with this number."""
        row, column = divmod(int(observation), self._columns)
        row, column = row + 1, column + 1  # because of the edge
        return self._closed[[row, row + 1, row, row - 1], [column - 1, column, column + 1, column]]


def frozen_lake(*, is_slippery: bool = False, success_rate: float = 0.9, render_mode: str | None = None) -> gym.Env:
    """FrozenLake-v1 on `LAKE`, seen through `Surroundings`: only what came before tells the way up from the way down.

    1 at the goal, which is six steps away, and 0 otherwise; truncated after 14 steps. No deterministic policy without
    memory reaches the goal. `success_rate`: if it is slippery, the probability that a step goes where it should, and
    not to one of the two sides.
    """
    spec = copy.copy(gym.spec("FrozenLake-v1"))
    spec.reward_threshold = None if is_slippery else 0.95
    env = gym.make(
        spec,
        desc=list(LAKE),
        is_slippery=is_slippery,
        success_rate=success_rate,
        max_episode_steps=14,
        disable_env_checker=True,
        render_mode=render_mode,
    )
    return Surroundings(env)
