"""Host collection: episodes come out in the order in which they started, the same for every number of environments."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kinds_of_memory import SMALL
from memoroids._util.imports import name_of
from memoroids.acting import host_collection
from memoroids.acting.collection_state import Episode, pack, packed_like, unpack
from memoroids.acting.host_collection import Collector, collect
from memoroids.acting.policies import Policy, RandomPolicy, RecurrentPolicy
from memoroids.agents.base import Plan
from memoroids.agents.dqn import DQNConfig, dqn
from memoroids.agents.networks import QNetwork
from memoroids.envs import EnvironmentFault, HostEnv
from memoroids.envs.host.vector import LocalEnvs
from memoroids.envs.spaces import Factored
from memoroids.memory import REGISTRY

ACTIONS = 3
UNEVEN = "test-collect/Uneven-v0"


class Uneven(gym.Env):
    """Episodes of 1 to 8 steps; length, end and observations follow from the seed, rewards from the action."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Discrete(ACTIONS)
    fault: Callable[[int, int], None] | None = None
    """Called with seed and step, may raise."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.seed, self.t = seed, 0
        self.length = int(self.np_random.integers(1, 9))
        self.end = int(self.np_random.integers(3))
        return self._look(), {}

    def step(self, action: int):
        self.t += 1
        over = self.t == self.length
        return self._look(), float(action) + self.t / 8, over and self.end != 1, over and self.end != 0, {}

    def _look(self) -> np.ndarray:
        if Uneven.fault is not None:
            Uneven.fault(self.seed, self.t)
        return self.np_random.normal(size=3).astype(np.float32)


gym.register(UNEVEN, entry_point=Uneven)


def seed_of(number: int) -> int:
    return 1000 + 7 * number


def envs(num_envs: int, **options: Any) -> list[HostEnv]:
    return [HostEnv(UNEVEN, **options) for _ in range(num_envs)]


def fixed_actions(observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
    return (7 * number + 2 * step) % ACTIONS


def arrays(episode: Episode) -> dict[str, np.ndarray]:
    tape = episode.tape
    return {name: np.asarray(getattr(tape, name)) for name in tape.__dataclass_fields__}


def assert_same(left: list[Episode], right: list[Episode]) -> None:
    assert [e.number for e in left] == [e.number for e in right]
    for a, b in zip(left, right, strict=True):
        assert (a.total, a.length) == (b.total, b.length)
        for name, values in arrays(a).items():
            np.testing.assert_array_equal(values, arrays(b)[name], err_msg=f"{name} of episode {a.number}")


def slow_episode(number: int) -> dict[str, np.ndarray]:
    """What the tape of an episode must hold, from the bare environment and one step at a time."""
    env = gym.make(UNEVEN, disable_env_checker=True)
    observations, actions, rewards = [env.reset(seed=seed_of(number))[0]], [], []
    while True:
        actions.append((7 * number + 2 * len(actions)) % ACTIONS)
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            break
    length = len(actions)
    flags = np.zeros((4, length + 1), bool)
    flags[0, 0] = True
    flags[1, length - 1] = terminated
    flags[2, length - 1] = truncated and not terminated
    flags[3, :length] = True
    return {
        "observation": np.stack(observations),
        "begin": flags[0],
        "action": np.array([*actions, 0]),
        "reward": np.array([*rewards, 0], np.float32),
        "terminated": flags[1],
        "truncated": flags[2],
        "transition": flags[3],
    }


@pytest.mark.parametrize("num_envs", [1, 3, 8, 50])
def test_every_episode_comes_out_once_in_the_order_of_starting_and_equals_a_slow_loop(num_envs: int):
    asked: list[int] = []

    def seeds(number: int) -> int:
        asked.append(number)
        return seed_of(number)

    episodes = list(collect(envs(num_envs), fixed_actions, seeds, 0, 30))
    assert [e.number for e in episodes] == list(range(30))
    assert asked == list(range(30))
    assert len({e.length for e in episodes}) > 4, "the environment is meant to give many lengths"
    ends = set()
    for episode in episodes:
        expected = slow_episode(episode.number)
        for name, values in arrays(episode).items():
            np.testing.assert_array_equal(values, expected[name], err_msg=f"{name} of episode {episode.number}")
        assert episode.length == len(expected["action"]) - 1
        assert episode.total == pytest.approx(float(expected["reward"].sum()))
        assert len(episode.tape.observation) == episode.length + 1
        ends.add((bool(expected["terminated"].any()), bool(expected["truncated"].any())))
    assert ends == {(True, False), (False, True)}


def test_episodes_come_out_in_order_even_if_the_first_is_the_longest():
    lengths = {seed: len(slow_episode(seed)["action"]) - 1 for seed in range(60)}
    ranked = sorted(lengths, key=lengths.__getitem__)
    seeds = [ranked[-1], *ranked[:4]]
    order: list[tuple[int, int]] = []
    for episode in collect(envs(2), fixed_actions, lambda number: seed_of(seeds[number]), 0, 5):
        order.append((episode.number, episode.length))
    assert order == [(number, lengths[seed]) for number, seed in enumerate(seeds)]
    assert lengths[seeds[0]] > lengths[seeds[1]] + lengths[seeds[2]]


def test_a_later_start_gives_the_same_episodes_as_the_whole():
    whole = list(collect(envs(3), fixed_actions, seed_of, 0, 12))
    assert_same(list(collect(envs(2), fixed_actions, seed_of, 5, 12)), whole[5:])
    assert list(collect(envs(2), fixed_actions, seed_of, 12, 12)) == []


def test_both_end_flags_at_once_are_a_termination():
    both = [n for n in range(30) if _ends(n) == (True, True)]
    assert both
    for episode in collect(envs(1), fixed_actions, seed_of, both[0], both[0] + 1):
        assert episode.tape.terminated[-2] and not episode.tape.truncated.any()


def _ends(number: int) -> tuple[bool, bool]:
    env = gym.make(UNEVEN, disable_env_checker=True)
    env.reset(seed=seed_of(number))
    while True:
        _, _, terminated, truncated, _ = env.step(0)
        if terminated or truncated:
            return terminated, truncated


def test_the_previous_action_joins_the_observation_of_the_slot_after_it():
    for episode in collect(envs(2, previous_action=True), fixed_actions, seed_of, 0, 6):
        shown = np.asarray(episode.tape.observation)[:, 3:]
        np.testing.assert_array_equal(shown[0], np.zeros(ACTIONS))
        np.testing.assert_array_equal(shown[1:], np.eye(ACTIONS)[np.asarray(episode.tape.action)[:-1]])


def test_a_policy_receives_begin_number_and_step_of_every_environment():
    seen: list[tuple[int, int, bool]] = []

    def watching(observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        assert observation.shape == (3, 3) and observation.dtype == np.float32
        assert number.dtype == step.dtype == np.int32
        seen.extend(zip(number.tolist(), step.tolist(), begin.tolist(), strict=True))
        return fixed_actions(observation, begin, number, step)

    episodes = list(collect(envs(3), watching, seed_of, 0, 9))
    expected = {(e.number, t, t == 0) for e in episodes for t in range(e.length)}
    assert expected <= set(seen)


def random_actions(num_envs: int, seed: int = 0) -> list[Episode]:
    return list(collect(envs(num_envs), RandomPolicy(ACTIONS, seed), seed_of, 0, 30))


def test_random_actions_of_an_episode_do_not_depend_on_num_envs():
    alone = random_actions(1)
    for num_envs in (3, 8):
        assert_same(random_actions(num_envs), alone)


def test_random_actions_are_uniform_and_differ_by_seed_and_by_episode():
    policy = RandomPolicy(ACTIONS, 0)
    steps = np.stack(
        [policy(np.zeros((50, 3), np.float32), np.full(50, t == 0), np.arange(50), np.full(50, t)) for t in range(200)]
    )
    share = np.bincount(steps.ravel(), minlength=ACTIONS) / steps.size
    np.testing.assert_allclose(share, 1 / ACTIONS, atol=0.02)
    assert len({tuple(column) for column in steps.T}) == 50
    chosen = [np.concatenate([e.tape.action for e in random_actions(1, seed)]).tolist() for seed in (0, 1)]
    assert chosen[0] != chosen[1]


def test_random_actions_of_several_parts_are_uniform_in_each_and_go_on_where_they_were():
    sizes, n = (3, 2, 4), np.arange(50)

    def drawn(policy: RandomPolicy, first: int, last: int) -> np.ndarray:
        observation = np.zeros((50, 3), np.float32)
        return np.stack([policy(observation, np.full(50, t == 0), n, np.full(50, t)) for t in range(first, last)])

    steps = drawn(RandomPolicy(Factored(sizes), 0), 0, 200)
    assert steps.shape == (200, 50, 3) and steps.dtype == np.int32
    number = np.ravel_multi_index(tuple(np.moveaxis(steps, -1, 0)), sizes)
    np.testing.assert_allclose(np.bincount(number.ravel(), minlength=24) / number.size, 1 / 24, atol=0.01)
    resumed = RandomPolicy(Factored(sizes), 0)
    resumed.restore((), n, np.full(50, 120))
    np.testing.assert_array_equal(drawn(resumed, 120, 200), steps[120:])


def network(memory: str = "gru") -> QNetwork:
    return QNetwork(3, ACTIONS, REGISTRY[memory], key=jax.random.key(5), width=8, sizes=SMALL[memory])


def recurrent(num_envs: int, epsilon: float, *, memory: str = "gru", key: int = 0) -> RecurrentPolicy:
    net = network(memory)
    algorithm = dqn(DQNConfig(), net, Plan())
    params = algorithm.init(net).params
    return RecurrentPolicy(
        algorithm.act,
        net.initial_state(),
        num_envs,
        params=lambda: params,
        explore=lambda number: np.full(number.shape, epsilon, np.float32),
        key=jax.random.key(key),
    )


def test_exploring_actions_of_an_episode_do_not_depend_on_num_envs():
    alone = list(collect(envs(1), recurrent(1, 0.4), seed_of, 0, 16))
    for num_envs in (3, 8):
        assert_same(list(collect(envs(num_envs), recurrent(num_envs, 0.4), seed_of, 0, 16)), alone)


def test_exploration_depends_on_its_share_its_key_and_the_episode():
    def actions(epsilon: float, key: int) -> list[list[int]]:
        episodes = collect(envs(2), recurrent(2, epsilon, memory="mlp", key=key), seed_of, 0, 12)
        return [e.tape.action[:-1].tolist() for e in episodes]

    greedy, exploring = actions(0.0, 0), actions(1.0, 0)
    assert actions(0.0, 1) == greedy
    assert actions(1.0, 1) != exploring
    assert exploring != greedy
    assert {episode[0] for episode in exploring} == set(range(ACTIONS))


def test_the_share_of_random_actions_follows_the_number_of_the_episode():
    net = network("mlp")
    algorithm = dqn(DQNConfig(), net, Plan())
    params = algorithm.init(net).params

    def policy(epsilon: Callable[[np.ndarray], np.ndarray]) -> Policy:
        key = jax.random.key(0)
        return RecurrentPolicy(algorithm.act, net.initial_state(), 2, params=lambda: params, explore=epsilon, key=key)

    greedy = list(collect(envs(2), policy(lambda n: np.zeros(n.shape, np.float32)), seed_of, 0, 12))
    late = list(collect(envs(2), policy(lambda n: (n >= 6).astype(np.float32)), seed_of, 0, 12))
    assert_same(late[:6], greedy[:6])
    same = [np.array_equal(a.tape.action, b.tape.action) for a, b in zip(late[6:], greedy[6:], strict=True)]
    assert not all(same)


@pytest.mark.parametrize("memory", SMALL)
def test_acting_and_one_pass_over_the_episode_give_the_same_values(memory: str):
    net = network(memory)
    static = eqx.partition(net, eqx.is_inexact_array)[1]
    algorithm = dqn(DQNConfig(), net, Plan())
    params = algorithm.init(net).params
    values: dict[tuple[int, int], np.ndarray] = {}

    def act_and_show(params: Any, state: Any, observation: jax.Array, begin: jax.Array, *rest: jax.Array) -> Any:
        q, _ = eqx.combine(params, static).step(observation, begin, state)
        action, state = algorithm.act(params, state, observation, begin, *rest)
        return jnp.append(q, action), state

    showing = RecurrentPolicy(
        act_and_show,
        net.initial_state(),
        3,
        params=lambda: params,
        explore=lambda number: np.zeros(number.shape, np.float32),
        key=jax.random.key(0),
    )

    def policy(observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        shown = showing(observation, begin, number, step)
        values.update({(int(n), int(t)): row[:-1] for n, t, row in zip(number, step, shown, strict=True)})
        return shown[:, -1].astype(np.int32)

    episodes = list(collect(envs(3), policy, seed_of, 0, 12))
    whole_pass = eqx.filter_jit(net)
    room = max(e.length for e in episodes) + 1
    clear = 0
    for episode in episodes:
        # One length for all keeps it at one compilation; what follows cannot change what came before.
        observation = np.zeros((room, 3), np.float32)
        observation[: episode.length + 1] = episode.tape.observation
        q = np.asarray(whole_pass(observation, np.arange(room) == 0)[0])[: episode.length]
        acted = np.stack([values[episode.number, t] for t in range(episode.length)])
        np.testing.assert_allclose(acted, q, atol=1e-4, rtol=0)
        top = np.sort(q, axis=1)
        decided = top[:, -1] - top[:, -2] > 2e-4
        np.testing.assert_array_equal(episode.tape.action[:-1][decided], np.argmax(q, axis=1)[decided])
        clear += int(decided.sum())
    assert clear > 20


@pytest.fixture
def fault() -> Iterator[Callable[[Callable[[int, int], None]], None]]:
    def install(function: Callable[[int, int], None]) -> None:
        Uneven.fault = function

    yield install
    Uneven.fault = None


@pytest.mark.parametrize(("step", "where"), [(0, "reset"), (1, "step 1")])
def test_a_fault_names_its_episode_and_step_and_the_episodes_before_it_are_whole(
    step: int, where: str, fault: Callable[[Callable[[int, int], None]], None]
):
    healthy = list(collect(envs(3), fixed_actions, seed_of, 0, 20))

    def raising(seed: int, t: int) -> None:
        if (seed, t) == (seed_of(11), step):
            raise RuntimeError("the server is\ngone")

    fault(raising)
    before: list[Episode] = []
    with pytest.raises(EnvironmentFault) as error:
        for episode in collect(envs(3), fixed_actions, seed_of, 0, 20):
            before.append(episode)
    message = str(error.value)
    assert "\n" not in message
    assert "episode 11" in message and where in message and UNEVEN in message and "the server is gone" in message
    assert 5 < len(before) <= 11
    assert_same(before, healthy[: len(before)])


# --- resuming a collection -------------------------------------------------------------------------------------------


def stopped(num_envs: int, policy: Any, after: int) -> tuple[list[Episode], Any]:
    """The first `after` episodes, and the state of the collection then, packed and unpacked."""
    collector = Collector(LocalEnvs(envs(num_envs)), policy, seed_of, 0, 20)
    episodes = list(islice(collector, after))
    plan, saved = pack(collector.state())
    like = packed_like(plan, envs(1)[0], policy.memory())
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), like) == jax.tree.map(
        lambda leaf: (np.asarray(leaf).shape, np.asarray(leaf).dtype), saved
    )
    return episodes, unpack(json.loads(json.dumps(plan)), saved)


@pytest.mark.parametrize("kind", ["random", "recurrent"])
@pytest.mark.parametrize("after", [1, 4, 9, 19])
def test_a_collection_resumes_bit_for_bit(kind: str, after: int):
    def policy() -> Any:
        return RandomPolicy(ACTIONS, 3) if kind == "random" else recurrent(3, 0.4)

    whole = list(collect(envs(3), policy(), seed_of, 0, 20))
    first, state = stopped(3, policy(), after)
    resumed = Collector(LocalEnvs(envs(3)), policy(), seed_of, after, 20)
    assert resumed.restore(state) == []
    assert_same([*first, *resumed], whole)


def test_only_episodes_whose_replay_diverges_start_again():
    whole = list(collect(envs(3), RandomPolicy(ACTIONS, 3), seed_of, 0, 20))
    first, state = stopped(3, RandomPolicy(ACTIONS, 3), 4)
    changed = next(episode.number for episode in state.in_progress if episode is not None and episode.actions)

    def seed_of_another(number: int) -> int:
        return seed_of(number) + (number == changed)

    other = Collector(LocalEnvs(envs(3)), RandomPolicy(ACTIONS, 3), seed_of_another, 4, 20)
    assert other.restore(state) == [changed]
    rest = list(other)
    assert [episode.number for episode in [*first, *rest]] == list(range(20))
    unchanged = [number for number in range(20) if number != changed]
    both = [*first, *rest]
    assert_same([both[number] for number in unchanged], [whole[number] for number in unchanged])
    anew = list(collect(envs(1), RandomPolicy(ACTIONS, 3), seed_of_another, changed, changed + 1))
    assert_same([both[changed]], anew)


def test_an_episode_with_a_fault_is_dropped_and_replaced(
    fault: Callable[[Callable[[int, int], None]], None],
):
    healthy = list(collect(envs(3), fixed_actions, seed_of, 0, 22))

    def raising(seed: int, t: int) -> None:
        if (seed, t) in ((seed_of(4), 0), (seed_of(11), 1)):
            raise RuntimeError("gone")

    fault(raising)
    said: list[str] = []
    collector = Collector(
        LocalEnvs(envs(3)),
        fixed_actions,
        seed_of,
        0,
        20,
        ended=lambda fault: said.append(str(fault)) if fault else None,
    )
    kept = list(collector)
    assert_same(kept, [episode for episode in healthy if episode.number not in (4, 11)])
    assert len(kept) == 20 and collector.due == 22
    assert sorted(line.split(":")[0] for line in said) == ["episode 11", "episode 4"]


class Endless(gym.Env):
    """An environment whose episodes do not end."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int):
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_episodes_that_do_not_end_are_answered_with_the_option_that_ends_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_collection, "ENDLESS", 50)
    name = name_of(Endless)
    ended = []
    collector = Collector(
        LocalEnvs([HostEnv(name)]), RandomPolicy(2, 0), seed_of, 3, 5, ended=lambda fault: ended.append(fault)
    )
    says = r"episode 3: .*Endless has not ended it after 50 steps: set --max-episode-steps"
    with pytest.raises(EnvironmentFault, match=says):
        next(iter(collector))
    assert ended == []
    limited = HostEnv(name, max_episode_steps=200)
    assert [episode.length for episode in collect([limited], RandomPolicy(2, 0), seed_of, 0, 2)] == [200, 200]
