"""What bounds a unet call on this machine: of each operation's time, how much is spent in products, and how much in exponentials.

    python tests/bench/floors.py [--folder DIR] [--repeat 3]

Needs `pip install '.[goldens]'`, 3 GB of disk and a machine that does nothing else.  The model is Stable Diffusion 1.5's configuration with
seeded random float16 weights, at 512x512 with guidance.  Products and exponentials (exp, exp2, tanh) are timed where they are called, in
every thread, and divided by the number of threads; what is left is the other passes over memory, Python, and waiting.  The last column is
how long the same products would take at the rate of a large one, all threads at once: no arrangement of them in NumPy's BLAS is faster."""
import argparse
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from cpu import written

import minisd
from minisd.backend import convolution, cpu, ops, threads
from minisd.networks import unet


class Timed:
    """NumPy, with a clock in its products and exponentials."""

    def __init__(self):
        self.lock, self.spent, self.products = threading.Lock(), defaultdict(float), 0

    def __getattr__(self, name):
        return getattr(np, name)

    def timed(self, kind, function):
        def call(*args, **kwargs):
            start = time.perf_counter()
            found = function(*args, **kwargs)
            with self.lock:
                self.spent[kind] += time.perf_counter() - start
                self.products += found.size * args[0].shape[-1] if kind == "products" else 0
            return found
        return call

    def reset(self):
        self.spent, self.products = defaultdict(float), 0


def full_rate(n=1536):
    """Products a second of all threads, each with a large product of its own."""
    pairs = [[np.ones((n, n), np.float32) for _ in range(3)] for _ in range(threads.count())]
    found = []
    for _ in range(7):
        start = time.perf_counter()
        threads.parallel(lambda k: np.matmul(pairs[k][0], pairs[k][1], out=pairs[k][2]), range(len(pairs)))
        found.append(len(pairs) * n**3 / (time.perf_counter() - start))
    return statistics.median(found)


def measured(pipe, clock):
    """{(operation, height of its map or its positions): [calls, seconds, in products, in exponentials, products]} of one unet call."""
    r, rows = np.random.default_rng(0), defaultdict(lambda: [0, 0.0, 0.0, 0.0, 0])

    def watch(name, run, x, *args, **kwargs):
        clock.reset()
        start = time.perf_counter()
        y = run(x, *args, **kwargs)
        shape = (x[0] if isinstance(x, (list, tuple)) else x).shape
        place = f"{shape[1]}x{shape[2]}" if len(shape) == 4 else f"{shape[1]} positions" if len(shape) == 3 else ""
        place += f", {args[0].shape[1]} keys" if name == "attention" else ""
        row = rows[name, place]
        for k, more in enumerate((1, time.perf_counter() - start, clock.spent["products"], clock.spent["exponentials"], clock.products)):
            row[k] += more
        return y

    with ops.watch(watch):
        unet.unet(pipe.unet, r.standard_normal((2, 64, 64, 4), np.float32), np.float32([981, 981]),
                  r.standard_normal((2, 77, 768), np.float32), pipe.model.unet_config)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the model is, or will be written (a temporary one)")
    parser.add_argument("--repeat", type=int, default=3)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = written(a.folder or Path(place))
        pipe = minisd.load(folder)
        clock = Timed()
        clock.matmul = clock.timed("products", np.matmul)
        for name in ("exp", "exp2", "tanh"):
            setattr(clock, name, clock.timed("exponentials", getattr(np, name)))
        cpu.np = convolution.np = clock
        cpu.EXP = clock.timed("exponentials", cpu.EXP)
        measured(pipe, clock)                                # reads the weights
        runs = [measured(pipe, clock) for _ in range(a.repeat)]
    rate, count = full_rate(), threads.count()
    print(f"{threads.blas()}, {count} threads: {2 * rate / 1e9:.0f} GFLOP/s\n")
    print("| operation | calls | seconds | products | exponentials | the rest | products at full rate |\n|---|---|---|---|---|---|---|")
    rows = {key: [statistics.median(column) for column in zip(*(run[key] for run in runs))] for key in runs[0]}
    large = sorted((key for key in rows if rows[key][1] >= 0.03), key=lambda key: -rows[key][1])
    others = [sum(column) for column in zip(*(rows[key] for key in rows if key not in large))]
    every = [sum(column) for column in zip(*rows.values())]
    for name, (calls, seconds, products, exponentials, numbers) in (
            *((" ".join(key), rows[key]) for key in large), ("all others", others), ("all", every)):
        print(f"| {name} | {calls:.0f} | {seconds:.2f} | {products / count:.2f} | {exponentials / count:.2f} | "
              f"{seconds - (products + exponentials) / count:.2f} | {numbers / rate:.2f} |")


if __name__ == "__main__":
    main()
