"""The autoencoder: pixels (B,8H,8W,3) in [-1,1] <-> latents (B,H,W,4).   [LDM] Rombach et al. 2022, section 3.1.

Numbers in comments are those of Stable Diffusion at 512x512."""
from ..backend import ops
from .nn import attend, conv2d, group_norm, linear, norm_conv2d, tap, upsample_conv2d
from .unet import resnet

EPS = 1e-6                                                   # of every group norm here


def pixel_attention(p, x, groups):
    """One head over all positions, the only place where far pixels see each other: (B,H,W,C) -> (B,H,W,C)."""
    B, H, W, C = x.shape
    h = group_norm(p.group_norm, x, groups, EPS).reshape(B, H * W, C)
    h = linear(p.to_out[0], attend(p, h, h, heads=1, bias=True), add=x.reshape(h.shape))
    return tap(p, h.reshape(x.shape))


def middle(p, x, groups):
    """(B,H,W,C) -> (B,H,W,C)"""
    x = resnet(p.resnets[0], x, None, groups, EPS)
    x = pixel_attention(p.attentions[0], x, groups)
    return resnet(p.resnets[1], x, None, groups, EPS)


def encode(p, x, cfg):
    """Pixels (B,8H,8W,3) in [-1,1] -> mean and log-variance of the latent, side by side: (B,H,W,8)."""
    e = p.encoder
    x = conv2d(e.conv_in, x, pad=(1, 1))
    for down in e.down_blocks:                               # 128 at 512x512, 256 at 256x256, 512 at 128x128, 512 at 64x64
        for r in down.resnets:
            x = resnet(r, x, None, cfg.groups, EPS)
        if "downsamplers" in down:                           # pads below and at the right only
            x = conv2d(down.downsamplers[0].conv, x, stride=2, pad=(0, 1))
    x = middle(e.mid_block, x, cfg.groups)
    x = tap(e, norm_conv2d(e.conv_norm_out, e.conv_out, x, cfg.groups, EPS))
    return conv2d(p.quant_conv, x) if cfg.quant else x


def sample(moments, noise, cfg):
    """mean + std * noise, scaled for the unet: moments (B,H,W,8), noise (B,H,W,4) -> latents (B,H,W,4)."""
    mean, logvar = moments[..., :cfg.latent_channels], moments[..., cfg.latent_channels:]
    return (mean + ops.exp(0.5 * logvar.clip(-30, 20)) * noise) * cfg.scaling_factor


def decode(p, latents, cfg):
    """Latents as the unet has them, (B,H,W,4) -> pixels (B,8H,8W,3), about [-1,1]."""
    x = latents / cfg.scaling_factor
    if cfg.post_quant:
        x = conv2d(p.post_quant_conv, x)
    d = p.decoder
    x = middle(d.mid_block, conv2d(d.conv_in, x, pad=(1, 1)), cfg.groups)            # 4 -> 512 at 64x64
    for up in d.up_blocks:                                   # 512 at 64x64, 512 at 128x128, 256 at 256x256, 128 at 512x512
        for r in up.resnets:
            x = resnet(r, x, None, cfg.groups, EPS)
        if "upsamplers" in up:
            H, W = x.shape[1:3]
            x = upsample_conv2d(up.upsamplers[0].conv, x, (2 * H, 2 * W))
    return tap(d, norm_conv2d(d.conv_norm_out, d.conv_out, x, cfg.groups, EPS))
