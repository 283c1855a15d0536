"""How a picture was made, read from what minisd or AUTOMATIC1111's web UI wrote into it."""
import json
import re
import warnings

from PIL import Image

from ..errors import InputError
from ..image.metadata import A1111_NAMES


def read_parameters(path):
    """A PNG's `parameters` text, minisd's or AUTOMATIC1111's -> (prompt, negative prompt, {"Steps": "20", ...}).

    Raises InputError if the file is no picture or says nothing of how it was made."""
    try:
        with Image.open(path) as picture:
            text = picture.info.get("parameters")
    except (OSError, SyntaxError) as e:
        raise InputError(f"{path}: {getattr(e, 'strerror', None) or 'no picture that Pillow can read, or a damaged one'}") from e
    lines = text.strip().split("\n") if isinstance(text, str) else []
    settings = {k: json.loads(v) if v.startswith('"') else v.strip() for k, v in
                re.findall(r'\s*(\w[\w -]*):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)', lines[-1] if lines else "")}
    if "Steps" not in settings:
        raise InputError(f"{path}: does not say how it was made: it has no `parameters` text, or none with steps")
    prompt, _, negative = "\n".join(lines[:-1]).partition("Negative prompt: ")
    return prompt.strip("\n"), negative.strip("\n"), settings


def numbers(text):
    """"0.5" or "[0.5, 0.8]" -> [0.5, ...]"""
    found = json.loads(text)
    return found if isinstance(found, list) else [found]


def options(path):
    """-> ({option of txt2img: value}, all that the picture says).  Raises InputError for a picture that these cannot make again."""
    prompt, negative, said = read_parameters(path)
    other, told = "made from another picture, which is needed to make it again", "told of by Python, which no option can"
    for key, what in (("Denoising strength", other), ("Noise level", other), ("Image CFG scale", other),
                      ("Original size", told), ("Crop", told), ("Target size", told), ("Denoising end", told),
                      ("Batch pos", "one of several drawn from one seed, which must be made together")):
        if key in said:
            raise InputError(f"{path}: {what} ({key}: {said[key]})")
    names = {shown: name for name, shown in A1111_NAMES.items()}
    sampler, sigmas = said.get("Sampler"), said.get("Schedule type", "").lower()
    for kind in ("karras", "exponential"):                   # older pictures say "DPM++ 2M Karras"
        if sampler is not None and sampler.lower().endswith(f" {kind}"):
            sampler, sigmas = sampler[:-len(kind) - 1], kind
    if sampler is not None and sampler not in names:
        raise InputError(f"{path}: made with the sampler {sampler!r}, which minisd does not have; it has {', '.join(names)}")
    negative = negative or ("" if said.get("Empty negative prompt") == "read" else None)
    found = dict(prompt=prompt, negative=negative, sampler=names.get(sampler),
                 sigmas=sigmas if sigmas in ("karras", "exponential") else None)
    for key, name, kind in (("Steps", "steps", int), ("CFG scale", "guidance", float), ("Seed", "seed", int), ("Size", "size", str),
                            ("Eta", "eta", float), ("Timestep spacing", "spacing", str), ("Clip skip", "clip_skip", int),
                            ("RNG", "rng", str.lower), ("CFG Rescale", "guidance_rescale", float),
                            ("Prompt syntax", "prompt_syntax", str), ("Denoising start", "refiner_start", float),
                            ("ControlNet weight", "control_scale", numbers), ("Guidance start", "control_start", float),
                            ("Guidance end", "control_end", float), ("Guess mode", "guess_mode", bool), ("Control picture", "canny", bool)):
        try:
            found |= {name: kind(said[key])} if key in said else {}
        except ValueError as e:
            raise InputError(f"{path}: its {key} is {said[key]!r}, which is no number") from e
    return found, said


def require(origin, said, pipe, refiner):
    """Raises InputError where a picture, of which `said` is known, was made with other files than these Pipelines."""
    if said.get("Model", pipe.checkpoint.name) != pipe.checkpoint.name:
        warnings.warn(f"{origin} was made with the model {said['Model']}, this is {pipe.checkpoint.name}", stacklevel=2)
    here = {**pipe.said, "Refiner": refiner and refiner.checkpoint.name}
    for key, option in (("LoRA", "--lora"), ("ControlNet", "--controlnet"), ("Refiner", "--refiner"), ("VAE", "--vae"),
                        ("Embeddings", "--embedding"), ("Prediction type", "--prediction-type"), ("Weights", "--ema")):
        if said.get(key) != here.get(key):
            raise InputError(f"{origin}: made with {key} {said.get(key, 'none')}; this has {here.get(key) or 'none'}; "
                             f"give the same by {option}")
