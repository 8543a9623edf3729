"""The interface of agents: the training loops read an agent's traits and functions, never its name."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, Protocol

import equinox as eqx
import jax

from memoroids.memory.memoroid import State


@dataclass(frozen=True)
class Traits:
    """What loops, presets and commands need to know about a kind of agent before a network is built."""

    learns_from_replay: bool
    """Whether it learns from samples of a replay buffer (True) or from rollouts of its current policy (False)."""
    continuous_actions: bool
    """Whether it supports continuous actions, `memoroids.envs.spaces.Continuous`."""
    action_values: bool
    """Whether its network's output is Q(s, a) for every action, (T, actions); see also `factored_actions`."""
    exploration: Literal["epsilon", "policy"]
    """How it explores: `epsilon`, by a share ε of random actions; `policy`, by sampling from its own policy,
    in random episodes on the device too."""
    factored_actions: bool = False
    """Whether it supports actions of many parts, `memoroids.envs.spaces.Factored`; action values are then
    `memoroids.agents.branches.Branches`."""
    told_actions: bool = False
    """Whether it learns more when told its previous action, and so is, unless a run says otherwise, where actions are
    discrete."""

    @property
    def stochastic(self) -> bool:
        """Whether its policy is a distribution that it can be evaluated by sampling from."""
        return self.exploration == "policy"


class Plan(NamedTuple):
    """What an agent needs to know about the run that it is made for."""

    batch_size: int = 1
    """Transitions in a batch from replay: the constant B by which the weighted sum of losses is divided."""


class TrainingShare(NamedTuple):
    """The shares of the training, 0 to 1, that are done before and after an update, for schedules.

    `before`, `after`: float32 scalars. After the last update of a run `after` is 1.
    """

    before: Any
    after: Any

    def at(self, step: Any, steps: Any) -> Any:
        """The share that is done after gradient step `step`, counted from 0, of the update's `steps`."""
        part = (step + 1) / steps
        return (1 - part) * self.before + part * self.after


class LearnerState(Protocol):
    """The fields of an agent's state that the loops read. The state is a pytree, saved and donated as a whole."""

    @property
    def params(self) -> Any:
        """The parameters with which the agent acts."""
        ...

    @property
    def updates(self) -> jax.Array:
        """Gradient steps taken, an int32 scalar."""
        ...

    @property
    def skipped(self) -> jax.Array:
        """Gradient steps skipped because of a non-finite loss or gradient, an int32 scalar."""
        ...

    @property
    def divergence(self) -> Any:
        """Which tensors were non-finite in the skipped steps; see `memoroids.agents.optimiser.Divergence`."""
        ...

    def _replace(self, **changes: Any) -> Any: ...


class Agent(NamedTuple):
    """An agent for one network: pure functions, unbatched and not jitted, for callers to compose, `vmap` and `jit`.

        state = agent.init(network)
        network = agent.network(state.params)
        action, memory = agent.act(state.params, memory, observation, begin, explore, key)   # one environment
        state, metrics, aux = agent.update(state, batch, key, share)

    `init(network)`: the learner's state, which satisfies `LearnerState`. `network(params)`: the network with these
    parameters. `act`: `explore` is the share ε of random actions for an agent that explores by it; for others 0 takes
    the policy's mode and 1 a sample from the policy.

    `update`: `batch` is a `memoroids.replay.Sample` or `SegmentSample`, or a `memoroids.agents.rollout_batch.Rollout`
    for an agent without replay. `metrics` are scalars by name; `loss`, `td_error`, `q_mean` and `grad_norm` become
    columns of metrics.csv, and so do those of `memoroids.runs.metrics.LOSSES` that it measures; `transitions` and
    `slots` are summed over the run. `aux` is None without replay; otherwise
    the TD errors (N,) of the sample's slots, 0 where there is no transition, from which priorities are computed.
    `share`: a `TrainingShare`. The built-in agents need it only for settings that change over training.
    """

    init: Callable[[Any], Any]
    network: Callable[[Any], Any]
    act: Callable[..., tuple[jax.Array, State]]
    update: Callable[..., tuple[Any, dict[str, jax.Array], Any]]
    traits: Traits
    gradient_steps: int = 1
    """Gradient steps in one `update`."""


def _no_check(settings: Any, num_envs: int) -> None:
    del settings, num_envs


def _no_options(settings: Any) -> dict[str, Any]:
    del settings
    return {}


def with_numbers(settings: Any, numbers: Mapping[str, Any]) -> Any:
    """A copy of an agent's settings with arrays in place of some of its `AgentType.numbers`, which are not checked."""
    changed = copy.copy(settings)
    for name, value in numbers.items():
        object.__setattr__(changed, name, value)
    return changed


@dataclass(frozen=True)
class AgentType:
    """A kind of agent as the registry holds it: its settings, its network, and the function that makes an `Agent`.

        REGISTRY["mine"] = AgentType(MySettings, MyNetwork, make, Traits(...))      # or --algorithm package.module:name

    `settings`: a frozen dataclass whose fields all have defaults; each field becomes a command-line option.
    `network(observation_shape, actions, memory, *, key, width, sizes, chunk, ranges)`: a
    `memoroids.agents.networks.Recurrent` with its initial parameters, where `observation_shape` is (n,), (H, W, C) or
    `memoroids.envs.observations.Mixed`.
    `make(settings, network, plan)`: the agent.
    """

    settings: type
    network: Callable[..., eqx.Module]
    make: Callable[[Any, Any, Plan], Agent]
    traits: Traits
    check: Callable[[Any, int], None] = _no_check
    """Called with settings and `num_envs`; raises `ValueError` if the two are incompatible."""
    network_options: Callable[[Any], dict[str, Any]] = _no_options
    """Called with settings: further keyword arguments of `network`."""
    numbers: frozenset[str] = frozenset()
    """Settings that enter nothing but arithmetic in `update`: where they are not None, they may be scalar arrays."""

    @property
    def setting_names(self) -> frozenset[str]:
        """The names of the fields of `settings`."""
        return frozenset(each.name for each in fields(self.settings))
