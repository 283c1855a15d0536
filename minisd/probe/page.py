"""An Explanation as one HTML file: page.html with its style, its program and the data within, which asks for nothing from anywhere.

Text of prompts and checkpoints is in the data alone, as JSON, and reaches the page as text."""
import base64
import hashlib
import html
import inspect
import io
import json
import math
import platform
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

from .. import __version__, conditioning, denoising
from ..backend import ops, threads
from ..diffusion import guidance, schedules
from ..errors import printable
from ..image.saving import png_info
from ..model import Model
from ..networks import clip, nn, taesd, unet, vae
from ..prompt import chunks
from ..prompt.tokenizer import Tokenizer
from .attention import shares
from .features import shrunk

HERE = Path(__file__).parent
MEAN_SIDE = 32                                               # positions each way of maps that are means over steps
BUDGET = 600_000                                             # bytes for the maps of single steps, which are made small enough


def page(found):
    """An Explanation -> the page, a string."""
    parts = {name: (HERE / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    title = html.escape(printable(found.prompt))
    # brackets, which could end a script, are written as JSON's escapes
    data = json.dumps(contents(found), ensure_ascii=True, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e")
    values = {"title": title, "css": parts["css"], "js": parts["js"], "data": data, "picture": picture_uri(found.picture),
              "style_hash": sha256(parts["css"]), "script_hash": sha256(parts["js"]), "width": found.picture.width,
              "height": found.picture.height}
    pieces = parts["html"].split("@@")                       # text, name, text, name, ...: what is filled in is not looked at again
    return "".join(str(values[piece]) if k % 2 else piece for k, piece in enumerate(pieces))


def sha256(text):
    """As a Content-Security-Policy names a script or style that may stand in the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def contents(found):
    """All that the page shows, as JSON takes it."""
    return {"size": list(found.picture.size), "again": printable(found.again),
            "facts": facts(found), "predicts": found.sampler.config["prediction_type"], "branches": found.attention.branches,
            "guidance": arithmetic(found), "decoded": found.decoded,
            "schedule": schedule(found), "steps": [step(s, found) for s in found.steps],
            "texts": [[token(t) for t in text] for text in found.attention.texts], "attention": attention(found.attention),
            "layers": [row(layer) for layer in found.layers], "blocks": blocks(found),
            "seconds": round(found.seconds, 3), "sources": sources(found)}


# ---- pictures ---------------------------------------------------------------------------------------------------


def picture_uri(picture):
    """The picture itself, as a PNG with its settings."""
    return uri(picture, "PNG", pnginfo=png_info(picture.info["parameters"], picture.info["minisd"]), optimize=True)


def small_uri(picture):
    return uri(picture, "WEBP", quality=75, method=4)


def uri(picture, kind, **options):
    memory = io.BytesIO()
    picture.save(memory, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(memory.getvalue()).decode()}"


def features_uri(array):
    return None if array is None else small_uri(Image.fromarray(array))


# ---- steps ------------------------------------------------------------------------------------------------------


def step(s, found):
    """One ExplainedStep."""
    k, level = s.step, s.step.sigma
    alpha = 1 / math.hypot(1, level)
    return {"call": k.i + 1, "calls": k.total, "t": round(k.t, 3), "alpha": number(alpha),
            "sigma": number(math.sqrt(1 - alpha**2)), "snr": number(1 / level**2 if level else math.inf),
            "rms": {name: number(value) for name, value in s.rms.items()},
            "pictures": {name: small_uri(picture) for name, picture in s.pictures.items()},
            "blocks": {name: features_uri(a) for name, a in s.blocks.items()}}


def number(value):
    """For JSON, which has no infinity: six digits, or None."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def schedule(found):
    """alpha, sigma and their ratio over all timesteps of training, some of them.   x = alpha x0 + sigma eps"""
    abar = schedules.alphas_cumprod(found.sampler.config)
    t = np.unique(np.linspace(0, len(abar) - 1, 120).round().astype(int))
    return {"t": t.tolist(), "alpha": [number(math.sqrt(a)) for a in abar[t]], "sigma": [number(math.sqrt(1 - a)) for a in abar[t]],
            "snr": [number(a / (1 - a)) for a in abar[t]]}


def arithmetic(found):
    """In words, what guidance does to the predictions, or "" where there is none."""
    scale = float(found.settings.guidance_scale)
    count = len(found.attention.branches)
    if count == 1:
        return ""
    several = " of each prompt, times its weight" if count > 2 else ""
    rescaled = f", then its spread brought back by {found.settings.guidance_rescale:g}" if found.settings.guidance_rescale else ""
    return f"result = without + {scale:g} x difference{several}{rescaled}"


# ---- attention --------------------------------------------------------------------------------------------------


def token(t):
    return {"text": printable(t.text), "id": t.id, "weight": round(t.weight, 4), "chunk": t.chunk, "kind": t.kind,
            "second": t.second if t.second is None else printable(t.second)}


def attention(maps):
    """Of each branch and each text that it read: maps of all tokens as means over steps; and of each step those of the words, with all
    padding as one, at a side that fits BUDGET."""
    reads = sorted({(branch, text) for s in maps.steps for branch, text in enumerate(s.texts)})
    sizes = list(maps.layers)
    mean = [{"branch": branch, "text": text, "maps": [packed(maps.at(size=s, branch=branch, text=text), MEAN_SIDE) for s in sizes]}
            for branch, text in reads]
    slots = [places(text) for text in maps.texts]
    rows = [len(slots[text]) for s in maps.steps for text in s.texts]
    side = next((n for n in (32, 16, 8) if sum(rows) * sum(min(n, h) * min(n, w) for h, w in sizes) <= BUDGET), 4)
    each = []
    for s in maps.steps:
        branches = []
        for branch, text in enumerate(s.texts):
            at = [s.maps[size][branch].astype(np.float32) for size in sizes]
            branches.append([packed(np.stack([a[group].sum(0) for group in slots[text]]), side) for a in at])
        each.append({"texts": list(s.texts), "maps": branches})
    return {"sizes": [[h, w, maps.layers[h, w]] for h, w in sizes], "mean": mean, "slots": slots, "steps": each}


def places(text):
    """Tokens -> [[place], ...]: each by itself but for the paddings, which are one group at the end."""
    padding = [k for k, t in enumerate(text) if t.kind in ("padding", "none")]
    return [[k] for k in range(len(text)) if k not in padding] + ([padding] if padding else [])


def packed(maps, side):
    """Shares (M,H,W) -> {"h", "w", "most": the largest of each, "bytes": each as a share of its largest, 0 .. 255, in base64}"""
    small = shrunk(maps.transpose(1, 2, 0), side).transpose(2, 0, 1)
    most = np.maximum(small.max((1, 2)), 1e-9)
    data = (small / most[:, None, None] * 255).round().astype(np.uint8).tobytes()
    return {"h": small.shape[1], "w": small.shape[2], "most": [number(float(m)) for m in most], "bytes": base64.b64encode(data).decode()}


# ---- the network ------------------------------------------------------------------------------------------------


def row(layer):
    """One Layer."""
    return {"network": layer.network, "name": layer.name, "operation": layer.operation, "served": layer.served,
            "block": layer.block, "takes": list(layer.takes), "gives": list(layer.gives), "parameters": layer.parameters,
            "calls": layer.calls, "ms": number(1e3 * layer.seconds), "gflop": number(layer.flops / 1e9), "mb": number(layer.bytes / 1e6),
            "mean": number(layer.mean), "std": number(layer.std), "largest": number(layer.largest),
            "features": features_uri(layer.features)}


def blocks(found):
    """The parts of each network in order of execution, each with the numbers of its layers; of the unet, where it stands in the U."""
    order = {}
    for k, layer in enumerate(found.layers):
        order.setdefault((layer.network, layer.block), []).append(k)
    downs, ups = (len({name for network, name in order if network == "unet" and name.startswith(side)})
                  for side in ("down_blocks.", "up_blocks."))
    rows = []
    for (network, name), indices in order.items():
        side, level = place_in_u(name, downs, ups) if network == "unet" else ("", None)
        shapes = [found.layers[k].gives for k in indices]
        maps = [shape for shape in shapes if len(shape) == 4] or [shape for shape in shapes if len(shape) == 3] or shapes
        rows.append({"network": network, "name": name, "side": side, "level": level, "gives": list(maps[-1]), "layers": indices})
    return rows


def place_in_u(name, downs, ups):
    """A block of the unet -> (its side, "down", "up", or "" for neither; how deep it stands, from -1, or None for what stands above)."""
    kind, _, number = name.partition("_blocks.")
    if number:
        return kind, int(number) if kind == "down" else ups - 1 - int(number)
    return {"conv_in": ("down", -1), "conv_out": ("up", -1), "mid_block": ("", downs)}.get(name, ("", None))


# ---- facts and sources ------------------------------------------------------------------------------------------


def facts(found):
    """[(what, value)]: the settings, the versions and the machine."""
    info = json.loads(found.picture.info["minisd"])
    settings = {"Prompt": info["prompt"], "Negative prompt": info["negative_prompt"], **info["settings"]}
    model = found.pipe.model
    settings |= {"Model": f"{model.checkpoint.name}, {model.checkpoint.family}", "Version": f"minisd {__version__}"}
    settings |= {"NumPy": np.__version__, "Python": platform.python_version(), "Computed by": model.device.name + f" in {model.dtype}",
                 "Processor": processor(), "Threads": threads.count(), "Products by": threads.blas()}
    return [[printable(str(k)), printable(str(v))] for k, v in settings.items() if v not in ("", None)]


def processor():
    """The processor's name, its family and model where the system says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].split("\n")
        said = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        return f"{said['model name']}, family {said['cpu family']}, model {said['model']}"
    except (OSError, KeyError):                              # another system, or another kind of processor
        return platform.processor() or platform.machine()


def sources(found):
    """{section of the page: [functions that computed it]}, and under "operations" those of every operation that ran."""
    model = found.pipe.model
    decoder = taesd.decode if model.autoencoder is taesd else vae.decode
    guided = guidance.by_prompts if len(found.attention.branches) > 2 else guidance.by_prompt
    sections = {"picture": [denoising.denoise, type(found.sampler), Model.decode],
                "tokens": [Tokenizer.encoded, chunks.chunks, conditioning.weigh, nn.attend, ops.attention.definition, shares],
                "steps": [guided, guidance.rescaled, schedules.alphas_cumprod, type(found.sampler).predict],
                "network": [unet.unet, unet.down_path, unet.resnet, unet.transformer, clip.hidden_states, decoder]}
    kind, operations = type(model.device.upload(np.zeros(1, np.float32))), {}
    for layer in found.layers:
        if layer.operation not in operations:
            versions = [ops.DEFINITIONS[layer.operation], ops.fast_version(layer.operation, kind)]
            operations[layer.operation] = [source(f) for f in versions if f is not None]
    return {**{name: [source(f) for f in functions] for name, functions in sections.items()}, "operations": operations}


def source(function):
    """A function or class, as it stands in the installed package."""
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    path = Path(inspect.getsourcefile(function)).relative_to(HERE.parent.parent).as_posix()
    return {"name": function.__qualname__, "file": path, "line": first, "text": textwrap.dedent("".join(lines)).rstrip()}
