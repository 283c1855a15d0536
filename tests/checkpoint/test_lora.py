"""LoRA files: against diffusers, in every spelling, and what is wrong with a file said in words."""
import json
import types

import golden_cases
import golden_checks
import numpy as np
import published_configs
import pytest
from golden_checks import Golden
from safetensors.numpy import load_file, save_file

import minisd
from minisd.checkpoint import ldm, lora
from minisd.cli import main as cli
from minisd.errors import CheckpointError, InputError

HOW = dict(num_inference_steps=1, seed=1, width=64, height=64, output="latent")


@pytest.mark.parametrize("name", list(golden_cases.LORAS))
def test_lora(name, tmp_path):
    assert golden_checks.compare_lora(name, Golden("tasks"), tmp_path) <= golden_checks.BOUND


@pytest.fixture
def kohya(tmp_path):
    return golden_checks.lora_file("kohya", tmp_path / "kohya.safetensors")


def changed(path, change):
    arrays = load_file(path)
    save_file(change(arrays) or arrays, path)
    return path


@pytest.mark.parametrize("rename", [
    lambda k: k.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."),
    lambda k: k.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."),
    lambda k: k.replace(".lora_A.", ".lora_linear_layer.down.").replace(".lora_B.", ".lora_linear_layer.up."),
    lambda k: "lora_" + k.replace("text_encoder.", "te1.").rpartition(".lora")[0].replace(".", "_") + (
        ".lora_down.weight" if "lora_A" in k else ".lora_up.weight")])
def test_every_spelling_is_the_same(rename, tmp_path, sd1_folder):
    path = golden_checks.lora_file("peft", tmp_path / "a.safetensors")
    expected = minisd.load(sd1_folder, lora=path).txt2img("a fox", **HOW)
    changed(path, lambda arrays: {rename(k): v for k, v in arrays.items()})
    np.testing.assert_array_equal(minisd.load(sd1_folder, lora=path).txt2img("a fox", **HOW), expected)


def test_an_adapter_folder(tmp_path, sd1_folder):
    """peft's own: alpha and rank in adapter_config.json, names without a component are the unet's."""
    arrays = load_file(golden_checks.lora_file("peft", tmp_path / "a.safetensors"))
    arrays = {k.removeprefix("unet."): v for k, v in arrays.items() if k.startswith("unet.")}
    save_file({f"base_model.model.{k}": v for k, v in arrays.items()}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(dict(r=3, lora_alpha=1.5)))
    save_file({f"unet.{k}": v for k, v in arrays.items()}, tmp_path / "a.safetensors")
    half = minisd.load(sd1_folder, lora=(tmp_path / "a.safetensors", 0.5)).txt2img("a fox", **HOW)
    np.testing.assert_allclose(minisd.load(sd1_folder, lora=tmp_path).txt2img("a fox", **HOW), half, atol=1e-6)
    (tmp_path / "adapter_config.json").write_text(json.dumps(dict(r=3, lora_alpha=0.5 * 3**0.5, use_rslora=True)))
    np.testing.assert_allclose(minisd.load(sd1_folder, lora=tmp_path).txt2img("a fox", **HOW), half, atol=1e-5)


def test_several_add_up_and_weight_0_is_none(kohya, sd1_folder, sd1):
    def run(lora):
        return minisd.load(sd1_folder, lora=lora).txt2img("a fox", **HOW)

    np.testing.assert_array_equal(run([(kohya, 0.0)]), sd1.txt2img("a fox", **HOW))
    np.testing.assert_allclose(run([(kohya, 0.5), (kohya, 0.3)]), run((kohya, 0.8)), atol=2e-5)
    np.testing.assert_allclose(minisd.load(sd1_folder, lora=str(kohya), low_memory=True).txt2img("a fox", **HOW), run(kohya), atol=1e-5)


def test_layers_that_are_not_there_are_named(kohya, sd1_folder):
    def extra(arrays):
        arrays["lora_unet_no_such_layer.lora_down.weight"] = arrays["lora_unet_no_such_layer.lora_up.weight"] = np.zeros((4, 4), np.float32)

    with pytest.warns(UserWarning, match="1 of its layers are not in this model: lora_unet_no_such_layer"):
        minisd.load(sd1_folder, lora=changed(kohya, extra))


@pytest.mark.parametrize("change, message", [
    (lambda a: {"x": np.zeros(1, np.float32)}, "holds no LoRA, it is .*; its first key is x"),
    (lambda a: {k.replace("unet", "unet_other").replace("_te_", "_te2_"): v for k, v in a.items()}, "none of its 18 layers is in"),
    (lambda a: {k: v for k, v in a.items() if not k.endswith("attn1_to_q.lora_up.weight")}, "needs both matrices"),
    (lambda a: {k: v[:, :5] if k.endswith("attn1_to_q.lora_down.weight") else v for k, v in a.items()}, "made for another model"),
    (lambda a: {**a, "lora_unet_x.hada_w1_a": np.zeros(1, np.float32)}, "LoHa"),
    (lambda a: {**a, "lora_unet_x.dora_scale": np.zeros(1, np.float32)}, "DoRA")])
def test_what_is_wrong_with_a_file(kohya, sd1_folder, change, message):
    with pytest.raises(CheckpointError, match=message):
        minisd.load(sd1_folder, lora=changed(kohya, change))


def test_files_that_are_none(tmp_path, sd1_folder, kohya):
    (tmp_path / "a.pt").write_bytes(b"x")
    (tmp_path / "b.safetensors").write_bytes(b"x" * 100)
    for name, kind, message in (("no.safetensors", InputError, "no such file"), ("a.pt", CheckpointError, "pickle"),
                                ("b.safetensors", CheckpointError, "damaged"), (".", InputError, "adapter_model.safetensors: no such")):
        with pytest.raises(kind, match=message):
            minisd.load(sd1_folder, lora=tmp_path / name)
    for weight in (True, float("nan"), None):
        with pytest.raises(InputError, match="weight of .* must be a number"):
            minisd.load(sd1_folder, lora=(kohya, weight))


def test_command_line(kohya, sd1_folder, tmp_path, capsys):
    from PIL import Image
    common = ["txt2img", "a fox", "-m", str(sd1_folder), "--steps", "1", "--seed", "1", "--quiet", "-o", str(tmp_path / "out.png")]
    assert cli.main([*common, "--lora", f"{kohya}:0.8", "--lora", str(kohya)]) == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert 'LoRA: "kohya: 0.8, kohya: 1"' in picture.info["parameters"]
    assert cli.main([*common, "--lora", "none.safetensors"]) == 1 and "none.safetensors: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("checkpoint", ["SD 1.5", "SDXL base", "SDXL refiner"])
def test_every_layer_of_the_real_unets_is_found_by_ldms_name(checkpoint):
    """As kohya's tools write them for Stable Diffusion XL: transformers, resnets, samplers."""
    keys = [k.removeprefix(ldm.UNET) for k in published_configs.file_keys(checkpoint) if k.startswith(ldm.UNET)]
    names, _ = ldm.unet_names(keys)
    unet = types.SimpleNamespace(name="unet", stored=dict.fromkeys(names))
    table, plain = lora.tables([unet])["unet"], ("time_embed", "label_emb", "input_blocks.0", "out.")
    for name, (key, _) in names.items():
        if key.endswith(".weight") and not key.startswith(plain):
            assert table[key.removesuffix(".weight").replace(".", "_")] == (unet, name)
