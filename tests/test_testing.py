"""The checks for authors of models: they pass lawful ones and name the law, place and size of every planted fault."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from memoroids import Memoroid, Memory, Monoid, Stack, check_memory, check_monoid
from memoroids import testing as laws
from memoroids.algebra.monoid import DenseAffine, DiagonalAffine, Max, Product, Sum
from memoroids.algebra.resettable import Resettable, select
from memoroids.algebra.scan import BACKENDS
from memoroids.memory import GRU, LRU, MLP
from memoroids.testing import LawError

# --- Monoids.


@pytest.mark.parametrize(
    "monoid",
    [
        Sum((2, 2)),
        Max(3),
        Sum(2, jnp.int32),
        DiagonalAffine(3, jnp.complex64),
        Product(Sum(2), Max(3), DenseAffine(2)),
        Resettable(Sum(2)),
    ],
    ids=["sum", "max", "integers", "complex", "product", "resettable"],
)
def test_a_lawful_monoid_passes(monoid):
    check_monoid(monoid)


def test_a_lawful_monoid_passes_on_elements_of_the_authors_own():
    check_monoid(DenseAffine(2), (jnp.eye(2)[None] * 3.0, jnp.ones((1, 2))))


def test_a_lawful_monoid_passes_on_elements_with_infinities():
    check_monoid(Max(2), jnp.array([[-jnp.inf, 1.0], [0.5, jnp.inf], [2.0, -jnp.inf]]))


class Planted(Monoid):
    """A monoid with the given operator and identity, either of which may be faulty."""

    operator: object = eqx.field(static=True)
    neutral: object = eqx.field(static=True, default=lambda: jnp.zeros(2))

    def identity(self):
        return self.neutral()

    def combine(self, left, right):
        return self.operator(left, right)


LEFT, RIGHT = "left identity, e • a = a", "right identity, a • e = a"
ASSOCIATIVITY = "associativity, (a • b) • c = a • (b • c)"


@pytest.mark.parametrize(
    ("monoid", "law"),
    [
        (Planted(lambda a, b: a), LEFT),
        (Planted(lambda a, b: b), RIGHT),
        (Planted(lambda a, b: a + b + a * a * b), ASSOCIATIVITY),
        (Planted(jnp.maximum), LEFT),
        (Planted(jnp.add, lambda: jnp.full(2, 0.5)), LEFT),
    ],
    ids=["left identity", "right identity", "associativity", "zero for a maximum", "half for a sum"],
)
def test_a_broken_law_is_named_with_its_input_and_difference(monoid, law):
    with pytest.raises(LawError) as caught:
        check_monoid(monoid)
    message = str(caught.value)
    assert message.startswith(f"Planted breaks '{law}' at element ")
    difference = re.search(r"largest difference ([\d.e+-]+) at the value; a = \[", message)
    assert difference is not None and float(difference[1]) > 1e-3
    assert ("b = [" in message and "c = [" in message) == (law == ASSOCIATIVITY)


def test_the_difference_named_is_the_one_between_the_two_sides():
    with pytest.raises(LawError, match=r"at element 0: largest difference 3 at the value; a = \[3\. 1\.\]$"):
        check_monoid(Planted(lambda a, b: a), jnp.array([[3.0, 1.0]]))


def test_the_part_of_the_element_that_differs_is_named():
    class Lopsided(Monoid):
        def identity(self):
            return {"kept": jnp.zeros(()), "broken": jnp.zeros(())}

        def combine(self, left, right):
            return {"kept": left["kept"] + right["kept"], "broken": left["broken"]}

    with pytest.raises(LawError, match=r"Lopsided breaks 'left identity.*at \['broken'\]; a = "):
        check_monoid(Lopsided())


@pytest.mark.parametrize(
    ("monoid", "message"),
    [
        (Planted(lambda a, b: (a + b)[:1]), r"shape \(1,\) instead of \(2,\)"),
        (
            Planted(lambda a, b: [a[0] + b[0]], lambda: (jnp.zeros(2),)),
            r"structure PyTreeDef\(\[\*\]\) instead of PyTreeDef\(\(\*,\)\)",
        ),
        (Planted(lambda a, b: jnp.real(a) + jnp.real(b), lambda: jnp.zeros(2, jnp.complex64)), ""),
        # All values are right, but the dtype changes, so a scan could not carry the element.
        (Planted(lambda a, b: a.astype(jnp.float32) + b.astype(jnp.float32), lambda: jnp.zeros(2, jnp.float16)), ""),
    ],
    ids=["shape", "structure", "complex to real", "dtype"],
)
def test_an_operator_that_leaves_the_set_is_named(monoid, message):
    # Under strict promotion the operator itself would fail; the session of an author may not be strict.
    expected = pytest.raises(LawError, match=f"^Planted breaks '{re.escape(LEFT)}'.*{message}")
    with expected, jax.numpy_dtype_promotion("standard"):
        check_monoid(monoid)


def test_an_infinity_among_the_elements_hides_no_fault_beside_it():
    monoid = Planted(lambda a, b: jnp.maximum(a, b) + 0.5, lambda: jnp.full(2, -jnp.inf))
    with pytest.raises(LawError, match=f"^Planted breaks '{re.escape(LEFT)}'"):
        check_monoid(monoid, jnp.array([[jnp.inf, 1.0], [jnp.inf, 2.0]]))


def test_a_nan_that_an_operator_makes_is_not_called_a_difference_of_zero():
    with pytest.raises(LawError, match=r"^Planted breaks '") as caught:
        check_monoid(Planted(lambda a, b: a + b + jnp.sqrt(-1 - a * a)))
    assert "largest difference 0 " not in str(caught.value)


def test_tolerance_decides_how_much_is_a_difference():
    nearly = Planted(jnp.add, lambda: jnp.full(2, 0.01))
    check_monoid(nearly, tolerance=0.1)
    with pytest.raises(LawError, match="left identity"):
        check_monoid(nearly, tolerance=1e-3)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_the_reset_of_a_monoid_is_checked_in_both_directions(monkeypatch, reverse):
    class LosesFlags(Resettable):
        def combine(self, left, right):
            h, b = super().combine(left, right)
            return h, right[1] if self.reverse == reverse else b

    monkeypatch.setattr(laws, "Resettable", LosesFlags)
    name = "Resettable(Sum, reverse=True)" if reverse else "Resettable(Sum)"
    with pytest.raises(LawError, match=f"^{re.escape(name)} breaks '.*' at element .*: largest difference .*; a = "):
        check_monoid(Sum(2))


def test_a_law_error_is_an_assertion_error():
    assert issubclass(LawError, AssertionError)


# --- Memories.


class Trace(Memory):
    """A decaying trace of projected observations. Each faulty memory below replaces one part of it."""

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    weight: jax.Array

    def __init__(self):
        self.input_size, self.output_size = 2, 3
        self.weight = jax.random.normal(jax.random.key(0), (3, 2))

    def initial_state(self):
        return jnp.zeros(3)

    def update(self, x, begin, state):
        return 0.5 * select(begin, jnp.zeros(3), state) + self.weight @ x

    def step(self, x, begin, state):
        state = self.update(x, begin, state)
        return jnp.tanh(state), state

    def __call__(self, x, begin, state=None, *, backend=None):
        def body(state, inputs):
            s, state = self.step(*inputs, state)
            return state, (s, state)

        state, (s, _) = jax.lax.scan(body, self.initial_state() if state is None else state, (x, begin))
        return s, state


class StepForgetsFaster(Trace):
    def step(self, x, begin, state):
        return super().step(x, begin, 0.9 * state)

    def __call__(self, x, begin, state=None, *, backend=None):
        return Trace.__call__(_Plain(self), x, begin, state)


class _Plain(Trace):
    def __init__(self, other):
        self.input_size, self.output_size, self.weight = other.input_size, other.output_size, other.weight


class GivesTheStateBeforeTheLast(Trace):
    def __call__(self, x, begin, state=None, *, backend=None):
        s, state = super().__call__(x, begin, state)
        return s, jnp.arctanh(s[-2])


class MultipliesByAMask(Trace):
    def update(self, x, begin, state):
        return 0.5 * (1 - begin.astype(jnp.float32)) * state + self.weight @ x


class IgnoresBegin(Trace):
    def update(self, x, begin, state):
        return 0.5 * state + self.weight @ x


class SelectsAfterTheOperator(Trace):
    def update(self, x, begin, state):
        drive = jax.nn.sigmoid(self.weight @ x)
        return select(begin, drive, state * drive + drive)


class GlancesAhead(Trace):
    """By less than the tolerance for rounding, so that only the law on the future detects it."""

    def __call__(self, x, begin, state=None, *, backend=None):
        s, state = super().__call__(x, begin, state)
        return s + 1e-5 * jnp.mean(x), state


class StaresAhead(Trace):
    def __call__(self, x, begin, state=None, *, backend=None):
        s, state = super().__call__(x, begin, state)
        return s + jnp.mean(x), state


class TwoBackends(Trace):
    backends = BACKENDS


class AnotherValueByAnotherBackend(TwoBackends):
    def __call__(self, x, begin, state=None, *, backend=None):
        s, state = super().__call__(x, begin, state)
        return s * (1.01 if backend == "associative" else 1.0), state


class AnotherGradientByAnotherBackend(TwoBackends):
    def __call__(self, x, begin, state=None, *, backend=None):
        s, state = super().__call__(x, begin, state)
        return jax.lax.stop_gradient(s) if backend == "associative" else s, state


class MultipliesByAMaskInAnotherBackend(TwoBackends):
    def __call__(self, x, begin, state=None, *, backend=None):
        if backend != "associative":
            return super().__call__(x, begin, state)
        return Trace.__call__(eqx.tree_at(lambda m: m.weight, MultipliesByAMask(), self.weight), x, begin, state)


class IsTooWide(Trace):
    def __call__(self, x, begin, state=None, *, backend=None):
        s, state = super().__call__(x, begin, state)
        return jnp.concatenate((s, s), axis=1), state


class ForgetsTheStateItIsGiven(Trace):
    def __call__(self, x, begin, state=None, *, backend=None):
        return super().__call__(x, begin, None)


class Overflows(Trace):
    def step(self, x, begin, state):
        s, state = super().step(x, begin, state)
        return jnp.exp(1e4 * s), state


class Sums(Memoroid):
    """Sums of projected observations under a given monoid."""

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    weight: jax.Array
    operator: Monoid

    def __init__(self, operator):
        self.input_size, self.output_size, self.operator = 2, 2, operator
        self.weight = jax.random.normal(jax.random.key(0), (2, 2))

    @property
    def monoid(self):
        return self.operator

    def lift(self, x, begin):
        return self.weight @ x

    def readout(self, h, x, begin):
        return jnp.tanh(h)


class SequentialSums(Sums):
    """With one backend only, since for an unlawful monoid the gradients of different backends differ."""

    backends = ("sequential",)


class TrainableIdentity(Monoid):
    """Addition with a trainable identity, lawful only while it is 0."""

    offset: jax.Array

    def identity(self):
        return self.offset

    def combine(self, left, right):
        return left + right


class TrainableOperator(Monoid):
    """Addition with a trainable nonlinear term, lawful only while it is 0."""

    bend: jax.Array

    def identity(self):
        return jnp.zeros(2)

    def combine(self, left, right):
        return left + right + self.bend * left * left * right


def small(build, **sizes):
    return build(2, 3, key=jax.random.key(0), **sizes)


@pytest.mark.parametrize(
    "memory",
    [
        small(LRU, state_size=2),
        Stack([small(MLP), GRU(3, 2, key=jax.random.key(1))]),
        TwoBackends(),
    ],
    ids=["lru", "stack", "trace"],
)
def test_a_lawful_memory_passes(memory):
    check_memory(memory, length=8, gradient_steps=1)


SAME = "sequence call = step by step"


@pytest.mark.parametrize(
    ("memory", "law", "where"),
    [
        (StepForgetsFaster, SAME, r"step 1, largest difference"),
        (GivesTheStateBeforeTheLast, SAME, r"final state, largest difference"),
        (StaresAhead, SAME, r"step 0, largest difference"),
        (GlancesAhead, "no output depends on the future", r"input changed from \d+ on, largest difference"),
        (
            MultipliesByAMask,
            "nothing crosses a begin flag",
            r"NaN before the begin flag at 4, .*largest difference inf",
        ),
        (
            IgnoresBegin,
            "nothing crosses a begin flag",
            r"other values before the begin flag at 4, .*largest difference",
        ),
        (
            SelectsAfterTheOperator,
            "no gradient crosses a begin flag",
            r"NaN before the begin flag at 4, .*largest difference inf",
        ),
        (AnotherValueByAnotherBackend, "backends agree", r"output with 'associative', largest difference"),
        (AnotherGradientByAnotherBackend, "backends agree", r"gradient with 'associative', largest difference"),
        (MultipliesByAMaskInAnotherBackend, "nothing crosses a begin flag", r"NaN .*'associative'"),
        (IsTooWide, "shape", r"s is \(8, 6\), expected \(8, 3\)"),
        (Overflows, "finite", r"a normally distributed input gave a non-finite output or state"),
    ],
)
def test_a_planted_fault_is_named_with_its_place_and_difference(memory, law, where):
    with pytest.raises(LawError, match=f"^{memory.__name__} breaks '{law}': {where}"):
        check_memory(memory(), length=8, gradient_steps=0)


@pytest.mark.parametrize("length", [8, 9, 24])
def test_a_sequence_call_that_ignores_the_state_it_is_given_is_found_at_every_length(length):
    message = r"^ForgetsTheStateItIsGiven breaks 'split sequence = whole': split at \d+, largest difference"
    with pytest.raises(LawError, match=message):
        check_memory(ForgetsTheStateItIsGiven(), length=length, gradient_steps=0)


@pytest.mark.parametrize(
    ("operator", "law"),
    [
        (lambda a, b: a, LEFT),
        (lambda a, b: b, RIGHT),
        (lambda a, b: a + b + a * a * b, ASSOCIATIVITY),
    ],
    ids=["left identity", "right identity", "associativity"],
)
def test_a_memoroids_monoid_is_checked_on_what_it_lifts(operator, law):
    message = f"^Sums's monoid: Planted breaks '{re.escape(law)}' at element .*; a = "
    with pytest.raises(LawError, match=message):
        check_memory(Sums(Planted(operator)), length=8, gradient_steps=0)
    with pytest.raises(LawError, match=message):
        check_memory(Stack([Sums(Sum(2)), Sums(Planted(operator))]), length=8, gradient_steps=0)


@pytest.mark.parametrize(
    ("monoid", "law"),
    [(TrainableIdentity(jnp.zeros(2)), LEFT), (TrainableOperator(jnp.zeros(2)), ASSOCIATIVITY)],
    ids=["identity", "associativity"],
)
def test_a_law_that_training_breaks_is_found_after_a_gradient_step_and_not_before(monoid, law):
    memory = SequentialSums(monoid)
    check_memory(memory, length=8, gradient_steps=0)
    name = type(monoid).__name__
    message = f"^SequentialSums's monoid after 1 gradient step: {name} breaks '{re.escape(law)}'"
    with pytest.raises(LawError, match=message):
        check_memory(memory, length=8, gradient_steps=1)


def test_a_fault_that_training_brings_to_a_plain_memory_is_found_after_a_gradient_step():
    class Drifts(Trace):
        drift: jax.Array

        def __init__(self):
            super().__init__()
            self.drift = jnp.zeros(3)

        def __call__(self, x, begin, state=None, *, backend=None):
            s, state = super().__call__(x, begin, state)
            return s + self.drift[None], state

    check_memory(Drifts(), length=8, gradient_steps=0)
    with pytest.raises(LawError, match=f"^Drifts breaks '{SAME}' after 1 gradient step: step 0"):
        check_memory(Drifts(), length=8, gradient_steps=1)


def test_a_sequence_too_short_to_show_a_fault_is_refused():
    with pytest.raises(ValueError, match=r"^check_memory: length must be at least 8, got 7$"):
        check_memory(Trace(), length=7)


def test_the_key_decides_the_data():
    with pytest.raises(LawError) as first:
        check_memory(StaresAhead(), length=8, key=jax.random.key(1))
    with pytest.raises(LawError) as again:
        check_memory(StaresAhead(), length=8, key=jax.random.key(1))
    with pytest.raises(LawError) as other:
        check_memory(StaresAhead(), length=8, key=jax.random.key(2))
    assert str(first.value) == str(again.value) != str(other.value)
