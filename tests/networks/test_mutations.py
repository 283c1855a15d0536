"""The goldens catch what they are meant to catch: each small, plausible mistake must turn one of them red."""
import math

import drawn_models
import golden_cases
import golden_checks
import numpy as np
import pytest
from golden_checks import Golden

from minisd import conditioning, controlnets, tasks
from minisd.backend import ops
from minisd.checkpoint.vocabulary import read_vocabulary
from minisd.diffusion import guidance, rng, samplers, schedules
from minisd.image import pixels as images
from minisd.networks import controlnet, nn, unet, vae
from minisd.prompt.tokenizer import Tokenizer


def off(model):
    """Whether any case of the model's golden is off."""
    return any(golden_checks.first_off(errors) for errors in golden_checks.compare_model(model).values())


def wrapped(function, **changed):
    return lambda *args, **kwargs: function(*args, **{**kwargs, **changed})


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def eps_for(layer, found, instead):
    """A layer of nn.py with another eps wherever `found` is asked for."""
    def mutated(*args, **kwargs):
        return layer(*(instead if type(a) is float and a == found else a for a in args),
                     **{k: instead if k == "eps" and a == found else a for k, a in kwargs.items()})
    return mutated


def truncated(array):
    from PIL import Image
    return [Image.fromarray((a * 255).astype(np.uint8)) for a in array]


MODEL_MUTATIONS = {
    "resnet eps 1e-6 for 1e-5": ("unet_sd1", unet, "residual_block", eps_for(nn.residual_block, 1e-5, 1e-6)),
    "transformer eps 1e-5 for 1e-6": ("unet_sd1", unet, "group_norm", eps_for(nn.group_norm, 1e-6, 1e-5)),
    "vae eps 1e-5 for 1e-6": ("vae", vae, "EPS", 1e-5),
    "layer norm eps": ("unet_sd2", unet, "layer_norm", wrapped(nn.layer_norm, eps=1e-6)),
    "sines before cosines": ("unet_sd1", ops, "timestep_features",
                             lambda t, dim, flip, shift, f=ops.timestep_features: f(t, dim, False, shift)),
    "frequency shift": ("unet_sd1", ops, "timestep_features",
                        lambda t, dim, flip, shift, f=ops.timestep_features: f(t, dim, flip, 1)),
    "tanh gelu in the unet": ("unet_sd1", ops, "gelu", tanh_gelu),
    "gate and hidden swapped": ("unet_sd2", ops, "geglu", lambda x, f=ops.geglu: f(np.roll(x, x.shape[-1] // 2, -1))),
    "decoder upsampling by crop at the wrong end": ("unet_sd1", ops, "upsample_to",
                                                    lambda x, size: x.repeat(2, 1).repeat(2, 2)[:, -size[0]:, -size[1]:]),
    "symmetric pad in the encoder": ("vae", vae, "conv2d", lambda p, x, stride=1, pad=(0, 0), **k: nn.conv2d(
        p, x, stride, (1, 1) if stride == 2 else pad, **k)),
    "no causal mask": ("text_sd1", ops, "attention", wrapped(ops.attention, causal=False)),
    "gelu for quick_gelu": ("text_sd1", ops, "ACTIVATIONS", {**ops.ACTIVATIONS, "quick_gelu": ops.gelu}),
    "quick_gelu for gelu": ("text_sd2", ops, "ACTIVATIONS", {**ops.ACTIVATIONS, "gelu": ops.quick_gelu}),
    "the pooled vector of the last token": ("text_xl", ops, "vector_of", lambda x, ids, token: x[:, -1]),
    "sizes after the pooled text": ("unet_xl", ops, "concat", lambda xs, f=ops.concat: f(xs[::-1] if xs[0].ndim == 2 else xs)),
    "no class label": ("unet_upscaler", unet, "embedding", lambda p, ids: 0 * nn.embedding(p, ids)),
    "no guidance scale": ("unet_lcm", unet, "linear", lambda p, x, *a, f=unet.linear, **k: (
        0 if p.path.endswith("cond_proj") else 1) * f(p, x, *a, **k)),
    "taesd without its tanh": ("taesd", ops, "tanh", lambda x: x),
    "skips in the wrong order": ("unet_sd2", ops, "concat", lambda xs, f=ops.concat: f(xs[::-1])),
}


@pytest.mark.parametrize("name", MODEL_MUTATIONS)
def test_a_mutated_model_is_caught(name, monkeypatch):
    model, module, attribute, instead = MODEL_MUTATIONS[name]
    monkeypatch.setattr(module, attribute, instead)
    assert off(model)


def test_only_the_faint_case_catches_the_eps(monkeypatch):
    """Why the goldens have it: on unit inputs this mistake hides below what anyone would call an error."""
    monkeypatch.setattr(unet, "residual_block", eps_for(nn.residual_block, 1e-5, 1e-6))
    outputs = {case: errors[-1][1] for case, errors in golden_checks.compare_model("unet_sd1").items()}
    assert outputs["faint"] > 30 * outputs["wide"]


@pytest.mark.parametrize("mutation", ["layer swapped", "weight missing a sign"])
def test_wrong_weights_are_caught_at_their_layer(mutation):
    p = golden_checks.weights_of("unet_sd1")
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_k.weight"
    w = p.mid_block.attentions[0].transformer_blocks[0].attn1.to_k.weight
    p._leaves[name] = w.T if mutation == "layer swapped" else -w
    case = golden_checks.compare_model("unet_sd1", p=p)["wide"]
    assert golden_checks.first_off(case)[0] == name.removesuffix(".weight"), "the first layer that is off is where the mistake is"


def sampler_off(case):
    return golden_checks.compare_sampler(case, Golden("samplers")) > golden_checks.BOUND


SAMPLER_MUTATIONS = {
    "betas without their end": ("ddpm 20 plain", schedules, "linspace32",
                                lambda start, end, n: np.linspace(start, end, n, endpoint=False).astype(np.float32)),
    "final abar of 1": ("ddim 20 plain", samplers.DDIM, "schedule", lambda self, c, n, f=samplers.DDIM.schedule:
                        f(self, {**c, "set_alpha_to_one": True}, n)),
    "no steps offset": ("pndm 20 plain", samplers, "spaced_timesteps",
                        lambda c, *a, f=samplers.spaced_timesteps, **k: f({**c, "steps_offset": 0}, *a, **k)),
    "karras rho": ("euler 20 karras", schedules, "karras_sigmas", wrapped(schedules.karras_sigmas, rho=6.9)),
    "linspace rounded": ("euler 20 linspace", samplers, "spaced_timesteps", wrapped(samplers.spaced_timesteps, rounded=True)),
    "noise blocks": ("euler_a 7 leading", rng.TorchCPU, "_box_muller", staticmethod(
        lambda u, f=rng.TorchCPU._box_muller: f(u.reshape(-1, 2, 8)[:, ::-1].reshape(-1)))),
    "corrector left out": ("unipc 7 leading", samplers.UniPC, "defaults",
                           dict(samplers.UniPC.defaults, disable_corrector=range(7))),
    "dpm++ of first order throughout": ("dpmpp_2m 20 plain", samplers.DPMpp2M, "first_order", lambda self, i: True),
}


@pytest.mark.parametrize("name", SAMPLER_MUTATIONS)
def test_a_mutated_sampler_is_caught(name, monkeypatch):
    case, module, attribute, instead = SAMPLER_MUTATIONS[name]
    assert not sampler_off(case)
    monkeypatch.setattr(module, attribute, instead)
    assert sampler_off(case)


def run_off(name, folder):
    return max(golden_checks.compare_run(name, Golden("families"), folder)) > golden_checks.BOUND


def swapped_sizes(count, original_size, crops, target_size, score=None, f=conditioning.time_ids):
    return f(count, original_size[::-1], crops, target_size[::-1], score)


RUN_MUTATIONS = {
    "width before height": ("xl", conditioning, "time_ids", swapped_sizes),
    "zeros are an empty prompt": ("xl", conditioning, "zeros_like", lambda c: {k: a + 0.1 for k, a in c.items()}),
    "the spread of each channel alone": ("zero snr", guidance, "rescaled", lambda out, text, share: (
        share * out * text.std((1, 2), keepdims=True) / out.std((1, 2), keepdims=True) + (1 - share) * out)),
    "the small image in [0,1]": ("upscale", tasks, "Upscale",
                                 lambda pixels, level, tile, f=tasks.Upscale: f(pixels / 2 + 0.5, level, tile)),
    "the control picture in [-1,1]": ("controlnet", controlnet, "hint", lambda p, picture, f=controlnet.hint: f(p, 2 * picture - 1)),
    "no boundary condition": ("lcm", samplers.LCM, "defaults", dict(samplers.LCM.defaults, timestep_scaling=0.01)),
    "guidance embedding with cosines first": ("lcm", conditioning, "guidance_embedding", lambda scale, dim, dtype,
                                             f=conditioning.guidance_embedding: np.roll(f(scale, dim, dtype), dim // 2, axis=-1)),
    "guess mode for both halves": ("guess", controlnets.Controls, "prepare", lambda self, upload, dtype, rows, blind,
                                   f=controlnets.Controls.prepare: f(self, upload, dtype, rows, 0)),
}


@pytest.mark.parametrize("name", RUN_MUTATIONS)
def test_a_mutated_run_is_caught(name, monkeypatch, tmp_path):
    run, module, attribute, instead = RUN_MUTATIONS[name]
    monkeypatch.setattr(module, attribute, instead)
    assert run_off(run, tmp_path)


def test_a_lost_cached_normal_is_caught(monkeypatch):
    short = rng.TorchCPU._short

    def forgetful(self):
        value = short(self)
        self._kept = None
        return value

    monkeypatch.setattr(rng.TorchCPU, "_short", forgetful)
    assert golden_checks.compare_noise(Golden("noise")) > 1e-3


def test_a_tail_of_noise_not_drawn_afresh_is_caught(monkeypatch):
    def whole_only(self, n):
        return self._box_muller(self._uniform(-(-n // 16) * 16))[:n]

    monkeypatch.setattr(rng.TorchCPU, "_long", whole_only)
    assert golden_checks.compare_noise(Golden("noise")) > 1e-3


def test_truncated_pixels_are_caught(sd1, monkeypatch):
    expected, how = Golden("pipelines")["sd1.pixels"], golden_cases.PIPELINES["sd1"][3]
    array = sd1.txt2img(**how, output="array")
    monkeypatch.setattr(images, "to_pil", truncated)
    off = np.abs(np.array([np.asarray(p) for p in images.to_pil(array)]).astype(int) - expected)
    assert (off > 0).mean() > 0.1


def test_a_padding_token_of_the_wrong_file_is_caught(tmp_path):
    drawn_models.write_tokenizer(tmp_path)
    ids, _ = Tokenizer(**read_vocabulary(tmp_path))(golden_cases.PROMPTS)
    assert ids.tolist() != Golden("tokens")["sd2"].tolist(), "SD 2 pads with '!', which only special_tokens_map.json says"
