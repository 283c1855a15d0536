"""Convolutions on a CPU.  Importing this file registers them.

A 3x3 convolution of stride 1 over a large enough feature map takes the Winograd algorithm F(4x4,3x3) of Lavin & Gray 2016: 4x4
outputs come from a tile of 6x6 inputs by 36 products where the definition has 144; over a smaller one F(2x2,3x3), 16 for 36.
The others become one matrix product, of patches of the input by the weights (im2col).  In both, some rows of the map at a time
are brought into scratch memory, normalised on the way there where a norm comes first, and what leaves it is complete: no array
as large as the map is made in between.  docs/cpu.md has what each of these gains."""
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import ops
from .cpu import FEW, FEW_PRODUCTS, linear, norm_factors, normalise, product
from .threads import budget, count, parallel, scratch, split

TILES = 64                                                   # fewer do not repay the transform of the weights


@dataclass(frozen=True)
class Winograd:
    """Y = A [(G w) (B x)]: how to convolve a tile of m x m outputs.   Lavin & Gray 2016, eq. 8, for tiles written as vectors.

    A (m^2,K): K products -> outputs; B (K,window^2): inputs -> factors; G (K,9): weights -> factors.
    A tile reads window x window inputs, and the next one lies `step` inputs further."""
    A: np.ndarray
    B: np.ndarray
    G: np.ndarray
    m: int
    window: int
    step: int


def toom_cook(points, taps):
    """A (m,n), B (n,n), G (n,taps) for m outputs of a filter of so many taps: polynomials are multiplied by their values at the
    points and at infinity, n in all, m = n - taps + 1.

    Any points do in exact arithmetic; in float32 they decide the error.   Barabasz et al. 2020, section 2."""
    n = len(points) + 1
    m = n - taps + 1
    A, B, G = np.zeros((m, n)), np.zeros((n, n)), np.zeros((n, taps))
    for k, p in enumerate(points):
        others = [q for q in points if q != p]
        A[:, k] = float(p) ** np.arange(m)
        B[k, :-1] = np.poly(others)[::-1]
        G[k] = float(p) ** np.arange(taps) / np.prod([p - q for q in others])
    A[-1, -1] = G[-1, -1] = 1
    B[-1] = np.poly(points)[::-1]
    return A, B, G


def winograd(points):
    """F(m x m, 3x3), with m + 1 points."""
    m = len(points) - 1
    return Winograd(*(np.kron(t, t) for t in toom_cook(points, 3)), m=m, window=m + 2, step=m)


def doubled(points):
    """The same for a picture in which each pixel of another stands twice in both directions, read from that other.  A 3-tap
    filter is a 2-tap one there, with its first two taps added for every other output and its last two for the rest: F(2,2)
    twice, with two points."""
    A, B, G = toom_cook(points, 2)
    zero = np.zeros((3, 1))
    A = np.stack([np.hstack([A, 0 * A]), np.hstack([0 * A, A])], axis=1).reshape(4, 6)        # even and odd outputs in turn
    B = np.vstack([np.hstack([B, zero]), np.hstack([zero, B])])
    G = np.vstack([G @ [[1, 0, 0], [0, 1, 1]], G @ [[1, 1, 0], [0, 0, 1]]])
    return Winograd(*(np.kron(t, t) for t in (A, B, G)), m=4, window=4, step=2)


SMALL = winograd((0, 1, -1))
LARGE = winograd((0, 0.75, -0.75, 1.5, -1.5))                # a fifth of the error of the usual 0, 1, -1, 2, -2
DOUBLED = doubled((0, 1))


@ops.fast(np.ndarray)
def conv2d(x, weight, bias=None, stride=1, pad=(0, 0), add=None):
    """By the Winograd algorithm, or im2col; a 1x1 convolution is a linear layer."""
    if weight.shape[:2] == (1, 1) and stride == 1 and pad == (0, 0):
        return linear(x, weight[0, 0].T, bias, add)
    algorithm = best_winograd(x.shape, weight.shape) if stride == 1 and pad == (1, 1) else None
    if algorithm is None:
        return by_patches(x, weight, bias, stride, pad, add=add)
    return by_tiles(algorithm, x, weight, bias, x.shape[1:3], add=add)


@ops.fast(np.ndarray)
def norm_conv2d(x, norm, conv, groups, eps, add=None):
    """The norm's statistics in one pass over x; then it is applied to each strip on its way into scratch memory."""
    return normed(x, norm, conv, groups, eps, add)


def normed(x, norm, conv, groups, eps, add=None, overwrite_x=False):
    """norm_conv2d;  overwrite_x: whether the result may take the memory of x"""
    factors, algorithm = norm_factors(x, *norm, groups, eps), best_winograd(x.shape, conv[0].shape)
    if algorithm is None:
        return by_patches(x, *conv, 1, (1, 1), factors, add)
    return by_tiles(algorithm, x, *conv, x.shape[1:3], factors, add, overwrite_x)


@ops.fast(np.ndarray)
def residual_block(x, norm1, conv1, norm2, conv2, groups, eps, shift=None, shortcut=None):
    """Nobody else sees what the first convolution gives, so the second one is written over it, and the shortcut added in place."""
    h = normed(x, norm1, conv1, groups, eps, shift)
    h = normed(h, norm2, conv2, groups, eps, x if shortcut is None else None, overwrite_x=True)
    if shortcut is not None:
        weight, bias = shortcut
        flat = h.reshape(-1, h.shape[-1])
        product(x.reshape(-1, x.shape[-1]), weight[0, 0], flat, bias, add=flat)
    return h


@ops.fast(np.ndarray)
def upsample_conv2d(x, weight, bias, size):
    """Straight from the small picture, where that has the same size as `size` once doubled; else it declines."""
    B, h, w, C = x.shape
    if size != (2 * h, 2 * w) or best_winograd((B, *size, C), weight.shape) is not LARGE:
        return NotImplemented
    return by_tiles(DOUBLED, x, weight, bias, size)


def best_winograd(shape, weight_shape):
    """The largest tiles of which there are enough, for a 3x3 filter of enough channels; None where im2col is faster."""
    B, H, W, C = shape
    for algorithm in (LARGE, SMALL):
        if weight_shape[:2] == (3, 3) and C >= 16 and B * -(-H // algorithm.m) * -(-W // algorithm.m) >= TILES:
            return algorithm
    return None


def padded(x, n, top, left, shape, norm, first=None):
    """Rows and columns of picture n from row `top` and column `left` on, in scratch memory, with zeros where that lies beyond
    the picture: (rows, columns, C).

    norm: (scale, shift) of (B,C) that silu(x * scale + shift) is taken with, or None;  first: the first row, if not in x"""
    B, H, W, C = x.shape
    out = scratch("strip", (*shape, C), x.dtype)
    y0, y1 = max(top, 0), min(top + shape[0], H)
    out[:y0 - top], out[y1 - top:], out[:, :-left], out[:, W - left:] = 0, 0, 0, 0
    inside = out[y0 - top:y1 - top, -left:W - left]

    def bring(rows, place):
        if norm is None:
            np.copyto(place, rows)
        else:
            normalise(rows, norm[0][n], norm[1][n], place, act="silu")

    bring(x[n, y0:y1, :inside.shape[1]], inside)
    if first is not None:
        bring(first[None, :inside.shape[1]], inside[:1])
    return out


def by_tiles(winograd, x, weight, bias, size, norm=None, add=None, overwrite_x=False):
    """A 3x3 convolution by the Winograd algorithm: x (B,h,w,C), weight (3,3,C,O) -> (B,H,W,O), (H,W) = size.

    Block by block of lines: first the inputs are transformed, shared among the threads by lines; then each thread takes some
    output channels, transforms their weights, multiplies and transforms back.  The transformed weights are not kept: they are
    four times as large as the weights, and transforming them is a tenth of the work.

    Where it is written over x, a block has read all it needs before it is written, but for the row of pixels above it, which
    the block before kept."""
    (B, _, _, C), O, (H, W), dtype = x.shape, weight.shape[3], size, x.dtype
    bias = np.zeros(O, dtype) if bias is None else bias
    if add is not None and add.shape[1:3] == (1, 1):         # the same for all of a picture: as good as a bias
        bias, add = bias + add[:, 0, 0], None
    bias = np.broadcast_to(bias, (B, O))
    a, b, g = (m.astype(dtype) for m in (winograd.A, winograd.B, winograd.G))
    K, m, window, step = len(b), winograd.m, winograd.window, winograd.step
    high, wide = -(-H // m), -(-W // m)                      # rows and columns of tiles
    out = x if overwrite_x and x.shape == (B, H, W, O) else np.empty((B, H, W, O), dtype)

    def block(first, last, above):
        """Lines `first` to `last` of tiles, of all pictures one below the other.  above: the row of pixels above them, if that
        was written over; -> the row that will be, for the block below."""
        lines = last - first
        V = scratch("V", (K, lines, wide * C), dtype)

        def inputs(part):
            for n, i, j in within(first + part[0], first + part[1], high):
                s = padded(x, n, i * step - 1, -1, ((j - i - 1) * step + window, (wide - 1) * step + window), norm,
                           above if part[0] == 0 and i else None)
                tiles = scratch("tiles", (window, window, j - i, wide, C), dtype)
                down, along, channel = s.strides
                np.copyto(tiles, as_strided(s, tiles.shape, (down, along, down * step, along * step, channel)))
                k = n * high + i - first
                np.matmul(b, tiles.reshape(window ** 2, -1), out=V.reshape(K, -1)[:, k * wide * C:(k + j - i) * wide * C])

        def outputs(item):
            (i, j), (c, d) = item
            w, U = scratch("w", (9, C, d - c), dtype), scratch("U", (K, C, d - c), dtype)
            np.copyto(w, weight.reshape(9, C, O)[:, :, c:d])
            np.matmul(g, w.reshape(9, -1), out=U.reshape(K, -1))
            M = scratch("M", (K, (j - i) * wide, d - c), dtype)
            np.matmul(V[:, i:j].reshape(K, -1, C), U, out=M)
            Y = np.matmul(a, M.reshape(K, -1), out=scratch("Y", (m * m, M[0].size), dtype)).reshape(m, m, j - i, wide, d - c)
            for n, top, bottom in within(first + i, first + j, high):
                k = n * high + top - first - i
                for row, column in np.ndindex(m, m):
                    o = out[n, m * top + row:m * bottom:m, column::m, c:d]
                    np.add(Y[row, column, k:k + len(o), :o.shape[1]], bias[n, c:d], out=o)
                if add is not None:
                    out[n, m * top:m * bottom, :, c:d] += add[n, m * top:m * bottom, :, c:d]

        parallel(inputs, split(lines, max(2 * count(), lines * wide // 64), least=FEW // (4 * wide * C)))
        n, i = divmod(last, high)
        below = x[n, m * i - 1].copy() if overwrite_x and i else None
        columns = split(O, count() * -(-O // (count() * most)), least=min(64, most))
        parallel(outputs, [(i, c) for c in columns for i in split(lines, -(-count() // len(columns)))],
                 together=FEW_PRODUCTS * len(columns) // V.size // O + 1)
        return below

    most = max(1, min(160, budget() // (2 * K * C * dtype.itemsize)))                         # output channels at a time
    above = None
    for first, last in split(B * high, -(-B * high * wide * K * C * dtype.itemsize // budget())):
        above = block(first, last, above)
    return out


def within(first, last, height):
    """Lines `first` to `last` of pictures that stand one below the other, each `height` lines high -> for each picture that
    they touch: its number, and which of its lines."""
    for n in range(first // height, -(-last // height)):
        yield n, max(first - n * height, 0), min(last - n * height, height)


def by_patches(x, weight, bias, stride, pad, norm=None, add=None):
    """Any convolution, as a product of patches (rows, kh*kw*C) by weights (kh*kw*C, O)."""
    (B, H, W, C), (kh, kw, _, O), dtype = x.shape, weight.shape, x.dtype
    H, W = (H + sum(pad) - kh) // stride + 1, (W + sum(pad) - kw) // stride + 1
    K = kh * kw * C
    out = np.empty((B * H, W, O), dtype)                     # lines of all pictures, one below the other
    for first, last in split(B * H, -(-B * H * W * K * dtype.itemsize // budget())):
        P = scratch("V", (last - first, W, kh, kw, C), dtype)

        def inputs(part):
            for n, i, j in within(first + part[0], first + part[1], H):
                s = padded(x, n, i * stride - pad[0], -pad[0], ((j - i - 1) * stride + kh, (W - 1) * stride + kw), norm)
                down, along, channel = s.strides
                np.copyto(P[n * H + i - first:n * H + j - first], as_strided(
                    s, (j - i, W, kh, kw, C), (down * stride, along * stride, down, along, channel)))

        parallel(inputs, split(last - first, 4 * count(), least=2 * FEW // (W * K)))
        product(P.reshape(-1, K), weight.reshape(K, O), out[first:last].reshape(-1, O), bias)
    out = out.reshape(B, H, W, O)
    if add is not None:
        out += add
    return out
