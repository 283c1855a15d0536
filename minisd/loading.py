"""Opening a model: what is where, whether its parts go together, and what is added to it."""
import warnings
from pathlib import Path

import numpy as np

from .backend.device import open_device
from .checkpoint import hub, inversion, single
from .checkpoint.lora import add as add_lora
from .errors import CheckpointError, InputError
from .networks.taesd import TinyConfig
from .pipeline import Pipeline
from .settings import file_list, listed


def load(model=None, device="cpu", dtype=None, variant=None, low_memory=False, lora=(),
         prediction_type=None, textual_inversion=(), vae=None, controlnet=(),
         extract_ema=False):
    """A model, ready to use.

    model: a diffusers folder of Stable Diffusion 1.x, 2.x or XL, or a single .safetensors file with LDM names, or a hub id
        (owner/name), fetched into the hub's cache;  None is the small model that comes with minisd, which draws icons
    device: "cpu", or "cuda", the current GPU, which needs CuPy;  variant: of the files, such as "fp16"
    dtype: of the arithmetic: on a CPU "float32" (None) or "float64", on a GPU "float16" (None) or "float32", much slower
    low_memory: read each weight from the file whenever it is used and keep none, and work in smaller pieces: the same picture,
        slower, in less than a gigabyte for SD 1.5 at 512x512
    lora: a LoRA's file, or (file, weight), or a list of such, added to the weights;  each is told of in the pictures' settings
    vae: another picture codec than the model's: a folder, or a file with LDM names, or TAESD's
    controlnet: a ControlNet's folder or file, or a list of such, which pictures may then be given to
    textual_inversion: a file that teaches a word, or (file, word), or a list of such;  prompts may then use the word
    prediction_type: what the unet predicts, "epsilon" or "v_prediction";  None is what the scheduler's configuration says, and of
        a single file with Stable Diffusion 2.x what a trial finds
    extract_ema: of a single file, the running mean of the unet's weights that lies beside them
    Every weight's name and shape is checked here, by a dry run; its numbers are read when they are first used.

    Raises InputError for a model that cannot be found, or another device or dtype; CheckpointError for a model that is
    damaged, incomplete or of another kind."""
    place = open_device(device)
    if dtype is not None and dtype not in (*place.dtypes, *map(np.dtype, place.dtypes)):
        raise InputError(f"dtype is {dtype!r}; on {device} choose {' or '.join(place.dtypes)}.  The file may be of another all the same")
    if low_memory and device != "cpu":
        raise InputError("low_memory is for the CPU: a GPU keeps its weights")
    opened, odd = single.open_model(hub.find_folder(model, variant), variant, prediction_type, extract_ema)
    if odd:
        warnings.warn(f"{opened.folder}: {len(odd)} keys belong to no layer: {listed(odd)}", stacklevel=2)
    if vae is not None:
        opened.parts["vae"] = replacement(opened, vae)
    nets = controlnet if isinstance(controlnet, (list, tuple)) else [controlnet] if controlnet else []
    controlnets = [single.open_controlnet(path) for path in nets]
    opened.check_together(controlnets)
    for component in [*opened.components, *controlnets]:
        missing, unused = component.check()
        if missing:
            raise CheckpointError(f"{component.place}: {len(missing)} missing: {listed(missing)}; copy or download it again")
        if unused:
            warnings.warn(f"{component.name}: {len(unused)} weights in the file belong to no layer: {listed(unused)}", stacklevel=2)
    loras = file_list(lora, 1.0)
    for path, weight in loras:
        unmatched = add_lora(opened.components, path, weight)
        if unmatched:
            warnings.warn(f"{path}: {len(unmatched)} of its layers are not in this model: {listed(unmatched)}", stacklevel=2)
    pipe = Pipeline(opened, dtype or place.dtypes[0], low_memory, place, controlnets)
    pipe.said = {"LoRA": ", ".join(f"{Path(path).stem}: {weight:g}" for path, weight in loras) or None,
                 "ControlNet": ", ".join(c.place.stem for c in controlnets) or None,
                 "VAE": Path(opened.vae.place).stem if vae is not None else None, "Prediction type": prediction_type,
                 "Weights": "EMA" if extract_ema else None}
    lengths = sorted({reader.tokenizer.length for reader in pipe.readers})
    if len(lengths) > 1:
        raise CheckpointError(f"{opened.folder}: its text encoders read {' and '.join(map(str, lengths))} tokens: "
                              "they are parts of different models")
    for reader, component in zip(pipe.readers, opened.text_encoders):
        rows = component.shapes()["embeddings.token_embedding.weight"][0]
        if reader.tokenizer.size > rows:
            raise CheckpointError(f"{opened.folder}: the tokenizer has {reader.tokenizer.size} tokens, the text encoder knows {rows}: "
                                  "they are parts of different models")
    words = [inversion.add(opened.text_encoders, [reader.tokenizer for reader in pipe.readers], path, word)
             for path, word in file_list(textual_inversion, None)]
    pipe.said["Embeddings"] = ", ".join(words) or None
    return pipe


def replacement(opened, path):
    """Another vae for the latents of this model.  Raises CheckpointError for one of other latents."""
    own, c = opened.vae.config, opened.unet.config
    scaling = 0.13025 if c.added else 0.08333 if c.classes else 0.18215
    vae = single.open_vae(path, scaling if isinstance(own, TinyConfig) else own.scaling_factor)
    if (vae.config.factor, vae.config.latent_channels) != (own.factor, own.latent_channels):
        raise CheckpointError(f"{vae.place}: a vae of {vae.config.latent_channels} channels, {vae.config.factor} pixels a position; this "
                              f"model's latents have {own.latent_channels}, {own.factor} pixels wide")
    return vae
