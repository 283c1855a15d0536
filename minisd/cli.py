"""The command line: minisd txt2img | img2img | inpaint | pix2pix | inspect | selftest.

Exit codes: 0 done, 1 an error said in words, 2 bad usage, 130 interrupted."""
import argparse
import os
import re
import secrets
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

from . import __version__
from .errors import InputError, MinisdError


def arguments():
    parser = argparse.ArgumentParser(prog="minisd", description="Stable Diffusion in NumPy.")
    parser.add_argument("--version", action="version", version=f"minisd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    p = commands.add_parser("txt2img", help="a prompt becomes a picture")
    p.add_argument("prompt", nargs="?", help="what to draw")
    p.add_argument("--from", dest="origin", metavar="PNG", help="again what made this picture, but for what is given here")
    p.add_argument("--prompts", metavar="FILE", help="a picture for each line of this file")
    picture_options(p, "pixels, multiples of 8, or of 4 for the shipped model (as trained)")
    p.set_defaults(run=paint, own=[], parser=p)

    p = commands.add_parser("img2img", help="a picture and a prompt become another picture")
    p.add_argument("image", help="a picture's file, of any kind that Pillow reads")
    p.add_argument("prompt")
    p.add_argument("--strength", type=float, default=0.8, help="how much is made anew, above 0 to 1 (%(default)s)")
    picture_options(p, "pixels, multiples of 8, or of 4 for the shipped model (the picture's)")
    p.set_defaults(run=paint, own=["image", "strength"])

    p = commands.add_parser("inpaint", help="part of a picture is painted anew, or a margin around it")
    p.add_argument("image", help="a picture's file, of any kind that Pillow reads")
    p.add_argument("prompt")
    p.add_argument("--mask", dest="mask_image", metavar="FILE", help="a picture that is white where to paint and black elsewhere")
    p.add_argument("--pad", type=sides, metavar="L,T,R,B", help="pixels to add left, above, right and below, and to paint; or one number")
    p.add_argument("--strength", type=float, default=1.0, help="how much is made anew, above 0 to 1 (%(default)s)")
    picture_options(p, "pixels, multiples of 8, or of 4 for the shipped model (the picture's, with its margin)")
    p.set_defaults(run=paint, own=["image", "mask_image", "pad", "strength"])

    p = commands.add_parser("pix2pix", help="a picture is changed as a sentence tells, by an instruct-pix2pix model")
    p.add_argument("image", help="a picture's file, of any kind that Pillow reads")
    p.add_argument("prompt", help="what to change: make it winter")
    p.add_argument("--image-guidance", dest="image_guidance_scale", type=float, default=1.5, metavar="N",
                   help="how hard to keep to the picture, 1 or more (%(default)s)")
    picture_options(p, "pixels, multiples of 8 (the picture's)")
    p.set_defaults(run=paint, own=["image", "image_guidance_scale"], command="instruct_pix2pix")

    p = commands.add_parser("inspect", help="what a checkpoint is")
    p.add_argument("model", nargs="?", help="a diffusers folder, or a hub id, owner/name (the model that comes with minisd)")
    p.add_argument("--variant", help="of the model's files, such as fp16")
    p.set_defaults(run=inspect)

    p = commands.add_parser("selftest", help="is every operation right on this machine?")
    p.add_argument("--device", default="cpu", help="cpu or cuda, where each case's kernel is named (%(default)s)")
    p.add_argument("-v", "--verbose", action="store_true", help="a line for each case")
    p.set_defaults(run=selftest)
    return parser


def sides(text):
    """"8" or "0,8,16,8" -> (left, top, right, bottom)"""
    found = [int(n) for n in text.split(",")]
    if len(found) not in (1, 4):
        raise argparse.ArgumentTypeError(f"{text!r} is neither one number nor four")
    return tuple(found * 4 if len(found) == 1 else found)


def weighed(text):
    """"a.safetensors:0.8" -> ("a.safetensors", 0.8)"""
    found = re.fullmatch(r"(.+):([+-]?\d*\.?\d+)", text)
    return (found[1], float(found[2])) if found else (text, 1.0)


def picture_options(p, size):
    """What all commands that make pictures take."""
    p.add_argument("-m", "--model", help="a diffusers folder, or a hub id, owner/name (the small model that comes with minisd)")
    p.add_argument("-o", "--output", default="out.png", help="PNG to write; with -n, out-1.png, out-2.png, ... (%(default)s)")
    p.add_argument("--negative", metavar="TEXT", help="what the picture should not be")
    p.add_argument("--steps", type=int, default=20, help="(%(default)s)")
    p.add_argument("--guidance", type=float, default=7.5, help="how hard to follow the prompt; 1 is off (%(default)s)")
    p.add_argument("--seed", type=int, help="same seed, same picture; drawn and told if not given")
    p.add_argument("--size", metavar="WxH", help=size)
    p.add_argument("--sampler", help="ddpm ddim pndm lms euler euler_a heun dpm2 dpm2_a dpmpp_2m dpmpp_2m_sde unipc "
                                     "(the model's own)")
    p.add_argument("--sigmas", metavar="KIND", help="karras or exponential noise levels")
    p.add_argument("--spacing", metavar="KIND", help="timesteps: leading, linspace or trailing")
    p.add_argument("--eta", type=float, help="noise of ddim, 0 to 1")
    p.add_argument("--rng", default="cpu", help="whose random numbers: cpu or cuda (%(default)s)")
    p.add_argument("--clip-skip", type=int, metavar="N", help="the text encoder's N-th layer from the end (1; 2 of SDXL)")
    p.add_argument("--prompt-syntax", default="a1111", help="a1111: (weights:1.2), BREAK, any length; plain (%(default)s)")
    p.add_argument("-n", type=int, default=1, metavar="N", help="how many pictures (%(default)s)")
    p.add_argument("--variant", help="of the model's files, such as fp16")
    p.add_argument("--lora", action="append", default=[], metavar="FILE[:W]", help="a LoRA, and how much of it; may be given again (1)")
    p.add_argument("--vae", metavar="PATH", help="another vae than the model's: a folder, or a file with LDM names")
    p.add_argument("--embedding", action="append", default=[], metavar="FILE[=WORD]", help="a textual inversion; may be given again")
    p.add_argument("--prediction-type", metavar="KIND", help="epsilon or v_prediction, where a model does not say (found)")
    p.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    p.add_argument("--low-memory", action="store_true", help="the same picture in a fraction of the memory, slower")
    p.add_argument("--threads", type=int, metavar="N", help="how many processors to use (all)")
    p.add_argument("--profile", action="store_true", help="print where the time went, by operation")
    p.add_argument("--quiet", action="store_true", help="no progress bar")


def paint(a):
    from . import image, threads  # here, so that --help does not wait for them
    from .loading import load
    from .profile import profile
    if a.n < 1:
        raise InputError(f"-n is {a.n}; it must be 1 or more")
    if not a.output:
        raise InputError("-o is empty; name a PNG file to write")
    prompts = [prompt for prompt in prompt_list(a) for _ in range(a.n)]
    paths = [Path(a.output)] if len(prompts) == 1 else [
        Path(a.output).with_name(f"{Path(a.output).stem}-{k + 1}{Path(a.output).suffix}") for k in range(len(prompts))]
    for path in paths:
        image.check_folder(path)
    width, height = image.parse_size(a.size) if a.size else (None, None)
    seed = secrets.randbits(32) if a.seed is None else a.seed
    if a.threads is not None:
        threads.use(a.threads)
    pipe = load(a.model, device=a.device, variant=a.variant, low_memory=a.low_memory, lora=[weighed(text) for text in a.lora],
                         prediction_type=a.prediction_type, vae=a.vae,
                         textual_inversion=[(file, word or None) for file, _, word in (text.partition("=") for text in a.embedding)])
    seeds = [seed + k for k in range(len(prompts))]
    with Progress(a.quiet) as progress, profile() if a.profile else nullcontext() as profiled:
        task, own = getattr(pipe, a.command), {name: getattr(a, name) for name in a.own}
        pictures = task(prompts, **own, negative_prompt=a.negative, num_inference_steps=a.steps, guidance_scale=a.guidance,
                        seed=seeds, width=width, height=height, sampler=a.sampler, sigmas=a.sigmas, eta=a.eta,
                        timestep_spacing=a.spacing, rng=a.rng, clip_skip=a.clip_skip, prompt_syntax=a.prompt_syntax,
                        progress=progress)
    for picture, path, own_seed in zip(pictures, paths, seeds):
        image.save_png(picture, path, picture.info["parameters"])
        print(f"{path}: {picture.width}x{picture.height}, seed {own_seed}")
    if a.profile:
        print(profiled.table())
    return 0


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
    """A bar on standard error that shows the seconds a step takes."""

    def __init__(self, quiet):
        self.quiet, self.bar = quiet, None

    def __enter__(self):
        return self

    def __call__(self, step):
        from tqdm import tqdm
        if self.bar is None:
            self.bar = tqdm(total=step.total, disable=self.quiet, unit="step", leave=True,
                            bar_format="{l_bar}{bar}| {n}/{total} [{elapsed}<{remaining}, {rate_inv_fmt}]")
        self.bar.update()

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()


def inspect(a):
    from . import describe, hub, single
    lines, whole = describe.describe(*single.open_model(hub.find_folder(a.model, a.variant), a.variant))
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
    a = arguments().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"minisd: warning: {message}", file=sys.stderr)
        a.given = sys.argv[1:] if argv is None else list(argv)
        return run(a)


def run(a):
    try:
        if getattr(a, "origin", None) is not None:           # what stands on the command line goes before the picture's settings
            from .repeat import options
            a.parser.set_defaults(**options(a.origin))
            a = a.parser.parse_args(a.given[1:], argparse.Namespace(command=a.command))
        code = a.run(a)
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
