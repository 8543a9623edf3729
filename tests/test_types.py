"""Every memory, agent and buffer keeps its own types, whatever the flags of the session and the inputs."""

import contextlib
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kinds_of_memory import SMALL
from memoroids.agents.agent_registry import REGISTRY as AGENTS
from memoroids.agents.base import Plan, TrainingShare
from memoroids.agents.rollout_batch import Rollout
from memoroids.envs.spaces import Continuous
from memoroids.memory import REGISTRY as MEMORIES
from memoroids.replay import PriorityConfig, Sample, ring_buffer, segment_buffer, tape_buffer
from memoroids.tape import concatenate, episode
from memoroids.tape.segments import split

KEY, SIZE, LENGTH = jax.random.key(0), 4, 9
STATES = {name: {"complex64"} for name in ("lru", "s5", "ffm", "hgrn", "s4d", "rot_rnn")}
STATES |= {name: {"float32", "int32"} for name in ("window_attention", "gtrxl", "frame_stack", "shm")}
STATES |= {"mlp": set(), "positional_mlp": {"int32"}}
SIZES = {
    "lru": {"state_size": 4},
    "s5": {"state_size": 4},
    "ffm": {"trace_size": 4, "context_size": 2},
    "linear_transformer": {"key_size": 4, "value_size": 4},
    "min_gru": {"state_size": 4, "layers": 1},
    "min_lstm": {"state_size": 4, "layers": 1},
    "hgrn": {"state_size": 4},
    "s4d": {"state_size": 2, "layers": 1},
    "mamba": {"state_size": 2, "layers": 1},
    "rot_rnn": {"heads": 2, "head_size": 4, "layers": 1},
    "shm": {"memory_size": 4},
    "memory_traces": {"traces": 2},
    "lmu": {"order": 4},
}


@contextlib.contextmanager
def wide():
    """A session of 64 bits in which nothing is broadcast over a missing axis."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        yield


def types(tree):
    return [(jax.tree_util.keystr(path), leaf.shape, leaf.dtype) for path, leaf in leaves(tree)]


def leaves(tree):
    return jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))


def dtypes(tree):
    return {leaf.dtype.name for _, leaf in leaves(tree)}


def same_in_a_wide_session(function):
    """What `function` returns has the types and the numbers that it has in a session without flags."""
    narrow = function()
    with wide():
        got = function()
        assert types(got) == types(narrow)
        for (path, a), (_, b) in zip(leaves(got), leaves(narrow), strict=True):
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                continue
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=jax.tree_util.keystr(path))
    assert not {"float64", "complex128", "int64", "uint64"} & dtypes(got)
    return got


@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def outputs(memory, x, begin):
    return memory(x, begin)[0]


def sequence(dtype=np.float32):
    x = np.random.default_rng(0).normal(size=(LENGTH, SIZE)).astype(dtype)
    return x, np.isin(np.arange(LENGTH), (0, 5))


def build(name):
    return MEMORIES[name](SIZE, SIZE, key=KEY, **SIZES.get(name, {}))


def assert_keeps_its_types(name, memory, x, begin):
    """Every call gives a state of the same types and, from float32, a float32 output; nothing is computed for that."""
    initial = memory.initial_state()
    backends = memory.backends if name in SMALL else {memory.backends[0], memory.backends[-1]}
    calls = [eqx.filter_eval_shape(memory, x, begin, backend=backend) for backend in backends]
    for out, state in (*calls, eqx.filter_eval_shape(memory.step, x[0], begin[0], initial)):
        assert shapes_and_types(state) == shapes_and_types(initial)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == STATES.get(name, {"float32"})
        if x.dtype == np.float32:
            assert out.dtype == np.float32


def shapes_and_types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.one_in(5)
def test_a_memory_keeps_its_types(name):
    x, begin = sequence()

    def gradient(memory):
        return eqx.filter_grad(lambda memory: jnp.sum(jnp.sin(memory(x, begin)[0])))(memory)

    narrow = build(name)
    with wide():
        memory = build(name)
        assert types(memory) == types(narrow)
        assert_keeps_its_types(name, memory, x, begin)
        assert shapes_and_types(eqx.filter_eval_shape(gradient, memory)) == shapes_and_types(
            eqx.filter_eval_shape(lambda: eqx.filter(memory, eqx.is_inexact_array))
        )


@pytest.mark.parametrize("name", SMALL)
def test_a_memory_computes_the_same_in_a_wide_session(name):
    x, begin = sequence()

    def run():
        memory = build(name)
        return eqx.filter_jit(memory)(x, begin), eqx.filter_jit(memory.step)(x[0], begin[0], memory.initial_state())

    same_in_a_wide_session(run)


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.one_in(3)
def test_a_state_keeps_its_types_whatever_the_inputs(name):
    memory = build(name)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, memory)
    for each, dtype in ((memory, np.float64), (narrow, jnp.bfloat16)):
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            assert_keeps_its_types(name, each, *sequence(dtype))
    want = outputs(memory, *sequence())
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        got = outputs(narrow, *sequence(jnp.bfloat16))
    np.testing.assert_allclose(np.asarray(got, np.float32), want, rtol=0.2, atol=0.2)


def tapes():
    """Four episodes of 3 to 6 transitions."""
    rng = np.random.default_rng(1)
    return [
        episode(
            rng.normal(size=(n + 1, 3)).astype(np.float32),
            rng.integers(2, size=n).astype(np.int32),
            rng.normal(size=n),
            n % 2 == 0,
            n % 2 == 1,
        )
        for n in (3, 4, 5, 6)
    ]


def batch(kind, network, actions):
    tape = concatenate(tapes())
    if kind.traits.learns_from_replay:
        tape = jax.tree.map(jnp.asarray, tape)
        return Sample(tape, tape.transition.astype(jnp.float32))
    if isinstance(actions, Continuous):
        tape = eqx.tree_at(lambda t: t.action, tape, np.ones((tape.slots, actions.size), np.float32))
    rows, state = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), (tape, network.initial_state()))
    return Rollout(rows, state)


BOX = Continuous(2, (-1.0, -2.0), (1.0, 4.0))
KINDS = [(name, 2) for name in AGENTS] + [(name, BOX) for name in AGENTS if AGENTS[name].traits.continuous_actions]


@pytest.mark.parametrize(
    ("name", "actions"), KINDS, ids=[f"{name}-{type(actions).__name__}" for name, actions in KINDS]
)
@pytest.mark.parametrize("memory", ["s5", pytest.param("linear_transformer", marks=pytest.mark.slow)])
@pytest.mark.one_in(2)
def test_an_agent_keeps_its_types_over_an_update(name, actions, memory):
    kind = AGENTS[name]

    def run():
        network = kind.network(3, actions, MEMORIES[memory], key=KEY, width=SIZE, sizes=SIZES[memory])
        agent = kind.make(kind.settings(learning_rate_end=0.0, warmup=2), network, Plan(10))
        state = agent.init(network)
        share = TrainingShare(jnp.float32(0), jnp.float32(0.5))
        before = types(state)
        update = jax.jit(agent.update)
        learned, _, _ = update(state, batch(kind, network, actions), KEY, share)
        after, metrics, aux = update(learned, batch(kind, network, actions), KEY, share)
        assert types(after) == before
        act = jax.jit(agent.act)
        observation, begin = jnp.ones(3, jnp.float32), jnp.asarray(True)
        chosen = [act(after.params, network.initial_state(), observation, begin, jnp.float32(e), KEY) for e in (0, 1)]
        return state, after, metrics, aux, chosen

    *_, chosen = same_in_a_wide_session(run)
    assert {action.dtype.name for action, _ in chosen} == {"int32" if actions == 2 else "float32"}


def test_a_tape_buffer_keeps_its_types():
    def run():
        buffer = tape_buffer(40, 8, 6, cut=True)
        state = buffer.init(tapes()[0])
        before = types(state)
        for tape in tapes():
            state = buffer.add(state, tape)
            assert types(state) == before
        sample = buffer.sample(state, KEY)
        assert sample.tape.steps().dtype == sample.tape.episodes().dtype == np.int32
        return state, sample

    same_in_a_wide_session(run)


@pytest.mark.parametrize("priority", [None, PriorityConfig()], ids=["uniform", "by priority"])
def test_rings_keep_their_types(priority):
    def run():
        rows = [jax.tree.map(lambda leaf: np.stack([leaf] * 2), tape) for tape in tapes()]
        buffer = ring_buffer(2, 40, 8, 6, tapes=2, priority=priority)
        state = buffer.init(tapes()[0])
        before = types(state)
        for row in rows:
            state = jax.jit(buffer.add)(state, row)
            assert types(state) == before
        sample = jax.jit(buffer.sample)(state, KEY)
        errors = jnp.ones(sample.flat[1].shape, jnp.float32)
        after = jax.jit(buffer.update_priorities)(state, sample.drawn, errors)
        assert types(after) == before
        return after, sample

    same_in_a_wide_session(run)


@pytest.mark.parametrize("kind", ["zero", "stored", "burn-in"])
def test_a_segment_buffer_keeps_its_types(kind):
    initial = np.zeros(3, np.complex64)

    def run():
        buffer = segment_buffer(24, 5, 2, initial, state=kind)
        rows = [split(tape, 2) for tape in tapes()]
        state = buffer.init(rows[0])
        before = types(state)
        for row in rows:
            states = np.ones((row.begin.shape[0], 3), np.complex64) if kind == "stored" else None
            state = buffer.add(state, row, states)
            assert types(state) == before
        return state, buffer.sample(state, KEY)

    same_in_a_wide_session(run)
