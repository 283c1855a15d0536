"""Writes tests/goldens from diffusers and transformers (`pip install '.[goldens]'`); with --check, makes them anew in a
temporary folder, holds them against the stored ones, and minisd against them, and prints each model's worst layer."""
import argparse
import gzip
import inspect
import json
import logging
import sys
import tempfile
from pathlib import Path

import cv2
import diffusers
import drawn_models
import golden_cases
import golden_checks
import ldm_files
import numpy as np
import published_configs
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import (
    convert_controlnet_checkpoint,
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.numpy import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import minisd
from minisd.checkpoint.hub import SHIPPED

VERSIONS = {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
            "numpy": np.__version__}
SCHEDULERS = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "lms": "LMSDiscreteScheduler",
              "euler": "EulerDiscreteScheduler", "euler_a": "EulerAncestralDiscreteScheduler", "heun": "HeunDiscreteScheduler",
              "dpm2": "KDPM2DiscreteScheduler", "dpm2_a": "KDPM2AncestralDiscreteScheduler",
              "dpmpp_2m": "DPMSolverMultistepScheduler", "dpmpp_2m_sde": "DPMSolverMultistepScheduler",
              "unipc": "UniPCMultistepScheduler", "lcm": "LCMScheduler"}
DRIFT = golden_checks.BOUND                                        # torch on another processor rounds differently


def allowance(case):
    """How many times the bounds a case may differ: dpm2_a magnifies rounding, so that torch is 2.1e-5 from itself on two processors."""
    return 3 if "dpm2_a" in case else 1


def quiet():
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    torch.set_grad_enabled(False)


def save(folder, name, arrays, **about):
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, Path(folder) / f"{name}.safetensors",
              metadata={k: json.dumps(v) for k, v in {**about, "versions": VERSIONS}.items()})


def network_of(component, config):
    """The reference's network, as it is made."""
    if component.startswith("text_encoder"):
        return {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}[component](CLIPTextConfig(**config))
    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "controlnet": ControlNetModel}
    kind = getattr(diffusers, config["_class_name"]) if "_class_name" in config else kinds[component]
    return kind(**{k: v for k, v in config.items() if k != "_class_name"})


def build(component, config):
    """The reference's network with drawn weights."""
    model = network_of(component, config)
    state = model.state_dict()
    names = {n: n.removeprefix("text_model.") for n in state}                # which CLIPTextModelWithProjection has, CLIPTextModel not
    model.load_state_dict({n: torch.from_numpy(drawn_models.weight(names[n], tuple(w.shape))) for n, w in state.items()})
    return model.eval(), {names[n]: list(w.shape) for n, w in state.items()}


def clip_tokenizer(length=77, pad=None):
    with tempfile.TemporaryDirectory() as place:
        drawn_models.write_tokenizer(Path(place), length, pad)
        return CLIPTokenizer.from_pretrained(place)


def pipeline_of(networks, pad, scheduler, kind=StableDiffusionPipeline):
    """The reference's pipeline of these networks, with CLIP's tokenizer."""
    length = networks["text_encoder"].config.max_position_embeddings
    pipe = kind(**networks, tokenizer=clip_tokenizer(length, pad), scheduler=scheduler, safety_checker=None, feature_extractor=None,
                requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def traced(model, run):
    """-> (what run() returns, {module name: its output, channels-last} as executed)"""
    seen, hooks = {}, []

    def hook(name):
        name = name.removeprefix("text_model.")

        def keep(module, given, out):
            out = out[0] if isinstance(out, tuple) else getattr(out, "sample", out)
            if isinstance(out, torch.Tensor):
                seen.pop(name, None)
                channels_first = isinstance(module, torch.nn.GroupNorm) and out.ndim == 3      # inside the vae's attention
                seen[name] = golden_checks.channels_last((out.transpose(1, 2) if channels_first else out).numpy())
        return keep

    for name, module in model.named_modules():
        if name:
            hooks.append(module.register_forward_hook(hook(name)))
    y = run()
    for h in hooks:
        h.remove()
    return y, seen


def make_model(folder, name):
    component, config = golden_cases.MODELS[name]
    model, shapes = build(component, config)
    with_weights = {n.removeprefix("text_model.") for n, m in model.named_modules() if list(m.parameters(recurse=False))}
    arrays, taps, leaves = {}, {}, {}
    for case, given in golden_checks.model_inputs(name).items():
        if component == "text_encoder":
            y, seen = traced(model, lambda: model(torch.from_numpy(given)).last_hidden_state)     # noqa: B023
        elif component == "text_encoder_2":
            y, seen = traced(model, lambda: model(torch.from_numpy(given)).text_embeds)           # noqa: B023
        elif component in ("unet", "controlnet"):
            (x, t, context), more = map(torch.from_numpy, given[:3]), tensors_of(given[3])
            y, seen = traced(model, lambda: model(x, t, context, **more))                         # noqa: B023
            y = y.sample if component == "unet" else y.mid_block_res_sample
        elif "_class_name" in config:
            y, seen = traced(model, lambda: getattr(model, case.split()[0])(torch.from_numpy(given)))       # noqa: B023
            y = getattr(y, "latents", None) if case.startswith("encode") else y.sample
        elif case.startswith("encode"):
            y, seen = traced(model, lambda: model.encode(torch.from_numpy(given)).latent_dist.parameters)   # noqa: B023
        else:
            y, seen = traced(model, lambda: model.decode(torch.from_numpy(given)).sample)         # noqa: B023
        arrays[f"{case}.output"] = y.numpy()
        arrays[f"{case}.taps"] = np.array([golden_checks.fingerprint(x) for x in seen.values()])
        taps[case], leaves[case] = list(seen), sorted(with_weights & set(seen))
    save(folder, name, arrays, config=config, shapes=shapes, taps=taps, leaves=leaves)


def tensors_of(conditioning):
    """The further conditioning of a unet or ControlNet, by the names that the reference has for it."""
    found = {k: torch.from_numpy(a) for k, a in conditioning.items()}
    more = {"added_cond_kwargs": {k: found.pop(k) for k in ("text_embeds", "time_ids")}} if "time_ids" in found else {}
    if "hint" in found:
        more["controlnet_cond"] = found.pop("hint")
    return {**found, **more}


def reference_sampler(name, config, steps, how):
    over = {"algorithm_type": "sde-dpmsolver++"} if name == "dpmpp_2m_sde" else {}
    if "sigmas" in how:
        over[f"use_{how['sigmas']}_sigmas"] = True
    if "timestep_spacing" in how:
        over["timestep_spacing"] = how["timestep_spacing"]
    s = getattr(diffusers, SCHEDULERS[name]).from_config({**config, **over})
    s.set_timesteps(steps)
    random = torch.Generator().manual_seed(7)
    extra = {"generator": random} if "generator" in inspect.signature(s.step).parameters else {}
    extra.update({"eta": how["eta"]} if "eta" in how else {})
    x = torch.randn(golden_cases.SAMPLE_SHAPE, generator=random) * s.init_noise_sigma
    path = [x.numpy()]
    for t in s.timesteps:
        out = golden_checks.noise_predictor(torch, s.scale_model_input(x, t), np.float64(t))
        x = s.step(out, t, x, **extra).prev_sample
        path.append(x.numpy())
    return s.timesteps.numpy().astype(np.float64), np.array(path)


def make_samplers(folder):
    arrays = {}
    for case, (name, config, steps, how) in golden_cases.sampler_cases().items():
        timesteps, path = reference_sampler(name, config, steps, how)
        flat = path.reshape(len(path), -1)
        arrays[f"{case}.timesteps"], arrays[f"{case}.final"] = timesteps, path[-1]
        arrays[f"{case}.samples"] = np.concatenate([np.abs(flat).max(1, keepdims=True), flat[:, [0, 17, 30, 47]]], 1)
    save(folder, "samplers", arrays)


def make_noise(folder):
    arrays = {}
    for k, (seed, shapes) in enumerate(golden_cases.NOISE):
        random = torch.Generator().manual_seed(seed)
        arrays.update({f"{k}.{j}": torch.randn(shape, generator=random).numpy() for j, shape in enumerate(shapes)})
    save(folder, "noise", arrays)


def make_tokens(folder):
    arrays = {}
    for label, pad in (("plain", None), ("sd2", "!")):
        rows = clip_tokenizer(pad=pad)(golden_cases.PROMPTS, padding="max_length", max_length=77, truncation=True,
                                       return_tensors="np").input_ids
        arrays[label] = rows.astype(np.int32)
    save(folder, "tokens", arrays)


def make_pipelines(folder):
    arrays = {}
    for name, (models, scheduler, pad, how) in golden_cases.PIPELINES.items():
        networks = {golden_cases.MODELS[m][0]: build(*golden_cases.MODELS[m])[0] for m in models}
        method = getattr(diffusers, SCHEDULERS[how["sampler"]] if "sampler" in how else scheduler["_class_name"])
        pipe = pipeline_of(networks, pad, method.from_config(scheduler))
        call = {k: v for k, v in how.items() if k not in ("seed", "sampler", "num_images")}

        def run(kind):
            random = torch.Generator().manual_seed(how["seed"])                                   # noqa: B023
            return pipe(**call, generator=random, num_images_per_prompt=how["num_images"], output_type=kind).images  # noqa: B023

        arrays[f"{name}.latent"] = run("latent").numpy()
        arrays[f"{name}.pixels"] = np.array([np.asarray(picture) for picture in run("pil")])
        random = torch.Generator().manual_seed(how["seed"])
        pixels = torch.from_numpy(golden_checks.model_inputs("vae")["encode wide"])
        arrays[f"{name}.encoded"] = (pipe.vae.encode(pixels).latent_dist.sample(random) * pipe.vae.config.scaling_factor).numpy()
    save(folder, "pipelines", arrays)


def make_tasks(folder):
    arrays = {}
    for name, (pipeline, task, channels, how) in golden_cases.TASKS.items():
        models, scheduler, pad, _ = golden_cases.PIPELINES[pipeline]
        networks = {golden_cases.MODELS[m][0]: build(golden_cases.MODELS[m][0], dict(golden_cases.MODELS[m][1], **(
            dict(in_channels=channels) if golden_cases.MODELS[m][0] == "unet" else {})))[0] for m in models}
        kind = {"img2img": StableDiffusionImg2ImgPipeline, "inpaint": StableDiffusionInpaintPipeline,
                "instruct_pix2pix": StableDiffusionInstructPix2PixPipeline}[task]
        method = getattr(diffusers, SCHEDULERS[how["sampler"]] if "sampler" in how else scheduler["_class_name"])
        more = dict(algorithm_type="sde-dpmsolver++") if how.get("sampler") == "dpmpp_2m_sde" else {}
        pipe = pipeline_of(networks, pad, method.from_config(scheduler, **more), kind)
        picture, mask = golden_checks.a_picture()
        size = how["width"], how["height"]
        call = {k: v for k, v in how.items() if k not in ("seed", "sampler", "num_images", "width", "height")}
        if task == "inpaint":
            call.update(mask_image=mask, width=size[0], height=size[1])
        arrays[f"{name}.latent"] = pipe(**call, image=picture, generator=torch.Generator().manual_seed(how["seed"]),
                                        num_images_per_prompt=how["num_images"], output_type="latent").images.numpy()
    arrays.update(lora_latents())
    arrays.update(single_latents())
    arrays.update(inversion_latents())
    save(folder, "tasks", arrays)


def run_reference(pipe, family, task, controls, how, kind):
    """What one of the reference's pipelines gives, told in its own words what `how` says in ours."""
    call = {k: v for k, v in how.items() if k not in ("seed", "sampler", "num_images", "width", "height")}
    call.update(golden_checks.given_to(task, len(controls)))
    if "control_image" in call:
        images = call.pop("control_image")
        call["image" if task == "txt2img" else "control_image"] = images if len(controls) > 1 else images[0]
    if task in ("txt2img", "inpaint") or task == "instruct_pix2pix" and family == "xl":
        call.update(width=how["width"], height=how["height"])
    if "depth_map" in call:
        call["depth_map"] = torch.from_numpy(call["depth_map"])[None]
    if "clip_skip" in call and family == "xl":
        call["clip_skip"] -= 2                               # ours counts as AUTOMATIC1111
    elif "clip_skip" in call:
        call["clip_skip"] -= 1
    if "latents" in call:
        call["latents"] = torch.from_numpy(golden_checks.given_noise(how).transpose(0, 3, 1, 2).copy())
    return pipe(**call, generator=torch.Generator().manual_seed(how["seed"]), num_images_per_prompt=how.get("num_images", 1),
                output_type=kind).images


def make_families(folder):
    """Latents and pixels of golden_cases.RUNS, by the reference's own pipelines."""
    arrays = {}
    for name, (family, task, controls, channels, how) in golden_cases.RUNS.items():
        pipe = family_pipeline(family, task, controls, channels, how.get("sampler"))
        for kind in ("latent", "np"):
            found = run_reference(pipe, family, task, controls, how, kind)
            arrays[f"{name}.{'latent' if kind == 'latent' else 'pixels'}"] = (
                np.asarray(found) if kind == "latent" else found[golden_checks.CORNER])
    arrays.update(xl_latents())
    for k, picture in enumerate(golden_checks.edgy_pictures()):
        arrays.update({f"canny {k} {low} {high}": cv2.Canny(picture, low, high) for low, high in golden_checks.CANNY})
    save(folder, "families", arrays)


def xl_latents():
    """SDXL's latents with a LoRA, with a word of its own, and handed from the base to the refiner."""
    how = {k: v for k, v in golden_cases.XL_HOW.items() if k not in ("seed", "sampler")}

    def run(pipe, **more):
        return pipe(**{**how, **more}, generator=torch.Generator().manual_seed(golden_cases.XL_HOW["seed"]), output_type="latent").images

    found, pipe = {}, family_pipeline("xl", "txt2img", [], 4, "ddim")
    found["xl handoff.latent"] = run(family_pipeline("refiner", "img2img", [], 4, "ddim"), width=None, height=None,
                                     image=run(pipe, denoising_end=0.6), denoising_start=0.6).numpy()
    with tempfile.TemporaryDirectory() as place:
        pipe.load_lora_weights(golden_checks.xl_lora_file(Path(place) / "lora.safetensors"), adapter_name="it")
        pipe.set_adapters(["it"], [0.9])
        found["xl lora.latent"] = run(pipe).numpy()
        pipe = family_pipeline("xl", "txt2img", [], 4, "ddim")
        vectors = load_file(golden_checks.xl_inversion_file(Path(place) / "word.safetensors"))
    for part, name in (("", "clip_l"), ("_2", "clip_g")):
        encoder, tokenizer = getattr(pipe, f"text_encoder{part}"), getattr(pipe, f"tokenizer{part}")
        encoder.config.eos_token_id = encoder.eos_token_id = 49407            # by 2, it takes the word's vector for the end's
        if part:
            encoder.text_model.eos_token_id = 49407
        pipe.load_textual_inversion(torch.from_numpy(vectors[name]), token="<tower>", text_encoder=encoder, tokenizer=tokenizer)
    found["xl inversion.latent"] = run(pipe, prompt="a <tower> on a hill", negative_prompt="<tower>").numpy()
    return found


def family_pipeline(family, task, controls, channels, sampler):
    """One of the reference's pipelines, of drawn weights."""
    kind, models, scheduler, index = golden_cases.FAMILIES[family]
    networks = {}
    for m in models:
        part, config, _ = golden_cases.network(m)
        networks[part] = build(part, dict(config, in_channels=channels) if part == "unet" else config)[0]
    suffix = {"txt2img": "", "img2img": "Img2Img", "inpaint": "Inpaint", "instruct_pix2pix": "InstructPix2Pix"}.get(task, "")
    if controls:
        kind, found = f"{kind}ControlNet", [build(*golden_cases.MODELS[m])[0] for m in controls]
        networks["controlnet"] = found if len(found) > 1 else found[0]
    kind = getattr(diffusers, f"{kind}{suffix}Pipeline")
    method = getattr(diffusers, SCHEDULERS[sampler] if sampler else scheduler["_class_name"])
    over = {"algorithm_type": "sde-dpmsolver++"} if sampler == "dpmpp_2m_sde" else {}
    networks["scheduler"] = method.from_config(scheduler, **over)
    return assembled(kind, networks, "!" if "text_sd2" in models else None, index)


def assembled(kind, networks, pad, index):
    """A pipeline of the reference's, with tokenizers for its text encoders; pad: the first one's padding token."""
    for part in [p for p in networks if p.startswith("text_encoder")]:
        networks[part.replace("text_encoder", "tokenizer")] = clip_tokenizer(networks[part].config.max_position_embeddings,
                                                                             "!" if part == "text_encoder_2" else pad)
    takes = inspect.signature(kind.__init__).parameters
    if "low_res_scheduler" in takes:
        networks["low_res_scheduler"] = diffusers.DDPMScheduler.from_config(networks["scheduler"].config)
    absent = {k: None for k, p in takes.items() if p.default is p.empty and k not in networks and k != "self"}
    pipe = kind(**networks, **absent, **{k: v for k, v in index.items() if k in takes},
                **({"requires_safety_checker": False} if "requires_safety_checker" in takes else {}))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def inversion_latents():
    """diffusers' latents with a word of one vector and one of three."""
    models, scheduler, pad, _ = golden_cases.PIPELINES["sd1"]
    networks = {golden_cases.MODELS[m][0]: build(*golden_cases.MODELS[m])[0] for m in models}
    pipe = pipeline_of(networks, pad, diffusers.DDIMScheduler.from_config(scheduler))
    with tempfile.TemporaryDirectory() as place:
        for file, word in golden_checks.inversion_files(Path(place)):
            pipe.load_textual_inversion(str(file), token=word)
    how = {k: v for k, v in dict(golden_checks.LORA_HOW, prompt=golden_checks.INVERTED).items() if k not in ("seed", "sampler")}
    return {"inversion.latent": pipe(**how, generator=torch.Generator().manual_seed(3), output_type="latent").images.numpy()}


def converted(family, channels):
    """Networks of a file with LDM names, as the reference's own converter makes them."""
    second = family != "SD 1"
    unet_sizes, vae_sizes, _ = ldm_files.SMALL[family]
    u, v = {**ldm_files.UNET, **unet_sizes}, {**ldm_files.VAE, **vae_sizes}
    state = {k: torch.from_numpy(np.asarray(a)) for k, a in ldm_files.arrays(family, in_channels=channels).items()}
    attends = [bool(d) for d in u["attention"]]
    config = dict(block_out_channels=list(u["channels"]), cross_attention_dim=u["context"], use_linear_projection=second, sample_size=8,
                  attention_head_dim=[1] * len(attends) if second and family != "upscaler" else 8, norm_num_groups=32, layers_per_block=2,
                  down_block_types=["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in attends], in_channels=channels,
                  up_block_types=["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in attends[::-1]],
                  transformer_layers_per_block=[max(1, int(d)) for d in u["attention"]])
    if family == "refiner":
        config["transformer_layers_per_block"] = 2           # the middle's too
    if "added" in u:
        config.update(addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=u["added"])
    if "classes" in u:
        config.update(num_class_embeds=u["classes"], only_cross_attention=list(u["only_cross"]))
    levels = len(v["channels"])
    scaling = {"XL": 0.13025, "refiner": 0.13025, "upscaler": 0.08333}.get(family, 0.18215)
    networks = dict(unet=UNet2DConditionModel(**config).eval(), vae=AutoencoderKL(
        block_out_channels=list(v["channels"]), norm_num_groups=32, latent_channels=4, layers_per_block=2, scaling_factor=scaling,
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels).eval())
    ours = dict(state)
    if family == "upscaler":                                 # a name that the converter does not know
        ours["class_embedding"] = ours.pop("model.diffusion_model.label_emb.weight")
    unet_state = convert_ldm_unet_checkpoint(dict(ours), networks["unet"].config)
    if family == "upscaler":
        unet_state["class_embedding.weight"] = ours["class_embedding"]
    networks["unet"].load_state_dict(unet_state)
    networks["vae"].load_state_dict(convert_ldm_vae_checkpoint(dict(state), networks["vae"].config))
    for part, (prefix, names) in zip(("text_encoder_2",) if family == "refiner" else ("text_encoder", "text_encoder_2"),
                                     ldm_files.FAMILIES[family][0]):
        open_clip, projected = names is ldm_files.open_clip, part == "text_encoder_2"
        kind = CLIPTextModelWithProjection if projected else CLIPTextModel
        text = kind(CLIPTextConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=1, projection_dim=64,
                                   vocab_size=49408, eos_token_id=2, hidden_act="gelu" if open_clip else "quick_gelu",
                                   max_position_embeddings=77)).eval()
        if open_clip:
            found = convert_open_clip_checkpoint(text, dict(state), prefix=prefix)
        else:
            found = convert_ldm_clip_checkpoint(dict(state), remove_prefix=prefix)
        mark = "text_model." if any(k.startswith("text_model.") for k in text.state_dict()) else ""
        found = {k if k.startswith("text_projection") else mark + k.removeprefix("text_model."): w for k, w in found.items()}
        text.load_state_dict({k: found[k] for k in text.state_dict()})                     # SD 2's last layer is not read
        networks[part] = text
    return networks


def single_latents():
    """Latents and pixels of models that the reference converted from LDM names."""
    found = {}
    for name, (family, channels, task) in golden_checks.SINGLES.items():
        networks = converted(family, channels)
        base = "StableDiffusionXL" if family in ("XL", "refiner") else "StableDiffusion"
        suffix = {"txt2img": "", "img2img": "Img2Img", "inpaint": "Inpaint", "instruct_pix2pix": "InstructPix2Pix", "upscale": "Upscale"}
        upscales = dict(beta_start=0.0001, beta_end=0.02, prediction_type="v_prediction") if family == "upscaler" else {}
        networks["scheduler"] = diffusers.DDIMScheduler.from_config(dict(golden_cases.SCHEDULE, **upscales))
        pipe = assembled(getattr(diffusers, f"{base}{suffix[task]}Pipeline"), networks, "!" if family in ("SD 2", "upscaler") else None,
                         dict(force_zeros_for_empty_prompt=family == "XL", requires_aesthetics_score=True))
        how = {k: v for k, v in golden_checks.LORA_HOW.items() if k not in ("seed", "sampler")}
        if task not in ("txt2img",):
            how = {k: v for k, v in how.items() if k not in ("width", "height")}
        given = golden_checks.given_to(task, 0)
        if task == "inpaint":
            given.update(width=72, height=56)
        if task == "img2img":
            given.update(strength=0.8)
        if task == "instruct_pix2pix":
            given.update(image_guidance_scale=1.5)

        def run(kind):
            return pipe(**how, **given, generator=torch.Generator().manual_seed(3), output_type=kind).images      # noqa: B023

        found[f"single {name}.latent"], found[f"single {name}.pixels"] = np.asarray(run("latent")), run("np")[golden_checks.CORNER]
    return found


def make_keys(folder):
    """{checkpoint: {component: {name: shape}}} of real sizes, by the reference on its meta device.  Files with LDM names, as
    tests/published_configs.py lists their keys, must be all of it after the reference's own converter."""
    found = {}
    for checkpoint, parts in published_configs.MODELS.items():
        with torch.device("meta"):
            networks = {part: network_of(part, config) for part, config in parts.items()}
        found[checkpoint] = {part: shapes_of(network.state_dict()) for part, network in networks.items()}
        if checkpoint in published_configs.FILES:
            state = {k: torch.empty(s, device="meta") for k, s in published_configs.file_keys(checkpoint).items()}
            label = state.pop("model.diffusion_model.label_emb.weight", None)
            unet = convert_ldm_unet_checkpoint(dict(state), networks["unet"].config)
            if label is not None:                            # a name that the converter does not know
                unet["class_embedding.weight"] = label
            assert shapes_of(unet) == found[checkpoint]["unet"], checkpoint
            if "vae" in networks:
                assert shapes_of(convert_ldm_vae_checkpoint(dict(state), networks["vae"].config)) == found[checkpoint]["vae"], checkpoint
        elif "controlnet" in networks:
            state = {f"control_model.{k}": torch.empty(s, device="meta") for k, s in published_configs.control_keys(checkpoint).items()}
            made = shapes_of(convert_controlnet_checkpoint(state, networks["controlnet"].config))
            expected = found[checkpoint]["controlnet"]       # whose add_embedding the converter does not know
            assert made == {n: s for n, s in expected.items() if not n.startswith("add_embedding.")}, checkpoint
    text = json.dumps(found, separators=(",", ":"), sort_keys=True).encode()
    (Path(folder) / "keys.json.gz").write_bytes(gzip.compress(text, mtime=0))


def shapes_of(state):
    return {n.removeprefix("text_model."): list(w.shape) for n, w in state.items()}


def lora_latents():
    """diffusers' latents with each LoRA file loaded."""
    models, scheduler, pad, _ = golden_cases.PIPELINES["sd1"]
    found = {}
    for name in golden_cases.LORAS:
        networks = {golden_cases.MODELS[m][0]: build(*golden_cases.MODELS[m])[0] for m in models}
        pipe = pipeline_of(networks, pad, diffusers.DDIMScheduler.from_config(scheduler))
        with tempfile.TemporaryDirectory() as place:
            pipe.load_lora_weights(golden_checks.lora_file(name, Path(place) / "lora.safetensors"), adapter_name="it")
        pipe.set_adapters(["it"], [golden_cases.LORAS[name][-1]])
        how = {k: v for k, v in golden_checks.LORA_HOW.items() if k not in ("seed", "sampler")}
        found[f"lora {name}.latent"] = pipe(**how, generator=torch.Generator().manual_seed(golden_checks.LORA_HOW["seed"]),
                                            output_type="latent").images.numpy()
    return found


def make_shipped(folder):
    """The model that comes with minisd, run by diffusers from the same folder, at the model's own guidance."""
    pipe = StableDiffusionPipeline.from_pretrained(SHIPPED).to(torch.float32)
    guidance = json.loads((SHIPPED / "model_index.json").read_text())["_guidance_scale"]
    pipe.set_progress_bar_config(disable=True)
    pictures = [np.asarray(pipe(prompt, num_inference_steps=20, guidance_scale=guidance,
                                generator=torch.Generator().manual_seed(seed)).images[0]) for prompt, seed in golden_cases.SHIPPED]
    save(folder, "shipped", {"pixels": np.array(pictures)})


def make(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in golden_cases.MODELS:
        make_model(folder, name)
    make_samplers(folder)
    make_noise(folder)
    make_tokens(folder)
    make_pipelines(folder)
    make_tasks(folder)
    make_families(folder)
    make_keys(folder)
    make_shipped(folder)


def drift(name, folder):
    """The largest difference between a stored golden and one made now, relative to each array's largest value and divided by its
    allowance; pixels that torch's rounding on another processor moves by one level of 255 count as the same."""
    stored, now = golden_checks.Golden(name), golden_checks.Golden(name, folder)
    if set(stored) != set(now) or any(stored.about[k] != now.about[k] for k in stored.about if k != "versions"):
        return np.inf
    return max(0.0 if stored[k].dtype == np.uint8 and np.abs(now[k].astype(int) - stored[k].astype(int)).max() <= 1
               else golden_checks.relative(now[k], stored[k]) / allowance(k) for k in stored)


def check():
    """Prints a row for each golden; -> whether all are within bounds."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        for name in golden_cases.MODELS:
            errors = [(e, f"{layer} ({case})") for case, found in golden_checks.compare_model(name, folder).items() for layer, e in found]
            outputs = max(e for e, layer in errors if layer.startswith("output"))
            worst, where = max(errors)
            rows.append((name, len(errors), outputs, f"{worst:.1e} {where}", worst <= golden_checks.LAYER_BOUND
                         and outputs <= golden_checks.BOUND, drift(name, folder)))
        fresh = golden_checks.Golden("samplers", folder)
        found = [(golden_checks.compare_sampler(case, fresh), case) for case in golden_cases.sampler_cases()]
        rows.append(("samplers", len(found), max(found)[0], f"{max(found)[0]:.1e} {max(found)[1]}",
                     all(error <= golden_checks.BOUND * allowance(case) for error, case in found), drift("samplers", folder)))
        error = golden_checks.compare_noise(golden_checks.Golden("noise", folder))
        rows.append(("noise", len(golden_cases.NOISE), error, "", error <= 1e-6, drift("noise", folder)))
        fresh = golden_checks.Golden("tokens", folder)
        rows.append(("tokens", len(golden_cases.PROMPTS), *compare_tokens(fresh), drift("tokens", folder)))
        fresh = golden_checks.Golden("pipelines", folder)
        for name, (*_, how) in golden_cases.PIPELINES.items():
            pipe = minisd.load(golden_checks.write_pipeline(Path(folder) / name, name))
            found = pipe.txt2img(**golden_checks.one_generator(how), output="latent")
            error = golden_checks.relative(found, golden_checks.channels_last(fresh[f"{name}.latent"]))
            rows.append((f"pipeline {name}", 1, error, "latent after all steps", error <= golden_checks.BOUND, drift("pipelines", folder)))
        fresh = golden_checks.Golden("tasks", folder)
        found = [(golden_checks.compare_task(name, fresh, folder), name) for name in golden_cases.TASKS]
        found += [(golden_checks.compare_lora(name, fresh, folder), f"lora {name}") for name in golden_cases.LORAS]
        found += [(golden_checks.compare_single(name, fresh, folder), f"single file, {name}") for name in golden_checks.SINGLES]
        found.append((golden_checks.compare_inversion(fresh, folder), "textual inversion"))
        rows.append(("tasks", len(found), max(found)[0], f"latent after all steps, {max(found)[1]}", max(found)[0] <= golden_checks.BOUND,
                     drift("tasks", folder)))
        fresh = golden_checks.Golden("families", folder)
        found = [(max(golden_checks.compare_run(name, fresh, folder)), name) for name in golden_cases.RUNS]
        found += [(golden_checks.compare_xl(what, fresh, folder), f"xl {what}") for what in ("lora", "inversion", "handoff")]
        rows.append(("families", len(found), max(found)[0], f"latent after all steps, or pixels, {max(found)[1]}",
                     max(found)[0] <= golden_checks.BOUND, drift("families", folder)))
        same = golden_checks.keys(folder) == golden_checks.keys()
        rows.append(("keys", len(golden_checks.keys()), 0.0 if same else np.inf, "names and shapes of real checkpoints", same, 0.0))
        levels = golden_checks.compare_shipped(golden_checks.Golden("shipped", folder))
        rows.append(("shipped model", len(golden_cases.SHIPPED), levels, "levels of 255, after 20 steps", levels <= 1,
                     drift("shipped", folder)))
    print(f"{'golden':<16}{'compared':>9}{'output':>10}  {'drift':<8}  worst layer or case")
    for name, count, output, worst, ok, moved in rows:
        good = ok and moved <= DRIFT
        print(f"{name:<16}{count:>9}{output:>10.1e}  {moved:<8.1e}  {worst:<70}{'' if good else 'NOT OK'}".rstrip())
    fine = all(ok and moved <= DRIFT for *_, ok, moved in rows)
    print(f"{'all within' if fine else 'NOT ALL WITHIN'} bounds: outputs {golden_checks.BOUND:g}, layers {golden_checks.LAYER_BOUND:g}, "
          f"stored against made now {DRIFT:g}; " + ", ".join(f"{k} {v}" for k, v in VERSIONS.items()))
    return fine


def compare_tokens(fresh):
    from minisd.checkpoint.vocabulary import read_vocabulary
    from minisd.prompt.tokenizer import Tokenizer
    wrong = []
    for label, pad in (("plain", None), ("sd2", "!")):
        with tempfile.TemporaryDirectory() as place:
            drawn_models.write_tokenizer(Path(place), pad=pad)
            ids, _ = Tokenizer(**read_vocabulary(place))(golden_cases.PROMPTS)
        wrong += [repr(p)[:40] for p, a, b in zip(golden_cases.PROMPTS, ids, fresh[label]) if list(a) != list(b)]
    return float(len(wrong)), ", ".join(wrong), not wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    quiet()
    if parser.parse_args().check:
        sys.exit(0 if check() else 1)
    make(golden_checks.FOLDER)
