"""A picture's settings, in the picture: the `parameters` text of AUTOMATIC1111's web UI, which picture viewers read."""
import json
import re

from PIL import ExifTags, Image

from ..diffusion.samplers import SAMPLERS
from ..errors import InputError

# Settings that are written into a picture where they are not at their defaults, and are called nothing else by AUTOMATIC1111.
NAMES = {"prompt_syntax": "Prompt syntax", "denoising_end": "Denoising end", "original_size": "Original size",
         "crops_coords_top_left": "Crop", "target_size": "Target size", "controlnet_conditioning_scale": "ControlNet weight",
         "guess_mode": "Guess mode", "control_guidance_start": "Guidance start", "control_guidance_end": "Guidance end"}


def settings_of_picture(s, size, *, model, sampler, notes, empty_negative, batch):
    """{"Steps": 20, ...} of one picture, in AUTOMATIC1111's words where it has some; None values are not to be written.

    s: Settings, with the picture's own seed;  size: (width, height);  model, sampler: their names;  notes: further settings
    empty_negative: whether the negative prompt is empty where none at all is something else, as in Stable Diffusion XL
    batch: (position, size) where several pictures share one generator, else None"""
    changed = s.changed()
    return {"Steps": s.num_inference_steps, "Sampler": SAMPLERS[sampler].a1111, "Schedule type": s.sigmas and s.sigmas.capitalize(),
            "CFG scale": s.guidance_scale, "Seed": s.seed, "Size": f"{size[0]}x{size[1]}", "Model": model, **notes,
            "Clip skip": s.clip_skip, "Eta": s.eta, "CFG Rescale": s.guidance_rescale or None, "Timestep spacing": s.timestep_spacing,
            "RNG": s.rng.upper(), "Empty negative prompt": "read" if empty_negative else None,
            **{shown: getattr(s, name) for name, shown in NAMES.items() if name in changed},
            **({"Batch size": batch[1], "Batch pos": batch[0]} if batch else {}), "Version": "minisd"}


def parameters_text(prompt, negative, settings):
    """The `parameters` text: the prompt, the negative prompt if there is one, then {"Steps": 20, "Sampler": "Euler", ...} in this order,
    without None values."""
    def quoted(value):                                       # as there: a value with a separator in it is put in quotes
        text = str(value)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if re.search(r'[,:\n"]', text) else text

    lines = [prompt]
    if negative:
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{k}: {quoted(v)}" for k, v in settings.items() if v is not None))
    return "\n".join(lines)


def read_text(path):
    """The `parameters` text of a PNG, or of a JPEG's or WebP's EXIF user comment, or None."""
    try:
        with Image.open(path) as picture:
            if isinstance(picture.info.get("parameters"), str):
                return picture.info["parameters"]
            comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    except (OSError, SyntaxError) as e:
        raise InputError(f"{path}: {getattr(e, 'strerror', None) or 'no picture that Pillow can read, or a damaged one'}") from e
    if isinstance(comment, bytes) and comment.startswith(b"UNICODE\0"):
        return comment[8:].decode("utf-16-be", errors="replace")
    return comment if isinstance(comment, str) else None


def read_parameters(path):
    """How a picture was made, minisd's or AUTOMATIC1111's -> (prompt, negative prompt, {"Steps": "20", ...}).

    Raises InputError if the file is no picture or says nothing of how it was made."""
    text = read_text(path)
    lines = text.strip().split("\n") if text else []
    settings = {k: json.loads(v) if v.startswith('"') else v.strip() for k, v in
                re.findall(r'\s*(\w[\w -]*):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)', lines[-1] if lines else "")}
    if "Steps" not in settings:
        raise InputError(f"{path}: does not say how it was made: it has no `parameters` text, or none with steps")
    prompt, _, negative = "\n".join(lines[:-1]).partition("Negative prompt: ")
    return prompt.strip("\n"), negative.strip("\n"), settings
