"""Conditioning: all that the unet is given besides the noisy latent and the timestep.

A dictionary of arrays, one row for each row of the unet's batch: context (B,M,D), and where the model has them text_embeds (B,P),
time_ids (B,6 or 5), class_labels (B,) and timestep_cond (B,G), as unet.time_embedding() takes them."""
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend.ops import concat, xp_of
from .errors import listed, warn
from .networks import clip
from .networks.clip_config import TextConfig
from .prompt.chunks import chunks
from .prompt.syntax import parse


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder with its tokenizer.  weights: the tree."""
    tokenizer: Any
    weights: Any
    config: TextConfig


# ---- prompts -> vectors ----------------------------------------------------------------------------------------


def words_of(texts):
    """{word: None} of some texts, in order and in small letters."""
    return dict.fromkeys(w for text in texts for w in re.findall(r"\w+", text.lower()))


def warn_of_unknown(prompts, words, weighted):
    """Of words that a model with a small vocabulary was not trained on."""
    texts = [text for p in prompts for text, _ in (parse(p) if weighted else [(p, 1)]) if text]
    unknown = [w for w in words_of(texts) if w not in words]
    if unknown:
        quoted = listed([f"'{w}'" for w in unknown])
        warn(f"this model does not know {quoted}; `minisd inspect` lists the words it was trained on")


def tokenize(tokenizer, prompts, weighted):
    """B prompts -> [(ids (n,M), weights (n,M)), ...], n chunks each; one chunk each, cut with a warning, unless `weighted`."""
    if weighted:
        return [chunks(tokenizer, p) for p in prompts]
    ids, cut = tokenizer(prompts)
    for words in filter(None, cut):
        warn(f"the prompt is too long: the model reads {tokenizer.length - 2} tokens; left out: {words!r}")
    return [(i[None], np.ones_like(i[None], np.float32)) for i in ids]


def encode_with(encoder, prompts, clip_skip, weighted, xl, upload):
    """B prompts by one text encoder -> (context (B,M,D), pooled (B,P) or None)."""
    rows = tokenize(encoder.tokenizer, prompts, weighted)
    ids, weights = map(np.concatenate, zip(*rows))
    counts = [len(i) for i, _ in rows]
    if xl:
        z, pooled = clip.encode_xl(encoder.weights, upload(ids), encoder.config, clip_skip)
    else:
        z, pooled = clip.encode(encoder.weights, upload(ids), encoder.config, clip_skip), None
    if (weights != 1).any():
        z = weigh(z, upload(weights.astype(z.dtype)))
    firsts = np.cumsum([0, *counts[:-1]])
    return stack_chunks(z, counts), None if pooled is None else pooled[firsts]      # the pooled vector is the first chunk's


def encode(encoders, prompts, clip_skip, weighted, xl, upload):
    """B prompts for each text encoder -> {"context": (B,M,D)}, and of Stable Diffusion XL "text_embeds": (B,P).

    clip_skip: the text encoder's layer, counted from the last, 1;  weighted: whether to read prompts as prompt/syntax.py says;  xl: as
    Stable Diffusion XL encodes them, else as 1 and 2;  upload: host array -> the device's"""
    found = [encode_with(encoder, texts, clip_skip, weighted, xl, upload) for encoder, texts in zip(encoders, prompts)]
    most = max(z.shape[1] for z, _ in found)
    context = concat([lengthened(z, most) for z, _ in found]) if len(found) > 1 else found[0][0]
    return {"context": context, "text_embeds": found[-1][1]} if xl else {"context": context}


def weigh(z, weights):
    """Vectors z (n,M,D), each times its weight (n,M), then each chunk scaled so that its mean is what it was."""
    before = z.mean((1, 2), keepdims=True)
    z = z * weights[..., None]
    return z * (before / z.mean((1, 2), keepdims=True))


def stack_chunks(z, counts):
    """Chunks z (n,M,D), counts[b] of them for prompt b -> (B,k M,D), k the most of them; shorter ones repeat their last vector."""
    most, M = max(counts), z.shape[1]
    rows, at = [], 0
    for count in counts:
        whole = z[at:at + count].reshape(count * M, -1)
        rows += [whole, whole[-1:].repeat((most - count) * M, axis=0)]
        at += count
    return z if most == 1 else xp_of(z).concatenate(rows).reshape(len(counts), most * M, -1)


# ---- branches of guidance --------------------------------------------------------------------------------------


def zeros_like(conditioning):
    """No prompt at all, which Stable Diffusion XL was trained with in place of an empty one."""
    return {k: xp_of(a).zeros_like(a) for k, a in conditioning.items()}


def joined(first, second):
    """The rows of one conditioning, then those of another; the shorter context is repeated at its end, as in stack_chunks()."""
    most = max(first["context"].shape[1], second["context"].shape[1])

    def fitted(name, a):
        return lengthened(a, most) if name == "context" else a

    return {k: xp_of(a).concatenate([fitted(k, a), fitted(k, second[k])]) for k, a in first.items()}


def lengthened(z, length):
    """A context z (B,M,D), its last vector repeated -> (B,length,D)"""
    missing = length - z.shape[1]
    return z if not missing else xp_of(z).concatenate([z, z[:, -1:].repeat(missing, axis=1)], axis=1)


# ---- what some models are given with the time ------------------------------------------------------------------


def guidance_embedding(scale, dim, dtype):
    """Sinusoids of the guidance scale less 1, (1,dim), sines first.   Luo et al. 2023, section 4.1

    In float32, rounded as the reference rounds: a scale of 8.5 is an angle of 7500, which shows each bit of a frequency."""
    step = np.log(np.float32(10000)) / np.float32(dim // 2 - 1)
    freqs = np.exp((np.arange(dim // 2, dtype=np.float32) * -step).astype(np.float64)).astype(np.float32)
    angles = np.float32(1000) * np.float32(scale - 1) * freqs
    return np.concatenate([np.sin(angles), np.cos(angles)])[None].astype(dtype)


def time_ids(count, original_size, crops_coords_top_left, target_size, score=None):
    """SDXL's sizes: (height, width) of the training image, (top, left) of its crop, (height, width) to make; its refiner has an aesthetic
    score, 1 to 10, in place of the last -> (1,count) float32.   Podell et al. 2023, section 2.2"""
    last = target_size if count == 6 else (score,)
    return np.array([[*original_size, *crops_coords_top_left, *last]], np.float32)


def time_ids_of_branches(unet_config, pooled_width, s, width, height):
    """-> (the time_ids of a branch without the prompt, those of one with it), each (1,6 or 5).  s: Settings

    A refiner's branch without the prompt has a crop of its own, (0, 0) unless told, as in diffusers."""
    count = (unet_config.projection_class_embeddings_input_dim - pooled_width) // unet_config.addition_time_embed_dim
    original, target = s.original_size or (height, width), s.target_size or (height, width)
    crop = s.negative_crops_coords_top_left or ((0, 0) if count == 5 else s.crops_coords_top_left)
    return (time_ids(count, s.negative_original_size or original, crop, s.negative_target_size or target, s.negative_aesthetic_score),
            time_ids(count, original, s.crops_coords_top_left, target, s.aesthetic_score))
