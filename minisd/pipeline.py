"""How a picture is made: settings -> start -> conditioning -> denoising loop -> decoder, and the tasks that a user calls.

    run = Run(...)                   settings and the first step, checked; nothing is computed                 denoising.py
    for step in run.steps(): ...     what conditions the unet; from noise to a clean latent                    denoising.py
    model.decode(step.latent)        latent -> pixels                                                          model.py"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import denoising, tasks
from .denoising import Progress, Step
from .diffusion.samplers import name_of
from .errors import InputError, SizeWarning, warn
from .image import metadata
from .image import pixels as images
from .image.grid import Images
from .settings import Settings, is_whole, takes_settings, without

Picture = Image.Image | np.ndarray | str | Path              # an image of any mode, an array (H,W,3), a file's name
Pictures = Any                                               # as `output` says: an image, a list of them, or an array
Report = bool | Callable[[Step], object] | None              # True for a bar, or a function that is called with each Step


class Pipeline:
    """A loaded model, ready to make pictures.  minisd.load() gives one.

    model: the networks (model.py), each step of the way usable alone: model.encode_prompts, predict_noise, decode, encode
    unet, vae, text_encoder: their weights, as trees:  pipe.unet.mid_block.attentions[0].norm.weight
    provenance: further settings that are written into pictures, such as LoRAs"""

    def __init__(self, model, provenance=None):
        self.model, self.provenance = model, dict(provenance or {})

    @property
    def unet(self):
        """The unet's weights, as a tree."""
        return self.model.unet

    @property
    def vae(self):
        """The autoencoder's weights, as a tree."""
        return self.model.vae

    @property
    def text_encoder(self):
        """The weights of the text encoder, of Stable Diffusion XL of the first one, as a tree."""
        return self.model.text_encoders[0].weights

    @property
    def tokenizer(self):
        """The tokenizer, of Stable Diffusion XL the first one."""
        return self.model.text_encoders[0].tokenizer

    def __repr__(self):
        m = self.model
        width, height = self.size(None, None)
        try:
            sampler = name_of(m.scheduler)
        except ValueError:
            sampler = "none of minisd's"
        weights = sum(math.prod(shape) * np.dtype(m.dtype).itemsize for c in m.checkpoint.components for shape in c.shapes().values())
        memory = f"{weights / 1e9:.3g} GB of weights" + (", read at each use" if m.low_memory else "")
        return (f"<Pipeline {m.checkpoint.name!r}: {m.checkpoint.family}, {width}x{height}, sampler {sampler}, "
                f"{m.device.name} in {m.dtype}, {memory}>")

    # ---- tasks ----

    @takes_settings
    def txt2img(self, prompt: str | list[str], negative_prompt: str | list[str] | None = None, *, output: str = "pil",
                progress: Report = None, settings) -> Pictures:
        """A picture of what the prompt says.

        prompt, negative_prompt: a string, or a list with one for each picture; None is no negative prompt
        output: "pil" -> a PIL image with its settings in .info["parameters"], or a list of them if there are several;
            "array" -> (B,H,W,3) float32 in [0,1];  "latent" -> (B,h,w,4)
        progress: True for a progress bar, or a function that is called with each Step"""
        return self.make(tasks.Txt2Img(), prompt, negative_prompt, settings, output, progress)

    @takes_settings
    def txt2img_steps(self, prompt: str | list[str], negative_prompt: str | list[str] | None = None, *, settings) -> Iterator[Step]:
        """The denoising loop of txt2img as a generator of Steps; the last one's latent is what to decode.

        prompt, negative_prompt: as for txt2img.  Bad arguments raise InputError here, before anything is computed."""
        run = self.prepare(tasks.Txt2Img(), prompt, negative_prompt, settings)
        if len(run.batches()) > 1:
            raise InputError("these pictures do not fit into memory all at a time, as a Step has them; ask for fewer")
        return run.steps()

    @takes_settings
    def img2img(self, prompt: str | list[str], image: Picture, strength: float = 0.8, negative_prompt: str | list[str] | None = None, *,
                denoising_start: float | None = None, output: str = "pil", progress: Report = None, settings) -> Pictures:
        """A picture of what the prompt says, starting from `image`.

        image: a PIL image of any mode, an array (H,W,3) of floats in [0,1] or of bytes, a file's name, or latents (B,h,w,4).  It is resized
            to width and height; if these are None, cut to a multiple of 8
        strength: share of the steps that are taken, above 0 (the image as it is) to 1 (nothing of it is left)
        denoising_start: 0 .. 1, in place of strength: go on with latents where another model stopped, at its denoising_end
        prompt, negative_prompt, output, progress: as for txt2img"""
        if isinstance(image, np.ndarray) and image.ndim == 4:
            pixels, size = image, self.size_of_latents(image, settings)
        else:
            pixels, size = self.pixels(image, settings)
        notes = {"Denoising strength": strength} if denoising_start is None else {"Denoising start": denoising_start}
        return self.make(tasks.Img2Img(pixels, strength, denoising_start), prompt, negative_prompt, settings, output, progress, size, notes)

    @takes_settings
    def inpaint(self, prompt: str | list[str], image: Picture, mask_image: Picture | None = None, strength: float = 1.0,
                negative_prompt: str | list[str] | None = None, *, pad: tuple[int, int, int, int] | None = None,
                denoising_start: float | None = None, output: str = "pil", progress: Report = None, settings) -> Pictures:
        """The image with what mask_image marks, white, painted anew.

        By the unet itself if it reads a mask (9 channels), which may change the rest a little; else by putting the noised image back after
        each step, so that the rest is what the decoder makes of the encoded image.
        image: as for img2img;  mask_image: likewise, in grey, of any size
        strength: share of the steps that are taken, above 0 to 1
        pad: (left, top, right, bottom) pixels to add around the image, which are painted too (outpainting)
        denoising_start: 0 .. 1, in place of strength: go on where another model stopped, at its denoising_end, with `image` its latents
        prompt, negative_prompt, output, progress: as for txt2img"""
        notes = {"Denoising strength": strength} if denoising_start is None else {"Denoising start": denoising_start}
        if isinstance(image, np.ndarray) and image.ndim == 4:
            if pad is not None:
                raise InputError("pad is for images, not for latents")
            size = self.size_of_latents(image, settings)
            hole = images.mask_pixels(images.read_mask(mask_image, Image.new("RGB", size)), *size)
            task = tasks.Inpaint(image, hole, strength, denoising_start)
            return self.make(task, prompt, negative_prompt, settings, output, progress, size, notes)
        picture = images.read(image)
        mask = images.read_mask(mask_image, picture)
        if pad is not None:
            picture, mask = images.padded(picture, mask, pad)
        size = self.size(settings.width, settings.height, picture, whole=pad is not None)
        hole = images.mask_pixels(mask, *size)
        if not hole.any():
            raise InputError("nothing is to be painted: give a mask_image that is white where to paint, more than half bright, or pad")
        task = tasks.Inpaint(images.pixels(picture, *size), hole, strength, denoising_start)
        return self.make(task, prompt, negative_prompt, settings, output, progress, size, notes)

    @takes_settings
    def instruct_pix2pix(self, prompt: str | list[str], image: Picture, image_guidance_scale: float = 1.5,
                         negative_prompt: str | list[str] | None = None, *, output: str = "pil", progress: Report = None,
                         settings) -> Pictures:
        """The image, edited as the prompt instructs, by a unet that reads it (8 channels).

        image: as for img2img
        image_guidance_scale: how strongly to keep to the image, 1 or more
        prompt, negative_prompt, output, progress: as for txt2img"""
        pixels, size = self.pixels(image, settings)
        return self.make(tasks.InstructPix2Pix(pixels, image_guidance_scale), prompt, negative_prompt, settings, output, progress, size,
                         {"Image CFG scale": image_guidance_scale})

    @takes_settings
    def depth2img(self, prompt: str | list[str], image: Picture, depth_map: Picture, strength: float = 0.8,
                  negative_prompt: str | list[str] | None = None, *, output: str = "pil", progress: Report = None,
                  settings) -> Pictures:
        """A picture of what the prompt says with the depths of `image`, by a unet that reads them (5 channels).

        image, strength: as for img2img
        depth_map: an array (H,W), larger where nearer, on any scale, or an image, white where nearest
        prompt, negative_prompt, output, progress: as for txt2img"""
        pixels, size = self.pixels(image, settings)
        depth = images.depth(depth_map, *(side // self.model.vae_config.factor for side in size))
        return self.make(tasks.Depth2Img(pixels, depth, strength), prompt, negative_prompt, settings, output, progress, size,
                         {"Denoising strength": strength})

    @takes_settings
    @without("width", "height")
    def upscale(self, prompt: str | list[str], image: Picture, noise_level: int = 20,
                negative_prompt: str | list[str] | None = None, *, tile: int = 256, output: str = "pil", progress: Report = None,
                settings) -> Pictures:
        """The image four times as wide and high, by an upscaler; the prompt says what there is to see.  guidance_scale 9 and 75 steps are
        usual.

        image: as for img2img, not resized
        noise_level: 0 .. 350, how much noise hides the image's own detail
        tile: pixels of `image` beyond which it is worked on in overlapping pieces of that size
        prompt, negative_prompt, output, progress: as for txt2img"""
        picture, f = images.read(image), self.model.vae_config.factor
        if not is_whole(tile) or tile < 16:
            raise InputError(f"tile is {tile!r}; it must be a whole number of pixels, 16 or more")
        size = f * picture.width, f * picture.height
        self.model.most_pictures(*size, 1, branches=1, tile=tile)
        task = tasks.Upscale(images.pixels(picture, *picture.size), noise_level, tile)
        return self.make(task, prompt, negative_prompt, settings, output, progress, size, {"Noise level": noise_level})

    # ---- what they share ----

    def prepare(self, task, prompt, negative_prompt, settings, size=None):
        """A Run of one of tasks.py, settled and checked.  size: (width, height), None for the settings' or the model's own."""
        size = self.size(settings.width, settings.height) if size is None else size
        run = denoising.Run(self.model, task, prompt, negative_prompt, settings, *size)
        self.warn_of_size(*size, task)
        return run

    def make(self, task, prompt, negative_prompt, settings, output, progress, size=None, notes=None):
        """A task from prompt to pictures.  notes: what pictures are to say of the task besides their settings."""
        if not isinstance(output, str) or output not in ("pil", "array", "latent"):
            raise InputError(f"output is {output!r:.80}; choose pil, array or latent")
        made = [self.finished(run, output, progress, notes or {})
                for run in self.prepare(task, prompt, negative_prompt, settings, size).batches()]
        if output != "pil":
            return np.concatenate(made) if len(made) > 1 else made[0]
        pictures = Images(picture for batch in made for picture in batch)
        return pictures[0] if len(pictures) == 1 and isinstance(prompt, str) else pictures

    def finished(self, run, output, progress, notes):
        """What a run gives: latents, an array of pixels, or a list of PIL images that say how they were made."""
        with Progress(progress) as report:
            for step in run.steps():
                report(step)
        if output == "latent":
            return step.latent
        array = self.model.decode(step.latent, run.tile)
        if output == "array":
            return array
        pictures = images.to_pil(array)
        for k, picture in enumerate(pictures):
            made = self.settings_of(run, picture, k, notes)
            picture.info.update(parameters=metadata.parameters_text(*made), minisd=metadata.settings_json(*made))
        return pictures

    def settings_of(self, run, picture, k, notes):
        """(prompt, negative prompt, settings) of the run's picture k, as written into it."""
        negative = run.negatives[k] if run.negatives and run.guidance_scale is not None else ""
        shared = not isinstance(run.seeds, list) and len(run.prompts) > 1
        return run.prompts[k], negative, metadata.settings_of_picture(
            dataclasses.replace(run.settings, seed=run.seeds if not isinstance(run.seeds, list) else run.seeds[k],
                                prompt_2=run.prompts_2 and run.prompts_2[k], negative_prompt_2=run.negatives_2 and run.negatives_2[k]),
            picture.size,
            model=self.model.checkpoint.name, sampler=run.settings.sampler or name_of(self.model.scheduler),
            notes={**self.provenance, **notes}, empty_negative=self.model.xl and run.negatives is not None and run.negatives[k] == "",
            batch=(k, len(run.prompts)) if shared else None)

    def check_resume(self, denoising_start, **settings):
        """Raises InputError or CheckpointError if img2img cannot resume at denoising_start with these Settings."""
        tasks.require_channels(self.model, "img2img", self.model.vae_config.latent_channels)
        tasks.resume(denoising.make_sampler(self.model, Settings(**settings)), denoising_start)

    # ---- sizes ----

    def size(self, width, height, picture=None, whole=False):
        """(width, height) in pixels.  Where they are None: of the picture, cut to whole latent positions as in diffusers, or made `whole`;
        without one, the model's own.  Raises InputError for what the latents cannot have."""
        f = self.model.vae_config.factor
        own = [n * f for n in self.model.unet_config.sample_size[::-1]] if picture is None else [
            -(-n // f) * f if whole else max(f, n // f * f) for n in picture.size]
        width, height = own[0] if width is None else width, own[1] if height is None else height
        images.check_size(width, height, f)
        self.model.most_pictures(width, height, 1, branches=1)
        return width, height

    def pixels(self, image, settings):
        """An image at the size that size() finds: (pixels (1,H,W,3) in [0,1], (width, height))."""
        picture = images.read(image)
        size = self.size(settings.width, settings.height, picture)
        return images.pixels(picture, *size), size

    def size_of_latents(self, latents, settings):
        """(width, height) of the picture of latents that are given.  Raises InputError if they are no latents of this model."""
        f, channels = self.model.vae_config.factor, self.model.vae_config.latent_channels
        if latents.shape[-1] != channels or latents.dtype.kind != "f":
            raise InputError(f"image is {latents.dtype} of shape {latents.shape}; latents are floats of shape (B,h,w,{channels})")
        own = latents.shape[2] * f, latents.shape[1] * f
        asked = tuple(given if given is not None else n for given, n in zip((settings.width, settings.height), own))
        images.check_size(*asked, f)
        if asked != own:
            raise InputError(f"width and height are {asked[0]} and {asked[1]}; these latents are of a picture {own[0]}x{own[1]}")
        return own

    def warn_of_size(self, width, height, task):
        """Where a picture is to be less than half or more than twice as large as those the model was trained on."""
        trained = self.size(None, None)
        share = width * height / math.prod(trained)
        if task.tile is None and not 0.5 <= share <= 2:
            often = [f"{n:,.0f}" if n > 9 else f"{n:.2g}" for n in (share, share**2)]
            effect = "little of the prompt may be seen" if share < 1 else (
                f"things repeat themselves; it takes {often[0]} times the time and memory of that size, attention {often[1]} times")
            warn(f"{width}x{height} is far from the {trained[0]}x{trained[1]} that this model was trained on: {effect}", SizeWarning)
