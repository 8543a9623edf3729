"""What random actions bring in an environment: the baseline of a run, in its baseline.json."""

import contextlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from memoroids._util.files import atomic_write_text
from memoroids.acting.random_play import Observed, RandomPlay, device_player, play_on_host
from memoroids.envs import HostEnv
from memoroids.envs.device import DeviceView
from memoroids.envs.observations import Mixed
from memoroids.envs.spaces import Actions, Continuous, Factored
from memoroids.runs.build import DeviceParts, HostParts
from memoroids.runs.run_directory import BASELINE
from memoroids.runs.seeds import RANDOM_PLAY, environment_seeds
from memoroids.runs.settings import TrainConfig
from memoroids.runs.stopwatch import Stopwatch, TimedEnvs

HOST_STEPS, DEVICE_STEPS = 10_000, 100_000
"""Steps of all random episodes together, at most: some seconds in most environments."""
LEAST_STEPS, SHARE = 1_000, 50
"""In a shorter training, at most a fiftieth of its steps on the host, but never less than so many."""
LISTED = 1_000
"""Elements of an observation that have statistics of their own; of larger ones, all are taken together."""


@dataclass(frozen=True)
class Seen:
    """Statistics of the environment's own observations, without what is joined to them.

    `elements`: how many numbers an observation has, of which the first `pixels` are those of images. `changing`,
    `moving`: how many of them were not always the same, and how many changed within an episode. `mean`, `deviation`,
    `low` and `high`: of each element; of more than `LISTED` elements, of all together, one number each. `outside`: how
    many elements were beyond the bounds of their space by more than half the distance of these. `symbols`: the first
    element of each grid of symbols, and the one after its last.
    """

    elements: int
    pixels: int
    changing: int
    moving: int
    mean: list[float]
    deviation: list[float]
    low: list[float]
    high: list[float]
    outside: int = 0
    symbols: list[list[int]] = field(default_factory=list)

    @property
    def sizes(self) -> dict[int, float]:
        """The root mean squares of those statistics that are of numbers alone, neither of pixels nor of symbols."""
        places = range(self.pixels, self.elements)
        if len(self.mean) < self.elements:
            places = [] if self.pixels or self.symbols else [0]
        numbers = [at for at in places if not any(start <= at < stop for start, stop in self.symbols)]
        return {at: math.hypot(self.mean[at], self.deviation[at]) for at in numbers}

    @classmethod
    def of(cls, observed: Observed, pixels: int, outside: int, symbols: list[list[int]]) -> "Seen":
        """The statistics of these observations."""
        mean, deviation, low, high, moved = observed
        counts = len(mean), pixels, int(np.sum(low < high)), int(np.sum(moved))
        if len(mean) > LISTED:
            spread = math.sqrt(float(np.mean(np.square(deviation)) + np.var(mean)))
            columns = [float(mean.mean())], [spread], [float(low.min())], [float(high.max())]
        else:
            columns = mean.tolist(), deviation.tolist(), low.tolist(), high.tolist()
        return cls(*counts, *columns, outside, symbols)


@dataclass(frozen=True)
class Baseline:
    """Episodes of random actions, played before training on seeds of their own.

    `returns` and `lengths`: of the episodes that ended, `truncated` of them by truncation. `steps`: of all episodes.
    `seconds`: spent in the environment; None on the device and in a vector environment. `limit`: the longest episode
    according to the environment, None if it does not say. `rewards`: the least and the largest, None if there was no
    step. `most_entropy`: the entropy of uniform actions in nats; None for continuous ones, of which there are
    `action_size`.
    """

    returns: list[float]
    lengths: list[int]
    truncated: int
    steps: int
    seconds: float | None
    limit: int | None
    rewards: list[float] | None
    most_entropy: float | None
    action_size: int
    seen: Seen

    @property
    def mean(self) -> float:
        """The mean return; NaN if no episode ended."""
        return float(np.mean(self.returns)) if self.returns else math.nan

    @property
    def deviation(self) -> float:
        """The standard deviation of the returns; NaN if there are fewer than two."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else math.nan


def host_baseline(config: TrainConfig, parts: HostParts, check: Callable[[], None] = lambda: None) -> Baseline:
    """Plays the baseline of a host run in its environments for evaluation. `check` may raise, to end it."""
    seed_of, policy_seed = _seeds(config)
    watch, steps = Stopwatch(), HOST_STEPS
    if config.budget.last_step is not None:
        steps = min(steps, max(LEAST_STEPS, config.budget.last_step // SHARE))
    envs = TimedEnvs(parts.eval_envs, watch)
    played = play_on_host(envs, seed_of, policy_seed, config.evaluation.eval_episodes, steps, check)
    # A vector environment has taken other steps as well.
    seconds = None if config.env.vector else watch.read()["env_seconds"]
    return _baseline(played, parts.eval_envs.example, seconds)


def device_baselines(parts: DeviceParts, episodes: int) -> Callable[[TrainConfig], Baseline]:
    """A function that plays the baseline of a device run; one program is compiled for the seeds of a run."""
    play = device_player(parts.view, DEVICE_STEPS // episodes)

    def baseline(config: TrainConfig) -> Baseline:
        seed_of, _ = _seeds(config)
        played = play(np.asarray([seed_of(number) for number in range(episodes)], np.uint32))
        return _baseline(played, parts.view, None)

    return baseline


def _seeds(config: TrainConfig) -> tuple[Callable[[int], int], int]:
    """The seeds of the environment by episode, and that of the actions."""
    return environment_seeds(config.seed, RANDOM_PLAY), environment_seeds(config.seed, RANDOM_PLAY, 1)(0)


def _baseline(played: RandomPlay, env: HostEnv | DeviceView, seconds: float | None) -> Baseline:
    """`env`: the one that was played, or one like it."""
    own = max(len(played.observed.mean) - env.joined, 0)
    pixels, symbols = own if len(env.observation_shape) == 3 else 0, []
    if isinstance(env.layout, Mixed):
        pixels = env.layout.pixels
        symbols = [[start, stop] for start, stop, _ in env.layout.symbols]
    observed = Observed(*(column[:own] for column in played.observed))
    low, high = env.limits
    beyond = (high - low) / 2
    outside = int(np.sum((observed.low < low - beyond) | (observed.high > high + beyond)))
    most, size = _entropy(env.actions)
    return Baseline(
        returns=[float(each) for each in played.returns],
        lengths=[int(each) for each in played.lengths],
        truncated=int(np.sum(played.truncated)),
        steps=played.steps,
        seconds=seconds,
        limit=env.max_length,
        rewards=list(played.rewards) if played.steps else None,
        most_entropy=most,
        action_size=size,
        seen=Seen.of(observed, pixels, outside, symbols),
    )


def _entropy(actions: Actions) -> tuple[float | None, int]:
    if isinstance(actions, Continuous):
        return None, actions.size
    sizes = actions.sizes if isinstance(actions, Factored) else (actions,)
    return sum(map(math.log, sizes)), len(sizes)


def write_baseline(run_dir: Path, baseline: Baseline) -> None:
    """Writes the baseline of a run."""
    atomic_write_text(run_dir / BASELINE, json.dumps(asdict(baseline), indent=1) + "\n")


def read_baseline(run_dir: Path) -> Baseline | None:
    """Reads the baseline of a run; None if there is none, or none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        found = json.loads((run_dir / BASELINE).read_text())
        baseline = Baseline(**found | {"seen": Seen(**found["seen"])})
        float(baseline.mean)
        return baseline
    return None


def mean_baseline(run_dirs: Iterable[Path]) -> float:
    """The mean return of random actions over several runs, those that know it; NaN if none does."""
    means = [baseline.mean for baseline in map(read_baseline, run_dirs) if baseline is not None]
    return sum(means) / len(means) if means else math.nan
