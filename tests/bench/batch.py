"""Pictures a minute of `minisd batch`, by how the processors are shared out:

    python tests/bench/batch.py [--folder DIR] [--repeat 3] [--shipped]

Needs `pip install '.[ray,goldens]'`, 3 GB of disk and a machine that does nothing else.  The models are the one that comes with minisd,
and Stable Diffusion 1.5's configuration with seeded random float16 weights at 256x256.  The ways are run in turn, each from an empty
folder; counted is from the middle picture to the last, by the times of the files, for the start of Ray and of the models comes once.  All
figures are medians; the ratio is to one worker with all threads."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cpu

CORES = len(os.sched_getaffinity(0))
WAYS = {f"1 worker, {CORES} threads": [], f"{CORES} workers, 1 thread each": ["--workers", CORES],
        f"1 worker, {CORES} threads, 4 rows together": ["--together", 4]}


def rate(options, count, how, place):
    """Pictures a minute of so many rows, drawn by `minisd batch` with these options."""
    (place / "rows.jsonl").write_text("".join(json.dumps(dict(how, prompt="a red apple", seed=k)) + "\n" for k in range(count)))
    with tempfile.TemporaryDirectory(dir=place) as folder:
        words = [sys.executable, "-m", "minisd", "batch", place / "rows.jsonl", "-o", folder, "--quiet", *options]
        subprocess.run(list(map(str, words)), check=True, capture_output=True)
        times = sorted(p.stat().st_mtime for p in Path(folder).glob("*.png"))
    return 60 * (count - count // 2) / (times[-1] - times[count // 2 - 1])          # rows of one call end together, 4 by 4


def measure(name, options, count, how, place, repeat):
    found = {way: [] for way in WAYS}
    for _ in range(repeat):
        for way, own in WAYS.items():
            found[way].append(rate([*options, *own], count, how, place))
    base = statistics.median(found[next(iter(WAYS))])
    for way, rates in found.items():
        middle = statistics.median(rates)
        print(f"| {name} | {way} | {middle:.3g} | {middle / base:.2f} | {min(rates):.3g} - {max(rates):.3g} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the model is, or will be written (a temporary one)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--shipped", action="store_true", help="the model that comes with minisd alone")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print("| model | shared out as | pictures a minute | ratio | from, to |\n|---|---|---|---|---|")
        measure("shipped, 128x128, 20 steps", [], 40, {}, Path(place), a.repeat)
        if a.shipped:
            return
        folder = cpu.written(a.folder or Path(place))
        measure("SD 1.5's sizes, 256x256, 2 steps", ["-m", folder], 8, dict(num_inference_steps=2, width=256, height=256),
                Path(place), a.repeat)


if __name__ == "__main__":
    main()
