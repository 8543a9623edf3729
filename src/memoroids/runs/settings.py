"""The settings of a run: typed groups, the agent's own settings, and checks across groups."""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from memoroids._util.imports import name_of
from memoroids._util.messages import suggest
from memoroids.agents.agent_registry import REGISTRY, resolve_agent
from memoroids.agents.base import AgentType
from memoroids.agents.dqn import DQNConfig
from memoroids.envs.names import environment_name
from memoroids.memory.registry import Factory, resolve_memory
from memoroids.replay import PriorityConfig
from memoroids.runs.setting_groups import (
    BudgetSettings,
    CheckpointSettings,
    CollectionSettings,
    EnvSettings,
    EvaluationSettings,
    ExplorationSettings,
    NetworkSettings,
    PlacementSettings,
    ReplaySettings,
    TrackerSettings,
    at_least,
)

RENAMED = {"env": {"id": "env", "options": "env_options"}}
"""Group → field → name of its option, for options that are not named like the field."""
PREFIXED = ("priority",)
"""Groups whose options begin with the group's name and a dot."""


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run.

    config = TrainConfig.of(env="CartPole-v1", algorithm="ppo", memory="ffm", num_envs=16, learning_rate=1e-3)
    config = TrainConfig.of(preset="tuned", env="RepeatFirstEasy")   # with the settings of a preset
    config.collection.num_envs                  # settings are read by group
    config = config.replace(width=64)           # and set by the names of command-line options
    config = TrainConfig.of(env=MyEnv, memory=my_memory)   # an environment, or what makes one, and what makes a memory
    """

    algorithm: str = "dqn"
    """The agent: dqn learns from replay, ppo and pqn from rollouts of their current policy; package.module:name for one
    of your own."""
    seed: int = 0
    """Seed of all random numbers in the run."""
    run_dir: Path | None = None
    """Directory to which the run is written; None: a new one under runs/."""
    env: EnvSettings = field(default_factory=EnvSettings)
    """The environment, and what is joined to its observations."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    """The memory and the network around it."""
    # For an agent that is the user's code, read from a file: a plain dictionary until that code may be imported.
    agent: Any = field(default_factory=DQNConfig)
    """The agent's own settings."""
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    """How long the run trains."""
    collection: CollectionSettings = field(default_factory=CollectionSettings)
    """How episodes are collected."""
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    """Replay and batches, for agents that learn from replay."""
    priority: PriorityConfig = field(default_factory=PriorityConfig)
    """Priorities and importance weights, used with --prioritised."""
    exploration: ExplorationSettings = field(default_factory=ExplorationSettings)
    """The share ε of random actions, for agents that explore by ε."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """Evaluation."""
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    """Checkpoints, and how many updates in a row may be skipped."""
    placement: PlacementSettings = field(default_factory=PlacementSettings)
    """Seeds and devices."""
    trackers: TrackerSettings = field(default_factory=TrackerSettings)
    """Trackers that receive metrics besides metrics.csv."""

    def __post_init__(self) -> None:
        at_least(self, seed=0)
        if self.seed + self.placement.seeds > 2**32:
            last = self.seed + self.placement.seeds - 1
            raise ValueError(f"seed must be below 2^32, the range of random keys, got {last} (seed + seeds - 1)")
        if isinstance(self.agent, dict):  # the agent's code has not been imported, see `with_typed_agent`
            return
        self._check_agent(self.agent_type())
        self._check_environment_kind()

    def _check_agent(self, kind: AgentType) -> None:
        """Raises `ValueError` for settings of another agent, and for replay where the agent learns without."""
        if not isinstance(self.agent, kind.settings):
            raise ValueError(
                f"agent holds {type(self.agent).__name__}, but the algorithm {self.algorithm} takes "
                f"{kind.settings.__name__}"
            )
        kind.check(self.agent, self.collection.num_envs)
        if not kind.traits.stochastic:
            self._require(
                {"stochastic": False},
                f"is for agents that sample from their policy, such as ppo: {self.algorithm} does not",
            )
        if kind.traits.learns_from_replay:
            return
        self._require(
            {"batching": "tape", "random_episodes": 0, "cut_batch": False, "prioritised": False, "tapes": 1},
            f"is for agents with replay: {self.algorithm} has none",
        )

    def _check_environment_kind(self) -> None:
        """Raises `ValueError` for settings that are not supported with host, or with device environments."""
        if not self.env.on_device:
            self._require(
                {"tapes": 1, "mapping": "auto", "devices": 1, "prioritised": False},
                "needs a device environment, such as --env device:RepeatPreviousEasy",
            )
            if self.agent_type().traits.learns_from_replay:
                self._require({"rollout": None}, "is for device environments, or for agents without replay")
            if self.env.vector:
                self._require({"processes": 0}, "is for single environments, which --no-vector makes")
            return
        self._require(
            {
                "processes": 0,
                "overlap": False,
                "vector": False,
                "time_limit": 60.0,
                "check_bounds": False,
                "max_episode_steps": None,
            },
            "is for host environments",
        )
        replay, placement = self.replay, self.placement
        if replay.batching != "tape":
            raise ValueError("batching segments is for host environments; use --batching tape")
        if self.evaluation.sensitivity_every:
            raise ValueError(
                "sensitivity_every is for host environments; use `memoroids sensitivity RUN` after a device run"
            )
        if not replay.prioritised:
            for name, default in dataclasses.asdict(PriorityConfig()).items():
                if (value := getattr(self.priority, name)) != default:
                    raise ValueError(f"priority.{name} {value} needs --prioritised: episodes are drawn uniformly")
        if replay.batch_size % replay.tapes:
            raise ValueError(f"tapes must divide batch_size: {replay.batch_size} transitions on {replay.tapes} tapes")
        if placement.seeds == 1 and placement.devices > 1:
            divided = ["num_envs", *(["tapes"] if self.agent_type().traits.learns_from_replay else [])]
            for name in divided:
                if self.get(name) % placement.devices:
                    raise ValueError(
                        f"devices must divide {name}: {self.get(name)} {name} on {placement.devices} devices"
                    )

    def _require(self, values: dict[str, Any], why: str) -> None:
        for name, only in values.items():
            if (value := self.get(name)) != only:
                raise ValueError(f"{name} {value} {why}")

    def agent_type(self) -> AgentType:
        """The agent type that `algorithm` names, imported if it is the user's own. Raises `ValueError`."""
        return resolve_agent(self.algorithm)

    def memory_factory(self) -> Factory:
        """The memory factory that `memory` names, imported if it is the user's own. Raises `ValueError`."""
        return resolve_memory(self.network.memory)

    @property
    def own_code(self) -> list[str]:
        """The names in these settings that make us import code which is neither ours nor a known library's."""
        named = [name for name in (self.algorithm, self.network.memory) if ":" in name]
        return [*named, *([self.env.id] if self.env.own_code else [])]

    def get(self, name: str) -> Any:
        """The value of a setting by the name of its command-line option, as in get("num_envs")."""
        group, inner = options()[name]
        return getattr(self, inner) if group is None else getattr(getattr(self, group), inner)

    @classmethod
    def of(cls, *, preset: str | None = None, **values: Any) -> "TrainConfig":
        """Defaults with these values, named as command-line options or as fields of the agent's settings.

        `preset`: tuned, paper, atari or a file of the user's own, from which settings that are not among `values` come,
        as on the command line.
        `env` may also be an environment or a callable that makes one, `memory` and `algorithm` the objects themselves;
        the settings hold their names, which for objects that cannot be imported are valid in this process only.

        Raises `ValueError` for an unknown name, and for values that are out of range or incompatible.
        """
        defaults, values = _defaults(), _named(values)
        if preset is not None:
            from memoroids.runs import presets  # which reads the names of the settings from here

            asked = {"env": EnvSettings().id, "memory": NetworkSettings().memory, "algorithm": defaults["algorithm"]}
            asked |= presets.named_by(preset)
            asked = {name: values.get(name, default) for name, default in asked.items()}
            known = asked | presets.preset(preset, **asked)
            sizes = known.get("memory_sizes", {}) | values.get("memory_sizes", {})
            values = known | values | ({"memory_sizes": sizes} if sizes else {})
        return cls(**_changed(defaults, values))

    def replace(self, **values: Any) -> "TrainConfig":
        """A copy with these values, named as for `of`, or whole groups by their names. Raises `ValueError`."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return TrainConfig(**_changed(fields, _named(values)))


def _named(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with names for an environment, a memory and an algorithm that are given as objects."""
    names = {"env": environment_name, "memory": name_of, "algorithm": name_of}
    given = {
        name: value for name, value in values.items() if name in names and not isinstance(value, str | EnvSettings)
    }
    return values | {name: names[name](value) for name, value in given.items()}


def _defaults() -> dict[str, Any]:
    """The fields of `TrainConfig` with their default values."""
    found = {}
    for each in dataclasses.fields(TrainConfig):
        made = each.default_factory
        found[each.name] = each.default if made is dataclasses.MISSING else made()
    return found


def _changed(config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The fields `config` of a `TrainConfig` with `values` put in. Raises `ValueError` for an unknown name."""
    changed, inner = dict(config), {}
    algorithm = values.get("algorithm", config["algorithm"])
    if algorithm != config["algorithm"]:
        kind = resolve_agent(algorithm)
        if "agent" not in values:
            changed["agent"] = kind.settings()
        changed["evaluation"] = dataclasses.replace(changed["evaluation"], stochastic=kind.traits.stochastic)
        before = _num_envs(resolve_agent(config["algorithm"]))
        if changed["collection"].num_envs == before:  # and not a number that somebody chose
            changed["collection"] = dataclasses.replace(changed["collection"], num_envs=_num_envs(kind))
    changed |= {name: value for name, value in values.items() if name in _groups() and dataclasses.is_dataclass(value)}
    for name, value in values.items():
        if name in _groups() and dataclasses.is_dataclass(value):
            continue
        group, field_name = options().get(name) or _agent_field(name, algorithm, changed["agent"])
        if group is None:
            changed[field_name] = value
        else:
            inner.setdefault(group, {})[field_name] = value
    return changed | {group: dataclasses.replace(changed[group], **fields) for group, fields in inner.items()}


def _num_envs(kind: AgentType) -> int:
    """The default number of environments for an agent."""
    least = CollectionSettings().num_envs
    return least if kind.traits.learns_from_replay else 2 * least


def _agent_field(name: str, algorithm: str, agent: Any) -> tuple[str, str]:
    """The group and field of an agent's setting. Raises `ValueError` if the agent has none of this name."""
    own = [each.name for each in dataclasses.fields(agent)] if dataclasses.is_dataclass(agent) else []
    if name in own:
        return "agent", name
    others = [other for other, kind in REGISTRY.items() if name in kind.setting_names]
    if others:
        raise ValueError(f"{name} is a setting of {' and '.join(others)}, but the algorithm is {algorithm}")
    raise ValueError(f"unknown setting {name!r}{suggest(name, [*options(), *own], most=0)}")


@cache
def _groups() -> frozenset[str]:
    """The fields of `TrainConfig` that are groups."""
    return frozenset(name for name, default in _defaults().items() if dataclasses.is_dataclass(default))


@cache
def options() -> dict[str, tuple[str | None, str]]:
    """The options of every run: name → group and field; the group is None for a field of `TrainConfig` itself."""
    found: dict[str, tuple[str | None, str]] = {}
    for name, default in _defaults().items():
        if not dataclasses.is_dataclass(default):
            found[name] = None, name
        elif name != "agent":  # whose fields depend on the algorithm
            prefix = f"{name}." if name in PREFIXED else ""
            for inner in dataclasses.fields(default):
                found[prefix + RENAMED.get(name, {}).get(inner.name, inner.name)] = name, inner.name
    return found


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Flattens the nested dictionary of a config to option → value; fields of priority keep the prefix "priority."."""
    found = {}
    for name, value in values.items():
        if name not in _groups() or not isinstance(value, dict):
            found[name] = value
            continue
        prefix = f"{name}." if name in PREFIXED else ""
        names = RENAMED.get(name or "", {})
        found |= {f"{prefix}{names.get(inner, inner)}": each for inner, each in value.items()}
    return found
