"""Layers in double precision, for loops written from the formulas of models; only parameters are taken from a layer."""

import numpy as np


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def silu(v):
    return v * sigmoid(v)


def softplus(v):
    return np.log(1 + np.exp(v))


def affine(layer, v):
    out = layer.weight @ v
    return out if layer.bias is None else out + layer.bias


def normalise(v):
    centred = v - np.mean(v)
    return centred / np.sqrt(np.mean(centred**2) + 1e-5)


def softmax(v):
    e = np.exp(v - v.max())
    return e / e.sum()


def gelu(v):
    return 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))


def block(layer, v):
    v = normalise(affine(layer.linear, v))
    return np.where(v > 0, v, 0.01 * v)


def residual(around, x):
    return x if around.project is None else affine(around.project, x)


def gated_residual(around, y, x):
    """D u, GELU, gate and residual around the output y of a recurrence whose input is x."""
    value_gate = affine(around.gate, gelu(y + around.skip * normalise(residual(around, x))))
    half = value_gate.shape[0] // 2
    return residual(around, x) + value_gate[:half] * sigmoid(value_gate[half:])


def transformer_leave(around, y, x):
    """Residual and feed-forward network around the output y of a mixer whose input is x."""
    y, feed = residual(around, x) + y, around.feed_forward
    if feed is None:
        return y
    hidden = affine(feed.w_i, normalise(y))
    return y + affine(feed.w_o, gelu(hidden) if feed.w_g is None else silu(affine(feed.w_g, normalise(y))) * hidden)


def layered(layer_loop):
    """The loop of a stack whose layers are those of `layer_loop`."""

    def loop(p, xs, begin, state):
        after = []
        for i, layer in enumerate(p.layers):
            xs, h = layer_loop(layer, xs, begin, None if state is None else state[i])
            after.append(h)
        return xs, tuple(after)

    return loop
