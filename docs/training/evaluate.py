"""Measures the shipped model, with minisd itself and no human: prints a table, draws a grid of fixed prompts.

    python evaluate.py --data icons128.tar [--model FOLDER] [--grid grid.png] [--limit N]

background: the median colour of the picture's border, nearest of the 17;  concept: nearest neighbour among all concepts
rendered on that background in that style, by gradients and colours (no network is asked);  count: connected components that
are not background;  two things: each half of the picture on its own.  Every figure stands beside chance, and beside what the
same measure says of real scenes that have gone through the model's VAE, which is the best it could say of anything."""
import argparse
import random
from pathlib import Path

import numpy as np
from PIL import Image
from scenes import BACKGROUNDS, COUNTS, STYLES, WORDS, Scenes, held_out

import minisd
from minisd.diffusion.rng import TorchCPU, latent_noise

PROMPTS = """a red apple on a blue background
a fox
a cat on a yellow background
a dog
an owl on a dark blue background
a penguin on a light blue background
a rocket on a black background
a pizza
a hamburger on a green background
a sunflower on a light blue background
a christmas tree on a dark blue background
a blue car
a house on a light green background
a snowman on a light blue background
a smiling face
an angry face on a black background
two bananas
three strawberries on a pink background
four stars on a dark blue background
two cats on a purple background
a dog and a cat
a rocket and a star on a black background
an apple and a pear
a robot in cartoon style
a whale, flat style
a ghost on a purple background
a green frog on a pink background
a turtle on an orange background
a butterfly on a white background
a bicycle on a beige background
an airplane on a light blue background
a train, cartoon
a guitar on a red background
a camera on a turquoise background
a light bulb on a black background
a book on a brown background
a clock on a green background
a gift on a red background
a heart on a pink background
a purple heart
a diamond on a black background
a crown on a purple background
a trophy on a blue background
an umbrella on a gray background
a rainbow on a light blue background
a moon on a dark blue background
a sun on a light blue background
a volcano on an orange background
a castle on a light green background
a tent on a dark green background
a cactus on a yellow background
a mushroom on a dark green background
a rose on a black background
a panda on a green background
an elephant on a yellow background
a tiger on a light green background
a shark on a blue background
an octopus on a turquoise background
a dinosaur on a beige background
a dragon on a black background
a unicorn on a pink background
a cup of coffee on a brown background
a donut on a turquoise background
a cake on a yellow background""".split("\n")


def features(pictures):
    """(n,64,64,3) in [0,1] -> (n,f): gradient histograms of 8x8 cells, and 8x8 mean colours."""
    gray = pictures @ np.float32([.299, .587, .114])
    dy, dx = np.gradient(gray, axis=(1, 2))
    strength, bin_ = np.hypot(dx, dy), ((np.arctan2(dy, dx) % np.pi) / np.pi * 9).astype(int) % 9
    cells = np.stack([(strength * (bin_ == k)).reshape(-1, 8, 8, 8, 8).sum((2, 4)) for k in range(9)], -1)
    cells = cells / (np.sqrt((cells**2).sum((1, 2, 3), keepdims=True)) + 1e-6)
    colour = pictures.reshape(-1, 8, 8, 8, 8, 3).mean((2, 4))
    return np.concatenate([cells.reshape(len(pictures), -1), .12 * colour.reshape(len(pictures), -1)], 1)


def border_colour(picture):
    sides = picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]
    return np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)


def nearest_background(picture):
    rgb = border_colour(picture) * 255
    return min(BACKGROUNDS, key=lambda name: np.abs(rgb - BACKGROUNDS[name]).sum())


def components(picture, smallest=16, apart=18):
    """How many connected areas differ from the background, bridges of two pixels cut; parts closer than `apart` are one."""
    mask = np.abs(picture - border_colour(picture)).max(-1) > .4              # the VAE blurs neighbours together below
    inner = np.pad(mask, 1)
    mask = inner[1:-1, 1:-1] & inner[2:, 1:-1] & inner[:-2, 1:-1] & inner[1:-1, 2:] & inner[1:-1, :-2]
    centres, seen = [], np.zeros_like(mask)
    for start in zip(*np.nonzero(mask)):
        if seen[start]:
            continue
        stack, area = [start], []
        seen[start] = True
        while stack:
            y, x = stack.pop()
            area.append((y, x))
            for at in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= at[0] < 64 and 0 <= at[1] < 64 and mask[at] and not seen[at]:
                    seen[at] = True
                    stack.append(at)
        if len(area) >= smallest:
            centres.append((len(area), np.mean(area, axis=0)))
    things = []                                              # the largest first: smaller ones near it are its parts
    for _, centre in sorted(centres, key=lambda c: -c[0]):
        if all(np.hypot(*(centre - other)) >= apart for other in things):
            things.append(centre)
    return len(things)


class Judge:
    """Knows how every concept looks."""

    def __init__(self, scenes):
        self.scenes, self.kept = scenes, {}

    def references(self, style, background, kind):
        """Features of every concept in this style and place: one in the middle, left or right half, or as many as `kind`."""
        key = style, background, kind
        if key not in self.kept:
            labels = [label for label in WORDS if style in self.scenes.by[label]]
            still = random.Random(0)
            still.uniform = lambda low, high: (low + high) / 2
            pictures = []
            for label in labels:
                pair = [label, label] if kind in ("left", "right") else [label]
                scene = self.scenes.make(still, pair, kind if isinstance(kind, int) else 1, style, background)
                pictures.append(half(self.scenes.render(scene), kind))
            self.kept[key] = labels, features(np.array(pictures))
        return self.kept[key]

    def concept(self, picture, style, background, kind=1):
        labels, known = self.references(style, background, kind)
        return labels[int(np.abs(known - features(half(picture, kind)[None])).sum(1).argmin())]

    def score(self, picture, facts):
        """-> {measure: right or wrong}"""
        style, background, labels = facts["style"], facts["background"], facts["labels"]
        found = {"background": nearest_background(picture) == background}
        if len(labels) == 2:
            right = [self.concept(picture, style, background, side) == label for side, label in zip(("left", "right"), labels)]
            return {**found, "concept": np.mean(right)}
        found["concept"] = self.concept(picture, style, background, facts["count"]) == labels[0]
        if facts["count"] > 1:
            found["count"] = components(picture) == facts["count"]
        return found


def half(picture, kind):
    """The picture, or its left or right half with the other filled with background."""
    if kind not in ("left", "right"):
        return picture
    out = np.tile(border_colour(picture).astype(np.float32), (*picture.shape[:2], 1))
    side = slice(0, 32) if kind == "left" else slice(32, 64)
    out[:, side] = picture[:, side]
    return out


def questions(scenes, limit):
    """{row of the table: scenes to ask for}: seen and held-out combinations."""
    rng, rows = random.Random(123), {}
    labels, white = list(WORDS), "white"

    def add(row, *how, **more):
        rows.setdefault(row, []).append(scenes.make(rng, *how, **more))

    for label in labels:
        held = [b for b in BACKGROUNDS if held_out(label, b)]
        seen = [b for b in BACKGROUNDS if b not in held]
        add("concept on background, seen", [label], background=rng.choice(seen))
        if held:
            add("concept on background, held out", [label], background=rng.choice(held))
        ground = white if white in seen else rng.choice(seen)
        for style in [s for s in STYLES if s != "3d" and s in scenes.by[label]]:
            add(f"concept in style, {'held out' if held_out(label, style) else 'seen'}", [label], style=style, background=ground)
        for count in COUNTS:
            add(f"count of concept, {'held out' if held_out(str(count), label) else 'seen'}", [label], count=count, background=ground)
    while len(rows.get("two concepts, held out", [])) < limit:
        pair = rng.sample(labels, 2)
        if held_out(pair[0], white) or held_out(pair[1], white):
            continue
        row = f"two concepts, {'held out' if held_out(*sorted(pair)) else 'seen'}"
        if len(rows.get(row, [])) < limit:
            add(row, pair)
    for found in rows.values():
        rng.shuffle(found)
        del found[limit:]
    return dict(sorted(rows.items(), key=lambda item: (item[0].split(",")[0], item[0].endswith("out"))))


def pictures_of(pipe, prompts, seeds, steps, guidance, batch=24):
    found = []
    for k in range(0, len(prompts), batch):
        found.append(pipe.txt2img(prompts[k:k + batch], num_inference_steps=steps, guidance_scale=guidance,
                                  seed=seeds[k:k + batch], output="array"))
    return np.concatenate(found)


def through_vae(pipe, pictures):
    """Encoded, with samples drawn from seed 0, and decoded."""
    found, c = [], pipe.model.vae_config
    for k in range(0, len(pictures), 24):
        pixels = np.array(pictures[k:k + 24])
        shape = len(pixels), pixels.shape[1] // c.factor, pixels.shape[2] // c.factor, c.latent_channels
        found.append(pipe.model.decode(pipe.model.encode(pixels, latent_noise(TorchCPU(0), shape))))
    return np.concatenate(found)


def percent(scores, measure):
    values = [s[measure] for s in scores if measure in s]
    return f"{100 * np.mean(values):.0f} %" if values else ""


def table(pipe, scenes, limit, steps, guidance, only=""):
    judge = Judge(scenes)
    chance = {"background": 1 / len(BACKGROUNDS), "concept": 1 / len(WORDS), "count": 1 / len(COUNTS)}
    lines = ["| combination | pictures | background | concept | count | best possible (background, concept, count) |",
             "|---|---|---|---|---|---|"]
    for row, asked in questions(scenes, limit).items():
        if only not in row:
            continue
        drawn = pictures_of(pipe, [s.caption for s in asked], list(range(len(asked))), steps, guidance)
        scores = [judge.score(p, s.facts) for p, s in zip(drawn, asked)]
        best = [judge.score(p, s.facts) for p, s in zip(through_vae(pipe, [scenes.render(s) for s in asked]), asked)]
        lines.append(f"| {row} | {len(asked)} | " + " | ".join(percent(scores, m) for m in chance) + " | "
                     + ", ".join(filter(None, (percent(best, m) for m in chance))) + " |")
        print(lines[-1], flush=True)
    lines.append("| chance | | " + " | ".join(f"{100 * c:.0f} %" for c in chance.values()) + " | |")
    return "\n".join(lines)


def grid(pipe, path, steps, guidance, columns=8, scale=2):
    pictures = (pictures_of(pipe, PROMPTS, [1] * len(PROMPTS), steps, guidance) * 255).round().astype(np.uint8)
    gap, rows = 2, len(pictures) // columns
    sheet = np.full((rows * (64 + gap) - gap, columns * (64 + gap) - gap, 3), 255, np.uint8)
    for k, p in enumerate(pictures):
        y, x = k // columns * (64 + gap), k % columns * (64 + gap)
        sheet[y:y + 64, x:x + 64] = p
    picture = Image.fromarray(sheet)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(path, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", help="a folder (the shipped model)")
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--limit", type=int, default=150, help="pictures a row at most")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=7.5)
    a = parser.parse_args()
    model = minisd.load(a.model) if a.model else minisd.load()
    if a.grid:
        grid(model, a.grid, a.steps, a.guidance)
    if a.limit:
        print("\n" + table(model, Scenes(a.data), a.limit, a.steps, a.guidance, a.only))
