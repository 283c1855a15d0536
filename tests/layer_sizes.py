"""Shapes of Stable Diffusion 1.5 and 2.1: of their weights, and of what their layers are given."""

SD15 = dict(channels=(320, 640, 1280, 1280), layers=2, attention=(True, True, True, False), context=768, linear=False)
DECODER = dict(channels=(128, 256, 512, 512), layers=2)

# (B, H, W, C, O) of 3x3 convolutions, how many of them one unet call has; batch 2 for guidance, 64x64 latents
CONVOLUTIONS = {(2, 64, 64, 320, 320): 9, (2, 64, 64, 640, 320): 2, (2, 64, 64, 960, 320): 1, (2, 32, 32, 640, 640): 8,
                (2, 32, 32, 960, 640): 1, (2, 32, 32, 1280, 640): 1, (2, 32, 32, 1920, 640): 1, (2, 16, 16, 1280, 1280): 8,
                (2, 16, 16, 1920, 1280): 1, (2, 16, 16, 2560, 1280): 2, (2, 8, 8, 1280, 1280): 12, (2, 8, 8, 2560, 1280): 3}
# (B, N, M, heads, width of a head): the unet's own of SD 1.5, then what SD 2 and the decoder have
ATTENTIONS = {(2, 4096, 4096, 8, 40): 5, (2, 4096, 77, 8, 40): 5, (2, 1024, 1024, 8, 80): 5, (2, 1024, 77, 8, 80): 5,
              (2, 256, 256, 8, 160): 5, (2, 256, 77, 8, 160): 5, (2, 64, 64, 8, 160): 1, (2, 64, 77, 8, 160): 1}
OTHER_ATTENTIONS = [(2, 4096, 4096, 5, 64), (2, 4096, 4096, 5, 128), (1, 4096, 4096, 1, 512)]
# (rows, inputs, outputs, whether geglu follows)
LINEARS = {(8192, 320, 320, False): 25, (8192, 320, 2560, True): 5, (8192, 1280, 320, False): 5, (2048, 640, 640, False): 25,
           (2048, 640, 5120, True): 5, (2048, 2560, 640, False): 5, (512, 1280, 1280, False): 25, (512, 1280, 10240, True): 5,
           (512, 5120, 1280, False): 5, (154, 768, 320, False): 10, (154, 768, 1280, False): 12}


def resnet(at, C, O, time):
    shapes = {"norm1": (C,), "conv1": (O, C, 3, 3), "norm2": (O,), "conv2": (O, O, 3, 3)}
    shapes |= {"time_emb_proj": (O, time)} if time else {}
    shapes |= {"conv_shortcut": (O, C, 1, 1)} if C != O else {}
    return {f"{at}.{k}": s for k, s in shapes.items()}


def transformer(at, C, context, linear, depth=1, only_cross=False):
    project = (C, C) if linear else (C, C, 1, 1)
    block = {f"norm{i}": (C,) for i in (1, 2, 3)} | {"ff.net.0.proj": (8 * C, C), "ff.net.2": (C, 4 * C)}
    for i, width in ((1, context if only_cross else C), (2, context)):
        block |= {f"attn{i}.to_out.0": (C, C), f"attn{i}.to_q!": (C, C), f"attn{i}.to_k!": (C, width), f"attn{i}.to_v!": (C, width)}
    return {f"{at}.norm": (C,), f"{at}.proj_in": project, f"{at}.proj_out": project} | {
        f"{at}.transformer_blocks.{i}.{k}": s for i in range(depth) for k, s in block.items()}


def with_biases(layers):
    """{layer: shape of its weight} -> {weight name: shape}; a layer marked with ! has no bias."""
    return {name: shape for layer, s in layers.items() for name, shape in
            [(f"{layer.rstrip('!')}.weight", s)] + ([] if layer.endswith("!") else [(f"{layer}.bias", s[:1])])}


def unet_shapes(channels, layers, attention, context, linear):
    """Every weight of such a unet, by name, in the file's layout."""
    first, time, n = channels[0], 4 * channels[0], len(channels)
    found = {"conv_in": (first, 4, 3, 3), "time_embedding.linear_1": (time, first), "time_embedding.linear_2": (time, time)}
    skips, C = [first], first
    for i, O in enumerate(channels):
        for j in range(layers):
            found |= resnet(f"down_blocks.{i}.resnets.{j}", C, O, time)
            found |= transformer(f"down_blocks.{i}.attentions.{j}", O, context, linear) if attention[i] else {}
            C = O
            skips.append(C)
        if i < n - 1:
            found[f"down_blocks.{i}.downsamplers.0.conv"] = (C, C, 3, 3)
            skips.append(C)
    found |= resnet("mid_block.resnets.0", C, C, time) | resnet("mid_block.resnets.1", C, C, time)
    found |= transformer("mid_block.attentions.0", C, context, linear)
    for i, O in enumerate(reversed(channels)):
        for j in range(layers + 1):
            found |= resnet(f"up_blocks.{i}.resnets.{j}", C + skips.pop(), O, time)
            found |= transformer(f"up_blocks.{i}.attentions.{j}", O, context, linear) if attention[n - 1 - i] else {}
            C = O
        if i < n - 1:
            found[f"up_blocks.{i}.upsamplers.0.conv"] = (C, C, 3, 3)
    return with_biases(found | {"conv_norm_out": (C,), "conv_out": (4, C, 3, 3)})


def decoder_shapes(channels, layers):
    """Every weight that decoding a latent needs."""
    C = channels[-1]
    found = {"post_quant_conv": (4, 4, 1, 1), "decoder.conv_in": (C, 4, 3, 3), "decoder.mid_block.attentions.0.group_norm": (C,)}
    found |= {f"decoder.mid_block.attentions.0.{k}": (C, C) for k in ("to_q", "to_k", "to_v", "to_out.0")}
    found |= resnet("decoder.mid_block.resnets.0", C, C, 0) | resnet("decoder.mid_block.resnets.1", C, C, 0)
    for i, O in enumerate(reversed(channels)):
        for j in range(layers + 1):
            found |= resnet(f"decoder.up_blocks.{i}.resnets.{j}", C, O, 0)
            C = O
        if i < len(channels) - 1:
            found[f"decoder.up_blocks.{i}.upsamplers.0.conv"] = (C, C, 3, 3)
    return with_biases(found | {"decoder.conv_norm_out": (C,), "decoder.conv_out": (3, C, 3, 3)})
