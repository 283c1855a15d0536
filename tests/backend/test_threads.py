"""The pool, and the memory that its threads work in."""
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minisd import InputError
from minisd.backend import convolution, threads


@pytest.fixture(autouse=True)
def four_threads():
    before = threads.count()
    threads.use(4)
    yield
    threads.use(before)


def test_every_item_runs_once_on_several_threads():
    seen, lock = [], threading.Lock()

    def job(item):
        time.sleep(0.001)
        with lock:
            seen.append((item, threading.get_ident()))

    threads.parallel(job, range(100))
    assert sorted(item for item, _ in seen) == list(range(100))
    assert len({thread for _, thread in seen}) == 4


@pytest.mark.parametrize("use, together", [(1, 1), (4, 1000)])
def test_on_one_thread_when_told_or_when_there_is_little(use, together):
    threads.use(use)
    seen = set()
    threads.parallel(lambda item: seen.add(threading.get_ident()), range(100), together)
    assert seen == {threading.get_ident()}


def test_a_job_within_a_job_does_not_wait_for_itself():
    done = []
    threads.parallel(lambda i: threads.parallel(lambda j: done.append((i, j)), range(8)), range(8))
    assert len(done) == 64


@pytest.mark.parametrize("where", ["first", "all"])
def test_an_error_of_a_job_is_raised_and_nothing_more_is_begun(where):
    begun = []

    def job(item):
        begun.append(item)
        time.sleep(0.001)
        if where == "all" or item == 0:
            raise ZeroDivisionError(item)

    with pytest.raises(ZeroDivisionError):
        threads.parallel(job, range(1000))
    assert len(begun) < 1000
    threads.parallel(lambda item: None, range(8))            # and the pool still works


def test_blas_is_held_to_one_thread_meanwhile():
    from threadpoolctl import threadpool_info

    def blas():
        return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]

    before, within = blas(), []
    threads.parallel(lambda item: within.append(blas()), range(4))
    assert blas() == before
    assert all(n == 1 for counts in within for n in counts)


def test_blas_is_held_in_whatever_thread():
    """Not only in the first that ever held it, which is as far as threadpoolctl 3.8 goes."""
    from threadpoolctl import threadpool_info, threadpool_limits

    def blas():
        return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):              # the main thread's, for others are watched
        many, within, after = blas(), [], []

        def caller():
            threads.parallel(lambda item: within.append(blas()), range(2))
            after.append(blas())

        for _ in range(2):
            worker = threading.Thread(target=caller)
            worker.start()
            worker.join()
        threads.parallel(lambda item: within.append(blas()), range(2))
        with threads.blas_on_one_thread():                   # entered here, left last by another thread
            waiting, inside = threading.Event(), threading.Event()

            def longer():
                with threads.blas_on_one_thread():
                    inside.set()
                    waiting.wait(10)

            last = threading.Thread(target=longer)
            last.start()
            assert inside.wait(10)
        within.append(blas())
        waiting.set()
        last.join()
        after.append(blas())
    assert all(n == 1 for counts in within for n in counts)
    assert after == [many] * 3


def test_scratch_is_this_threads_own():
    own = threads.scratch("test", (3, 5))
    assert own.shape == (3, 5) and own.dtype == np.float32
    assert np.shares_memory(own, threads.scratch("test", (4,), np.float64)), "the same name, the same memory"
    found = {}

    def elsewhere():
        found["other"] = threads.scratch("test", (3, 5))

    worker = threading.Thread(target=elsewhere)
    worker.start()
    worker.join()
    assert not np.shares_memory(own, found["other"])
    assert threads.scratch("test", (1000,)).size == 1000, "it grows"
    threads.release()
    assert not threads._buffers


def test_two_callers_at_once():
    """Each has its own scratch memory, and BLAS is released when the last one leaves."""
    from threadpoolctl import threadpool_info
    random = np.random.default_rng(0)
    cases = [(random.standard_normal((2, 40, 40, 24), np.float32), random.standard_normal((3, 3, 24, o), np.float32)) for o in (24, 40)]
    expected = [convolution.conv2d(x, w, np.zeros(w.shape[-1], np.float32), pad=(1, 1)) for x, w in cases]
    before, found = threadpool_info(), [[], []]

    def caller(k):
        x, w = cases[k]
        for _ in range(30):
            found[k].append(convolution.conv2d(x, w, np.zeros(w.shape[-1], np.float32), pad=(1, 1)))

    callers = [threading.Thread(target=caller, args=(k,)) for k in (0, 1)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    for k in (0, 1):
        assert len(found[k]) == 30 and all(np.allclose(y, expected[k], atol=1e-4) for y in found[k])
    assert threadpool_info() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork; every other system runs this")
def test_after_a_fork():
    """The child has none of the pool's threads; it must not wait for them."""
    program = ("import os; from minisd.backend import threads; threads.use(4); say = lambda i: os.write(1, b'%d' % i)\n"
               "threads.parallel(say, range(8))\nif os.fork(): os.wait()\nelse: threads.parallel(say, range(8))")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and sorted(done.stdout) == sorted(2 * "01234567")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork; every other system runs this")
def test_after_a_fork_amid_a_job():
    """The child, in which that job never ends, has BLAS as it was before it."""
    program = ("import os, numpy; from threadpoolctl import threadpool_info as now; from minisd.backend import threads; before = now()\n"
               "with threads.blas_on_one_thread():\n"
               "    if os.fork() == 0: print(now() == before, threads._limited, flush=True); os._exit(0)\n"
               "    os.wait()")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.split() == ["True", "0"], done


@pytest.mark.parametrize("n, parts, least", [(10, 3, 1), (10, 30, 1), (10, 3, 4), (1, 4, 64), (0, 4, 1), (7, 0, 0)])
def test_split_covers_all_once(n, parts, least):
    stretches = threads.split(n, parts, least)
    assert [i for a, b in stretches for i in range(a, b)] == list(range(n))
    assert len(stretches) <= max(1, parts) and (len(stretches) == 1 or all(b - a >= least for a, b in stretches))


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True, None])
def test_a_wrong_number_of_threads_is_refused(n):
    with pytest.raises(InputError, match="threads is .*; it must be a whole number"):
        threads.use(n)


def test_frugal_ends():
    before = threads.budget()
    with pytest.raises(KeyError), threads.frugal(1000):
        assert threads.budget() == 1000
        raise KeyError
    assert threads.budget() == before


def test_blas_in_words():
    assert "(" in threads.blas() or threads.blas() == "unknown"
