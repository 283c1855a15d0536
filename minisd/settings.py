"""What callers pass for a run, and whether it can be served."""
import math
import secrets
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from .diffusion import rng
from .errors import InputError


@dataclass(frozen=True)
class Settings:
    """How a picture is made, whatever the task.

    num_inference_steps: 1 .. 1000;  guidance_scale: how hard to follow the prompt, 1 or less = off;  num_images: per prompt
    guidance_rescale: 0 .. 1, how far the guided prediction is brought back to the spread of the unguided, for models with zero SNR
    seed: as torch.Generator.manual_seed, or a list with one for each picture; None draws one;  rng: "cpu" or "cuda", whose numbers
        with a list, all noise of a picture comes from its own generator, so that it is what it would be alone
    width, height: pixels, multiples of what a latent position is wide (8; 4 for the shipped model); None = as trained
    sampler: a name in samplers.SAMPLERS, None = the model's own;  sigmas, eta, timestep_spacing: see samplers.sampler
    clip_skip: which layer of the text encoder is used, counted from the last, 1, as AUTOMATIC1111 counts; None = the model's own, 1,
        or 2 of Stable Diffusion XL;  of the negative prompt too, as there (in diffusers, of the prompt alone)
    prompt_syntax: "a1111" reads (weights:1.2), BREAK and prompts of any length (prompt.py), "plain" as diffusers does
    denoising_end: 0 .. 1, where to stop, for another model to go on from the latent
    original_size, crops_coords_top_left, target_size: (vertical, horizontal) pixels that Stable Diffusion XL is told, None = the
        picture's;  aesthetic_score, negative_aesthetic_score: 1 .. 10, that its refiner is told
    control_image: a picture for the ControlNet, or a list of one for each;  controlnet_conditioning_scale, control_guidance_start,
        control_guidance_end: how much it counts, 1 in all tasks, and from where to where, 0 .. 1, or a list of one for each
    guess_mode: whether ControlNets see the prompt's half alone, and count less in high resolutions, so that no prompt is needed"""
    num_inference_steps: int = 20
    guidance_scale: float = 7.5
    seed: Any = None
    width: int | None = None
    height: int | None = None
    sampler: str | None = None
    num_images: int = 1
    sigmas: str | None = None
    eta: float | None = None
    timestep_spacing: str | None = None
    rng: str = "cpu"
    clip_skip: int | None = None
    prompt_syntax: str = "a1111"
    guidance_rescale: float = 0.0
    denoising_end: float | None = None
    original_size: tuple | None = None
    crops_coords_top_left: tuple = (0, 0)
    target_size: tuple | None = None
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5
    control_image: Any = None
    controlnet_conditioning_scale: Any = 1.0
    guess_mode: bool = False
    control_guidance_start: Any = 0.0
    control_guidance_end: Any = 1.0

    def check(self):
        """Raises InputError for a number that is none, or out of range."""
        for name, low, high in (("guidance_rescale", 0, 1), ("denoising_end", 0, 1), ("aesthetic_score", 0, 10),
                                ("negative_aesthetic_score", 0, 10)):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and low <= value <= high):
                raise InputError(f"{name} is {value!r}; it must be a number from {low} to {high}")
        return self


def is_number(value):
    """A finite one, and no truth value."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and math.isfinite(value)


def pair_prompts(prompt, negative_prompt, num_images):
    """One prompt and one negative prompt for each picture: lists of the same length.  None is no negative prompt at all."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, (list, tuple)) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise InputError(f"prompt is {prompt!r}; it must be a string or a list of strings")
    if isinstance(num_images, bool) or not isinstance(num_images, (int, np.integer)) or num_images < 1:
        raise InputError(f"num_images is {num_images!r}; it must be a whole number, 1 or more")
    if negative_prompt is None:
        return [p for p in prompts for _ in range(num_images)], None
    negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
    if not isinstance(negatives, (list, tuple)) or not all(isinstance(n, str) for n in negatives):
        raise InputError(f"negative_prompt is {negative_prompt!r}; it must be a string or a list of strings")
    if len(negatives) != len(prompts):
        raise InputError(f"{len(prompts)} prompts, but {len(negatives)} negative prompts; give one for each, or one for all")
    return [p for p in prompts for _ in range(num_images)], [n for n in negatives for _ in range(num_images)]


def check_guidance(scale, negatives):
    """The scale as a float, None for 1 and below, which turn guidance off.  Raises InputError for what is no number; warns
    when guidance is off unawares."""
    if not is_number(scale):
        raise InputError(f"guidance_scale is {scale!r}; it must be a number, 1 to turn guidance off, 7.5 as a rule")
    if scale < 1 and scale != 0:                             # 0 is how the turbo models' cards put it
        warnings.warn(f"guidance_scale {scale:g} is below 1, which turns guidance off, as 1 does", stacklevel=4)
    if scale <= 1 and any(negatives or ()):
        warnings.warn("without guidance (guidance_scale above 1) a negative prompt has no effect", stacklevel=4)
    return float(scale) if scale > 1 else None


def generators(seed, count, kind):
    """A random generator for the whole batch, or a list of one for each picture if `seed` is a list."""
    if not isinstance(kind, str) or kind not in rng.GENERATORS:
        raise InputError(f"rng is {kind!r}; choose {' or '.join(rng.GENERATORS)}")
    if isinstance(seed, (list, tuple)):
        if len(seed) != count:
            raise InputError(f"{len(seed)} seeds for {count} pictures; give one for each, or one for all")
        return [rng.GENERATORS[kind](s) for s in seed]
    return rng.GENERATORS[kind](secrets.randbits(32) if seed is None else seed)


def check_reading(clip_skip, prompt_syntax, layers):
    """Raises InputError for a way to read prompts that there is not.  layers: of the text encoder."""
    if clip_skip is not None and not (is_number(clip_skip) and isinstance(clip_skip, (int, np.integer)) and 1 <= clip_skip <= layers):
        raise InputError(f"clip_skip is {clip_skip!r}; this text encoder has {layers} layers: 1 takes the last one's, 2 the one before")
    if prompt_syntax not in ("a1111", "plain"):
        raise InputError(f"prompt_syntax is {prompt_syntax!r}; choose a1111 or plain")


def file_list(given, second):
    """A file, a pair (file, what belongs to it), or a list of such -> [(file, what belongs to it, or `second`), ...]

    Raises InputError for a tuple that is no pair."""
    items = given if isinstance(given, list) else [given] if given else []
    if any(isinstance(item, (tuple, list)) and len(item) != 2 for item in items):
        raise InputError(f"{given!r} is neither a file, nor a pair of a file and what belongs to it, nor a list of such")
    return [item if isinstance(item, (tuple, list)) else (item, second) for item in items]


def listed(names, most=5):
    """The first few of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
