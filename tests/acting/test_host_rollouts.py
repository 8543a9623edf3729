"""Rollouts of fixed slots on the host: end to end they are every environment's episodes, as a slow loop plays them."""

import json
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_host_collection import (
    ACTIONS,
    envs,
    fault,  # noqa: F401
    fixed_actions,
    recurrent,
    seed_of,
    slow_episode,
)

from kinds_of_memory import SMALL
from memoroids.acting.collection_state import pack, packed_like, unpack
from memoroids.acting.host_rollouts import CollectedRollout, RolloutCollector
from memoroids.acting.policies import RandomPolicy
from memoroids.envs import EnvironmentFault
from memoroids.envs.host.vector import LocalEnvs


class Fixed:
    """`fixed_actions` as a policy without a memory."""

    def __call__(self, *shown: Any) -> np.ndarray:
        return fixed_actions(*shown)

    def memory(self) -> Any:
        return ()

    def restore(self, memory: Any, number: np.ndarray, step: np.ndarray) -> None:
        pass


FIELDS = ("observation", "begin", "action", "reward", "terminated", "truncated", "transition")
SLOTS = (5, 1, 7, 20, 3)


def collector(num_envs: int, policy: Any, **options: Any) -> RolloutCollector:
    return RolloutCollector(LocalEnvs(envs(num_envs)), policy, seed_of, **options)


def joined(rollouts: list[CollectedRollout], row: int) -> dict[str, np.ndarray]:
    """What one environment wrote, without the slot after each rollout, which the next one writes again."""
    return {name: np.concatenate([getattr(r.tape, name)[row, :-1] for r in rollouts]) for name in FIELDS}


@pytest.mark.parametrize("num_envs", [1, 3])
def test_rollouts_end_to_end_are_the_episodes_of_a_slow_loop(num_envs: int):
    collecting = collector(num_envs, Fixed())
    rollouts = [collecting.collect(slots) for slots in SLOTS]
    returns, steps, numbers = [], 0, set()
    for row in range(num_envs):
        written = joined(rollouts, row)
        starts = np.flatnonzero(written["begin"])
        assert starts[0] == 0
        for start, stop in zip(starts, [*starts[1:], len(written["begin"])], strict=True):
            episode = {name: values[start:stop] for name, values in written.items()}
            candidates = [n for n in range(collecting.upcoming) if n not in numbers]
            wanted = {n: slow_episode(n) for n in candidates}
            (number,) = [
                n for n in candidates if np.array_equal(wanted[n]["observation"][0], episode["observation"][0])
            ]
            numbers.add(number)
            for name, values in episode.items():
                np.testing.assert_array_equal(values, wanted[number][name][: stop - start], err_msg=name)
            if episode["terminated"].any() or episode["truncated"].any():
                returns.append(float(episode["reward"].sum()))
            steps += int(episode["transition"].sum())
    # Numbers are given in the order of beginning, and each episode is played once.
    assert numbers == set(range(collecting.upcoming))
    assert sorted(each for r in rollouts for each in r.returns) == pytest.approx(sorted(returns))
    assert sum(r.steps for r in rollouts) == steps


def test_the_last_slot_is_the_observation_that_follows_or_padding():
    collecting = collector(3, Fixed())
    rollouts = [collecting.collect(slots) for slots in (4, 4, 4, 4, 4)]
    kinds = set()
    for now, after in pairwise(rollouts):
        for row in range(3):
            begins = bool(after.tape.begin[row, 0])
            kinds.add(begins)
            assert bool(now.tape.begin[row, -1]) == begins and not now.tape.transition[row, -1]
            expected = 0 * after.tape.observation[row, 0] if begins else after.tape.observation[row, 0]
            np.testing.assert_array_equal(now.tape.observation[row, -1], expected)
    assert kinds == {False, True}


@pytest.mark.parametrize("memory", SMALL)
def test_the_memory_of_each_rollout_is_that_after_the_slots_before_it(memory: str):
    from test_host_collection import network

    net = network(memory)
    collecting = collector(3, recurrent(3, 0.5, memory=memory))
    rollouts = [collecting.collect(6) for _ in range(4)]
    run = jax.jit(jax.vmap(net))
    for now, after in pairwise(rollouts):
        tape = jax.tree.map(lambda leaf: jnp.asarray(leaf[:, :-1]), now.tape)
        _, state = run(tape.observation, tape.begin, jax.tree.map(jnp.asarray, now.memory))
        continues = ~after.tape.begin[:, 0]  # where an episode begins, the state is discarded
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after.memory), strict=True):
            np.testing.assert_allclose(np.asarray(a)[continues], b[continues], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["random", "recurrent"])
@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_collection_resumes_bit_for_bit(kind: str, after: int):
    def policy() -> Any:
        return RandomPolicy(ACTIONS, 3) if kind == "random" else recurrent(3, 0.4)

    whole = collector(3, policy())
    expected = [whole.collect(5) for _ in range(8)]
    first = collector(3, policy())
    for _ in range(after):
        first.collect(5)
    plan, saved = pack(first.state())
    like = packed_like(plan, envs(1)[0], policy().memory())
    assert jax.tree.map(lambda leaf: np.shape(leaf), like) == jax.tree.map(lambda leaf: np.shape(leaf), saved)
    resumed = collector(3, policy())
    assert resumed.restore(unpack(json.loads(json.dumps(plan)), saved)) == []
    for wanted in expected[after:]:
        got = resumed.collect(5)
        assert got.returns == wanted.returns and got.steps == wanted.steps
        for a, b in zip(
            jax.tree.leaves((got.tape, got.memory)), jax.tree.leaves((wanted.tape, wanted.memory)), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_an_episode_whose_replay_diverges_starts_again():
    first = collector(2, Fixed())
    first.collect(5)
    state = first.state()
    changed = next(e.number for e in state.in_progress if e is not None and e.actions and not e.over)
    other = RolloutCollector(LocalEnvs(envs(2)), Fixed(), lambda n: seed_of(n) + (n == changed))
    assert other.restore(state) == [changed]
    row = next(i for i, e in enumerate(state.in_progress) if e is not None and e.number == changed)
    assert other.collect(3).tape.begin[row, 0]


@pytest.mark.parametrize("at", [0, 2])
def test_an_episode_with_a_fault_becomes_padding_and_another_begins(at: int, fault):  # noqa: F811
    healthy = collector(3, Fixed())
    for _ in range(3):
        healthy.collect(8)
    bad = next(n for n in range(2, 20) if len(slow_episode(n)["begin"]) > 4)
    dropped = slow_episode(bad)["observation"][0]

    def raising(seed: int, t: int) -> None:
        if (seed, t) == (seed_of(bad), at):
            raise RuntimeError("gone")

    fault(raising)
    said: list[str] = []
    collecting = collector(3, Fixed(), ended=lambda fault: said.append(str(fault)) if fault else None)
    rollouts = [collecting.collect(8) for _ in range(3)]
    assert len(said) == 1 and said[0].startswith(f"episode {bad}: ") and "gone" in said[0]
    seen = np.concatenate([r.tape.observation[r.tape.transition] for r in rollouts])
    assert not (seen == dropped).all(-1).any()
    assert collecting.upcoming >= healthy.upcoming
    for rollout in rollouts:
        padding = rollout.tape.begin & ~rollout.tape.transition
        assert not rollout.tape.observation[padding].any() and not rollout.tape.reward[padding].any()
    with pytest.raises(EnvironmentFault, match=f"episode {bad}: "):
        alone = collector(3, Fixed())
        for _ in range(3):
            alone.collect(8)
