"""What the shipped model is trained on: icons composed into scenes, each with a caption.  NumPy and Pillow.

A scene is one icon in the middle, two to four of a kind, or two icons side by side, in one of four styles, on one of 17
background colours, sometimes recoloured.  Some combinations are held out: they never occur in training, and the
evaluation asks for them."""
import io
import json
import tarfile
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

BACKGROUNDS = {
    "white": (255, 255, 255), "black": (12, 12, 14), "gray": (140, 140, 144), "red": (222, 40, 44), "orange": (250, 140, 30),
    "yellow": (252, 214, 50), "green": (52, 168, 72), "blue": (44, 100, 226), "purple": (136, 62, 200), "pink": (250, 150, 196),
    "brown": (122, 76, 44), "turquoise": (48, 200, 196), "light blue": (170, 216, 250), "light green": (184, 234, 178),
    "dark blue": (18, 32, 92), "dark green": (14, 74, 40), "beige": (240, 226, 200)}
# colour an icon can be turned to: hue in degrees, lightness to aim at
HUES = {"red": (2, .40), "orange": (28, .60), "yellow": (50, .78), "green": (120, .48), "turquoise": (176, .62), "blue": (218, .42),
        "purple": (272, .40), "pink": (325, .60)}
STYLES = {"3d": "fluent-3d", "flat": "fluent-flat", "cartoon": "noto", "glossy": "fluent-color"}         # style -> set of icons
COUNTS = {2: "two", 3: "three", 4: "four"}

# What people would type first: the set's label -> the words for it, the usual one first.
WORDS = {
    "dog": "dog puppy", "cat": "cat kitten", "fox": "", "wolf": "", "bear": "", "panda": "", "koala": "", "lion": "", "tiger": "",
    "leopard": "", "horse": "", "unicorn": "", "zebra": "", "deer": "", "cow": "", "pig": "", "goat": "", "camel": "",
    "giraffe": "", "elephant": "", "rhinoceros": "rhino", "mouse": "", "rabbit": "rabbit bunny", "hedgehog": "", "bat": "",
    "monkey": "", "kangaroo": "", "sloth": "", "otter": "", "chicken": "", "baby chick": "chick", "penguin": "", "eagle": "",
    "duck": "", "swan": "", "owl": "", "flamingo": "", "parrot": "", "peacock": "", "frog": "", "crocodile": "", "turtle": "",
    "snake": "", "dragon": "", "t rex": "dinosaur", "dolphin": "", "whale": "", "shark": "", "octopus": "", "crab": "",
    "tropical fish": "fish", "jellyfish": "", "snail": "", "butterfly": "", "honeybee": "bee", "lady beetle": "ladybug", "spider": "",
    "sunflower": "", "rose": "", "tulip": "", "cactus": "", "palm tree": "", "evergreen tree": "pine\xa0tree", "deciduous tree": "tree",
    "mushroom": "", "maple leaf": "leaf", "four leaf clover": "clover",
    "red apple": "apple", "pear": "", "banana": "", "grapes": "", "watermelon": "", "strawberry": "", "cherries": "", "lemon": "",
    "tangerine": "", "pineapple": "", "peach": "", "avocado": "", "tomato": "", "carrot": "", "ear of corn": "corn", "broccoli": "",
    "hamburger": "hamburger burger", "pizza": "", "hot dog": "", "french fries": "fries", "bread": "", "cheese wedge": "cheese",
    "egg": "", "sushi": "", "doughnut": "donut doughnut", "cookie": "", "birthday cake": "cake", "cupcake": "", "ice cream": "",
    "lollipop": "", "hot beverage": "cup\xa0of\xa0coffee coffee",
    "automobile": "car", "bus": "", "police car": "", "fire engine": "fire\xa0truck", "ambulance": "", "tractor": "",
    "bicycle": "bicycle bike", "motorcycle": "", "locomotive": "train", "airplane": "airplane plane", "helicopter": "", "rocket": "",
    "sailboat": "sailboat boat",
    "ship": "", "flying saucer": "ufo", "house": "", "castle": "", "tent": "", "volcano": "", "snow capped mountain": "mountain",
    "sun": "", "crescent moon": "moon", "star": "", "cloud": "", "rainbow": "", "snowflake": "", "snowman": "", "umbrella": "", "fire": "",
    "ringed planet": "planet", "smiling face": "smiling\xa0face smiley", "smiling face with sunglasses": "", "angry face": "", "ghost": "",
    "robot": "", "alien": "", "skull": "", "jack o lantern": "pumpkin", "red heart": "heart", "balloon": "", "wrapped gift": "gift present",
    "christmas tree": "", "teddy bear": "", "soccer ball": "", "basketball": "", "crown": "", "top hat": "hat", "guitar": "", "drum": "",
    "violin": "", "camera": "", "television": "television tv", "laptop": "laptop computer", "light bulb": "", "candle": "", "key": "",
    "hammer": "", "scissors": "", "closed book": "book", "pencil": "", "backpack": "", "running shoe": "shoe", "bell": "",
    "gem stone": "diamond", "trophy": "", "anchor": "", "alarm clock": "clock", "mobile phone": "phone", "magnet": ""}


def names_of(label):
    """The words for a concept, the usual one first."""
    return [w.replace("\xa0", " ") for w in WORDS[label].split(" ")] if WORDS[label] else [label]


PLURALS = {"mouse": "mice", "wolf": "wolves", "leaf": "leaves", "fish": "fish", "deer": "deer", "sheep": "sheep", "goose": "geese",
           "cherries": "cherries", "grapes": "grapes", "fries": "fries", "scissors": "scissors", "cup of coffee": "cups of coffee"}


def plural(name):
    if name in PLURALS:
        return PLURALS[name]
    *front, w = name.split()
    if w in PLURALS:
        w = PLURALS[w]
    elif w.endswith("y") and w[-2] not in "aeiou":
        w = w[:-1] + "ies"
    else:
        w += "es" if w.endswith(("s", "x", "ch", "sh")) else "s"
    return " ".join([*front, w])


def with_article(name):
    if name in ("grapes", "cherries", "fries", "scissors", "bread", "cheese", "sushi", "corn", "fire", "coffee", "broccoli"):
        return name
    return ("an " if name[0] in "aeiou" and not name.startswith(("uni", "ufo")) else "a ") + name


def vocabulary():
    """Every word that a caption can hold: things first, then the rest."""
    things = sorted({w for label in WORDS for name in names_of(label) for form in (name, plural(name)) for w in form.split()})
    rest = [*(w for name in BACKGROUNDS for w in name.split()), *HUES, *STYLES, *COUNTS.values(),
            *"a an and background icon in of on style with".split()]
    return things + sorted(set(rest) - set(things))


def held_out(*parts):
    """Whether this combination is kept from training: (concept, background), (concept, style), (count, concept) or
    (concept, concept), each a pair of strings; about one in eight, always the same ones."""
    return zlib.crc32("|".join(parts).encode()) % 8 == 0


@dataclass
class Scene:
    """icons: (index, x, y, size, colour matrix), centres and sizes as fractions of the side; facts: what was asked for."""
    icons: list
    background: tuple
    caption: str
    facts: dict


def recolour(degrees, gain):
    """A 3x3 matrix on RGB that turns the hue and scales the lightness, in the YIQ plane."""
    a = np.radians(degrees)
    to_yiq = np.array([[.299, .587, .114], [.596, -.274, -.322], [.211, -.523, .312]])
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return np.linalg.inv(to_yiq) @ turn @ to_yiq * gain


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

    def colourable(self, label, style):
        """Whether one hue rules the picture, so that it can be named or turned."""
        row = self.rows[self.by[label][style]]
        return row["conc"] > .72 and row["sat"] > .22

    def make(self, rng, labels, count=1, style="3d", background="white", colour=None, say_style=True, name=None):
        """A scene to order: one label (and how many of it), or two side by side."""
        names = [name or names_of(label)[0] for label in labels]
        matrices = [np.eye(3)] * len(labels)
        if colour:
            row, (hue, light) = self.rows[self.by[labels[0]][style]], HUES[colour]
            matrices[0] = recolour(row["hue"] - hue, np.clip(light / max(.15, row["lum"]), .6, 1.7))
            names[0] = f"{colour} {names[0]}"
        jitter = lambda a: rng.uniform(-a, a)  # noqa: E731
        if len(labels) == 2:
            places, size, text = [(.27, .5), (.73, .5)], .45, f"{with_article(names[0])} and {with_article(names[1])}"
        elif count > 1:
            a, b = .27, .73
            places = {2: [(a, .5), (b, .5)], 3: [(a, a), (b, a), (.5, b)], 4: [(a, a), (b, a), (a, b), (b, b)]}[count]
            size, text = .42, f"{COUNTS[count]} {plural(names[0])}"
        else:
            places, size, text = [(.5, .5)], .84, with_article(names[0])
        icons = []
        for k, (x, y) in enumerate(places):
            of = min(k, len(labels) - 1)
            scale = size * rng.uniform(.95, 1.05)
            icons.append((self.by[labels[of]][style], x + jitter(.015), y + jitter(.015), scale, matrices[of]))
        if style != "3d" and say_style:
            text = rng.choice(("{0}, {1} style", "{1} icon of {0}", "{0}, {1}", "{0} in {1} style")).format(text, style)
        if background != "white" or rng.random() < .25:
            text += rng.choice((" on {a} background", " on {a} background", " with {a} background", ", {b} background")).format(
                a=with_article(background), b=background)
        shade = 0 if background == "white" else 6
        rgb = tuple(min(255, max(0, v + jitter(shade))) for v in BACKGROUNDS[background])
        return Scene(icons, rgb, text, dict(labels=labels, count=count, style=style, background=background, colour=colour))

    def draw(self, rng):
        """A random training scene; never a held-out combination."""
        while True:
            style = rng.choices(list(STYLES), (.70, .10, .13, .07))[0]
            kind = rng.choices(("one", "count", "pair"), (.74, .14, .12))[0]
            labels = rng.sample(list(WORDS), 2 if kind == "pair" else 1)
            background = "white" if rng.random() < .25 else rng.choice(list(BACKGROUNDS))
            count = rng.choice((2, 3, 4)) if kind == "count" else 1
            if any(style not in self.by[label] or held_out(label, background) for label in labels):
                continue
            if style != "3d" and any(held_out(label, style) for label in labels):
                continue
            if count > 1 and held_out(str(count), labels[0]) or kind == "pair" and held_out(*sorted(labels)):
                continue
            colour = rng.choice(list(HUES)) if kind == "one" and rng.random() < .15 and self.colourable(labels[0], style) else None
            name = rng.choice(names_of(labels[0])[1:]) if kind == "one" and rng.random() < .2 and len(names_of(labels[0])) > 1 else None
            return self.make(rng, labels, count, style, background, colour, name=name)

    def collage(self, rng):
        """For the VAE: up to three icons of any kind anywhere, in any colour, on any ground."""
        icons = [(rng.randrange(len(self.rows)), rng.uniform(.25, .75), rng.uniform(.25, .75), rng.uniform(.4, 1.1),
                  recolour(rng.uniform(0, 360), rng.uniform(.7, 1.2)) if rng.random() < .4 else np.eye(3))
                 for _ in range(rng.choice((1, 1, 2, 3)))]
        return Scene(icons, tuple(rng.uniform(0, 255) for _ in range(3)), "", {})

    def render(self, scene, side=64):
        """-> (side,side,3) float32 in [0,1]"""
        out = np.tile(np.float32(scene.background) / 255, (side, side, 1))
        for index, x, y, size, matrix in scene.icons:
            picture = self.pictures[index]
            k = max(1, round(size * side))
            left, top = round(x * side - k / 2), round(y * side - k / 2)
            whole = Image.frombytes("RGBa", picture.shape[1::-1], picture.tobytes())           # small a: premultiplied
            small = np.asarray(whole.resize((k, k), Image.Resampling.BOX), np.float32) / 255
            x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + k, side), min(top + k, side)
            small = small[y0 - top:y1 - top, x0 - left:x1 - left]
            alpha = small[..., 3:]
            rgb = np.clip(small[..., :3] @ matrix.T.astype(np.float32), 0, alpha)
            out[y0:y1, x0:x1] = out[y0:y1, x0:x1] * (1 - alpha) + rgb
        return out
