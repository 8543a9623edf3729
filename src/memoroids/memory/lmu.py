"""The Legendre Memory Unit: a sliding window of one signal in Legendre polynomials (Voelker et al. 2019)."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.memory.memoroid import State, check_sizes
from memoroids.memory.sequential import SequentialMemory


@functools.cache
def delay(order: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Ā (order, order) and B̄ (order,), float64, of the system whose state is a window of `theta` steps.

    θ ṁ = A m + B u with A_ij = (2i + 1) (-1 if i < j else (-1)^(i-j+1)) and B_i = (2i + 1) (-1)^i (Equations 1 and 2),
    discretised by a zero-order hold of one step.
    """
    i = np.arange(order)
    signs = np.where(i[:, None] < i[None, :], -1.0, (-1.0) ** (i[:, None] - i[None, :] + 1))
    joint = np.zeros((order + 1, order + 1))
    joint[:order, :order] = (2 * i[:, None] + 1) * signs / theta
    joint[:order, order] = (2 * i + 1) * (-1.0) ** i / theta
    # The exponential of [[A, B], [0, 0]] is [[Ā, B̄], [0, 1]], whether or not A is invertible.
    from scipy.linalg import expm  # slow to import

    held = expm(joint)
    return held[:order, :order], held[:order, order]


class LMU(SequentialMemory):
    """A nonlinear state and a linear window: h_t = tanh(W_x o_t + W_h h_{t-1} + W_m m_t), m_t = Ā m_{t-1} + B̄ u_t.

    u_t = e_x·o_t + e_h·h_{t-1} + e_m·m_{t-1}; s = h. m holds the coefficients of the last `theta` steps of u in the
    first `order` Legendre polynomials; Ā and B̄ follow from both (`delay`) and are not trained. Since u depends on h,
    steps run one after the other.

    State: float32 (output_size,) and (order,), the paper's h and m. As published, e_x and e_h start uniformly within
    ±√(3 / their size), e_m at 0, and W_x, W_h and W_m as normals of variance 2 / (inputs + outputs); the published
    order and θ depend on the task. Raises `ValueError` unless theta > 0, finite, and sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    order: int = eqx.field(static=True)
    theta: float = eqx.field(static=True)
    e_x: jax.Array
    e_h: jax.Array
    e_m: jax.Array
    w_x: jax.Array
    w_h: jax.Array
    w_m: jax.Array

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, order: int = 32, theta: float = 128.0):
        if not 0.0 < theta < math.inf:
            raise ValueError(f"LMU: needs a finite theta above 0, got theta={theta}")
        check_sizes("LMU", input_size=input_size, output_size=output_size, order=order)
        self.input_size, self.output_size = input_size, output_size
        self.order, self.theta = int(order), float(theta)
        x_key, h_key, *keys = jax.random.split(key, 5)
        self.e_x, self.e_h = (
            jax.random.uniform(k, (size,), jnp.float32, minval=-1.0, maxval=1.0) * math.sqrt(3 / size)
            for k, size in ((x_key, input_size), (h_key, output_size))
        )
        self.e_m = jnp.zeros(order, jnp.float32)
        self.w_x, self.w_h, self.w_m = (
            jax.random.normal(k, (output_size, size), jnp.float32) * math.sqrt(2 / (output_size + size))
            for k, size in zip(keys, (input_size, output_size, order), strict=True)
        )

    def initial_state(self) -> State:
        """Zeros, float32 (output_size,) and (order,)."""
        return jnp.zeros(self.output_size, jnp.float32), jnp.zeros(self.order, jnp.float32)

    def project(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """e_x·o and W_x o."""
        return x @ self.e_x, x @ self.w_x.T

    def update(self, inputs: tuple[jax.Array, jax.Array], state: State) -> State:
        """The window with u appended, and the new h, which reads that window."""
        h, m = state
        a, b = (jnp.asarray(part, jnp.float32) for part in delay(self.order, self.theta))
        u = inputs[0] + jnp.dot(self.e_h, h) + jnp.dot(self.e_m, m)
        m = a @ m + b * u
        return jnp.tanh(inputs[1] + self.w_h @ h + self.w_m @ m), m

    def read(self, state: State) -> jax.Array:
        """h."""
        return state[0]
