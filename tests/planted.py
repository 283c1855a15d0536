"""Mistakes planted in diffusers, one at a time, and what `minisd compare` says of each: python tests/planted.py   (needs '.[goldens]')

On small drawn models of Stable Diffusion 1, 2 and XL: the right layer must be named, no other beside it, and the mistake itself in at least
20 of 24; of three at once, all three; of none, in float32, float16 and bfloat16, no fault."""
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import golden_checks
import make_goldens
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import minisd

sys.path.insert(0, str(Path(__file__).parent.parent / "docs" / "record"))
import diffusers_recorder  # noqa: E402

warnings.simplefilter("ignore")
FAMILIES = "sd1", "turbo", "xl"                              # the second has the networks of Stable Diffusion 2


def attend(attn, x, context, heads=None, scale=None, interleaved=False, causal=False):
    """What an attention module should do, and may do otherwise."""
    q, k, v = attn.to_q(x), attn.to_k(context), attn.to_v(context)
    heads = heads or attn.heads

    def split(a):
        if interleaved:
            return a.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)
        return a.unflatten(-1, (heads, -1)).transpose(1, 2)

    o = F.scaled_dot_product_attention(split(q), split(k), split(v), scale=scale, is_causal=causal)
    o = o.permute(0, 2, 3, 1).flatten(2) if interleaved else o.transpose(1, 2).flatten(2)
    return attn.to_out[0](o)


def attends(attn, **how):
    """This module attends in another way."""
    def forward(hidden_states, encoder_hidden_states=None, **_):
        return attend(attn, hidden_states, hidden_states if encoder_hidden_states is None else encoder_hidden_states, **how)
    attn.forward = forward


def clip_attends(attn, scale=None, causal=True):
    def forward(hidden_states, *_, **__):
        q, k, v = (f(hidden_states).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for f in (attn.q_proj, attn.k_proj, attn.v_proj))
        o = F.scaled_dot_product_attention(q, k, v, scale=scale, is_causal=causal)
        return attn.out_proj(o.transpose(1, 2).flatten(2)), None
    attn.forward = forward


def group_norm(norm, unbiased=False, interleaved=False, groups=None):
    """The module computes this instead."""
    def forward(x):
        G = groups or norm.num_groups
        B, C = x.shape[:2]
        y = x.reshape(B, C, -1)
        y = y.unflatten(1, (C // G, G)).transpose(1, 2) if interleaved else y.unflatten(1, (G, C // G))
        y = (y - y.mean((2, 3), keepdim=True)) / (y.var((2, 3), keepdim=True, unbiased=unbiased) + norm.eps).sqrt()
        y = (y.transpose(1, 2) if interleaved else y).reshape(B, C, -1)
        return (y * norm.weight[:, None] + norm.bias[:, None]).reshape(x.shape)
    norm.forward = forward


def without_residual(block, which):
    """A transformer block whose attention `which` is not added to what went in."""
    def forward(hidden_states, encoder_hidden_states=None, **_):
        h = hidden_states
        for k, (norm, attn) in enumerate(((block.norm1, block.attn1), (block.norm2, block.attn2)), start=1):
            a = attn(norm(h), encoder_hidden_states=None if k == 1 else encoder_hidden_states)
            h = a if k == which else a + h
        return block.ff(block.norm3(h)) + h
    block.forward = forward


def in_front(module, change):
    """What goes into a module, changed."""
    module.register_forward_pre_hook(lambda module, given: (change(given[0]), *given[1:]))


def first_block(unet):
    return unet.down_blocks[1].attentions[0].transformer_blocks[0]


BLOCK = "unet.down_blocks.1.attentions.0.transformer_blocks.0"


# ---- the mistakes: each takes a pipeline ------------------------------------------------------------------------


def gelu_by_tanh(pipe):
    pipe.text_encoder.encoder.layers[1].mlp.activation_fn = torch.nn.GELU(approximate="tanh")


def gelu_by_quick(pipe):
    pipe.text_encoder.encoder.layers[0].mlp.activation_fn = torch.nn.Module()
    pipe.text_encoder.encoder.layers[0].mlp.activation_fn.forward = lambda x: x * torch.sigmoid(1.702 * x)


def no_causal_mask(pipe):
    clip_attends(pipe.text_encoder.encoder.layers[0].self_attn, causal=False)


def clip_unscaled(pipe):
    clip_attends(pipe.text_encoder.encoder.layers[1].self_attn, scale=1.0)


def penultimate(pipe):
    kept = []
    pipe.text_encoder.encoder.layers[-2].register_forward_hook(lambda m, given, out: kept.append(out[0] if isinstance(out, tuple) else out))
    in_front(pipe.text_encoder.final_layer_norm, lambda x: kept[-1])


def no_final_norm(pipe):
    pipe.text_encoder.final_layer_norm.forward = lambda x: x


def no_silu(pipe):
    pipe.unet.conv_act = torch.nn.Identity()


def eps(pipe):
    pipe.unet.down_blocks[0].attentions[0].norm.eps = 1e-5


def sample_variance(pipe):
    group_norm(pipe.unet.mid_block.resnets[1].norm2, unbiased=True)


def groups_interleaved(pipe):
    group_norm(pipe.unet.up_blocks[1].resnets[0].norm1, interleaved=True)


def number_of_groups(pipe):
    group_norm(pipe.vae.decoder.conv_norm_out, groups=pipe.vae.decoder.conv_norm_out.num_groups // 2)


def unscaled(pipe):
    attends(first_block(pipe.unet).attn1, scale=1.0)


def heads_interleaved(pipe):
    attends(first_block(pipe.unet).attn2, interleaved=True)


def halves_exchanged(pipe):
    net = first_block(pipe.unet).ff.net[0]

    def forward(x):
        gate, h = net.proj(x).chunk(2, dim=-1)
        return h * F.gelu(gate)
    net.forward = forward


def gate_by_tanh(pipe):
    net = first_block(pipe.unet).ff.net[0]

    def forward(x):
        h, gate = net.proj(x).chunk(2, dim=-1)
        return h * F.gelu(gate, approximate="tanh")
    net.forward = forward


def no_bias(pipe):
    pipe.unet.down_blocks[0].downsamplers[0].conv.bias.data.zero_()


def no_residual(pipe):
    without_residual(first_block(pipe.unet), 1)


def no_skip_of_resnet(pipe):
    resnet = pipe.unet.mid_block.resnets[0]
    usual = resnet.forward
    resnet.forward = lambda x, *rest, **more: usual(x, *rest, **more) - x


def skip_first(pipe):
    block = pipe.unet.up_blocks[1].resnets[1]
    skips = pipe.unet.up_blocks[1].resnets[1].in_channels - pipe.unet.up_blocks[1].resnets[0].out_channels
    in_front(block, lambda x: torch.cat([x[:, -skips:], x[:, :-skips]], 1))


def sines_first(pipe):
    pipe.unet.time_proj.flip_sin_to_cos = False


def timestep_offset(pipe):
    in_front(pipe.unet.time_proj, lambda t: t + 1)


def wrong_side(pipe):
    down = pipe.vae.encoder.down_blocks[0].downsamplers[0]
    down.forward = lambda x, *_, **__: down.conv(F.pad(x, (1, 0, 1, 0)))


def bilinear(pipe):
    up = pipe.vae.decoder.up_blocks[0].upsamplers[0]
    up.forward = lambda x, *_, **__: up.conv(F.interpolate(x, scale_factor=2.0, mode="bilinear"))


def no_scaling(pipe):
    scale = pipe.vae.config.scaling_factor
    in_front(pipe.vae.post_quant_conv, lambda z: z * scale)


def transposed(pipe):
    weight = pipe.vae.decoder.mid_block.attentions[0].to_q.weight
    weight.data = weight.data.T.contiguous()


def flipped(pipe):
    conv = pipe.vae.decoder.conv_in
    conv.weight.data = conv.weight.data.flip(2, 3)


# (family, mistake, the layer that shows it first, words that say what it is)
PLANTED = [
    ("sd1", gelu_by_tanh, "text_encoder.encoder.layers.1.mlp.fc2", "GELU by tanh"),
    ("turbo", gelu_by_quick, "text_encoder.encoder.layers.0.mlp.fc2", "GELU by quick"),
    ("sd1", no_causal_mask, "text_encoder.encoder.layers.0.self_attn.out_proj", "causal mask left out"),
    ("turbo", clip_unscaled, "text_encoder.encoder.layers.1.self_attn.out_proj", "scores not divided by sqrt(d)"),
    ("sd1", penultimate, "text_encoder.final_layer_norm", "the layer before"),
    ("turbo", no_final_norm, "text_encoder.final_layer_norm", "norm left out"),
    ("sd1", no_silu, "unet.conv_out", "silu left out"),
    ("sd1", eps, "unet.down_blocks.0.attentions.0.norm", "eps 1e-05 for 1e-06"),
    ("turbo", sample_variance, "unet.mid_block.resnets.1.norm2", "n - 1"),
    ("xl", groups_interleaved, "unet.up_blocks.1.resnets.0.norm1", "not of neighbours"),
    ("sd1", number_of_groups, "vae.decoder.conv_norm_out", "groups for"),
    ("xl", unscaled, f"{BLOCK}.attn1.to_out.0", "scores not divided by sqrt(d)"),
    ("sd1", heads_interleaved, f"{BLOCK}.attn2.to_out.0", "heads split the other way"),
    ("turbo", halves_exchanged, f"{BLOCK}.ff.net.0", "halves of GEGLU exchanged"),
    ("xl", gate_by_tanh, f"{BLOCK}.ff.net.0", "GELU by tanh"),
    ("sd1", no_bias, "unet.down_blocks.0.downsamplers.0.conv", "bias left out"),
    ("xl", no_residual, f"{BLOCK}.norm2", "an addition left out"),
    ("turbo", no_skip_of_resnet, "unet.mid_block.resnets.0", "an addition left out"),
    ("sd1", skip_first, "unet.up_blocks.1.resnets.1.norm1", "skip connection before the features"),
    ("xl", sines_first, "unet.time_embedding.linear_1", "sines before cosines"),
    ("sd1", timestep_offset, "unet.time_embedding.linear_1", "timestep off by 1"),
    ("sd1", wrong_side, "vae.encoder.down_blocks.0.downsamplers.0.conv", "pads (1, 1)"),
    ("turbo", bilinear, "vae.decoder.up_blocks.0.upsamplers.0.conv", "bilinear for nearest"),
    ("xl", no_scaling, "vae.post_quant_conv", "scaling factor left out"),
    ("sd1", transposed, "vae.decoder.mid_block.attentions.0.to_q", "weights transposed"),
    ("turbo", flipped, "vae.decoder.conv_in", "filter flipped"),
]
AT_ONCE = [("sd1", [gelu_by_tanh, eps, wrong_side]), ("turbo", [clip_unscaled, halves_exchanged, flipped]),
           ("xl", [groups_interleaved, no_residual, no_scaling])]


def engine(family):
    pipe = make_goldens.family_pipeline(family, "txt2img", [], 4, None)
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        if getattr(pipe, part, None) is not None:
            getattr(pipe, part).eval().requires_grad_(False)
    return pipe


class Bench:
    """Recordings of each family, and what is said of an engine."""

    def __init__(self, folder):
        self.folder, self.models = folder, {}
        for family in FAMILIES:
            self.models[family] = minisd.load(golden_checks.write_family(folder / family, family))
            minisd.record(self.models[family], folder / f"{family} recorded", width=96, height=64)

    def said_of(self, family, mistakes, dtype=torch.float32):
        with changed(engine(family), mistakes, dtype) as pipe:
            seen = diffusers_recorder.record(pipe, load_file(self.folder / f"{family} recorded" / "inputs.safetensors"), dtype)
        save_file(seen, self.folder / "outputs.safetensors")
        return minisd.compare(self.folder / f"{family} recorded", self.folder / "outputs.safetensors", self.models[family])


@contextmanager
def changed(pipe, mistakes, dtype):
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        if getattr(pipe, part, None) is not None:
            getattr(pipe, part).to(dtype)
    for mistake in mistakes:
        mistake(pipe)
    yield pipe


def said(row):
    return f"{row.layer}: {row.says}"


def main():
    make_goldens.quiet()
    wrong = right_words = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for family in FAMILIES:
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                found = bench.said_of(family, [], dtype)
                fine = found.exit_code == 0 and set(found.precision.values()) == {str(dtype).removeprefix("torch.")}
                wrong += not fine
                worst = max(row.local / row.noise for row in found.rows)
                print(f"{'' if fine else 'WRONG: '}{family} untouched in {dtype}: worst {worst:.1f} times the noise; "
                      f"{found.verdict.splitlines()[-1]}", flush=True)
        for family, mistake, layer, words in PLANTED:
            found = bench.said_of(family, [mistake])
            named = [row.layer for row in found.faults] == [layer]
            right_words += named and words in found.faults[0].says
            wrong += not named
            print(f"{'' if named else 'WRONG: '}{family} {mistake.__name__}: {'; '.join(map(said, found.faults)) or '-'}", flush=True)
        for family, mistakes in AT_ONCE:
            found = bench.said_of(family, mistakes)
            expected = {layer for f, m, layer, _ in PLANTED for mistake in mistakes if m is mistake and f == family}
            named = {row.layer for row in found.faults} == expected
            wrong += not named
            print(f"{'' if named else 'WRONG: '}{family} {' + '.join(m.__name__ for m in mistakes)}: "
                  f"{'; '.join(map(said, found.faults))}", flush=True)
    print(f"{len(PLANTED)} mistakes, {wrong} wrong answers, {right_words} explained")
    return 1 if wrong or right_words < len(PLANTED) - 4 else 0


if __name__ == "__main__":
    sys.exit(main())
