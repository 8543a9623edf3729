"""How close is an update to the time of its arithmetic? DQN updates against their matrix products."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memoroids.agents.base import Plan
from memoroids.agents.dqn import DQNConfig, dqn
from memoroids.agents.networks import QNetwork
from memoroids.benchmarks.measurement import Measurement, measure
from memoroids.benchmarks.timing import compile_seconds
from memoroids.memory import REGISTRY
from memoroids.replay import tape_buffer
from memoroids.tape import episode

TRANSITIONS, LENGTH, OBSERVATION, ACTIONS = 1_000, 51, 4, 4


def products(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Every matrix product in a jaxpr with the number of times it runs: inside a scan, once for each iteration."""
    for equation in jaxpr.eqns:
        if equation.primitive is lax.dot_general_p:
            yield equation, times
        inner = times * equation.params.get("length", 1) if equation.primitive is lax.scan_p else times
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    yield from products(part, inner)


def matrix_program(found: list[tuple[Any, int]]) -> tuple[Any, list[Any]]:
    """A jitted program that computes only these products, with random operands; a product in a loop runs in a loop."""
    rng = np.random.default_rng(0)
    operands = []
    for equation, _ in found:
        operands.append([jnp.asarray(rng.normal(size=v.aval.shape), v.aval.dtype) for v in equation.invars])

    def run(operands: list[Any]) -> list[Any]:
        out = []
        for (equation, times), (a, b) in zip(found, operands, strict=True):
            # Without the barrier, XLA would compute only the entry that is returned.
            if times == 1:
                product = lax.optimization_barrier(equation.primitive.bind(a, b, **equation.params))
            else:
                bind = equation.primitive.bind

                def step(carry: Any, _: Any, a: Any = a, b: Any = b, e: Any = equation, bind: Any = bind) -> Any:
                    # The smaller operand depends on the carry; otherwise XLA would hoist the product out of the loop.
                    change = carry.ravel()[:1] * 0
                    if a.size < b.size:
                        a = a + change.reshape((1,) * a.ndim)
                    else:
                        b = b + change.reshape((1,) * b.ndim)
                    return lax.optimization_barrier(bind(a, b, **e.params)), None

                start = jnp.zeros(equation.outvars[0].aval.shape, equation.outvars[0].aval.dtype)
                product, _ = lax.scan(step, start, None, length=times)
            out.append(product.ravel()[0])
        return out

    return jax.jit(run), operands


def figures(repeats: int) -> Iterator[Measurement]:
    """Sampling and update with the paper's sizes against the matrix products, for each registered memory."""
    rng = np.random.default_rng(0)
    buffer = tape_buffer(100_000, TRANSITIONS, LENGTH, min_length=LENGTH)
    replay = None
    for _ in range(200):
        observation = np.eye(OBSERVATION, dtype=np.float32)[rng.integers(OBSERVATION, size=LENGTH + 1)]
        action = rng.integers(ACTIONS, size=LENGTH).astype(np.int32)
        tape = episode(observation, action, rng.normal(size=LENGTH), True, False)
        replay = buffer.add(replay or buffer.init(tape), tape)
    assert replay is not None
    for name, factory in REGISTRY.items():
        network = QNetwork(OBSERVATION, ACTIONS, factory, key=jax.random.key(0))
        algorithm = dqn(DQNConfig(), network, Plan(TRANSITIONS))
        learner = algorithm.init(network)

        def step(learner: Any, key: Any, algorithm: Any = algorithm) -> Any:
            return algorithm.update(learner, buffer.sample(replay, key), key)[:2]

        key = jax.random.key(0)
        found = list(products(jax.make_jaxpr(step)(learner, key).jaxpr))
        seconds, update = compile_seconds(jax.jit(step, donate_argnums=0).lower(learner, key))
        matrix, operands = matrix_program(found)
        box = [learner]

        def one_update(box: Any = box, update: Any = update, key: Any = key) -> Any:
            box[0], metrics = update(box[0], key)
            return box[0], metrics

        flops = sum(_operations(equation) * count for equation, count in found)
        limit = f"its matrix products, {flops / 1e9:.1f} GFLOP"
        limits = {limit: lambda matrix=matrix, operands=operands: matrix(operands)}
        what = f"DQN update, {TRANSITIONS:,} transitions, {name}"
        yield measure(what, {"ours": one_update}, repeats, limits=limits, compile={"ours": seconds})


def _operations(equation: Any) -> int:
    """Floating-point operations of a real matrix product: one multiplication and one addition per term."""
    (contract, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * int(np.prod(equation.outvars[0].aval.shape)) * int(np.prod([shape[i] for i in contract]))
