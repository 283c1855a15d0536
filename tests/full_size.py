"""Real sizes against torch: the configurations of Stable Diffusion 1.5, 2.1 and XL with seeded random float16 weights, as
diffusers writes them to disk.  Needs `pip install '.[goldens]'`, 14 GB of disk, 20 GB of memory.

    python tests/full_size.py [--folder DIR] [--write-docs]

For each: one unet call (batch 2, 64x64 latents; 32x32 of XL) and one decode (32x32 latents, 256x256 pixels), minisd in float32
against torch in float32; for XL what its two text encoders make of a prompt; and for SD 1.5 and XL `minisd txt2img` at 512x512
and 256x256, 2 steps, against diffusers' picture for the same seed.
Reference and engine run in processes of their own, so that the peaks of memory are each one's own.  Last, what
`minisd inspect` prints of all must be what docs/architecture.md says; --write-docs writes it there."""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import drawn_models
import numpy as np
import published_configs

BOUND = 2e-4                                                 # of the largest value
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
MODELS = {
    "sd15": dict(unet=published_configs.SD1, scheduler=("PNDMScheduler", {}), texts=[published_configs.CLIP_L], pads=[None], vae={},
                 picture=512),
    "sd21": dict(unet=dict(published_configs.SD2, sample_size=96), scheduler=("DDIMScheduler", {"prediction_type": "v_prediction"}),
                 texts=[published_configs.CLIP_H], pads=["!"], vae={}, picture=None),
    "sdxl": dict(unet=published_configs.XL, scheduler=("EulerDiscreteScheduler", {"timestep_spacing": "leading"}),
                 texts=[published_configs.CLIP_L, published_configs.CLIP_G], pads=[None, "!"], vae=dict(scaling_factor=0.13025),
                 picture=256),
}
TITLES = {"sd15": "Stable Diffusion 1.5", "sd21": "Stable Diffusion 2.1 (768, v-prediction)", "sdxl": "Stable Diffusion XL"}
DOC = Path(__file__).parent.parent / "docs" / "architecture.md"
INTRO = """# The networks

What `minisd inspect` prints for models of the real configurations of Stable Diffusion 1.5, 2.1 and XL. A line is a node of the
checkpoint: its name, the shapes of its own weights as the file has them, and how many numbers it holds with all below it.
Neighbours that are alike share a line, such as `0-11`. Written by `python tests/full_size.py --write-docs`.
"""
PROMPT, STEPS, SEED = "a photo of an astronaut riding a horse", 2, 42


def inputs(name):
    """The unet's latent, context and further conditioning, and a latent to decode."""
    side, width = (32 if name == "sdxl" else 64), MODELS[name]["unet"]["cross_attention_dim"]
    conditioning = dict(text_embeds=drawn_models.standard("full.pooled", (2, 1280)),
                        time_ids=np.float32([[1024, 768, 0, 12, 512, 640]] * 2))
    return (drawn_models.standard("full.sample", (2, 4, side, side)), drawn_models.standard("full.context", (2, 77, width)),
            conditioning if name == "sdxl" else {}, drawn_models.standard("full.latent", (1, 4, 32, 32)))


def peak():
    """GiB of memory that this process had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def quiet():
    """diffusers and transformers without their messages and bars, torch without gradients."""
    import diffusers
    import torch
    import transformers
    torch.set_grad_enabled(False)
    for library in (diffusers.utils, transformers.utils):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()


def write_model(folder, name):
    """The model with seeded random float16 weights -> diffusers' pipeline; written to folder/name."""
    import diffusers
    import torch
    import transformers
    quiet()
    model = MODELS[name]
    torch.manual_seed(0)
    kind, more = model["scheduler"]
    parts = dict(unet=diffusers.UNet2DConditionModel(**model["unet"]).half(), scheduler=getattr(diffusers, kind).from_config(
        {**SCHEDULE, **more}), vae=diffusers.AutoencoderKL(**published_configs.REAL_VAE | model["vae"]).half())
    for mark, config, pad in zip(("", "_2"), model["texts"], model["pads"]):
        drawn_models.write_tokenizer(folder / f"tokenizer{mark}", pad=pad)
        encoder = transformers.CLIPTextModelWithProjection if mark else transformers.CLIPTextModel
        parts[f"text_encoder{mark}"] = encoder(transformers.CLIPTextConfig(**config)).half()
        parts[f"tokenizer{mark}"] = transformers.CLIPTokenizer.from_pretrained(folder / f"tokenizer{mark}")
    if name == "sdxl":
        pipe = diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        pipe = diffusers.StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(folder / name)
    return pipe


def reference(folder, name):
    """Writes the model to folder/name and what torch makes of it to folder/name.npz; prints its seconds as JSON."""
    import torch
    pipe, found, seconds = write_model(folder, name).to(torch.float32), {}, {}
    x, context, conditioning, latent = inputs(name)
    conditioning = {"added_cond_kwargs": {k: torch.from_numpy(a) for k, a in conditioning.items()}} if conditioning else {}

    def timed(part, run):
        start = time.perf_counter()
        found[part] = np.asarray(run())
        seconds[part] = time.perf_counter() - start

    timed("unet", lambda: pipe.unet(torch.from_numpy(x), torch.tensor([981.0, 333.0]), torch.from_numpy(context), **conditioning).sample)
    timed("vae", lambda: pipe.vae.decode(torch.from_numpy(latent)).sample)
    if name == "sdxl":
        embeds, _, pooled, _ = pipe.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False)
        timed("text", lambda: torch.cat([embeds.flatten(), pooled.flatten()]))
    if MODELS[name]["picture"]:
        pipe.set_progress_bar_config(disable=True)
        side = MODELS[name]["picture"]
        timed("picture", lambda: pipe(PROMPT, num_inference_steps=STEPS, guidance_scale=7.5, height=side, width=side,
                                      generator=torch.Generator().manual_seed(SEED)).images[0])
    np.savez(folder / f"{name}.npz", **found)
    print(json.dumps({**seconds, "peak": peak()}))


def engine(folder, name, part):
    """Prints minisd's error against folder/name.npz, its seconds and its peak of memory, as JSON."""
    import minisd
    from minisd.networks import unet, vae
    expected, pipe = np.load(folder / f"{name}.npz")[part], minisd.load(folder / name)
    x, context, conditioning, latent = inputs(name)
    start = time.perf_counter()
    if part == "unet":
        found = unet.unet(pipe.unet, x.transpose(0, 2, 3, 1), np.float32([981, 333]), context, pipe.model.unet_config, **conditioning)
    elif part == "vae":
        found = vae.decode(pipe.vae, latent.transpose(0, 2, 3, 1) * np.float32(pipe.model.vae_config.scaling_factor), pipe.model.vae_config)
    else:
        read = pipe.model.encode_prompts([PROMPT])
        found = np.concatenate([read["context"].ravel(), read["text_embeds"].ravel()])
    seconds = time.perf_counter() - start
    expected = expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected
    print(json.dumps({"error": float(np.abs(found - expected).max() / np.abs(expected).max()), "seconds": seconds, "peak": peak()}))


def again(*args):
    """This script once more, in a process of its own -> what it printed."""
    out = subprocess.run([sys.executable, __file__, *map(str, args)], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.strip().split("\n")[-1])


def check(folder, name):
    """Prints a line for each comparison; -> whether all are within bounds."""
    theirs, fine = again("--reference", name, "--folder", folder), True
    for part in ("unet", "vae", *(["text"] if name == "sdxl" else [])):
        ours = again("--engine", name, "--part", part, "--folder", folder)
        ok = ours["error"] <= BOUND
        print(f"{name} {part:<8} error {ours['error']:.1e} (bound {BOUND:g}), {ours['seconds']:.1f} s, first use of the weights "
              f"included (torch {theirs[part]:.1f} s), peak {ours['peak']:.2f} GiB {'' if ok else 'NOT OK'}".rstrip(), flush=True)
        fine = fine and ok
    if MODELS[name]["picture"]:
        fine = check_picture(folder, name, MODELS[name]["picture"], theirs) and fine
    return fine


def check_picture(folder, name, side, theirs):
    """The command line, at side x side."""
    from PIL import Image
    out, start = folder / "out.png", time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "minisd", "txt2img", PROMPT, "-m", str(folder / name), "-o", str(out),
                                "--steps", str(STEPS), "--seed", str(SEED), "--size", f"{side}x{side}", "--quiet"])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        print(f"{name} txt2img  NOT OK: the command failed")
        return False
    with Image.open(out) as picture:
        off = np.abs(np.asarray(picture).astype(int) - np.load(folder / f"{name}.npz")["picture"].astype(int))
    print(f"{name} txt2img  {side}x{side}, {STEPS} steps: {(off == 0).mean():.4%} of the pixels' values are diffusers' own, the others "
          f"at most {off.max()}/255 off (bound 1); {seconds:.1f} s from start to PNG (diffusers {theirs['picture']:.1f} s, loaded), peak "
          f"{usage.ru_maxrss / 2**20:.2f} GiB (diffusers {theirs['peak']:.2f}) {'' if off.max() <= 1 else 'NOT OK'}".rstrip())
    return off.max() <= 1


def architecture(folder, write):
    """docs/architecture.md, held against `minisd inspect` or written; -> whether it is true."""
    text = INTRO
    for name, title in TITLES.items():
        shown = subprocess.run([sys.executable, "-m", "minisd", "inspect", name], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
        text += f"\n## {title}\n\n```text\n{shown.stdout}```\n"
    if write:
        DOC.write_text(text)
    same = DOC.is_file() and DOC.read_text() == text
    print(f"docs/architecture.md {'is what minisd inspect prints' if same else 'NOT OK: it is not what minisd inspect prints'}")
    return same


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to keep the models (a temporary folder)")
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--reference", help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.reference:
        reference(a.folder, a.reference)
    elif a.engine:
        engine(a.folder, a.engine, a.part)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            place = a.folder or Path(temporary)
            place.mkdir(parents=True, exist_ok=True)
            good = [check(place, name) for name in MODELS] + [architecture(place, a.write_docs)]
        sys.exit(0 if all(good) else 1)
