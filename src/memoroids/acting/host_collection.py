"""Collection: several copies of an environment stepped together, whole episodes out in the order they started."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from memoroids import tape as tapes
from memoroids.acting.policies import Policy
from memoroids.envs import EnvironmentFault, HostEnv
from memoroids.envs.host.vector import HostEnvs, LocalEnvs
from memoroids.envs.spaces import Continuous
from memoroids.memory.memoroid import State


class Episode(NamedTuple):
    """A whole episode: its number, its tape of T + 1 slots (NumPy), its undiscounted return and its length T."""

    number: int
    tape: tapes.Tape
    total: float
    length: int


@dataclass
class EpisodeInProgress:
    """An episode under way in one copy: what it has shown and done so far."""

    number: int
    observations: list[np.ndarray]
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def close(self, terminated: bool, truncated: bool) -> Episode:
        tape = tapes.episode(np.stack(self.observations), np.stack(self.actions), self.rewards, terminated, truncated)
        return Episode(self.number, tape, float(np.sum(self.rewards)), len(self.rewards))


class CollectorState(NamedTuple):
    """Where a collection stands between two episodes that it gives: what exact resume needs besides the learner.

    `open`: the episode in each copy; `whole`: episodes that wait for an earlier one; `memory`: the policy's states.
    """

    due: int
    upcoming: int
    open: list[EpisodeInProgress | None]
    whole: dict[int, Episode | None]
    memory: State


Ended = Callable[[EnvironmentFault | None], None]
"""Called whenever an episode ends: with its fault where it was dropped, with None where it is whole."""


class Collector:
    """Runs episodes `start` to `stop` - 1 over copies of an environment; an iterator over whole episodes.

    Episodes are numbered when they start and come out in that order: first come first served would favour short ones.
    `seed_of(number)` seeds the environment for an episode. An episode whose environment misbehaves is dropped whole,
    and another takes its place at the end, so that as many come out; `ended` hears of it, and of every episode that
    ends well. Without `ended`, `EnvironmentFault` is raised, naming the episode. What has come out is whole either way.

    `due` is the number of the next episode to come out; `state()` may be taken between two of them.
    """

    def __init__(
        self,
        copies: HostEnvs,
        policy: Policy,
        seed_of: Callable[[int], int],
        start: int,
        stop: int,
        *,
        ended: Ended | None = None,
    ):
        self._copies, self._policy, self._seed_of, self._ended = copies, policy, seed_of, ended
        self.due, self._upcoming, self._stop = start, start, stop
        number, example = len(copies), copies.example
        self._open: list[EpisodeInProgress | None] = [None] * number
        self._observation = np.zeros((number, *example.observation_shape), example.observation_dtype)
        self._place = np.zeros((number, 2), np.int32)
        self._whole: dict[int, Episode | None] = {}  # None: dropped

    def state(self) -> CollectorState:
        """Where it stands; nothing in it changes when the collection goes on."""
        copies = [
            one and EpisodeInProgress(one.number, list(one.observations), list(one.actions), list(one.rewards))
            for one in self._open
        ]
        return CollectorState(self.due, self._upcoming, copies, dict(self._whole), self._policy.memory())

    def restore(self, state: CollectorState) -> list[int]:
        """Goes on from where another collection stood: the open episodes are played again, action by action.

        **Returns:** the numbers of those that did not show the same again, and begin anew: their environment's state
        does not follow from its seed and its actions.
        """
        # Each that was dropped has another in its place, whether `due` has passed it or not.
        self._stop += state.due - self.due + sum(episode is None for episode in state.whole.values())
        self.due, self._upcoming, self._whole = state.due, state.upcoming, dict(state.whole)
        anew = []
        for copy, one in enumerate(state.open):
            if one is None:
                continue
            if self._plays_again(copy, one):
                self._open[copy] = one
                self._observation[copy] = one.observations[-1]
            else:
                anew.append(one.number)
                self._begin(copy, one.number)
        self._policy.restore(state.memory, *self._places())
        return anew

    def _plays_again(self, copy: int, one: EpisodeInProgress) -> bool:
        """Whether the environment, from its seed and given the same actions, shows and pays the same."""
        try:
            shown = self._copies.reset(copy, self._seed_of(one.number))
        except EnvironmentFault:
            return False
        if not np.array_equal(shown, one.observations[0]):
            return False
        for action, observation, reward in zip(one.actions, one.observations[1:], one.rewards, strict=True):
            result = self._copies.step({copy: action})[copy]
            if isinstance(result, EnvironmentFault) or result.terminated or result.truncated:
                return False
            if not np.array_equal(result.observation, observation) or result.reward != reward:
                return False
        return True

    def __iter__(self) -> Iterator[Episode]:
        while True:
            while self.due in self._whole:
                episode = self._whole.pop(self.due)
                self.due += 1
                if episode is not None:
                    yield episode
            if self.due >= self._stop:
                return
            for i in range(len(self._open)):
                while self._open[i] is None and self._upcoming < self._stop:
                    self._upcoming += 1
                    self._begin(i, self._upcoming - 1)
            self._step()

    def _begin(self, copy: int, number: int) -> None:
        try:
            self._observation[copy] = self._copies.reset(copy, self._seed_of(number))
        except EnvironmentFault as fault:
            self._drop([(copy, number, fault)])
        else:
            self._open[copy] = EpisodeInProgress(number, [self._observation[copy].copy()])

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """The episode and the step that each copy is in; an idle one stays where it was."""
        for i, one in enumerate(self._open):
            if one is not None:
                self._place[i] = one.number, len(one.actions)
        number, step = self._place.copy().T
        return number, step

    def _step(self) -> None:
        number, step = self._places()
        chosen = self._policy(self._observation, step == 0, number, step)
        results = self._copies.step({i: chosen[i] for i, one in enumerate(self._open) if one is not None})
        faults = []
        for i, result in results.items():
            one = self._open[i]
            assert one is not None
            if isinstance(result, EnvironmentFault):
                faults.append((i, one.number, result))
                continue
            self._observation[i] = result.observation
            one.observations.append(self._observation[i].copy())
            one.actions.append(chosen[i])
            one.rewards.append(result.reward)
            self._place[i, 1] += 1
            if result.terminated or result.truncated:
                self._whole[one.number] = one.close(result.terminated, result.truncated)
                self._open[i] = None
                if self._ended is not None:
                    self._ended(None)
        self._drop(faults)

    def _drop(self, faults: list[tuple[int, int, EnvironmentFault]]) -> None:
        """Drops the episodes of (copy, number, fault), all before any is told: telling may end the run."""
        for copy, number, _ in faults:
            self._open[copy], self._whole[number] = None, None
            self._stop += 1
        raised: EnvironmentFault | None = None
        for _, number, fault in faults:
            named = EnvironmentFault(f"episode {number}: {fault}")
            if self._ended is None:
                raise named from fault
            try:
                self._ended(named)
            except EnvironmentFault as error:
                raised = error
        if raised is not None:
            raise raised


def collect(
    envs: Sequence[HostEnv], policy: Policy, seed_of: Callable[[int], int], start: int, stop: int
) -> Iterator[Episode]:
    """A `Collector`'s episodes, for a collection that is not resumed and takes no faults."""
    return iter(Collector(LocalEnvs(envs), policy, seed_of, start, stop))


def pack(state: CollectorState) -> tuple[dict[str, Any], dict[str, Any]]:
    """A collection's state as plain JSON and arrays: episodes end to end, the policy's memory beside them.

    The JSON fixes the arrays' shapes; see `unpack`.
    """
    under_way = [(i, one) for i, one in enumerate(state.open) if one is not None]
    waiting = sorted(state.whole.items())
    parts = [(one.observations, one.actions, one.rewards, (0, 0)) for _, one in under_way]
    for _, episode in waiting:
        if episode is not None:
            tape, length = episode.tape, episode.length
            ended = bool(tape.terminated[length - 1]), bool(tape.truncated[length - 1])
            parts.append((list(tape.observation), list(tape.action[:length]), list(tape.reward[:length]), ended))
    plan = {
        "due": state.due,
        "upcoming": state.upcoming,
        "num_envs": len(state.open),
        "open": [[i, one.number, len(one.actions)] for i, one in under_way],
        "whole": [[number, *((one.length, one.total) if one else (None, 0.0))] for number, one in waiting],
    }
    arrays: dict[str, Any] = {"memory": state.memory}
    if parts:
        arrays["observation"] = np.stack([row for part in parts for row in part[0]])
        arrays["ended"] = np.asarray([part[3] for part in parts], bool)
        if any(part[1] for part in parts):
            arrays["action"] = np.stack([row for part in parts for row in part[1]])
            arrays["reward"] = np.asarray([row for part in parts for row in part[2]], np.float64)
    return plan, arrays


def _lengths(plan: dict[str, Any]) -> list[int]:
    """Of all episodes in the arrays, in their order."""
    return [length for *_, length in plan["open"]] + [length for _, length, _ in plan["whole"] if length is not None]


def packed_like(plan: dict[str, Any], env: HostEnv, memory: State) -> dict[str, Any]:
    """The arrays that `pack` gave with `plan`, blank; `memory` as the policy has it."""
    lengths = _lengths(plan)
    like: dict[str, Any] = {"memory": memory}
    if lengths:
        slots, steps = sum(lengths) + len(lengths), sum(lengths)
        like["observation"] = np.zeros((slots, *env.observation_shape), env.observation_dtype)
        like["ended"] = np.zeros((len(lengths), 2), bool)
        if steps:
            if isinstance(env.actions, Continuous):
                like["action"] = np.zeros((steps, env.actions.size), np.float32)
            else:
                like["action"] = np.zeros(steps, np.int32)
            like["reward"] = np.zeros(steps, np.float64)
    return like


def unpack(plan: dict[str, Any], arrays: dict[str, Any]) -> CollectorState:
    """The inverse of `pack`."""
    ends = np.cumsum([0, *_lengths(plan)])
    rows = []
    for at, (i, j) in enumerate(pairwise(ends)):
        observations = list(arrays["observation"][i + at : j + at + 1])
        actions, rewards = (list(arrays[name][i:j]) if j > i else [] for name in ("action", "reward"))
        rows.append((observations, actions, [float(reward) for reward in rewards], arrays["ended"][at]))
    copies: list[EpisodeInProgress | None] = [None] * plan["num_envs"]
    for (copy, number, _), (observations, actions, rewards, _) in zip(plan["open"], rows, strict=False):
        copies[copy] = EpisodeInProgress(number, observations, actions, rewards)
    whole: dict[int, Episode | None] = {}
    waiting = iter(rows[len(plan["open"]) :])
    for number, length, total in plan["whole"]:
        if length is None:
            whole[number] = None
            continue
        observations, actions, rewards, ended = next(waiting)
        # Rewards are float32 on a tape, and their sum is not.
        whole[number] = (
            EpisodeInProgress(number, observations, actions, rewards).close(*map(bool, ended))._replace(total=total)
        )
    return CollectorState(plan["due"], plan["upcoming"], copies, whole, arrays["memory"])
