"""Threads: one pool, over which the operations of cpu.py and convolution.py spread strips, heads and tiles, and the memory
that each thread works in.

NumPy lets go of Python's lock inside a ufunc and inside BLAS, so Python threads compute side by side.  Meanwhile BLAS itself
is held to one thread: it would start threads of its own in each."""
import os
import queue
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
from threadpoolctl import OpenBLASController, ThreadpoolController, threadpool_info

from ..errors import InputError

_count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_pool = None
MOST = 1024
_here = threading.local()                                    # .busy: this thread is inside a job
_buffers: dict = {}                                          # (thread, name) -> bytes
_frugal: list = []                                           # the budgets of those that want little memory used
_blas, _limited, _lock = None, 0, threading.Lock()           # _limited: calls that hold BLAS
_free: list = []                                             # how many threads each BLAS library had before


def count():
    """How many threads compute: as many as there are processors for this process, unless use() said otherwise."""
    return _count


def use(n):
    """Compute with n threads from now on.  Raises InputError for what is no number of threads."""
    global _count, _pool
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MOST:
        raise InputError(f"threads is {n!r}; it must be a whole number from 1 to {MOST}")
    with _lock:
        before, _count, _pool = _pool, int(n), None
    if before is not None:
        before.close()


class Pool:
    """n threads that do what is put before them.

    Daemons, unlike those of concurrent.futures: there, Ctrl-C while the first thread starts leaves one that the interpreter waits for at
    its end, for ever."""

    def __init__(self, n):
        self.jobs = queue.SimpleQueue()
        self.count = n
        for k in range(n):
            threading.Thread(target=self.serve, name=f"minisd-{k}", daemon=True).start()

    def serve(self):
        with _lock:
            set_blas([1] * len(_blas), only_own=True)
        while True:
            future, job = self.jobs.get()
            if job is None:
                return
            try:
                future.set_result(job())
            except BaseException as e:                       # whose, parallel() raises
                future.set_exception(e)
            del future, job                                  # until the next comes, nothing of this one is held

    def submit(self, job):
        future = Future()
        self.jobs.put((future, job))
        return future

    def close(self):
        """End the threads, after what was put before them."""
        for _ in range(self.count):
            self.jobs.put((None, None))


def parallel(job, items, together=1):
    """Run job(item) for each item, on all threads, and return when all are done; a job's error is raised here.

    A thread that is done with an item takes the next, so items may differ in size.  together: how many of them repay waking
    another thread.  Within a job it is a plain loop."""
    global _pool
    todo = deque(items)

    def work():
        _here.busy = True
        try:
            while True:
                try:
                    item = todo.popleft()
                except IndexError:
                    return
                job(item)
        except BaseException:                                # Ctrl-C is one
            todo.clear()                                     # nobody begins another item
            raise
        finally:
            _here.busy = False

    if getattr(_here, "busy", False):
        for item in todo:
            job(item)
        return
    helpers = max(0, min(_count, len(todo) // together) - 1)
    with blas_on_one_thread():
        if helpers:
            with _lock:
                pool = _pool = _pool or Pool(_count - 1)
        others = []
        try:
            for _ in range(helpers):
                others.append(pool.submit(work))
            work()
        finally:
            errors = [other.exception() for other in others]
    for error in filter(None, errors):
        raise error


@contextmanager
def blas_on_one_thread():
    """From the first that enters until the last one leaves, be they two threads or one."""
    global _blas, _free, _limited
    with _lock:
        if _limited == 0:
            _blas = _blas or ThreadpoolController().select(user_api="blas").lib_controllers
            _free = [library.num_threads for library in _blas]
        _limited += 1
        set_blas([1] * len(_blas), only_own=_limited > 1)
    try:
        yield
    finally:
        with _lock:
            _limited -= 1
            set_blas(_free, only_own=_limited > 0)


def set_blas(numbers, only_own=False):
    """Let each BLAS library use so many threads.

    only_own: only those whose number is the calling thread's own, as OpenMP's is; the others' is the process's.  Of that,
    threadpoolctl 3.8 lets one thread alone dispose, the first that set it, and does nothing for others, so that is taken back."""
    chosen = [(library, n) for library, n in zip(_blas, numbers) if not only_own or is_own(library)]
    if chosen:
        OpenBLASController.clear_controlling_thread(force=True)
        for library, n in chosen:
            library.set_num_threads(n)
        OpenBLASController.clear_controlling_thread(force=True)


def is_own(library):
    """Whether each thread has its own number of threads of this library, and sets no other's."""
    return library.internal_api == "openblas" and library.threading_layer == "openmp"


def forget():
    """In a child process after a fork: the threads are not there."""
    global _pool, _lock, _limited
    if _limited:
        set_blas(_free)
    _pool, _lock, _limited = None, threading.Lock(), 0
    _frugal.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)


def scratch(name, shape, dtype=np.float32):
    """Uninitialised memory of this thread, that its next call with the same name gets again.

    Fresh arrays of such sizes would be new pages from the system each time, and those take time to come."""
    key = threading.get_ident(), name
    size = np.dtype(dtype).itemsize
    for n in shape:
        size *= n
    buffer = _buffers.get(key)
    if buffer is None or buffer.size < size:
        _buffers.pop(key, None)                              # the old one goes before the new one comes
        buffer = _buffers[key] = np.empty(size, np.uint8)
    return buffer[:size].view(dtype).reshape(shape)


def budget():
    """Bytes of intermediate results that an operation should hold at a time: more are faster, up to what the caches hold."""
    return min([64 << 20, *_frugal])


@contextmanager
def frugal(held=8 << 20):
    """Meanwhile budget() is no more than this, for all threads."""
    _frugal.append(held)
    try:
        yield
    finally:
        _frugal.remove(held)


def release():
    """Give all scratch memory back."""
    _buffers.clear()


def blas():
    """In words, what multiplies NumPy's matrices: library, version, and the processor it was tuned for."""
    found = [i for i in threadpool_info() if i["user_api"] == "blas" and "numpy" in i["filepath"].lower()]
    return ", ".join(f"{i['internal_api']} {i['version']} ({i.get('architecture', 'unknown processor')})" for i in found) or "unknown"


def split(n, parts, least=1):
    """0 .. n in `parts` stretches of nearly equal length, fewer where they would be shorter than `least`:
    [(start, end), ...]"""
    parts = max(1, min(parts, n // max(1, least)))
    return [(n * i // parts, n * (i + 1) // parts) for i in range(parts)]
