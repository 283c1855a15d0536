"""Opening a model: what is where, whether its parts go together, and what is added to it."""
from pathlib import Path

import numpy as np

from .backend.device import open_device
from .checkpoint import hub, inversion, single
from .checkpoint.lora import add as add_lora
from .errors import CheckpointError, InputError, listed, warn
from .model import Model
from .networks.vae_config import TinyConfig
from .pipeline import Pipeline


def load(model: str | Path | None = None, device: str = "cpu", dtype: str | None = None, variant: str | None = None,
         low_memory: bool = False, lora=(), prediction_type: str | None = None, textual_inversion=(), vae: str | Path | None = None,
         controlnet=(), extract_ema: bool = False) -> Pipeline:
    """A model, ready to use.

    model: a diffusers folder of Stable Diffusion 1.x, 2.x or XL, a single .safetensors file with LDM names, or a hub id (owner/name), which
        is downloaded into the hub's cache;  None is the small model that comes with minisd, which draws icons
    device: "cpu", or "cuda", the current GPU, which needs CuPy
    dtype: of the arithmetic: on a CPU "float32" (None) or "float64", on a GPU "float16" (None) or "float32", much slower
    variant: of the files, such as "fp16"
    low_memory: read each weight from the file at each use and keep none, and work in smaller pieces: the same picture,
        slower, in less than a gigabyte for SD 1.5 at 512x512
    lora: a LoRA file, or (file, weight), or a list of such, added to the weights and named in the pictures' settings
    prediction_type: what the unet predicts, "epsilon" or "v_prediction";  None is what the scheduler's configuration says, and for
        a single file of Stable Diffusion 2.x what a test of the unet finds
    textual_inversion: a file that teaches a word, or (file, word), or a list of such;  prompts may then use the word
    vae: another autoencoder than the model's: a folder, or a file with LDM names, or TAESD's
    controlnet: a ControlNet's folder or file, or a list of such, to be given images as control_image
    extract_ema: of a single file, the moving average of the unet's weights that is stored with them

    Every weight's name and shape is checked here, by a dry run; its numbers are read when they are first used.
    Raises InputError for a model that cannot be found, or another device or dtype; CheckpointError for a model that is
    damaged, incomplete or of another kind."""
    place = open_device(device)
    if dtype is not None and (isinstance(dtype, np.ndarray) or dtype not in (*place.dtypes, *map(np.dtype, place.dtypes))):
        raise InputError(f"dtype is {dtype!r}; on {device} choose {' or '.join(place.dtypes)}.  The file may be of another all the same")
    for name, value in (("low_memory", low_memory), ("extract_ema", extract_ema)):
        if not isinstance(value, (bool, np.bool_)):
            raise InputError(f"{name} is {value!r:.80}; it must be True or False")
    if low_memory and device != "cpu":
        raise InputError("low_memory is for the CPU: a GPU keeps its weights")
    if not isinstance(variant, (str, type(None))):
        raise InputError(f"variant is {variant!r}; it must be a string, such as 'fp16'")
    opened, unknown = single.open_model(hub.find_folder(model, variant), variant, prediction_type, extract_ema)
    if unknown:
        warn(f"{opened.folder}: {len(unknown)} keys belong to no layer: {listed(unknown)}")
    if vae is not None:
        opened.parts["vae"] = replacement(opened, vae)
    nets = controlnet if isinstance(controlnet, (list, tuple)) else [] if controlnet is None else [controlnet]
    controlnets = [single.open_controlnet(path) for path in nets]
    opened.check_together(controlnets)
    for component in [*opened.components, *controlnets]:
        missing, unused = component.check()
        if missing:
            raise CheckpointError(f"{component.place}: {len(missing)} missing: {listed(missing)}; copy or download it again")
        if unused:
            warn(f"{component.name}: {len(unused)} weights in the file belong to no layer: {listed(unused)}")
    loras = file_list(lora, 1.0)
    for path, weight in loras:
        unmatched = add_lora(opened.components, path, weight)
        if unmatched:
            warn(f"{path}: {len(unmatched)} of its layers are not in this model: {listed(unmatched)}")
    loaded = Model(opened, dtype or place.dtypes[0], low_memory, place, controlnets)
    provenance = {"LoRA": ", ".join(f"{Path(path).stem}: {weight:g}" for path, weight in loras) or None,
                 "ControlNet": ", ".join(c.place.stem for c in controlnets) or None,
                 "VAE": Path(opened.vae.place).stem if vae is not None else None, "Prediction type": prediction_type,
                 "Weights": "EMA" if extract_ema else None}
    check_tokenizers(opened, loaded.text_encoders)
    words = [inversion.add(opened.text_encoders, [encoder.tokenizer for encoder in loaded.text_encoders], path, word)
             for path, word in file_list(textual_inversion, None)]
    return Pipeline(loaded, {**provenance, "Embeddings": ", ".join(words) or None})


def check_tokenizers(opened, text_encoders):
    """Raises CheckpointError where tokenizers and text encoders are of different models."""
    lengths = sorted({encoder.tokenizer.length for encoder in text_encoders})
    if len(lengths) > 1:
        raise CheckpointError(f"{opened.folder}: its text encoders read {' and '.join(map(str, lengths))} tokens: "
                              "they are parts of different models")
    for encoder, component in zip(text_encoders, opened.text_encoders):
        rows = component.shapes()["embeddings.token_embedding.weight"][0]
        if encoder.tokenizer.size > rows:
            raise CheckpointError(f"{opened.folder}: the tokenizer has {encoder.tokenizer.size} tokens, the text encoder knows {rows}: "
                                  "they are parts of different models")


def file_list(given, second):
    """A file, a pair (file, what belongs to it), or a list of such -> [(file, what belongs to it, or `second`), ...]

    Raises InputError for a tuple that is no pair."""
    items = given if isinstance(given, list) else [] if given is None or isinstance(given, tuple) and not given else [given]
    if any(isinstance(item, (tuple, list)) and len(item) != 2 for item in items):
        raise InputError(f"{given!r} is neither a file, nor a pair of a file and what belongs to it, nor a list of such")
    return [item if isinstance(item, (tuple, list)) else (item, second) for item in items]


def replacement(opened, path):
    """Another vae for the latents of this model.  Raises CheckpointError for one of other latents."""
    own, c = opened.vae.config, opened.unet.config
    scaling = 0.13025 if c.is_xl else 0.08333 if c.is_upscaler else 0.18215
    vae = single.open_vae(path, scaling if isinstance(own, TinyConfig) else own.scaling_factor)
    if (vae.config.factor, vae.config.latent_channels) != (own.factor, own.latent_channels):
        raise CheckpointError(f"{vae.place}: a vae of {vae.config.latent_channels} channels, {vae.config.factor} pixels a position; this "
                              f"model's latents have {own.latent_channels}, {own.factor} pixels wide")
    return vae
