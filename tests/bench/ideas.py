"""What each idea of cpu.py and convolution.py gains: the operation with it and without it, in turn, in one process; medians.

    python tests/bench/ideas.py [--repeat 7]
    python tests/bench/ideas.py --items 16

Shapes are those of Stable Diffusion 1.5 at 512x512 with guidance.  Set OPENBLAS_CORETYPE, or not, as it is to be measured.
--items prints, instead, into how many pieces each operation falls for so many threads: one number for each of its stages."""
import argparse
import statistics
import time
from contextlib import contextmanager

import numpy as np

from minisd.backend import convolution, cpu, ops, threads

RANDOM = np.random.default_rng(0)


def draw(*shape):
    return RANDOM.standard_normal(shape, np.float32)


def conv(B, H, C, O):
    """x, and the other arguments of norm_conv2d"""
    return draw(B, H, H, C), ((draw(C), draw(C)), (draw(3, 3, C, O) / np.float32(3 * C ** 0.5), draw(O)), 32, 1e-5)


@contextmanager
def changed(module, **values):
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def when(run, module, **values):
    def altered():
        with changed(module, **values):
            run()
    return altered


def fresh(name, shape, dtype=np.float32):
    return np.empty(shape, dtype)


def ideas():
    """(idea, with it, without it), each a function of nothing"""
    q, k, v = draw(2, 4096, 320), draw(2, 4096, 320), draw(2, 4096, 320)
    attention = lambda: cpu.attention(q, k, v, 8)  # noqa: E731
    yield "attention, 4096 tokens of 8 heads: no maximum looked for", attention, when(attention, cpu, SAFE=-1)
    yield "the same: tiles of 512 keys, not whole rows", attention, when(attention, cpu, KEYS=4096)
    yield "the same: tiles of 512 queries, not 128", attention, when(attention, cpu, QUERIES=128)
    yield "the same: tiles of 512x512, not 1024x1024", attention, when(attention, cpu, QUERIES=1024, KEYS=1024)

    for B, H, C, O in ((2, 8, 1280, 1280), (2, 16, 1280, 1280), (2, 32, 640, 640), (2, 64, 320, 320), (1, 512, 128, 128)):
        x, rest = conv(B, H, C, O)
        run = lambda x=x, rest=rest: convolution.norm_conv2d(x, *rest)  # noqa: E731
        for winograd in (convolution.SMALL, convolution.LARGE):
            yield (f"convolution, {B}x{H}x{H}, {C} -> {O}: Winograd of {winograd.m}x{winograd.m}, not im2col",
                   when(run, convolution, TILES=1, SMALL=winograd, LARGE=winograd), when(run, convolution, TILES=1 << 60))
    weight, bias = rest[1]
    norm = lambda: cpu.group_norm(x, *rest[0], 32, 1e-5, "silu")  # noqa: E731
    yield "the last one: normalised on the way in", run, lambda: convolution.conv2d(norm(), weight, bias, pad=(1, 1))
    yield "the last one: scratch memory used again", run, when(when(run, cpu, scratch=fresh), convolution, scratch=fresh)
    place = x.copy()
    yield "the last one: written over its input", lambda: convolution.normed(place, *rest, overwrite_x=True), run

    small, w, b = draw(1, 128, 128, 512), draw(3, 3, 512, 512) / 70, draw(512)
    yield ("doubled to 256x256, 512 -> 512: read from the small picture", lambda: convolution.upsample_conv2d(small, w, b, (256, 256)),
           lambda: convolution.conv2d(ops.upsample_to(small, (256, 256)), w, b, pad=(1, 1)))

    h, wide, wide_bias = draw(2, 4096, 320), draw(2560, 320) / 18, draw(2560)
    geglu = lambda: cpu.linear_geglu(h, wide, wide_bias)  # noqa: E731
    yield "linear 320 -> 2560 and geglu, 8192 tokens: in blocks", geglu, lambda: ops.geglu.definition(cpu.linear(h, wide, wide_bias))
    yield "the same: scratch memory used again", geglu, when(geglu, cpu, scratch=fresh)
    yield "linear 320 -> 2560: strips on our threads, not BLAS's own", lambda: cpu.linear(h, wide), lambda: h @ wide.T
    yield "layer norm, 8192 tokens", lambda: cpu.layer_norm(h, bias=b[:320], weight=b[:320]), lambda: ops.layer_norm.definition(
        h, b[:320], b[:320])


def items(count):
    """Which pieces there are depends on the number of threads, not on the processors."""
    threads.use(count)
    stages = []

    def parallel(job, items, together=1, run=threads.parallel):
        items = list(items)
        stages.append(str(max(1, min(len(items), len(items) // together))))
        run(job, items, together)

    print(f"| operation | pieces for {count} threads, stage by stage |\n|---|---|")
    with changed(cpu, parallel=parallel), changed(convolution, parallel=parallel):
        for side, C in ((64, 320), (32, 640), (16, 1280), (8, 1280)):
            N = side * side
            h, (x, rest) = draw(2, N, C), conv(2, side, C, C)
            for name, run in ((f"norm_conv2d 2x{side}x{side}, {C} -> {C}", lambda: convolution.norm_conv2d(x, *rest)),
                              (f"attention, {N} tokens", lambda: cpu.attention(h, h, h, 8)),
                              (f"linear {C} -> {C}, {2 * N} tokens", lambda: cpu.linear(h, rest[1][0][0, 0])),
                              (f"linear {C} -> {8 * C} and geglu", lambda: cpu.linear_geglu(h, draw(8 * C, C), draw(8 * C))),
                              (f"layer_norm, {2 * N} tokens", lambda: cpu.layer_norm(h, *rest[0]))):
                stages.clear()
                run()
                print(f"| {name} | {', '.join(stages)} |")
        x, rest = conv(1, 512, 128, 128)
        stages.clear()
        convolution.norm_conv2d(x, *rest)
        print(f"| norm_conv2d 1x512x512, 128 -> 128 | {', '.join(stages)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--items", type=int, metavar="THREADS", help="print the pieces for so many threads instead")
    a = parser.parse_args()
    repeat = a.repeat
    if a.items:
        return items(a.items)
    print(f"{threads.count()} threads; NumPy's products: {threads.blas()}\n\n| idea | with | without | ratio |\n|---|---|---|---|")
    for name, *ways in ideas():
        for way in ways:
            way()
        seconds = [[], []]
        for _ in range(repeat):
            for found, way in zip(seconds, ways):
                time.sleep(0.1)                              # BLAS's own threads wait busily for the next product, a while
                start = time.perf_counter()
                way()
                found.append(time.perf_counter() - start)
        ours, plain = map(statistics.median, seconds)
        print(f"| {name} | {1000 * ours:.1f} ms | {1000 * plain:.1f} ms | {ours / plain:.2f} |", flush=True)


if __name__ == "__main__":
    main()
