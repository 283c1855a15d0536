"""A random search for a picture that is not diffusers': python tests/search.py [COUNT] [--seed N] [--repeat SEED]   (needs '.[goldens]')

Each case draws a family, a task, a sampler, sizes, strengths, seeds and settings, and runs diffusers and minisd on the same small drawn
weights.  A difference, or a case that one of the two refuses and the other does not, prints one line with what repeats it."""
import argparse
import random
import sys
import tempfile
import warnings
from pathlib import Path

import golden_cases
import golden_checks
import make_goldens
import numpy as np
import torch

import minisd
from minisd.errors import MinisdError

warnings.simplefilter("ignore")
BOUND = 1e-3                                                 # rounding of a few steps with a guidance of up to 9; bugs are 1e-2 and more
SPACINGS = [None, None, None, "leading", "linspace", "trailing"]
FAMILIES = {  # family -> tasks
    "sd1": ["txt2img", "txt2img", "img2img", "inpaint", "inpaint 9", "instruct_pix2pix", "controlnet", "controlnet img2img"],
    "xl": ["txt2img", "txt2img", "img2img", "inpaint", "inpaint 9", "instruct_pix2pix", "controlnet"], "refiner": ["img2img"],
    "turbo": ["txt2img", "img2img"], "zero snr": ["txt2img", "img2img"], "lcm": ["txt2img", "img2img"], "taesd": ["txt2img", "img2img"],
    "upscaler": ["upscale"], "depth": ["depth2img"]}
PROMPTS = ["a castle on a hill", "", "a photo of an astronaut riding a horse, (detailed)", "東京 tower", "x " * 100]


def drawn(r):
    """-> (family, task, ControlNets, channels of the unet, arguments)"""
    family = r.choice(list(FAMILIES) + ["sd1", "sd1", "xl", "xl"])
    named = r.choice(FAMILIES[family])
    controls = [("controlnet_xl" if family == "xl" else "controlnet_sd1")] * r.choice([1, 1, 2]) if "controlnet" in named else []
    task = "inpaint" if named == "inpaint 9" else "img2img" if named == "controlnet img2img" else "txt2img" if controls else named
    channels = {"inpaint 9": 9, "instruct_pix2pix": 8, "upscale": 7, "depth2img": 5}.get(named, 4)
    how = dict(prompt=r.choice(PROMPTS), num_inference_steps=r.choice([1, 2, 3, 4, 5, 7]), guidance_scale=r.choice([1.0, 1.5, 5.0, 9.0]),
               seed=r.choice([0, 5, 2**32 + 1]), width=72, height=56, prompt_syntax="plain")
    if task == "txt2img" and not controls:
        how["width"], how["height"] = r.choice([(72, 56), (64, 64), (40, 88), (128, 24), (8, 16)])
    if family == "lcm":
        how.update(num_inference_steps=r.choice([1, 2, 4]), guidance_scale=r.choice([1.5, 8.0]))
        how |= r.choice([{}, {}, dict(original_inference_steps=20)])
    else:
        how["sampler"] = r.choice([None, *golden_cases.SAMPLER_NAMES])
        if r.random() < 0.5 and how["guidance_scale"] > 1:
            how["negative_prompt"] = r.choice(["blurry", "", "red " * 90])
        if r.random() < 0.2 and how["guidance_scale"] > 1 and task == "txt2img" and not controls:
            how["guidance_rescale"] = 0.6
    if r.random() < 0.2 and task in ("txt2img", "img2img") and family == "xl" and "negative_prompt" not in how:
        how["clip_skip"] = 3                                 # not a negative prompt: docs/use.md, Limits; with SD 1, diffusers fails
    if task in ("img2img", "inpaint", "depth2img"):
        how["strength"] = r.choice([s for s in (0.3, 0.5, 0.75, 0.9, 1.0) if int(how["num_inference_steps"] * s) > 0])
    if task == "instruct_pix2pix":
        how.update(image_guidance_scale=r.choice([1.0, 1.5, 2.0]), guidance_scale=r.choice([1.5, 5.0]))
    if task == "upscale":
        how["noise_level"] = r.choice([0, 20, 300])
    if task == "txt2img" and r.random() < 0.3:
        how["num_images"] = 2
    if controls:
        how["controlnet_conditioning_scale"] = r.choice([0.5, 1.0]) if len(controls) == 1 else [0.5, 0.8]
        how |= r.choice([{}, dict(control_guidance_start=0.3, control_guidance_end=0.8), dict(guess_mode=True)])
    if family in ("xl", "refiner") and task != "instruct_pix2pix":
        if r.random() < 0.3:
            how.update(original_size=(40, 30), crops_coords_top_left=(3, 5))
        if r.random() < 0.3 and task == "txt2img" and not controls and "num_images" not in how:      # docs/use.md, Limits
            how.update(negative_original_size=(20, 90), negative_target_size=(33, 44), negative_crops_coords_top_left=(1, 2))
        if r.random() < 0.2 and family == "xl" and not controls:
            how["prompt_2"] = "in fog"
        if r.random() < 0.2 and not controls and task == "txt2img" and how["num_inference_steps"] > 3:
            how["denoising_end"] = r.choice([0.5, 0.8])
        if r.random() < 0.2 and task in ("img2img", "inpaint") and channels == 4:
            how["denoising_start"] = r.choice([0.3, 0.5, 0.65])
    if family == "refiner" and r.random() < 0.5:
        how.update(aesthetic_score=7.5, negative_aesthetic_score=1.0)
    middle = how.get("strength", 1.0) < 1 or "denoising_start" in how
    if middle and (how.get("sampler") == "lms"):
        how["sampler"] = "euler"                             # lms from the middle differs: docs/use.md, Limits
    return family, task, controls, channels, how


def reference(family, task, controls, channels, how):
    """diffusers' latent, channels last."""
    pipe = make_goldens.family_pipeline(family, task, controls, channels, how.get("sampler"))
    call = {k: v for k, v in how.items() if k not in ("prompt_syntax",)}
    if call.get("guidance_scale") == 1.0 and task != "instruct_pix2pix":
        call.pop("negative_prompt", None)
    found = make_goldens.run_reference(pipe, family, task, controls, call, "latent")
    return golden_checks.channels_last(np.asarray(found))


def ours(folder, family, task, controls, channels, how):
    place = folder / f"family {family} {channels}"
    place = place if place.exists() else golden_checks.write_family(place, family, channels)
    pipe = minisd.load(place, controlnet=[golden_checks.write_controlnet(folder, model) for model in controls])
    return getattr(pipe, task)(output="latent", **golden_checks.given_to(task, len(controls)), **golden_checks.in_our_words(task, how))


def compare(seed, folder):
    """-> (words on the case, error or a text that says which of the two refused, None where both did)"""
    family, task, controls, channels, how = drawn(random.Random(seed))
    words = f"{family} {task}{' with ' + '+'.join(controls) if controls else ''} {channels} channels: {how}"
    try:
        expected = reference(family, task, controls, channels, how)
    except Exception as e:
        expected = e
    try:
        found = ours(folder, family, task, controls, channels, how)
    except MinisdError as e:
        found = e
    if isinstance(expected, Exception) or isinstance(found, Exception):
        return words, expected, found
    return words, golden_checks.relative(found, expected) if np.isfinite(expected).all() else ValueError("NaN"), None


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("count", nargs="?", type=int, default=300)
    p.add_argument("--seed", type=int, help="of the cases that are drawn (another each time, and printed)")
    p.add_argument("--repeat", type=int, metavar="SEED")
    a = p.parse_args()
    make_goldens.quiet()
    torch.manual_seed(0)
    seed = random.SystemRandom().getrandbits(32) if a.seed is None else a.seed
    print(f"seed {seed}")
    r = random.Random(seed)
    seeds = [a.repeat] if a.repeat is not None else [r.getrandbits(32) for _ in range(a.count)]
    compared = refused = bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            words, expected, found = compare(seed, Path(folder))
            if isinstance(expected, float):
                compared += 1
                if not expected <= BOUND:
                    bad += 1
                    print(f"differs by {expected:.1e}: --repeat {seed}   {words}", flush=True)
            elif isinstance(found, MinisdError):
                refused += 1
                if not isinstance(expected, Exception):
                    print(f"minisd alone refuses ({found}): --repeat {seed}   {words}", flush=True)
            else:
                refused += 1
                print(f"diffusers alone refuses ({type(expected).__name__}: {str(expected)[:100]}): --repeat {seed}   {words}", flush=True)
    print(f"{compared} compared, {bad} differ; {refused} refused by one or both")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
