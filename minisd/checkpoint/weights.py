"""The checkpoint as a tree.  `p.down_blocks[0].resnets[1].conv1.weight` is the array stored under
"down_blocks.0.resnets.1.conv1.weight"; `p.down_blocks[0].resnets[1]` is the node that a layer function takes."""
import numpy as np

from ..backend.threads import parallel, scratch, split
from ..errors import CheckpointError, MissingWeight


def engine_layout(w, dtype=None):
    """A copy in `dtype` (its own): a convolution's (O,C,kh,kw) becomes (kh,kw,C,O); anything else keeps its shape."""
    out = np.empty(engine_shape(w.shape), dtype or w.dtype)
    if w.ndim != 4:
        flat, given = out.reshape(-1), w.reshape(-1)
        parallel(lambda s: convert(given[s[0]:s[1]], flat[s[0]:s[1]]), split(w.size, w.size >> 16))
        return out
    kh, kw, C, O = out.shape

    def block(item):                                         # turned as it is stored, then converted, within the cache
        (c, d), (i, j) = item
        turned, wide = scratch("turned", (d - c, kh, kw, j - i), w.dtype), scratch("wide", (d - c, kh, kw, j - i), out.dtype)
        np.copyto(turned, w[i:j, c:d].transpose(1, 2, 3, 0))
        convert(turned, wide)
        np.copyto(out[:, :, c:d, i:j], wide.transpose(1, 2, 0, 3))

    parallel(block, [(c, i) for c in split(C, -(-C // 128)) for i in split(O, -(-O // 128))])
    return out


def convert(given, out):
    """out = given, in its own dtype.  NumPy is slow at float16: as float32 its bits are the same but for the offset of the exponent."""
    if given.dtype != np.float16 or out.dtype != np.float32:
        return np.copyto(out, given)
    bits = out.view(np.int32)
    np.copyto(bits, given.view(np.int16))                    # the sign, 5 bits of exponent, 10 of mantissa
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, ~0x70000000, out=bits)              # of the sign's copies, the first stays
    np.multiply(out, np.float32(2.0**112), out=out)
    if out.size and max(out.max(), -out.min()) >= 2**16:     # infinity and NaN, which have an exponent of their own
        np.copyto(out, given)


def engine_shape(shape):
    """The shape that engine_layout gives to an array of this shape."""
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else tuple(shape)


def in_order(name):
    """For sorting names: numbers by their size, after words."""
    return [(k.isdecimal(), len(k) if k.isdecimal() else 0, k) for k in name.split(".")]


class Weights:
    """One node of a checkpoint: children by attribute or index, arrays at the leaves, fetched when first asked for."""

    def __init__(self, tree, leaves, path=""):
        self._tree, self._leaves, self.path = tree, leaves, path

    @classmethod
    def over(cls, names, load, keep=True, shapes=None):
        """The root node over `names`; load(name) -> array is called for each weight that a layer asks for: once, or each time
        if they are not to `keep`, which takes little memory and more time.  shapes: {name: shape}, of what load() gives, if known before"""
        tree = {}
        for name in sorted(names, key=in_order):
            *parents, leaf = name.split(".")
            node = tree
            for part in parents:
                node = node.setdefault(part, {})
                if node is None:
                    raise CheckpointError(f"{name}: the file holds a weight and a layer of the same name")
            node[leaf] = None
        return cls(tree, Leaves(load, keep, shapes))

    @classmethod
    def from_flat(cls, arrays, dtype=None):
        """{"a.b.weight": array in the file's layout} -> the root node."""
        shapes = {name: engine_shape(a.shape) for name, a in arrays.items()}
        return cls.over(arrays, lambda name: engine_layout(arrays[name], dtype), shapes=shapes)

    def __getattr__(self, name):
        if name.startswith("_"):                             # copying and pickling ask for such before there is a tree
            raise AttributeError(name)
        path = f"{self.path}.{name}" if self.path else name
        if name not in self._tree:
            return self._leaves.missing(self, name, path)
        child = self._tree[name]
        return self._leaves[path] if child is None else Weights(child, self._leaves, path)

    def __getitem__(self, i):        return getattr(self, str(i))
    def __contains__(self, name):    return name in self._tree
    def __len__(self):               return len(self._tree)
    def __iter__(self):              return (self[name] for name in self._tree)

    def __dir__(self):
        return [*super().__dir__(), *(name for name in self._tree if not name.isdigit())]

    def __repr__(self):
        shown = []
        for name, child in self._tree.items():
            if child is None:
                shape = self._leaves.shapes.get(f"{self.path}.{name}" if self.path else name)
                shown.append(name if shape is None else f"{name} {'x'.join(map(str, shape))}")
            else:
                shown.append(f"{name}[{len(child)}]" if all(k.isdigit() for k in child) else name)
        return f"<Weights {self.path or 'of a network'}: {', '.join(shown)}>"

    def names(self):
        """Full names of all arrays below this node."""
        for name, child in self._tree.items():
            path = f"{self.path}.{name}" if self.path else name
            yield from [path] if child is None else Weights(child, self._leaves, path).names()

    def unread(self):
        """Names of arrays that no layer has asked for: empty after one full forward pass."""
        return [name for name in self.names() if name not in self._leaves.read]


class Leaves(dict):
    """Arrays by full name, each loaded when asked for; `read`: the names of those that were; `shapes`: of those where they are known."""

    def __init__(self, load, keep=True, shapes=None):
        super().__init__()
        self.load, self.keep, self.read, self.shapes = load, keep, set(), shapes or {}

    def __missing__(self, name):
        array = self.load(name)
        self.read.add(name)
        if self.keep:
            self[name] = array
        return array

    def missing(self, node, name, path):
        raise MissingWeight(f"{node.path or 'checkpoint'}: no {name!r}, only {', '.join(node._tree) or 'nothing'}")
