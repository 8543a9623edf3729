"""How far back an agent's values depend on observations, and how far back the environment's rewards do.

The derivative of the last transition's value with respect to each observation shows which observations the value
depends on, and so its value memory length (VML). This value predicts the reward of that one transition, so any
dependence on observations older than those that determine the reward, beyond the reward memory length (RML), is
superfluous. Source: Morad et al. 2024, Section 5, Equations 13 to 15.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.envs.device import DeviceEnv
from memoroids.memory.memoroid import State
from memoroids.tape import Tape

Network = Callable[[jax.Array, jax.Array], tuple[jax.Array, State]]
"""`q, state = network(observation, begin)` with shapes (T, …), (T,) → (T, actions), as in `QNetwork`."""

ValueOf = Callable[[Any, jax.Array], jax.Array]
"""`value_of(q, action)`: Q(s, a), a scalar, from the network's output for s, (actions,), and the action."""


def _indexed(q: jax.Array, action: jax.Array) -> jax.Array:
    return q[action]


# The number of slots differentiated at once, which bounds the memory needed for many long episodes.
_SLOTS = 8192


def sensitivity(network: Network, tape: Tape) -> np.ndarray:
    """Computes |∂Q(s_n, a_n) / ∂o_i| for one episode whose last transition is n.

    The norm is Euclidean, over all components of an observation, including the previous action and reward if they are
    part of it. For images the derivative is per grey level. The memory is reset at the begin flag; flags are treated as
    constants.

    **Args:** `tape`: exactly one complete episode; padding after it has no effect.

    **Returns:** (n + 1,) float32, indexed by the age n - i of the observation.

    Raises `ValueError` if `tape` is not exactly one complete episode. Source: Morad et al. 2024, Equation 15.
    """
    return sensitivities(network, [tape])[0]


def sensitivities(network: Network, tapes: Sequence[Tape], value_of: ValueOf = _indexed) -> list[np.ndarray]:
    """Computes `sensitivity` for each of several episodes.

    `value_of`: how the value of an action is read from the output of a network that gives other outputs than arrays.

    Episodes are padded to a power of two, so that later calls are likely to reuse the compiled program.
    """
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
        norms = np.asarray(_norms(network, value_of, *map(jnp.asarray, (observation, begin, last, taken))))
        found += [norm[n::-1] for norm, n in zip(norms, last, strict=True)]
    return found


def _transitions(tape: Tape) -> tuple[np.ndarray, np.ndarray]:
    """o_0 … o_n and a_0 … a_n, without the final observation, on which the last transition's value does not depend."""
    begin, transition = np.asarray(tape.begin), np.asarray(tape.transition)
    length = int(transition.sum())
    if not (length and begin[0] and transition[:length].all() and (begin & transition).sum() == 1):
        raise ValueError("sensitivity needs a tape that holds exactly one complete episode, starting in its first slot")
    return np.asarray(tape.observation)[:length], np.asarray(tape.action)[:length]


@eqx.filter_jit
def _norms(
    network: Network,
    value_of: ValueOf,
    observation: jax.Array,
    begin: jax.Array,
    last: jax.Array,
    action: jax.Array,
) -> jax.Array:
    """(episodes, slots) float32: the norm for each slot, 0 after slot `last`."""

    def one(observation: jax.Array, begin: jax.Array, last: jax.Array, action: jax.Array) -> jax.Array:
        def value(observation: jax.Array) -> jax.Array:
            q, _ = network(observation, begin)
            return value_of(jax.tree.map(lambda leaf: leaf[last], q), action)

        derivative = jax.grad(value)(observation)
        return jnp.sqrt(jnp.sum(jnp.square(derivative), axis=tuple(range(1, derivative.ndim))))

    return jax.vmap(one)(observation, begin, last, action)


class Profile(NamedTuple):
    """The sensitivities of several episodes, averaged by age; each is first divided by its sum, for equal weights."""

    share: np.ndarray
    """(oldest age + 1,) float64: the share of each age. The sum is 1, or 0 if no episode was counted."""
    first: float
    """The share of the first observation o_0, whatever its age; in RepeatFirst ideally 1 (the paper's Figure 8)."""
    episodes: int
    """The number of episodes counted."""
    left_out: int
    """The number of episodes left out because no observation affects the value or a derivative is non-finite."""

    @classmethod
    def of(cls, episodes: Sequence[np.ndarray]) -> "Profile":
        """Averages what `sensitivities` returned. Raises `ValueError` if `episodes` is empty."""
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
    """The share of all observations older than `age`.

    With the RML as `age`, this is the superfluous share; with L - 1, the share that segments of length L cut off.
    """
    return 0.0 if age == math.inf else float(profile.share[max(int(age) + 1, 0) :].sum())


def vml(profile: Profile, share: float = 0.95) -> int:
    """Value memory length: the smallest age up to which observations account for at least `share` of the sensitivity.

    It is 0 if no episode was counted. Raises `ValueError` if `share` is not in (0, 1].
    Source: Morad et al. 2024, Section 5.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    if not profile.episodes:
        return 0
    # Because of rounding, the shares may sum to slightly less than 1.
    oldest = np.flatnonzero(profile.share)[-1]
    return int(min(np.searchsorted(profile.cumulative, share - 1e-12), oldest))


def _whole_episode(env: Any) -> float:
    del env
    return math.inf


# For each class of POPGym 1.0.7, how far back the expected reward of an action depends on observations, and why.
_RML: dict[str, Callable[[Any], float]] = {
    # The action is compared with the k-th card from the end of the hand, and the card visible now counts as the first.
    "RepeatPrevious": lambda env: env.k - 1,
    # Every action is compared with the first card.
    "RepeatFirst": _whole_episode,
    # The answer is a count over all cards dealt so far.
    "CountRecall": _whole_episode,
    # Cards are recited in reverse order, so the last one is the first that was shown.
    "Autoencode": _whole_episode,
    # The matching card may have been turned over at any earlier step.
    "Concentration": _whole_episode,
    # Any field opened earlier may be the one chosen now, or may reveal where a mine is.
    "MineSweeper": _whole_episode,
    # The probability of a higher card depends on all cards dealt so far.
    "HigherLower": _whole_episode,
    # An arm's payoff probability is estimated from all earlier pulls.
    "MultiarmedBandit": _whole_episode,
    # In the cart-pole tasks the reward is the same at every step, so what counts is how far back the state can be
    # recovered from. Two positions give the exact velocity before the last action; together with that action, which is
    # part of the observation, they give the present velocity.
    "PositionOnlyCartPole": lambda _: 1,
    # Averaging out the noise takes all positions seen so far.
    "NoisyPositionOnlyCartPole": _whole_episode,
    # Positions are sums of velocities, starting from the first observation, which is a position.
    "VelocityOnlyCartPole": _whole_episode,
}


def reward_memory_length(env: gym.Env | DeviceEnv) -> float | None:
    """The reward memory length (RML) of an environment: how many observations back its rewards depend.

    0 means that only the present observation matters, infinity that rewards depend on observations as far back as the
    first. Known for POPGym's tasks, on the host and on the device, for the sizes with which `env` was created.

    **Returns:** the RML, or None for an environment whose RML is unknown.
    """
    inner = env.unwrapped if isinstance(env, gym.Env) else env
    for parent in type(inner).__mro__:
        if parent.__module__.startswith(("popgym.", "memoroids.envs.device.")) and parent.__name__ in _RML:
            return _RML[parent.__name__](inner)
    return None
