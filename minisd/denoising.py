"""One run, from settings to a clean latent: start, conditioning, and the one denoising loop.   [LDM] Rombach et al. 2022, figure 3."""
import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from .backend import ops
from .controlnets import Controls
from .diffusion import guidance, rng, samplers
from .errors import InputError, NumericalError, listed, warn
from .image import tiles
from .prompt.schedule import Scripts, without_extra_networks
from .prompt.syntax import check_text
from .settings import check_guidance, check_reading, generators, pair_prompts, seeds
from .tasks import stop


@dataclass(frozen=True)
class Step:
    """One call of the unet and what came of it.  Arrays are (B,h,w,4), a row for each picture."""
    i: int                                  # number of the call, 0 .. total-1; heun, dpm2, dpm2_a and pndm take more calls than steps
    total: int
    t: float                                # timestep, 0 .. 999
    sigma: float                            # noise level before the step, on the scale x = x0 + sigma eps; infinite at zero SNR
    latent: Any                             # the latent after the step
    x0: Any                                 # the clean latent as predicted now
    eps: Any                                # the noise as predicted now

    def __repr__(self):
        return f"Step({self.i + 1} of {self.total}, t={self.t:g}, sigma={self.sigma:.4g}, latent {'x'.join(map(str, self.latent.shape))})"


class Progress:
    """Calls a function with each Step, or shows a bar, or neither."""

    def __init__(self, progress):
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise InputError(f"progress is {progress!r}; it must be True for a bar, or a function that takes a Step")
        self.progress, self.bar = progress, None

    def __call__(self, step):
        if self.progress is True:
            if self.bar is None:
                from tqdm.auto import tqdm  # here, since importing it takes a while
                self.bar = tqdm(total=step.total, unit="step")
            self.bar.update()
        elif self.progress:
            self.progress(step)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()


def denoise(predict, sampler, x, randn, first=0, blend=None, last=None):
    """The denoising loop: yields a Step for each call of predict(x, t, i), the noise predictor.

    x (B,h,w,4) at the noise level of step `first`;  randn() gives more noise of its shape;  blend(x, i): what a task does to a latent
    after step i;  last: the step to stop before, one past the final one.  Raises NumericalError when a latent is no longer finite."""
    total = len(sampler.timesteps) if last is None else last
    for i in range(first, total):
        t = sampler.timesteps[i]
        out = predict(sampler.scale_input(x, i), float(t), i)
        x0, eps = sampler.predict(x, out, i)
        x = sampler.step(x, out, i, randn)
        x = x if blend is None else blend(x, i)
        if not ops.all_finite(x):
            raise NumericalError(f"the latent holds NaN or infinity after step {i - first + 1} of {total - first} (timestep {t:g}): the "
                                 "weights may be damaged, or of another prediction type than scheduler_config.json says; "
                                 "`minisd inspect` shows what they are, and a lower guidance_scale or another sampler may help")
        level = float(sampler.sigma[i] / sampler.alpha[i]) if sampler.alpha[i] else math.inf
        yield Step(i - first, total - first, float(t), level, x, x0, eps)


class Run:
    """A batch of pictures to be made.  Making a Run settles and checks everything and computes nothing; steps() computes.

    model: a Model;  task: one of tasks.py;  prompt, negative_prompt, settings: as Pipeline's tasks take them;  width, height: pixels
    Raises InputError or CheckpointError for arguments that do not go together."""

    def __init__(self, model, task, prompt, negative_prompt, settings, width, height):
        settings = settled(model, settings.check())
        self.model, self.task, self.settings = model, task, settings
        self.width, self.height, f = width, height, model.vae_config.factor
        self.prompts, self.negatives = pair_prompts(prompt, negative_prompt, settings.num_images)
        check_reading(settings.clip_skip, settings.prompt_syntax, model.text_encoders[0].config.layers)
        self.scripts = self.read_prompts(prompt)
        self.sampler = make_sampler(model, settings)
        self.seeds = seeds(settings.seed, len(self.prompts), settings.shared_generator)
        self.generators = generators(self.seeds, settings.rng)
        self.guidance_scale = self.check_guidance()
        self.shape = len(self.prompts), height // f, width // f, model.vae_config.latent_channels
        self.latents = None if settings.latents is None else check_latents(settings.latents, self.shape)
        self.controls = Controls(model.controlnets, settings, width, height)
        self.last = len(self.sampler.timesteps) if settings.denoising_end is None else stop(self.sampler, settings.denoising_end)
        self.first = task.first_step(self)
        if self.tile and (settings.cache_interval > 1 or model.controlnets):
            what = "a ControlNet" if model.controlnets else "cache_interval"
            raise InputError(f"{what} is for pictures that are made whole; this one is made in pieces, being larger than tile={self.tile}")
        if self.first >= self.last:
            raise InputError(f"denoising_end {settings.denoising_end:g} is before the step that this picture starts with; use more of it, "
                             "or more strength")

    @property
    def tile(self):
        """The side of the pieces that the picture is made in, in latent positions; None where it is made whole."""
        return self.task.tile if self.task.tile and max(self.shape[1:3]) > self.task.tile else None

    def check_guidance(self):
        """The guidance scale, or None where the unet is called once a step."""
        scale, s = check_guidance(self.settings.guidance_scale, self.negatives), self.settings
        if len(self.scripts.weights) > 1 and (scale is None or self.model.unet_config.is_lcm or self.task.image_guidance_scale is not None):
            raise InputError("AND joins prompts by guidance, each against none: it needs a guidance_scale above 1, and neither "
                             "instruct_pix2pix nor a latent consistency model; in small letters it is a word")
        if not self.model.unet_config.is_lcm:
            return scale
        check_guidance(1, self.negatives)                    # conditioned on the scale: a negative prompt has no effect
        if s.guidance_rescale:
            raise InputError("guidance_rescale: this model is conditioned on the guidance scale, there are no two predictions to rescale")
        return None

    def read_prompts(self, prompt):
        """Prompts, negative prompts and those of the second text encoder -> Scripts.  Warns of what is written in them and not read."""
        s, count, xl = self.settings, self.settings.num_images, self.model.xl
        second = []                                          # prompt_2, negative_prompt_2
        for name, given in (("prompt_2", s.prompt_2), ("negative_prompt_2", s.negative_prompt_2)):
            if given is not None and not xl:
                raise InputError(f"{name} is for the second text encoder of Stable Diffusion XL; this model has one")
            second.append(None if given is None else pair_prompts(prompt, given, count, name)[1])
        if second[1] is not None and self.negatives is None:
            raise InputError("negative_prompt_2 without negative_prompt: give both; negative_prompt may be ''")
        given = [self.prompts, self.negatives, *second]
        for text in (text for texts in given for text in texts or ()):
            check_text(text)
        reads = s.prompt_syntax == "a1111"
        if reads:
            found = [[without_extra_networks(text) for text in texts or ()] for texts in given]
            names = list(dict.fromkeys(name for texts in found for _, names in texts for name in names))
            if names:
                warn(f"{listed(names)}: left out of the prompt, which cannot load files here; a LoRA is given with lora=")
            given = [texts and [text for text, _ in left] for texts, left in zip(given, found)]
        self.prompts_2, self.negatives_2 = second
        return Scripts(*given, reads=reads)

    @property
    def without(self):
        """How many branches of guidance are without the prompt: the unet's batch has as many times the pictures before those with it."""
        return 0 if self.guidance_scale is None else 1 if self.task.image_guidance_scale is None else 2

    @property
    def branches(self):
        """Of guidance, how many: the unet's batch has a row for each of them and each picture."""
        return self.without + len(self.scripts.weights)

    def batches(self):
        """This run in as many as fit into memory one after the other, a list; with a generator that all pictures share, this alone.

        Raises InputError where not even one picture fits."""
        count = len(self.prompts)
        most = self.model.most_pictures(self.width, self.height, count, self.branches, self.task.tile)
        if most >= count:
            return [self]
        if not isinstance(self.seeds, list):
            raise InputError(f"{count} pictures {self.width}x{self.height} that share a generator do not fit into memory, {most} do; "
                             "make fewer, or leave out shared_generator")
        return [self.part(slice(k, k + most)) for k in range(0, count, most)]

    def part(self, rows):
        """A run of some of these pictures."""
        def cut(values):
            return None if values is None else values[rows]

        own = dict(num_images=1, seed=self.seeds[rows], latents=cut(self.latents), prompt_2=cut(self.prompts_2),
                   negative_prompt_2=cut(self.negatives_2))
        return Run(self.model, self.task.part(rows), self.prompts[rows], cut(self.negatives), replace(self.settings, **own), self.width,
                   self.height)

    def steps(self):
        """The run itself, a generator of Steps; the last one's latent is what to decode."""
        start = self.task.start(self)
        yield from denoise(self.prediction(start), self.sampler, start.x, self.noise, self.first, start.blend, self.last)

    def prediction(self, start):
        """What the loop asks at each step, once all that conditions the unet is computed."""
        conditioning, count = self.conditioning(), len(self.prompts)
        with self.model.memory():
            self.controls.prepare(self.model.device.upload, self.model.dtype, self.branches * count, self.without * count)
        return GuidedPrediction(self, conditioning, self.channels(start))

    def conditioning(self):
        """The unet's conditioning at each call, a list; one for all calls at which the prompts say the same."""
        each, found = self.sampler.calls_per_step, {}
        says = [self.scripts.at((i - self.first) // each + 1, self.settings.num_inference_steps) for i in range(self.first, self.last)]
        for said in dict.fromkeys(says):
            found[said] = self.model.condition(said, self.without, self.settings, self.width, self.height, self.task.class_label)
        return [found[said] for said in says]

    def channels(self, start):
        """The task's further channels, for each branch of guidance; the image's own branch is guided against zeros."""
        if start.channels is None:
            return None
        if self.without == 2:
            return np.concatenate([0 * start.channels, start.channels, start.channels])
        return np.concatenate([start.channels] * self.branches)

    def first_noise(self):
        """The noise that the picture is made from: the caller's, or drawn."""
        return self.noise() if self.latents is None else self.latents.astype(self.model.latent_dtype)

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
        return np.broadcast_to(self.model.encode(pixels, self.encoders_noise()), self.shape)

    def encoders_noise(self):
        """Normal numbers that make a sample of the encoder's distribution, or None where there is none."""
        each = self.shape[0] if isinstance(self.generators, list) else 1
        return self.noise((each, *self.shape[1:])) if self.model.encoder_is_stochastic else None


@dataclass(frozen=True)
class GuidedPrediction:
    """What the loop asks at each step: the unet on every branch of guidance, and their combination."""
    run: Run
    conditioning: list
    channels: Any
    kept: dict = field(default_factory=dict)                 # of the unet, from one call to the next

    def __call__(self, x, t, i):
        """x (B,h,w,4), scaled for the unet; timestep; number of the step -> (B,h,w,4)"""
        run, scale, rescale = self.run, self.run.guidance_scale, self.run.settings.guidance_rescale
        conditioning = self.conditioning[i - run.first]
        x = np.concatenate([x] * run.branches)
        if self.channels is not None:
            x = np.concatenate([x, self.channels], axis=-1)
        if run.tile is not None:
            piece = partial(run.model.predict_noise, t=t, conditioning=conditioning)
            out = tiles.tiled(piece, x, run.tile, run.tile // 8)
        else:
            control = run.controls.at(i - run.first, len(run.sampler.timesteps) - run.first)
            if (i - run.first) % run.settings.cache_interval == 0:
                self.kept.clear()
            out = run.model.predict_noise(x, t, conditioning, control, None if run.settings.cache_interval == 1 else self.kept)
        if run.without == 0:
            return out
        if run.without == 2:
            return guidance.by_prompt_and_image(out, scale, run.task.image_guidance_scale, rescale)
        if run.scripts.weights == [[1.0] * len(run.prompts)]:
            return guidance.by_prompt(out, scale, rescale)
        return guidance.by_prompts(out, scale, run.scripts.weights, rescale)


def check_latents(latents, shape):
    """The caller's noise as an array.  Raises InputError for another shape, or what is no number."""
    found = latents if isinstance(latents, np.ndarray) else np.empty(0, object)
    if found.shape != shape or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise InputError(f"latents are {found.dtype} of shape {found.shape}; they must be finite floats of shape {shape}: noise of mean 0 "
                         "and variance 1, (B,h,w,C)")
    return found


def settled(model, settings):
    """Settings, with the model's own guidance scale where the caller names none."""
    return settings if settings.guidance_scale is not None else replace(settings, guidance_scale=model.checkpoint.guidance_scale)


def make_sampler(model, settings):
    """The sampler that Settings ask for."""
    as_it_is = model.xl or model.unet_config.is_lcm          # diffusers' pipelines for these take a scheduler's file as it is
    config = model.scheduler if as_it_is else samplers.corrected(model.scheduler, own=settings.sampler is None)
    return samplers.sampler(settings.sampler, config, settings.num_inference_steps, settings.sigmas, settings.eta,
                            settings.timestep_spacing, settings.original_inference_steps)
