"""Policies for several environments at once, whose random draws do not depend on how many environments there are."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.envs.spaces import Actions, Continuous, Factored, blank_actions
from memoroids.memory.memoroid import State


class Policy(Protocol):
    """Chooses the actions of n environments at once."""

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Actions, (n,) int32, (n, parts) int32 or (n, size) float32.

        `observation` (n, …), as the environments return it; `begin` (n,) bool; `number` and `step` (n,) int32, the
        episode and the step within it, on which alone random draws depend.
        """
        ...

    def memory(self) -> State:
        """What the policy carries from step to step for each environment, a pytree of host arrays (n, …)."""
        ...

    def restore(self, memory: State, number: np.ndarray, step: np.ndarray) -> None:
        """Resumes with `memory`, each environment having taken `step` steps of episode `number`, (n,) int32 each."""
        ...


class RandomPolicy:
    """Uniform random actions, drawn from one generator for each episode."""

    def __init__(self, actions: Actions, seed: int):
        self._actions, self._seed = actions, seed
        self._generators: dict[int, np.random.Generator] = {}

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Uniform actions; the generator of an environment is replaced where an episode begins."""
        del observation, step
        actions = blank_actions(self._actions, len(number))
        for i, (n, b) in enumerate(zip(number, begin, strict=True)):
            if b:
                self._generators[i] = np.random.default_rng((self._seed, int(n)))
            actions[i] = self._draw(i)
        return actions

    def _draw(self, index: int) -> Any:
        generator, actions = self._generators[index], self._actions
        if isinstance(actions, Continuous):
            return generator.uniform(actions.low, actions.high)
        return generator.integers(actions.sizes if isinstance(actions, Factored) else actions)

    def memory(self) -> State:
        """Nothing: the generators follow from the seed, the episodes and the steps."""
        return ()

    def restore(self, memory: State, number: np.ndarray, step: np.ndarray) -> None:
        """Advances the generator of each episode past the actions that it has drawn already."""
        del memory
        for i, (n, done) in enumerate(zip(number, step, strict=True)):
            self._generators[i] = np.random.default_rng((self._seed, int(n)))
            for _ in range(done):
                self._draw(i)


class RecurrentPolicy:
    """An agent's `act` for n environments in one jitted call, with their memory states kept on the device.

    `act(params, memory, observation, begin, explore, key)`: unbatched and pure, see `memoroids.agents.base.Agent`.
    `initial_state`: the memory state of one environment. `params()`: the parameters to act with now. `explore(number)`:
    how much to explore in episodes with these numbers, (n,) → (n,) float32. `key`: the random key into which the number
    of the episode and the step are folded.
    """

    def __init__(
        self,
        act: Callable[..., tuple[jax.Array, State]],
        initial_state: State,
        num_envs: int,
        *,
        params: Callable[[], Any],
        explore: Callable[[np.ndarray], np.ndarray],
        key: jax.Array,
    ):
        def act_all(
            params: Any, memory: State, observation: jax.Array, meta: jax.Array, explore: jax.Array
        ) -> tuple[jax.Array, State]:
            def act_one(memory: State, observation: jax.Array, meta: jax.Array, explore: jax.Array) -> Any:
                number, step = meta
                step_key = jax.random.fold_in(jax.random.fold_in(key, number), step)
                return act(params, memory, observation, step == 0, explore, step_key)

            return jax.vmap(act_one)(memory, observation, meta, explore)

        # A filtered jit would cost twice as much per call, and there is a call for every step. For a few environments,
        # running a kernel takes less time than handing it to another thread of the CPU.
        in_turn = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
        options = in_turn if jax.default_backend() == "cpu" else None
        self._act = jax.jit(act_all, donate_argnums=1, compiler_options=options)
        self._params, self._explore = params, explore
        self._memory = jax.tree.map(
            lambda leaf: jnp.array(jnp.broadcast_to(leaf, (num_envs, *leaf.shape))), initial_state
        )

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        """The agent's actions. The call waits for the device."""
        del begin  # equals step == 0
        meta = np.stack((number, step), axis=1)
        actions, self._memory = self._act(self._params(), self._memory, observation, meta, self._explore(number))
        return np.asarray(actions)

    def memory(self) -> State:
        """The memory states, copied to the host."""
        return jax.device_get(self._memory)

    def restore(self, memory: State, number: np.ndarray, step: np.ndarray) -> None:
        """Resumes with these memory states; draws depend only on the arguments of later calls."""
        del number, step
        self._memory = jax.tree.map(jnp.array, memory)
