"""ControlNet: the unet's first half with other weights, steered by a control image.   Zhang et al. 2023, section 3."""
from ..backend import ops
from .nn import conv2d
from .unet import down_path, time_embedding


def hint(p, image):
    """Control image (B,8H,8W,3) in [0,1] -> (B,H,W,C), halved three times: computed once for all steps."""
    p = p.controlnet_cond_embedding
    h = ops.silu(conv2d(p.conv_in, image, pad=(1, 1)))       # 16 channels, then 32, 96, 256 in SD 1.5's
    for i, block in enumerate(p.blocks):                     # every second convolution halves
        h = ops.silu(conv2d(block, h, stride=1 + i % 2, pad=(1, 1)))
    return conv2d(p.conv_out, h, pad=(1, 1))


def controlnet(p, x, t, context, hint, scales, cfg, **conditioning):
    """What to add to the unet's middle and to each of its n skip connections: (array, [array]).

    x, t, context, conditioning: as for the unet;  hint (B,H,W,C): see hint();  scales (n+1,B,1,1,1): the strength of each, the middle's
    last"""
    temb = time_embedding(p, t, cfg, x.dtype, **conditioning)
    x, skips = down_path(p, conv2d(p.conv_in, x, pad=(1, 1)) + hint, temb, context, cfg)
    zeros = zip(p.controlnet_down_blocks, skips, scales)     # 1x1 convolutions, zero before training
    return conv2d(p.controlnet_mid_block, x) * scales[len(skips)], [conv2d(z, s) * scale for z, s, scale in zeros]


def added(first, second):
    """The sum of what two ControlNets give; either may be None."""
    if first is None or second is None:
        return second if first is None else first
    return first[0] + second[0], [a + b for a, b in zip(first[1], second[1])]
