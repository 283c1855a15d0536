"""Measures the shipped model, with minisd itself and no human: prints a table, draws a grid of fixed prompts.

    python evaluate.py --data icons128.tar [--model FOLDER] [--grid grid.png] [--samplers] [--limit N]

Pictures are judged at 64x64.  background: the median colour of the picture's border, nearest of the 17; concept: nearest neighbour among
all concepts rendered on that background in that style, by gradients and colours (no network is asked), each half of the picture on its
own where there are two; count: connected components that are not background; number: whether the picture looks most like two, three or
four of the thing; colour: of all colours that the thing can have, the one in which it looks most like the picture; relation: whether the
two things look more like what was asked for than like the same two the other way round.  Every figure stands beside chance, and beside
what the same measure says of real scenes that have gone through the model's VAE, which are right; styles held out also beside the same
things in 3d, the style in which all were seen: what a model would reach that drew them so without a fault."""
import argparse
import random
from pathlib import Path

import numpy as np
from concepts import BACKGROUNDS, COLOURS, COUNTS, STYLES, WORDS
from PIL import Image
from scenes import Scenes, held_out

import minisd
from minisd.diffusion.rng import TorchCPU, latent_noise

MEASURES = {"background": 1 / len(BACKGROUNDS), "concept": 1 / len(WORDS), "count": 1 / len(COUNTS), "number": 1 / len(COUNTS),
            "colour": 1 / len(COLOURS), "relation": 1 / 2}   # and chance
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


def judged(pictures):
    """(n,128,128,3) -> (n,64,64,3)"""
    n, side = len(pictures), pictures.shape[1]
    return pictures.reshape(n, 64, side // 64, 64, side // 64, 3).mean((2, 4))


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


HALVES = {"left": np.s_[:, :32], "right": np.s_[:, 32:], "top": np.s_[:32], "bottom": np.s_[32:]}
PARTS = {"beside": ("left", "right"), "above": ("top", "bottom"), "below": ("bottom", "top")}    # of the first and the second


class Judge:
    """Knows how every concept looks."""

    def __init__(self, scenes):
        self.scenes, self.kept = scenes, {}
        self.still = random.Random(0)
        self.still.uniform = lambda low, high: (low + high) / 2

    def look(self, part, labels, *how, **more):
        scene = self.scenes.make(self.still, labels, *how, **more)
        return half(judged(self.scenes.render(scene)[None])[0], part)

    def references(self, style, background, part):
        """Features of every concept in this style and place: one in the middle, a half of the picture, or as many as `part`."""
        key = style, background, part
        if key not in self.kept:
            labels = [label for label in WORDS if style in self.scenes.by[label]]
            how = (1, "beside" if part in PARTS["beside"] else "above") if part in HALVES else (part, "beside")
            self.kept[key] = labels, features(np.array([self.look(part, [label, label] if part in HALVES else [label], *how, style,
                                                                  background) for label in labels]))
        return self.kept[key]

    def distances(self, picture, style, background, part=1):
        """{concept: how far this part of the picture is from it}"""
        labels, known = self.references(style, background, part)
        return dict(zip(labels, np.abs(known - features(half(picture, part)[None])).sum(1)))

    def score(self, picture, facts):
        """A picture of 64x64 -> {measure: right or wrong}"""
        style, background, labels = facts["style"], facts["background"], facts["labels"]
        found = {"background": nearest_background(picture) == background}
        if len(labels) == 2:
            first, second = (self.distances(picture, style, background, part) for part in PARTS[facts["relation"]])
            found["concept"] = np.mean([min(far, key=far.get) == label for far, label in zip((first, second), labels)])
            if facts["relation"] != "beside":
                found["relation"] = first[labels[0]] + second[labels[1]] < first[labels[1]] + second[labels[0]]
            return found
        asked = facts["colours"][0]
        if asked:
            choices = [c for c in self.scenes.colours(labels[0], style) if c != background]
            known = np.array([self.look(1, labels, 1, "beside", style, background, (c, None)) for c in choices])
            found["colour"] = choices[int(np.abs(known - picture).sum((1, 2, 3)).argmin())] == asked
            return found
        far = self.distances(picture, style, background, facts["count"])
        found["concept"] = min(far, key=far.get) == labels[0]
        if facts["count"] > 1:
            found["count"] = components(picture) == facts["count"]
            known = features(np.array([self.look(1, labels, number, "beside", style, background) for number in COUNTS]))
            found["number"] = list(COUNTS)[int(np.abs(known - features(picture[None])).sum(1).argmin())] == facts["count"]
        return found


def half(picture, part):
    """The picture, or a half of it with the other filled with background."""
    if part not in HALVES:
        return picture
    out = np.tile(border_colour(picture).astype(np.float32), (*picture.shape[:2], 1))
    out[HALVES[part]] = picture[HALVES[part]]
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
        for colour in scenes.colours(label, "3d"):
            if colour != ground:
                add(f"colour of a thing, {'held out' if held_out(colour, label) else 'seen'}", [label], background=ground,
                    colours=(colour, None))
    for relations, name in ((["beside"], "two things side by side"), (["above", "below"], "one above the other")):
        for held in (False, True):
            while len(rows.get(row := f"{name}, {'held out' if held else 'seen'}", [])) < limit:
                pair = rng.sample(labels, 2)
                if held_out(*sorted(pair)) == held and not any(held_out(label, white) for label in pair):
                    add(row, pair, relation=rng.choice(relations))
    for found in rows.values():
        rng.shuffle(found)
        del found[limit:]
    return dict(sorted(rows.items(), key=lambda item: (item[0].split(",")[0], item[0].endswith("out"))))


def pictures_of(pipe, prompts, seeds, batch=24, **how):
    found = []
    for k in range(0, len(prompts), batch):
        found.append(pipe.txt2img(prompts[k:k + batch], seed=seeds[k:k + batch], output="array", **how))
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


def table(pipe, scenes, limit, only="", **how):
    judge = Judge(scenes)
    lines = [f"| combination | pictures | {' | '.join(MEASURES)} | real scenes |", "|" + "---|" * (len(MEASURES) + 3)]
    for row, asked in questions(scenes, limit).items():
        if only not in row:
            continue
        drawn = judged(pictures_of(pipe, [s.caption for s in asked], list(range(len(asked))), **how))
        scores = [judge.score(p, s.facts) for p, s in zip(drawn, asked)]
        real = judged(through_vae(pipe, [scenes.render(s) for s in asked]))
        best = [judge.score(p, s.facts) for p, s in zip(real, asked)]
        of_real = ", ".join(f"{m} {found}" for m in MEASURES if (found := percent(best, m)))
        if row == "concept in style, held out":
            in_3d = [scenes.make(random.Random(k), s.facts["labels"], background=s.facts["background"]) for k, s in enumerate(asked)]
            pictures = judged(through_vae(pipe, [scenes.render(s) for s in in_3d]))
            of_real += f"; in 3d concept {percent([judge.score(p, s.facts) for p, s in zip(pictures, asked)], 'concept')}"
        lines.append(f"| {row} | {len(asked)} | " + " | ".join(percent(scores, m) for m in MEASURES) + f" | {of_real} |")
        print(lines[-1], flush=True)
    lines.append("| chance | | " + " | ".join(f"{100 * c:.0f} %" for c in MEASURES.values()) + " | |")
    return "\n".join(lines)


STOCHASTIC = ("ddpm", "euler_a", "dpm2_a", "dpmpp_2m_sde", "lcm")


def sampler_table(pipe, scenes, **how):
    """Every sampler at the model's own guidance: 20 steps, stochastic ones 30, over 12 prompts and 4 seeds each."""
    judge, rng = Judge(scenes), random.Random(7)
    labels = ("red apple", "fox", "cat", "owl", "rocket", "pizza", "sunflower", "automobile", "house", "guitar", "crown", "tent")
    asked = [scenes.make(rng, [label], background=rng.choice([b for b in BACKGROUNDS if not held_out(label, b)])) for label in labels] * 4
    print("| sampler | steps | concept | background | noise |\n|---|---|---|---|---|")
    for name in minisd.samplers():
        steps = 30 if name in STOCHASTIC else 20
        drawn = pictures_of(pipe, [s.caption for s in asked], list(range(len(asked))), num_inference_steps=steps, sampler=name, **how)
        scores = [judge.score(p, s.facts) for p, s in zip(judged(drawn), asked)]
        ground = drawn[:, :6, :6].std((1, 2)).mean()         # a corner, which should be of one colour
        print(f"| {name} | {steps} | {percent(scores, 'concept')} | {percent(scores, 'background')} | {ground:.4f} |", flush=True)


def grid(pipe, path, columns=8, gap=4, **how):
    pictures = (pictures_of(pipe, PROMPTS, [1] * len(PROMPTS), **how) * 255).round().astype(np.uint8)
    rows, side = len(pictures) // columns, pictures.shape[1] + gap
    sheet = np.full((rows * side - gap, columns * side - gap, 3), 255, np.uint8)
    for k, p in enumerate(pictures):
        y, x = k // columns * side, k % columns * side
        sheet[y:y + len(p), x:x + len(p)] = p
    Image.fromarray(sheet).save(path, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", help="a folder (the shipped model)")
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--samplers", action="store_true", help="compare all samplers")
    parser.add_argument("--limit", type=int, default=150, help="pictures a row at most; 0 for no table")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, help="(the model's own)")
    a = parser.parse_args()
    model = minisd.load(a.model)
    if a.grid:
        grid(model, a.grid, num_inference_steps=a.steps, guidance_scale=a.guidance)
    if a.samplers:
        sampler_table(model, Scenes(a.data), guidance_scale=a.guidance)
    if a.limit:
        print("\n" + table(model, Scenes(a.data), a.limit, a.only, num_inference_steps=a.steps, guidance_scale=a.guidance))
