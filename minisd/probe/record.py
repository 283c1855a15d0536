"""A recording: what to feed each network of a model, and what every layer must give, with how much rounding alone moves it.

A folder of inputs.safetensors, outputs.safetensors and manifest.json, made for tests of other engines; compare.py reads it back."""
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from tqdm import tqdm

from .. import __version__
from ..checkpoint import hub
from ..checkpoint.files import TensorFiles, as_path, read_json
from ..errors import CheckpointError, InputError, listed
from ..image import saving
from ..settings import is_number
from . import walk
from .activations import Activations
from .calls import PRECISIONS, calls, check_memory, distance, exact_model, exactly, make_inputs, plain_model, plan, rounded, run, stored_as

FORMAT = "minisd recording 1"
INPUTS, OUTPUTS, MANIFEST = "inputs.safetensors", "outputs.safetensors", "manifest.json"
SAMPLES = 64                                                 # numbers kept of each layer, of a recording of fingerprints
PROMPT = "a red apple on a blue background"
TABLES = {"input_ids": "embeddings.token_embedding.weight", "class_labels": "class_embedding.weight"}  # inputs that are rows of a weight
POSITIONS = 16                                               # of the latent each way, unless a size is given


def record(pipe, folder: str | Path, prompt: str = PROMPT, width: int | None = None, height: int | None = None, seed: int = 0,
           scale: float = 1.0, only: list[str] | None = None, fingerprints: bool = False, channels: str = "last",
           num_inference_steps: int | None = None, sampler: str | None = None, guidance_scale: float | None = None,
           progress: bool = False) -> "Recording":
    """Write what each network of a model takes and what each of its layers gives, for tests of another engine.

    pipe: a Pipeline;  folder: where to write, made if it is absent
    prompt: whose tokens the text encoders are given;  width, height: pixels of the picture that the unet and the vae work on, 16 latent
        positions each way if None;  seed: of the random numbers that they are given
    scale: of these numbers and of the text that the unet reads; 0.01 makes the variance small, where a wrong eps of a norm shows
    only: names of calls, of "text_encoder", "text_encoder_2", "unet", "vae.encoder", "vae.decoder"; None for all that the model has
    fingerprints: keep of each layer 64 numbers evenly spread over it, in place of all
    channels: where pictures have them, "last" (B,H,W,C) or "first" (B,C,H,W)
    num_inference_steps: record a run of so many steps as well: its noise, its schedule, each step's guided prediction and latent, the
        pixels in [0,1];  sampler, guidance_scale: of that run, as for txt2img
    progress: whether to show a bar

    inputs.safetensors and outputs.safetensors hold arrays named <network>.<layer>, in float32, computed in float64 by the definitions, so
    exact to their last digit.  manifest.json has for each layer, in order of execution, its shape, its axes by letter, mean, standard
    deviation and extremes, and its noise: how far it is moved where all numbers are rounded to float32, float16 or bfloat16 from the start,
    as a share of its largest value.
    Raises InputError for a size that the model does not make, or where the folder cannot be written or memory is short."""
    if channels not in ("first", "last"):
        raise InputError(f"channels is {channels!r}; it must be 'first' or 'last'")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise InputError(f"seed is {seed!r:.80}; it must be a whole number from 0 to 2**64 - 1")
    if not is_number(scale) or not 0 < scale < 1000:
        raise InputError(f"scale is {scale!r:.80}; it must be a number above 0")
    if not isinstance(prompt, str):
        raise InputError(f"prompt is {prompt!r:.80}; it must be a text")
    place = make_folder(folder)
    exact, plain = exact_model(pipe.model), plain_model(pipe.model)
    f = pipe.model.vae_config.factor
    width, height = (POSITIONS * f if side is None else side for side in (width, height))
    said = None if num_inference_steps is None else dict(
        prompt=prompt, width=width, height=height, seed=seed, num_inference_steps=num_inference_steps, sampler=sampler,
        guidance_scale=pipe.model.checkpoint.guidance_scale if guidance_scale is None else guidance_scale)
    own, rough = all_calls(exact, said), all_calls(plain, said)
    wanted = list(own) if only is None else [*only, *(["run"] if said else [])]
    unknown = [name for name in wanted if name not in own]
    if unknown or not wanted:
        raise InputError(f"{listed(unknown) or 'nothing'} is to be recorded; this model has {', '.join(own)}")
    inputs = {name: a for name, a in make_inputs(exact, prompt, width, height, seed, scale).items() if name in wanted}
    if said is not None:
        inputs[walk.NAME] = walk.draws(plain, said)
    layers, outputs = [], {}
    with tqdm(total=len(inputs) * (1 + len(PRECISIONS)), disable=not progress, unit="run") as bar:
        for name, given in inputs.items():
            found, rows = observed(exact, own[name], plain, rough[name], given, bar)
            layers += rows
            outputs.update({f"{own[name].component}.{layer}": a.astype(np.float32) for layer, a in found.items()})
    manifest = dict(format=FORMAT, minisd=__version__, name=pipe.model.checkpoint.name, model=place_of(pipe.model), prompt=prompt,
                    seed=seed, scale=scale, width=width, height=height, channels=channels, fingerprints=fingerprints, run=said,
                    inputs=[dict(name=f"{name}.{k}", shape=list(laid(a, channels).shape), axes=letters(own[name].takes[k], channels),
                                 dtype=str(a.dtype)) for name, given in inputs.items() for k, a in given.items()],
                    layers=[dict(row, shape=list(laid(outputs[row["name"]], channels).shape), axes=letters(row["axes"], channels))
                            for row in layers])
    save_arrays(place / INPUTS, {f"{name}.{k}": laid(a, channels) for name, given in inputs.items() for k, a in given.items()})
    save_arrays(place / OUTPUTS, {name: samples(a) if fingerprints else laid(a, channels) for name, a in outputs.items()})
    text = json.dumps(manifest, indent=1).encode()
    saving.write(place / MANIFEST, lambda file: file.write(text))
    return Recording(place)


def all_calls(model, said):
    """{name: Call} of a model's networks, and of a run, if the settings of one are given."""
    return calls(model) if said is None else {**calls(model), walk.NAME: walk.run_call(model, said)}


def place_of(model):
    """Where a model is on this machine, as load() takes it; None is the one that comes with minisd."""
    folder = Path(model.checkpoint.folder).resolve()
    return None if folder == hub.SHIPPED.resolve() else str(folder)


def observed(exact, call, plain, rough, given, bar):
    """One call, of the exact model and of a plain one: its layers' exact outputs, {layer: array}, and what the manifest says of each."""
    name = call.name
    bar.set_description(name)
    check_memory(rough, plan(call, given), 12, "a few copies")
    found: dict = {}
    noise: dict = {}

    def keep(path, y):
        found[path] = y
        return y

    def measure(path, y):
        y = y if path in walk.SCHEDULE else rounded(y, precision)              # sums too, which are no operations
        noise.setdefault(path, {})[precision] = float(f"{distance(y, found[path]):.3g}")
        return y

    run(exact, call, given, keep, exactly)
    bar.update()
    for precision in PRECISIONS:
        run(plain, rough, given, measure, stored_as(precision))
        bar.update()
    text = name.startswith("text_encoder")
    rows = [dict(name=f"{call.component}.{layer}", call=name, shape=list(a.shape), axes=axes_of(a, text), dtype="float32",
                 mean=float(a.mean()), std=float(a.std()), min=float(a.min()), max=float(a.max()), noise=noise[layer])
            for layer, a in found.items()]
    return found, rows


def axes_of(a, text):
    """A letter for each axis: B batch, H and W of a picture, N positions, M tokens, C channels, K steps."""
    if a.ndim == 2 and text:
        return "MC" if len(a) > 1 else "BC"
    return {4: "BHWC", 3: "BMC" if text else "BNC", 2: "BC", 1: "K"}[a.ndim]


def letters(axes, channels):
    """The axes as laid() lays them."""
    return "BCHW" if axes == "BHWC" and channels == "first" else axes


def laid(a, channels):
    """A picture (B,H,W,C) with its channels "last" or "first"; anything else stays what it is."""
    return np.ascontiguousarray(a.transpose(0, 3, 1, 2)) if a.ndim == 4 and channels == "first" else a


def places(size):
    """Where the numbers of a fingerprint stand in an array, laid flat with its channels last."""
    return np.linspace(0, size - 1, SAMPLES).astype(int)


def samples(a):
    return a.reshape(-1)[places(a.size)]


def make_folder(folder):
    folder = as_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"{folder}: {e.strerror}; name a folder that can be made") from e
    return folder


def save_arrays(path, arrays):
    data = safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    saving.write(path, lambda file: file.write(data))


@dataclass
class Recording:
    """A folder that record(), or a recorder of another engine, wrote.

    manifest: what manifest.json says, {} where there is none
    Raises CheckpointError for a folder that is none, or is damaged."""
    folder: Path

    def __post_init__(self):
        self.folder = as_path(self.folder)
        missing = [name for name in (INPUTS, OUTPUTS) if not (self.folder / name).is_file()]
        if missing:
            raise CheckpointError(f"{self.folder}: no recording: it has no {' and no '.join(missing)}")
        self.manifest = read_json(self.folder / MANIFEST)
        if self.manifest.get("format", FORMAT) != FORMAT:
            raise CheckpointError(f"{self.folder / MANIFEST}: format {self.manifest['format']!r:.80}; this minisd reads {FORMAT!r}")
        self.stored, self.kept = TensorFiles([self.folder / INPUTS]), TensorFiles([self.folder / OUTPUTS])

    @property
    def fingerprints(self):
        return self.manifest.get("fingerprints") is True

    def __repr__(self):
        return f"<Recording {self.folder}: {len(self.kept)} layers, of {self.manifest.get('name', 'another engine')}>"

    def inputs(self, own):
        """{call: {input: array}} as calls.run() takes them, of those calls of `own` for which there are inputs.

        Raises CheckpointError where they are not a model's like this."""
        found = {}
        for name, call in own.items():
            given = {k: self.input(call, f"{name}.{k}", axes) for k, axes in call.takes.items() if f"{name}.{k}" in self.stored}
            if given and len(given) < len(call.takes):
                absent = next(k for k in call.takes if k not in given)
                raise CheckpointError(f"{self.folder / INPUTS}: no {name}.{absent}, which this model takes: it is of another kind of "
                                      "model")
            found.update({name: given} if given else {})
        if not found:
            raise CheckpointError(f"{self.folder / INPUTS}: holds no input of {', '.join(own)}, such as "
                                  f"{next(iter(own))}.{next(iter(next(iter(own.values())).takes))}")
        return found

    def input(self, call, name, axes):
        a = self.stored[name]
        if a.ndim != len(axes) or not (a.size or axes[0] == "K") or not np.isfinite(a).all():
            raise CheckpointError(f"{self.folder / INPUTS}: {name} has shape {a.shape}{'' if np.isfinite(a).all() else ' and NaN'}; finite "
                                  f"numbers of axes {axes} were expected")
        table = TABLES.get(name.rpartition(".")[2])
        if table and not (a.dtype.kind == "i" and 0 <= a.min() and a.max() < call.weights._leaves.shapes[table][0]):
            raise CheckpointError(f"{self.folder / INPUTS}: {name} holds {a.min()} to {a.max()}; this model has no rows for them, only "
                                  f"{call.weights._leaves.shapes[table][0]} in {table}")
        if axes == "BHWC" and self.manifest.get("channels", "last" if a.shape[-1] < min(a.shape[1:3]) else "first") == "first":
            a = a.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(a if a.dtype.kind == "i" else a.astype(np.float32))

    def outputs(self, shapes):
        """{layer: array} of what was recorded, as Activations; None of a recording of fingerprints."""
        layout = self.manifest.get("channels")
        return None if self.fingerprints else Activations(self.folder / OUTPUTS, shapes, layout=layout if isinstance(layout, str) else None)

    @property
    def run(self):
        """Settings of the run that was recorded, None if none was."""
        said = self.manifest.get("run")
        known = {"prompt", "width", "height", "seed", "num_inference_steps", "sampler", "guidance_scale"}
        if said is not None and not (isinstance(said, dict) and set(said) == known):
            raise CheckpointError(f"{self.folder / MANIFEST}: its run must have {', '.join(sorted(known))}")
        return said

    def fingerprint(self, layer):
        """Of a recording of fingerprints: a layer's numbers at places()."""
        return self.kept[layer] if layer in self.kept and math.prod(self.kept.shape(layer)) == SAMPLES else None
