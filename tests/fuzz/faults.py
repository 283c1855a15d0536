"""What a machine may do: python -m tests.fuzz.faults [KILLS]

Processes killed at random moments, full disks, closed and full streams, no home, a poor locale, threads, forks, and a long run.
Prints a line for each; the exit code is 0 if all is well."""

import concurrent.futures
import multiprocessing
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["PYTHONPATH"] = str(ROOT)
MINISD = [sys.executable, "-m", "minisd"]
BEGUN = "import minisd.__main__ as m, minisd.cli.signals; print(flush=True); m.sys.exit(m.main())"  # a line when ours begins


def command(*arguments, **how):
    return subprocess.run([*MINISD, *map(str, arguments)], capture_output=how.pop("capture", True), text=True, timeout=120, **how)


def quick(folder, *more):
    return ["txt2img", "a cat", "-m", folder, "--steps", "1", "--size", "16x16", "--seed", "1", "--quiet", *more]


def whole(path):
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
    return True


def killed(model, place, count=100):
    """Pictures are written over old ones by a process that is killed at a random moment: each is whole, the old one or the new."""
    r, left = random.Random(0), {signal.SIGKILL: 0, signal.SIGTERM: 0, signal.SIGINT: 0}
    assert command(*quick(model, "-n", 20, "-o", place / "x.png")).returncode == 0
    begun = time.monotonic()
    command(*quick(model, "-n", 20, "-o", place / "x.png"))
    takes = time.monotonic() - begun
    for k in range(count):
        which = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT][k % 3]
        p = subprocess.Popen(
            [sys.executable, "-c", BEGUN, *map(str, quick(model, "-n", 20, "-o", place / "x.png"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        p.stdout.readline()  # what comes before is the interpreter's
        time.sleep(r.uniform(0, takes))
        p.send_signal(which)
        out, err = p.communicate(timeout=30)  # one that hangs fails here
        assert all(whole(f) for f in place.glob("x*.png")) and len(list(place.glob("x*.png"))) == 20
        parts = list(place.glob(".minisd-*"))
        left[which] += len(parts)
        for part in parts:
            part.unlink()
        if which != signal.SIGKILL and p.returncode not in (0, which.value + 128, -which.value):
            raise AssertionError(f"{which.name}: ended with {p.returncode}: {err[-300:]}")
        ours = "/minisd/" in err  # else it came after our last line, and the words are the interpreter's
        assert "Traceback" not in err or not ours, err[-800:]
    assert not left[signal.SIGTERM] and not left[signal.SIGINT]
    return f"{count} kills: every picture whole; {left[signal.SIGKILL]} part files left by SIGKILL, none by SIGTERM and SIGINT"


def part_files_go(model, place):
    """What SIGKILL left an hour ago is removed by the next that writes there; what is new stays."""
    old, new = place / ".minisd-0123456789ab.part", place / ".minisd-ba9876543210.part"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert command(*quick(model, "-o", place / "x.png")).returncode == 0
    assert not old.exists() and new.exists()


def full_disk(model, place):
    """A limit on the size of files, and a small file system: an error in words, the old picture kept, no part left."""
    (place / "x.png").write_bytes(b"old")
    found = command(*quick(model, "-o", place / "x.png"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)))
    assert found.returncode == 1 and "nothing was written" in found.stderr and (place / "x.png").read_bytes() == b"old", found.stderr
    assert not list(place.glob(".minisd-*"))
    small = place / "small"
    small.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], capture_output=True).returncode:
        return "a limit of size; no right to mount a small file system here"
    try:
        (small / "fill").write_bytes(b"x" * 12_000)
        found = command(*quick(model, "-o", small / "x.png", "--size", "64x64"))
        assert found.returncode == 1 and "the disk is full" in found.stderr, found.stderr
        assert [p.name for p in small.iterdir()] == ["fill"]
    finally:
        subprocess.run(["umount", small], check=True)
    return "a limit of size, and a full file system"


def streams(model, place):
    """Closed and full standard output and error."""
    for redirect, codes in (
        (">&-", (0,)),
        ("2>&-", (0,)),
        (">&- 2>&- <&-", (0,)),
        (">/dev/full", (1,)),
        ("2>/dev/full", (0,)),
        (">/dev/full 2>/dev/full", (1,)),
        ("| head -c 0", (0, 1)),
    ):
        words = shlex.join([*MINISD, *map(str, quick(model, "-o", place / "x.png"))])
        found = subprocess.run(["bash", "-c", f"{words} {redirect}"], capture_output=True, text=True, timeout=60)
        assert found.returncode in codes and "Traceback" not in found.stderr and whole(place / "x.png"), (redirect, found)
        (place / "x.png").unlink()


def poor_surroundings(model, place):
    """No home, a cache that cannot be written, a locale of ASCII."""
    bare = {k: v for k, v in os.environ.items() if k not in ("HOME", "LANG", "LC_ALL")}
    for env in (
        {**bare, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        {**bare, "HOME": "/nonexistent"},
        {**bare, "HF_HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"},
    ):
        found = command(*quick(model, "-o", place / "pöster.png"), env=env)
        assert found.returncode == 0 and whole(place / "pöster.png"), found.stderr


def link(model, place):
    """-o to a symbolic link writes what it leads to."""
    (place / "deep").mkdir()
    (place / "x.png").symlink_to("deep/y.png")
    assert command(*quick(model, "-o", place / "x.png")).returncode == 0
    assert (place / "x.png").is_symlink() and whole(place / "deep" / "y.png")


def drawn(model, seed, low_memory=False):
    import minisd

    return minisd.load(model, low_memory=low_memory).txt2img("a cat", num_inference_steps=2, width=32, height=32, seed=seed, output="array")


def threads(model, place):
    """8 threads on one pipeline, some beside one with little memory: each as alone."""
    import numpy as np

    import minisd
    from minisd.backend import threads as pool

    pipe, frugal = minisd.load(model), minisd.load(model, low_memory=True)
    alone = [drawn(model, k) for k in range(8)]

    def run(k):
        return (frugal if k % 4 == 3 else pipe).txt2img("a cat", num_inference_steps=2, width=32, height=32, seed=k, output="array")

    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        for _ in range(3):
            for k, found in enumerate(executor.map(run, range(8))):
                assert np.array_equal(found, alone[k]), f"thread {k} differs by {np.abs(found - alone[k]).max()}"
    assert pool.budget() == 64 << 20


def processes(model, place):
    """Forked and spawned processes: the same picture, and no hang."""
    import numpy as np

    expected = drawn(model, 3)
    for method in ("fork", "spawn"):
        with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context(method)) as executor:
            for found in executor.map(drawn, [model] * 4, [3] * 4, timeout=100):
                assert np.array_equal(found, expected), method


def long_run(model, place):
    """300 pictures in a loop: memory does not grow by more than 2 %; the same seed 20 times, bit for bit."""
    import numpy as np

    import minisd

    pipe = minisd.load(model)

    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for k in range(300):
        pipe.txt2img(f"a cat number {k}", num_inference_steps=1, width=32, height=32, seed=k)
        if k == 50:
            before = held()
    growth = held() / before - 1
    assert growth < 0.02, f"{growth:.1%}"
    first = drawn(model, 7)
    assert all(np.array_equal(drawn(model, 7), first) for _ in range(19))
    return f"memory grew by {growth:.2%} from picture 51 to 300"


def main():
    from tests.fuzz import models

    count, bad = int(sys.argv[1]) if len(sys.argv) > 1 else 100, 0
    with tempfile.TemporaryDirectory() as base:
        model = models.write(Path(base) / "models")["sd"]
        for check in (killed, part_files_go, full_disk, streams, poor_surroundings, link, threads, processes, long_run):
            place = Path(base) / check.__name__
            place.mkdir()
            try:
                said = check(model, place, *([count] if check is killed else []))
                print(f"{check.__name__:<18} ok   {said or check.__doc__.split(chr(10))[0]}", flush=True)
            except (AssertionError, subprocess.TimeoutExpired, concurrent.futures.TimeoutError) as e:
                bad += 1
                print(f"{check.__name__:<18} NOT OK   {type(e).__name__} {e}", flush=True)
            shutil.rmtree(place, ignore_errors=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
