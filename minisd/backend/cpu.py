"""Fast NumPy versions of heavy operations.  Importing this file registers them.

Three habits make them fast: a strip is finished while it is in the cache, its memory is scratch that the next strip gets too,
and strips go to threads (threads.py)."""
import math

import numpy as np

from . import ops
from .threads import count, parallel, scratch, split

STRIP = 1 << 17                                              # numbers of an elementwise strip: 512 KB in float32
FEW, FEW_PRODUCTS = 1 << 15, 1 << 23                         # numbers, and products, that do not repay another thread
SUMS = 4                                                     # strips of a norm's sums at least: long sums lose digits
QUERIES, KEYS = 512, 512                                     # a tile of attention
SAFE = 64                                                    # exp of up to this needs no maximum taken off first


def power():
    """The faster of NumPy's exp and exp2, and the factor that makes an exponent of e into one of it.

    exp2 is twice as fast where NumPy computes it in vectors, as with AVX-512, and several times as slow elsewhere."""
    known = getattr(np.lib, "introspect", None)              # not in every NumPy
    how = known.opt_func_info(func_name="^exp2$").get("exp2", {}).get("ff", {}) if known else {}
    return (np.exp, 1.0) if "baseline" in how.get("current", "baseline") else (np.exp2, 1 / math.log(2))


EXP, PER_E = power()


def product(a, b, out, bias=None, add=None):
    """out (N,O) = a (N,C) @ b (C,O) + bias + add, in strips of rows, or of columns where there are few rows.

    add may be out itself."""
    N, O = out.shape

    def rows(s):
        y = out[s[0]:s[1]] if add is not out else scratch("product", (s[1] - s[0], O), out.dtype)
        np.matmul(a[s[0]:s[1]], b, out=y)
        if bias is not None:
            each_row(np.add, y, bias)
        if add is not None:
            np.add(add[s[0]:s[1]], y, out=out[s[0]:s[1]])

    def columns(s):
        y = out[:, s[0]:s[1]] if add is not out else scratch("product", (N, s[1] - s[0]), out.dtype)
        np.matmul(a, b[:, s[0]:s[1]], out=y)
        if bias is not None:
            y += bias[s[0]:s[1]]
        if add is not None:
            np.add(add[:, s[0]:s[1]], y, out=out[:, s[0]:s[1]])

    if N >= 512 * count() or N > O:
        parallel(rows, split(N, max(2 * count(), N // 512), least=max(64, FEW_PRODUCTS // b.size)))
    else:
        parallel(columns, split(O, count(), least=max(64, FEW_PRODUCTS // a.size)))


def each_row(ufunc, y, row):
    """ufunc of each row of y (N,C) and `row` (C,), in place.  NumPy is slow at short rows, so several are taken as one."""
    k = max(1, 4096 // len(row))
    whole = len(y) // k * k
    long = y[:whole].reshape(-1, k * len(row))
    ufunc(long, np.tile(row, k), out=long)
    ufunc(y[whole:], row, out=y[whole:])


@ops.fast(np.ndarray)
def linear(x, weight, bias=None, add=None):
    """x (...,C), weight (O,C) -> (...,O)"""
    C, O = x.shape[-1], weight.shape[0]
    out = np.empty((*x.shape[:-1], O), x.dtype)
    product(x.reshape(-1, C), weight.T, out.reshape(-1, O), bias, add if add is None else add.reshape(-1, O))
    return out


@ops.fast(np.ndarray)
def linear_geglu(x, weight, bias):
    """A block of gates and the numbers they gate at a time: the layer's whole output is never in memory."""
    C, O = x.shape[-1], weight.shape[0] // 2
    a, out = x.reshape(-1, C), np.empty((*x.shape[:-1], O), x.dtype)
    flat = out.reshape(-1, O)

    def block(item):
        (i, j), (c, d) = item
        shape = j - i, d - c
        h, gate = scratch("h", shape, x.dtype), scratch("gate", shape, x.dtype)
        np.matmul(a[i:j], weight[c:d].T, out=h)
        np.matmul(a[i:j], weight[O + c:O + d].T, out=gate)
        each_row(np.add, h, bias[c:d])
        each_row(np.add, gate, bias[O + c:O + d])
        gelu(gate)
        np.multiply(h, gate, out=flat[i:j, c:d])

    parallel(block, [(r, c) for r in split(len(a), -(-len(a) // 512))
                     for c in split(O, -(-O // 320), least=FEW_PRODUCTS // (2 * a.size))])
    return out


def gelu(x):
    """ops.gelu in place, by the same approximation of erf: x Phi(x) = max(x,0) - |x| (1 - erf(|x|/sqrt(2))) / 2."""
    a, t, e = (scratch(name, x.shape, x.dtype) for name in ("|x|", "t", "e"))
    np.abs(x, out=a)
    np.multiply(a, 0.3275911 * math.sqrt(0.5), out=t)
    t += 1
    np.reciprocal(t, out=t)
    np.multiply(t, 1.061405429 / 2, out=e)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        e += c / 2
        e *= t
    np.multiply(a, a, out=t)
    t *= -0.5 * PER_E
    EXP(t, out=t)
    e *= t
    e *= a
    np.maximum(x, 0, out=x)
    x -= e


@ops.fast(np.ndarray)
def layer_norm(x, weight, bias, eps=1e-5):
    C = x.shape[-1]
    out = np.empty_like(x, order="C")
    a, flat = x.reshape(-1, C), out.reshape(-1, C)

    def strip(s):
        y = flat[s[0]:s[1]]
        np.subtract(a[s[0]:s[1]], a[s[0]:s[1]].mean(-1, keepdims=True), out=y)
        var = np.einsum("nc,nc->n", y, y) / C
        y *= (1 / np.sqrt(var + eps))[:, None]
        each_row(np.multiply, y, weight)
        each_row(np.add, y, bias)

    parallel(strip, split(len(a), max(count(), a.size // STRIP), least=FEW // C))
    return out


def norm_factors(x, weight, bias, groups, eps):
    """The scale and the shift that turn x (B,H,W,C) into its group norm: two arrays (B,C).

    Mean and squared deviation of each strip, put together in float64 (Chan, Golub & LeVeque 1983): sums of squares of the
    numbers themselves would lose a small deviation from a large mean."""
    B, H, W, C = x.shape
    strips = split(H, max(count(), SUMS, x[0].size // STRIP), least=FEW // (W * C))
    n = np.array([(j - i) * W for i, j in strips], np.float64)[None, :, None]
    mean, square = np.empty((2, B, len(strips), C))

    def strip(item):
        b, k = item
        a = x[b, slice(*strips[k])].reshape(-1, C)
        m = a.mean(0)
        y = np.subtract(a, m, out=scratch("centred", a.shape, x.dtype))
        mean[b, k], square[b, k] = m, np.einsum("nc,nc->c", y, y)

    parallel(strip, [(b, k) for b in range(B) for k in range(len(strips))], together=FEW // x[0].size + 1)
    group = mean.reshape(B, -1, groups, C // groups)
    centre = (group * n[..., None]).sum((1, 3), keepdims=True) / (H * W * (C // groups))
    var = (square.reshape(group.shape) + n[..., None] * (group - centre) ** 2).sum((1, 3)) / (H * W * (C // groups))
    scale = np.repeat(1 / np.sqrt(var + eps), C // groups, axis=1) * weight
    shift = bias - np.repeat(centre[:, 0, :, 0], C // groups, axis=1) * scale
    return scale.astype(x.dtype), shift.astype(x.dtype)


def normalise(x, scale, shift, out, act=None):
    """out = act(x * scale + shift): x and out (H,W,C), scale and shift (C,)."""
    H, W, C = x.shape
    if act == "silu":                                        # silu(2h) = h + h tanh(h)
        scale, shift = scale / 2, shift / 2
    x, y = x.reshape(H, W * C), out.reshape(H, W * C)        # NumPy is slow at short rows
    np.multiply(x, np.tile(scale, W), out=y)
    y += np.tile(shift, W)
    if act == "silu":
        t = np.tanh(y, out=scratch("tanh", y.shape, y.dtype))
        t += 1
        y *= t


@ops.fast(np.ndarray)
def group_norm(x, weight, bias, groups, eps, act=None):
    if act not in (None, "silu"):
        return NotImplemented
    scale, shift = norm_factors(x, weight, bias, groups, eps)
    out = np.empty_like(x, order="C")

    def strip(item):
        b, (i, j) = item
        normalise(x[b, i:j], scale[b], shift[b], out[b, i:j], act)

    strips = split(x.shape[1], max(count(), x[0].size // STRIP), least=FEW // x[0, 0].size)
    parallel(strip, [(b, s) for b in range(len(x)) for s in strips], together=FEW // x[0].size + 1)
    return out


@ops.fast(np.ndarray)
def concat(xs):
    """By rows, on all threads."""
    out = np.empty((*xs[0].shape[:-1], sum(x.shape[-1] for x in xs)), xs[0].dtype)
    rows = [x.reshape(-1, x.shape[-1]) for x in (out, *xs)]
    parallel(lambda s: np.concatenate([x[slice(*s)] for x in rows[1:]], axis=-1, out=rows[0][slice(*s)]),
             split(len(rows[0]), 4 * count(), least=FEW // out.shape[-1]))
    return out


@ops.fast(np.ndarray)
def attention(q, k, v, heads, causal=False):
    """A tile of scores at a time, so that the N x M of them never stand in memory (Dao et al. 2022, without its rescaling).

    Softmax does not change when a number is added to all scores of a query.  So the keys' mean is taken off them, which leaves
    scores of at most |q| max |k|; where this is small, exp cannot overflow and the maximum need not be looked for."""
    B, N, C = q.shape
    M, d = k.shape[1], C // heads
    out = np.empty((B, N, C), q.dtype)
    keys = scratch("keys", (B, heads, d, M), q.dtype)
    longest, ones = np.empty((B, heads)), np.ones(M, q.dtype)

    def prepare(item):
        b, h = item
        centred = k[b, :, h * d:(h + 1) * d] - k[b, :, h * d:(h + 1) * d].mean(0)
        np.multiply(centred.T, PER_E / math.sqrt(d), out=keys[b, h])
        longest[b, h] = math.sqrt((keys[b, h] ** 2).sum(0).max())

    def scores(b, h, i, j, m, n):
        s = np.matmul(q[b, i:j, h * d:(h + 1) * d], keys[b, h, :, m:n], out=scratch("scores", (j - i, n - m), q.dtype))
        if causal:
            s[np.arange(m, n) > np.arange(i, j)[:, None]] = -np.inf
        return s

    def tile(item):
        b, h, (i, j) = item
        head = slice(h * d, (h + 1) * d)
        own, values, o = q[b, i:j, head], v[b, :, head], out[b, i:j, head]
        if math.sqrt(np.einsum("nd,nd->n", own, own).max()) * longest[b, h] <= SAFE * PER_E:
            part = scratch("part", (j - i, d), q.dtype)
            for m in range(0, M, KEYS):
                s = scores(b, h, i, j, m, min(m + KEYS, M))
                EXP(s, out=s)
                np.matmul(s, values[m:m + KEYS], out=part)
                if m == 0:
                    total, o[...] = s @ ones[:len(s[0])], part
                else:
                    total += s @ ones[:len(s[0])]
                    o += part
            o /= total[:, None]
        else:
            step = max(1, QUERIES * KEYS // M)
            for n in range(i, j, step):
                s = scores(b, h, n, min(n + step, j), 0, M)
                s -= s.max(-1, keepdims=True)
                EXP(s, out=s)
                o[n - i:n - i + len(s)] = (s @ values) / (s @ ones)[:, None]

    pairs = [(b, h) for b in range(B) for h in range(heads)]
    tiles = split(N, -(-N // QUERIES))
    parallel(prepare, pairs, together=FEW // (M * d) + 1)
    parallel(tile, [(b, h, s) for b, h in pairs for s in tiles], together=FEW_PRODUCTS // (N * M * d) + 1)
    return out
