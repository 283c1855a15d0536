"""What the unet is told beside the latent and the time: the prompt, as one or two text encoders read it, and for Stable Diffusion XL the
sizes of the picture.

A dictionary of arrays, one row for each picture: context (B,M,D), and where the model has them text_embeds (B,P), time_ids (B,6 or 5),
class_labels (B,) and timestep_cond (B,G), as unet.time_embedding() takes them."""
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend.ops import concat, xp_of
from .errors import InputError
from .networks import clip as text
from .prompt import syntax as prompt
from .settings import listed


@dataclass(frozen=True)
class Reader:
    """A text encoder and its tokenizer.  weights: the tree."""
    tokenizer: Any
    weights: Any
    config: text.TextConfig


def warn_of_unknown(prompts, words, weighing):
    """Of words that a model trained on few of them has never seen."""
    said = [t for p in prompts for t, _ in (prompt.parse(p) if weighing else [(p, 1)]) if t]
    unknown = list(dict.fromkeys(w for t in said for w in re.findall(r"\w+", t.lower()) if w not in words))
    if unknown:
        warnings.warn(f"this model does not know {listed(unknown)}; `minisd inspect` lists the words it was trained on", stacklevel=4)


def read(reader, prompts, clip_skip, weighing, xl, upload):
    """One encoder's reading of B prompts -> (context (B,M,D), pooled (B,P) or None).  xl: as Stable Diffusion XL reads, else as 1 and 2.

    clip_skip: which layer, counted from the last;  weighing: whether to read prompts as prompt.py says."""
    if weighing:
        rows = [prompt.chunks(reader.tokenizer, p) for p in prompts]
    else:
        ids, cut = reader.tokenizer(prompts)
        rows = [(i[None], np.ones_like(i[None], np.float32)) for i in ids]
        for words in filter(None, cut):
            warnings.warn(f"the prompt is too long: the model reads {reader.tokenizer.length - 2} tokens; "
                          f"left out: {words!r}", stacklevel=4)
    ids, weights = map(np.concatenate, zip(*rows))
    counts = [len(i) for i, _ in rows]
    if xl:
        z, pooled = text.encode_xl(reader.weights, upload(ids), reader.config, clip_skip)
    else:
        z, pooled = text.encode(reader.weights, upload(ids), reader.config, clip_skip), None
    if (weights != 1).any():
        z = prompt.weighted(z, upload(weights.astype(z.dtype)))
    firsts = np.cumsum([0, *counts[:-1]])
    return prompt.stacked(z, counts), None if pooled is None else pooled[firsts]      # the pooled vector is the first chunk's


def encode(readers, prompts, clip_skip, weighing, xl, upload):
    """B prompts -> {"context": ..., and for Stable Diffusion XL "text_embeds": ...}"""
    found = [read(reader, prompts, clip_skip, weighing, xl, upload) for reader in readers]
    told = {"context": concat([z for z, _ in found]) if len(found) > 1 else found[0][0]}
    return {**told, "text_embeds": found[-1][1]} if xl else told


def zeros_like(told):
    """The reading of no prompt at all, which Stable Diffusion XL was trained with in the place of an empty one."""
    return {k: xp_of(a).zeros_like(a) for k, a in told.items()}


def joined(first, second):
    """The rows of one reading, then those of another; the shorter context is repeated at its end, as prompt.stacked does."""
    most = max(first["context"].shape[1], second["context"].shape[1])

    def fitted(name, a):
        missing = most - a.shape[1] if name == "context" else 0
        return a if not missing else xp_of(a).concatenate([a, a[:, -1:].repeat(missing, axis=1)], axis=1)

    return {k: xp_of(a).concatenate([fitted(k, a), fitted(k, second[k])]) for k, a in first.items()}


def guidance_features(scale, dim, dtype):
    """Sinusoids of the guidance scale less 1, (1,dim), sines first.   Luo et al. 2023, section 4.1

    In float32, rounded as the reference rounds: a scale of 8.5 is an angle of 7500, which shows each bit of a frequency."""
    step = np.log(np.float32(10000)) / np.float32(dim // 2 - 1)
    freqs = np.exp((np.arange(dim // 2, dtype=np.float32) * -step).astype(np.float64)).astype(np.float32)
    angles = np.float32(1000) * np.float32(scale - 1) * freqs
    return np.concatenate([np.sin(angles), np.cos(angles)])[None].astype(dtype)


def time_ids(count, original_size, crops_coords_top_left, target_size, score=None):
    """What Stable Diffusion XL is told of sizes: (height, width) of the picture it learned from, where that was cut, (top, left), and
    the size to make; its refiner a score of beauty, 1 to 10, in place of the last -> (1,count) float32.
    Podell et al. 2023, section 2.2"""
    for name, pair in (("original_size", original_size), ("crops_coords_top_left", crops_coords_top_left), ("target_size", target_size)):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(n, (int, np.integer)) and n >= 0 for n in pair):
            raise InputError(f"{name} is {pair!r}; it must be two whole numbers of pixels, the vertical one first")
    last = target_size if count == 6 else (score,)
    return np.array([[*original_size, *crops_coords_top_left, *last]], np.float32)
