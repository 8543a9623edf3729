"""Memories without a parallel form, and those of recent steps, as loops written from their papers' formulas."""

import numpy as np
from formula_parts import block, layered, normalise, residual, sigmoid, softmax, transformer_leave
from scipy.linalg import expm


def elman(p, xs, begin, h):
    out = []
    for t, x in enumerate(xs):
        entering = np.zeros(p.b.shape) if begin[t] or h is None else h
        h = np.tanh(p.w @ x + p.u @ entering + p.b)
        out.append(h)
    return out, h


def gru(p, xs, begin, h):
    cell, out = p.cell, []
    size = cell.weight_hh.shape[1]
    (w_r, w_z, w_n), (u_r, u_z, u_n) = (w.reshape(3, size, -1) for w in (cell.weight_ih, cell.weight_hh))
    b_r, b_z, b_n = cell.bias.reshape(3, size)
    for t, x in enumerate(xs):
        h = np.zeros(size) if begin[t] or h is None else h
        r, z = sigmoid(w_r @ x + u_r @ h + b_r), sigmoid(w_z @ x + u_z @ h + b_z)
        n = np.tanh(w_n @ x + b_n + r * (u_n @ h + cell.bias_n))
        h = (1 - z) * n + z * h
        out.append(h)
    return out, h


def lmu(p, xs, begin, state):
    a, b = np.zeros((p.order, p.order)), np.zeros(p.order)
    for i in range(p.order):
        b[i] = (2 * i + 1) * (-1) ** i / p.theta
        for j in range(p.order):
            a[i, j] = (2 * i + 1) / p.theta * (-1 if i < j else (-1) ** (i - j + 1))
    held = expm(a)
    gain = np.linalg.solve(a, (held - np.eye(p.order)) @ b)
    h, m = (np.zeros(p.w_h.shape[0]), np.zeros(p.order)) if state is None else state
    out = []
    for t, x in enumerate(xs):
        h, m = (0 * h, 0 * m) if begin[t] else (h, m)
        m = held @ m + gain * (p.e_x @ x + p.e_h @ h + p.e_m @ m)
        h = np.tanh(p.w_x @ x + p.w_h @ h + p.w_m @ m)
        out.append(h)
    return out, (h, m)


def lstm(p, xs, begin, state):
    size = p.cell.weight_hh.shape[1]
    w_i, w_f, w_g, w_o = p.cell.weight_ih.reshape(4, size, -1)
    u_i, u_f, u_g, u_o = p.cell.weight_hh.reshape(4, size, size)
    b_i, b_f, b_g, b_o = p.cell.bias.reshape(4, size)
    out = []
    for t, x in enumerate(xs):
        h, c = (np.zeros(size), np.zeros(size)) if begin[t] or state is None else state
        i, f = sigmoid(w_i @ x + u_i @ h + b_i), sigmoid(w_f @ x + u_f @ h + b_f)
        g, o = np.tanh(w_g @ x + u_g @ h + b_g), sigmoid(w_o @ x + u_o @ h + b_o)
        c = f * c + i * g
        h = o * np.tanh(c)
        out.append(h)
        state = h, c
    return out, state


def slstm(p, xs, begin, state):
    """Cell by cell, in the paper's form without a stabiliser; the state is given back with the stabiliser's scale."""
    heads, _, size = p.r.shape
    cells = heads * size
    w, b = p.w.reshape(4, cells, -1), p.b.reshape(4, cells)
    h, c, n, m = np.zeros(cells), np.zeros(cells), np.zeros(cells), np.full(cells, -np.inf)
    if state is not None:
        h, scaled_c, scaled_n, m = state
        c, n = scaled_c * np.exp(m), scaled_n * np.exp(m)
    out = []
    for t, x in enumerate(xs):
        if begin[t]:
            h, c, n, m = np.zeros(cells), np.zeros(cells), np.zeros(cells), np.full(cells, -np.inf)
        before, h, c, n, m = h, np.zeros(cells), c.copy(), n.copy(), m.copy()
        for k in range(cells):
            head, row = divmod(k, size)
            own = before[head * size : (head + 1) * size]
            z, i, f, o = (w[g, k] @ x + p.r[head, g * size + row] @ own + b[g, k] for g in range(4))
            c[k] = sigmoid(f) * c[k] + np.exp(i) * np.tanh(z)
            n[k] = sigmoid(f) * n[k] + np.exp(i)
            h[k] = sigmoid(o) * c[k] / n[k]
            m[k] = max(np.log(sigmoid(f)) + m[k], i)
        out.append(h)
    return out, (h, c / np.exp(m), n / np.exp(m), m)


def mlp(p, xs, begin, state):
    return [block(p.block, x) for x in xs], ()


def positional_mlp(p, xs, begin, seen):
    size = p.block.linear.weight.shape[1] - xs[0].shape[0]
    out = []
    for t, x in enumerate(xs):
        seen = 0 if begin[t] or seen is None else seen
        rates = [10_000 ** (-2 * i / size) for i in range((size + 1) // 2)]
        position = [np.sin(seen * rate) for rate in rates] + [np.cos(seen * rate) for rate in rates]
        out.append(block(p.block, np.concatenate((x, position[:size]))))
        seen += 1
    return out, np.asarray(seen)


def recent(xs, begin, state, size):
    """For every step the entries that its window holds, oldest first, and the state after the last step."""
    held = [] if state is None else list(state[0])[size - int(state[1]) :]
    seen = []
    for t, x in enumerate(xs):
        held = [x] if begin[t] else [*held, x][-size:]
        seen.append(held)
    return seen, (np.stack([np.zeros_like(held[0])] * (size - len(held)) + held), np.asarray(len(held)))


def frame_stack(p, xs, begin, state):
    size = p.block.linear.weight.shape[1] // xs[0].shape[0]
    seen, after = recent(xs, begin, state, size)
    padded = [[np.zeros_like(xs[0])] * (size - len(frames)) + frames for frames in seen]
    return [block(p.block, np.concatenate(frames)) for frames in padded], after


def attended(queries, keys, values, score):
    """What each head reads, one after the other: the values weighted by the softmax of score(head, q, k, distance)."""
    read = []
    for head, query in enumerate(queries):
        distances = range(len(keys) - 1, -1, -1)
        scores = [score(head, query, key[head], distance) for key, distance in zip(keys, distances, strict=True)]
        read += list(softmax(np.array(scores)) @ np.array([value[head] for value in values]))
    return np.array(read)


def turned(v, angle_of):
    """The pairs (i, i + d/2) of v as complex numbers, turned by their angles."""
    pairs, v = len(v) // 2, v.copy()
    for i in range(pairs):
        z = (v[i] + 1j * v[i + pairs]) * np.exp(1j * angle_of(i, pairs))
        v[i], v[i + pairs] = z.real, z.imag
    return v


@layered
def window_attention(p, xs, begin, state):
    rows = [residual(p.block, x) for x in xs]
    both = [(p.w_kv.weight @ normalise(row)).reshape(p.heads, -1) for row in rows]
    seen, after = recent(both, begin, state, p.window)
    out = []

    def score(head, query, key, distance):
        # By the distance alone: the query turned forward by it, the key not at all.
        return turned(query, lambda i, pairs: distance * 10_000 ** (-i / pairs)) @ key / np.sqrt(len(key))

    for x, row, entries in zip(xs, rows, seen, strict=True):
        half = entries[0].shape[1] // 2
        queries = (p.w_q.weight @ normalise(row)).reshape(p.heads, -1)
        keys, values = [e[:, :half] for e in entries], [e[:, half:] for e in entries]
        read = p.w_a.weight @ attended(queries, keys, values, score)
        out.append(transformer_leave(p.block, read, x))
    return out, after


def gate(p, x, y):
    r = sigmoid(p.w[0] @ y + p.u[0] @ x)
    z = sigmoid(p.w[1] @ y + p.u[1] @ x - p.bias)
    return (1 - z) * x + z * np.tanh(p.w[2] @ y + p.u[2] @ (r * x))


@layered
def gtrxl(p, xs, begin, state):
    rows = [residual(p.surround, x) for x in xs]
    seen, after = recent(rows, begin, state, p.window)
    width, out = len(rows[0]), []

    def code(distance):
        rates = [10_000 ** (-2 * i / width) for i in range((width + 1) // 2)]
        sines = [np.sin(distance * rate) for rate in rates] + [np.cos(distance * rate) for rate in rates]
        return (p.w_r.weight @ np.array(sines[:width])).reshape(p.heads, -1)

    def score(head, query, key, distance):
        return ((query + p.u[head]) @ key + (query + p.v[head]) @ code(distance)[head]) / np.sqrt(len(key))

    for row, hidden in zip(rows, seen, strict=True):
        both = [(p.w_kv.weight @ normalise(h)).reshape(p.heads, -1) for h in hidden]
        half = both[0].shape[1] // 2
        queries = (p.w_q.weight @ normalise(row)).reshape(p.heads, -1)
        keys, values = [e[:, :half] for e in both], [e[:, half:] for e in both]
        y = gate(p.gates[0], row, np.maximum(p.w_a.weight @ attended(queries, keys, values, score), 0))
        inner = np.maximum(p.w_1.weight @ normalise(y) + p.w_1.bias, 0)
        out.append(gate(p.gates[1], y, np.maximum(p.w_2.weight @ inner + p.w_2.bias, 0)))
    return out, after


FORMULAS = {
    "window_attention": window_attention,
    "gtrxl": gtrxl,
    "gru": gru,
    "lstm": lstm,
    "slstm": slstm,
    "lmu": lmu,
    "elman": elman,
    "frame_stack": frame_stack,
    "positional_mlp": positional_mlp,
    "mlp": mlp,
}
