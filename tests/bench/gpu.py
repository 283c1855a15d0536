"""How fast, in how much memory, on this GPU: Stable Diffusion 1.5 at 512x512, batch 2 for guidance, random weights.

    python tests/bench/gpu.py [--no-torch] [--repeat 9]

Needs CuPy and 6 GB of GPU memory; no checkpoint and no network.  Beside minisd, in the same run, where torch and diffusers are
installed: torch's scaled_dot_product_attention, cuDNN's convolution and cuBLAS on the same shapes, and diffusers' unet, as it is and
compiled.  Times are medians of CUDA graphs, ours and torch's, over inputs that exceed the caches, random, never zeros."""
import argparse
import datetime
import statistics
import sys
import time
from pathlib import Path

import cupy
import numpy as np

sys.path[:0] = [str(Path(__file__).parent.parent)]
import drawn_models  # noqa: E402
import layer_sizes  # noqa: E402

import minisd.backend.cuda  # noqa: E402, F401  (registers itself)
from minisd import denoising  # noqa: E402
from minisd.backend import ops  # noqa: E402
from minisd.backend.device import GPU, Recorded  # noqa: E402
from minisd.checkpoint.weights import Weights, engine_layout  # noqa: E402
from minisd.diffusion import samplers  # noqa: E402
from minisd.networks import unet, vae  # noqa: E402
from minisd.networks.unet_config import UNetConfig  # noqa: E402
from minisd.networks.vae_config import VAEConfig  # noqa: E402

RANDOM = np.random.default_rng(0)
CACHE = 200 << 20                                            # more than any L2 there is
REPEAT = 9


def normal(*shape, scale=1.0):
    """Random numbers on the GPU, float16."""
    return cupy.asarray((RANDOM.standard_normal(shape, np.float32) * np.float32(scale)).astype(np.float16))


def events_ms(run, calls=1):
    """The median time of run(), which makes `calls` calls, per call."""
    times, start, end = [], cupy.cuda.Event(), cupy.cuda.Event()
    for _ in range(REPEAT):
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, end) / calls)
    return statistics.median(times)


def rotated(arrays):
    """As many copies of a call's arrays as exceed the caches."""
    return [[a.copy() for a in arrays] for _ in range(CACHE // sum(a.nbytes for a in arrays) + 1)]


def median_ms(call, groups):
    """call(*arrays) for each group of arrays, recorded as one graph: milliseconds a call."""
    width = len(groups[0])

    def all_of(**named):
        arrays = list(named.values())
        for i in range(0, len(arrays), width):
            y = call(*arrays[i:i + width])
        return y

    recorded, flat = Recorded(all_of, cupy), {f"a{i}": a for i, a in enumerate(a for group in groups for a in group)}
    recorded(**flat)
    return events_ms(launcher(recorded, flat), len(groups))


def launcher(recorded, arrays):
    """What replays it; what runs it as written where it could not be recorded, as a warning has said."""
    return recorded.graph.launch if recorded.graph else lambda: recorded.network(**arrays)


def row(*cells):
    print(f"| {' | '.join(str(c) for c in cells)} |", flush=True)


def head(title, *cells):
    print(f"\n### {title}\n")
    row(*cells)
    print("|" + "---|" * len(cells))


def rates():
    """(TFLOP/s of a large product by cuBLAS, TB/s of a copy, read and write), measured."""
    a, b = normal(8192, 8192), normal(8192, 8192)
    a @ b
    product = 2 * 8192**3 / events_ms(lambda: a @ b) / 1e9
    x, y = cupy.zeros(1 << 29, np.uint8), cupy.empty(1 << 29, np.uint8)

    def copy():
        y[...] = x

    copy()
    return product, 2 * x.nbytes / events_ms(copy) / 1e9


def torch_ms(torch, run, groups):
    """The same for torch: run(*arrays) for each group, as one graph, after it has chosen its kernels."""
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for group in groups[:3]:
            run(*group)
    torch.cuda.current_stream().wait_stream(aside)
    with torch.cuda.graph(graph):
        for group in groups:
            run(*group)
    graph.replay()
    torch.cuda.synchronize()
    times = []
    for _ in range(REPEAT):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / len(groups))
    return statistics.median(times)


def queued_ms(torch, run):
    """Milliseconds of run() as its users have it, called from Python, five in a row."""
    for _ in range(3):
        run()
    times = []
    for _ in range(REPEAT):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        start.record()
        for _ in range(5):
            run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 5)
    return statistics.median(times)


def layers(torch, product):
    """Attention, convolution and linear layers at the unet's own shapes, in TFLOP/s."""
    beside = [] if torch is None else ["torch, ms", "ratio"]
    totals = {}

    def line(label, count, flops, ms, theirs=None):
        row(label, count, f"{ms:.4f}", f"{flops / ms / 1e9:.0f}", f"{flops / ms / 1e9 / product:.0%}",
            *([] if theirs is None else [f"{theirs:.4f}", f"{ms / theirs:.2f}"]))
        total = totals.setdefault(kind, [0.0, 0.0])
        total[0] += count * ms
        total[1] += count * (theirs or 0)

    kind = "attention"
    head("Attention", "B, N, M, heads, width", "a call has", "ms", "TFLOP/s", "of the product's rate", *beside)
    for shape, count in [*layer_sizes.ATTENTIONS.items(), *((s, 0) for s in layer_sizes.OTHER_ATTENTIONS)]:
        B, N, M, heads, d = shape
        groups, theirs = rotated([normal(B, N, heads * d), normal(B, M, heads * d), normal(B, M, heads * d)]), None
        if torch is not None:
            def sdpa(q, k, v, heads=heads):
                q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
                return torch.nn.functional.scaled_dot_product_attention(q, k, v)
            theirs = torch_ms(torch, sdpa, [[torch.as_tensor(a, device="cuda") for a in g] for g in groups])
        line(shape, count, 4 * B * heads * N * M * d, median_ms(lambda q, k, v, heads=heads: ops.attention(q, k, v, heads), groups), theirs)
    kind = "convolution"
    head("3x3 convolution", "B, H, W, C, O", "a call has", "ms", "TFLOP/s", "of the product's rate", *beside)
    for shape, count in layer_sizes.CONVOLUTIONS.items():
        B, H, W, C, O = shape
        groups, theirs = rotated([normal(B, H, W, C), normal(3, 3, C, O, scale=(9 * C) ** -0.5), normal(O)]), None
        if torch is not None:
            last = torch.channels_last
            theirs = torch_ms(torch, lambda x, w, b: torch.nn.functional.conv2d(x, w, b, padding=1), [
                [torch.as_tensor(x, device="cuda").permute(0, 3, 1, 2), torch.as_tensor(w, device="cuda").permute(3, 2, 0, 1).contiguous(
                    memory_format=last), torch.as_tensor(b, device="cuda")] for x, w, b in groups])
        line(shape, count, 2 * B * H * W * 9 * C * O, median_ms(lambda x, w, b: ops.conv2d(x, w, b, pad=(1, 1)), groups), theirs)
    kind = "linear"
    head("Linear layers", "rows, inputs, outputs, geglu", "a call has", "ms", "TFLOP/s", "of the product's rate", *beside)
    for shape, count in layer_sizes.LINEARS.items():
        rows, K, O, geglu = shape
        groups, theirs = rotated([normal(rows, K), normal(O, K, scale=K**-0.5), normal(O)]), None
        if torch is not None:
            def torch_linear(x, w, b, geglu=geglu):
                y = torch.nn.functional.linear(x, w, b)
                if geglu:
                    h, gate = y.chunk(2, -1)
                    return h * torch.nn.functional.gelu(gate)
                return y
            theirs = torch_ms(torch, torch_linear, [[torch.as_tensor(a, device="cuda") for a in g] for g in groups])
        line(shape, count, 2 * rows * K * O, median_ms(ops.linear_geglu if geglu else ops.linear, groups), theirs)
    head("All of one unet call's, by kind", "kind", "ms", *(["torch, ms", "ratio"] if torch is not None else []))
    for kind, (ours, theirs) in totals.items():
        row(kind, f"{ours:.3f}", *([f"{theirs:.3f}", f"{ours / theirs:.2f}"] if torch is not None else []))


def random_weights(shapes):
    return Weights.over(shapes, lambda n: cupy.asarray(engine_layout(drawn_models.weight(n, shapes[n]), np.float16)))


class ByOperation:
    """Milliseconds of each operation of a network run as written, by events around it, and the least time that its arithmetic and its
    memory traffic would take at the measured rates."""

    def __init__(self, product, copy):
        self.rates, self.marks = (product, copy), []

    def __call__(self, name, run, *args, **kwargs):
        from minisd.probe.profile import products
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        y = run(*args, **kwargs)
        end.record()
        given = [*args, *kwargs.values()]
        given += [a for x in given if isinstance(x, (list, tuple)) for a in x]
        traffic = y.nbytes + sum(a.nbytes for a in given if isinstance(a, cupy.ndarray))
        self.marks.append((name, start, end, max(products(name, args, kwargs, y) / self.rates[0] / 1e9, traffic / self.rates[1] / 1e9)))
        return y

    def table(self):
        rows = {}
        for name, start, end, floor in self.marks:
            calls, ms, least = rows.get(name, (0, 0.0, 0.0))
            rows[name] = calls + 1, ms + cupy.cuda.get_elapsed_time(start, end), least + floor
        head("One unet call by operation, run as written", "operation", "calls", "ms", "floor, ms", "floor's share")
        for name, (calls, ms, floor) in sorted(rows.items(), key=lambda r: -r[1][1]):
            row(name, calls, f"{ms:.3f}", f"{floor:.3f}", f"{floor / ms:.0%}")
        calls, ms, floor = map(sum, zip(*rows.values()))
        row("all", calls, f"{ms:.3f}", f"{floor:.3f}", f"{floor / ms:.0%}")


def whole(torch, product, copy):
    config, p = UNetConfig(), random_weights(layer_sizes.unet_shapes(**layer_sizes.SD15))
    x, t, context = normal(2, 64, 64, 4), cupy.asarray(np.float32([981, 981])), normal(2, 77, 768)

    def network(x, t, context):
        return unet.unet(p, x, t, context, config)

    recorded = Recorded(network, cupy)
    recorded(x=x, t=t, context=context)
    for _ in range(3):
        by = ByOperation(product, copy)
        with ops.watch(by):
            network(x, t, context)
        cupy.cuda.Device().synchronize()
    by.table()
    ms = events_ms(launcher(recorded, dict(x=x, t=t, context=context)))
    sampler = samplers.sampler("euler", dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                             _class_name="EulerDiscreteScheduler"), 50)

    def predict(x, t, i):
        both = np.concatenate([x, x]).astype(np.float16)
        out = recorded(x=cupy.asarray(both), t=cupy.asarray(np.full(2, t, np.float32)), context=context)
        out = cupy.asnumpy(out).astype(np.float32)
        return out[:1] + 7.5 * (out[1:] - out[:1])

    speeds = []
    for _ in range(3):
        start = time.perf_counter()
        noise = RANDOM.standard_normal((1, 64, 64, 4), np.float32) * np.float32(sampler.init_sigma)
        steps = sum(1 for _ in denoising.denoise(predict, sampler, noise, None))
        speeds.append(steps / (time.perf_counter() - start))
    decoder, vae_config = random_weights(layer_sizes.decoder_shapes(**layer_sizes.DECODER)), VAEConfig()
    decode = Recorded(lambda z: vae.decode(decoder, z, vae_config), cupy)
    z = normal(1, 64, 64, 4)
    decode(z=z)
    pools = filter(None, [cupy.get_default_memory_pool(), recorded.pool, decode.pool])
    head("The whole, 512x512", "", "minisd")
    row("unet call of batch 2, as a graph", f"{ms:.3f} ms")
    row("steps a second, guidance on, sampler and copies included", f"{statistics.median(speeds):.1f} it/s")
    row("vae decode", f"{events_ms(launcher(decode, dict(z=z))):.3f} ms")
    row("memory taken from the GPU: weights and work of unet and decoder", f"{sum(pool.total_bytes() for pool in pools) / 1e9:.2f} GB")
    if torch is None:
        return
    try:
        from diffusers import UNet2DConditionModel
    except ImportError:
        print("\ndiffusers is not installed: no whole network beside.")
        return
    from full_size import MODELS
    with torch.device("cuda"):
        net = UNet2DConditionModel(**MODELS["sd15"]["unet"]).half().eval().to(memory_format=torch.channels_last)
        given = torch.randn(2, 4, 64, 64).half().to(memory_format=torch.channels_last), torch.tensor(981), torch.randn(2, 77, 768).half()
    with torch.no_grad():
        row("diffusers, a unet call", f"{queued_ms(torch, lambda: net(*given)):.3f} ms")
        compiled = torch.compile(net, mode="max-autotune", fullgraph=True)
        row("diffusers, compiled", f"{queued_ms(torch, lambda: compiled(*given)):.3f} ms")


def main():
    global REPEAT
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--repeat", type=int, default=REPEAT)
    a = parser.parse_args()
    REPEAT = a.repeat
    GPU()                                                    # says what is missing, if anything is
    torch = None
    if not a.no_torch:
        try:
            import torch
            torch.backends.cudnn.benchmark = True
        except ImportError:
            print("torch is not installed: nothing to compare with.")
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    product, copy = rates()
    print(f"{properties['name'].decode()}, compute capability {properties['major']}.{properties['minor']}, {datetime.date.today()}, "
          f"CuPy {cupy.__version__}{'' if torch is None else f', torch {torch.__version__}'}\n\n"
          f"A product of 8192x8192 by cuBLAS: {product:.0f} TFLOP/s.  A copy: {copy:.2f} TB/s.")
    layers(torch, product)
    whole(torch, product, copy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
