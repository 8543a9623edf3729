"""What a run is made of before anything has been learned: environments, network, algorithm, keys and seeds."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from memoroids.algorithms.dqn import DQN, dqn
from memoroids.config import TrainConfig
from memoroids.envs import HostEnv
from memoroids.networks import QNetwork
from memoroids.replay.host import HostSegmentBuffer, HostTapeBuffer
from memoroids.segments import start_states

# Streams of environment seeds, apart from each other for every run seed.
RANDOM, TRAIN, EVALUATE, FINAL, REPORT = range(5)


def environment_seeds(seed: int, stream: int, *index: int) -> Callable[[int], int]:
    """Episode number → environment seed of 32 bits, independent between runs' seeds and never shared by two streams."""

    def seed_of(number: int) -> int:
        drawn = int(np.random.SeedSequence((seed, stream, *index, number)).generate_state(1)[0])
        return (drawn & ~7) | stream  # the lowest bits name the stream: draws alone would meet now and then

    return seed_of


class Parts(NamedTuple):
    """What a run is made of, before anything has been learned."""

    envs: list[HostEnv]
    eval_envs: list[HostEnv]
    network: QNetwork
    algorithm: DQN
    act_key: jax.Array
    update_key: jax.Array


def build(config: TrainConfig) -> Parts:
    """Environments, network and algorithm of `config`. Raises `ValueError` in one line where one cannot be made."""

    def make() -> HostEnv:
        return HostEnv(
            config.env,
            options=config.env_options,
            previous_action=config.previous_action,
            previous_reward=config.previous_reward,
            step_periods=config.step_periods,
        )

    factory = config.memory_factory()
    envs = [make() for _ in range(config.copies)]
    eval_envs = [make() for _ in range(config.eval_episodes)]
    network_key, act_key, update_key = jax.random.split(jax.random.key(config.seed), 3)
    try:
        network = QNetwork(
            envs[0].observation_shape,
            envs[0].actions,
            factory,
            key=network_key,
            width=config.width,
            sizes=config.memory_sizes,
        )
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(f"cannot build a network with memory {config.memory!r}: {said}") from error
    algorithm = dqn(config.dqn, network, updates=config.train_episodes * config.updates_per_episode)
    return Parts(envs, eval_envs, network, algorithm, act_key, update_key)


def replay(config: TrainConfig, parts: Parts, bounds: tuple[int, int] = (0, 0)) -> HostTapeBuffer | HostSegmentBuffer:
    """The empty replay that `config.batching` names; `bounds` are its own, of a run that goes on."""
    if config.batching == "tape":
        return HostTapeBuffer(
            config.buffer_size,
            config.batch_size,
            cut=config.cut_batch,
            declared=parts.envs[0].max_length,
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
