"""How fast, in how much memory: minisd beside diffusers and OpenVINO in float32 and, given its binary, stable-diffusion.cpp, here.

    python tests/bench/cpu.py [--folder DIR] [--sdcpp PROGRAM] [--repeat 5] [--pictures 3] [--errors]

Needs `pip install '.[goldens,openvino]'`, 7 GB of disk, 20 GB of memory, and a machine that does nothing else.  The model is Stable
Diffusion 1.5's configuration with seeded random float16 weights.  Single calls: each library in a process of its own, in turn,
after a call that is not counted; whole pictures: a fresh process each, from its start to the PNG.  All figures are medians.
The first call: a fresh process's, without the time in which the weights' files are read by themselves, beside a later one.

Variables that choose the processor NumPy's products are tuned for (OPENBLAS_*) are left out of all these processes, so that each
library chooses for itself; --as-set keeps them.  --errors prints, instead, the error of each 3x3 convolution of unet and decoder
by Winograd's way and by patches, against its definition in float64."""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import full_size  # noqa: E402

PROMPT, STEPS, SIZE = full_size.PROMPT, 20, 512
CALLS = {"unet": "unet call, batch 2, 64x64", "vae": f"vae decode, {SIZE}x{SIZE}"}


def call(library, folder, cores):
    """A process that times one call for each line it reads: unet or vae, and a number of threads."""
    random = np.random.default_rng(0)
    x, z = (random.standard_normal(s, np.float32) for s in ((2, 4, 64, 64), (1, 4, 64, 64)))
    context = random.standard_normal((2, 77, 768), np.float32)
    if library == "openvino":
        import openvino
        how = dict(PERFORMANCE_HINT="LATENCY", INFERENCE_PRECISION_HINT="f32", INFERENCE_NUM_THREADS=cores)
        networks = {name: openvino.Core().compile_model(folder / "openvino" / f"{name}.xml", "CPU", how) for name in CALLS}
        run = {"unet": lambda: networks["unet"]((x, np.float32([981, 981]), context)), "vae": lambda: networks["vae"]((z,))}
        threads = lambda count: None  # noqa: E731           # said above; a network is compiled for so many
    elif library == "diffusers":
        import diffusers
        import torch
        full_size.quiet()
        unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
        vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        x, z, context, t = torch.from_numpy(x), torch.from_numpy(z), torch.from_numpy(context), torch.tensor([981.0, 981.0])
        run = {"unet": lambda: unet(x, t, context), "vae": lambda: vae.decode(z)}
        threads = torch.set_num_threads
    else:
        import minisd
        from minisd.backend.threads import use as threads
        from minisd.networks import unet, vae
        pipe = minisd.load(folder)
        x, z = x.transpose(0, 2, 3, 1).copy(), z.transpose(0, 2, 3, 1).copy()
        run = {"unet": lambda: unet.unet(pipe.unet, x, np.float32([981, 981]), context, pipe.model.unet_config),
               "vae": lambda: vae.decode(pipe.vae, z, pipe.model.vae_config)}
    for line in sys.stdin:
        what, count = line.split()
        threads(int(count))
        start = time.perf_counter()
        run[what]()
        print(time.perf_counter() - start, flush=True)


def convert(folder):
    """The two networks as OpenVINO has them, in float32, from diffusers'."""
    import diffusers
    import openvino
    import torch
    full_size.quiet()
    shapes = {"unet": ((2, 4, 64, 64), (2,), (2, 77, 768)), "vae": ((1, 4, 64, 64),)}
    for name, kind in (("unet", diffusers.UNet2DConditionModel), ("vae", diffusers.AutoencoderKL)):
        network = kind.from_pretrained(folder / name, torch_dtype=torch.float32)
        network.forward = partial(network.forward if name == "unet" else network.decode, return_dict=False)
        found = openvino.convert_model(network, example_input=tuple(map(torch.zeros, shapes[name])), input=list(shapes[name]))
        openvino.save_model(found, folder / "openvino" / f"{name}.xml", compress_to_fp16=False)


def picture(folder):
    """diffusers' own whole run, from its import to a PNG."""
    import diffusers
    import torch
    full_size.quiet()
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe(PROMPT, num_inference_steps=STEPS, height=SIZE, width=SIZE,
         generator=torch.Generator().manual_seed(0)).images[0].save(folder.parent / "diffusers.png")


class Peer:
    """A process that runs call()."""

    def __init__(self, library, folder, env, cores):
        self.process = subprocess.Popen([sys.executable, __file__, "--call", library, "--folder", folder, "--threads", str(cores)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def seconds(self, what, threads):
        print(what, threads, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def whole(command, env):
    """Run it -> (seconds, peak of resident memory in MB, what it printed)."""
    start = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))}\n{printed}\nfailed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6, printed


def written(place):
    """The folder of the model in `place`, written there by another process, whose memory does not count here, if it is not yet."""
    if not (place / "sd15" / "model_index.json").is_file():
        place.mkdir(parents=True, exist_ok=True)
        program = f"import full_size, pathlib; full_size.write_model(pathlib.Path({str(place)!r}), 'sd15')"
        subprocess.run([sys.executable, "-c", program], cwd=Path(full_size.__file__).parent, check=True)
    return place / "sd15"


def row(name, ours, theirs=None, bar=None, unit="s", openvino=None, openvino_bar=None):
    """A line of the table; a bar is of the ratio where there is a peer, else of the figure."""
    cells, held = [f"{ours:.2f} {unit}"], []
    for peer, most in ((theirs, bar), (openvino, openvino_bar)):
        ratio = ours / peer if peer else None
        held += [] if most is None else [(ratio or ours) <= most]
        cells += [f"{peer:.2f} {unit}" if peer else "", f"{ratio:.2f}" if peer else "", "" if most is None else f"{most:g}"]
    print(f"| {name} | {' | '.join(cells)} | {'' if not held else 'held' if all(held) else 'NOT HELD'} |", flush=True)


def calls(folder, env, repeat, cores):
    """Single calls, in turn."""
    counts = sorted({1, cores}, reverse=True)
    peers = {(name, n): Peer(name, folder, env, n) for name in ("minisd", "diffusers", "openvino")
             for n in (counts if name == "openvino" else counts[:1])}
    for what, title in CALLS.items():
        bars = (0.65, 0.9) if what == "unet" else (0.42, 0.8)
        for (_, n), peer in peers.items():
            peer.seconds(what, n)                            # reads the weights
        found = {}
        for _ in range(repeat):
            for n in counts:
                for name in ("minisd", "diffusers", "openvino"):
                    found.setdefault((name, n), []).append(peers[name, n if name == "openvino" else cores].seconds(what, n))
        for n in counts:
            ours, theirs, openvino = (statistics.median(found[name, n]) for name in ("minisd", "diffusers", "openvino"))
            row(f"{title}, {n} thread{'s' * (n > 1)}", ours, theirs, bars[0], "s", openvino, bars[1])
    for peer in peers.values():
        peer.close()
    first, later, files, piece = [], [], [], bytearray(1 << 24)          # in pieces: this process's own peak would count as its children's
    for _ in range(3):
        start = time.perf_counter()
        for path in (folder / "unet").glob("*.safetensors"):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(piece):
                    pass
        files.append(time.perf_counter() - start)
        peer = Peer("minisd", folder, env, cores)
        first.append(peer.seconds("unet", cores))
        later.append(peer.seconds("unet", cores))
        peer.close()
    read, later = statistics.median(files), statistics.median(later)
    row(f"first unet call, less the {read:.1f} s of reading its file, beside a later one", statistics.median(first) - read, later, 1.3)


def pictures(folder, env, repeat):
    """Whole runs, in turn."""
    minisd = [sys.executable, "-m", "minisd", "txt2img"]
    ours = [*minisd, PROMPT, "-m", folder, "--steps", STEPS, "--size", f"{SIZE}x{SIZE}", "--seed", 0, "--quiet", "-o",
            folder.parent / "minisd.png"]
    commands = {"minisd": ours, "diffusers": [sys.executable, __file__, "--picture", "--folder", folder],
                "low": [*ours, "--low-memory"]}
    found = {name: [] for name in commands}
    for _ in range(repeat):
        for name, command in commands.items():
            found[name].append(whole(command, env)[:2])
    (ours, our_peak), (theirs, their_peak), (low, low_peak) = (map(statistics.median, zip(*found[name])) for name in commands)
    title = f"txt2img {SIZE}x{SIZE}, {STEPS} steps, start to PNG"
    row(title, ours, theirs, 0.7)
    row("the same, peak memory", our_peak, their_peak, 0.8, "MB")
    row("--low-memory, peak memory", low_peak, None, 650, "MB")
    row("--low-memory, time, beside minisd without it", low, ours, 2)
    small = [whole([*minisd, "a red apple on a blue background", "--seed", 1, "--quiet", "-o", folder.parent / "small.png"], env)
             for _ in range(5)]
    row("shipped model, start to PNG", statistics.median(s[0] for s in small))
    imports = [float(whole([sys.executable, "-c", "import time; a = time.perf_counter(); import minisd; print(time.perf_counter() - a)"],
                           env)[2]) for _ in range(5)]
    row("import minisd", statistics.median(imports), None, 0.2)


def sdcpp(program, folder, env, cores):
    """stable-diffusion.cpp, given the same weights in one file, says itself how long its parts took."""
    from safetensors.numpy import load_file, save_file
    file, arrays = folder.parent / "sd15.safetensors", {}
    for part, prefix, stem in (("unet", "unet", "diffusion_pytorch_model"), ("vae", "vae", "diffusion_pytorch_model"),
                               ("text_encoder", "te.text_model", "model")):
        arrays.update({f"{prefix}.{name}": a for name, a in load_file(folder / part / f"{stem}.safetensors").items()})
    save_file(arrays, file)
    del arrays
    _, peak, printed = whole([program, "-m", file, "-p", PROMPT, "--steps", 2, "--cfg-scale", 7.5, "-W", SIZE, "-H", SIZE, "-s", 0,
                              "-t", cores, "-o", folder.parent / "sdcpp.png"], env)
    parts = {name: float(re.search(pattern, printed)[1]) for name, pattern in
             (("sampling", r"sampling completed, taking ([\d.]+)s"), ("decode", r"decode_first_stage completed, taking ([\d.]+)s"))}
    print(f"\nstable-diffusion.cpp, {cores} threads: {parts['sampling'] / 2:.1f} s a step (two unet calls of batch 1), "
          f"{parts['decode']:.1f} s a decode, peak {peak:.0f} MB")


def errors(folder):
    """The largest error of each 3x3 convolution of stride 1, on the activations that it meets, relative to its largest output."""
    import minisd
    from minisd.backend import convolution, ops
    from minisd.networks import nn, unet, vae
    pipe = minisd.load(folder)
    random, found = np.random.default_rng(0), {}

    def wide(a):
        return a.astype(np.float64) if isinstance(a, np.ndarray) else a

    def watch(name, run, *args, **kwargs):
        if name in ("conv2d", "upsample_conv2d") and kwargs.get("stride", 1) == 1:
            weight = args[1]
            with ops.definitions_only():
                exact = ops.DEFINITIONS[name](*map(wide, args), **{k: wide(v) for k, v in kwargs.items()})
            found_by = []
            for tiles in (1, 1 << 60, usual):                # from how many tiles on the Winograd algorithm is used
                convolution.TILES = tiles
                with np.errstate(all="ignore"):
                    y = run(*args, **kwargs)
                found_by.append(np.abs(y - exact).max() / np.abs(exact).max())
            convolution.TILES = usual
            path = next(n.removesuffix(".weight") for part in (pipe.unet, pipe.vae) for n, w in part._leaves.items() if w is weight)
            best = convolution.best_winograd((*exact.shape[:3], weight.shape[2]), weight.shape)
            best = None if name == "upsample_conv2d" and best is not convolution.LARGE else best
            taken = "im2col" if best is None else f"Winograd, {best.m}x{best.m}"
            if weight.shape[:2] == (3, 3):
                found[path] = (f"{exact.shape[1]}x{exact.shape[2]}", f"{weight.shape[2]} -> {weight.shape[3]}", *found_by, taken)
        return run(*args, **kwargs)

    usual = convolution.TILES
    with nn.trace(), ops.watch(watch):                       # traced, each convolution is an operation of its own
        unet.unet(pipe.unet, random.standard_normal((2, 64, 64, 4), np.float32), np.float32([981, 333]),
                  random.standard_normal((2, 77, 768), np.float32), pipe.model.unet_config)
        vae.decode(pipe.vae, random.standard_normal((1, 32, 32, 4), np.float32), pipe.model.vae_config)
    print("| layer | map | channels | Winograd, 4x4 | im2col | as chosen | which |\n|---|---|---|---|---|---|---|")
    for path, (size, channels, winograd, patches, own, taken) in found.items():
        print(f"| {path} | {size} | {channels} | {winograd:.1e} | {patches:.1e} | {own:.1e} | {taken} |")
    print(f"\nworst of those taken: {max(f[4] for f in found.values()):.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to keep the model (a temporary folder)")
    parser.add_argument("--sdcpp", type=Path, metavar="PROGRAM", help="stable-diffusion.cpp's command line program")
    parser.add_argument("--repeat", type=int, default=5, help="of single calls (%(default)s)")
    parser.add_argument("--pictures", type=int, default=3, help="whole pictures of each kind (%(default)s)")
    parser.add_argument("--as-set", action="store_true", help="keep OPENBLAS_* variables as they are set")
    parser.add_argument("--errors", action="store_true", help="print the convolutions' errors instead")
    parser.add_argument("--call", choices=["minisd", "diffusers", "openvino"], help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--convert", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--picture", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.call:
        return call(a.call, a.folder, a.threads)
    if a.convert:
        return convert(a.folder)
    if a.picture:
        return picture(a.folder)
    with tempfile.TemporaryDirectory() as temporary:
        place = a.folder or Path(temporary)
        folder = written(place)
        if a.errors:
            return errors(folder)
        if not (folder / "openvino" / "vae.xml").is_file():
            subprocess.run([sys.executable, __file__, "--convert", "--folder", folder], check=True)
        cores = len(os.sched_getaffinity(0))
        pinned = [] if a.as_set else sorted(v for v in os.environ if v.startswith("OPENBLAS_"))
        env = {k: v for k, v in os.environ.items() if k not in pinned}
        about = whole([sys.executable, "-c", "import diffusers, numpy, openvino, torch, minisd.backend.threads as t; print(t.blas(), "
                       "*(f'{m.__name__} {m.__version__}' for m in (numpy, torch, diffusers, openvino)), sep='; ')"], env)[2].strip()
        print(f"{cores} processors; NumPy's products: {about}"
              + "".join(f"; {v}={os.environ[v]} left out" for v in pinned) + "\n")
        print("| | minisd | diffusers | ratio | bar | OpenVINO | ratio | bar | |\n|---|---|---|---|---|---|---|---|---|", flush=True)
        calls(folder, env, a.repeat, cores)
        if a.pictures:
            pictures(folder, env, a.pictures)
        if a.sdcpp:
            sdcpp(a.sdcpp, folder, env, cores)


if __name__ == "__main__":
    main()
