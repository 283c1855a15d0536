"""What is mutated, and what must not go wrong then.  A case is case(r, place): r a random.Random, place an empty folder, the current one.

Whatever it raises but errors of ours is a fault; Wrong is raised where a result is not what it should be."""

import contextlib
import csv
import io
import json
import warnings
from pathlib import Path

import drawn_models
import numpy as np
from PIL import ExifTags, Image, PngImagePlugin
from safetensors.numpy import load_file, save_file

import minisd
from minisd import denoising
from minisd.cli import main as cli
from minisd.cli import repeat
from minisd.diffusion.samplers import SAMPLERS
from minisd.errors import InputError, MinisdError, printable
from minisd.image import metadata, pixels, saving
from minisd.probe import describe
from minisd.prompt.syntax import parse
from minisd.settings import Settings

from . import models, mutate
from .process import Wrong, acts

CASES = {}  # name -> (weight, case)
FILES = {}  # what models.write() gave
LOADED = {}  # models that most cases need, loaded before they are forked


def case(weight):
    def add(function):
        CASES[function.__name__] = weight, function
        return function

    return add


def prepare(place):
    """Write the models, load those that are only used."""
    FILES.update(models.write(place))
    LOADED.update({name: minisd.load(FILES[name]) for name in ("sd", "icons")})
    FILES["recording"] = minisd.record(LOADED["icons"], place / "recording", only=["text_encoder"]).folder


def checked(picture):
    """A picture's pixels, of which none is NaN and not all are the same."""
    found = np.asarray(picture)
    if not np.isfinite(found.astype(float)).all():
        raise Wrong("a picture with NaN")
    return picture


def use(pipe, r):
    """A model that was opened must make a picture, or say why not."""
    if r.random() < 0.5:
        repr(pipe)
    size = pipe.model.vae_config.factor * r.choice([2, 4])
    sampler = r.choice([None, "euler"])
    return checked(pipe.txt2img("a cat", num_inference_steps=1, seed=1, width=size, height=size, sampler=sampler))


def one_step(*args, **kwargs):
    """The denoising loop, stopped after its first call."""
    for step in WHOLE(*args, **kwargs):
        yield step
        return


WHOLE = denoising.denoise


# ---- files of a model ----------------------------------------------------------------------------------------------


@case(20)
def weights(r, place):
    """A network's weights."""
    model = FILES[r.choice(["sd", "sd", "xl", "icons"])]
    path = r.choice(sorted(model.rglob("*.safetensors")))
    there = models.linked(model, place / "m", path)
    there.write_bytes(mutate.safetensors(r, path.read_bytes()))
    if r.random() < 0.3:
        return inspected(place / "m")
    use(minisd.load(place / "m", low_memory=r.random() < 0.2), r)


@case(20)
def configurations(r, place):
    """A model's JSON files, the tokenizer's among them."""
    model = FILES[r.choice(["sd", "xl", "icons"])]
    path = r.choice(sorted(model.rglob("*.json")))
    there = models.linked(model, place / "m", path)
    there.write_bytes(mutate.written(r, mutate.document(r, json.loads(path.read_text()))))
    if r.random() < 0.3:
        return inspected(place / "m")
    use(minisd.load(place / "m"), r)


@case(3)
def tokenizers(r, place):
    """merges.txt, words.txt, tokenizer.json in place of both, and links out of the folder by a shard index."""
    model, what = FILES["icons"], r.randrange(4)
    path = model / ("words.txt" if what == 0 else "tokenizer/merges.txt")
    there = models.linked(model, place / "m", path)
    if what < 2:
        there.write_bytes(mutate.some_bytes(r, path.read_bytes()))
    elif what == 2:
        vocab = json.loads((model / "tokenizer" / "vocab.json").read_text())
        merges = [line for line in path.read_text().split("\n") if line and not line.startswith("#")]
        whole = {"model": {"type": "BPE", "vocab": vocab, "merges": merges[:20]}, "added_tokens": [{"id": 3, "content": "x"}]}
        there.unlink()
        (there.parent / "tokenizer.json").write_bytes(mutate.written(r, mutate.document(r, whole)))
    else:
        unet = place / "m" / "unet"
        (unet / "diffusion_pytorch_model.safetensors").unlink()
        target = r.choice(
            [
                "../vae/diffusion_pytorch_model.safetensors",
                str(model / "unet" / "diffusion_pytorch_model.safetensors"),
                "a.safetensors",
                "",
                ".",
                "..",
                "\x00",
                "config.json",
                5,
                None,
                "a" * 5000,
            ]
        )
        (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(
            json.dumps({"weight_map": r.choice([{"a": target}, [target], target])})
        )
    use(minisd.load(place / "m"), r)


@case(6)
def single_files(r, place):
    """A file with LDM names."""
    path = place / "m.safetensors"
    path.write_bytes(mutate.safetensors(r, FILES["file"].read_bytes()))
    if r.random() < 0.5:
        return inspected(path)
    use(minisd.load(path, prediction_type=r.choice([None, "epsilon"])), r)


@case(14)
def additions(r, place):
    """LoRA, textual inversion, ControlNet, vae."""
    kind = r.choice(["lora", "lora", "peft", "word", "word", "controlnet", "taesd"])
    source = FILES[kind]
    if source.is_dir():
        changed = r.choice(sorted(source.iterdir()))
        there = models.linked(source, place / "part", changed)
        there.write_bytes(
            mutate.safetensors(r, changed.read_bytes())
            if changed.suffix == ".safetensors"
            else mutate.written(r, mutate.document(r, json.loads(changed.read_text())))
        )
        path = place / "part"
    else:
        path = place / "part.safetensors"
        path.write_bytes(mutate.safetensors(r, source.read_bytes()))
    if r.random() < 0.3:
        return inspected(path)
    how = {
        "lora": dict(lora=(path, r.choice([1.0, 0, -1, 1e30, np.float32(2)]))),
        "peft": dict(lora=path),
        "word": dict(textual_inversion=(path, r.choice([None, "cat", "x", "\x1b[2J", "", " "]))),
        "controlnet": dict(controlnet=path),
        "taesd": dict(vae=path),
    }[kind]
    pipe = minisd.load(FILES["sd"], **how)
    if kind == "controlnet":
        return checked(pipe.txt2img("a cat", num_inference_steps=1, width=16, height=16, control_image=models.picture(r, 16, 16)))
    use(pipe, r)


@case(3)
def adapters(r, place):
    """A LoRA's own configuration, peft's patterns of names."""
    (place / "a").mkdir()
    arrays = {
        f"base_model.model.{layer}.lora_{k}.weight": drawn_models.uniform(k, (2, 32) if k == "A" else (32, 2))
        for layer in ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",)
        for k in "AB"
    }
    save_file(arrays, place / "a" / "adapter_model.safetensors")
    given = {
        "lora_alpha": 4,
        "r": 2,
        "use_rslora": False,
        "alpha_pattern": {r.choice(["to_q", "^to_q$", "(.*)*x", "attn1\\.to_q", "(" * 100, "a" * 40]): 8},
    }
    (place / "a" / "adapter_config.json").write_bytes(mutate.written(r, mutate.document(r, given, 1)))
    use(minisd.load(FILES["sd"], lora=place / "a"), r)


@case(3)
def comparisons(r, place):
    """A recording, what another engine computed from it, and its names of layers."""
    source, pipe = FILES["recording"], LOADED["icons"]
    arrays = load_file(source / "outputs.safetensors")
    (place / "theirs").mkdir()
    kind = r.choice(["safetensors", "npz", "npy"])
    if kind == "safetensors":
        save_file(arrays, place / "theirs" / "a.safetensors")
    elif kind == "npz":
        np.savez(place / "theirs" / "a.npz", **arrays)
    else:
        for name in r.sample(sorted(arrays), 4):
            np.save(place / "theirs" / f"{name}.npy", arrays[name])
    (place / "names.yaml").write_text(
        "".join(f"{r.choice(['', 'x.', '*.'])}{k}: {r.choice([k, 'a.*', mutate.text(r, 2)])!r}\n" for k in r.sample(sorted(arrays), 3))
    )
    changed = r.choice(
        [*sorted((place / "theirs").iterdir()), *sorted((place / "theirs").iterdir()), *source.iterdir(), place / "names.yaml"]
    )
    if changed.parent == source:
        there = models.linked(source, place / "recording", changed)
        source = place / "recording"
    else:
        there = changed
    if there.suffix == ".safetensors":
        there.write_bytes(mutate.safetensors(r, there.read_bytes()))
    elif there.suffix == ".json":
        there.write_bytes(mutate.written(r, mutate.document(r, json.loads(there.read_text()))))
    else:
        there.write_bytes(mutate.some_bytes(r, there.read_bytes()))
    how = dict(
        names=place / "names.yaml" if r.random() < 0.3 or there.suffix == ".yaml" else None,
        layout=r.choice([None, None, "first", "last"]),
        precision=r.choice([None, None, "float16"]),
        factor=r.choice([16.0, 1, 1e30]),
    )
    found = minisd.compare(source, place / "theirs" if r.random() < 0.9 else None, pipe, **how)
    json.loads(found.json())
    if acts("\n".join([printable(found.table()), printable(found.verdict)])):
        raise Wrong("raw control characters on the terminal")


def inspected(path):
    lines, _ = describe.inspect(path)
    terminal = io.StringIO()
    with contextlib.redirect_stdout(terminal):
        cli.terminal.show("\n".join(lines))
    if acts(terminal.getvalue()):
        raise Wrong("raw control characters on the terminal")


# ---- prompts -------------------------------------------------------------------------------------------------------


@case(12)
def prompts(r, place):
    """Prompts, read and drawn."""
    denoising.denoise = one_step if r.random() < 0.8 else WHOLE
    pipe, words = LOADED[r.choice(["sd", "icons"])], mutate.text(r)
    how = dict(num_inference_steps=r.choice([1, 2, 5]), width=16, height=16, prompt_syntax=r.choice(["a1111", "a1111", "plain"]), seed=1)
    if r.random() < 0.5:
        how["negative_prompt"] = mutate.text(r)
    checked(pipe.txt2img(words if r.random() < 0.9 else [words, mutate.text(r)], **how))
    if len(words) < 20_000 and not all(np.isfinite(w) for _, w in parse(words)):
        raise Wrong("a weight that is no number went through")


# ---- pictures ------------------------------------------------------------------------------------------------------

FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "ICO", "TGA", "PCX", "IM", "JPEG2000", "SGI", "DDS"]


@case(16)
def pictures(r, place):
    """Image files of any kind, with metadata, damaged."""
    source, kind = models.picture(r, r.choice([1, 9, 16]), r.choice([1, 8, 17])), r.choice(FORMATS)
    image = Image.fromarray(source).convert(
        r.choice(["RGB", "RGB", "L", "RGBA", "P", "1", "LA", "CMYK", "I", "F", "I;16"] if kind in ("TIFF", "PNG") else ["RGB", "L"])
    )
    memory, options, exif = io.BytesIO(), {}, Image.Exif()
    exif[ExifTags.Base.Orientation] = r.choice([1, 3, 6, 8, 9, 0])
    exif[ExifTags.Base.ImageDescription] = mutate.text(r, 5).encode("ascii", "replace").decode()
    if kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        options["exif"] = exif
    if kind == "PNG":
        options["pnginfo"] = info = PngImagePlugin.PngInfo()
        info.add_text("parameters", mutate.text(r, 20).encode("utf-8", "replace").decode(), zip=r.random() < 0.5)
    try:
        image.save(memory, format=kind, **options)
    except Exception:  # not every mode in every format; Pillow's affair
        return "not written"
    found = memory.getvalue() if r.random() < 0.3 else mutate.some_bytes(r, memory.getvalue())
    if r.random() < 0.05:
        found = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n"
    path = place / r.choice(["a.png", "a.jpg", "a.tiff", "a.eps", "a"])
    path.write_bytes(found)
    with contextlib.suppress(InputError):
        metadata.read_parameters(path)
    denoising.denoise = one_step
    what = r.randrange(3)
    size = dict(width=16, height=16)
    if what == 0:
        pixels.read(path)
    elif what == 1:
        checked(LOADED["sd"].img2img("a cat", path, num_inference_steps=2, **size))
    else:
        checked(LOADED["sd"].inpaint("a cat", models.picture(r, 16, 16), path, num_inference_steps=2, **size))


# ---- the settings that pictures carry ------------------------------------------------------------------------------


def parameters(r):
    """A text of settings such as other programs write, changed."""
    keys = [
        "Steps",
        "Sampler",
        "CFG scale",
        "Seed",
        "Size",
        "Model",
        "Schedule type",
        "Clip skip",
        "Eta",
        "RNG",
        "ControlNet weight",
        "Guess mode",
        "Prompt syntax",
        "Denoising start",
        "Lora hashes",
        "LoRA",
        "VAE",
        mutate.text(r, 2),
    ]
    values = [
        "20",
        "Euler",
        "7.5",
        "1",
        "64x64",
        "abc",
        '"abc',
        '"a, b"',
        "[0.5, [1]]",
        "[" * 5000,
        "9" * 400,
        "9" * 5000,
        "-1",
        "nan",
        "inf",
        "20000x20000",
        "0x0",
        "\x1b[2J",
        "²",
        "٣x٣",
        "DPM++ 2M Karras",
        '"\\u0"',
        '"\\',
        mutate.text(r, 3),
    ]
    line = ", ".join(f"{r.choice(keys)}: {r.choice(values)}" for _ in range(r.randrange(12)))
    if r.random() < 0.7:
        line = f"Steps: {r.choice(['2', '2', r.choice(values)])}, {line}"
    return (
        "\n".join(
            [
                mutate.text(r, 6),
                *([f"Negative prompt: {mutate.text(r, 3)}"] if r.random() < 0.5 else []),
                line * r.choice([1, 1, 1, 1, 200]),
            ]
        )
        .encode("utf-8", "replace")
        .decode()
    )


@case(12)
def repeats(r, place):
    """--from of pictures with any settings, by the command line as a whole."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", parameters(r))
    if r.random() < 0.4:
        own = {
            "minisd": 1,
            "prompt": "a cat",
            "negative_prompt": "",
            "settings": {"Steps": 2, "Sampler": "DDIM", "Seed": 1, "Size": "16x16"},
        }
        info.add_text("minisd", mutate.written(r, mutate.document(r, own)).decode("utf-8", "replace"))
    Image.new("RGB", (8, 8)).save(place / "a.png", pnginfo=info)
    denoising.denoise = one_step
    commanded(["txt2img", "--from", "a.png", "-m", str(FILES["sd"]), "-o", "out.png"])


@case(8)
def tables(r, place):
    """Tables of pictures to draw, of any columns and cells, by the command line as a whole; what it says was drawn is there."""
    names = [*vars(Settings()), "prompt", "negative_prompt", "id", "image", "strength", "output", mutate.text(r, 2)]
    odd, rows = r.sample(names, r.choice([1, 2, 4])), []
    for _ in range(r.choice([1, 1, 3])):
        row = {"prompt": "a cat", "num_inference_steps": 2, "width": 16, "height": 16}
        rows.append(row | {name: mutate.odd(r) for name in odd if r.random() < 0.3})
    if r.random() < 0.5:
        text = io.StringIO(newline="")
        lines = csv.writer(text)
        heads = list(dict.fromkeys(name for row in rows for name in row))
        lines.writerows([heads, *([str(row.get(name, "")) for name in heads] for row in rows)])
        name, found = "rows.csv", text.getvalue().encode("utf-8", "surrogatepass")
    else:
        name, found = "rows.jsonl", b"\n".join(mutate.written(r, row) for row in rows)
    Path(name).write_bytes(mutate.some_bytes(r, found) if r.random() < 0.3 else found)
    denoising.denoise = one_step
    commanded(
        ["batch", name, "-m", str(FILES["sd"]), "-o", "out", "--quiet", *r.choice([[], ["--skip-bad"]]), "--together", r.choice("124")]
    )
    report = next(Path("out").glob("report.*"))
    if report.suffix == ".csv":
        with open(report, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["seconds"]:
                    with Image.open(row["file"]) as picture:
                        picture.load()


@case(10)
def round_trips(r, place):
    """A picture made again from its own settings must be the same, and say the same of itself."""
    pipe = LOADED["icons"]
    sampler = r.choice([None, *SAMPLERS])
    how = dict(
        num_inference_steps=r.choice([4, 5, 7]),
        seed=r.choice([0, 1, 2**32, 2**63 + 1, 2**64 - 1, -5]),
        sampler=sampler,
        guidance_scale=r.choice([1, 1.5, 7.5, 3]),
        width=r.choice([16, 24]),
        height=16,
        rng=r.choice(["cpu", "cuda"]),
    )
    how |= r.choice([{}, dict(clip_skip=2), dict(guidance_rescale=0.5), dict(prompt_syntax="plain"), dict(timestep_spacing="trailing")])
    if sampler in ("euler", "heun", "dpmpp_2m", "unipc", "lms", "dpm2"):
        how |= r.choice([{}, dict(sigmas="karras"), dict(sigmas="exponential")])
    words, negative = (mutate.text(r, 10).replace("\ud800", "") for _ in range(2))
    if how["guidance_scale"] == 1:
        words = words.replace("AND", "and")
    picture = pipe.txt2img(words, r.choice([None, negative]), **how)
    path = place / f"a.{r.choice(['png', 'png', 'webp', 'jpg'])}"
    saving.save(path, picture)
    commanded(["txt2img", "--from", path.name, "-o", "again.png"], expected=0)
    with Image.open("again.png") as again:
        if not np.array_equal(np.asarray(again), np.asarray(picture)):
            raise Wrong(f"made again, another picture: {words!r} {how}")
        if again.info["minisd"] != picture.info["minisd"]:
            raise Wrong(f"made again, it says other things: {picture.info['minisd']} {again.info['minisd']}")


# ---- arguments -----------------------------------------------------------------------------------------------------

TASKS = {
    "txt2img": [],
    "img2img": ["image", "strength", "denoising_start"],
    "inpaint": ["image", "mask_image", "strength", "pad", "denoising_start"],
    "upscale": ["image", "noise_level", "tile"],
    "instruct_pix2pix": ["image", "image_guidance_scale"],
    "depth2img": ["image", "depth_map", "strength"],
}
VALUES = [
    *mutate.ODD,
    np.int64(3),
    np.float32(0.5),
    np.array([1, 2]),
    np.array(5),
    np.zeros((16, 16, 3), np.uint8),
    [1, [2]],
    (16, 16),
    object(),
    "euler",
    "karras",
    "cuda",
    Path("x"),
    b"x",
    range(3),
    {1},
    1 + 2j,
    lambda: 1,
    np.bool_(True),
    np.array(["pil"]),
    16,
    32,
    2,
    999,
    "trailing",
    np.zeros((1, 2, 2, 4), np.float32),
    float,
    [0.5, 0.5],
    -1e308,
    "array",
    "latent",
    20001,
]


LIKELY = {
    "num_inference_steps": [1, 3, np.int64(2), 1000],
    "guidance_scale": [0, 1, 3, np.float32(7.5), 1e4, 50],
    "seed": [0, [5], -1, np.uint64(9)],
    "width": [8, 24, 200],
    "height": [16, 40],
    "num_images": [1, 2, 3, np.int32(2)],
    "sampler": list(SAMPLERS),
    "sigmas": ["karras", "exponential"],
    "timestep_spacing": ["leading", "trailing", "linspace"],
    "eta": [0, 0.5, 1],
    "guidance_rescale": [0.3, 1],
    "clip_skip": [1, 2, 3],
    "rng": ["cuda"],
    "shared_generator": [True],
    "denoising_end": [0.5, 1.0],
    "strength": [0.01, 0.5, 1],
    "denoising_start": [0.5, 0.99],
    "pad": [(8, 0, 0, 8), [1, 2, 3, 4]],
    "noise_level": [0, 20],
    "tile": [16, 64],
    "output": ["array", "latent"],
    "progress": [True, lambda s: 1 / 0],
    "prompt": ["a AND b", ["a", "b"], "[a:b:1]"],
    "negative_prompt": ["", "x", ["y"]],
    "latents": [np.zeros((1, 2, 2, 4), np.float32)],
    "image": [Image.new("RGBA", (5, 300)), np.zeros((1, 2, 2, 4), np.float32), np.ones((9, 9, 3))],
    "original_inference_steps": [20],
}


@case(18)
def arguments(r, place):
    """Python's arguments, each of any kind."""
    denoising.denoise = one_step
    task = r.choice(list(TASKS))
    names = [*vars(Settings()), "prompt", "negative_prompt", "output", "progress", *TASKS[task] * 4]
    how = {name: r.choice(VALUES) for name in r.choices(names, k=r.choice([0, 1, 1, 2]))}
    how |= {name: r.choice(values) for name, values in r.sample(sorted(LIKELY.items()), 4) if name in names and name not in how}
    if how.get("progress") is float:  # a function of the caller's, whose errors are the caller's
        del how["progress"]
    if isinstance(how.get("num_images"), int) and how["num_images"] > 100:
        how["num_images"] = 100_001  # a number that can be served is served, which takes its time
    given = {"prompt": "a cat", "num_inference_steps": r.choice([2, 4]), "width": 16, "height": 16}
    given |= {"image": models.picture(r, 16, 16)} if task != "txt2img" else {}
    given |= {"mask_image": np.eye(16, dtype=np.float32)} if task == "inpaint" else {}
    given |= {"depth_map": np.eye(16)} if task == "depth2img" else {}
    if task == "upscale":
        del given["width"], given["height"]
    if task in ("upscale", "instruct_pix2pix", "depth2img") and r.random() < 0.8:
        task = "img2img"
        how = {k: v for k, v in how.items() if k not in ("noise_level", "tile", "depth_map", "image_guidance_scale")}
        given.pop("depth_map", None)
    try:
        found = getattr(LOADED["sd"], task)(**{**given, **how})
    except ZeroDivisionError:  # of our own function for `progress`
        return
    for picture in found if isinstance(found, list) else [found]:
        checked(picture)


@case(4)
def loading(r, place):
    """minisd.load's arguments, and those of what stands beside it."""
    names = [
        "model",
        "device",
        "dtype",
        "variant",
        "low_memory",
        "lora",
        "prediction_type",
        "textual_inversion",
        "vae",
        "controlnet",
        "extract_ema",
    ]
    what = r.randrange(4)
    if what < 2:
        minisd.load(**{"model": FILES["sd"], **{r.choice(names): r.choice(VALUES) for _ in range(r.choice([1, 2]))}})
    elif what == 2:
        r.choice(
            [
                lambda v: minisd.save(v, Image.new("RGB", (4, 4))),
                lambda v: minisd.save("a.png", v),
                lambda v: minisd.grid([v]),
                lambda v: minisd.grid([Image.new("RGB", (4, 4))], v),
                lambda v: minisd.canny(v),
                lambda v: minisd.canny(Image.new("RGB", (4, 4)), v),
                lambda v: minisd.save("a.png", Image.new("RGB", (4, 4)), v),
                minisd.grid,
            ]
        )(r.choice(VALUES))
    else:
        model, value = LOADED["sd"].model, r.choice(VALUES)
        r.choice(
            [
                lambda: model.encode(value),
                lambda: model.encode_prompts([value] if isinstance(value, str) else ["a"], clip_skip=value),
                lambda: LOADED["sd"].txt2img_steps("a", num_inference_steps=value),
            ]
        )()


OPTIONS = [
    "--steps",
    "--guidance",
    "--seed",
    "--size",
    "-n",
    "--sampler",
    "--sigmas",
    "--spacing",
    "--eta",
    "--guidance-rescale",
    "--rng",
    "--clip-skip",
    "--prompt-syntax",
    "--negative",
    "--refiner",
    "--refiner-start",
    "--lora",
    "--embedding",
    "--vae",
    "--controlnet",
    "--control",
    "--grid",
    "--preview",
    "--save-steps",
    "--taesd",
    "--threads",
    "--device",
    "--variant",
    "--prediction-type",
    "-o",
    "--prompts",
    "--from",
    "--profile",
    "--low-memory",
    "--ema",
    "--quiet",
    "--prompt-2",
    "--strength",
    "--mask",
    "--pad",
    "--canny",
    "--guess-mode",
    "--typo",
    "-x",
]


USUAL = {
    "--steps": ["1", "3"],
    "--guidance": ["1", "7.5", "1e9"],
    "--seed": ["1", "-3", str(2**64 - 1)],
    "--size": ["16x16", "24X16"],
    "-n": ["2", "3"],
    "--sampler": list(SAMPLERS),
    "--sigmas": ["karras"],
    "--spacing": ["trailing"],
    "--eta": ["0.5"],
    "--guidance-rescale": ["0.5"],
    "--rng": ["cuda"],
    "--clip-skip": ["2"],
    "--prompt-syntax": ["plain"],
    "--negative": ["x"],
    "--grid": ["sheet.png"],
    "--preview": ["p.png"],
    "--save-steps": ["s.gif"],
    "--threads": ["1"],
    "-o": ["out.jpg", "a/b.png", "out.webp"],
    "--prompts": ["prompts.txt"],
    "--from": ["in.png"],
    "--profile": [],
    "--low-memory": [],
    "--quiet": [],
    "--strength": ["0.5"],
    "--mask": ["in.png"],
    "--pad": ["8"],
    "--canny": [],
    "--guess-mode": [],
    "--ema": [],
    "--prediction-type": ["v_prediction"],
}


@case(14)
def options(r, place):
    """The command line's arguments."""
    Image.fromarray(models.picture(r, 16, 16)).save("in.png")
    Path("prompts.txt").write_bytes(mutate.text(r, 10).encode("utf-8", "surrogatepass"))
    denoising.denoise = one_step
    task = r.choice(["txt2img", "txt2img", "img2img", "inpaint", "upscale", "pix2pix", "depth2img", "inspect", "selftes", "completion"])
    values = [
        "2",
        "0",
        "-1",
        "1e400",
        "9" * 5000,
        "16x16",
        "20000x20000",
        "0x0",
        "٣x٣",
        "x",
        "",
        "in.png",
        "out.png",
        "/",
        ".",
        "a" * 5000,
        "a" * 5000 + ".png",
        "euler",
        "karras",
        "cuda",
        "cpu",
        "nan",
        "inf",
        "1,2,3,4",
        "prompts.txt",
        str(FILES["lora"]),
        f"{FILES['lora']}:0.5",
        f"{FILES['lora']}:1e9",
        f"{FILES['word']}=x",
        str(FILES["taesd"]),
        "modles/x",
        "../x.png",
        "\x1b[2J",
        "out.gif",
        "\x1b[2J.png",
        "trailing",
        mutate.text(r, 4),
    ]
    given = {"txt2img": ["a cat"], "inspect": [r.choice(values)], "completion": ["bash"], "selftes": []}.get(task, ["in.png", "a cat"])
    for _ in range(r.choice([1, 1, 2, 3])):
        option = r.choice(OPTIONS)
        likely = USUAL.get(option)
        if likely == [] or likely is None and r.random() < 0.2:
            given += [option]
        else:
            given += [option, r.choice(likely if likely and r.random() < 0.7 else values)]
    if task not in ("inspect", "completion", "selftes"):
        given += ["-m", str(FILES["sd"])]
    commanded([task, *(text.replace("\x00", "").encode("utf-8", "replace").decode() for text in given)])


def commanded(argv, expected=None):
    """The command line -> nothing; what it prints must be harmless, its exit code one of its own."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        try:
            code = cli.main(argv)
        except SystemExit as e:  # argparse's
            code = e.code
    said = out.getvalue() + err.getvalue()
    if acts(said.replace("\x1b[A", "")):
        raise Wrong(f"raw control characters on the terminal: {ascii(said)[:300]}")
    if code not in (0, 1, 2) or code and "Traceback" in said or code == 1 and "error: " not in said and "NOT USABLE" not in said:
        raise Wrong(f"ended with {code}: {ascii(said)[-300:]}")
    if expected is not None and code != expected:
        raise InputError(f"ended with {code}: {said[-300:]}")
    left = [p.name for p in Path(".").iterdir() if p.name.endswith(".part")]
    if left:
        raise Wrong(f"left behind: {left}")
    if code:
        raise MinisdError(said[-200:])


assert repeat  # what `repeats` is about
