"""Checks for authors of memory models: the laws that a monoid and a memory must satisfy, each named if it fails."""

import itertools
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.algebra.monoid import Element, Monoid
from memoroids.algebra.resettable import Resettable
from memoroids.memory.memoroid import Memoroid, Memory, Stack


class LawError(AssertionError):
    """A monoid or memory breaks a law; the message names the law, where it fails and the difference."""


def check_monoid(
    monoid: Monoid, elements: Element | None = None, *, key: jax.Array | None = None, tolerance: float = 1e-4
) -> None:
    """Checks both identities and associativity of `monoid`, and of `Resettable(monoid)` in both directions.

    **Arguments:** `elements`, a pytree like the identity with a leading axis of N ≥ 1 sample elements. The default is
    8 random ones (normal, integers from -4 to 4, or coin flips, by dtype); pass your own if H is a smaller set. `key`,
    default `jax.random.key(0)`; `tolerance`, the error allowed, relative to the largest magnitude compared if above 1.

    Raises `LawError` naming the law, the elements and the difference.
    """
    if elements is None:
        elements = _random_like(monoid.identity(), 8, jax.random.key(0) if key is None else key)
    a, b, c = (jax.tree.map(lambda leaf, i=i: jnp.roll(leaf, -i, 0), elements) for i in range(3))
    _check_operator(monoid, type(monoid).__name__, a, b, c, tolerance)
    # Every triple of elements with each of the eight combinations of flags.
    count = jax.tree.leaves(elements)[0].shape[0]
    flags = jnp.asarray(list(itertools.product((False, True), repeat=3))).repeat(count, 0)
    a, b, c = (
        (jax.tree.map(lambda leaf: jnp.concatenate([leaf] * 8), part), flags[:, i]) for i, part in enumerate((a, b, c))
    )
    for reverse in (False, True):
        name = f"Resettable({type(monoid).__name__}{', reverse=True' if reverse else ''})"
        _check_operator(Resettable(monoid, reverse), name, a, b, c, tolerance)


def check_memory(
    memory: Memory, *, key: jax.Array | None = None, length: int = 24, gradient_steps: int = 2, tolerance: float = 1e-3
) -> None:
    """Checks that a memory model satisfies what agents and buffers rely on, before and after some gradient steps.

    The laws: outputs have the right shape and are finite; the monoid's laws hold (for a `Memoroid`); the sequence call
    equals step by step and every declared backend; a split sequence equals the whole one; no output depends on the
    future; nothing crosses a begin flag, neither values nor gradients, not even NaN and inf.

    **Arguments:** `key`, default `jax.random.key(0)`; `length` ≥ 8, steps in the test sequence; `gradient_steps`, steps
    of gradient descent, after each of which all laws are checked again; `tolerance`, the error allowed, relative to the
    largest magnitude compared if above 1.

    Raises `LawError` naming the law, where it failed and the difference, and `ValueError` if `length` < 8.
    """
    if length < 8:
        raise ValueError(f"check_memory: length must be at least 8, got {length}")
    key = jax.random.key(0) if key is None else key
    data_key, target_key = jax.random.split(key)
    x = jax.random.normal(data_key, (length, memory.input_size))
    begin = jnp.zeros(length, bool).at[jnp.array([0, length // 3, length // 2, length // 2 + 1])].set(True)
    target = jax.random.normal(target_key, (length, memory.output_size))
    for steps in range(gradient_steps + 1):
        when = "" if steps == 0 else f" after {steps} gradient step{'s' if steps > 1 else ''}"
        _check_once(memory, x, begin, tolerance, when)
        memory = _descend(memory, x, begin, target)


def _check_once(memory: Memory, x: jax.Array, begin: jax.Array, tolerance: float, when: str) -> None:
    name = type(memory).__name__
    length = x.shape[0]

    def fail(law: str, where: str, got: Any, want: Any) -> None:
        raise LawError(f"{name} breaks '{law}'{when}: {where}, {_difference(got, want)}")

    def compare(law: str, where: str, got: Any, want: Any, allowed: float = tolerance) -> None:
        if jax.tree.structure(got) != jax.tree.structure(want) or not _close(got, want, allowed):
            fail(law, where, got, want)

    s, state = _run(memory, x, begin, None, None)
    if s.shape != (length, memory.output_size):
        raise LawError(f"{name} breaks 'shape'{when}: s is {s.shape}, expected {(length, memory.output_size)}")
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((s, state))):
        raise LawError(f"{name} breaks 'finite'{when}: a normally distributed input gave a non-finite output or state")
    for layer in memory.layers if isinstance(memory, Stack) else (memory,):
        if isinstance(layer, Memoroid):
            observations = jax.random.normal(jax.random.key(1), (8, layer.input_size))
            try:
                check_monoid(layer.monoid, _lift(layer, observations, begin[:8]), tolerance=tolerance)
            except LawError as error:
                raise LawError(f"{type(layer).__name__}'s monoid{when}: {error}") from None

    stepped = memory.initial_state()
    for t in range(length):
        s_t, stepped = _step(memory, x[t], begin[t], stepped)
        compare("sequence call = step by step", f"step {t}", s_t, s[t])
    compare("sequence call = step by step", "final state", stepped, state)

    expected = _gradient((memory, x), begin, memory.backends[0])
    for backend in memory.backends:
        compare("backends agree", f"output with {backend!r}", _run(memory, x, begin, None, backend), (s, state))
        compare("backends agree", f"gradient with {backend!r}", _gradient((memory, x), begin, backend), expected)

    cut = length // 3 - 1  # inside an episode, so that the second part needs the state
    first, between = _run(memory, x[:cut], begin[:cut], None, None)
    second, last = _run(memory, x[cut:], begin[cut:], between, None)
    compare("split sequence = whole", f"split at {cut}", (jnp.concatenate((first, second)), last), (s, state))

    changed, _ = _run(memory, x.at[cut:].add(1.0), begin, None, None)
    compare("no output depends on the future", f"input changed from {cut} on", changed[:cut], s[:cut], 0.0)

    boundary = length // 2
    for backend in memory.backends:
        (_, clean), clean_gradient = _later(x[boundary:], x[:boundary], memory, begin, backend)
        for label, value in (("other values", -x[:boundary]), ("NaN", jnp.nan), ("inf", jnp.inf)):
            before = jnp.broadcast_to(jnp.asarray(value, x.dtype), (boundary, x.shape[1]))
            (_, reset), reset_gradient = _later(x[boundary:], before, memory, begin, backend)
            where = f"{label} before the begin flag at {boundary}, backend {backend!r}"
            compare("nothing crosses a begin flag", where, reset, clean, 0.0)
            compare("no gradient crosses a begin flag", where, reset_gradient, clean_gradient, 0.0)


# At module level, so that each is compiled once per model and not once per check.
@eqx.filter_jit
def _run(memory: Memory, x: jax.Array, begin: jax.Array, state: Any, backend: str | None) -> Any:
    return memory(x, begin, state, backend=backend)


@eqx.filter_jit
def _step(memory: Memory, x: jax.Array, begin: jax.Array, state: Any) -> Any:
    return memory.step(x, begin, state)


@eqx.filter_jit
def _lift(memory: Memoroid, x: jax.Array, begin: jax.Array) -> Element:
    return jax.vmap(memory.lift)(x, begin)


@eqx.filter_jit
@eqx.filter_grad
def _gradient(memory_and_x: tuple[Memory, jax.Array], begin: jax.Array, backend: str) -> jax.Array:
    memory, x = memory_and_x
    return jnp.sum(jnp.sin(memory(x, begin, backend=backend)[0]))


@eqx.filter_jit
def _later(after: jax.Array, before: jax.Array, memory: Memory, begin: jax.Array, backend: str) -> Any:
    """The outputs and final state after the boundary, and the gradient with respect to the inputs after it."""

    def loss(after: jax.Array) -> tuple[jax.Array, Any]:
        s, state = memory(jnp.concatenate((before, after)), begin, backend=backend)
        s = s[before.shape[0] :]
        return jnp.sum(jnp.sin(s)), (s, state)

    return jax.value_and_grad(loss, has_aux=True)(after)


@eqx.filter_jit
def _descend(memory: Memory, x: jax.Array, begin: jax.Array, target: jax.Array) -> Memory:
    grads = eqx.filter_grad(lambda m: jnp.mean(jnp.square(m(x, begin)[0] - target)))(memory)
    return eqx.apply_updates(memory, jax.tree.map(lambda g: -0.1 * g, grads))


_LEFT_IDENTITY, _RIGHT_IDENTITY = "left identity, e • a = a", "right identity, a • e = a"
_ASSOCIATIVITY = "associativity, (a • b) • c = a • (b • c)"


@eqx.filter_jit
def _sides(monoid: Monoid, a: Element, b: Element, c: Element) -> dict[str, tuple[Element, Element]]:
    """Both sides of each law, for a batch of elements."""
    combine = jax.vmap(monoid.combine)
    count = jax.tree.leaves(a)[0].shape[0]
    identity = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), monoid.identity())
    return {
        _LEFT_IDENTITY: (combine(identity, a), a),
        _RIGHT_IDENTITY: (combine(a, identity), a),
        _ASSOCIATIVITY: (combine(combine(a, b), c), combine(a, combine(b, c))),
    }


def _check_operator(monoid: Monoid, name: str, a: Element, b: Element, c: Element, tolerance: float) -> None:
    sides, (a, b, c) = jax.tree.map(np.asarray, (_sides(monoid, a, b, c), (a, b, c)))
    for law in (_LEFT_IDENTITY, _RIGHT_IDENTITY, _ASSOCIATIVITY):
        got, want = sides[law]
        if jax.tree.structure(got) != jax.tree.structure(want):
            raise LawError(f"{name} breaks '{law}': {_difference(got, want)}")
        for i in range(jax.tree.leaves(a)[0].shape[0]):
            at = jax.tree.map(lambda leaf, i=i: leaf[i], (got, want, (a, b, c)))
            if not _close(at[0], at[1], tolerance):
                inputs = dict(zip("abc" if law == _ASSOCIATIVITY else "a", at[2], strict=False))
                raise LawError(f"{name} breaks '{law}' at element {i}: {_difference(at[0], at[1])}; {_show(inputs)}")


def _random_like(identity: Element, count: int, key: jax.Array) -> Element:
    leaves, structure = jax.tree.flatten(identity)

    def draw(leaf: jax.Array, key: jax.Array) -> jax.Array:
        shape = (count, *leaf.shape)
        if leaf.dtype == bool:
            return jax.random.bernoulli(key, 0.5, shape)
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jax.random.randint(key, shape, -4, 5, leaf.dtype)
        return jax.random.normal(key, shape, leaf.dtype)

    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([draw(jnp.asarray(leaf), k) for leaf, k in zip(leaves, keys, strict=True)])


def _gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The absolute difference, entry by entry: 0 for equal infinities or two NaN, else inf if either is not finite."""
    wide = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    return np.where(same, 0.0, np.where(finite, np.abs(np.where(finite, a, 0) - np.where(finite, b, 0)), np.inf))


def _leaf_pairs(got: Any, want: Any) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    paths = jax.tree_util.tree_leaves_with_path(want)
    for (path, b), a in zip(paths, jax.tree.leaves(got), strict=True):
        yield jax.tree_util.keystr(path) or "the value", np.asarray(a), np.asarray(b)


def _close(got: Any, want: Any, tolerance: float) -> bool:
    """Whether every leaf is equal up to `tolerance` times its largest finite magnitude in `want`, or 1.

    NaN equals NaN; shapes and dtypes must be equal.
    """
    for _, a, b in _leaf_pairs(got, want):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return False
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b))))
        if np.isnan(a).any() != np.isnan(b).any() or not np.all(_gap(a, b) <= tolerance * scale):
            return False
    return True


def _difference(got: Any, want: Any) -> str:
    if jax.tree.structure(got) != jax.tree.structure(want):
        return f"structure {jax.tree.structure(got)} instead of {jax.tree.structure(want)}"
    worst, where = -1.0, ""
    for path, a, b in _leaf_pairs(got, want):
        if a.shape != b.shape:
            return f"shape {a.shape} instead of {b.shape} at {path}"
        if a.dtype != b.dtype:
            return f"dtype {a.dtype} instead of {b.dtype} at {path}"
        largest = float(np.max(_gap(a, b), initial=0.0))
        if largest > worst:
            worst, where = largest, path
    return f"largest difference {worst:.3g} at {where}"


def _show(named: dict[str, Element]) -> str:
    with np.printoptions(precision=4, threshold=6, edgeitems=2):
        parts = [f"{k} = {jax.tree.map(np.asarray, v)}" for k, v in named.items()]
    return " ".join("; ".join(parts).split())
