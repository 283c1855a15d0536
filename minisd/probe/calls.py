"""One call of each network of a model, on inputs of its own, with every layer's output seen and, if wanted, another put in its place;
exactly, in float32, or as rounded as another engine's storage makes it."""
import itertools
import math
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..backend import memory, ops, threads
from ..checkpoint.shapes import Shape
from ..checkpoint.weights import Weights
from ..conditioning import guidance_embedding, time_ids
from ..errors import CheckpointError, InputError
from ..image import pixels
from ..model import Model
from ..networks import clip, nn, unet

CONTEXT = "context"                                          # what Stable Diffusion XL reads of a text encoder, named as a layer is
TIMESTEP = 501.0
LEFT_FULL = "timestep", "time_ids", "input_ids", "class_labels"            # inputs that are numbers, not activations


@dataclass(frozen=True)
class Call:
    """One network's part of the work, or a whole run (walk.py).

    name: "text_encoder", "text_encoder_2", "unet", "vae.encoder", "vae.decoder" or "run";  component: whose weights it has, which stands
    before each layer's name;  takes: its inputs, {name: axes};  network(weights, **inputs) computes it;  dtype: of its arithmetic
    layers: {name: shape} of what it shows, where it has no weights of its own to tell"""
    name: str
    component: str
    takes: dict
    weights: Any
    network: Callable
    dtype: Any
    layers: dict | None = None


def calls(model):
    """{name: Call} of a Model, in the order in which a picture needs them."""
    found = []
    for part, encoder in zip(model.checkpoint.text_encoders, model.text_encoders):
        found.append(Call(part.name, part.name, {"input_ids": "BM"}, encoder.weights,
                          partial(encode_text, config=encoder.config, xl=model.xl), model.dtype))
    c, codec = model.unet_config, model.autoencoder
    takes = {"sample": "BHWC", "timestep": "B", "encoder_hidden_states": "BMC"}
    takes |= {"text_embeds": "BC", "time_ids": "BC"} if model.xl else {}
    takes |= {"class_labels": "B"} if c.is_upscaler else {}
    takes |= {"timestep_cond": "BC"} if c.is_lcm else {}
    found.append(Call("unet", "unet", takes, model.unet, partial(call_unet, config=c), model.dtype))
    for name, given, network in (("vae.encoder", "pixels", codec.encode), ("vae.decoder", "latents", codec.decode)):
        found.append(Call(name, "vae", {given: "BHWC"}, model.vae, partial(call_vae, network, given, model.vae_config), model.vae_dtype))
    return {call.name: call for call in found}


def encode_text(p, input_ids, config, xl):
    """input_ids (B,M) -> context (B,M,D)"""
    if not xl:
        return clip.encode(p, input_ids, config)
    context, _ = clip.encode_xl(p, input_ids, config)
    return nn.tap(Named(CONTEXT), context)


@dataclass(frozen=True)
class Named:
    """What nn.tap() names a result by that belongs to no node."""
    path: str


def call_unet(p, sample, timestep, encoder_hidden_states, config, **conditioning):
    """diffusers' names for what unet.unet() takes."""
    return unet.unet(p, sample, timestep, encoder_hidden_states, config, **conditioning)


def call_vae(network, takes, config, p, **given):
    """encode() or decode(), of what `takes` names: (B,H,W,C) -> (B,H',W',C')"""
    return network(p, given[takes], config)


def make_inputs(model, prompt, width, height, seed, scale=1.0):
    """{call: {input: array}} for a picture of these pixels, float32 and whole numbers: random numbers where a network takes latents or
    pixels, the prompt's tokens, and what the text encoders make of them.

    model: a Model of float64, since what it encodes is an input too;  scale: of what unet and vae are given, but for time and sizes
    Raises InputError for sizes that the model does not make."""
    pixels.check_size(width, height, model.vae_config.factor)
    random, c, f = np.random.default_rng(seed), model.unet_config, model.vae_config.factor
    h, w = height // f, width // f
    if not min(h, w) >= 2:
        raise InputError(f"size is {width}x{height}; at least {2 * f}x{2 * f}, two latent positions each way, can be recorded")

    def normal(*shape):
        return scaled(random.standard_normal(shape))

    def scaled(a):
        return (scale * a).astype(np.float32)

    found = {}
    for part, encoder in zip(model.checkpoint.text_encoders, model.text_encoders):
        ids, _ = encoder.tokenizer([prompt])
        found[part.name] = {"input_ids": ids.astype(np.int32)}
    text = model.encode_prompts([prompt], prompt_syntax="plain")
    given = {"sample": normal(1, h, w, c.in_channels), "timestep": np.float32([TIMESTEP]),
             "encoder_hidden_states": scaled(text["context"])}
    if model.xl:
        pooled = scaled(text["text_embeds"])
        count = (c.projection_class_embeddings_input_dim - pooled.shape[-1]) // c.addition_time_embed_dim
        size = height, width
        given |= {"text_embeds": pooled, "time_ids": time_ids(count, size, (0, 0), size, 6.0)}
    if c.is_upscaler:
        given["class_labels"] = np.array([20], np.int32)
    if c.is_lcm:
        given["timestep_cond"] = guidance_embedding(7.5, c.time_cond_proj_dim, np.float32)
    found["unet"] = given
    found["vae.encoder"] = {"pixels": scaled(random.uniform(-1, 1, (1, height, width, 3)))}
    found["vae.decoder"] = {"latents": normal(1, h, w, model.vae_config.latent_channels)}
    return found


# ---- running one -----------------------------------------------------------------------------------------------


def plan(call, inputs):
    """{layer: shape} of all that the call will compute, in order, by a dry run.  Raises CheckpointError for inputs of another model."""
    if call.layers is not None:
        return call.layers
    shapes = call.weights._leaves.shapes
    weights = Weights.over(shapes, lambda name: Shape(shapes[name], name))
    found = {}

    def note(path, y):
        found[path] = tuple(y.shape)
        return y

    try:
        with nn.observe(note):
            call.network(weights, **{name: Shape(a.shape, f"{call.name}.{name}") for name, a in inputs.items()})
    except (CheckpointError, TypeError, ValueError, IndexError) as e:
        raise CheckpointError(f"{call.name}: the inputs are not those of a model like this ({e})") from e
    return found


def run(model, call, inputs, observer, watcher=None):
    """The call on the model's device: observer(path, y) is told each layer's output, and gives what to go on with, itself or another.

    watcher: as ops.watch() has it; with one, the definitions compute.  Axes of the inputs: see Call.takes"""
    def upload(name, a):
        if call.weights is None:                             # a run's are the samplers', on the host
            return a
        return model.device.upload(a if name in LEFT_FULL else a.astype(call.dtype))

    with model.memory(), nn.observe(observer), nullcontext() if watcher is None else defined(watcher):
        call.network(call.weights, **{name: upload(name, a) for name, a in inputs.items()})


@contextmanager
def defined(watcher):
    with ops.definitions_only(), ops.watch(watcher):
        yield


# ---- how exactly -----------------------------------------------------------------------------------------------


def exact_model(model):
    """The same checkpoint in float64, its weights read at each use."""
    return Model(model.checkpoint, "float64", low_memory=True)


def plain_model(model):
    """The same checkpoint on the CPU in float32: itself, if it is that."""
    return model if model.device.name == "cpu" and model.dtype == np.float32 else Model(model.checkpoint, "float32")


def exactly(name, run, *args, **kwargs):
    """A watcher: the definitions, and in place of those that are exact to float32 alone, such as are exact to float64."""
    return (EXACT.get(name) or defining(name, run))(*args, **kwargs)


def defining(name, run):
    """The definition `run` of an operation, or for convolutions the same sums laid out for larger products, ten times as fast."""
    return {"conv2d": conv2d, "upsample_conv2d": upsample_conv2d}.get(name, run)


def conv2d(x, weight, bias=None, stride=1, pad=(0, 0), add=None):
    """ops.conv2d() as one product, of rows that hold all that a filter sees at one place."""
    kh, kw, C, O = weight.shape
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), (1, 2))[:, ::stride, ::stride]              # (B,H,W,C,kh,kw)
    rows = seen.transpose(0, 1, 2, 4, 5, 3).reshape(-1, kh * kw * C)
    y = (rows @ weight.reshape(-1, O)).reshape(*seen.shape[:3], O)
    y = y if bias is None else y + bias
    return y if add is None else y + add


def upsample_conv2d(x, weight, bias, size):
    """ops.upsample_conv2d() likewise."""
    return conv2d(ops.upsample_to.definition(x, size), weight, bias, pad=(1, 1))


def gelu(x):
    """x Phi(x) to the last digit of x's dtype.   Hendrycks & Gimpel 2016, eq. 1"""
    return (0.5 * x * (1 + np.frompyfunc(math.erf, 1, 1)(x * math.sqrt(0.5)).astype(x.dtype))).astype(x.dtype)


def geglu(x, act=gelu):
    """(...,2C) -> (...,C)"""
    h, gate = np.split(x, 2, axis=-1)
    return h * act(gate)


def timestep_features(t, dim, flip=True, shift=0):
    """ops.timestep_features() in float64."""
    angles = t.astype(np.float64)[:, None] * np.exp(np.arange(dim // 2) * (-math.log(10000) / (dim // 2 - shift)))
    return np.concatenate([np.cos(angles), np.sin(angles)] if flip else [np.sin(angles), np.cos(angles)], axis=-1)


EXACT: dict = {"gelu": gelu, "geglu": geglu, "timestep_features": timestep_features}

# Of each way to store numbers: the largest relative error of one rounding.
PRECISIONS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def rounded(x, precision, memory=np.empty):
    """The nearest numbers that this precision has, in x's own dtype; ties go to even ones.  memory(shape): where to put them"""
    if precision == "float32" and x.dtype == np.float32:
        return x
    near = memory(x.shape, np.float32)
    flat, given = near.reshape(-1), np.ascontiguousarray(x).reshape(-1)

    def piece(s):
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(s[0], s[1], CACHED):
                part = slice(k, min(k + CACHED, s[1]))
                flat[part] = NEAREST[precision](given[part].astype(np.float32, copy=False))

    threads.parallel(piece, threads.split(x.size, x.size >> 18))
    return near.astype(x.dtype, copy=False)


def fewer_bits(x, dropped):
    """float32 with so many bits of its fraction rounded away."""
    bits = x.view(np.uint32)
    near = bits >> np.uint32(dropped)
    near &= np.uint32(1)
    near += np.uint32((1 << dropped - 1) - 1)
    near += bits
    near &= np.uint32(-(1 << dropped) & 0xFFFFFFFF)
    return near.view(np.float32)


def to_bfloat16(x):
    """float32 less 16 bits; NaN and infinity stay what they are."""
    near, fine = fewer_bits(x, 16), np.isfinite(x)
    return near if fine.all() else np.where(fine, near, x)


def to_float16(x):
    """float32 less 13 bits; below 2^-14 in steps of 2^-24, from 65520 on infinity.  NumPy's own conversion takes three times as long."""
    near, size = fewer_bits(x, 13), np.abs(x)
    small, fine = size < 2.0**-14, size < 65520
    if small.any():
        near = np.where(small, (x + np.float32(0.75)) - np.float32(0.75), near)
    return near if fine.all() else np.where(fine, near, np.where(np.isnan(x), x, np.copysign(np.float32(np.inf), x)))


CACHED = 1 << 15                                             # numbers worked on at a time
NEAREST = {"float32": lambda x: x, "float16": to_float16, "bfloat16": to_bfloat16}


def stored_as(precision):
    """A watcher: the definitions in float32, with all that goes into an operation and comes out of it rounded to this precision."""
    def watcher(name, run, *args, **kwargs):
        run, count = defining(name, run), itertools.count()

        def near(a):                                         # into memory that the next operation takes again
            if isinstance(a, (list, tuple)):
                return [near(b) for b in a]
            memory = partial(threads.scratch, f"near {next(count)}")
            return rounded(a, precision, memory) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a

        if name == "timestep_features" or precision == "float32":              # diffusers computes these in float32 in any case
            return run(*args, **kwargs)
        return rounded(run(*map(near, args), **{k: near(a) for k, a in kwargs.items()}), precision)

    return watcher


def distance(found, expected):
    """The largest difference, as a share of the expected array's largest value."""
    if not found.size:
        return 0.0
    return float(np.abs(found - expected).max() / (np.abs(expected).max() or 1.0))


def check_memory(call, shapes, held, copies):
    """Raises InputError where so many copies of all layers' outputs do not fit beside the weights.

    held: bytes an element of these copies, together"""
    left = memory.available()
    weights = sum(math.prod(s) * 4 for s in (call.weights._leaves.shapes if call.weights is not None else {}).values())
    need = weights + held * sum(math.prod(s) for s in shapes.values()) + (min(threads.count(), 8) << 26)
    if left is not None and need > left:
        raise InputError(f"{call.name}: {copies} of every layer's output need about {need / 2**30:.3g} GiB of memory, there are "
                         f"{left / 2**30:.3g} GiB; choose a smaller size")
