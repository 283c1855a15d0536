"""Real sizes against torch: Stable Diffusion 1.5's and 2.1's configurations with seeded random float16 weights, as
diffusers writes them to disk.  Needs `pip install '.[goldens]'`, 6 GB of disk, 12 GB of memory.

    python tests/full_size.py [--folder DIR] [--write-docs]

For each: one unet call (batch 2, 64x64 latents) and one decode (32x32 latents, 256x256 pixels), minisd in float32 against
torch in float32, and for SD 1.5 `minisd txt2img` at 512x512, 2 steps, against diffusers' picture for the same seed.
Reference and engine run in processes of their own, so that the peaks of memory are each one's own.  Last, what
`minisd inspect` prints of both models must be what docs/architecture.md says; --write-docs writes it there."""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import recipe

BOUND = 2e-4                                                 # of the largest value
XA, D, U = "CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D"
UNET = dict(sample_size=64, in_channels=4, out_channels=4, block_out_channels=[320, 640, 1280, 1280], layers_per_block=2,
            down_block_types=[XA, XA, XA, D], up_block_types=[U, "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"])
VAE = dict(sample_size=512, block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4,
           down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
MODELS = {
    "sd15": dict(unet=dict(UNET, attention_head_dim=8, cross_attention_dim=768), scheduler=("PNDMScheduler", {}),
                 text=dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                           hidden_act="quick_gelu", projection_dim=768), pad=None),
    "sd21": dict(unet=dict(UNET, attention_head_dim=[5, 10, 20, 20], cross_attention_dim=1024, use_linear_projection=True,
                           sample_size=96), scheduler=("DDIMScheduler", {"prediction_type": "v_prediction"}),
                 text=dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
                           hidden_act="gelu", projection_dim=512), pad="!"),
}
TITLES = {"sd15": "Stable Diffusion 1.5", "sd21": "Stable Diffusion 2.1 (768, v-prediction)"}
DOC = Path(__file__).parent.parent / "docs" / "architecture.md"
INTRO = """# The networks

What `minisd inspect` prints for models of the real configurations of Stable Diffusion 1.5 and 2.1. A line is a node of the
checkpoint: its name, the shapes of its own weights as the file has them, and how many numbers it holds with all below it.
Neighbours that are alike share a line, such as `0-11`. Written by `python tests/full_size.py --write-docs`.
"""
PROMPT, STEPS, SEED, SIZE = "a photo of an astronaut riding a horse", 2, 42, 512


def inputs(width):
    return (recipe.standard("full.sample", (2, 4, 64, 64)), recipe.standard("full.context", (2, 77, width)),
            recipe.standard("full.latent", (1, 4, 32, 32)))


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
    recipe.write_tokenizer(folder / "tokenizer", pad=model["pad"])
    pipe = diffusers.StableDiffusionPipeline(
        unet=diffusers.UNet2DConditionModel(**model["unet"]).half(), vae=diffusers.AutoencoderKL(**VAE).half(),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**model["text"])).half(),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"), safety_checker=None, feature_extractor=None,
        scheduler=getattr(diffusers, kind).from_config({**SCHEDULE, **more}), requires_safety_checker=False)
    pipe.save_pretrained(folder / name)
    return pipe


def reference(folder, name):
    """Writes the model to folder/name and what torch makes of it to folder/name.npz; prints its seconds as JSON."""
    import torch
    pipe = write_model(folder, name).to(torch.float32)
    x, context, latent = map(torch.from_numpy, inputs(pipe.unet.config.cross_attention_dim))
    start = time.perf_counter()
    found = {"unet": pipe.unet(x, torch.tensor([981.0, 333.0]), context).sample.numpy()}
    unet = time.perf_counter() - start
    found["vae"] = pipe.vae.decode(latent).sample.numpy()
    seconds = {"unet": unet, "vae": time.perf_counter() - start - unet}
    if name == "sd15":
        pipe.set_progress_bar_config(disable=True)
        found["picture"] = np.asarray(pipe(PROMPT, num_inference_steps=STEPS, guidance_scale=7.5, height=SIZE, width=SIZE,
                                           generator=torch.Generator().manual_seed(SEED)).images[0])
        seconds["txt2img"] = time.perf_counter() - start - seconds["unet"] - seconds["vae"]
    np.savez(folder / f"{name}.npz", **found)
    print(json.dumps({**seconds, "peak": peak()}))


def engine(folder, name, part):
    """Prints minisd's error against folder/name.npz, its seconds and its peak of memory, as JSON."""
    import minisd
    from minisd import unet, vae
    expected = np.load(folder / f"{name}.npz")[part].transpose(0, 2, 3, 1)
    pipe = minisd.load(folder / name)
    x, context, latent = inputs(pipe.unet_config.context_width)
    start = time.perf_counter()
    if part == "unet":
        found = unet.unet(pipe.unet, x.transpose(0, 2, 3, 1), np.float32([981, 333]), context, pipe.unet_config)
    else:
        found = vae.decode(pipe.vae, latent.transpose(0, 2, 3, 1) * np.float32(pipe.vae_config.scaling_factor), pipe.vae_config)
    seconds = time.perf_counter() - start
    print(json.dumps({"error": float(np.abs(found - expected).max() / np.abs(expected).max()), "seconds": seconds, "peak": peak()}))


def again(*args):
    """This script once more, in a process of its own -> what it printed."""
    out = subprocess.run([sys.executable, __file__, *map(str, args)], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.strip().split("\n")[-1])


def check(folder, name):
    """Prints a line for each comparison; -> whether all are within bounds."""
    theirs, fine = again("--reference", name, "--folder", folder), True
    for part in ("unet", "vae"):
        ours = again("--engine", name, "--part", part, "--folder", folder)
        ok = ours["error"] <= BOUND
        print(f"{name} {part:<8} error {ours['error']:.1e} (bound {BOUND:g}), {ours['seconds']:.1f} s, first use of the weights "
              f"included (torch {theirs[part]:.1f} s), peak {ours['peak']:.2f} GiB {'' if ok else 'NOT OK'}".rstrip(), flush=True)
        fine = fine and ok
    if name == "sd15":
        fine = check_picture(folder, theirs) and fine
    return fine


def check_picture(folder, theirs):
    """The command line, at 512x512."""
    from PIL import Image
    out, start = folder / "out.png", time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "minisd", "txt2img", PROMPT, "-m", str(folder / "sd15"), "-o", str(out),
                                "--steps", str(STEPS), "--seed", str(SEED), "--size", f"{SIZE}x{SIZE}", "--quiet"])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        print("sd15 txt2img  NOT OK: the command failed")
        return False
    with Image.open(out) as picture:
        off = np.abs(np.asarray(picture).astype(int) - np.load(folder / "sd15.npz")["picture"].astype(int))
    print(f"sd15 txt2img  {SIZE}x{SIZE}, {STEPS} steps: {(off == 0).mean():.4%} of the pixels' values are diffusers' own, the others "
          f"at most {off.max()}/255 off (bound 1); {seconds:.1f} s from start to PNG (diffusers {theirs['txt2img']:.1f} s, loaded), peak "
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
