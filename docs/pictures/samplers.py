"""Draws docs/pictures/samplers.png: twelve samplers on one seed, with a small network of random weights.

    python docs/pictures/samplers.py"""
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

import golden  # noqa: E402

import minisd  # noqa: E402
from minisd.samplers import SAMPLERS  # noqa: E402

SIDE, COLUMNS, LABEL = 128, 6, 18

with tempfile.TemporaryDirectory() as place:
    pipe = minisd.load(golden.write_pipeline(Path(place) / "sd1", "sd1"))
rows = -(-len(SAMPLERS) // COLUMNS)
sheet = Image.new("RGB", (SIDE * COLUMNS, (SIDE + LABEL) * rows), "white")
for k, name in enumerate(SAMPLERS):
    picture = pipe.txt2img("a photo of an astronaut riding a horse", seed=42, width=SIDE, height=SIDE, sampler=name)
    x, y = k % COLUMNS * SIDE, k // COLUMNS * (SIDE + LABEL)
    sheet.paste(picture, (x, y + LABEL))
    ImageDraw.Draw(sheet).text((x + 4, y + 3), name, fill="black")
sheet.save(HERE / "samplers.png")
