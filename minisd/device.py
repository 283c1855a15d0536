"""Where a model computes: on the CPU with NumPy, or on a GPU with CuPy and our kernels.  Latents stay on the host between the calls of
a network, so that noise, samplers and pictures are the same either way."""
import importlib.util
import sys
import warnings

import numpy as np

from . import nn, ops
from .errors import InputError

OLDEST = 75                                                  # compute capability that the kernels are written for


class CPU:
    """The host's own memory: nothing needs to be moved."""

    dtypes = "float32", "float64"                            # the first one unless another is asked for
    keeps_text_encoder = False                               # used once a prompt; the host's memory is the unet's

    def upload(self, x):
        return x

    def download(self, x):
        return x

    def repeatable(self, network, dtype):
        """`network`, a function of arrays, to be called many times with arrays of the same shapes."""
        return network


class GPU(CPU):
    """The current CUDA device.  Raises InputError, with what to do, where there is none."""

    dtypes = "float16", "float32"
    keeps_text_encoder = True

    def __init__(self):
        if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
            raise InputError("device 'cuda' needs CuPy, which is not installed; pip install 'minisd[cuda13]', or 'minisd[cuda12]' "
                             "for a driver older than 580")
        import cupy
        if not cupy.is_available():
            raise InputError("device is 'cuda', but CuPy finds no GPU: `nvidia-smi` should list one, and its driver be new enough "
                             "for the CuPy installed; device 'cpu' needs neither")
        self.cupy = cupy
        if int(cupy.cuda.Device().compute_capability) < OLDEST:
            warnings.warn(f"this GPU has compute capability {cupy.cuda.Device().compute_capability}, the kernels need {OLDEST}: "
                          "everything is computed by the definitions, slowly", stacklevel=3)
        else:
            from . import cuda  # noqa: F401  (registers itself)

    def upload(self, x):
        return self.cupy.asarray(x)

    def download(self, x):
        return self.cupy.asnumpy(x)

    def repeatable(self, network, dtype):
        return Recorded(network, self.cupy) if dtype == np.float16 else network


class Recorded:
    """A network whose launches are recorded as a CUDA graph at its first call, and replayed in one go at the next ones: hundreds of
    launches from Python would take longer than the kernels.

    While layers are traced or operations timed it runs as written."""

    def __init__(self, network, cupy):
        self.network, self.cupy, self.shapes, self.graph = network, cupy, None, None

    def __call__(self, *arrays):
        """Arrays on the device -> the network's result, in memory that the next call overwrites."""
        if nn.tracing() or ops.watched():
            return self.network(*arrays)
        if self.shapes != [a.shape for a in arrays]:
            return self.record(arrays)
        if self.graph is None:
            return self.network(*arrays)
        for held, a in zip(self.inputs, arrays):
            held[...] = a
        self.graph.launch()                                  # on the stream that has just copied them
        return self.result

    def record(self, arrays):
        """Run once as written, which compiles kernels, uploads weights and fills the memory pool, none of which can be recorded;
        then once more, recording."""
        cuda = self.cupy.cuda
        self.graph = self.result = self.inputs = None        # what they hold goes back before more is taken
        self.shapes, stream = [a.shape for a in arrays], cuda.Stream(non_blocking=True)
        self.pool = cuda.MemoryPool()                        # of its own: the graph writes to this memory whenever it is launched
        cuda.Device().synchronize()
        with cuda.using_allocator(self.pool.malloc), stream:
            self.inputs = [a.copy() for a in arrays]
            y = self.network(*self.inputs)
            stream.synchronize()
            stream.begin_capture()
            try:
                self.result = self.network(*self.inputs)
                self.graph = stream.end_capture()
            except NotImplementedError:                      # cuBLAS, by way of a definition
                stream.end_capture()
                warnings.warn("a layer of this model is served by no kernel, so its launches cannot be recorded: it will run, slower; "
                              "`minisd selftest --device cuda` lists what is served", stacklevel=5)
        return y


DEVICES = {"cpu": CPU, "cuda": GPU}


def open_device(name):
    """"cpu" or "cuda" -> a CPU or GPU.  Raises InputError for another name, or where there is no GPU to use."""
    if not isinstance(name, str) or name not in DEVICES:
        raise InputError(f"device is {name!r}; choose {' or '.join(DEVICES)}")
    return DEVICES[name]()
