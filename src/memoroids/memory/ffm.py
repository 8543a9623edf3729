"""Fast and Forgetful Memory (Morad et al. 2023; Morad et al. 2024, G.4)."""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.layers import complex64, layer_norm
from memoroids.memory.memoroid import LinearMemoroid, check_sizes

SPACINGS = {"geometric": jnp.geomspace, "linear": jnp.linspace}
"""How the initial decays of traces may be spaced."""


class FFM(LinearMemoroid):
    """Decayed traces at several frequencies: X_t = exp(-|α| ⊕ iω) ⊙ X_{t-1} + (ℓ1(o) ⊙ σ(ℓ2(o))) 1ᵀ.

    The paper's monoid is (X, t) • (X', t') = (X ⊙ exp(t'(-|α| ⊕ iω)) + X', t + t'). Since every slot is one step,
    t' = 1 always, so the decay is constant and the time is not part of the state.
    Readout: s = LN(ℓ3[Re X ‖ Im X]) ⊙ σ(ℓ4 o) + ℓ5(o) ⊙ (1 - σ(ℓ4 o)).

    State: complex64 (trace_size, context_size), the paper's m and c. `max_period`: the longest initial period 2π/ω, in
    steps; periods are spaced geometrically from 1, where the authors' code spaces them linearly (the choice is ours).
    `max_decay`, `min_decay`: the initial range of |α|; by default traces decay within 1 to 1,000 steps. `spacing`: how
    |α| is spaced in this range, geometric or linear. Published are decays from 1e-6 to 0.1, spaced linearly; the
    defaults are ours. The linear layers start as Equinox's do. Raises `ValueError` unless 0 < min_decay < max_decay,
    max_period >= 1, both finite, the spacing is one of these, and sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    alpha: jax.Array
    omega: jax.Array
    l1: eqx.nn.Linear
    l2: eqx.nn.Linear
    l3: eqx.nn.Linear
    l4: eqx.nn.Linear
    l5: eqx.nn.Linear

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        trace_size: int = 64,
        context_size: int = 4,
        max_period: float = 1024.0,
        max_decay: float = 1.0,
        min_decay: float = 1e-3,
        spacing: Literal["geometric", "linear"] = "geometric",
    ):
        if spacing not in SPACINGS:
            raise ValueError(f"FFM: spacing must be geometric or linear, got spacing={spacing!r}")
        if not 0.0 < min_decay < max_decay < math.inf:
            raise ValueError(
                f"FFM: needs 0 < min_decay < max_decay, both finite, got min_decay={min_decay}, max_decay={max_decay}"
            )
        if not 1.0 <= max_period < math.inf:
            raise ValueError(f"FFM: needs a finite max_period of at least 1, got max_period={max_period}")
        check_sizes(
            "FFM", input_size=input_size, output_size=output_size, trace_size=trace_size, context_size=context_size
        )
        self.input_size, self.output_size = input_size, output_size
        k1, k2, k3, k4, k5 = jax.random.split(key, 5)
        self.alpha = SPACINGS[spacing](max_decay, min_decay, trace_size, dtype=jnp.float32)
        self.omega = 2 * math.pi / jnp.geomspace(1.0, max_period, context_size, dtype=jnp.float32)
        self.l1 = eqx.nn.Linear(input_size, trace_size, dtype=jnp.float32, key=k1)
        self.l2 = eqx.nn.Linear(input_size, trace_size, dtype=jnp.float32, key=k2)
        self.l3 = eqx.nn.Linear(2 * trace_size * context_size, output_size, dtype=jnp.float32, key=k3)
        self.l4 = eqx.nn.Linear(input_size, output_size, dtype=jnp.float32, key=k4)
        self.l5 = eqx.nn.Linear(input_size, output_size, dtype=jnp.float32, key=k5)

    def decay(self) -> jax.Array:
        """exp(-|α| ⊕ iω), complex64 (trace_size, context_size)."""
        real = jnp.broadcast_to(-jnp.abs(self.alpha)[:, None], (self.alpha.size, self.omega.size))
        imag = jnp.broadcast_to(self.omega[None, :], real.shape)
        return jnp.exp(complex64(real, imag))

    def drive(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """(ℓ1(o) ⊙ σ(ℓ2(o))) 1ᵀ: the gated observation, repeated for every frequency."""
        del begin
        trace = self.l1(x) * jax.nn.sigmoid(self.l2(x))
        return jnp.broadcast_to(trace[:, None], (self.alpha.size, self.omega.size)).astype(jnp.complex64)

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """The normalised projection of the traces and a projection of the observation, mixed by the gate σ(ℓ4 o)."""
        del begin
        gate = jax.nn.sigmoid(self.l4(x))
        y = layer_norm(self.l3(jnp.concatenate((h.real.ravel(), h.imag.ravel()))))
        return y * gate + self.l5(x) * (1 - gate)
