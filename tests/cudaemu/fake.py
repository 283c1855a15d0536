"""The few names of CuPy that minisd's launch code uses, over NumPy arrays and emulated kernels.

What CuPy refuses is refused here too: NumPy arrays among CuPy's, cuBLAS while a stream is recorded, more shared memory than was
asked for.  A recorded graph is the list of what ran; launching it runs that again."""
import sys
import types
import weakref
from contextlib import contextmanager

import numpy as np

from .machine import Module, begin_unwritten, written_of
from .nvrtc import OPTIONS, CompileError

ARCH, MULTIPROCESSORS, SHARED = 80, 4, 99 << 10              # few multiprocessors, so that small cases take large tiles too
seed, races = 0, True                                        # of the launches
launches = []                                                # (kernel, Launch) of each, to be looked at
_recording = None


def done(action):
    """Run `action` now, or remember it, if a stream is being recorded."""
    if _recording is None:
        action()
    else:
        _recording.append(action)


class ndarray(np.ndarray):
    """NumPy's array, by another name, that computes with its own kind alone."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        given = [own(x) for x in (*inputs, *(out or ()))]
        host = [np.asarray(x) if isinstance(x, ndarray) else x for x in given[:len(inputs)]]
        exact = ufunc is np.matmul and host[0].dtype == np.float16
        if ufunc is np.matmul and _recording is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")

        def compute():
            y = getattr(ufunc, method)(*(x.astype(np.float32) for x in host) if exact else host, **kwargs)
            return y.astype(np.float16) if exact else y

        y = np.asarray(compute())
        if out:
            written_of(out[0], whole=True)
            done(lambda: np.copyto(np.asarray(out[0]), compute()))
            return out[0]
        if _recording is not None:
            done(lambda: np.copyto(y, compute()))
        return y.view(ndarray)

    def astype(self, dtype, copy=True):
        return copied(np.asarray(self).astype(dtype, copy=copy), self)

    def copy(self, order="C"):
        return copied(np.array(self, order=order), self)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)

    def get(self):
        if _recording is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")
        return np.array(self)

    def set(self, array):
        if array.dtype != self.dtype or array.shape != self.shape:
            raise TypeError(f"{array.dtype} {array.shape} for {self.dtype} {self.shape}")
        self[...] = array.view(ndarray)

    def __setitem__(self, where, value):
        written_of(self, whole=True)
        super().__setitem__(where, value)


def copied(y, x):
    """y, made from x by copying it; the copy is an action of its own."""
    if _recording is not None and not np.shares_memory(x, y):
        done(lambda: np.copyto(y, np.asarray(x), casting="unsafe"))
    return y.view(ndarray)


def own(x):
    if isinstance(x, np.ndarray) and not isinstance(x, ndarray) and x.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(x, (list, tuple)):
        for item in x:
            own(item)
    return x


def lifted(function):
    """A function of NumPy for arrays of this module."""
    def run(*args, **kwargs):
        for a in (*args, *kwargs.values()):
            own(a)
        y = function(*args, **kwargs)
        return [p.view(ndarray) for p in y] if isinstance(y, list) else y.view(ndarray) if isinstance(y, np.ndarray) else y
    return run


class RawModule:
    def __init__(self, *, code, options=()):
        try:
            self.module = Module(code, ARCH, [o for o in options if o not in OPTIONS])
        except CompileError as e:
            raise CompileException(str(e)) from e

    def get_function(self, name):
        return RawKernel(self.module, name)


class RawKernel:
    max_dynamic_shared_size_bytes = 48 << 10
    preferred_shared_memory_carveout = -1                    # the driver's choice

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self, grid, block, args, *, shared_mem=0):
        if shared_mem > min(self.max_dynamic_shared_size_bytes, SHARED):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: more shared memory than the kernel was allowed")
        if np.prod(block) > 1024 or min(grid) < 1 or max((*grid, 1, 1)[1:3]) > 65535:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: launch shape")
        if shared_mem and self.preferred_shared_memory_carveout != 100:
            raise AssertionError(f"{self.name}: the driver may leave too little shared memory for two blocks")
        if any(isinstance(a, np.ndarray) and not isinstance(a, ndarray) for a in args):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        done(lambda: launches.append((self.name, self.module.launch(self.name, grid, block, args, shared_mem, seed, races))))


class CompileException(Exception):
    pass


class Graph:
    def __init__(self, actions):
        self.actions = actions

    def launch(self, stream=None):
        for action in self.actions:
            action()


class Stream:
    current = []                                             # those entered, the last one on top

    def __init__(self, non_blocking=False): self.non_blocking = non_blocking
    def __enter__(self): Stream.current.append(self)
    def __exit__(self, *_): Stream.current.pop()
    def synchronize(self): pass

    def begin_capture(self):
        global _recording
        if not self.non_blocking:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: the legacy stream")
        _recording = []

    def end_capture(self):
        global _recording
        actions, _recording = _recording, None
        return Graph(actions)


Stream.null = Stream()


class Device:
    compute_capability = str(ARCH)
    def synchronize(self): pass
    attributes = {"MultiProcessorCount": MULTIPROCESSORS, "MaxSharedMemoryPerBlockOptin": SHARED}


class OutOfMemoryError(MemoryError):
    pass


class Memory:
    """The device's memory, of which there is so much; it goes back when the pool lets go of it, not before."""
    limit, taken = 1 << 40, 0

    def __init__(self, size):
        if Memory.taken + size > Memory.limit:
            raise OutOfMemoryError(f"out of memory allocating {size} bytes")
        self.size = size
        Memory.taken += size


class MemoryPool:
    """What CuPy's does with memory, for arrays that empty() makes: what nobody holds any more stays in the pool, for arrays of the same
    size, until free_all_blocks() or until memory runs out; with the pool itself it does not go back (since CuPy 14.1)."""
    current = None                                           # of using_allocator

    def __init__(self, allocator=None):
        self.allocator, self.free, self.total = allocator or (lambda size: MemoryPointer(Memory(size), 0)), [], 0

    def malloc(self, size): raise AssertionError("stands for the pool alone")
    def total_bytes(self): return self.total

    def take(self, array):
        block = next((m for m in self.free if m.size == array.nbytes), None)
        if block is not None:
            self.free.remove(block)
        else:
            try:
                block = self.allocator(array.nbytes).mem
            except OutOfMemoryError:
                self.free_all_blocks()
                block = self.allocator(array.nbytes).mem
            self.total += block.size
        weakref.finalize(array, self.free.append, block)

    def free_all_blocks(self):
        for block in self.free:
            self.total -= block.size
            Memory.taken -= block.size
        self.free.clear()


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem = mem


default_pool = MemoryPool()


@contextmanager
def using_allocator(malloc):
    before, MemoryPool.current = MemoryPool.current, malloc.__self__
    try:
        yield
    finally:
        MemoryPool.current = before


def empty(shape, dtype=np.float64):
    """Full of NaN, which nobody has written yet."""
    y = np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 0, dtype).view(ndarray)
    (MemoryPool.current or default_pool).take(y.base)
    begin_unwritten(y.base)
    return y


def zeros(shape, dtype=np.float64):
    y = empty(shape, dtype)
    y[...] = 0
    return y


def of_numpy(name):
    """What CuPy has as NumPy has it; what belongs to the module itself, as __file__ does, is not among it."""
    if name.startswith("__"):
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    return lifted(getattr(np, name))


def install():
    """Make `import cupy` mean this; -> the module."""
    cupy = types.ModuleType("cupy")
    cupy.__getattr__ = of_numpy
    cupy.ndarray, cupy.RawModule, cupy.empty, cupy.float16, cupy.float32 = ndarray, RawModule, empty, np.float16, np.float32
    cupy.asarray = cupy.array = lambda x, dtype=None: np.array(x, dtype).view(ndarray)
    cupy.asnumpy = lambda x: x.get()
    cupy.is_available = lambda: True
    cupy.get_default_memory_pool = lambda: default_pool
    cupy.zeros = zeros
    cupy.cuda = types.SimpleNamespace(Device=Device, Stream=Stream, MemoryPool=MemoryPool, Memory=Memory, MemoryPointer=MemoryPointer,
                                      using_allocator=using_allocator, memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
                                      get_current_stream=lambda: [Stream.null, *Stream.current][-1],
                                      compiler=types.SimpleNamespace(CompileException=CompileException))
    sys.modules["cupy"] = cupy
    return cupy
