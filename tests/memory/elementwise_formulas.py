"""Loops in double precision, written from the papers, for models with an elementwise recurrence.

Each takes the parameters, the observations, the begin flags and a state or None, and returns outputs and final state.
"""

import numpy as np
from formula_parts import (
    affine,
    block,
    gated_residual,
    layered,
    normalise,
    residual,
    sigmoid,
    silu,
    softplus,
    transformer_leave,
)
from scipy.linalg import expm


def state_space(layer, decay, gain, doubled, xs, begin, h):
    """Pre-norm, h_t = decay h_{t-1} + gain B u, y = Re(C h) or 2 Re(C h), D u, GELU, gate, residual."""
    n = decay.shape[0]
    b = layer.b.weight[:n] + 1j * layer.b.weight[n:]
    c = layer.c.weight[:, :n] - 1j * layer.c.weight[:, n:]
    around, out = layer.surround, []
    for t, x in enumerate(xs):
        u = normalise(residual(around, x))
        h = gain * (b @ u) + (0 if begin[t] or h is None else decay * h)
        out.append(gated_residual(around, (2 if doubled else 1) * (c @ h).real, x))
    return out, h


@layered
def lru(p, xs, begin, h):
    return state_space(p, np.exp(-np.exp(p.nu) + 1j * np.exp(p.theta)), np.exp(p.gamma_log), False, xs, begin, h)


@layered
def s5(p, xs, begin, h):
    eigenvalues = -np.exp(p.lambda_re_log) + 1j * p.lambda_im
    decay = np.exp(eigenvalues * np.exp(p.dt_log))
    return state_space(p, decay, (decay - 1) / eigenvalues, True, xs, begin, h)


def ffm(p, xs, begin, trace):
    m, c = p.alpha.shape[0], p.omega.shape[0]
    exponent = -np.abs(p.alpha).reshape(m, 1) * np.ones((1, c)) + 1j * p.omega.reshape(1, c) * np.ones((m, 1))
    out = []
    for t, x in enumerate(xs):
        entering = (affine(p.l1, x) * sigmoid(affine(p.l2, x))).reshape(m, 1) * np.ones((1, c))
        trace = entering + (0 if begin[t] or trace is None else np.exp(exponent) * trace)
        gate = sigmoid(affine(p.l4, x))
        read = affine(p.l3, np.concatenate((trace.real.reshape(-1), trace.imag.reshape(-1))))
        out.append(normalise(read) * gate + affine(p.l5, x) * (1 - gate))
    return out, trace


def g(v):
    return np.array([a + 0.5 if a >= 0 else 1 / (1 + np.exp(-a)) for a in v])


@layered
def min_gru(p, xs, begin, h):
    out = []
    for t, x in enumerate(xs):
        h = np.zeros(p.out.weight.shape[1]) if begin[t] or h is None else h
        u = normalise(residual(p.surround, x))
        z = sigmoid(affine(p.gate, u))
        h = (1 - z) * h + z * g(affine(p.candidate, u))
        out.append(residual(p.surround, x) + affine(p.out, h))
    return out, h


@layered
def min_lstm(p, xs, begin, h):
    size, out = p.out.weight.shape[1], []
    for t, x in enumerate(xs):
        h = np.zeros(size) if begin[t] or h is None else h
        u = normalise(residual(p.surround, x))
        gates = sigmoid(affine(p.gate, u))
        f, i = gates[:size], gates[size:]
        h = f / (f + i) * h + i / (f + i) * g(affine(p.candidate, u))
        out.append(residual(p.surround, x) + affine(p.out, h))
    return out, h


def hgrn(p, xs, begin, state):
    weights = np.exp(p.gamma)
    after = []
    for k, layer in enumerate(p.layers):
        # Cumsum(P)_k - P_1, with P the softmax over the layers.
        lower = weights[1 : k + 1].sum(0) / weights.sum(0)
        h, out = None if state is None else state[k], []
        for t, x in enumerate(xs):
            u = normalise(residual(layer.block, x))
            size = layer.theta.shape[0]
            real_imag = silu(affine(layer.value, u))
            c = real_imag[:size] + 1j * real_imag[size:]
            rate = lower + (1 - lower) * sigmoid(affine(layer.forget, u))
            h = (1 - rate) * c + (0 if begin[t] or h is None else rate * np.exp(1j * layer.theta) * h)
            gated = normalise(np.concatenate((h.real, h.imag))) * silu(affine(layer.gate, u))
            out.append(transformer_leave(layer.block, affine(layer.out, gated), x))
        xs = out
        after.append(h)
    return xs, tuple(after)


@layered
def s4d(p, xs, begin, h):
    """Each channel's own system, integrated exactly over a step of length Δ during which its input is held."""
    channels, size = p.a_im.shape
    h, out = np.zeros((channels, size), complex) if h is None else h, []
    for t, x in enumerate(xs):
        u = normalise(residual(p.surround, x))
        h = np.zeros_like(h) if begin[t] else h.copy()
        y = np.zeros(channels)
        for i in range(channels):
            for n in range(size):
                a, dt = -np.exp(p.a_re_log[i, n]) + 1j * p.a_im[i, n], np.exp(p.dt_log[i])
                h[i, n] = np.exp(dt * a) * h[i, n] + (np.exp(dt * a) - 1) / a * u[i]
                y[i] += 2 * ((p.c_re[i, n] + 1j * p.c_im[i, n]) * h[i, n]).real
        out.append(gated_residual(p.surround, y, x))
    return out, h


@layered
def mamba(p, xs, begin, state):
    width, channels = p.convolution.weight.shape
    size, rank = p.a_log.shape[1], p.w_dt.shape[1]
    past, h = (np.zeros((width - 1, channels)), np.zeros((channels, size))) if state is None else state
    past, out = list(past), []
    for t, x in enumerate(xs):
        if begin[t]:
            past, h = [np.zeros(channels)] * (width - 1), np.zeros((channels, size))
        v_z = p.w_in.weight @ normalise(residual(p.surround, x))
        past = [*past, v_z[:channels]]
        c = silu(sum(w * v for w, v in zip(p.convolution.weight[::-1], past, strict=True)) + p.convolution.bias)
        past = past[1:]
        selected = p.w_select.weight @ c
        delta, b, read = selected[:rank], selected[rank : rank + size], selected[rank + size :]
        y = np.zeros(channels)
        new = np.zeros_like(h)
        for i in range(channels):
            dt = softplus((p.w_dt[i] * delta).sum() + p.b_dt[i])
            new[i] = np.exp(dt * -np.exp(p.a_log[i])) * h[i] + dt * b * c[i]
            y[i] = (read * new[i]).sum() + p.d[i] * c[i]
        h = new
        out.append(residual(p.surround, x) + p.w_out.weight @ (y * silu(v_z[channels:])))
    return out, (np.stack(past), h)


@layered
def rot_rnn(p, xs, begin, state):
    """The recurrence with the rotation matrices of each head themselves; only the final state is in their basis."""
    (heads, pairs), size = p.theta.shape, p.m.shape[1]
    gamma = np.exp(-np.exp(p.nu))
    basis = [expm(m - m.T) for m in p.m]
    rotation, gain, h = [], [], []
    for i in range(heads):
        block_diagonal = np.zeros((size, size))
        for j, angle in enumerate(p.theta[i]):
            cos, sin = np.cos(angle), np.sin(angle)
            block_diagonal[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = [[cos, -sin], [sin, cos]]
        rotation.append(basis[i] @ block_diagonal @ basis[i].T)
        gain.append(np.sqrt((1 - gamma[i] ** 2) / np.trace(p.b[i].T @ p.b[i])))
        turned = np.zeros(size) if state is None else np.stack((state[i].real, state[i].imag), 1).reshape(size)
        h.append(basis[i] @ turned)
    out = []
    for t, x in enumerate(xs):
        u = normalise(residual(p.surround, x))
        h = [0 * v if begin[t] else v for v in h]
        h = [gamma[i] * rotation[i] @ h[i] + gain[i] * p.b[i] @ u for i in range(heads)]
        out.append(gated_residual(p.surround, p.c @ np.concatenate(h), x))
    last = [(basis[i].T @ h[i]).reshape(pairs, 2) for i in range(heads)]
    return out, np.stack([v[:, 0] + 1j * v[:, 1] for v in last])


def mixed(number):
    """The last step of MurmurHash3 on 32 bits, in Python's integers."""
    number = (number + 0x9E3779B9) % 2**32
    number = (number ^ number >> 16) * 0x85EBCA6B % 2**32
    number = (number ^ number >> 13) * 0xC2B2AE35 % 2**32
    return number ^ number >> 16


def shm(p, xs, begin, state):
    rows, size = p.theta.shape
    memory, place = (np.zeros((size, size)), 0) if state is None else state
    out = []
    for t, x in enumerate(xs):
        memory, place = (np.zeros((size, size)), 0) if begin[t] else (memory, place)
        row = mixed(int(place)) % rows
        k, q = (np.maximum(layer.weight @ x, 0) for layer in (p.w_k, p.w_q))
        k, q = k / (k.sum() + 1e-5), q / (q.sum() + 1e-5)
        v, eta = p.w_v.weight @ x, sigmoid(p.w_eta.weight @ x)
        calibration = 1 + np.tanh(p.theta[row].reshape(size, 1) * (p.w_c.weight @ x).reshape(1, size))
        memory = memory * calibration + (eta * v).reshape(size, 1) * k.reshape(1, size)
        out.append(affine(p.w_o, (memory * q.reshape(1, size)).sum(1)))
        place = place + 1
    return out, (memory, place)


def memory_traces(p, xs, begin, z):
    taus = [p.longest ** (i / (p.traces - 1)) if p.traces > 1 else 1.0 for i in range(p.traces)]
    out = []
    for t, x in enumerate(xs):
        z = [np.zeros_like(x)] * len(taus) if begin[t] or z is None else z
        z = [(1 - 1 / tau) * old + x / tau for tau, old in zip(taus, z, strict=True)]
        out.append(block(p.block, np.concatenate(z)))
    return out, np.stack(z)


FORMULAS = {
    "lru": lru,
    "s5": s5,
    "ffm": ffm,
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "hgrn": hgrn,
    "s4d": s4d,
    "mamba": mamba,
    "rot_rnn": rot_rnn,
    "shm": shm,
    "memory_traces": memory_traces,
}
