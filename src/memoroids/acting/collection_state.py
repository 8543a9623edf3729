"""The state of a host collection between two episodes, and how it is packed into JSON and arrays for a checkpoint."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from memoroids import tape as tapes
from memoroids.envs import HostEnv
from memoroids.envs.spaces import blank_actions
from memoroids.memory.memoroid import State


class Episode(NamedTuple):
    """A finished episode: its number, its tape of T + 1 slots (NumPy), its undiscounted return and its length T."""

    number: int
    tape: tapes.Tape
    total: float
    length: int


@dataclass
class EpisodeInProgress:
    """An episode that is being collected: t actions and rewards, and t + 1 observations."""

    number: int
    observations: list[np.ndarray]
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    over: bool = False
    """Whether it has ended, and its final observation still has to be written (rollouts of fixed slots only)."""

    def add(self, action: Any, reward: float, observation: np.ndarray) -> None:
        """Adds a step: the action, its reward and the observation after it."""
        self.actions.append(action)
        self.rewards.append(reward)
        self.observations.append(observation)

    def copy(self) -> "EpisodeInProgress":
        """A copy that later steps do not change."""
        return EpisodeInProgress(
            self.number, list(self.observations), list(self.actions), list(self.rewards), self.over
        )

    def close(self, terminated: bool, truncated: bool) -> Episode:
        """The finished episode, whose last step returned these flags."""
        tape = tapes.episode(np.stack(self.observations), np.stack(self.actions), self.rewards, terminated, truncated)
        return Episode(self.number, tape, float(np.sum(self.rewards)), len(self.rewards))


class CollectorState(NamedTuple):
    """What a `Collector` resumes from exactly, together with the learner's state; taken between two episodes.

    `due`: the number of the next episode to yield. `upcoming`: the number of the next episode to start. `in_progress`:
    the episode of each environment, None if it is idle. `finished`: by number, episodes that wait for an earlier one;
    None stands for a dropped one. `memory`: the policy's memory, see `Policy.memory`.
    """

    due: int
    upcoming: int
    in_progress: list[EpisodeInProgress | None]
    finished: dict[int, Episode | None]
    memory: State


def pack(state: CollectorState) -> tuple[dict[str, Any], dict[str, Any]]:
    """A collection's state as plain JSON and arrays.

    The arrays hold all episodes end to end, those in progress first, and the policy's memory. The JSON holds the rest,
    the lengths of the episodes among it, which fix the shapes of the arrays: see `packed_like`.
    """
    in_progress = [(i, episode) for i, episode in enumerate(state.in_progress) if episode is not None]
    finished = sorted(state.finished.items())
    parts = [(episode.observations, episode.actions, episode.rewards, (0, 0)) for _, episode in in_progress]
    for _, episode in finished:
        if episode is not None:
            tape, length = episode.tape, episode.length
            ended = bool(tape.terminated[length - 1]), bool(tape.truncated[length - 1])
            parts.append((list(tape.observation), list(tape.action[:length]), list(tape.reward[:length]), ended))
    plan = {
        "due": state.due,
        "upcoming": state.upcoming,
        "num_envs": len(state.in_progress),
        "open": [[i, episode.number, episode.over, len(episode.actions)] for i, episode in in_progress],
        "whole": [
            [number, *((episode.length, episode.total) if episode else (None, 0.0))] for number, episode in finished
        ],
    }
    arrays: dict[str, Any] = {"memory": state.memory}
    if parts:
        arrays["observation"] = np.stack([row for part in parts for row in part[0]])
        arrays["ended"] = np.asarray([part[3] for part in parts], bool)
        if any(part[1] for part in parts):
            arrays["action"] = np.stack([row for part in parts for row in part[1]])
            arrays["reward"] = np.asarray([row for part in parts for row in part[2]], np.float64)
    return plan, arrays


def packed_like(plan: dict[str, Any], env: HostEnv, memory: State) -> dict[str, Any]:
    """Arrays of zeros with the shapes and dtypes of those that `pack` returned with `plan`; `memory` as it is."""
    lengths = _lengths(plan)
    like: dict[str, Any] = {"memory": memory}
    if lengths:
        slots, steps = sum(lengths) + len(lengths), sum(lengths)
        like["observation"] = np.zeros((slots, *env.observation_shape), env.observation_dtype)
        like["ended"] = np.zeros((len(lengths), 2), bool)
        if steps:
            like["action"] = blank_actions(env.actions, steps)
            like["reward"] = np.zeros(steps, np.float64)
    return like


def unpack(plan: dict[str, Any], arrays: dict[str, Any]) -> CollectorState:
    """The inverse of `pack`."""
    ends = np.cumsum([0, *_lengths(plan)])
    rows = []
    for at, (i, j) in enumerate(pairwise(ends)):
        observations = list(arrays["observation"][i + at : j + at + 1])  # one more than actions in each episode
        actions, rewards = (list(arrays[name][i:j]) if j > i else [] for name in ("action", "reward"))
        rows.append((observations, actions, [float(reward) for reward in rewards], arrays["ended"][at]))
    in_progress: list[EpisodeInProgress | None] = [None] * plan["num_envs"]
    for (index, number, over, _), (observations, actions, rewards, _) in zip(plan["open"], rows, strict=False):
        in_progress[index] = EpisodeInProgress(number, observations, actions, rewards, over)
    finished: dict[int, Episode | None] = {}
    finished_rows = iter(rows[len(plan["open"]) :])
    for number, length, total in plan["whole"]:
        if length is None:
            finished[number] = None
            continue
        observations, actions, rewards, ended = next(finished_rows)
        episode = EpisodeInProgress(number, observations, actions, rewards).close(*map(bool, ended))
        # The tape's rewards are rounded to float32, the stored total is not.
        finished[number] = episode._replace(total=total)
    return CollectorState(plan["due"], plan["upcoming"], in_progress, finished, arrays["memory"])


def _lengths(plan: dict[str, Any]) -> list[int]:
    """The lengths T of all episodes in the arrays, in their order."""
    return [length for *_, length in plan["open"]] + [length for _, length, _ in plan["whole"] if length is not None]
