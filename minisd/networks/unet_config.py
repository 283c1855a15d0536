"""What the weights of a unet or a ControlNet do not say: its config.json, checked.

The rest of the architecture is read off the checkpoint's tree."""
import re
from dataclasses import dataclass, replace

from ..errors import CheckpointError
from .config import listed, number, per_level, require, whole

ATTENDS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False, "CrossAttnUpBlock2D": True, "UpBlock2D": False}
# What the reference can be told and minisd does not do; the first is what an absent key means.
KNOWN = dict(act_fn=("silu", "swish"), resnet_time_scale_shift=("default",), conv_in_kernel=(3,), conv_out_kernel=(3,),
             time_embedding_type=("positional",), class_embed_type=(None,), addition_embed_type=(None, "text_time"),
             encoder_hid_dim_type=(None,), encoder_hid_dim=(None,), timestep_post_act=(None,), dual_cross_attention=(False,),
             mid_block_only_cross_attention=(None, False), center_input_sample=(False,), attention_type=("default",),
             downsample_padding=(1,), mid_block_scale_factor=(1,), class_embeddings_concat=(False,), time_embedding_dim=(None,),
             time_embedding_act_fn=(None,), cross_attention_norm=(None,), resnet_skip_time_act=(False,), resnet_out_scale_factor=(1.0,),
             dropout=(0.0,), mid_block_type=("UNetMidBlock2DCrossAttn", None))


@dataclass(frozen=True)
class UNetConfig:
    channels: int = 320                     # width of the first level, also of the time features
    heads: tuple = (8, 8, 8, 8)             # attention heads per level, high resolution first
    groups: int = 32
    eps: float = 1e-5
    flip_sin_to_cos: bool = True            # time features: cosines first
    freq_shift: float = 0
    down: tuple = ()                        # per level, how many transformer blocks follow each resnet, to check a checkpoint against
    up: tuple = ()                          # the same; none in a ControlNet
    middle: int = 1                         # transformer blocks there; 0 where a distilled model has no middle
    in_channels: int = 4
    out_channels: int = 4
    cross_attention_dim: int = 768          # numbers a token
    sample_size: tuple = (64, 64)           # height and width of the latent it was trained on
    only_cross: tuple = (False,) * 4        # per level: whether pixels attend only to the text, never to each other
    num_class_embeds: int = 0               # class labels: the upscaler's noise levels; 0 where it has none
    time_cond_proj_dim: int = 0             # width of the guidance embedding of latent consistency models, 0 elsewhere
    addition_time_embed_dim: int = 0        # width of the embedding of each number in SDXL's time_ids
    projection_class_embeddings_input_dim: int = 0       # of these and the pooled text together; 0 where it has neither

    @classmethod
    def read(cls, c, name="unet"):
        """From a UNet2DConditionModel's config.json.  Raises CheckpointError for a network that minisd does not know."""
        require(name, c, **KNOWN)
        widths, down, up = (listed(name, c, k) for k in ("block_out_channels", "down_block_types", "up_block_types"))
        n = len(widths)
        for kind in [*down, *up]:
            require(name, {"block type": kind}, **{"block type": tuple(ATTENDS)})
        if not len(down) == len(up) == n:
            raise CheckpointError(f"{name}/config.json: {n} block_out_channels, {len(down)} down and {len(up)} up block types; "
                                  "all must be as many")
        heads = "num_attention_heads" if c.get("num_attention_heads") else "attention_head_dim"  # the reference's misnomer
        layers, depths = per_level(name, c, "layers_per_block", n, 2), c.get("transformer_layers_per_block", 1)
        if max(layers) > 64:
            raise CheckpointError(f"{name}/config.json: layers_per_block is {c['layers_per_block']!r}; no network has as many")
        depths = depths if isinstance(depths, list) else [depths] * n
        if len(depths) != n:
            raise CheckpointError(f"{name}/config.json: transformer_layers_per_block is {depths!r:.80}; there are {n} levels")
        back, last = c.get("reverse_transformer_layers_per_block") or depths[::-1], depths[-1]
        only_cross = c.get("only_cross_attention") or [False] * n
        if not isinstance(only_cross, list) or len(only_cross) != n:
            raise CheckpointError(f"{name}/config.json: only_cross_attention is {only_cross!r}; minisd knows false, or a list of {n}")
        size, text_time = c.get("sample_size") or 64, c.get("addition_embed_type") == "text_time"
        sides = [whole(name, {"sample_size": v}, "sample_size") for v in (size if isinstance(size, list) else [size])]
        version = [int(k) for k in re.findall(r"[0-9]{1,6}", str(c.get("_diffusers_version", "1")))[:2]]
        if version < [0, 9] and min(sides) < 64:
            sides = [64]                                     # wrong in files that old, and corrected by diffusers too
        return cls(channels=whole(name, {"block_out_channels": widths[0]}, "block_out_channels"),
                   heads=per_level(name, c, heads, n, 8), groups=whole(name, c, "norm_num_groups", 32),
                   eps=number(name, c, "norm_eps", 1e-5), flip_sin_to_cos=bool(c.get("flip_sin_to_cos", True)),
                   freq_shift=number(name, c, "freq_shift", 0), in_channels=whole(name, c, "in_channels", 4),
                   out_channels=whole(name, c, "out_channels", 4), cross_attention_dim=whole(name, c, "cross_attention_dim", 1280),
                   down=blocks(name, "transformer_layers_per_block", depths, layers, down),
                   up=blocks(name, "reverse_transformer_layers_per_block", back, [k + 1 for k in layers[::-1]], up),
                   middle=0 if c.get("mid_block_type", "default") is None else last[0] if isinstance(last, list) else last,
                   sample_size=(sides[0], sides[-1]), only_cross=tuple(bool(c and ATTENDS[kind]) for c, kind in zip(only_cross, down)),
                   num_class_embeds=optional(name, c, "num_class_embeds"), time_cond_proj_dim=optional(name, c, "time_cond_proj_dim"),
                   addition_time_embed_dim=whole(name, c, "addition_time_embed_dim") if text_time else 0,
                   projection_class_embeddings_input_dim=whole(name, c, "projection_class_embeddings_input_dim") if text_time else 0)

    @property
    def is_xl(self):
        """Whether it is conditioned on pooled text and sizes, as Stable Diffusion XL and its refiner are."""
        return self.projection_class_embeddings_input_dim > 0

    @property
    def is_upscaler(self):
        """Whether it is conditioned on a noise level as a class label."""
        return self.num_class_embeds > 0

    @property
    def is_lcm(self):
        """Whether it is conditioned on the guidance scale, as latent consistency models are: one call a step, without guidance."""
        return self.time_cond_proj_dim > 0

    def counts(self):
        """{path of a list of layers: how many this network has}, to check a checkpoint against."""
        n, found = len(self.down), {"mid_block.resnets": 2 if self.middle else 0, "mid_block.attentions": int(self.middle > 0)}
        for path, sampler, levels in (("down_blocks", "downsamplers", self.down), ("up_blocks", "upsamplers", self.up)):
            found.update({path: n} if levels else {})
            for i, depths in enumerate(levels):
                found[f"{path}.{i}.resnets"] = len(depths)
                found[f"{path}.{i}.attentions"] = len(depths) if any(depths) else 0
                found[f"{path}.{i}.{sampler}"] = int(i < n - 1)
                found.update({f"{path}.{i}.attentions.{k}.transformer_blocks": depth for k, depth in enumerate(depths) if depth})
        if self.middle:
            found["mid_block.attentions.0.transformer_blocks"] = self.middle
        return found


@dataclass(frozen=True)
class ControlNetConfig(UNetConfig):
    bgr: bool = False                       # the order of the control picture's colours
    hints: int = 3                          # pairs of convolutions that bring the picture to the latent's size, each halving it

    @classmethod
    def read(cls, c):
        """From a ControlNetModel's config.json.  Raises CheckpointError for a network that minisd does not know."""
        require("controlnet", c, controlnet_conditioning_channel_order=("rgb", "bgr"), global_pool_conditions=(False,),
                conditioning_channels=(3,))
        mirrored = [str(kind).replace("Down", "Up") for kind in listed("controlnet", c, "down_block_types")[::-1]]
        found = UNetConfig.read({**c, "up_block_types": mirrored}, "controlnet")
        return cls(**{**vars(replace(found, up=())), "bgr": c.get("controlnet_conditioning_channel_order") == "bgr",
                      "hints": len(listed("controlnet", {"conditioning_embedding_out_channels": (16, 32, 96, 256), **c},
                                     "conditioning_embedding_out_channels")) - 1})

    def counts(self):
        """As of a unet, and a convolution for each skip connection."""
        return {**super().counts(), "controlnet_cond_embedding.blocks": 2 * self.hints,
                "controlnet_down_blocks": sum(map(len, self.down)) + len(self.down)}


def blocks(name, key, depths, layers, kinds):
    """Per level, the transformer blocks beside each resnet, 0 where the level has none: a config has a number for them all, or a list."""
    if not isinstance(depths, list):
        raise CheckpointError(f"{name}/config.json: {key} is {depths!r}; it must be a list")
    found = []
    for depth, count, kind in zip(depths, layers, kinds):
        each = depth if isinstance(depth, list) else [depth] * count
        if len(depths) != len(kinds) or len(each) != count:
            raise CheckpointError(f"{name}/config.json: {key} is {depths}; there are {len(kinds)} levels of {list(layers)} layers")
        found.append(tuple(whole(name, {key: d}, key) if ATTENDS[kind] else 0 for d in each))
    return tuple(found)


def optional(name, c, key):
    """A whole number of 1 or more, 0 where there is none."""
    return whole(name, c, key) if c.get(key) is not None else 0
