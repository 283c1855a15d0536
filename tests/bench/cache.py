"""What step caching (--cache-interval N) saves, and how far its pictures are from those of whole runs:

    python tests/bench/cache.py [--folder DIR] [--repeat 3] [--shipped]

Needs `pip install '.[goldens]'`, 3 GB of disk and a machine that does nothing else.  Time: Stable Diffusion 1.5's configuration with
seeded random float16 weights, the denoising loop of 6 steps at 512x512 with guidance, the intervals in turn, medians.  Distance: the model
that comes with minisd, 24 prompts in its default 20 steps, each held against the whole run of the same seed: the median and the worst root
mean square over a picture, in levels of 255; beside it the distance that one seed has from another."""
import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import cpu
import numpy as np

import minisd

INTERVALS = (1, 2, 3, 5)
THINGS = ("apple", "car", "cat", "house", "tree", "star", "fish", "ship")
PROMPTS = [f"a {colour} {thing} on a {ground} background" for colour, ground in (("red", "blue"), ("green", "white"), ("yellow", "black"))
           for thing in THINGS]


def distance(a, b):
    return 255 * float(np.sqrt(((a - b) ** 2).mean()))


def times(pipe, repeat):
    """{interval: seconds of the denoising loop}"""
    found = {interval: [] for interval in INTERVALS}
    for _ in range(repeat):
        for interval in INTERVALS:
            start = time.perf_counter()
            for _ in pipe.txt2img_steps("a castle", num_inference_steps=6, width=512, height=512, seed=1, sampler="ddim",
                                        cache_interval=interval):
                pass
            found[interval].append(time.perf_counter() - start)
    return {interval: statistics.median(seconds) for interval, seconds in found.items()}


def distances():
    """{interval: [distance of each prompt]}, and the distances between two seeds of it"""
    pipe = minisd.load()

    def draw(prompt, seed, interval):
        return pipe.txt2img(prompt, seed=seed, cache_interval=interval, output="array")[0]

    whole = [draw(prompt, 1, 1) for prompt in PROMPTS]
    found = {interval: [distance(draw(prompt, 1, interval), w) for prompt, w in zip(PROMPTS, whole)] for interval in INTERVALS}
    return found, [distance(draw(prompt, 2, 1), w) for prompt, w in zip(PROMPTS, whole)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the model is, or will be written (a temporary one)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--shipped", action="store_true", help="the model that comes with minisd alone: distances, no times")
    a = parser.parse_args()
    warnings.simplefilter("ignore")                          # words that the small model does not know
    far, seeds = distances()
    seconds = {}
    if not a.shipped:
        with tempfile.TemporaryDirectory() as place:
            pipe = minisd.load(cpu.written(a.folder or Path(place)))
            next(pipe.txt2img_steps("a castle", num_inference_steps=1, width=512, height=512))     # reads the weights
            seconds = times(pipe, a.repeat)
    print("| interval | loop of 6 steps, 512x512 | ratio | distance, median | worst |\n|---|---|---|---|---|")
    for interval in INTERVALS:
        timed = f"{seconds[interval]:.1f} s | {seconds[interval] / seconds[1]:.2f}" if seconds else "|"
        print(f"| {interval} | {timed} | {statistics.median(far[interval]):.1f} | {max(far[interval]):.1f} |")
    print(f"| another seed | | | {statistics.median(seeds):.1f} | {max(seeds):.1f} |")


if __name__ == "__main__":
    main()
