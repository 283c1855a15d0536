"""What the compiler makes of each kernel, and on a GPU how fast the study's steps are, written between the markers of kernels/README.md.

    python tests/bench/kernels.py [--check] [--launches] [--errors] [--times]

Registers need `pip install '.[kernels]'` and no GPU;  --check: only say whether the README has them right.
--launches: those of one SD 1.5 unet call and of one decode, counted.
--errors: the emulated kernels' largest error per architecture, printed (needs g++).
--times: the steps' times, which needs a GPU."""
import argparse
import re
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
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


def launches(cupy):
    """How often each kernel is launched, on a GPU of 132 multiprocessors; nothing is computed."""
    import collections

    import layer_sizes

    from minisd.backend import cuda
    from minisd.checkpoint.weights import Weights, engine_shape
    from minisd.networks import unet, vae
    counts = collections.Counter()
    cuda.launch, cuda.device = lambda name, *_, **__: counts.update([name]), lambda: (90, 132, 227 << 10)

    def like(*shape, dtype=np.float16):
        return np.zeros(shape, dtype).view(cupy.ndarray)

    def weights(shapes):
        return Weights.over(shapes, lambda n: like(*engine_shape(shapes[n])))

    cupy.empty = lambda shape, dtype: like(*shape, dtype=dtype)
    def unet_call():
        given = like(2, 64, 64, 4), like(2, dtype=np.float32), like(2, 77, 768)
        unet.unet(weights(layer_sizes.unet_shapes(**layer_sizes.SD15)), *given, UNetConfig())

    def decode():
        vae.decode(weights(layer_sizes.decoder_shapes(**layer_sizes.DECODER)), like(1, 64, 64, 4), VAEConfig())

    for name, run in (("unet call, batch 2, 64x64", unet_call), ("decode, 64x64", decode)):
        counts.clear()
        run()
        print(f"{name}: {counts.total()} launches: {', '.join(f'{n} {k}' for k, n in counts.most_common())}")


def times():
    """A row for each step, the shipped kernel last: milliseconds, and how many times as fast as the first."""
    import datetime

    import cupy
    from gpu import median_ms, normal, rotated

    from minisd.backend import ops
    given = {"attention": [normal(2, 4096, 512) for _ in "qkv"], "conv2d": [normal(2, 32, 32, 640), normal(3, 3, 640, 640), normal(640)],
             "group_norm": [normal(2, 64, 64, 320), normal(320), normal(320)]}
    shipped = {"attention": lambda *a: ops.attention(*a, 8), "conv2d": lambda *a: ops.conv2d(*a, pad=(1, 1)),
               "group_norm": lambda *a: ops.group_norm(*a, 32, 1e-5, act="silu")}
    more, rows = {"attention": [8], "conv2d": [], "group_norm": [32, 1e-5]}, []
    for what, arrays in given.items():
        steps = {s.split("/")[2]: (lambda *a, s=s,
                                   what=what: kernel_study.run(s, cupy, *a, *more[what])) for s in kernel_study.STEPS if what in s}
        first = None
        for name, run in {**steps, "shipped": shipped[what]}.items():
            ms = median_ms(run, rotated(arrays)[:20])
            first = first or ms
            rows.append([what, name, f"{ms:.3f}", f"{first / ms:.1f}"])
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return f"{name}, {datetime.date.today()}; " + "; ".join(f"{k}: {v}" for k, v in STUDIED.items()) + ".\n\n" + table(
        ["", "step", "ms", "times as fast as the first"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--check", "--launches", "--errors", "--times"):
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
