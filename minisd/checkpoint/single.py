"""A single .safetensors file with the names of CompVis' and Stability's own code ("LDM names"): Stable Diffusion 1.x, 2.x, XL and its
refiner, with their inpainting and other models, the upscaler, vaes and ControlNets.   [LDM] https://github.com/CompVis/stable-diffusion

Such a file has no configuration and no vocabulary: the family is read off the keys, the rest of the configuration off the shapes, and the
vocabulary is CLIP's, which comes with minisd."""
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import CheckpointError, InputError, warn
from ..networks import unet
from ..networks.vae_config import TinyConfig
from . import ldm
from .component import Component
from .families import FAMILIES, UPSCALER, controlnet_config, text_config, unet_config, vae_config
from .files import TensorFiles, refuse_pickle
from .folder import Checkpoint, open_folder
from .hub import find_part
from .kinds import WHOLE, explained, kind


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
        if cut is None:
            return shape
        return shape[::-1] if cut == "turned" else shape[:2] if cut == "square" else (shape[0] // 3, *shape[1:])

    def read(self, name, memory):
        stored, cut = self.where[name]
        array, shape = self.tensors.read(stored, memory), self.shape(name)
        if cut is None:
            return array
        return array.T if cut == "turned" else array.reshape(shape) if cut == "square" else array[cut * shape[0]:(cut + 1) * shape[0]]


class Part(Component):
    """One network of a single file."""

    def __init__(self, name, config, path, tensors, where):
        self.name, self.config, self.place, self.files, self.added = name, config, Path(f"{path}, {name}"), [path], {}
        self.rows = {}
        self.tensors, self.stored = View(tensors, where), {n: n for n in where}


class SingleFile(Checkpoint):
    low_res_scheduler = UPSCALER

    def vocabularies(self):
        """CLIP's own, which comes with minisd; OpenCLIP pads with token 0."""
        return [dict(special={"pad_token": "!"} if c.config.act == "gelu" else {}, length=c.config.length) for c in self.text_encoders]


def open_model(path, variant=None, prediction_type=None, extract_ema=False):
    """A diffusers folder or a single file -> (Checkpoint, names of keys that belong to no layer)."""
    path = Path(path)
    if path.is_file():
        return open_file(path, prediction_type, extract_ema)
    if extract_ema:
        raise InputError(f"{path}: a folder has no EMA weights beside the others; extract_ema is for single files")
    opened = open_folder(path, variant)
    if prediction_type is not None:
        says = opened.scheduler.get("prediction_type")
        if says not in (None, prediction_type):
            warn(f"{path}: prediction_type is {prediction_type!r}, where the model's scheduler_config.json says {says!r}")
        opened.scheduler = {**opened.scheduler, "prediction_type": checked(prediction_type)}
    return opened, []


def checked(prediction_type):
    if not isinstance(prediction_type, str) or prediction_type not in ("epsilon", "v_prediction"):
        raise InputError(f"prediction_type is {prediction_type!r}; choose epsilon or v_prediction")
    return prediction_type


def open_file(path, prediction_type=None, extract_ema=False):
    """-> (Checkpoint, names of keys that belong to no layer).

    prediction_type: "epsilon" or "v_prediction", which a file does not say; None asks an SD 2's unet itself
    extract_ema: take the moving average of the unet's weights, which large files have as well
    Raises CheckpointError for a file of another kind, saying which."""
    refuse_pickle(path)
    prediction_type = None if prediction_type is None else checked(prediction_type)
    tensors = TensorFiles([path])
    mark, parts, unused = parts_of(tensors, path, extract_ema)
    family, predicts = FAMILIES[mark], prediction_type or ("v_prediction" if "v_pred" in tensors else None)
    if mark == ldm.OPEN_CLIP:
        whole = predicts is not None or parts["unet"].check()[0] == []                   # load() names what is missing
        predicts = predicts or (guess_prediction(parts["unet"]) if whole else "epsilon")
        if predicts == "v_prediction":
            parts["unet"].config = replace(parts["unet"].config, sample_size=(96, 96))
    scheduler = dict(family.scheduler, _class_name=family.sampler, **({"rescale_betas_zero_snr": True} if "ztsnr" in tensors else {}))
    scheduler["prediction_type"] = predicts or scheduler["prediction_type"]
    if parts["unet"].config.is_lcm:
        scheduler.update(_class_name="LCMScheduler", original_inference_steps=50)
    return SingleFile(path.stem, path, parts, scheduler, index={"force_zeros_for_empty_prompt": mark == ldm.XL_OPEN_CLIP}), unused


def parts_of(tensors, path, extract_ema=False):
    """A file's tensors -> (its mark in FAMILIES, {name: Part}, keys that belong to no layer)."""
    if kind(tensors)[1] not in (WHOLE[1], None) or kind(tensors)[0].endswith("does not run"):
        raise CheckpointError(f"{path}: no whole model: {explained(tensors)}")
    mark, family = next((mark, family) for mark, family in FAMILIES.items() if any(key.startswith(mark) for key in tensors) or not mark)
    places, unused = {}, []
    vae = next((p for p in (ldm.VAE, "vae.") if any(key.startswith(p) for key in tensors)), ldm.VAE)
    for name, prefix, names in (*family.texts, ("unet", ldm.UNET, ldm.unet_names), ("vae", vae, ldm.vae_names)):
        keys = [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]
        if not keys:
            raise CheckpointError(f"{path}: holds no {name} (no key begins with {prefix}); its first key is "
                                  f"{next(iter(tensors), 'missing')}; minisd reads whole models of Stable Diffusion 1.x, 2.x and XL")
        found, unknown = names(keys)
        unused += [prefix + key for key in unknown]
        places[name] = {n: (prefix + stored, cut) for n, (stored, cut) in found.items()}
    if extract_ema:
        places["unet"] = {n: ("model_ema." + stored.removeprefix("model.").replace(".", ""), cut)
                          for n, (stored, cut) in places["unet"].items()}
        absent = [stored for stored, _ in places["unet"].values() if stored not in tensors]
        if absent:
            raise CheckpointError(f"{path}: holds no EMA weights, such as {absent[0]}; load it without extract_ema")
    try:
        configs = {n: text_config(View(tensors, places[n]), names is not ldm.clip_names) for n, _, names in family.texts}
        configs["unet"] = unet_config(View(tensors, places["unet"]), family.wide_heads, family.side)
        configs["vae"] = vae_config(View(tensors, places["vae"]), family.scaling)
        if configs["unet"].in_channels == configs["unet"].out_channels + 3 and not configs["unet"].is_upscaler:
            raise KeyError("label_emb.weight of an upscaler")
    except KeyError as e:
        raise CheckpointError(f"{path}: {e.args[0]} is missing; copy or download it again") from None
    except CheckpointError as e:
        raise CheckpointError(f"{path}: {e}") from None
    return mark, {n: Part(n, configs[n], path, tensors, places[n]) for n in places}, unused


def open_part(path, name, prefix, names, config):
    """One network from a file of its own or a larger one's -> (Part, keys of no layer).  config(view) -> its configuration."""
    refuse_pickle(path)
    tensors = TensorFiles([path])
    prefix = prefix if any(key.startswith(prefix) for key in tensors) else ""
    found, unknown = names([key.removeprefix(prefix) for key in tensors if key.startswith(prefix)])
    if not found or unknown and not prefix:
        raise CheckpointError(f"{path}: no {name} with LDM names; {unknown[0] if unknown else 'no key'} is of none.  One with diffusers' "
                              f"names is given as its folder, with config.json; {explained(tensors)}")
    where = {n: (prefix + stored, cut) for n, (stored, cut) in found.items()}
    try:
        return Part(name, config(View(tensors, where)), path, tensors, where), unknown
    except KeyError as e:
        raise CheckpointError(f"{path}: {e.args[0]} is missing; copy or download it again") from None
    except CheckpointError as e:
        raise CheckpointError(f"{path}: {e}") from None


def open_vae(path, scaling_factor):
    """Another vae for a model: a folder with config.json, or a hub id, or a file with LDM names, its own or a whole model's, or TAESD's
    -> a Component.

    scaling_factor: of the model's latents, which such a file does not say.
    Raises InputError if there is no such thing, CheckpointError for a file of another kind."""
    path = find_part(path)
    if path.is_dir():
        return Component("vae", path / "vae" if (path / "vae").is_dir() else path)
    refuse_pickle(path)
    tensors = TensorFiles([path])
    if any(key.startswith("decoder.layers.") for key in tensors):
        return Part("vae", TinyConfig(), path, tensors, {key: (key, None) for key in tensors})
    part, _ = open_part(path, "vae", ldm.VAE, ldm.vae_names, partial(vae_config, scaling=scaling_factor))
    return part


def open_controlnet(path):
    """A ControlNet: a diffusers folder, or a hub id, or a file with LDM names or diffusers' -> a Component.

    Raises InputError if there is no such thing, CheckpointError for a file of another kind."""
    path = find_part(path)
    if path.is_dir():
        return Component("controlnet", path)
    refuse_pickle(path)
    tensors = TensorFiles([path])
    plain = any(key.startswith("controlnet_cond_embedding.") for key in tensors)
    if plain and path.name == "diffusion_pytorch_model.safetensors" and (path.parent / "config.json").is_file():
        return Component("controlnet", path.parent)
    names = (lambda keys: ({key: (key, None) for key in keys}, [])) if plain else ldm.unet_names
    part, unknown = open_part(path, "controlnet", ldm.CONTROLNET, names, controlnet_config)
    if unknown:
        raise CheckpointError(f"{path}: {len(unknown)} keys belong to no layer of a ControlNet, such as {unknown[0]}")
    return part


def guess_prediction(part):
    """Whether an SD 2 unet predicts eps or v, by what it makes of a constant: of almost pure noise (t = 999), eps is the input
    itself, and v is near minus the picture.  AUTOMATIC1111's test, with its threshold of -1 between the means."""
    c = part.config
    if c.in_channels != c.out_channels:                      # the inpainting model predicts eps
        return "epsilon"
    x, context = np.full((1, 8, 8, c.in_channels), 0.5, np.float32), np.full((1, 2, c.cross_attention_dim), 0.5, np.float32)
    out = unet.unet(part.weights(keep=False), x, np.float32([999]), context, c)
    return "v_prediction" if float((out - x).mean()) < -1 else "epsilon"
