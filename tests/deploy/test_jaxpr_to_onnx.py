"""Functions of JAX as ONNX graphs compute what JAX does, and what has no counterpart is named."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import lax

from memoroids.deploy.jaxpr_to_onnx import to_onnx
from memoroids.deploy.onnx_graph import stored

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4)).astype(np.float32)
Z = (RNG.standard_normal((3, 4)) + 1j * RNG.standard_normal((3, 4))).astype(np.complex64)
W = RNG.standard_normal((4, 5)).astype(np.float32)
IMAGE = RNG.integers(0, 256, (9, 8, 2)).astype(np.uint8)
KERNEL = RNG.standard_normal((3, 2, 2, 3)).astype(np.float32)
WHOLE = np.asarray([-7, -1, 0, 5], np.int32)
FUNCTIONS = {
    "elementwise": (lambda x: jnp.tanh(x) * jnp.exp(-(x**2)) + jnp.sqrt(jnp.abs(x)) / (1 + x**2) - x**3, X),
    "activations": (lambda x: (jax.nn.softplus(x), jax.nn.elu(x), jax.nn.gelu(x), jax.nn.leaky_relu(x)), X),
    "softmax and norm": (lambda x: (jax.nn.softmax(x), (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var() + 1e-6)), X),
    "comparisons": (lambda x: (x > 0, x != x[:1], jnp.where((x < 0) & ~(x >= -1) | (x == 0), x, -x)), X),
    "finite": (lambda x: (jnp.isfinite(x / (x - x[0, 0])), jnp.isfinite(x).all(0), (x > 2).any()), X),
    "reductions": (lambda x: (x.sum(0), x.max(1), x.min(), x.prod(1), jnp.argmax(x, 1), jnp.cumsum(x, 1)), X),
    "shapes": (lambda x: (x.T.reshape(2, 6), x[::-1, 1:4:2], jnp.pad(x, ((1, 0), (0, 2))), jnp.split(x, 2, 1)), X),
    "unstacking": (lambda x: (sum(2 * row for row in x), jnp.stack(jnp.unstack(x * (1 + 1j), axis=1)).imag), X),
    "stacking": (lambda x: (jnp.concatenate((x, 2 * x)), jnp.broadcast_to(x[:, None], (3, 2, 4)), x[None]), X),
    "complex": (
        lambda z: (z * z + 1j, (2 - z) * jnp.conj(z), z.real * z.imag, jnp.stack((z, -z)), z @ W.astype(Z.dtype)),
        Z,
    ),
    "complex selection": (lambda z: (jnp.where(z.real > 0, z, 0), lax.complex(z.real, z.imag)[::-1].sum(0)), Z),
    "products": (
        lambda x: (x @ W, jnp.einsum("ij,ik->kj", x, x), jnp.einsum("ij,ij->i", x, x), jnp.outer(x[0], x[1])),
        X,
    ),
    "batched product": (lambda x: jnp.einsum("bi,bij->bj", x, jnp.tile(W, (3, 1, 1))), X),
    "rows by number": (
        lambda i: (jnp.asarray(X)[i[3] % 3], jnp.asarray(W)[i + 1], jnp.asarray(X).at[i[2]].set(9.0)),
        WHOLE,
    ),
    "whole numbers": (
        lambda i: (i // 3, i % 3, lax.rem(i, 3), -i * i, jnp.clip(i, -2, 2), i.astype(jnp.float32)),
        WHOLE,
    ),
    "slices by number": (lambda i: lax.dynamic_slice(jnp.asarray(X), (i[3], i[2]), (2, 3)), WHOLE),
    "bits": (
        lambda i: ((i.astype(jnp.uint32) ^ (i.astype(jnp.uint32) >> 3)) * jnp.uint32(0x85EBCA6B)) % jnp.uint32(97),
        np.asarray([0, 1, 12345, 2**30], np.int32),
    ),
    "angles": (
        lambda i: lax.bitcast_convert_type(i.astype(jnp.uint32) * jnp.uint32(683565276), jnp.int32).astype(jnp.float32),
        np.asarray([0, 1, 4, 12345], np.int32),
    ),
    "convolution": (
        lambda x: lax.conv_general_dilated(
            x[None].astype(jnp.float32), KERNEL, (2, 1), ((1, 0), (0, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        IMAGE,
    ),
    "constants alone": (
        lambda x: x + jnp.linalg.inv(jnp.eye(4) + 0.1 * W[:, :4]).sum() + jnp.exp(1j * W[0, 0]).real,
        X,
    ),
    "nested calls": (lambda x: jax.jit(jax.nn.relu)(x) + jax.checkpoint(jnp.sin)(x), X),
}


def named(name, leaf):
    array = np.asarray(leaf)
    return {f"{name}.real": array.real, f"{name}.imag": array.imag} if array.dtype.kind == "c" else {name: array}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_computes_in_onnx_what_it_computes_in_jax(name):
    function, example = FUNCTIONS[name]
    model, outputs = to_onnx(function, {"x": example}, "test")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = {each: value.astype(stored(value.dtype)) for each, value in named("x", example).items()}
    found = dict(zip(outputs, session.run(outputs, feeds), strict=True))
    want = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(function)(example)):
        want |= named("out" + jax.tree_util.keystr(path), leaf)
    assert list(found) == list(want)
    for each, value in want.items():
        assert found[each].shape == value.shape
        np.testing.assert_allclose(found[each], value, rtol=2e-5, atol=2e-5, err_msg=each)


def test_what_does_not_depend_on_the_input_is_computed_beforehand():
    import onnx

    model, _ = to_onnx(lambda x: x * jnp.exp(jnp.tanh(W)).sum(), {"x": X}, "test")
    assert [node.op_type for node in onnx.load_from_string(model).graph.node] == ["Mul", "Identity"]


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda x: jnp.sort(x), "the operation sort"),
        (lambda x: lax.fori_loop(0, 3, lambda _, y: y + x, x), "the operation (scan|while)"),
        (lambda x: jnp.abs(lax.complex(x, x)), "Abs of complex numbers"),
        (lambda x: jnp.asarray(X).at[:, 1].set(x[:, 0]), "a scatter other than that of one row"),
    ],
)
def test_an_operation_without_a_counterpart_is_named(function, what):
    with pytest.raises(ValueError, match=f"{what} has no counterpart in ONNX here"):
        to_onnx(function, {"x": X}, "test")
