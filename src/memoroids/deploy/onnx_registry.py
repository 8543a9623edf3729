"""The counterparts in ONNX of JAX's operations, complex ones as pairs of real ones."""

from collections.abc import Callable
from typing import Any

import numpy as np

from memoroids.deploy.onnx_graph import Graph, Pair, Real, Value


class Unsupported(ValueError):
    """An operation without a counterpart. The message names it."""


Operator = Callable[[Graph, list[Any], list[Any], dict[str, Any]], Any]
"""(graph, inputs, types of the outputs, parameters of the operation) → the output, or a list of several."""

OPERATORS: dict[str, Operator] = {}
"""The name of a JAX primitive → its counterpart."""


def counterpart(*names: str) -> Callable[[Operator], Operator]:
    """Registers a function as the counterpart of these operations."""

    def add(operator: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, operator))
        return operator

    return add


def parts_of(value: Value) -> tuple[Real, Real]:
    """The real and the imaginary part of a value; of a real one the latter is zeros."""
    if isinstance(value, Pair):
        return value.real, value.imag
    if isinstance(value, np.ndarray):
        return np.real(value).astype(np.float32), np.imag(value).astype(np.float32)
    return value, np.zeros(value.shape, np.float32)


def is_complex(*values: Value) -> bool:
    """Whether any of these values is complex."""
    return any(isinstance(value, Pair) or value.dtype.kind == "c" for value in values)


def on_both_parts(operator: Operator) -> Operator:
    """An operator that moves numbers and does not change them, applied to real and imaginary parts alike."""

    def apply(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
        if not is_complex(*given):
            return operator(graph, given, out, params)
        moved = [i for i, value in enumerate(given) if is_complex(value)]
        found = []
        for part in (0, 1):
            inputs = [
                parts_of(value)[part] if i in moved or value.dtype.kind == "f" else value
                for i, value in enumerate(given)
            ]
            found.append(operator(graph, inputs, [_Real(each) for each in out], params))
        if isinstance(found[0], list):
            return [Pair(real, imag) for real, imag in zip(*found, strict=True)]
        return Pair(*found)

    return apply


class _Real:
    """The type of the real part of a complex output."""

    def __init__(self, aval: Any):
        self.shape, self.dtype = aval.shape, np.dtype(np.float32) if aval.dtype.kind == "c" else aval.dtype
