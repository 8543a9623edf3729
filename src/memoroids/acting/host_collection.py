"""Collection on the host: environments stepped together, whose episodes come out in the order in which they started."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from memoroids.acting.collection_state import CollectorState, Episode, EpisodeInProgress
from memoroids.acting.policies import Policy
from memoroids.envs import EnvironmentFault, HostEnv
from memoroids.envs.host.vector import HostEnvs, LocalEnvs

Ended = Callable[[EnvironmentFault | None], None]
"""Called whenever an episode ends: with the fault if the episode was dropped, otherwise with None."""


ENDLESS = 100_000
"""The longest episode of an environment that does not say how long its episodes may be."""


class Collector:
    """Collects the episodes numbered `start` to `stop` - 1; an iterator over finished episodes.

    Episodes are numbered when they start and yielded in that order; first come first served would favour short ones.
    `seed_of(number)` is the seed with which the environment is reset for an episode.

    If an environment misbehaves, its whole episode is dropped and `stop` grows by one, so that the number of episodes
    yielded stays the same. `ended` is called for every episode that ends, dropped ones included, and may raise to end
    the collection. Without `ended`, the first fault raises `EnvironmentFault`, naming the episode. An episode of more
    than `ENDLESS` steps always does, unless the environment declares how long its episodes may be.

    `due` is the number of the next episode to yield; `state()` may be called between two episodes.
    """

    def __init__(
        self,
        envs: HostEnvs,
        policy: Policy,
        seed_of: Callable[[int], int],
        start: int,
        stop: int,
        *,
        ended: Ended | None = None,
    ):
        self._envs, self._policy, self._seed_of, self._ended = envs, policy, seed_of, ended
        envs.abandon()
        self.due, self._upcoming, self._stop = start, start, stop
        num_envs, example = len(envs), envs.example
        self._in_progress: list[EpisodeInProgress | None] = [None] * num_envs
        self._observation = np.zeros((num_envs, *example.observation_shape), example.observation_dtype)
        self._number_and_step = np.zeros((num_envs, 2), np.int32)
        self._finished: dict[int, Episode | None] = {}  # None: dropped

    def state(self) -> CollectorState:
        """A snapshot of the collection, which later steps do not change."""
        in_progress = [episode and episode.copy() for episode in self._in_progress]
        return CollectorState(self.due, self._upcoming, in_progress, dict(self._finished), self._policy.memory())

    def restore(self, state: CollectorState) -> list[int]:
        """Resumes from `state`; each episode in progress is replayed in its environment from its seed and actions.

        **Returns:** the numbers of the episodes whose replay diverged, which start again. This happens if the state of
        an environment does not follow from its seed and actions.
        """
        # Each dropped episode has a replacement at the end, whether it has been passed over already or is still due.
        self._stop += state.due - self.due + sum(episode is None for episode in state.finished.values())
        self.due, self._upcoming, self._finished = state.due, state.upcoming, dict(state.finished)
        diverged = []
        for index, episode in enumerate(state.in_progress):
            if episode is None:
                continue
            if replayed(self._envs, index, episode, self._seed_of(episode.number)):
                self._in_progress[index] = episode
                self._observation[index] = episode.observations[-1]
            else:
                diverged.append(episode.number)
                self._begin(index, episode.number)
        self._policy.restore(state.memory, *self._numbers_and_steps())
        return diverged

    def __iter__(self) -> Iterator[Episode]:
        while True:
            while self.due in self._finished:
                episode = self._finished.pop(self.due)
                self.due += 1
                if episode is not None:
                    yield episode
            if self.due >= self._stop:
                return
            for i in range(len(self._in_progress)):
                while self._in_progress[i] is None and self._upcoming < self._stop and self._envs.ready(i):
                    self._upcoming += 1
                    self._begin(i, self._upcoming - 1)
            self._step()

    def _begin(self, index: int, number: int) -> None:
        try:
            self._observation[index] = self._envs.reset(index, self._seed_of(number))
        except EnvironmentFault as fault:
            self._drop([(index, number, fault)])
        else:
            self._in_progress[index] = EpisodeInProgress(number, [self._observation[index].copy()])

    def _numbers_and_steps(self) -> tuple[np.ndarray, np.ndarray]:
        """The episode number and the step of each environment, (n,) int32 each; an idle one keeps its last."""
        for i, episode in enumerate(self._in_progress):
            if episode is not None:
                self._number_and_step[i] = episode.number, len(episode.actions)
        number, step = self._number_and_step.copy().T
        return number, step

    def _step(self) -> None:
        number, step = self._numbers_and_steps()
        chosen = self._policy(self._observation, step == 0, number, step)
        results = self._envs.step({i: chosen[i] for i, each in enumerate(self._in_progress) if each is not None})
        faults = []
        for i, result in results.items():
            episode = self._in_progress[i]
            assert episode is not None
            if isinstance(result, EnvironmentFault):
                faults.append((i, episode.number, result))
                continue
            self._observation[i] = result.observation
            episode.add(chosen[i], result.reward, self._observation[i].copy())
            self._number_and_step[i, 1] += 1
            if result.terminated or result.truncated:
                self._finished[episode.number] = episode.close(result.terminated, result.truncated)
                self._in_progress[i] = None
                if self._ended is not None:
                    self._ended(None)
            else:
                check_endless(self._envs.example, episode)
        self._drop(faults)

    def _drop(self, faults: list[tuple[int, int, EnvironmentFault]]) -> None:
        """Drops the episodes of (index, number, fault), all of them before `ended` is called, since it may raise."""
        for index, number, _ in faults:
            self._in_progress[index], self._finished[number] = None, None
            self._stop += 1
        report_dropped(self._ended, [(number, fault) for _, number, fault in faults])


def report_dropped(ended: Ended | None, faults: Sequence[tuple[int, EnvironmentFault]]) -> None:
    """Calls `ended` for each dropped episode, given by its number and its fault, before what it raised is raised.

    Episodes that were lost to one and the same fault are reported together, as one. Without `ended`, the first fault
    raises `EnvironmentFault`, naming the episode.
    """
    raised: EnvironmentFault | None = None
    numbers: dict[EnvironmentFault, list[int]] = {}
    for number, fault in faults:
        numbers.setdefault(fault, []).append(number)
    for fault, lost in numbers.items():
        named = EnvironmentFault(f"episode{'s' * (len(lost) > 1)} {', '.join(map(str, lost))}: {fault}")
        if ended is None:
            raise named from fault
        try:
            ended(named)
        except EnvironmentFault as error:
            raised = error
    if raised is not None:
        raise raised


def check_endless(env: HostEnv, episode: EpisodeInProgress) -> None:
    """Raises `EnvironmentFault` after more than `ENDLESS` steps if the environment declares no longest episode."""
    if len(episode.actions) > ENDLESS and env.max_length is None:
        raise EnvironmentFault(
            f"episode {episode.number}: {env.id} has not ended it after {ENDLESS:,} steps: set --max-episode-steps"
        )


def why_again(envs: HostEnvs) -> str:
    """Why episodes in progress start again in a run that is resumed, after the name of the environment."""
    if envs.replayable:
        return "diverged when its episodes in progress were replayed"
    return "is stepped as a vector environment, whose episodes cannot be replayed"


def replayed(envs: HostEnvs, index: int, episode: EpisodeInProgress, seed: int) -> bool:
    """Replays an episode in one environment; whether observations and rewards are the same as before."""
    if not envs.replayable:
        return False
    try:
        first = envs.reset(index, seed)
    except EnvironmentFault:
        return False
    if not np.array_equal(first, episode.observations[0]):
        return False
    for action, observation, reward in zip(episode.actions, episode.observations[1:], episode.rewards, strict=True):
        result = envs.step({index: action})[index]
        if isinstance(result, EnvironmentFault) or result.terminated or result.truncated:
            return False
        if not np.array_equal(result.observation, observation) or result.reward != reward:
            return False
    return True


def collect(
    envs: Sequence[HostEnv], policy: Policy, seed_of: Callable[[int], int], start: int, stop: int
) -> Iterator[Episode]:
    """The episodes of a `Collector` over environments in this process; the first fault raises `EnvironmentFault`."""
    return iter(Collector(LocalEnvs(envs), policy, seed_of, start, stop))
