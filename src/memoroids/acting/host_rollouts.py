"""Collection on the host in rollouts of a fixed number of slots; an unfinished episode goes on in the next rollout."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from memoroids.acting.collection_state import CollectorState, EpisodeInProgress
from memoroids.acting.host_collection import Ended, check_endless, replayed, report_dropped
from memoroids.acting.policies import Policy
from memoroids.envs import EnvironmentFault
from memoroids.envs.host.vector import HostEnvs
from memoroids.envs.spaces import blank_actions
from memoroids.memory.memoroid import State
from memoroids.tape import Tape


class CollectedRollout(NamedTuple):
    """A rollout of n environments, on the host.

    `tape`: leaves (n, slots + 1, …), as in `memoroids.agents.rollout_batch.Rollout`. `memory`: the policy's memory
    before slot 0, leaves (n, …). `returns`: of the episodes that ended in it, undiscounted, in the order of their ends.
    `steps`: environment steps taken, those of dropped episodes included.
    """

    tape: Tape
    memory: State
    returns: list[float]
    steps: int


class RolloutCollector:
    """Collects rollouts from environments that are stepped together and never wait for each other's episodes.

    Episodes are numbered from `start` in the order in which they begin; `seed_of(number)` is the seed with which the
    environment is reset for an episode. As on the device, an environment whose episode has ended writes the final
    observation in the next slot, and is reset.

    If an environment misbehaves, its episode is dropped: all its slots in this rollout become padding, and another one
    begins in the next slot. `ended` is called for every episode that ends, dropped ones included, and may raise to end
    the collection. Without `ended`, the first fault raises `EnvironmentFault`, naming the episode.
    """

    def __init__(
        self,
        envs: HostEnvs,
        policy: Policy,
        seed_of: Callable[[int], int],
        start: int = 0,
        *,
        ended: Ended | None = None,
    ):
        self._envs, self._policy, self._seed_of, self._ended = envs, policy, seed_of, ended
        envs.abandon()
        self.upcoming = start
        """The number of the next episode to begin."""
        example = envs.example
        self._episodes: list[EpisodeInProgress | None] = [None] * len(envs)
        self._observation = np.zeros((len(envs), *example.observation_shape), example.observation_dtype)

    def state(self) -> CollectorState:
        """A snapshot of the collection between two rollouts, which later steps do not change."""
        episodes = [episode and episode.copy() for episode in self._episodes]
        return CollectorState(self.upcoming, self.upcoming, episodes, {}, self._policy.memory())

    def restore(self, state: CollectorState) -> list[int]:
        """Resumes from `state`; each episode in progress is replayed in its environment from its seed and actions.

        **Returns:** the numbers of the episodes whose replay diverged, which start again.
        """
        self.upcoming, diverged = state.upcoming, []
        for index, episode in enumerate(state.in_progress):
            # Where nothing can be replayed, the final observation of an episode that is over has no slot of its own.
            if episode is None or (episode.over and not self._envs.replayable):
                continue
            # The environment of an episode that is over is reset in the next slot: it need not be brought there.
            if episode.over or replayed(self._envs, index, episode, self._seed_of(episode.number)):
                self._episodes[index], self._observation[index] = episode, episode.observations[-1]
            else:
                diverged.append(episode.number)
                self._begin(index, episode.number)
        self._policy.restore(state.memory, *self._numbers_and_steps())
        return diverged

    def collect(self, slots: int) -> CollectedRollout:
        """Collects the next `slots` slots of every environment. Raises `EnvironmentFault`, see the class."""
        memory, tape = self._policy.memory(), self._blank(slots + 1)
        returns: list[float] = []
        steps = 0
        for slot in range(slots):
            for index, episode in enumerate(self._episodes):
                if episode is None:
                    self._begin_next(index)
            steps += self._fill(tape, slot, returns)
        for index, episode in enumerate(self._episodes):
            # The observation that follows is not collected again: values bootstrap from it.
            if episode is not None and episode.actions:
                tape.observation[index, slots], tape.begin[index, slots] = self._observation[index], False
        return CollectedRollout(tape, memory, returns, steps)

    def _fill(self, tape: Tape, slot: int, returns: list[float]) -> int:
        """Writes one slot of every environment; returns the number of steps taken."""
        number, step = self._numbers_and_steps()
        chosen = self._policy(self._observation, step == 0, number, step)
        tape.observation[:, slot] = self._observation
        tape.begin[:, slot] = step == 0
        acting = {i: chosen[i] for i, episode in enumerate(self._episodes) if episode and not episode.over}
        faults = []
        for i, episode in enumerate(self._episodes):
            if episode is None:  # its environment is not ready
                self._blank_out(tape, i, slice(slot, slot + 1))
            elif episode.over:
                self._episodes[i] = None  # the slot holds its final observation
        for i, result in self._envs.step(acting).items():
            episode = self._episodes[i]
            assert episode is not None
            if isinstance(result, EnvironmentFault):
                faults.append((episode.number, result))
                self._blank_out(tape, i, slice(max(0, slot - len(episode.actions)), slot + 1))
                self._episodes[i] = None
                continue
            tape.action[i, slot], tape.reward[i, slot] = chosen[i], result.reward
            tape.terminated[i, slot] = result.terminated
            tape.truncated[i, slot] = result.truncated and not result.terminated
            tape.transition[i, slot] = True
            self._observation[i] = result.observation
            episode.add(chosen[i], result.reward, self._observation[i].copy())
            if result.terminated or result.truncated:
                episode.over = True
                returns.append(float(np.sum(episode.rewards)))
                if self._ended is not None:
                    self._ended(None)
            else:
                check_endless(self._envs.example, episode)
        report_dropped(self._ended, faults)
        return len(acting)

    def _begin_next(self, index: int) -> None:
        """Begins the next episode in an environment, and the one after it if the environment cannot be reset."""
        while self._episodes[index] is None and self._envs.ready(index):
            self.upcoming += 1
            self._begin(index, self.upcoming - 1)

    def _begin(self, index: int, number: int) -> None:
        try:
            self._observation[index] = self._envs.reset(index, self._seed_of(number))
        except EnvironmentFault as fault:
            report_dropped(self._ended, [(number, fault)])
        else:
            self._episodes[index] = EpisodeInProgress(number, [self._observation[index].copy()])

    def _numbers_and_steps(self) -> tuple[np.ndarray, np.ndarray]:
        """The episode number and the step of each environment, (n,) int32 each; 0 where there is no episode."""
        pairs = [(episode.number, len(episode.actions)) if episode else (0, 0) for episode in self._episodes]
        number, step = np.asarray(pairs, np.int32).T
        return number, step

    def _blank(self, slots: int) -> Tape:
        """Tapes of padding, leaves (n, slots, …)."""
        example, n = self._envs.example, len(self._envs)
        actions = blank_actions(example.actions, n * slots)
        leaves: dict[str, Any] = {
            "observation": np.zeros((n, slots, *example.observation_shape), example.observation_dtype),
            "begin": np.ones((n, slots), bool),
            "action": actions.reshape(n, slots, *actions.shape[1:]),
            "reward": np.zeros((n, slots), np.float32),
        }
        leaves |= {name: np.zeros((n, slots), bool) for name in ("terminated", "truncated", "transition")}
        return Tape(**leaves)

    def _blank_out(self, tape: Tape, index: int, slots: slice) -> None:
        """Turns slots of one environment into padding."""
        for field in dataclasses.fields(tape):
            getattr(tape, field.name)[index, slots] = field.name == "begin"
