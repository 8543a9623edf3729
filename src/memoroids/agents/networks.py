"""Networks around a memory: encoder, memory, decoder and head; one pass over a tape, or step by step."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.agents.branches import Branches
from memoroids.agents.distributions import Categorical, FactoredCategorical, Gaussian
from memoroids.agents.encoders import ConvEncoder, MixedEncoder, ObservationShape, encoder_of
from memoroids.agents.normaliser import Normaliser
from memoroids.agents.predictor import Predictor
from memoroids.envs.observations import Mixed, Ranges
from memoroids.envs.spaces import Actions, Continuous, Factored
from memoroids.memory import Factory
from memoroids.memory.chunks import check_chunk, in_chunks
from memoroids.memory.layers import Block
from memoroids.memory.memoroid import Memory, State

Policy = Categorical | FactoredCategorical | Gaussian


class Dueling(eqx.Module):
    """Q(s, a) = V(s) + A(s, a) - mean_a A(s, a): (width,) → (actions,) (Wang et al. 2016, Equation 9).

    Both heads start with zero biases and weights a tenth of Equinox's default, so that initial values are small
    compared with rewards of a few hundredths.
    """

    value: eqx.nn.Linear
    advantage: eqx.nn.Linear

    def __init__(self, width: int, actions: int, *, key: jax.Array):
        value_key, advantage_key = jax.random.split(key)
        self.value = _small(eqx.nn.Linear(width, 1, dtype=jnp.float32, key=value_key))
        self.advantage = _small(eqx.nn.Linear(width, actions, dtype=jnp.float32, key=advantage_key))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features (width,) → action values (actions,)."""
        advantage = self.advantage(x)
        return self.value(x) + advantage - jnp.mean(advantage)


class BranchingDueling(eqx.Module):
    """Q_d(s, a_d) = V(s) + A_d(s, a_d) - mean_{a_d} A_d(s, a_d) for each part d of an action: (width,) → `Branches`.

    The parts share the value, and each has advantages of its own. Both heads start as those of `Dueling`. Source:
    Tavakoli, Pardo and Kormushev 2018, Action Branching Architectures for Deep Reinforcement Learning.
    """

    value: eqx.nn.Linear
    advantage: eqx.nn.Linear
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, width: int, actions: Factored, *, key: jax.Array):
        value_key, advantage_key = jax.random.split(key)
        self.value = _small(eqx.nn.Linear(width, 1, dtype=jnp.float32, key=value_key))
        self.advantage = _small(eqx.nn.Linear(width, sum(actions.sizes), dtype=jnp.float32, key=advantage_key))
        self.sizes = actions.sizes

    def __call__(self, x: jax.Array) -> Branches:
        """Features (width,) → action values of every option of every part."""
        (value,) = self.value(x)
        return Branches(self.advantage(x), self.sizes).map(lambda a: value + a - jnp.mean(a, axis=-1, keepdims=True))


class GaussianHead(eqx.Module):
    """A `Gaussian` over continuous actions in a box: (width,) → mean and log standard deviation, (size,) each.

    The mean is centre + half-width · tanh(W x + b), so it lies inside the box. The standard deviation is a parameter
    that does not depend on the state and starts at half of the half-width. Raises `ValueError` if a lower bound is not
    below its upper bound.
    """

    mean: eqx.nn.Linear
    log_std: jax.Array
    centre: tuple[float, ...] = eqx.field(static=True)
    half: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, width: int, actions: Continuous, *, key: jax.Array):
        bounds = list(zip(actions.low, actions.high, strict=True))
        if len(bounds) != actions.size or any(not low < high for low, high in bounds):
            raise ValueError(f"continuous actions need size pairs of low < high, got {actions}")
        self.mean = _small(eqx.nn.Linear(width, actions.size, dtype=jnp.float32, key=key))
        self.centre = tuple((low + high) / 2 for low, high in bounds)
        self.half = tuple((high - low) / 2 for low, high in bounds)
        self.log_std = jnp.log(0.5 * jnp.asarray(self.half, jnp.float32))

    def __call__(self, x: jax.Array) -> Gaussian:
        """Features (width,) → the policy."""
        centre, half = (jnp.asarray(part, jnp.float32) for part in (self.centre, self.half))
        return Gaussian(centre + half * jnp.tanh(self.mean(x)), self.log_std)


class ActorCriticHead(eqx.Module):
    """A policy over `actions` and a state value: (width,) → (the policy, scalar).

    The policy is a `Categorical`, a `FactoredCategorical` for actions of several parts, or a `Gaussian` for continuous
    ones.
    """

    policy: eqx.nn.Linear | GaussianHead
    value: eqx.nn.Linear
    sizes: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, width: int, actions: Actions, *, key: jax.Array):
        policy_key, value_key = jax.random.split(key)
        self.sizes = actions.sizes if isinstance(actions, Factored) else None
        if isinstance(actions, Continuous):
            self.policy = GaussianHead(width, actions, key=policy_key)
        else:
            outputs = actions if isinstance(actions, int) else sum(actions.sizes)
            self.policy = _small(eqx.nn.Linear(width, outputs, dtype=jnp.float32, key=policy_key))
        self.value = _small(eqx.nn.Linear(width, 1, dtype=jnp.float32, key=value_key))

    def __call__(self, x: jax.Array) -> tuple[Policy, jax.Array]:
        """Features (width,) → the policy and the value, a scalar."""
        policy, value = self.policy(x), self.value(x)[0]
        if isinstance(policy, Gaussian):
            return policy, value
        return Categorical(policy) if self.sizes is None else FactoredCategorical(Branches(policy, self.sizes)), value


def _small(linear: eqx.nn.Linear) -> eqx.nn.Linear:
    scaled = (0.1 * linear.weight, jnp.zeros(linear.weight.shape[0], jnp.float32))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), linear, scaled)


class Recurrent(eqx.Module):
    """An encoder, a memory, two blocks and a head, each `width` wide (Morad et al. 2024, Appendix H).

    The encoder is a block for vectors, `observation_shape` (n,) or n, a `ConvEncoder` for images (H, W, C), and a
    `MixedEncoder` for rows of several parts, `memoroids.envs.observations.Mixed`. Its input is the partial transition
    (o, b): the begin flag is appended to the observation as a feature, so that even a memory whose f reads only o can
    tell the first step from the others.

        out, state = network(observation, begin)                    # (T, *observation_shape), (T,) → head's, (T, …)
        out_t, state = network.step(observation_t, begin_t, state)  # acting, O(1) in time

    `memory`: a factory from `memoroids.memory.REGISTRY` or your own, called with `width` as input and output size and
    with `sizes` as keyword arguments. A tape longer than `chunk` slots (None: 16,384) is processed chunk by chunk, with
    the same result; see `memoroids.in_chunks`. `ranges`: what is known of the scale of observations, which a
    `Normaliser` then brings to unit scale; None: they are read as they are, symbols one-hot.

    Raises `TypeError` if the factory does not return a `Memory`, `ValueError` for other observation shapes or a chunk
    below 1, and whatever the factory raises.
    """

    encoder: Block | ConvEncoder | MixedEncoder
    memory: Memory
    decoder: tuple[Block, Block]
    head: eqx.AbstractVar[Any]
    normaliser: Normaliser | None
    chunk: int | None = eqx.field(static=True)

    def __init__(
        self,
        observation_shape: ObservationShape,
        memory: Factory,
        head: Callable[..., Any],
        *,
        key: jax.Array,
        width: int = 256,
        sizes: dict[str, Any] | None = None,
        chunk: int | None = None,
        ranges: Ranges | None = None,
    ):
        check_chunk(chunk)
        self.chunk = chunk
        if isinstance(observation_shape, Mixed) and observation_shape.symbols:
            ranges = ranges or Ranges.known(observation_shape.pixels + observation_shape.inputs)
            self.normaliser = Normaliser.of(ranges, observation_shape.symbols)
        else:
            self.normaliser = ranges and Normaliser.of(ranges)
        encoder_key, memory_key, first_key, second_key, head_key = jax.random.split(key, 5)
        self.encoder = encoder_of(observation_shape, width, key=encoder_key)
        self.memory = memory(width, width, key=memory_key, **(sizes or {}))
        if not isinstance(self.memory, Memory):
            raise TypeError(f"the memory factory returned {type(self.memory).__name__}, not a memoroids.Memory")
        if any(leaf.size == 0 for leaf in jax.tree.leaves(eqx.filter(self.memory, eqx.is_array))):
            raise ValueError("the memory has a parameter without elements: every size must be at least 1")
        self.decoder = (Block(width, width, key=first_key), Block(width, width, key=second_key))
        self.head = head(width, key=head_key)

    def initial_state(self) -> State:
        """The memory state before the first step of an episode."""
        return self.memory.initial_state()

    def at_unit_scale(self, observation: jax.Array) -> jax.Array:
        """An observation (m,) as the encoder reads it, symbols one-hot and all at unit scale, (n,)."""
        return observation if self.normaliser is None else self.normaliser(observation)

    def _encode(self, observation: jax.Array, begin: jax.Array) -> jax.Array:
        observation = self.at_unit_scale(observation)
        if isinstance(self.encoder, Block):
            return self.encoder(jnp.append(observation, begin.astype(observation.dtype)))
        return self.encoder(observation, begin)

    def _decode(self, s: jax.Array) -> Any:
        first, second = self.decoder
        return self.head(second(first(s)))

    def __call__(
        self, observation: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[Any, State]:
        """One pass over a tape (T, …): the head's outputs (T, …) and the memory state after the last slot.

        `state`: the memory state before slot 0; None is the initial state. `backend`: as for `memoroids.Memory`.
        """
        return in_chunks(
            self._run,
            observation,
            begin,
            self.initial_state() if state is None else state,
            chunk=self.chunk,
            backend=backend,
        )

    def _run(self, observation: jax.Array, begin: jax.Array, state: State, *, backend: str | None) -> tuple[Any, State]:
        s, state = self.memory(jax.vmap(self._encode)(observation, begin), begin, state, backend=backend)
        return jax.vmap(self._decode)(s), state

    def step(self, observation: jax.Array, begin: jax.Array, state: State) -> tuple[Any, State]:
        """One step of acting: the head's output for one observation, and the memory state after it."""
        s, state = self.memory.step(self._encode(observation, begin), begin, state)
        return self._decode(s), state


class QNetwork(Recurrent):
    """A `Recurrent` network with dueling heads, whose outputs are action values.

    q, state = network(observation, begin)                    # (T, *observation_shape), (T,) → (T, actions)

    For actions of several parts they are `Branches`, (T, Σ sizes).
    """

    head: Dueling | BranchingDueling

    def __init__(self, observation_shape: ObservationShape, actions: int | Factored, memory: Factory, **rest: Any):
        """`rest`: `key`, `width`, `sizes`, `chunk` and `ranges`, as in `Recurrent`."""

        def head(width: int, key: jax.Array) -> Dueling | BranchingDueling:
            if isinstance(actions, Factored):
                return BranchingDueling(width, actions, key=key)
            return Dueling(width, actions, key=key)

        super().__init__(observation_shape, memory, head, **rest)


class ActorCritic(Recurrent):
    """A `Recurrent` network with an `ActorCriticHead`, whose outputs are a policy and a state value.

        (policy, value), state = network(observation, begin)      # policy.log_prob(action), value: (T,)

    `actions`: their number, the sizes of their parts, or the box of continuous actions. `predicts`: whether it has a
    `predictor` of the next observation, which acting does not use. Raises `ValueError` for one if observations hold
    images, besides what `Recurrent` raises.
    """

    head: ActorCriticHead
    predictor: Predictor | None

    def __init__(
        self,
        observation_shape: ObservationShape,
        actions: Actions,
        memory: Factory,
        *,
        key: jax.Array,
        predicts: bool = False,
        **rest: Any,
    ):
        """`rest`: `width`, `sizes`, `chunk` and `ranges`, as in `Recurrent`."""
        super().__init__(
            observation_shape, memory, lambda width, key: ActorCriticHead(width, actions, key=key), key=key, **rest
        )
        self.predictor = None
        if predicts:
            width = self.decoder[-1].linear.weight.shape[0]
            self.predictor = Predictor(width, actions, observation_shape, key=jax.random.fold_in(key, 1))

    def with_features(self) -> "ActorCritic":
        """The same network with the outputs ((policy, value), features), of which (T, width) are what both see."""
        return eqx.tree_at(lambda network: network.head, self, _WithFeatures(self.head))


class _WithFeatures(eqx.Module):
    head: ActorCriticHead

    def __call__(self, x: jax.Array) -> tuple[tuple[Policy, jax.Array], jax.Array]:
        return self.head(x), x
