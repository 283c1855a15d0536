"""A model that tells what it computes, while it computes exactly what it would have: every operation with the layer that it belongs to.

ops.watch() sees an operation and its arrays; the weights that were read since the one before say whose it is."""
import dataclasses
import math
import os
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend import ops
from ..checkpoint.weights import Weights
from ..model import Model
from .profile import products


@dataclass
class Layer:
    """A layer, or neighbours that one operation computes together, over all calls of a run.

    network, name: whose, and in the checkpoint;  operation: in backend/ops.py;  served: "fast", "kernel" or "definition"
    parameters: how many numbers its weights are;  takes, gives: shapes of its input and output, at the first call
    calls, seconds;  flops: of its matrix products, together, as the definition counts them
    bytes: of its inputs, weights and outputs, each once a call, together: what it must move at least
    mean, std, largest: of its output at the call that was looked at;  features: that output as a picture, (H,W,3) uint8, or None"""
    network: str
    name: str
    operation: str
    served: str = ""
    parameters: int = 0
    takes: tuple = ()
    gives: tuple = ()
    calls: int = 0
    seconds: float = 0.0
    flops: int = 0
    bytes: int = 0
    mean: float = 0.0
    std: float = 0.0
    largest: float = 0.0
    features: Any = None

    @property
    def block(self):
        """The part of its network in which it stands: "down_blocks.1", "mid_block", "encoder.layers.3"."""
        parts = self.name.split(" + ")[0].replace("conv_norm_out", "conv_out").split(".")
        count = 1 + (parts[0] in ("encoder", "decoder"))
        return ".".join(parts[:count + (len(parts) > count and parts[count].isdecimal())])


class Noting:
    """The Leaves of a tree, telling the full name of each weight that is read."""

    def __init__(self, leaves, network, reads):
        self.leaves, self.network, self.reads = leaves, network, reads

    def __getitem__(self, name):
        self.reads.append((self.network, name))
        return self.leaves[name]

    def __contains__(self, name):
        return name in self.leaves

    def __getattr__(self, name):                             # shapes, missing, read
        return getattr(self.leaves, name)


@dataclass
class Watch:
    """What every operation did.  layers: {where in the order of execution: Layer}

    looking: called as looking(layer, y, args) after each operation;  shapes: {network: {weight: shape}}
    network: whose call this is, until a weight says otherwise;  reads: weights read since the last operation;  last: the layer of the last
    one that had any;  since: how many had none since then, of which `waiting` do not know yet whose they are"""
    looking: Any = None
    layers: dict = field(default_factory=dict)
    reads: list = field(default_factory=list)
    shapes: dict = field(default_factory=dict)
    network: str = ""
    last: str = ""
    since: int = 0
    waiting: list = field(default_factory=list)

    def tree(self, weights, network):
        """The same weights, whose reading is noted."""
        self.shapes[network] = weights._leaves.shapes
        return Weights(weights._tree, Noting(weights._leaves, network, self.reads), weights.path)

    def begin(self, network):
        """A network is about to be called."""
        for waiting in self.waiting:
            waiting.name = self.last
        self.waiting.clear()
        self.network, self.last, self.since = network, "", 0
        self.reads.clear()

    def __call__(self, name, run, *args, **kwargs):
        """What ops.watch() calls: computes what run() would, which does not say which version served."""
        read, layer = self.reads[:], self.layer(name)
        start = time.perf_counter()
        y, fast = ops.serve(name, *args, **kwargs)
        ops.wait_for(y)
        layer.seconds += time.perf_counter() - start
        if layer.calls == 0:
            first = args[0] if hasattr(args[0], "shape") else args[0][0]
            layer.takes, layer.gives = tuple(args[1].shape if name == "embedding" else first.shape), tuple(y.shape)
            layer.served = "definition" if not fast else "kernel" if ops.xp_of(y) is not np else "fast"
            layer.parameters = sum(math.prod(self.shapes[network][weight]) for network, weight in set(read))
        layer.calls += 1
        layer.flops += products(name, args, kwargs, y)
        layer.bytes += moved([args, kwargs, y])
        if self.looking is not None:
            self.looking(layer, y, args)
        return y

    def layer(self, operation):
        """The Layer of the operation that is about to be computed.

        One without weights is that of the layer whose input it makes, which is not known yet, but for attention, made of those before."""
        if self.reads:
            self.network, self.since = self.reads[-1][0], 0
            self.last = joined([name.rpartition(".")[0] for _, name in self.reads])
            self.reads.clear()
            for waiting in self.waiting:
                waiting.name = self.last.rpartition(".")[0] if waiting.operation == "concat" else self.last
            self.waiting.clear()
        else:
            self.since += 1
        key = self.network, self.last, operation, self.since
        if key not in self.layers:
            self.layers[key] = found = Layer(self.network, self.last if self.since == 0 else "", operation)
            if operation == "attention":
                found.name = self.last.rpartition(".")[0]
            elif self.since:
                self.waiting.append(found)
        return self.layers[key]


def joined(nodes):
    """The nodes whose weights one operation takes -> one name: theirs, or that of the block that they make up."""
    nodes = list(dict.fromkeys(nodes))
    if len(nodes) == 1:
        return nodes[0]
    common = os.path.commonprefix([node.split(".")[:-1] for node in nodes])
    if len(nodes) > 2 and common:                            # a residual block's norms and convolutions
        return ".".join(common)
    return " + ".join(nodes[:1] + [".".join(node.split(".")[len(common):]) for node in nodes[1:]])


def moved(value):
    """Bytes of all arrays within."""
    if isinstance(value, (list, tuple)):
        return sum(map(moved, value))
    return moved(list(value.values())) if isinstance(value, dict) else getattr(value, "nbytes", 0)


class Watched(Model):
    """A Model that computes what `model` would, and tells of it.

    watch: a Watch;  told: has methods conditioned(says, without, s, found) and predicted(out, conditioning), called after each"""

    def __init__(self, model, watch, told):
        vars(self).update(vars(model))
        self.watch, self.told = watch, told
        self.unet, self.vae = watch.tree(model.unet, "unet"), watch.tree(model.vae, "vae")
        parts = [part.name for part in model.checkpoint.text_encoders]
        self.text_encoders = [dataclasses.replace(e, weights=watch.tree(e.weights, part)) for e, part in zip(model.text_encoders, parts)]
        self.controlnets = [(watch.tree(weights, f"controlnet{'' if k == 0 else f'_{k + 1}'}"), config)
                            for k, (weights, config) in enumerate(model.controlnets)]
        self.call_unet = self.device.repeatable(self.run_unet, self.dtype)

    def condition(self, says, without, s, width, height, class_label=None):
        self.watch.begin("text_encoder")
        found = super().condition(says, without, s, width, height, class_label)
        self.told.conditioned(says, without, s, found)
        return found

    def predict_noise(self, x, t, conditioning, control=None, kept=None):
        self.watch.begin("unet")
        out = super().predict_noise(x, t, conditioning, control, kept)
        self.told.predicted(out, conditioning)
        return out

    def decode(self, latents, tile=None):
        self.watch.begin("vae")
        return super().decode(latents, tile)
