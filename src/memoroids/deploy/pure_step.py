"""An agent as one pure function of what its environment shows: (state, observation, reward) → (action, state)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device.view import TracedInterface
from memoroids.envs.observations import Part
from memoroids.envs.spaces import Continuous, blank_actions
from memoroids.memory.memoroid import State
from memoroids.runs.build import ActingParts


class ActingState(NamedTuple):
    """What an agent carries from step to step of an episode."""

    memory: State
    action: Any
    """The last action, as the network gave it."""
    step: Any
    """Steps taken in this episode, int32."""


class PureStep:
    """The greedy policy of an agent with these parameters, from the environment's own observations to its actions.

        action, state = pure(pure.initial, observations, reward)

    `observations`: the parts of an observation that the agent sees, a tuple in the order of `parts`. `reward`: the last
    reward, a float32 scalar, used only if the agent was trained with it. The action is as the environment takes it,
    except that integers are int32; an episode begins with `initial`.
    """

    def __init__(self, parts: ActingParts, params: Any):
        env = parts.env
        self.interface = TracedInterface(env.id, env.observation_space, env.action_space, **env.seen)
        self.parts: tuple[Part, ...] = self.interface.parts
        self._act, self._params = parts.agent.act, params
        action = blank_actions(self.interface.actions, 1)[0]
        memory = jax.tree.map(np.asarray, parts.network.initial_state())
        self.initial = ActingState(memory, np.asarray(action), np.zeros((), np.int32))
        """The state with which an episode begins, of NumPy arrays."""

    def __call__(self, state: ActingState, observations: tuple[Any, ...], reward: Any) -> tuple[Any, ActingState]:
        """One step."""
        interface, begin = self.interface, state.step == 0
        observation = _nested(self.parts, observations)
        row = interface.observe(observation, None, jnp.zeros(()), state.step)
        if interface.previous_action or interface.previous_reward:
            row = jnp.where(begin, row, interface.observe(observation, state.action, reward, state.step))
        greedy = jnp.zeros(())
        action, memory = self._act(self._params, state.memory, row, begin, greedy, jax.random.key(0))
        return interface.native(action), ActingState(memory, action, state.step + 1)

    def examples(self) -> tuple[np.ndarray, ...]:
        """An example of each part of an observation: zeros of its shape and type."""
        return tuple(np.zeros(part.space.shape or (), _dtype(part.space)) for part in self.parts)

    @property
    def continuous(self) -> bool:
        """Whether its actions are numbers within a Box."""
        return isinstance(self.interface.actions, Continuous)


def _dtype(space: Any) -> Any:
    """The type in which a part of an observation is passed: images as they are, integers as int32."""
    if isinstance(space, spaces.Box):
        return np.uint8 if space.dtype == np.uint8 else np.float32
    return np.int32


def _nested(parts: tuple[Part, ...], values: tuple[Any, ...]) -> Any:
    """Values at the paths of their parts; a Tuple becomes a dictionary of its indices."""
    root: dict[Any, Any] = {}
    for part, value in zip(parts, values, strict=True):
        if not part.path:
            return value
        inner = root
        for key in part.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[part.path[-1]] = value
    return root
