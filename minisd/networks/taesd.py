"""TAESD, an autoencoder of 1.2 million weights in place of the vae's 84 million: quick to decode, less exact.

Pixels (B,8H,8W,3) in [-1,1] <-> latents (B,H,W,4), scaled as the unet has them.   Ollin Boer Bohan 2023, https://github.com/madebyollin/taesd"""
from ..backend import ops
from .nn import conv2d, conv2d_without_bias, tap


def block(p, x):
    """(B,H,W,C) -> (B,H,W,C): three convolutions and a shortcut, then relu."""
    h = conv2d(p.conv[2], ops.relu(conv2d(p.conv[0], x, pad=(1, 1))), pad=(1, 1))
    h = conv2d(p.conv[4], ops.relu(h), pad=(1, 1))
    return tap(p, ops.relu(h + (conv2d_without_bias(p.skip, x) if "skip" in p else x)))


def encode(p, x, cfg):
    """Pixels (B,8H,8W,3) in [-1,1] -> latents (B,H,W,4)."""
    layers = list(p.encoder.layers)
    x = conv2d(layers[0], (x + 1) * 0.5, pad=(1, 1))
    for layer in layers[1:-1]:
        x = block(layer, x) if "conv" in layer else conv2d_without_bias(layer, x, stride=2, pad=(1, 1))
    return conv2d(layers[-1], x, pad=(1, 1))


def decode(p, latents, cfg):
    """Latents (B,H,W,4) -> pixels (B,8H,8W,3), about [-1,1]."""
    layers = list(p.decoder.layers)
    x = ops.relu(conv2d(layers[0], 3 * ops.tanh(latents / 3), pad=(1, 1)))             # so that no value runs away
    for layer in layers[1:-1]:
        if "conv" in layer:
            x = block(layer, x)
        else:
            H, W = x.shape[1:3]
            x = conv2d_without_bias(layer, ops.upsample_to(x, (2 * H, 2 * W)), pad=(1, 1))
    return conv2d(layers[-1], x, pad=(1, 1)) * 2 - 1
