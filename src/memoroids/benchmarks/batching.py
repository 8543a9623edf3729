"""Where does training time go? Collecting, storing, sampling and updating, for tapes and for segments."""

import dataclasses
import time
from collections.abc import Sequence
from itertools import count, islice
from typing import Any

import jax
import numpy as np

from memoroids.acting.host_collection import Collector
from memoroids.acting.policies import RecurrentPolicy
from memoroids.benchmarks.timing import medians
from memoroids.runs.build import TRAIN, build, environment_seeds, replay
from memoroids.runs.presets import MEMORIES, SEGMENT_LENGTHS, preset, with_preset
from memoroids.runs.settings import TrainConfig

EPISODES = 64


def measure(repeats: int, *, env: str, memories: Sequence[str], lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Milliseconds for a training episode of the `paper` preset, by memory and batching.

    `collect` is environment and policy, `store` the replay's add with its splitting, `sample` and `update` the two
    halves of an update as programs of their own, and `together` both as the one program that training runs.
    """
    rows = []
    for memory in memories:
        base = with_preset(TrainConfig(env=env, memory=memory), preset("paper", env, memory))
        base = dataclasses.replace(base, buffer_size=100_000)
        parts = build(dataclasses.replace(base, eval_episodes=1))
        params = parts.algorithm.init(parts.network).params
        policy = RecurrentPolicy(
            parts.algorithm.act,
            parts.network.initial_state(),
            base.num_envs,
            params=lambda params=params: params,
            epsilon=lambda number: np.ones(number.shape, np.float32),
            key=parts.act_key,
        )
        played = iter(Collector(parts.host, policy, environment_seeds(0, TRAIN), 0, 4 * EPISODES))
        episodes = list(islice(played, EPISODES))  # the first ones compile
        start = time.perf_counter()
        episodes += played
        collecting = (time.perf_counter() - start) / (len(episodes) - EPISODES)
        parts.close()
        for length in (None, *lengths):
            config = base
            if length is not None:
                config = dataclasses.replace(base, batching="segments", segment_length=length)
            buffer = replay(config, parts)
            for episode in episodes:
                buffer.add(episode.tape)
            start = time.perf_counter()
            for episode in episodes:
                buffer.add(episode.tape)
            jax.block_until_ready(buffer.state)
            storing = (time.perf_counter() - start) / len(episodes)
            times = _update(config, parts.algorithm, parts.algorithm.init(parts.network), buffer, repeats)
            row: dict[str, Any] = {"memory": memory, "batching": "TBB" if length is None else f"SBB L={length}"}
            row |= {"collect": 1e3 * collecting, "store": 1e3 * storing}
            rows.append(row | {name: 1e3 * seconds for name, seconds in times.items()})
    return rows


def _update(config: TrainConfig, algorithm: Any, learner: Any, buffer: Any, repeats: int) -> dict[str, float]:
    functions, state = buffer.functions, buffer.state
    keys = (jax.random.key(i) for i in count())
    sample = jax.jit(functions.sample)
    update = jax.jit(lambda learner, batch: algorithm.update(learner, batch, config.batch_size)[:2], donate_argnums=0)

    def both(learner: Any, state: Any, key: jax.Array) -> Any:
        return algorithm.update(learner, functions.sample(state, key), config.batch_size)[:2]

    together = jax.jit(both, donate_argnums=0)
    batch = sample(state, next(keys))
    # Each program's learner is donated to its successor, so each has one of its own.
    apart, whole = [learner], [jax.tree.map(lambda leaf: leaf.copy(), learner)]

    def one_update() -> Any:
        apart[0], metrics = update(apart[0], batch)
        return metrics, apart[0]

    def one_together() -> Any:
        whole[0], metrics = together(whole[0], state, next(keys))
        return metrics, whole[0]

    calls = {"sample": lambda: sample(state, next(keys)), "update": one_update, "together": one_together}
    return medians(calls, repeats)


def run(repeats: int) -> list[dict[str, Any]]:
    """Prints the split for RepeatFirstEasy, every memory of the paper and every length of segments."""
    names = ("collect", "store", "sample", "update", "together")
    print("milliseconds for a training episode with one update, RepeatFirstEasy, paper's settings")
    print(f"{'memory':20}{'batching':12}" + "".join(f"{name:>10}" for name in names))
    rows = measure(repeats, env="RepeatFirstEasy", memories=MEMORIES, lengths=SEGMENT_LENGTHS)
    for row in rows:
        print(f"{row['memory']:20}{row['batching']:12}" + "".join(f"{row[name]:10.2f}" for name in names))
    return rows
