"""A picture's settings, in the picture: the `parameters` text of AUTOMATIC1111's web UI, which picture viewers read."""
import json
import re

from PIL import ExifTags

from ..diffusion.samplers import SAMPLERS
from ..errors import InputError
from .pixels import opened

QUOTED, KEY = re.compile(r'\s*"(?:\\.|[^"\\])*"'), re.compile(r"\w[\w /-]{0,60}")
# Settings that are written into a picture where they are not at their defaults, and are called nothing else by AUTOMATIC1111.
NAMES = {"prompt_syntax": "Prompt syntax", "denoising_end": "Denoising end", "original_size": "Original size",
         "crops_coords_top_left": "Crop", "target_size": "Target size", "controlnet_conditioning_scale": "ControlNet weight",
         "negative_original_size": "Negative original size", "negative_crops_coords_top_left": "Negative crop",
         "negative_target_size": "Negative target size", "prompt_2": "Prompt 2", "negative_prompt_2": "Negative prompt 2",
         "aesthetic_score": "Aesthetic score", "negative_aesthetic_score": "Negative aesthetic score",
         "original_inference_steps": "Original steps", "cache_interval": "Cache interval",
         "guess_mode": "Guess mode", "control_guidance_start": "Guidance start",
         "control_guidance_end": "Guidance end"}


def settings_of_picture(s, size, *, model, sampler, notes, empty_negative, batch):
    """{"Steps": 20, ...} of one picture, in AUTOMATIC1111's words where it has some; None values are not to be written.

    s: Settings, with the picture's own seed;  size: (width, height);  model, sampler: their names;  notes: further settings
    empty_negative: whether the negative prompt is empty where none at all is something else, as in Stable Diffusion XL
    batch: (position, size) where several pictures share one generator, else None"""
    changed = s.changed()
    return {"Steps": s.num_inference_steps, "Sampler": SAMPLERS[sampler].a1111, "Schedule type": s.sigmas and s.sigmas.capitalize(),
            "CFG scale": int(s.guidance_scale) if s.guidance_scale == int(s.guidance_scale) else s.guidance_scale, "Seed": s.seed,
            "Size": f"{size[0]}x{size[1]}", "Model": model, **notes,
            "Clip skip": s.clip_skip, "Eta": s.eta, "CFG Rescale": s.guidance_rescale or None, "Timestep spacing": s.timestep_spacing,
            "RNG": s.rng.upper(), "Empty negative prompt": "read" if empty_negative else None,
            **{shown: getattr(s, name) for name, shown in NAMES.items() if name in changed},
            "Latents": None if s.latents is None else "given",
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


def settings_json(prompt, negative, settings):
    """The same as JSON, in which no prompt can be taken for anything else; in ASCII."""
    return json.dumps({"minisd": 1, "prompt": prompt, "negative_prompt": negative,
                       "settings": {k: v if isinstance(v, (int, float, str)) else str(v) for k, v in settings.items() if v is not None}})


def read_texts(path):
    """-> (the JSON, the `parameters` text), of a PNG, or of a JPEG's or WebP's EXIF description and user comment; None where there is none.

    Raises InputError for what is no picture."""
    with opened(path) as picture:
        if isinstance(picture.info.get("parameters"), str):
            return picture.info.get("minisd"), picture.info["parameters"]
        try:
            exif = picture.getexif()
            comment, description = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment), exif.get(ExifTags.Base.ImageDescription)
        except Exception as e:                               # Pillow raises what it meets: ValueError, struct.error, KeyError, ...
            raise InputError(f"{path}: its EXIF data is damaged ({e})") from e
    if isinstance(comment, bytes) and comment.startswith(b"UNICODE\0"):
        comment = comment[8:].decode("utf-16-be", errors="replace")
    return description if isinstance(description, str) else None, comment if isinstance(comment, str) else None


def read_parameters(path):
    """How a picture was made, minisd's or AUTOMATIC1111's -> (prompt, negative prompt, {"Steps": "20", ...}).

    Raises InputError if the file is no picture or says nothing of how it was made."""
    own, text = read_texts(path)
    if own is not None and own.startswith('{"minisd":'):
        return read_settings_json(path, own)
    lines = text.strip().split("\n") if text else []
    settings = fields(lines[-1]) if lines else {}
    if "Steps" not in settings:
        raise InputError(f"{path}: does not say how it was made: it has no `parameters` text, or none with steps")
    prompt, _, negative = "\n".join(lines[:-1]).partition("Negative prompt: ")
    return prompt.strip("\n"), negative.strip("\n"), settings


def read_settings_json(path, own):
    """What settings_json() wrote -> the same as read_parameters().  Raises InputError for anything else."""
    try:
        found = json.loads(own)
        prompt, negative, settings = found["prompt"], found["negative_prompt"], {k: str(v) for k, v in found["settings"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise InputError(f"{path}: the settings stored in it are damaged") from e
    if not isinstance(prompt, str) or not isinstance(negative, str) or "Steps" not in settings:
        raise InputError(f"{path}: the settings stored in it are damaged")
    return prompt, negative, settings


def fields(line):
    """'Steps: 20, Model: "a, b"' -> {"Steps": "20", "Model": "a, b"}; what is no such pair is left out."""
    found, at = {}, 0
    while 0 <= (colon := line.find(":", at)):
        key = line[at:colon].rpartition(",")[2].strip()
        quoted = QUOTED.match(line, colon + 1)
        end = line.find(",", quoted.end() if quoted else colon + 1)
        end = len(line) if end < 0 else end
        value = line[colon + 1:end].strip()
        if quoted:
            try:
                value = json.loads(quoted[0], strict=False)
            except ValueError:                               # in quotes, and yet not what we write
                value = quoted[0].strip().strip('"')
        if KEY.fullmatch(key):
            found[key] = value
        at = end + 1
    return found
