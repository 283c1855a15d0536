"""What the command line takes: minisd txt2img | img2img | inpaint | upscale | pix2pix | depth2img | inspect | selftest."""
import argparse
import re

from .. import __version__

PICTURE = "a picture's file, of any kind that Pillow reads"
# What Python calls the options otherwise.
NAMES = {"num_inference_steps": "--steps", "guidance_scale": "--guidance", "guidance_rescale": "--guidance-rescale", "num_images": "-n",
         "timestep_spacing": "--spacing", "denoising_end": "--refiner-start", "denoising_start": "--refiner-start", "extract_ema": "--ema",
         "control_guidance_start": "--control-start", "control_guidance_end": "--control-end", "clip_skip": "--clip-skip",
         "controlnet_conditioning_scale": "--control-scale", "prompt_syntax": "--prompt-syntax", "negative_prompt": "--negative",
         "image_guidance_scale": "--image-guidance", "prediction_type": "--prediction-type", "mask_image": "--mask",
         "noise_level": "--noise-level", "depth_map": "--depth", "controlnet=": "--controlnet", "low_memory": "--low-memory"}


def parser():
    """The parser of all commands.  After it has run, `command` is the task, and `own` which arguments are the task's own."""
    found = argparse.ArgumentParser(prog="minisd", description="Stable Diffusion in NumPy.")
    found.add_argument("--version", action="version", version=f"minisd {__version__}")
    commands = found.add_subparsers(dest="command", required=True)

    p = commands.add_parser("txt2img", help="a prompt becomes a picture")
    p.add_argument("prompt", nargs="?", help="what to draw")
    p.add_argument("--from", dest="origin", metavar="PNG", help="again what made this picture, but for what is given here")
    p.add_argument("--prompts", metavar="FILE", help="a picture for each line of this file")
    painting(p, own=[], size="as trained").set_defaults(parser=p)

    p = commands.add_parser("img2img", help="a picture and a prompt become another picture")
    p.add_argument("image", help=PICTURE)
    p.add_argument("prompt")
    p.add_argument("--strength", type=float, default=0.8, help="how much is made anew, above 0 to 1 (%(default)s)")
    painting(p, own=["image", "strength"], size="the picture's")

    p = commands.add_parser("inpaint", help="part of a picture is painted anew, or a margin around it")
    p.add_argument("image", help=PICTURE)
    p.add_argument("prompt")
    p.add_argument("--mask", dest="mask_image", metavar="FILE", help="a picture that is white where to paint and black elsewhere")
    p.add_argument("--pad", type=sides, metavar="L,T,R,B", help="pixels to add left, above, right and below, and to paint; or one number")
    p.add_argument("--strength", type=float, default=1.0, help="how much is made anew, above 0 to 1 (%(default)s)")
    painting(p, own=["image", "mask_image", "pad", "strength"], size="the picture's, with its margin")

    p = commands.add_parser("upscale", help="a picture four times as wide and high, by an upscaler")
    p.add_argument("image", help=PICTURE)
    p.add_argument("prompt", help="what there is to see")
    p.add_argument("--noise-level", type=int, default=20, metavar="N", help="how much of its detail is hidden, 0 to 350 (%(default)s)")
    p.add_argument("--tile", type=int, default=256, metavar="N", help="larger pictures are made in pieces of so many pixels (%(default)s)")
    painting(p, own=["image", "noise_level", "tile"], size=None, steps=75, guidance=9.0)

    p = commands.add_parser("pix2pix", help="a picture is changed as a sentence tells, by an instruct-pix2pix model")
    p.add_argument("image", help=PICTURE)
    p.add_argument("prompt", help="what to change: make it winter")
    p.add_argument("--image-guidance", dest="image_guidance_scale", type=float, default=1.5, metavar="N",
                   help="how hard to keep to the picture, 1 or more (%(default)s)")
    painting(p, own=["image", "image_guidance_scale"], size="the picture's").set_defaults(command="instruct_pix2pix")

    p = commands.add_parser("depth2img", help="another picture in the depths of one, by a model that reads them")
    p.add_argument("image", help=PICTURE)
    p.add_argument("prompt")
    p.add_argument("--depth", dest="depth_map", metavar="FILE", required=True, help="a picture that is white where nearest")
    p.add_argument("--strength", type=float, default=0.8, help="how much is made anew, above 0 to 1 (%(default)s)")
    painting(p, own=["image", "depth_map", "strength"], size="the picture's")

    p = commands.add_parser("inspect", help="what a checkpoint is, or a LoRA, a textual inversion, a ControlNet, a vae")
    p.add_argument("model", nargs="?", help="a diffusers folder, a .safetensors file, or a hub id, owner/name (the model that comes with "
                                            "minisd)")
    p.add_argument("--variant", help="of the model's files, such as fp16")

    p = commands.add_parser("selftest", help="is every operation right on this machine?")
    p.add_argument("--device", default="cpu", help="cpu or cuda, where each case's kernel is named (%(default)s)")
    p.add_argument("-v", "--verbose", action="store_true", help="a line for each case")
    return found


def painting(p, own, size, steps=20, guidance=7.5):
    """What all commands that make pictures take.  own: the names of arguments that are this task's;  size: what --size is if not given,
    None where there is none -> p"""
    p.set_defaults(own=own)
    g = p.add_argument_group("the picture")
    g.add_argument("-o", "--output", default="out.png", help="PNG to write; with -n, out-1.png, out-2.png, ... (%(default)s)")
    g.add_argument("--negative", metavar="TEXT", help="what the picture should not be")
    g.add_argument("--steps", type=int, default=steps, help="(%(default)s)")
    g.add_argument("--guidance", type=float, default=guidance, help="how hard to follow the prompt; 1 is off (%(default)s)")
    g.add_argument("--seed", type=int, help="same seed, same picture; drawn and told if not given")
    if size is not None:
        g.add_argument("--size", metavar="WxH", help=f"pixels, multiples of 8, or of 4 for the shipped model ({size})")
    g.add_argument("-n", type=int, default=1, metavar="N", help="how many pictures (%(default)s)")
    g.add_argument("--preview", metavar="PNG", help="write here, after each step, what the picture is to be")
    g.add_argument("--taesd", metavar="PATH", help="a TAESD to make previews with; without, they are the latents' colours")
    g = p.add_argument_group("the model")
    g.add_argument("-m", "--model", help="a diffusers folder, a .safetensors file, or a hub id, owner/name (the small model that comes "
                                         "with minisd)")
    g.add_argument("--variant", help="of the model's files, such as fp16")
    g.add_argument("--lora", action="append", default=[], metavar="FILE[:W]", help="a LoRA, and how much of it; may be given again (1)")
    g.add_argument("--embedding", action="append", default=[], metavar="FILE[=WORD]", help="a textual inversion; may be given again")
    g.add_argument("--vae", metavar="PATH", help="another vae than the model's: a folder, a file with LDM names, or TAESD's")
    g.add_argument("--refiner", metavar="MODEL", help="another model that ends the picture: Stable Diffusion XL's refiner")
    g.add_argument("--refiner-start", type=float, metavar="N", help="how much of the way is the first model's (0.8)")
    g.add_argument("--prediction-type", metavar="KIND", help="epsilon or v_prediction, where a model does not say (found)")
    g.add_argument("--ema", action="store_true", help="the unet's running mean, where a single file has one beside the unet")
    g = p.add_argument_group("ControlNet")
    g.add_argument("--controlnet", action="append", default=[], metavar="PATH", help="a folder or a file; may be given again")
    g.add_argument("--control", action="append", default=[], metavar="IMAGE", help="the picture to show it; once for each")
    g.add_argument("--canny", action="store_true", help="show it that picture's edges")
    g.add_argument("--control-scale", type=float, action="append", metavar="N", help="how much it counts; once for each (1)")
    g.add_argument("--control-start", type=float, default=0.0, metavar="N", help="from which part of the way, 0 to 1 (%(default)s)")
    g.add_argument("--control-end", type=float, default=1.0, metavar="N", help="to which part of the way, 0 to 1 (%(default)s)")
    g.add_argument("--guess-mode", action="store_true", help="let it guess what is there, with no prompt")
    g = p.add_argument_group("the way there")
    g.add_argument("--sampler", help="ddpm ddim pndm lms euler euler_a heun dpm2 dpm2_a dpmpp_2m dpmpp_2m_sde unipc lcm (the model's own)")
    g.add_argument("--sigmas", metavar="KIND", help="karras or exponential noise levels")
    g.add_argument("--spacing", metavar="KIND", help="timesteps: leading, linspace or trailing")
    g.add_argument("--eta", type=float, help="noise of ddim, 0 to 1")
    g.add_argument("--guidance-rescale", type=float, default=0.0, metavar="N", help="0 to 1, for models with zero SNR (%(default)s)")
    g.add_argument("--rng", default="cpu", help="whose random numbers: cpu or cuda (%(default)s)")
    g.add_argument("--clip-skip", type=int, metavar="N", help="the text encoder's N-th layer from the end (1; 2 of Stable Diffusion XL)")
    g.add_argument("--prompt-syntax", default="a1111", help="a1111: (weights:1.2), BREAK, any length; plain (%(default)s)")
    g = p.add_argument_group("the machine")
    g.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    g.add_argument("--low-memory", action="store_true", help="the same picture in a fraction of the memory, slower")
    g.add_argument("--threads", type=int, metavar="N", help="how many processors to use (all)")
    g.add_argument("--profile", action="store_true", help="print where the time went, by operation")
    g.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


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


def spoken(message):
    """An error's text with the options' names in the place of Python's."""
    return re.sub(rf"\b({'|'.join(NAMES)})(?!\w)", lambda m: NAMES[m[1]], message)
