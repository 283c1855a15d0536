"""An image made again from the settings that minisd or AUTOMATIC1111's web UI stored in it."""
import json

from ..diffusion.samplers import SAMPLERS
from ..errors import InputError, warn
from ..image.metadata import read_parameters


def numbers(text):
    """"0.5" or "[0.5, 0.8]" -> [0.5, ...]"""
    found = json.loads(text)
    return found if isinstance(found, list) else [found]


def options(path):
    """-> ({option of txt2img: value}, all settings stored in it).  Raises InputError for an image that these cannot make again."""
    prompt, negative, stored = read_parameters(path)
    other, python = "made from another image, which is needed to make it again", "made with a setting that only Python has"
    for key, what in (("Denoising strength", other), ("Noise level", other), ("Image CFG scale", other),
                      ("Original size", python), ("Crop", python), ("Target size", python), ("Denoising end", python),
                      ("Negative original size", python), ("Negative crop", python), ("Negative target size", python),
                      ("Original steps", python), ("Latents", python), ("Aesthetic score", python), ("Negative aesthetic score", python),
                      ("Batch pos", "one of several that shared a generator, which must be made together")):
        if key in stored:
            raise InputError(f"{path}: {what} ({key}: {stored[key]})")
    names = {registered.a1111: name for name, registered in SAMPLERS.items()}
    sampler, sigmas = stored.get("Sampler"), stored.get("Schedule type", "").lower()
    for kind in ("karras", "exponential"):                   # older pictures say "DPM++ 2M Karras"
        if sampler is not None and sampler.lower().endswith(f" {kind}"):
            sampler, sigmas = sampler[:-len(kind) - 1], kind
    if sampler is not None and sampler not in names:
        raise InputError(f"{path}: made with the sampler {sampler!r}, which minisd does not have; it has {', '.join(names)}")
    negative = negative or ("" if stored.get("Empty negative prompt") == "read" else None)
    found = dict(prompt=prompt, negative=negative, sampler=names.get(sampler),
                 sigmas=sigmas if sigmas in ("karras", "exponential") else None)
    for key, name, kind in (("Steps", "steps", int), ("CFG scale", "guidance", float), ("Seed", "seed", int), ("Size", "size", str),
                            ("Eta", "eta", float), ("Timestep spacing", "spacing", str), ("Clip skip", "clip_skip", int),
                            ("RNG", "rng", str.lower), ("CFG Rescale", "guidance_rescale", float),
                            ("Prompt syntax", "prompt_syntax", str), ("Cache interval", "cache_interval", int),
                            ("Prompt 2", "prompt_2", str), ("Negative prompt 2", "negative_prompt_2", str),
                            ("Denoising start", "refiner_start", float),
                            ("ControlNet weight", "control_scale", numbers), ("Guidance start", "control_start", float),
                            ("Guidance end", "control_end", float), ("Guess mode", "guess_mode", bool), ("Control picture", "canny", bool)):
        try:
            found |= {name: kind(stored[key])} if key in stored else {}
        except (ValueError, RecursionError) as e:
            raise InputError(f"{path}: its {key} is {stored[key]!r:.80}, which is no number") from e
    return found, stored


def require(origin, stored, pipe, refiner):
    """Raises InputError where an image with these stored settings was made with other files than these Pipelines."""
    own = pipe.model.checkpoint.name
    if stored.get("Model", own) != own:
        warn(f"{origin} was made with the model {stored['Model']}, this is {own}")
    here = {**pipe.provenance, "Refiner": refiner and refiner.model.checkpoint.name}
    for key, option in (("LoRA", "--lora"), ("ControlNet", "--controlnet"), ("Refiner", "--refiner"), ("VAE", "--vae"),
                        ("Embeddings", "--embedding"), ("Prediction type", "--prediction-type"), ("Weights", "--ema")):
        if stored.get(key) != here.get(key):
            raise InputError(f"{origin}: made with {key} {stored.get(key, 'none')}; this has {here.get(key) or 'none'}; "
                             f"give the same by {option}")
