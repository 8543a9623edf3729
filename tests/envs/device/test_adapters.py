"""Adapters of other JAX libraries, tested with stand-ins, and with the libraries themselves if installed."""

import dataclasses
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.envs.device import DeviceEnv, DeviceView, make_device
from memoroids.envs.device.adapters import Gymnax, Held, _gymnax_space
from memoroids.envs.spaces import Continuous

KEY = jax.random.key(0)


def ends(env: DeviceEnv, actions: list[Any], seed: int = 0) -> tuple[int, bool, bool]:
    """Plays actions until the episode ends; returns their number, and whether it terminated and was truncated."""
    step = jax.jit(env.step)
    state, _ = jax.jit(env.reset)(jax.random.key(seed))
    for i, action in enumerate(actions, 1):
        state, told = step(state, jnp.asarray(action), jax.random.key(i))
        if told.terminated or told.truncated:
            return i, bool(told.terminated), bool(told.truncated)
    return len(actions), False, False


def scanned(env: DeviceEnv, steps: int) -> Any:
    """Random steps through the view in a `scan`, whose state must keep its dtypes."""
    view = DeviceView("env", env)

    def step(state: Any, key: jax.Array) -> Any:
        if isinstance(view.actions, Continuous):
            low, high = jnp.asarray(view.actions.low), jnp.asarray(view.actions.high)
            action = jax.random.uniform(key, low.shape, minval=low, maxval=high)
        else:
            action = jax.random.randint(key, (), 0, view.actions)
        return view.step(state, action, key)

    state, first = view.reset(KEY)
    _, told = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))(state, jax.random.split(KEY, steps))
    assert first.shape == view.observation_shape and told.observation.shape == (steps, *view.observation_shape)
    return jax.tree.map(np.asarray, told)


# --- stand-ins --------------------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    max_steps_in_episode: int = 6
    goal: int = 4

    def replace(self, **changes: Any) -> "Params":
        return dataclasses.replace(self, **changes)


class Walk(NamedTuple):
    """`paid` starts as a Python integer and becomes a float array of one element."""

    position: Any
    paid: Any
    time: Any


class Walker:
    """The position increases by the action until the goal; the reward is a vector of one element."""

    def __init__(self, start: int = 0):
        self.start = start

    def observation_space(self, params: Params) -> Any:
        return space("Box", low=jnp.zeros(2) - 1, high=10.0, shape=(2,), dtype=jnp.float32)

    def action_space(self, params: Params) -> Any:
        return space("Discrete", n=2)

    def reset_env(self, key: jax.Array, params: Params) -> Any:
        state = Walk(jnp.asarray(self.start), 0, 0)
        return self._see(state), state

    def _see(self, state: Walk) -> jax.Array:
        return jnp.stack((jnp.asarray(state.position, float), jnp.asarray(state.time, float)))

    def step_env(self, key: jax.Array, state: Walk, action: Any, params: Params) -> Any:
        reward = jnp.asarray([0.5]) * action
        state = Walk(state.position + action, state.paid + reward, state.time + 1)
        return self._see(state), state, reward, self._over(state, params), {}


class OldWalker(Walker):
    """As in gymnax 0.0.9: a single flag for both ends."""

    def is_terminal(self, state: Walk, params: Params) -> Any:
        return (state.position >= params.goal) | (state.time >= params.max_steps_in_episode)

    _over = is_terminal


class NewWalker(Walker):
    """As in gymnax 1.0: the flag of `step_env` means termination."""

    def is_truncated(self, state: Walk, params: Params) -> Any:
        return state.time >= params.max_steps_in_episode

    def _over(self, state: Walk, params: Params) -> Any:
        return state.position >= params.goal


def space(kind: str, **attributes: Any) -> Any:
    return type(kind, (), attributes)()


@pytest.fixture(params=[OldWalker, NewWalker], ids=["0.0.9", "1.0"])
def gymnax_stand_in(request, monkeypatch):
    def make(id_: str, **kwargs: Any) -> Any:
        return request.param(**kwargs), Params()

    module = ModuleType("gymnax")
    vars(module).update(registered_envs=["Walk-v0"], make=make)
    monkeypatch.setitem(sys.modules, "gymnax", module)


@pytest.mark.usefixtures("gymnax_stand_in")
def test_gymnax_ends_are_told_apart():
    env = make_device("gymnax:Walk-v0")
    assert (env.max_length, env.min_length) == (6, 1)
    assert ends(env, [1] * 9) == (4, True, False)
    assert ends(env, [1, 0, 0, 0, 0, 0, 0]) == (6, False, True)
    at_limit = ends(env, [1, 1, 1, 0, 0, 1])
    assert at_limit[:2] == (6, True)
    view = DeviceView("walk", env)
    state, _ = view.reset(KEY)
    for action in (1, 1, 1, 0, 0, 1):
        state, told = view.step(state, jnp.asarray(action), KEY)
    assert told.terminated and not told.truncated


@pytest.mark.usefixtures("gymnax_stand_in")
def test_gymnax_options_reach_parameters_and_constructor():
    env = make_device("gymnax:Walk-v0", {"max_steps_in_episode": 3, "start": 1, "goal": 9})
    assert env.max_length == 3
    assert ends(env, [1] * 9) == (3, False, True)
    np.testing.assert_array_equal(env.reset(KEY)[1], [1, 0])
    with pytest.raises(ValueError, match=r"^cannot make environment 'gymnax:Walk-v0' with options {'gaol': 9}: .*gaol"):
        make_device("gymnax:Walk-v0", {"gaol": 9})


@pytest.mark.usefixtures("gymnax_stand_in")
def test_gymnax_states_keep_their_types_and_rewards_are_scalars():
    env = make_device("gymnax:Walk-v0")
    state, _ = env.reset(KEY)
    after, told = env.step(state, jnp.asarray(1), KEY)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert state.paid.dtype == jnp.float32 and after.paid == 0.5
    assert told.reward.shape == () and told.reward == 0.5
    told = scanned(env, 5)
    np.testing.assert_array_equal(told.observation[:, 1], np.arange(1, 6))


def test_gymnax_spaces_become_gymnasiums():
    inner = {"a": space("Discrete", n=3), "b": space("Box", low=0, high=255, shape=(2, 3), dtype=np.uint8)}
    expected = {"a": gym.spaces.Discrete(3), "b": gym.spaces.Box(0, 255, (2, 3), np.uint8)}
    assert _gymnax_space(space("Dict", spaces=inner)) == gym.spaces.Dict(expected)
    assert _gymnax_space(space("Tuple", spaces=tuple(inner.values()))) == gym.spaces.Tuple(expected.values())
    with pytest.raises(ValueError, match="has no counterpart"):
        _gymnax_space(space("Graph"))


def test_spaces_whose_bounds_jax_computes_can_be_asked_for_while_tracing():
    env = Gymnax(held=Held(NewWalker(), Params()), max_length=6)
    shape = jax.eval_shape(lambda x: x + env.observation_space.low[0], jnp.zeros(()))
    assert shape.shape == ()
    assert env.observation_space == gym.spaces.Box(-1, 10, (2,), np.float32)


class Timestep(NamedTuple):
    t: Any
    observation: Any
    reward: Any
    step_type: Any
    state: Any


def symbolic(state: Any) -> Any:
    return jnp.full((2, 2, 3), state, jnp.uint8)


def categorical(state: Any) -> Any:
    return jnp.full((2, 2), state - 1, jnp.int32)


def rgb(state: Any) -> Any:
    return jnp.full((64, 64, 3), state, jnp.uint8)


def other(state: Any) -> Any:
    return jnp.asarray(state, float)


class Corridor:
    """As in navix: action 1 moves forward, the third square is the goal."""

    action_set = ("stay", "go")

    def __init__(self, max_steps: int = 5, observation_fn: Any = symbolic):
        self.max_steps, self.observation_fn = max_steps, observation_fn

    def reset(self, key: jax.Array) -> Timestep:
        zero = jnp.zeros((), jnp.int32)
        return Timestep(zero, self.observation_fn(zero), jnp.zeros(()), zero, zero)

    def _step(self, before: Timestep, action: jax.Array) -> Timestep:
        t, state = before.t + 1, before.state + action
        kind = jnp.where(state == 3, 2, jnp.where(t >= self.max_steps, 1, 0))
        return Timestep(t, self.observation_fn(state), jnp.asarray(state == 3, float), kind, state)


@pytest.fixture
def navix_stand_in(monkeypatch):
    module = ModuleType("navix")
    functions = SimpleNamespace(symbolic=symbolic, categorical=categorical, rgb=rgb, other=other)
    registry = {"Navix-Corridor-v0": Corridor}
    vars(module).update(
        registry=lambda: registry, make=lambda id_, **options: registry[id_](**options), observations=functions
    )
    monkeypatch.setitem(sys.modules, "navix", module)


@pytest.mark.usefixtures("navix_stand_in")
def test_navix_ends_and_options():
    env = make_device("navix:Navix-Corridor-v0", {"max_steps": 3})
    assert (env.max_length, env.min_length, env.action_space) == (3, 1, gym.spaces.Discrete(2))
    assert ends(env, [1, 1, 1]) == (3, True, False)
    assert ends(env, [1, 0, 1]) == (3, False, True)
    scanned(env, 3)


@pytest.mark.usefixtures("navix_stand_in")
@pytest.mark.parametrize(
    ("name", "expected", "size"),
    [
        ("symbolic", gym.spaces.MultiDiscrete(np.broadcast_to([11, 6, 4], (2, 2, 3))), (84,)),
        ("categorical", gym.spaces.MultiDiscrete(np.full((2, 2), 12), start=np.full((2, 2), -1)), (48,)),
        ("rgb", gym.spaces.Box(0, 255, (64, 64, 3), np.uint8), (64, 64, 3)),
        ("other", gym.spaces.Box(-np.inf, np.inf, (), np.float32), (1,)),
    ],
)
def test_navix_observations(name, expected, size):
    env = make_device("navix:Navix-Corridor-v0", {"observation_fn": name})
    assert env.observation_space == expected
    view = DeviceView("corridor", env)
    assert view.observation_shape == size
    assert view.reset(KEY)[1].shape == size


class Mini(NamedTuple):
    state: Any
    step_num: Any
    discount: Any
    reward: Any
    observation: Any

    def last(self) -> Any:
        return self.step_num < 0


class MiniGrid:
    """As in xminigrid: action 2 terminates the episode; the number of the last step is negated."""

    def num_actions(self, params: Any) -> int:
        return 3

    def observation_shape(self, params: Any) -> tuple[int, ...]:
        return (params.view_size, params.view_size, 2)

    def _see(self, state: Any, params: Any) -> jax.Array:
        return jnp.full(self.observation_shape(params), state, jnp.uint8)

    def reset(self, params: Any, key: jax.Array) -> Mini:
        zero = jnp.zeros((), jnp.int32)
        return Mini(zero, zero, jnp.ones(()), jnp.zeros(()), self._see(zero, params))

    def step(self, params: Any, before: Mini, action: jax.Array) -> Mini:
        state, over = before.step_num + 1, action == 2
        number = jnp.where(over | (state == params.max_steps), -state, state)
        discount = jnp.where(over, 0.0, 1.0)
        return Mini(state, number, discount, jnp.asarray(over, float), self._see(action, params))


def test_xminigrid_ends_and_views(monkeypatch):
    module, constants = ModuleType("xminigrid"), ModuleType("xminigrid.core.constants")

    def make(id_: str, max_steps: int = 4, view_size: int = 3) -> Any:
        return MiniGrid(), SimpleNamespace(max_steps=max_steps, view_size=view_size)

    vars(module).update(make=make, registered_environments=lambda: ("MiniGrid-Room",))
    vars(constants).update(NUM_TILES=5, NUM_COLORS=4)
    for name, stand_in in (("xminigrid", module), ("xminigrid.core.constants", constants)):
        monkeypatch.setitem(sys.modules, name, stand_in)
    env = make_device("xminigrid:MiniGrid-Room")
    assert env.observation_space == gym.spaces.MultiDiscrete(np.broadcast_to([5, 4], (3, 3, 2)))
    assert (env.max_length, env.action_space) == (4, gym.spaces.Discrete(3))
    assert ends(env, [0, 2, 0]) == (2, True, False)
    assert ends(env, [0, 0, 0, 0]) == (4, False, True)
    assert ends(env, [0, 0, 0, 2]) == (4, True, False)
    assert make_device("xminigrid:MiniGrid-Room", {"max_steps": 2}).max_length == 2
    told = scanned(env, 3)
    assert told.observation.shape == (3, 81) and np.all(told.observation.sum(1) == 18)


@pytest.mark.parametrize("library", ["gymnax", "navix", "xminigrid"])
def test_a_library_that_is_missing_is_named_with_its_extra(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ValueError, match=rf"needs the extra {library} .*pip install 'memoroids\[{library}\]'$"
    ) as error:
        make_device(f"{library}:Something-v0")
    assert "\n" not in str(error.value)


# --- the libraries themselves -----------------------------------------------------------------------------------------


@pytest.fixture
def lenient():
    """Allows rank promotion, which the libraries' code relies on."""
    with jax.numpy_rank_promotion("allow"):
        yield


real = pytest.mark.filterwarnings("ignore")


@real
@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(
    ("id_", "size", "actions"),
    [
        ("CartPole-v1", (4,), 2),
        ("Pendulum-v1", (3,), Continuous(1, (-2.0,), (2.0,))),
        ("MemoryChain-bsuite", (3,), 2),
        ("Breakout-MinAtar", (400,), 3),
    ],
)
def test_gymnax(id_, size, actions):
    gymnax = pytest.importorskip("gymnax")
    env = make_device(f"gymnax:{id_}", {"max_steps_in_episode": 12})
    view = DeviceView(id_, env)
    assert (view.observation_shape, view.actions, env.max_length) == (size, actions, 12)
    told = scanned(env, 12)
    first_end = np.flatnonzero(told.terminated | told.truncated)[0]
    assert told.terminated[first_end] != told.truncated[first_end]
    theirs, params = gymnax.make(id_)
    assert params.max_steps_in_episode != 12
    state, observation = env.reset(KEY)
    seen, inner = theirs.reset_env(KEY, params)
    np.testing.assert_array_equal(observation, seen)
    action = jnp.zeros(env.action_space.shape, jnp.float32 if isinstance(actions, Continuous) else jnp.int32)
    _, told = env.step(state, action, KEY)
    seen, _, reward, _, _ = theirs.step_env(KEY, inner, action, params)
    np.testing.assert_allclose(told.observation, seen, rtol=1e-6)
    np.testing.assert_allclose(told.reward, np.squeeze(reward), rtol=1e-6)


@real
@pytest.mark.usefixtures("lenient")
def test_gymnax_tells_a_fall_from_the_limit():
    pytest.importorskip("gymnax")
    env = make_device("gymnax:CartPole-v1", {"max_steps_in_episode": 9})
    count, terminated, truncated = ends(env, [1] * 9)
    # The pole falls after eight to ten pushes to one side; a fall at the limit is still a termination.
    if count == 9 and terminated:
        env = make_device("gymnax:CartPole-v1", {"max_steps_in_episode": 10})
        assert ends(env, [1] * 9) == (9, True, False)
    else:
        assert (terminated, truncated) == (count < 9, count == 9)
    assert ends(env, [0, 1] * 5) == (env.max_length, False, True)


@real
@pytest.mark.usefixtures("lenient")
def test_navix():
    pytest.importorskip("navix")
    env = make_device("navix:Navix-Empty-5x5-v0", {"max_steps": 8})
    assert env.max_length == 8
    # Actions 0 and 1 turn left and right, 2 moves forward: forward twice, right, forward twice reaches the goal.
    assert ends(env, [2, 2, 1, 2, 2]) == (5, True, False)
    assert ends(env, [0] * 9) == (8, False, True)
    told = scanned(env, 8)
    assert told.observation.shape == (8, 525) and np.all(told.observation.sum(1) == 75)
    partial = make_device("navix:Navix-Empty-5x5-v0", {"observation_fn": "symbolic_first_person"})
    assert DeviceView("navix", partial).observation_shape == (7 * 7 * 21,)
    assert np.all(scanned(partial, 5).observation.sum(1) == 7 * 7 * 3)


@real
@pytest.mark.usefixtures("lenient")
def test_xminigrid():
    pytest.importorskip("xminigrid")
    env = make_device("xminigrid:MiniGrid-Empty-5x5", {"max_steps": 8})
    assert env.max_length == 8
    # Action 0 moves forward, 1 and 2 turn right and left.
    assert ends(env, [0, 0, 1, 0, 0]) == (5, True, False)
    assert ends(env, [1] * 9) == (8, False, True)
    told = scanned(env, 8)
    assert told.observation.shape == (8, 7 * 7 * 25) and np.all(told.observation.sum(1) == 98)


@real
@pytest.mark.parametrize(
    ("library", "name"), [("gymnax", "CartPole-v2"), ("navix", "Navix-Empty-5x5"), ("xminigrid", "Mini")]
)
def test_an_id_that_a_library_does_not_know(library, name):
    pytest.importorskip(library)
    with pytest.raises(ValueError, match=rf"^{library} has no environment '{name}'") as error:
        make_device(f"{library}:{name}")
    assert "\n" not in str(error.value)
