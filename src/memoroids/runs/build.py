"""What a run is made of before anything has been learned: environments, network, algorithm, keys and seeds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np

from memoroids.acting.evaluation import DeviceEvaluator, Evaluator
from memoroids.agents.dqn import DQN, dqn
from memoroids.agents.networks import ActorCritic, QNetwork
from memoroids.agents.ppo import PPO, ppo
from memoroids.agents.pqn import PQN, pqn
from memoroids.runs.settings import TrainConfig
from memoroids.envs import HostEnv
from memoroids.envs.device import DeviceEnv, DeviceView, make_device
from memoroids.envs.host.processes import ProcessEnvs
from memoroids.envs.host.vector import HostEnvs, LocalEnvs
from memoroids.envs.spaces import Actions, Continuous
from memoroids.replay import RingBuffer, ring_buffer
from memoroids.replay.host_buffers import HostSegmentBuffer, HostTapeBuffer
from memoroids.tape.segments import start_states

Algorithm = DQN | PPO | PQN

# Streams of environment seeds, apart from each other for every run seed.
RANDOM, TRAIN, EVALUATE, FINAL, REPORT = range(5)


def environment_seeds(seed: int, stream: int, *index: int) -> Callable[[int], int]:
    """Episode number → environment seed of 32 bits, independent between runs' seeds and never shared by two streams."""

    def seed_of(number: int) -> int:
        drawn = int(np.random.SeedSequence((seed, stream, *index, number)).generate_state(1)[0])
        return (drawn & ~7) | stream  # the lowest bits name the stream: draws alone would meet now and then

    return seed_of


class Parts(NamedTuple):
    """What a run is made of, before anything has been learned: `envs` on the host, or `view` of a device environment.

    `rings`, the replay of a device run, where its algorithm has one; `evaluator(params, episodes, seed_of)` plays
    greedy episodes.
    """

    envs: HostEnvs | None
    eval_envs: HostEnvs | None
    view: DeviceView | None
    rings: RingBuffer | None
    network: Any
    algorithm: Algorithm
    evaluator: Evaluator | DeviceEvaluator
    act_key: jax.Array
    update_key: jax.Array

    @property
    def env(self) -> gym.Env | DeviceEnv:
        """The environment itself, before what is joined to its observations."""
        return self.view.env if self.view is not None else self.host.example.env

    @property
    def host(self) -> HostEnvs:
        """The copies of a host environment. Raises `ValueError` where there are none."""
        if self.envs is None:
            raise ValueError("a device environment has no copies on the host")
        return self.envs

    def close(self) -> None:
        """Closes the host environments."""
        for envs in (self.envs, self.eval_envs):
            if envs is not None:
                envs.close()


def build(config: TrainConfig) -> Parts:
    """Environments, network and algorithm of `config`. Raises `ValueError` in one line where one cannot be made."""
    joined = {name: getattr(config, name) for name in ("previous_action", "previous_reward", "step_periods")}
    config.memory_factory()
    network_key, act_key, update_key = jax.random.split(jax.random.key(config.seed), 3)
    if config.on_device:
        view = DeviceView(config.env, make_device(config.device_env, config.env_options), **joined)
        updates = _updates(config, rollout_slots(config, view), view.max_length if view.fixed_length else None)
        network, algorithm = _agent(config, view.observation_shape, view.actions, updates, network_key)
        evaluator = DeviceEvaluator(view, algorithm.act, network.initial_state(), config.eval_episodes)
        return Parts(None, None, view, _rings(config, view), network, algorithm, evaluator, act_key, update_key)

    options = {"options": config.env_options, "check_bounds": config.check_bounds, **joined}

    def make(number: int) -> HostEnvs:
        if config.processes:
            return ProcessEnvs(config.env, options, number, processes=config.processes, time_limit=config.time_limit)
        return LocalEnvs([HostEnv(config.env, **options) for _ in range(number)], time_limit=config.time_limit)

    envs, eval_envs = make(config.num_envs), make(config.eval_episodes)
    updates = _updates(config, None, None)
    example = envs.example
    network, algorithm = _agent(config, example.observation_shape, example.actions, updates, network_key)
    evaluator = Evaluator(eval_envs, algorithm.act, network.initial_state())
    return Parts(envs, eval_envs, None, None, network, algorithm, evaluator, act_key, update_key)


def rollout_slots(config: TrainConfig, view: DeviceView) -> int:
    """Slots that each copy of a device environment collects between updates: a whole episode where all are as long."""
    whole = view.max_length + 1
    return config.rollout or (whole if view.fixed_length else min(whole, 64))


def _updates(config: TrainConfig, slots: int | None, length: int | None) -> int | None:
    """Gradient steps in the whole run; None where it cannot be told beforehand.

    `slots` that a copy collects at a time, None for whole episodes; `length` of every episode, None where they differ.
    """
    episodes = config.train_episodes if config.train_steps is None else length and -(-config.train_steps // length)
    if config.algorithm == "dqn":
        return episodes and episodes * config.updates_per_episode
    if slots is not None and config.train_steps is not None:
        rollouts = -(-config.train_steps // (config.num_envs * slots))
    elif episodes and (slots is None or (length is not None and slots == length + 1)):
        rollouts = -(-episodes // config.num_envs)
    else:
        return None
    return rollouts * config.rollout_updates


def _agent(
    config: TrainConfig, observation_shape: tuple[int, ...], actions: Actions, updates: int | None, key: jax.Array
) -> tuple[QNetwork | ActorCritic, Algorithm]:
    """The network, with its first parameters, and the algorithm that `config` names."""
    if isinstance(actions, Continuous) and config.algorithm != "ppo":
        raise ValueError(
            f"{config.env} has actions on a continuous scale, {config.algorithm} needs a number of actions to choose "
            "from: use --algorithm ppo"
        )
    kind = ActorCritic if config.algorithm == "ppo" else QNetwork
    try:
        network = kind(
            observation_shape,
            actions,  # pyright: ignore[reportArgumentType]
            config.memory_factory(),
            key=key,
            width=config.width,
            sizes=config.memory_sizes,
            chunk=config.chunk,
        )
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        sizes = "".join(f" {name} {value}" for name, value in config.memory_sizes.items())
        raise ValueError(
            f"cannot build a network of width {config.width} with memory {config.memory!r}{sizes}: {said[:300]}"
        ) from error
    if isinstance(network, ActorCritic):
        return network, ppo(config.ppo, network, updates=updates)
    if config.algorithm == "pqn":
        return network, pqn(config.pqn, network, updates=updates)
    return network, dqn(config.dqn, network, updates=updates)


def _rings(config: TrainConfig, view: DeviceView) -> RingBuffer | None:
    """A ring for each copy. Raises `ValueError` where an episode does not fit."""
    if config.algorithm != "dqn":
        return None
    capacity = config.buffer_size // config.num_envs
    if capacity < view.max_length + 1:
        raise ValueError(
            f"buffer_size {config.buffer_size} gives each of {config.num_envs} copies a ring of {capacity} slots, but an "
            f"episode takes up to {view.max_length + 1}: raise --buffer-size or lower --num-envs"
        )
    return ring_buffer(
        config.num_envs,
        capacity,
        config.batch_size,
        view.max_length,
        min_length=view.min_length,
        cut=config.cut_batch,
        tapes=config.tapes,
        priority=config.priority if config.prioritised else None,
    )


def replay(config: TrainConfig, parts: Parts, bounds: tuple[int, int] = (0, 0)) -> HostTapeBuffer | HostSegmentBuffer:
    """The empty replay that `config.batching` names; `bounds` are its own, of a run that goes on."""
    if config.batching == "tape":
        return HostTapeBuffer(
            config.buffer_size,
            config.batch_size,
            cut=config.cut_batch,
            declared=parts.host.example.max_length,
            bounds=bounds,
        )
    initial, states = parts.network.initial_state(), None
    if config.segment_state == "stored":
        states = jax.jit(lambda params, rows: start_states(parts.algorithm.network(params), rows, initial))
    return HostSegmentBuffer(
        config.buffer_size,
        config.batch_size,
        config.segment_length,
        initial,
        state=config.segment_state,
        count=config.segment_count,
        states=states,
        bounds=bounds,
    )
