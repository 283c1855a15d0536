"""A single .safetensors file with the names of CompVis' and Stability's own code ("LDM names"): Stable Diffusion 1.x and 2.x, and their
inpainting models.   [LDM] https://github.com/CompVis/stable-diffusion

Such a file has no configuration and no vocabulary: the family is read off the keys, the rest of the configuration off the shapes, and the
vocabulary is CLIP's, which comes with minisd."""
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import text, unet, vae
from .checkpoint import Checkpoint, Component, TensorFiles, open_folder, refuse_pickle
from .errors import CheckpointError, InputError
from .ldm import CLIP, OPEN_CLIP, UNET, VAE, clip_names, count, open_clip_names, unet_names, vae_names
from .tokenizer import Tokenizer

OTHERS = {"conditioner.embedders.": "Stable Diffusion XL", "model.diffusion_model.label_emb.": "the x4 upscaler",
          "model.diffusion_model.joint_blocks.": "Stable Diffusion 3", "double_blocks.": "Flux", "control_model.": "a ControlNet",
          "lora_unet_": "a LoRA; it goes with a model, by lora= or --lora", "cond_stage_model.roberta": "AltDiffusion",
          "string_to_param": "a textual inversion", "emb_params": "a textual inversion"}
SCHEDULER = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False,
                 set_alpha_to_one=False, skip_prk_steps=True, num_train_timesteps=1000)


class View(TensorFiles):
    """A file's tensors by the names that the model files know.  where: {name: (the file's name, cut)}, as ldm.py gives them."""

    def __init__(self, tensors, where):
        self.tensors, self.where = tensors, where

    def __iter__(self): return iter(self.where)
    def __len__(self): return len(self.where)
    def dtype(self, name): return self.tensors.dtype(self.where[name][0])

    def shape(self, name):
        stored, cut = self.where[name]
        shape = self.tensors.shape(stored)
        return shape if cut is None else shape[:2] if cut == "square" else (shape[0] // 3, *shape[1:])

    def read(self, name, memory):
        stored, cut = self.where[name]
        array, shape = self.tensors.read(stored, memory), self.shape(name)
        return array if cut is None else array.reshape(shape) if cut == "square" else array[cut * shape[0]:(cut + 1) * shape[0]]


class Part(Component):
    """One network of a single file."""

    def __init__(self, name, config, path, tensors, where):
        self.name, self.config, self.place, self.files, self.added = name, config, f"{path}, {name}", [path], {}
        self.rows = {}
        self.tensors, self.stored = View(tensors, where), {n: n for n in where}


def open_model(path, variant=None, prediction_type=None):
    """A diffusers folder or a single file -> (Checkpoint, names of keys that belong to no layer)."""
    path = Path(path)
    if path.is_file():
        return open_file(path, prediction_type)
    opened = open_folder(path, variant)
    if prediction_type is not None:
        opened.scheduler = {**opened.scheduler, "prediction_type": checked(prediction_type)}
    return opened, []


def checked(prediction_type):
    if prediction_type not in ("epsilon", "v_prediction"):
        raise InputError(f"prediction_type is {prediction_type!r}; choose epsilon or v_prediction")
    return prediction_type


def open_file(path, prediction_type=None):
    """-> (Checkpoint, names of keys that belong to no layer).

    prediction_type: "epsilon" or "v_prediction", which a file does not say; None asks an SD 2's unet itself.
    Raises CheckpointError for a file of another kind, saying which."""
    refuse_pickle(path)
    prediction_type = prediction_type and checked(prediction_type)
    tensors = TensorFiles([path])
    for mark, kind in OTHERS.items():
        if any(key.startswith(mark) for key in tensors):
            raise CheckpointError(f"{path}: {kind}; a single file can be a Stable Diffusion 1.x or 2.x")
    second = any(key.startswith(OPEN_CLIP) for key in tensors)
    parts, unused = {}, []
    for name, prefix, names in (("text_encoder", OPEN_CLIP if second else CLIP, open_clip_names if second else clip_names),
                                ("unet", UNET, unet_names), ("vae", VAE, vae_names)):
        keys = [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]
        if not keys:
            raise CheckpointError(f"{path}: holds no {name} (no key begins with {prefix}); its first key is "
                                  f"{next(iter(tensors), 'missing')}; minisd reads whole models of Stable Diffusion 1.x and 2.x")
        found, odd = names(keys)
        unused += [prefix + key for key in odd]
        parts[name] = {n: (prefix + stored, cut) for n, (stored, cut) in found.items()}
    try:
        configs = dict(text_encoder=text_config(View(tensors, parts["text_encoder"]), second),
                       unet=unet_config(View(tensors, parts["unet"]), second), vae=vae_config(View(tensors, parts["vae"])))
    except KeyError as e:
        raise CheckpointError(f"{path}: {e.args[0]} is missing; copy or download it again") from None
    whole = {n: Part(n, configs[n], path, tensors, parts[n]) for n in parts}
    prediction = prediction_type or (guess_prediction(whole["unet"]) if second else "epsilon")
    if prediction == "v_prediction":
        whole["unet"].config = replace(whole["unet"].config, sample_size=(96, 96))
    scheduler = dict(SCHEDULER, _class_name="DDIMScheduler" if second else "PNDMScheduler", prediction_type=prediction)
    return SingleFile(path.stem, path, *whole.values(), scheduler, None), unused


def open_vae(path):
    """Another vae for a model: a folder with config.json, or a file with LDM names, its own or a whole model's -> a Component.

    Raises InputError if there is no such thing, CheckpointError for a file of another kind."""
    path = Path(path)
    if path.is_dir():
        return Component("vae", path / "vae" if (path / "vae").is_dir() else path)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    refuse_pickle(path)
    tensors = TensorFiles([path])
    prefix = VAE if any(key.startswith(VAE) for key in tensors) else ""
    found, odd = vae_names([key.removeprefix(prefix) for key in tensors if key.startswith(prefix)])
    if not found or odd and not prefix:
        raise CheckpointError(f"{path}: no vae with LDM names; {odd[0] if odd else 'no key'} is of none.  One with diffusers' names "
                              "is given as its folder, with config.json")
    where = {n: (prefix + stored, cut) for n, (stored, cut) in found.items()}
    try:
        return Part("vae", vae_config(View(tensors, where)), path, tensors, where)
    except KeyError as e:
        raise CheckpointError(f"{path}: {e.args[0]} is missing; copy or download it again") from None


class SingleFile(Checkpoint):
    def tokenizer(self):
        second = self.text_encoder.config.act == "gelu"      # OpenCLIP pads with token 0, which is "!"
        return Tokenizer.packaged(pad="!" if second else None, length=self.text_encoder.config.length)


def text_config(tensors, second):
    length, width = tensors.shape("embeddings.position_embedding.weight")
    return text.TextConfig(heads=max(1, width // 64), act="gelu" if second else "quick_gelu", width=width, length=length,
                           layers=count(tensors, "encoder.layers"))


def unet_config(tensors, second):
    channels, in_channels = tensors.shape("conv_in.weight")[:2]
    blocks = count(tensors, "down_blocks")
    down = [(count(tensors, f"down_blocks.{i}.resnets"), int(f"down_blocks.{i}.attentions.0.norm.weight" in tensors.where))
            for i in range(blocks)]
    widths = [tensors.shape(f"down_blocks.{i}.resnets.0.conv1.weight")[0] for i in range(blocks)]
    context = next(tensors.shape(n)[1] for n in tensors if n.endswith("attn2.to_k.weight"))
    return unet.UNetConfig(channels=channels, heads=tuple(max(1, w // 64) if second else 8 for w in widths), in_channels=in_channels,
                           out_channels=tensors.shape("conv_out.weight")[0], context_width=context,
                           down=tuple(down), up=tuple((n + 1, attends) for n, attends in reversed(down)), sample_size=(64, 64))


def vae_config(tensors):
    return vae.VAEConfig(levels=count(tensors, "decoder.up_blocks"), layers=count(tensors, "encoder.down_blocks.0.resnets"),
                         latent_channels=tensors.shape("post_quant_conv.weight")[0])


def guess_prediction(part):
    """Whether an SD 2 unet predicts eps or v, by what it makes of a constant: of almost pure noise (t = 999), eps is the input
    itself, and v is near minus the picture.  AUTOMATIC1111's test, with its threshold of -1 between the means."""
    c = part.config
    if c.in_channels != c.out_channels:                      # the inpainting model predicts eps
        return "epsilon"
    x, context = np.full((1, 8, 8, c.in_channels), 0.5, np.float32), np.full((1, 2, c.context_width), 0.5, np.float32)
    out = unet.unet(part.weights(keep=False), x, np.float32([999]), context, c)
    return "v_prediction" if float((out - x).mean()) < -1 else "epsilon"
