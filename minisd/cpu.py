"""Fast NumPy versions of heavy operations.  Importing this file puts them beside their definitions in ops.py."""
import math

import numpy as np

from . import ops

TILE = 1 << 20                                               # scores at a time: 4 MB in float32


@ops.fast(np.ndarray)
def attention(q, k, v, heads, causal=False):
    """A tile of queries at a time in each head, so that the N x M scores of a head never stand in memory at once:
    at 64x64 latents they would be 2 GB for all heads, at 96x96 5 times that."""
    B, N, C = q.shape
    M, d = k.shape[1], C // heads
    rows = max(16, TILE // M)
    out = np.empty((B, N, v.shape[-1]), q.dtype)
    for b in range(B):
        for h in range(heads):
            head = slice(h * d, (h + 1) * d)
            kt, vh = np.ascontiguousarray(k[b, :, head].T) / math.sqrt(d), np.ascontiguousarray(v[b, :, head])
            for n in range(0, N, rows):
                s = q[b, n:n + rows, head] @ kt
                if causal:
                    s[np.arange(M) > np.arange(n, n + len(s))[:, None]] = -np.inf
                s -= s.max(-1, keepdims=True)
                np.exp(s, out=s)
                out[b, n:n + rows, head] = (s @ vh) / s.sum(-1, keepdims=True)
    return out


@ops.fast(np.ndarray)
def conv2d(x, weight, bias, stride=1, pad=(0, 0)):
    """A strip of output rows at a time, all taps of the filter in one product (im2col)."""
    B, H, W, C = x.shape
    kh, kw, _, O = weight.shape
    if kh == kw == stride == 1 and pad == (0, 0):
        return ops.linear(x, weight[0, 0].T, bias)
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(1, 2))[:, ::stride, ::stride]
    windows = windows.transpose(0, 1, 2, 4, 5, 3)                                             # (B,H',W',kh,kw,C)
    H, W = windows.shape[1:3]
    out, flat = np.empty((B, H, W, O), x.dtype), weight.reshape(-1, O)
    rows = max(1, 4 * TILE // (W * flat.shape[0]))
    for b in range(B):
        for i in range(0, H, rows):
            strip = windows[b, i:i + rows]
            out[b, i:i + rows] = (strip.reshape(-1, flat.shape[0]) @ flat).reshape(len(strip), W, O)
    out += bias
    return out
