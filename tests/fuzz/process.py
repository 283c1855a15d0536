"""One case in a forked process: its limits, and what became of it.

made        it worked;  refused: it ended in an error of ours
traceback   any other error;  hang, killed, memory: beyond its limits;  escape: raw control characters on the terminal
wrong       it worked, and what came out is not what it should be"""

import os
import random
import resource
import selectors
import signal
import sys
import time
import traceback
import warnings

from minisd.backend import threads

SECONDS, BYTES = 60, 3 << 30
GOOD = ("made", "refused")


class Wrong(Exception):
    """What came out is not what it should be."""


def outcome(case, seed, place):
    """Run case(r, place), in this process -> (outcome, what to say of it)"""
    from minisd.errors import MinisdError

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    try:
        said = case(random.Random(seed), place) or ""
        return "made", str(said)
    except MinisdError as e:
        return ("escape" if acts(str(e)) else "refused"), repr(str(e))[:200]
    except Wrong as e:
        return "wrong", str(e)[:400]
    except MemoryError:
        return "memory", last_frames()
    except BaseException:  # anything that is not an error of ours is what is looked for
        return "traceback", last_frames()


def last_frames():
    lines = traceback.format_exc().strip().split("\n")
    places = [line.strip() for line in lines if line.strip().startswith("File") and "/minisd/" in line]
    return f"{lines[-1][:200]} | {places[-1].split('/minisd/')[-1] if places else ''}"


def acts(text):
    """Whether a text holds what a terminal would obey."""
    return any((ord(c) < 32 and c not in "\n\t\r") or 127 <= ord(c) < 160 or c in "\u202a\u202b\u202d\u202e\u2066\u2067" for c in text)


def run_all(jobs, base, workers=2):
    """jobs: [(kind, case, seed)] -> yields (kind, seed, outcome, words), each from a process of its own, as they end."""
    waiting, running, selector = list(jobs)[::-1], {}, selectors.DefaultSelector()
    while waiting or running:
        while waiting and len(running) < workers:
            kind, case, seed = waiting.pop()
            place = base / f"case-{kind}-{seed}"
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                child(case, seed, place, read, write)
            os.close(write)
            running[read] = pid, kind, seed, place, time.monotonic()
            selector.register(read, selectors.EVENT_READ)
        for key, _ in selector.select(timeout=0.5):
            pid, kind, seed, place, _ = running.pop(key.fd)
            selector.unregister(key.fd)
            with os.fdopen(key.fd, "rb") as pipe:
                found = pipe.read().decode(errors="replace")
            _, status = os.waitpid(pid, 0)
            remove(place)
            what, _, words = found.partition("\t")
            yield kind, seed, what or f"killed by signal {os.waitstatus_to_exitcode(status)}", words
        for fd, (pid, kind, seed, place, begun) in list(running.items()):
            if time.monotonic() - begun > SECONDS:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                selector.unregister(fd)
                os.close(fd)
                del running[fd]
                remove(place)
                yield kind, seed, "hang", f"no end after {SECONDS} s"


def remove(place):
    import shutil

    shutil.rmtree(place, ignore_errors=True)


def child(case, seed, place, read, write):
    """Never returns."""
    os.close(read)
    place.mkdir(parents=True)
    os.chdir(place)
    threads.use(1)  # others run beside it
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    what, words = outcome(case, seed, place)
    os.write(write, f"{what}\t{words}".encode(errors="backslashreplace")[:4000])
    sys.stdout = sys.stderr = None
    os._exit(0)
