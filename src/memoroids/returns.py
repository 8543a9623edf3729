"""Returns and advantages: reversed, resettable memoroids over a tape (Morad et al. 2024, Appendices D and E)."""

import jax
import jax.numpy as jnp

from memoroids.algebra.linear_recurrence import linear_recurrence
from memoroids.algebra.monoid import Monoid
from memoroids.tape import continues


class Discounted(Monoid):
    """Discounted sums: elements (a, r) of float32 scalars, (a, r) • (a', r') = (a a', a r' + r), e = (1, 0).

    With f(r_t) = (γ, r_t), the second half of x_t • x_{t+1} • … • x_T is the return to go; with γλ over δ_t, GAE. It is
    the affine monoid seen from the end, so the functions below compute it by `linear_recurrence(reverse=True)`.
    """

    def identity(self) -> tuple[jax.Array, jax.Array]:
        return jnp.ones(()), jnp.zeros(())

    def combine(
        self, left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
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
    """G_t = r_t + γ n_t with n_t = 0 if terminated[t], bootstrap[t] if truncated[t] or nothing follows, else G_{t+1}.

    **Arguments:** `reward`, `bootstrap` (T,) floats; `terminated`, `truncated` (T,) bool; `discount` γ, scalar;
    `bootstrap[t]`, the value of what follows t, read only where the rule names it (elsewhere it may be NaN);
    `transition` (T,) bool: rows where it is False give 0 and cut, and the row before such a row counts as a last one.

    **Returns:** G (T,), of the dtype of `reward`.
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
    """G_t = r_t + γ ((1 - λ) v_{t+1} + λ G_{t+1}), with v_{t+1} alone where the episode or the tape is cut after t.

    **Arguments:** as `discounted_return`; `value_tp1` (T,): the value of the state that a_t led to, the final
    observation's at the end of an episode, never read where terminated[t]; `lambda_`, scalar in [0, 1].

    **Returns:** G (T,). λ = 1 gives the discounted return, λ = 0 the one-step target (Sutton & Barto 2018, 12.3).
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
    """A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ v_{t+1} - v_t, the sum cut after the end of an episode or of the tape.

    **Arguments:** as `lambda_return`; `value` (T,): v_t. **Returns:** A (T,).
    Source: Schulman et al. 2016, Equation 16.
    """
    cut = ~continues(terminated, truncated, transition)
    reward, value, value_tp1 = (_masked(x, transition) for x in (reward, value, value_tp1))
    delta = reward + discount * jnp.where(terminated, 0, value_tp1) - value
    return _to_go(delta, discount * lambda_, cut, transition, backend)


def _to_go(
    x: jax.Array, decay: float | jax.Array, cut: jax.Array, transition: jax.Array | None, backend: str | None
) -> jax.Array:
    """x_t + decay x_{t+1} + … up to the next cut; 0 where there is no transition."""
    x = _masked(x, transition)
    decay = jnp.asarray(decay, x.dtype)
    return linear_recurrence(decay, x, reset=cut, reverse=True, backend=backend)


def _masked(x: jax.Array, transition: jax.Array | None) -> jax.Array:
    """Zeros where there is no transition. Inputs are masked, not only results, or a NaN would reach gradients."""
    return x if transition is None else jnp.where(transition, x, 0)
