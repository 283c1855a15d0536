"""What the shipped model is trained on: icons composed into scenes, each with a caption.  NumPy and Pillow.

A scene is one thing in the middle, two to four of a kind, or two things beside or above each other; in one of four styles,
on one of 17 backgrounds, things in colours of their own or turned to one of eleven.  Some combinations are held out: they
never occur in training, and the evaluation asks for them."""
import io
import json
import tarfile
import zlib
from dataclasses import dataclass

import numpy as np
from concepts import ALSO, BACKGROUNDS, COLOURS, COUNTS, FRONTS, GRAYS, HUES, RELATIONS, STYLES, WORDS, plural, with_article
from PIL import Image

LUMA = np.float32([.299, .587, .114])


def held_out(*parts):
    """Whether this combination is kept from training: (concept, background), (concept, style), (count, concept), (colour, concept)
    or (concept, concept), each a pair of strings; about one in eight, always the same ones."""
    return zlib.crc32("|".join(parts).encode()) % 8 == 0


@dataclass
class Scene:
    """icons: (index, x, y, size, colour matrix), centres and sizes as fractions of the side; facts: what was asked for."""
    icons: list
    background: tuple
    caption: str
    facts: dict


def turned(degrees, gain):
    """(3,4): on premultiplied RGBA, turns the hue and scales the lightness, in the YIQ plane."""
    a = np.radians(degrees)
    to_yiq = np.array([LUMA, [.596, -.274, -.322], [.211, -.523, .312]])
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return np.c_[np.linalg.inv(to_yiq) @ turn @ to_yiq * gain, np.zeros(3)]


def grayed(first, second):
    """(3,4): gray, of the lightness first + second * what it was."""
    return np.c_[np.tile(LUMA * second, (3, 1)), np.full(3, first)]


AS_IT_IS = np.eye(3, 4)


class Scenes:
    """Random scenes over the icons of a data set (icons128.tar, see build_dataset.py), and scenes to order."""

    def __init__(self, path, every_icon=False):
        """every_icon: read all pictures, for the VAE; else only those of the concepts in WORDS."""
        with tarfile.open(path) as tar:
            meta = json.load(tar.extractfile("meta.json"))
            labels = {i: c["label"] for i, c in enumerate(meta["concepts"])}
            styles = {v: k for k, v in STYLES.items()}
            self.rows, self.pictures, self.by = [], [], {}
            for row in meta["images"]:
                label, style = labels.get(row["c"]), styles.get(row["src"])
                wanted = label in WORDS and style is not None
                if not wanted and not every_icon:
                    continue
                if wanted:
                    self.by.setdefault(label, {})[style] = len(self.rows)
                rgba = np.asarray(Image.open(io.BytesIO(tar.extractfile(row["key"] + ".webp").read())).convert("RGBA"), np.float32) / 255
                self.rows.append(row)
                self.pictures.append((np.dstack([rgba[..., :3] * rgba[..., 3:], rgba[..., 3]]) * 255).round().astype(np.uint8))
        absent = set(WORDS) - {label for label, found in self.by.items() if "3d" in found}
        assert not absent, f"the data set lacks {sorted(absent)}"

    def colours(self, label, style):
        """The colours this thing can be asked for in: hues only where one rules the picture, so that it can be turned."""
        row = self.rows[self.by[label][style]]
        return COLOURS if row["conc"] > .72 and row["sat"] > .22 else list(GRAYS)

    def matrix(self, label, style, colour):
        if colour is None:
            return AS_IT_IS
        row = self.rows[self.by[label][style]]
        if colour in GRAYS:
            return grayed(*GRAYS[colour])
        hue, light = HUES[colour]
        return turned(row["hue"] - hue, np.clip(light / max(.15, row["lum"]), .6, 1.7))

    def make(self, rng, labels, count=1, relation="beside", style="3d", background="white", colours=(None, None), typed=False):
        """A scene to order: one label (and how many of it), or two labels, the first left of the second, above or below it.
        colours: of each thing, None = its own.  typed: words vary as people's do; else the usual ones."""
        pick = (lambda some: rng.choice(list(some))) if typed else (lambda some: list(some)[0])
        article = rng if typed else None
        names = [pick(WORDS[label]) if not typed or rng.random() < .3 else WORDS[label][0] for label in labels]
        grown = [plural(name) if count > 1 else name for name in names]
        said = [f"{c} {name}" if c else name for c, name in zip(colours, grown)]
        jitter = lambda a: rng.uniform(-a, a)  # noqa: E731
        low, high = .27, .73
        if len(labels) == 2:
            places = {"beside": [(low, .5), (high, .5)], "above": [(.5, low), (.5, high)], "below": [(.5, high), (.5, low)]}[relation]
            size = .46
            text = f"{with_article(said[0], article)} {pick(RELATIONS[relation])} {with_article(said[1], article)}"
        elif count > 1:
            places = {2: [(low, .5), (high, .5)], 3: [(low, low), (high, low), (.5, high)],
                      4: [(low, low), (high, low), (low, high), (high, high)]}[count]
            size, text = .44, f"{COUNTS[count][0] if not typed or rng.random() < .8 else COUNTS[count][1]} {said[0]}"
        else:
            places, size, text = [(.5, .5)], .84, with_article(said[0], article)
        icons = []
        for k, (x, y) in enumerate(places):
            of = min(k, len(labels) - 1)
            icons.append((self.by[labels[of]][style], x + jitter(.015), y + jitter(.015), size * rng.uniform(.95, 1.05),
                          self.matrix(labels[of], style, colours[of])))
        if style != "3d":
            text = pick(("{0} in {1} style", "{0}, {1} style", "{1} icon of {0}", "{0}, {1}")).format(text, style)
        elif typed and rng.random() < .08:
            text = f"{rng.choice(FRONTS)} {text}"
        if background != "white" or typed and rng.random() < .25:
            name = ALSO[background] if typed and background in ALSO and rng.random() < .15 else background
            text += pick((" on {0} background", " on {0} background", " with {0} background", ", {1} background", " on {1}")).format(
                with_article(name), name)
        shade = 0 if background == "white" else 6
        rgb = tuple(min(255, max(0, v + jitter(shade))) for v in BACKGROUNDS[background])
        return Scene(icons, rgb, text, dict(labels=labels, count=count, relation=relation, style=style, background=background,
                                            colours=colours))

    def draw(self, rng):
        """A random training scene; never a held-out combination."""
        while True:
            style = rng.choices(list(STYLES), (.64, .12, .14, .10))[0]
            kind = rng.choices(("one", "count", "pair"), (.56, .16, .28))[0]
            labels = rng.sample(list(WORDS), 2 if kind == "pair" else 1)
            background = "white" if rng.random() < .25 else rng.choice(list(BACKGROUNDS))
            count = rng.choice((2, 3, 4)) if kind == "count" else 1
            relation = rng.choices(list(RELATIONS), (.5, .25, .25))[0]
            if any(style not in self.by[label] or held_out(label, background) for label in labels):
                continue
            if style != "3d" and any(held_out(label, style) for label in labels):
                continue
            if count > 1 and held_out(str(count), labels[0]) or kind == "pair" and held_out(*sorted(labels)):
                continue
            colours = tuple(rng.choice(self.colours(label, style)) if rng.random() < .22 else None for label in labels)
            if any(colour and (held_out(colour, label) or colour == background) for colour, label in zip(colours, labels)):
                continue
            return self.make(rng, labels, count, relation, style, background, colours, typed=True)

    def collage(self, rng):
        """For the VAE: up to three icons of any kind anywhere, in any colour, on any ground."""
        icons = [(rng.randrange(len(self.rows)), rng.uniform(.25, .75), rng.uniform(.25, .75), rng.uniform(.35, 1.1),
                  turned(rng.uniform(0, 360), rng.uniform(.7, 1.2)) if rng.random() < .4 else AS_IT_IS)
                 for _ in range(rng.choice((1, 1, 2, 3)))]
        return Scene(icons, tuple(rng.uniform(0, 255) for _ in range(3)), "", {})

    def render(self, scene, side=128):
        """-> (side,side,3) float32 in [0,1]"""
        out = np.tile(np.float32(scene.background) / 255, (side, side, 1))
        for index, x, y, size, matrix in scene.icons:
            picture = self.pictures[index]
            k = max(1, round(size * side))
            left, top = round(x * side - k / 2), round(y * side - k / 2)
            whole = Image.frombytes("RGBa", picture.shape[1::-1], picture.tobytes())           # small a: premultiplied
            small = np.asarray(whole.resize((k, k), Image.Resampling.HAMMING), np.float32) / 255
            x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + k, side), min(top + k, side)
            small = small[y0 - top:y1 - top, x0 - left:x1 - left]
            alpha = small[..., 3:]
            rgb = np.clip(small @ matrix.T.astype(np.float32), 0, alpha)
            out[y0:y1, x0:x1] = out[y0:y1, x0:x1] * (1 - alpha) + rgb
        return out
