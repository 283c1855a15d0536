"""What each task starts from, and what it does between the steps: the lines in which it differs from txt2img.

A Task is asked twice by a run (denoising.py).  first_step(run) checks that task, model and settings go together, before anything is
computed, and says which step comes first; start(run) then computes the latents of that step.  Of a run they use its model, sampler and
settings, its shape (B,h,w,4), and noise() and encode(), which draw from its generators."""
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .diffusion.samplers import LCM, sampler
from .errors import CheckpointError, InputError
from .networks.config import whole
from .settings import is_number, is_whole


@dataclass(frozen=True)
class Start:
    x: Any                                  # (B,h,w,4) latents at the noise level of the first step
    channels: Any = None                    # (B,h,w,k) further channels, concatenated with the latent at every step
    blend: Callable | None = None           # blend(x, i) -> x, after step i


class Task:
    """Defaults of what a task may have of its own."""
    image_guidance_scale: float | None = None         # how strongly to follow the channels, where they are guided as the prompt is
    class_label: int | None = None          # of each picture, for a unet that has them
    tile: int | None = None                 # latent positions beyond which a large picture is worked on in overlapping pieces

    def part(self, rows):
        """The task of some of its pictures, a slice of them; those that share what they are given share it still."""
        given = getattr(self, "pixels", None)
        return self if given is None or len(given) == 1 else replace(self, pixels=given[rows])


@dataclass(frozen=True)
class Txt2Img(Task):
    """From noise alone."""

    def first_step(self, run):
        require_channels(run.model, "txt2img", run.model.vae_config.latent_channels)
        return 0

    def start(self, run):
        return Start(run.first_noise() * float(run.sampler.init_sigma))


@dataclass(frozen=True)
class Img2Img(Task):
    """From an image, noised to the level of a step in the middle.   Meng et al. 2022 (SDEdit).

    pixels: (1,H,W,3) in [0,1], or latents (B,h,w,4)
    denoising_start: in place of strength: the latents are noisy already, as another model left them at its denoising_end"""
    pixels: Any
    strength: float
    denoising_start: float | None = None

    def first_step(self, run):
        require_channels(run.model, "img2img", run.model.vae_config.latent_channels)
        if self.denoising_start is not None:
            return resume(run.sampler, self.denoising_start)
        if run.model.unet_config.is_lcm and isinstance(run.sampler, LCM):
            check_strength(self.strength)                    # such a model takes all steps, in the part that strength leaves
            run.sampler.schedule_within(run.settings.num_inference_steps, self.strength)
            return 0
        return first_step(run.sampler, run.settings.num_inference_steps, self.strength)

    def start(self, run):
        x0 = run.encode(self.pixels)                         # the encoder's sample is drawn before the noise
        return Start(x0 if self.denoising_start is not None else run.sampler.add_noise(x0, run.first_noise(), run.first))


@dataclass(frozen=True)
class Inpaint(Task):
    """From an image (1,H,W,3) in [0,1] and a mask (1,H,W,1), 1 where it is to be painted.   [LDM] section 4.5.

    A unet of 9 channels reads the mask and the image without what it hides; with any other, what is not to be painted is put back after
    each step, noised to the level reached.
    denoising_start: in place of strength: the image, or latents (B,h,w,4) of a model that painted until there, are noisy already;  such
    latents are denoised whole, for what the mask keeps was put back into them with its noise"""
    pixels: Any
    mask: Any
    strength: float
    denoising_start: float | None = None

    def first_step(self, run):
        if not self.reads_mask(run):
            require_channels(run.model, "inpaint", run.model.vae_config.latent_channels)
        elif self.pixels.shape[-1] != 3:
            raise InputError("this unet reads the image behind the mask, which latents do not have: give the image itself")
        if self.denoising_start is not None:
            return resume(run.sampler, self.denoising_start)
        return first_step(run.sampler, run.settings.num_inference_steps, self.strength)

    def reads_mask(self, run):
        return run.model.unet_config.in_channels == 2 * run.model.vae_config.latent_channels + 1

    def start(self, run):
        reads_mask, f = self.reads_mask(run), run.model.vae_config.factor
        small = self.mask[:, ::f, ::f].astype(run.model.latent_dtype)                # the nearest pixel
        from_noise = self.strength == 1 and self.denoising_start is None
        x0 = None if reads_mask and from_noise else run.encode(self.pixels)
        noise = run.first_noise()
        x = noise * float(run.sampler.init_sigma) if from_noise else x0 if self.denoising_start is not None else run.sampler.add_noise(
            x0, noise, run.first)
        if reads_mask:
            masked = run.encode(np.where(self.mask > 0, 0.5, self.pixels))           # grey, 0 of [-1,1]
            return Start(x, np.concatenate([np.broadcast_to(small, (*run.shape[:3], 1)), masked], axis=-1))
        if self.pixels.shape[-1] != 3:
            return Start(x)
        run.encoders_noise()                                 # the reference encodes the masked image all the same, and drops it
        return Start(x, blend=Blend(small, x0, noise, run.sampler))


@dataclass(frozen=True)
class Blend:
    """After each step, what the mask (1,h,w,1) leaves of the latents x0, noised to the level reached, is put back."""
    mask: Any
    x0: Any
    noise: Any
    sampler: Any

    def __call__(self, x, i):
        last = i + 1 == len(self.sampler.timesteps)
        return self.mask * x + (1 - self.mask) * (self.x0 if last else self.sampler.keep(self.x0, self.noise, i + 1))


@dataclass(frozen=True)
class InstructPix2Pix(Task):
    """From noise, with an image (1,H,W,3) in [0,1] as further channels, to be edited as the prompt says.   Brooks et al. 2023."""
    pixels: Any
    image_guidance_scale: float

    def first_step(self, run):
        require_channels(run.model, "instruct_pix2pix", 2 * run.model.vae_config.latent_channels)
        if not is_number(self.image_guidance_scale) or self.image_guidance_scale < 1:
            raise InputError(f"image_guidance_scale is {self.image_guidance_scale!r}; it must be a number, 1 or more, 1.5 as a rule")
        return 0

    def start(self, run):
        image = run.model.encode(self.pixels) / run.model.vae_config.scaling_factor          # unscaled, as it was trained
        return Start(run.first_noise() * float(run.sampler.init_sigma), np.broadcast_to(image, run.shape))


@dataclass(frozen=True)
class Depth2Img(Task):
    """As img2img, with a depth map (1,h,w,1) in [-1,1] as a further channel."""
    pixels: Any
    depth: Any
    strength: float

    def first_step(self, run):
        require_channels(run.model, "depth2img", run.model.vae_config.latent_channels + 1)
        return first_step(run.sampler, run.settings.num_inference_steps, self.strength)

    def start(self, run):
        x0 = run.encode(self.pixels)
        channels = np.broadcast_to(self.depth.astype(run.model.latent_dtype), (*run.shape[:3], 1))
        return Start(run.sampler.add_noise(x0, run.first_noise(), run.first), channels)


@dataclass(frozen=True)
class Upscale(Task):
    """From noise, with a small image (1,h,w,3) in [0,1] as further channels, itself noised to a level that the unet is given as a class
    label.   [LDM] section 4.4."""
    pixels: Any
    noise_level: int
    tile: int

    @property
    def class_label(self):
        return self.noise_level

    def first_step(self, run):
        model = run.model
        require_channels(model, "upscale", model.vae_config.latent_channels + 3)
        most = min(whole("model_index.json", {"max_noise_level": 350, **model.checkpoint.index}, "max_noise_level"),
                   model.unet_config.num_class_embeds - 1)
        if not is_whole(self.noise_level) or not 0 <= self.noise_level <= most:
            raise InputError(f"noise_level is {self.noise_level!r}; it must be a whole number from 0 to {most}")
        if not model.checkpoint.low_res_scheduler:
            raise CheckpointError(f"{model.checkpoint.folder}: no low_res_scheduler, which says how an upscaler's image is noised")
        return 0

    def start(self, run):
        abar = float(sampler("ddpm", run.model.checkpoint.low_res_scheduler, 1).abar[self.noise_level])
        each = len(run.generators) if isinstance(run.generators, list) else 1
        noise = run.noise((each, *self.pixels.shape[1:]))    # drawn before the latents'
        small = abar**0.5 * (2 * self.pixels.astype(noise.dtype) - 1) + (1 - abar) ** 0.5 * noise
        x = run.first_noise() * float(run.sampler.init_sigma)
        return Start(x, np.broadcast_to(small, (*run.shape[:3], 3)))


# ---- which step comes first, and which last --------------------------------------------------------------------


def check_strength(strength):
    if not is_number(strength) or not 0 < strength <= 1:
        raise InputError(f"strength is {strength!r}; it must be above 0 (the image as it is) and at most 1 (all new)")


def first_step(sampler, steps, strength):
    """The number of the step that strength starts with."""
    check_strength(strength)
    taken = min(int(steps * strength), steps)
    if taken == 0:
        raise InputError(f"strength {strength:g} of {steps} steps is less than one step; use more of either")
    if taken < steps:
        require_middle(sampler)
    return (steps - taken) * sampler.calls_per_step


def require_middle(sampler):
    """Raises InputError for a sampler that cannot start in the middle."""
    if len(getattr(sampler, "prk", ())):
        raise InputError("pndm with Runge-Kutta steps cannot start in the middle; use another sampler, or all steps")


def stop(sampler, share):
    """The number of the step to stop before for a denoising_end, a share of the training's timesteps.

    Raises InputError if it is the first."""
    last = steps_above(sampler, share)
    if last == 0:
        raise InputError(f"denoising_end {share:g} leaves no step of {len(sampler.timesteps)}; use more of either")
    return last


def resume(sampler, share):
    """The number of the step to resume with for a denoising_start, such a share.  Raises InputError if it leaves no step."""
    if not is_number(share) or not 0 < share < 1:
        raise InputError(f"denoising_start is {share!r}; it must be a number above 0 and below 1")
    require_middle(sampler)
    first = steps_above(sampler, share)
    if first == len(sampler.timesteps):
        raise InputError(f"denoising_start {share:g} leaves no step of {first}; use less, or more steps")
    return first - first % sampler.calls_per_step


def steps_above(sampler, share):
    """How many of the sampler's timesteps come before that share."""
    n = len(sampler.abar)
    return len([t for t in sampler.timesteps if t >= round(n - share * n)])


def require_channels(model, task, channels):
    """Raises CheckpointError if the unet reads another number of channels."""
    found = model.unet_config.in_channels
    if found != channels:
        own = model.vae_config.latent_channels
        use = {own: ": this is a model for txt2img, img2img and inpaint; give another, with -m or load()",
               2 * own + 1: ": this is an inpainting model; use 'minisd inpaint'",
               2 * own: ": this is an instruct-pix2pix model; use 'minisd pix2pix'", own + 3: ": this is an upscaler; use 'minisd upscale'",
               own + 1: ": this is a model for depth2img"}.get(found, ": this model is for another task")
        raise CheckpointError(f"unet: conv_in takes {found} channels, {task}'s latents have {channels}{use}")
    if model.unet_config.is_upscaler and task != "upscale":
        raise CheckpointError("unet: it has class labels, as upscalers do, which minisd gives it in 'minisd upscale' alone")
