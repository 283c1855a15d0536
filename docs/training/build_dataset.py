"""Builds icons128.tar from packages of openly licensed icons: pictures of 128x128, cut to their ink, as WebP with transparency,
and meta.json with their names and what is needed to recolour them.  Needs npm on the path.

    python build_dataset.py --out icons128.tar"""
import argparse
import io
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

SIDE = 128
PACKAGES = {  # set -> (npm package, version, licence)
    "fluent-3d": ("@lobehub/fluent-emoji-3d", "1.1.0", "MIT"),
    "fluent-color": ("@iconify-json/fluent-emoji", "1.2.7", "MIT"),
    "fluent-flat": ("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
    "noto": ("@iconify-json/noto", "1.2.9", "Apache-2.0"),
    "emojibase": ("emojibase-data", "17.0.0", "MIT")}
# No flags, letters, arrows or signs: what is left are things.
SKIPPED = {"family", "keycap", "alphanum", "arrow", "av-symbol", "country-flag", "subdivision-flag", "flag", "skin-tone", "hair-style",
           "currency", "math", "punctuation", "gender", "person-symbol", "other-symbol", "religion", "transport-sign", "warning"}
SKIPPED_NAMES = re.compile(r"clock face|o.clock|thirty|input|japanese|button|fast-forward|^(man|woman|men|women)[ :]|couple|kiss:|"
                           r"holding hands: |squared|keycap|blood type|square|copyright|registered")


def fetch(folder):
    for name, (package, version, _) in PACKAGES.items():
        packed = subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True, stdout=subprocess.PIPE,
                                text=True)
        with tarfile.open(folder / packed.stdout.strip().splitlines()[-1]) as tar:
            tar.extractall(folder / name, filter="data")     # everything is below package/


def plain(text):
    return re.sub(r"\s+", " ", re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("’", "'").replace("-", " "))).strip()


def concepts(folder):
    """[{hex, label, tags, group}] of what is drawn."""
    data = json.loads((folder / "emojibase/package/en/data.json").read_text())
    groups = json.loads((folder / "emojibase/package/meta/groups.json").read_text())
    found = []
    for e in data:
        if "group" not in e or groups["subgroups"][str(e["subgroup"])] in SKIPPED or SKIPPED_NAMES.search(e["label"]):
            continue
        found.append(dict(hex=e["hexcode"].lower(), label=plain(e["label"]), tags=[plain(t) for t in e.get("tags", [])],
                          group=groups["groups"][str(e["group"])]))
    return found


def fit(picture):
    """Cut to the ink, the longer side made SIDE, centred on a transparent square; None if there is no ink."""
    a = np.asarray(picture.convert("RGBA"), np.float32) / 255
    ys, xs = np.nonzero(a[..., 3] > .02)
    if not len(ys):
        return None
    a = a[ys.min():ys.max() + 1, xs.min():xs.max() + 1]
    a[..., :3] *= a[..., 3:]                                 # premultiplied, so that edges do not bleed
    scale = SIDE / max(a.shape[:2])
    h, w = (max(1, round(n * scale)) for n in a.shape[:2])
    a = np.stack([np.asarray(Image.fromarray(a[..., c]).resize((w, h), Image.Resampling.LANCZOS)) for c in range(4)], -1).clip(0, 1)
    a[..., :3] = (a[..., :3] / np.maximum(a[..., 3:], 1e-3)).clip(0, 1)
    out = np.zeros((SIDE, SIDE, 4), np.float32)
    out[(SIDE - h) // 2:(SIDE - h) // 2 + h, (SIDE - w) // 2:(SIDE - w) // 2 + w] = a
    return Image.fromarray((out * 255).round().astype(np.uint8))


def drawn(icons, name):
    """An icon of an Iconify set, rendered; None if the set lacks it."""
    body = icons["icons"].get(name)
    if body is None:
        return None
    w, h = body.get("width", icons.get("width", 16)), body.get("height", icons.get("height", 16))
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{w}" height="{h}" '
           f'viewBox="{body.get("left", 0)} {body.get("top", 0)} {w} {h}">{body["body"]}</svg>')
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, height=2 * SIDE))
    return fit(Image.open(io.BytesIO(png)))


def colours(picture):
    """The ruling hue in degrees, how far it rules (0 to 1), mean saturation and lightness."""
    a = np.asarray(picture, np.float32) / 255
    r, g, b, ink = (a[..., k] for k in range(4))
    high, low = a[..., :3].max(-1), a[..., :3].min(-1)
    weight = ink * (high - low)
    mean = (weight * np.exp(1j * np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b))).sum() / max(weight.sum(), 1e-6)
    return dict(hue=round(float(np.degrees(np.angle(mean))) % 360, 1), conc=round(float(abs(mean)), 3),
                sat=round(float(weight.sum() / ink.sum()), 3), lum=round(float((ink * (high + low) / 2).sum() / ink.sum()), 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("icons128.tar"))
    a = parser.parse_args()
    rows, pictures = [], []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fetch(folder)
        found = concepts(folder)
        icons = {k: json.loads((folder / k / "package/icons.json").read_text()) for k in ("fluent-color", "fluent-flat", "noto")}
        names = {k: json.loads((folder / k / "package/chars.json").read_text()) for k in ("fluent-flat", "noto")}
        assets = folder / "fluent-3d/package/assets"
        for i, concept in enumerate(found):
            codes = [concept["hex"], concept["hex"].replace("-fe0f", ""), concept["hex"] + "-fe0f"]
            three_d = next((assets / f"{c}.webp" for c in codes if (assets / f"{c}.webp").exists()), None)
            fluent, noto = (next((names[k][c] for c in codes if c in names[k]), None) for k in ("fluent-flat", "noto"))
            for source, picture in (("fluent-3d", three_d and fit(Image.open(three_d))),
                                    ("fluent-color", fluent and drawn(icons["fluent-color"], fluent)),
                                    ("fluent-flat", fluent and drawn(icons["fluent-flat"], fluent)),
                                    ("noto", noto and drawn(icons["noto"], noto))):
                if picture:
                    rows.append(dict(key=f"{i:04d}_{source}", c=i, src=source, **colours(picture)))
                    pictures.append(picture)
    with tarfile.open(a.out, "w") as tar:
        def add(name, data):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

        add("meta.json", json.dumps(dict(concepts=found, images=rows, licences={k: " ".join(v) for k, v in PACKAGES.items()})).encode())
        for row, picture in zip(rows, pictures):
            data = io.BytesIO()
            picture.save(data, "WEBP", quality=90, method=4)
            add(row["key"] + ".webp", data.getvalue())
    print(f"{len(rows)} pictures of {len({r['c'] for r in rows})} concepts in {a.out}, {a.out.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
