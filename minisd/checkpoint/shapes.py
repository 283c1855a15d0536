"""A dry run: arrays that have a shape and no numbers, so that a checkpoint is checked in milliseconds, by the same model
files that will compute with it.  The third kind of array that ops.py dispatches on, after NumPy's and CuPy's."""
import numpy as np

from ..backend import ops
from ..errors import CheckpointError
from .weights import Leaves, Weights


class Shape:
    """shape: a tuple, or None where a missing weight leaves it unknown; name: the weight or layer that it came from."""

    def __init__(self, shape, name="", dtype="float32"):
        self.shape, self.name, self.dtype = shape, name, dtype

    @property
    def ndim(self):
        return len(self.shape) if self.shape is not None else 0

    def _joined(self, other):
        """Elementwise with another: broadcasting, as NumPy would."""
        if not isinstance(other, Shape) or other.shape is None:
            return self
        if self.shape is None:
            return other
        try:
            return Shape(np.broadcast_shapes(self.shape, other.shape), self.name)
        except ValueError:
            raise CheckpointError(f"{self.name} gives {self.shape}, which does not go with {other.shape} of {other.name}: "
                                  "a weight next to them is missing or of the wrong shape") from None

    __add__ = __radd__ = __sub__ = __mul__ = __rmul__ = __truediv__ = _joined

    def __getitem__(self, index):
        if self.shape is None:
            return self
        return Shape(np.broadcast_to(np.int8(0), self.shape)[index].shape, self.name)

    def reshape(self, *shape):
        if self.shape is None or any(n is None for n in shape):
            return Shape(None, self.name)
        return Shape(np.broadcast_to(np.int8(0), self.shape).reshape(*shape).shape, self.name)

    def astype(self, dtype):
        return Shape(self.shape, self.name, dtype)

    @property
    def T(self):
        return Shape(self.shape and self.shape[::-1], self.name)


def elementwise(x, *args, **kwargs):
    return x


for _name in ("exp", "sigmoid", "silu", "quick_gelu", "erf", "gelu", "relu", "tanh"):
    ops.fast(Shape, _name)(elementwise)


def expect(weight, shape, given):
    """A weight must have this shape, since its layer is given that much."""
    if weight is not None and weight.shape is not None and tuple(weight.shape) != tuple(shape):
        raise CheckpointError(f"{weight.name} has shape {tuple(weight.shape)}; {tuple(shape)} was expected, since {given}")


def known(*arrays):
    return all(a is None or a.shape is not None for a in arrays)


@ops.fast(Shape)
def embedding(weight, ids):
    return Shape((*ids.shape, weight.shape[1]) if known(weight) else None, weight.name)


@ops.fast(Shape)
def vector_of(x, ids, token):
    return Shape((x.shape[0], x.shape[2]) if known(x) else None, x.name)


@ops.fast(Shape)
def linear(x, weight, bias=None, add=None):
    if not known(x, weight):
        return Shape(None, weight.name)
    out = weight.shape[0]
    expect(weight, (out, x.shape[-1]), f"{x.name or 'its input'} gives {x.shape[-1]} channels")
    expect(bias, (out,), f"{weight.name} has {out} outputs")
    return Shape((*x.shape[:-1], out), weight.name)._joined(add)


@ops.fast(Shape)
def layer_norm(x, weight, bias, eps=1e-5):
    for w in (weight, bias):
        if known(x):
            expect(w, x.shape[-1:], f"{x.name or 'its input'} gives {x.shape[-1]} channels")
    return Shape(x.shape, weight.name)


@ops.fast(Shape)
def group_norm(x, weight, bias, groups, eps, act=None):
    if known(x) and x.shape[-1] % groups:
        raise CheckpointError(f"{weight.name}: {x.shape[-1]} channels do not divide into norm_num_groups = {groups}")
    return layer_norm(x, weight, bias)


@ops.fast(Shape)
def conv2d(x, weight, bias=None, stride=1, pad=(0, 0), add=None):
    if not known(x, weight):
        return Shape(None, weight.name)
    if weight.ndim != 4:
        raise CheckpointError(f"{weight.name} has shape {weight.shape}; a convolution's has 4 dimensions")
    kh, kw, C, O = weight.shape
    expect(weight, (kh, kw, x.shape[-1], O), f"{x.name or 'its input'} gives {x.shape[-1]} channels")
    expect(bias, (O,), f"{weight.name} has {O} outputs")
    H, W = ((n + sum(pad) - k) // stride + 1 for n, k in zip(x.shape[1:3], (kh, kw)))
    return Shape((x.shape[0], H, W, O), weight.name)._joined(add)


@ops.fast(Shape)
def geglu(x):
    return Shape((*x.shape[:-1], x.shape[-1] // 2) if known(x) else None, x.name)


for _name in ("linears", "linear_geglu", "norm_conv2d", "residual_block", "upsample_conv2d"):          # made of others
    ops.fast(Shape, _name)(ops.DEFINITIONS[_name])


@ops.fast(Shape)
def attention(q, k, v, heads, causal=False):
    if known(q, k, v) and not (q.shape[-1] == k.shape[-1] == v.shape[-1] and q.shape[-1] % heads == 0):
        raise CheckpointError(f"{q.name}: queries, keys and values of {q.shape[-1]}, {k.shape[-1]} and {v.shape[-1]} "
                              f"channels do not divide into {heads} heads")
    return q


@ops.fast(Shape)
def concat(xs):
    return Shape((*xs[0].shape[:-1], sum(x.shape[-1] for x in xs)) if known(*xs) else None, xs[0].name)


@ops.fast(Shape)
def upsample_to(x, size):
    return Shape((x.shape[0], *size, x.shape[-1]) if known(x) else None, x.name)


@ops.fast(Shape)
def timestep_features(t, dim, flip=True, shift=0):
    return Shape((*t.shape, dim))


class ShapeLeaves(Leaves):
    """Shapes in place of weights; a missing one is noted, and the run goes on without it."""

    def __init__(self, load):
        super().__init__(load)
        self.absent = []

    def missing(self, node, name, path):
        if name not in ("weight", "bias"):
            return Weights({}, self, path)
        self.absent.append(path)
        return Shape(None, path)


def dry_run(shapes, counts, run):
    """Run a model on shapes.

    shapes {weight name: shape in the engine's layout}; counts {path of a list of layers: how many the config asks for};
    run(p) calls the model -> [(what comes out, the shape it must have)].
    -> (missing names, unused names).  Raises CheckpointError for a weight of a wrong shape."""
    p = Weights.over(shapes, lambda name: Shape(shapes[name], name))
    p._leaves = leaves = ShapeLeaves(p._leaves.load)
    for path, count in counts.items():
        node = p
        for part in path.split("."):
            node = node[part] if part in node else Weights({}, leaves, path)
        if len(node) != count:
            leaves.absent.append(f"{path} (config.json asks for {count}, the file has {len(node)})")
    if leaves.absent:                                        # a level too few would make nonsense of what follows
        return leaves.absent, []
    try:
        for found, shape in run(p):
            expect(found, shape, "that is what the rest of the model takes")
    except (TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError, CheckpointError) as e:
        if not leaves.absent and not isinstance(e, CheckpointError):
            raise CheckpointError(f"the shapes of its weights make no such network ({e}); copy or download it again") from e
        if not leaves.absent:
            raise
        return leaves.absent, []                             # an absent weight left too little known to go on
    return leaves.absent, p.unread()
