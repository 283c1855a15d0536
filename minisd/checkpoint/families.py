"""What a file with LDM names does not say: its family, by the keys that only this one has, and each network's configuration, by shapes."""
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..errors import CheckpointError
from ..networks.clip_config import TextConfig
from ..networks.unet_config import ControlNetConfig, UNetConfig
from ..networks.vae_config import VAEConfig
from . import ldm
from .ldm import count

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
SCHEDULER = dict(BETAS, steps_offset=1, clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True, prediction_type="epsilon")
UPSCALER = dict(SCHEDULER, beta_start=0.0001, beta_end=0.02, prediction_type="v_prediction")


@dataclass(frozen=True)
class Family:
    texts: tuple                            # (text encoder, prefix, how its names are read)
    sampler: str
    side: int = 64                          # of the latent that it was trained on
    scaling: float = 0.18215                # of the vae
    wide_heads: bool = True                 # 64 numbers a head, however many heads; else 8 heads, however wide
    scheduler: dict = field(default_factory=lambda: SCHEDULER)


WHOLE = partial(ldm.open_clip_names, whole=True)
XL: dict[str, Any] = dict(sampler="EulerDiscreteScheduler", side=128, scaling=0.13025,
                          scheduler=dict(SCHEDULER, timestep_spacing="leading"))
FAMILIES = {  # a beginning that only this family's keys have -> Family, the first that is found
    ldm.XL_OPEN_CLIP: Family((("text_encoder", ldm.XL_CLIP, ldm.clip_names), ("text_encoder_2", ldm.XL_OPEN_CLIP, WHOLE)), **XL),
    ldm.REFINER_CLIP: Family((("text_encoder_2", ldm.REFINER_CLIP, WHOLE),), **XL),
    ldm.UNET + "label_emb.weight": Family((("text_encoder", ldm.OPEN_CLIP, ldm.open_clip_names),), "DDIMScheduler", 128, 0.08333, False,
                                          UPSCALER),
    ldm.OPEN_CLIP: Family((("text_encoder", ldm.OPEN_CLIP, ldm.open_clip_names),), "DDIMScheduler"),
    "": Family((("text_encoder", ldm.CLIP, ldm.clip_names),), "PNDMScheduler", wide_heads=False)}


def text_config(tensors, open_clip):
    length, width = (size(tensors, "embeddings.position_embedding.weight", axis) for axis in (0, 1))
    pooled = size(tensors, "text_projection.weight", 0, 0)
    if count(tensors, "encoder.layers") < 2:
        raise KeyError("every layer but one of the text encoder")
    return TextConfig(heads=max(1, width // 64), act="gelu" if open_clip else "quick_gelu", width=width, length=length,
                           layers=count(tensors, "encoder.layers"), pooled=pooled)


def depths(tensors, path):
    """For each level below `path`, how many transformer blocks follow each resnet."""
    return tuple(tuple(count(tensors, f"{path}.{i}.attentions.{k}.transformer_blocks")
                       for k in range(count(tensors, f"{path}.{i}.resnets"))) for i in range(count(tensors, path)))


def size(tensors, name, axis, absent=None):
    """How large a weight is along an axis; `absent` if there is none and that is not None.

    Raises KeyError if there is none, CheckpointError if it has too few axes, or is empty."""
    if absent is not None and name not in tensors.where:
        return absent
    shape = tensors.shape(name)
    if len(shape) <= max(axis, 1) or 0 in shape:
        raise CheckpointError(f"{name} has shape {shape}; copy or download the file again")
    return shape[axis]


def unet_config(tensors, wide_heads, side, kind=UNetConfig):
    channels, in_channels = size(tensors, "conv_in.weight", 0), size(tensors, "conv_in.weight", 1)
    down = depths(tensors, "down_blocks")
    widths = [size(tensors, f"down_blocks.{i}.resnets.0.conv1.weight", 0) for i in range(len(down))]
    reads = [n for n in tensors if n.endswith("attn2.to_k.weight")]
    if not reads or not any(map(any, down)):
        raise KeyError("every attn2.to_k.weight of the unet")
    context = size(tensors, reads[0], 1)
    first = "down_blocks.{}.attentions.0.transformer_blocks.0.attn1.to_k.weight"
    only_cross = tuple(any(d) and size(tensors, first.format(i), 1) != w for i, (d, w) in enumerate(zip(down, widths)))
    added, classes = size(tensors, "add_embedding.linear_1.weight", 1, 0), size(tensors, "class_embedding.weight", 0, 0)
    out, guided = size(tensors, "conv_out.weight", 0, in_channels), size(tensors, "time_embedding.cond_proj.weight", 1, 0)
    return kind(channels=channels, heads=tuple(max(1, w // 64) if wide_heads else 8 for w in widths), in_channels=in_channels,
                out_channels=out, cross_attention_dim=context, down=down, up=depths(tensors, "up_blocks"), only_cross=only_cross,
                middle=count(tensors, "mid_block.attentions.0.transformer_blocks"), sample_size=(side, side),
                projection_class_embeddings_input_dim=added, addition_time_embed_dim=256 if added else 0, num_class_embeds=classes,
                time_cond_proj_dim=guided)


def controlnet_config(tensors):
    found = unet_config(tensors, True, 64, ControlNetConfig)
    return found if found.cross_attention_dim > 768 else replace(found, heads=(8,) * len(found.heads))       # SD 1 has 8 heads


def vae_config(tensors, scaling):
    return VAEConfig(levels=count(tensors, "decoder.up_blocks"), layers=count(tensors, "encoder.down_blocks.0.resnets"),
                         latent_channels=size(tensors, "post_quant_conv.weight", 0), scaling_factor=scaling, in_float32=True)
