"""Where a model computes: on the CPU with NumPy, or on a GPU with CuPy and our kernels.  Latents stay on the host between the calls of
a network, so that noise, samplers and pictures are the same either way."""
import importlib.util
import sys

import numpy as np

from ..errors import InputError, warn
from . import convolution, cpu, ops  # noqa: F401  (two register their versions)

OLDEST = 75                                                  # compute capability that the kernels are written for
# Why a network is not recorded.
LEFT_OUT = ("a layer is left to its definition, and cuBLAS is not recorded; `minisd selftest --device cuda` lists which operations no "
            "kernel serves")
OUT_OF_MEMORY = "the GPU's memory ran out meanwhile"


class CPU:
    """The host's own memory: nothing needs to be moved."""

    name = "cpu"
    dtypes = "float32", "float64"                            # the first one unless another is asked for
    keeps_text_encoder = False                               # used once a prompt; the host's memory is the unet's

    def upload(self, x):
        return x

    def download(self, x):
        return x

    def repeatable(self, network, dtype):
        """`network`, a function of named arrays, to be called many times with arrays of the same shapes."""
        return network


class GPU(CPU):
    """The current CUDA device.  Raises InputError, with what to do, where there is none."""

    name = "cuda"
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
        self.cupy, capability = cupy, int(cupy.cuda.Device().compute_capability)
        self.served = capability >= OLDEST
        if self.served:
            from . import cuda  # noqa: F401  (registers itself)
        else:
            warn(f"this GPU has compute capability {capability}, the kernels need {OLDEST}: everything is computed by the "
                 "definitions, slowly")

    def upload(self, x):
        with self.cupy.cuda.using_allocator(self.cupy.get_default_memory_pool().malloc):     # weights outlive a recording's pool
            return self.cupy.asarray(x)

    def download(self, x):
        return self.cupy.asnumpy(x)

    def repeatable(self, network, dtype):
        return Recorded(network, self.cupy) if dtype == np.float16 and self.served else network


class Recorded:
    """A network whose launches are recorded as a CUDA graph at its first call, and replayed in one go at the next ones: hundreds of
    launches from Python would take longer than the kernels.

    While somebody looks at its layers or operations it runs as written."""

    def __init__(self, network, cupy):
        self.network, self.cupy, self.shapes, self.graph, self.pool = network, cupy, None, None, None
        self.stream = None                                   # that was recorded; what cuda.py keeps for it, the graph uses

    def __call__(self, **arrays):
        """Arrays on the device -> the network's result, in memory that the next call overwrites."""
        if ops.is_observed():
            return self.network(**arrays)
        if self.shapes != {name: a.shape for name, a in arrays.items()}:
            return self.record(arrays)
        if self.graph is None:
            return self.network(**arrays)
        for name, a in arrays.items():
            self.inputs[name][...] = a
        self.graph.launch()                                  # on the stream that has just copied them
        return self.result

    def forget(self):
        """Give back what a recording holds.  A pool that is merely dropped keeps its free memory, since CuPy 14.1."""
        self.shapes = self.graph = self.result = self.inputs = self.stream = None
        if self.pool is not None:
            self.pool.free_all_blocks()
            self.pool = None

    def record(self, arrays):
        """Run once as written, which compiles kernels, uploads weights and fills the memory pool, none of which can be recorded;
        then once more, recording.  Its work lies in a pool of its own, since the graph writes there whenever it is launched."""
        cuda = self.cupy.cuda
        self.forget()
        cuda.Device().synchronize()
        self.cupy.get_default_memory_pool().free_all_blocks()          # what calls of other shapes left there
        source = Counted(cuda)
        pool, stream, y = cuda.MemoryPool(source), cuda.Stream(non_blocking=True), None
        try:
            with cuda.using_allocator(pool.malloc), stream:
                inputs = {name: a.copy() for name, a in arrays.items()}
                y = self.network(**inputs)
                stream.synchronize()
                result, graph, why = capture(stream, pool, source, lambda: self.network(**inputs))
        except cuda.memory.OutOfMemoryError:
            result, graph, why = None, None, OUT_OF_MEMORY
        self.shapes = {name: a.shape for name, a in arrays.items()}
        if graph is not None:
            self.pool, self.stream, self.inputs, self.result, self.graph = pool, stream, inputs, result, graph
            return y
        warn(f"this network's launches cannot be recorded, so it runs slower: {why}")
        inputs = result = stream = None                      # or their memory could not go back
        try:
            y = None if y is None else y.copy()              # outside of the pool, which goes
        except cuda.memory.OutOfMemoryError:                 # no room beside the pool: computed once more, without it
            y = None
        pool.free_all_blocks()                               # before the network runs again, which may need that memory
        return self.network(**arrays) if y is None else y


class Counted:
    """Where a recording's pool has its memory from, and how much that was."""

    def __init__(self, cuda):
        self.cuda, self.given = cuda, 0

    def __call__(self, size):
        memory = self.cuda.MemoryPointer(self.cuda.Memory(size), 0)
        self.given += size
        return memory


def capture(stream, pool, source, run):
    """run(), recorded on `stream` -> (its result, the graph, None), or (None, None, why not).  Any other error ends the recording
    and is raised.  source: where the pool has its memory from"""
    returned, graph, why = source.given - pool.total_bytes(), None, None
    stream.begin_capture()
    try:
        result = run()
    except NotImplementedError:                              # CuPy's word for cuBLAS in a recording; a definition called it
        result, why = None, LEFT_OUT
    finally:
        try:
            graph = stream.end_capture()
        except RuntimeError as e:                            # CUDA's; what was recorded is void
            why = why or str(e)
    if why is None and source.given - pool.total_bytes() != returned:          # memory that the graph writes to was given back
        why = OUT_OF_MEMORY
    return (result, graph, None) if why is None else (None, None, why)


DEVICES = {"cpu": CPU, "cuda": GPU}


def open_device(name):
    """"cpu" or "cuda" -> a CPU or GPU.  Raises InputError for another name, or where there is no GPU to use."""
    if not isinstance(name, str) or name not in DEVICES:
        raise InputError(f"device is {name!r}; choose {' or '.join(DEVICES)}")
    return DEVICES[name]()
