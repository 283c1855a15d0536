"""Every key of a Stable Diffusion checkpoint in one file, as CompVis' and Stability's code names them, with its shape."""
import numpy as np
import recipe
from safetensors.numpy import save_file
from sizes import transformer, with_biases

UNET = dict(channels=(32, 64, 64, 64), layers=2, attention=(True, True, True, False), context=64)
VAE = dict(channels=(32, 32, 64, 64), layers=2)
TEXT = dict(width=64, layers=3, length=77)


def resnet(at, C, O, time):
    shapes = {"in_layers.0": (C,), "in_layers.2": (O, C, 3, 3), "emb_layers.1": (O, time), "out_layers.0": (O,),
              "out_layers.3": (O, O, 3, 3)}
    return {f"{at}.{k}": s for k, s in shapes.items()} | ({f"{at}.skip_connection": (O, C, 1, 1)} if C != O else {})


def unet(channels, layers, attention, context, linear, in_channels=4):
    first, time, n = channels[0], 4 * channels[0], len(channels)
    found = {"input_blocks.0.0": (first, in_channels, 3, 3), "time_embed.0": (time, first), "time_embed.2": (time, time)}
    skips, C, i = [first], first, 1
    for level, O in enumerate(channels):
        for _ in range(layers):
            found |= resnet(f"input_blocks.{i}.0", C, O, time)
            found |= transformer(f"input_blocks.{i}.1", O, context, linear) if attention[level] else {}
            C, i = O, i + 1
            skips.append(C)
        if level < n - 1:
            found[f"input_blocks.{i}.0.op"] = (C, C, 3, 3)
            skips.append(C)
            i += 1
    found |= resnet("middle_block.0", C, C, time) | transformer("middle_block.1", C, context, linear) | resnet("middle_block.2", C, C, time)
    i = 0
    for level, O in reversed(list(enumerate(channels))):
        for j in range(layers + 1):
            found |= resnet(f"output_blocks.{i}.0", C + skips.pop(), O, time)
            found |= transformer(f"output_blocks.{i}.1", O, context, linear) if attention[level] else {}
            if j == layers and level:
                found[f"output_blocks.{i}.{1 + attention[level]}.conv"] = (O, O, 3, 3)
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
    """One layer more than is read."""
    found = {"ln_final": (width,)}
    for i in range(layers + 1):
        found |= {f"transformer.resblocks.{i}.ln_{k}": (width,) for k in (1, 2)}
        found |= {f"transformer.resblocks.{i}.attn.out_proj": (width, width), f"transformer.resblocks.{i}.mlp.c_fc": (4 * width, width),
                  f"transformer.resblocks.{i}.mlp.c_proj": (width, 4 * width)}
    attention = {f"transformer.resblocks.{i}.attn.in_proj_{kind}": (3 * width, width)[:1 + (kind == "weight")]
                 for i in range(layers + 1) for kind in ("weight", "bias")}
    return {**with_biases(found), **attention, "positional_embedding": (length, width), "token_embedding.weight": (49408, width),
            "text_projection": (width, width), "logit_scale": ()}


def keys(second, in_channels=4, unet_sizes=UNET, vae_sizes=VAE, text_sizes=TEXT):
    """{key: shape} of a whole file, of SD 2 if `second`."""
    text = {f"cond_stage_model.model.{k}": s for k, s in open_clip(**text_sizes).items()} if second else {
        f"cond_stage_model.transformer.{k}": s for k, s in clip(**text_sizes).items()}
    return {**{f"model.diffusion_model.{k}": s for k, s in unet(**unet_sizes, linear=second, in_channels=in_channels).items()},
            **{f"first_stage_model.{k}": s for k, s in vae(**vae_sizes).items()}, **text, "alphas_cumprod": (1000,), "model_ema.decay": ()}


def arrays(second, **how):
    """Drawn by name, as the goldens' weights are."""
    return {k: np.asarray(recipe.weight(k, s)) for k, s in keys(second, **how).items()}


def write(path, second, **how):
    save_file(arrays(second, **how), path)
    return path
