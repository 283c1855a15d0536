"""Layers: an operation from ops.py applied with the weights of one checkpoint node."""
from contextlib import contextmanager

from . import ops

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


def tap(p, y):
    """Name `y` as the output of node `p` in the current trace, if one is on; return it unchanged."""
    if _seen is not None:
        _seen[p.path] = y
    return y


def embedding(p, ids):
    """ids (B,M) -> (B,M,C)"""
    return tap(p, ops.embedding(p.weight, ids))


def linear(p, x, bias=True):
    """(...,C) -> (...,O)"""
    return tap(p, ops.linear(x, p.weight, p.bias if bias else None))


def pointwise(p, x):
    """(B,N,C) -> (B,N,C').  SD 1.x stores this as a 1x1 convolution, SD 2.x as a linear layer."""
    w = p.weight
    return tap(p, ops.linear(x, w if w.ndim == 2 else w[0, 0].T, p.bias))


def conv2d(p, x, stride=1, pad=(0, 0)):
    """(B,H,W,C) -> (B,H',W',O)"""
    return tap(p, ops.conv2d(x, p.weight, p.bias, stride=stride, pad=pad))


def group_norm(p, x, groups, eps, act=None):
    """(B,H,W,C) -> (B,H,W,C).  The node's own output comes before the activation, so a trace takes them apart."""
    if _seen is None:
        return ops.group_norm(x, p.weight, p.bias, groups=groups, eps=eps, act=act)
    return ops.ACTIVATIONS[act](tap(p, ops.group_norm(x, p.weight, p.bias, groups=groups, eps=eps)))


def layer_norm(p, x, eps=1e-5):
    """(...,C) -> (...,C)"""
    return tap(p, ops.layer_norm(x, p.weight, p.bias, eps=eps))


def attention(p, x, context, heads, bias=False):
    """Queries from x (B,N,C), keys and values from context (B,M,D) -> (B,N,C).  bias: whether q, k and v have one."""
    q, k, v = linear(p.to_q, x, bias), linear(p.to_k, context, bias), linear(p.to_v, context, bias)
    return tap(p, linear(p.to_out[0], ops.attention(q, k, v, heads)))
