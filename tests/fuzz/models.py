"""Small models to damage, with the shipped model's little vocabulary so that they are opened fast."""

import json
import shutil

import drawn_models
import golden_cases
import golden_checks
import ldm_files
import numpy as np
from golden_checks import Golden
from safetensors.numpy import save_file

from minisd.checkpoint.hub import SHIPPED

TOKENS = len(json.loads((SHIPPED / "tokenizer" / "vocab.json").read_text(encoding="utf-8")))


def shapes_of(model):
    shapes = dict(Golden(model).about["shapes"])
    name = "embeddings.token_embedding.weight"
    return {**shapes, **({name: [TOKENS, shapes[name][1]]} if name in shapes else {})}


def folder(place, names, scheduler, index=None):
    """A diffusers folder of golden_cases.MODELS, with the shipped model's tokenizer."""
    found = [golden_cases.network(name) for name in names]
    configs, shapes = {part: config for part, config, _ in found}, {part: shapes_of(like) for part, _, like in found}
    drawn_models.write_model(place, configs, shapes, scheduler, index=index)
    for part in configs:
        if part.startswith("text_encoder"):
            tokenizer = place / part.replace("text_encoder", "tokenizer")
            shutil.rmtree(tokenizer)
            shutil.copytree(SHIPPED / "tokenizer", tokenizer)
    return place


def write(place):
    """-> {name: path} of models, and of files that go with them."""
    place.mkdir(parents=True, exist_ok=True)
    ddim = dict(golden_cases.SCHEDULE, _class_name="DDIMScheduler")
    found = {
        "sd": folder(place / "sd", ["text_sd1", "unet_sd1", "vae"], ddim),
        "xl": folder(
            place / "xl", ["text_sd1", "text_xl", "unet_xl", "vae_xl"], golden_cases.EULER, dict(force_zeros_for_empty_prompt=True)
        ),
        "icons": shutil.copytree(SHIPPED, place / "icons"),
    }
    arrays = ldm_files.arrays("SD 2")
    found["file"] = place / "model.safetensors"
    save_file(arrays, found["file"])
    found["controlnet"] = golden_checks.write_controlnet(place, "controlnet_sd1")
    found["taesd"] = drawn_models.write_network(place / "taesd", "vae", golden_cases.MODELS["taesd"][1], Golden("taesd").about["shapes"])
    found["lora"] = golden_checks.lora_file("kohya", place / "lora.safetensors")
    found["peft"] = golden_checks.lora_file("peft", place / "peft.safetensors")
    found["word"] = place / "word.safetensors"
    save_file({"emb_params": drawn_models.standard("word", (3, 40))}, found["word"])
    return found


def linked(source, place, but):
    """A copy of a folder whose files are links, but for one, which is copied and may be written to -> the path of that."""
    place.mkdir()
    for path in sorted(source.rglob("*")):
        there = place / path.relative_to(source)
        if path.is_dir():
            there.mkdir()
        elif path == but:
            shutil.copyfile(path, there)
        else:
            there.symlink_to(path)
    return place / but.relative_to(source)


def picture(r, width, height):
    return np.random.default_rng(r.getrandbits(32)).integers(0, 256, (height, width, 3), np.uint8)
