"""A model in one file, with the names of CompVis' and Stability's code."""
import types

import cases
import golden
import ldm
import numpy as np
import pytest
import sizes
from golden import Golden
from safetensors.numpy import save_file

import minisd
from minisd import cli, single, unet
from minisd import ldm as names_of
from minisd.errors import CheckpointError, InputError
from minisd.tokenizer import Tokenizer

HOW = dict(num_inference_steps=1, seed=1, width=64, height=64, output="latent")


@pytest.fixture(scope="module", params=[False, True], ids=["SD 1", "SD 2"])
def second(request):
    return request.param


@pytest.fixture(scope="module")
def file(second, tmp_path_factory):
    return ldm.write(tmp_path_factory.mktemp("single") / "model.safetensors", second)


def test_against_diffusers_converter(second, tmp_path):
    assert golden.compare_single(second, Golden("tasks"), tmp_path) <= golden.BOUND


class Shapes(dict):
    """{key: shape} in the place of a file's tensors."""

    def shape(self, name): return self[name]
    def dtype(self, name): return "F16"


@pytest.mark.parametrize("in_channels", [4, 9])
def test_every_key_of_the_real_checkpoints(second, in_channels):
    """Nothing missing, nothing unused, every shape as diffusers' model of that size has it."""
    width, layers = (1024, 23) if second else (768, 12)
    network = dict(channels=(320, 640, 1280, 1280), layers=2, attention=(True, True, True, False), context=width)
    keys = ldm.keys(second, in_channels, network, sizes.DECODER, dict(width=width, layers=layers, length=77))
    assert len([k for k in keys if k.startswith("model.diffusion_model.")]) == 686
    parts = {}
    for name, prefix, names in (("text_encoder", names_of.OPEN_CLIP if second else names_of.CLIP,
                                 names_of.open_clip_names if second else names_of.clip_names),
                                ("unet", names_of.UNET, names_of.unet_names), ("vae", names_of.VAE, names_of.vae_names)):
        inside = [k.removeprefix(prefix) for k in keys if k.startswith(prefix)]
        found, odd = names(inside)
        assert odd == []
        read = {stored for stored, _ in found.values()}
        left = [k for k in inside if k not in read and not k.endswith(names_of.NO_LAYER) and ".resblocks.23." not in k]
        assert left == []
        parts[name] = single.View(Shapes({k.removeprefix(prefix): s for k, s in keys.items()}), found)
    configs = dict(text_encoder=single.text_config(parts["text_encoder"], second), unet=single.unet_config(parts["unet"], second),
                   vae=single.vae_config(parts["vae"]))
    expected = sizes.unet_shapes(**{**sizes.SD15, "context": 1024 if second else 768, "linear": second})
    expected["conv_in.weight"] = 320, in_channels, 3, 3
    assert {n: parts["unet"].shape(n) for n in parts["unet"]} == expected
    decoder = sizes.decoder_shapes(**sizes.DECODER)
    assert {n: parts["vae"].shape(n) for n in parts["vae"] if n in decoder} == decoder
    for name, view in parts.items():
        part = single.Part(name, configs[name], "model.safetensors", view.tensors, view.where)
        assert part.check() == ([], [])
    assert configs["unet"].heads == ((5, 10, 20, 20) if second else (8, 8, 8, 8))
    assert (configs["text_encoder"].heads, configs["text_encoder"].layers) == ((16, 23) if second else (12, 12))


def test_the_vocabulary_that_comes_with_minisd_is_clips(second, tmp_path):
    import recipe
    recipe.write_tokenizer(tmp_path, pad="!" if second else None)
    expected, _ = Tokenizer.from_folder(tmp_path)(cases.PROMPTS)
    np.testing.assert_array_equal(Tokenizer.packaged(pad="!" if second else None)(cases.PROMPTS)[0], expected)
    np.testing.assert_array_equal(expected, Golden("tokens")["sd2" if second else "plain"])


def test_both_spellings_of_clips_names(tmp_path):
    arrays = ldm.arrays(False)
    save_file({k.replace("transformer.text_model.", "transformer."): v for k, v in arrays.items()}, tmp_path / "a.safetensors")
    save_file(arrays, tmp_path / "b.safetensors")
    a, b = (minisd.load(tmp_path / f"{n}.safetensors").txt2img("a fox", **HOW) for n in "ab")
    np.testing.assert_array_equal(a, b)


def test_what_a_unet_predicts_is_asked_for_or_found(second, file, monkeypatch):
    assert minisd.load(file, prediction_type="v_prediction").scheduler["prediction_type"] == "v_prediction"
    if not second:
        assert minisd.load(file).scheduler["prediction_type"] == "epsilon"
        return
    for off, kind, size in ((-1.1, "v_prediction", (96, 96)), (-0.9, "epsilon", (64, 64))):
        stand_in = types.SimpleNamespace(UNetConfig=unet.UNetConfig, unet=lambda p, x, t, context, c: x + off)     # noqa: B023
        monkeypatch.setattr(single, "unet", stand_in)
        pipe = minisd.load(file)
        assert pipe.scheduler["prediction_type"] == kind and pipe.unet_config.sample_size == size


def test_inspect(file, capsys, tmp_path, second):
    assert cli.main(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    assert "missing: none" in out and "NOT USABLE" not in out and f"predicts    {'' if second else 'epsilon'}" in out
    arrays = ldm.arrays(second)
    save_file({**arrays, "model.diffusion_model.extra.weight": np.zeros(3, np.float32)}, tmp_path / "a.safetensors")
    cli.main(["inspect", str(tmp_path / "a.safetensors")])
    assert "1 keys: model.diffusion_model.extra.weight" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="belong to no layer: model.diffusion_model.extra.weight"):
        minisd.load(tmp_path / "a.safetensors")


def test_a_missing_key_is_named(second, tmp_path):
    for key, message in (("model.diffusion_model.middle_block.0.in_layers.2.weight", "mid_block.resnets.0.conv1"),
                         ("model.diffusion_model.input_blocks.0.0.weight", "conv_in.weight is missing"),
                         ("first_stage_model.decoder.mid.attn_1.q.weight", "decoder.mid_block.attentions.0.to_q")):
        arrays = ldm.arrays(second)
        del arrays[key]
        save_file(arrays, tmp_path / "a.safetensors")
        with pytest.raises(CheckpointError, match=message):
            minisd.load(tmp_path / "a.safetensors", prediction_type="epsilon")


@pytest.mark.parametrize("key, message", [
    ("conditioner.embedders.0.x", "Stable Diffusion XL"), ("lora_unet_x.lora_down.weight", "a LoRA"), ("emb_params", "a textual inversion"),
    ("control_model.x", "a ControlNet"), ("model.diffusion_model.label_emb.weight", "x4 upscaler"),
    ("x", "holds no text_encoder.*first key is x")])
def test_a_file_of_another_kind_is_named(key, message, tmp_path):
    save_file({key: np.zeros(1, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=message):
        minisd.load(tmp_path / "a.safetensors")


def test_another_vae(tmp_path, file, second, sd1_folder):
    """From a file of its own, from a whole model's, and from a folder; it decodes as it does within its model."""
    arrays = ldm.arrays(second)
    save_file({k.removeprefix("first_stage_model."): v for k, v in arrays.items() if k.startswith("first_stage_model.")},
              tmp_path / "vae.safetensors")
    latent = np.ones((1, 4, 4, 4), np.float32)
    expected = minisd.load(file, prediction_type="epsilon").decode(latent)
    own = minisd.load(sd1_folder).decode(latent)
    for path in (tmp_path / "vae.safetensors", file):
        np.testing.assert_array_equal(minisd.load(sd1_folder, vae=path).decode(latent), expected)
    for path in (sd1_folder, sd1_folder / "vae"):
        np.testing.assert_array_equal(minisd.load(file, prediction_type="epsilon", vae=path).decode(latent), own)
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
    assert minisd.load(sd1_folder, prediction_type="v_prediction").scheduler["prediction_type"] == "v_prediction"


def test_low_memory_and_lora(tmp_path, file, second):
    import recipe
    layer = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    lora = {f"lora_unet_{layer}.lora_{k}.weight": recipe.standard(k, s) for k, s in (("down", (4, 32)), ("up", (32, 4)))}
    save_file(lora, tmp_path / "lora.safetensors")
    plain = minisd.load(file, prediction_type="epsilon").txt2img("a fox", **HOW)
    np.testing.assert_allclose(minisd.load(file, prediction_type="epsilon", low_memory=True).txt2img("a fox", **HOW), plain, atol=1e-5)
    changed = minisd.load(file, prediction_type="epsilon", lora=tmp_path / "lora.safetensors").txt2img("a fox", **HOW)
    assert np.abs(changed - plain).max() > 1e-4
