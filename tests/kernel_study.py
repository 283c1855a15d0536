"""The steps of kernels/study, launched: each takes the arrays of the shipped operation and gives its result."""
import math
from pathlib import Path

import numpy as np

STUDY = Path(__file__).parent.parent / "kernels" / "study"
STEPS = [p.relative_to(STUDY.parent).as_posix() for p in sorted(STUDY.glob("*/*.cu"))]       # study/attention/1_naive.cu, ...


def path(step):
    """Where a step lies: an installed minisd does not have them."""
    return str(STUDY.parent / step)


def run(step, cupy, *arrays):
    """attention: q, k, v, heads -> o;  conv2d: x, weight, bias -> y;  group_norm: x, weight, bias, groups, eps -> y, with silu."""
    from minisd.backend.cuda import ceil, launch
    (_, what, name), files = step.split("/"), (path(step),)
    if what == "attention":
        q, k, v, heads = arrays
        (B, N, C), M, o, d = q.shape, k.shape[1], cupy.empty(q.shape, np.float16), q.shape[2] // heads
        grid = ceil(N, 64 if name.startswith("4") else 128), heads, B
        launch(what, files, grid, 128, [q, k, v, o, N, M, heads, 1 / math.sqrt(d)], HEAD=d)
        return o
    if what == "conv2d":
        x, weight, bias = arrays
        (B, H, W, C), O = x.shape, weight.shape[-1]
        y = cupy.empty((B, H, W, O), np.float16)
        side = 128 if name.startswith("4") else 64
        grid = (ceil(y.size, 256),) if name.startswith("1") else (ceil(B * H * W, side), ceil(O, side))
        launch(what, files, grid, 128 if name[0] in "34" else 256, [x, weight, bias, y, B, H, W, C, O])
        return y
    x, weight, bias, groups, eps = arrays
    (B, H, W, C), y, Z = x.shape, cupy.empty(x.shape, np.float16), max(1, min(128, x.shape[1] * x.shape[2] // 16))
    sums = cupy.empty((B, Z, groups, 2), np.float32)
    if name.startswith("2"):
        launch("group_sums", files, (Z, B), 256, [x, sums, H * W, C, groups], 8 * C)
    launch(what, files, (groups if name.startswith("1") else Z, B), 256, [x, sums, weight, bias, y, H * W, C, groups, Z, float(eps)])
    return y
