"""Independent loops of the memory models with matrix states, in double precision, from the formulas of their papers.

Each takes the parameters, the observations, the begin flags and the state before, and returns outputs and final state.
"""

import numpy as np
from formula_parts import affine, block, layered, normalise, residual, sigmoid, silu, softplus, transformer_leave


def linear_transformer(p, xs, begin, state):
    def phi(v):
        return 1 + np.where(v > 0, v, np.exp(np.minimum(v, 0)) - 1)

    out = []
    for t, x in enumerate(xs):
        key, query, value = phi(p.w_k.weight @ x), phi(p.w_q.weight @ x), p.w_v.weight @ x
        product = key.reshape(-1, 1) * value.reshape(1, -1)
        state = (product, key) if begin[t] or state is None else (state[0] + product, state[1] + key)
        numerator = (state[0] * query.reshape(-1, 1)).sum(0)
        attended = p.w_o.weight @ (numerator / ((state[1] * query).sum() + 1e-6))
        out.append(affine(p.mlp[1], block(p.mlp[0], attended)) + p.w_s.weight @ x)
    return out, state


def past(convolution, before, row):
    """The inputs of a convolution up to this one, and what it gives for them."""
    rows = [*before, row]
    taps = convolution.weight.shape[0]
    out = sum(convolution.weight[i] * rows[-1 - i] for i in range(taps))
    return np.stack(rows[1:]) if taps > 1 else before, out if convolution.bias is None else out + convolution.bias


def rms(v):
    return v / np.sqrt(np.mean(v**2) + 1e-5)


def unit(v):
    return v / np.sqrt(np.sum(v**2) + 1e-6)


@layered
def retnet(p, xs, begin, state):
    heads, out = p.heads, []
    for t, x in enumerate(xs):
        u = normalise(residual(p.block, x))
        q, k, v = (affine(w, u).reshape(heads, -1) for w in (p.w_q, p.w_k, p.w_v))
        half = k.shape[1] // 2
        k = k / np.sqrt(k.shape[1])
        if begin[t] or state is None:
            state = 0, np.zeros((heads, 2 * half, v.shape[1]))
        n, kept = state
        # Pairs of features as complex numbers, turned by e^{i n θ} as in the paper.
        turn = np.exp(1j * n * 10_000.0 ** (-2 * np.arange(half) / (2 * half)))
        reads, matrices = [], []
        for h in range(heads):
            keys, query = (turn * (w[h, :half] + 1j * w[h, half:]) for w in (k, q))
            keys, query = (np.concatenate((w.real, w.imag)) for w in (keys, query))
            matrix = (1 - 2.0 ** (-5 - h)) * kept[h] + keys.reshape(-1, 1) * v[h].reshape(1, -1)
            reads.append(normalise((matrix * query.reshape(-1, 1)).sum(0)))
            matrices.append(matrix)
        state = n + 1, np.stack(matrices)
        gate = silu(affine(p.w_g, u))
        out.append(transformer_leave(p.block, affine(p.w_o, gate * np.concatenate(reads)), x))
    return out, state


@layered
def gla(p, xs, begin, state):
    heads, out = p.heads, []
    for t, x in enumerate(xs):
        u = normalise(residual(p.block, x))
        q, k, v = (affine(w, u).reshape(heads, -1) for w in (p.w_q, p.w_k, p.w_v))
        alpha = sigmoid(affine(p.w_alpha[1], affine(p.w_alpha[0], u))).reshape(heads, -1) ** (1 / p.temperature)
        if begin[t] or state is None:
            state = np.zeros((heads, k.shape[1], v.shape[1]))
        state = np.stack([np.diag(alpha[h]) @ state[h] + np.outer(k[h], v[h]) for h in range(heads)])
        reads = np.concatenate([normalise(q[h] @ state[h]) for h in range(heads)])
        out.append(transformer_leave(p.block, affine(p.w_o, silu(affine(p.w_r, u)) * reads), x))
    return out, state


def hgrn2(p, xs, begin, state):
    shares = np.exp(p.gamma) / np.exp(p.gamma).sum(0)
    after = []
    for i, layer in enumerate(p.layers):
        bound = shares[1 : i + 1].sum(0)
        before, out = None if state is None else state[i], []
        for t, x in enumerate(xs):
            u = normalise(residual(layer.block, x))
            forget = (bound + (1 - bound) * sigmoid(affine(layer.w_f, u))).reshape(layer.heads, -1)
            value = silu(affine(layer.w_i, u)).reshape(layer.heads, -1)
            gate = sigmoid(affine(layer.w_q, u)).reshape(layer.heads, -1)
            if begin[t] or before is None:
                before = np.zeros((*forget.shape, value.shape[1]))
            before = forget[:, :, None] * before + (1 - forget)[:, :, None] * value[:, None, :]
            read = normalise((before * gate[:, :, None]).sum(1).reshape(-1))
            out.append(transformer_leave(layer.block, affine(layer.w_o, read), x))
        xs = out
        after.append(before)
    return xs, tuple(after)


@layered
def mamba2(p, xs, begin, state):
    heads, inner, n = p.heads, p.w_o.weight.shape[1], p.state_size
    width = p.convolution.weight.shape[0]
    out = []
    for t, x in enumerate(xs):
        u = normalise(residual(p.block, x))
        projected = affine(p.w_i, u)
        z, channels, delta = projected[:inner], projected[inner:-heads], projected[-heads:]
        if begin[t] or state is None:
            state = np.zeros((width - 1, channels.size)), np.zeros((heads, n, inner // heads))
        window, mixed = past(p.convolution, state[0], channels)
        mixed = silu(mixed)
        value, b, c = mixed[:inner].reshape(heads, -1), mixed[inner : inner + n], mixed[inner + n :]
        delta = softplus(delta + p.dt_bias)
        matrices, reads = [], []
        for h in range(heads):
            decay = np.exp(-np.exp(p.a_log[h]) * delta[h])
            matrices.append(decay * state[1][h] + delta[h] * np.outer(b, value[h]))
            reads.append(c @ matrices[h] + p.d[h] * value[h])
        state = window, np.stack(matrices)
        out.append(transformer_leave(p.block, affine(p.w_o, rms(np.concatenate(reads) * silu(z))), x))
    return out, state


@layered
def mlstm(p, xs, begin, state):
    """The recurrence of the paper without a stabiliser, which is multiplied in before and taken out at the end."""
    heads, out = p.heads, []
    if state is not None:
        scale = np.exp(state[2])
        c, n = scale[:, None, None] * state[0], scale[:, None] * state[1]
    for t, x in enumerate(xs):
        u = normalise(residual(p.block, x))
        q, v = (affine(w, u).reshape(heads, -1) for w in (p.w_q, p.w_v))
        k = (p.w_k.weight @ u / np.sqrt(q.shape[1]) + p.w_k.bias).reshape(heads, -1)
        i, f = np.exp(affine(p.w_i, u)), sigmoid(affine(p.w_f, u))
        if begin[t] or state is None:
            c, n = np.zeros((heads, k.shape[1], v.shape[1])), np.zeros(k.shape)
            state, m = (), np.full(heads, -np.inf)
        elif t == 0:
            m = state[2]
        m = np.maximum(m + np.log(f), np.log(i))
        reads = []
        for h in range(heads):
            c[h] = f[h] * c[h] + i[h] * np.outer(k[h], v[h])
            n[h] = f[h] * n[h] + i[h] * k[h]
            reads.append(normalise(q[h] @ c[h] / max(abs(n[h] @ q[h]), 1)))
        gated = sigmoid(affine(p.w_o, u)) * np.concatenate(reads)
        out.append(transformer_leave(p.block, affine(p.w_d, gated), x))
    return out, (np.exp(-m)[:, None, None] * c, np.exp(-m)[:, None] * n, m)


def delta_layer(p, xs, begin, state, decay, gate):
    """S_t = α S_{t-1} (I - β k kᵀ) + β v kᵀ as a product with the transition's matrix, S as the paper writes it."""
    heads, out = p.heads, []
    inner = heads * p.key_size
    for t, x in enumerate(xs):
        u = normalise(residual(p.block, x))
        channels = p.w_qkv.weight @ u
        if begin[t] or state is None:
            window = np.zeros((p.convolution.weight.shape[0] - 1, channels.size))
            state = window, np.zeros((heads, p.key_size, (channels.size - 2 * inner) // heads))
        window, mixed = past(p.convolution, state[0], channels)
        mixed, matrices, reads = silu(mixed), [], []
        for h in range(heads):
            at = slice(h * p.key_size, (h + 1) * p.key_size)
            q, k = unit(mixed[:inner][at]), unit(mixed[inner : 2 * inner][at])
            v = mixed[2 * inner :].reshape(heads, -1)[h]
            beta = sigmoid(p.w_beta.weight[h] @ u)
            s = decay(u, h) * state[1][h].T @ (np.eye(k.size) - beta * np.outer(k, k)) + beta * np.outer(v, k)
            matrices.append(s.T)
            reads.append(rms(s @ q))
        state = window, np.stack(matrices)
        out.append(transformer_leave(p.block, p.w_o.weight @ (gate(u) * np.concatenate(reads)), x))
    return out, state


@layered
def delta_net(p, xs, begin, state):
    return delta_layer(p, xs, begin, state, lambda u, h: 1.0, lambda u: 1.0)


@layered
def gated_delta_net(p, xs, begin, state):
    def decay(u, h):
        return np.exp(-np.exp(p.a_log[h]) * softplus(p.w_a.weight[h] @ u + p.dt_bias[h]))

    return delta_layer(p, xs, begin, state, decay, lambda u: silu(p.w_g.weight @ u))


@layered
def rwkv7(p, xs, begin, state):
    heads, size = p.rho.shape
    out = []
    for t, x in enumerate(xs):
        u = normalise(residual(p.surround, x))
        if begin[t] or state is None:
            state = np.zeros(u.size), np.zeros(u.size), np.zeros((heads, size, size))
        last_u, last_c, sums = state
        r, w, k, v, a, g = (u + mu * (last_u - u) for mu in p.mu)
        r, k, v = p.w_r @ r, p.w_k @ k, p.w_v @ v
        w = np.exp(-np.exp(-0.5) * sigmoid(p.decay.bias + p.decay.b @ np.tanh(p.decay.a @ w)))
        a = sigmoid(p.rate.bias + p.rate.b @ (p.rate.a @ a))
        g = p.gate.b @ sigmoid(p.gate.a @ g)
        matrices, parts = [], []
        for h in range(heads):
            at = slice(h * size, (h + 1) * size)
            removal = unit(p.xi[at] * k[at])
            replacement = k[at] * (1 + (a[at] - 1) * p.alpha[at])
            transition = np.diag(w[at]) - np.outer(removal, a[at] * removal)
            s = sums[h].T @ transition + np.outer(v[at], replacement)
            matrices.append(s.T)
            parts.append(normalise(s @ r[at]) + (r[at] @ (p.rho[h] * replacement)) * v[at])
        y = residual(p.surround, x) + p.w_o @ (g * np.concatenate(parts))
        c = normalise(y)
        hidden = np.maximum(p.w_1 @ (c + p.mu_c * (last_c - c)), 0)
        out.append(y + p.w_2 @ hidden**2)
        state = u, c, np.stack(matrices)
    return out, state


FORMULAS = {
    "linear_transformer": linear_transformer,
    "retnet": retnet,
    "gla": gla,
    "hgrn2": hgrn2,
    "mamba2": mamba2,
    "mlstm": mlstm,
    "delta_net": delta_net,
    "gated_delta_net": gated_delta_net,
    "rwkv7": rwkv7,
}
