"""The counterparts in ONNX of JAX's sums and products over axes, and of its convolution."""

import math
from typing import Any

import numpy as np

from memoroids.deploy.onnx_graph import Graph, Pair, Real, integers
from memoroids.deploy.onnx_registry import (
    OPERATORS,
    Operator,
    Unsupported,
    counterpart,
    is_complex,
    on_both_parts,
    parts_of,
)


def _reduced(kind: str) -> Operator:
    def apply(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
        if not params["axes"]:
            return given[0]
        return graph.node(kind, [given[0], integers(params["axes"])], out[0].shape, out[0].dtype, keepdims=0)

    return apply


OPERATORS |= {"reduce_sum": on_both_parts(_reduced("ReduceSum"))}
OPERATORS |= {f"reduce_{name}": _reduced(f"Reduce{name.capitalize()}") for name in ("max", "min", "prod")}


def _all_or_any(kind: str) -> Operator:
    def apply(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
        number = graph.cast(given[0], np.int32)
        axes = integers(params["axes"])
        return graph.cast(graph.node(kind, [number, axes], out[0].shape, np.int32, keepdims=0), bool)

    return apply


OPERATORS |= {"reduce_and": _all_or_any("ReduceMin"), "reduce_or": _all_or_any("ReduceMax")}


@counterpart("argmax")
def _argmax(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    (axis,) = params["axes"]
    return graph.node("ArgMax", given, out[0].shape, out[0].dtype, axis=axis, keepdims=0)


@counterpart("cumsum")
def _cumsum(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    inputs = [given[0], np.asarray(params["axis"], np.int64)]
    return graph.node("CumSum", inputs, out[0].shape, out[0].dtype, reverse=int(params["reverse"]))


@counterpart("dot_general")
def _dot(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    def product(left: Real, right: Real) -> Real:
        return _product(graph, left, right, params["dimension_numbers"], out[0].shape)

    if not is_complex(*given):
        return product(given[0], given[1])
    (a, b), (c, d) = map(parts_of, given)
    real = graph.node("Sub", [product(a, c), product(b, d)], out[0].shape, np.float32)
    return Pair(real, graph.node("Add", [product(a, d), product(b, c)], out[0].shape, np.float32))


def _product(graph: Graph, left: Real, right: Real, numbers: Any, shape: tuple[int, ...]) -> Real:
    """A product as one MatMul of (batch, free, contracted) and (batch, contracted, free)."""
    contracted, batch = numbers
    sides = []
    for value, over, along, last in ((left, contracted[0], batch[0], False), (right, contracted[1], batch[1], True)):
        free = [axis for axis in range(len(value.shape)) if axis not in (*over, *along)]
        order = [*along, *over, *free] if last else [*along, *free, *over]
        sizes = [math.prod(value.shape[axis] for axis in axes) for axes in (along, over, free)]
        batches, summed, kept = sizes
        moved = graph.transpose(value, order)
        sides.append((graph.reshape(moved, (batches, summed, kept) if last else (batches, kept, summed)), kept))
    (a, rows), (b, columns) = sides
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.matmul(a, b).reshape(shape)
    batches = a.shape[0]
    if batches == 1:
        a, b = graph.reshape(a, a.shape[1:]), graph.reshape(b, b.shape[1:])
        return graph.reshape(graph.node("MatMul", [a, b], (rows, columns), np.float32), shape)
    return graph.reshape(graph.node("MatMul", [a, b], (batches, rows, columns), np.float32), shape)


@counterpart("conv_general_dilated")
def _convolution(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    image, kernel = given
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1 or any(size != 1 for size in params["lhs_dilation"]):
        raise Unsupported("a transposed convolution has no counterpart in ONNX here")
    image, kernel = graph.transpose(image, numbers.lhs_spec), graph.transpose(kernel, numbers.rhs_spec)
    low, high = zip(*params["padding"], strict=True)
    shape = [out[0].shape[axis] for axis in numbers.out_spec]
    found = graph.node(
        "Conv",
        [image, kernel],
        shape,
        np.float32,
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
        pads=[*low, *high],
    )
    return graph.transpose(found, np.argsort(numbers.out_spec).tolist())
