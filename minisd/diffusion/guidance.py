"""Classifier-free guidance: the unet is asked with the prompt and without it, and the difference is exaggerated.   Ho & Salimans 2022.

The branches stand one after the other in the batch, as in diffusers: (without, with) for a prompt, (without, with one, with another, ...)
for several, (without, with the image, with image and prompt) for an image to be followed as well."""
import numpy as np


def by_prompt(out, scale, rescale=0.0):
    """Predictions without and with the prompt, (2B,h,w,C) -> (B,h,w,C): without + scale (with - without).   Eq. 6.

    rescale: 0 .. 1, see rescaled()"""
    without, with_text = np.split(out, 2)
    return rescaled(without + scale * (with_text - without), with_text, rescale)


def by_prompts(out, scale, weights, rescale=0.0):
    """Predictions without a prompt and with each of P, ((1+P)B,h,w,C) -> (B,h,w,C): the effects of all prompts, added.

    weights: (P,B)   Liu et al. 2022 (composable diffusion), eq. 11."""
    without, *with_text = np.split(out, 1 + len(weights))
    effects = [np.asarray(w, out.dtype)[:, None, None, None] * (y - without) for w, y in zip(weights, with_text)]
    return rescaled(without + scale * sum(effects), without + sum(effects), rescale)


def by_prompt_and_image(out, scale, image_scale, rescale=0.0):
    """Predictions with neither, with the image, with both, (3B,h,w,C) -> (B,h,w,C).   Brooks et al. 2023, eq. 3."""
    without, with_image, with_text = np.split(out, 3)
    return rescaled(without + scale * (with_text - with_image) + image_scale * (with_image - without), with_text, rescale)


def rescaled(out, with_text, share):
    """A guided prediction brought back to the spread of the one with the prompt, by a share of 0 .. 1.   Lin et al. 2023, eq. 15-16."""
    if share == 0:
        return out
    axes = tuple(range(1, out.ndim))
    ratio = with_text.std(axes, keepdims=True, ddof=1) / out.std(axes, keepdims=True, ddof=1)
    return share * (out * ratio) + (1 - share) * out
