"""LoRA: what a small file adds to a model's weights, W + weight * alpha / rank * up @ down.   Hu et al. 2021, eq. 3.

Three spellings are read: kohya's, diffusers' (old and new) and peft's.  A layer is found by its path with _ for every dot, which
is how kohya writes it and the others can be written."""
import json
import math
import re
from dataclasses import dataclass

import numpy as np

from ..errors import CheckpointError, InputError
from ..settings import is_number
from .files import TensorFiles, as_path, read_json, refuse_pickle
from .kinds import explained
from .ldm import RESNET, ldm_places

PARTS = [  # (pattern of a key, the part it names); group 1 is the layer
    (r"(.+)\.lora_down\.weight", "down"), (r"(.+)\.lora_up\.weight", "up"), (r"(.+)\.alpha", "alpha"),
    (r"(.+)\.lora_A(?:\.\w+)?\.weight", "down"), (r"(.+)\.lora_B(?:\.\w+)?\.weight", "up"),
    (r"(.+)[._]lora\.down\.weight", "down"), (r"(.+)[._]lora\.up\.weight", "up"),
    (r"(.+)\.lora_linear_layer\.down\.weight", "down"), (r"(.+)\.lora_linear_layer\.up\.weight", "up")]
PREFIXES = {"lora_unet_": "unet", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2", "lora_te_": "text_encoder", "unet_": "unet",
            "text_encoder_2_": "text_encoder_2", "text_encoder_": "text_encoder",
            "base_model_model_": "unet"}
OTHER_KINDS = {"lora_mid": "LoCon with a middle matrix", "hada_w1": "LoHa", "lokr_w1": "LoKr", "dora_scale": "DoRA", "on_input": "(IA)3",
               "lora_magnitude_vector": "DoRA", "oft_": "OFT"}


@dataclass(frozen=True)
class Delta:
    """What one file adds to one weight."""
    tensors: TensorFiles
    down: str
    up: str
    scale: float

    def __call__(self, shape):
        """-> float32 of the weight's shape, as the file of the model has it."""
        up, down = (self.tensors[k].astype(np.float32) for k in (self.up, self.down))
        return self.scale * (up.reshape(len(up), -1) @ down.reshape(len(down), -1)).reshape(shape)


def read(path):
    """-> (the file, its tensors, {layer: {"down", "up" or "alpha": key}}, keys that are none of these, adapter_config.json's contents).

    Raises InputError if there is no such file, CheckpointError if it is no LoRA, or of a kind that minisd does not know."""
    path = as_path(path)
    folder, file = (path, path / "adapter_model.safetensors") if path.is_dir() else (path.parent, path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    refuse_pickle(file)
    tensors, layers, unknown = TensorFiles([file]), {}, []
    for key in tensors:
        kind = next((kind for mark, kind in OTHER_KINDS.items() if mark in key), None)
        if kind:
            raise CheckpointError(f"{file}: {kind}, by {key}; minisd reads plain LoRA")
        part = next(((m[1], part) for pattern, part in PARTS if (m := re.fullmatch(pattern, key))), None)
        if part is None:
            unknown.append(key)
        else:
            layers.setdefault(part[0], {})[part[1]] = key
    if not layers:
        first = next(iter(tensors), "missing, for it is empty")
        raise CheckpointError(f"{file}: holds no LoRA, {explained(tensors)}; its first key is {first}")
    for part, key in (item for keys in layers.values() for item in keys.items()):
        shape = tensors.shape(key)
        if part == "alpha" and math.prod(shape) != 1 or part != "alpha" and (len(shape) < 2 or 0 in shape):
            raise CheckpointError(f"{file}: {key} has shape {shape}; alpha is one number, the others are matrices")
    try:
        adapter = read_json(folder / "adapter_config.json") if path.is_dir() else json.loads(
            tensors.metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"{file}: its lora_adapter_metadata is damaged ({e})") from e
    if not isinstance(adapter, dict):
        raise CheckpointError(f"{file}: its lora_adapter_metadata is a {type(adapter).__name__}, where names and values were expected")
    return file, tensors, layers, unknown, adapter


def layers_of(path):
    """-> [(layer, rank, numbers that it reads), ...] of a LoRA's file or folder.  Raises what read() does."""
    _, tensors, layers, _, _ = read(path)
    shapes = [(layer, tensors.shape(keys["down"])) for layer, keys in layers.items() if "down" in keys]
    return [(layer, shape[0], math.prod(shape[1:])) for layer, shape in shapes]


def add(components, path, weight=1.0):
    """Let components (text_encoder, unet, vae) add this file's deltas to the weights that they give from now on: Component.weights() sums.

    -> names of layers in the file that the model does not have.  Raises InputError for a weight that is no number; CheckpointError
    for a file that is no LoRA, is of a kind that minisd does not know, or does not fit the model."""
    path = as_path(path)
    if not is_number(weight):
        raise InputError(f"the weight of {path} is {weight!r}; it must be a number, 1 as a rule")
    file, tensors, layers, unknown, adapter = read(path)
    known = tables(components)
    unmatched, found = unknown, []
    for layer, keys in layers.items():
        place = find(layer, known)
        if place is None:
            unmatched.append(layer)
        elif not {"down", "up"} <= set(keys):
            raise CheckpointError(f"{file}: {layer} has {', '.join(keys)}; it needs both matrices: the file is incomplete")
        else:
            share = float(weight) * scale(file, tensors, layer, keys, adapter, place[0].name)
            found.append((*place, Delta(tensors, keys["down"], keys["up"], share)))
    if not found:
        raise CheckpointError(f"{file}: none of its {len(layers)} layers is in this model: a LoRA for another one, or with names that "
                              f"minisd does not know, such as {unmatched[0]}")
    for component, name, delta in found:                     # all are looked at before any counts
        O, rank = tensors.shape(delta.up)[:2]
        rows, size = component.shapes()[name][0], math.prod(component.shapes()[name])
        windows = math.prod(tensors.shape(delta.up)[2:])     # of up: 1, the window is down's
        if windows != 1 or rank != tensors.shape(delta.down)[0] or O != rows or O * math.prod(tensors.shape(delta.down)[1:]) != size:
            raise CheckpointError(f"{file}: {delta.up} {tensors.shape(delta.up)} and {delta.down} {tensors.shape(delta.down)} do not "
                                  f"give {component.shapes()[name]}, as {component.name}: {name} is: made for another model")
    for component, name, delta in found:
        component.added.setdefault(name, []).append(delta)
    return unmatched


def tables(components):
    """{component name: {path with _ for every dot: (component, weight name)}}, the unet's layers by their LDM names too, which
    kohya's tools use for Stable Diffusion XL."""
    found = {c.name: {n.removesuffix(".weight").replace(".", "_"): (c, n) for n in c.stored if n.endswith(".weight")} for c in components}
    places = {after: before for before, after in ldm_places([n for _, n in found["unet"].values()]).items()}
    inside = {new: old.replace(".", "_") for old, new in RESNET.items()}
    for path, entry in list(found["unet"].items()):
        for place in (p for p in places if f"{path}_".startswith(f"{p}_")):
            rest = path[len(place) + 1:]
            rest = inside.get(rest, rest) if "_resnets_" in place else rest
            found["unet"]["_".join(filter(None, [places[place], rest]))] = entry
    return found


def find(layer, known):
    """A layer as a LoRA names it -> (component, weight name), or None."""
    path = layer.replace(".", "_").replace("_processor_", "_")
    prefix = next((p for p in PREFIXES if path.startswith(p)), "")
    table = known.get(PREFIXES.get(prefix, "unet"), {})
    path = path.removeprefix(prefix).removeprefix("text_model_")
    return table.get(path) or table.get(f"{path}_0")         # to_out, where the layer is to_out.0


def ends(layer, pattern, file):
    """Whether a layer's name is this, or ends in it, from a dot on.  peft takes a regular expression here; one that is not plainly a name
    is refused, since running a stranger's can take for ever."""
    name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"[\w.-]+", name):
        raise CheckpointError(f"{file}: alpha_pattern has {pattern!r:.80}, which is more than a layer's name; minisd reads names alone")
    return f".{layer}".endswith(f".{name}")


def scale(file, tensors, layer, keys, adapter, component):
    """alpha / rank; 1 where there is no alpha.  peft's adapter_config.json may give it for all layers, or for those whose name a pattern
    ends, or want sqrt(rank)."""
    rank = tensors.shape(keys["down"])[0]
    own = {k.removeprefix(f"{component}."): v for k, v in adapter.items() if k.startswith(f"{component}.")} or adapter
    alpha, patterns = own.get("lora_alpha", rank), own.get("alpha_pattern") or {}
    if isinstance(patterns, dict):
        alpha = next((v for k, v in patterns.items() if ends(layer, k, file)), alpha)
    alpha = float(tensors[keys["alpha"]].reshape(-1)[0]) if "alpha" in keys else alpha
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not -1e9 < alpha < 1e9:
        raise CheckpointError(f"{file}: the alpha of {layer} is {alpha!r:.80}; it must be a number")
    return alpha / (math.sqrt(rank) if own.get("use_rslora") else rank)
