"""A prompt becomes a picture: text, then one denoising loop, then the decoder.   [LDM] Rombach et al. 2022, figure 3."""
import math
import re
import secrets
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint, convolution, cpu, inversion, ops, prompt, rng, samplers, single, tasks, text, threads, unet, vae  # noqa: F401  (two register themselves)
from . import image as pictures
from .arguments import check_guidance, check_reading, file_list, generators, listed, pair_prompts
from .device import CPU, open_device
from .errors import CheckpointError, InputError, NumericalError
from .lora import add as add_lora


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


def denoise(predict, sampler, x, randn, first=0, mix=None):
    """The one denoising loop: yields a Step for each call of predict(x, t), the noise predictor.

    x (B,h,w,4) at the noise level of step `first`; randn() more noise of its shape; mix(x, i): what a task makes of a latent after
    step i.  Raises NumericalError when a latent is no longer finite."""
    total = len(sampler.timesteps)
    for i in range(first, total):
        t = sampler.timesteps[i]
        out = predict(sampler.scale_input(x, i), float(t))
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

    def __init__(self, opened, dtype="float32", low_memory=False, device=None):
        self.checkpoint, self.dtype, self.low_memory, self.device = opened, np.dtype(dtype), low_memory, device or CPU()
        self.said = {}                                       # further settings to put into pictures
        self.latent_dtype = np.promote_types(self.dtype, np.float32)
        self.tokenizer, self.scheduler = opened.tokenizer(), opened.scheduler
        self.text_encoder, self.unet, self.vae = (
            c.weights(self.dtype, keep, self.device.upload) for c, keep in
            zip(opened.components, (self.device.keeps_text_encoder, not low_memory, not low_memory)))
        self.text_config, self.unet_config, self.vae_config = (c.config for c in opened.components)
        self.call_unet = self.device.repeatable(lambda x, t, context: unet.unet(self.unet, x, t, context, self.unet_config), self.dtype)

    # ---- the steps of the way, each usable alone ----

    def encode_prompts(self, prompts, clip_skip=1, prompt_syntax="a1111"):
        """list of B strings -> context (B,M,D), on the device; see run() for the others.  Warns, with the words, when a plain prompt is
        longer than fits, or when the model was trained on few words and these are not among them."""
        check_reading(clip_skip, prompt_syntax, self.text_config.layers)
        weighing = prompt_syntax == "a1111"
        if self.checkpoint.words is not None:
            said = [t for p in prompts for t, _ in (prompt.parse(p) if weighing else [(p, 1)]) if t]
            words = set(self.checkpoint.words)
            unknown = list(dict.fromkeys(w for t in said for w in re.findall(r"\w+", t.lower()) if w not in words))
            if unknown:
                warnings.warn(f"this model does not know {listed(unknown)}; `minisd inspect` lists the words it was trained on",
                              stacklevel=3)
        if weighing:
            rows = [prompt.chunks(self.tokenizer, p) for p in prompts]
        else:
            ids, cut = self.tokenizer(prompts)
            rows = [(i[None], np.ones_like(i[None], np.float32)) for i in ids]
            for words in filter(None, cut):
                warnings.warn(f"the prompt is too long: the model reads {self.tokenizer.length - 2} tokens; "
                              f"left out: {words!r}", stacklevel=3)
        ids, weights = map(np.concatenate, zip(*rows))
        with self.memory():
            z = text.encode(self.text_encoder, self.device.upload(ids), self.text_config, clip_skip)
        if (weights != 1).any():
            z = prompt.weighted(z, self.device.upload(weights.astype(self.dtype)))
        return prompt.stacked(z, [len(i) for i, _ in rows])

    def predict_noise(self, x, t, context):
        """x (B,h,w,4), t 0 .. 999, context (B,M,D), as encode_prompts gave it -> what the unet was trained to predict, (B,h,w,4)."""
        upload = self.device.upload
        with self.memory(keep=True):
            out = self.call_unet(upload(x.astype(self.dtype, copy=False)), upload(np.full(len(x), t, np.float32)), context)
            return self.to_host(out)

    def decode(self, latents):
        """Latents (B,h,w,4) -> pixels (B,H,W,3) float32 in [0,1], a picture at a time."""
        threads.release()                                    # what the unet worked in
        with self.memory():
            upload = self.device.upload
            pixels = np.concatenate([self.to_host(vae.decode(self.vae, upload(z[None].astype(self.dtype, copy=False)), self.vae_config))
                                     for z in latents])
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
        return vae.sample(moments, self.noise(draw, (*moments.shape[:3], self.vae_config.latent_channels)), self.vae_config)

    def mean_latents(self, pixels):
        """The middle of the encoder's distribution: pixels (B,H,W,3) in [0,1] -> latents (B,h,w,4)."""
        return self.moments(pixels)[..., :self.vae_config.latent_channels] * self.vae_config.scaling_factor

    def moments(self, pixels):
        """Mean and log-variance of the encoder's distribution, side by side, (B,h,w,8)."""
        with self.memory():
            return self.to_host(vae.encode(self.vae, self.device.upload((2 * pixels - 1).astype(self.dtype)), self.vae_config))

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

    def txt2img(self, prompt, *args, **how):
        """A picture of what the prompt says.  args, how: see run()."""
        return self.run(tasks.txt2img, prompt, *args, **how)

    def txt2img_steps(self, prompt, *args, **how):
        """The denoising loop of txt2img as a generator of Steps; the last one's latent is what to decode.

        Arguments as for txt2img.  Bad ones raise InputError here, before anything is computed."""
        return self.steps(tasks.txt2img, prompt, *args, **how)

    def img2img(self, prompt, image, strength=0.8, width=None, height=None, **how):
        """A picture of what the prompt says, beginning from `image`: a PIL picture of any mode, an array (H,W,3) of floats in
        [0,1] or of bytes, or a file's name.  It is resized to width and height, its own size if None.

        strength: how much of the way is walked again, above 0 (nothing) to 1 (all);  how: see run()."""
        picture = pictures.read(image)
        width, height = self.size(width, height, picture)
        begin = tasks.img2img(pictures.pixels(picture, width, height), strength)
        return self.run(begin, prompt, width=width, height=height, said={"Denoising strength": strength}, **how)

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
        width, height = self.size(width, height, picture)
        holes = pictures.mask_pixels(mask, width, height)
        if not holes.any():
            raise InputError("nothing is to be painted: give a mask_image that is white where to paint, or pad")
        begin = tasks.inpaint(pictures.pixels(picture, width, height), holes, strength)
        return self.run(begin, prompt, width=width, height=height, said={"Denoising strength": strength}, **how)

    def instruct_pix2pix(self, prompt, image, image_guidance_scale=1.5, width=None, height=None, **how):
        """The picture `image`, changed as the prompt tells, by a unet that reads it (8 channels).

        image_guidance_scale: how hard to keep to the picture, 1 or more;  image, width, height: as for img2img;  how: see run()."""
        picture = pictures.read(image)
        width, height = self.size(width, height, picture)
        begin = tasks.instruct_pix2pix(pictures.pixels(picture, width, height), image_guidance_scale)
        return self.run(begin, prompt, width=width, height=height, said={"Image CFG scale": image_guidance_scale}, **how)

    def steps(self, begin, prompt, negative_prompt="", num_inference_steps=20, guidance_scale=7.5, seed=None, width=None,
              height=None, sampler=None, num_images=1, sigmas=None, eta=None, timestep_spacing=None, rng="cpu", clip_skip=1,
              prompt_syntax="a1111"):
        """The denoising loop of a task as a generator of Steps.  begin: one of tasks.py;  the others: see run()."""
        prompts, negatives = pair_prompts(prompt, negative_prompt, num_images)
        check_reading(clip_skip, prompt_syntax, self.text_config.layers)
        width, height = self.size(width, height)
        method = samplers.sampler(sampler, samplers.corrected(self.scheduler, own=sampler is None), num_inference_steps, sigmas,
                                  eta, timestep_spacing)
        draw, guidance = generators(seed, len(prompts), rng), check_guidance(guidance_scale, negatives)
        f = self.vae_config.factor
        prepare = begin(self, method, num_inference_steps, draw, (len(prompts), height // f, width // f, self.vae_config.latent_channels))

        def steps():
            start = prepare()
            texts = prompts if guidance is None else negatives + prompts
            both = guidance is not None and start.image_guidance is not None
            context = self.encode_prompts(negatives + texts if both else texts, clip_skip, prompt_syntax)

            def predict(x, t):
                if both:                                     # Brooks et al. 2023, eq. 3
                    beside = np.concatenate([0 * start.beside, start.beside, start.beside])
                    x = np.concatenate([np.concatenate([x, x, x]), beside], axis=-1)
                    without, with_image, with_text = np.split(self.predict_noise(x, t, context), 3)
                    return without + guidance * (with_text - with_image) + start.image_guidance * (with_image - without)
                if start.beside is not None:
                    x = np.concatenate([x, start.beside], axis=-1)
                if guidance is None:
                    return self.predict_noise(x, t, context)
                without, with_text = np.split(self.predict_noise(np.concatenate([x, x]), t, context), 2)
                return without + guidance * (with_text - without)               # Ho & Salimans 2022, eq. 6

            yield from denoise(predict, method, start.x, lambda: self.noise(draw, start.x.shape), start.first, start.mix)

        return steps()

    def run(self, begin, prompt, negative_prompt="", num_inference_steps=20, guidance_scale=7.5, seed=None, width=None,
            height=None, sampler=None, num_images=1, sigmas=None, eta=None, timestep_spacing=None, rng="cpu",
            clip_skip=1, prompt_syntax="a1111", output="pil", progress=None, said=None):
        """A task from prompt to pictures.

        prompt, negative_prompt: a string, or a list with one for each picture;  num_images: pictures per prompt
        num_inference_steps: 1 .. 1000;  guidance_scale: how hard to follow the prompt, 1 or less = off
        seed: as torch.Generator.manual_seed, or a list with one for each picture; None draws one
        width, height: pixels, multiples of what a latent position is wide (8; 4 for the shipped model); None = as trained
        sampler: a name in samplers.SAMPLERS, None = the model's own;  sigmas, eta, timestep_spacing: see samplers.sampler
        rng: "cpu" or "cuda", whose random numbers to draw;  progress: called with each Step
        clip_skip: which layer of the text encoder is used, counted from the last, 1, as AUTOMATIC1111 counts
        prompt_syntax: "a1111" reads (weights:1.2), BREAK and prompts of any length (prompt.py), "plain" as diffusers does
        output: "pil" -> a picture, or a list if there are several, each with its settings in .info["parameters"];
            "array" -> (B,H,W,3) float32 in [0,1];  "latent" -> (B,h,w,4)
        begin: one of tasks.py;  said: further settings to put there

        Raises InputError for arguments that cannot be served, NumericalError when the numbers run away."""
        if output not in ("pil", "array", "latent"):
            raise InputError(f"output is {output!r}; choose pil, array or latent")
        seed = secrets.randbits(32) if seed is None else seed
        for step in self.steps(begin, prompt, negative_prompt, num_inference_steps, guidance_scale, seed, width, height,
                               sampler, num_images, sigmas, eta, timestep_spacing, rng, clip_skip, prompt_syntax):
            if progress is not None:
                progress(step)
        if output == "latent":
            return step.latent
        array = self.decode(step.latent)
        if output == "array":
            return array
        found = pictures.to_pil(array)
        prompts, negatives = pair_prompts(prompt, negative_prompt, num_images)
        together = len(found) > 1 and not isinstance(seed, (list, tuple))        # drawn from one seed
        for k, picture in enumerate(found):
            picture.info["parameters"] = pictures.parameters_text(prompts[k], negatives[k] if guidance_scale > 1 else "", {
                "Steps": num_inference_steps, "Sampler": pictures.A1111_NAMES[sampler or samplers.name_of(self.scheduler)],
                "Schedule type": sigmas and sigmas.capitalize(), "CFG scale": guidance_scale,
                "Seed": seed[k] if isinstance(seed, (list, tuple)) else seed, "Size": f"{picture.width}x{picture.height}",
                "Model": self.checkpoint.name, **self.said, **(said or {}), "Clip skip": clip_skip if clip_skip > 1 else None, "Eta": eta,
                "Timestep spacing": timestep_spacing, "RNG": rng.upper(),
                **({"Batch size": len(found), "Batch pos": k} if together else {}), "Version": "minisd"})
        return found[0] if len(found) == 1 and isinstance(prompt, str) else found

    def size(self, width, height, picture=None):
        """(width, height) in pixels: the picture's, cut to whole latent positions, or the model's own where None; raises InputError
        for what the latents cannot have."""
        f = self.vae_config.factor
        own = [n * f for n in self.unet_config.sample_size[::-1]] if picture is None else [max(f, n // f * f) for n in picture.size]
        width, height = own[0] if width is None else width, own[1] if height is None else height
        pictures.check_size(width, height, f)
        return width, height


def load(model=None, device="cpu", dtype=None, variant=None, low_memory=False, lora=(),
         prediction_type=None, textual_inversion=(), vae=None):
    """A model, ready to use.

    model: a diffusers folder of Stable Diffusion 1.x or 2.x, or a single .safetensors file with LDM names, or a hub id
        (owner/name), fetched into the hub's cache;  None is the small model that comes with minisd, which draws icons
    device: "cpu", or "cuda", the current GPU, which needs CuPy;  variant: of the files, such as "fp16"
    dtype: of the arithmetic: on a CPU "float32" (None) or "float64", on a GPU "float16" (None) or "float32", much slower
    low_memory: read each weight from the file whenever it is used and keep none, and work in smaller pieces: the same picture,
        slower, in less than a gigabyte for SD 1.5 at 512x512
    lora: a LoRA's file, or (file, weight), or a list of such, added to the weights;  each is told of in the pictures' settings
    vae: another picture codec than the model's: a folder, or a file with LDM names
    textual_inversion: a file that teaches a word, or (file, word), or a list of such;  prompts may then use the word
    prediction_type: what the unet predicts, "epsilon" or "v_prediction";  None is what the scheduler's configuration says, and of
        a single file with Stable Diffusion 2.x what a trial finds
    Every weight's name and shape is checked here, by a dry run; its numbers are read when they are first used.

    Raises InputError for a model that cannot be found, or another device or dtype; CheckpointError for a model that is
    damaged, incomplete or of another kind."""
    place = open_device(device)
    if dtype is not None and dtype not in (*place.dtypes, *map(np.dtype, place.dtypes)):
        raise InputError(f"dtype is {dtype!r}; on {device} choose {' or '.join(place.dtypes)}.  The file may be of another all the same")
    if low_memory and device != "cpu":
        raise InputError("low_memory is for the CPU: a GPU keeps its weights")
    opened, odd = single.open_model(checkpoint.find_folder(model, variant), variant, prediction_type)
    if odd:
        warnings.warn(f"{opened.folder}: {len(odd)} keys belong to no layer: {listed(odd)}", stacklevel=2)
    if vae is not None:
        opened.vae = single.open_vae(vae)
    for component in opened.components:
        missing, unused = component.check()
        if missing:
            raise CheckpointError(f"{component.place}: {len(missing)} missing: {listed(missing)}; copy or download it again")
        if unused:
            warnings.warn(f"{component.name}: {len(unused)} weights in the file belong to no layer: {listed(unused)}", stacklevel=2)
    context, width = opened.unet.config.context_width, opened.text_encoder.config.width
    if context != width:
        raise CheckpointError(f"{opened.folder}: the text encoder gives {width} numbers a token, the unet reads {context}: "
                              "they are parts of different models")
    loras = file_list(lora, 1.0)
    for path, weight in loras:
        unmatched = add_lora(opened.components, path, weight)
        if unmatched:
            warnings.warn(f"{path}: {len(unmatched)} of its layers are not in this model: {listed(unmatched)}", stacklevel=2)
    pipe = Pipeline(opened, dtype or place.dtypes[0], low_memory, place)
    rows = opened.text_encoder.shapes()["embeddings.token_embedding.weight"][0]
    pipe.said = {"LoRA": ", ".join(f"{Path(path).stem}: {weight:g}" for path, weight in loras) or None}
    if pipe.tokenizer.size > rows:
        raise CheckpointError(f"{opened.folder}: the tokenizer has {pipe.tokenizer.size} tokens, the text encoder knows {rows}: "
                              "they are parts of different models")
    for path, word in file_list(textual_inversion, None):
        inversion.add(opened.text_encoder, pipe.tokenizer, path, word)
    return pipe
