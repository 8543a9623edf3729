"""Greedy evaluation on host and device environments; it only reads the parameters that are being trained."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.acting.collection_state import Episode
from memoroids.acting.device_collection import Act, collect_slots, play, start
from memoroids.acting.host_collection import Collector, Ended
from memoroids.acting.policies import RecurrentPolicy
from memoroids.envs import EnvironmentFault
from memoroids.envs.device import DeviceView
from memoroids.envs.host.vector import HostEnvs
from memoroids.memory.memoroid import State
from memoroids.tape import Tape, episode


class Evaluation(NamedTuple):
    """Undiscounted returns and lengths of finished greedy episodes, (episodes,) each, in the order of their seeds."""

    returns: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> "Evaluation":
        """The returns and lengths of these episodes."""
        return cls(np.asarray([e.total for e in episodes]), np.asarray([e.length for e in episodes]))

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    def interval(self, level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
        """A percentile bootstrap interval of the mean return, resampling episodes `draws` times from a fixed seed."""
        generator = np.random.default_rng(0)
        n = len(self.returns)
        means = np.asarray([self.returns[generator.integers(n, size=n)].mean() for _ in range(draws)])
        low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
        return float(low), float(high)


class Evaluator:
    """Plays greedy episodes in host environments, with an agent's `act` compiled once for all calls.

    `params`: the parameters to act with. `seed_of(number)`: the environment's seed for each episode from 0, which
    training must never use. `ended`: called for each episode that ends, see `Collector`; without it a fault of an
    environment raises `EnvironmentFault`.
    """

    def __init__(self, envs: HostEnvs, act: Callable[..., Any], initial_state: State):
        self._envs = envs
        self._params: Any = None
        self._policy = RecurrentPolicy(
            act,
            initial_state,
            len(envs),
            params=lambda: self._params,
            explore=lambda number: np.zeros(number.shape, np.float32),
            key=jax.random.key(0),  # has no effect, since ε is 0
        )

    def __call__(
        self, params: Any, episodes: int, seed_of: Callable[[int], int], ended: Ended | None = None
    ) -> Evaluation:
        """Returns and lengths of `episodes` greedy episodes."""
        # Tapes are not kept: those of image observations could exceed the host's memory.
        scores = [(episode.total, episode.length) for episode in self._episodes(params, episodes, seed_of, ended)]
        return Evaluation(*(np.asarray(column) for column in zip(*scores, strict=True)))

    def play(
        self, params: Any, episodes: int, seed_of: Callable[[int], int], ended: Ended | None = None
    ) -> list[Episode]:
        """The greedy episodes with their tapes, in the order of their seeds."""
        return list(self._episodes(params, episodes, seed_of, ended))

    def _episodes(
        self, params: Any, episodes: int, seed_of: Callable[[int], int], ended: Ended | None
    ) -> Iterator[Episode]:
        self._params = params
        yield from Collector(self._envs, self._policy, seed_of, 0, episodes, ended=ended)
        self._params = None


class DeviceEvaluator:
    """Plays greedy episodes in a device environment, `block` at a time; the seed of each becomes a random key."""

    def __init__(self, view: DeviceView, act: Act, initial_state: State, block: int):
        self._view, self._block = view, block

        def played(params: Any, seeds: jax.Array) -> tuple[jax.Array, jax.Array]:
            return play(view, act, params, initial_state, jax.vmap(jax.random.key)(seeds))

        def recorded(params: Any, seed: jax.Array) -> tuple[Tape, jax.Array]:
            key = jax.random.key(seed)
            env_states = start(view, initial_state, 1, key)
            greedy = jnp.zeros(1)
            _, collected = collect_slots(
                view, act, params, env_states, key, view.max_length + 1, explore=lambda number: greedy
            )
            return jax.tree.map(lambda leaf: leaf[0], (collected.tape, collected.tape.final))

        self.played = played
        """`played(params, seeds)`: returns and lengths of one block of episodes, not compiled."""
        self._played, self._recorded = jax.jit(played), jax.jit(recorded)

    def seeds(self, episodes: int, seed_of: Callable[[int], int]) -> np.ndarray:
        """The seeds of at least `episodes` episodes, (blocks, block) uint32; extra ones fill the last block."""
        blocks = -(-episodes // self._block)
        numbers = [seed_of(number) for number in range(blocks * self._block)]
        return np.asarray(numbers, np.uint32).reshape(blocks, self._block)

    def __call__(self, params: Any, episodes: int, seed_of: Callable[[int], int]) -> Evaluation:
        """Returns and lengths of `episodes` greedy episodes. Raises `EnvironmentFault` if one of them is not finite."""
        columns = [self._played(params, seeds) for seeds in self.seeds(episodes, seed_of)]
        returns, lengths = (np.concatenate(column)[:episodes] for column in zip(*columns, strict=True))
        if not np.isfinite(returns).all():
            faults = np.sum(~np.isfinite(returns))
            raise EnvironmentFault(
                f"{self._view.name} returned a non-finite observation or reward in {faults} of {episodes} greedy "
                "episodes"
            )
        return Evaluation(returns, lengths)

    def play(self, params: Any, episodes: int, seed_of: Callable[[int], int]) -> list[Episode]:
        """The greedy episodes with their tapes. Raises `EnvironmentFault` for a non-finite observation or reward."""
        out = []
        for number in range(episodes):
            tape, final = jax.device_get(self._recorded(params, np.uint32(seed_of(number))))
            if not final.any():
                raise EnvironmentFault(
                    f"{self._view.name} returned a non-finite observation or reward in greedy episode {number}"
                )
            length = int(np.argmax(final))
            rows = slice(length)
            whole_tape = episode(
                tape.observation[: length + 1],
                tape.action[rows],
                tape.reward[rows],
                bool(tape.terminated[length - 1]),
                bool(tape.truncated[length - 1]),
            )
            out.append(Episode(number, whole_tape, float(np.sum(whole_tape.reward)), length))
        return out
