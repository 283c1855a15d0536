"""`minisd inspect` on every kind of file, and a wrong file's error, which says what it is and where it belongs."""
import drawn_models
import golden_cases
import golden_checks
import ldm_files
import numpy as np
import pytest
from golden_checks import Golden
from safetensors.numpy import save_file

import minisd
from minisd.cli import main as cli
from minisd.errors import CheckpointError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{kind: a file or folder of it}"""
    place = tmp_path_factory.mktemp("kinds")
    golden_checks.inversion_files(place)
    whole = ldm_files.arrays()
    save_file(whole, place / "whole.safetensors")
    save_file({k.removeprefix("first_stage_model."): v for k, v in whole.items() if k.startswith("first_stage_model.")},
              place / "vae.safetensors")
    save_file({n: drawn_models.weight(n, s) for n, s in Golden("taesd").about["shapes"].items()}, place / "taesd.safetensors")
    keys = ldm_files.unet(**ldm_files.UNET, linear=False, control=True)
    save_file({f"control_model.{k}": np.asarray(drawn_models.weight(k, s)) for k, s in keys.items()}, place / "control.safetensors")
    return {"model": place / "whole.safetensors", "xl": ldm_files.write(place / "xl.safetensors", "XL"),
            "lora": golden_checks.lora_file("kohya", place / "lora.safetensors"),
            "xl lora": golden_checks.xl_lora_file(place / "xl-lora.safetensors"),
            "word": place / "hats.safetensors", "xl word": golden_checks.xl_inversion_file(place / "word.safetensors"),
            "vae": place / "vae.safetensors", "taesd": place / "taesd.safetensors", "controlnet": place / "control.safetensors",
            "controlnet folder": drawn_models.write_network(
                place / "controlnet", "controlnet", dict(golden_cases.MODELS["controlnet_sd1"][1], _class_name="ControlNetModel"),
                Golden("controlnet_sd1").about["shapes"]),
            "vae folder": drawn_models.write_network(place / "vae", "vae", dict(golden_cases.VAE, _class_name="AutoencoderKL"),
                                               Golden("vae").about["shapes"])}


SAID = {"model": ["family      ", "predicts    epsilon", "text_encoder: ", "unet: ", "vae: ", "missing: none"],
        "xl": ["text_encoder_2: ", "64 for the whole prompt", "predicts    epsilon", "sampler euler"],
        "lora": ["a LoRA for a model of its own size", "6 of the unet, 12 of the text_encoder", "rank        4", "--lora"],
        "xl lora": ["16 of the unet, 12 of the text_encoder, 12 of the text_encoder_2", "--lora"],
        "word": ["a textual inversion", "3 vectors of 40 numbers", "word        hats", "--embedding"],
        "xl word": ["a textual inversion for Stable Diffusion XL", "2 vectors of 40 numbers and 2 vectors of 48"],
        "vae": ["a vae: latents of 4 channels, 8 pixels wide each", "--vae", "missing: none"],
        "taesd": ["TAESD", "--taesd", "missing: none", "unused: none"],
        "controlnet": ["a ControlNet for", "--controlnet", "missing: none", "unused: none"],
        "controlnet folder": ["a ControlNet for", "by its text of 40 numbers a token", "--controlnet"],
        "vae folder": ["a vae: latents of 4 channels", "--vae"]}


@pytest.mark.parametrize("kind", list(SAID))
def test_every_kind_is_explained(kind, files, capsys):
    assert cli.main(["inspect", str(files[kind])]) == 0
    out = capsys.readouterr().out
    assert all(words in out for words in SAID[kind]), out[:600]


@pytest.mark.parametrize("option, kind, message", [
    ("model", "lora", "it is a LoRA; that goes with --lora"), ("model", "word", "it is a textual inversion"),
    ("model", "controlnet", "it is a ControlNet; that goes with --controlnet"), ("model", "vae", "it is a vae; that goes with --vae"),
    ("model", "taesd", "TAESD"), ("lora", "model", "it is a whole model; that goes with -m"), ("lora", "word", "it is a textual inversion"),
    ("textual_inversion", "lora", "it is a LoRA"), ("textual_inversion", "vae", "it is a vae"), ("vae", "lora", "it is a LoRA"),
    ("vae", "controlnet", "it is a ControlNet"), ("controlnet", "vae", "it is a vae"), ("controlnet", "lora", "it is a LoRA")])
def test_a_wrong_file_is_told_where_it_belongs(option, kind, message, files, sd1_folder):
    with pytest.raises(CheckpointError, match=message):
        minisd.load(**{"model": sd1_folder, option: files[kind]})


def test_what_is_known_but_does_not_run(tmp_path, capsys):
    save_file({"model.diffusion_model.joint_blocks.0.x": np.zeros(1, np.float32)}, tmp_path / "sd3.safetensors")
    save_file({"x.y": np.zeros((1, 1, 1), np.float32)}, tmp_path / "x.safetensors")
    for name, words in (("sd3", "Stable Diffusion 3, which minisd does not run"), ("x", "nothing that minisd knows")):
        assert cli.main(["inspect", str(tmp_path / f"{name}.safetensors")]) == 1
        assert words in capsys.readouterr().err
