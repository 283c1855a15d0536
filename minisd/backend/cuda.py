"""Our CUDA kernels in the place of ops.py's definitions, for float16 arrays of CuPy.  Importing this file registers them.

A shape that a kernel does not serve is declined, and the definition computes it."""
import functools
import itertools
import math
import weakref

import cupy
import numpy as np

from . import ops
from .launch import device, launch

ACT = {None: 0, "silu": 1, "gelu": 2, "quick_gelu": 3}       # as devkit.cuh counts them
PASSES = {(128, 128, 64, 64): 384, (64, 64, 32, 32): 192}    # of a tile, BM, BN of a block and WM, WN of a warp, in a step
DEEP = 32                                                    # BK
FEW = 8                                                      # rows of a product that tensor cores do not help
LEAST_STEPS, MOST_SHARING = 8, 32                            # of a block that shares the depth; blocks that do
MOST_TILES = 4096                                            # of a product whose depth is shared
_arrived: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()                  # {stream: array}, of arrived()


def half(*arrays):
    """Whether all of them (but None) are float16."""
    return all(a is None or a.dtype == np.float16 for a in arrays)


def plain(x):
    """x, contiguous in memory, at a multiple of 16 bytes, which the kernels read at a time."""
    return x if x.flags.c_contiguous and x.data.ptr % 16 == 0 else x.copy(order="C")


def ceil(n, of):
    return -(-n // of)


# ---- what convolutions and linear layers share --------------------------------------------------------------------


@functools.cache
def tiling(M, O, K, multiprocessors, each=1):
    """(BM, BN, WM, WN, blocks that share the depth): what takes the fewest cycles of the multiprocessor that has most to do, of `each`
    such products at a time.

    A step of a tile, DEEP deep, takes as many as the passes that its warps make over shared memory (counted: tests/bench/counters.py).
    What is assumed, since nobody has measured it: a block alone on its multiprocessor leaves a third of it idle; beginning and end of a
    block take as long as three steps; a multiprocessor writes and reads parts at 32 bytes a cycle."""
    def cycles(tile, sharing):
        blocks = ceil(M, tile[0]) * ceil(O, tile[1]) * sharing * each
        together, steps = max(1.5, ceil(blocks, multiprocessors)), ceil(ceil(K, DEEP), sharing) + 3
        parts = (together + sharing) * tile[0] * tile[1] * 4 / 32 if sharing > 1 else 0            # all write theirs, the last reads all
        return steps * PASSES[tile] * together + parts if sharing == 1 or blocks <= sharing * MOST_TILES else math.inf

    most = max(1, min(MOST_SHARING, ceil(K, DEEP) // LEAST_STEPS))
    tile, sharing = min(itertools.product(PASSES, range(1, most + 1)), key=lambda how: cycles(*how))
    return *tile, sharing


def arrived():
    """Zeros that a kernel whose blocks share the depth counts in, and leaves as zeros.  Launches of one stream come one after the other;
    those of two may not, so each stream has its own."""
    stream = cupy.cuda.get_current_stream()
    if stream not in _arrived:
        _arrived[stream] = cupy.zeros(MOST_TILES, np.uint32)
    return _arrived[stream]


def multiply(name, M, O, K, operands, sizes, bias, add, every, by_rows=0, columns=None, each=1, **defines):
    """Launch conv2d or linear: their tiles, and the memory of parts.  -> y (each M,O)

    by_rows: whether the right side is stored as (O,K);  columns: of the product, where GEGLU makes O of 2 O
    each: how many weights there are, for one left side, without bias and addend"""
    capability, multiprocessors, most_shared = device()
    BM, BN, WM, WN, sharing = tiling(M, columns or O, K, multiprocessors, each)
    stages = 2 if capability < 80 else 3 if most_shared < 100 << 10 else 4             # so that two blocks fit; sm_75 copies and waits
    y, grid = cupy.empty((each * M, O), np.float16), (ceil(M, BM), ceil(columns or O, BN) * each, sharing)
    parts = (None, None) if sharing == 1 else (cupy.empty((math.prod(grid), BM * BN), np.float32), arrived())
    launch(name, ("tile.cuh", f"{name}.cu"), grid, 32 * (BM // WM) * (BN // WN), [*operands, bias, add, y, *parts, *sizes, every],
           2 * stages * DEEP * (BM + BN), BM=BM, BN=BN, WM=WM, WN=WN, STAGES=stages, B_ROWS=by_rows, ALIGNED_O=O % 8 == 0,
           SHARES=sharing > 1, **defines)
    return y


def linear_by(x, weight, bias, add=None, every=1, geglu=False):
    """x (M,K), weight (O,K), or (2O,K) for geglu -> (M,O).  A weight that is the transpose of an array is read as it lies."""
    M, K = x.shape
    by_rows = weight.flags.c_contiguous or geglu
    weight = plain(weight if by_rows else weight.T)
    O = weight.shape[0 if by_rows else 1] // (2 if geglu else 1)
    if M <= FEW and by_rows and not geglu and K % 8 == 0 and every == 1:
        y = cupy.empty((M, O), np.float16)
        launch("linear_few", ("linear_few.cu",), (ceil(O, 8),), 256, [plain(x), weight, bias, add, y, M, K, O], ROWS=2 if M <= 2 else FEW)
        return y
    return multiply("linear", M, O, K, [plain(x), weight, None, None], [M, K, O], bias, add, every, int(by_rows),
                    2 * O if geglu else None, GEGLU=geglu, ALIGNED_C=K % 8 == 0, EACH=1)


@ops.fast(cupy.ndarray)
def linear(x, weight, bias=None, add=None):
    if not half(x, weight, bias, add) or x.size == 0:
        return NotImplemented
    y = linear_by(x.reshape(-1, x.shape[-1]), weight, bias, add if add is None else plain(add))
    return y.reshape(*x.shape[:-1], -1)


@ops.fast(cupy.ndarray)
def linears(x, weights):
    M, (O, K), each = x.size // max(1, x.shape[-1]), weights[0].shape, len(weights)
    if (not half(x, *weights) or any(w.shape != (O, K) or not w.flags.c_contiguous for w in weights) or not 2 <= each <= 3
            or O % 8 or M <= FEW):
        return NotImplemented
    operands = [plain(x.reshape(-1, K)), *map(plain, weights), *[None] * (3 - each)]
    y = multiply("linear", M, O, K, operands, [M, K, O], None, None, 1, 1, each=each, GEGLU=0, ALIGNED_C=K % 8 == 0, EACH=each)
    return [part.reshape(*x.shape[:-1], O) for part in y.reshape(each, M, O)]


@ops.fast(cupy.ndarray)
def linear_geglu(x, weight, bias):
    if not half(x, weight, bias) or x.size == 0:
        return NotImplemented
    return linear_by(x.reshape(-1, x.shape[-1]), weight, bias, geglu=True).reshape(*x.shape[:-1], -1)


def convolve(x, weight, bias, size, stride, pad, add, up=0):
    """size: of the picture as convolved;  up: whether each pixel of x stands for two by two of it"""
    B, h, w, C = x.shape
    O, (H, W) = weight.shape[-1], size
    OH, OW = (H + sum(pad) - 3) // stride + 1, (W + sum(pad) - 3) // stride + 1
    every = 1 if add is None else B * OH * OW // (add.size // O)
    y = multiply("conv2d", B * OH * OW, O, 9 * C, [plain(x), plain(weight)], [B, h, w, C, O, H, W, OH, OW, stride, pad[0]], bias,
                 add if add is None else plain(add), every, ALIGNED_C=C % 8 == 0, UP=up)
    return y.reshape(B, OH, OW, O)


@ops.fast(cupy.ndarray)
def conv2d(x, weight, bias=None, stride=1, pad=(0, 0), add=None):
    if not half(x, weight, bias, add) or x.size == 0:
        return NotImplemented
    B, H, W, C = x.shape
    if weight.shape[:2] == (3, 3) and min(H, W) + sum(pad) >= 3:
        return convolve(x, weight, bias, (H, W), stride, pad, add)
    if weight.shape[:2] == (1, 1) and stride == 1 and pad == (0, 0):
        every = 1 if add is None else B * H * W // (add.size // weight.shape[3])
        return linear_by(x.reshape(-1, C), weight[0, 0].T, bias, add if add is None else plain(add), every).reshape(B, H, W, -1)
    return NotImplemented


@ops.fast(cupy.ndarray)
def norm_conv2d(x, norm, conv, groups, eps, add=None):
    return ops.conv2d(ops.group_norm(x, *norm, groups=groups, eps=eps, act="silu"), *conv, pad=(1, 1), add=add)


@ops.fast(cupy.ndarray)
def residual_block(x, norm1, conv1, norm2, conv2, groups, eps, shift=None, shortcut=None):
    """Every sum is the end of a convolution's kernel."""
    h = norm_conv2d(x, norm1, conv1, groups, eps, shift)
    h = norm_conv2d(h, norm2, conv2, groups, eps, x if shortcut is None else None)
    return h if shortcut is None else ops.conv2d(x, *shortcut, add=h)


@ops.fast(cupy.ndarray)
def upsample_conv2d(x, weight, bias, size):
    if not half(x, weight, bias):
        return NotImplemented
    return convolve(x, weight, bias, size, 1, (1, 1), None, up=1)


# ---- attention ----------------------------------------------------------------------------------------------------


def attention_shape(d):
    """Of a head d wide: HEAD, SLICES, ROWS, WARPS, KEYS of attention.cu, and the bytes of shared memory that they take; None if it
    is not served."""
    if d % 8 or d > 512 or 160 < d < 512:
        return None
    slices, rows, warps, keys = (1, 2, 4, 64) if d <= 64 else (1, 2, 4, 32) if d <= 80 else (1, 1, 4, 32) if d <= 160 else (4, 1, 2, 16)
    k_row, v_row = ceil(d, 16) * 16 + 8, (d // slices // 8 | 1) * 8
    shared = 2 * (16 * rows * warps * k_row + 2 * keys * (k_row + v_row))
    return dict(HEAD=d, SLICES=slices, ROWS=rows, WARPS=warps, KEYS=keys), shared


@ops.fast(cupy.ndarray)
def attention(q, k, v, heads, causal=False):
    B, N, C = q.shape
    shape = attention_shape(C // heads)
    if shape is None or not half(q, k, v) or shape[1] > device()[2]:
        return NotImplemented
    how, shared = shape
    o = cupy.empty((B, N, C), np.float16)
    launch("attention", ("attention.cu",), (ceil(N, 16 * how["ROWS"] * how["WARPS"]), heads * how["SLICES"], B), 32 * how["WARPS"],
           [plain(q), plain(k), plain(v), o, N, k.shape[1], heads, math.log2(math.e) / math.sqrt(C // heads), causal], shared, **how)
    return o


# ---- norms --------------------------------------------------------------------------------------------------------


@ops.fast(cupy.ndarray)
def group_norm(x, weight, bias, groups, eps, act=None):
    B, H, W, C = x.shape
    if C % 8 or C > 4096 or not half(x, weight, bias) or act not in ACT:
        return NotImplemented
    P, x, y = H * W, plain(x), cupy.empty(x.shape, np.float16)
    blocks = ceil(2 * device()[1], B)                        # of a picture: two for each multiprocessor
    Z = max(1, min(128, P // 16, blocks))                    # stretches of rows, a block each
    sums = cupy.empty((B, Z, groups, 2), np.float32)
    side_by_side = 256 // min(C // 8, 256)
    launch("group_sums", ("group_norm.cu",), (Z, B), 256, [x, sums, P, C, groups], 8 * C * side_by_side)
    launch("group_norm", ("group_norm.cu",), (max(1, min(blocks, P // 4)), B), 256,
           [x, sums, weight, bias, y, P, C, groups, Z, float(eps), ACT[act]], 8 * groups + max(8 * groups, 4 * 256))
    return y


@ops.fast(cupy.ndarray)
def layer_norm(x, weight, bias, eps=1e-5):
    C = x.shape[-1]
    if C % 8 or C > 2048 or not half(x, weight, bias):
        return NotImplemented
    x, y = plain(x), cupy.empty(x.shape, np.float16)
    launch("layer_norm", ("layer_norm.cu",), (ceil(x.size // C, 8),), 256, [x, weight, bias, y, x.size // C, C, float(eps)],
           WORDS=ceil(C, 256))
    return y


# ---- the rest -----------------------------------------------------------------------------------------------------


def activation(name):
    def run(x):
        if not half(x):
            return NotImplemented
        x, y = plain(x), cupy.empty(x.shape, np.float16)
        launch("activation", ("elementwise.cu",), (ceil(x.size, 256),), 256, [x, y, np.int64(x.size), ACT[name]])
        return y
    return run


for _name in ("silu", "gelu", "quick_gelu"):
    ops.fast(cupy.ndarray, _name)(activation(_name))


@ops.fast(cupy.ndarray)
def geglu(x):
    if not half(x):
        return NotImplemented
    x, y = plain(x), cupy.empty((*x.shape[:-1], x.shape[-1] // 2), np.float16)
    launch("geglu", ("elementwise.cu",), (ceil(y.size, 256),), 256, [x, y, np.int64(y.size), y.shape[-1]])
    return y


@ops.fast(cupy.ndarray)
def concat(xs):
    if len(xs) != 2 or not half(*xs) or any(x.shape[-1] % 8 for x in xs):
        return NotImplemented
    a, b = map(plain, xs)
    C1, C2, R = a.shape[-1], b.shape[-1], a.size // a.shape[-1]
    y = cupy.empty((*a.shape[:-1], C1 + C2), np.float16)
    launch("concat", ("elementwise.cu",), (ceil(y.size, 2048),), 256, [a, b, y, R, C1, C2])
    return y


@ops.fast(cupy.ndarray)
def timestep_features(t, dim, flip=True, shift=0):
    t, y = plain(t.astype(np.float32, copy=False)), cupy.empty((len(t), dim), np.float32)
    launch("timestep_features", ("elementwise.cu",), (len(t),), 256,
           [t, y, dim // 2, -math.log(10000) / (dim // 2 - shift), bool(flip)])
    return y
