"""The minimal recurrent networks minGRU and minLSTM, whose gates see the input only (Feng et al. 2024)."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.layers import Residual, linear
from memoroids.memory.memoroid import GatedMemoroid, State, check_sizes


def positive(x: jax.Array) -> jax.Array:
    """The paper's g, which keeps states positive: x + 0.5 if x ≥ 0, else σ(x) (Feng et al. 2024, Appendix B.3)."""
    return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))


class _MinimalRNN(GatedMemoroid):
    """A pre-norm residual layer around h_t = decay_t ⊙ h_{t-1} + (1 - decay_t) ⊙ g(W_h u_t + b_h); `gates` is left."""

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    gate: eqx.nn.Linear
    candidate: eqx.nn.Linear
    out: eqx.nn.Linear
    surround: Residual

    def _build(self, gates: int, input_size: int, output_size: int, state_size: int, key: jax.Array) -> None:
        check_sizes(type(self).__name__, input_size=input_size, output_size=output_size, state_size=state_size)
        self.input_size, self.output_size = input_size, output_size
        gate_key, candidate_key, out_key, surround_key = jax.random.split(key, 4)
        self.gate = linear(output_size, gates * state_size, gate_key, bias=True)
        self.candidate = linear(output_size, state_size, candidate_key, bias=True)
        self.out = linear(state_size, output_size, out_key, bias=True)
        self.surround = Residual(input_size, output_size, key=surround_key)

    @abc.abstractmethod
    def gates(self, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The weights (state_size,) of the old state and of the candidate, which sum to 1, given u (output_size,)."""

    def initial_state(self) -> State:
        """Zeros, float32 (state_size,)."""
        return jnp.zeros(self.candidate.out_features, jnp.float32)

    def lift(self, x: jax.Array, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The weight of the old state, and the weighted candidate."""
        del begin
        u = self.surround.enter(x)
        keep, write = self.gates(u)
        return keep, write * positive(self.candidate(u).astype(jnp.float32))

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """W_o h + b_o plus the residual."""
        del begin
        return self.surround.leave(self.out(h), x)


class MinGRU(_MinimalRNN):
    """One layer of minGRU: z_t = σ(W_z u_t + b_z), h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ g(W_h u_t + b_h).

    g is `positive`, u_t the normalised input, and s_t = W_o h_t + b_o plus the residual of the input, as in the blocks
    of the paper, whose optional convolution and multilayer perceptron are left out. The paper's log-space form computes
    this function by a scan of logarithms, because its scan divides by products of decays. The recurrence here
    multiplies by 1 - z_t = σ(-(W_z u_t + b_z)), computed without a subtraction, and adds positive numbers: nothing is
    divided, overflows or cancels, so logarithms are not needed.

    State: float32 (state_size,), 0 at the beginning of an episode. The paper does not say how parameters start; the
    linear layers start as Equinox's do. Raises `ValueError` unless sizes are at least 1.
    """

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, state_size: int = 128):
        self._build(1, input_size, output_size, state_size, key)

    def gates(self, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        """1 - z and z."""
        k = self.gate(u).astype(jnp.float32)
        return jax.nn.sigmoid(-k), jax.nn.sigmoid(k)


class MinLSTM(_MinimalRNN):
    """One layer of minLSTM: h_t = f'_t ⊙ h_{t-1} + i'_t ⊙ g(W_h u_t + b_h), with f' = f / (f + i) and i' = i / (f + i).

    f_t = σ(W_f u_t + b_f), i_t = σ(W_i u_t + b_i); g, u_t and s_t are those of `MinGRU`. With k_f and k_i the arguments
    of σ and d = softplus(-k_f) - softplus(-k_i) = log(i / f), f' = σ(-d) and i' = σ(d), which stay accurate where f and
    i underflow. The recurrence needs no logarithms, for the reason given there.

    State: float32 (state_size,), 0 at the beginning of an episode. The paper does not say how parameters start; the
    linear layers start as Equinox's do. Raises `ValueError` unless sizes are at least 1.
    """

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, state_size: int = 128):
        self._build(2, input_size, output_size, state_size, key)

    def gates(self, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        """f' and i'."""
        k_f, k_i = jnp.split(self.gate(u).astype(jnp.float32), 2)
        d = jax.nn.softplus(-k_f) - jax.nn.softplus(-k_i)
        return jax.nn.sigmoid(-d), jax.nn.sigmoid(d)
