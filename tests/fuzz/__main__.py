"""python -m tests.fuzz [COUNT] [--seed N] [--only KIND] [--repeat KIND:SEED]

COUNT mutated inputs, each in a process of its own; prints how many ended how, and every bad one with what repeats it.
The exit code is 0 if none was bad."""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # several cases run at a time


def main():
    from . import cases, process

    p = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    p.add_argument("count", nargs="?", type=int, default=500)
    p.add_argument("--seed", type=int, help="of the inputs that are drawn (another each time, and printed)")
    p.add_argument("--only", choices=list(cases.CASES))
    p.add_argument("--all", action="store_true", help="print every case, not the bad ones alone")
    p.add_argument("--repeat", metavar="KIND:SEED", help="one case again, in this process, with its traceback")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as place:
        cases.prepare(Path(place) / "models")
        if a.repeat:
            kind, _, seed = a.repeat.rpartition(":")
            there = Path(place) / "case"
            there.mkdir()
            os.chdir(there)
            cases.CASES[kind][1](random.Random(int(seed)), there)
            return 0
        seed = random.SystemRandom().getrandbits(32) if a.seed is None else a.seed
        print(f"seed {seed}")
        r = random.Random(seed)
        kinds, weights = zip(*((k, w) for k, (w, _) in cases.CASES.items() if a.only in (None, k)))
        jobs = [(kind, cases.CASES[kind][1], r.getrandbits(32)) for kind in r.choices(kinds, weights, k=a.count)]
        return report(process.run_all(jobs, Path(place), len(os.sched_getaffinity(0))), () if a.all else process.GOOD, process.GOOD)


def report(results, quiet, good):
    begun, counts = time.monotonic(), Counter()
    for kind, seed, what, words in results:
        counts[kind, what] += 1
        if what not in quiet:
            print(f"{what}: --repeat {kind}:{seed}   {words}", flush=True)
    outcomes = sorted({what for _, what in counts}, key=lambda w: (w not in good, w))
    print(f"\n{'kind':<16}" + "".join(f"{what:>12}" for what in outcomes))
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:<16}" + "".join(f"{counts[kind, what]:>12}" for what in outcomes))
    bad = sum(n for (_, what), n in counts.items() if what not in good)
    print(f"{sum(counts.values())} inputs in {time.monotonic() - begun:.0f} s, {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
