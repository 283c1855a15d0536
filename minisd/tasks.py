"""What a task begins from, and what it does between steps: the lines in which each differs from txt2img.

A task is called with a pipeline, a sampler, its steps, what to draw noise from, and the latents' shape (B,h,w,4).  It checks that they
go together, and gives a function that computes its Start."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .diffusion.samplers import LCM, sampler
from .errors import CheckpointError, InputError
from .networks.config import whole
from .settings import is_number


@dataclass(frozen=True)
class Start:
    x: Any                                  # (B,h,w,4) latents at the noise level of step `first`
    first: int = 0
    beside: Any = None                      # (B,h,w,k) what the unet reads beside the latent
    mix: Callable | None = None             # mix(x, i) -> x, after step i
    image_guidance: float | None = None     # how hard to follow `beside`, which is then guided as the prompt is
    labels: int | None = None               # class label for each picture
    tile: int | None = None                 # latent positions of the pieces that a large picture is worked on in


def txt2img(pipe, method, steps, draw, shape):
    """From noise alone."""
    require_channels(pipe, "txt2img", pipe.vae_config.latent_channels)
    return lambda: Start(pipe.noise(draw, shape) * float(method.init_sigma))


def img2img(pixels, strength, denoising_start=None):
    """From a picture, noised to the level of a step in the middle: pixels (1,H,W,3) in [0,1].   Meng et al. 2022 (SDEdit).

    pixels may be latents; with denoising_start they are noisy already, another model having brought them there."""
    def begin(pipe, method, steps, draw, shape):
        require_channels(pipe, "img2img", pipe.vae_config.latent_channels)
        first = resume(method, denoising_start) if denoising_start is not None else first_of(pipe, method, steps, strength)

        def start():
            x0 = latents(pipe, pixels, draw, shape)          # the encoder's sample is drawn before the noise
            return Start(x0 if denoising_start is not None else method.add_noise(x0, pipe.noise(draw, shape), first), first)
        return start
    return begin


def inpaint(pixels, mask, strength):
    """From a picture (1,H,W,3) in [0,1] and a mask (1,H,W,1), 1 where it is to be painted.   [LDM] section 4.5.

    A unet of 9 channels reads the mask and the picture without what it hides; with any other, what is not to be painted is put back
    after each step, noised to the level reached."""
    def begin(pipe, method, steps, draw, shape):
        channels, f = pipe.vae_config.latent_channels, pipe.vae_config.factor
        reads_mask = pipe.unet_config.in_channels == 2 * channels + 1
        if not reads_mask:
            require_channels(pipe, "inpaint", channels)
        first, small = first_step(method, steps, strength), mask[:, ::f, ::f].astype(pipe.latent_dtype)       # the nearest pixel

        def start():
            x0 = None if reads_mask and strength == 1 else latents(pipe, pixels, draw, shape)
            noise = pipe.noise(draw, shape)
            x = noise * float(method.init_sigma) if strength == 1 else method.add_noise(x0, noise, first)
            if reads_mask:
                hidden = latents(pipe, np.where(mask > 0, 0.5, pixels), draw, shape)                # grey, 0 of [-1,1]
                return Start(x, first, np.concatenate([np.broadcast_to(small, (*shape[:3], 1)), hidden], axis=-1))

            def mix(x, i):
                last = i + 1 == len(method.timesteps)
                return small * x + (1 - small) * (x0 if last else method.add_noise(x0, noise, i + 1))

            return Start(x, first, mix=mix)
        return start
    return begin


def instruct_pix2pix(pixels, image_guidance):
    """From noise, beside a picture (1,H,W,3) in [0,1] that the unet reads, to be changed as the prompt tells.   Brooks et al. 2023."""
    def begin(pipe, method, steps, draw, shape):
        require_channels(pipe, "instruct_pix2pix", 2 * pipe.vae_config.latent_channels)
        if isinstance(image_guidance, bool) or not isinstance(image_guidance, (int, float)) or not 1 <= image_guidance < np.inf:
            raise InputError(f"image_guidance_scale is {image_guidance!r}; it must be a number, 1 or more, 1.5 as a rule")

        def start():
            picture = pipe.mean_latents(pixels) / pipe.vae_config.scaling_factor             # as it was trained
            x = pipe.noise(draw, shape) * float(method.init_sigma)
            return Start(x, beside=np.broadcast_to(picture, shape), image_guidance=float(image_guidance))
        return start
    return begin


def depth2img(pixels, depth, strength):
    """As img2img, beside a map of depths (1,h,w,1) in [-1,1] that the unet reads."""
    def begin(pipe, method, steps, draw, shape):
        require_channels(pipe, "depth2img", pipe.vae_config.latent_channels + 1)
        first = first_step(method, steps, strength)

        def start():
            x0 = latents(pipe, pixels, draw, shape)
            beside = np.broadcast_to(depth.astype(pipe.latent_dtype), (*shape[:3], 1))
            return Start(method.add_noise(x0, pipe.noise(draw, shape), first), first, beside)
        return start
    return begin


def upscale(pixels, noise_level, tile):
    """From noise, beside a small picture (1,h,w,3) in [0,1], itself noised to a level that the unet is told.   [LDM] section 4.4."""
    def begin(pipe, method, steps, draw, shape):
        require_channels(pipe, "upscale", pipe.vae_config.latent_channels + 3)
        levels, said = pipe.unet_config.classes, pipe.checkpoint.low_res_scheduler
        most = whole("model_index", {"max_noise_level": 350, **pipe.checkpoint.index}, "max_noise_level")
        if isinstance(noise_level, bool) or not isinstance(noise_level, int) or not 0 <= noise_level <= min(most, levels - 1):
            raise InputError(f"noise_level is {noise_level!r}; it must be a whole number from 0 to {min(most, levels - 1)}")
        if not said:
            raise CheckpointError(f"{pipe.checkpoint.folder}: no low_res_scheduler, which says how an upscaler's picture is noised")
        abar = float(sampler("ddpm", said, 1).abar[noise_level])

        def start():
            noise = pipe.noise(draw, (len(draw) if isinstance(draw, list) else 1, *pixels.shape[1:]))     # drawn before the latents'
            small = abar**0.5 * (2 * pixels.astype(noise.dtype) - 1) + (1 - abar) ** 0.5 * noise
            x = pipe.noise(draw, shape) * float(method.init_sigma)
            return Start(x, beside=np.broadcast_to(small, (*shape[:3], 3)), labels=noise_level,
                         tile=tile if max(shape[1:3]) > tile else None)
        return start
    return begin


def latents(pipe, pixels, draw, shape):
    """One picture's latents for each of the batch: drawn once, or once from each generator if each picture has its own."""
    if pixels.shape[-1] == shape[-1]:                        # latents already
        if len(pixels) not in (1, shape[0]):
            raise InputError(f"latents of {len(pixels)} pictures for {shape[0]} prompts; give one for each, or one for all")
        return np.broadcast_to(pixels.astype(pipe.latent_dtype), shape)
    found = pipe.draw_latents(np.repeat(pixels, shape[0], axis=0) if isinstance(draw, list) else pixels, draw)
    return np.broadcast_to(found, shape)


def stop(method, share):
    """The number of the step before which a run ends that leaves the rest to another model: share of the training's timesteps.

    Raises InputError where that is the first."""
    last = steps_above(method, share)
    if last == 0:
        raise InputError(f"denoising_end {share:g} leaves no step of {len(method.timesteps)}; use more of either")
    return last


def resume(method, share):
    """The number of the step with which such another run begins.  Raises InputError for a share that leaves it none."""
    if not is_number(share) or not 0 < share < 1:
        raise InputError(f"denoising_start is {share!r}; it must be a number above 0 and below 1")
    first = steps_above(method, share)
    if first == len(method.timesteps):
        raise InputError(f"denoising_start {share:g} leaves no step of {first}; use less, or more steps")
    return first - first % method.calls_a_step


def steps_above(method, share):
    n = len(method.abar)
    return len([t for t in method.timesteps if t >= round(n - share * n)])


def first_of(pipe, method, steps, strength):
    """first_step(); a latent consistency model walks all steps, within the part of the way that strength leaves."""
    if pipe.unet_config.guided and isinstance(method, LCM):
        check_strength(strength)
        method.lay_out(steps, strength)
        return 0
    return first_step(method, steps, strength)


def check_strength(strength):
    if not is_number(strength) or not 0 < strength <= 1:
        raise InputError(f"strength is {strength!r}; it must be above 0, which would change nothing, and at most 1")


def first_step(method, steps, strength):
    """The number of the step that strength begins with."""
    check_strength(strength)
    walked = min(int(steps * strength), steps)
    if walked == 0:
        raise InputError(f"strength {strength:g} of {steps} steps is less than one step; use more of either")
    if walked < steps and len(getattr(method, "prk", ())):
        raise InputError("pndm with Runge-Kutta steps cannot begin in the middle; use another sampler, or strength 1")
    return (steps - walked) * method.calls_a_step


def require_channels(pipe, task, channels):
    """Raises CheckpointError if the unet reads other than these channels."""
    found = pipe.unet_config.in_channels
    if found != channels:
        own = pipe.vae_config.latent_channels
        use = {own: ": this is a model for txt2img and img2img", 2 * own + 1: ": this is an inpainting model; use 'minisd inpaint'",
               2 * own: ": this is an instruct-pix2pix model; use 'minisd pix2pix'", own + 3: ": this is an upscaler; use 'minisd upscale'",
               own + 1: ": this is a model for depth2img"}.get(found, ": this model is for another task")
        raise CheckpointError(f"unet: conv_in takes {found} channels, {task}'s latents have {channels}{use}")
    if pipe.unet_config.classes and task != "upscale":
        raise CheckpointError("unet: it is told a class, as upscalers are, which minisd tells them in 'minisd upscale' alone")
