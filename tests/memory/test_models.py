"""Every memory model of the registry: laws, formulas, equal results on every path, and nothing across begin flags."""

import functools

import attention_formulas
import elementwise_formulas
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sequence_formulas
from formula_parts import affine, sigmoid

from memoroids import Memoroid, Memory, Resettable, Stack
from memoroids.algebra.recurrence_backends import available_backends
from memoroids.memory import FFM, GRU, LRU, MLP, REGISTRY, S5
from memoroids.memory.layers import ComplexLinear, GatedResidual, RealPart
from memoroids.memory.s5 import hippo_normal

# One layer where stacking adds nothing, which saves half of the compilation.
SIZES = {
    "lru": {"state_size": 5},
    "s5": {"state_size": 4, "layers": 1},
    "s4d": {"state_size": 2, "layers": 1},
    "ffm": {"trace_size": 4, "context_size": 3},
    "min_gru": {"state_size": 5, "layers": 1},
    "min_lstm": {"state_size": 5, "layers": 1},
    "hgrn": {"state_size": 5},
    "mamba": {"state_size": 2, "expand": 1, "convolution_size": 3, "layers": 1},
    "rot_rnn": {"heads": 2, "head_size": 4, "layers": 1},
    "shm": {"memory_size": 4, "rows": 5},
    "memory_traces": {"traces": 3},
    "linear_transformer": {"key_size": 4, "value_size": 3},
    "retnet": {"layers": 1, "heads": 2, "key_size": 4, "value_size": 3, "hidden_size": 5},
    "gla": {"layers": 1, "heads": 2, "key_size": 3, "value_size": 3, "rank": 2, "hidden_size": 5},
    "hgrn2": {"layers": 2, "heads": 2, "key_size": 3, "value_size": 3, "hidden_size": 4},
    "mamba2": {"layers": 1, "heads": 2, "head_size": 3, "state_size": 2, "convolution_size": 3},
    "mlstm": {"layers": 1, "heads": 2, "key_size": 3, "value_size": 3},
    "delta_net": {"layers": 1, "heads": 2, "key_size": 3, "value_size": 2, "convolution_size": 3, "hidden_size": 5},
    "gated_delta_net": {
        "layers": 1,
        "heads": 2,
        "key_size": 2,
        "value_size": 3,
        "convolution_size": 2,
        "hidden_size": 5,
    },
    "rwkv7": {"layers": 1, "heads": 2, "head_size": 3, "rank": 2, "hidden_size": 5},
    "window_attention": {"window": 3, "heads": 2, "head_size": 3, "hidden_size": 5, "layers": 1},
    "gtrxl": {"window": 3, "heads": 2, "head_size": 2, "hidden_size": 5},
    "gru": {},
    "lstm": {},
    "slstm": {"heads": 1},
    "lmu": {"order": 4},
    "elman": {},
    "frame_stack": {"frames": 3},
    "positional_mlp": {"position_size": 5},
    "mlp": {},
}
WINDOWED = ("window_attention", "gtrxl", "frame_stack")
INPUT, OUTPUT, LENGTH, CUT = 4, 3, 8, 4
BEGIN = np.isin(np.arange(LENGTH), (0, 3, 4))
each_model = pytest.mark.parametrize("name", REGISTRY)
# One model for each of the ways to compute a sequence, which others share.
WAYS = ("lru", "min_gru", "mamba", "shm", "linear_transformer", "gla", "mlstm", "rwkv7", "window_attention", "gru")
each_way = pytest.mark.parametrize("name", WAYS)


def backends_to_test(name):
    """The default one and the loop; every one for a few models, since the others compute by the same code."""
    backends = eqx.filter_eval_shape(REGISTRY[name], 2, 2, key=jax.random.key(0)).backends
    if name in ("lru", "linear_transformer", "gla"):
        return backends
    return backends if len(backends) == 1 else (None, "sequential")


each_model_and_backend = pytest.mark.parametrize(
    ("name", "backend"), [(name, backend) for name in REGISTRY for backend in backends_to_test(name)]
)


def randomised(memory, seed):
    """The model with all parameters random, so that no initial 0 or 1 hides a mistake."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(0.5 * rng.standard_normal(p.shape), p.dtype), memory)


@functools.cache
def model(name: str) -> Memory:
    return randomised(eqx.filter_eval_shape(REGISTRY[name], INPUT, OUTPUT, key=jax.random.key(1), **SIZES[name]), 1)


def observations(length=LENGTH, seed=0, size=INPUT):
    return np.random.default_rng(seed).standard_normal((length, size)).astype(np.float32)


def run(memory, x, begin, state=None, backend=None):
    return whole(memory, x, begin, memory.initial_state() if state is None else state, backend)


@functools.partial(jax.jit, static_argnames="backend")
def whole(memory, x, begin, state, backend):
    return memory(x, begin, state, backend=backend)


def magnitude(state):
    # A leaf may be a number of steps, an integer.
    return sum(jnp.sum(jnp.abs(leaf).astype(jnp.float32)) for leaf in jax.tree.leaves(state))


@jax.jit
def step(memory, x, begin, state):
    """The Markov state and the state after a step, and the gradient of a loss of both with respect to x."""

    def loss(x):
        s, after = memory.step(x, begin, state)
        return jnp.sum(jnp.sin(s)) + magnitude(after), (s, after)

    (_, results), gradient = jax.value_and_grad(loss, has_aux=True)(x)
    return *results, gradient


@functools.partial(jax.jit, static_argnames="backend")
def gradients(memory, x, begin, state, backend, first=0, weight=0.0):
    """Gradients with respect to memory and x, of the outputs from `first` on and the final state; outputs and state."""

    def loss(memory, x):
        s, final = memory(x, begin, state, backend=backend)
        later = jnp.where(jnp.arange(LENGTH)[:, None] >= first, s, 0)
        return jnp.sum(jnp.sin(later)) + weight * magnitude(final), (s, final)

    return jax.grad(loss, (0, 1), has_aux=True)(memory, x)


@functools.cache
def gradients_of(name, backend):
    memory = model(name)
    return gradients(memory, observations(), BEGIN, memory.initial_state(), backend)


@jax.jit
def gradients_of_steps(memory, x, begin):
    def loss(memory, x):
        def body(state, inputs):
            s, state = memory.step(*inputs, state)
            return state, s

        return jnp.sum(jnp.sin(jax.lax.scan(body, memory.initial_state(), (x, begin))[1]))

    return jax.grad(loss, (0, 1))(memory, x)


def assert_close(got, want, tolerance=1e-4):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for path_and_g, w in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        path, g = path_and_g
        scale = max(1.0, np.abs(np.asarray(w)).max(initial=0.0))
        np.testing.assert_allclose(g, w, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


def assert_identical(got, want, message=""):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.isfinite(np.asarray(w)).all()
        np.testing.assert_array_equal(np.asarray(g), np.asarray(w), err_msg=message)


# --- Formulas: independent loops in double precision, which use only the parameters of a model.


FORMULAS = elementwise_formulas.FORMULAS | attention_formulas.FORMULAS | sequence_formulas.FORMULAS


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.complex128 if np.iscomplexobj(leaf) else np.float64), tree)


def by_formula(name, memory, x, begin, state=None):
    state = None if state is None else double(state)
    s, after = FORMULAS[name](double(memory), list(double(x)), begin, state)
    return np.stack(s), after


@functools.cache
def gradients_by_formula(name):
    """By central differences over every parameter and input, accurate to about 1e-9 in double precision."""
    arguments, structure = jax.tree.flatten(double((model(name), observations())))

    def loss():
        memory, x = structure.unflatten(arguments)
        return np.sin(FORMULAS[name](memory, list(x), BEGIN, None)[0]).sum()

    gradients = [np.zeros_like(leaf) for leaf in arguments]
    for leaf, gradient in zip(arguments, gradients, strict=True):
        for at in np.ndindex(leaf.shape):
            value, sides = leaf[at], []
            for shift in (1e-6, -1e-6):
                leaf[at] = value + shift
                sides.append(loss())
            leaf[at] = value
            gradient[at] = (sides[0] - sides[1]) / 2e-6
    return structure.unflatten(gradients)


def test_every_model_of_the_registry_has_sizes_and_a_formula_here():
    assert set(SIZES) == set(FORMULAS) == set(REGISTRY)


@each_model
def test_outputs_and_final_state_equal_the_formulas(name):
    x = observations()
    assert_close(run(model(name), x, BEGIN), by_formula(name, model(name), x, BEGIN))


@each_model
def test_going_on_from_a_state_equals_the_formulas(name):
    memory = model(name)
    x, begin = observations(seed=5), np.arange(LENGTH) == 5
    _, state = run(memory, observations(), BEGIN)
    assert_close(run(memory, x, begin, state), by_formula(name, memory, x, begin, state))


# --- Sequences, steps and backends.


@each_model
def test_a_sequence_equals_its_steps(name):
    memory, x = model(name), observations()
    s, final = run(memory, x, BEGIN)
    state = memory.initial_state()
    for t in range(LENGTH):
        s_t, state, _ = step(memory, x[t], BEGIN[t], state)
        assert s_t.shape == (OUTPUT,)
        assert_close(s_t, s[t])
    assert_close(state, final)
    assert jax.tree.map(jnp.shape, final) == jax.tree.map(jnp.shape, memory.initial_state())
    assert jax.tree.map(lambda v: v.dtype, final) == jax.tree.map(lambda v: v.dtype, memory.initial_state())


@each_way
def test_gradients_through_steps_equal_those_through_the_sequence(name):
    got = gradients_of_steps(model(name), observations(), BEGIN)
    assert_close(got, gradients_of(name, "sequential")[0], 1e-3)


def error(got, want):
    """The root mean square difference over all leaves, each relative to its largest magnitude."""
    squares = []
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        squares.append(np.abs((np.asarray(g) - w) / max(np.abs(w).max(), 1e-30)).ravel() ** 2)
    return np.sqrt(np.mean(np.concatenate(squares))) if squares else 0.0


@each_model_and_backend
@pytest.mark.one_in(6)
def test_every_backend_errs_at_most_four_times_as_much_as_the_sequential_one(name, backend):
    memory, x = model(name), observations()
    s, state = by_formula(name, memory, x, BEGIN)
    expected = gradients_by_formula(name), (s, state)
    got, sequential = (gradients_of(name, b) for b in (backend, "sequential"))
    assert_close(got, expected, 1e-3)
    parts = zip(("gradients", "outputs and state"), got, sequential, expected, strict=True)
    for part, g, first, want in parts:
        assert error(g, want) <= 4 * error(first, want), part


@each_model
def test_a_sequence_cut_in_two_equals_the_whole(name):
    memory, x, cut = model(name), observations(), CUT
    for begin in (BEGIN, np.arange(LENGTH) == 0):  # the cut is at the beginning of an episode, and inside one
        whole = run(memory, x, begin)
        first, state = run(memory, x[:cut], begin[:cut])
        second, last = run(memory, x[cut:], begin[cut:], state)
        assert_close((jnp.concatenate((first, second)), last), whole)


@each_model
def test_no_output_depends_on_the_future(name):
    memory, x = model(name), observations()
    s, _ = run(memory, x, BEGIN)
    changed, _ = run(memory, np.concatenate((x[:5], -x[5:])), BEGIN)
    np.testing.assert_array_equal(changed[:5], s[:5])
    assert not np.array_equal(changed[5:], s[5:])


@each_way
def test_a_memory_maps_over_a_batch(name):
    memory = model(name)
    x, begin = np.stack([observations(seed=s) for s in (0, 1)]), np.stack((BEGIN, np.roll(BEGIN, 2)))
    s, state = jax.jit(jax.vmap(lambda m, x, b: m(x, b), in_axes=(None, 0, 0)))(memory, x, begin)
    for i in range(2):
        alone = run(memory, x[i], begin[i])
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], (s, state)), alone)


@pytest.mark.parametrize("name", [n for n in REGISTRY if n not in ("positional_mlp", "mlp")])
def test_a_memory_remembers_inside_an_episode(name):
    memory, x = model(name), observations()
    begin = np.arange(LENGTH) == 0
    s, _ = run(memory, x, begin)
    other, _ = run(memory, np.concatenate((-x[:1], x[1:])), begin)
    later = 2 if name in WINDOWED else LENGTH - 1
    assert np.abs(other[later] - s[later]).max() > 1e-6


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_forgets_what_it_no_longer_holds(name):
    memory, x = model(name), observations()
    begin = np.arange(LENGTH) == 0
    s, _ = run(memory, x, begin)
    other, _ = run(memory, np.concatenate((-x[:1], x[1:])), begin)
    reach = getattr(memory, "layers", (memory,))
    np.testing.assert_array_equal(other[1 + 2 * len(reach) :], s[1 + 2 * len(reach) :])


# --- Laws.


def trained(memory, steps):
    for _ in range(steps):
        (gradient, _), _ = gradients(memory, observations(), BEGIN, memory.initial_state(), "sequential")
        memory = eqx.apply_updates(memory, jax.tree.map(lambda g: -0.1 * g, gradient))
    return memory


@jax.jit
def law_sides(memory, x, flags):
    """Both sides of each law for lifted observations, under the plain operator and both resettable ones."""
    h = jax.vmap(memory.lift)(x, flags)
    plain = [jax.tree.map(lambda leaf, i=i: jnp.roll(leaf, i, 0), h) for i in (0, 1, 3)]
    flagged = [(part, jnp.roll(flags, i)) for part, i in zip(plain, (0, 1, 3), strict=True)]
    sides = {}
    for operator, monoid, elements in (
        ("plain", memory.monoid, plain),
        ("resettable", Resettable(memory.monoid), flagged),
        ("resettable, reverse", Resettable(memory.monoid, reverse=True), flagged),
    ):
        combine, (a, b, c) = jax.vmap(monoid.combine), elements
        e = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (16, *leaf.shape)), monoid.identity())
        sides[operator, "left identity"] = combine(e, a), a
        sides[operator, "right identity"] = combine(a, e), a
        sides[operator, "associativity"] = combine(combine(a, b), c), combine(a, combine(b, c))
    return sides


UNLAWFUL = ("gru", "lstm", "slstm", "lmu", "elman", "mlp", "mamba", "mamba2", "shm")
UNLAWFUL += ("delta_net", "gated_delta_net", "rwkv7")
LAWFUL = [n for n in REGISTRY if n not in UNLAWFUL]


def layers_of(memory):
    return memory.layers if isinstance(memory, Stack) else (memory,)


MONOIDS = {type(layers_of(model(name))[0].monoid): name for name in reversed(LAWFUL)}
"""A model for every monoid."""


def assert_lawful(memory):
    flags = np.random.default_rng(1).random(16) < 0.4
    for layer in {type(layer): layer for layer in layers_of(memory)}.values():
        assert isinstance(layer, Memoroid)
        sides = law_sides(layer, observations(16, size=layer.input_size), flags)
        for (operator, law), (got, want) in sides.items():
            for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                assert g.dtype == w.dtype
                close = np.isclose(np.asarray(g), np.asarray(w), rtol=1e-5, atol=1e-5)
                assert close.all(), f"{operator}, {law}"


@pytest.mark.parametrize("name", LAWFUL)
def test_the_laws_hold_for_lifted_observations_at_random_parameters_and_after_gradient_steps(name):
    assert_lawful(model(name))
    assert_lawful(trained(model(name), 3))


@pytest.mark.parametrize(("input_size", "output_size", "size"), [(1, 1, 1), (3, 6, 7)])
@pytest.mark.parametrize("name", MONOIDS.values())
def test_the_laws_hold_at_other_shapes(name, input_size, output_size, size):
    sizes = {each: {"layers": 1, "head_size": 2 * size}.get(each, size) for each in SIZES[name]}
    new = eqx.filter_eval_shape(REGISTRY[name], input_size, output_size, key=jax.random.key(0), **sizes)
    assert_lawful(randomised(new, 2))


def test_models_without_a_monoid_are_no_memoroids():
    for name in UNLAWFUL:
        assert not any(isinstance(layer, Memoroid) for layer in layers_of(model(name)))


# --- Nothing crosses a begin flag.

POISONS = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf, "other values": 3.0}


def poisoned(state, poison):
    """The state with every number replaced; one of a counter, which can be no NaN, by another one."""

    def replace(leaf):
        return jnp.full_like(leaf, poison if jnp.issubdtype(leaf.dtype, jnp.inexact) else 3)

    return jax.tree.map(replace, state)


@each_model_and_backend
@pytest.mark.one_in(4)
def test_nothing_before_a_begin_flag_reaches_later_outputs_state_or_gradients(name, backend):
    memory, x = model(name), observations()

    def after_the_flag(x, state):
        """Outputs and state after the begin flag, and their gradient with respect to the observations after it."""
        begin = np.arange(LENGTH) == CUT
        (_, gradient), (s, final) = gradients(memory, x, begin, state, backend, CUT, 1.0)
        return s[CUT:], final, gradient[CUT:]

    state = memory.initial_state()
    clean = after_the_flag(x, state)
    assert np.all(np.asarray(clean[2]) != 0)
    for label, poison in POISONS.items():
        bad = np.concatenate((np.full_like(x[:CUT], poison), x[CUT:]))
        assert_identical(after_the_flag(bad, poisoned(state, poison)), clean, label)


@each_model
def test_a_step_that_begins_forgets_the_state_it_is_given(name):
    memory, x, begin = model(name), observations()[0], np.True_
    clean = step(memory, x, begin, memory.initial_state())
    for label, poison in POISONS.items():
        state = poisoned(memory.initial_state(), poison)
        assert_identical(step(memory, x, begin, state), clean, label)


@each_model
def test_an_episode_in_a_long_sequence_equals_the_episode_alone(name):
    memory, x = model(name), observations()
    s, _ = run(memory, x, BEGIN)
    alone, _ = run(memory, np.roll(x, -4, 0), np.arange(LENGTH) % 4 == 0)
    assert_close(s[4:], alone[:4], 1e-5)


# --- Properties of single models.


def test_hippo_normal_is_the_eigendecomposition_of_the_matrix_built_from_its_definition():
    size = 10
    # HiPPO-LegS plus the rank-one term that makes it normal (Gu et al. 2022).
    matrix = np.zeros((size, size))
    for n in range(size):
        for k in range(size):
            if n > k:
                matrix[n, k] = -np.sqrt(2 * n + 1) * np.sqrt(2 * k + 1)
            elif n == k:
                matrix[n, k] = -(n + 1)
            matrix[n, k] += np.sqrt(n + 0.5) * np.sqrt(k + 0.5)
    expected = np.linalg.eig(matrix).eigenvalues
    expected = np.sort_complex(expected[expected.imag > 0])
    real, imag, vectors = hippo_normal(size)
    assert real.shape == imag.shape == (size // 2,) and vectors.shape == (size, size // 2)
    np.testing.assert_allclose(real, expected.real, atol=1e-10)
    np.testing.assert_allclose(np.sort(imag), np.sort(expected.imag), rtol=1e-10)
    eigenvalues = real + 1j * imag
    np.testing.assert_allclose(matrix @ vectors, vectors * eigenvalues, atol=1e-10)
    both = np.concatenate((vectors, vectors.conj()), axis=1)
    np.testing.assert_allclose(both.conj().T @ both, np.eye(size), atol=1e-10)
    np.testing.assert_allclose(2 * ((vectors * eigenvalues) @ vectors.conj().T).real, matrix, atol=1e-10)


def test_s5_starts_at_hippo_normal_with_step_sizes_in_range():
    memory = S5(3, 4, key=jax.random.key(0), state_size=16, dt_min=0.01, dt_max=0.05, blocks=1)
    real, imag, _ = hippo_normal(32)
    np.testing.assert_allclose(-np.exp(memory.lambda_re_log), real, rtol=1e-6)
    np.testing.assert_allclose(memory.lambda_im, imag, rtol=1e-6)
    dt = np.exp(np.asarray(memory.dt_log))
    assert np.all((dt >= 0.01 - 1e-6) & (dt <= 0.05 + 1e-6)) and np.unique(dt).size > 1
    assert np.all(np.abs(memory.decay()) < 1)


def test_s5_starts_as_blocks_of_hippo_normal():
    memory = S5(3, 4, key=jax.random.key(0), state_size=8, blocks=4)
    small = S5(3, 4, key=jax.random.key(1), state_size=2, blocks=1)
    np.testing.assert_array_equal(memory.lambda_im, np.tile(small.lambda_im, 4))
    np.testing.assert_array_equal(memory.lambda_re_log, np.tile(small.lambda_re_log, 4))


@pytest.mark.parametrize("unit", [False, True])
def test_s5_with_unit_variance_starts_with_a_state_as_wide_as_its_input(unit: bool):
    memory = S5(4, 64, key=jax.random.key(0), state_size=32, dt_min=0.005, dt_max=0.5, unit_variance=unit)
    decay, eigenvalues = np.asarray(memory.decay()), np.asarray(memory._eigenvalues())
    u = jax.random.normal(jax.random.key(1), (512, 64))
    drive = (decay - 1) / eigenvalues * np.asarray(jax.vmap(memory.b)(u))
    # Under white input, the variance of the state is that of the drive divided by 1 - |λ|².
    variance = np.var(drive, axis=0) / (1 - np.abs(decay) ** 2)
    assert (variance.max() / variance.min() < 5) == unit


@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 1.0), (0.9, 0.999)])
def test_lru_eigenvalues_start_inside_the_ring(r_min, r_max):
    memory = LRU(3, 4, key=jax.random.key(0), state_size=2000, r_min=r_min, r_max=r_max, max_phase=1.5)
    radius, phase = np.abs(memory.decay()), np.angle(memory.decay())
    assert np.all(radius < 1)
    assert np.all((radius >= r_min - 1e-6) & (radius <= r_max + 1e-6))
    assert np.all((phase > 0) & (phase <= 1.5 + 1e-6))
    # Uniform over the area: the median radius divides the ring into halves of equal area.
    assert abs(np.median(radius**2) - (r_min**2 + r_max**2) / 2) < 0.05 * (r_max**2 - r_min**2)
    assert phase.min() < 0.1 and phase.max() > 1.4
    gamma = np.exp(np.asarray(memory.gamma_log, np.float64))
    exact = np.sqrt(-np.expm1(-2 * np.exp(np.asarray(memory.nu, np.float64))))
    np.testing.assert_allclose(gamma, exact, rtol=1e-5)
    np.testing.assert_allclose(gamma**2, 1 - radius.astype(np.float64) ** 2, atol=1e-6)


@pytest.mark.parametrize("scale", [-100.0, 100.0])
def test_lru_decays_stay_in_the_unit_disc_whatever_the_parameters(scale):
    memory = LRU(2, 2, key=jax.random.key(0), state_size=3)
    memory = eqx.tree_at(lambda m: m.nu, memory, jnp.full(3, scale))
    assert np.all(np.abs(memory.decay()) <= 1)


def test_ffm_is_the_papers_monoid_with_explicit_time():
    memory, x = model("ffm"), observations()
    alpha, omega = (np.asarray(v, np.float64) for v in (memory.alpha, memory.omega))
    exponent = -np.abs(alpha)[:, None] + 1j * omega[None, :]

    def combine(left, right):
        return left[0] * np.exp(right[1] * exponent) + right[0], left[1] + right[1]

    def product(elements):
        """The product by recursive halving, so that t' is rarely one step."""
        if len(elements) == 1:
            return elements[0]
        middle = len(elements) // 2
        return combine(product(elements[:middle]), product(elements[middle:]))

    wide = double(memory)
    lifted = [
        ((affine(wide.l1, v) * sigmoid(affine(wide.l2, v)))[:, None] * np.ones((1, omega.size)), 1) for v in double(x)
    ]
    _, state = run(memory, x, np.arange(LENGTH) == 0)
    trace, time = product(lifted)
    assert time == LENGTH
    np.testing.assert_allclose(state, trace, rtol=1e-4, atol=1e-5)


def test_ffm_starts_with_decays_and_periods_over_the_ranges_asked_for():
    sizes = {"trace_size": 5, "context_size": 3, "max_period": 9.0, "max_decay": 2.0, "min_decay": 0.1}
    memory = FFM(2, 2, key=jax.random.key(0), **sizes, spacing="linear")
    np.testing.assert_allclose(np.sort(memory.alpha), np.linspace(0.1, 2.0, 5), rtol=1e-6)
    periods = np.sort(2 * np.pi / memory.omega)
    np.testing.assert_allclose(periods[[0, -1]], [1.0, 9.0], rtol=1e-6)
    assert 1.0 < periods[1] < 9.0


def test_the_linear_transformer_forgets_nothing_and_weighs_values_by_keys():
    memory, x = model("linear_transformer"), observations()
    _, (products, keys) = run(memory, x, np.arange(LENGTH) == 0)
    wide = double(memory)
    projected = np.stack([wide.w_k.weight @ v for v in double(x)])
    phi = np.where(projected > 0, 1 + projected, np.exp(projected))
    np.testing.assert_allclose(keys, phi.sum(0), rtol=1e-5)
    np.testing.assert_allclose(
        products, phi.T @ np.stack([wide.w_v.weight @ v for v in double(x)]), rtol=1e-4, atol=1e-5
    )


def test_the_linear_transformer_stays_finite_where_its_features_underflow():
    memory = model("linear_transformer")
    x = np.full((3, INPUT), 1e4, np.float32)
    s, _ = run(
        eqx.tree_at(lambda m: (m.w_k.weight, m.w_q.weight), memory, replace_fn=lambda w: -jnp.abs(w)), x, BEGIN[:3]
    )
    assert np.isfinite(s).all()


def test_the_state_of_each_model_has_the_documented_shape_and_dtype():
    shapes = {name: jax.tree.map(lambda v: (v.shape, str(v.dtype)), model(name).initial_state()) for name in REGISTRY}
    assert shapes == {
        "lru": (((5,), "complex64"), ((5,), "complex64")),
        "s5": (((4,), "complex64"),),
        "ffm": ((4, 3), "complex64"),
        "linear_transformer": (((4, 3), "float32"), ((4,), "float32")),
        "window_attention": ((((3, 2, 6), "float32"), ((), "int32")),),
        "gtrxl": ((((3, OUTPUT), "float32"), ((), "int32")),),
        "retnet": ((((), "float32"), ((2, 4, 3), "float32")),),
        "gla": (((2, 3, 3), "float32"),),
        "hgrn2": (((2, 3, 3), "float32"),) * 2,
        "mamba2": ((((2, 10), "float32"), ((2, 2, 3), "float32")),),
        "delta_net": ((((2, 16), "float32"), ((2, 3, 2), "float32")),),
        "gated_delta_net": ((((1, 14), "float32"), ((2, 2, 3), "float32")),),
        "rwkv7": ((((OUTPUT,), "float32"), ((OUTPUT,), "float32"), ((2, 3, 3), "float32")),),
        "mlstm": ((((2, 3, 3), "float32"), ((2, 3), "float32"), ((2,), "float32")),),
        "gru": ((OUTPUT,), "float32"),
        "lstm": (((OUTPUT,), "float32"),) * 2,
        "slstm": (((OUTPUT,), "float32"),) * 4,
        "elman": ((OUTPUT,), "float32"),
        "frame_stack": (((3, INPUT), "float32"), ((), "int32")),
        "positional_mlp": ((), "int32"),
        "mlp": (),
        "min_gru": (((5,), "float32"),),
        "min_lstm": (((5,), "float32"),),
        "hgrn": (((5,), "complex64"), ((5,), "complex64")),
        "s4d": (((OUTPUT, 2), "complex64"),),
        "mamba": ((((2, OUTPUT), "float32"), ((OUTPUT, 2), "float32")),),
        "rot_rnn": (((2, 2), "complex64"),),
        "shm": (((4, 4), "float32"), ((), "int32")),
        "memory_traces": ((3, INPUT), "float32"),
        "lmu": (((OUTPUT,), "float32"), ((4,), "float32")),
    }


@pytest.mark.parametrize(("input_size", "output_size"), [(2, 5), (1, 1)])
@each_model
def test_input_and_output_widths_are_free(name, input_size, output_size):
    def build_and_run(key):
        memory = REGISTRY[name](input_size, output_size, key=key, **SIZES[name])
        assert (memory.input_size, memory.output_size) == (input_size, output_size)
        return memory(jnp.zeros((LENGTH, input_size)), jnp.asarray(BEGIN))[0]

    s = jax.eval_shape(build_and_run, jax.random.key(0))
    assert s.shape == (LENGTH, output_size) and s.dtype == np.float32


@each_model
def test_the_default_sizes_are_the_papers(name):
    memory = eqx.filter_eval_shape(REGISTRY[name], 4, 8, key=jax.random.key(0))
    sizes = jax.tree.map(lambda v: v.shape, eqx.filter_eval_shape(memory.initial_state))
    expected = {
        "lru": ((128,), (128,)),
        "s5": ((128,), (128,)),
        "ffm": (64, 4),
        "linear_transformer": ((16, 16), (16,)),
        "window_attention": (((64, 4, 32), ()),) * 2,
        "gtrxl": (((64, 8), ()),),
        "retnet": (((), (4, 16, 32)),) * 2,
        "gla": ((4, 8, 16),) * 2,
        "hgrn2": ((4, 16, 16),) * 2,
        "mamba2": (((3, 160), (4, 16, 32)),) * 2,
        "delta_net": (((3, 192), (4, 16, 16)),) * 2,
        "gated_delta_net": (((3, 256), (4, 16, 32)),) * 2,
        "rwkv7": (((8,), (8,), (4, 16, 16)),) * 2,
        "mlstm": (((4, 16, 32), (4, 16), (4,)),) * 2,
        "gru": (8,),
        "lstm": ((8,), (8,)),
        "slstm": ((8,),) * 4,
        "elman": (8,),
        "frame_stack": ((4, 4), ()),
        "positional_mlp": (),
        "mlp": (),
        "min_gru": ((128,), (128,)),
        "min_lstm": ((128,), (128,)),
        "hgrn": ((64,), (64,)),
        "s4d": ((8, 16), (8, 16)),
        "mamba": (((3, 16), (16, 16)),) * 2,
        "rot_rnn": ((16, 4), (16, 4)),
        "shm": ((32, 32), ()),
        "memory_traces": (8, 4),
        "lmu": ((8,), (32,)),
    }
    assert sizes == expected[name]


@each_model
@pytest.mark.one_in(3)
def test_keys_decide_every_parameter_that_is_drawn(name):
    build = jax.jit(functools.partial(REGISTRY[name], INPUT, OUTPUT, **SIZES[name]))
    one, same, other = (build(key=jax.random.key(seed)) for seed in (0, 0, 1))
    assert_identical(one, same)
    fixed = 0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        fixed += np.array_equal(a, b)
    # Not random: the eigenvalues of S5 and S4D (two leaves each), FFM's decays and frequencies,
    # sLSTM's biases, mLSTM's b_f, u, v and both gates' biases of GTrXL, Mamba's A and D, Mamba-2's D, HGRN's bounds and
    # angles, HGRN2's Γ, the LMU's e_m, and what is neither a linear layer nor the B of a low rank in RWKV-7.
    not_drawn = {"s5": 2, "ffm": 2, "slstm": 1, "mlstm": 1, "gtrxl": 4, "s4d": 2, "mamba": 2, "mamba2": 1}
    not_drawn |= {"hgrn": 3, "hgrn2": 1, "lmu": 1, "rwkv7": 12}
    assert fixed == not_drawn.get(name, 0)


# --- Invalid arguments.


@each_model
def test_an_unknown_backend_is_refused(name):
    memory = model(name)  # built outside the trace, since it is cached
    with pytest.raises(ValueError, match="unknown backend 'warp'; choose one of "):
        jax.eval_shape(lambda x: memory(x, jnp.asarray(BEGIN), backend="warp"), observations())


@pytest.mark.parametrize("name", [n for n in REGISTRY if n != "mlp"])
def test_a_memory_refuses_a_sequence_without_steps(name):
    with pytest.raises(ValueError, match=r"a sequence needs at least one step, got x of shape \(0, 4\)$"):
        model(name)(np.zeros((0, INPUT), np.float32), np.zeros(0, bool))


# --- Stack.


def stack_of_two():
    keys = jax.random.split(jax.random.key(4), 2)
    return Stack([GRU(INPUT, 5, key=keys[0]), GRU(5, OUTPUT, key=keys[1])])


def test_a_stack_feeds_each_layer_with_the_one_before_and_keeps_a_tuple_of_states():
    stack, x = stack_of_two(), observations()
    below, above = stack.layers
    middle, first = run(below, x, BEGIN)
    s, second = run(above, middle, BEGIN)
    got, state = run(stack, x, BEGIN)
    assert_close((got, state), (s, (first, second)), 1e-6)
    assert isinstance(stack.initial_state(), tuple) and len(stack.initial_state()) == 2
    assert (stack.input_size, stack.output_size) == (INPUT, OUTPUT)


def test_a_stack_steps_with_the_states_of_all_its_layers():
    stack, x = stack_of_two(), observations()
    s, final = run(stack, x, BEGIN)
    state = stack.initial_state()
    for t in range(LENGTH):
        s_t, state, _ = step(stack, x[t], BEGIN[t], state)
        assert_close(s_t, s[t])
    assert_close(state, final)


def test_a_stack_declares_only_the_backends_that_all_its_layers_share():
    assert stack_of_two().backends == ("sequential",)
    assert model("lru").backends == available_backends()
    layers = [build(2, 2, key=jax.random.key(0)) for build in (MLP, FFM, GRU)]
    assert Stack(layers[:2]).backends == available_backends()
    assert Stack(layers).backends == ("sequential",)


def test_a_stack_refuses_layers_that_do_not_fit():
    layers = [MLP(4, 5, key=jax.random.key(0)), MLP(5, 3, key=jax.random.key(1)), MLP(2, 3, key=jax.random.key(2))]
    with pytest.raises(ValueError, match=r"^Stack: layer 1 outputs 3 features but layer 2 takes 2$"):
        Stack(layers)


def test_a_stack_refuses_to_be_empty():
    with pytest.raises(ValueError, match=r"^Stack: needs at least one layer, got none$"):
        Stack([])


def test_a_stack_refuses_a_state_with_another_number_of_layers():
    stack = stack_of_two()
    with pytest.raises(ValueError, match="zip"):
        jax.eval_shape(stack, observations(), jnp.asarray(BEGIN), (*stack.initial_state(), ()))


def test_layers_of_a_stack_of_copies_have_their_own_parameters():
    first, second = model("lru").layers
    assert (first.input_size, second.input_size) == (INPUT, OUTPUT)
    assert first.surround.project is not None and second.surround.project is None
    assert not np.array_equal(first.nu, second.nu)


def test_complex_maps_hold_the_matrix_they_are_given(rng):
    weight, h, x = (rng.standard_normal((3, 2)) + 1j * rng.standard_normal((3, 2)) for _ in range(3))
    h, x = h[0], x[0].real
    c, b = RealPart(jnp.asarray(weight, jnp.complex64)), ComplexLinear(jnp.asarray(weight, jnp.complex64))
    np.testing.assert_allclose(c(jnp.asarray(h, jnp.complex64)), (weight @ h).real, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b(jnp.asarray(x, jnp.float32)), weight @ x, rtol=1e-5, atol=1e-6)


def test_what_surrounds_a_recurrence_projects_only_where_widths_differ():
    assert GatedResidual(3, 3, key=jax.random.key(0)).project is None
    assert GatedResidual(3, 4, key=jax.random.key(0)).project is not None
