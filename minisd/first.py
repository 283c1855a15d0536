"""Stable Diffusion in one straight path.  Read this first; copy it to begin an experiment of your own.

A picture is made in five steps: the prompt becomes tokens, the tokens become vectors, a latent of pure noise is denoised step by step
by a network that reads these vectors, the latent is decoded into pixels, and those are saved.  Each function called is worth opening
next.  `minisd.load().txt2img(prompt, seed=seed, sampler="ddim")` makes the same picture, bit for bit, with all
that is left out here: other samplers and tasks, weighted and long prompts, Stable Diffusion XL, GPUs, checks.

    python -m minisd.first                       the shipped model, a picture in out.png
    minisd.first.draw("path/to/sd-1.5", ...)     any Stable Diffusion 1 or 2

B batch, M tokens, D numbers a token, h w the latent's height and width, H W the picture's."""
import math

import numpy as np

from minisd.backend import convolution, cpu  # noqa: F401  (importing them makes the operations fast)
from minisd.backend.threads import blas_on_one_thread
from minisd.checkpoint.hub import find_folder
from minisd.checkpoint.single import open_model
from minisd.diffusion.rng import TorchCPU, latent_noise
from minisd.diffusion.schedules import alphas_cumprod, spaced_timesteps
from minisd.image.pixels import to_pil, to_unit
from minisd.image.saving import save
from minisd.networks import clip, unet, vae
from minisd.prompt.tokenizer import Tokenizer


@blas_on_one_thread()                                        # the threads are ours, as in the engine: products round as theirs do
def draw(model=None, prompt="a red apple on a blue background", seed=1, steps=20, guidance_scale=None):
    """A PIL image of the prompt, of the size that the model was trained on.

    model: a diffusers folder, a .safetensors file or a hub id of Stable Diffusion 1 or 2; None for the one that comes with minisd"""

    # ---- the checkpoint: three networks, each a configuration and a tree of weights, and a scheduler's configuration ----

    checkpoint, _ = open_model(find_folder(model))
    text_encoder = checkpoint.text_encoders[0]
    clip_weights, clip_config = text_encoder.weights(), text_encoder.config
    unet_weights, unet_config = checkpoint.unet.weights(), checkpoint.unet.config
    vae_weights, vae_config = checkpoint.vae.weights(), checkpoint.vae.config

    # ---- text: the prompt, and an empty one to guide away from ----

    tokenizer = Tokenizer(**checkpoint.vocabularies()[0])
    ids, _ = tokenizer([prompt])                                                     # (1,M): 77 for SD 1.5, 32 for the shipped model
    empty, _ = tokenizer([""])
    context = np.concatenate([clip.encode(clip_weights, empty, clip_config),
                              clip.encode(clip_weights, ids, clip_config)])          # (2,M,D): D is 768 for SD 1.5

    # ---- the noise schedule ----

    c = {"trained_betas": None, "timestep_spacing": "leading", **checkpoint.scheduler, "steps_offset": 1}
    abar = alphas_cumprod(c)                                                         # (1000,): the share of the picture in the variance
    timesteps = spaced_timesteps(c, steps).astype(int)                               # 951, 901, ..., 1 for 20 steps

    # ---- from noise to a clean latent ----

    scale = checkpoint.guidance_scale if guidance_scale is None else guidance_scale  # 7.5 for SD 1.5
    h, w = unet_config.sample_size                                                   # 64, 64 for SD 1.5
    x = latent_noise([TorchCPU(seed)], (1, h, w, vae_config.latent_channels))        # (1,h,w,4): torch's random numbers
    for t in timesteps:
        a = float(abar[t])                                                           # x = sqrt(a) x0 + sqrt(1 - a) eps
        t_next = t - len(abar) // steps
        a_next = float(abar[t_next] if t_next >= 0 else 1.0 if c.get("set_alpha_to_one", True) else abar[0])
        alpha, sigma = math.sqrt(a), math.sqrt(1 - a)
        r = math.hypot(alpha, sigma)                                                 # 1 but for rounding, kept to equal the engine's bits

        # the network is asked twice, without the prompt and with it, and the difference is exaggerated: classifier-free guidance
        out = unet.unet(unet_weights, np.concatenate([x / r, x / r]), np.full(2, t, np.float32), context, unet_config)
        without, with_prompt = np.split(out, 2)
        out = without + scale * (with_prompt - without)

        # its answer, read as the clean latent x0 and the noise eps: SD 1.5 predicts eps, the shipped model v = alpha eps - sigma x0
        if c.get("prediction_type", "epsilon") == "v_prediction":
            x0, eps = (alpha / r**2) * x - (sigma / r) * out, (sigma / r**2) * x + (alpha / r) * out
        else:
            x0, eps = (x - sigma * out) / alpha, out

        # the same x0 and eps, mixed at the next, lower noise level: DDIM, Song et al. 2021, eq. 12 with sigma_t = 0
        x = a_next**0.5 * x0 + (1 - a_next) ** 0.5 * eps

    # ---- from the latent to a picture ----

    pixels = vae.decode(vae_weights, x, vae_config)                                  # (1,H,W,3) in about [-1,1]
    return to_pil(to_unit(pixels))[0]


if __name__ == "__main__":
    save("out.png", draw())
