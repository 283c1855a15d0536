"""Layers: an operation from ops.py applied with the weights of one checkpoint node."""
from contextlib import contextmanager

from ..backend import ops

_seen = None


@contextmanager
def trace():
    """Record the output of every layer: `with trace() as seen: unet(...)` -> {checkpoint path: array}, in order of execution.

    A layer that runs again, as each does at every step of a sampler, keeps its last output."""
    global _seen
    before, _seen = _seen, {}
    try:
        yield _seen
    finally:
        _seen = before


def tracing():
    """Whether a trace is on."""
    return _seen is not None


def tap(p, y):
    """Name `y` as the output of node `p` in the current trace, if one is on; return it unchanged."""
    if _seen is not None:
        _seen[p.path] = y
    return y


def embedding(p, ids):
    """ids (B,M) -> (B,M,C)"""
    return tap(p, ops.embedding(p.weight, ids))


def plus(p, layer, add):
    """layer(add), which ends by adding `add`.  The node's own output comes before that, so a trace takes them apart."""
    if _seen is None or add is None:
        return tap(p, layer(add))
    return tap(p, layer(None)) + add


def linear(p, x, bias=True, add=None):
    """(...,C) -> (...,O)"""
    return plus(p, lambda a: ops.linear(x, p.weight, p.bias if bias else None, add=a), add)


def pointwise(p, x, add=None):
    """(B,N,C) -> (B,N,C').  SD 1.x stores this as a 1x1 convolution, SD 2.x as a linear layer."""
    w = p.weight
    return plus(p, lambda a: ops.linear(x, w if w.ndim == 2 else w[0, 0].T, p.bias, add=a), add)


def linear_geglu(p, x):
    """(...,C) -> (...,O), the layer itself having 2O outputs."""
    return ops.linear_geglu(x, p.weight, p.bias) if _seen is None else ops.geglu(linear(p, x))


def conv2d(p, x, stride=1, pad=(0, 0), add=None, overwrite_add=False):
    """(B,H,W,C) -> (B,H',W',O)"""
    return plus(p, lambda a: ops.conv2d(x, p.weight, p.bias, stride=stride, pad=pad, add=a,
                                        overwrite_add=overwrite_add and a is not None), add)


def plain_conv2d(p, x, stride=1, pad=(0, 0)):
    """(B,H,W,C) -> (B,H',W',O), with no bias."""
    return tap(p, ops.conv2d(x, p.weight, stride=stride, pad=pad))


def upsample_conv2d(p, x, size):
    """(B,h,w,C) -> (B,H,W,O), size = (H,W)"""
    return tap(p, ops.upsample_conv2d(x, p.weight, p.bias, size))


def norm_conv2d(norm, conv, x, groups, eps, add=None, overwrite_x=False):
    """Group norm, silu, 3x3 convolution: (B,H,W,C) -> (B,H,W,O)"""
    if _seen is None:
        return ops.norm_conv2d(x, norm.weight, norm.bias, conv.weight, conv.bias, groups=groups, eps=eps, add=add,
                               overwrite_x=overwrite_x)
    return conv2d(conv, group_norm(norm, x, groups, eps, act="silu"), pad=(1, 1), add=add)


def group_norm(p, x, groups, eps, act=None):
    """(B,H,W,C) -> (B,H,W,C).  The node's own output comes before the activation, so a trace takes them apart."""
    if _seen is None:
        return ops.group_norm(x, p.weight, p.bias, groups=groups, eps=eps, act=act)
    return ops.ACTIVATIONS[act](tap(p, ops.group_norm(x, p.weight, p.bias, groups=groups, eps=eps)))


def layer_norm(p, x, eps=1e-5):
    """(...,C) -> (...,C)"""
    return tap(p, ops.layer_norm(x, p.weight, p.bias, eps=eps))


def attention(p, x, context, heads, bias=False, add=None):
    """Queries from x (B,N,C), keys and values from context (B,M,D) -> (B,N,C).  bias: whether q, k and v have one."""
    q, k, v = linear(p.to_q, x, bias), linear(p.to_k, context, bias), linear(p.to_v, context, bias)
    h = ops.attention(q, k, v, heads)
    return plus(p, lambda a: linear(p.to_out[0], h, add=a), add)
