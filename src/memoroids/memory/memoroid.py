"""Memory models: the interface that agents use, and memoroids, the models whose update is a monoid's operator."""

import abc
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.algebra.linear_recurrence import linear_recurrence
from memoroids.algebra.monoid import DiagonalAffine, Element, Monoid
from memoroids.algebra.recurrence_backends import available_backends
from memoroids.algebra.resettable import Resettable, select
from memoroids.algebra.scan import BACKENDS, scan
from memoroids.memory.chunks import in_chunks

State = Any
"""A pytree of arrays that a memory model carries from one step to the next."""


def check_sizes(model: str, **sizes: Any) -> None:
    """Raises `ValueError`, with `model` in its message, unless every one of `sizes` is an integer of at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"{model}: {name} must be an integer of at least 1, got {size!r}")


class Memory(eqx.Module):
    """A model that turns observations and begin flags into Markov states.

        s, state = model(x, begin)              # x (T, input_size), begin (T,) bool, s (T, output_size)
        s, state = model(x, begin, state)       # continues from a state
        s_t, state = model.step(x_t, begin_t, state)    # one step, in O(1) time, equal to the sequence call

    If begin[t] is True, everything before t is discarded. A subclass defines `initial_state`, `__call__` and `step`,
    or, for a `Memoroid`, the monoid, `lift` and `readout`; `memoroids.check_memory` checks the result.

    `backends` are the names of the ways to compute the sequence call: those of `scan` or the model's own. The backend
    None stands for the model's default.
    """

    input_size: eqx.AbstractVar[int]
    output_size: eqx.AbstractVar[int]
    backends: ClassVar[tuple[str, ...]] = ("sequential",)

    @abc.abstractmethod
    def initial_state(self) -> State:
        """The state before the first observation."""

    def check_backend(self, backend: str | None) -> None:
        """Raises `ValueError` unless `backend` is None or one of `backends`."""
        if backend not in (None, *self.backends):
            name = type(self).__name__
            raise ValueError(f"{name}: unknown backend {backend!r}; choose one of {', '.join(self.backends)}")

    @abc.abstractmethod
    def __call__(
        self, x: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        """The Markov states s (T, output_size) of x (T, input_size) and begin (T,) bool, and the final state.

        `state`, default `initial_state()`, is the state before the first step. Raises `ValueError` for a backend that
        is not one of `backends`.
        """

    @abc.abstractmethod
    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """The Markov state (output_size,) of one x (input_size,) and scalar bool begin, and the new state."""


class CheckedMemory(Memory):
    """A memory whose sequence call checks its arguments and leaves the rest to `_run`."""

    chunk: ClassVar[int | None] = None
    """Steps that are computed together by `in_chunks`, where the states of all steps would be slow to store."""

    def __call__(
        self, x: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        """The Markov states s (T, output_size) and the final state.

        Arguments as for `Memory`. Raises `ValueError` for a backend that is not one of `backends`, and if T = 0.
        """
        self.check_backend(backend)
        if x.shape[0] == 0:
            raise ValueError(f"{type(self).__name__}: a sequence needs at least one step, got x of shape {x.shape}")
        state = self.initial_state() if state is None else state
        if self.chunk is not None and x.shape[0] > self.chunk:
            return in_chunks(self, x, begin, state, chunk=self.chunk, backend=backend)
        return self._run(x, begin, state, backend)

    @abc.abstractmethod
    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        """The sequence call for at least one step, a state, and one of `backends` or None."""


class Memoroid(CheckedMemory):
    """A memory model defined by a monoid, a map into it (`lift`) and a map out of it (`readout`).

    A subclass defines `monoid`, `lift` (the paper's f: (o, b) → H) and `readout` (the paper's g: (H, (o, b)) → s), the
    two maps for a single step. The state is an element of H. Source: Morad et al. 2024, Definition 3.1.
    """

    backends: ClassVar[tuple[str, ...]] = BACKENDS

    @property
    @abc.abstractmethod
    def monoid(self) -> Monoid:
        """The monoid (H, •, e)."""

    @abc.abstractmethod
    def lift(self, x: jax.Array, begin: jax.Array) -> Element:
        """f: maps one observation (input_size,) and its begin flag to an element of H."""

    @abc.abstractmethod
    def readout(self, h: State, x: jax.Array, begin: jax.Array) -> jax.Array:
        """g: maps the accumulated state, the observation and its begin flag to the Markov state (output_size,)."""

    def initial_state(self) -> State:
        """The identity of the monoid."""
        return self.monoid.identity()

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """Combines the state, or the identity if `begin`, with the lifted observation and reads the result out."""
        state = self.monoid.combine(select(begin, self.initial_state(), state), self.lift(x, begin))
        return self.readout(state, x, begin), state

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        h = self._accumulate(x, begin, state, backend)
        return jax.vmap(self.readout)(h, x, begin), jax.tree.map(lambda leaf: leaf[-1], h)

    def _accumulate(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> State:
        """The state at every t: h_t = (e if begin[t] else h_{t-1}) • lift(x_t)."""
        elements = (jax.vmap(self.lift)(x, begin), begin)
        h, _ = scan(Resettable(self.monoid), elements, initial=(state, jnp.zeros((), bool)), backend=backend)
        return h


class GatedMemoroid(Memoroid):
    """A memoroid of the diagonal affine monoid whose decay depends on the input: h_t = decay_t ⊙ h_{t-1} + drive_t.

    A subclass defines `initial_state`, `lift`, which gives the pair (decay_t, drive_t), and `readout`. The state is h,
    the second component of the monoid's element. The sequence call uses `memoroids.linear_recurrence`.
    """

    @property
    def backends(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The backends of `linear_recurrence` that are available here."""
        return available_backends()

    @abc.abstractmethod
    def initial_state(self) -> State:
        """Zeros, of the shape and dtype of the state."""

    @abc.abstractmethod
    def lift(self, x: jax.Array, begin: jax.Array) -> Element:
        """The pair (decay_t, drive_t) of one observation (input_size,), both of the shape and dtype of the state."""

    @property
    def monoid(self) -> Monoid:
        """`DiagonalAffine`, of the shape and dtype of the state."""
        state = jax.eval_shape(self.initial_state)
        return DiagonalAffine(state.shape, state.dtype)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One step of the recurrence, from a zero state if `begin`, and its readout."""
        decay, drive = self.lift(x, begin)
        state = decay * select(begin, self.initial_state(), state) + drive
        return self.readout(state, x, begin), state

    def _accumulate(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> State:
        decay, drive = jax.vmap(self.lift)(x, begin)
        return linear_recurrence(decay, drive, reset=begin, initial=state, backend=backend)


class LinearMemoroid(GatedMemoroid):
    """A `GatedMemoroid` with a time-invariant decay: h_t = decay ⊙ h_{t-1} + drive_t.

    A subclass defines `decay`, `drive` and `readout`. The sequence call never broadcasts the decay over time.
    """

    @abc.abstractmethod
    def decay(self) -> jax.Array:
        """λ, of the shape and dtype of the state, with |λ| < 1."""

    @abc.abstractmethod
    def drive(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """What one observation (input_size,) adds to the state, of the shape and dtype of the state."""

    def lift(self, x: jax.Array, begin: jax.Array) -> Element:
        """The pair (decay, drive)."""
        return self.decay(), self.drive(x, begin)

    def initial_state(self) -> State:
        """Zeros, of the shape and dtype of the decay."""
        decay = jax.eval_shape(self.decay)
        return jnp.zeros(decay.shape, decay.dtype)

    def _accumulate(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> State:
        drive = jax.vmap(self.drive)(x, begin)
        return linear_recurrence(self.decay(), drive, reset=begin, initial=state, backend=backend)


class Stack(Memory):
    """Several memory models in sequence: each takes the Markov states of the one before as observations.

    The state is the tuple of the layers' states.
    """

    layers: tuple[Memory, ...]

    def __init__(self, layers: Sequence[Memory]):
        """Raises `ValueError` if `layers` is empty or an output size differs from the input size of the next layer."""
        if not layers:
            raise ValueError("Stack: needs at least one layer, got none")
        for i, (below, above) in enumerate(pairwise(layers)):
            if below.output_size != above.input_size:
                raise ValueError(
                    f"Stack: layer {i} outputs {below.output_size} features but layer {i + 1} takes {above.input_size}"
                )
        self.layers = tuple(layers)

    @staticmethod
    def of(
        layer: Callable[..., Memory], input_size: int, output_size: int, *, layers: int, key: jax.Array, **sizes: Any
    ):
        """A stack of `layers` models made by `layer(n, output_size, key=…, **sizes)`, each with its own parameters.

        n is `input_size` for the first layer and `output_size` for the others. Raises `ValueError` unless `layers` is
        an integer of at least 1.
        """
        check_sizes("Stack", layers=layers)
        widths = (input_size, *[output_size] * (layers - 1))
        keys = jax.random.split(key, layers)
        return Stack([layer(n, output_size, key=k, **sizes) for n, k in zip(widths, keys, strict=True)])

    def bound(self) -> "Stack":
        """The stack with all that its layers need of each other: itself, unless a subclass says otherwise."""
        return self

    @property
    def input_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The input size of the first layer."""
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The output size of the last layer."""
        return self.layers[-1].output_size

    @property
    def backends(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The backends that all layers have in common."""
        first, *others = self.layers
        return tuple(name for name in first.backends if all(name in layer.backends for layer in others))

    def initial_state(self) -> State:
        """The tuple of the layers' initial states."""
        return tuple(layer.initial_state() for layer in self.layers)

    def __call__(
        self, x: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        """The Markov states of the last layer, (T, output_size), and the tuple of the layers' final states."""
        states = self.initial_state() if state is None else state
        after = []
        for layer, before in zip(self.layers, states, strict=True):
            x, state = layer(x, begin, before, backend=backend)
            after.append(state)
        return x, tuple(after)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One step of every layer: the Markov state of the last one, and the tuple of the layers' new states."""
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            x, layer_state = layer.step(x, begin, before)
            after.append(layer_state)
        return x, tuple(after)
