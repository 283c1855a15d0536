"""What the commands do that make images: from options to files."""
import secrets
import shlex
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..backend import threads
from ..errors import InputError
from ..image import metadata
from ..image.canny import canny
from ..image.grid import grid
from ..image.saving import PICTURES, check_place, save, save_animation
from ..loading import load
from ..probe.explain import PAGES, explain
from ..probe.preview import Preview
from ..probe.profile import profile
from ..settings import MOST, Settings
from ..settings import seeds as seeds_of
from .options import file_and_weight, size
from .repeat import require
from .terminal import show


def paint(a):
    """txt2img and the other tasks.  Each image is made by itself, so that none depends on what else is made."""
    check(a)
    prompts = [prompt for prompt in prompt_list(a) for _ in range(a.n)]
    paths = check_places(a, len(prompts))
    width, height = size(a.size) if getattr(a, "size", None) else (None, None)
    seed = secrets.randbits(32) if a.seed is None else a.seed
    seeds = seeds_of(seed, len(prompts), shared=False)
    if a.threads is not None:
        threads.use(a.threads)
    pipe, refiner = open_models(a)
    common = dict(num_inference_steps=a.steps, guidance_scale=a.guidance, sampler=a.sampler, sigmas=a.sigmas, eta=a.eta,
                  timestep_spacing=a.spacing, rng=a.rng, clip_skip=a.clip_skip, prompt_syntax=a.prompt_syntax,
                  guidance_rescale=a.guidance_rescale, cache_interval=a.cache_interval, negative_prompt=a.negative, prompt_2=a.prompt_2,
                  negative_prompt_2=a.negative_prompt_2)
    own = {name: getattr(a, name) for name in a.own} | controls(a)
    if hasattr(a, "size"):
        own |= dict(width=width, height=height)
    if refiner is not None:
        own |= dict(denoising_end=a.refiner_start, output="latent")
    pictures = []
    with Watcher(a, pipe, len(prompts)) as watcher, profile() if a.profile else nullcontext() as profiled:
        make = partial(explain, pipe) if a.command == "explain" else getattr(pipe, a.command)
        made = (make(prompt, seed=s, progress=watcher.next(), **own, **common) for prompt, s in zip(prompts, seeds))
        if refiner is not None:
            latents = list(made)
            del pipe                                         # two such models may not fit into memory together
            made = (refiner.img2img(prompt, latent, seed=s, denoising_start=a.refiner_start, progress=watcher.next(), **common)
                    for prompt, latent, s in zip(prompts, latents, seeds))
        for k, (found, path, s) in enumerate(zip(made, paths, seeds)):
            if a.command == "explain":
                picture = write_page(a, found, path, k, s, len(paths))
            else:
                picture = found
                save(path, picture)
            watcher.close()
            if a.grid:
                pictures.append(picture)
            show(f"{path}: {picture.width}x{picture.height}, seed {s}")
    if a.grid:
        save(a.grid, grid(pictures))
    if a.save_steps:
        save_animation(a.save_steps, watcher.frames, 0.2)
    if a.profile:
        show(profiled.table())
    return 0


def write_page(a, found, path, k, seed, count):
    """The k-th of `count` Explanations, into its page and what else is asked for -> its picture"""
    if count == 1:
        found.again = shlex.join(["minisd", *a.given, *(["--seed", str(seed)] if a.seed is None else [])])
    found.save(path)
    if a.strip:
        save(numbered(Path(a.strip), count)[k], found.strip())
    if a.gif:
        found.save_animation(numbered(Path(a.gif), count)[k])
    return found.picture


def check_places(a, count):
    """-> the files to write, one for each of `count` images.  Raises InputError where one cannot be written, or two are the same."""
    paths = numbered(Path(a.output), count)
    strips, gifs = (numbered(Path(name), count) if name else [] for name in (getattr(a, "strip", None), getattr(a, "gif", None)))
    sheets = [Path(name) for name in (a.preview, a.grid) if name] + strips
    animations = ([Path(a.save_steps)] if a.save_steps else []) + gifs
    every = [*paths, *sheets, *animations]
    if len(set(every)) < len(every):
        raise InputError("two of the options that write (-o, --preview, --grid, ...) name the same file; give each its own")
    for files, endings in ((paths, PAGES if a.command == "explain" else PICTURES), (sheets, PICTURES), (animations, (".gif",))):
        for path in files:
            check_place(path, endings)
    return paths


def numbered(path, count):
    """out.png, or out-1.png, out-2.png, ..."""
    return [path] if count == 1 else [path.with_name(f"{path.stem}-{k + 1}{path.suffix}") for k in range(count)]


def check(a):
    """Raises InputError for options that cannot be, or that do nothing by themselves."""
    if not 1 <= a.n <= MOST:
        raise InputError(f"-n is {a.n}; it must be from 1 to {MOST:,}")
    if not a.output:
        raise InputError("-o is empty; name a file to write")
    if a.profile and a.command == "explain":
        raise InputError("explain has a table of costs in its page; leave out --profile")
    if a.refiner and a.command not in ("txt2img", "img2img"):
        raise InputError("--refiner is for txt2img and img2img alone")
    alone = [("--taesd", a.taesd and not (a.preview or a.save_steps), "--preview or --save-steps"),
             ("--refiner-start", a.refiner_start is not None and not a.refiner, "--refiner")]
    given = {"--control": a.control, "--canny": a.canny, "--control-scale": a.control_scale, "--control-start": a.control_start,
             "--control-end": a.control_end != 1, "--guess-mode": a.guess_mode}
    for option, lonely, other in [*alone, *((option, value and not a.controlnet, "--controlnet") for option, value in given.items())]:
        if lonely and getattr(a, "origin", None) is None:    # there, repeat.require() says what is absent
            raise InputError(f"{option} does nothing without {other}")
    a.refiner_start = 0.8 if a.refiner_start is None else a.refiner_start


def loading(a):
    """What the options say of the model: arguments of load()."""
    return dict(model=a.model, device=a.device, variant=a.variant, low_memory=a.low_memory, vae=a.vae, controlnet=a.controlnet,
                lora=[file_and_weight(text) for text in a.lora], prediction_type=a.prediction_type, extract_ema=a.ema,
                textual_inversion=[(file, word or None) for file, _, word in (text.partition("=") for text in a.embedding)])


def open_models(a):
    """-> (the Pipeline, the refiner's or None); both are checked against what an image of --from was made with."""
    given = loading(a)
    pipe = load(**given)
    pipe.provenance["Control picture"] = "Canny" if a.canny else None
    common = ("device", "variant", "low_memory", "vae", "textual_inversion")
    refiner = load(a.refiner, **{name: given[name] for name in common}) if a.refiner else None
    if refiner is not None:
        theirs, ours = ((c.scaling_factor, c.latent_channels, c.factor) for c in (refiner.model.vae_config, pipe.model.vae_config))
        if theirs != ours:
            raise InputError(f"{a.refiner}: its latents are not this model's: scale, channels and pixels are {theirs}, here {ours}")
        refiner.check_resume(a.refiner_start, num_inference_steps=a.steps, sampler=a.sampler, sigmas=a.sigmas, eta=a.eta,
                             timestep_spacing=a.spacing)
        changed = Settings(**controls(a, images=False)).changed()
        before = {metadata.NAMES[name]: value for name, value in changed.items() if name in metadata.NAMES}
        refiner.provenance = {**pipe.provenance, "Model": pipe.model.checkpoint.name, "Refiner": refiner.model.checkpoint.name, **before}
        if "strength" in a.own:
            refiner.provenance["Denoising strength"] = a.strength
    if getattr(a, "origin", None) is not None:
        require(a.origin, a.stored, pipe, refiner)
    return pipe, refiner


def controls(a, images=True):
    """What the options say of ControlNets, as Settings takes it."""
    if not a.controlnet:
        return {}
    scale = a.control_scale or [1.0]
    found = dict(guess_mode=a.guess_mode, controlnet_conditioning_scale=scale[0] if len(scale) == 1 else scale,
                 control_guidance_start=a.control_start, control_guidance_end=a.control_end)
    if images:
        found["control_image"] = [canny(path) if a.canny else path for path in a.control]
    return found


def prompt_list(a):
    """The prompt, or the lines of a file."""
    if getattr(a, "prompts", None) is None:
        if a.prompt is None:
            a.parser.error("no prompt: say what to draw, or name a file of --prompts, or an image whose settings to repeat with --from")
        return [a.prompt]
    if a.prompt is not None:
        raise InputError("a prompt and a file of --prompts: give one of them")
    try:
        lines = [line.strip() for line in Path(a.prompts).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{a.prompts}: {getattr(e, 'strerror', None) or 'not text in UTF-8'}") from e
    if not any(lines):
        raise InputError(f"{a.prompts}: holds no prompt; write one on each line")
    return [line for line in lines if line]


class Watcher:
    """What is shown of each step: a bar on standard error with the seconds that a step takes, a preview, frames of an animation."""

    def __init__(self, a, pipe, count):
        self.quiet, self.count, self.made, self.bar, self.frames = a.quiet, count, 0, None, []
        self.path, self.animated = a.preview, a.save_steps
        self.preview = Preview(pipe, a.taesd) if a.preview or a.save_steps else None

    def next(self):
        """Begin the next image's bar."""
        self.close()
        self.made += 1
        return self

    def __call__(self, step):
        if self.bar is None:
            which = f"{(self.made - 1) % self.count + 1} of {self.count}" if self.count > 1 else None
            self.bar = tqdm(total=step.total, disable=self.quiet, unit="step", leave=True, desc=which,
                            bar_format="{l_bar}{bar}| {n}/{total} [{elapsed}<{remaining}, {rate_inv_fmt}]")
        self.bar.update()
        if self.preview is not None:
            image = self.preview.image(step)
            if self.path:
                save(self.path, image)
            if self.animated:
                self.frames.append(image)

    def close(self):
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
