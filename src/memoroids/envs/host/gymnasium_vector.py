"""Gymnasium's vector environments, which step many environments in one call, for the collectors of single ones."""

import contextlib
from collections.abc import Mapping
from enum import Enum
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from memoroids._util.messages import one_line
from memoroids.envs.faults import EnvironmentFault
from memoroids.envs.host.env import HostEnv, making
from memoroids.envs.host.vector import Stepped, alarm
from memoroids.envs.names import is_atari, own_factory, resolve_id
from memoroids.envs.spaces import blank_actions

# As `HostEnv` makes single games: one frame at a time, and the game's own scores.
_ATARI = {"stack_num": 1, "reward_clipping": False, "use_fire_reset": False}


class _Phase(Enum):
    """Where one environment stands between two steps."""

    WAITING = 1  # its first observation is there, and no action was taken
    PLAYING = 2
    ENDED = 3  # the next step resets it
    ADRIFT = 4  # nobody collects its episode, which goes on until it ends


class _Member(gym.Env):
    """Stands for one environment of a vector environment where spaces and the specification are asked for."""

    def __init__(self, envs: VectorEnv):
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
        self.spec = envs.spec


class VectorEnvs:
    """The environments of a `gymnasium.vector.VectorEnv` of Gymnasium's mode NEXT_STEP, as `HostEnvs`.

    `name` is an id that has a vectorised form of its own, such as CartPole-v1 or ALE/Pong-v5, or
    "package.module:factory" of a function that is called with `num_envs` and the `options`. `seen`: how observations
    are seen, keyword arguments of `HostEnv`.

    One call steps all environments, so those without an action get a fixed one, and one whose episode has ended is
    reset by the step that follows. Only the first reset after `abandon` is seeded; the environments seed their further
    episodes themselves. So episodes cannot be replayed. If the call raises, or takes longer than `time_limit` seconds,
    all episodes are lost to that one fault, and all environments are reset.

    Raises `ValueError` if it cannot be made, has another mode, or another number of environments.
    """

    replayable = False

    def __init__(self, name: str, options: dict[str, Any], num_envs: int, *, time_limit: float | None, **seen: Any):
        self._id, self._limit = resolve_id(name), time_limit
        with making("vector environment", self._id, options):
            self._envs = _make(self._id, options, num_envs)
        self._members = [HostEnv(name, made=_Member(self._envs), **seen) for _ in range(num_envs)]
        idle = blank_actions(self.example.actions, num_envs)
        self._idle = [member.native(action)[0] for member, action in zip(self._members, idle, strict=True)]
        self._phase = [_Phase.ADRIFT] * num_envs
        self._first: dict[int, np.ndarray | EnvironmentFault] = {}
        self._started = False

    @property
    def example(self) -> HostEnv:
        """The first environment, for shapes and spaces only."""
        return self._members[0]

    def __len__(self) -> int:
        return len(self._members)

    def abandon(self) -> None:
        """See `HostEnvs.abandon`."""
        self._started = False

    def ready(self, index: int) -> bool:
        """See `HostEnvs.ready`."""
        return not self._started or self._phase[index] is _Phase.WAITING

    def reset(self, index: int, seed: int) -> np.ndarray:
        """See `HostEnvs.reset`; `seed` counts for the first of these calls after `abandon`, which resets all."""
        if not self._started:
            self._reset_all(seed)
        assert self._phase[index] is _Phase.WAITING, "reset of an environment that is not ready"
        first = self._first[index]
        if isinstance(first, EnvironmentFault):
            self._phase[index] = _Phase.ADRIFT
            raise first
        self._phase[index] = _Phase.PLAYING
        return first

    def step(self, actions: Mapping[int, Any]) -> dict[int, Stepped | EnvironmentFault]:
        """See `HostEnvs.step`; without actions too, all environments take a step."""
        if not self._started:
            return {}
        native, encoded = list(self._idle), {}
        for index, action in actions.items():
            native[index], encoded[index] = self._members[index].native(action)
        space = self._envs.single_action_space
        batch = concatenate(space, native, create_empty_array(space, len(self)))
        try:
            with alarm(self._limit) as timed:
                observations, *rest, _ = timed(self._id, lambda: self._envs.step(batch))
            outcomes = zip(self._each(observations), *(list(each) for each in rest), strict=True)
            return self._taken(encoded, list(outcomes))
        except EnvironmentFault as fault:
            return self._lost(actions, fault)
        except (Exception, SystemExit) as error:
            return self._lost(actions, EnvironmentFault(f"{self._id} raised at a step: {one_line(error)}"))

    def _taken(self, encoded: dict[int, np.ndarray], outcomes: list[Any]) -> dict[int, Stepped | EnvironmentFault]:
        """The results of the environments that took an action, and where each stands after the step."""
        results: dict[int, Stepped | EnvironmentFault] = {}
        for index, outcome in enumerate(outcomes):
            if self._phase[index] is _Phase.ENDED:
                self._begin(index, outcome[0])
                continue
            ended = bool(outcome[2]) or bool(outcome[3])
            self._phase[index] = _Phase.ENDED if ended else _Phase.ADRIFT
            if index not in encoded:
                continue
            try:
                results[index] = Stepped(*self._members[index].took(encoded[index], *outcome))
            except EnvironmentFault as fault:
                results[index] = fault
            else:
                self._phase[index] = _Phase.ENDED if ended else _Phase.PLAYING
        return results

    def _lost(self, actions: Mapping[int, Any], fault: EnvironmentFault) -> dict[int, Stepped | EnvironmentFault]:
        """One fault for all; the next reset begins anew."""
        self._started = False
        return dict.fromkeys(actions, fault)

    def _reset_all(self, seed: int) -> None:
        try:
            with alarm(self._limit) as timed:
                observations, _ = timed(self._id, lambda: self._envs.reset(seed=seed))
            rows = self._each(observations)
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(f"{self._id} raised at reset (seed {seed}): {one_line(error)}") from error
        self._started = True
        for index, row in enumerate(rows):
            self._begin(index, row)

    def _begin(self, index: int, observation: Any) -> None:
        """Keeps the first observation of an episode until the episode is begun."""
        self._phase[index] = _Phase.WAITING
        try:
            self._first[index] = self._members[index].began(observation)
        except EnvironmentFault as fault:
            self._first[index] = fault

    def _each(self, observations: Any) -> list[Any]:
        """The observation of each environment. Raises `ValueError` if there are not as many as environments."""
        rows = list(iterate(self._envs.observation_space, observations))
        if len(rows) != len(self):
            raise ValueError(f"it returned {len(rows)} observations for {len(self)} environments")
        return rows

    def close(self) -> None:
        """See `HostEnvs.close`."""
        with alarm(self._limit) as timed, contextlib.suppress(Exception, SystemExit):
            timed(self._id, self._envs.close)


def _make(id_: str, options: dict[str, Any], num_envs: int) -> VectorEnv:
    """The vector environment. Raises `ValueError` if it is not one that `VectorEnvs` can step."""
    factory = own_factory(id_)
    if factory is not None:
        envs = factory(num_envs=num_envs, **options)
        if not isinstance(envs, VectorEnv):
            raise ValueError(f"it is of type {type(envs).__name__}, not gymnasium.vector.VectorEnv (--no-vector)")
    else:
        if gym.spec(id_).vector_entry_point is None:
            raise ValueError("it has no vectorised form of its own; --no-vector steps single environments together")
        defaults = _ATARI if is_atari(id_) else {}
        envs = gym.make_vec(id_, num_envs, vectorization_mode="vector_entry_point", **defaults | options)
    if envs.num_envs != num_envs:
        raise ValueError(f"it has {envs.num_envs} environments instead of {num_envs}: make it with num_envs")
    mode = envs.metadata.get("autoreset_mode")
    if mode is not AutoresetMode.NEXT_STEP:
        raise ValueError(f"its metadata name the autoreset mode {mode}: make it with AutoresetMode.NEXT_STEP")
    return envs
