"""Collection: several copies of an environment stepped together, whole episodes out in the order they started."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from memoroids import tape as tapes
from memoroids.envs import EnvironmentFault, HostEnv
from memoroids.memoroid import State
from memoroids.spaces import Actions, Continuous


class Episode(NamedTuple):
    """A whole episode: its number, its tape of T + 1 slots (NumPy), its undiscounted return and its length T."""

    number: int
    tape: tapes.Tape
    total: float
    length: int


class Policy(Protocol):
    """Actions for all copies at once."""

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Actions for n copies, (n,) int or (n, size) float.

        `observation` (n, …) as the environments give it, `begin` (n,) bool; `number` and `step` (n,) int32 name the
        episode and the step that each copy is in, so that what is drawn at random depends on these alone.
        """
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
            if isinstance(self._actions, Continuous):
                actions[i] = self._generators[i].uniform(self._actions.low, self._actions.high)
            else:
                actions[i] = self._generators[i].integers(self._actions)
        return actions


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
        copies: int,
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
            lambda leaf: jnp.array(jnp.broadcast_to(leaf, (copies, *leaf.shape))), initial_state
        )

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        del begin  # the same as step == 0
        meta = np.stack((number, step), axis=1)
        actions, self._memory = self._act(self._params(), self._memory, observation, meta, self._epsilon(number))
        return np.asarray(actions)


class _Open:
    """An episode under way in one copy."""

    def __init__(self, number: int, observation: np.ndarray):
        self.number = number
        self.observations = [observation]
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []

    def close(self, terminated: bool, truncated: bool) -> Episode:
        tape = tapes.episode(np.stack(self.observations), np.stack(self.actions), self.rewards, terminated, truncated)
        return Episode(self.number, tape, float(np.sum(self.rewards)), len(self.rewards))


def collect(
    envs: Sequence[HostEnv], policy: Policy, seed_of: Callable[[int], int], start: int, stop: int
) -> Iterator[Episode]:
    """Runs episodes `start` to `stop` - 1 over the copies and yields each when it and all before it are whole.

    Episodes are numbered when they start and come out in that order: first come first served would favour short ones.
    `seed_of(number)` seeds the environment for an episode. Raises `EnvironmentFault`, naming the episode, where an
    environment misbehaves; episodes already yielded are whole.
    """
    copies: list[_Open | None] = [None] * len(envs)
    observation = np.zeros((len(envs), *envs[0].observation_shape), envs[0].observation_dtype)
    number, step = np.zeros(len(envs), np.int32), np.zeros(len(envs), np.int32)
    whole: dict[int, Episode] = {}
    upcoming, due = start, start
    while due < stop:
        for i, env in enumerate(envs):
            if copies[i] is None and upcoming < stop:
                try:
                    observation[i] = env.reset(seed_of(upcoming))
                except EnvironmentFault as fault:
                    raise EnvironmentFault(f"episode {upcoming}: {fault}") from fault
                copies[i] = _Open(upcoming, observation[i].copy())
                number[i], step[i] = upcoming, 0
                upcoming += 1
        actions = policy(observation, step == 0, number, step)
        for i, (env, episode) in enumerate(zip(envs, copies, strict=True)):
            if episode is None:
                continue
            action = actions[i]
            try:
                observation[i], reward, terminated, truncated = env.step(action)
            except EnvironmentFault as fault:
                raise EnvironmentFault(f"episode {episode.number}: {fault}") from fault
            step[i] += 1
            episode.observations.append(observation[i].copy())
            episode.actions.append(action)
            episode.rewards.append(reward)
            if terminated or truncated:
                whole[episode.number] = episode.close(terminated, truncated)
                copies[i] = None
        while due in whole:
            yield whole.pop(due)
            due += 1
