"""The denoising unet: eps, v or x0, as it was trained to predict, = unet(x_t, t, context).   [LDM] Rombach et al. 2022, section 3.

Letters: B batch, C channels (last axis), H W height and width of the latent (picture/8), N = H*W positions, M text tokens (77),
D width of the text embedding, T of the time embedding.  Numbers in comments are those of SD 1.5 at 512x512 with guidance: B = 2,
H = W = 64, D = 768, T = 1280; docs/unet.md draws the whole U with them."""
from ..backend import ops
from .nn import (
    attention,
    conv2d,
    embedding,
    feed_forward,
    group_norm,
    layer_norm,
    linear,
    norm_conv2d,
    pointwise,
    residual_block,
    tap,
    upsample_conv2d,
)


def resnet(p, x, temb, groups, eps=1e-5):
    """Two 3x3 convolutions with the time embedding added in between: x (B,H,W,C), temb (B,T) -> (B,H,W,C').   He et al. 2016.

        h = conv1(silu(norm1(x))) + time_emb_proj(silu(temb))
        h = conv2(silu(norm2(h)))
        h + x, or h + conv_shortcut(x) exactly where C' != C"""
    shift = None if temb is None else linear(p.time_emb_proj, ops.silu(temb))[:, None, None]
    return tap(p, residual_block(p, x, shift, groups, eps))


def transformer(p, x, context, heads, groups, only_cross=False):
    """Self-attention among the latent positions, then cross-attention to the text: (B,H,W,C) -> (B,H,W,C).   [LDM] appendix, eq. 15-17.

    only_cross: to the text both times, as in the upscaler's large levels"""
    B, H, W, C = x.shape
    h = group_norm(p.norm, x, groups, eps=1e-6)              # 1e-6 here, 1e-5 in the resnets
    h = pointwise(p.proj_in, h.reshape(B, H * W, C))         # positions become a sequence (B,N,C): 2 x 4096 x 320 in the first level
    for block in p.transformer_blocks:
        n = layer_norm(block.norm1, h)
        h = attention(block.attn1, n, context if only_cross else n, heads, add=h)              # 8 heads of 4096 x 4096
        h = attention(block.attn2, layer_norm(block.norm2, h), context, heads, add=h)          # 8 heads of 4096 x 77
        h = tap(block, feed_forward(block.ff, layer_norm(block.norm3, h), add=h))              # 320 -> 2 x 1280 -> 320
    return tap(p, pointwise(p.proj_out, h, add=x.reshape(h.shape)).reshape(x.shape))


def layer(p, i, x, temb, context, level, cfg):
    """The i-th resnet of a level, followed by a transformer where the level has them."""
    x = resnet(p.resnets[i], x, temb, cfg.groups, cfg.eps)
    if "attentions" not in p:
        return x
    return transformer(p.attentions[i], x, context, cfg.heads[level], cfg.groups, cfg.only_cross[level])


def mlp(p, x):
    """(B,C) -> (B,T)"""
    return tap(p, linear(p.linear_2, ops.silu(linear(p.linear_1, x))))


def time_embedding(p, t, cfg, dtype, text_embeds=None, time_ids=None, class_labels=None, timestep_cond=None):
    """t (B,) -> (B,T): the timestep's sinusoids through an MLP, plus whatever else conditions the whole picture.

    text_embeds (B,P), time_ids (B,6 or 5): SDXL's pooled text and sizes;  class_labels (B,) whole numbers: the upscaler's noise level
    timestep_cond (B,G): an embedding of the guidance scale, for latent consistency models"""
    h = ops.timestep_features(t, cfg.channels, cfg.flip_sin_to_cos, cfg.freq_shift).astype(dtype)      # 320 of them
    if cfg.time_cond_proj_dim:                               # Luo et al. 2023, section 4.1
        h = h + linear(p.time_embedding.cond_proj, timestep_cond, bias=False)
    temb = mlp(p.time_embedding, h)
    if cfg.num_class_embeds:
        temb = temb + embedding(p.class_embedding, class_labels)
    if cfg.projection_class_embeddings_input_dim:                                  # Podell et al. 2023, section 2.2
        sizes = ops.timestep_features(time_ids.reshape(-1), cfg.addition_time_embed_dim, cfg.flip_sin_to_cos, cfg.freq_shift)
        sizes = sizes.reshape(time_ids.shape[0], -1).astype(dtype)
        temb = temb + mlp(p.add_embedding, ops.concat([text_embeds, sizes]))
    return temb


def down_path(p, x, temb, context, cfg):
    """Down blocks and mid block, after conv_in: (B,H,W,C) -> (features, skip connections, high resolution first)."""
    skips = [x]                                              # 320 at 64x64
    for level, down in enumerate(p.down_blocks):             # 320 at 64x64, 640 at 32x32, 1280 at 16x16, 1280 at 8x8
        for i in range(len(down.resnets)):
            x = layer(down, i, x, temb, context, level, cfg)
            skips.append(x)
        if "downsamplers" in down:
            x = conv2d(down.downsamplers[0].conv, x, stride=2, pad=(1, 1))
            skips.append(x)
    if "mid_block" in p:                                     # 1280 at 8x8; distilled models leave it out
        x = resnet(p.mid_block.resnets[0], x, temb, cfg.groups, cfg.eps)
        x = transformer(p.mid_block.attentions[0], x, context, cfg.heads[-1], cfg.groups)
        x = resnet(p.mid_block.resnets[1], x, temb, cfg.groups, cfg.eps)
    return x, skips


def up_path(p, x, skips, temb, context, cfg):
    """Up blocks, all but their very last layer, which is for the first of the skip connections; the others are used up here."""
    for k, up in enumerate(p.up_blocks):                     # 1280 at 8x8, 1280 at 16x16, 640 at 32x32, 320 at 64x64
        for i in range(len(up.resnets)):
            if len(skips) == 1:
                return x
            x = layer(up, i, ops.concat([x, skips.pop()]), temb, context, len(p.up_blocks) - 1 - k, cfg)
        if "upsamplers" in up:                               # to the next skip's size, odd ones included
            x = upsample_conv2d(up.upsamplers[0].conv, x, skips[-1].shape[1:3])


def unet(p, x, t, context, cfg, control=None, kept=None, **conditioning):
    """x (B,H,W,4, more with a task's channels), t (B,) in 0 .. 999, context (B,M,D) -> prediction (B,H,W,4).   Any H and W of 1 or more.

    control: what ControlNets add to the middle and to each skip connection, (array, [array])
    kept: a dict, for calls that follow one another; while it is empty, what comes before the last layer is computed and put there, and
    else taken from there.   Ma et al. 2024 (DeepCache)
    conditioning: text_embeds, time_ids, class_labels, timestep_cond, for models that have them; see time_embedding()"""
    temb = time_embedding(p, t, cfg, x.dtype, **conditioning)
    first, kept = conv2d(p.conv_in, x, pad=(1, 1)), {} if kept is None else kept
    if not kept:
        x, skips = down_path(p, first, temb, context, cfg)
        if control is not None:
            x, skips = x + control[0], [s + c for s, c in zip(skips, control[1])]
        kept.update(deep=up_path(p, x, skips, temb, context, cfg), control=None if control is None else control[1][0])
    skip = first if kept["control"] is None else first + kept["control"]
    last = p.up_blocks[len(p.up_blocks) - 1]
    x = layer(last, len(last.resnets) - 1, ops.concat([kept["deep"], skip]), temb, context, 0, cfg)
    return norm_conv2d(p.conv_norm_out, p.conv_out, x, cfg.groups, cfg.eps)
