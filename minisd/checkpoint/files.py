"""A model's files: safetensors, read one array at a time, JSON and text.  Nothing is ever unpickled."""
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, InputError

# Of a network's weight files.
STEMS = {"text_encoder": "model", "text_encoder_2": "model", **dict.fromkeys(("unet", "vae", "controlnet"), "diffusion_pytorch_model")}

DEEPEST = 30                                                 # parts of a weight's name

DTYPES = ("F16", "BF16", "F32", "F64")                       # of weights
NUMBERS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}


class TensorFiles(Mapping):
    """{name: array} over safetensors files: an array is read when it is asked for, in the file's dtype.

    bfloat16, which NumPy lacks, is read as float32, the same numbers.  Read, not memory mapped: the pages of a mapping that
    were once looked at would count as this process's memory as well as the arrays made of them."""

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
                if name.count(".") > DEEPEST:
                    raise CheckpointError(f"{path}: a name of {name.count('.') + 1:,} parts, {name[:60]}...: no network is so deep")
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
        if dtype not in NUMBERS:
            raise CheckpointError(f"{path}: {name} is stored as {dtype}; minisd reads {', '.join(DTYPES)}, not quantised weights")
        array = memory(shape, NUMBERS[dtype])
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

    Raises CheckpointError if there are none, saying what is there instead; InputError for a variant that is no part of a name."""
    if variant and not is_name(f"{stem}.safetensors.index.{variant}.json"):
        raise InputError(f"variant is {variant!r:.80}; it must be what stands in the files' names, such as 'fp16'")
    for v in [variant] if variant else ["", "fp16"]:
        mark = f".{v}" if v else ""
        whole, index = folder / f"{stem}{mark}.safetensors", folder / f"{stem}.safetensors.index{mark}.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            places = read_json(index).get("weight_map")
            shards = sorted(set(places.values())) if isinstance(places, dict) and all(map(is_name, places.values())) else []
            absent = [s for s in shards if not (folder / s).is_file()]
            if absent or not shards:
                raise CheckpointError(f"{index}: names {len(shards)} files, of which {', '.join(absent) or 'none'} "
                                      "cannot be found; copy or download them again")
            return [folder / s for s in shards]
    found = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in (".bin", ".ckpt", ".pt", ".pth", ".safetensors"))
    refuse_pickle(*(folder / f for f in found))
    raise CheckpointError(f"{folder}: no {stem}{'.' + variant if variant else ''}.safetensors, only {', '.join(found) or 'no weights'}")


def as_path(given):
    """A path, of a string or a Path.  Raises InputError for what is none, or what the system takes for none."""
    if not isinstance(given, (str, Path)) or str(given) == "":
        raise InputError(f"{given!r:.80} is no path")
    try:
        Path(given).exists()
    except (OSError, ValueError) as e:                       # a name too long to be one, or with a 0 in it
        raise InputError(f"{str(given)[:80]}: no path ({getattr(e, 'strerror', None) or e})") from e
    return Path(given)


def is_name(name):
    """Whether this is the name of a file in the same folder, and leads nowhere else."""
    return (isinstance(name, str) and name not in ("", ".", "..") and not any(c in name for c in "/\\:\0")
            and len(name.encode("utf-8", "surrogatepass")) < 256)


def refuse_pickle(*paths):
    """Raises CheckpointError for Python pickles, which can run any program when they are opened."""
    for path in paths:
        if path.suffix.lower() in (".bin", ".ckpt", ".pt", ".pth"):
            raise CheckpointError(
                f"{path}: a Python pickle, which minisd never opens, since opening one can run any program.  Convert it where you "
                "trust it: with diffusers, StableDiffusionPipeline.from_pretrained(folder).save_pretrained(new_folder, "
                "safe_serialization=True)")


def read_json(path):
    """The file's contents, a dictionary, {} if there is no file; raises CheckpointError if it is anything else."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as e:                # also numbers of thousands of digits, and lists as deep
        raise CheckpointError(f"{path}: damaged, not readable as JSON ({e}); copy or download it again") from e
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}, where names and values were expected; copy or download it again")
    return found


def read_text(path):
    """The file's text; raises CheckpointError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise CheckpointError(f"{path}: cannot be read as text ({e}); copy or download it again") from e
