"""The command line's commands.  Exit codes: 0 done, 1 an error said in words, 2 bad usage, 130 interrupted."""
import argparse
import os
import secrets
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

from .errors import InputError, MinisdError
from .options import parser, weighed


def paint(a):
    from . import image, threads  # here, so that --help does not wait for them
    from .loading import load
    from .preview import Preview
    from .profile import profile
    if a.n < 1:
        raise InputError(f"-n is {a.n}; it must be 1 or more")
    if not a.output:
        raise InputError("-o is empty; name a PNG file to write")
    prompts = [prompt for prompt in prompt_list(a) for _ in range(a.n)]
    paths = [Path(a.output)] if len(prompts) == 1 else [
        Path(a.output).with_name(f"{Path(a.output).stem}-{k + 1}{Path(a.output).suffix}") for k in range(len(prompts))]
    for path in [*paths, *([Path(a.preview)] if a.preview else [])]:
        image.check_folder(path)
    width, height = image.parse_size(a.size) if getattr(a, "size", None) else (None, None)
    seed = secrets.randbits(32) if a.seed is None else a.seed
    if a.threads is not None:
        threads.use(a.threads)
    if a.refiner and a.command not in ("txt2img", "img2img"):
        raise InputError("--refiner ends pictures of txt2img and img2img alone")
    if a.taesd and not a.preview:
        raise InputError("--taesd makes previews: name a PNG to write with --preview")
    pipe = load(a.model, device=a.device, variant=a.variant, low_memory=a.low_memory, lora=[weighed(text) for text in a.lora],
                prediction_type=a.prediction_type, vae=a.vae, controlnet=a.controlnet, extract_ema=a.ema,
                textual_inversion=[(file, word or None) for file, _, word in (text.partition("=") for text in a.embedding)])
    if getattr(a, "origin", None) is not None and a.said.get("Model", pipe.checkpoint.name) != pipe.checkpoint.name:
        warnings.warn(f"{a.origin} was made with the model {a.said['Model']}, this is {pipe.checkpoint.name}", stacklevel=2)
    seeds = [seed + k for k in range(len(prompts))]
    how = dict(num_inference_steps=a.steps, guidance_scale=a.guidance, seed=seeds, sampler=a.sampler, sigmas=a.sigmas, eta=a.eta,
               timestep_spacing=a.spacing, rng=a.rng, clip_skip=a.clip_skip, prompt_syntax=a.prompt_syntax,
               guidance_rescale=a.guidance_rescale, negative_prompt=a.negative)
    own = dict({name: getattr(a, name) for name in a.own}, **controls(a))
    if hasattr(a, "size"):
        own.update(width=width, height=height)
    with Progress(a.quiet, a.preview and Preview(pipe, a.preview, a.taesd)) as progress, \
            profile() if a.profile else nullcontext() as profiled:
        if a.refiner:
            own.update(denoising_end=a.refiner_start, output="latent")
        pictures = getattr(pipe, a.command)(prompts, progress=progress, **own, **how)
        if a.refiner:
            said = {**pipe.said, "Model": pipe.checkpoint.name}
            del pipe                                         # two such models may not fit beside each other
            pictures = refine(a, said, prompts, pictures, how, progress)
    for picture, path, own_seed in zip(pictures, paths, seeds):
        image.save_png(picture, path, picture.info["parameters"])
        print(f"{path}: {picture.width}x{picture.height}, seed {own_seed}")
    if a.profile:
        print(profiled.table())
    return 0


def controls(a):
    """What the options say of ControlNets, as Settings takes it."""
    if not a.controlnet and not a.control:
        return {}
    from .canny import canny
    scale = a.control_scale or [1.0]
    return dict(control_image=[canny(path) if a.canny else path for path in a.control], guess_mode=a.guess_mode,
                controlnet_conditioning_scale=scale[0] if len(scale) == 1 else scale, control_guidance_start=a.control_start,
                control_guidance_end=a.control_end)


def refine(a, said, prompts, latents, how, progress):
    """Latents that another model has begun, `said` -> pictures, ended by the refiner."""
    from .loading import load
    pipe = load(a.refiner, device=a.device, variant=a.variant, low_memory=a.low_memory)
    pipe.said = {**said, "Refiner": pipe.checkpoint.name}
    return pipe.img2img(prompts, latents, denoising_start=a.refiner_start, progress=progress.again(), **how)


def prompt_list(a):
    """What to draw: the prompt, or the lines of a file."""
    if getattr(a, "prompts", None) is None:
        if a.prompt is None:
            a.parser.error("no prompt: say what to draw, or name a file of --prompts, or a picture to make again with --from")
        return [a.prompt]
    if a.prompt is not None:
        raise InputError("a prompt and a file of --prompts: give one of them")
    try:
        lines = [line.strip() for line in Path(a.prompts).read_text(encoding="utf-8").splitlines()]
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
        from tqdm import tqdm
        if self.bar is None:
            self.bar = tqdm(total=step.total, disable=self.quiet, unit="step", leave=True,
                            bar_format="{l_bar}{bar}| {n}/{total} [{elapsed}<{remaining}, {rate_inv_fmt}]")
        self.bar.update()
        if self.preview is not None:
            self.preview(step)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()


def inspect(a):
    from . import describe, hub
    lines, whole = describe.inspect(hub.find_folder(a.model, a.variant), a.variant)
    print("\n".join(lines))
    return 0 if whole else 1


def selftest(a):
    from .selftest import selftest
    rows = selftest(device=a.device)
    if a.verbose or a.device != "cpu":
        for name, shapes, version, error, ok in rows:
            print(f"{name:<18}{'kernel' if version == 'fast' and a.device != 'cpu' else version:<12}{error:.1e}  "
                  f"{'ok' if ok else 'NOT OK'}  {shapes}")
    off = sorted({name for name, *_, ok in rows if not ok})
    worst = max(error for *_, error, _ in rows)
    fine = f"OK: {len(rows)} cases of {len({r[0] for r in rows})} operations, worst error {worst:.1e}"
    print(f"NOT OK: {', '.join(off)}" if off else fine)
    return 1 if off else 0


def main(argv=None):
    """Run one command -> its exit code.  With MINISD_DEBUG set, errors show where they come from."""
    a = parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"minisd: warning: {message}", file=sys.stderr)
        a.given = sys.argv[1:] if argv is None else list(argv)
        return run(a)


def run(a):
    try:
        if getattr(a, "origin", None) is not None:           # what stands on the command line goes before the picture's settings
            from .repeat import options, require
            found, said = options(a.origin)
            a.parser.set_defaults(**found)
            a = a.parser.parse_args(a.given[1:], argparse.Namespace(command=a.command, said=said))
            require(a, said)
        code = {"inspect": inspect, "selftest": selftest}.get(a.command, paint)(a)
        sys.stdout.flush()                                   # here, so that a closed pipe is met inside the try
        return code
    except (MinisdError, MemoryError, BrokenPipeError) as e:
        if os.environ.get("MINISD_DEBUG"):
            raise
        if isinstance(e, BrokenPipeError):                   # `minisd inspect ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # so that closing it does not complain
            return 1
        memory = "not enough memory: " if isinstance(e, MemoryError) else ""
        print(f"minisd: error: {memory}{e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("minisd: interrupted; no half-written file is left", file=sys.stderr)
        return 130
