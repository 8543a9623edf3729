"""The counterparts in ONNX of JAX's operations that move numbers and do not change them."""

from itertools import pairwise
from typing import Any

import numpy as np

from memoroids.deploy.onnx_elementwise import clamp
from memoroids.deploy.onnx_graph import WIDE, Graph, integers
from memoroids.deploy.onnx_registry import Unsupported, counterpart, on_both_parts


@counterpart("reshape", "squeeze", "expand_dims")
@on_both_parts
def _reshape(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    return graph.reshape(given[0], out[0].shape)


@counterpart("broadcast_in_dim")
@on_both_parts
def _broadcast(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    value, shape = given[0], tuple(params["shape"])
    aligned = [1] * len(shape)
    for axis, to in enumerate(params["broadcast_dimensions"]):
        aligned[to] = value.shape[axis]
    value = graph.reshape(value, aligned)
    if isinstance(value, np.ndarray):
        return np.broadcast_to(value, shape)
    return value if value.shape == shape else graph.node("Expand", [value, integers(shape)], shape, value.dtype)


@counterpart("transpose")
@on_both_parts
def _transpose(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    return graph.transpose(given[0], params["permutation"])


@counterpart("concatenate")
@on_both_parts
def _concatenate(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    return graph.node("Concat", given, out[0].shape, out[0].dtype, axis=params["dimension"])


@counterpart("stack")
@on_both_parts
def _stack(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    axis, shape = params["axis"], list(out[0].shape)
    rows = [graph.reshape(value, [*shape[:axis], 1, *shape[axis + 1 :]]) for value in given]
    return graph.node("Concat", rows, out[0].shape, out[0].dtype, axis=axis)


@counterpart("unstack")
@on_both_parts
def _unstack(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    rows = [_part(graph, given[0], params["axis"], i, i + 1) for i in range(len(out))]
    return [graph.reshape(row, each.shape) for row, each in zip(rows, out, strict=True)]


@counterpart("split")
@on_both_parts
def _split(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    ends = np.cumsum([0, *params["sizes"]]).tolist()
    return [_part(graph, given[0], params["axis"], a, b) for a, b in pairwise(ends)]


def _part(graph: Graph, value: Any, axis: int, begin: int, end: int) -> Any:
    """The entries from `begin` up to `end` along an axis."""
    shape = (*value.shape[:axis], end - begin, *value.shape[axis + 1 :])
    return graph.node("Slice", [value, integers([begin]), integers([end]), integers([axis])], shape, value.dtype)


@counterpart("slice")
@on_both_parts
def _slice(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    starts, ends = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    inputs = [given[0], integers(starts), integers(ends), integers(range(len(starts))), integers(strides)]
    return graph.node("Slice", inputs, out[0].shape, out[0].dtype)


@counterpart("rev")
@on_both_parts
def _rev(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    axes = params["dimensions"]
    ends = [np.iinfo(np.int64).min] * len(axes)
    inputs = [given[0], integers([-1] * len(axes)), integers(ends), integers(axes), integers([-1] * len(axes))]
    return graph.node("Slice", inputs, out[0].shape, out[0].dtype)


@counterpart("pad")
@on_both_parts
def _pad(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    value, fill = given
    low, high, inside = zip(*params["padding_config"], strict=True)
    if any(inside) or min((*low, *high)) < 0:
        raise Unsupported("padding within an array, or a negative one, has no counterpart in ONNX here")
    return graph.node("Pad", [value, integers((*low, *high)), fill], out[0].shape, out[0].dtype)


@counterpart("dynamic_slice")
def _dynamic_slice(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    value, *starts = given
    sizes = params["slice_sizes"]
    placed = [graph.reshape(start, (1,)) for start in starts]
    start = placed[0] if len(placed) == 1 else graph.node("Concat", placed, (len(sizes),), WIDE, axis=0)
    last = integers(np.subtract(value.shape, sizes).tolist())
    start = clamp(graph, [integers([0] * len(sizes)), start, last], [start], {})
    end = graph.node("Add", [start, integers(sizes)], (len(sizes),), WIDE)
    return graph.node("Slice", [value, start, end, integers(range(len(sizes)))], out[0].shape, out[0].dtype)


@counterpart("gather")
@on_both_parts
def _gather(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    value, index = given
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    rows = numbers.collapsed_slice_dims == numbers.start_index_map == (0,) and sizes == (1, *value.shape[1:])
    last = tuple(range(len(out[0].shape) - len(value.shape) + 1, len(out[0].shape)))
    if not rows or numbers.offset_dims != last or numbers.operand_batching_dims:
        raise Unsupported("a gather other than that of whole rows has no counterpart in ONNX here")
    index = graph.reshape(index, index.shape[:-1])
    if isinstance(index, np.ndarray):
        index = np.clip(index, 0, value.shape[0] - 1)
    else:
        index = clamp(graph, [integers(0), index, integers(value.shape[0] - 1)], [index], {})
    return graph.node("Gather", [value, index], out[0].shape, out[0].dtype, axis=0)


@counterpart("scatter")
def _scatter(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    value, index, update = given
    numbers = params["dimension_numbers"]
    whole = numbers.inserted_window_dims == numbers.scatter_dims_to_operand_dims == (0,)
    if index.shape != (1,) or not whole or numbers.operand_batching_dims:
        raise Unsupported("a scatter other than that of one row has no counterpart in ONNX here")
    length, rest = value.shape[0], (1,) * (len(value.shape) - 1)
    here = graph.node("Equal", [np.arange(length, dtype=WIDE), index], (length,), bool)
    here = graph.reshape(here, (length, *rest))
    return graph.node("Where", [here, graph.reshape(update, (1, *value.shape[1:])), value], out[0].shape, out[0].dtype)
