"""What a profiler would say of the kernels, with no GPU: counted by the emulator and read from the machine code, at real sizes.

A few blocks of each launch are run (tests/cudaemu) over arrays of zeros, which take no memory until something else is written
to them, and every request that a warp makes of memory is counted; the main loop is read from what ptxas made of it.  `estimate`
says what these counts cost on a GPU, as an interval: less than its lower end would be faster than one of the GPU's parts can
work, and its upper end is what it takes if no two parts ever work at the same time.  Where blocks share a tile's depth, what the last
of them does once the others are done is added to both.

What is not in the model: latencies that too few warps hide, L1, L2 and memory's misses and refreshes, clocks that fall when it
gets warm, the tail of a launch beyond a whole block, and instructions that PTX and the machine code have in different number."""
import collections
import dataclasses
import functools
import math
import re
import tempfile

import numpy as np
from cudaemu import nvrtc, sass
from cudaemu.machine import Module

SECTOR = 32                                                  # bytes


@dataclasses.dataclass(frozen=True)
class GPU:
    """What a multiprocessor does in a cycle, how many there are, and what they share.

    clock: GHz;  tensor: operations a cycle and multiprocessor, by mma.sync with float32 sums;  memory: GB/s
    shared, block_shared: KB of shared memory of a multiprocessor, and of a block at most;  warps, blocks: of a multiprocessor at most"""
    capability: int
    multiprocessors: int
    clock: float
    tensor: float
    memory: float
    shared: int
    block_shared: int
    warps: int
    blocks: int


# Data sheets; limits: CUDA C++ Programming Guide, table of technical specifications.  H100's mma.sync: two thirds of what its data sheet
# says of wgmma (Luo et al. 2025, arXiv 2501.12084, on tensor cores).
GPUS = {"H100": GPU(90, 132, 1.755, 4096 * 2 / 3, 3350, 228, 227, 64, 32), "RTX 4090": GPU(89, 128, 2.52, 512, 1008, 100, 99, 48, 24),
        "T4": GPU(75, 40, 1.59, 1024, 320, 64, 64, 32, 16)}
SCHEDULERS, REGISTERS = 4, 1 << 16                           # of a multiprocessor
L2 = 48, 16                                                  # bytes a cycle and multiprocessor: A100's (5120 in all), and a third of it
LAUNCH = .5, 2.                                              # microseconds between two kernels of a graph


@dataclasses.dataclass
class Counters:
    """Of one launch: counted in some of its blocks, for all of them."""
    name: str
    blocks: int
    warps: int                                               # of a block
    registers: int
    shared: int                                              # bytes of a block
    instructions: float                                      # of warps
    products: float                                          # mma of (16,8,k)
    depth: int                                               # that k
    matrix_loads: float                                      # ldmatrix, of warps
    requests: float                                          # of global memory, by warps
    lanes: float                                             # that took part in them
    sectors: float
    tail: float                                              # of a tile: those of its last block, once all others are done
    passes: float                                            # over shared memory
    least_passes: float
    bytes: int                                               # of the arrays that it is given
    loop: collections.Counter                                # of what the main loop consists

    @property
    def operations(self):
        return self.products * 2 * 16 * 8 * self.depth

    def resident(self, gpu):
        """Blocks that a multiprocessor holds at once."""
        registers = -(-self.registers * 32 // 256) * 256 * self.warps             # given to warps by 256
        shared = self.shared + 1024                          # of each block the system keeps one KB
        return min(gpu.blocks, gpu.warps // self.warps, REGISTERS // registers, gpu.shared * 1024 // shared)

    def cycles(self, gpu, l2=L2[0]):
        """{part of a multiprocessor: cycles that it works in this launch}, of the one that has the most blocks."""
        share = math.ceil(self.blocks / gpu.multiprocessors) / self.blocks
        return {"tensor cores": self.operations * share / gpu.tensor, "issue": self.instructions * share / SCHEDULERS,
                "shared memory": self.passes * share, "L2": self.sectors * SECTOR * share / l2,
                "memory": self.bytes / (gpu.memory / gpu.clock)}

    def estimate(self, gpu):
        """Microseconds: (all parts work side by side, one after the other), and the tail after that."""
        least, most = self.cycles(gpu), self.cycles(gpu, L2[1])
        tail = [self.tail * SECTOR / rate for rate in L2]
        return (max(least.values()) + tail[0]) / gpu.clock / 1e3 + LAUNCH[0], (sum(most.values()) + tail[1]) / gpu.clock / 1e3 + LAUNCH[1]

    def bound(self, gpu):
        """The part that works longest."""
        cycles = self.cycles(gpu)
        return max(cycles, key=cycles.get)


@functools.cache
def built(text, capability):
    """-> (Module, cubin's resources, its machine code)"""
    cubin, log = nvrtc.compile(text, capability)
    with tempfile.TemporaryDirectory() as place:
        return Module(text, capability, counting=True), nvrtc.resources(log), nvrtc.sass(cubin, place)


def counted(text, capability, name, grid, block, args, shared=0):
    """The Counters of one launch of kernel `name` of a source.  args as the launch code gives them."""
    module, resources, code = built(text, capability)
    grid = (*grid, 1, 1)[:3]
    tiles = sorted({tuple(int((n - 1) * at) for n in grid[:2]) for at in (0, .5, 1)})         # the first, one amidst, the last

    def run(depths):
        blocks = [(*tile, z) for tile in tiles for z in depths]
        return module.launch(name, grid, (block,), args, shared, races=False, blocks=blocks)

    def total(of, memory, *names, among=None):
        return scale * sum(int(kind[memory][of]) for launch in among or launches for op, _, *kind in launch.asked
                           if op.startswith(names or ("",)) and not op.startswith("mma"))

    last = grid[2] - 1
    launches = [run(range(last)), run([last])] if last else [run([0])]                       # with all that may share a tile's depth
    scale, tail = math.prod(grid) / (len(tiles) * grid[2]), 0
    if last:                                                 # what the last to come does, beside what it does if it is not the last
        tail = (total("sectors", 0, among=launches[1:]) - total("sectors", 0, among=[run([last])])) / (scale * len(tiles))
        for a in args:
            if isinstance(a, np.ndarray) and a.dtype == np.uint32:
                a[...] = 0                                   # as a whole launch would have left it
    depth = next((int(re.search(r"m16n8k(\d+)", op)[1]) for launch in launches for op, *_ in launch.asked if op.startswith("mma")), 0)
    return Counters(
        name, math.prod(grid), -(-block // 32), resources[name][0], module.kernels[name].dynamic + shared,
        scale * sum(launch.executed for launch in launches) / 32, scale * sum(launch.products for launch in launches), depth,
        total("requests", 1, "ldmatrix"), total("requests", 0), total("lanes", 0), total("sectors", 0), tail, total("wavefronts", 1),
        total("least", 1), sum({a.ctypes.data: a.nbytes for a in args if isinstance(a, np.ndarray)}.values()),
        sass.mix(sass.main_loop(sass.instructions(code, name))) if code else collections.Counter())


def zeros(shape, dtype):
    """Beginning at a multiple of 512 bytes, as CuPy's arrays do."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(size + 512, np.uint8)
    return room[-room.ctypes.data % 512:][:size].view(dtype).reshape(shape)


class Launches:
    """Stands for minisd.backend.cuda's `launch`: remembers each, computes nothing."""

    def __init__(self, gpu):
        self.gpu, self.found = gpu, collections.Counter()    # {(text, name, grid, block, arguments' shapes, shared): how often}
        self.arguments = {}

    def __call__(self, name, files, grid, block, args, shared=0, **defines):
        from minisd.backend import launch
        if 0 in grid:
            return
        text = launch.source(files, sorted(defines.items()))
        args = [launch.argument(name, a) for a in args]
        key = text, name, grid, block, tuple((a.shape, a.dtype.str) if a.ndim else a.item() for a in args), shared
        self.found[key] += 1
        if key not in self.arguments:
            self.arguments[key] = [zeros(a.shape, a.dtype) if a.ndim else a for a in args]

    def by_name(self):
        """{kernel: launches}"""
        counts = collections.Counter()
        for (_, name, *_), n in self.found.items():
            counts[name] += n
        return counts

    def counters(self, tell=lambda _: None):
        """[(how often, Counters, arguments)], those that cost most first."""
        rows = []
        for key, n in self.found.items():
            text, name, grid, block, _, shared = key
            tell(f"{name} {grid}")
            rows.append((n, counted(text, self.gpu.capability, name, grid, block, self.arguments[key], shared), self.arguments[key]))
        return sorted(rows, key=lambda row: -row[0] * row[1].estimate(self.gpu)[0])

    def __enter__(self):
        from minisd.backend import cuda
        self.before = cuda.launch, cuda.device
        cuda.launch, cuda.device = self, lambda: (self.gpu.capability, self.gpu.multiprocessors, self.gpu.block_shared << 10)
        return self

    def __exit__(self, *_):
        from minisd.backend import cuda
        cuda.launch, cuda.device = self.before


HEAD = ["kernel", "arrays", "launches", "tensor share of the main loop", "products a matrix load", "sectors a request", "lanes",
        "L2 / arrays, MB", "passes over shared memory / least", "registers", "shared, KB", "blocks a multiprocessor", "waves",
        "operations a byte", "most of the time", "us each"]


def described(n, c, gpu, args=()):
    """A row of the table."""
    loop, low_high, waves = sum(c.loop.values()), c.estimate(gpu), c.blocks / (gpu.multiprocessors * max(1, c.resident(gpu)))
    shapes = ", ".join("x".join(map(str, a.shape)) for a in args if isinstance(a, np.ndarray) and a.ndim > 1)
    has_products = c.products > 0
    return [c.name, shapes, n, f"{c.loop['tensor'] / loop:.0%}" if has_products and loop else "",
            f"{c.products / c.matrix_loads:.1f}" if c.matrix_loads else "", f"{c.sectors / c.requests:.1f}", f"{c.lanes / c.requests:.0f}",
            f"{c.sectors * SECTOR / 1e6:.1f} / {c.bytes / 1e6:.1f}", f"{c.passes / c.least_passes:.2f}" if c.least_passes else "",
            c.registers, f"{c.shared / 1024:.0f}", c.resident(gpu), f"{waves:.2f}",
            f"{c.operations / c.bytes:.0f}" if has_products else "", c.bound(gpu), "{:.1f} to {:.1f}".format(*low_high)]
