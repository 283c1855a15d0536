"""Arrays that an engine wrote, by layer: safetensors, .npz or a folder of .npy, under the checkpoint's names or names of its own, channels
first or last."""
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import yaml

from ..checkpoint.files import NUMBERS, TensorFiles, as_path
from ..errors import CheckpointError, InputError, MinisdError, listed
from .calls import PRECISIONS, rounded

LAYOUTS = "first", "last"
KINDS = ".safetensors", ".npz", ".npy"
MOST_NAMES = 10_000_000                                      # bytes of a file of names
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Stored:
    """An array of a file, not read yet."""
    place: str                              # for errors
    shape: tuple
    read: Callable


class Activations:
    """{layer: array} of one engine, in the shapes that minisd has for its layers; an array is read when it is asked for.

    path: a file or a folder of files;  names: a YAML or JSON file of {its name of a layer: the checkpoint's}, where * stands for any one
        part of a name;  layout: where the channels of pictures are, "first" or "last", for shapes that do not tell
    shapes: {layer: shape} of all that may be there
    Raises InputError or CheckpointError for files that are none, are damaged, or hold no layer."""

    def __init__(self, path, shapes, names=None, layout=None):
        if layout is not None and layout not in LAYOUTS:
            raise InputError(f"layout is {layout!r}; it must be {' or '.join(LAYOUTS)}, where the channels are")
        self.path, self.layout, self.shapes = as_path(path), layout, shapes
        stored = stored_in(self.path)
        self.at, self.unknown = matched(stored, list(shapes), {} if names is None else read_names(names))
        if not self.at:
            raise InputError(f"{path}: none of its {len(stored)} names is a layer's ({listed(list(map(str, stored)), 3)}); layers are"
                             f" called {listed(list(shapes), 3)}.  Names of another engine are told with names=")
        self.stored = stored
        self.ways, self.differ = self.found_ways()

    def __contains__(self, layer):
        return layer in self.ways

    def found_ways(self):
        """-> ({layer: how its axes lie}, {layer: (its shape there, the shape here)})"""
        ways, differ, clear = {}, {}, set()
        for layer, name in self.at.items():
            given, wanted = self.stored[name].shape, self.shapes[layer]
            possible = [way for way in LAYOUTS if lies(given, wanted, way)]
            if not possible:
                differ[layer] = given, wanted
                continue
            same = math.prod(wanted[1:-1]) == 1              # a vector for each picture: either way is right
            ways[layer] = "last" if same and "last" in possible else possible[0] if len(possible) == 1 else None
            if len(given) > 3 and len(possible) == 1:
                clear.add(possible[0])
        for layer, way in ways.items():
            if way is None:                                  # rows of tokens have their channels last everywhere
                ways[layer] = "last" if len(self.stored[self.at[layer]].shape) <= 3 else self.layout or self.usual(clear, layer)
        return ways, differ

    def usual(self, clear, layer):
        """Where channels are in a picture whose shape does not tell: as in all others."""
        if len(clear) == 1:
            return next(iter(clear))
        others = "others are both" if clear else "no other layer tells"
        raise InputError(f"{self.path}: {layer} has shape {self.stored[self.at[layer]].shape}, so that its channels may be first or last, "
                         f"and {others}; tell it with layout='first' or layout='last'")

    def __getitem__(self, layer):
        """In float32, or float64 where it is stored so."""
        a, shape = self.stored[self.at[layer]].read(), self.shapes[layer]
        a = a if a.dtype == np.float64 else a.astype(np.float32)
        if self.ways[layer] == "first":
            a = np.moveaxis(a.reshape(shape[0], shape[-1], -1), 1, -1)
        return np.ascontiguousarray(a).reshape(shape)

    def precision(self, layers):
        """How most of these layers' numbers are stored, one of PRECISIONS: whatever the file's type, what their numbers need."""
        votes = dict.fromkeys(PRECISIONS, 0)
        for layer in layers:
            a = self[layer]
            fine = np.isfinite(a)
            fits = [p for p in ("bfloat16", "float16") if np.array_equal(rounded(a, p)[fine], a[fine])]
            votes[fits[0] if fits else "float32"] += 1
        coarse = votes["float16"] + votes["bfloat16"]
        if coarse * 2 < sum(votes.values()):
            return "float32"
        return max(("bfloat16", "float16"), key=lambda p: votes[p])


def lies(given, wanted, way):
    """Whether an array of the one shape is one of the other, (B,..,C), with its channels `way`: positions may be in one axis or two, and a
    batch of one may have no axis."""
    if len(wanted) < 2:
        return math.prod(given) == math.prod(wanted)
    if not given:
        return False
    B, *positions, C = wanted
    if B == 1 and (given[0] != 1 or len(given) == 1):
        given = (1, *given)
    if given[0] != B or len(given) < 2:
        return B != 1 and given[0] == 1 and lies(given[1:], wanted, way)       # a batch of one before what has none here
    rest = given[1:]
    channels, others = (rest[-1], rest[:-1]) if way == "last" else (rest[0], rest[1:])
    theirs, ours = ([n for n in sides if n != 1] for sides in (others, positions))
    return channels == C and (theirs == ours or min(len(theirs), len(ours)) <= 1 and math.prod(theirs) == math.prod(ours))


# ---- files -----------------------------------------------------------------------------------------------------


def stored_in(path):
    """{name: Stored} of a file, or of all files of a folder; names of files and folders come before those in them, as `vae/decoder.npz`
    stands for vae.decoder."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix not in KINDS:
            raise InputError(f"{path}: not a file of arrays; {', '.join(KINDS)} are read, or a folder of such")
        return of_file(path, "")
    found = {}
    for file in sorted(path.rglob("*")):
        if file.suffix in KINDS and file.is_file() and file.name != "inputs.safetensors":
            found.update(of_file(file, ".".join(file.relative_to(path).with_suffix("").parts)))
    if not found:
        raise InputError(f"{path}: holds no arrays; {', '.join(KINDS)} are read")
    return found


def of_file(path, before):
    """{name: Stored} of one file;  before: what stands before its names if they are not whole without."""
    with readable(path):
        if path.suffix == ".npy":
            with open(path, "rb") as file:
                shape, _, dtype = header(file, path)
            return {before or path.stem: Stored(str(path), shape, lambda: read_npy(lambda: open(path, "rb"), path, shape, dtype))}
        if path.suffix == ".npz":
            found = {}
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    with archive.open(member) as file:
                        shape, _, dtype = header(file, f"{path}: {member}")
                    found[member.removesuffix(".npy")] = Stored(f"{path}: {member}", shape, of_archive(path, member, shape, dtype))
            return prefixed(found, before)
        tensors = TensorFiles([path])
        return prefixed({name: Stored(f"{path}: {name}", tensors.shape(name), number(tensors, name)) for name in tensors
                         if tensors.dtype(name) in NUMBERS}, before)


def prefixed(found, before):
    """The names as they are, where the file's own name says nothing, else both."""
    return found if before in ("", "outputs", "activations") else {(before, name): s for name, s in found.items()}


def number(tensors, name):
    return lambda: tensors[name]


def of_archive(path, member, shape, dtype):
    def read():
        with readable(path), zipfile.ZipFile(path) as archive:
            return read_npy(lambda: archive.open(member), path, shape, dtype)
    return read


def header(file, place):
    """-> (shape, whether in Fortran's order, dtype) of a .npy."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise CheckpointError(f"{place}: a .npy of version {version[0]}.{version[1]}, which minisd does not read")
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.kind not in "fiu" and dtype != np.dtype("V2"):
        raise CheckpointError(f"{place}: holds {dtype}, where numbers were expected")
    return shape, fortran, dtype


def read_npy(opened, place, shape, dtype):
    """The array, its length held against what the header says; two bytes of no type are bfloat16, as ml_dtypes writes them."""
    with readable(place), opened() as file:
        _, fortran, _ = header(file, place)
        size = math.prod(shape) * dtype.itemsize
        data = file.read(size + 1)
        if len(data) != size:
            raise CheckpointError(f"{place}: {'ends within its array' if len(data) < size else 'is longer than its array'}; write it again")
        if dtype == np.dtype("V2"):
            a = (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            a = np.frombuffer(data, dtype)
        return a.reshape(shape, order="F" if fortran else "C")


@contextmanager
def readable(place):
    """What the readers of files raise, in our words: RuntimeError is zipfile's, of an archive encrypted or packed in an unknown way;
    SyntaxError and TokenError are those of a .npy's header, which is read as Python's literals are."""
    try:
        yield
    except MinisdError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError, SyntaxError, tokenize.TokenError) as e:
        raise CheckpointError(f"{place}: damaged or no such file ({getattr(e, 'strerror', None) or e}); write it again") from e


# ---- names -----------------------------------------------------------------------------------------------------


def read_names(path):
    """A YAML or JSON file of pairs -> {pattern of the engine's name: the checkpoint's}"""
    path = as_path(path)
    try:
        size = path.stat().st_size
        found = None if size > MOST_NAMES else yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as e:
        raise InputError(f"{path}: not readable as YAML or JSON ({getattr(e, 'strerror', None) or e})") from e
    if size > MOST_NAMES:
        raise InputError(f"{path}: {size:,} bytes, too large for a file of names")
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in found.items()):
        raise InputError(f"{path}: must hold pairs of names, 'their name: the checkpoint\\'s', one for each layer or with * for a part")
    return found


def matched(stored, layers, names):
    """-> ({layer: name in the file}, names of no layer), layers in the order that is given"""
    plain, patterns = {}, []
    for theirs, ours in names.items():
        if "*" in theirs:
            if theirs.count("*") != ours.count("*"):
                raise InputError(f"{theirs}: {ours}: one has more * than the other")
            patterns.append((re.compile("([^.]+)".join(map(re.escape, theirs.split("*")))), ours))
        else:
            plain[theirs] = ours
    short = {}
    for layer in layers:                                     # those that are clear without the network's name
        short.setdefault(layer.partition(".")[2], []).append(layer)
    found, unknown, known = {}, [], set(layers)
    for key in stored:
        name = key[1] if isinstance(key, tuple) else key
        candidates = [name] if not isinstance(key, tuple) else [name, f"{key[0]}.{name}"]
        for candidate in list(candidates):
            candidates += [plain[candidate]] if candidate in plain else []
            candidates += [fill(ours, m.groups()) for pattern, ours in patterns if (m := pattern.fullmatch(candidate))]
        candidates += [c.replace("text_model.", "") for c in candidates]
        layer = next((c for c in reversed(candidates) if c in known), None)
        if layer is None:
            layer = next((short[c][0] for c in reversed(candidates) if len(short.get(c, ())) == 1), None)
        if layer is None:
            unknown.append(name)
        elif layer in found:
            raise InputError(f"{stored[key].place}: a second array for {layer}, which {stored[found[layer]].place} is already")
        else:
            found[layer] = key
    return {layer: found[layer] for layer in layers if layer in found}, unknown


def fill(pattern, parts):
    """"a.*.b.*" with ("1", "2") -> "a.1.b.2" """
    found = list(parts)
    return re.sub(r"\*", lambda _: found.pop(0), pattern)
