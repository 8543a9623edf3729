"""Greedy evaluation on seeds of its own; the training state is only read."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.acting.device_collection import Act, collect_slots, play, start
from memoroids.acting.host_collection import Collector, Ended, Episode
from memoroids.acting.policies import RecurrentPolicy
from memoroids.envs import EnvironmentFault
from memoroids.envs.device import DeviceView
from memoroids.envs.host.vector import HostEnvs
from memoroids.memory.memoroid import State
from memoroids.tape import Tape, episode


class Evaluation(NamedTuple):
    """Undiscounted returns and lengths of whole greedy episodes, (episodes,), in the order of their seeds."""

    returns: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, played: Sequence[Episode]) -> "Evaluation":
        """The evaluation that episodes amount to."""
        return cls(np.asarray([e.total for e in played]), np.asarray([e.length for e in played]))

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    def interval(self, level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
        """A percentile bootstrap interval of the mean return over episodes, from a fixed seed."""
        generator = np.random.default_rng(0)
        n = len(self.returns)
        means = np.asarray([self.returns[generator.integers(n, size=n)].mean() for _ in range(draws)])
        low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
        return float(low), float(high)


class Evaluator:
    """Greedy episodes with an algorithm's `act`, compiled once and called with new parameters each time.

    `seed_of(index)` must give seeds that training never uses.
    """

    def __init__(self, copies: HostEnvs, act: Callable[..., Any], initial_state: State):
        self._copies = copies
        self._params: Any = None
        self._policy = RecurrentPolicy(
            act,
            initial_state,
            len(copies),
            params=lambda: self._params,
            epsilon=lambda number: np.zeros(number.shape, np.float32),
            key=jax.random.key(0),  # nothing is drawn where ε is 0
        )

    def __call__(
        self, params: Any, episodes: int, seed_of: Callable[[int], int], ended: Ended | None = None
    ) -> Evaluation:
        """The evaluation of `episodes` episodes; `ended` hears of each, see `Collector`."""
        # Scores alone are kept: whole episodes of images would fill the memory.
        scores = [(episode.total, episode.length) for episode in self._episodes(params, episodes, seed_of, ended)]
        return Evaluation(*(np.asarray(column) for column in zip(*scores, strict=True)))

    def play(
        self, params: Any, episodes: int, seed_of: Callable[[int], int], ended: Ended | None = None
    ) -> list[Episode]:
        """The greedy episodes themselves, in the order of their seeds."""
        return list(self._episodes(params, episodes, seed_of, ended))

    def _episodes(
        self, params: Any, episodes: int, seed_of: Callable[[int], int], ended: Ended | None
    ) -> Iterator[Episode]:
        self._params = params
        yield from Collector(self._copies, self._policy, seed_of, 0, episodes, ended=ended)
        self._params = None


class DeviceEvaluator:
    """The same for a device environment: compiled episodes, `block` at a time, each with a key made from its seed."""

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
        self._played, self._recorded = jax.jit(played), jax.jit(recorded)

    def seeds(self, episodes: int, seed_of: Callable[[int], int]) -> np.ndarray:
        """(blocks, block) uint32: the seeds of `episodes` and, in the last block, of those that fill it."""
        blocks = -(-episodes // self._block)
        numbers = [seed_of(number) for number in range(blocks * self._block)]
        return np.asarray(numbers, np.uint32).reshape(blocks, self._block)

    def __call__(self, params: Any, episodes: int, seed_of: Callable[[int], int]) -> Evaluation:
        columns = [self._played(params, seeds) for seeds in self.seeds(episodes, seed_of)]
        returns, lengths = (np.concatenate(column)[:episodes] for column in zip(*columns, strict=True))
        if not np.isfinite(returns).all():
            faults = np.sum(~np.isfinite(returns))
            raise EnvironmentFault(
                f"{self._view.name} showed or paid something that is not finite in {faults} of {episodes} episodes"
            )
        return Evaluation(returns, lengths)

    def play(self, params: Any, episodes: int, seed_of: Callable[[int], int]) -> list[Episode]:
        """Whole greedy episodes, in the order of their seeds."""
        out = []
        for number in range(episodes):
            tape, final = jax.device_get(self._recorded(params, np.uint32(seed_of(number))))
            if not final.any():
                raise EnvironmentFault(f"{self._view.name} showed or paid something that is not finite")
            length = int(np.argmax(final))
            rows = slice(length)
            whole = episode(
                tape.observation[: length + 1],
                tape.action[rows],
                tape.reward[rows],
                bool(tape.terminated[length - 1]),
                bool(tape.truncated[length - 1]),
            )
            out.append(Episode(number, whole, float(np.sum(whole.reward)), length))
        return out
