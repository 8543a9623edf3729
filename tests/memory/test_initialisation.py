"""Initial parameters of every memory of the registry: the distributions of their papers, leaf by leaf."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from initial_values import assert_drawn_from, normal, within
from memoroids.memory import FFM, GRU, LRU, MLP, REGISTRY, S5, LinearTransformer
from memoroids.memory.s5 import hippo_normal

INPUT, OUTPUT, STATE = 48, 64, 160


def linear(name, inputs, bias=True):
    """Equinox's default, as PyTorch's: weights and biases uniform within ±1/√inputs."""
    return {f"{name}.weight": within(inputs**-0.5)} | ({f"{name}.bias": within(inputs**-0.5)} if bias else {})


def surround():
    gate, project = linear(".surround.gate", OUTPUT), linear(".surround.project", INPUT)
    return {".surround.skip": normal(1.0)} | gate | project


# Where a parameter has a distribution only after a map, or is not drawn, the pair of the map and what it gives.
LRU_START = {
    ".nu": (lambda nu: np.exp(-2 * np.exp(nu)), stats.uniform(0.81, 0.998001 - 0.81)),
    ".theta": (np.exp, stats.uniform(0, 1.5)),
    ".b.weight": normal(1 / (2 * OUTPUT)),
    ".c.weight": normal(1 / STATE),
} | surround()
S5_START = {
    ".dt_log": stats.uniform(np.log(1e-3), np.log(100)),
    # Half of the variance of a real number of B or C in each part of its complex coefficients.
    ".b.weight": normal(1 / (2 * OUTPUT)),
    ".c.weight": normal(1 / (4 * STATE)),
    ".lambda_re_log": (np.exp, np.full(STATE, 0.5)),
    ".lambda_im": (np.abs, hippo_normal(2 * STATE)[1]),
} | surround()
FFM_START = {
    ".alpha": (np.abs, np.linspace(0.1, 1e-6, 128)),
    ".omega": (lambda omega: 2 * np.pi / omega, np.geomspace(1, 1024, 8)),
    **linear(".l1", INPUT),
    **linear(".l2", INPUT),
    **linear(".l3", 2 * 128 * 8),
    **linear(".l4", INPUT),
    **linear(".l5", INPUT),
}
LINEAR_TRANSFORMER_START = {
    **linear(".w_k", INPUT, bias=False),
    **linear(".w_q", INPUT, bias=False),
    **linear(".w_v", INPUT, bias=False),
    **linear(".w_o", 40, bias=False),
    **linear(".w_s", INPUT, bias=False),
    **linear(".mlp[0].linear", OUTPUT),
    **linear(".mlp[1]", OUTPUT),
}
GRU_START = dict.fromkeys((".cell.weight_ih", ".cell.weight_hh", ".cell.bias", ".cell.bias_n"), within(OUTPUT**-0.5))
PUBLISHED = {
    "s5": {"dt_min": 1e-3, "dt_max": 1e-1, "blocks": 1, "unit_variance": False},
    "ffm": {"min_decay": 1e-6, "max_decay": 0.1, "spacing": "linear"},
}
STARTS = {
    "lru": (functools.partial(LRU, state_size=STATE, r_min=0.9, r_max=0.999, max_phase=1.5), LRU_START),
    "s5": (functools.partial(S5, state_size=STATE, **PUBLISHED["s5"]), S5_START),
    "ffm": (functools.partial(FFM, trace_size=128, context_size=8, **PUBLISHED["ffm"]), FFM_START),
    "linear_transformer": (functools.partial(LinearTransformer, key_size=32, value_size=40), LINEAR_TRANSFORMER_START),
    "gru": (GRU, GRU_START),
    "mlp": (MLP, linear(".block.linear", INPUT)),
}


@pytest.mark.parametrize("name", ["lru", "s5", "ffm"])
def test_states_start_with_decay_times_spread_from_one_to_a_thousand_steps(name):
    memory = {"lru": LRU, "s5": S5, "ffm": FFM}[name](INPUT, OUTPUT, key=jax.random.key(11))
    decay = np.asarray(memory.decay(), np.complex128)
    decay = decay[::2] if name == "lru" else decay  # the others are those of the ring
    steps = np.sort(-1 / np.log(np.abs(decay)).ravel())
    assert steps[0] > 0.99 and steps[-1] < 1_001
    # A third of them in each of the three powers of ten.
    decades = np.histogram(steps, [0.9, 10, 100, 1_010])[0] / steps.size
    np.testing.assert_allclose(decades, 1 / 3, atol=0.12)


def test_half_of_an_lru_turns_by_at_most_half_a_circle_within_its_decay_time_and_half_is_the_ring():
    memory = LRU(INPUT, OUTPUT, key=jax.random.key(11), state_size=STATE)
    decay = np.asarray(memory.decay(), np.complex128)
    turned = np.angle(decay[::2]) / -np.log(np.abs(decay[::2]))
    assert 0 < turned.min() < 0.1 * np.pi and 0.9 * np.pi < turned.max() < np.pi * 1.001
    np.testing.assert_allclose(np.exp(memory.gamma_log), np.sqrt(1 - np.abs(decay) ** 2), rtol=1e-4)
    published = LRU(INPUT, OUTPUT, key=jax.random.key(11), state_size=STATE, r_min=0.0)
    np.testing.assert_array_equal(memory.nu[1::2], published.nu[1::2])
    np.testing.assert_array_equal(memory.theta[1::2], published.theta[1::2])


@functools.cache
def leaves(name):
    memory = STARTS[name][0](INPUT, OUTPUT, key=jax.random.key(11))
    found = jax.tree_util.tree_leaves_with_path(eqx.filter(memory, eqx.is_array))
    return {jax.tree_util.keystr(path): np.asarray(leaf, np.float64) for path, leaf in found}


@pytest.mark.parametrize("name", REGISTRY)
def test_every_parameter_starts_as_its_paper_says(name):
    expected, got = STARTS[name][1], leaves(name)
    # γ is not free: it is √(1 - |λ|²), which test_models holds it against.
    assert set(expected) == set(got) - {".gamma_log"}
    for path, start in expected.items():
        change, start = start if isinstance(start, tuple) else (lambda values: values, start)
        values = change(got[path])
        if isinstance(start, np.ndarray):
            np.testing.assert_allclose(values, start, rtol=1e-5, err_msg=path)
        else:
            assert_drawn_from(start, values, path)


@pytest.mark.parametrize(("name", "path", "axis"), [("lru", ".b.weight", 0), ("lru", ".c.weight", 1)])
def test_real_and_imaginary_parts_are_drawn_independently(name, path, axis):
    real, imag = np.split(leaves(name)[path], 2, axis=axis)
    assert abs(np.corrcoef(real.ravel(), imag.ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("name", REGISTRY)
def test_no_two_leaves_that_are_drawn_are_the_same_numbers(name):
    drawn = [values.ravel()[:40] for values in leaves(name).values()]
    unlike = [
        (a[: b.size] / np.abs(a).max(), b[: a.size] / np.abs(b).max()) for i, a in enumerate(drawn) for b in drawn[:i]
    ]
    assert not any(np.allclose(a, b) for a, b in unlike)


# --- Arguments that make no model.

NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = {
    "lru": {"r_min": (-0.1, 1.0, NAN), "r_max": (0.0, 1.1, NAN, INF), "max_phase": (-1.0, 0.0, 7.0, NAN, INF)},
    "s5": {"dt_min": (-1.0, 0.0, 3.0, NAN), "dt_max": (0.0, 1e-4, NAN, INF), "blocks": (0, -1, 3, NAN, 2.0)},
    "ffm": {
        "min_decay": (-1.0, 0.0, 2.0, NAN),
        "max_decay": (0.0, -1.0, NAN, INF),
        "max_period": (0, 0.5, -3, NAN, INF),
        "spacing": ("log", ""),
    },
    "linear_transformer": {"epsilon": (0.0, -1.0, NAN, INF)},
    "gru": {},
    "mlp": {},
}
SIZES = {
    "lru": ("state_size", "layers"),
    "s5": ("state_size", "layers"),
    "ffm": ("trace_size", "context_size"),
    "linear_transformer": ("key_size", "value_size"),
    "gru": (),
    "mlp": (),
}
CASES = [(name, argument, value) for name, of in OUT_OF_RANGE.items() for argument in of for value in of[argument]]
CASES += [(n, size, v) for n in SIZES for size in ("input_size", "output_size", *SIZES[n]) for v in (0, -1, 1.5, NAN)]


@pytest.mark.parametrize(("name", "argument", "value"), CASES)
def test_an_argument_out_of_range_is_refused_in_one_line_that_names_it_and_its_value(name, argument, value):
    arguments = {"input_size": 3, "output_size": 4} | {argument: value}
    with pytest.raises(ValueError) as error:
        REGISTRY[name](key=jax.random.key(0), **arguments)
    message = str(error.value)
    # A size of the first layer of a stack may be that of a layer above it.
    assert argument in message and repr(value) in message and "\n" not in message


def test_every_argument_of_every_memory_is_tried_above():
    # `unit_variance` is a truth value: every value means one of the two.
    for name, factory in REGISTRY.items():
        layer = factory.args[0] if isinstance(factory, functools.partial) else factory
        wanted = set(layer.__init__.__annotations__) - {"key", "return", "input_size", "output_size", "unit_variance"}
        assert wanted == {*OUT_OF_RANGE[name], *SIZES[name]} - {"layers"}


@pytest.mark.parametrize("name", REGISTRY)
def test_the_limits_of_the_arguments_themselves_make_finite_models(name):
    limits = {
        "lru": {"r_min": 0.0, "r_max": 1.0, "max_phase": 2 * np.pi},
        "s5": {"dt_min": 1e-8, "dt_max": 1e-7, "unit_variance": True},
        "ffm": {"max_period": 1, "min_decay": 1e-30, "max_decay": 10.0},
        "linear_transformer": {"epsilon": 1e-30},
    }
    memory = REGISTRY[name](3, 4, key=jax.random.key(0), **limits.get(name, {}))
    s, _ = memory(jnp.ones((5, 3)), jnp.arange(5) == 0)
    assert np.isfinite(s).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter(memory, eqx.is_array)))
