"""Where does training time go? Collecting, storing, sampling and updating, for tapes and for segments."""

import time
from collections.abc import Sequence
from itertools import count, islice
from typing import Any

import jax
import numpy as np

from memoroids.acting.host_collection import Collector
from memoroids.acting.policies import RecurrentPolicy
from memoroids.benchmarks.timing import medians
from memoroids.runs.build import build_host
from memoroids.runs.build_replay import host_replay
from memoroids.runs.presets import MEMORIES, SEGMENT_LENGTHS, preset
from memoroids.runs.seeds import TRAIN, environment_seeds
from memoroids.runs.settings import TrainConfig

EPISODES = 64


def measure(repeats: int, *, env: str, memories: Sequence[str], lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Milliseconds per training episode with the `paper` preset, for each memory and batching.

    `collect` is the time of environment and policy, `store` of adding to the replay buffer including splitting,
    `sample` and `update` of the two parts of an update as separate programs, and `together` of both in one program, as
    in training.
    """
    rows = []
    for memory in memories:
        base = TrainConfig.of(env=env, memory=memory, **preset("paper", env, memory))
        base = base.replace(buffer_size=100_000)
        parts = build_host(base.replace(eval_episodes=1))
        params = parts.agent.init(parts.network).params
        policy = RecurrentPolicy(
            parts.agent.act,
            parts.network.initial_state(),
            base.collection.num_envs,
            params=lambda params=params: params,
            explore=lambda number: np.ones(number.shape, np.float32),
            key=parts.act_key,
        )
        played = iter(Collector(parts.envs, policy, environment_seeds(0, TRAIN), 0, 4 * EPISODES))
        episodes = list(islice(played, EPISODES))  # including compilation
        start = time.perf_counter()
        episodes += played
        collecting = (time.perf_counter() - start) / (len(episodes) - EPISODES)
        parts.close()
        for length in (None, *lengths):
            config = base
            if length is not None:
                config = base.replace(batching="segments", segment_length=length)
            buffer = host_replay(config, parts)
            for episode in episodes:
                buffer.add(episode.tape)
            start = time.perf_counter()
            for episode in episodes:
                buffer.add(episode.tape)
            jax.block_until_ready(buffer.state)
            storing = (time.perf_counter() - start) / len(episodes)
            times = _update(parts.agent, parts.agent.init(parts.network), buffer, repeats)
            row: dict[str, Any] = {"memory": memory, "batching": "TBB" if length is None else f"SBB L={length}"}
            row |= {"collect": 1e3 * collecting, "store": 1e3 * storing}
            rows.append(row | {name: 1e3 * seconds for name, seconds in times.items()})
    return rows


def _update(agent: Any, learner: Any, buffer: Any, repeats: int) -> dict[str, float]:
    functions, state = buffer.functions, buffer.state
    keys = (jax.random.key(i) for i in count())
    sample = jax.jit(functions.sample)
    update = jax.jit(lambda learner, batch, key: agent.update(learner, batch, key)[:2], donate_argnums=0)

    def both(learner: Any, state: Any, key: jax.Array) -> Any:
        return agent.update(learner, functions.sample(state, key), key)[:2]

    together = jax.jit(both, donate_argnums=0)
    batch = sample(state, next(keys))
    # Each program donates its learner to its next call, so each needs its own copy.
    separate, joint = [learner], [jax.tree.map(lambda leaf: leaf.copy(), learner)]

    def one_update() -> Any:
        separate[0], metrics = update(separate[0], batch, next(keys))
        return metrics, separate[0]

    def one_together() -> Any:
        joint[0], metrics = together(joint[0], state, next(keys))
        return metrics, joint[0]

    calls = {"sample": lambda: sample(state, next(keys)), "update": one_update, "together": one_together}
    return medians(calls, repeats)


def run(repeats: int) -> list[dict[str, Any]]:
    """Prints these times for RepeatFirstEasy with the paper's memories and segment lengths."""
    names = ("collect", "store", "sample", "update", "together")
    print("milliseconds per training episode with one update, RepeatFirstEasy, the paper's settings")
    print(f"{'memory':20}{'batching':12}" + "".join(f"{name:>10}" for name in names))
    rows = measure(repeats, env="RepeatFirstEasy", memories=MEMORIES, lengths=SEGMENT_LENGTHS)
    for row in rows:
        print(f"{row['memory']:20}{row['batching']:12}" + "".join(f"{row[name]:10.2f}" for name in names))
    return rows
