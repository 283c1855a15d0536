"""What the command line takes: minisd txt2img | explain | img2img | inpaint | upscale | pix2pix | depth2img | batch | inspect | record |
compare | selftest | completion."""
import argparse
import re

from .. import __version__
from ..diffusion.samplers import SAMPLERS
from ..errors import InputError, printable
from ..settings import suggestion

IMAGE = "an image file, of any kind that Pillow reads"
TASKS = ("txt2img", "img2img", "inpaint", "upscale", "instruct_pix2pix", "depth2img")          # of batch
MODEL = "a diffusers folder, a .safetensors file, or a hub id, owner/name (the small model that comes with minisd)"
PROMPT, FACTOR = "a red apple on a blue background", 16.0    # of record() and compare(), which are imported when they are asked for
# What Python calls the options otherwise.
NAMES = {"num_inference_steps": "--steps", "guidance_scale": "--guidance", "guidance_rescale": "--guidance-rescale", "num_images": "-n",
         "timestep_spacing": "--spacing", "denoising_end": "--refiner-start", "denoising_start": "--refiner-start", "extract_ema": "--ema",
         "control_guidance_start": "--control-start", "control_guidance_end": "--control-end", "clip_skip": "--clip-skip",
         "cache_interval": "--cache-interval", "controlnet_conditioning_scale": "--control-scale",
         "prompt_syntax": "--prompt-syntax", "negative_prompt": "--negative", "prompt_2": "--prompt-2", "negative_prompt_2": "--negative-2",
         "image_guidance_scale": "--image-guidance", "prediction_type": "--prediction-type", "mask_image": "--mask",
         "noise_level": "--noise-level", "depth_map": "--depth", "controlnet=": "--controlnet", "low_memory": "--low-memory",
         "low_memory=True": "--low-memory"}
# What other programs call them: sd.cpp, AUTOMATIC1111, diffusers.
ALIASES = {"--cfg": "--guidance", "--cfg-scale": "--guidance", "--guidance-scale": "--guidance", "--scale": "--guidance",
           "--negative-prompt": "--negative", "--width": "--size", "--height": "--size", "--batch-count": "-n",
           "--scheduler": "--sampler", "--sampling-method": "--sampler", "--ckpt": "--model", "--checkpoint": "--model",
           "--ti": "--embedding", "--control-image": "--control", "--out": "--output", "--num-inference-steps": "--steps"}


class Parser(argparse.ArgumentParser):
    """argparse's, without abbreviations, and with the nearest option where there is no such one."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message):
        unknown = re.match(r"unrecognized arguments: (--?[\w-]+)?", message)
        hint = "" if not unknown else self.nearest(unknown[1]) if unknown[1] else "; a prompt of several words stands in quotes"
        super().error(printable(message) + hint)

    def nearest(self, unknown):
        known = [option for action in self._actions for option in action.option_strings]
        for action in self._actions:                         # unknown options reach the outer parser, which has the inner ones
            if isinstance(action, argparse._SubParsersAction):
                known += [o for p in action.choices.values() for a in p._actions for o in a.option_strings]
        if unknown in known:
            tasks = [name for a in self._actions if isinstance(a, argparse._SubParsersAction) for name, p in a.choices.items()
                     if unknown in p._option_string_actions]
            return f"; it is an option of {', '.join(tasks)}"
        return f"; did you mean {ALIASES[unknown]}?" if ALIASES.get(unknown) in known else suggestion(unknown, known).replace("'", "")


def parser():
    """The parser of all commands.  After it has run, `command` is the task, and `own` which arguments are the task's own."""
    found = Parser(prog="minisd", description="Stable Diffusion in NumPy.")
    found.add_argument("--version", action="version", version=f"minisd {__version__}")
    commands = found.add_subparsers(dest="command", required=True)

    p = commands.add_parser("txt2img", help="make an image from a prompt")
    prompted(p)
    painting(p, own=[], size="as trained").set_defaults(parser=p)

    p = commands.add_parser("explain", help="make an image, and a page that shows how it came to be")
    prompted(p)
    p.add_argument("--decode", action="store_true", help="show each step's latents as the decoder makes them: three calls of it a step")
    p.add_argument("--strip", metavar="FILE", help="write the steps into one image as well")
    p.add_argument("--gif", metavar="GIF", help="write the steps as an animation as well")
    painting(p, own=["decode"], size="as trained", output=("explained.html", ".html")).set_defaults(parser=p)

    p = commands.add_parser("img2img", help="make an image from an image and a prompt")
    p.add_argument("image", help=IMAGE)
    p.add_argument("prompt")
    strength(p, 0.8)
    painting(p, own=["image", "strength"], size="the image's")

    p = commands.add_parser("inpaint", help="repaint part of an image, or extend it")
    p.add_argument("image", help=IMAGE)
    p.add_argument("prompt")
    p.add_argument("--mask", dest="mask_image", metavar="FILE", help="an image that is white where to paint and black elsewhere")
    p.add_argument("--pad", type=sides, metavar="L,T,R,B", help="extend the image by so many pixels left, top, right, bottom; or one")
    strength(p, 1.0)
    painting(p, own=["image", "mask_image", "pad", "strength"], size="the image's, with its margin")

    p = commands.add_parser("upscale", help="make an image four times as wide and high, with an upscaler model")
    p.add_argument("image", help=IMAGE)
    p.add_argument("prompt", help="what the image shows")
    p.add_argument("--noise-level", type=int, default=20, metavar="N", help="noise that hides its detail, 0 to 350 (%(default)s)")
    p.add_argument("--tile", type=int, default=256, metavar="N", help="images larger than so many pixels are made in pieces (%(default)s)")
    painting(p, own=["image", "noise_level", "tile"], size=None, steps=75, guidance=9.0)

    p = commands.add_parser("pix2pix", help="edit an image by an instruction, with an instruct-pix2pix model")
    p.add_argument("image", help=IMAGE)
    p.add_argument("prompt", help="the instruction, such as 'make it winter'")
    p.add_argument("--image-guidance", dest="image_guidance_scale", type=float, default=1.5, metavar="N",
                   help="how strongly to keep to the image, 1 or more (%(default)s)")
    painting(p, own=["image", "image_guidance_scale"], size="the image's").set_defaults(command="instruct_pix2pix")

    p = commands.add_parser("depth2img", help="make an image with the depths of another, with a depth model")
    p.add_argument("image", help=IMAGE)
    p.add_argument("prompt")
    p.add_argument("--depth", dest="depth_map", metavar="FILE", required=True, help="a depth map, white where nearest")
    strength(p, 0.8)
    painting(p, own=["image", "depth_map", "strength"], size="the image's")

    p = commands.add_parser("batch", help="make an image of each row of a table, on one machine or many")
    p.add_argument("table", help=".csv, .jsonl or .parquet: the columns are what Python's txt2img takes, by name, and `id`")
    p.add_argument("-o", "--output", required=True, metavar="FOLDER",
                   help="where the images go, <id>.png, and a report: a folder, or s3://bucket/path and the like")
    p.add_argument("--task", default="txt2img", metavar="NAME", help=f"what the rows are for: {', '.join(TASKS)} (%(default)s)")
    p.add_argument("--skip-bad", action="store_true", help="draw the others where rows are wrong; the report says which were, and why")
    p.add_argument("--together", type=int, default=1, metavar="N",
                   help="draw up to so many rows of the same settings, one after the other in the table, in one call (%(default)s)")
    model_options(p).add_argument("--controlnet", action="append", default=[], metavar="PATH", help="ControlNet folder or file; repeatable")
    g = p.add_argument_group("machines")
    g.add_argument("--workers", type=int, metavar="N", help="processes that draw; more than one need Ray (1, on a cluster as many as fit)")
    g.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster; auto for the one that this machine is part of")
    g.add_argument("--threads", type=int, metavar="N", help="processors of each worker (its share; on a cluster, the smallest machine's)")
    g.add_argument("--device", default="cpu", help="cpu or cuda, where each worker has a GPU (%(default)s)")
    g.add_argument("--low-memory", action="store_true", help="read weights at each use: a fraction of the memory, slower")
    g.add_argument("--quiet", action="store_true", help="no progress bar")

    p = commands.add_parser("inspect", help="describe a checkpoint, a LoRA, a textual inversion, a ControlNet or a vae")
    p.add_argument("model", nargs="?", help=MODEL)
    p.add_argument("--variant", help="variant of the model's files, such as fp16")

    p = commands.add_parser("record", help="write what every layer of a model must give, for tests of another engine")
    p.add_argument("model", nargs="?", help=MODEL)
    p.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to write inputs, outputs and manifest.json")
    p.add_argument("--prompt", default=PROMPT, metavar="TEXT", help="what the text encoders are given (%(default)s)")
    p.add_argument("--size", metavar="WxH", help="pixels of what unet and vae are given (16 latent positions each way)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="start of the random numbers that they are given (%(default)s)")
    p.add_argument("--scale", type=float, default=1.0, metavar="N", help="of these numbers; 0.01 shows a wrong eps of a norm (%(default)s)")
    p.add_argument("--only", metavar="NETWORKS", help="of text_encoder,text_encoder_2,unet,vae.encoder,vae.decoder, with commas (all)")
    p.add_argument("--fingerprints", action="store_true", help="keep statistics and 64 numbers of each layer, not all")
    p.add_argument("--channels", default="last", metavar="WHERE", help="where pictures have them: last (B,H,W,C) or first (%(default)s)")
    p.add_argument("--steps", type=int, metavar="N", help="record a run of so many steps as well")
    p.add_argument("--sampler", metavar="NAME", help="of that run (the model's own)")
    p.add_argument("--guidance", type=float, metavar="N", help="of that run: its guidance scale (the model's own)")
    p.add_argument("--variant", help="variant of the model's files, such as fp16")
    p.add_argument("--quiet", action="store_true", help="no progress bar")

    p = commands.add_parser("compare", help="find the first layer of another engine that is wrong, and why")
    p.add_argument("recording", help="a folder that `minisd record` wrote, or a recorder of another engine")
    p.add_argument("theirs", nargs="?", help="what the engine computed from its inputs: safetensors, .npz, .npy, or a folder of these; "
                                             "without, minisd on this machine is compared")
    p.add_argument("-m", "--model", metavar="MODEL", help="the model, where it is no longer where it was recorded")
    p.add_argument("--variant", help="variant of the model's files, such as fp16")
    p.add_argument("--names", metavar="FILE", help="YAML or JSON of pairs, their name: the checkpoint's; * stands for one part of a name")
    p.add_argument("--layout", metavar="WHERE", help="where their pictures have channels, first or last (found by shape)")
    p.add_argument("--precision", metavar="KIND", help="how they store numbers: float32, float16 or bfloat16 (found)")
    p.add_argument("--factor", type=float, default=FACTOR, metavar="N",
                   help="an error is a fault when it is so many times what rounding does (%(default)s)")
    p.add_argument("--faults", action="store_true", help="list the faults alone, not every layer")
    p.add_argument("--json", action="store_true", help="all that is found, as JSON")
    p.add_argument("--device", default="cpu", help="cpu or cuda, where minisd itself is compared (%(default)s)")

    p = commands.add_parser("selftest", help="check every operation on this machine")
    p.add_argument("--device", default="cpu", help="cpu or cuda; on cuda each case's kernel is named (%(default)s)")
    p.add_argument("-v", "--verbose", action="store_true", help="a line for each case")

    p = commands.add_parser("completion", help="print a completion script for a shell: eval \"$(minisd completion bash)\"")
    p.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return found


def strength(p, default):
    p.add_argument("--strength", type=float, default=default,
                   metavar="N",
                   help="share of the steps that are taken, above 0 (the image as it is) to 1 (all new) (%(default)s)")


def prompted(p):
    """What the commands take that make images from prompts alone."""
    p.add_argument("prompt", nargs="?", help="what the image should show")
    p.add_argument("--from", dest="origin", metavar="IMAGE", help="the settings stored in this image, except for those given here")
    p.add_argument("--prompts", metavar="FILE", help="one image for each line of this file")


def painting(p, own, size, steps=20, guidance=None, output=("out.png", ".png, .jpg or .webp")):
    """What all commands that make images take.  own: the names of arguments that are this task's;  size: what --size is if not given,
    None where there is none;  output: the file that is written if none is given, and what its name may end in -> p"""
    stem, _, ending = output[0].partition(".")
    p.set_defaults(own=own)
    g = p.add_argument_group("image")
    g.add_argument("-o", "--output", default=output[0], metavar="FILE",
                   help=f"{output[1]} to write; several are numbered, {stem}-1.{ending}, {stem}-2.{ending}, ... (%(default)s)")
    g.add_argument("--negative", metavar="TEXT", help="negative prompt: what the image should not show")
    g.add_argument("--prompt-2", metavar="TEXT", help="Stable Diffusion XL: the prompt for its second text encoder (the same)")
    g.add_argument("--negative-2", dest="negative_prompt_2", metavar="TEXT", help="likewise, the negative prompt (the same)")
    g.add_argument("--steps", type=int, default=steps, metavar="N",
                   help="denoising steps, each a call of the unet; more take longer and add detail (%(default)s)")
    g.add_argument("--guidance", type=float, default=guidance, metavar="N",
                   help="guidance scale: how strongly to follow the prompt; 1 turns it off "
                        + ("(%(default)s)" if guidance else "(the model's own, 7.5 as a rule)"))
    g.add_argument("--seed", type=int, metavar="N", help="start of the random numbers; same seed, same image (chosen and printed)")
    if size is not None:
        g.add_argument("--size", metavar="WxH", help=f"pixels, multiples of 8 ({size})")
    g.add_argument("-n", "--num-images", dest="n", type=int, default=1, metavar="N",
                   help="number of images; the k-th has the seed plus k (%(default)s)")
    g.add_argument("--grid", metavar="FILE", help="write all images into one contact sheet as well")
    g.add_argument("--preview", metavar="FILE", help="write here, after each step, what the image looks like so far")
    g.add_argument("--save-steps", metavar="GIF", help="write an animation of these previews")
    g.add_argument("--taesd", metavar="PATH", help="a TAESD to decode previews with; without, they show the latents' colours")
    g = model_options(p)
    g.add_argument("--refiner", metavar="MODEL", help="a second model for the last steps: Stable Diffusion XL's refiner")
    g.add_argument("--refiner-start", type=float, metavar="N", help="share of the noise levels that is the first model's (0.8)")
    g = p.add_argument_group("ControlNet")
    g.add_argument("--controlnet", action="append", default=[], metavar="PATH", help="ControlNet folder or file; repeatable")
    g.add_argument("--control", action="append", default=[], metavar="IMAGE", help="its control image; one for each ControlNet")
    g.add_argument("--canny", action="store_true", help="use the Canny edges of the control images")
    g.add_argument("--control-scale", type=float, action="append", metavar="N", help="its strength; one for each ControlNet (1)")
    g.add_argument("--control-start", type=float, default=0.0, metavar="N", help="share of the steps before it acts, 0 to 1 (%(default)s)")
    g.add_argument("--control-end", type=float, default=1.0, metavar="N", help="share of the steps until it acts, 0 to 1 (%(default)s)")
    g.add_argument("--guess-mode", action="store_true", help="guess mode: ControlNets alone say what there is, no prompt needed")
    g = p.add_argument_group("sampling")
    g.add_argument("--sampler", metavar="NAME", help=f"{', '.join(SAMPLERS)} (the model's own)")
    g.add_argument("--sigmas", metavar="KIND", help="noise levels laid out anew: karras or exponential")
    g.add_argument("--spacing", metavar="KIND", help="timestep spacing: leading, linspace or trailing")
    g.add_argument("--eta", type=float, metavar="N", help="noise of ddim, 0 to 1")
    g.add_argument("--guidance-rescale", type=float, default=0.0, metavar="N",
                   help="0 to 1; 0.7 for models with zero terminal SNR (%(default)s)")
    g.add_argument("--rng", default="cpu", help="random numbers of torch's cpu or cuda generator (%(default)s)")
    g.add_argument("--clip-skip", type=int, metavar="N", help="text encoder layer, counted from the last, 1 (1; 2 for Stable Diffusion XL)")
    g.add_argument("--prompt-syntax", default="a1111", metavar="KIND",
                   help="a1111: (weights:1.2), BREAK, any length; or plain (%(default)s)")
    g.add_argument("--cache-interval", type=int, default=1, metavar="N",
                   help="compute the unet's inner layers once in N calls: faster, and another image (%(default)s)")
    g = p.add_argument_group("machine")
    g.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    g.add_argument("--low-memory", action="store_true", help="read weights at each use: a fraction of the memory, slower")
    g.add_argument("--threads", type=int, metavar="N", help="number of processors to use (all)")
    g.add_argument("--profile", action="store_true", help="print where the time went, by operation")
    g.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def model_options(p):
    """What all commands that make images take of the model -> the group of them"""
    g = p.add_argument_group("model")
    g.add_argument("-m", "--model", metavar="MODEL", help=MODEL)
    g.add_argument("--variant", help="variant of the model's files, such as fp16")
    g.add_argument("--lora", action="append", default=[], metavar="FILE[:W]",
                   help="LoRA file, with an optional weight (default 1); repeatable")
    g.add_argument("--embedding", action="append", default=[], metavar="FILE[=WORD]",
                   help="textual inversion file, with an optional word for it; repeatable")
    g.add_argument("--vae", metavar="PATH", help="another vae than the model's: a folder, a file with LDM names, or TAESD's")
    g.add_argument("--prediction-type", metavar="KIND", help="epsilon or v_prediction, where a model does not say (found)")
    g.add_argument("--ema", action="store_true", help="use the moving average of the unet's weights, where a single file has one")
    return g


def size(text):
    """"512x768" -> (width, height)"""
    found = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not found:
        raise InputError(f"size {text!r}: expected WIDTHxHEIGHT in pixels, such as 512x512")
    return int(found[1]), int(found[2])


def sides(text):
    """"8" or "0,8,16,8" -> (left, top, right, bottom)"""
    found = [int(n) for n in text.split(",")]
    if len(found) not in (1, 4):
        raise argparse.ArgumentTypeError(f"{text!r} is neither one number nor four")
    return tuple(found * 4 if len(found) == 1 else found)


def file_and_weight(text):
    """"a.safetensors:0.8" -> ("a.safetensors", 0.8)"""
    found = re.fullmatch(r"(.+):([+-]?\d*\.?\d+)", text)
    return (found[1], float(found[2])) if found else (text, 1.0)


def in_options(message):
    """A message with the options' names in place of Python's."""
    longest_first = sorted(NAMES, key=len, reverse=True)
    return re.sub(rf"\b({'|'.join(longest_first)})(?!\w)", lambda m: NAMES[m[1]], message)
