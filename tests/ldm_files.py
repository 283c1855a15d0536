"""Every key of a Stable Diffusion checkpoint in one file, as CompVis' and Stability's code names them, with its shape."""
import drawn_models
import numpy as np
from layer_sizes import transformer, with_biases
from safetensors.numpy import save_file

UNET = dict(channels=(32, 64, 64, 64), layers=2, attention=(True, True, True, False), context=64)
VAE = dict(channels=(32, 32, 64, 64), layers=2)
TEXT = dict(width=64, layers=3, length=77)


def resnet(at, C, O, time):
    shapes = {"in_layers.0": (C,), "in_layers.2": (O, C, 3, 3), "emb_layers.1": (O, time), "out_layers.0": (O,),
              "out_layers.3": (O, O, 3, 3)}
    return {f"{at}.{k}": s for k, s in shapes.items()} | ({f"{at}.skip_connection": (O, C, 1, 1)} if C != O else {})


def unet(channels, layers, attention, context, linear, in_channels=4, middle=None, added=0, classes=0, only_cross=None, control=False):
    """attention: transformer blocks beside each resnet of a level, 0 for none, and of the middle, the last level's if None;
    only_cross: per level;  control: whether it is a ControlNet, which has no second half"""
    first, time, n = channels[0], 4 * channels[0], len(channels)
    crossed = only_cross or [False] * n
    found = {"input_blocks.0.0": (first, in_channels, 3, 3), "time_embed.0": (time, first), "time_embed.2": (time, time)}
    found |= {"label_emb.0.0": (time, added), "label_emb.0.2": (time, time)} if added else {}
    found |= {"label_emb!": (classes, time)} if classes else {}
    skips, C, i = [first], first, 1
    for level, O in enumerate(channels):
        for _ in range(layers):
            found |= resnet(f"input_blocks.{i}.0", C, O, time)
            depth = int(attention[level])
            found |= transformer(f"input_blocks.{i}.1", O, context, linear, depth, crossed[level]) if depth else {}
            C, i = O, i + 1
            skips.append(C)
        if level < n - 1:
            found[f"input_blocks.{i}.0.op"] = (C, C, 3, 3)
            skips.append(C)
            i += 1
    depth = int(attention[-1] or 1) if middle is None else middle
    found |= resnet("middle_block.0", C, C, time) | resnet("middle_block.2", C, C, time)
    found |= transformer("middle_block.1", C, context, linear, depth)
    if control:
        found |= {f"zero_convs.{i}.0": (width, width, 1, 1) for i, width in enumerate(skips)} | {"middle_block_out.0": (C, C, 1, 1)}
        widths = [3, 16, 16, 32, 32, 96, 96, 256, first]
        found |= {f"input_hint_block.{2 * i}": (b, a, 3, 3) for i, (a, b) in enumerate(zip(widths, widths[1:]))}
        return with_biases(found)
    i = 0
    for level, O in reversed(list(enumerate(channels))):
        for j in range(layers + 1):
            found |= resnet(f"output_blocks.{i}.0", C + skips.pop(), O, time)
            depth = int(attention[level])
            found |= transformer(f"output_blocks.{i}.1", O, context, linear, depth, crossed[level]) if depth else {}
            if j == layers and level:
                found[f"output_blocks.{i}.{2 if depth else 1}.conv"] = (O, O, 3, 3)
            C, i = O, i + 1
    return with_biases(found | {"out.0": (C,), "out.2": (4, C, 3, 3)})


def vae(channels, layers):
    def block(at, C, O):
        shapes = {"norm1": (C,), "conv1": (O, C, 3, 3), "norm2": (O,), "conv2": (O, O, 3, 3)}
        return {f"{at}.{k}": s for k, s in shapes.items()} | ({f"{at}.nin_shortcut": (O, C, 1, 1)} if C != O else {})

    def middle(half, C):
        found = block(f"{half}.mid.block_1", C, C) | block(f"{half}.mid.block_2", C, C) | {f"{half}.mid.attn_1.norm": (C,)}
        return found | {f"{half}.mid.attn_1.{k}": (C, C, 1, 1) for k in ("q", "k", "v", "proj_out")}

    first, last, n = channels[0], channels[-1], len(channels)
    found, C = {"encoder.conv_in": (first, 3, 3, 3), "quant_conv": (8, 8, 1, 1), "post_quant_conv": (4, 4, 1, 1)}, first
    for i, O in enumerate(channels):
        for j in range(layers):
            found |= block(f"encoder.down.{i}.block.{j}", C, O)
            C = O
        found |= {f"encoder.down.{i}.downsample.conv": (C, C, 3, 3)} if i < n - 1 else {}
    found |= middle("encoder", last) | {"encoder.norm_out": (last,), "encoder.conv_out": (8, last, 3, 3)}
    found["decoder.conv_in"] = last, 4, 3, 3
    found |= middle("decoder", last)
    for i, O in reversed(list(enumerate(channels))):
        for j in range(layers + 1):
            found |= block(f"decoder.up.{i}.block.{j}", C, O)
            C = O
        found |= {f"decoder.up.{i}.upsample.conv": (C, C, 3, 3)} if i else {}
    return with_biases(found | {"decoder.norm_out": (C,), "decoder.conv_out": (3, C, 3, 3)})


def clip(width, layers, length):
    found = {"final_layer_norm": (width,)}
    for i in range(layers):
        found |= {f"encoder.layers.{i}.layer_norm{k}": (width,) for k in (1, 2)}
        found |= {f"encoder.layers.{i}.self_attn.{k}_proj": (width, width) for k in ("q", "k", "v", "out")}
        found |= {f"encoder.layers.{i}.mlp.fc1": (4 * width, width), f"encoder.layers.{i}.mlp.fc2": (width, 4 * width)}
    return {f"text_model.{k}": s for k, s in {**with_biases(found), "embeddings.token_embedding.weight": (49408, width),
                                              "embeddings.position_embedding.weight": (length, width)}.items()}


def open_clip(width, layers, length):
    """All layers, of which SD 2 does not read the last."""
    found = {"ln_final": (width,)}
    for i in range(layers):
        found |= {f"transformer.resblocks.{i}.ln_{k}": (width,) for k in (1, 2)}
        found |= {f"transformer.resblocks.{i}.attn.out_proj": (width, width), f"transformer.resblocks.{i}.mlp.c_fc": (4 * width, width),
                  f"transformer.resblocks.{i}.mlp.c_proj": (width, 4 * width)}
    attention = {f"transformer.resblocks.{i}.attn.in_proj_{kind}": (3 * width, width)[:1 + (kind == "weight")]
                 for i in range(layers) for kind in ("weight", "bias")}
    return {**with_biases(found), **attention, "positional_embedding": (length, width), "token_embedding.weight": (49408, width),
            "text_projection": (width, width), "logit_scale": ()}


# family -> (LDM prefix of each text encoder, what its names are made by); whether attention has 64 numbers a head and linear layers
FAMILIES = {"SD 1": ([("cond_stage_model.transformer.", clip)], False), "SD 2": ([("cond_stage_model.model.", open_clip)], True),
            "XL": ([("conditioner.embedders.0.transformer.", clip), ("conditioner.embedders.1.model.", open_clip)], True),
            "refiner": ([("conditioner.embedders.0.model.", open_clip)], True),
            "upscaler": ([("cond_stage_model.model.", open_clip)], True)}
# family -> what of its unet is unlike UNET's, of its vae, of each text encoder's layers
SMALL = {"SD 1": ({}, {}, [TEXT]), "SD 2": ({}, {}, [dict(TEXT, layers=4)]),
         "XL": (dict(channels=(32, 64, 64), attention=(0, 2, 3), context=128, added=6 * 256 + 64), {}, [TEXT, TEXT]),
         "refiner": (dict(attention=(0, 2, 2, 0), middle=2, added=5 * 256 + 64), {}, [TEXT]),
         "upscaler": (dict(channels=(32, 32, 32, 64), attention=(0, 1, 1, 1), in_channels=7, classes=1000, context=64,
                           only_cross=(True, True, True, False)), dict(channels=(32, 32, 64)), [dict(TEXT, layers=4)])}


def keys(family="SD 1", in_channels=None, sizes=None):
    """{key: shape} of a whole file.  sizes: as SMALL has them."""
    unet_sizes, vae_sizes, texts = sizes or SMALL[family]
    encoders, linear = FAMILIES[family]
    how = {**UNET, **unet_sizes, **({} if in_channels is None else dict(in_channels=in_channels)), "linear": linear}
    found = {f"model.diffusion_model.{k}": s for k, s in unet(**how).items()}
    found |= {f"first_stage_model.{k}": s for k, s in vae(**{**VAE, **vae_sizes}).items()}
    for (prefix, names), text in zip(encoders, texts):
        found |= {f"{prefix}{k}": s for k, s in names(**text).items()}
    return {**found, "alphas_cumprod": (1000,), "model_ema.decay": ()}


def arrays(family="SD 1", **how):
    """Drawn by name, as the goldens' weights are."""
    return {k: np.asarray(drawn_models.weight(k, s)) for k, s in keys(family, **how).items()}


def write(path, family, **how):
    save_file(arrays(family, **how), path)
    return path
