"""A prompt becomes a picture: text, then one denoising loop, then the decoder.   [LDM] Rombach et al. 2022, figure 3."""
import math
import secrets
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import conditioning as conditions
from . import tasks
from .backend import ops, threads
from .backend.device import CPU
from .controlnets import Controls, added
from .diffusion import guidance, rng, samplers
from .errors import InputError, NumericalError
from .image import metadata, tiles
from .image import pixels as pictures
from .networks import taesd, unet, vae
from .settings import Settings, check_guidance, check_reading, generators, pair_prompts


@dataclass(frozen=True)
class Step:
    """One call of the unet and what came of it."""
    i: int                                  # 0 .. total-1; methods of two stages call the unet twice a step
    total: int
    t: float                                # timestep, 0 .. 999
    sigma: float                            # level of noise before the step, on the scale x = x0 + sigma eps
    latent: Any                             # (B,h,w,4) after the step
    x0: Any                                 # (B,h,w,4) the clean latent as predicted now
    eps: Any                                # (B,h,w,4) the noise as predicted now


def denoise(predict, sampler, x, randn, first=0, mix=None, last=None):
    """The one denoising loop: yields a Step for each call of predict(x, t, i), the noise predictor.

    x (B,h,w,4) at the noise level of step `first`; randn() more noise of its shape; mix(x, i): what a task makes of a latent after
    step i; last: the step to stop before.  Raises NumericalError when a latent is no longer finite."""
    total = len(sampler.timesteps) if last is None else last
    for i in range(first, total):
        t = sampler.timesteps[i]
        out = predict(sampler.scale_input(x, i), float(t), i)
        x0, eps = sampler.predict(x, out, i)
        x = sampler.step(x, out, i, randn)
        x = x if mix is None else mix(x, i)
        if not ops.all_finite(x):
            raise NumericalError(f"the latent holds NaN or infinity after step {i + 1} of {total} (timestep {t:g}): the weights may be "
                                 "damaged, or of another prediction type than scheduler_config.json says; "
                                 "`minisd inspect` shows what they are, and a lower guidance_scale or another sampler may help")
        level = float(sampler.sigma[i] / sampler.alpha[i]) if sampler.alpha[i] else math.inf
        yield Step(i - first, total - first, float(t), level, x, x0, eps)


class Pipeline:
    """A loaded model.  The weights of unet and vae are read when first used, and kept.

    checkpoint: what the folder says; text_encoder, unet, vae: the weights, as trees; dtype: of the networks' arithmetic;
    low_memory: whether weights are read anew each time, and scratch memory kept small; device: a device.CPU or device.GPU."""

    def __init__(self, opened, dtype="float32", low_memory=False, device=None, controlnets=()):
        self.checkpoint, self.dtype, self.low_memory, self.device = opened, np.dtype(dtype), low_memory, device or CPU()
        self.said = {}                                       # further settings to put into pictures
        self.latent_dtype = np.promote_types(self.dtype, np.float32)
        self.scheduler, self.unet_config, self.vae_config = opened.scheduler, opened.unet.config, opened.vae.config
        self.xl, keep, upload = bool(self.unet_config.added), not low_memory, self.device.upload
        upscales = bool(self.unet_config.classes)
        self.codec = taesd if isinstance(self.vae_config, taesd.TinyConfig) else vae
        wide = (self.xl or upscales) and getattr(self.vae_config, "in_float32", False)
        self.vae_dtype = self.latent_dtype if wide else self.dtype
        self.readers = [conditions.Reader(tokenizer, c.weights(self.dtype, self.device.keeps_text_encoder, upload), c.config)
                        for tokenizer, c in zip(opened.tokenizers(), opened.text_encoders)]
        self.unet, self.vae = opened.unet.weights(self.dtype, keep, upload), opened.vae.weights(self.vae_dtype, keep, upload)
        self.controlnets = [(c.weights(self.dtype, keep, upload), c.config) for c in controlnets]
        self.call_unet = self.device.repeatable(self.run_unet, self.dtype)

    @property
    def tokenizer(self): return self.readers[0].tokenizer
    @property
    def text_encoder(self): return self.readers[0].weights
    @property
    def text_config(self): return self.readers[0].config

    # ---- the steps of the way, each usable alone ----

    def encode_prompts(self, prompts, clip_skip=None, prompt_syntax="a1111"):
        """list of B strings -> {"context": (B,M,D), and for Stable Diffusion XL "text_embeds": (B,P)}, on the device; see Settings for the
        others.  Warns, with the words, when a plain prompt is longer than fits, or when the model does not know them."""
        check_reading(clip_skip, prompt_syntax, self.text_config.layers)
        weighing = prompt_syntax == "a1111"
        if self.checkpoint.words is not None:
            conditions.warn_of_unknown(prompts, set(self.checkpoint.words), weighing)
        with self.memory():
            return conditions.encode(self.readers, prompts, clip_skip or (2 if self.xl else 1), weighing, self.xl, self.device.upload)

    def conditions(self, prompts, negatives, guided, s, width, height, labels=None):
        """What the unet is told of B pictures: a row for each, after one without the prompt for each where it is guided.

        negatives: None for no prompt at all;  s: Settings;  labels: class labels, where the model has them"""
        def read(texts):
            return self.encode_prompts(texts, s.clip_skip, s.prompt_syntax)

        told, zeros = read(prompts), negatives is None and self.xl and self.checkpoint.index.get("force_zeros_for_empty_prompt", True)
        if guided:
            without = conditions.zeros_like(told) if zeros else read([""] * len(prompts) if negatives is None else negatives)
            told = conditions.joined(without, told)
        rows, more = len(told["context"]), {}
        if self.xl:
            c, size = self.unet_config, (height, width)
            count = (c.added - told["text_embeds"].shape[-1]) // c.sizes
            ids = [conditions.time_ids(count, s.original_size or size, s.crops_coords_top_left, s.target_size or size, score)
                   for score in (s.negative_aesthetic_score, s.aesthetic_score)]
            more["time_ids"] = np.concatenate([np.repeat(i, len(prompts), axis=0) for i in (ids if guided else ids[1:])])
        if self.unet_config.guided:
            features = conditions.guidance_features(s.guidance_scale, self.unet_config.guided, self.dtype)
            more["timestep_cond"] = np.repeat(features, rows, axis=0)
        if labels is not None:
            more["class_labels"] = np.full(rows, labels)
        return {**told, **{name: self.device.upload(a) for name, a in more.items()}}

    def run_unet(self, x, t, context, **told):
        """The unet and the ControlNets that `told` has hints for, as Controls.at() gives them."""
        given = {name: a for name, a in told.items() if name.startswith(("hint", "scales"))}
        told = {name: a for name, a in told.items() if name not in given}
        return unet.unet(self.unet, x, t, context, self.unet_config, added(self.controlnets, x, t, context, given, told), **told)

    def predict_noise(self, x, t, context, **told):
        """x (B,h,w,4), t 0 .. 999, context and the rest as conditions() gave them -> what the unet was trained to predict, (B,h,w,4)."""
        upload = self.device.upload
        with self.memory(keep=True):
            x, t = upload(x.astype(self.dtype, copy=False)), upload(np.full(len(x), t, np.float32))
            return self.to_host(self.call_unet(x=x, t=t, context=context, **told))

    def decode(self, latents, tile=None):
        """Latents (B,h,w,4) -> pixels (B,H,W,3) float32 in [0,1], a picture at a time;  tile: in overlapping pieces of so many latent
        positions, for large pictures."""
        threads.release()                                    # what the unet worked in

        def run(z):
            return self.to_host(self.codec.decode(self.vae, self.device.upload(z.astype(self.vae_dtype)), self.vae_config))

        with self.memory():
            pixels = [run(z) if tile is None else tiles.tiled(lambda rows, columns: run(z[:, rows, columns]), z, tile, tile // 4,  # noqa: B023
                                                             self.vae_config.factor) for z in latents[:, None]]
        pixels = np.concatenate(pixels)
        if not ops.all_finite(pixels):
            raise NumericalError("the decoded picture holds NaN or infinity: the vae's weights may be damaged")
        return pictures.to_unit(pixels)

    def encode(self, pixels, seed=None, rng="cpu"):
        """Pixels (B,H,W,3), floats in [0,1], sides multiples of 8 -> latents (B,h,w,4), drawn from the encoder's distribution
        with `seed`, or with one drawn if that is None.  Raises InputError for pixels that are anything else."""
        pixels = np.asarray(pixels)
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype.kind != "f":
            raise InputError(f"pixels are {pixels.dtype} of shape {pixels.shape}; they must be floats in [0,1] of shape (B,H,W,3)")
        pictures.check_size(pixels.shape[2], pixels.shape[1], self.vae_config.factor)
        return self.draw_latents(pixels, generators(seed, len(pixels), rng))

    def draw_latents(self, pixels, draw):
        """encode(), drawing from what generators() gave."""
        moments = self.moments(pixels)
        if self.codec is taesd:                              # has no distribution to draw from
            return moments
        return vae.sample(moments, self.noise(draw, (*moments.shape[:3], self.vae_config.latent_channels)), self.vae_config)

    def mean_latents(self, pixels):
        """The middle of the encoder's distribution: pixels (B,H,W,3) in [0,1] -> latents (B,h,w,4)."""
        return self.moments(pixels)[..., :self.vae_config.latent_channels] * self.vae_config.scaling_factor

    def moments(self, pixels):
        """Mean and log-variance of the encoder's distribution, side by side, (B,h,w,8); of TAESD the latents alone."""
        with self.memory():
            return self.to_host(self.codec.encode(self.vae, self.device.upload((2 * pixels - 1).astype(self.vae_dtype)), self.vae_config))

    def noise(self, draw, shape):
        """(B,h,w,C) normal numbers, from what generators() gave."""
        return rng.latent_noise(draw, shape).astype(self.latent_dtype, copy=False)

    def to_host(self, x):
        """A network's result, where the samplers work and as exact as they do."""
        return self.device.download(x).astype(self.latent_dtype, copy=False)

    @contextmanager
    def memory(self, keep=False):
        """Around a network's run: little scratch memory if low_memory says so, given back at the end unless it is to `keep`."""
        with threads.frugal() if self.low_memory else nullcontext():
            yield
        if not keep:
            threads.release()

    # ---- tasks ----

    def txt2img(self, prompt, negative_prompt=None, **how):
        """A picture of what the prompt says.  how: see run()."""
        return self.run(tasks.txt2img, prompt, negative_prompt, **how)

    def txt2img_steps(self, prompt, negative_prompt=None, **how):
        """The denoising loop of txt2img as a generator of Steps; the last one's latent is what to decode.

        Arguments as for txt2img.  Bad ones raise InputError here, before anything is computed."""
        return self.steps(tasks.txt2img, prompt, negative_prompt, **how)

    def img2img(self, prompt, image, strength=0.8, width=None, height=None, denoising_start=None, **how):
        """A picture of what the prompt says, beginning from `image`: a PIL picture of any mode, an array (H,W,3) of floats in
        [0,1] or of bytes, a file's name, or latents (B,h,w,4).  It is resized to width and height, its own size, cut to a multiple of
        8, if None.

        strength: how much of the way is walked again, above 0 (nothing) to 1 (all);  how: see run()
        denoising_start: 0 .. 1, in place of it: go on with latents where another model stopped, at its denoising_end"""
        latents = isinstance(image, np.ndarray) and image.ndim == 4
        pixels, width, height = self.latents(image, width, height) if latents else self.pixels(image, width, height)
        begin = tasks.img2img(pixels, strength, denoising_start)
        said = {"Denoising strength": strength} if denoising_start is None else {"Denoising start": denoising_start}
        return self.run(begin, prompt, width=width, height=height, said=said, **how)

    def inpaint(self, prompt, image, mask_image=None, strength=1.0, width=None, height=None, pad=None, **how):
        """The picture `image` with what mask_image marks, white, painted anew.

        By the unet itself if it reads a mask (9 channels), which may change the rest a little; else by putting the noised picture
        back after each step, so that the rest is what the decoder makes of the encoded picture.
        mask_image: as image, in grey, of any size;  pad: (left, top, right, bottom) pixels to add around the picture, which are
        painted too;  strength, width, height: as for img2img;  how: see run()."""
        picture = pictures.read(image)
        mask = pictures.read_mask(mask_image, picture)
        if pad is not None:
            picture, mask = pictures.padded(picture, mask, pad)
        width, height = self.size(width, height, picture, whole=pad is not None)
        holes = pictures.mask_pixels(mask, width, height)
        if not holes.any():
            raise InputError("nothing is to be painted: give a mask_image that is white where to paint, or pad")
        begin = tasks.inpaint(pictures.pixels(picture, width, height), holes, strength)
        return self.run(begin, prompt, width=width, height=height, said={"Denoising strength": strength}, **how)

    def instruct_pix2pix(self, prompt, image, image_guidance_scale=1.5, width=None, height=None, **how):
        """The picture `image`, changed as the prompt tells, by a unet that reads it (8 channels).

        image_guidance_scale: how hard to keep to the picture, 1 or more;  image, width, height: as for img2img;  how: see run()."""
        pixels, width, height = self.pixels(image, width, height)
        begin = tasks.instruct_pix2pix(pixels, image_guidance_scale)
        return self.run(begin, prompt, width=width, height=height, said={"Image CFG scale": image_guidance_scale}, **how)

    def depth2img(self, prompt, image, depth_map, strength=0.8, width=None, height=None, **how):
        """A picture of what the prompt says in the depths of `image`, by a unet that reads them (5 channels).

        depth_map: an array (H,W), larger where nearer, on any scale, or a picture, white where nearest;  the others: as for img2img."""
        pixels, width, height = self.pixels(image, width, height)
        depth = pictures.depth(depth_map, width // self.vae_config.factor, height // self.vae_config.factor)
        begin = tasks.depth2img(pixels, depth, strength)
        return self.run(begin, prompt, width=width, height=height, said={"Denoising strength": strength}, **how)

    def upscale(self, prompt, image, noise_level=20, tile=256, **how):
        """The picture `image` four times as wide and high, by an upscaler, to which the prompt tells what there is to see.

        noise_level: 0 .. 350, how much noise hides the picture's own detail;  tile: pixels of `image` beyond which it is worked on in
        overlapping pieces of that size;  image: as for img2img, not resized;  how: see run(); guidance 9 and 75 steps are usual."""
        picture, f = pictures.read(image), self.vae_config.factor
        if not isinstance(tile, int) or tile < 16:
            raise InputError(f"tile is {tile!r}; it must be a whole number of pixels, 16 or more")
        if {"width", "height"} & set(how):
            raise InputError("width and height: an upscaled picture is four times as large as the one given; resize that one")
        begin = tasks.upscale(pictures.pixels(picture, *picture.size), noise_level, tile)
        return self.run(begin, prompt, width=f * picture.width, height=f * picture.height, tile=tile,
                        said={"Noise level": noise_level}, **how)

    def steps(self, begin, prompt, negative_prompt=None, **how):
        """The denoising loop of a task as a generator of Steps.  begin: one of tasks.py;  the others: see run()."""
        s = Settings(**how).check()
        prompts, negatives = pair_prompts(prompt, negative_prompt, s.num_images)
        check_reading(s.clip_skip, s.prompt_syntax, self.text_config.layers)
        width, height = self.size(s.width, s.height)
        method = self.method(s)
        draw, scale = generators(s.seed, len(prompts), s.rng), check_guidance(s.guidance_scale, negatives)
        if self.unet_config.guided:                          # such a unet is told, and asked once
            check_guidance(1, negatives)
            scale = None
            if s.guidance_rescale:
                raise InputError("guidance_rescale: this model is told the guidance, there are no two predictions to rescale")
        controls, f = Controls(self.controlnets, s, width, height), self.vae_config.factor
        last = None if s.denoising_end is None else tasks.stop(method, s.denoising_end)
        prepare = begin(self, method, s.num_inference_steps, draw, (len(prompts), height // f, width // f, self.vae_config.latent_channels))

        def steps():
            start = prepare()
            if last is not None and start.first >= last:
                raise InputError(f"denoising_end {s.denoising_end:g} is before the step that this picture begins with; use more of "
                                 "it, or more strength")
            told = self.conditions(prompts, negatives, scale is not None, s, width, height, start.labels)
            both = scale is not None and start.image_guidance is not None
            if both:
                blank = {name: a[:len(prompts)] for name, a in told.items()}
                told = conditions.joined(blank, told)
            rows = len(told["context"])
            with self.memory():
                controls.prepare(self.device.upload, self.dtype, rows, rows - len(prompts))

            def call(x, t, i):
                more = controls.at(i - start.first, len(method.timesteps) - start.first)
                if start.tile is None:
                    return self.predict_noise(x, t, **told, **more)
                return tiles.tiled(lambda h, w: self.predict_noise(x[:, h, w], t, **told), x, start.tile, start.tile // 8)

            def predict(x, t, i):
                def run(x):
                    return call(x, t, i)

                if both:
                    return guidance.by_prompt_and_picture(run, x, start.beside, scale, start.image_guidance, s.guidance_rescale)
                x = x if start.beside is None else np.concatenate([x, start.beside], axis=-1)
                return run(x) if scale is None else guidance.by_prompt(run, x, scale, s.guidance_rescale)

            yield from denoise(predict, method, start.x, lambda: self.noise(draw, start.x.shape), start.first, start.mix, last)

        return steps()

    def method(self, s):
        """The sampler that Settings ask for."""
        plain = self.xl or self.unet_config.guided           # diffusers' pipelines for these take a scheduler's file as it is
        config = self.scheduler if plain else samplers.corrected(self.scheduler, own=s.sampler is None)
        return samplers.sampler(s.sampler, config, s.num_inference_steps, s.sigmas, s.eta, s.timestep_spacing)

    def check_resume(self, denoising_start, **how):
        """Raises InputError or CheckpointError where img2img could not go on from there with these Settings."""
        tasks.require_channels(self, "img2img", self.vae_config.latent_channels)
        tasks.resume(self.method(Settings(**how)), denoising_start)

    def run(self, begin, prompt, negative_prompt=None, output="pil", progress=None, said=None, tile=None, seed=None, **how):
        """A task from prompt to pictures.

        prompt, negative_prompt: a string, or a list with one for each picture;  None is no negative prompt
        output: "pil" -> a picture, or a list if there are several, each with its settings in .info["parameters"];
            "array" -> (B,H,W,3) float32 in [0,1];  "latent" -> (B,h,w,4)
        progress: called with each Step;  how, seed: as arguments.Settings lists them
        begin: one of tasks.py;  said: further settings to put into the pictures;  tile: see decode()

        Raises InputError for arguments that cannot be served, NumericalError when the numbers run away."""
        if output not in ("pil", "array", "latent"):
            raise InputError(f"output is {output!r}; choose pil, array or latent")
        s = Settings(**how, seed=secrets.randbits(32) if seed is None else seed)
        for step in self.steps(begin, prompt, negative_prompt, **vars(s)):
            if progress is not None:
                progress(step)
        if output == "latent":
            return step.latent
        array = self.decode(step.latent, tile if tile and max(step.latent.shape[1:3]) > tile else None)
        if output == "array":
            return array
        found = pictures.to_pil(array)
        prompts, negatives = pair_prompts(prompt, negative_prompt, s.num_images)
        for k, picture in enumerate(found):
            negative = negatives[k] if negatives and s.guidance_scale > 1 and not self.unet_config.guided else ""
            settings = metadata.settings(self, picture, k, len(found), s, negatives, said or {})
            picture.info["parameters"] = metadata.parameters_text(prompts[k], negative, settings)
        return found[0] if len(found) == 1 and isinstance(prompt, str) else found

    def latents(self, image, width, height):
        """Latents that another model has made, and the size of their picture: (image (B,h,w,4), width, height)."""
        f, channels = self.vae_config.factor, self.vae_config.latent_channels
        if image.shape[-1] != channels or image.dtype.kind != "f":
            raise InputError(f"image is {image.dtype} of shape {image.shape}; latents are floats of shape (B,h,w,{channels})")
        own = image.shape[2] * f, image.shape[1] * f
        if (width or own[0], height or own[1]) != own:
            raise InputError(f"width and height are {width} and {height}; these latents are of a picture {own[0]}x{own[1]}")
        return image, *own

    def pixels(self, image, width, height):
        """A picture, at the size that size() finds: (pixels (1,H,W,3) in [0,1], width, height)."""
        picture = pictures.read(image)
        width, height = self.size(width, height, picture)
        return pictures.pixels(picture, width, height), width, height

    def size(self, width, height, picture=None, whole=False):
        """(width, height) in pixels: the picture's, cut to whole latent positions as in diffusers, or made `whole`, or the model's own
        where None; raises InputError for what the latents cannot have."""
        f = self.vae_config.factor
        own = [n * f for n in self.unet_config.sample_size[::-1]] if picture is None else [
            -(-n // f) * f if whole else max(f, n // f * f) for n in picture.size]
        width, height = own[0] if width is None else width, own[1] if height is None else height
        pictures.check_size(width, height, f)
        return width, height
