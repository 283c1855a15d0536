"""What an explanation costs beside the picture alone, on this machine: seconds, memory, and the size of its page.

    python tests/bench/explain.py [--folder DIR] [--repeat 1] [--steps 20] [--shipped]

Needs `pip install '.[goldens]'`, 3 GB of disk and a machine that does nothing else.  The models are the one that comes with minisd, and
Stable Diffusion 1.5's configuration with seeded random float16 weights at 512x512; each run is a process of its own, in turn, from its
start to the file.  All figures are medians."""
import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import cpu

PROMPT = "a red apple on a blue background"


def measure(name, options, place, repeat):
    """A row of the table: one model."""
    common = [PROMPT, *options, "--seed", 1, "--quiet"]
    commands = {"txt2img": [sys.executable, "-m", "minisd", "txt2img", *common, "-o", place / "out.png"],
                "explain": [sys.executable, "-m", "minisd", "explain", *common, "-o", place / "out.html"]}
    found = {command: [] for command in commands}
    for _ in range(repeat):
        for command, words in commands.items():
            found[command].append(cpu.whole(words, os.environ)[:2])
    (plain, plain_peak), (ours, peak) = (map(statistics.median, zip(*found[command])) for command in commands)
    print(f"| {name} | {plain:.1f} s | {ours:.1f} s | {ours / plain:.2f} | {plain_peak:.0f} MB | {peak:.0f} MB | {peak / plain_peak:.2f} | "
          f"{(place / 'out.html').stat().st_size / 1e6:.2f} MB |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the model is, or will be written (a temporary one)")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--shipped", action="store_true", help="the model that comes with minisd alone")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print("| model | txt2img | explain | ratio | peak | peak | ratio | page |\n|---|---|---|---|---|---|---|---|")
        measure("shipped, 128x128, 20 steps", [], Path(place), max(3, a.repeat))
        if a.shipped:
            return
        sizes = ["-m", cpu.written(a.folder or Path(place)), "--size", "512x512", "--steps", a.steps]
        measure(f"SD 1.5's sizes, 512x512, {a.steps} steps", sizes, Path(place), a.repeat)


if __name__ == "__main__":
    main()
