"""The parsers alone, guided by coverage: python -m tests.fuzz.parsers [RUNS] [SEED]   (needs '.[fuzz]': atheris)

Each of TARGETS runs so many inputs in a process of its own, with another seed each time unless one is given; what ends one but an error
of ours is printed, with the input."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]


def prompt(data, place):
    from minisd.prompt.schedule import Scripts, without_extra_networks
    from minisd.prompt.syntax import parse

    text, _ = without_extra_networks(data.decode("utf-8", "replace"))
    scripts = Scripts([text], [text])
    for step in (1, 2, 7):
        said = scripts.at(step, 7)
        for texts, _ in (*said.positives, said.negatives):
            parse(texts[0])


def settings_text(data, place):
    from minisd.image import metadata

    text = data.decode("utf-8", "replace")
    found = metadata.fields(text)
    assert all(isinstance(v, str) for v in found.values()) and all(metadata.KEY.fullmatch(k) for k in found)


def header(data, place):
    from minisd.checkpoint import kinds
    from minisd.checkpoint.files import TensorFiles
    from minisd.checkpoint.weights import Weights

    path = place / "a.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data + b"\0" * 64)
    tensors = TensorFiles([path])
    kinds.explained(tensors)
    names = list(Weights.over(tensors, tensors.__getitem__).names())
    assert sorted(names) == sorted(tensors)
    for name in names:
        if tensors.dtype(name) in ("F16", "F32"):
            tensors[name]


def lora_keys(data, place):
    from minisd.checkpoint import lora

    names = [n for n in data.decode("utf-8", "replace").split("\n") if n]
    path = place / "a.safetensors"
    entries = {n: {"dtype": "F32", "shape": [1, 1], "data_offsets": [4 * i, 4 * i + 4]} for i, n in enumerate(dict.fromkeys(names))}
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4 * len(entries))
    for layer, _, _ in lora.layers_of(path):
        lora.find(layer, {"unet": {"mid_block_attentions_0_proj_in": 1}, "text_encoder": {}})


TARGETS = {
    "prompt": (prompt, [b"a (cat:1.2) [dog:fox:.5] AND [a|b] BREAK \\( :2", b"((a][:b:c [d:3]"]),
    "settings_text": (settings_text, [b'Steps: 20, Sampler: Euler a, Model: "a, \\"b", Size: 512x512']),
    "header": (header, [b'{"a.b.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"__metadata__":{"a":"b"}}']),
    "lora_keys": (lora_keys, [b"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight\nlora_unet_x.alpha\nunet.a.lora_A.weight"]),
}


def fuzz(name, runs, seed):
    """Never returns."""
    import atheris

    target, first = TARGETS[name]
    with atheris.instrument_imports(include=["minisd"]):
        import minisd.checkpoint.kinds
        import minisd.checkpoint.lora
        import minisd.image.metadata
        import minisd.prompt.schedule  # noqa: F401
    from minisd.errors import MinisdError

    place = Path(tempfile.mkdtemp())
    (place / "corpus").mkdir()
    for k, data in enumerate(first):
        (place / "corpus" / str(k)).write_bytes(data)

    def once(data):
        try:
            target(data, place)
        except MinisdError:
            return

    atheris.Setup(
        [
            sys.argv[0],
            str(place / "corpus"),
            f"-runs={runs}",
            f"-seed={seed}",
            "-timeout=20",
            "-rss_limit_mb=2000",
            "-max_len=4000",
            f"-artifact_prefix={place}/",
        ],
        once,
    )
    atheris.Fuzz()


def main():
    if len(sys.argv) == 5 and sys.argv[1] == "--target":
        fuzz(*sys.argv[2:])
    runs, seed = (*sys.argv[1:], *("50000", "0")[len(sys.argv) - 1 :])[:2]
    bad = 0
    for name in TARGETS:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.parsers", "--target", name, runs, seed],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            errors="replace",
        )
        words = next((line for line in done.stderr.split("\n") if line.startswith("Done ")), "")
        print(f"{name:<16}{'ok' if done.returncode == 0 else 'NOT OK'}   {words}", flush=True)
        if done.returncode:
            bad += 1
            print(done.stdout[-2000:], done.stderr[-3000:])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
