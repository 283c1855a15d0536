"""Do the tests of kernels notice a fault?  Makes one small change at a time to the kernels and the code that launches them, in a copy, and
runs the tests that need no GPU.

    python tests/mutate_kernels.py 150 --seed 7            an hour or two on 2 cores; prints each change with what became of it
    python tests/mutate_kernels.py 150 --seed 7 --skip 60  the same changes from the 61st on
    python tests/mutate_kernels.py 20 --only layer_norm    in files whose name holds this

The tests of the changed file's own operations run first, the others if those pass; not those of planted bugs and of the study, which
replace lines of the kernels and so fail at a change of those lines, harmless or not.  What does not compile counts as noticed.  A
change that no test notices is shown as a diff: it is harmless (the numbers stay the same), or a test is missing."""
import argparse
import difflib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cudaemu import machine

ROOT = Path(__file__).parent.parent
FILES = [*sorted((ROOT / "kernels").glob("*.cu*")), *(ROOT / "minisd" / "backend" / f"{name}.py" for name in ("cuda", "launch", "device"))]
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|\"\"\".*?\"\"\"|(?<=\s)#\s[^\n]*|\"[^\"\n]*\"", re.S)
# (what is changed, into what)
CHANGES = [(r"(?<![\w.])\d+(?![\w.])", lambda m: str(int(m[0]) + 1)), (r"(?<![\w.])[1-9]\d*(?![\w.])", lambda m: str(int(m[0]) - 1)),
           (r"(?<= )<(?= )", "<="), (r"(?<= )<=(?= )", "<"), (r"(?<= )>(?= )", ">="), (r"(?<= )>=(?= )", ">"),
           (r"(?<= )==(?= )", "!="), (r"(?<= )\+(?= )", "-"), (r"(?<= )-(?= )", "+"), (r"(?<= )\*(?= )", "+"), (r"(?<= )/(?= )", "*"),
           (r"(?<= )%(?= )", "/"), (r"&&", "||"), (r"\|\|", "&&"), (r"\bmin\(", "max("), (r"\bmax\(", "min("), (r"\btrue\b", "false"),
           (r"\bfalse\b", "true"), (r"__syncthreads\(\);|__syncwarp\(\);|copies_commit\(\);", ";"),
           (r"\d\.\d+f", lambda m: f"{float(m[0][:-1]) * 1.01}f"), (r"\bnot \b", ""), (r" or ", " and "), (r" and ", " or ")]
TESTS = [f"tests/backend/test_{name}.py" for name in ("kernel_edges", "pool", "kernels", "counters")]
COUNTED = "not planted and not study"                        # the tests that may notice, as pytest's -k takes them
# {the beginning of a file's name: its own tests, as pytest's -k takes them}
FIRST = {"attention": "attention or scores or heads", "conv2d": "conv or tiles or depth or upsampling",
         "linear": "linear or geglu or depth or weights or tiles", "linear_few": "few_rows or declined",
         "group_norm": "group_norm or eps", "layer_norm": "layer_norm or eps",
         "elementwise": "activations or concat or timestep or one_more",
         "tile": "conv or depth or geglu or tiles", "devkit": "attention or norm or few_rows",
         "cuda": "definition or declined or border or tiles", "launch": "launches or compiled or turing or goldens",
         "device": "recording or device or memory or goldens"}


def places(text):
    """[(start, end, new text)] of all changes, outside of comments and strings."""
    hidden = [m.span() for m in COMMENT.finditer(text)]
    found = []
    for pattern, new in CHANGES:
        for m in re.finditer(pattern, text):
            line = text[text.rfind("\n", 0, m.start()) + 1:m.start()].lstrip()
            if not any(a <= m.start() < b for a, b in hidden) and not line.startswith(("import", "from", "#")):
                found.append((*m.span(), new(m) if callable(new) else new))
    return found


def run(copy, select, limit):
    """-> ("noticed", by what) or ("survived", "")"""
    command = [sys.executable, "-m", "pytest", "-x", "-k", select, *TESTS]
    built = copy.parent / "built"                            # a kernel that a change leaves as it is need not be built again
    built.mkdir(exist_ok=True)
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=limit,
                              env={**os.environ, "CUDAEMU_BUILT": str(built)})
    except subprocess.TimeoutExpired:
        return "noticed", f"no end within {limit} s"
    if done.returncode == 5:
        sys.exit(f"no test is called {select!r}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    return ("survived", "") if done.returncode == 0 else ("noticed", failed[1] if failed else done.stdout[-200:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=int, default=1800, help="seconds that the tests may take")
    parser.add_argument("--skip", type=int, default=0, help="so many of the changes that are drawn, done before")
    a = parser.parse_args()
    if machine.missing():
        sys.exit(f"the tests would be skipped, and notice nothing: {machine.missing()}")
    rng, counts = random.Random(a.seed), {"noticed": 0, "survived": 0}
    every = [(file, place) for file in FILES if a.only in file.name for place in places(file.read_text(encoding="utf-8"))]
    chosen = rng.sample(every, min(a.count, len(every)))
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "minisd"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "docs", "*.png", "__pycache__"))
        start = time.time()
        was, first = run(copy, COUNTED, a.limit)
        if was != "survived":
            sys.exit(f"the tests fail as it is: {first}")
        print(f"{len(every)} places; the tests pass in {time.time() - start:.0f} s", flush=True)
        for k, (file, (begin, end, new)) in enumerate(chosen[a.skip:], a.skip):
            text, target = file.read_text(encoding="utf-8"), copy / file.relative_to(ROOT)
            changed = text[:begin] + new + text[end:]
            target.write_text(changed, encoding="utf-8")
            own = max((name for name in FIRST if file.stem.startswith(name)), key=len)
            was, first = run(copy, f"({FIRST[own]}) and {COUNTED}", a.limit)
            if was == "survived":
                was, first = run(copy, f"not ({FIRST[own]}) and {COUNTED}", a.limit)
            target.write_text(text, encoding="utf-8")
            counts[was] += 1
            line = text.count("\n", 0, begin) + 1
            print(f"{k + 1:4} {was:9} {file.name}:{line}  {text[begin:end]!r} -> {new!r}  {first}", flush=True)
            if was == "survived":
                diff = difflib.unified_diff(text.splitlines(), changed.splitlines(), file.name, file.name, lineterm="", n=1)
                print("\n".join(f"        {row}" for row in list(diff)[2:]), flush=True)
    print(f"{len(chosen) - a.skip} changes: {counts['noticed']} noticed, {counts['survived']} survived")


if __name__ == "__main__":
    main()
