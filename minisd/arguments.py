"""What callers pass for a run, checked: prompts, guidance, seeds, how prompts are read."""
import math
import secrets
import warnings

import numpy as np

from . import rng
from .errors import InputError


def pair_prompts(prompt, negative_prompt, num_images):
    """One prompt and one negative prompt for each picture: lists of the same length."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, (list, tuple)) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise InputError(f"prompt is {prompt!r}; it must be a string or a list of strings")
    if isinstance(num_images, bool) or not isinstance(num_images, (int, np.integer)) or num_images < 1:
        raise InputError(f"num_images is {num_images!r}; it must be a whole number, 1 or more")
    negative_prompt = "" if negative_prompt is None else negative_prompt
    negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
    if not isinstance(negatives, (list, tuple)) or not all(isinstance(n, str) for n in negatives):
        raise InputError(f"negative_prompt is {negative_prompt!r}; it must be a string or a list of strings")
    if len(negatives) != len(prompts):
        raise InputError(f"{len(prompts)} prompts, but {len(negatives)} negative prompts; give one for each, or one for all")
    return [p for p in prompts for _ in range(num_images)], [n for n in negatives for _ in range(num_images)]


def check_guidance(scale, negatives):
    """The scale as a float, None for 1 and below, which turn guidance off.  Raises InputError for what is no number; warns
    when guidance is off unawares."""
    if isinstance(scale, bool) or not isinstance(scale, (int, float, np.integer, np.floating)) or not math.isfinite(scale):
        raise InputError(f"guidance_scale is {scale!r}; it must be a number, 1 to turn guidance off, 7.5 as a rule")
    if scale < 1:
        warnings.warn(f"guidance_scale {scale:g} is below 1, which turns guidance off, as 1 does", stacklevel=4)
    if scale <= 1 and any(negatives):
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
    if isinstance(clip_skip, bool) or not isinstance(clip_skip, (int, np.integer)) or not 1 <= clip_skip <= layers:
        raise InputError(f"clip_skip is {clip_skip!r}; this text encoder has {layers} layers: 1 takes the last one's, 2 the one before")
    if prompt_syntax not in ("a1111", "plain"):
        raise InputError(f"prompt_syntax is {prompt_syntax!r}; choose a1111 or plain")


def file_list(given, second):
    """A file, a pair (file, what belongs to it), or a list of such -> [(file, what belongs to it, or `second`), ...]"""
    items = given if isinstance(given, list) else [given] if given else []
    return [item if isinstance(item, (tuple, list)) else (item, second) for item in items]


def listed(names, most=5):
    """The first few of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
