"""Evaluation on host and device environments; it only reads the parameters that are being trained."""

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
    """Undiscounted returns and lengths of finished episodes, (episodes,) each, in the order of their seeds."""

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
        together = max(1, 1_000_000 // n)  # so that memory stays small however many episodes there are
        sizes = [min(together, draws - begun) for begun in range(0, draws, together)]
        means = np.concatenate([self.returns[generator.integers(n, size=(size, n))].mean(1) for size in sizes])
        low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
        return float(low), float(high)


class Evaluations(NamedTuple):
    """The evaluations of one policy: taking its best actions, and sampling from it.

    `sampled` is None for an agent whose policy is not a distribution to sample from.
    """

    greedy: Evaluation
    sampled: Evaluation | None = None

    def chosen(self, stochastic: bool) -> Evaluation:
        """The sampled evaluation if `stochastic`, else the greedy one. Raises `ValueError` if there is none."""
        found = self.sampled if stochastic else self.greedy
        if found is None:
            raise ValueError("stochastic is for agents that sample from their policy, such as ppo: this one does not")
        return found

    def named(self, stochastic: bool) -> dict[str, Evaluation]:
        """The evaluations by name, greedy or sampled, the one that is chosen by `stochastic` first."""
        self.chosen(stochastic)
        found = {name: evaluation for name, evaluation in self._asdict().items() if evaluation is not None}
        return dict(sorted(found.items(), reverse=stochastic))

    @classmethod
    def joined(cls, several: Sequence["Evaluations"]) -> "Evaluations":
        """All episodes of several evaluations of agents of one kind."""
        ways = [way for way in zip(*several, strict=True) if way[0] is not None]
        return cls(*(Evaluation(*map(np.concatenate, zip(*way, strict=True))) for way in ways))


class Evaluator:
    """Plays episodes in host environments, with an agent's `act` compiled once for all calls.

    `stochastic`: whether the agent's policy is a distribution, so that it is also evaluated by sampling.

    `params`: the parameters to act with. `seed_of(number)`: the environment's seed for each episode from 0, which
    training must never use; draws from the policy depend only on the first of these seeds, the episode and the step.
    `ended`: called for each episode that ends, see `Collector`; without it a fault of an environment raises
    `EnvironmentFault`.
    """

    def __init__(self, envs: HostEnvs, act: Act, initial_state: State, *, stochastic: bool = False):
        def act_salted(salted: Any, memory: State, observation: Any, begin: Any, explore: Any, key: jax.Array) -> Any:
            params, salt = salted
            return act(params, memory, observation, begin, explore, jax.random.fold_in(key, salt))

        self._envs, self._stochastic = envs, stochastic
        self._params: Any = None
        self._explore = np.float32(0)
        self._policy = RecurrentPolicy(
            act_salted if stochastic else act,
            initial_state,
            len(envs),
            params=lambda: self._params,
            explore=lambda number: np.full(number.shape, self._explore),
            key=jax.random.key(0),  # has no effect on greedy episodes
        )

    def __call__(
        self, params: Any, episodes: int, seed_of: Callable[[int], int], ended: Ended | None = None
    ) -> Evaluations:
        """Returns and lengths of `episodes` greedy episodes, and of as many sampled ones on the same seeds."""
        return Evaluations(
            self._scores(self._episodes(params, episodes, seed_of, ended)),
            self.sampled(params, episodes, seed_of, ended),
        )

    def sampled(
        self, params: Any, episodes: int, seed_of: Callable[[int], int], ended: Ended | None = None
    ) -> Evaluation | None:
        """Returns and lengths of `episodes` sampled episodes; None for an agent without a policy to sample from."""
        if not self._stochastic:
            return None
        return self._scores(self._episodes(params, episodes, seed_of, ended, explore=1.0))

    def _scores(self, played: Iterator[Episode]) -> Evaluation:
        # Tapes are not kept: those of image observations could exceed the host's memory.
        scores = [(episode.total, episode.length) for episode in played]
        return Evaluation(*(np.asarray(column) for column in zip(*scores, strict=True)))

    def play(
        self, params: Any, episodes: int, seed_of: Callable[[int], int], ended: Ended | None = None
    ) -> list[Episode]:
        """The greedy episodes with their tapes, in the order of their seeds."""
        return list(self._episodes(params, episodes, seed_of, ended))

    def _episodes(
        self,
        params: Any,
        episodes: int,
        seed_of: Callable[[int], int],
        ended: Ended | None,
        *,
        explore: float = 0.0,
    ) -> Iterator[Episode]:
        self._params = (params, np.uint32(seed_of(0))) if self._stochastic else params
        self._explore = np.float32(explore)
        yield from Collector(self._envs, self._policy, seed_of, 0, episodes, ended=ended)
        self._params = None


class DeviceEvaluator:
    """Plays episodes in a device environment, `block` at a time; the seed of each becomes a random key.

    `stochastic`: whether the agent's policy is a distribution, so that it is also evaluated by sampling.
    """

    def __init__(self, view: DeviceView, act: Act, initial_state: State, block: int, *, stochastic: bool = False):
        self._view, self._block = view, block
        ways = 2 if stochastic else 1

        def played(params: Any, seeds: jax.Array) -> tuple[jax.Array, jax.Array]:
            keys = jnp.tile(jax.vmap(jax.random.key)(seeds), ways)
            explore = jnp.repeat(jnp.arange(ways, dtype=jnp.float32), block)
            found = play(view, act, params, initial_state, keys, explore)
            return tuple(column.reshape(ways, block) for column in found)  # type: ignore[return-value]

        def recorded(params: Any, seed: jax.Array) -> tuple[Tape, jax.Array]:
            key = jax.random.key(seed)
            env_states = start(view, initial_state, 1, key)
            greedy = jnp.zeros(1)
            _, collected = collect_slots(
                view, act, params, env_states, key, view.max_length + 1, explore=lambda number: greedy
            )
            return jax.tree.map(lambda leaf: leaf[0], (collected.tape, collected.tape.final))

        self.played = played
        """`played(params, seeds)`: returns and lengths of one block of episodes, (ways, block) each, not compiled.

        The first way is greedy, and the second, if there is one, sampled."""
        self._played, self._recorded = jax.jit(played), jax.jit(recorded)

    def seeds(self, episodes: int, seed_of: Callable[[int], int]) -> np.ndarray:
        """The seeds of at least `episodes` episodes, (blocks, block) uint32; extra ones fill the last block."""
        blocks = -(-episodes // self._block)
        numbers = [seed_of(number) for number in range(blocks * self._block)]
        return np.asarray(numbers, np.uint32).reshape(blocks, self._block)

    def __call__(self, params: Any, episodes: int, seed_of: Callable[[int], int]) -> Evaluations:
        """Returns and lengths of `episodes` episodes of each way. Raises `EnvironmentFault` if one is not finite."""
        blocks = [self._played(params, seeds) for seeds in self.seeds(episodes, seed_of)]
        found = in_ways(blocks, episodes)
        for name, evaluation in found.named(stochastic=False).items():
            if faults := int(np.sum(~np.isfinite(evaluation.returns))):
                raise EnvironmentFault(
                    f"{self._view.id} returned a non-finite observation or reward in {faults} of {episodes} {name} "
                    "episodes"
                )
        return found

    def play(self, params: Any, episodes: int, seed_of: Callable[[int], int]) -> list[Episode]:
        """The greedy episodes with their tapes. Raises `EnvironmentFault` for a non-finite observation or reward."""
        out = []
        for number in range(episodes):
            tape, final = jax.device_get(self._recorded(params, np.uint32(seed_of(number))))
            if not final.any():
                raise EnvironmentFault(
                    f"{self._view.id} returned a non-finite observation or reward in greedy episode {number}"
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


def in_ways(blocks: Sequence[tuple[Any, Any]], episodes: int) -> Evaluations:
    """The first `episodes` episodes of each way, from the blocks that `DeviceEvaluator.played` returned."""
    returns, lengths = (np.concatenate(column, axis=1)[:, :episodes] for column in zip(*blocks, strict=True))
    return Evaluations(*(Evaluation(*way) for way in zip(returns, lengths, strict=True)))
