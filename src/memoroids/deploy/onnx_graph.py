"""An ONNX graph under construction: tensors, constants and nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

OPSET = 18
"""The version of ONNX's operators; 18 is the first with BitwiseXor."""

WIDE = np.dtype(np.int64)


def stored(dtype: Any) -> np.dtype:
    """The type of a tensor that holds numbers of `dtype`: runtimes do little with integers other than int64."""
    dtype = np.dtype(dtype)
    return WIDE if dtype.kind in "iu" and dtype != np.uint8 else dtype


@dataclass(frozen=True)
class Tensor:
    """A tensor that is only known when the graph runs. `dtype`: what it means; see `stored` for what it is."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Pair:
    """A complex tensor: its real and its imaginary part, at least one of which is a `Tensor`."""

    real: "Real"
    imag: "Real"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both parts."""
        return self.real.shape

    @property
    def dtype(self) -> np.dtype:
        """The type that the pair stands for."""
        return np.dtype(np.complex64)


Real = np.ndarray | Tensor
"""A real array that is known, or one that is only known when the graph runs."""
Value = Real | Pair
"""A value in the graph; what is known is complex too."""


class Graph:
    """Nodes and constants, in the order in which they run."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper  # slow to import

        self._helper, self._arrays = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._known: dict[tuple[bytes, tuple[int, ...], str], str] = {}
        self._count = 0

    def name(self, value: Real) -> str:
        """The name of a value; a known one becomes a constant of the graph, equal ones the same."""
        if isinstance(value, Tensor):
            return value.name
        array = np.ascontiguousarray(value, stored(value.dtype)).reshape(value.shape)
        key = array.tobytes(), array.shape, array.dtype.str
        if key not in self._known:
            self._known[key] = f"constant{len(self._known)}"
            self.constants[self._known[key]] = array
        return self._known[key]

    def node(self, kind: str, inputs: Sequence[Real], shape: Sequence[int], dtype: Any, **attributes: Any) -> Tensor:
        """Adds a node with one output of this shape and meaning."""
        self._count += 1
        out = Tensor(f"{kind.lower()}{self._count}", tuple(shape), np.dtype(dtype))
        names = [self.name(value) for value in inputs]
        self.nodes.append(self._helper.make_node(kind, names, [out.name], **attributes))
        return out

    def cast(self, value: Real, dtype: Any) -> Tensor:
        """The value as another type."""
        to = self._helper.np_dtype_to_tensor_dtype(stored(dtype))
        return self.node("Cast", [value], value.shape, dtype, to=to)

    def reshape(self, value: Real, shape: Sequence[int]) -> Real:
        """The value in another shape."""
        if isinstance(value, np.ndarray):
            return value.reshape(shape)
        if value.shape == tuple(shape):
            return value
        return self.node("Reshape", [value, integers(shape)], shape, value.dtype)

    def transpose(self, value: Real, order: Sequence[int]) -> Real:
        """The value with its axes in another order."""
        if isinstance(value, np.ndarray):
            return value.transpose(order)
        if list(order) == sorted(order):
            return value
        return self.node("Transpose", [value], [value.shape[i] for i in order], value.dtype, perm=list(order))

    def model(self, name: str, inputs: Sequence[Tensor], outputs: dict[str, Real]) -> bytes:
        """The serialised model, whose outputs have these names."""
        for output, value in outputs.items():
            self.nodes.append(self._helper.make_node("Identity", [self.name(value)], [output]))
        graph = self._helper.make_graph(
            self.nodes,
            name,
            [self._described(tensor.name, tensor) for tensor in inputs],
            [self._described(output, value) for output, value in outputs.items()],
            [self._arrays.from_array(array, constant) for constant, array in self.constants.items()],
        )
        opset = self._helper.make_opsetid("", OPSET)
        model = self._helper.make_model(graph, opset_imports=[opset], ir_version=9, producer_name="memoroids")
        return model.SerializeToString()

    def _described(self, name: str, value: Real) -> Any:
        kind = self._helper.np_dtype_to_tensor_dtype(stored(value.dtype))
        return self._helper.make_tensor_value_info(name, kind, list(value.shape))


def integers(values: Sequence[int] | int) -> np.ndarray:
    """Integers as ONNX wants shapes, axes and indices."""
    return np.asarray(values, np.int64)
