"""The noise predictor: eps = unet(x_t, t, context).   [LDM] Rombach et al. 2022, section 3.

Letters: B batch, C channels (last axis), H W latent height and width (picture/8), N = H*W positions,
M text tokens (77), D text width, T time width."""
import re
from dataclasses import dataclass

from . import ops
from .config import listed, number, per_level, require, whole
from .errors import CheckpointError
from .nn import attention, conv2d, group_norm, layer_norm, linear, linear_geglu, norm_conv2d, plus, pointwise, tap, upsample_conv2d


@dataclass(frozen=True)
class UNetConfig:
    """What the weights do not say; the rest is read off the checkpoint tree."""
    channels: int = 320                     # width of the first level, also of the time features
    heads: tuple = (8, 8, 8, 8)             # attention heads per level, high resolution first
    groups: int = 32
    eps: float = 1e-5
    flip: bool = True                       # time features: cosines first
    shift: float = 0
    down: tuple = ()                        # (resnets, transformer blocks beside each) per level, to hold a checkpoint against
    up: tuple = ()
    in_channels: int = 4
    out_channels: int = 4
    context_width: int = 768
    sample_size: tuple = (64, 64)           # height and width of the latent it was trained on
    middle: bool = True                     # some distilled models have no middle
    middle_depth: int = 1

    @classmethod
    def read(cls, c):
        """From a UNet2DConditionModel's config.json.  Raises CheckpointError for a network that minisd does not know."""
        require("unet", c, act_fn=("silu", "swish"), resnet_time_scale_shift=("default",), conv_in_kernel=(3,),
                conv_out_kernel=(3,), time_embedding_type=("positional",), class_embed_type=(None,), num_class_embeds=(None,),
                addition_embed_type=(None,), encoder_hid_dim_type=(None,), encoder_hid_dim=(None,), timestep_post_act=(None,),
                time_cond_proj_dim=(None,), dual_cross_attention=(False,), only_cross_attention=(False,),
                mid_block_only_cross_attention=(None, False), center_input_sample=(False,), attention_type=("default",),
                downsample_padding=(1,), mid_block_scale_factor=(1,), class_embeddings_concat=(False,),
                reverse_transformer_layers_per_block=(None,), time_embedding_dim=(None,), time_embedding_act_fn=(None,),
                cross_attention_norm=(None,), addition_time_embed_dim=(None,), resnet_skip_time_act=(False,),
                resnet_out_scale_factor=(1.0,), dropout=(0.0,), mid_block_type=("UNetMidBlock2DCrossAttn", None))
        widths, down = listed("unet", c, "block_out_channels"), listed("unet", c, "down_block_types")
        up, n = listed("unet", c, "up_block_types"), len(widths)
        for kind in [*down, *up]:
            require("unet", {"block type": kind}, **{"block type": ("CrossAttnDownBlock2D", "DownBlock2D",
                                                                    "CrossAttnUpBlock2D", "UpBlock2D")})
        if not len(down) == len(up) == n:
            raise CheckpointError(f"unet/config.json: {n} block_out_channels, {len(down)} down and {len(up)} up block types; "
                                  "all must be as many")
        heads = "num_attention_heads" if c.get("num_attention_heads") else "attention_head_dim"  # the reference's misnomer
        layers = per_level("unet", c, "layers_per_block", n, 2)
        depths = per_level("unet", c, "transformer_layers_per_block", n, 1)
        size = c.get("sample_size") or 64
        sides = [whole("unet", {"sample_size": v}, "sample_size") for v in (size if isinstance(size, list) else [size])]
        version = [int(k) for k in re.findall(r"\d+", str(c.get("_diffusers_version", "1")))[:2]]
        if version < [0, 9] and min(sides) < 64:
            sides = [64]                                     # wrong in files that old, and corrected by diffusers too
        return cls(channels=whole("unet", {"block_out_channels": widths[0]}, "block_out_channels"),
                   heads=per_level("unet", c, heads, n, 8), groups=whole("unet", c, "norm_num_groups", 32),
                   eps=number("unet", c, "norm_eps", 1e-5), flip=bool(c.get("flip_sin_to_cos", True)),
                   shift=number("unet", c, "freq_shift", 0), in_channels=whole("unet", c, "in_channels", 4),
                   down=tuple((k, d if "CrossAttn" in s else 0) for k, d, s in zip(layers, depths, down)),
                   up=tuple((k + 1, d if "CrossAttn" in s else 0) for k, d, s in zip(layers[::-1], depths[::-1], up)),
                   out_channels=whole("unet", c, "out_channels", 4), middle_depth=depths[-1],
                   context_width=whole("unet", c, "cross_attention_dim", 1280), sample_size=(sides[0], sides[-1]),
                   middle=c.get("mid_block_type", "default") is not None)

    def counts(self):
        """{path of a list of layers: how many this network has}, to hold a checkpoint against."""
        n, found = len(self.heads), {"down_blocks": len(self.heads), "up_blocks": len(self.heads)}
        for blocks, sampler, levels in (("down_blocks", "downsamplers", self.down), ("up_blocks", "upsamplers", self.up)):
            for i, (layers, depth) in enumerate(levels):
                found[f"{blocks}.{i}.resnets"] = layers
                found[f"{blocks}.{i}.attentions"] = layers if depth else 0
                found[f"{blocks}.{i}.{sampler}"] = int(i < n - 1)
                found.update({f"{blocks}.{i}.attentions.{k}.transformer_blocks": depth for k in range(layers) if depth})
        found["mid_block.resnets"], found["mid_block.attentions"] = (2, 1) if self.middle else (0, 0)
        if self.middle:
            found["mid_block.attentions.0.transformer_blocks"] = self.middle_depth
        return found


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


def transformer(p, x, context, heads, groups):
    """Pixels attend to each other, then to the text: (B,H,W,C) -> (B,H,W,C).   [LDM] appendix, eq. 15-17."""
    B, H, W, C = x.shape
    h = group_norm(p.norm, x, groups, eps=1e-6)              # 1e-6 here, 1e-5 in the resnets
    h = pointwise(p.proj_in, h.reshape(B, H * W, C))         # positions become a sequence: (B,N,C)
    for block in p.transformer_blocks:
        n = layer_norm(block.norm1, h)
        h = attention(block.attn1, n, n, heads, add=h)
        h = attention(block.attn2, layer_norm(block.norm2, h), context, heads, add=h)
        h = tap(block, feed_forward(block.ff, layer_norm(block.norm3, h), add=h))
    return tap(p, pointwise(p.proj_out, h, add=x.reshape(h.shape)).reshape(x.shape))


def level(p, i, x, temb, context, heads, cfg):
    """The i-th resnet of a level, with the transformer beside it where the level has one."""
    x = resnet(p.resnets[i], x, temb, cfg.groups, cfg.eps)
    return transformer(p.attentions[i], x, context, heads, cfg.groups) if "attentions" in p else x


def time_embedding(p, t, cfg, dtype):
    """t (B,) -> (B,T): sinusoids through a two-layer perceptron."""
    h = ops.timestep_features(t, cfg.channels, cfg.flip, cfg.shift).astype(dtype)
    return tap(p, linear(p.linear_2, ops.silu(linear(p.linear_1, h))))


def down_path(p, x, temb, context, cfg):
    """Everything up to and including the middle: (B,H,W,C) -> (features, skip connections, high resolution first)."""
    skips = [x]
    for down, heads in zip(p.down_blocks, cfg.heads):
        for i in range(len(down.resnets)):
            x = level(down, i, x, temb, context, heads, cfg)
            skips.append(x)
        if "downsamplers" in down:
            x = conv2d(down.downsamplers[0].conv, x, stride=2, pad=(1, 1))
            skips.append(x)
    if "mid_block" in p:
        x = resnet(p.mid_block.resnets[0], x, temb, cfg.groups, cfg.eps)
        x = transformer(p.mid_block.attentions[0], x, context, cfg.heads[-1], cfg.groups)
        x = resnet(p.mid_block.resnets[1], x, temb, cfg.groups, cfg.eps)
    return x, skips


def unet(p, x, t, context, cfg):
    """x (B,H,W,4), t (B,) in 0..999, context (B,M,D) -> predicted noise (B,H,W,4).   Any H and W of 1 or more."""
    temb = time_embedding(p.time_embedding, t, cfg, x.dtype)
    x, skips = down_path(p, conv2d(p.conv_in, x, pad=(1, 1)), temb, context, cfg)
    for up, heads in zip(p.up_blocks, reversed(cfg.heads)):
        for i in range(len(up.resnets)):
            x = level(up, i, ops.concat([x, skips.pop()]), temb, context, heads, cfg)
        if "upsamplers" in up:                               # to the next skip's size, odd ones included
            x = upsample_conv2d(up.upsamplers[0].conv, x, skips[-1].shape[1:3])
    return norm_conv2d(p.conv_norm_out, p.conv_out, x, cfg.groups, cfg.eps)
