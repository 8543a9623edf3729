"""The settings of a run, typed; the command line and the run directory's config.json are made from them."""

import dataclasses
import importlib
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import tyro

from memoroids._util.messages import one_line, printable, suggest
from memoroids._version import __version__
from memoroids.agents.dqn import DQNConfig
from memoroids.agents.ppo import PPOConfig
from memoroids.agents.pqn import PQNConfig
from memoroids.envs import DEVICE_PREFIX
from memoroids.envs.device import LIBRARIES
from memoroids.memory import REGISTRY, Factory
from memoroids.replay import PriorityConfig
from memoroids.replay.segment_buffer import SegmentState


@dataclass(frozen=True)
class TrainConfig:
    """Train a recurrent (or, with mlp, a memoryless) agent on an environment."""

    env: str = "popgym-RepeatPreviousEasy-v0"
    """Gymnasium id, short name of a POPGym task such as RepeatFirstEasy, or module:Id-v0; with device: before the name
    a JAX environment, as device:RepeatFirstEasy, device:gymnax:CartPole-v1 or device:module:factory of your own."""
    algorithm: Literal["dqn", "ppo", "pqn"] = "dqn"
    """dqn learns from replay; ppo and pqn from the episodes that their own policy is playing."""
    memory: str = "lru"
    """A name from `memoroids list memories`, or package.module:factory for a model of your own."""
    memory_sizes: dict[str, int | float] = field(default_factory=dict)
    """Keyword arguments for the memory, as name value pairs: --memory-sizes layers 1 state_size 64."""
    env_options: dict[str, int | float | bool | str] = field(default_factory=dict)
    """Keyword arguments for the environment, as name value pairs: --env-options k 10 num_decks 2."""
    batching: Literal["tape", "segments"] = "tape"
    """How episodes become batches: tape lays whole episodes end to end, segments cuts them and pads with zeros."""
    segment_length: int = 10
    """Transitions in a segment, at most (segments only)."""
    segment_state: SegmentState = "zero"
    """Memory state that a segment starts from: zero, as stored when its episode came in, or from the segment before."""
    segment_count: Literal["slots", "transitions"] = "slots"
    """What batch_size counts: slots, padding included, or real transitions (on average; segments only)."""
    preset: Literal["tuned", "paper", "atari"] = "tuned"
    """Where unnamed settings come from: tuned (ours), paper or atari (as published)."""
    seed: int = 0
    """Seed of everything random in the run."""
    run_dir: Path | None = None
    """Directory the run is written to; a new one under runs/ where none is named."""

    width: int = 256
    """Width of the network around the memory."""
    chunk: int | None = None
    """Slots of a tape that the network runs at once; a longer one goes chunk by chunk, exactly; None: 16,384."""
    previous_action: bool | None = None
    """Join the previous action to the observation; None asks the environment."""
    previous_reward: bool = False
    """Join the previous reward to the observation."""
    step_periods: tuple[float, ...] = ()
    """Join the sine and cosine of the step at these periods, for memories that keep no order: --step-periods 4 104."""

    random_episodes: int = 5_000
    """Episodes of uniform actions stored before training."""
    train_episodes: int = 5_000
    """Episodes collected while training."""
    train_steps: int | None = None
    """Environment steps, random ones included, at which training stops instead of at train_episodes."""
    updates_per_episode: int = 1
    """Updates that follow each training episode (dqn)."""
    batch_size: int = 1_000
    """Transitions in a batch: whole episodes until they reach this; for segments see segment_count."""
    cut_batch: bool = False
    """Give no weight to transitions past batch_size, as the paper's code does; favours early steps (tape only)."""
    buffer_size: int = 1_000_000
    """Slots in the replay ring; an episode of T actions takes T + 1, a segment its length with padding."""
    epsilon_start: float = 0.2
    """Share of random actions in the first training episode."""
    epsilon_end: float = 0.01
    """Share of random actions in the last training episode, reached linearly."""
    dqn: tyro.conf.OmitArgPrefixes[DQNConfig] = field(default_factory=DQNConfig)
    """The learner."""

    ppo: PPOConfig = field(default_factory=PPOConfig)
    """The learner, with --algorithm ppo."""
    pqn: PQNConfig = field(default_factory=PQNConfig)
    """The learner, with --algorithm pqn."""
    prioritised: bool = False
    """Draw episodes by their TD errors instead of uniformly, with importance weights in the loss (device, dqn)."""
    priority: PriorityConfig = field(default_factory=PriorityConfig)
    """How priorities are made and corrected for, with --prioritised."""

    num_envs: int = 8
    """Copies of the environment stepped together."""
    processes: int = 0
    """Processes that the copies of a host environment step in, with the same results; 0: this one (host)."""
    time_limit: float = 60.0
    """Seconds that an environment may take for a reset or a step before its episode is dropped (host)."""
    check_bounds: bool = True
    """Drop episodes with observations outside of the bounds that their space declares (host)."""
    rollout: int | None = None
    """Slots that each copy collects between updates (device); None: an episode, or 64 where lengths differ."""
    tapes: int = 1
    """Tapes that a batch is laid on, each with its share of it, for several devices to divide (device, dqn)."""
    seeds: int = 1
    """Independent runs, of seed, seed + 1, and so on, through one program (device)."""
    mapping: Literal["auto", "vmap", "loop"] = "auto"
    """How several seeds run: vmap steps them together, loop one after the other; auto: loop on a CPU."""
    devices: int = 1
    """Devices that seeds, or the copies of one run, are divided over (device)."""
    eval_every: int = 10
    """Training episodes between greedy evaluations."""
    eval_episodes: int = 20
    """Episodes in each evaluation."""
    final_episodes: int = 100
    """Episodes in the evaluation at the end, on seeds used for nothing else."""
    sensitivity_every: int = 0
    """Training episodes between looks, at evaluations, at how far back values depend on observations; 0: never."""
    max_faults: int = 10
    """Episodes in a row that may be dropped because their environment misbehaved; one more ends the run."""
    max_skipped: int = 20
    """Updates in a row that may be skipped because loss or gradient was not finite; one more ends the run."""
    checkpoint_every: int = 500
    """Training episodes between checkpoints; there is always one at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; each holds the parameters of the best evaluation too."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the extra: pip install 'memoroids[tensorboard]')."""
    wandb: bool = False
    """Also log to Weights & Biases (needs the extra: pip install 'memoroids[wandb]')."""

    def __post_init__(self) -> None:
        positive = (
            "width",
            "batch_size",
            "train_episodes",
            "num_envs",
            "eval_every",
            "eval_episodes",
            "checkpoint_every",
            "keep_checkpoints",
            "segment_length",
            "tapes",
            "seeds",
            "devices",
        )
        for name, low in [(name, 1) for name in positive] + [
            ("random_episodes", 0),
            ("updates_per_episode", 0),
            ("final_episodes", 1),
            ("buffer_size", 2),
            ("seed", 0),
            ("sensitivity_every", 0),
            ("max_faults", 0),
            ("max_skipped", 0),
            ("processes", 0),
            *([("train_steps", 1)] if self.train_steps is not None else []),
            *([("rollout", 1)] if self.rollout is not None else []),
            *([("chunk", 1)] if self.chunk is not None else []),
        ]:
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not 0 < self.time_limit <= 1e6:
            raise ValueError(f"time_limit must be positive and at most 1,000,000 seconds, got {self.time_limit}")
        self._check_algorithm()
        self._check_device()
        if self.seed + self.seeds > 2**32:
            last = self.seed + self.seeds - 1
            raise ValueError(f"seed must be below 2^32, what a random key holds, got {last} (seed + seeds - 1)")
        for period in self.step_periods:
            if not 0 < period < math.inf:
                raise ValueError(f"step_periods must be positive and finite, got {period}")
        for name in ("epsilon_start", "epsilon_end"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")

    def _check_algorithm(self) -> None:
        """Refuses settings that the algorithm would not read."""
        for name, default in (("dqn", DQNConfig()), ("ppo", PPOConfig()), ("pqn", PQNConfig())):
            mine = getattr(self, name)
            if name != self.algorithm and mine != default:
                field_ = next(
                    f.name for f in dataclasses.fields(mine) if getattr(mine, f.name) != getattr(default, f.name)
                )
                raise ValueError(f"{field_} is set for {name}, but the algorithm is {self.algorithm}")
        if self.algorithm == "dqn":
            return
        minibatches = (self.ppo if self.algorithm == "ppo" else self.pqn).minibatches
        if self.num_envs % minibatches:
            raise ValueError(f"minibatches must divide copies: {self.num_envs} tapes in {minibatches} minibatches")
        for name, only in (
            ("batching", "tape"),
            ("random_episodes", 0),
            ("cut_batch", False),
            ("prioritised", False),
            ("tapes", 1),
        ):
            if getattr(self, name) != only:
                raise ValueError(f"{name} {getattr(self, name)} is for dqn: {self.algorithm} learns without replay")

    def _check_device(self) -> None:
        """Refuses what host environments, or device environments, cannot serve."""
        if not self.on_device:
            for name, only in (
                ("rollout", None),
                ("tapes", 1),
                ("seeds", 1),
                ("mapping", "auto"),
                ("devices", 1),
                ("prioritised", False),
            ):
                if getattr(self, name) != only:
                    raise ValueError(
                        f"{name} {getattr(self, name)} needs a device environment, as --env device:RepeatPreviousEasy"
                    )
            return
        for name, only in (("processes", 0), ("time_limit", 60.0), ("check_bounds", True)):
            if getattr(self, name) != only:
                raise ValueError(f"{name} {getattr(self, name)} is for host environments")
        if self.batching != "tape":
            raise ValueError("batching segments is for host environments; device environments fill tapes")
        if self.sensitivity_every:
            raise ValueError(
                "sensitivity_every is for host environments; `memoroids sensitivity RUN` measures a device run"
            )
        if not self.prioritised and self.priority != PriorityConfig():
            raise ValueError("priority is set, but episodes are drawn uniformly: add --prioritised")
        if self.batch_size % self.tapes:
            raise ValueError(f"tapes must divide batch_size: {self.batch_size} transitions on {self.tapes} tapes")
        if self.seeds > 1 and self.seeds % self.devices:
            raise ValueError(f"devices must divide seeds: {self.seeds} seeds on {self.devices} devices")
        if self.seeds == 1 and self.devices > 1:
            for name in ("num_envs", "tapes"):
                if getattr(self, name) % self.devices and (name == "num_envs" or self.algorithm == "dqn"):
                    raise ValueError(
                        f"devices must divide {name}: {getattr(self, name)} {name} on {self.devices} devices"
                    )

    @property
    def on_device(self) -> bool:
        """Whether the environment is a JAX one, compiled with the learner."""
        return self.env.startswith(DEVICE_PREFIX)

    @property
    def device_env(self) -> str:
        """The name of a device environment, without the prefix that says so."""
        return self.env.removeprefix(DEVICE_PREFIX)

    @property
    def own_code(self) -> list[str]:
        """The names in it that have code imported which is neither ours nor a library's that we know."""
        found = [self.memory] if ":" in self.memory else []
        known = self.on_device and self.device_env.partition(":")[0] in LIBRARIES
        if ":" in self.device_env and not known:
            found.append(self.env)
        return found

    @property
    def rollout_updates(self) -> int:
        """Gradient steps that follow each rollout; 1 with replay, where updates are counted one by one."""
        if self.algorithm == "dqn":
            return 1
        learner = self.ppo if self.algorithm == "ppo" else self.pqn
        return learner.steps

    def share_done(self, episode: int, env_steps: int) -> float:
        """The share of training that is done after so many training episodes and environment steps, at most 1."""
        done, total = (episode, self.train_episodes) if self.train_steps is None else (env_steps, self.train_steps)
        return min(done / total, 1.0)

    def epsilon_at(self, share: Any) -> Any:
        """ε after a share of training, a number or an array of them."""
        return self.epsilon_start + share * (self.epsilon_end - self.epsilon_start)

    def memory_factory(self) -> Factory:
        """The factory that `memory` names. Raises `ValueError` where there is none."""
        return resolve_memory(self.memory)

    def to_json(self) -> str:
        """The settings, and the version that wrote them, as indented JSON."""
        return json.dumps({"version": __version__} | dataclasses.asdict(self), indent=2, default=str)

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The settings in `text`.

        Raises `ValueError` naming a field that is missing, unknown or of a wrong type, and the version that wrote it
        where that is another.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"a config is a JSON object, got {type(values).__name__}")
        version = printable(values.pop("version", "an earlier version"))
        try:
            return _from_dict(cls, values, "")
        except ValueError as error:
            if version == __version__:
                raise
            raise ValueError(f"written by memoroids {version}, this is {__version__}: {error}") from error


def _from_dict(cls: type, values: dict[str, Any], prefix: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"unknown field {prefix}{printable(unknown[0])}{suggest(unknown[0], fields)}")
    if missing := sorted(set(fields) - set(values)):
        raise ValueError(f"missing field {prefix}{missing[0]}")
    out = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            if not isinstance(value, dict):
                raise ValueError(f"field {prefix}{name} must be an object, got {value!r}")
            value = _from_dict(hint, value, f"{prefix}{name}.")
        elif not _fits(value, hint):
            raise ValueError(f"field {prefix}{name} must be {hint}, got {value!r}")
        elif typing.get_origin(hint) is tuple:
            value = tuple(value)
        elif value is not None and Path in (hint, *typing.get_args(hint)):
            value = Path(value)
        out[name] = value
    return cls(**out)


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if hint is Path:
        return isinstance(value, str)
    if hint is float:
        # JSON as Python reads it has NaN and Infinity. A whole number may be too large to be asked.
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        return finite and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def resolve_memory(name: str) -> Factory:
    """A memory factory by registry name or as package.module:factory. Raises `ValueError` in one line."""
    if ":" not in name:
        if name in REGISTRY:
            return REGISTRY[name]
        raise ValueError(f"unknown memory {name!r}{suggest(name, REGISTRY)}")
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"memory {name!r}: cannot import {module_name}: {one_line(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ValueError(f"memory {name!r}: {module_name} has no callable {attribute!r}")
    return cast(Factory, factory)
