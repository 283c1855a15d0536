"""Kernels on the CPU: PTX built into a library, and its kernels launched on NumPy arrays."""
import atexit
import ctypes
import functools
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

import numpy as np

from . import nvrtc
from .translate import translate

HERE = Path(__file__).parent
FLAGS = ["-std=c++17", "-march=native", "-fPIC", "-shared", "-w"]


# Kilobytes of shared memory that a block can have, by compute capability.   CUDA C++ Programming Guide, table of technical specifications
SHARED = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 110: 227, 120: 99, 121: 99}


class KernelError(Exception):
    """What a kernel did wrong, and in which line."""


def missing():
    """Why kernels cannot run here, or None."""
    if platform.machine() != "x86_64" or os.name != "posix":
        return f"kernels are emulated on x86-64 Linux alone, this is {platform.system()} {platform.machine()}"
    if shutil.which("g++") is None:
        return "no g++ to build emulated kernels with; install it from the system's packages"
    if nvrtc.compiler() is None:
        return "no NVRTC to compile kernels with; pip install '.[kernels]'"
    return None


class Buffer(ctypes.Structure):                              # machine.cpp has the same, and the next
    _fields_ = [("start", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("writable", ctypes.c_int), ("written", ctypes.c_void_p)]


# What an instruction asked of memory.  requests: by warps;  lanes: of theirs, that took part;  sectors: of 32 bytes, of global memory;
# wavefronts: passes over shared memory, and the least that would do if no two words met in a bank.
COUNT = np.dtype([(n, np.uint64) for n in ("requests", "lanes", "sectors", "wavefronts", "least")])


class Launch(ctypes.Structure):
    _fields_ = [("grid", ctypes.c_uint32 * 3), ("block", ctypes.c_uint32 * 3), ("args", ctypes.c_uint64 * 32),
                ("shared_bytes", ctypes.c_uint64), ("buffers", ctypes.POINTER(Buffer)), ("buffer_count", ctypes.c_int),
                ("span_count", ctypes.c_int), ("spans", ctypes.c_uint32 * 64), ("seed", ctypes.c_uint64), ("races", ctypes.c_int),
                ("counts", ctypes.c_void_p), ("sites", ctypes.c_int), ("blocks", ctypes.c_void_p), ("block_count", ctypes.c_int),
                ("error_line", ctypes.c_int), ("other_line", ctypes.c_int), ("products", ctypes.c_uint64),
                ("conflicts", ctypes.c_uint64), ("copies", ctypes.c_uint64), ("barriers", ctypes.c_uint64),
                ("executed", ctypes.c_uint64), ("error", ctypes.c_char * 1024)]


@functools.cache
def place():
    """Where built libraries lie: a folder that goes with this process, or the one that CUDAEMU_BUILT names, where the next process finds
    them."""
    if "CUDAEMU_BUILT" in os.environ:
        return Path(os.environ["CUDAEMU_BUILT"])
    made = tempfile.mkdtemp(prefix="cudaemu")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def build(source, *more):
    """C++ -> the path of a library"""
    key = hashlib.sha1("\n".join([source, (HERE / "machine.h").read_text(), *FLAGS, *more]).encode()).hexdigest()
    path = place() / f"{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as draft:      # another process may be building the same
            code, made = Path(draft) / "source.cpp", Path(draft) / path.name
            code.write_text(source)
            done = subprocess.run(["g++", *FLAGS, f"-I{HERE}", *more, "-o", made, code], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"g++ does not take what PTX became: {done.stderr[:3000]}")
            made.replace(path)
    return path


@functools.cache
def machine():
    return ctypes.CDLL(str(build((HERE / "machine.cpp").read_text(), "-O2")), mode=ctypes.RTLD_GLOBAL)


_unwritten = {}                                              # address -> (bytes, mask of what was written), of arrays begun empty


def begin_unwritten(array):
    """A kernel that reads of `array` what none wrote before is an error from now on, until the array is gone."""
    at = array.ctypes.data
    _unwritten[at] = array.nbytes, np.zeros(array.nbytes // 2 + 1, np.uint8)
    weakref.finalize(array, _unwritten.pop, at, None)


def written_of(array, whole=False):
    """Where the mask of `array` begins, None if all of it is written.  whole: from now on it is."""
    at = array.ctypes.data
    for start, (size, mask) in _unwritten.items():
        if start <= at < start + size:
            if whole:
                mask[(at - start) // 2:(at - start + array.nbytes) // 2 + 1] = 1
            return mask.ctypes.data + (at - start) // 2
    return None


class Module:
    """What one source was compiled to; `launch` runs a kernel of it.  counting: so that a launch of some blocks says how many
    instructions of PTX its threads `executed`, which takes time."""

    def __init__(self, source, arch=80, options=(), counting=False):
        self.arch, (ptx, _) = arch, nvrtc.compile(source, arch, ptx=True, options=tuple(options))
        code, self.kernels, self.files = translate(ptx)
        machine()
        self.built = ctypes.CDLL(str(build(code, "-O1", f"-DRAN={'executed++;' if counting else ''}")))
        table = (ctypes.c_uint64 * 64).in_dll(self.built, "constants")
        self.constants = [Buffer(at, size, False, None) for at, size in zip(*[iter(list(table)[:list(table).index(0)])] * 2)]

    def launch(self, name, grid, block, args, shared=0, seed=0, races=True, blocks=None):
        """Run kernel `name`.  args: NumPy arrays, or numbers of NumPy's types.  Returns the Launch, whose counts tell what it did.

        blocks: which blocks to run, [(x, y, z)], and count what each instruction asks of memory; None, all, and nothing is counted.
        Such a Launch has `asked`: [(instruction, line, COUNT of global memory, of shared memory)] for each instruction that asked.
        Raises KernelError for what a GPU would do wrong in silence, TypeError for arguments that the kernel does not take."""
        kernel, launch = self.kernels[name], Launch(seed=seed, races=races)
        if len(args) != len(kernel.types):
            raise TypeError(f"{name} takes {len(kernel.types)} arguments, {len(args)} given")
        arrays = {}                                          # the same array twice is the same memory
        for i, (kind, a) in enumerate(zip(kernel.types, args)):
            if isinstance(a, np.ndarray):
                if kind not in ("u64", "b64") or not a.flags.c_contiguous:
                    raise TypeError(f"{name}, argument {i}: an array, contiguous {a.flags.c_contiguous}, for a {kind}")
                arrays[a.ctypes.data] = a
                launch.args[i] = a.ctypes.data
            elif isinstance(a, np.generic) and a.dtype.itemsize * 8 == int(kind[1:]) and (a.dtype.kind == "f") == (kind[0] == "f"):
                launch.args[i] = int.from_bytes(a.tobytes(), "little")
            else:
                raise TypeError(f"{name}, argument {i}: {a!r} for a {kind}")
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        if min(grid) < 1 or grid[0] >= 2**31 or max(grid[1:]) > 65535 or min(block) < 1 or max(block[:2]) > 1024 or block[2] > 64:
            raise KernelError(f"{name}: a grid of {grid} blocks of {block} threads, which no GPU launches")
        if math.prod(block) > kernel.most:
            raise KernelError(f"{name}: {math.prod(block)} threads a block, compiled for {kernel.most} at most")
        if sum(size for _, size in kernel.spans) + shared > SHARED[self.arch] << 10:
            raise KernelError(f"{name}: more shared memory than the {SHARED[self.arch]} KB that a block of sm_{self.arch} can have")
        launch.grid[:], launch.block[:] = grid, block
        spans = [*kernel.spans, (kernel.dynamic, shared)] if shared else kernel.spans
        for i, span in enumerate(spans):
            launch.spans[2 * i:2 * i + 2] = span
        launch.span_count, launch.shared_bytes = len(spans), kernel.dynamic + shared
        buffers = [*self.constants, *(Buffer(at, a.nbytes, a.flags.writeable, written_of(a)) for at, a in arrays.items())]
        launch.buffers, launch.buffer_count = (Buffer * max(1, len(buffers)))(*buffers), len(buffers)
        counts = np.zeros((len(kernel.sites), 2), COUNT)
        if blocks is not None:
            chosen = np.array(blocks, np.uint32).reshape(-1, 3)
            launch.counts, launch.sites = counts.ctypes.data, len(counts)
            launch.blocks, launch.block_count = chosen.ctypes.data, len(chosen)
        if machine().run(getattr(self.built, name), ctypes.byref(launch)):
            lines = [self.where(line) for line in (launch.error_line, launch.other_line) if line]
            raise KernelError(f"{name}: {launch.error.decode()}, at {' and '.join(lines) or 'an unknown line'}")
        launch.asked = [(op, line, *both) for (op, line), both in zip(kernel.sites, counts) if any(both["requests"])]
        return launch

    def where(self, line):
        return f"{os.path.basename(self.files[line >> 16])}:{line & 0xffff}"
