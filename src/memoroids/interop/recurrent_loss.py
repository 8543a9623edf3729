"""A loss on flat transitions, turned recurrent: Markov states of whole episodes in place of observations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memoroids.memory.memoroid import Memory
from memoroids.tape import Tape


class Transitions(NamedTuple):
    """N transitions, in no order that matters to a loss."""

    observation: jax.Array
    """(N, …): the Markov states s_t."""
    action: jax.Array
    """(N, …): a_t."""
    reward: jax.Array
    """(N,) float32: r_t."""
    next_observation: jax.Array
    """(N, …): the Markov states s_{t+1}."""
    terminated: jax.Array
    """(N,) bool: no bootstrapping from s_{t+1}. A truncated transition is not terminated."""


def recurrent(loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`loss(…, transitions)`, which knows no memory, as a function of a memory and a tape of whole episodes.

    **Arguments:** `loss`, which takes any arguments and, as the last one, `Transitions`, and returns one loss for each
    of them, (N,): without its mean.

    **Returns:** `recurrent_loss(memory, …, tape)`: the mean over the transitions of the `Tape` of the losses with s_t
    and s_{t+1} in place of observations. They come from one run of `memory` over the tape, whose `observation` is (N,
    input_size); so the gradient in `memory` goes through whole episodes, and s_{t+1} is what the policy acts on, which
    has seen the episode from its beginning. A slot without a transition has no effect, whatever its loss is. Raises
    `ValueError` if `loss` does not return (N,).

    Source: Morad et al. 2024, Section 5 (Tape-Based Batching).
    """

    def recurrent_loss(memory: Memory, *arguments: Any) -> jax.Array:
        *others, tape = arguments
        if not isinstance(tape, Tape):
            raise ValueError(f"recurrent: the last argument must be a Tape, got {type(tape).__name__}")
        s, _ = memory(tape.observation, tape.begin)
        # A slot without a transition shows the loss another one, whose derivatives are as good, and is not counted.
        slots = jnp.arange(tape.slots)
        shown = jnp.where(tape.transition, slots, jnp.argmax(tape.transition))
        all_of_them = Transitions(s, tape.action, tape.reward, tape.next_slot(s), tape.terminated)
        losses = loss(*others, jax.tree.map(lambda leaf: leaf[shown], all_of_them))
        if jnp.shape(losses) != (tape.slots,):
            raise ValueError(
                f"recurrent: the loss must return one number for each transition, {(tape.slots,)}, got "
                f"{jnp.shape(losses)}; leave out its mean"
            )
        counted = jnp.where(tape.transition, losses, 0)
        return jnp.sum(counted) / jnp.maximum(jnp.sum(tape.transition), 1)

    return recurrent_loss
