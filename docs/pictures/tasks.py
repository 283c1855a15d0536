"""Makes tasks.png: what the tasks make of one picture, with the model that comes with minisd.   python docs/pictures/tasks.py"""
from pathlib import Path

import numpy as np
from PIL import Image

import minisd

pipe = minisd.load()
apple = pipe.txt2img("a red apple on a blue background", seed=1)
side = apple.width
top = np.zeros((side, side))
top[:5 * side // 16] = 1
half = apple.crop((0, 0, side // 2, side))
made = [apple, pipe.img2img("a lemon on a blue background", apple, strength=0.8, seed=1),
        pipe.inpaint("a red apple on a green background", apple, top, seed=1),
        half, pipe.inpaint("a red apple on a blue background", half, pad=(0, 0, side // 2, 0), seed=4)]
sheet, x = Image.new("RGB", (sum(p.width + 8 for p in made) - 8, side), "white"), 0
for picture in made:
    sheet.paste(picture, (x, 0))
    x += picture.width + 8
sheet.save(Path(__file__).parent / "tasks.png")
