"""What the commands do that make pictures: from options to PNG files."""
import secrets
from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from ..backend import threads
from ..errors import InputError
from ..image import pixels as image
from ..image.canny import canny
from ..image.metadata import SAID
from ..loading import load
from ..probe.preview import Preview
from ..probe.profile import profile
from ..prompt.syntax import chunks
from ..settings import Settings
from .options import weighed
from .repeat import require


def paint(a):
    """txt2img and the other tasks."""
    check(a)
    prompts = [prompt for prompt in prompt_list(a) for _ in range(a.n)]
    paths = [Path(a.output)] if len(prompts) == 1 else [
        Path(a.output).with_name(f"{Path(a.output).stem}-{k + 1}{Path(a.output).suffix}") for k in range(len(prompts))]
    for path in [*paths, *([Path(a.preview)] if a.preview else [])]:
        image.check_folder(path)
    width, height = image.parse_size(a.size) if getattr(a, "size", None) else (None, None)
    seed = secrets.randbits(32) if a.seed is None else a.seed
    seeds = [seed + k for k in range(len(prompts))]
    if a.threads is not None:
        threads.use(a.threads)
    pipe, refiner = open_models(a)
    how = dict(num_inference_steps=a.steps, guidance_scale=a.guidance, sampler=a.sampler, sigmas=a.sigmas, eta=a.eta,
               timestep_spacing=a.spacing, rng=a.rng, clip_skip=a.clip_skip, prompt_syntax=a.prompt_syntax,
               guidance_rescale=a.guidance_rescale, negative_prompt=a.negative)
    own = dict({name: getattr(a, name) for name in a.own}, **controls(a))
    if hasattr(a, "size"):
        own.update(width=width, height=height)
    batches, made = together(pipe, a, prompts), {}
    with Progress(a.quiet, a.preview and Preview(pipe, a.preview, a.taesd)) as progress, \
            profile() if a.profile else nullcontext() as profiled:
        if refiner is not None:
            own.update(denoising_end=a.refiner_start, output="latent")
        for batch in batches:
            made[batch] = getattr(pipe, a.command)([prompts[k] for k in batch], seed=[seeds[k] for k in batch], progress=progress.again(),
                                                   **own, **how)
        if refiner is not None:
            del pipe                                         # two such models may not fit beside each other
            for batch in batches:
                made[batch] = refiner.img2img([prompts[k] for k in batch], made[batch], seed=[seeds[k] for k in batch],
                                              denoising_start=a.refiner_start, progress=progress.again(), **how)
    pictures = {k: picture for batch, found in made.items() for k, picture in zip(batch, found)}
    for k, path in enumerate(paths):
        image.save_png(pictures[k], path)
        print(f"{path}: {pictures[k].width}x{pictures[k].height}, seed {seeds[k]}")
    if a.profile:
        print(profiled.table())
    return 0


def check(a):
    """Raises InputError for options that cannot be, or that do nothing by themselves."""
    if a.n < 1:
        raise InputError(f"-n is {a.n}; it must be 1 or more")
    if not a.output:
        raise InputError("-o is empty; name a PNG file to write")
    if a.refiner and a.command not in ("txt2img", "img2img"):
        raise InputError("--refiner ends pictures of txt2img and img2img alone")
    alone = [("--taesd", a.taesd and not a.preview, "--preview"),
             ("--refiner-start", a.refiner_start is not None and not a.refiner, "--refiner")]
    given = {"--control": a.control, "--canny": a.canny, "--control-scale": a.control_scale, "--control-start": a.control_start,
             "--control-end": a.control_end != 1, "--guess-mode": a.guess_mode}
    for option, lonely, other in [*alone, *((option, value and not a.controlnet, "--controlnet") for option, value in given.items())]:
        if lonely and getattr(a, "origin", None) is None:    # what is absent there is told of by what the picture says
            raise InputError(f"{option} does nothing without {other}")
    a.refiner_start = 0.8 if a.refiner_start is None else a.refiner_start


def open_models(a):
    """-> (the Pipeline, the refiner's or None); both are held against what a picture of --from was made with."""
    common = dict(device=a.device, variant=a.variant, low_memory=a.low_memory, vae=a.vae,
                  textual_inversion=[(file, word or None) for file, _, word in (text.partition("=") for text in a.embedding)])
    pipe = load(a.model, lora=[weighed(text) for text in a.lora], prediction_type=a.prediction_type, controlnet=a.controlnet,
                extract_ema=a.ema, **common)
    pipe.said["Control picture"] = "Canny" if a.canny else None
    refiner = load(a.refiner, **common) if a.refiner else None
    if refiner is not None:
        theirs, ours = ((c.scaling_factor, c.latent_channels, c.factor) for c in (refiner.vae_config, pipe.vae_config))
        if theirs != ours:
            raise InputError(f"{a.refiner}: its latents are not this model's: scale, channels and pixels are {theirs}, here {ours}")
        refiner.check_resume(a.refiner_start, num_inference_steps=a.steps, sampler=a.sampler, sigmas=a.sigmas, eta=a.eta,
                             timestep_spacing=a.spacing)
        usual, told = Settings(), controls(a, pictures=False)
        before = {SAID[name]: value for name, value in told.items() if name in SAID and value != getattr(usual, name)}
        refiner.said = {**pipe.said, "Model": pipe.checkpoint.name, "Refiner": refiner.checkpoint.name, **before}
        if "strength" in a.own:
            refiner.said["Denoising strength"] = a.strength
    if getattr(a, "origin", None) is not None:
        require(a.origin, a.said, pipe, refiner)
    return pipe, refiner


def together(pipe, a, prompts):
    """[(k, ...), ...]: numbers of prompts that are made in one go, as many chunks of tokens each, so that no picture depends on what
    else is made."""
    found = {}
    for k, text in enumerate(prompts):
        found.setdefault(len(chunks(pipe.tokenizer, text)[0]) if a.prompt_syntax == "a1111" else 1, []).append(k)
    return [tuple(batch) for batch in found.values()]


def controls(a, pictures=True):
    """What the options say of ControlNets, as Settings takes it."""
    if not a.controlnet:
        return {}
    scale = a.control_scale or [1.0]
    found = dict(guess_mode=a.guess_mode, controlnet_conditioning_scale=scale[0] if len(scale) == 1 else scale,
                 control_guidance_start=a.control_start, control_guidance_end=a.control_end)
    if pictures:
        found["control_image"] = [canny(path) if a.canny else path for path in a.control]
    return found


def prompt_list(a):
    """What to draw: the prompt, or the lines of a file."""
    if getattr(a, "prompts", None) is None:
        if a.prompt is None:
            a.parser.error("no prompt: say what to draw, or name a file of --prompts, or a picture to make again with --from")
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


class Progress:
    """A bar on standard error that shows the seconds a step takes; and a preview, where one is wanted."""

    def __init__(self, quiet, preview=None):
        self.quiet, self.bar, self.preview = quiet, None, preview

    def again(self):
        """Begin another bar."""
        self.__exit__()
        self.bar = None
        return self

    def __enter__(self):
        return self

    def __call__(self, step):
        if self.bar is None:
            self.bar = tqdm(total=step.total, disable=self.quiet, unit="step", leave=True,
                            bar_format="{l_bar}{bar}| {n}/{total} [{elapsed}<{remaining}, {rate_inv_fmt}]")
        self.bar.update()
        if self.preview is not None:
            self.preview(step)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()
