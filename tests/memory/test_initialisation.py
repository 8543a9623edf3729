"""Initial parameters of every memory of the registry: the distributions of their papers, leaf by leaf."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from initial_values import assert_drawn_from, normal, within
from memoroids.memory import (
    FFM,
    GLA,
    GRU,
    HGRN,
    HGRN2,
    LMU,
    LRU,
    LSTM,
    MLP,
    MLSTM,
    REGISTRY,
    RWKV7,
    S4D,
    S5,
    SHM,
    SLSTM,
    DeltaNet,
    Elman,
    FrameStack,
    GatedDeltaNet,
    GTrXL,
    LinearTransformer,
    Mamba,
    Mamba2,
    MemoryTraces,
    MinGRU,
    MinLSTM,
    PositionalMLP,
    RetNet,
    RotRNN,
    WindowAttention,
)
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
RETNET_START = {
    **linear(".w_q", OUTPUT, bias=False),
    **linear(".w_k", OUTPUT, bias=False),
    **linear(".w_v", OUTPUT, bias=False),
    **linear(".w_g", OUTPUT, bias=False),
    **linear(".w_o", 4 * 20, bias=False),
    **linear(".block.project", INPUT),
    **linear(".block.feed_forward.w_i", OUTPUT, bias=False),
    **linear(".block.feed_forward.w_o", 72, bias=False),
}
GLA_START = {
    **linear(".w_q", OUTPUT, bias=False),
    **linear(".w_k", OUTPUT, bias=False),
    **linear(".w_v", OUTPUT, bias=False),
    **linear(".w_alpha[0]", OUTPUT, bias=False),
    **linear(".w_alpha[1]", 24),
    **linear(".w_r", OUTPUT),
    **linear(".w_o", 4 * 20, bias=False),
    **linear(".block.project", INPUT),
    **linear(".block.feed_forward.w_i", OUTPUT, bias=False),
    **linear(".block.feed_forward.w_g", OUTPUT, bias=False),
    **linear(".block.feed_forward.w_o", 72, bias=False),
}
HGRN2_START = {
    ".gamma": (lambda gamma: gamma, np.zeros((1, 4 * 16))),
    **linear(".layers[0].w_f", OUTPUT),
    **linear(".layers[0].w_i", OUTPUT),
    **linear(".layers[0].w_q", OUTPUT),
    **linear(".layers[0].w_o", 4 * 20),
    **linear(".layers[0].block.project", INPUT),
    **linear(".layers[0].block.feed_forward.w_i", OUTPUT, bias=False),
    **linear(".layers[0].block.feed_forward.w_g", OUTPUT, bias=False),
    **linear(".layers[0].block.feed_forward.w_o", 72, bias=False),
}
MAMBA2_START = {
    **linear(".w_i", OUTPUT, bias=False),
    **linear(".w_o", 20 * 8, bias=False),
    **linear(".block.project", INPUT),
    ".convolution.weight": within(4**-0.5),
    ".convolution.bias": within(4**-0.5),
    ".dt_bias": (lambda bias: np.log(np.logaddexp(0, bias)), stats.uniform(np.log(1e-3), np.log(100))),
    ".a_log": (np.exp, stats.uniform(1, 15)),
    ".d": (lambda d: d, np.ones(20)),
}
MLSTM_START = {
    **linear(".w_q", OUTPUT),
    **linear(".w_k", OUTPUT),
    **linear(".w_v", OUTPUT),
    **linear(".w_o", OUTPUT),
    **linear(".w_i", OUTPUT),
    **linear(".w_f", OUTPUT),
    ".w_i.bias": normal(0.01),
    ".w_f.bias": (lambda bias: bias, np.linspace(3, 6, 20)),
    **linear(".w_d", 20 * 8, bias=False),
    **linear(".block.project", INPUT),
}
GRU_START = dict.fromkeys((".cell.weight_ih", ".cell.weight_hh", ".cell.bias", ".cell.bias_n"), within(OUTPUT**-0.5))
LSTM_START = {
    ".cell.weight_ih": within(OUTPUT**-0.5),
    ".cell.weight_hh": within(OUTPUT**-0.5),
    ".cell.bias": (lambda bias: bias - np.repeat([0, 1, 0, 0], OUTPUT), within(OUTPUT**-0.5)),
}
SLSTM_START = {
    ".w": within(OUTPUT**-0.5),
    ".r": within(OUTPUT**-0.5),
    ".b": (lambda b: b, np.concatenate((np.zeros(2 * OUTPUT), *[np.linspace(3, 6, 16)] * 4, np.zeros(OUTPUT)))),
}
ELMAN_START = dict.fromkeys((".w", ".u", ".b"), within(OUTPUT**-0.5))
FRAME_STACK_START = linear(".block.linear", 4 * INPUT)
POSITIONAL_MLP_START = linear(".block.linear", INPUT + 32)
WINDOW_ATTENTION_START = {
    **linear(".block.project", INPUT),
    **linear(".w_q", OUTPUT, bias=False),
    **linear(".w_kv", OUTPUT, bias=False),
    **linear(".w_a", 40, bias=False),
    **linear(".block.feed_forward.w_i", OUTPUT),
    **linear(".block.feed_forward.w_o", 96),
}
GATES = [f".gates[{i}]" for i in range(2)]
GTRXL_START = {
    **linear(".surround.project", INPUT),
    **linear(".w_q", OUTPUT, bias=False),
    **linear(".w_kv", OUTPUT, bias=False),
    **linear(".w_a", 40, bias=False),
    **linear(".w_1", OUTPUT),
    **linear(".w_2", 96),
    **linear(".w_r", OUTPUT, bias=False),
    ".u": (lambda u: u, np.zeros((4, 10))),
    ".v": (lambda v: v, np.zeros((4, 10))),
    **{f"{gate}.{part}": within(OUTPUT**-0.5) for gate in GATES for part in "wu"},
    **{f"{gate}.bias": (lambda bias: bias, np.full(OUTPUT, 2.0)) for gate in GATES},
}
MIN_GRU_START = {
    **linear(".gate", OUTPUT),
    **linear(".candidate", OUTPUT),
    **linear(".out", STATE),
    **linear(".surround.project", INPUT),
}
S4D_START = {
    ".a_re_log": (np.exp, np.full((OUTPUT, 6), 0.5)),
    ".a_im": (lambda a_im: a_im, np.tile(np.pi * np.arange(6), (OUTPUT, 1))),
    ".dt_log": stats.uniform(np.log(1e-3), np.log(100)),
    ".c_re": normal(1 / 2),
    ".c_im": normal(1 / 2),
} | surround()
MAMBA_START = {
    **linear(".w_in", OUTPUT, bias=False),
    ".convolution.weight": within(4**-0.5),
    ".convolution.bias": within(4**-0.5),
    **linear(".w_select", 2 * OUTPUT, bias=False),
    ".w_dt": within((OUTPUT / 16) ** -0.5),
    ".b_dt": (lambda bias: np.log(np.log1p(np.exp(bias))), stats.uniform(np.log(1e-3), np.log(100))),
    ".a_log": (np.exp, np.tile(np.arange(1.0, 17.0), (2 * OUTPUT, 1))),
    ".d": (lambda d: d, np.ones(2 * OUTPUT)),
    **linear(".w_out", 2 * OUTPUT, bias=False),
    **linear(".surround.project", INPUT),
}
ROT_RNN_START = {
    ".theta": stats.uniform(0, 2 * np.pi),
    ".nu": stats.uniform(np.log(-np.log(0.999)), np.log(np.log(0.37) / np.log(0.999))),
    ".m": normal(1.0),
    ".b": normal(1 / (OUTPUT + 24 * 8)),
    ".c": normal(1 / (OUTPUT + 24 * 8)),
} | surround()
SHM_START = {
    ".theta": within((6 / (100 + 40)) ** 0.5),
    **linear(".w_c", INPUT, bias=False),
    **linear(".w_k", INPUT, bias=False),
    **linear(".w_q", INPUT, bias=False),
    **linear(".w_v", INPUT, bias=False),
    **linear(".w_eta", INPUT, bias=False),
    **linear(".w_o", 40),
}
LMU_START = {
    ".e_x": within((3 / INPUT) ** 0.5),
    ".e_h": within((3 / OUTPUT) ** 0.5),
    ".e_m": (lambda e_m: e_m, np.zeros(24)),
    ".w_x": normal(2 / (INPUT + OUTPUT)),
    ".w_h": normal(2 / (OUTPUT + OUTPUT)),
    ".w_m": normal(2 / (24 + OUTPUT)),
}


def hgrn_start():
    layers = {".gamma": (lambda gamma: gamma, np.zeros((2, STATE)))}
    for i in range(2):
        at = f".layers[{i}]"
        angles = 10_000.0 ** (-2 * np.arange(STATE) / STATE)
        layers |= {f"{at}.theta": (lambda theta: theta, angles)}
        layers |= linear(f"{at}.forget", OUTPUT) | linear(f"{at}.value", OUTPUT) | linear(f"{at}.gate", OUTPUT)
        layers |= linear(f"{at}.out", 2 * STATE)
        for part in ("w_i", "w_g", "w_o"):
            layers |= linear(f"{at}.block.feed_forward.{part}", OUTPUT, bias=False)
    return layers | linear(".layers[0].block.project", INPUT)


DELTA_NET_START = {
    **linear(".w_qkv", OUTPUT, bias=False),
    ".convolution.weight": within(4**-0.5),
    **linear(".w_beta", OUTPUT, bias=False),
    **linear(".w_o", 4 * 20, bias=False),
    **linear(".block.project", INPUT),
    **linear(".block.feed_forward.w_i", OUTPUT, bias=False),
    **linear(".block.feed_forward.w_g", OUTPUT, bias=False),
    **linear(".block.feed_forward.w_o", 72, bias=False),
}
GATED_DELTA_NET_START = DELTA_NET_START | {
    **linear(".w_o", 40 * 8, bias=False),
    **linear(".block.feed_forward.w_o", 128, bias=False),
    **linear(".w_a", OUTPUT, bias=False),
    **linear(".w_g", OUTPUT, bias=False),
    ".a_log": (np.exp, stats.uniform(0, 16)),
    ".dt_bias": (lambda b: np.log(np.log1p(np.exp(b))), stats.uniform(np.log(1e-3), np.log(100))),
}


def rwkv7_start():
    wide, place = 5 * 16, np.arange(OUTPUT) / OUTPUT
    powers = np.array([0.2, 0.9, 0.9, 0.4, 0.9, 0.2])
    start = {".mu": (lambda mu: 1 - mu, place ** powers[:, None]), ".mu_c": (lambda mu: 1 - mu, place)}
    for part in ("decay", "rate", "gate"):
        start[f".{part}.a"] = lambda a: a, np.zeros((24, OUTPUT))
        start[f".{part}.b"] = lambda b: 1 + b.T @ b, 1 + 0.01 * np.eye(24)  # a relative tolerance is no use at 0
    start[".decay.bias"] = lambda b: b, -6.5 + 5 * (np.arange(wide) / (wide - 1)) ** 0.85
    start[".rate.bias"] = lambda b: b, np.zeros(wide)
    for part, value in ((".xi", np.full(wide, 0.85)), (".alpha", np.ones(wide)), (".rho", np.zeros((5, 16)))):
        start[part] = lambda v: v, value
    for part, limit in ((".w_r", 0.5), (".w_k", 0.05), (".w_v", 0.5), (".w_1", 0.5)):
        start[part] = within(limit * OUTPUT**-0.5)
    for part, inputs in ((".w_o", wide), (".w_2", 72)):
        start[part] = lambda w: w, np.zeros((OUTPUT, inputs))
    return start | linear(".surround.project", INPUT)


PUBLISHED = {
    "s5": {"dt_min": 1e-3, "dt_max": 1e-1, "blocks": 1, "unit_variance": False},
    "ffm": {"min_decay": 1e-6, "max_decay": 0.1, "spacing": "linear"},
}
STARTS = {
    "lru": (functools.partial(LRU, state_size=STATE, r_min=0.9, r_max=0.999, max_phase=1.5), LRU_START),
    "s5": (functools.partial(S5, state_size=STATE, **PUBLISHED["s5"]), S5_START),
    "ffm": (functools.partial(FFM, trace_size=128, context_size=8, **PUBLISHED["ffm"]), FFM_START),
    "linear_transformer": (functools.partial(LinearTransformer, key_size=32, value_size=40), LINEAR_TRANSFORMER_START),
    "window_attention": (functools.partial(WindowAttention, head_size=10, hidden_size=96), WINDOW_ATTENTION_START),
    "gtrxl": (functools.partial(GTrXL, head_size=10, hidden_size=96), GTRXL_START),
    "retnet": (functools.partial(RetNet, value_size=20, hidden_size=72), RETNET_START),
    "gla": (functools.partial(GLA, value_size=20, rank=24, hidden_size=72), GLA_START),
    "hgrn2": (functools.partial(HGRN2, layers=1, value_size=20, hidden_size=72), HGRN2_START),
    "mamba2": (functools.partial(Mamba2, heads=20, head_size=8), MAMBA2_START),
    "delta_net": (functools.partial(DeltaNet, value_size=20, hidden_size=72), DELTA_NET_START),
    "gated_delta_net": (functools.partial(GatedDeltaNet, heads=40, value_size=8), GATED_DELTA_NET_START),
    "rwkv7": (functools.partial(RWKV7, heads=5, rank=24, hidden_size=72), rwkv7_start()),
    "mlstm": (functools.partial(MLSTM, heads=20, value_size=8), MLSTM_START),
    "gru": (GRU, GRU_START),
    "lstm": (LSTM, LSTM_START),
    "slstm": (functools.partial(SLSTM, heads=4), SLSTM_START),
    "elman": (Elman, ELMAN_START),
    "frame_stack": (FrameStack, FRAME_STACK_START),
    "positional_mlp": (PositionalMLP, POSITIONAL_MLP_START),
    "mlp": (MLP, linear(".block.linear", INPUT)),
    "min_gru": (functools.partial(MinGRU, state_size=STATE), MIN_GRU_START),
    "min_lstm": (functools.partial(MinLSTM, state_size=STATE), MIN_GRU_START),
    "hgrn": (functools.partial(HGRN, state_size=STATE), hgrn_start()),
    "s4d": (functools.partial(S4D, state_size=6), S4D_START),
    "mamba": (Mamba, MAMBA_START),
    "rot_rnn": (functools.partial(RotRNN, heads=24), ROT_RNN_START),
    "shm": (functools.partial(SHM, memory_size=40, rows=100), SHM_START),
    "memory_traces": (functools.partial(MemoryTraces, traces=3), linear(".block.linear", 3 * INPUT)),
    "lmu": (functools.partial(LMU, order=24), LMU_START),
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
    starts = STARTS[name][1].items()
    fixed = {path for path, start in starts if isinstance(start, tuple) and isinstance(start[1], np.ndarray)}
    drawn = [values.ravel()[:40] for path, values in leaves(name).items() if path not in fixed]
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
    "window_attention": {},
    "gtrxl": {},
    "retnet": {},
    "gla": {"temperature": (0.0, -1.0, NAN, INF)},
    "hgrn2": {},
    "mamba2": {"dt_min": (-1.0, 0.0, 3.0, NAN), "dt_max": (0.0, 1e-4, NAN, INF)},
    "mlstm": {},
    "delta_net": {},
    "gated_delta_net": {},
    "rwkv7": {},
    "gru": {},
    "lstm": {},
    "slstm": {},
    "elman": {},
    "frame_stack": {},
    "positional_mlp": {},
    "mlp": {},
    "min_gru": {},
    "min_lstm": {},
    "hgrn": {},
    "s4d": {"start": ("legs", ""), "dt_min": (-1.0, 0.0, 0.1, NAN), "dt_max": (0.0, 1e-4, NAN, INF)},
    "mamba": {},
    "rot_rnn": {
        "gamma_min": (-0.1, 0.0, 1.0, NAN),
        "gamma_max": (0.1, 1.0, NAN, INF),
        "max_phase": (-1.0, 0.0, 7.0, NAN, INF),
    },
    "shm": {},
    "memory_traces": {"longest": (0.0, -1.0, NAN, INF)},
    "lmu": {"theta": (0.0, -1.0, NAN, INF)},
}
SIZES = {
    "lru": ("state_size", "layers"),
    "s5": ("state_size", "layers"),
    "ffm": ("trace_size", "context_size"),
    "linear_transformer": ("key_size", "value_size"),
    "window_attention": ("window", "heads", "head_size", "hidden_size", "layers"),
    "gtrxl": ("window", "heads", "head_size", "hidden_size", "layers"),
    "retnet": ("layers", "heads", "key_size", "value_size", "hidden_size"),
    "gla": ("layers", "heads", "key_size", "value_size", "rank", "hidden_size"),
    "hgrn2": ("layers", "heads", "key_size", "value_size", "hidden_size"),
    "mamba2": ("layers", "heads", "head_size", "state_size", "convolution_size"),
    "mlstm": ("layers", "heads", "key_size", "value_size"),
    "delta_net": ("layers", "heads", "key_size", "value_size", "convolution_size", "hidden_size"),
    "gated_delta_net": ("layers", "heads", "key_size", "value_size", "convolution_size", "hidden_size"),
    "rwkv7": ("layers", "heads", "head_size", "rank", "hidden_size"),
    "gru": (),
    "lstm": (),
    "slstm": ("heads",),
    "elman": (),
    "frame_stack": ("frames",),
    "positional_mlp": ("position_size",),
    "mlp": (),
    "min_gru": ("state_size", "layers"),
    "min_lstm": ("state_size", "layers"),
    "hgrn": ("state_size", "layers"),
    "s4d": ("state_size", "layers"),
    "mamba": ("state_size", "expand", "convolution_size", "layers"),
    "rot_rnn": ("heads", "head_size", "layers"),
    "shm": ("memory_size", "rows"),
    "memory_traces": ("traces",),
    "lmu": ("order",),
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
        not_tried = {"key", "return", "input_size", "output_size", "unit_variance", "layers"}
        wanted = set(layer.__init__.__annotations__) - not_tried
        assert wanted == {*OUT_OF_RANGE[name], *SIZES[name]} - {"layers"}


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.one_in(3)
def test_the_limits_of_the_arguments_themselves_make_finite_models(name):
    limits = {
        "lru": {"r_min": 0.0, "r_max": 1.0, "max_phase": 2 * np.pi},
        "s5": {"dt_min": 1e-8, "dt_max": 1e-7, "unit_variance": True},
        "ffm": {"max_period": 1, "min_decay": 1e-30, "max_decay": 10.0},
        "linear_transformer": {"epsilon": 1e-30},
        "s4d": {"dt_min": 1e-8, "dt_max": 1e-7, "start": "inv"},
        "rot_rnn": {"gamma_min": 1e-30, "gamma_max": 1 - 1e-7, "head_size": 2},
        "memory_traces": {"longest": 1.0},
        "lmu": {"theta": 1e9},
    }
    memory = REGISTRY[name](3, 4, key=jax.random.key(0), **limits.get(name, {}))
    s, _ = memory(jnp.ones((5, 3)), jnp.arange(5) == 0)
    assert np.isfinite(s).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter(memory, eqx.is_array)))
