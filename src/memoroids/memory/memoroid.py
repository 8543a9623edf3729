"""Memory models: the interface that agents see, and memoroids, the models whose update is a monoid."""

import abc
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.linear_recurrence import available_backends, linear_recurrence
from memoroids.algebra.monoid import DiagonalAffine, Element, Monoid
from memoroids.algebra.resettable import Resettable, select
from memoroids.algebra.scan import BACKENDS, scan

State = Any
"""A pytree of arrays: what a memory carries from one step to the next."""


class Memory(eqx.Module):
    """A model that turns observations and begin flags into Markov states.

        s, state = model(x, begin)              # x (T, input_size), begin (T,) bool, s (T, output_size)
        s, state = model(x, begin, state)       # goes on from a state
        s_t, state = model.step(x_t, begin_t, state)    # one step, O(1) in time, equal to the sequence call

    A set begin[t] discards all that came before t. A subclass defines `initial_state`, `__call__` and `step` (or, for a
    `Memoroid`, the monoid and its two maps); `memoroids.check_memory` tests the result.

    `backends` names the ways to compute the sequence call, those of `scan` or the model's own; None picks its default.
    """

    input_size: eqx.AbstractVar[int]
    output_size: eqx.AbstractVar[int]
    backends: ClassVar[tuple[str, ...]] = ("sequential",)

    @abc.abstractmethod
    def initial_state(self) -> State:
        """The state before the first observation."""

    def check_backend(self, backend: str | None) -> None:
        """Raises `ValueError` for a backend that is neither None nor one of `backends`."""
        if backend not in (None, *self.backends):
            name = type(self).__name__
            raise ValueError(f"{name}: backend {backend!r} is not defined, only {', '.join(self.backends)}")

    @abc.abstractmethod
    def __call__(
        self, x: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        """Markov states s (T, output_size) of x (T, input_size) and begin (T,), and the state after the last."""

    @abc.abstractmethod
    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """The Markov state (output_size,) of one x (input_size,) and scalar begin, and the state after it."""


class Memoroid(Memory):
    """A memory given by a monoid with a map in and a map out; the rest follows.

    A subclass defines `monoid`, `lift` (the paper's f: (o, b) → H) and `readout` (the paper's g: (H, (o, b)) → s), each
    for a single step. The state is an element of H. The sequence call raises `ValueError` for a backend that is not one
    of `backends` and for a sequence without steps. Source: Morad et al. 2024, Definition 3.1.
    """

    backends: ClassVar[tuple[str, ...]] = BACKENDS

    @property
    @abc.abstractmethod
    def monoid(self) -> Monoid:
        """The monoid (H, •, e)."""

    @abc.abstractmethod
    def lift(self, x: jax.Array, begin: jax.Array) -> Element:
        """f: one observation (input_size,) and its flag to an element of H."""

    @abc.abstractmethod
    def readout(self, h: State, x: jax.Array, begin: jax.Array) -> jax.Array:
        """g: the accumulated state, the observation and its flag to the Markov state (output_size,)."""

    def initial_state(self) -> State:
        return self.monoid.identity()

    def __call__(
        self, x: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        self.check_backend(backend)
        if x.shape[0] == 0:
            raise ValueError(f"{type(self).__name__}: a sequence needs at least one step, got x of shape {x.shape}")
        return self._run(x, begin, self.initial_state() if state is None else state, backend)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        state = self.monoid.combine(select(begin, self.initial_state(), state), self.lift(x, begin))
        return self.readout(state, x, begin), state

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        h = self._accumulate(x, begin, state, backend)
        return jax.vmap(self.readout)(h, x, begin), jax.tree.map(lambda leaf: leaf[-1], h)

    def _accumulate(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> State:
        """The states at every t: h_t = (e if begin[t] else h_{t-1}) • lift(x_t)."""
        elements = (jax.vmap(self.lift)(x, begin), begin)
        h, _ = scan(Resettable(self.monoid), elements, initial=(state, jnp.zeros((), bool)), backend=backend)
        return h


class LinearMemoroid(Memoroid):
    """A memoroid of the diagonal affine monoid whose decay is the same at every step: h_t = decay ⊙ h_{t-1} + drive_t.

    A subclass defines `decay`, `drive` and `readout`. The state is h alone, the second half of the monoid's element;
    the sequence call is `memoroids.linear_recurrence`, which never broadcasts the decay over time.
    """

    @property
    def backends(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return available_backends()

    @abc.abstractmethod
    def decay(self) -> jax.Array:
        """λ, of the state's shape, with |λ| < 1."""

    @abc.abstractmethod
    def drive(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """What one observation (input_size,) adds to the state, of the state's shape and dtype."""

    @property
    def monoid(self) -> Monoid:
        decay = jax.eval_shape(self.decay)
        return DiagonalAffine(decay.shape, decay.dtype)

    def lift(self, x: jax.Array, begin: jax.Array) -> Element:
        return self.decay(), self.drive(x, begin)

    def initial_state(self) -> State:
        decay = jax.eval_shape(self.decay)
        return jnp.zeros(decay.shape, decay.dtype)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        state = self.decay() * select(begin, self.initial_state(), state) + self.drive(x, begin)
        return self.readout(state, x, begin), state

    def _accumulate(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> State:
        drive = jax.vmap(self.drive)(x, begin)
        return linear_recurrence(self.decay(), drive, reset=begin, initial=state, backend=backend)


class Stack(Memory):
    """Memories one after another, each fed with the states of the one before. The state is a tuple of theirs."""

    layers: tuple[Memory, ...]

    def __init__(self, layers: Sequence[Memory]):
        """`layers`: at least one; raises `ValueError` where an output size is not the next input size."""
        if not layers:
            raise ValueError("Stack: needs at least one memory, got none")
        for i, (below, above) in enumerate(pairwise(layers)):
            if below.output_size != above.input_size:
                raise ValueError(
                    f"Stack: layer {i} gives {below.output_size} features but layer {i + 1} takes {above.input_size}"
                )
        self.layers = tuple(layers)

    @staticmethod
    def of(
        layer: Callable[..., Memory], input_size: int, output_size: int, *, layers: int, key: jax.Array, **sizes: Any
    ):
        """`layers` copies of `layer(input_size, output_size, key=, **sizes)`, the first from `input_size`."""
        widths = (input_size, *[output_size] * layers)
        keys = jax.random.split(key, layers) if layers > 0 else ()
        return Stack([layer(n, output_size, key=k, **sizes) for n, k in zip(widths, keys, strict=False)])

    @property
    def input_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.layers[-1].output_size

    @property
    def backends(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        first, *others = self.layers
        return tuple(name for name in first.backends if all(name in layer.backends for layer in others))

    def initial_state(self) -> State:
        return tuple(layer.initial_state() for layer in self.layers)

    def __call__(
        self, x: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        states = self.initial_state() if state is None else state
        after = []
        for layer, before in zip(self.layers, states, strict=True):
            x, state = layer(x, begin, before, backend=backend)
            after.append(state)
        return x, tuple(after)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            x, layer_state = layer.step(x, begin, before)
            after.append(layer_state)
        return x, tuple(after)
