"""The Hierarchically Gated Recurrent Network, whose forget gates have a lower bound in each layer (Qin et al. 2023)."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.layers import TransformerBlock, complex64, layer_norm, linear
from memoroids.memory.memoroid import GatedMemoroid, Stack, State, check_sizes


class HGRNLayer(GatedMemoroid):
    """One layer of `HGRN`: the recurrence between layer norm and residual, then a gated linear unit between the same.

    State: complex64 (state_size,). `lower_bound` is γ, float32 (state_size,); None stands for 0.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    lower_bound: jax.Array | None
    theta: jax.Array
    forget: eqx.nn.Linear
    value: eqx.nn.Linear
    gate: eqx.nn.Linear
    out: eqx.nn.Linear
    block: TransformerBlock

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, state_size: int):
        self.input_size, self.output_size, self.lower_bound = input_size, output_size, None
        forget_key, value_key, gate_key, out_key, block_key = jax.random.split(key, 5)
        self.theta = 10_000 ** (-2 / state_size * jnp.arange(state_size, dtype=jnp.float32))
        self.forget = linear(output_size, state_size, forget_key, bias=True)
        self.value, self.gate = (linear(output_size, 2 * state_size, k, bias=True) for k in (value_key, gate_key))
        self.out = linear(2 * state_size, output_size, out_key, bias=True)
        self.block = TransformerBlock(input_size, output_size, output_size, key=block_key)

    def initial_state(self) -> State:
        """Zeros, complex64 (state_size,)."""
        return jnp.zeros(self.theta.shape, jnp.complex64)

    def lift(self, x: jax.Array, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """λ ⊙ exp(iθ) and (1 - λ) ⊙ c, complex64 (state_size,)."""
        del begin
        u = self.block.enter(x)
        lower = jnp.zeros(self.theta.shape, jnp.float32) if self.lower_bound is None else self.lower_bound
        k = self.forget(u).astype(jnp.float32)
        keep, theta = lower + (1 - lower) * jax.nn.sigmoid(k), self.theta.astype(jnp.float32)
        # 1 - λ without the subtraction, which cancels where λ is near 1.
        write = (1 - lower) * jax.nn.sigmoid(-k)
        real, imag = jnp.split(jax.nn.silu(self.value(u)).astype(jnp.float32), 2)
        return complex64(keep * jnp.cos(theta), keep * jnp.sin(theta)), complex64(write * real, write * imag)

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """W_o (LN([Re h, Im h]) ⊙ SiLU(W_g u + b_g)) + b_o and residual, then the gated linear unit and residual."""
        del begin
        gate = jax.nn.silu(self.gate(self.block.enter(x)))
        return self.block.leave(self.out(layer_norm(jnp.concatenate((h.real, h.imag))) * gate), x)


class BoundedStack(Stack):
    """Layers with forget gates that have lower bounds, which grow from layer to layer: 0 in the first.

    The bound of layer k is Σ_{1 < i ≤ k} P_i, where P is the softmax of parameters Γ (layers, size) over the layers;
    all P start equal. Each layer has a `lower_bound` (size,), which is None until the stack is called. Source: Qin et
    al. 2023; the sum leaves out P_1 as the authors' code does.
    """

    gamma: jax.Array

    def __init__(self, stack: Stack, size: int):
        super().__init__(stack.layers)
        self.gamma = jnp.zeros((len(stack.layers), size), jnp.float32)

    def lower_bounds(self) -> jax.Array:
        """Those of all layers but the first, float32 (layers - 1, size)."""
        return jnp.cumsum(jax.nn.softmax(self.gamma.astype(jnp.float32), axis=0)[1:], axis=0)

    def __call__(
        self, x: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        """As `Stack`, with the lower bounds."""
        return self.bound()(x, begin, state, backend=backend)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """As `Stack`, with the lower bounds."""
        return self.bound().step(x, begin, state)

    def bound(self) -> Stack:
        """A plain stack of layers that have their lower bounds."""

        def where(layer: Any) -> Any:
            return layer.lower_bound

        first, *others = self.layers
        bounded = [
            eqx.tree_at(where, layer, bound, is_leaf=lambda leaf: leaf is None)
            for layer, bound in zip(others, self.lower_bounds(), strict=True)
        ]
        return Stack([first, *bounded])


class HGRN(BoundedStack):
    """Layers with h_t = λ_t ⊙ exp(iθ) ⊙ h_{t-1} + (1 - λ_t) ⊙ c_t and λ_t = γ + (1 - γ) ⊙ σ(W_f u_t + b_f) ≥ γ.

    The lower bound γ grows from layer to layer (`BoundedStack`), so that upper layers remember longer. The parts of c_t
    are SiLU(W_c u_t + b_c), u is the normalised input of the layer, and the output is gated and followed by a gated
    linear unit (`HGRNLayer`).

    State: a tuple of complex64 (state_size,), one for each layer. As in the authors' code, θ_j starts as
    10,000^(-2j / state_size); layer norms have no parameters here, and the linear layers start as Equinox's do. Raises
    `ValueError` unless sizes are at least 1.
    """

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, state_size: int = 64, layers: int = 2):
        check_sizes("HGRN", input_size=input_size, output_size=output_size, state_size=state_size, layers=layers)
        stack = Stack.of(HGRNLayer, input_size, output_size, layers=layers, key=key, state_size=state_size)
        super().__init__(stack, state_size)
