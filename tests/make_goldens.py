"""Writes tests/goldens from diffusers and transformers (`pip install '.[goldens]'`); with --check, makes them anew in a
temporary folder, holds them against the stored ones, and minisd against them, and prints each model's worst layer."""
import argparse
import inspect
import json
import logging
import sys
import tempfile
from pathlib import Path

import cases
import diffusers
import golden
import ldm
import numpy as np
import recipe
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.numpy import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import minisd
from minisd.checkpoint import SHIPPED

VERSIONS = {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
            "numpy": np.__version__}
SCHEDULERS = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "lms": "LMSDiscreteScheduler",
              "euler": "EulerDiscreteScheduler", "euler_a": "EulerAncestralDiscreteScheduler", "heun": "HeunDiscreteScheduler",
              "dpm2": "KDPM2DiscreteScheduler", "dpm2_a": "KDPM2AncestralDiscreteScheduler",
              "dpmpp_2m": "DPMSolverMultistepScheduler", "dpmpp_2m_sde": "DPMSolverMultistepScheduler",
              "unipc": "UniPCMultistepScheduler"}
DRIFT = golden.BOUND                                        # torch on another processor rounds differently


def quiet():
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    torch.set_grad_enabled(False)


def save(folder, name, arrays, **about):
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, Path(folder) / f"{name}.safetensors",
              metadata={k: json.dumps(v) for k, v in {**about, "versions": VERSIONS}.items()})


def build(component, config):
    """The reference's network with drawn weights."""
    if component == "text_encoder":
        model = CLIPTextModel(CLIPTextConfig(**config))
    else:
        model = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[component](**config)
    state = model.state_dict()
    model.load_state_dict({n: torch.from_numpy(recipe.weight(n, tuple(w.shape))) for n, w in state.items()})
    return model.eval(), {n: list(w.shape) for n, w in state.items()}


def clip_tokenizer(length=77, pad=None):
    with tempfile.TemporaryDirectory() as place:
        recipe.write_tokenizer(Path(place), length, pad)
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
        def keep(module, given, out):
            out = out[0] if isinstance(out, tuple) else getattr(out, "sample", out)
            if isinstance(out, torch.Tensor):
                seen.pop(name, None)
                channels_first = isinstance(module, torch.nn.GroupNorm) and out.ndim == 3      # inside the vae's attention
                seen[name] = golden.channels_last((out.transpose(1, 2) if channels_first else out).numpy())
        return keep

    for name, module in model.named_modules():
        if name:
            hooks.append(module.register_forward_hook(hook(name)))
    y = run()
    for h in hooks:
        h.remove()
    return y, seen


def make_model(folder, name):
    component, config = cases.MODELS[name]
    model, shapes = build(component, config)
    with_weights = {n for n, m in model.named_modules() if list(m.parameters(recurse=False))}
    arrays, taps, leaves = {}, {}, {}
    for case, given in golden.model_inputs(name).items():
        if component == "text_encoder":
            y, seen = traced(model, lambda: model(torch.from_numpy(given)).last_hidden_state)     # noqa: B023
        elif component == "unet":
            x, t, context = map(torch.from_numpy, given)
            y, seen = traced(model, lambda: model(x, t, context).sample)                          # noqa: B023
        elif case.startswith("encode"):
            y, seen = traced(model, lambda: model.encode(torch.from_numpy(given)).latent_dist.parameters)   # noqa: B023
        else:
            y, seen = traced(model, lambda: model.decode(torch.from_numpy(given)).sample)         # noqa: B023
        arrays[f"{case}.output"] = y.numpy()
        arrays[f"{case}.taps"] = np.array([golden.fingerprint(x) for x in seen.values()])
        taps[case], leaves[case] = list(seen), sorted(with_weights & set(seen))
    save(folder, name, arrays, config=config, shapes=shapes, taps=taps, leaves=leaves)


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
    x = torch.randn(cases.SAMPLE_SHAPE, generator=random) * s.init_noise_sigma
    path = [x.numpy()]
    for t in s.timesteps:
        out = golden.noise_predictor(torch, s.scale_model_input(x, t), np.float64(t))
        x = s.step(out, t, x, **extra).prev_sample
        path.append(x.numpy())
    return s.timesteps.numpy().astype(np.float64), np.array(path)


def make_samplers(folder):
    arrays = {}
    for case, (name, config, steps, how) in cases.sampler_cases().items():
        timesteps, path = reference_sampler(name, config, steps, how)
        flat = path.reshape(len(path), -1)
        arrays[f"{case}.timesteps"], arrays[f"{case}.final"] = timesteps, path[-1]
        arrays[f"{case}.samples"] = np.concatenate([np.abs(flat).max(1, keepdims=True), flat[:, [0, 17, 30, 47]]], 1)
    save(folder, "samplers", arrays)


def make_noise(folder):
    arrays = {}
    for k, (seed, shapes) in enumerate(cases.NOISE):
        random = torch.Generator().manual_seed(seed)
        arrays.update({f"{k}.{j}": torch.randn(shape, generator=random).numpy() for j, shape in enumerate(shapes)})
    save(folder, "noise", arrays)


def make_tokens(folder):
    arrays = {}
    for label, pad in (("plain", None), ("sd2", "!")):
        rows = clip_tokenizer(pad=pad)(cases.PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="np").input_ids
        arrays[label] = rows.astype(np.int32)
    save(folder, "tokens", arrays)


def make_pipelines(folder):
    arrays = {}
    for name, (models, scheduler, pad, how) in cases.PIPELINES.items():
        networks = {cases.MODELS[m][0]: build(*cases.MODELS[m])[0] for m in models}
        method = getattr(diffusers, SCHEDULERS[how["sampler"]] if "sampler" in how else scheduler["_class_name"])
        pipe = pipeline_of(networks, pad, method.from_config(scheduler))
        call = {k: v for k, v in how.items() if k not in ("seed", "sampler", "num_images")}

        def run(kind):
            random = torch.Generator().manual_seed(how["seed"])                                   # noqa: B023
            return pipe(**call, generator=random, num_images_per_prompt=how["num_images"], output_type=kind).images  # noqa: B023

        arrays[f"{name}.latent"] = run("latent").numpy()
        arrays[f"{name}.pixels"] = np.array([np.asarray(picture) for picture in run("pil")])
        random = torch.Generator().manual_seed(how["seed"])
        pixels = torch.from_numpy(golden.model_inputs("vae")["encode wide"])
        arrays[f"{name}.encoded"] = (pipe.vae.encode(pixels).latent_dist.sample(random) * pipe.vae.config.scaling_factor).numpy()
    save(folder, "pipelines", arrays)


def make_tasks(folder):
    arrays = {}
    for name, (pipeline, task, channels, how) in cases.TASKS.items():
        models, scheduler, pad, _ = cases.PIPELINES[pipeline]
        networks = {cases.MODELS[m][0]: build(cases.MODELS[m][0], dict(cases.MODELS[m][1], **(
            dict(in_channels=channels) if cases.MODELS[m][0] == "unet" else {})))[0] for m in models}
        kind = {"img2img": StableDiffusionImg2ImgPipeline, "inpaint": StableDiffusionInpaintPipeline,
                "instruct_pix2pix": StableDiffusionInstructPix2PixPipeline}[task]
        method = getattr(diffusers, SCHEDULERS[how["sampler"]] if "sampler" in how else scheduler["_class_name"])
        more = dict(algorithm_type="sde-dpmsolver++") if how.get("sampler") == "dpmpp_2m_sde" else {}
        pipe = pipeline_of(networks, pad, method.from_config(scheduler, **more), kind)
        picture, mask = golden.a_picture()
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


def inversion_latents():
    """diffusers' latents with a word of one vector and one of three."""
    models, scheduler, pad, _ = cases.PIPELINES["sd1"]
    networks = {cases.MODELS[m][0]: build(*cases.MODELS[m])[0] for m in models}
    pipe = pipeline_of(networks, pad, diffusers.DDIMScheduler.from_config(scheduler))
    with tempfile.TemporaryDirectory() as place:
        for file, word in golden.inversion_files(Path(place)):
            pipe.load_textual_inversion(str(file), token=word)
    how = {k: v for k, v in dict(golden.LORA_HOW, prompt=golden.INVERTED).items() if k not in ("seed", "sampler")}
    return {"inversion.latent": pipe(**how, generator=torch.Generator().manual_seed(3), output_type="latent").images.numpy()}


def single_latents():
    """Latents of models that diffusers converted from LDM names."""
    found = {}
    for second in (False, True):
        state = {k: torch.from_numpy(np.asarray(v)) for k, v in ldm.arrays(second).items()}
        unet = dict(block_out_channels=list(ldm.UNET["channels"]), cross_attention_dim=64, use_linear_projection=second,
                    sample_size=8, attention_head_dim=[1, 1, 1, 1] if second else 8, norm_num_groups=32, layers_per_block=2,
                    down_block_types=cases.UNET["down_block_types"], up_block_types=cases.UNET["up_block_types"])
        vae = dict(block_out_channels=list(ldm.VAE["channels"]), norm_num_groups=32, latent_channels=4, layers_per_block=2,
                   down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
        text = CLIPTextModel(CLIPTextConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=1,
                                            vocab_size=49408, eos_token_id=2, hidden_act="gelu" if second else "quick_gelu",
                                            max_position_embeddings=77)).eval()
        networks = dict(unet=UNet2DConditionModel(**unet).eval(), vae=AutoencoderKL(**vae).eval(), text_encoder=text)
        networks["unet"].load_state_dict(convert_ldm_unet_checkpoint(dict(state), networks["unet"].config))
        networks["vae"].load_state_dict(convert_ldm_vae_checkpoint(dict(state), networks["vae"].config))
        if second:
            names = convert_open_clip_checkpoint(text, dict(state), prefix="cond_stage_model.model.")
        else:
            names = convert_ldm_clip_checkpoint(dict(state))
        prefix = "text_model." if any(k.startswith("text_model.") for k in text.state_dict()) else ""
        names = {prefix + k.removeprefix("text_model."): v for k, v in names.items()}
        text.load_state_dict({k: names[k] for k in text.state_dict()})                     # SD 2's last layer is not read
        pipe = pipeline_of(networks, "!" if second else None, diffusers.DDIMScheduler.from_config(cases.SCHEDULE))
        how = {k: v for k, v in golden.LORA_HOW.items() if k not in ("seed", "sampler")}

        def run(kind):
            return pipe(**how, generator=torch.Generator().manual_seed(3), output_type=kind).images      # noqa: B023

        found[f"single {1 + second}.latent"], found[f"single {1 + second}.pixels"] = run("latent").numpy(), run("np")
    return found


def lora_latents():
    """diffusers' latents with each LoRA file loaded."""
    models, scheduler, pad, _ = cases.PIPELINES["sd1"]
    found = {}
    for name in cases.LORAS:
        networks = {cases.MODELS[m][0]: build(*cases.MODELS[m])[0] for m in models}
        pipe = pipeline_of(networks, pad, diffusers.DDIMScheduler.from_config(scheduler))
        with tempfile.TemporaryDirectory() as place:
            pipe.load_lora_weights(golden.lora_file(name, Path(place) / "lora.safetensors"), adapter_name="it")
        pipe.set_adapters(["it"], [cases.LORAS[name][-1]])
        how = {k: v for k, v in golden.LORA_HOW.items() if k not in ("seed", "sampler")}
        found[f"lora {name}.latent"] = pipe(**how, generator=torch.Generator().manual_seed(golden.LORA_HOW["seed"]),
                                            output_type="latent").images.numpy()
    return found


def make_shipped(folder):
    """The model that comes with minisd, run by diffusers from the same folder."""
    pipe = StableDiffusionPipeline.from_pretrained(SHIPPED).to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pictures = [np.asarray(pipe(prompt, num_inference_steps=20, guidance_scale=7.5, height=64, width=64,
                                generator=torch.Generator().manual_seed(seed)).images[0]) for prompt, seed in cases.SHIPPED]
    save(folder, "shipped", {"pixels": np.array(pictures)})


def make(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in cases.MODELS:
        make_model(folder, name)
    make_samplers(folder)
    make_noise(folder)
    make_tokens(folder)
    make_pipelines(folder)
    make_tasks(folder)
    make_shipped(folder)


def drift(name, folder):
    """The largest difference between a stored golden and one made now, relative to each array's largest value."""
    stored, now = golden.Golden(name), golden.Golden(name, folder)
    if set(stored) != set(now) or any(stored.about[k] != now.about[k] for k in stored.about if k != "versions"):
        return np.inf
    return max(golden.relative(now[k], stored[k]) for k in stored)


def check():
    """Prints a row for each golden; -> whether all are within bounds."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        for name in cases.MODELS:
            errors = [(e, f"{layer} ({case})") for case, found in golden.compare_model(name, folder).items() for layer, e in found]
            outputs = max(e for e, layer in errors if layer.startswith("output"))
            worst, where = max(errors)
            rows.append((name, len(errors), outputs, f"{worst:.1e} {where}", worst <= golden.LAYER_BOUND
                         and outputs <= golden.BOUND, drift(name, folder)))
        fresh = golden.Golden("samplers", folder)
        found = [(golden.compare_sampler(case, fresh), case) for case in cases.sampler_cases()]
        rows.append(("samplers", len(found), max(found)[0], f"{max(found)[0]:.1e} {max(found)[1]}",
                     max(found)[0] <= golden.BOUND, drift("samplers", folder)))
        error = golden.compare_noise(golden.Golden("noise", folder))
        rows.append(("noise", len(cases.NOISE), error, "", error <= 1e-6, drift("noise", folder)))
        fresh = golden.Golden("tokens", folder)
        rows.append(("tokens", len(cases.PROMPTS), *compare_tokens(fresh), drift("tokens", folder)))
        fresh = golden.Golden("pipelines", folder)
        for name, (*_, how) in cases.PIPELINES.items():
            pipe = minisd.load(golden.write_pipeline(Path(folder) / name, name))
            error = golden.relative(pipe.txt2img(**how, output="latent"), golden.channels_last(fresh[f"{name}.latent"]))
            rows.append((f"pipeline {name}", 1, error, "latent after all steps", error <= golden.BOUND, drift("pipelines", folder)))
        fresh = golden.Golden("tasks", folder)
        found = [(golden.compare_task(name, fresh, folder), name) for name in cases.TASKS]
        found += [(golden.compare_lora(name, fresh, folder), f"lora {name}") for name in cases.LORAS]
        found += [(golden.compare_single(second, fresh, folder), f"single file of SD {1 + second}") for second in (False, True)]
        found.append((golden.compare_inversion(fresh, folder), "textual inversion"))
        rows.append(("tasks", len(found), max(found)[0], f"latent after all steps, {max(found)[1]}", max(found)[0] <= golden.BOUND,
                     drift("tasks", folder)))
        levels, moved = golden.compare_shipped(golden.Golden("shipped", folder)), drift("shipped", folder)
        rows.append(("shipped model", len(cases.SHIPPED), levels, "levels of 255, after 20 steps", levels <= 1,
                     0.0 if moved * 255 <= 1.001 else moved))               # rounding may move a pixel by one level
    print(f"{'golden':<16}{'compared':>9}{'output':>10}  {'drift':<8}  worst layer or case")
    for name, count, output, worst, ok, moved in rows:
        good = ok and moved <= DRIFT
        print(f"{name:<16}{count:>9}{output:>10.1e}  {moved:<8.1e}  {worst:<70}{'' if good else 'NOT OK'}".rstrip())
    fine = all(ok and moved <= DRIFT for *_, ok, moved in rows)
    print(f"{'all within' if fine else 'NOT ALL WITHIN'} bounds: outputs {golden.BOUND:g}, layers {golden.LAYER_BOUND:g}, "
          f"stored against made now {DRIFT:g}; " + ", ".join(f"{k} {v}" for k, v in VERSIONS.items()))
    return fine


def compare_tokens(fresh):
    from minisd.tokenizer import Tokenizer
    wrong = []
    for label, pad in (("plain", None), ("sd2", "!")):
        with tempfile.TemporaryDirectory() as place:
            recipe.write_tokenizer(Path(place), pad=pad)
            ids, _ = Tokenizer.from_folder(place)(cases.PROMPTS)
        wrong += [repr(p)[:40] for p, a, b in zip(cases.PROMPTS, ids, fresh[label]) if list(a) != list(b)]
    return float(len(wrong)), ", ".join(wrong), not wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    quiet()
    if parser.parse_args().check:
        sys.exit(0 if check() else 1)
    make(golden.FOLDER)
