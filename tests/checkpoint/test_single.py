"""A model in one file, with the names of CompVis' and Stability's code."""
import dataclasses
import types

import golden_cases
import golden_checks
import ldm_files
import numpy as np
import published_configs
import pytest
from golden_checks import Golden
from safetensors.numpy import save_file

import minisd
from minisd.checkpoint import ldm as names_of
from minisd.checkpoint import single
from minisd.checkpoint.component import CONFIGS
from minisd.checkpoint.vocabulary import read_vocabulary
from minisd.cli import main as cli
from minisd.errors import CheckpointError, InputError
from minisd.networks.unet_config import UNetConfig
from minisd.networks.vae_config import TinyConfig
from minisd.prompt.tokenizer import Tokenizer

HOW = dict(num_inference_steps=1, seed=1, width=64, height=64, output="latent")


@pytest.fixture(scope="module", params=["SD 1", "SD 2"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def file(family, tmp_path_factory):
    return ldm_files.write(tmp_path_factory.mktemp("single") / "model.safetensors", family)


@pytest.mark.parametrize("name", list(golden_checks.SINGLES))
def test_against_diffusers_converter(name, tmp_path):
    assert golden_checks.compare_single(name, Golden("tasks"), tmp_path) <= golden_checks.BOUND


class Shapes(dict):
    """{key: shape} in the place of a file's tensors."""

    def shape(self, name): return tuple(self[name])
    def dtype(self, name): return "F16"


def test_every_key_of_the_real_checkpoints():
    """Of each that is published: nothing missing, nothing unused, every shape as diffusers has it on its meta device."""
    for checkpoint, parts in golden_checks.keys().items():
        for name, shapes in parts.items():
            config = published_configs.MODELS[checkpoint][name]
            kind = TinyConfig if config.get("_class_name") == "AutoencoderTiny" else CONFIGS[name]
            part = single.Part(name, kind.read(config), checkpoint, Shapes(shapes), {n: (n, None) for n in shapes})
            assert part.check() == ([], []), f"{checkpoint}, {name}"


@pytest.mark.parametrize("name", list(published_configs.FILES))
def test_every_key_of_the_real_files(name):
    """The same with LDM names, which diffusers' own converter has turned into that very list (see make_goldens.py): every key is read
    but those of no layer, and the configuration read off them is the published one."""
    keys = Shapes(published_configs.file_keys(name))
    _, parts, odd = single.parts_of(keys, "model.safetensors")
    assert odd == []
    expected = golden_checks.keys()[name]
    for part, shapes in expected.items():
        assert {n: list(s) for n, s in parts[part].shapes().items()} == shapes, part
        read, given = parts[part].config, CONFIGS[part].read(published_configs.MODELS[name][part])
        assert dataclasses.replace(read, in_float32=True) == dataclasses.replace(given, in_float32=True) if part == "vae" else read == given
    assert all(part.check() == ([], []) for part in parts.values())
    read = {stored for part in parts.values() for stored, _ in part.tensors.where.values()}
    left = [k for k in keys if k not in read and not k.endswith((*names_of.NO_LAYER, "alphas_cumprod", "model_ema.decay"))]
    assert all(".resblocks.23." in k for k in left), left    # the last layer of SD 2's text encoder


@pytest.mark.parametrize("name", [n for n, parts in published_configs.MODELS.items() if "controlnet" in parts])
def test_every_key_of_the_real_controlnets(name, monkeypatch):
    keys = Shapes({f"control_model.{k}": s for k, s in published_configs.control_keys(name).items()})
    monkeypatch.setattr(single, "TensorFiles", lambda paths: keys)
    monkeypatch.setattr(single, "find_part", single.Path)
    part = single.open_controlnet("control.safetensors")
    assert part.check() == ([], []) and {n: list(s) for n, s in part.shapes().items()} == golden_checks.keys()[name]["controlnet"]
    given = CONFIGS["controlnet"].read(published_configs.MODELS[name]["controlnet"])
    assert part.config == dataclasses.replace(given, sample_size=(64, 64), out_channels=4)


def test_the_vocabulary_that_comes_with_minisd_is_clips(family, tmp_path):
    import drawn_models
    drawn_models.write_tokenizer(tmp_path, pad="!" if family == "SD 2" else None)
    expected, _ = Tokenizer(**read_vocabulary(tmp_path))(golden_cases.PROMPTS)
    np.testing.assert_array_equal(Tokenizer(special={"pad_token": "!"} if family == "SD 2" else {})(golden_cases.PROMPTS)[0], expected)
    np.testing.assert_array_equal(expected, Golden("tokens")["sd2" if family == "SD 2" else "plain"])


def test_both_spellings_of_clips_names(tmp_path):
    arrays = ldm_files.arrays()
    save_file({k.replace("transformer.text_model.", "transformer."): v for k, v in arrays.items()}, tmp_path / "a.safetensors")
    save_file(arrays, tmp_path / "b.safetensors")
    a, b = (minisd.load(tmp_path / f"{n}.safetensors").txt2img("a fox", **HOW) for n in "ab")
    np.testing.assert_array_equal(a, b)


def test_another_prefix_of_the_vae(family, file, tmp_path):
    arrays = ldm_files.arrays(family)
    save_file({k.replace("first_stage_model.", "vae."): v for k, v in arrays.items()}, tmp_path / "a.safetensors")
    z = np.ones((1, 2, 2, 4), np.float32)
    found = minisd.load(tmp_path / "a.safetensors", prediction_type="epsilon").model.decode(z)
    np.testing.assert_array_equal(found, minisd.load(file, prediction_type="epsilon").model.decode(z))


def test_what_a_unet_predicts_is_asked_for_or_found(family, file, monkeypatch):
    assert minisd.load(file, prediction_type="v_prediction").model.scheduler["prediction_type"] == "v_prediction"
    if family == "SD 1":
        assert minisd.load(file).model.scheduler["prediction_type"] == "epsilon"
        return
    for off, kind, size in ((-1.1, "v_prediction", (96, 96)), (-0.9, "epsilon", (64, 64))):
        stand_in = types.SimpleNamespace(UNetConfig=UNetConfig, unet=lambda p, x, t, context, c: x + off)     # noqa: B023
        monkeypatch.setattr(single, "unet", stand_in)
        pipe = minisd.load(file)
        assert pipe.model.scheduler["prediction_type"] == kind and pipe.model.unet_config.sample_size == size


def test_inspect(file, capsys, tmp_path, family):
    assert cli.main(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    assert "missing: none" in out and "NOT USABLE" not in out and ("predicts    epsilon" in out or family == "SD 2")
    arrays = ldm_files.arrays(family)
    save_file({**arrays, "model.diffusion_model.extra.weight": np.zeros(3, np.float32)}, tmp_path / "a.safetensors")
    cli.main(["inspect", str(tmp_path / "a.safetensors")])
    assert "1 keys: model.diffusion_model.extra.weight" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="belong to no layer: model.diffusion_model.extra.weight"):
        minisd.load(tmp_path / "a.safetensors")


def test_a_missing_key_is_named(family, tmp_path):
    for key, message in (("model.diffusion_model.middle_block.0.in_layers.2.weight", "mid_block.resnets.0.conv1"),
                         ("model.diffusion_model.input_blocks.0.0.weight", "conv_in.weight is missing"),
                         ("first_stage_model.decoder.mid.attn_1.q.weight", "decoder.mid_block.attentions.0.to_q")):
        arrays = ldm_files.arrays(family)
        del arrays[key]
        save_file(arrays, tmp_path / "a.safetensors")
        with pytest.raises(CheckpointError, match=message):
            minisd.load(tmp_path / "a.safetensors", prediction_type="epsilon")


@pytest.mark.parametrize("key, message", [
    ("model.diffusion_model.joint_blocks.0", "Stable Diffusion 3"), ("lora_unet_x.lora_down.weight", "a LoRA"),
    ("emb_params", "a textual inversion"),
    ("control_model.x", "a ControlNet.*--controlnet"), ("decoder.conv_in.weight", "a vae.*--vae"),
    ("x", "holds no text_encoder.*first key is x"), ("<a-word>", "a textual inversion")])
def test_a_file_of_another_kind_is_named(key, message, tmp_path):
    save_file({key: np.zeros((1, 1, 1) if key == "x" else 1, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=message):
        minisd.load(tmp_path / "a.safetensors")


def test_another_vae(tmp_path, file, family, sd1_folder):
    """From a file of its own, from a whole model's, and from a folder; it decodes as it does within its model."""
    arrays = ldm_files.arrays(family)
    save_file({k.removeprefix("first_stage_model."): v for k, v in arrays.items() if k.startswith("first_stage_model.")},
              tmp_path / "vae.safetensors")
    latent = np.ones((1, 4, 4, 4), np.float32)
    expected = minisd.load(file, prediction_type="epsilon").model.decode(latent)
    own = minisd.load(sd1_folder).model.decode(latent)
    for path in (tmp_path / "vae.safetensors", file):
        np.testing.assert_array_equal(minisd.load(sd1_folder, vae=path).model.decode(latent), expected)
    for path in (sd1_folder, sd1_folder / "vae"):
        np.testing.assert_array_equal(minisd.load(file, prediction_type="epsilon", vae=path).model.decode(latent), own)
    assert np.abs(expected - own).max() > 0.01
    arrays = {"decoder.conv_in.weight": np.zeros((4, 4, 3, 3), np.float32)}
    for wrong, message in (({"x": np.zeros(1, np.float32)}, "no vae with LDM names; x is of none"), (arrays, "is missing")):
        save_file(wrong, tmp_path / "x.safetensors")
        with pytest.raises(CheckpointError, match=message):
            minisd.load(sd1_folder, vae=tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no such file or folder"):
        minisd.load(sd1_folder, vae="none.safetensors")


def test_pickles_and_wrong_words(tmp_path, file, sd1_folder):
    (tmp_path / "a.ckpt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="pickle"):
        minisd.load(tmp_path / "a.ckpt")
    for model in (file, sd1_folder):
        with pytest.raises(InputError, match="choose epsilon or v_prediction"):
            minisd.load(model, prediction_type="sample")
    assert minisd.load(sd1_folder, prediction_type="v_prediction").model.scheduler["prediction_type"] == "v_prediction"


def test_low_memory_and_lora(tmp_path, file, family):
    import drawn_models
    layer = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    lora = {f"lora_unet_{layer}.lora_{k}.weight": drawn_models.standard(k, s) for k, s in (("down", (4, 32)), ("up", (32, 4)))}
    save_file(lora, tmp_path / "lora.safetensors")
    plain = minisd.load(file, prediction_type="epsilon").txt2img("a fox", **HOW)
    np.testing.assert_allclose(minisd.load(file, prediction_type="epsilon", low_memory=True).txt2img("a fox", **HOW), plain, atol=1e-5)
    changed = minisd.load(file, prediction_type="epsilon", lora=tmp_path / "lora.safetensors").txt2img("a fox", **HOW)
    assert np.abs(changed - plain).max() > 1e-4
