"""Layers: an operation of ops.py applied with the weights of one node of the checkpoint, and how to observe what each gives."""
from contextlib import contextmanager

from ..backend import ops

_observer = None                                             # what sees each layer's output, observer(path, y) -> y


@contextmanager
def observe(observer):
    """Meanwhile observer(path, y) is called with the output of each layer, in order of execution, and the run goes on with what it returns:
    y itself, or another array in its place."""
    global _observer
    before, _observer = _observer, observer
    try:
        with ops.observed():
            yield
    finally:
        _observer = before


@contextmanager
def trace():
    """Record what every layer computes, by its name in the checkpoint.

        with minisd.trace() as seen:
            pipe.txt2img("a fox", num_inference_steps=1)
        seen["mid_block.attentions.0"].shape                # (2, 8, 8, 1280) for SD 1.5 at 512x512

    seen: {checkpoint path: array, images as (B,H,W,C)} in order of execution.  A layer that runs again, as each does at every step of a
    sampler, keeps its last output."""
    seen = {}

    def remember(path, y):
        seen[path] = y
        return y

    with observe(remember):
        yield seen


def tap(p, y):
    """Show `y`, the output of node `p`, to who observes; return it, or what they put in its place."""
    return y if _observer is None else _observer(p.path, y)


def fused(add):
    """What an operation may add to its result by itself: nothing while layers are observed, since a layer's own output comes first."""
    return add if _observer is None else None


def summed(p, y, add):
    """The output `y` of node `p`, plus `add` where fused() kept that from the operation."""
    y = tap(p, y)
    return y if add is None or _observer is None else y + add


def parameters(p):
    """(weight, bias) of a node."""
    return p.weight, p.bias


def embedding(p, ids):
    """ids (B,M) -> (B,M,C)"""
    return tap(p, ops.embedding(p.weight, ids))


def linear(p, x, bias=True, add=None):
    """(...,C) -> (...,O);  add (...,O): added to it"""
    return summed(p, ops.linear(x, p.weight, p.bias if bias else None, add=fused(add)), add)


def pointwise(p, x, add=None):
    """(B,N,C) -> (B,N,C').  SD 1.x stores this as a 1x1 convolution, SD 2.x as a linear layer."""
    w = p.weight
    return summed(p, ops.linear(x, w if w.ndim == 2 else w[0, 0].T, p.bias, add=fused(add)), add)


def linear_geglu(p, x):
    """(...,C) -> (...,O), the layer itself having 2O outputs."""
    return ops.linear_geglu(x, p.weight, p.bias) if _observer is None else ops.geglu(linear(p, x))


def conv2d(p, x, stride=1, pad=(0, 0), add=None):
    """(B,H,W,C) -> (B,H',W',O);  add: added to it"""
    return summed(p, ops.conv2d(x, p.weight, p.bias, stride=stride, pad=pad, add=fused(add)), add)


def conv2d_without_bias(p, x, stride=1, pad=(0, 0)):
    """(B,H,W,C) -> (B,H',W',O)"""
    return tap(p, ops.conv2d(x, p.weight, stride=stride, pad=pad))


def upsample_conv2d(p, x, size):
    """(B,h,w,C) -> (B,H,W,O), size = (H,W)"""
    return tap(p, ops.upsample_conv2d(x, p.weight, p.bias, size))


def group_norm(p, x, groups, eps, act=None):
    """(B,H,W,C) -> (B,H,W,C).  The node's own output comes before the activation, so a trace takes them apart."""
    if _observer is None:
        return ops.group_norm(x, p.weight, p.bias, groups=groups, eps=eps, act=act)
    return ops.ACTIVATIONS[act](tap(p, ops.group_norm(x, p.weight, p.bias, groups=groups, eps=eps)))


def norm_conv2d(norm, conv, x, groups, eps):
    """Group norm, silu, 3x3 convolution: (B,H,W,C) -> (B,H,W,O)"""
    if _observer is None:
        return ops.norm_conv2d(x, parameters(norm), parameters(conv), groups=groups, eps=eps)
    return conv2d(conv, group_norm(norm, x, groups, eps, act="silu"), pad=(1, 1))


def residual_block(p, x, shift, groups, eps):
    """x (B,H,W,C), shift (B,1,1,C') or None -> (B,H,W,C'); conv_shortcut exists exactly where C' != C."""
    shortcut = p.conv_shortcut if "conv_shortcut" in p else None
    if _observer is None:
        return ops.residual_block(x, *map(parameters, (p.norm1, p.conv1, p.norm2, p.conv2)), groups=groups, eps=eps, shift=shift,
                                  shortcut=shortcut and parameters(shortcut))
    h = conv2d(p.conv1, group_norm(p.norm1, x, groups, eps, act="silu"), pad=(1, 1), add=shift)
    h = conv2d(p.conv2, group_norm(p.norm2, h, groups, eps, act="silu"), pad=(1, 1))
    return h + (x if shortcut is None else conv2d(shortcut, x))


def layer_norm(p, x, eps=1e-5):
    """(...,C) -> (...,C)"""
    return tap(p, ops.layer_norm(x, p.weight, p.bias, eps=eps))


def attend(p, x, context, heads, bias=False):
    """Queries from x (B,N,C), keys and values from context (B,M,D) -> (B,N,C), before the output's linear layer.

    bias: whether q, k and v have one"""
    if bias or ops.is_observed():
        return ops.attention(linear(p.to_q, x, bias), linear(p.to_k, context, bias), linear(p.to_v, context, bias), heads)
    if x is context:                                         # the same in fewer launches of a GPU
        return ops.attention(*ops.linears(x, [p.to_q.weight, p.to_k.weight, p.to_v.weight]), heads)
    return ops.attention(ops.linear(x, p.to_q.weight), *ops.linears(context, [p.to_k.weight, p.to_v.weight]), heads)


def attention(p, x, context, heads, add):
    """x (B,N,C) looks at context (B,M,D) -> (B,N,C);  add (B,N,C): added to it"""
    return summed(p, linear(p.to_out[0], attend(p, x, context, heads), add=fused(add)), add)


def feed_forward(p, x, add):
    """(B,N,C) -> (B,N,C), 4C gated channels in between;  add (B,N,C): added to it"""
    h = tap(p.net[0], linear_geglu(p.net[0].proj, x))
    return summed(p, linear(p.net[2], h, add=fused(add)), add)
