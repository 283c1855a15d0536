"""CUDA kernels: their sources, compiled when first needed, and launched through CuPy, which checks nothing; so it is checked here."""
import functools
from pathlib import Path

import cupy
import numpy as np

from ..errors import MinisdError

PACKAGE = Path(__file__).parent.parent
FOLDERS = PACKAGE / "kernels", PACKAGE.parent / "kernels"                # installed; in a checkout


class KernelError(MinisdError):
    """A kernel's source is missing, does not compile, or is given what it does not take."""


def source(files, defines):
    """The text to compile: #defines, then devkit.cuh and the named files (or full paths), each under its own name in messages."""
    folder = next((f for f in FOLDERS if (f / "devkit.cuh").exists()), None)
    if folder is None:
        raise KernelError(f"no kernels in {FOLDERS[0]}; install minisd again")
    text = "".join(f"#define {name} {int(value)}\n" for name, value in defines)
    return text + "".join(f'#line 1 "{Path(file).name}"\n{(folder / file).read_text()}' for file in ("devkit.cuh", *files))


@functools.cache
def device():
    """(compute capability, such as 90; multiprocessors; bytes of shared memory that a block can have) of the current GPU."""
    d = cupy.cuda.Device()
    return int(d.compute_capability), d.attributes["MultiProcessorCount"], d.attributes["MaxSharedMemoryPerBlockOptin"]


@functools.cache
def module(files, defines):
    return cupy.RawModule(code=source(files, defines), options=("--std=c++17",))


@functools.cache
def function(name, files, defines):
    try:
        return module(files, defines).get_function(name)         # compiles, or finds it in CuPy's cache
    except cupy.cuda.compiler.CompileException as e:
        raise KernelError(f"{files[-1]} with {dict(defines)} does not compile for compute capability {device()[0]}: {e}") from e


def launch(name, files, grid, block, args, shared=0, **defines):
    """Run kernel `name` of the last of `files`.  args: arrays, contiguous ones; None, a null pointer; int -> int, float -> float,
    NumPy scalars as they are.  shared: bytes of dynamic shared memory."""
    if 0 in grid:
        return
    run = function(name, files, tuple(sorted(defines.items())))
    if shared > 48 << 10:
        run.max_dynamic_shared_size_bytes = shared
    if shared:
        run.preferred_shared_memory_carveout = 100           # per cent; else two blocks of 80 KB may not share a multiprocessor
    run(grid, (block,), tuple(map(functools.partial(argument, name), args)), shared_mem=shared)


def argument(name, value):
    if isinstance(value, cupy.ndarray):
        if not value.flags.c_contiguous or value.data.ptr % 16:
            raise KernelError(f"{name} is given an array of shape {value.shape} that is not contiguous, or does not begin at a "
                              "multiple of 16 bytes")
        return value
    if value is None:
        return np.uintp(0)
    if isinstance(value, (bool, int)):
        if not -2**31 <= value < 2**31:
            raise KernelError(f"{name} is given {value}, which does not fit into 32 bits: the picture or batch is too large")
        return np.int32(value)
    if isinstance(value, float):
        return np.float32(value)
    if isinstance(value, np.generic):
        return value
    raise KernelError(f"{name} is given a {type(value).__name__}")
