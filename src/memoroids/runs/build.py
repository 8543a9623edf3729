"""Builds the parts of a run from its settings: environments, network, agent, evaluator, random keys and replay."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import jax

from memoroids._util.imports import importable
from memoroids._util.messages import one_line
from memoroids.acting.evaluation import DeviceEvaluator, Evaluator
from memoroids.agents.agent_registry import REGISTRY
from memoroids.agents.base import Agent, Plan, TrainingShare, Traits
from memoroids.agents.sizing import fitted
from memoroids.envs import HostEnv, reward_threshold
from memoroids.envs.device import DeviceEnv, DeviceView, make_device
from memoroids.envs.host.gymnasium_vector import VectorEnvs
from memoroids.envs.host.processes import ProcessEnvs
from memoroids.envs.host.vector import HostEnvs, LocalEnvs
from memoroids.envs.spaces import Actions, Continuous, Factored
from memoroids.replay import RingBuffer
from memoroids.replay.host_buffers import HostSegmentBuffer, HostTapeBuffer
from memoroids.runs.build_replay import device_rings
from memoroids.runs.setting_groups import NetworkSettings
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import with_typed_agent


class HostParts(NamedTuple):
    """The parts of a run with host environments."""

    envs: HostEnvs
    eval_envs: HostEnvs
    network: Any
    agent: Agent
    evaluator: Evaluator
    act_key: jax.Array
    update_key: jax.Array
    network_settings: NetworkSettings

    @property
    def env(self) -> gym.Env:
        """The environment itself, before anything is joined to its observations."""
        return self.envs.example.env

    @property
    def notices(self) -> list[str]:
        """What the user should know about the environment, a line each."""
        return self.envs.example.notices

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()
        self.eval_envs.close()


class DeviceParts(NamedTuple):
    """The parts of a run with a device environment. `rings` is None for an agent without replay."""

    view: DeviceView
    rings: RingBuffer | None
    network: Any
    agent: Agent
    evaluator: DeviceEvaluator
    act_key: jax.Array
    update_key: jax.Array
    network_settings: NetworkSettings

    @property
    def env(self) -> DeviceEnv:
        """The environment itself, before anything is joined to its observations."""
        return self.view.env

    @property
    def notices(self) -> list[str]:
        """What the user should know about the environment, a line each."""
        return self.view.notices

    def close(self) -> None:
        """Does nothing: device environments are pure functions."""


def build(config: TrainConfig) -> HostParts | DeviceParts:
    """The parts of a run with these settings. Raises `ValueError` in one line if one of them cannot be built."""
    return build_device(config) if config.env.on_device else build_host(config)


def build_host(config: TrainConfig) -> HostParts:
    """The parts of a run with host environments, in this process or in others. Raises `ValueError`."""
    config = with_typed_agent(config)
    config.memory_factory()  # reports an unknown memory before environments are made
    network_key, act_key, update_key = _keys(config)
    make = _maker(config)
    envs, eval_envs = make(config.collection.num_envs), make(config.evaluation.eval_episodes)
    example = envs.example
    config = _sized(config, example)
    network, agent = _agent(config, example, network_key)
    evaluator = Evaluator(eval_envs, agent.act, network.initial_state(), stochastic=agent.traits.stochastic)
    return HostParts(envs, eval_envs, network, agent, evaluator, act_key, update_key, config.network)


def _maker(config: TrainConfig) -> Callable[[int], HostEnvs]:
    """A function that makes a number of host environments. Raises `ValueError`."""
    seen = _seen(config) | {"check_bounds": config.env.check_bounds}
    options: dict[str, Any] = {"options": config.env.options, "max_episode_steps": config.env.max_episode_steps} | seen
    processes, time_limit = config.collection.processes, config.env.time_limit

    if processes and not importable(config.env.id):
        raise ValueError(
            f"processes {processes} needs an environment that other processes can import, but {config.env.id} was "
            "passed as an object: name it as package.module:factory"
        )

    def make(number: int) -> HostEnvs:
        if config.env.vector:
            return VectorEnvs(config.env.id, config.env.options, number, time_limit=time_limit, **seen)
        if processes:
            return ProcessEnvs(config.env.id, options, number, processes=processes, time_limit=time_limit)
        return LocalEnvs([HostEnv(config.env.id, **options) for _ in range(number)], time_limit=time_limit)

    return make


class ActingParts(NamedTuple):
    """What acting with an agent needs: a look at its environment, the network's initial parameters and the agent."""

    env: HostEnv | DeviceView
    network: Any
    agent: Agent


def build_acting(config: TrainConfig) -> ActingParts:
    """The parts that act, with one environment, closed already, for its spaces. Raises `ValueError`."""
    config = with_typed_agent(config)
    config.memory_factory()
    if config.env.on_device:
        env: HostEnv | DeviceView = _view(config)
    else:
        alone = config.replace(processes=0)
        envs = _maker(alone)(1)
        env = envs.example
        envs.close()
    config = _sized(config, env)
    return ActingParts(env, *_agent(config, env, _keys(config)[0]))


def build_device(config: TrainConfig) -> DeviceParts:
    """The parts of a run with a device environment. Raises `ValueError`."""
    config = with_typed_agent(config)
    config.memory_factory()
    network_key, act_key, update_key = _keys(config)
    view = _view(config)
    _check_random_steps(config, view)
    config = _sized(config, view)
    network, agent = _agent(config, view, network_key)
    initial, block = network.initial_state(), config.evaluation.eval_episodes
    evaluator = DeviceEvaluator(view, agent.act, initial, block, stochastic=agent.traits.stochastic)
    rings = device_rings(config, view) if agent.traits.learns_from_replay else None
    return DeviceParts(view, rings, network, agent, evaluator, act_key, update_key, config.network)


def _view(config: TrainConfig) -> DeviceView:
    """The device environment as agents see it. Raises `ValueError`."""
    return DeviceView(config.env.id, make_device(config.env.device_name, config.env.options), **_seen(config))


def check_own_memory(config: TrainConfig, parts: HostParts | DeviceParts) -> None:
    """Raises `ValueError`, naming the law, if a memory of the user's own breaks one at its initial parameters."""
    if not config.network.check_memory or ":" not in config.network.memory:
        return
    from memoroids.testing import LawError, check_memory  # slow to import, and for memories of the user's own only

    try:
        check_memory(parts.network.memory, length=8, gradient_steps=0)
    except Exception as error:  # a user's memory may raise anything
        reason = " ".join(str(error).split()) if isinstance(error, LawError) else one_line(error)
        raise ValueError(
            f"memory {config.network.memory!r}: {reason} (--no-check-memory trains with it all the same)"
        ) from error


def as_built(config: TrainConfig, parts: HostParts | DeviceParts) -> TrainConfig:
    """The settings with what the parts decide: the network's width and sizes where `parameters` are given, and the
    environment's own reward threshold where there is no `target_return`."""
    if config.network != parts.network_settings:
        config = config.replace(network=parts.network_settings)
    if config.evaluation.target_return is not None:
        return config
    return config.replace(target_return=reward_threshold(config.env.id, parts.env))


def _keys(config: TrainConfig) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Random keys for the network's initial parameters, for acting and for updates."""
    network_key, act_key, update_key = jax.random.split(jax.random.key(config.seed), 3)
    return network_key, act_key, update_key


def _seen(config: TrainConfig) -> dict[str, Any]:
    """The settings of how observations are seen, as keyword arguments of `HostEnv` and `DeviceView`."""
    names = ("previous_action", "previous_reward", "step_periods", "observation")
    seen = {name: getattr(config.env, name) for name in names}
    if seen["previous_action"] is None and config.agent_type().traits.told_actions:
        seen["previous_action"] = "discrete"
    return seen


def host_slots(config: TrainConfig) -> int:
    """Slots that each host environment collects between updates."""
    return config.collection.rollout or 128


def rollout_slots(config: TrainConfig, view: DeviceView) -> int:
    """Slots that each device environment collects between updates: by default an episode if all have one length."""
    longest = view.max_length + 1
    return config.collection.rollout or (longest if view.fixed_length else min(longest, 64))


def _check_random_steps(config: TrainConfig, view: DeviceView) -> None:
    """Raises `ValueError` if the random episodes alone are sure to use up the budget of environment steps."""
    budget = config.budget
    least = budget.random_episodes * view.min_length
    if budget.last_step is not None and least >= budget.last_step:
        raise ValueError(
            f"the {budget.random_episodes} random episodes alone take at least {least:,} of {budget.last_step:,} "
            "steps: raise --steps or lower --random-episodes"
        )


def _network(config: TrainConfig, env: HostEnv | DeviceView, key: jax.Array, width: int, sizes: dict[str, Any]) -> Any:
    kind = config.agent_type()
    return kind.network(
        env.layout,
        env.actions,
        config.memory_factory(),
        key=key,
        width=width,
        sizes=sizes,
        chunk=config.network.chunk,
        ranges=env.ranges if config.network.normalise else None,
        **kind.network_options(config.agent),
    )


def _sized(config: TrainConfig, env: HostEnv | DeviceView) -> TrainConfig:
    """The settings with the width and sizes that give the number of parameters asked for. Raises `ValueError`."""
    settings = config.network
    if settings.parameters is None:
        return config
    _check_actions(config, config.agent_type().traits, env.actions)
    key, memory = jax.random.key(0), config.memory_factory()
    try:
        width, sizes, _ = fitted(
            lambda width, sizes: _network(config, env, key, width, sizes),
            memory,
            settings.parameters,
            settings.memory_sizes,
        )
    except (Exception, SystemExit) as error:  # a user's memory may raise anything
        reason, wanted = " ".join(str(error).split())[:300], f"{settings.parameters:,} parameters"
        raise ValueError(f"cannot build a network of {wanted} with memory {settings.memory!r}: {reason}") from error
    return config.replace(network=dataclasses.replace(settings, width=width, memory_sizes=sizes, parameters=None))


def _agent(config: TrainConfig, env: HostEnv | DeviceView, key: jax.Array) -> tuple[Any, Agent]:
    """The network with its initial parameters, and the agent that `config` names. Raises `ValueError`."""
    kind = config.agent_type()
    _check_actions(config, kind.traits, env.actions)
    sizes = config.network.memory_sizes
    try:
        network = _network(config, env, key, config.network.width, sizes)
    except (Exception, SystemExit) as error:  # a user's memory may raise anything
        reason = " ".join(str(error).split())
        size_options = "".join(f" {name} {value!r}" for name, value in sizes.items())
        raise ValueError(
            f"cannot build a network of width {config.network.width} with memory {config.network.memory!r}"
            f"{f' and --memory-sizes{size_options}' if sizes else ''}: {reason[:300]}"
        ) from error
    return network, make_agent(config, config.agent, network)


def make_agent(config: TrainConfig, settings: Any, network: Any) -> Agent:
    """The agent of a run with these settings of its own, for networks with the structure of `network`."""
    return config.agent_type().make(settings, network, Plan(config.replay.batch_size))


def _check_actions(config: TrainConfig, traits: Traits, actions: Actions) -> None:
    """Raises `ValueError`, which names agents that can, if the agent does not support such actions."""

    def able(trait: str) -> str:
        return " or ".join(f"--algorithm {name}" for name, each in REGISTRY.items() if getattr(each.traits, trait))

    if isinstance(actions, Continuous) and not traits.continuous_actions:
        raise ValueError(
            f"{config.env.id} has continuous actions, but {config.algorithm} supports only discrete ones: use "
            f"{able('continuous_actions')}"
        )
    if isinstance(actions, Factored) and not traits.factored_actions:
        raise ValueError(
            f"{config.env.id} has actions of {len(actions.sizes)} parts, too many to count them through, which "
            f"{config.algorithm} does not support: use {able('factored_actions')}"
        )


def host_update(agent: Agent, replay: HostTapeBuffer | HostSegmentBuffer) -> Callable[..., Any]:
    """The compiled update of a host run, including sampling from replay; the learner's state is donated."""
    buffer, learn = replay.functions, agent.update
    if not agent.traits.learns_from_replay:
        return jax.jit(learn, donate_argnums=0)

    def sample_and_update(learner: Any, state: Any, key: jax.Array, share: TrainingShare) -> Any:
        assert buffer is not None
        return learn(learner, buffer.sample(state, key), key, share)

    return jax.jit(sample_and_update, donate_argnums=0)
