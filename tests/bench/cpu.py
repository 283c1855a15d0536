"""How fast, in how much memory: minisd beside diffusers in float32 and, given its binary, stable-diffusion.cpp, on this machine.

    python tests/bench/cpu.py [--folder DIR] [--sdcpp PROGRAM] [--repeat 5] [--pictures 3] [--errors]

Needs `pip install '.[goldens]'`, 3 GB of disk, 16 GB of memory, and a machine that does nothing else.  The model is Stable
Diffusion 1.5's configuration with seeded random float16 weights.  Single calls: each library in a process of its own, in turn,
after a call that is not counted; whole pictures: a fresh process each, from its start to the PNG.  All figures are medians.

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
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import full_size  # noqa: E402

PROMPT, STEPS, SIZE = full_size.PROMPT, 20, 512
CALLS = {"unet": "unet call, batch 2, 64x64", "vae": f"vae decode, {SIZE}x{SIZE}"}


def call(library, folder):
    """A process that times one call for each line it reads: unet, vae, or vae with a number of threads."""
    random = np.random.default_rng(0)
    x, z = (random.standard_normal(s, np.float32) for s in ((2, 4, 64, 64), (1, 4, 64, 64)))
    context = random.standard_normal((2, 77, 768), np.float32)
    if library == "diffusers":
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

    def __init__(self, library, folder, env):
        self.process = subprocess.Popen([sys.executable, __file__, "--call", library, "--folder", folder], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=env)

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


def row(name, ours, theirs=None, bar=None, unit="s"):
    ratio = f"{ours / theirs:.2f}" if theirs else ""
    held = "" if bar is None else "held" if (ours / theirs if theirs else ours) <= bar else "NOT HELD"
    bar = "" if bar is None else f"{bar:g}" if theirs else f"{bar:g} {unit}"
    theirs = f"{theirs:.2f} {unit}" if theirs else ""
    print(f"| {name} | {ours:.2f} {unit} | {theirs} | {ratio} | {bar} | {held} |", flush=True)


def calls(folder, env, repeat, cores):
    """Single calls, in turn."""
    peers = {name: Peer(name, folder, env) for name in ("minisd", "diffusers")}
    for what, title in CALLS.items():
        for peer in peers.values():
            peer.seconds(what, cores)                        # reads the weights
        found = {}
        for _ in range(repeat):
            for name, peer in peers.items():
                for threads in sorted({1, cores}, reverse=True):
                    found.setdefault((name, threads), []).append(peer.seconds(what, threads))
        for threads in sorted({1, cores}, reverse=True):
            ours, theirs = (statistics.median(found[name, threads]) for name in peers)
            bar = None if threads != cores else 0.7 if what == "unet" else 0.5
            row(f"{title}, {threads} thread{'s' * (threads > 1)}", ours, theirs, bar)
    for peer in peers.values():
        peer.close()


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
    row("the same, peak memory", our_peak, their_peak, 0.85, "MB")
    row("--low-memory, peak memory", low_peak, None, 700, "MB")
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
    parser.add_argument("--call", choices=["minisd", "diffusers"], help=argparse.SUPPRESS)
    parser.add_argument("--picture", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.call:
        return call(a.call, a.folder)
    if a.picture:
        return picture(a.folder)
    with tempfile.TemporaryDirectory() as temporary:
        place = a.folder or Path(temporary)
        folder = place / "sd15"
        if not (folder / "model_index.json").is_file():
            place.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, "-c", "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import full_size; "
                            "full_size.write_model(pathlib.Path(sys.argv[2]), 'sd15')", Path(__file__).parent.parent, place], check=True)
        if a.errors:
            return errors(folder)
        cores = len(os.sched_getaffinity(0))
        pinned = [] if a.as_set else sorted(v for v in os.environ if v.startswith("OPENBLAS_"))
        env = {k: v for k, v in os.environ.items() if k not in pinned}
        about = whole([sys.executable, "-c", "import numpy, torch, diffusers, minisd.backend.threads as t; print(f'{t.blas()}; NumPy "
                       "{numpy.__version__}; torch {torch.__version__}, diffusers {diffusers.__version__}')"], env)[2].strip()
        print(f"{cores} processors; NumPy's products: {about}"
              + "".join(f"; {v}={os.environ[v]} left out" for v in pinned) + "\n")
        print("| | minisd | diffusers, float32 | ratio | bar | |\n|---|---|---|---|---|---|", flush=True)
        calls(folder, env, a.repeat, cores)
        if a.pictures:
            pictures(folder, env, a.pictures)
        if a.sdcpp:
            sdcpp(a.sdcpp, folder, env, cores)


if __name__ == "__main__":
    main()
