"""Large pictures in overlapping pieces, each small enough for the memory there is.   Bar-Tal et al. 2023 (MultiDiffusion), eq. 5."""
import numpy as np


def windows(size, side, overlap):
    """Where pieces of `side` begin so that they cover `size` and overlap by as much or more: a list of first positions."""
    count = 1 if size <= side else -(-(size - overlap) // (side - overlap))
    return [round(k * (size - side) / (count - 1)) for k in range(count)] if count > 1 else [0]


def ramp(at, length, size, overlap):
    """How much each position of a piece counts: 1, but falling towards an edge within the picture, over the overlap."""
    from_left, from_right = np.arange(length) + 0.5, length - np.arange(length) - 0.5
    left, right = (np.ones(length) if whole else (d / overlap).clip(max=1) for d, whole in
                   ((from_left, at == 0), (from_right, at + length == size)))
    return left * right


def tiled(run, x, side, overlap, factor=1):
    """run(piece) for overlapping pieces of side x side of x (B,H,W,C), each giving (B,factor h,factor w,C') -> (B,factor H,factor W,C'):
    at each position the mean of the results, weighted so that a piece counts less towards its edges."""
    H, W = x.shape[1:3]
    total = weight = None
    for top in windows(H, side, overlap):
        for left in windows(W, side, overlap):
            rows, columns = slice(top, min(H, top + side)), slice(left, min(W, left + side))
            y = run(x[:, rows, columns])
            if total is None:
                total, weight = np.zeros((len(y), factor * H, factor * W, y.shape[-1]), y.dtype), np.zeros((factor * H, factor * W, 1))
            down, across = (ramp(factor * s.start, factor * (s.stop - s.start), factor * n, factor * overlap)
                            for s, n in ((rows, H), (columns, W)))
            w = np.outer(down, across)[..., None]
            here = slice(factor * rows.start, factor * rows.stop), slice(factor * columns.start, factor * columns.stop)
            total[(slice(None), *here)] += y * w.astype(y.dtype)
            weight[here] += w
    return total / weight.astype(total.dtype)
