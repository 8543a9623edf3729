"""A JAX function as an ONNX graph; whatever depends on constants alone is computed beforehand."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from memoroids.deploy import onnx_elementwise, onnx_products, onnx_shapes
from memoroids.deploy.onnx_graph import Graph, Pair, Real, Tensor, Value
from memoroids.deploy.onnx_registry import OPERATORS, Unsupported, is_complex, parts_of

_REGISTERED = onnx_elementwise, onnx_products, onnx_shapes
"""The modules whose operations stand in `OPERATORS`."""

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that only call another function → the parameter that holds it."""


def to_onnx(function: Callable[..., Any], arguments: dict[str, Any], name: str) -> tuple[bytes, list[str]]:
    """The ONNX model of `function(*arguments)`, and the names of its outputs in the order of their leaves.

    `arguments`: an example of each argument by name, a pytree of arrays. A leaf at path p is the input NAMEp, and
    NAMEp.real and NAMEp.imag if it is complex; outputs are named likewise after "out". What `function` closes over is
    part of the model.

    Raises `Unsupported`, a `ValueError`, for an operation that has no counterpart here.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments.values())
    graph, inputs, values = Graph(), [], []
    for argument, tree in arguments.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            value = _input(argument + jax.tree_util.keystr(path), np.asarray(leaf))
            inputs += [value] if isinstance(value, Tensor) else [value.real, value.imag]
            values.append(value)
    found = evaluate(graph, closed.jaxpr, closed.consts, values)
    outputs: dict[str, Real] = {}
    for (path, _), value in zip(jax.tree_util.tree_leaves_with_path(shapes), found, strict=True):
        outputs |= named("out" + jax.tree_util.keystr(path), value)
    return graph.model(name, inputs, outputs), list(outputs)


def _input(name: str, example: np.ndarray) -> Tensor | Pair:
    if example.dtype.kind != "c":
        return Tensor(name, example.shape, example.dtype)
    real, imag = (Tensor(f"{name}.{part}", example.shape, np.dtype(np.float32)) for part in ("real", "imag"))
    return Pair(real, imag)


def named(name: str, value: Value) -> dict[str, Real]:
    """A value by the names of its inputs or outputs: one, or two if it is complex."""
    if is_complex(value):
        real, imag = parts_of(value)
        return {f"{name}.real": real, f"{name}.imag": imag}
    assert not isinstance(value, Pair)
    return {name: value}


def evaluate(graph: Graph, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
    """The outputs of a jaxpr as values of the graph, to which the nodes that they need are added."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Any:
        if isinstance(variable, core.Literal):
            aval: Any = variable.aval
            return np.asarray(variable.val, aval.dtype)  # a number of Python would become a float64
        return values[variable]

    for equation in jaxpr.eqns:
        given = [read(variable) for variable in equation.invars]
        found = _apply(graph, equation, given)
        values |= dict(zip(equation.outvars, found, strict=True))
    return [_known(read(variable)) for variable in jaxpr.outvars]


def _apply(graph: Graph, equation: Any, given: list[Any]) -> Sequence[Any]:
    primitive, params = equation.primitive, equation.params
    if primitive.name in _CALLS:
        called = params[_CALLS[primitive.name]]
        closed = isinstance(called, core.ClosedJaxpr)
        return evaluate(graph, called.jaxpr if closed else called, called.consts if closed else (), given)
    if not any(isinstance(value, Tensor | Pair) for value in given):
        found = primitive.bind(*given, **params)
        return found if primitive.multiple_results else [found]
    operator = OPERATORS.get(primitive.name)
    if operator is None:
        raise Unsupported(f"the operation {primitive.name} has no counterpart in ONNX here")
    out = [variable.aval for variable in equation.outvars]
    found = operator(graph, [_known(value) for value in given], out, params)
    return found if isinstance(found, list) else [found]


def _known(value: Any) -> Value:
    return value if isinstance(value, Tensor | Pair) else np.asarray(value)
