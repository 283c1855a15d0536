"""A checkpoint on disk: a diffusers folder -> its networks, each with its config and weights, and what family they are.

The one place that knows other spellings of a weight's name.  Nothing is ever unpickled."""
import re
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..backend.threads import scratch
from ..errors import CheckpointError
from ..networks import clip as text
from ..networks import controlnet, taesd, unet, vae
from ..prompt.tokenizer import Tokenizer
from .files import DTYPES, STEMS, TensorFiles, read_json, read_text, refuse_pickle, weight_files
from .shapes import Shape, dry_run
from .weights import Weights, engine_layout, engine_shape

CONFIGS = {"text_encoder": text.TextConfig, "text_encoder_2": text.TextConfig, "unet": unet.UNetConfig, "vae": vae.VAEConfig,
           "controlnet": controlnet.ControlNetConfig}
CLASSES = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL", "AutoencoderTiny"), "controlnet": ("ControlNetModel",)}
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}      # before 2023
OTHER_PIPELINES = {"FluxPipeline": "Flux", "StableDiffusion3Pipeline": "Stable Diffusion 3", "PixArtAlphaPipeline": "PixArt",
                   "StableCascadeDecoderPipeline": "Stable Cascade", "KandinskyPipeline": "Kandinsky"}


class Component:
    """One network of a checkpoint.

    name: one of CONFIGS; config: what config.json says, as the network's own class; files: where its weights are; place: what to name
    in an error."""

    def __init__(self, name, folder, variant=None):
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; a diffusers model has one for its {name}")
        if (folder / "model_index.json").is_file():
            raise CheckpointError(f"{folder}: a whole model, where a {name} was expected")
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: no config.json; copy or download it again")
        said = read_json(folder / "config.json")
        if said.get("_class_name") not in (None, *CLASSES.get(name, [said.get("_class_name")])):
            raise CheckpointError(f"{folder}: a {said['_class_name']}, where a {name} was expected, {' or '.join(CLASSES[name])}")
        kind = taesd.TinyConfig if said.get("_class_name") == "AutoencoderTiny" else CONFIGS[name]
        self.name, self.config = name, kind.read(said)
        self.place, self.files = folder, weight_files(folder, STEMS[name], variant)
        self.tensors = TensorFiles(self.files)
        self.added = {}                                      # weight name -> what LoRAs add to it, functions of its shape
        self.rows = {}                                       # token id -> its vector, of textual inversions
        self.stored = {self.spelling(s): s for s in self.tensors if not s.endswith("embeddings.position_ids")}

    def spelling(self, stored):
        """The one name for a weight, whatever the file calls it."""
        if self.name.startswith("text_encoder"):             # transformers wrote the prefix until 5.6
            return stored.removeprefix("text_model.")
        if self.name == "vae" and (old := re.fullmatch(r"(.*\.attentions\.0)\.(query|key|value|proj_attn)\.(.*)", stored)):
            return f"{old[1]}.{OLD_VAE_ATTENTION[old[2]]}.{old[3]}"
        return stored

    def shapes(self):
        """{weight name: shape as the file has it}"""
        return {name: self.tensors.shape(stored) for name, stored in self.stored.items()}

    def weights(self, dtype="float32", keep=True, upload=lambda w: w):
        """The root node.  A weight is read, converted, laid out and uploaded when a layer asks for it; `keep` it for the next time?"""
        def load(name):
            w = self.tensors.read(self.stored[name], partial(scratch, "file"))
            for delta in self.added.get(name, ()):
                w = w.astype(np.float32) + delta(w.shape)
            if self.rows and name == "embeddings.token_embedding.weight":
                w = np.concatenate([w.astype(np.float32), np.zeros((max(0, max(self.rows) + 1 - len(w)), w.shape[1]), np.float32)])
                w[list(self.rows)] = list(self.rows.values())
            return upload(engine_layout(w, dtype))

        return Weights.over(self.stored, load, keep)

    def check(self):
        """A dry run -> (missing names, unused names); raises CheckpointError for a weight of a wrong shape."""
        odd = [name for name, stored in self.stored.items() if self.tensors.dtype(stored) not in DTYPES]
        if odd:
            raise CheckpointError(f"{self.place}: {odd[0]} is stored as {self.tensors.dtype(self.stored[odd[0]])}; minisd reads "
                                  f"{', '.join(DTYPES)}, not quantised weights")
        shapes = {name: engine_shape(shape) for name, shape in self.shapes().items()}
        try:
            return dry_run(shapes, self.config.counts(), lambda p: trial(p, self.config))
        except CheckpointError as e:
            raise CheckpointError(f"{self.place}: {e}") from None


def trial(p, c):
    """Run the network of config c on shapes alone -> [(what comes out, the shape it must have)]"""
    if isinstance(c, text.TextConfig):
        ids = Shape((1, c.length), "the prompt")
        pooled = [(text.encode_xl(p, ids, c)[1], (1, c.pooled))] if c.pooled else []
        return [(text.encode(p, ids, c), (1, c.length, c.width)), *pooled]
    if isinstance(c, unet.UNetConfig):
        x, t, context = Shape((1, 8, 8, c.in_channels), "the latent"), Shape((1,)), Shape((1, 77, c.context_width), "the text")
        told = dict(text_embeds=Shape((1, c.added - c.sizes), "the pooled text"), time_ids=Shape((1, 1))) if c.added else {}
        told.update(dict(class_labels=Shape((1,))) if c.classes else {}, **(dict(timestep_cond=Shape((1, c.guided))) if c.guided else {}))
        if not isinstance(c, controlnet.ControlNetConfig):
            return [(unet.unet(p, x, t, context, c, **told), (1, 8, 8, c.out_channels))]
        side, skips = 8 * 2**c.hints, c.counts()["controlnet_down_blocks"]
        hint = controlnet.hint(p, Shape((1, side, side, 3), "the control picture"))
        middle, found = controlnet.controlnet(p, x, t, context, hint, Shape((skips + 1, 1, 1, 1, 1)), c, **told)
        return [(hint, (1, 8, 8, c.channels)), (found[0], (1, 8, 8, c.channels)), (middle, middle.shape)]
    z, side, codec = Shape((1, 8, 8, c.latent_channels), "the latent"), 8 * c.factor, taesd if isinstance(c, taesd.TinyConfig) else vae
    return [(codec.decode(p, z, c), (1, side, side, 3)),
            (codec.encode(p, Shape((1, side, side, 3), "the picture"), c), (1, 8, 8, c.moments))]


@dataclass
class Checkpoint:
    """A model, opened: nothing of its weights is read yet.

    parts: {one of CONFIGS: Component};  scheduler: the contents of scheduler_config.json;  words: those that the model was trained
    on, in order, where the folder says so in words.txt, else None;  index: what model_index.json says besides."""
    name: str
    folder: Path
    parts: dict
    scheduler: dict
    words: list | None = None
    index: dict = field(default_factory=dict)

    @property
    def unet(self): return self.parts["unet"]
    @property
    def vae(self): return self.parts["vae"]

    @property
    def components(self):
        return tuple(self.parts.values())

    @property
    def text_encoders(self):
        """SD 1 and 2 have one, SDXL two, its refiner the second alone."""
        return [c for name, c in self.parts.items() if name.startswith("text_encoder")]

    def tokenizers(self):
        """One for each text encoder."""
        return [Tokenizer.from_folder(self.folder / c.name.replace("text_encoder", "tokenizer"), c.config.length)
                for c in self.text_encoders]

    def check_together(self, controlnets=()):
        """Raises CheckpointError where the networks of one model, and ControlNets that go with it, do not fit one another."""
        context, width = self.unet.config.context_width, sum(c.config.width for c in self.text_encoders)
        if context != width:
            raise CheckpointError(f"{self.folder}: the text encoder gives {width} numbers a token, the unet reads {context}: "
                                  "they are parts of different models")
        unet, channels = self.unet.config, self.vae.config.latent_channels
        if unet.out_channels != channels:
            raise CheckpointError(f"{self.folder}: the unet makes latents of {unet.out_channels} channels, the vae has {channels}: "
                                  "they are parts of different models")
        pooled = self.text_encoders[-1].config.pooled
        if bool(pooled) != bool(unet.added):
            raise CheckpointError(f"{self.folder}: the text encoder gives a pooled vector of {pooled} numbers, the unet reads {unet.added} "
                                  "with it: a weight is missing, or they are parts of different models")
        if unet.added and unet.added - pooled not in (5 * unet.sizes, 6 * unet.sizes):
            raise CheckpointError(f"{self.folder}: the unet reads {unet.added} numbers beside the prompt, {unet.sizes} for each of 5 or 6 "
                                  f"sizes and the pooled text; the text encoder gives {pooled}: they are parts of different models")
        for c in controlnets:
            theirs, ours = ((k.context_width, k.channels, [max(d) for d in k.down]) for k in (c.config, unet))
            if theirs != ours or c.config.added != unet.added:
                raise CheckpointError(f"{c.place}: a ControlNet for another family: its text, first level and transformers are {theirs}, "
                                      f"this model's {ours}")
            if 2**c.config.hints != self.vae.config.factor:
                raise CheckpointError(f"{c.place}: its control picture is {2**c.config.hints} times as large as the latent, this model's "
                                      f"pictures {self.vae.config.factor} times")

    @property
    def low_res_scheduler(self):
        """How an upscaler's small picture is noised: scheduler_config.json's like."""
        return read_json(self.folder / "low_res_scheduler" / "scheduler_config.json")

    @property
    def family(self):
        """In words: from the width of the text the unet reads, which differs between the families."""
        c = self.unet.config
        known = {(768, 320): "Stable Diffusion 1.x", (1024, 320): "Stable Diffusion 2.x", (2048, 320): "Stable Diffusion XL",
                 (1280, 384): "Stable Diffusion XL's refiner", (1024, 256): "Stable Diffusion's x4 upscaler"}
        found = known.get((c.context_width, c.channels), "a latent diffusion model of its own size")
        return found + (", as a latent consistency model" if c.guided else "")


def open_folder(path, variant=None):
    """A diffusers folder -> Checkpoint.  Raises CheckpointError for anything else, saying what it is."""
    folder = Path(path)
    if not folder.is_dir():
        refuse_pickle(folder)
        raise CheckpointError(f"{folder}: a single file; minisd reads diffusers folders (convert it with diffusers: "
                              "StableDiffusionPipeline.from_single_file(file).save_pretrained(folder))")
    index = read_json(folder / "model_index.json")
    if not index:
        raise CheckpointError(f"{folder}: no model_index.json, so not a diffusers folder; it holds "
                              f"{', '.join(sorted(f.name for f in folder.iterdir())) or 'nothing'}")
    kind = str(index.get("_class_name"))
    if kind in OTHER_PIPELINES:
        raise CheckpointError(f"{folder}: {OTHER_PIPELINES[kind]}, which minisd does not run; it runs Stable Diffusion 1.x, 2.x and XL")
    if not (folder / "scheduler" / "scheduler_config.json").is_file():
        raise CheckpointError(f"{folder}: no scheduler/scheduler_config.json; copy or download it again")
    if "controlnet" in index:
        warnings.warn(f"{folder}: its ControlNet is left out; give it with controlnet={folder / 'controlnet'}", stacklevel=2)
    listed = [n for n, v in index.items() if isinstance(v, list) and v and v[-1] is not None]
    names = [n for n in ("text_encoder", "text_encoder_2", "unet", "vae") if n in listed or n in ("unet", "vae")]
    if not any(n.startswith("text_encoder") for n in names):
        raise CheckpointError(f"{folder}: model_index.json names no text encoder; copy or download it again")
    parts = {n: Component(n, folder / n, variant) for n in names}
    for name in parts:                                       # transformers' older files do not say
        if name == "text_encoder_2" and not parts[name].config.pooled:
            raise CheckpointError(f"{folder / name}: no text encoder with a projection, which Stable Diffusion XL needs")
    return Checkpoint(folder.resolve().name, folder, parts, read_json(folder / "scheduler" / "scheduler_config.json"),
                      read_text(folder / "words.txt").split() if (folder / "words.txt").is_file() else None,
                      {k: v for k, v in index.items() if not isinstance(v, list)})
