"""What a caller may ask of a run, whatever the task: names, defaults, meanings, and whether it can be served.

`Settings` is the one list of them: signatures, help texts and errors are made from it."""
import dataclasses
import difflib
import functools
import inspect
import math
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np

from .diffusion import rng
from .errors import InputError, warn


def setting(default, meaning):
    """A field of Settings with one line of meaning."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """How a picture is made, whatever the task."""
    num_inference_steps: int = setting(20, "denoising steps, 1 .. 1000; each is one call of the unet, or two with heun, dpm2 and dpm2_a")
    guidance_scale: float | None = setting(None, "how strongly to follow the prompt; 1 or less turns it off; None = as the model, or 7.5")
    seed: int | list[int] | None = setting(None, "picture k is drawn from seed + k; a list has one for each; None chooses one")
    width: int | None = setting(None, "pixels, a multiple of 8; None = as trained, or the given image's")
    height: int | None = setting(None, "pixels, as width")
    num_images: int = setting(1, "pictures per prompt, made in one batch")
    sampler: str | None = setting(None, "a name in minisd.samplers(); None = the model's own")
    sigmas: str | None = setting(None, "noise levels laid out anew: 'karras' or 'exponential'")
    timestep_spacing: str | None = setting(None, "'leading', 'linspace' or 'trailing'; None = as model and sampler say")
    eta: float | None = setting(None, "noise of ddim: 0 (none) .. 1 (as ddpm)")
    guidance_rescale: float = setting(0.0, "0 .. 1, restores the spread that guidance widens; 0.7 for models with zero terminal SNR")
    clip_skip: int | None = setting(None, "text encoder layer, counted from the last, 1, as in AUTOMATIC1111; None = 1, or 2 for SDXL")
    prompt_syntax: str = setting("a1111", "'a1111' reads (weights:1.2), BREAK and prompts of any length; 'plain' as diffusers does")
    rng: str = setting("cpu", "whose random numbers: 'cpu' as torch.Generator('cpu'), 'cuda' as a CUDA generator")
    shared_generator: bool = setting(False, "draw all pictures from one generator, as diffusers does when given a single one")
    latents: Any = setting(None, "noise (B,h,w,4) of mean 0 and variance 1 to start from, in place of what the seed draws")
    original_inference_steps: int | None = setting(None, "lcm: the steps that its model was distilled from; None = as the model says")
    cache_interval: int = setting(1, "compute the unet's inner layers at one call in so many, keep their outcome: faster, another picture")
    denoising_end: float | None = setting(None, "0 .. 1, stop there, for a refiner to go on from the latent")
    original_size: tuple[int, int] | None = setting(None, "SDXL: (height, width) of the training image; None = the picture's")
    crops_coords_top_left: tuple[int, int] = setting((0, 0), "SDXL: (top, left) of the crop")
    target_size: tuple[int, int] | None = setting(None, "SDXL: (height, width) to make; None = the picture's")
    negative_original_size: tuple[int, int] | None = setting(None, "SDXL: likewise, for the negative prompt; None = as original_size")
    negative_crops_coords_top_left: tuple[int, int] | None = setting(
        None, "SDXL: likewise; None = as crops_coords_top_left, or (0, 0) for its refiner")
    negative_target_size: tuple[int, int] | None = setting(None, "SDXL: likewise; None = as target_size")
    prompt_2: str | list[str] | None = setting(None, "SDXL: the prompt for its second text encoder; None = the same")
    negative_prompt_2: str | list[str] | None = setting(None, "SDXL: likewise, the negative prompt; None = the same")
    aesthetic_score: float = setting(6.0, "SDXL refiner: 1 .. 10")
    negative_aesthetic_score: float = setting(2.5, "SDXL refiner: 1 .. 10, for the negative prompt")
    control_image: Any = setting(None, "the ControlNet's image, or a list with one for each")
    controlnet_conditioning_scale: float | list[float] = setting(1.0, "strength of the ControlNet, or a list")
    control_guidance_start: float | list[float] = setting(0.0, "0 .. 1, from which share of the steps on it acts, or a list")
    control_guidance_end: float | list[float] = setting(1.0, "0 .. 1, until which share of the steps it acts, or a list")
    guess_mode: bool = setting(False, "apply ControlNets to the prompt's branch only, weaker at high resolution; no prompt needed")

    def check(self):
        """Raises InputError for what is no number where one must be, or out of range."""
        for name, value in vars(self).items():
            if value is None and getattr(Settings, name) is not None:
                raise InputError(f"{name} is None; leave it out for its default, {getattr(Settings, name)!r}")
            if isinstance(value, np.ndarray) and name not in ("latents", "control_image"):
                raise InputError(f"{name} is an array of shape {value.shape}; it must be {'a list' if value.ndim else 'a plain value'}")
        for name, low, high in (("guidance_rescale", 0, 1), ("denoising_end", 0, 1), ("aesthetic_score", 0, 10),
                                ("negative_aesthetic_score", 0, 10)):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and low <= value <= high):
                raise InputError(f"{name} is {value!r}; it must be a number from {low} to {high}")
        for name in PAIRS:
            value = getattr(self, name)
            pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(is_whole(n) and n >= 0 for n in value)
            if value is not None and not pair:
                raise InputError(f"{name} is {value!r:.80}; it must be two whole numbers of pixels, the vertical one first")
        if not is_whole(self.cache_interval) or not 1 <= self.cache_interval <= 1000:
            raise InputError(f"cache_interval is {self.cache_interval!r:.80}; it must be a whole number from 1 to 1000")
        for name in ("guess_mode", "shared_generator"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be True or False")
        return self

    def changed(self):
        """{name: value} of those that are not at their defaults, but for arrays and images; lists as tuples."""
        values = {f.name: (getattr(self, f.name), f.default) for f in dataclasses.fields(self)}
        return {name: value for name, (value, default) in values.items()
                if name not in ("latents", "control_image") and (tuple(value) if isinstance(value, list) else value) != default}


# Those that are sizes or places: (vertical, horizontal) pixels.
PAIRS = ("original_size", "crops_coords_top_left", "target_size", "negative_original_size", "negative_crops_coords_top_left",
         "negative_target_size")
# What other programs call some of them.
ALIASES = {"steps": "num_inference_steps", "cfg": "guidance_scale", "cfg_scale": "guidance_scale", "guidance": "guidance_scale",
           "negative": "negative_prompt", "scheduler": "sampler", "sigma": "sigmas", "generator": "seed", "batch_size": "num_images",
           "num_images_per_prompt": "num_images", "output_type": "output", "callback": "progress", "mask": "mask_image",
           "init_image": "image", "denoise": "strength", "denoising_strength": "strength", "size": "width", "spacing": "timestep_spacing"}


def takes_settings(method):
    """Decorator: a method with a last argument `settings` takes every field of Settings by name in its place, and says so in its signature
    and its docstring.  An unknown name is an InputError that tells the nearest."""
    own = inspect.signature(method)
    left_out = getattr(method, "left_out", ())
    fields = [f for f in dataclasses.fields(Settings) if f.name not in left_out]
    keywords = [inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type) for f in fields]
    parameters = [p for p in own.parameters.values() if p.name != "settings"]
    known = [p.name for p in parameters[1:]] + [f.name for f in fields]

    @functools.wraps(method)
    def call(self, *args, **given):
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            raise InputError(f"{method.__name__} takes no {unknown!r}{suggestion(unknown, known)}")
        settings = Settings(**{f.name: given.pop(f.name) for f in fields if f.name in given})
        try:
            bound = own.bind(self, *args, **given, settings=settings)
        except TypeError as e:
            raise InputError(f"{method.__name__}: {e}; help({type(self).__name__}.{method.__name__}) lists its arguments") from None
        return method(*bound.args, **bound.kwargs)

    call.__signature__ = own.replace(parameters=[*parameters, *keywords])
    lines = [f"    {f.name}: {f.metadata['meaning']} ({f.default!r})" for f in fields]
    call.__doc__ = "\n".join([inspect.cleandoc(method.__doc__), "", "Settings of every task:", *lines, "",
                              "Raises InputError for arguments that cannot be served, NumericalError when a latent is no longer finite."])
    return call


def without(*names):
    """Decorator, below takes_settings: settings that this task does not have."""
    def mark(method):
        method.left_out = names
        return method
    return mark


def suggestion(unknown, known):
    """"; did you mean ...?" for an argument's or option's name, or nothing."""
    near = [ALIASES[unknown]] if ALIASES.get(unknown) in known else difflib.get_close_matches(unknown, known, 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


MOST = 100_000                                               # pictures of one call


def is_whole(value):
    """A whole number, and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value):
    """A finite one, and no truth value."""
    try:
        return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:                                    # a whole number beyond floats
        return False


def pair_prompts(prompt, negative_prompt, num_images, name="negative_prompt"):
    """One prompt and one negative prompt for each picture: lists of the same length.  None is no negative prompt at all.

    name: what the second is called, where it is another that goes with a prompt"""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, (list, tuple)) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise InputError(f"prompt is {prompt!r}; it must be a string or a list of strings")
    if not is_whole(num_images) or not 1 <= num_images * len(prompts) <= MOST:
        raise InputError(f"num_images is {num_images!r}; it must be a whole number, 1 or more, with {MOST:,} pictures in all at most")
    if negative_prompt is None:
        return [p for p in prompts for _ in range(num_images)], None
    negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
    if not isinstance(negatives, (list, tuple)) or not all(isinstance(n, str) for n in negatives):
        raise InputError(f"{name} is {negative_prompt!r}; it must be a string or a list of strings")
    if len(negatives) != len(prompts):
        raise InputError(f"{len(prompts)} prompts, but {len(negatives)} {name.replace('_', ' ')}s; give one for each, or one for all")
    return [p for p in prompts for _ in range(num_images)], [n for n in negatives for _ in range(num_images)]


def check_guidance(scale, negatives):
    """The scale as a float, None for 1 and below, which turn guidance off.  Raises InputError for what is no number; warns
    when guidance is off unawares."""
    if not is_number(scale):
        raise InputError(f"guidance_scale is {scale!r}; it must be a number, 1 to turn guidance off, 7.5 as a rule")
    if scale < 1 and scale != 0:                             # 0 is how the turbo models' cards put it
        warn(f"guidance_scale {scale:g} is below 1, which turns guidance off, as 1 does")
    if scale <= 1 and any(negatives or ()):
        warn("without guidance (guidance_scale above 1) a negative prompt has no effect")
    return float(scale) if scale > 1 else None


def seeds(seed, count, shared):
    """The seed of each picture, a list; or, for a generator that all of them share, one number.  None draws one."""
    if isinstance(seed, (list, tuple)):
        if shared:
            raise InputError("shared_generator is for one seed; with a list of seeds each picture has its own generator")
        if len(seed) != count:
            raise InputError(f"{len(seed)} seeds for {count} pictures; give one for each, or one for all")
        return list(seed)
    seed = secrets.randbits(32) if seed is None else seed
    rng.check_seed(seed)
    return int(seed) if shared else [int(seed) + k - (2**64 if int(seed) + k >= 2**64 else 0) for k in range(count)]


def generators(seed, kind):
    """A random generator for the whole batch, or a list of one for each picture if `seed` is a list, as seeds() gives it."""
    if not isinstance(kind, str) or kind not in rng.GENERATORS:
        raise InputError(f"rng is {kind!r}; choose {' or '.join(rng.GENERATORS)}")
    return [rng.GENERATORS[kind](s) for s in seed] if isinstance(seed, list) else rng.GENERATORS[kind](seed)


def check_reading(clip_skip, prompt_syntax, layers):
    """Raises InputError for a way to read prompts that there is not.  layers: of the text encoder."""
    if clip_skip is not None and not (is_whole(clip_skip) and 1 <= clip_skip <= layers):
        raise InputError(f"clip_skip is {clip_skip!r}; this text encoder has {layers} layers: 1 takes the last one's, 2 the one before")
    if prompt_syntax not in ("a1111", "plain"):
        raise InputError(f"prompt_syntax is {prompt_syntax!r}; choose a1111 or plain")
