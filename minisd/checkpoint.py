"""A checkpoint on disk: a diffusers folder -> its networks, each with its config and weights, and what family they are.

The one place that knows other spellings of a weight's name.  Nothing is ever unpickled."""
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from . import text, unet, vae
from .errors import CheckpointError, InputError
from .shapes import Shape, dry_run
from .threads import scratch
from .tokenizer import Tokenizer, read_json, read_text
from .weights import Weights, engine_layout, engine_shape

SHIPPED = Path(__file__).parent / "models" / "icons"         # the model that comes with minisd
DTYPES = ("F16", "BF16", "F32", "F64")
STEMS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
CONFIGS = {"text_encoder": text.TextConfig, "unet": unet.UNetConfig, "vae": vae.VAEConfig}
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}      # before 2023
OTHER_PIPELINES = {"StableDiffusionXLPipeline": "Stable Diffusion XL", "FluxPipeline": "Flux",
                   "StableDiffusion3Pipeline": "Stable Diffusion 3", "LatentConsistencyModelPipeline": "a latent consistency model",
                   "StableDiffusionUpscalePipeline": "the x4 upscaler"}


class TensorFiles(Mapping):
    """{name: array} over safetensors files: an array is read when it is asked for, in the file's dtype.

    bfloat16, which NumPy lacks, is read as float32, the same numbers.  Read, not memory mapped: the pages of a mapping that
    were once looked at would count as this process's memory beside the arrays made of them."""

    def __init__(self, paths):
        self._where, self.metadata = {}, {}                  # name -> path, offset, dtype as the file spells it, shape
        for path in paths:
            try:
                with safe_open(path, framework="numpy"):     # checks the header against the file's length
                    pass
            except (SafetensorError, OSError) as e:
                raise CheckpointError(f"{path}: damaged or not a safetensors file ({e}); copy or download it again") from e
            with open(path, "rb") as file:                   # header: its length in 8 bytes, then JSON
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
            self.metadata.update(header.pop("__metadata__", None) or {})
            for name, entry in header.items():
                self._where[name] = path, 8 + size + entry["data_offsets"][0], entry["dtype"], tuple(entry["shape"])

    def __iter__(self): return iter(self._where)
    def __len__(self): return len(self._where)

    def shape(self, name):
        return self._where[name][3]

    def dtype(self, name):
        """As the file spells it: F16, F32, BF16, ..."""
        return self._where[name][2]

    def __getitem__(self, name):
        return self.read(name, np.empty)

    def read(self, name, memory):
        """The array, read into memory(shape, dtype)."""
        path, offset, dtype, shape = self._where[name]
        array = memory(shape, {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}[dtype])
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                read = file.readinto(array.reshape(-1).view(np.uint8))
        except OSError as e:
            raise CheckpointError(f"{path}: {e.strerror} while reading {name}") from e
        if read != array.nbytes:
            raise CheckpointError(f"{path}: ends within {name}: it was changed since it was opened")
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32) if dtype == "BF16" else array


def weight_files(folder, stem, variant=None):
    """The safetensors files of a network's folder: whole, or in shards with an index; of the variant that is asked for,
    or the plain ones, or, if there are no plain ones, those of the variant "fp16".

    Raises CheckpointError if there are none, saying what is there instead."""
    for v in [variant] if variant else ["", "fp16"]:
        mark = f".{v}" if v else ""
        whole, index = folder / f"{stem}{mark}.safetensors", folder / f"{stem}.safetensors.index{mark}.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            absent = [s for s in shards if not (folder / s).is_file()]
            if absent or not shards:
                raise CheckpointError(f"{index}: names {len(shards)} files, of which {', '.join(absent) or 'none'} "
                                      "cannot be found; copy or download them again")
            return [folder / s for s in shards]
    found = sorted(f.name for f in folder.iterdir() if f.suffix in (".bin", ".ckpt", ".pt", ".pth", ".safetensors"))
    refuse_pickle(*(folder / f for f in found))
    raise CheckpointError(f"{folder}: no {stem}{'.' + variant if variant else ''}.safetensors, only {', '.join(found) or 'no weights'}")


def refuse_pickle(*paths):
    """Raises CheckpointError for Python pickles, which can run any program when they are opened."""
    for path in paths:
        if path.suffix in (".bin", ".ckpt", ".pt", ".pth"):
            raise CheckpointError(
                f"{path}: a Python pickle, which minisd never opens, since opening one can run any program.  Convert it where you "
                "trust it: with diffusers, StableDiffusionPipeline.from_pretrained(folder).save_pretrained(new_folder, "
                "safe_serialization=True)")


class Component:
    """One network of a checkpoint.

    name: text_encoder, unet or vae; config: its TextConfig, UNetConfig or VAEConfig; files: where its weights are; place: what to
    name in an error."""

    def __init__(self, name, folder, variant=None):
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; a diffusers model has one for its {name}")
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: no config.json; copy or download it again")
        self.name, self.config = name, CONFIGS[name].read(read_json(folder / "config.json"))
        self.place, self.files = folder, weight_files(folder, STEMS[name], variant)
        self.tensors = TensorFiles(self.files)
        self.added = {}                                      # weight name -> what LoRAs add to it, functions of its shape
        self.rows = {}                                       # token id -> its vector, of textual inversions
        self.stored = {self.spelling(s): s for s in self.tensors if not s.endswith("embeddings.position_ids")}

    def spelling(self, stored):
        """The one name for a weight, whatever the file calls it."""
        if self.name == "text_encoder":                      # transformers wrote the prefix until 5.6
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
        c = self.config
        if self.name == "text_encoder":
            def run(p):
                return [(text.encode(p, Shape((1, c.length), "the prompt"), c), (1, c.length, c.width))]
        elif self.name == "unet":
            def run(p):
                x, context = Shape((1, 8, 8, c.in_channels), "the latent"), Shape((1, 77, c.context_width), "the text")
                return [(unet.unet(p, x, Shape((1,)), context, c), (1, 8, 8, c.out_channels))]
        else:
            def run(p):
                z, side = Shape((1, 8, 8, c.latent_channels), "the latent"), 8 * c.factor
                return [(vae.decode(p, z, c), (1, side, side, 3)),
                        (vae.encode(p, Shape((1, side, side, 3), "the picture"), c), (1, 8, 8, 2 * c.latent_channels))]

        odd = [name for name, stored in self.stored.items() if self.tensors.dtype(stored) not in DTYPES]
        if odd:
            raise CheckpointError(f"{self.place}: {odd[0]} is stored as {self.tensors.dtype(self.stored[odd[0]])}; minisd reads "
                                  f"{', '.join(DTYPES)}, not quantised weights")
        shapes = {name: engine_shape(shape) for name, shape in self.shapes().items()}
        try:
            return dry_run(shapes, c.counts(), run)
        except CheckpointError as e:
            raise CheckpointError(f"{self.place}: {e}") from None


@dataclass
class Checkpoint:
    """A diffusers folder, opened: nothing of its weights is read yet.

    scheduler: the contents of scheduler_config.json; words: those that the model was trained on, in order, where the folder
    says so in words.txt, else None."""
    name: str
    folder: Path
    text_encoder: Component
    unet: Component
    vae: Component
    scheduler: dict
    words: list | None

    @property
    def components(self):
        return self.text_encoder, self.unet, self.vae

    def tokenizer(self):
        return Tokenizer.from_folder(self.folder / "tokenizer", self.text_encoder.config.length)

    @property
    def family(self):
        """In words: from the width of the text the unet reads, which differs between the families."""
        c = self.unet.config
        known = {(768, 320): "Stable Diffusion 1.x", (1024, 320): "Stable Diffusion 2.x"}
        return known.get((c.context_width, c.channels), "a latent diffusion model of its own size")


def open_folder(path, variant=None):
    """A diffusers folder -> Checkpoint.  Raises CheckpointError for anything else, saying what it is."""
    folder = Path(path)
    if folder.is_file():
        refuse_pickle(folder)
        raise CheckpointError(f"{folder}: a single file; minisd reads diffusers folders (convert it with diffusers: "
                              "StableDiffusionPipeline.from_single_file(file).save_pretrained(folder))")
    index = read_json(folder / "model_index.json")
    if not index:
        raise CheckpointError(f"{folder}: no model_index.json, so not a diffusers folder; it holds "
                              f"{', '.join(sorted(f.name for f in folder.iterdir())) or 'nothing'}")
    kind = index.get("_class_name")
    if kind in OTHER_PIPELINES or "text_encoder_2" in index:
        raise CheckpointError(f"{folder}: {OTHER_PIPELINES.get(kind, kind)}, which minisd does not run; "
                              "it runs Stable Diffusion 1.x and 2.x")
    if not (folder / "scheduler" / "scheduler_config.json").is_file():
        raise CheckpointError(f"{folder}: no scheduler/scheduler_config.json; copy or download it again")
    return Checkpoint(folder.resolve().name, folder, *(Component(n, folder / n, variant) for n in STEMS),
                      scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
                      words=read_text(folder / "words.txt").split() if (folder / "words.txt").is_file() else None)


def find_folder(model, variant=None):
    """A path stays what it is, None is the shipped model; a hub id (owner/name) is fetched into the hub's cache, what minisd
    reads of it alone.  Raises InputError if there is no such thing, CheckpointError if the hub has pickles alone."""
    if model is None:
        return SHIPPED
    path = Path(model)
    try:
        if path.exists():
            return path
    except OSError as e:                                     # a name too long to be one
        raise InputError(f"{str(model)[:80]}...: {e.strerror}") from e
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(model)):
        raise InputError(f"{model}: no such file or folder, and no hub id, which is owner/name")
    import huggingface_hub  # here, since importing it costs as much as all the rest
    try:
        names = huggingface_hub.list_repo_files(str(model))
    except Exception as e:                                   # whatever its network layer raises; the cache may have the model
        try:
            return Path(huggingface_hub.snapshot_download(str(model), local_files_only=True))
        except Exception:
            reason = (str(e).strip() or type(e).__name__).split("\n")[0]
            raise InputError(f"{model}: no such folder here, and not to be had from the hub ({reason}); "
                             "check the name and the network") from e
    wanted = wanted_files(names, variant)
    for part in STEMS:
        if not any(n.startswith(f"{part}/") and ".safetensors" in n for n in wanted):
            refuse_pickle(*(Path(n) for n in names if n.startswith(f"{part}/")))
    try:
        return Path(huggingface_hub.snapshot_download(str(model), allow_patterns=wanted))
    except Exception as e:
        raise InputError(f"{model}: fetching it from the hub failed ({str(e).strip() or type(e).__name__}); try again") from e


def wanted_files(names, variant=None):
    """Of a repository's files, those that minisd reads: each network's weights once, in one variant."""
    wanted = [n for n in names if re.fullmatch(r"model_index\.json|words\.txt|(tokenizer|scheduler)/[\w.]+\.(json|txt)|"
                                               r"(text_encoder|unet|vae)/config\.json", n)]
    for part, stem in STEMS.items():
        weights = [n for n in names if n.startswith(f"{part}/{stem}") and re.search(r"\.safetensors(\.index.*\.json)?$", n)]
        for v in [variant] if variant else ["", "fp16"]:
            mark = rf"\.{re.escape(v)}" if v else ""
            found = [n for n in weights if re.fullmatch(
                rf"{part}/{stem}(({mark}(-\d+-of-\d+)?)|((-\d+-of-\d+)?{mark}))\.safetensors|"
                rf"{part}/{stem}\.safetensors\.index{mark}\.json", n)]
            if found:
                wanted += found
                break
    return wanted
