"""What does a policy step cost? The LRU network acting in one environment and in many, with one dispatch."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.acting.policies import RecurrentPolicy
from memoroids.agents.base import Plan
from memoroids.agents.dqn import DQNConfig, dqn
from memoroids.agents.networks import QNetwork
from memoroids.benchmarks.measurement import Measurement, measure
from memoroids.benchmarks.update import ACTIONS, OBSERVATION, matrix_program, products
from memoroids.memory import REGISTRY


def figures(repeats: int, num_envs: tuple[int, ...] = (1, 8, 1_024)) -> Iterator[Measurement]:
    """From NumPy observations to NumPy actions, for each number of environments; recurrent states stay on device."""
    network = QNetwork(OBSERVATION, ACTIONS, REGISTRY["lru"], key=jax.random.key(0))
    algorithm = dqn(DQNConfig(), network, Plan())
    params = algorithm.init(network).params
    weights = jnp.ones(sum(leaf.size for leaf in jax.tree.leaves(params)))
    read = jax.jit(jnp.sum)
    for n in num_envs:
        policy = RecurrentPolicy(
            algorithm.act,
            network.initial_state(),
            n,
            params=lambda: params,
            explore=lambda number: np.full(number.shape, 0.1, np.float32),
            key=jax.random.key(0),
        )
        observation, begin = np.ones((n, OBSERVATION), np.float32), np.zeros(n, bool)
        number, step = np.arange(n, dtype=np.int32), np.ones(n, np.int32)

        def act(policy: Any = policy, inputs: Any = (observation, begin, number, step)) -> np.ndarray:
            return policy(*inputs)

        state = jax.vmap(lambda _: network.initial_state())(jnp.arange(n))
        step = jax.vmap(lambda s, o, b: algorithm.network(params).step(o, b, s))
        jaxpr = jax.make_jaxpr(step)(state, observation, begin)
        matrix, operands = matrix_program(list(products(jaxpr.jaxpr)))
        limits = {
            "its weights read once": lambda: read(weights),
            "its matrix products": lambda matrix=matrix, operands=operands: matrix(operands),
        }
        what = f"acting, LRU network, {weights.size:,} weights, {n:,} environment{'s' if n > 1 else ''}"
        yield measure(what, {"ours": act}, 10 * repeats, limits=limits)
