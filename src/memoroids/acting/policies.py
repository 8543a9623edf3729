"""Policies: actions for several copies of an environment at once, the same whatever the number of copies."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.envs.spaces import Actions, Continuous
from memoroids.memory.memoroid import State


class Policy(Protocol):
    """Actions for all copies at once."""

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Actions for n copies, (n,) int or (n, size) float.

        `observation` (n, …) as the environments give it, `begin` (n,) bool; `number` and `step` (n,) int32 name the
        episode and the step that each copy is in, so that what is drawn at random depends on these alone.
        """
        ...

    def memory(self) -> State:
        """What it carries from step to step for each copy, a pytree of arrays."""
        ...

    def restore(self, memory: State, number: np.ndarray, step: np.ndarray) -> None:
        """Goes on with `memory` where each copy has done `step` steps of episode `number`."""
        ...


class RandomPolicy:
    """Uniform actions, drawn from a generator for each episode, so that the number of copies does not matter."""

    def __init__(self, actions: Actions, seed: int):
        self._actions, self._seed = actions, seed
        self._generators: dict[int, np.random.Generator] = {}

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        del observation, step
        several = self._actions.size if isinstance(self._actions, Continuous) else None
        actions = (
            np.zeros(number.shape, np.int32) if several is None else np.zeros((*number.shape, several), np.float32)
        )
        for i, (n, b) in enumerate(zip(number, begin, strict=True)):
            if b:
                self._generators[i] = np.random.default_rng((self._seed, int(n)))
            actions[i] = self._draw(i)
        return actions

    def _draw(self, copy: int) -> Any:
        if isinstance(self._actions, Continuous):
            return self._generators[copy].uniform(self._actions.low, self._actions.high)
        return self._generators[copy].integers(self._actions)

    def memory(self) -> State:
        return ()

    def restore(self, memory: State, number: np.ndarray, step: np.ndarray) -> None:
        del memory
        for i, (n, done) in enumerate(zip(number, step, strict=True)):
            self._generators[i] = np.random.default_rng((self._seed, int(n)))
            for _ in range(done):
                self._draw(i)


class RecurrentPolicy:
    """An algorithm's `act` for n copies in one jitted call, with the copies' memory states carried on device.

    **Arguments:** `act(params, memory, observation, begin, epsilon, key)`, unbatched and pure; `initial_state`, of one
    copy; `params()`, the parameters to act with now; `epsilon(number)`, the share of random actions in an episode;
    `key`, from which each step's key is folded by episode and step.
    """

    def __init__(
        self,
        act: Callable[..., tuple[jax.Array, State]],
        initial_state: State,
        num_envs: int,
        *,
        params: Callable[[], Any],
        epsilon: Callable[[np.ndarray], np.ndarray],
        key: jax.Array,
    ):
        def act_all(
            params: Any, memory: State, observation: jax.Array, meta: jax.Array, epsilon: jax.Array
        ) -> tuple[jax.Array, State]:
            def one(memory: State, observation: jax.Array, meta: jax.Array, epsilon: jax.Array) -> Any:
                number, step = meta
                step_key = jax.random.fold_in(jax.random.fold_in(key, number), step)
                return act(params, memory, observation, step == 0, epsilon, step_key)

            return jax.vmap(one)(memory, observation, meta, epsilon)

        # Plain jit on arrays alone: a filtered jit costs twice as much a call, and there is a call for every step.
        # A step of a few copies is a queue of kernels shorter than it takes to hand one to another thread of the CPU.
        in_turn = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
        options = in_turn if jax.default_backend() == "cpu" else None
        self._act = jax.jit(act_all, donate_argnums=1, compiler_options=options)
        self._params, self._epsilon = params, epsilon
        self._memory = jax.tree.map(
            lambda leaf: jnp.array(jnp.broadcast_to(leaf, (num_envs, *leaf.shape))), initial_state
        )

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        del begin  # the same as step == 0
        meta = np.stack((number, step), axis=1)
        actions, self._memory = self._act(self._params(), self._memory, observation, meta, self._epsilon(number))
        return np.asarray(actions)

    def memory(self) -> State:
        return jax.device_get(self._memory)

    def restore(self, memory: State, number: np.ndarray, step: np.ndarray) -> None:
        del number, step
        self._memory = jax.tree.map(jnp.array, memory)
