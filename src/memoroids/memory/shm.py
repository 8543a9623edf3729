"""Stable Hadamard Memory: a matrix that is multiplied elementwise at each step (Le et al. 2024)."""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.linear_recurrence import linear_recurrence
from memoroids.algebra.recurrence_backends import available_backends
from memoroids.algebra.resettable import select
from memoroids.algebra.window import steps_before
from memoroids.memory.layers import linear
from memoroids.memory.memoroid import CheckedMemory, State, check_sizes


def address(x: jax.Array) -> jax.Array:
    """relu(x) / (Σ relu(x) + 1e-5): non-negative weights that sum to nearly 1."""
    x = jax.nn.relu(x.astype(jnp.float32))
    return x / (jnp.sum(x) + 1e-5)


class SHM(CheckedMemory):
    """M_t = M_{t-1} ⊙ C_t + U_t with C_t = 1 + tanh(θ_t ⊗ v_c(o_t)) and U_t = η(o_t) v(o_t) ⊗ k(o_t).

    s = W_o M_t q(o_t) + b_o, the memory read at q. v, v_c and the arguments of η = σ(·), k and q are linear maps of the
    observation; k and q are non-negative and sum to 1 (`address`). θ_t is one of `rows` rows of parameters, drawn
    uniformly at each step, so that the product of many C_t, whose entries lie between 0 and 2, neither explodes nor
    vanishes on average. Here the draw is a function of the number of the step in its episode, so that learning sees the
    calibration that acting had. The authors' code rounds a number from [0, 1) down before it looks a row up, so it
    always takes the first row; this model takes all of them.

    State: float32 (memory_size, memory_size), the paper's M, and int32 (), the number of steps of the episode so far.
    As in the authors' code, there are 128 rows, and θ starts uniformly within ±√(6 / (rows + memory_size)); the
    published memory_size depends on the task, and the linear layers start as Equinox's do. Raises `ValueError` unless
    sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    theta: jax.Array
    w_c: eqx.nn.Linear
    w_k: eqx.nn.Linear
    w_q: eqx.nn.Linear
    w_v: eqx.nn.Linear
    w_eta: eqx.nn.Linear
    w_o: eqx.nn.Linear

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, memory_size: int = 32, rows: int = 128):
        check_sizes("SHM", input_size=input_size, output_size=output_size, memory_size=memory_size, rows=rows)
        self.input_size, self.output_size = input_size, output_size
        theta_key, eta_key, o_key, *keys = jax.random.split(key, 7)
        limit = (6 / (rows + memory_size)) ** 0.5
        self.theta = jax.random.uniform(theta_key, (rows, memory_size), jnp.float32, minval=-limit, maxval=limit)
        self.w_c, self.w_k, self.w_q, self.w_v = (linear(input_size, memory_size, k) for k in keys)
        self.w_eta = linear(input_size, 1, eta_key)
        self.w_o = linear(memory_size, output_size, o_key, bias=True)

    @property
    def backends(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The backends of `linear_recurrence` that are available here."""
        return available_backends()

    def initial_state(self) -> State:
        """Zeros, float32 (memory_size, memory_size) and int32 ()."""
        size = self.theta.shape[1]
        return jnp.zeros((size, size), jnp.float32), jnp.zeros((), jnp.int32)

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        memory, before = state
        place = steps_before(begin, before)
        c, u = jax.vmap(self._update)(x, place)
        memories = linear_recurrence(c, u, reset=begin, initial=memory, backend=backend)
        return jax.vmap(self._read)(memories, x), (memories[-1], place[-1] + 1)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One update of the matrix, from zeros if `begin`, and what is read from it."""
        memory, place = select(begin, self.initial_state(), state)
        c, u = self._update(x, place)
        memory = memory * c + u
        return self._read(memory, x), (memory, place + 1)

    def row(self, place: jax.Array) -> jax.Array:
        """Which row of θ a step takes, given the number of steps of its episode before it; uniform over all rows.

        The number is mixed as the final step of MurmurHash3 does it, which takes far less time than a random key.
        """
        mixed = jnp.asarray(place, jnp.uint32) + jnp.uint32(0x9E3779B9)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
        return ((mixed ^ (mixed >> 16)) % jnp.uint32(self.theta.shape[0])).astype(jnp.int32)

    def _update(self, x: jax.Array, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        """C_t and U_t, float32 (memory_size, memory_size)."""
        theta = self.theta[self.row(place)].astype(jnp.float32)
        value = jax.nn.sigmoid(self.w_eta(x)) * self.w_v(x)
        c = 1 + jnp.tanh(jnp.outer(theta, self.w_c(x)))
        return c.astype(jnp.float32), jnp.outer(value, address(self.w_k(x))).astype(jnp.float32)

    def _read(self, memory: jax.Array, x: jax.Array) -> jax.Array:
        return self.w_o(memory @ address(self.w_q(x)))
