"""How one picture came to be: a run of txt2img with all that is worth seeing kept, for a page (page.py) and for programs."""
import dataclasses
import html
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..backend import ops
from ..checkpoint.hub import SHIPPED
from ..denoising import Progress, Step, make_sampler, settled
from ..errors import InputError
from ..image import pixels as images
from ..image import saving
from ..image.grid import grid
from ..pipeline import Pipeline
from ..settings import Settings
from .attention import AttentionMaps, Pooling, read_tokens
from .features import as_map, coloured, directions, shrunk
from .preview import colours
from .watched import Layer, Watch, Watched

PAGES = ".html", ".htm"
MOST_STEPS = 50                                              # of which arrays are kept; of more, evenly spaced ones are
SIDE = 64                                                    # positions each way that a picture of latents keeps
FEATURES = 32                                                # and one of a layer's output
DECODED = 256                                                # pixels that a decoded latent keeps


@dataclass
class ExplainedStep:
    """One call of the unet, of those that are kept.

    step: the Step;  seconds: that the call took;  rms: root mean squares: of what the unet predicted "without" and "with" the prompt, of
    their "difference" and of the guided "result", and the "change" of the latent since the call before (None for the first)
    pictures: {"x0", "latent", "noise", "without", "with", "difference", "result": PIL images}, those without guidance absent
    blocks: {block of the unet: its output as a picture, (h,w,3) uint8}"""
    step: Step
    seconds: float
    rms: dict
    pictures: dict
    blocks: dict


@dataclass
class Explanation:
    """What explain() found; minisd.explain() gives one.

    picture: the PIL image, that of txt2img to the bit;  steps: ExplainedSteps;  layers: Layers, in order of execution
    attention: where the unet looked for each token, attention["apple"];  seconds: of the whole run
    prompt, negative_prompt, settings, pipe: what it was made of;  decoded: whether latents are shown by the decoder
    sampler: as it was before the run;  again: the program or command that makes this explanation again"""
    picture: Image.Image
    steps: list[ExplainedStep]
    layers: list[Layer]
    attention: AttentionMaps
    pipe: Pipeline
    prompt: str
    negative_prompt: str | None
    settings: Settings
    decoded: bool
    sampler: Any
    seconds: float
    again: str

    def __repr__(self):
        return (f"<Explanation of {self.prompt!r:.60}: {len(self.steps)} steps, {len(self.layers)} layers, "
                f"{self.picture.width}x{self.picture.height}; .save('page.html')>")

    def html(self):
        """The page, a string: one file that asks for nothing from anywhere."""
        from .page import page
        return page(self)

    def save(self, path: str | Path) -> None:
        """Write the page, whole or not at all.  path: ends in .html.  Raises InputError where it cannot be written."""
        saving.check_place(path, PAGES)
        data = self.html().encode()
        saving.write(Path(path), lambda file: file.write(data))

    def strip(self) -> Image.Image:
        """The clean picture as predicted at each step, as one image in rows of ten."""
        return grid(self.frames()[:-1], columns=10)

    def save_animation(self, path: str | Path) -> None:
        """Write the way as a GIF: what strip() shows, then the picture.  Raises InputError where it cannot be written."""
        frames = self.frames()
        saving.save_animation(path, frames + frames[-1:] * 5, 0.2)

    def frames(self):
        """PIL images of one size: x0 at each step, then the picture."""
        k = min(1.0, 256 / max(self.picture.size))
        size = max(1, round(k * self.picture.width)), max(1, round(k * self.picture.height))
        smooth = Image.Resampling.BILINEAR
        return [s.pictures["x0"].resize(size, smooth) for s in self.steps] + [self.picture.resize(size, Image.Resampling.LANCZOS)]

    def _repr_html_(self):
        return f'<iframe srcdoc="{html.escape(self.html())}" style="width:100%;height:48em;border:0"></iframe>'


def explain(pipe: Pipeline, prompt: str, negative_prompt: str | None = None, *, decode: bool = False,
            progress: bool | Callable[[Step], object] | None = None, **settings) -> Explanation:
    """Make a picture as pipe.txt2img() does, to the bit, and keep how it came to be.

        found = minisd.explain(minisd.load(), "a red apple", seed=1)
        found.save("apple.html")
        found.attention["apple"]                             # (H,W): where the unet looked for that word
        max(found.layers, key=lambda layer: layer.seconds)

    prompt, negative_prompt, progress, settings: as for pipe.txt2img(), of one picture
    decode: whether latents of each step are shown as the decoder makes them, three calls of it a step, in place of the colours that their
        channels stand for
    Raises what txt2img raises, and InputError for several pictures."""
    if not isinstance(prompt, str):
        raise InputError(f"prompt is a {type(prompt).__name__}; explain takes one text, for one picture")
    for name, right in (("num_images", 1), ("output", "pil")):
        if not np.array_equal(settings.get(name, right), right):
            raise InputError(f"{name} is {settings[name]!r:.80}; explain is about one picture as a PIL image: leave it out")
    if settings.get("cache_interval", 1) != 1:
        raise InputError("cache_interval leaves out what explain is to show")
    if not isinstance(decode, bool):
        raise InputError(f"decode is {decode!r:.80}; it must be True or False")
    seen, start = Seen(pipe.model), time.perf_counter()
    with Progress(progress) as report, ops.watch(seen.watch):
        def step(s):
            report(s)
            seen.step(s)
        picture = Pipeline(seen.model, pipe.provenance).txt2img(prompt, negative_prompt, progress=step, **settings)
    seconds = time.perf_counter() - start
    show = Shown(pipe.model, decode)
    steps = [ExplainedStep(k.step, k.seconds, k.rms, show.pictures(k), k.blocks) for k in seen.kept]
    layers = list(seen.watch.layers.values())
    chosen = settled(pipe.model, Settings(**{f.name: settings[f.name] for f in dataclasses.fields(Settings) if f.name in settings}))
    return Explanation(picture, steps, layers, seen.pooling.found, pipe, prompt, negative_prompt, chosen, decode,
                       make_sampler(pipe.model, chosen), seconds, program(pipe, prompt, negative_prompt, decode, settings, picture))


def program(pipe, prompt, negative_prompt, decode, settings, picture):
    """The lines of Python that make the explanation again."""
    given = {k: v for k, v in settings.items() if k not in ("latents", "control_image", "seed")}
    seed = json.loads(picture.info["minisd"])["settings"]["Seed"]
    arguments = [repr(prompt), *([repr(negative_prompt)] if negative_prompt is not None else []), f"seed={seed}",
                 *(f"{k}={v!r}" for k, v in given.items()), *(["decode=True"] if decode else [])]
    folder = pipe.model.checkpoint.folder
    loaded = "minisd.load()" if folder == SHIPPED else f"minisd.load({str(folder)!r})"
    return f"minisd.explain({loaded}, {', '.join(arguments)}).save('explained.html')"


@dataclass
class Kept:
    """Of one call, what is kept while the run goes on."""
    step: Step
    seconds: float
    rms: dict
    predicted: dict
    blocks: dict


class Seen:
    """What a run tells while it goes on.  model: to run it on, which computes what the one given would."""

    def __init__(self, model):
        self.watch = Watch(self.look)
        self.model, self.pooling = Watched(model, self.watch, self), Pooling(model.device.download)
        self.kind = model.scheduler.get("prediction_type", "epsilon")
        self.kept, self.said = [], []
        self.size, self.count, self.calls, self.total = None, 0, 0, None
        self.ends, self.axes, self.blocks, self.branches, self.before = {}, {}, {}, [], None

    # ---- called by Watched ----

    def conditioned(self, says, without, s, found):
        """What each branch of guidance reads."""
        length, weighted = found["context"].shape[1], s.prompt_syntax == "a1111"
        negatives, second = says.negatives
        rows = [(negatives[0] if negatives is not None else "", second and second[0])] * without
        rows += [(prompts[0], more and more[0]) for prompts, more in says.positives]
        texts = []
        for k, (prompt, other) in enumerate(rows):
            tokens = read_tokens(self.model.text_encoders, prompt, other, weighted, length)
            if not bool(found["context"][k].any()):          # Stable Diffusion XL without a negative prompt
                tokens = tuple(dataclasses.replace(t, text="", id=None, kind="none") for t in tokens)
            known = self.pooling.found.texts
            if tokens not in known:
                known.append(tokens)
            texts.append(known.index(tokens))
        several = len(rows) - without > 1
        self.branches = ["no prompt" if negatives is None else "negative prompt"] * without
        self.branches += [f"prompt {k + 1}" if several else "prompt" for k in range(len(rows) - without)]
        self.pooling.found.branches = self.branches
        self.said.append((found, tuple(texts)))
        self.start = time.perf_counter()

    def predicted(self, out, conditioning):
        """The unet's prediction on all branches is there."""
        self.out, self.texts = out, next(texts for found, texts in self.said if found is conditioning)

    # ---- called by the Watch ----

    def look(self, layer, y, args):
        """An operation's result."""
        if layer.network != "unet":
            if layer.calls == 1:
                describe(layer, self.last_row(y), None)
            return
        if y.ndim == 4:
            self.size = y.shape[1:3]
        self.pooling.see(layer, args, self.size)
        first, self.count = self.calls == 0, self.count + 1
        if first and layer.name:
            self.ends[layer.block] = self.count
        if first or self.calls == self.total // 2:
            describe(layer, self.last_row(y), self.size)
        if layer.name and (first or self.ends[layer.block] == self.count) and y.ndim > 2:
            self.blocks[layer.block] = shrunk(as_map(self.last_row(y), self.size), FEATURES)

    def last_row(self, y):
        """(B,...) on the device -> (1,...) float32 on the host: that of the prompt."""
        return self.model.device.download(y[-1:]).astype(np.float32, copy=False)

    # ---- called by the run ----

    def step(self, step):
        """A call of the unet, and what came of it, is over."""
        now, self.total = time.perf_counter(), step.total
        if step.i % math.ceil(step.total / MOST_STEPS) == 0 or step.i == step.total - 1:
            self.keep(step, now - self.start)
        self.pooling.end(step.i, self.texts, keep=self.kept[-1].step is step)
        self.blocks, self.count, self.calls, self.before, self.start = {}, 0, self.calls + 1, step.latent, now

    def keep(self, step, seconds):
        self.axes = {block: directions(x, self.axes.get(block)) for block, x in self.blocks.items()}
        blocks = {block: coloured(x, self.axes[block]) for block, x in self.blocks.items()}
        *others, prompt = np.split(self.out, len(self.branches))
        predicted = {"with": prompt, "result": guided(step, self.kind)}
        if others:
            predicted |= {"without": others[0], "difference": prompt - others[0]}
        rms = {name: root_mean_square(a) for name, a in predicted.items()}
        rms["change"] = None if self.before is None else root_mean_square(step.latent - self.before)
        self.kept.append(Kept(step, seconds, rms, predicted, blocks))


def guided(step, kind):
    """What guidance made of the unet's predictions, in their own terms: noise, v, or the clean latent.   Salimans & Ho 2022, section 4"""
    if kind == "epsilon":
        return step.eps
    if kind == "sample":
        return step.x0
    alpha = 1 / math.hypot(1, step.sigma)
    return alpha * step.eps - math.sqrt(1 - alpha**2) * step.x0


def root_mean_square(a):
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))


def describe(layer, y, size):
    """The numbers and the picture of a layer's output, (1,...) float32."""
    flat = np.ascontiguousarray(y).reshape(-1)
    layer.mean, layer.largest = float(flat.mean()), float(max(flat.max(), -flat.min()))
    layer.std = math.sqrt(max(0.0, float(np.vdot(flat, flat)) / flat.size - layer.mean**2))
    shape = as_map(y, size)
    if shape is not None and np.isfinite(layer.largest):
        small = shrunk(shape, FEATURES)
        layer.features = coloured(small, directions(small))


class Shown:
    """Latents as pictures.  decode: by the decoder, for what it can decode"""

    def __init__(self, model, decode):
        self.model, self.decode = model, decode
        self.colours = colours(model).astype(np.float32)

    def pictures(self, kept):
        """A Kept -> {name: PIL image}"""
        step = kept.step
        shown = {"x0": step.x0, "latent": step.latent / max(1, root_mean_square(step.latent)), "noise": step.eps}
        found = {name: self.decoded(a) if self.decode else self.coloured(a) for name, a in shown.items()}
        found |= {name: self.coloured(a) for name, a in kept.predicted.items()}
        return found

    def decoded(self, latent):
        array = self.model.decode(latent.astype(self.model.latent_dtype))
        picture, = images.to_pil(array)
        picture.thumbnail((DECODED, DECODED), Image.Resampling.LANCZOS)
        return picture

    def coloured(self, latent):
        z = shrunk(latent[0].astype(np.float32), SIDE)
        picture, = images.to_pil((np.concatenate([z, np.ones_like(z[..., :1])], axis=-1) @ self.colours).clip(0, 1)[None])
        return picture
