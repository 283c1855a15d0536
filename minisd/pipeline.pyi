# Written by tests/write_stubs.py from pipeline.py and settings.py.
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .checkpoint.weights import Weights
from .denoising import Step
from .model import Model
from .prompt.tokenizer import Tokenizer

Picture = Image.Image | np.ndarray | str | Path
Pictures = Any
Report = bool | Callable[[Step], object] | None

class Pipeline:
    model: Model
    provenance: dict[str, Any]
    unet: Weights
    vae: Weights
    text_encoder: Weights
    tokenizer: Tokenizer
    def __init__(self, model: Model, provenance: dict[str, Any] | None = None) -> None: ...

    def txt2img(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        *,
        output: str = 'pil',
        progress: Report = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        seed: int | list[int] | None = None,
        width: int | None = None,
        height: int | None = None,
        num_images: int = 1,
        sampler: str | None = None,
        sigmas: str | None = None,
        timestep_spacing: str | None = None,
        eta: float | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        prompt_syntax: str = 'a1111',
        rng: str = 'cpu',
        shared_generator: bool = False,
        latents: Any = None,
        original_inference_steps: int | None = None,
        cache_interval: int = 1,
        denoising_end: float | None = None,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | None = None,
        negative_target_size: tuple[int, int] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        control_image: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guess_mode: bool = False,
    ) -> Pictures:
        """A picture of what the prompt says.

        prompt, negative_prompt: a string, or a list with one for each picture; None is no negative prompt
        output: "pil" -> a PIL image with its settings in .info["parameters"], or a list of them if there are several;
            "array" -> (B,H,W,3) float32 in [0,1];  "latent" -> (B,h,w,4)
        progress: True for a progress bar, or a function that is called with each Step

        Settings of every task:
            num_inference_steps: denoising steps, 1 .. 1000; each is one call of the unet, or two with heun, dpm2 and dpm2_a (20)
            guidance_scale: how strongly to follow the prompt; 1 or less turns it off; None = as the model, or 7.5 (None)
            seed: picture k is drawn from seed + k; a list has one for each; None chooses one (None)
            width: pixels, a multiple of 8; None = as trained, or the given image's (None)
            height: pixels, as width (None)
            num_images: pictures per prompt, made in one batch (1)
            sampler: a name in minisd.samplers(); None = the model's own (None)
            sigmas: noise levels laid out anew: 'karras' or 'exponential' (None)
            timestep_spacing: 'leading', 'linspace' or 'trailing'; None = as model and sampler say (None)
            eta: noise of ddim: 0 (none) .. 1 (as ddpm) (None)
            guidance_rescale: 0 .. 1, restores the spread that guidance widens; 0.7 for models with zero terminal SNR (0.0)
            clip_skip: text encoder layer, counted from the last, 1, as in AUTOMATIC1111; None = 1, or 2 for SDXL (None)
            prompt_syntax: 'a1111' reads (weights:1.2), BREAK and prompts of any length; 'plain' as diffusers does ('a1111')
            rng: whose random numbers: 'cpu' as torch.Generator('cpu'), 'cuda' as a CUDA generator ('cpu')
            shared_generator: draw all pictures from one generator, as diffusers does when given a single one (False)
            latents: noise (B,h,w,4) of mean 0 and variance 1 to start from, in place of what the seed draws (None)
            original_inference_steps: lcm: the steps that its model was distilled from; None = as the model says (None)
            cache_interval: compute the unet's inner layers at one call in so many, keep their outcome: faster, another picture (1)
            denoising_end: 0 .. 1, stop there, for a refiner to go on from the latent (None)
            original_size: SDXL: (height, width) of the training image; None = the picture's (None)
            crops_coords_top_left: SDXL: (top, left) of the crop ((0, 0))
            target_size: SDXL: (height, width) to make; None = the picture's (None)
            negative_original_size: SDXL: likewise, for the negative prompt; None = as original_size (None)
            negative_crops_coords_top_left: SDXL: likewise; None = as crops_coords_top_left, or (0, 0) for its refiner (None)
            negative_target_size: SDXL: likewise; None = as target_size (None)
            prompt_2: SDXL: the prompt for its second text encoder; None = the same (None)
            negative_prompt_2: SDXL: likewise, the negative prompt; None = the same (None)
            aesthetic_score: SDXL refiner: 1 .. 10 (6.0)
            negative_aesthetic_score: SDXL refiner: 1 .. 10, for the negative prompt (2.5)
            control_image: the ControlNet's image, or a list with one for each (None)
            controlnet_conditioning_scale: strength of the ControlNet, or a list (1.0)
            control_guidance_start: 0 .. 1, from which share of the steps on it acts, or a list (0.0)
            control_guidance_end: 0 .. 1, until which share of the steps it acts, or a list (1.0)
            guess_mode: apply ControlNets to the prompt's branch only, weaker at high resolution; no prompt needed (False)

        Raises InputError for arguments that cannot be served, NumericalError when a latent is no longer finite."""

    def txt2img_steps(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        *,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        seed: int | list[int] | None = None,
        width: int | None = None,
        height: int | None = None,
        num_images: int = 1,
        sampler: str | None = None,
        sigmas: str | None = None,
        timestep_spacing: str | None = None,
        eta: float | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        prompt_syntax: str = 'a1111',
        rng: str = 'cpu',
        shared_generator: bool = False,
        latents: Any = None,
        original_inference_steps: int | None = None,
        cache_interval: int = 1,
        denoising_end: float | None = None,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | None = None,
        negative_target_size: tuple[int, int] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        control_image: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guess_mode: bool = False,
    ) -> Iterator[Step]:
        """The denoising loop of txt2img as a generator of Steps; the last one's latent is what to decode.

        prompt, negative_prompt: as for txt2img.  Bad arguments raise InputError here, before anything is computed.

        Settings of every task:
            num_inference_steps: denoising steps, 1 .. 1000; each is one call of the unet, or two with heun, dpm2 and dpm2_a (20)
            guidance_scale: how strongly to follow the prompt; 1 or less turns it off; None = as the model, or 7.5 (None)
            seed: picture k is drawn from seed + k; a list has one for each; None chooses one (None)
            width: pixels, a multiple of 8; None = as trained, or the given image's (None)
            height: pixels, as width (None)
            num_images: pictures per prompt, made in one batch (1)
            sampler: a name in minisd.samplers(); None = the model's own (None)
            sigmas: noise levels laid out anew: 'karras' or 'exponential' (None)
            timestep_spacing: 'leading', 'linspace' or 'trailing'; None = as model and sampler say (None)
            eta: noise of ddim: 0 (none) .. 1 (as ddpm) (None)
            guidance_rescale: 0 .. 1, restores the spread that guidance widens; 0.7 for models with zero terminal SNR (0.0)
            clip_skip: text encoder layer, counted from the last, 1, as in AUTOMATIC1111; None = 1, or 2 for SDXL (None)
            prompt_syntax: 'a1111' reads (weights:1.2), BREAK and prompts of any length; 'plain' as diffusers does ('a1111')
            rng: whose random numbers: 'cpu' as torch.Generator('cpu'), 'cuda' as a CUDA generator ('cpu')
            shared_generator: draw all pictures from one generator, as diffusers does when given a single one (False)
            latents: noise (B,h,w,4) of mean 0 and variance 1 to start from, in place of what the seed draws (None)
            original_inference_steps: lcm: the steps that its model was distilled from; None = as the model says (None)
            cache_interval: compute the unet's inner layers at one call in so many, keep their outcome: faster, another picture (1)
            denoising_end: 0 .. 1, stop there, for a refiner to go on from the latent (None)
            original_size: SDXL: (height, width) of the training image; None = the picture's (None)
            crops_coords_top_left: SDXL: (top, left) of the crop ((0, 0))
            target_size: SDXL: (height, width) to make; None = the picture's (None)
            negative_original_size: SDXL: likewise, for the negative prompt; None = as original_size (None)
            negative_crops_coords_top_left: SDXL: likewise; None = as crops_coords_top_left, or (0, 0) for its refiner (None)
            negative_target_size: SDXL: likewise; None = as target_size (None)
            prompt_2: SDXL: the prompt for its second text encoder; None = the same (None)
            negative_prompt_2: SDXL: likewise, the negative prompt; None = the same (None)
            aesthetic_score: SDXL refiner: 1 .. 10 (6.0)
            negative_aesthetic_score: SDXL refiner: 1 .. 10, for the negative prompt (2.5)
            control_image: the ControlNet's image, or a list with one for each (None)
            controlnet_conditioning_scale: strength of the ControlNet, or a list (1.0)
            control_guidance_start: 0 .. 1, from which share of the steps on it acts, or a list (0.0)
            control_guidance_end: 0 .. 1, until which share of the steps it acts, or a list (1.0)
            guess_mode: apply ControlNets to the prompt's branch only, weaker at high resolution; no prompt needed (False)

        Raises InputError for arguments that cannot be served, NumericalError when a latent is no longer finite."""

    def img2img(
        self,
        prompt: str | list[str],
        image: Picture,
        strength: float = 0.8,
        negative_prompt: str | list[str] | None = None,
        *,
        denoising_start: float | None = None,
        output: str = 'pil',
        progress: Report = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        seed: int | list[int] | None = None,
        width: int | None = None,
        height: int | None = None,
        num_images: int = 1,
        sampler: str | None = None,
        sigmas: str | None = None,
        timestep_spacing: str | None = None,
        eta: float | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        prompt_syntax: str = 'a1111',
        rng: str = 'cpu',
        shared_generator: bool = False,
        latents: Any = None,
        original_inference_steps: int | None = None,
        cache_interval: int = 1,
        denoising_end: float | None = None,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | None = None,
        negative_target_size: tuple[int, int] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        control_image: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guess_mode: bool = False,
    ) -> Pictures:
        """A picture of what the prompt says, starting from `image`.

        image: a PIL image of any mode, an array (H,W,3) of floats in [0,1] or of bytes, a file's name, or latents (B,h,w,4).  It is resized
            to width and height; if these are None, cut to a multiple of 8
        strength: share of the steps that are taken, above 0 (the image as it is) to 1 (nothing of it is left)
        denoising_start: 0 .. 1, in place of strength: go on with latents where another model stopped, at its denoising_end
        prompt, negative_prompt, output, progress: as for txt2img

        Settings of every task:
            num_inference_steps: denoising steps, 1 .. 1000; each is one call of the unet, or two with heun, dpm2 and dpm2_a (20)
            guidance_scale: how strongly to follow the prompt; 1 or less turns it off; None = as the model, or 7.5 (None)
            seed: picture k is drawn from seed + k; a list has one for each; None chooses one (None)
            width: pixels, a multiple of 8; None = as trained, or the given image's (None)
            height: pixels, as width (None)
            num_images: pictures per prompt, made in one batch (1)
            sampler: a name in minisd.samplers(); None = the model's own (None)
            sigmas: noise levels laid out anew: 'karras' or 'exponential' (None)
            timestep_spacing: 'leading', 'linspace' or 'trailing'; None = as model and sampler say (None)
            eta: noise of ddim: 0 (none) .. 1 (as ddpm) (None)
            guidance_rescale: 0 .. 1, restores the spread that guidance widens; 0.7 for models with zero terminal SNR (0.0)
            clip_skip: text encoder layer, counted from the last, 1, as in AUTOMATIC1111; None = 1, or 2 for SDXL (None)
            prompt_syntax: 'a1111' reads (weights:1.2), BREAK and prompts of any length; 'plain' as diffusers does ('a1111')
            rng: whose random numbers: 'cpu' as torch.Generator('cpu'), 'cuda' as a CUDA generator ('cpu')
            shared_generator: draw all pictures from one generator, as diffusers does when given a single one (False)
            latents: noise (B,h,w,4) of mean 0 and variance 1 to start from, in place of what the seed draws (None)
            original_inference_steps: lcm: the steps that its model was distilled from; None = as the model says (None)
            cache_interval: compute the unet's inner layers at one call in so many, keep their outcome: faster, another picture (1)
            denoising_end: 0 .. 1, stop there, for a refiner to go on from the latent (None)
            original_size: SDXL: (height, width) of the training image; None = the picture's (None)
            crops_coords_top_left: SDXL: (top, left) of the crop ((0, 0))
            target_size: SDXL: (height, width) to make; None = the picture's (None)
            negative_original_size: SDXL: likewise, for the negative prompt; None = as original_size (None)
            negative_crops_coords_top_left: SDXL: likewise; None = as crops_coords_top_left, or (0, 0) for its refiner (None)
            negative_target_size: SDXL: likewise; None = as target_size (None)
            prompt_2: SDXL: the prompt for its second text encoder; None = the same (None)
            negative_prompt_2: SDXL: likewise, the negative prompt; None = the same (None)
            aesthetic_score: SDXL refiner: 1 .. 10 (6.0)
            negative_aesthetic_score: SDXL refiner: 1 .. 10, for the negative prompt (2.5)
            control_image: the ControlNet's image, or a list with one for each (None)
            controlnet_conditioning_scale: strength of the ControlNet, or a list (1.0)
            control_guidance_start: 0 .. 1, from which share of the steps on it acts, or a list (0.0)
            control_guidance_end: 0 .. 1, until which share of the steps it acts, or a list (1.0)
            guess_mode: apply ControlNets to the prompt's branch only, weaker at high resolution; no prompt needed (False)

        Raises InputError for arguments that cannot be served, NumericalError when a latent is no longer finite."""

    def inpaint(
        self,
        prompt: str | list[str],
        image: Picture,
        mask_image: Picture | None = None,
        strength: float = 1.0,
        negative_prompt: str | list[str] | None = None,
        *,
        pad: tuple[int, int, int, int] | None = None,
        denoising_start: float | None = None,
        output: str = 'pil',
        progress: Report = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        seed: int | list[int] | None = None,
        width: int | None = None,
        height: int | None = None,
        num_images: int = 1,
        sampler: str | None = None,
        sigmas: str | None = None,
        timestep_spacing: str | None = None,
        eta: float | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        prompt_syntax: str = 'a1111',
        rng: str = 'cpu',
        shared_generator: bool = False,
        latents: Any = None,
        original_inference_steps: int | None = None,
        cache_interval: int = 1,
        denoising_end: float | None = None,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | None = None,
        negative_target_size: tuple[int, int] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        control_image: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guess_mode: bool = False,
    ) -> Pictures:
        """The image with what mask_image marks, white, painted anew.

        By the unet itself if it reads a mask (9 channels), which may change the rest a little; else by putting the noised image back after
        each step, so that the rest is what the decoder makes of the encoded image.
        image: as for img2img;  mask_image: likewise, in grey, of any size
        strength: share of the steps that are taken, above 0 to 1
        pad: (left, top, right, bottom) pixels to add around the image, which are painted too (outpainting)
        denoising_start: 0 .. 1, in place of strength: go on where another model stopped, at its denoising_end, with `image` its latents
        prompt, negative_prompt, output, progress: as for txt2img

        Settings of every task:
            num_inference_steps: denoising steps, 1 .. 1000; each is one call of the unet, or two with heun, dpm2 and dpm2_a (20)
            guidance_scale: how strongly to follow the prompt; 1 or less turns it off; None = as the model, or 7.5 (None)
            seed: picture k is drawn from seed + k; a list has one for each; None chooses one (None)
            width: pixels, a multiple of 8; None = as trained, or the given image's (None)
            height: pixels, as width (None)
            num_images: pictures per prompt, made in one batch (1)
            sampler: a name in minisd.samplers(); None = the model's own (None)
            sigmas: noise levels laid out anew: 'karras' or 'exponential' (None)
            timestep_spacing: 'leading', 'linspace' or 'trailing'; None = as model and sampler say (None)
            eta: noise of ddim: 0 (none) .. 1 (as ddpm) (None)
            guidance_rescale: 0 .. 1, restores the spread that guidance widens; 0.7 for models with zero terminal SNR (0.0)
            clip_skip: text encoder layer, counted from the last, 1, as in AUTOMATIC1111; None = 1, or 2 for SDXL (None)
            prompt_syntax: 'a1111' reads (weights:1.2), BREAK and prompts of any length; 'plain' as diffusers does ('a1111')
            rng: whose random numbers: 'cpu' as torch.Generator('cpu'), 'cuda' as a CUDA generator ('cpu')
            shared_generator: draw all pictures from one generator, as diffusers does when given a single one (False)
            latents: noise (B,h,w,4) of mean 0 and variance 1 to start from, in place of what the seed draws (None)
            original_inference_steps: lcm: the steps that its model was distilled from; None = as the model says (None)
            cache_interval: compute the unet's inner layers at one call in so many, keep their outcome: faster, another picture (1)
            denoising_end: 0 .. 1, stop there, for a refiner to go on from the latent (None)
            original_size: SDXL: (height, width) of the training image; None = the picture's (None)
            crops_coords_top_left: SDXL: (top, left) of the crop ((0, 0))
            target_size: SDXL: (height, width) to make; None = the picture's (None)
            negative_original_size: SDXL: likewise, for the negative prompt; None = as original_size (None)
            negative_crops_coords_top_left: SDXL: likewise; None = as crops_coords_top_left, or (0, 0) for its refiner (None)
            negative_target_size: SDXL: likewise; None = as target_size (None)
            prompt_2: SDXL: the prompt for its second text encoder; None = the same (None)
            negative_prompt_2: SDXL: likewise, the negative prompt; None = the same (None)
            aesthetic_score: SDXL refiner: 1 .. 10 (6.0)
            negative_aesthetic_score: SDXL refiner: 1 .. 10, for the negative prompt (2.5)
            control_image: the ControlNet's image, or a list with one for each (None)
            controlnet_conditioning_scale: strength of the ControlNet, or a list (1.0)
            control_guidance_start: 0 .. 1, from which share of the steps on it acts, or a list (0.0)
            control_guidance_end: 0 .. 1, until which share of the steps it acts, or a list (1.0)
            guess_mode: apply ControlNets to the prompt's branch only, weaker at high resolution; no prompt needed (False)

        Raises InputError for arguments that cannot be served, NumericalError when a latent is no longer finite."""

    def instruct_pix2pix(
        self,
        prompt: str | list[str],
        image: Picture,
        image_guidance_scale: float = 1.5,
        negative_prompt: str | list[str] | None = None,
        *,
        output: str = 'pil',
        progress: Report = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        seed: int | list[int] | None = None,
        width: int | None = None,
        height: int | None = None,
        num_images: int = 1,
        sampler: str | None = None,
        sigmas: str | None = None,
        timestep_spacing: str | None = None,
        eta: float | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        prompt_syntax: str = 'a1111',
        rng: str = 'cpu',
        shared_generator: bool = False,
        latents: Any = None,
        original_inference_steps: int | None = None,
        cache_interval: int = 1,
        denoising_end: float | None = None,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | None = None,
        negative_target_size: tuple[int, int] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        control_image: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guess_mode: bool = False,
    ) -> Pictures:
        """The image, edited as the prompt instructs, by a unet that reads it (8 channels).

        image: as for img2img
        image_guidance_scale: how strongly to keep to the image, 1 or more
        prompt, negative_prompt, output, progress: as for txt2img

        Settings of every task:
            num_inference_steps: denoising steps, 1 .. 1000; each is one call of the unet, or two with heun, dpm2 and dpm2_a (20)
            guidance_scale: how strongly to follow the prompt; 1 or less turns it off; None = as the model, or 7.5 (None)
            seed: picture k is drawn from seed + k; a list has one for each; None chooses one (None)
            width: pixels, a multiple of 8; None = as trained, or the given image's (None)
            height: pixels, as width (None)
            num_images: pictures per prompt, made in one batch (1)
            sampler: a name in minisd.samplers(); None = the model's own (None)
            sigmas: noise levels laid out anew: 'karras' or 'exponential' (None)
            timestep_spacing: 'leading', 'linspace' or 'trailing'; None = as model and sampler say (None)
            eta: noise of ddim: 0 (none) .. 1 (as ddpm) (None)
            guidance_rescale: 0 .. 1, restores the spread that guidance widens; 0.7 for models with zero terminal SNR (0.0)
            clip_skip: text encoder layer, counted from the last, 1, as in AUTOMATIC1111; None = 1, or 2 for SDXL (None)
            prompt_syntax: 'a1111' reads (weights:1.2), BREAK and prompts of any length; 'plain' as diffusers does ('a1111')
            rng: whose random numbers: 'cpu' as torch.Generator('cpu'), 'cuda' as a CUDA generator ('cpu')
            shared_generator: draw all pictures from one generator, as diffusers does when given a single one (False)
            latents: noise (B,h,w,4) of mean 0 and variance 1 to start from, in place of what the seed draws (None)
            original_inference_steps: lcm: the steps that its model was distilled from; None = as the model says (None)
            cache_interval: compute the unet's inner layers at one call in so many, keep their outcome: faster, another picture (1)
            denoising_end: 0 .. 1, stop there, for a refiner to go on from the latent (None)
            original_size: SDXL: (height, width) of the training image; None = the picture's (None)
            crops_coords_top_left: SDXL: (top, left) of the crop ((0, 0))
            target_size: SDXL: (height, width) to make; None = the picture's (None)
            negative_original_size: SDXL: likewise, for the negative prompt; None = as original_size (None)
            negative_crops_coords_top_left: SDXL: likewise; None = as crops_coords_top_left, or (0, 0) for its refiner (None)
            negative_target_size: SDXL: likewise; None = as target_size (None)
            prompt_2: SDXL: the prompt for its second text encoder; None = the same (None)
            negative_prompt_2: SDXL: likewise, the negative prompt; None = the same (None)
            aesthetic_score: SDXL refiner: 1 .. 10 (6.0)
            negative_aesthetic_score: SDXL refiner: 1 .. 10, for the negative prompt (2.5)
            control_image: the ControlNet's image, or a list with one for each (None)
            controlnet_conditioning_scale: strength of the ControlNet, or a list (1.0)
            control_guidance_start: 0 .. 1, from which share of the steps on it acts, or a list (0.0)
            control_guidance_end: 0 .. 1, until which share of the steps it acts, or a list (1.0)
            guess_mode: apply ControlNets to the prompt's branch only, weaker at high resolution; no prompt needed (False)

        Raises InputError for arguments that cannot be served, NumericalError when a latent is no longer finite."""

    def depth2img(
        self,
        prompt: str | list[str],
        image: Picture,
        depth_map: Picture,
        strength: float = 0.8,
        negative_prompt: str | list[str] | None = None,
        *,
        output: str = 'pil',
        progress: Report = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        seed: int | list[int] | None = None,
        width: int | None = None,
        height: int | None = None,
        num_images: int = 1,
        sampler: str | None = None,
        sigmas: str | None = None,
        timestep_spacing: str | None = None,
        eta: float | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        prompt_syntax: str = 'a1111',
        rng: str = 'cpu',
        shared_generator: bool = False,
        latents: Any = None,
        original_inference_steps: int | None = None,
        cache_interval: int = 1,
        denoising_end: float | None = None,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | None = None,
        negative_target_size: tuple[int, int] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        control_image: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guess_mode: bool = False,
    ) -> Pictures:
        """A picture of what the prompt says with the depths of `image`, by a unet that reads them (5 channels).

        image, strength: as for img2img
        depth_map: an array (H,W), larger where nearer, on any scale, or an image, white where nearest
        prompt, negative_prompt, output, progress: as for txt2img

        Settings of every task:
            num_inference_steps: denoising steps, 1 .. 1000; each is one call of the unet, or two with heun, dpm2 and dpm2_a (20)
            guidance_scale: how strongly to follow the prompt; 1 or less turns it off; None = as the model, or 7.5 (None)
            seed: picture k is drawn from seed + k; a list has one for each; None chooses one (None)
            width: pixels, a multiple of 8; None = as trained, or the given image's (None)
            height: pixels, as width (None)
            num_images: pictures per prompt, made in one batch (1)
            sampler: a name in minisd.samplers(); None = the model's own (None)
            sigmas: noise levels laid out anew: 'karras' or 'exponential' (None)
            timestep_spacing: 'leading', 'linspace' or 'trailing'; None = as model and sampler say (None)
            eta: noise of ddim: 0 (none) .. 1 (as ddpm) (None)
            guidance_rescale: 0 .. 1, restores the spread that guidance widens; 0.7 for models with zero terminal SNR (0.0)
            clip_skip: text encoder layer, counted from the last, 1, as in AUTOMATIC1111; None = 1, or 2 for SDXL (None)
            prompt_syntax: 'a1111' reads (weights:1.2), BREAK and prompts of any length; 'plain' as diffusers does ('a1111')
            rng: whose random numbers: 'cpu' as torch.Generator('cpu'), 'cuda' as a CUDA generator ('cpu')
            shared_generator: draw all pictures from one generator, as diffusers does when given a single one (False)
            latents: noise (B,h,w,4) of mean 0 and variance 1 to start from, in place of what the seed draws (None)
            original_inference_steps: lcm: the steps that its model was distilled from; None = as the model says (None)
            cache_interval: compute the unet's inner layers at one call in so many, keep their outcome: faster, another picture (1)
            denoising_end: 0 .. 1, stop there, for a refiner to go on from the latent (None)
            original_size: SDXL: (height, width) of the training image; None = the picture's (None)
            crops_coords_top_left: SDXL: (top, left) of the crop ((0, 0))
            target_size: SDXL: (height, width) to make; None = the picture's (None)
            negative_original_size: SDXL: likewise, for the negative prompt; None = as original_size (None)
            negative_crops_coords_top_left: SDXL: likewise; None = as crops_coords_top_left, or (0, 0) for its refiner (None)
            negative_target_size: SDXL: likewise; None = as target_size (None)
            prompt_2: SDXL: the prompt for its second text encoder; None = the same (None)
            negative_prompt_2: SDXL: likewise, the negative prompt; None = the same (None)
            aesthetic_score: SDXL refiner: 1 .. 10 (6.0)
            negative_aesthetic_score: SDXL refiner: 1 .. 10, for the negative prompt (2.5)
            control_image: the ControlNet's image, or a list with one for each (None)
            controlnet_conditioning_scale: strength of the ControlNet, or a list (1.0)
            control_guidance_start: 0 .. 1, from which share of the steps on it acts, or a list (0.0)
            control_guidance_end: 0 .. 1, until which share of the steps it acts, or a list (1.0)
            guess_mode: apply ControlNets to the prompt's branch only, weaker at high resolution; no prompt needed (False)

        Raises InputError for arguments that cannot be served, NumericalError when a latent is no longer finite."""

    def upscale(
        self,
        prompt: str | list[str],
        image: Picture,
        noise_level: int = 20,
        negative_prompt: str | list[str] | None = None,
        *,
        tile: int = 256,
        output: str = 'pil',
        progress: Report = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        seed: int | list[int] | None = None,
        num_images: int = 1,
        sampler: str | None = None,
        sigmas: str | None = None,
        timestep_spacing: str | None = None,
        eta: float | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        prompt_syntax: str = 'a1111',
        rng: str = 'cpu',
        shared_generator: bool = False,
        latents: Any = None,
        original_inference_steps: int | None = None,
        cache_interval: int = 1,
        denoising_end: float | None = None,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | None = None,
        negative_target_size: tuple[int, int] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        control_image: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guess_mode: bool = False,
    ) -> Pictures:
        """The image four times as wide and high, by an upscaler; the prompt says what there is to see.  guidance_scale 9 and 75 steps are
        usual.

        image: as for img2img, not resized
        noise_level: 0 .. 350, how much noise hides the image's own detail
        tile: pixels of `image` beyond which it is worked on in overlapping pieces of that size
        prompt, negative_prompt, output, progress: as for txt2img

        Settings of every task:
            num_inference_steps: denoising steps, 1 .. 1000; each is one call of the unet, or two with heun, dpm2 and dpm2_a (20)
            guidance_scale: how strongly to follow the prompt; 1 or less turns it off; None = as the model, or 7.5 (None)
            seed: picture k is drawn from seed + k; a list has one for each; None chooses one (None)
            num_images: pictures per prompt, made in one batch (1)
            sampler: a name in minisd.samplers(); None = the model's own (None)
            sigmas: noise levels laid out anew: 'karras' or 'exponential' (None)
            timestep_spacing: 'leading', 'linspace' or 'trailing'; None = as model and sampler say (None)
            eta: noise of ddim: 0 (none) .. 1 (as ddpm) (None)
            guidance_rescale: 0 .. 1, restores the spread that guidance widens; 0.7 for models with zero terminal SNR (0.0)
            clip_skip: text encoder layer, counted from the last, 1, as in AUTOMATIC1111; None = 1, or 2 for SDXL (None)
            prompt_syntax: 'a1111' reads (weights:1.2), BREAK and prompts of any length; 'plain' as diffusers does ('a1111')
            rng: whose random numbers: 'cpu' as torch.Generator('cpu'), 'cuda' as a CUDA generator ('cpu')
            shared_generator: draw all pictures from one generator, as diffusers does when given a single one (False)
            latents: noise (B,h,w,4) of mean 0 and variance 1 to start from, in place of what the seed draws (None)
            original_inference_steps: lcm: the steps that its model was distilled from; None = as the model says (None)
            cache_interval: compute the unet's inner layers at one call in so many, keep their outcome: faster, another picture (1)
            denoising_end: 0 .. 1, stop there, for a refiner to go on from the latent (None)
            original_size: SDXL: (height, width) of the training image; None = the picture's (None)
            crops_coords_top_left: SDXL: (top, left) of the crop ((0, 0))
            target_size: SDXL: (height, width) to make; None = the picture's (None)
            negative_original_size: SDXL: likewise, for the negative prompt; None = as original_size (None)
            negative_crops_coords_top_left: SDXL: likewise; None = as crops_coords_top_left, or (0, 0) for its refiner (None)
            negative_target_size: SDXL: likewise; None = as target_size (None)
            prompt_2: SDXL: the prompt for its second text encoder; None = the same (None)
            negative_prompt_2: SDXL: likewise, the negative prompt; None = the same (None)
            aesthetic_score: SDXL refiner: 1 .. 10 (6.0)
            negative_aesthetic_score: SDXL refiner: 1 .. 10, for the negative prompt (2.5)
            control_image: the ControlNet's image, or a list with one for each (None)
            controlnet_conditioning_scale: strength of the ControlNet, or a list (1.0)
            control_guidance_start: 0 .. 1, from which share of the steps on it acts, or a list (0.0)
            control_guidance_end: 0 .. 1, until which share of the steps it acts, or a list (1.0)
            guess_mode: apply ControlNets to the prompt's branch only, weaker at high resolution; no prompt needed (False)

        Raises InputError for arguments that cannot be served, NumericalError when a latent is no longer finite."""
