"""Guidance: what the unet predicts with the prompt and without it, weighed against each other.   Ho & Salimans 2022."""
import numpy as np


def by_prompt(call, x, scale, rescale):
    """call(rows), of the latents x (B,h,w,C) twice, without the prompt and with it -> the guided prediction.   Eq. 6."""
    without, with_text = np.split(call(np.concatenate([x, x])), 2)
    return rescaled(without + scale * (with_text - without), with_text, rescale)


def by_prompt_and_picture(call, x, beside, scale, image_scale, rescale):
    """The same for a unet that reads a picture `beside` the latents: with neither, with the picture, with both.   Brooks et al. 2023,
    eq. 3."""
    beside = np.concatenate([0 * beside, beside, beside])
    without, with_image, with_text = np.split(call(np.concatenate([np.concatenate([x, x, x]), beside], axis=-1)), 3)
    return rescaled(without + scale * (with_text - with_image) + image_scale * (with_image - without), with_text, rescale)


def rescaled(out, with_text, share):
    """A guided prediction brought back to the spread of the one with the prompt, by a share of 0 .. 1.   Lin et al. 2023, eq. 15-16."""
    if share == 0:
        return out
    axes = tuple(range(1, out.ndim))
    ratio = with_text.std(axes, keepdims=True, ddof=1) / out.std(axes, keepdims=True, ddof=1)
    return share * (out * ratio) + (1 - share) * out
