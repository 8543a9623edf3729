"""The counterparts in ONNX of JAX's operations on one number at a time."""

from typing import Any

import numpy as np

from memoroids.deploy.onnx_graph import WIDE, Graph, Pair, Real, Tensor
from memoroids.deploy.onnx_registry import (
    OPERATORS,
    Operator,
    Unsupported,
    counterpart,
    is_complex,
    on_both_parts,
    parts_of,
)

_SAME = {
    "abs": "Abs",
    "neg": "Neg",
    "exp": "Exp",
    "log": "Log",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "sqrt": "Sqrt",
    "cos": "Cos",
    "sin": "Sin",
    "floor": "Floor",
    "ceil": "Ceil",
    "sign": "Sign",
    "erf": "Erf",
    "not": "Not",
    "max": "Max",
    "min": "Min",
    "div": "Div",
    "pow": "Pow",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "lt": "Less",
    "le": "LessOrEqual",
    "eq": "Equal",
}


def _plain(kind: str) -> Operator:
    def apply(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Tensor:
        del params
        if is_complex(*given):
            raise Unsupported(f"{kind} of complex numbers has no counterpart in ONNX here")
        return graph.node(kind, given, out[0].shape, out[0].dtype)

    return apply


OPERATORS |= {name: _plain(kind) for name, kind in _SAME.items()}
OPERATORS["neg"] = on_both_parts(OPERATORS["neg"])


def _wrapped(graph: Graph, value: Tensor) -> Tensor:
    """A number of type uint32, whose tensor holds more bits, reduced to 32 of them."""
    if value.dtype != np.uint32:
        return value
    return graph.node("Mod", [value, np.asarray(2**32, WIDE)], value.shape, value.dtype)


def _sum_of(kind: str) -> Operator:
    def apply(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
        del params
        shape = out[0].shape
        if not is_complex(*given):
            return _wrapped(graph, graph.node(kind, given, shape, out[0].dtype))
        (a, b), (c, d) = map(parts_of, given)
        return Pair(*(graph.node(kind, pair, shape, np.float32) for pair in ((a, c), (b, d))))

    return apply


OPERATORS |= {"add": _sum_of("Add"), "add_any": _sum_of("Add"), "sub": _sum_of("Sub")}


@counterpart("mul")
def _mul(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    def times(a: Real, b: Real) -> Tensor:
        return graph.node("Mul", [a, b], out[0].shape, np.float32)

    if not is_complex(*given):
        return _wrapped(graph, graph.node("Mul", given, out[0].shape, out[0].dtype))
    (a, b), (c, d) = map(parts_of, given)
    real = graph.node("Sub", [times(a, c), times(b, d)], out[0].shape, np.float32)
    return Pair(real, graph.node("Add", [times(a, d), times(b, c)], out[0].shape, np.float32))


@counterpart("square")
def _square(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    return _mul(graph, given * 2, out, params)


@counterpart("integer_pow")
def _integer_pow(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    if params["y"] == 2:
        return _mul(graph, given * 2, out, params)
    return graph.node("Pow", [given[0], np.asarray(params["y"], np.float32)], out[0].shape, out[0].dtype)


@counterpart("rsqrt")
def _rsqrt(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    root = graph.node("Sqrt", given, out[0].shape, out[0].dtype)
    return graph.node("Reciprocal", [root], out[0].shape, out[0].dtype)


@counterpart("log1p")
def _log1p(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    one = np.asarray(1, np.float32)
    return graph.node("Log", [graph.node("Add", [given[0], one], out[0].shape, np.float32)], out[0].shape, np.float32)


@counterpart("expm1")
def _expm1(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    one = np.asarray(1, np.float32)
    return graph.node("Sub", [graph.node("Exp", given, out[0].shape, np.float32), one], out[0].shape, np.float32)


@counterpart("ne")
def _ne(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    return graph.node("Not", [graph.node("Equal", given, out[0].shape, bool)], out[0].shape, bool)


@counterpart("is_finite")
def _is_finite(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    kinds = [graph.node(kind, given, out[0].shape, bool) for kind in ("IsNaN", "IsInf")]
    return graph.node("Not", [graph.node("Or", kinds, out[0].shape, bool)], out[0].shape, bool)


def _logical(kind: str, bits: str) -> Operator:
    def apply(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Tensor:
        return graph.node(kind if out[0].dtype == bool else bits, given, out[0].shape, out[0].dtype)

    return apply


OPERATORS |= {
    "and": _logical("And", "BitwiseAnd"),
    "or": _logical("Or", "BitwiseOr"),
    "xor": _logical("Xor", "BitwiseXor"),
}


@counterpart("rem")
def _rem(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    # With fmod the sign is the dividend's, as JAX has it.
    return graph.node("Mod", given, out[0].shape, out[0].dtype, fmod=1)


@counterpart("shift_right_logical")
def _shift_right(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    value, by = given
    if not isinstance(by, np.ndarray) or value.dtype != np.uint32:
        raise Unsupported("a shift of signed numbers, or by a number that is not constant, has no counterpart here")
    return graph.node("Div", [value, (2 ** by.astype(np.int64)).astype(WIDE)], out[0].shape, out[0].dtype)


@counterpart("select_n")
def _select(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    which, *cases = given
    if isinstance(which, np.ndarray) and (which == which.flat[0]).all():
        return cases[int(which.flat[0])]
    if len(cases) != 2 or which.dtype != bool:
        raise Unsupported("a selection among more than two has no counterpart in ONNX here")
    (a, b), shape = cases, out[0].shape
    if not is_complex(a, b):
        return graph.node("Where", [which, b, a], shape, out[0].dtype)
    pairs = zip(parts_of(b), parts_of(a), strict=True)
    return Pair(*(graph.node("Where", [which, *pair], shape, np.float32) for pair in pairs))


@counterpart("clamp")
def clamp(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    """The value between two bounds."""
    low, value, high = given
    above = graph.node("Max", [low, value], out[0].shape, out[0].dtype)
    return graph.node("Min", [above, high], out[0].shape, out[0].dtype)


@counterpart("bitcast_convert_type")
def _same_bits(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    (value,) = given
    if (value.dtype, out[0].dtype) != (np.uint32, np.int32):
        raise Unsupported(f"the bits of {value.dtype} as {out[0].dtype} have no counterpart in ONNX here")
    shape, whole = out[0].shape, np.asarray(2**32, WIDE)
    negative = graph.node("GreaterOrEqual", [value, np.asarray(2**31, WIDE)], shape, bool)
    return graph.node("Where", [negative, graph.node("Sub", [value, whole], shape, np.int32), value], shape, np.int32)


@counterpart("convert_element_type")
def _convert(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    (value,) = given
    if out[0].dtype.kind == "c":
        return value if is_complex(value) else Pair(value, np.zeros(value.shape, np.float32))
    return _wrapped(graph, graph.cast(value, out[0].dtype))


@counterpart("stop_gradient", "copy", "copy_p", "optimization_barrier")
def _same(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    return given if len(given) > 1 else given[0]


@counterpart("real")
def _real(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    return parts_of(given[0])[0]


@counterpart("imag")
def _imag(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    return parts_of(given[0])[1]


@counterpart("complex")
def _complex(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    return Pair(*given)


@counterpart("conj")
def _conj(graph: Graph, given: list[Any], out: list[Any], params: dict[str, Any]) -> Any:
    real, imag = parts_of(given[0])
    return Pair(real, graph.node("Neg", [imag], out[0].shape, np.float32))
