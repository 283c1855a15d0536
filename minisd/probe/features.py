"""What a layer gave, as a small picture: the three directions in which its channels differ most, as red, green and blue."""
import math

import numpy as np
from PIL import Image

from ..backend.threads import blas_on_one_thread

MOST = 16                                                    # positions each way that the directions are found from


def shrunk(x, most):
    """(H,W,C) -> (h,w,C), means over whole squares of positions, so that neither side is above `most`."""
    k = math.ceil(max(x.shape[:2]) / most)
    if k == 1:
        return x
    H, W, C = x.shape
    h, w = max(1, H // k), max(1, W // k)
    rows, columns = min(k, H), min(k, W)
    return x[:h * rows, :w * columns].reshape(h, rows, w, columns, C).mean((1, 3))


def directions(x, like=None):
    """(H,W,C) -> (C,3), orthonormal: the directions of greatest variance, largest first; fewer than three are filled up with zeros.

    like: those of another moment, to which these are turned within their own space, so that colours mean the same in both.
    Principal components: Hotelling 1933."""
    rows = shrunk(x, MOST).reshape(-1, x.shape[-1]).astype(np.float64)
    rows = rows - rows.mean(0)
    wide = rows.shape[1] > rows.shape[0]                     # the smaller of the two products has the same eigenvalues
    with blas_on_one_thread():                               # so small a problem gains nothing from more, and loses much beside others
        values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values, vectors = values[::-1][:3], vectors[:, ::-1][:, :3]
    if wide:
        vectors = rows.T @ vectors / np.sqrt(np.maximum(values, 1e-30))
    vectors = vectors * (values > 1e-12 * max(values[0], 1e-30))
    vectors = np.pad(vectors, ((0, 0), (0, 3 - vectors.shape[1])))
    if like is not None:                                     # the nearest rotation, Schönemann 1966
        u, _, vt = np.linalg.svd(vectors.T @ like)
        return vectors @ (u @ vt)
    signs = np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
    return vectors * np.where(signs == 0, 1, signs)


def coloured(x, axes):
    """(H,W,C) in the directions `axes` (C,3) -> (H,W,3) uint8: the mean is grey, four standard deviations are full range."""
    rows = (x - x.mean((0, 1))) @ axes.astype(x.dtype)
    spread = rows.reshape(-1, 3).std(0).max() or 1.0
    return ((0.5 + rows / (4 * spread)).clip(0, 1) * 255).round().astype(np.uint8)


def as_map(y, size):
    """A layer's output for one picture, (1,H,W,C), (1,N,C) or (1,C) -> (H,W,C).

    size: (H,W) of the last map, whose positions a sequence of H*W is; any other sequence becomes one row.  None for what is neither."""
    if y.ndim == 4:
        return y[0]
    if y.ndim != 3:
        return None
    return y[0].reshape(*size, -1) if size is not None and y.shape[1] == math.prod(size) else y[:1]


def resized(a, size):
    """(...,h,w) float32 -> (...,H,W), between positions linearly: sums over what stands before are kept.  size: (H,W)"""
    if a.shape[-2:] == tuple(size):
        return a
    flat = a.reshape(-1, *a.shape[-2:])
    found = [np.asarray(Image.fromarray(m).resize(size[::-1], Image.Resampling.BILINEAR)) for m in np.ascontiguousarray(flat, np.float32)]
    return np.stack(found).reshape(*a.shape[:-2], *size)
