"""One run, from settings to a clean latent: conditioning, start, and the one denoising loop.   [LDM] Rombach et al. 2022, figure 3."""
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .backend import ops
from .controlnets import Controls
from .diffusion import guidance, rng, samplers
from .errors import InputError, NumericalError
from .image import tiles
from .settings import check_guidance, check_reading, generators, pair_prompts, seeds
from .tasks import stop


@dataclass(frozen=True)
class Step:
    """One call of the unet and what came of it.  Arrays are (B,h,w,4), a row for each picture."""
    i: int                                  # number of the call, 0 .. total-1; heun, dpm2 and dpm2_a call the unet twice a step
    total: int
    t: float                                # timestep, 0 .. 999
    sigma: float                            # noise level before the step, on the scale x = x0 + sigma eps
    latent: Any                             # the latent after the step
    x0: Any                                 # the clean latent as predicted now
    eps: Any                                # the noise as predicted now

    def __repr__(self):
        return f"Step({self.i + 1} of {self.total}, t={self.t:g}, sigma={self.sigma:.4g}, latent {'x'.join(map(str, self.latent.shape))})"


def denoise(predict, sampler, x, randn, first=0, blend=None, last=None):
    """The denoising loop: yields a Step for each call of predict(x, t, i), the noise predictor.

    x (B,h,w,4) at the noise level of step `first`;  randn() gives more noise of its shape;  blend(x, i): what a task does to a latent
    after step i;  last: the step to stop before.  Raises NumericalError when a latent is no longer finite."""
    total = len(sampler.timesteps) if last is None else last
    for i in range(first, total):
        t = sampler.timesteps[i]
        out = predict(sampler.scale_input(x, i), float(t), i)
        x0, eps = sampler.predict(x, out, i)
        x = sampler.step(x, out, i, randn)
        x = x if blend is None else blend(x, i)
        if not ops.all_finite(x):
            raise NumericalError(f"the latent holds NaN or infinity after step {i + 1} of {total} (timestep {t:g}): the weights may be "
                                 "damaged, or of another prediction type than scheduler_config.json says; "
                                 "`minisd inspect` shows what they are, and a lower guidance_scale or another sampler may help")
        level = float(sampler.sigma[i] / sampler.alpha[i]) if sampler.alpha[i] else math.inf
        yield Step(i - first, total - first, float(t), level, x, x0, eps)


class Run:
    """A batch of pictures to be made: everything is settled and checked here, nothing computed.

    model: a Model;  task: one of tasks.py;  prompt, negative_prompt, settings: as Pipeline's tasks take them;  width, height: pixels
    Raises InputError or CheckpointError for what does not go together."""

    def __init__(self, model, task, prompt, negative_prompt, settings, width, height):
        self.model, self.task, self.settings = model, task, settings.check()
        self.width, self.height, f = width, height, model.vae_config.factor
        self.prompts, self.negatives = pair_prompts(prompt, negative_prompt, settings.num_images)
        check_reading(settings.clip_skip, settings.prompt_syntax, model.text_encoders[0].config.layers)
        self.sampler = make_sampler(model, settings)
        self.seeds = seeds(settings.seed, len(self.prompts), settings.shared_generator)
        self.generators = generators(self.seeds, settings.rng)
        self.guidance_scale = self.check_guidance()
        self.shape = len(self.prompts), height // f, width // f, model.vae_config.latent_channels
        self.controls = Controls(model.controlnets, settings, width, height)
        self.last = len(self.sampler.timesteps) if settings.denoising_end is None else stop(self.sampler, settings.denoising_end)
        self.first = task.first_step(self)
        if self.first >= self.last:
            raise InputError(f"denoising_end {settings.denoising_end:g} is before the step that this picture starts with; use more of it, "
                             "or more strength")

    def check_guidance(self):
        """The guidance scale, or None where the unet is called once a step."""
        scale, s = check_guidance(self.settings.guidance_scale, self.negatives), self.settings
        if not self.model.unet_config.is_lcm:
            return scale
        check_guidance(1, self.negatives)                    # conditioned on the scale: a negative prompt has no effect
        if s.guidance_rescale:
            raise InputError("guidance_rescale: this model is conditioned on the guidance scale, there are no two predictions to rescale")
        return None

    @property
    def branches(self):
        """Of guidance: the unet's batch is so many times the pictures."""
        return 1 if self.guidance_scale is None else 2 if self.task.image_guidance_scale is None else 3

    def steps(self):
        """The run itself, a generator of Steps; the last one's latent is what to decode."""
        start = self.task.start(self)
        conditioning = self.model.condition(self.prompts, self.negatives, self.branches, self.settings, self.width, self.height,
                                            self.task.class_label)
        with self.model.memory():
            rows = self.branches * len(self.prompts)
            self.controls.prepare(self.model.device.upload, self.model.dtype, rows, rows - len(self.prompts))
        predict = GuidedPrediction(self, conditioning, self.channels(start))
        yield from denoise(predict, self.sampler, start.x, self.noise, self.first, start.blend, self.last)

    def channels(self, start):
        """The task's further channels, for each branch of guidance; the image's own branch is guided against zeros."""
        if start.channels is None:
            return None
        if self.branches == 3:
            return np.concatenate([0 * start.channels, start.channels, start.channels])
        return np.concatenate([start.channels] * self.branches)

    def noise(self, shape=None):
        """Normal numbers of the latents' shape, or another (B,h,w,C), from this run's generators."""
        return rng.latent_noise(self.generators, shape or self.shape).astype(self.model.latent_dtype, copy=False)

    def encode(self, pixels):
        """Pixels (1,H,W,3) in [0,1] -> latents (B,h,w,4), a sample of the encoder's distribution for each picture that has a generator of
        its own, else one for all.  Latents (1 or B,h,w,4) stay what they are."""
        if pixels.shape[-1] == self.shape[-1]:
            if len(pixels) not in (1, self.shape[0]):
                raise InputError(f"latents of {len(pixels)} pictures for {self.shape[0]} prompts; give one for each, or one for all")
            return np.broadcast_to(pixels.astype(self.model.latent_dtype), self.shape)
        each = self.shape[0] if isinstance(self.generators, list) else 1
        noise = self.noise((each, *self.shape[1:])) if self.model.encoder_is_stochastic else None
        return np.broadcast_to(self.model.encode(pixels, noise), self.shape)


@dataclass(frozen=True)
class GuidedPrediction:
    """What the loop asks at each step: the unet on every branch of guidance, and their combination."""
    run: Run
    conditioning: dict
    channels: Any

    def __call__(self, x, t, i):
        """x (B,h,w,4), scaled for the unet; timestep; number of the step -> (B,h,w,4)"""
        run, scale, rescale = self.run, self.run.guidance_scale, self.run.settings.guidance_rescale
        x = np.concatenate([x] * run.branches)
        if self.channels is not None:
            x = np.concatenate([x, self.channels], axis=-1)
        tile = run.task.tile
        if tile is not None and max(x.shape[1:3]) > tile:
            piece = partial(run.model.predict_noise, t=t, conditioning=self.conditioning)
            out = tiles.tiled(piece, x, tile, tile // 8)
        else:
            control = run.controls.at(i - run.first, len(run.sampler.timesteps) - run.first)
            out = run.model.predict_noise(x, t, self.conditioning, control)
        if run.branches == 1:
            return out
        if run.branches == 2:
            return guidance.by_prompt(out, scale, rescale)
        return guidance.by_prompt_and_image(out, scale, run.task.image_guidance_scale, rescale)


def make_sampler(model, settings):
    """The sampler that Settings ask for."""
    as_it_is = model.xl or model.unet_config.is_lcm          # diffusers' pipelines for these take a scheduler's file as it is
    config = model.scheduler if as_it_is else samplers.corrected(model.scheduler, own=settings.sampler is None)
    return samplers.sampler(settings.sampler, config, settings.num_inference_steps, settings.sigmas, settings.eta,
                            settings.timestep_spacing)
