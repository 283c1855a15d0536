"""A recording's memory, in the pools of CuPy itself: what goes back, and what happens where it runs out."""
import concurrent.futures
import gc
import importlib.util
import multiprocessing
import types
import warnings
import weakref

import pytest
from cudaemu import fake, pool

from minisd.backend import device

pytestmark = pytest.mark.skipif(importlib.util.find_spec("cupy_backends") is None, reason="no CuPy; pip install '.[kernels]'")
MIB = 1 << 20


class Array:
    """So many bytes of the current pool, which nobody computes with."""

    def __init__(self, memory, size):
        self.memory, self.shape, self.held = memory, (size,), memory.alloc(size)

    def copy(self): return Array(self.memory, self.shape[0])
    def __setitem__(self, where, value): pass


def setting():
    """-> (what Recorded takes for CuPy, its class of memory, a function of bytes that makes an Array): pools, allocators and arrays' memory
    are CuPy's, streams and graphs those of fake.py"""
    cupy = pool.cupy_without_gpu()
    real, Memory = cupy.cuda.memory, pool.host_memory(cupy)
    default = real.MemoryPool(lambda size: real.MemoryPointer(Memory(size), 0))
    cupy.cuda.set_allocator(default.malloc)
    cuda = types.SimpleNamespace(memory=real, Memory=Memory, MemoryPool=real.MemoryPool, MemoryPointer=real.MemoryPointer,
                                 Device=fake.Device, Stream=fake.Stream, using_allocator=cupy.cuda.using_allocator)
    return types.SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: default), Memory, lambda size: Array(real, size)


def network(x):
    """Some arrays come and go, of sizes that a pool cuts out of larger pieces."""
    for part in (3, 2, 5):
        y = [Array(x.memory, part * x.shape[0] // 4) for _ in range(part)]
    del y
    return x.copy()


def in_a_process(function):
    """Run it by itself: CuPy is another module in this one."""
    def test():
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
            one.submit(run, function.__name__).result()
    test.__doc__, test.function = function.__doc__, function
    return test


def run(name):
    warnings.simplefilter("error")
    globals()[name].function()


@in_a_process
def test_each_size_gives_back_what_the_one_before_had():
    cupy, Memory, make = setting()
    call = device.Recorded(network, cupy)
    held = []
    for size in (4, 7, 4, 7, 4, 7):
        for _ in range(3):
            call(x=make(size * MIB))
            assert call.graph is not None and Memory.taken - call.pool.total_bytes() <= 7 * MIB, "what an input takes outside of the pool"
        held.append(call.pool.total_bytes())
    assert held[0] == held[2] == held[4] < held[1] == held[3] == held[5]
    call.forget()
    cupy.get_default_memory_pool().free_all_blocks()
    gc.collect()
    assert Memory.taken == 0


@in_a_process
def test_memory_that_runs_out():
    """At any allocation of a recording: it stands, or the calls go on one by one, with a warning, and nothing is held that need not be."""
    cupy, Memory, make = setting()
    call = device.Recorded(network, cupy)
    call(x=make(4 * MIB))
    gc.collect()
    whole = Memory.taken
    call.forget()
    outcomes = set()
    for limit in range(4 * MIB, whole + 8 * MIB, MIB):
        cupy.get_default_memory_pool().free_all_blocks()
        gc.collect()
        assert Memory.taken == 0
        x, Memory.limit = make(4 * MIB), limit
        call = device.Recorded(network, cupy)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                call(x=x)
                outcomes.add("recorded" if call.graph else "one by one")
                assert (call.graph is None) == any("memory ran out" in str(w.message) for w in said)
            except cupy.cuda.memory.OutOfMemoryError:        # no room to compute it at all
                outcomes.add("no room")
        assert call.graph or call.pool is None
        Memory.limit, x = 1 << 40, None
        call.forget()
    assert outcomes == {"recorded", "one by one", "no room"}


@in_a_process
def test_memory_given_back_within_a_recording_voids_it():
    """The pool is emptied to make room, as CuPy does where memory runs out, and grows again to what it was."""
    cupy, Memory, make = setting()
    pools, calls = [], []

    def emptied(x):
        calls.append(1)
        y = network(x)
        if len(calls) == 2:
            pools[0].free_all_blocks()
            y = network(x)
        return y

    MemoryPool = cupy.cuda.MemoryPool
    cupy.cuda.MemoryPool = lambda source: pools.append(MemoryPool(source)) or pools[-1]
    call = device.Recorded(emptied, cupy)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call(x=make(4 * MIB))
    assert call.graph is None and len(calls) == 2 and "memory ran out meanwhile" in str(said[0].message)


@in_a_process
def test_a_stream_is_known_again():
    """What is kept for a stream, by a dictionary that does not keep the stream, is found by whoever asks for the current one."""
    cupy = pool.cupy_without_gpu()
    theirs = types.SimpleNamespace(__cuda_stream__=lambda: (0, 12345))                       # a stream that another library has made
    null, other = cupy.cuda.get_current_stream(), cupy.cuda.Stream.from_external(theirs)
    kept = weakref.WeakKeyDictionary({null: "null", other: "other"})
    with other:
        assert kept[cupy.cuda.get_current_stream()] == "other"
    assert kept[cupy.cuda.get_current_stream()] == "null"
    del other
    gc.collect()
    assert list(kept.values()) == ["null"]
