"""What a picture says of how it was made: the `parameters` text of AUTOMATIC1111's PNGs, which picture viewers read."""
import re

from ..diffusion import samplers
from ..settings import Settings

A1111_NAMES = {"ddpm": "DDPM", "ddim": "DDIM", "pndm": "PLMS", "lms": "LMS", "euler": "Euler", "euler_a": "Euler a",
               "heun": "Heun", "dpm2": "DPM2", "dpm2_a": "DPM2 a", "dpmpp_2m": "DPM++ 2M", "dpmpp_2m_sde": "DPM++ 2M SDE",
               "unipc": "UniPC", "lcm": "LCM"}
# Settings that are written into a picture where they are not the usual ones.
SAID = {"prompt_syntax": "Prompt syntax", "denoising_end": "Denoising end", "original_size": "Original size",
        "crops_coords_top_left": "Crop", "target_size": "Target size", "controlnet_conditioning_scale": "ControlNet weight",
        "guess_mode": "Guess mode", "control_guidance_start": "Guidance start", "control_guidance_end": "Guidance end"}


def settings(pipe, picture, k, count, s, negatives, said):
    """{"Steps": 20, ...} of picture k of `count` that pipe made, in AUTOMATIC1111's words where it has some.

    s: the run's Settings;  negatives: its negative prompts, or None;  said: what the task has to say"""
    own_seeds, usual = isinstance(s.seed, (list, tuple)), Settings()
    return {"Steps": s.num_inference_steps, "Sampler": A1111_NAMES[s.sampler or samplers.name_of(pipe.scheduler)],
            "Schedule type": s.sigmas and s.sigmas.capitalize(), "CFG scale": s.guidance_scale,
            "Seed": s.seed[k] if own_seeds else s.seed, "Size": f"{picture.width}x{picture.height}",
            "Model": pipe.checkpoint.name, **pipe.said, **said, "Clip skip": s.clip_skip, "Eta": s.eta,
            "CFG Rescale": s.guidance_rescale or None, "Timestep spacing": s.timestep_spacing, "RNG": s.rng.upper(),
            "Empty negative prompt": "read" if pipe.xl and negatives and negatives[k] == "" else None,
            **{shown: value for name, shown in SAID.items() for value in [getattr(s, name)]
               if (tuple(value) if isinstance(value, list) else value) != getattr(usual, name)},
            **({"Batch size": count, "Batch pos": k} if count > 1 and not own_seeds else {}), "Version": "minisd"}


def parameters_text(prompt, negative, settings):
    """The `parameters` text of AUTOMATIC1111's PNGs, which picture viewers read.

    settings {"Steps": 20, "Sampler": "Euler", ...} in the order to write them; None values are left out."""
    def quoted(value):                                       # as there: a value with a separator in it is put in quotes
        text = str(value)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if re.search(r'[,:\n"]', text) else text

    lines = [prompt]
    if negative:
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{k}: {quoted(v)}" for k, v in settings.items() if v is not None))
    return "\n".join(lines)
