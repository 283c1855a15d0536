"""Writes docs/unet.md: the U of a unet with the shapes that a call has, found by a dry run of the model file on shapes alone.

    python docs/pictures/unet.py"""
import gzip
import json
from pathlib import Path

import minisd
from minisd.checkpoint.shapes import Shape
from minisd.checkpoint.weights import Weights, engine_shape
from minisd.networks import unet
from minisd.networks.unet_config import UNetConfig

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "unet.md"
SD15 = dict(channels=320, heads=(8, 8, 8, 8), cross_attention_dim=768)       # the rest is read off the weights
INTRO = """# The unet with its numbers

One call of the noise predictor for one picture with guidance, so B = 2. Follow the left column down and the right column up: each line is
a resnet (with the transformer after it, where the level has them), named as in the checkpoint, with its channels in and out. What the
left side of a line gives is kept and concatenated to the input of its right side, which is why the channels there are the sum of two.
The code is [minisd/networks/unet.py](../minisd/networks/unet.py). Written by `python docs/pictures/unet.py` from a dry run.
"""


def seen_in(shapes, config, M):
    """{layer: Shape of its output} of one call, and the weights' shapes as a tree.  shapes: as the file has them"""
    p = Weights.over(shapes, lambda name: Shape(engine_shape(shapes[name]), name))
    with minisd.trace() as seen:
        x, context = Shape((2, *config.sample_size, config.in_channels)), Shape((2, M, config.cross_attention_dim))
        unet.unet(p, x, Shape((2,)), context, config)
    return seen, p


def words(seen, p, config, block, i, level):
    """One resnet of a block: its name, channels in and out, and the transformer's heads -> text"""
    node = p[block[0]][block[1]]
    name, C = f"{block[0]}.{block[1]}.resnets.{i}", node.resnets[i].norm1.weight.shape[0]
    O = seen[name].shape[-1]
    heads = f", {config.heads[level]} heads of {O // config.heads[level]}" if "attentions" in node else ""
    return f"{name}  {C} -> {O}{heads}"


def drawing(shapes, config, M):
    """The U as lines of text."""
    seen, p = seen_in(shapes, config, M)
    size = "{0[1]}x{0[2]}".format
    left = [(size(seen["conv_in"].shape), f"conv_in  {config.in_channels} -> {config.channels}", config.channels)]
    for k, down in enumerate(p.down_blocks):
        for i in range(len(down.resnets)):
            y = seen[f"down_blocks.{k}.{'attentions' if 'attentions' in down else 'resnets'}.{i}"].shape
            left.append((size(y), words(seen, p, config, ("down_blocks", k), i, k), y[-1]))
        if "downsamplers" in down:
            y = seen[f"down_blocks.{k}.downsamplers.0.conv"].shape
            left.append((size(y), f"down_blocks.{k}.downsamplers.0  {y[-1]} -> {y[-1]}", y[-1]))
    right = []
    for k, up in enumerate(p.up_blocks):
        for i in range(len(up.resnets)):
            grows = "upsamplers" in up and i == len(up.resnets) - 1
            right.append(words(seen, p, config, ("up_blocks", k), i, len(p.up_blocks) - 1 - k) + ("; then upsamplers.0" if grows else ""))
    wide = max(len(text) for _, text, _ in left)
    lines, before = [], None
    for (where, text, kept), other in zip(left, right[::-1]):
        lines.append(f"{where if where != before else '':<7}{text:<{wide}}  --{kept:->5}-->  {other}")
        before = where
    C = p.mid_block.resnets[0].norm1.weight.shape[0]
    lines.append(f"{'':<7}mid_block: resnets.0, attentions.0 ({config.heads[-1]} heads of {C // config.heads[-1]}), resnets.1  {C} -> {C}")
    top = f"{'':<7}{'x: 2x' + size(seen['conv_in'].shape) + 'x' + str(config.in_channels):<{wide}}  {'':<11}  "
    return "\n".join([top + f"conv_norm_out, conv_out  {config.channels} -> {config.out_channels}", *lines])


def page():
    real = json.loads(gzip.decompress((ROOT / "tests" / "goldens" / "keys.json.gz").read_bytes()))["SD 1.5"]["unet"]
    shipped = minisd.load().model
    depths = dict(down=((1, 1),) * 3 + ((0, 0),), up=((0,) * 3,) + ((1, 1, 1),) * 3)
    parts = [("Stable Diffusion 1.5 at 512x512", "The text is 2x77x768, the time embedding 2x1280.", real,
              UNetConfig(**SD15, **depths), 77)]
    c, M = shipped.unet_config, shipped.text_encoders[0].config.length
    about = f"The text is 2x{M}x{c.cross_attention_dim}; it predicts v."
    parts.append(("The shipped model at 128x128", about, shipped.checkpoint.unet.shapes(), c, M))
    text = INTRO
    for title, about, shapes, config, M in parts:
        text += f"\n## {title}\n\n{about}\n\n```text\n{drawing(shapes, config, M)}\n```\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
