"""How far back a value depends on observations, how far back the reward does, and files and figures of both.

The derivative of the last transition's value with respect to each observation says what the value depends on (its VML);
that transition's reward is all that this value is of, so whatever lies further back than the reward looks (its RML) is
superfluous. Source: Morad et al. 2024, Section 5, Equations 13 to 15.
"""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from memoroids._util.files import atomic_write
from memoroids.envs.device import DeviceEnv
from memoroids.memory.memoroid import State
from memoroids.tape import Tape

Network = Callable[[jax.Array, jax.Array], tuple[jax.Array, State]]
"""q, state = network(observation, begin): (T, …), (T,) → (T, actions), as `QNetwork`."""

# Slots that are differentiated at once: what bounds the memory that many long episodes take.
_SLOTS = 8192


def sensitivity(network: Network, tape: Tape) -> np.ndarray:
    """|∂Q(s_n, a_n) / ∂o_i| by age n - i, (n + 1,) float32, for one episode with the last transition n.

    The Euclidean norm over the components of an observation, previous action and reward included where they are part
    of it; of images per grey level. The memory starts at the begin flag, and the flags are constants.

    Raises `ValueError` where `tape` is not one whole episode; padding behind it changes nothing.
    Source: Morad et al. 2024, Equation 15.
    """
    return sensitivities(network, [tape])[0]


def sensitivities(network: Network, tapes: Sequence[Tape]) -> list[np.ndarray]:
    """`sensitivity` of each of several episodes, padded to a length that later calls are likely to share."""
    episodes = [_transitions(tape) for tape in tapes]
    if not episodes:
        return []
    lengths = [len(action) for _, action in episodes]
    slots = 1 << (max(lengths) - 1).bit_length()
    group = max(1, _SLOTS // slots)
    found: list[np.ndarray] = []
    for start in range(0, len(episodes), group):
        chosen = episodes[start : start + group]
        observation = np.zeros((len(chosen), slots, *chosen[0][0].shape[1:]), np.float32)
        begin = np.ones((len(chosen), slots), bool)
        for i, (values, action) in enumerate(chosen):
            observation[i, : len(action)] = values
            begin[i, 1 : len(action)] = False
        last = np.asarray(lengths[start : start + group], np.int32) - 1
        taken = np.asarray([action[-1] for _, action in chosen], np.int32)
        norms = np.asarray(_norms(network, *map(jnp.asarray, (observation, begin, last, taken))))
        found += [norm[n::-1] for norm, n in zip(norms, last, strict=True)]
    return found


def _transitions(tape: Tape) -> tuple[np.ndarray, np.ndarray]:
    """o_0 … o_n and a_0 … a_n; the final observation is no input of the last transition's value."""
    begin, transition = np.asarray(tape.begin), np.asarray(tape.transition)
    length = int(transition.sum())
    if not (length and begin[0] and transition[:length].all() and (begin & transition).sum() == 1):
        raise ValueError("sensitivity: needs a tape of one whole episode from its first slot on")
    return np.asarray(tape.observation)[:length], np.asarray(tape.action)[:length]


@eqx.filter_jit
def _norms(network: Network, observation: jax.Array, begin: jax.Array, last: jax.Array, action: jax.Array) -> jax.Array:
    """(episodes, slots) float32: the norms by slot, 0 behind `last`."""

    def one(observation: jax.Array, begin: jax.Array, last: jax.Array, action: jax.Array) -> jax.Array:
        derivative = jax.grad(lambda o: network(o, begin)[0][last, action])(observation)
        return jnp.sqrt(jnp.sum(jnp.square(derivative), axis=tuple(range(1, derivative.ndim))))

    return jax.vmap(one)(observation, begin, last, action)


class Profile(NamedTuple):
    """Sensitivities of several episodes, each divided by its sum so that all weigh the same, averaged by age."""

    share: np.ndarray
    """(oldest age + 1,) float64: the share of each age; the sum is 1, or 0 where no episode counts."""
    first: float
    """The share that falls on o_0, whatever its age: where RepeatFirst wants all of it (Figure 8)."""
    episodes: int
    """Episodes that count."""
    left_out: int
    """Episodes that do not: no observation changes the value, or a derivative is not finite."""

    @classmethod
    def of(cls, episodes: Sequence[np.ndarray]) -> "Profile":
        """The profile of what `sensitivities` gave. Raises `ValueError` for none."""
        if not episodes:
            raise ValueError("a profile needs at least one episode, got none")
        totals = [float(np.sum(values, dtype=np.float64)) for values in episodes]
        counted = [values / total for values, total in zip(episodes, totals, strict=True) if 0 < total < math.inf]
        share = np.zeros(max(map(len, episodes)))
        for values in counted:
            share[: len(values)] += values / len(counted)
        first = float(np.mean([values[-1] for values in counted])) if counted else 0.0
        return cls(share, first, len(counted), len(episodes) - len(counted))

    @property
    def cumulative(self) -> np.ndarray:
        """(oldest age + 1,) float64: the share of each age and all younger ones (the paper's Figure 3)."""
        return np.cumsum(self.share)


def share_beyond(profile: Profile, age: float) -> float:
    """The share of observations older than `age`: the RML for what is superfluous, L - 1 for what segments cut off."""
    return 0.0 if age == math.inf else float(profile.share[max(int(age) + 1, 0) :].sum())


def vml(profile: Profile, share: float = 0.95) -> int:
    """The smallest age such that it and all younger ones hold at least `share`; 0 where no episode counts.

    Raises `ValueError` for a share that is not in (0, 1]. Source: Morad et al. 2024, Section 5.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    if not profile.episodes:
        return 0
    # A sum of shares may end a rounding short of 1.
    oldest = np.flatnonzero(profile.share)[-1]
    return int(min(np.searchsorted(profile.cumulative, share - 1e-12), oldest))


def _whole(env: Any) -> float:
    del env
    return math.inf


# By class of POPGym 1.0.7: how far back the expected reward of an action looks, and why.
_RML: dict[str, Callable[[Any], float]] = {
    # The card is compared with the hand's k-th from its end, and the newest, on the table now, is the first of them.
    "RepeatPrevious": lambda env: env.k - 1,
    # The first card, at every step.
    "RepeatFirst": _whole,
    # A count over all cards dealt so far.
    "CountRecall": _whole,
    # The last card to recite is the first that was shown.
    "Autoencode": _whole,
    # Any card turned earlier may be the other of a pair.
    "Concentration": _whole,
    # Any earlier field may be the one chosen, or tell where a mine is.
    "MineSweeper": _whole,
    # The chance of a higher card depends on all cards that are gone.
    "HigherLower": _whole,
    # An arm's chance is estimated from all pulls.
    "MultiarmedBandit": _whole,
    # The rest follow the pole's state; their reward itself is the same at every step. Two positions give the velocity
    # before the last action exactly, and that action, in the observation, the one after it.
    "PositionOnlyCartPole": lambda _: 1,
    # Noise is averaged out over all positions seen.
    "NoisyPositionOnlyCartPole": _whole,
    # Positions are sums of velocities from the first observation on, which is a position.
    "VelocityOnlyCartPole": _whole,
}


def reward_memory_length(env: gym.Env | DeviceEnv) -> float | None:
    """RML of a made environment, in observations back; infinite: up to the first one; None: not known.

    0 is the present observation alone. Known for POPGym's tasks, on host or device, at the sizes they were made with.
    """
    inner = env.unwrapped if isinstance(env, gym.Env) else env
    for parent in type(inner).__mro__:
        if parent.__module__.startswith(("popgym.", "memoroids.envs.device.")) and parent.__name__ in _RML:
            return _RML[parent.__name__](inner)
    return None


def draw_profiles(
    path: Path,
    profiles: dict[str, Profile],
    *,
    rml: float | None = None,
    segment_length: int | None = None,
    title: str = "",
) -> None:
    """Share by age and its sum, label → profile, with lines behind the last age of the RML and of segments."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    left.set_yscale("log", nonpositive="mask")
    left.set(ylim=(1e-6, 1.5), ylabel="share of the sensitivity")
    right.set(ylim=(0, 1.03), ylabel="share up to this age")
    for label, profile in profiles.items():
        age = np.arange(len(profile.share))
        left.plot(age, profile.share, ".-", label=label, linewidth=1.0, markersize=4)
        right.plot(age, profile.cumulative, label=label)
    for axes in (left, right):
        axes.set_xlabel("age of the observation [steps]")
        axes.grid(alpha=0.3)
        # Between the last age within and the first beyond.
        if rml is not None and rml < math.inf:
            axes.axvline(rml + 0.5, color="0.2", linestyle="--", label=f"RML {rml:g}")
        if segment_length is not None:
            axes.axvline(segment_length - 0.5, color="0.2", linestyle=":", label=f"segments of {segment_length}")
    figure.suptitle(title)
    if len(profiles) > 3:
        figure.set_size_inches(12, 4)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside right upper")  # where it covers no curve
    else:
        right.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)


LOG_FIELDS = ("episode", "age", "share")
"""The columns of sensitivity_training.csv."""


class SensitivityLog:
    """Profiles while training: rows (training episode, age, share), on disk as soon as they are written.

    What a file that is there says of training episodes up to `keep` stays, the rest goes. Raises `ValueError` where it
    is missing or cannot be read.
    """

    def __init__(self, path: Path, keep: int = 0):
        kept = read_log(path, keep) if keep else {}
        self.episode = max(kept, default=0)
        """The newest training episode with a profile, 0 before the first."""
        with atomic_write(path) as fresh, fresh.open("w", newline="") as self._file:
            csv.writer(self._file).writerow(LOG_FIELDS)
            for episode, share in kept.items():
                self._rows(episode, share)
        self._file = path.open("a", newline="")

    def write(self, episode: int, profile: Profile) -> None:
        """Adds the profile after a training episode."""
        self._rows(episode, profile.share)
        self._file.flush()
        self.episode = episode

    def _rows(self, episode: int, share: np.ndarray) -> None:
        csv.writer(self._file).writerows((episode, age, float(value)) for age, value in enumerate(share))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_log(path: Path, until: int | None = None) -> dict[int, np.ndarray]:
    """Training episode → share by age (oldest age + 1,) float64, of episodes up to `until`.

    Raises `ValueError` naming the file, and the line that is not one of ours.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing")
    shares: dict[int, list[float]] = {}
    with path.open(newline="") as file:
        if tuple(file.readline().rstrip().split(",")) != LOG_FIELDS:
            raise ValueError(f"{path}: the header is not that of a log of sensitivities")
        for number, line in enumerate(file, start=2):
            if until is not None and not line.endswith("\n"):
                break  # torn by what ended the run, so later than any checkpoint
            try:
                episode, age, share = line.split(",")
                if until is not None and int(episode) > until:
                    break
                ages = shares.setdefault(int(episode), [])
                if int(age) != len(ages):
                    raise ValueError(f"age {age} follows {len(ages) - 1}")
                ages.append(float(share))
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: {error}") from error
    return {episode: np.asarray(ages) for episode, ages in shares.items()}


def draw_heatmap(path: Path, log: dict[int, np.ndarray], *, rml: float | None = None, title: str = "") -> None:
    """Share by age over training, from `read_log`: each profile fills the time since the one before it."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    figure.colorbar(heat(axes, log, rml=rml, title=title), label="share of the sensitivity", extend="min")
    axes.set(ylabel="age of the observation [steps]")
    figure.savefig(path, dpi=120)


def heat(axes: Any, log: dict[int, np.ndarray], *, rml: float | None = None, title: str = "") -> Any:
    """Draws one heat map into matplotlib axes and returns what a colour bar needs."""
    from matplotlib.colors import LogNorm

    oldest = max((len(share) for share in log.values()), default=1)
    image = np.full((oldest, len(log)), np.nan)
    for column, share in enumerate(log.values()):
        image[: len(share), column] = np.maximum(share, 1e-4)
    axes.set_facecolor("0.3")  # ages that no episode reached
    edges = np.asarray([0, *log])
    mesh = axes.pcolormesh(edges, np.arange(oldest + 1) - 0.5, image, norm=LogNorm(1e-4, 1.0), rasterized=True)
    if rml is not None and rml < math.inf:
        axes.axhline(rml + 0.5, color="white", linestyle="--", label=f"RML {rml:g}")
        axes.legend(frameon=False, labelcolor="white")
    axes.set(xlabel="training episodes", title=title)
    return mesh
