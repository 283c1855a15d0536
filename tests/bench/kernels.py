"""What the compiler makes of each kernel, and on a GPU how fast the study's steps are, written between the markers of kernels/README.md.

    python tests/bench/kernels.py [--check] [--launches] [--counters] [--errors] [--times]

Registers need `pip install '.[kernels]'` and no GPU;  --check: only say whether the README has them right.
--launches: those of one SD 1.5 unet call and of one decode, counted.
--counters: what a profiler would say, and the times that follow from it (counters.py), which takes minutes (needs g++).
--errors: the emulated kernels' largest error per architecture, printed (needs g++).
--times: the steps' times, which needs a GPU."""
import argparse
import re
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
import counters  # noqa: E402
import kernel_sources  # noqa: E402
import kernel_study  # noqa: E402
from cudaemu import fake, nvrtc  # noqa: E402

from minisd.networks.unet_config import UNetConfig  # noqa: E402
from minisd.networks.vae_config import VAEConfig  # noqa: E402

README = kernel_sources.KERNELS / "README.md"
STUDIED = {"attention": "B 2, N and M 4096, 8 heads of 64", "conv2d": "2x32x32, 640 -> 640",
           "group_norm": "2x64x64, 320 channels, 32 groups, silu"}


def table(head, rows):
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def between(text, name, new=None):
    """What stands between the markers of `name`, or the text with `new` there."""
    pattern = re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- /{name} -->)", re.S)
    return pattern.search(text)[2] if new is None else pattern.sub(lambda m: f"{m[1]}{new}\n{m[3]}", text)


def registers(cupy):
    """A row for each kernel as SD 1.5 and 2.1 have it compiled: registers a thread on each architecture, the most of its variants."""
    from minisd.backend.launch import source
    most = {}
    for capability in kernel_sources.ARCHITECTURES:
        asked = set.union(*(kernel_sources.variants(cupy, n, 2 if capability == 75 else 4) for n in (20, 132)))
        for files, defines in asked:
            _, log = nvrtc.compile(source(files, defines), capability)
            d = dict(defines)
            for name, (count, spilled) in nvrtc.resources(log).items():
                label = f"{name}, {d['HEAD']} wide" if name == "attention" else (
                    f"{name}{', geglu' if d.get('GEGLU') else ''}, {d['BM']}x{d['BN']}" if name in ("conv2d", "linear") else name)
                seen = most.setdefault(label, {}).setdefault(capability, [0, 0])
                seen[:] = max(seen[0], count), max(seen[1], spilled)

    def order(label):
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", label)]

    rows = [[label, *(f"{r} ({s} spilled)" if s else r for r, s in (most[label].get(c, ("", 0)) for c in kernel_sources.ARCHITECTURES))]
            for label in sorted(most, key=order)]
    return table(["registers a thread", *(f"sm_{c}" for c in kernel_sources.ARCHITECTURES)], rows) + (
        f"\n\nNothing is spilled. NVRTC {nvrtc.version()}." if not any(s for m in most.values() for _, s in m.values()) else "")


def errors():
    """A row for each operation: the largest error of its emulated kernel over the selftest's cases, relative to the largest value."""
    cupy, rows = fake.install(), {}
    import test_kernels as t

    import minisd.backend.cuda  # noqa: F401  (registers itself)
    from minisd.backend import launch
    from minisd.probe import selftest
    for capability in kernel_sources.ARCHITECTURES:
        fake.ARCH, fake.Device.compute_capability = capability, str(capability)
        launch.device.cache_clear()
        launch.function.cache_clear()
        launch.module.cache_clear()
        random = np.random.default_rng(0)
        cases = [(n, a, k) for n, a, k in selftest.cases(lambda *s: random.standard_normal(s).astype(np.float32)) if n in t.SERVED]
        cases += [("attention", tuple(random.standard_normal((1, n, d)).astype(np.float32) for n in (70, 77, 77)), dict(heads=1))
                  for d in (40, 64, 80, 128, 160, 512) if d < 512 or capability > 75]
        for name, args, kwargs in cases:
            label = f"attention, {args[0].shape[-1] // kwargs['heads']} wide" if name == "attention" else name
            error = t.check(cupy, name, *map(t.half, args), **{k: t.half(v) for k, v in kwargs.items()})
            row = rows.setdefault(label, {})
            row[capability] = max(row.get(capability, 0), error)
    return table(["error", *(f"sm_{c}" for c in kernel_sources.ARCHITECTURES)],
                 [[label, *(f"{row[c]:.1e}" if c in row else "" for c in kernel_sources.ARCHITECTURES)] for label, row in rows.items()])


def asked_of(gpu, cupy, decode=False):
    """What one SD 1.5 unet call, of batch 2 and 64x64 latents, launches on a GPU, or one decode; nothing is computed."""
    import layer_sizes

    from minisd.checkpoint.weights import Weights, engine_shape
    from minisd.networks import unet, vae

    def like(*shape, dtype=np.float16):
        return np.zeros(shape, dtype).view(cupy.ndarray)

    def weights(shapes):
        return Weights.over(shapes, lambda n: like(*engine_shape(shapes[n])))

    cupy.empty = lambda shape, dtype: like(*shape, dtype=dtype)
    with counters.Launches(gpu) as found:
        if decode:
            vae.decode(weights(layer_sizes.decoder_shapes(**layer_sizes.DECODER)), like(1, 64, 64, 4), VAEConfig())
        else:
            unet.unet(weights(layer_sizes.unet_shapes(**layer_sizes.SD15)), like(2, 64, 64, 4), like(2, dtype=np.float32),
                      like(2, 77, 768), UNetConfig())
    return found


def launches(cupy):
    """How often each kernel is launched, on an H100."""
    for what, decode in (("unet call, batch 2, 64x64", False), ("decode, 64x64", True)):
        counts = asked_of(counters.GPUS["H100"], cupy, decode).by_name()
        print(f"{what}: {counts.total()} launches: {', '.join(f'{n} {k}' for k, n in counts.most_common())}")


def counters_tables(cupy):
    """What counters.py finds: the study's steps on an H100, one unet call by launches, and what it takes on three GPUs."""
    def tell(words):
        print(words, file=sys.stderr)

    gpu, parts = counters.GPUS["H100"], []
    for what, (given, more) in studied(lambda *shape: np.zeros(shape, np.float16).view(cupy.ndarray)).items():
        rows = []
        for name, run in steps_of(what, cupy).items():
            with counters.Launches(gpu) as found:
                run(*given, *more)
            rows += [[name, row[0], *row[3:]] for row in (counters.described(n, c, gpu) for n, c, _ in found.counters(tell))]
        parts.append(f"{what}, {STUDIED[what]}\n\n" + table(["step", counters.HEAD[0], *counters.HEAD[3:]], rows))
    totals = []
    for name, each in counters.GPUS.items():
        found = asked_of(each, cupy).counters(tell)
        least, most = (sum(n * c.estimate(each)[end] for n, c, _ in found) / 1e3 for end in (0, 1))
        l2 = sum(n * c.sectors * counters.SECTOR for n, c, _ in found) / 1e9
        totals.append([name, sum(n for n, *_ in found), f"{l2:.1f}", f"{least:.1f} to {most:.1f}"])
        if each is gpu:
            parts.append("The unet call's launches on an H100 that take a hundredth of it or more\n\n" + table(
                counters.HEAD, [counters.described(n, c, gpu, a) for n, c, a in found if n * c.estimate(gpu)[0] / 1e3 > least / 100]))
            rows = []
            for kernel in dict.fromkeys(c.name for _, c, _ in found):
                its = [(n, *c.estimate(gpu)) for n, c, _ in found if c.name == kernel]
                low, high = (sum(row[0] * row[end] for row in its) / 1e3 for end in (1, 2))
                rows.append([kernel, sum(n for n, *_ in its), f"{low:.2f} to {high:.2f}"])
            parts.append("All of its launches on an H100\n\n" + table(["kernel", "launches", "ms a unet call, estimated"], rows))
    parts.append(table(["GPU", "launches", "L2, GB", "ms a unet call, estimated"], totals))
    return "\n\n".join(parts)


def studied(normal):
    """{operation: (arrays of the study's size, the arguments after them)}"""
    return {"attention": ([normal(2, 4096, 512) for _ in "qkv"], [8]),
            "conv2d": ([normal(2, 32, 32, 640), normal(3, 3, 640, 640), normal(640)], []),
            "group_norm": ([normal(2, 64, 64, 320), normal(320), normal(320)], [32, 1e-5])}


def steps_of(what, cupy):
    """{step: function of arrays}, the shipped kernel last."""
    from minisd.backend import ops
    shipped = {"attention": ops.attention, "conv2d": lambda *a: ops.conv2d(*a, pad=(1, 1)),
               "group_norm": lambda *a: ops.group_norm(*a, act="silu")}
    return {s.split("/")[2]: (lambda *a, s=s: kernel_study.run(s, cupy, *a)) for s in kernel_study.STEPS if what in s} | {
        "shipped": shipped[what]}


def times():
    """A row for each step, the shipped kernel last: milliseconds, and how many times as fast as the first."""
    import datetime

    import cupy
    from gpu import median_ms, normal, rotated

    rows = []
    for what, (arrays, more) in studied(normal).items():
        first = None
        for name, run in steps_of(what, cupy).items():
            ms = median_ms(lambda *a, run=run, more=more: run(*a, *more), rotated(arrays)[:20])
            first = first or ms
            rows.append([what, name, f"{ms:.3f}", f"{first / ms:.1f}"])
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return f"{name}, {datetime.date.today()}; " + "; ".join(f"{k}: {v}" for k, v in STUDIED.items()) + ".\n\n" + table(
        ["", "step", "ms", "times as fast as the first"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--check", "--launches", "--counters", "--errors", "--times"):
        parser.add_argument(flag, action="store_true")
    a = parser.parse_args()
    text = README.read_text()
    if a.errors:
        print(errors())
        return 0
    if a.times:
        README.write_text(between(text, "times", times()))
        return 0
    library = fake.install()
    import minisd.backend.cuda  # noqa: F401  (registers itself)
    if a.launches:
        launches(library)
        return 0
    if a.counters:
        README.write_text(between(text, "counters", counters_tables(library)))
        return 0
    found = registers(library)
    print(found)
    if a.check:
        right = between(text, "registers").strip() == found
        print("kernels/README.md has them right" if right else "kernels/README.md has other numbers: python tests/bench/kernels.py")
        return 0 if right else 1
    README.write_text(between(text, "registers", found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
