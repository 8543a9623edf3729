"""Builds the replay of a run from its settings: rings on the device, tapes or segments on the host."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from memoroids import tape as tapes
from memoroids.envs import HostEnv
from memoroids.envs.device import DeviceView
from memoroids.envs.spaces import blank_actions
from memoroids.replay import RingBuffer, ring_buffer
from memoroids.replay.host_buffers import HostSegmentBuffer, HostTapeBuffer
from memoroids.runs.settings import TrainConfig
from memoroids.tape import Tape
from memoroids.tape.segments import start_states

if TYPE_CHECKING:
    from memoroids.runs.build import HostParts


def device_rings(config: TrainConfig, view: DeviceView) -> RingBuffer:
    """The replay: a ring for each environment. Raises `ValueError` if an episode does not fit into a ring."""
    replay, num_envs = config.replay, config.collection.num_envs
    capacity = replay.buffer_size // num_envs
    if capacity < view.max_length + 1:
        raise ValueError(
            f"buffer_size {replay.buffer_size} gives each of {num_envs} environments a ring of {capacity} slots, but "
            f"an episode takes up to {view.max_length + 1}: raise --buffer-size or lower --num-envs"
        )
    return ring_buffer(
        num_envs,
        capacity,
        replay.batch_size,
        view.max_length,
        min_length=view.min_length,
        cut=replay.cut_batch,
        tapes=replay.tapes,
        priority=config.priority if replay.prioritised else None,
    )


def shortest_episode(env: HostEnv) -> Tape:
    """An episode of one step in an environment, for its shapes and dtypes."""
    observation = np.zeros((2, *env.observation_shape), env.observation_dtype)
    return tapes.episode(observation, blank_actions(env.actions, 1), np.zeros(1), True, False)


def host_replay(
    config: TrainConfig, parts: "HostParts", bounds: tuple[int, int] = (0, 0)
) -> HostTapeBuffer | HostSegmentBuffer:
    """The empty replay that `batching` names; `bounds`: lengths stored in a resumed run's `Counters`."""
    replay = config.replay
    if replay.batching == "tape":
        return HostTapeBuffer(
            replay.buffer_size,
            replay.batch_size,
            cut=replay.cut_batch,
            declared=parts.envs.example.max_length,
            bounds=bounds,
        )
    initial, states = parts.network.initial_state(), None
    if replay.segment_state == "stored":
        states = jax.jit(lambda params, rows: start_states(parts.agent.network(params), rows, initial))
    return HostSegmentBuffer(
        replay.buffer_size,
        replay.batch_size,
        replay.segment_length,
        initial,
        state=replay.segment_state,
        count=replay.segment_count,
        states=states,
        bounds=bounds,
    )
