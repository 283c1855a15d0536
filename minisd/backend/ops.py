"""Every array operation, defined once in NumPy words; the same text runs on CuPy arrays.

Images are channels-last everywhere: (B,H,W,C).  Convolution weights arrive as (kh,kw,C,O), linear ones as (O,C).

A fast version may stand in for a definition: cpu.py and convolution.py register some for NumPy arrays.  The array decides:
the type of the first argument chooses the version, which may decline with NotImplemented, and then the definition below
runs.  `ops.conv2d.definition` is the definition itself; `fast_version(name, kind)` what is registered for it."""
import functools
import math
import sys
from contextlib import contextmanager

import numpy as np

DEFINITIONS: dict = {}                                       # name -> definition
_fast: dict = {}                                             # (name, array type) -> fast version
_slow: set = set()                                           # array types whose fast versions are not asked
_watch = None                                                # called in place of each operation that is not within another
_observers = 0                                               # how many contexts look at single layers or operations


def operation(definition):
    """Make `definition` an operation: dispatched on the type of its first argument (of the first array, in a list)."""
    name = definition.__name__
    DEFINITIONS[name] = definition

    def run(x, *args, **kwargs):
        return serve(name, x, *args, **kwargs)[0]

    @functools.wraps(definition)
    def dispatch(x, *args, **kwargs):
        return run(x, *args, **kwargs) if _watch is None else _watch(name, run, x, *args, **kwargs)

    dispatch.definition = definition
    return dispatch


def serve(name, x, *args, **kwargs):
    """Compute operation `name` -> (its result, whether a fast version gave it)."""
    kind = type(x[0] if isinstance(x, (list, tuple)) else x)
    version = _fast.get((name, kind))
    if version is not None and kind not in _slow:
        y = version(x, *args, **kwargs)
        if y is not NotImplemented:
            return y, True
    return DEFINITIONS[name](x, *args, **kwargs), False


def fast(kind, name=None):
    """Decorator: this function is the version of the operation of its own name, or `name`, for arrays of type `kind`."""
    def register(function):
        stands_for = name or function.__name__
        if stands_for not in DEFINITIONS:
            raise KeyError(f"{function.__module__}.{stands_for} stands in for no operation")
        _fast[stands_for, kind] = function
        return function
    return register


def fast_version(name, kind):
    """What is registered for operation `name` on arrays of type `kind`, or None."""
    return _fast.get((name, kind))


@contextmanager
def definitions_only(kind=np.ndarray):
    """Meanwhile the definitions below serve arrays of type `kind`, whatever is registered for them."""
    global _slow
    before, _slow = _slow, _slow | {kind}
    try:
        yield
    finally:
        _slow = before


@contextmanager
def watch(watcher):
    """Meanwhile watcher(name, run, *args, **kwargs) is called in place of each operation, `run`; within it, none is."""
    global _watch

    def once(name, run, *args, **kwargs):
        global _watch
        _watch = None
        try:
            return watcher(name, run, *args, **kwargs)
        finally:
            _watch = once

    before, _watch = _watch, once
    try:
        with observed():
            yield
    finally:
        _watch = before


@contextmanager
def observed():
    """Meanwhile somebody looks at what single layers or operations compute: a recorded run (device.py) gives way to the calls."""
    global _observers
    _observers += 1
    try:
        yield
    finally:
        _observers -= 1


def is_observed():
    return _observers > 0


def xp_of(x):
    """The array library that `x` belongs to."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else np


# ---- elementwise -----------------------------------------------------------------------------------------------


@operation
def exp(x):
    return xp_of(x).exp(x)


@operation
def sigmoid(x):
    """1 / (1 + e^-x), written with tanh, which does not overflow."""
    return 0.5 * xp_of(x).tanh(0.5 * x) + 0.5


@operation
def silu(x):
    """x sigmoid(x).   Elfwing et al. 2018."""
    return x * sigmoid(x)


@operation
def quick_gelu(x):
    """x sigmoid(1.702 x), CLIP's stand-in for gelu.   Hendrycks & Gimpel 2016, section 2."""
    return x * sigmoid(1.702 * x)


@operation
def erf(x):
    """Error function to 1.5e-7.   Abramowitz & Stegun 1964, 7.1.26."""
    xp, a = xp_of(x), abs(x)
    t = 1 / (1 + 0.3275911 * a)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return xp.copysign(1 - poly * xp.exp(-a * a), x)


@operation
def gelu(x):
    """x Phi(x), the exact form.   Hendrycks & Gimpel 2016, eq. 1."""
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


@operation
def geglu(x):
    """(...,2C) -> (...,C): the first half, gated by gelu of the second.   Shazeer 2020, eq. 6."""
    h, gate = xp_of(x).split(x, 2, axis=-1)
    return h * gelu(gate)


@operation
def relu(x):
    """max(x, 0).   Nair & Hinton 2010."""
    return xp_of(x).maximum(x, 0)


@operation
def tanh(x):
    return xp_of(x).tanh(x)


ACTIVATIONS = {None: lambda x: x, "silu": silu, "gelu": gelu, "quick_gelu": quick_gelu}

# ---- layers ----------------------------------------------------------------------------------------------------


@operation
def embedding(weight, ids):
    """weight (V,C), ids (B,M) -> (B,M,C)"""
    return weight[ids]


@operation
def vector_of(x, ids, token):
    """x (B,M,D), ids (B,M) -> (B,D): the vector of each row's first such token."""
    return x[xp_of(x).arange(len(x)), (ids == token).argmax(-1)]


@operation
def linear(x, weight, bias=None, add=None):
    """x (...,C), weight (O,C) -> (...,O);  add (...,O): added at the end"""
    y = x @ weight.T
    y = y if bias is None else y + bias
    return y if add is None else y + add


@operation
def linears(x, weights):
    """x (...,C), weights [(O,C), ...] -> [(...,O), ...]: linear layers of the same numbers, without biases."""
    return [linear(x, weight) for weight in weights]


@operation
def linear_geglu(x, weight, bias):
    """x (...,C), weight (2O,C) -> (...,O): a linear layer, then geglu."""
    return geglu(linear(x, weight, bias))


@operation
def layer_norm(x, weight, bias, eps=1e-5):
    """Mean 0 and variance 1 over the last axis, then scale and shift.   Ba et al. 2016, eq. 4."""
    x = x - x.mean(-1, keepdims=True)
    return x / xp_of(x).sqrt((x * x).mean(-1, keepdims=True) + eps) * weight + bias


@operation
def group_norm(x, weight, bias, groups, eps, act=None):
    """x (B,H,W,C) -> (B,H,W,C): mean 0 and variance 1 over each group of C/groups neighbouring channels, then scale
    and shift, then the activation `act`, if one is named.   Wu & He 2018, eq. 7."""
    B, H, W, C = x.shape
    g = x.reshape(B, H * W, groups, C // groups)
    g = g - g.mean((1, 3), keepdims=True, dtype="float64").astype(x.dtype)
    var = (g * g).mean((1, 3), keepdims=True, dtype="float64")                 # summed in float64: a group can be
    g = g / xp_of(x).sqrt(var + eps).astype(x.dtype)                           # millions of numbers
    return ACTIVATIONS[act](g.reshape(B, H, W, C) * weight + bias)


@operation
def conv2d(x, weight, bias=None, stride=1, pad=(0, 0), add=None):
    """x (B,H,W,C), weight (kh,kw,C,O) -> (B,H',W',O): one matrix product, over all positions, for each tap of the filter.

    pad: rows of zeros above and below, and as many columns left and right;  add (B,H',W',O) or (B,1,1,O): added at the end"""
    xp = xp_of(x)
    kh, kw, C, O = weight.shape
    x = xp.pad(x, ((0, 0), pad, pad, (0, 0)))
    H, W = (x.shape[1] - kh) // stride + 1, (x.shape[2] - kw) // stride + 1
    y = 0 if bias is None else bias
    for i in range(kh):
        for j in range(kw):
            y = y + x[:, i:i + stride * H:stride, j:j + stride * W:stride].reshape(-1, C) @ weight[i, j]
    y = y.reshape(x.shape[0], H, W, O)
    return y if add is None else y + add


@operation
def norm_conv2d(x, norm, conv, groups, eps, add=None):
    """x (B,H,W,C) -> (B,H,W,O): group norm, silu, a 3x3 convolution.

    norm, conv: (weight, bias) of each;  add (B,H,W,O) or (B,1,1,O): added at the end"""
    return conv2d(group_norm(x, *norm, groups=groups, eps=eps, act="silu"), *conv, pad=(1, 1), add=add)


@operation
def residual_block(x, norm1, conv1, norm2, conv2, groups, eps, shift=None, shortcut=None):
    """Two convolutions and a shortcut: x (B,H,W,C) -> (B,H,W,O).   He et al. 2016, figure 2.

    norm1 .. conv2: (weight, bias) of each;  shift (B,1,1,O): added between the two convolutions, or None
    shortcut: (weight, bias) of a 1x1 convolution of x, None where O = C and x itself is added"""
    h = norm_conv2d(x, norm1, conv1, groups=groups, eps=eps, add=shift)
    h = norm_conv2d(h, norm2, conv2, groups=groups, eps=eps)
    return h + (x if shortcut is None else conv2d(x, *shortcut))


@operation
def upsample_conv2d(x, weight, bias, size):
    """x (B,h,w,C), weight (3,3,C,O) -> (B,H,W,O): upsample_to `size`, then a 3x3 convolution."""
    return conv2d(upsample_to(x, size), weight, bias, pad=(1, 1))


@operation
def attention(q, k, v, heads, causal=False):
    """softmax(q k^T / sqrt(d)) v in each head: q (B,N,C), k and v (B,M,C) -> (B,N,C), d = C/heads.

    causal: a position sees itself and what stands before it.   Vaswani et al. 2017, eq. 1."""
    xp = xp_of(q)
    q, k, v = (t.reshape(*t.shape[:2], heads, -1).swapaxes(1, 2) for t in (q, k, v))          # (B,heads,.,d)
    s = q / math.sqrt(q.shape[-1]) @ k.swapaxes(-1, -2)      # (B,heads,N,M), scaled first: in float16 a score could pass 65504
    if causal:
        s = xp.where(xp.tri(q.shape[-2], k.shape[-2], dtype=bool), s, -xp.inf)
    e = xp.exp(s - s.max(-1, keepdims=True))
    o = (e / e.sum(-1, keepdims=True)) @ v                                                    # (B,heads,N,d)
    return o.swapaxes(1, 2).reshape(o.shape[0], o.shape[2], -1)


# ---- shape and size --------------------------------------------------------------------------------------------


@operation
def concat(xs):
    """[(...,C1), (...,C2), ...] -> (...,C1+C2+...)"""
    return xp_of(xs[0]).concatenate(xs, axis=-1)


@operation
def upsample_to(x, size):
    """(B,h,w,C) -> (B,H,W,C), each pixel repeated twice; size (H,W) is (2h,2w), or one less for an odd picture."""
    H, W = size
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, :H, :W]


@operation
def timestep_features(t, dim, flip=True, shift=0):
    """Sinusoids of the timestep in float32, cosines first unless `flip` is False: t (B,) -> (B,dim).

    Vaswani et al. 2017, section 3.5; flip and shift are diffusers' flip_sin_to_cos and freq_shift."""
    xp = xp_of(t)
    freqs = xp.exp(xp.arange(dim // 2, dtype="float32") * (-math.log(10000) / (dim // 2 - shift)))
    angles = t.astype("float32")[:, None] * freqs
    sin, cos = xp.sin(angles), xp.cos(angles)
    return xp.concatenate([cos, sin] if flip else [sin, cos], axis=-1)


def wait_for(x):
    """Return when x is there: a GPU computes while Python goes on."""
    if xp_of(x) is not np:
        xp_of(x).cuda.Device().synchronize()


def all_finite(x):
    """Whether x holds no NaN and no infinity."""
    return bool(xp_of(x).isfinite(x).all())
