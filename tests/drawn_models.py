"""The numbers that goldens are made from: weights and inputs drawn from their own names, the same everywhere.

Number k of array `name` is u = 2 * (w >> 40) / 2^24 - 1 with w = splitmix64(fnv1a64(name) + (k + 1) * 0x9E3779B97F4A7C15):
whole-number arithmetic and one exact scaling, so any language gets the very same bits.   Steele et al. 2014 (splitmix64)."""
import functools
import json
import math

import numpy as np
from safetensors.numpy import save_file

from minisd.prompt.tokenizer import packaged_vocabulary


def uniform(name, shape):
    """float32 in [-1,1)"""
    return drawn(name, tuple(shape)) if math.prod(shape) > 1e6 else drawn.__wrapped__(name, shape)


@functools.lru_cache(maxsize=16)                             # vocabularies are drawn again and again
def drawn(name, shape):
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):                         # arithmetic modulo 2^64 is the point
        z = np.uint64(seed) + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - 1).reshape(shape)


def weight(name, shape):
    """A weight by its name, in the file's layout: scales near 1, biases near 0, others of variance 1/inputs."""
    u = uniform(name, shape)
    if name.endswith("bias"):
        return u * np.float32(0.1)
    if len(shape) == 1:
        return 1 + u * np.float32(0.25)
    return u * np.float32(math.sqrt(3 / math.prod(shape[1:])))


def standard(name, shape):
    """An input of mean 0 and variance 1."""
    return uniform(name, shape) * np.float32(math.sqrt(3))


@functools.cache
def vocabulary_files():
    vocab, merges = packaged_vocabulary()
    return {"vocab.json": json.dumps(vocab), "merges.txt": "#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n"}


def write_tokenizer(folder, length=77, pad=None):
    """A tokenizer folder as the hub has them; `pad` as SD 2 does it, in special_tokens_map.json alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in vocabulary_files().items():
        (folder / file).write_text(text, encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    config = {**special, "pad_token": "<|endoftext|>", "model_max_length": length, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps({**special, "pad_token": pad or "<|endoftext|>"}))


STEMS = {"text_encoder": "model", "text_encoder_2": "model"}


def write_network(folder, name, config, shapes, prefix=""):
    """One network's folder, of drawn weights;  prefix: before its names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({prefix + n: weight(n, s) for n, s in shapes.items()}, folder / f"{STEMS.get(name, 'diffusion_pytorch_model')}.safetensors")
    return folder


def write_model(folder, configs, shapes, scheduler, pad=None, prefix="", index=None):
    """A diffusers folder of drawn weights.

    configs, shapes: {component: ...}, shapes in the file's layout; prefix: before the text encoder's names; index: for model_index.json"""
    for part in configs:
        write_network(folder / part, part, configs[part], shapes[part], prefix if part == "text_encoder" else "")
        if part.startswith("text_encoder"):
            write_tokenizer(folder / part.replace("text_encoder", "tokenizer"), configs[part].get("max_position_embeddings", 77),
                            "!" if part == "text_encoder_2" else pad)
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    listed = {part: ["transformers" if part.startswith("text") else "diffusers", "a class"] for part in configs}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", "text_encoder": [None, None], **listed,
                                                         "scheduler": ["diffusers", scheduler["_class_name"]], **(index or {})}))
    return folder
