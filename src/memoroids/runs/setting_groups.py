"""Groups of settings with their checks; every field is a command-line option and its docstring the help text."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from memoroids._util.literals import as_json
from memoroids.envs import DEVICE_PREFIX
from memoroids.envs.device import LIBRARIES
from memoroids.envs.host import development
from memoroids.envs.observations import Treatment
from memoroids.replay.segment_buffer import SegmentState

OWN = frozenset(f"{development.__name__}:{factory}" for factory in development.FACTORIES)
"""The factories of ours that runs may name without --trust: a name of ours alone is no reason to call anything else."""


def at_least(group: Any, **lows: int) -> None:
    """Raises `ValueError` for the first named field that is below its bound; None is not checked."""
    for name, low in lows.items():
        value = getattr(group, name)
        if value is not None and value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")


def _keep_as_json(group: Any, name: str, option: str) -> None:
    """Gives a dictionary of a group the values that a settings file holds, so that a resumed run has the same."""
    values = {each: as_json(value, f"{option} {each}") for each, value in getattr(group, name).items()}
    object.__setattr__(group, name, values)


@dataclass(frozen=True)
class EnvSettings:
    """The environment, and what is joined to its observations."""

    id: str = "popgym-RepeatPreviousEasy-v0"
    """Gymnasium id, short name of a POPGym task such as RepeatFirstEasy, module:Id-v0, or module:factory for one of
    your own. The prefix device: selects a JAX environment: device:RepeatFirstEasy, device:gymnax:CartPole-v1, or
    device:module:factory for one of your own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment as pairs of a name and a JSON or Python literal: --env-options k 10
    is_slippery false sizes '[3, 4]'. What is no literal is text."""
    vector: bool = False
    """Step a gymnasium.vector.VectorEnv: the vectorised form that the id has of its own, as CartPole-v1 and ALE/Pong-v5
    have, or what module:factory makes, which is called with num_envs (host)."""
    max_episode_steps: int | None = None
    """Steps after which an episode is truncated; None: the environment's own limit (host)."""
    previous_action: bool | None = None
    """Join the previous action, one-hot, to the observation; None: if the environment asks for it, and with ppo if
    actions are discrete, but not to images."""
    previous_reward: bool = False
    """Join the previous reward to the observation."""
    step_periods: tuple[float, ...] = ()
    """Join sine and cosine of the time step at these periods (in steps), for memories without order: --step-periods 4
    104."""
    observation: Treatment = "auto"
    """How uint8 arrays of two or three axes are treated: auto, as images if they range from 0 to 255 and have at least
    36 x 36 pixels, as grids of symbols, one-hot, if they have 3 to 16 values, or 256 and no side above 15, otherwise as
    numbers; image, symbols, vector: all as images, symbols or numbers."""
    time_limit: float = 60.0
    """Seconds that a reset or a step may take before the episode is dropped (host)."""
    check_bounds: bool = False
    """Drop episodes with observations outside the bounds of the observation space (host). `memoroids doctor` reports
    such observations all the same."""

    def __post_init__(self) -> None:
        at_least(self, max_episode_steps=1)
        if self.vector and self.max_episode_steps is not None:
            raise ValueError("max_episode_steps is for single environments; give a vector one its own --env-options")
        if not 0 < self.time_limit <= 1e6:
            raise ValueError(f"time_limit must be positive and at most 1,000,000 seconds, got {self.time_limit}")
        for period in self.step_periods:
            if not 0 < period < math.inf:
                raise ValueError(f"step_periods must be positive and finite, got {period}")
        _keep_as_json(self, "options", "--env-options")

    @property
    def on_device(self) -> bool:
        """Whether it is a JAX environment, compiled into one program with the agent."""
        return self.id.startswith(DEVICE_PREFIX)

    @property
    def device_name(self) -> str:
        """The name of a device environment without the prefix device:."""
        return self.id.removeprefix(DEVICE_PREFIX)

    @property
    def own_code(self) -> bool:
        """Whether the name makes us import code that is neither this package's nor a known library's."""
        known = self.on_device and self.device_name.partition(":")[0] in LIBRARIES
        return ":" in self.device_name and not known and self.id not in OWN


@dataclass(frozen=True)
class NetworkSettings:
    """The memory and the network around it."""

    memory: str = "lru"
    """A name from `memoroids list memories`, or package.module:factory for a memory of your own."""
    memory_sizes: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the memory, written as those of the environment: --memory-sizes layers 1 state_size 64."""
    check_memory: bool = True
    """Check the laws of a memory of your own before training, as memoroids.check_memory does."""
    normalise: bool = True
    """Bring observations to unit scale: by their bounds if these are at most 20 apart, otherwise by running means and
    deviations. Images and discrete parts are left as they are."""
    width: int = 64
    """Width of the layers around the memory, and the memory's input and output size."""
    parameters: int | None = None
    """Trainable parameters of the whole network: the width, and where it does not come close enough one size of the
    memory that is not among --memory-sizes, are chosen to come within 1% of it, and are what config.json says."""
    chunk: int | None = None
    """Slots of a tape that the network processes at once; longer tapes are processed chunk by chunk, with the same
    result; None: 16,384."""

    def __post_init__(self) -> None:
        at_least(self, width=1, parameters=1, chunk=1)
        _keep_as_json(self, "memory_sizes", "memory_sizes")


DEFAULT_STEPS = 200_000
"""The budget of a run that is given none, in environment steps."""


@dataclass(frozen=True)
class BudgetSettings:
    """How long a run trains."""

    steps: int | None = None
    """Environment steps, those of random episodes included, after which training stops; None: after train_episodes, or
    after 200,000 steps if that is None as well."""
    train_episodes: int | None = None
    """Training episodes after which training stops, where no steps are given."""
    random_episodes: int = 0
    """Episodes of uniform random actions that are stored before training, for agents with replay."""

    def __post_init__(self) -> None:
        at_least(self, train_episodes=1, random_episodes=0, steps=1)
        for name in ("train_episodes", "random_episodes", "steps"):
            if (getattr(self, name) or 0) > 2_000_000_000:  # compiled programs count in int32
                raise ValueError(f"{name} must be at most 2,000,000,000, got {getattr(self, name)}")

    @property
    def last_step(self) -> int | None:
        """The environment steps after which training stops; None if the budget is in episodes."""
        return self.steps or (DEFAULT_STEPS if self.train_episodes is None else None)

    @property
    def total(self) -> int:
        """The size of the budget, in environment steps or in training episodes."""
        total = self.last_step or self.train_episodes
        assert total is not None
        return total

    def share_done(self, episode: int, env_steps: int) -> float:
        """The share of the budget, at most 1, used by this number of training episodes and of environment steps."""
        return min((episode if self.last_step is None else env_steps) / self.total, 1.0)


@dataclass(frozen=True)
class CollectionSettings:
    """How episodes are collected."""

    num_envs: int = 8
    """Environments that are stepped together; 16 by default for agents without replay, which learn from all of them at
    once, while a replay waits for the episodes in progress."""
    processes: int = 0
    """Processes in which the environments are stepped, without effect on the results; 0: this process (host)."""
    rollout: int | None = None
    """Slots that each environment collects between updates; None: 128, and on the device one episode, or at most 64
    slots if episodes differ in length. For agents with replay on the device only."""
    overlap: bool = False
    """Collect while an update runs, with the parameters of before it: one update older than otherwise (host)."""
    max_faults: int = 10
    """Episodes in a row that may be dropped because of a fault of their environment; one more ends the run."""

    def __post_init__(self) -> None:
        at_least(self, num_envs=1, processes=0, rollout=1, max_faults=0)


@dataclass(frozen=True)
class ReplaySettings:
    """The replay buffer and its batches, for agents that learn from replay."""

    batching: Literal["tape", "segments"] = "tape"
    """How batches are formed: tape, of whole episodes end to end; segments, of episodes cut into segments padded with
    zeros (host)."""
    segment_length: int = 10
    """Largest number of transitions in a segment (segments only)."""
    segment_state: SegmentState = "zero"
    """Memory state at the start of a segment: zero; stored: computed when its episode was stored; burn-in: from a pass
    over the segment before (segments only)."""
    segment_count: Literal["slots", "transitions"] = "slots"
    """What batch_size counts: slots including padding, or transitions on average (segments only)."""
    batch_size: int = 1_000
    """Transitions in a batch, which is filled with whole episodes until it has as many; for segments see
    segment_count."""
    cut_batch: bool = False
    """Give weight 0 to transitions past batch_size, as the paper's code does; favours early steps (tape only)."""
    buffer_size: int = 1_000_000
    """Slots in the replay buffer; an episode of T actions takes T + 1, a segment its padded length."""
    steps_per_update: int = 16
    """Steps of training episodes for each update."""
    updates_per_episode: int | None = None
    """Updates after each training episode, however long it is; None: as many as steps_per_update says."""
    tapes: int = 1
    """Tapes over which a batch is divided equally, so that several devices can share it (device)."""
    prioritised: bool = False
    """Draw episodes by their TD errors instead of uniformly, with importance weights in the loss (device)."""

    def __post_init__(self) -> None:
        at_least(self, batch_size=1, segment_length=1, tapes=1, buffer_size=2)
        at_least(self, updates_per_episode=0, steps_per_update=1)


@dataclass(frozen=True)
class ExplorationSettings:
    """The share ε of random actions over training, for agents that explore by ε."""

    epsilon_start: float = 1.0
    """Share of random actions in the first training episode."""
    epsilon_end: float = 0.05
    """Share of random actions in the last training episode, reached linearly."""
    epsilon_decay: float = 0.3
    """Share of training after which epsilon_end is reached."""

    def __post_init__(self) -> None:
        for name in ("epsilon_start", "epsilon_end"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0.0 < self.epsilon_decay <= 1.0:
            raise ValueError(f"epsilon_decay must be above 0 and at most 1, got {self.epsilon_decay}")

    def epsilon_at(self, share: Any) -> Any:
        """ε after this share of training, an array."""
        share = (share / self.epsilon_decay).clip(0.0, 1.0)
        return self.epsilon_start + share * (self.epsilon_end - self.epsilon_start)


@dataclass(frozen=True)
class EvaluationSettings:
    """Evaluation, during training and at its end."""

    eval_every: int | None = None
    """Training episodes between evaluations; None: an evaluation after every twentieth of the budget."""
    eval_episodes: int = 10
    """Episodes in each evaluation; for agents that sample from their policy as many greedy and as many sampled ones."""
    final_episodes: int = 100
    """Episodes in the evaluation at the end, on seeds that are used for nothing else."""
    stochastic: bool = False
    """Which evaluation counts, for curves and the best parameters: of actions sampled from the policy (default for
    agents that explore by sampling, such as ppo), or with --no-stochastic of the best actions (default for all
    others, which have no other)."""
    target_return: float | None = None
    """Mean return from which the environment counts as solved, to report when it was reached; None: the environment's
    own reward threshold, if it has one."""
    sensitivity_every: int = 0
    """Training episodes between measurements of how far back in time values depend on observations; 0: never (host)."""

    def __post_init__(self) -> None:
        at_least(self, eval_every=1, eval_episodes=1, final_episodes=1, sensitivity_every=0)
        if self.target_return is not None and not math.isfinite(self.target_return):
            raise ValueError(f"target_return must be finite, got {self.target_return}")

    @property
    def way(self) -> str:
        """How the agent acts in the evaluation that counts: greedy or sampled."""
        return "sampled" if self.stochastic else "greedy"


@dataclass(frozen=True)
class CheckpointSettings:
    """Checkpoints, and how many updates in a row may be skipped."""

    checkpoint_every: int | None = None
    """Training episodes between checkpoints; None: a checkpoint after every fifth of the budget. One is always written
    at the end."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept; each includes the parameters of the best evaluation."""
    max_skipped: int = 20
    """Gradient steps in a row that may be skipped because of a non-finite loss or gradient; one more ends the run."""

    def __post_init__(self) -> None:
        at_least(self, checkpoint_every=1, keep_checkpoints=1, max_skipped=0)


@dataclass(frozen=True)
class PlacementSettings:
    """Seeds of a run, and devices of one with a device environment."""

    seeds: int = 1
    """Number of independent runs, with seed, seed + 1, and so on: one after the other, or in one program (device)."""
    mapping: Literal["auto", "vmap", "loop"] = "auto"
    """How several seeds run: vmap advances all in one call, loop one after the other; auto: loop on a CPU, else vmap
    (device)."""
    devices: int = 1
    """Devices among which the seeds, or the environments of a single seed, are divided (device)."""

    def __post_init__(self) -> None:
        at_least(self, seeds=1, devices=1)
        if self.seeds > 1 and self.seeds % self.devices:
            raise ValueError(f"devices must divide seeds: {self.seeds} seeds on {self.devices} devices")


@dataclass(frozen=True)
class TrackerSettings:
    """Trackers that receive metrics besides metrics.csv."""

    tensorboard: bool = False
    """Also write TensorBoard events (needs the extra: pip install 'memoroids[tensorboard]')."""
    wandb: bool = False
    """Also log to Weights & Biases (needs the extra: pip install 'memoroids[wandb]')."""
    trackio: bool = False
    """Also log to Trackio, on this machine (needs the extra: pip install 'memoroids[trackio]')."""

    @property
    def wanted(self) -> list[str]:
        """The names of those that are asked for."""
        return [each.name for each in fields(self) if getattr(self, each.name)]
