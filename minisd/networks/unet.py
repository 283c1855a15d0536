"""The noise predictor: eps = unet(x_t, t, context).   [LDM] Rombach et al. 2022, section 3.

Letters: B batch, C channels (last axis), H W latent height and width (picture/8), N = H*W positions,
M text tokens (77), D text width, T time width."""
from ..backend import ops
from .nn import (
    attention,
    conv2d,
    embedding,
    group_norm,
    layer_norm,
    linear,
    linear_geglu,
    norm_conv2d,
    plus,
    pointwise,
    tap,
    upsample_conv2d,
)
from .unet_config import UNetConfig  # noqa: F401


def resnet(p, x, temb, groups, eps=1e-5):
    """x (B,H,W,C), temb (B,T) -> (B,H,W,C'); C' != C exactly where conv_shortcut exists."""
    time = None if temb is None else linear(p.time_emb_proj, ops.silu(temb))[:, None, None]
    h = norm_conv2d(p.norm1, p.conv1, x, groups, eps, add=time)
    if "conv_shortcut" in p:
        h = norm_conv2d(p.norm2, p.conv2, h, groups, eps, overwrite_x=True)
        return tap(p, conv2d(p.conv_shortcut, x, add=h, overwrite_add=True))
    return tap(p, norm_conv2d(p.norm2, p.conv2, h, groups, eps, add=x, overwrite_x=True))


def feed_forward(p, x, add):
    """(B,N,C) -> (B,N,C) by way of 4C gated channels."""
    h = tap(p.net[0], linear_geglu(p.net[0].proj, x))
    return plus(p, lambda a: linear(p.net[2], h, add=a), add)


def transformer(p, x, context, heads, groups, only_cross=False):
    """Pixels attend to each other, then to the text: (B,H,W,C) -> (B,H,W,C).   [LDM] appendix, eq. 15-17.

    only_cross: to the text both times, as in the upscaler's large levels"""
    B, H, W, C = x.shape
    h = group_norm(p.norm, x, groups, eps=1e-6)              # 1e-6 here, 1e-5 in the resnets
    h = pointwise(p.proj_in, h.reshape(B, H * W, C))         # positions become a sequence: (B,N,C)
    for block in p.transformer_blocks:
        n = layer_norm(block.norm1, h)
        h = attention(block.attn1, n, context if only_cross else n, heads, add=h)
        h = attention(block.attn2, layer_norm(block.norm2, h), context, heads, add=h)
        h = tap(block, feed_forward(block.ff, layer_norm(block.norm3, h), add=h))
    return tap(p, pointwise(p.proj_out, h, add=x.reshape(h.shape)).reshape(x.shape))


def layer(p, i, x, temb, context, level, cfg):
    """The i-th resnet of a level, with the transformer beside it where the level has one."""
    x = resnet(p.resnets[i], x, temb, cfg.groups, cfg.eps)
    if "attentions" not in p:
        return x
    return transformer(p.attentions[i], x, context, cfg.heads[level], cfg.groups, cfg.only_cross[level])


def perceptron(p, x):
    """(B,C) -> (B,T)"""
    return tap(p, linear(p.linear_2, ops.silu(linear(p.linear_1, x))))


def time_embedding(p, t, cfg, dtype, text_embeds=None, time_ids=None, class_labels=None, timestep_cond=None):
    """t (B,) -> (B,T): its sinusoids through a perceptron, and whatever else the network is told about the whole picture.

    text_embeds (B,P), time_ids (B,6 or 5): the pooled text and the sizes that SDXL is told;  class_labels (B,) whole numbers: the
    upscaler's level of noise;  timestep_cond (B,G): features of the guidance scale, which a latent consistency model is told"""
    h = ops.timestep_features(t, cfg.channels, cfg.flip, cfg.shift).astype(dtype)
    if cfg.guided:                                           # Luo et al. 2023, section 4.1
        h = h + linear(p.time_embedding.cond_proj, timestep_cond, bias=False)
    temb = perceptron(p.time_embedding, h)
    if cfg.classes:
        temb = temb + embedding(p.class_embedding, class_labels)
    if cfg.added:                                            # Podell et al. 2023, section 2.2
        sizes = ops.timestep_features(time_ids.reshape(-1), cfg.sizes, cfg.flip, cfg.shift).reshape(time_ids.shape[0], -1)
        temb = temb + perceptron(p.add_embedding, ops.concat([text_embeds, sizes.astype(dtype)]))
    return temb


def down_path(p, x, temb, context, cfg):
    """Everything up to and including the middle: (B,H,W,C) -> (features, skip connections, high resolution first)."""
    skips = [x]
    for k, down in enumerate(p.down_blocks):
        for i in range(len(down.resnets)):
            x = layer(down, i, x, temb, context, k, cfg)
            skips.append(x)
        if "downsamplers" in down:
            x = conv2d(down.downsamplers[0].conv, x, stride=2, pad=(1, 1))
            skips.append(x)
    if "mid_block" in p:
        x = resnet(p.mid_block.resnets[0], x, temb, cfg.groups, cfg.eps)
        x = transformer(p.mid_block.attentions[0], x, context, cfg.heads[-1], cfg.groups)
        x = resnet(p.mid_block.resnets[1], x, temb, cfg.groups, cfg.eps)
    return x, skips


def unet(p, x, t, context, cfg, control=None, **told):
    """x (B,H,W,4), t (B,) in 0..999, context (B,M,D) -> predicted noise (B,H,W,4).   Any H and W of 1 or more.

    control: what ControlNets add to the middle and to each skip connection, (array, [array]);  told: see time_embedding()"""
    temb = time_embedding(p, t, cfg, x.dtype, **told)
    x, skips = down_path(p, conv2d(p.conv_in, x, pad=(1, 1)), temb, context, cfg)
    if control is not None:
        x, skips = x + control[0], [s + c for s, c in zip(skips, control[1])]
    for k, up in enumerate(p.up_blocks):
        for i in range(len(up.resnets)):
            x = layer(up, i, ops.concat([x, skips.pop()]), temb, context, len(p.up_blocks) - 1 - k, cfg)
        if "upsamplers" in up:                               # to the next skip's size, odd ones included
            x = upsample_conv2d(up.upsamplers[0].conv, x, skips[-1].shape[1:3])
    return norm_conv2d(p.conv_norm_out, p.conv_out, x, cfg.groups, cfg.eps)
