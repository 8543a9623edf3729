"""Returns and advantages: reversed, resettable memoroids over a tape (Morad et al. 2024, Appendices D and E)."""

import jax
import jax.numpy as jnp

from memoroids.algebra.linear_recurrence import linear_recurrence
from memoroids.algebra.monoid import Monoid
from memoroids.tape import continues


class Discounted(Monoid):
    """Discounted sums: elements (a, r) of float32 scalars, (a, r) • (a', r') = (a a', a r' + r), e = (1, 0).

    With x_t = (γ, r_t), the second component of x_t • x_{t+1} • … • x_T is the discounted return from t; with
    x_t = (γλ, δ_t), the generalised advantage. This is the diagonal affine monoid with time reversed, so the functions
    below compute it by `linear_recurrence(reverse=True)`.
    """

    def identity(self) -> tuple[jax.Array, jax.Array]:
        """(1, 0)."""
        return jnp.ones((), jnp.float32), jnp.zeros((), jnp.float32)

    def combine(
        self, left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """(a a', a r' + r): the sum of `left`, plus that of `right` discounted by a."""
        (a, r), (a_next, r_next) = left, right
        return a * a_next, a * r_next + r


def discounted_return(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    discount: float | jax.Array,
    bootstrap: jax.Array,
    *,
    transition: jax.Array | None = None,
    backend: str | None = None,
) -> jax.Array:
    """G_t = r_t + γ n_t with n_t = 0 if terminated[t], bootstrap[t] if truncated[t] or t is the last row, else G_{t+1}.

    **Arguments:** `reward` (T,) float; `terminated`, `truncated` (T,) bool; `discount`, the scalar γ; `bootstrap` (T,)
    float, the value of the state after t, read only where the rule uses it, so elsewhere it may be NaN; `transition`
    (T,) bool, default all True: rows where it is False give 0, and the row before such a row counts as a last one;
    `backend`, of `linear_recurrence`.

    **Returns:** G (T,), in the dtype of `reward`.
    """
    cut = ~continues(terminated, truncated, transition)
    reward = _masked(reward, transition)
    ahead = jnp.where(cut & ~terminated, _masked(bootstrap, transition), 0)
    return _to_go(reward + discount * ahead, discount, cut, transition, backend)


def lambda_return(
    reward: jax.Array,
    value_tp1: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    discount: float | jax.Array,
    lambda_: float | jax.Array,
    *,
    transition: jax.Array | None = None,
    backend: str | None = None,
) -> jax.Array:
    """G_t = r_t + γ ((1 - λ) v_{t+1} + λ G_{t+1}), or r_t + γ v_{t+1} if t is truncated or the last row.

    If terminated[t], G_t = r_t.

    **Arguments:** as for `discounted_return`; `value_tp1` (T,) float, the value of the state that a_t leads to (at the
    end of an episode, of its final observation), not read if terminated[t]; `lambda_`, a scalar in [0, 1].

    **Returns:** G (T,), in the dtype of `reward`. λ = 1 gives the discounted return, λ = 0 the one-step target.
    Source: Sutton & Barto 2018, Section 12.3.
    """
    cut = ~continues(terminated, truncated, transition)
    reward, value_tp1 = _masked(reward, transition), _masked(value_tp1, transition)
    value_tp1 = jnp.where(terminated, 0, value_tp1)
    ahead = jnp.where(cut, value_tp1, (1 - lambda_) * value_tp1)
    return _to_go(reward + discount * ahead, discount * lambda_, cut, transition, backend)


def gae(
    reward: jax.Array,
    value: jax.Array,
    value_tp1: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    discount: float | jax.Array,
    lambda_: float | jax.Array,
    *,
    transition: jax.Array | None = None,
    backend: str | None = None,
) -> jax.Array:
    """A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ v_{t+1} - v_t: generalised advantage estimation.

    The sum stops at the end of an episode and at the last row; if terminated[t], v_{t+1} counts as 0.

    **Arguments:** as for `lambda_return`; `value` (T,) float, v_t. **Returns:** A (T,), in the dtype of `reward`.
    Source: Schulman et al. 2016, Equation 16.
    """
    cut = ~continues(terminated, truncated, transition)
    reward, value, value_tp1 = (_masked(x, transition) for x in (reward, value, value_tp1))
    delta = reward + discount * jnp.where(terminated, 0, value_tp1) - value
    return _to_go(delta, discount * lambda_, cut, transition, backend)


def _to_go(
    x: jax.Array, decay: float | jax.Array, cut: jax.Array, transition: jax.Array | None, backend: str | None
) -> jax.Array:
    """Σ_k decay^k x_{t+k} over the rows from t to the next cut, inclusive; 0 in rows without a transition."""
    x = _masked(x, transition)
    decay = jnp.asarray(decay, x.dtype)
    return linear_recurrence(decay, x, reset=cut, reverse=True, backend=backend)


def _masked(x: jax.Array, transition: jax.Array | None) -> jax.Array:
    """`x`, with 0 in rows without a transition. The inputs are masked too, so that a NaN cannot reach gradients."""
    return x if transition is None else jnp.where(transition, x, 0)
