"""The networks of one checkpoint on one device: prompts -> vectors, noisy latents -> predicted noise, latents <-> pixels.

Latents and pixels come in and go out on the host, what conditions the unet stays on the device; how a picture is made of these calls is
for pipeline.py to say."""
import math
from contextlib import contextmanager, nullcontext
from functools import partial, reduce

import numpy as np

from . import conditioning
from .backend import memory, ops, threads
from .backend.device import CPU
from .errors import InputError, NumericalError
from .image import pixels as images
from .image import tiles
from .networks import controlnet, taesd, unet, vae
from .networks.vae_config import TinyConfig
from .prompt.syntax import check_text
from .prompt.tokenizer import Tokenizer
from .settings import check_reading


class Model:
    """A loaded checkpoint.  The weights of unet and vae are read when first used, and kept.

    unet, vae: the weights as trees, `model.unet.mid_block.attentions[0]`;  text_encoders: one, or Stable Diffusion XL's two
    dtype: of the networks' arithmetic;  latent_dtype: of latents between them, at least float32
    low_memory: whether weights are read anew each time and scratch memory is kept small;  device: a device.CPU or device.GPU"""

    def __init__(self, checkpoint, dtype="float32", low_memory=False, device=None, controlnets=()):
        self.checkpoint, self.dtype, self.low_memory, self.device = checkpoint, np.dtype(dtype), low_memory, device or CPU()
        self.latent_dtype = np.promote_types(self.dtype, np.float32)
        self.scheduler, self.unet_config, self.vae_config = checkpoint.scheduler, checkpoint.unet.config, checkpoint.vae.config
        self.xl, keep, upload = self.unet_config.is_xl, not low_memory, self.device.upload
        self.autoencoder = taesd if isinstance(self.vae_config, TinyConfig) else vae
        upcast = (self.xl or self.unet_config.is_upscaler) and getattr(self.vae_config, "in_float32", False)
        self.vae_dtype = self.latent_dtype if upcast else self.dtype
        self.text_encoders = [
            conditioning.TextEncoder(Tokenizer(**vocabulary), c.weights(self.dtype, self.device.keeps_text_encoder, upload), c.config)
            for vocabulary, c in zip(checkpoint.vocabularies(), checkpoint.text_encoders)]
        self.unet, self.vae = checkpoint.unet.weights(self.dtype, keep, upload), checkpoint.vae.weights(self.vae_dtype, keep, upload)
        self.controlnets = [(c.weights(self.dtype, keep, upload), c.config) for c in controlnets]
        self.call_unet = self.device.repeatable(self.run_unet, self.dtype)

    @property
    def encoder_is_stochastic(self):
        """Whether encode() can draw from a distribution: a vae's encoder gives one, TAESD's does not."""
        return self.autoencoder is vae

    # ---- text ----

    def encode_prompts(self, prompts, clip_skip=None, prompt_syntax="a1111", prompts_2=None):
        """list of B strings -> {"context": (B,M,D), and for Stable Diffusion XL "text_embeds": (B,P)}, on the device; the arguments as
        Settings has them, but that [from:to:when], [one|other] and AND are for a run to read, see prompt/schedule.py.

        prompts_2: for the last text encoder, where they are others.  Warns, with the words, when a plain prompt is longer than fits, or
        when the model does not know them; raises InputError for a prompt that is endless, or no text."""
        check_reading(clip_skip, prompt_syntax, self.text_encoders[0].config.layers)
        for prompt in (*prompts, *(prompts_2 or ())):
            check_text(prompt)
        weighted = prompt_syntax == "a1111"
        if self.checkpoint.words is not None:
            taught = self.text_encoders[0].tokenizer.taught()
            conditioning.warn_of_unknown(prompts, conditioning.words_of([*self.checkpoint.words, *taught]), weighted)
        with self.memory():
            texts = [prompts] * (len(self.text_encoders) - 1) + [prompts_2 or prompts]
            return conditioning.encode(self.text_encoders, texts, clip_skip or (2 if self.xl else 1), weighted, self.xl,
                                       self.device.upload)

    def condition(self, says, without, s, width, height, class_label=None):
        """The unet's conditioning for B pictures: B rows for each branch of guidance without the prompt, then B for each with one.

        says: what the prompts say, as prompt/schedule.py has it;  without: number of branches without the prompt, 0 without guidance
        s: Settings;  class_label: where the model has them  ->  {name: array on the device}"""
        encoded = [self.encode_prompts(prompts, s.clip_skip, s.prompt_syntax, second) for prompts, second in says.positives]
        found = with_prompt = reduce(conditioning.joined, encoded)
        batch = len(says.positives[0][0])
        if without:
            negatives, second = says.negatives
            if negatives is None and self.xl and self.checkpoint.index.get("force_zeros_for_empty_prompt", True):
                empty = conditioning.zeros_like(encoded[0])
            else:
                empty = self.encode_prompts([""] * batch if negatives is None else negatives, s.clip_skip, s.prompt_syntax, second)
            found = reduce(conditioning.joined, [*[empty] * without, with_prompt])
        rows, more = len(found["context"]), {}
        if self.xl:
            ids = conditioning.time_ids_of_branches(self.unet_config, found["text_embeds"].shape[-1], s, width, height)
            more["time_ids"] = np.concatenate([ids[0].repeat(without * batch, axis=0), ids[1].repeat(rows - without * batch, axis=0)])
        if self.unet_config.is_lcm:
            embedding = conditioning.guidance_embedding(s.guidance_scale, self.unet_config.time_cond_proj_dim, self.dtype)
            more["timestep_cond"] = np.repeat(embedding, rows, axis=0)
        if class_label is not None:
            more["class_labels"] = np.full(rows, class_label)
        return {**found, **{name: self.device.upload(a) for name, a in more.items()}}

    # ---- noise ----

    def run_unet(self, x, t, context, kept=None, **arrays):
        """The unet, and the ControlNets for which `arrays` has a hint and scales, as Controls.at() names them; on the device.

        kept: as unet() has it; where it holds something, ControlNets are not asked"""
        hints = {name: a for name, a in arrays.items() if name.startswith(("hint", "scales"))}
        rest = {name: a for name, a in arrays.items() if name not in hints}
        control = None
        for k, (weights, config) in enumerate(self.controlnets):
            if f"hint{k}" in hints and not kept:
                found = controlnet.controlnet(weights, x[..., :config.in_channels], t, context, hints[f"hint{k}"], hints[f"scales{k}"],
                                              config, **rest)
                control = controlnet.added(control, found)
        return unet.unet(self.unet, x, t, context, self.unet_config, control, kept, **rest)

    def predict_noise(self, x, t, conditioning, control=None, kept=None):
        """x (B,h,w,4), t 0 .. 999 -> what the unet was trained to predict, (B,h,w,4).

        conditioning: as condition() gives it, of B rows;  control: as Controls.at() gives it;  kept: as unet() has it, a dict of arrays"""
        upload = self.device.upload
        with self.memory(keep=True):
            x, t = upload(x.astype(self.dtype, copy=False)), upload(np.full(len(x), t, np.float32))
            call = self.call_unet if kept is None else partial(self.run_unet, kept=kept)       # which a recorded run cannot have
            return self.to_host(call(x=x, t=t, **conditioning, **(control or {})))

    # ---- pixels ----

    def decode(self, latents, tile=None):
        """Latents (B,h,w,4) -> pixels (B,H,W,3) float32 in [0,1], a picture at a time.

        tile: for large pictures, in overlapping pieces of so many latent positions.  Raises NumericalError for NaN or infinity."""
        threads.release()                                    # what the unet worked in
        with self.memory():
            pixels = [self.decode_piece(z) if tile is None else tiles.tiled(self.decode_piece, z, tile, tile // 4, self.vae_config.factor)
                      for z in latents[:, None]]
        pixels = np.concatenate(pixels)
        if not ops.all_finite(pixels):
            raise NumericalError("the decoded picture holds NaN or infinity: the vae's weights may be damaged")
        return images.to_unit(pixels)

    def decode_piece(self, z):
        """Latents (1,h,w,4) -> pixels (1,H,W,3), about [-1,1]"""
        return self.to_host(self.autoencoder.decode(self.vae, self.device.upload(z.astype(self.vae_dtype)), self.vae_config))

    def encode(self, pixels, noise=None):
        """Pixels (B,H,W,3), floats in [0,1], sides multiples of 8 -> latents (B,h,w,4): the mean of the encoder's distribution, or a
        sample of it made from `noise`, normal numbers (B,h,w,4).  TAESD's encoder gives the latents themselves.

        Raises InputError for pixels that are anything else."""
        pixels = pixels if isinstance(pixels, np.ndarray) else np.empty(0, object)
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype.kind != "f":
            raise InputError(f"pixels are {pixels.dtype} of shape {pixels.shape}; they must be floats in [0,1] of shape (B,H,W,3)")
        images.check_size(pixels.shape[2], pixels.shape[1], self.vae_config.factor)
        with self.memory():
            x = self.device.upload((2 * pixels - 1).astype(self.vae_dtype))
            moments = self.to_host(self.autoencoder.encode(self.vae, x, self.vae_config))
        if not self.encoder_is_stochastic:
            return moments
        if noise is None:
            return moments[..., :self.vae_config.latent_channels] * self.vae_config.scaling_factor
        return vae.sample(moments, noise, self.vae_config)

    # ---- the machine ----

    def bytes_needed(self, width, height, pictures, branches=2, tile=None):
        """About how much memory so many pictures take at a time, in bytes, besides what is held already; None on a GPU, which says itself.

        tile: latent positions beyond which they are worked on in pieces.  Numbers held at a time, measured on Stable Diffusion 1.5 and XL:
        22 for each channel of the unet's first level, 3.4 for each of the vae's last."""
        if self.device.name != "cpu":
            return None
        f, c, scratch = self.vae_config.factor, self.unet_config, min(threads.count(), 8) << 26
        positions = min(width * height, (tile * f) ** 2) / f**2 if tile else width * height / f**2
        unet, codec = (self.bytes_of_weights(w) for w in (self.unet, self.vae))
        layers = self.checkpoint.vae.shapes()
        last = next((layers[n][0] for n in ("decoder.conv_norm_out.weight", "decoder.layers.0.weight") if n in layers), 64)
        denoising = unet + 22 * c.channels * self.dtype.itemsize * positions * pictures * branches
        decoding = (0 if self.low_memory else unet) + codec + 3.4 * last * self.vae_dtype.itemsize * positions * f**2
        kept = pictures * (15 * width * height + 8 * c.out_channels * width * height / f**2)
        return int(max(denoising, decoding) + kept + scratch)

    def bytes_of_weights(self, weights):
        """What a network's weights will take that are not read yet; the largest of them where none is kept."""
        held, dtype = weights._leaves, self.vae_dtype if weights is self.vae else self.dtype
        sizes = [math.prod(shape) * dtype.itemsize for name, shape in held.shapes.items() if name not in held]
        return 2 * max(sizes, default=0) if self.low_memory else sum(sizes)

    def most_pictures(self, width, height, pictures, branches=2, tile=None):
        """How many of these pictures fit into memory at a time, 1 or more.  Raises InputError where not even one does, with what would."""
        if self.bytes_needed(width, height, 1, branches, tile) is None or (left := memory.available()) is None:
            return pictures

        def fits(width, height, count):
            return self.bytes_needed(width, height, count, branches, tile) <= left

        if fits(width, height, 1):
            return largest(lambda count: fits(width, height, count), pictures)
        f = self.vae_config.factor
        side = f * largest(lambda n: fits(n * f, n * f, 1), max(width, height) // f)
        need = self.bytes_needed(width, height, 1, branches, tile)
        help = f"{side}x{side} would fit" if side else "not even the smallest picture fits: its weights are too large"
        more = "" if self.low_memory else "; low_memory=True keeps no weights"
        raise InputError(f"{width}x{height} needs about {need / 2**30:.3g} GiB of memory, there are {left / 2**30:.3g} GiB; {help}{more}")

    def to_host(self, x):
        """A network's result, where the samplers work and as exact as they do."""
        return self.device.download(x).astype(self.latent_dtype, copy=False)

    @contextmanager
    def memory(self, keep=False):
        """Around a network's run: little scratch memory if low_memory says so, given back at the end unless it is to `keep`."""
        with threads.blas_on_one_thread(), threads.frugal() if self.low_memory else nullcontext():
            yield                                            # BLAS here, so that not each operation has to
        if not keep:
            threads.release()


def largest(right, most):
    """The largest whole number up to `most` for which right(n) holds, 0 where it does for none; it holds for all below one."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if right(middle) else (low, middle - 1)
    return low
