"""Damaged, odd and ill-fitting files and values: each ends in an error in words, never in a traceback from the depths."""
import json
import shutil

import drawn_models
import golden_cases
import golden_checks
import ldm_files
import numpy as np
import pytest
from golden_checks import Golden
from PIL import Image
from safetensors.numpy import load_file, save_file

import minisd
from minisd.cli import main as cli
from minisd.errors import CheckpointError, InputError, MinisdError

HOW = dict(num_inference_steps=1, seed=1, width=64, height=64, output="latent")
KEYS = {"SD 1": ["model.diffusion_model.input_blocks.0.0.weight",
                 "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
                 "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
                 "first_stage_model.post_quant_conv.weight"],
        "SD 2": ["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.2.weight",
                 "model.diffusion_model.time_embed.0.bias",
                 "cond_stage_model.model.token_embedding.weight", "cond_stage_model.model.positional_embedding"],
        "XL": ["model.diffusion_model.label_emb.0.0.weight", "conditioner.embedders.1.model.text_projection",
               "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"],
        "upscaler": ["model.diffusion_model.label_emb.weight", "model.diffusion_model.input_blocks.0.0.weight"]}
DAMAGE = {"absent": None, "a scalar": np.float32(1), "one axis": np.ones(3, np.float32), "empty": np.ones((0, 4), np.float32),
          "eight bits": np.ones((4, 4), np.int8), "another shape": np.ones((5, 7, 3, 3), np.float32)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = {}

    def file(family):
        made[family] = made.get(family) or ldm_files.arrays(family)
        return dict(made[family])
    return file


@pytest.mark.parametrize("family, key, damage", [(family, key, damage) for family, keys in KEYS.items() for key in keys
                                                for damage in (DAMAGE if key == keys[0] else ("absent", "one axis"))])
def test_a_damaged_single_file(family, key, damage, files, tmp_path, capsys):
    arrays = files(family)
    assert key in arrays
    if damage == "absent":
        del arrays[key]
    else:
        arrays[key] = np.asarray(DAMAGE[damage])
    save_file(arrays, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError):
        minisd.load(tmp_path / "a.safetensors")
    assert cli.main(["inspect", str(tmp_path / "a.safetensors")]) == 1
    capsys.readouterr()


@pytest.mark.parametrize("family", list(ldm_files.FAMILIES))
@pytest.mark.parametrize("part", ["attn2.to_k.weight", ".resblocks.", "encoder.layers.", "first_stage_model.decoder.",
                                  "model.diffusion_model.out"])
def test_a_single_file_without_some_layers(family, part, files, tmp_path):
    arrays = {k: v for k, v in files(family).items() if part not in k}
    if len(arrays) < len(files(family)):
        save_file(arrays, tmp_path / "a.safetensors")
        with pytest.raises(CheckpointError):
            minisd.load(tmp_path / "a.safetensors")


def test_marks_of_models_that_do_not_run(files, tmp_path):
    save_file({**files("XL"), "edm_mean": np.zeros((1, 4, 1, 1), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="Playground 2.5, which minisd does not run"):
        minisd.load(tmp_path / "a.safetensors")


def test_a_latent_consistency_model_in_one_file(files, tmp_path):
    """It is told the guidance, by a layer of its own."""
    place = "model.diffusion_model.time_embed.cond_proj.weight"
    save_file({**files("SD 1"), place: drawn_models.weight(place, (32, 16))}, tmp_path / "a.safetensors")
    pipe = minisd.load(tmp_path / "a.safetensors")
    assert pipe.model.unet_config.time_cond_proj_dim == 16 and pipe.model.scheduler["_class_name"] == "LCMScheduler"
    found = [pipe.txt2img("a fox", **{**HOW, "num_inference_steps": 2}, guidance_scale=g) for g in (2, 9)]
    assert np.abs(found[0] - found[1]).max() > 1e-4


# ---- LoRA and textual inversion ----------------------------------------------------------------------------------------


LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize("change, metadata", [
    ({"alpha": np.ones(2, np.float32)}, None), ({"lora_down.weight": np.float32(1)}, None), ({"lora_up.weight": np.ones(4, np.float32)},
                                                                                             None),
    ({"lora_down.weight": np.ones((0, 32), np.float32), "lora_up.weight": np.ones((32, 0), np.float32)}, None),
    ({"alpha": np.float32(np.nan)}, None), ({}, "not JSON"), ({}, "[1, 2]"), ({}, '{"unet.lora_alpha": "high"}'),
    ({}, '{"unet.lora_alpha": 1, "unet.alpha_pattern": {".*to_q": null}}')])
def test_a_damaged_lora(change, metadata, sd1_folder, tmp_path):
    arrays = {"lora_down.weight": np.ones((4, 32), np.float32), "lora_up.weight": np.ones((32, 4), np.float32), **change}
    save_file({f"{LAYER}.{k}": np.asarray(v) for k, v in arrays.items()}, tmp_path / "a.safetensors",
              metadata and {"lora_adapter_metadata": metadata})
    with pytest.raises(CheckpointError):
        minisd.load(sd1_folder, lora=tmp_path / "a.safetensors")


def test_a_lora_of_eight_bits_is_refused_when_it_is_read(sd1_folder, tmp_path):
    save_file({f"{LAYER}.lora_down.weight": np.ones((4, 32), np.int8), f"{LAYER}.lora_up.weight": np.ones((32, 4), np.int8)},
              tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="is stored as I8"):
        minisd.load(sd1_folder, lora=tmp_path / "a.safetensors").txt2img("a fox", **HOW)


def test_alpha_for_layers_of_a_pattern(sd1_folder, tmp_path):
    """peft's alpha_pattern: the layer's own alpha goes before the one for all; whole numbers are numbers."""
    down, up = drawn_models.uniform("d", (4, 32)), drawn_models.uniform("u", (32, 4))
    found = []
    for k, (more, metadata) in enumerate([({f"{LAYER}.alpha": np.int64(8)}, None), ({}, dict(lora_alpha=2,
                                                                                             alpha_pattern={"attn1_to_q": 8})),
                                          ({}, dict(lora_alpha=8)), ({}, dict(lora_alpha=2))]):
        save_file({f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up, **{n: np.asarray(v) for n, v in more.items()}},
                  tmp_path / f"{k}.safetensors", metadata and {"lora_adapter_metadata": json.dumps(
                      {f"unet.{n}": v for n, v in metadata.items()})})
        pattern = tmp_path / f"{k}.safetensors"
        found.append(minisd.load(sd1_folder, lora=pattern).txt2img("a fox", **HOW))
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[3] - found[2]).max() > 1e-4


@pytest.mark.parametrize("array", [np.ones((0, 40), np.float32), np.ones((2, 0), np.float32), np.ones((2, 40), np.uint8), np.float32(1)])
def test_a_damaged_textual_inversion(array, sd1_folder, tmp_path):
    save_file({"emb_params": np.asarray(array)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError):
        minisd.load(sd1_folder, textual_inversion=tmp_path / "a.safetensors")


# ---- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file, values", [
    ("model_index.json", dict(text_encoder=5)), ("model_index.json", dict(text_encoder=[None, None])), ("model_index.json",
                                                                                                        dict(_class_name=[])),
    ("text_encoder/config.json", dict(architectures=None, hidden_size=41)), ("unet/config.json", dict(layers_per_block=10**9)),
    ("unet/config.json", dict(reverse_transformer_layers_per_block=-1)), ("unet/config.json", dict(only_cross_attention=True)),
    ("unet/config.json", dict(_class_name="UNet2DModel")), ("vae/config.json", dict(_class_name="VQModel")),
    ("vae/config.json", dict(scaling_factor=10**400)), ("model_index.json", dict(_guidance_scale="3")),
    ("model_index.json", dict(_guidance_scale=-1)), ("model_index.json", dict(_guidance_scale=10**400)),
    ("scheduler/scheduler_config.json", dict(_class_name=[])), ("scheduler/scheduler_config.json", dict(trained_betas="x")),
    ("scheduler/scheduler_config.json", dict(trained_betas=[])), ("scheduler/scheduler_config.json", dict(num_train_timesteps=10**9))])
def test_odd_values_in_a_folder(file, values, sd1_copy):
    path = sd1_copy / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    if values == dict(_class_name=[]) and file == "model_index.json":
        minisd.load(sd1_copy)                                # nothing reads it then
        return
    with pytest.raises(MinisdError):
        minisd.load(sd1_copy).txt2img("a fox", **HOW)


@pytest.mark.parametrize("values", [dict(num_train_timesteps=None), dict(num_train_timesteps=-1), dict(beta_start=None), dict(beta_end=-1),
                                    dict(trained_betas=-1)])
def test_odd_values_of_how_a_small_picture_is_noised(values, tmp_path):
    folder = golden_checks.write_family(tmp_path / "x4", "upscaler", channels=7)
    path = folder / "low_res_scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(MinisdError):
        minisd.load(folder).upscale("a fox", golden_checks.a_picture()[0], num_inference_steps=1)


def test_parts_of_other_kinds(sd1_folder, tmp_path):
    for how, message in ((dict(vae=sd1_folder / "unet"), "vae/config.json: block type|where a vae was expected"),
                         (dict(controlnet=sd1_folder), "a whole model, where a controlnet was expected"), (dict(vae=5), "is no path"),
                         (dict(controlnet=5), "is no path"), (dict(model=""), "is no path"), (dict(lora=("a", "b", "c")), "nor a pair")):
        with pytest.raises(MinisdError, match=message):
            minisd.load(**{"model": sd1_folder, **how})
    config = dict(golden_cases.MODELS["controlnet_sd1"][1], _class_name="ControlNetUnionModel")
    union = drawn_models.write_network(tmp_path / "union", "controlnet", config, Golden("controlnet_sd1").about["shapes"])
    with pytest.raises(CheckpointError, match="a ControlNetUnionModel, where a controlnet was expected"):
        minisd.load(sd1_folder, controlnet=union)
    assert cli.main(["txt2img", "a fox", "-m", "/dev/null"]) == 1


def test_several_controlnets_as_a_tuple(sd1_folder, tmp_path):
    net = golden_checks.write_controlnet(tmp_path, "controlnet_sd1")
    assert len(minisd.load(sd1_folder, controlnet=(net, net)).model.controlnets) == 2


def test_a_control_picture_of_another_scale(sd1_folder, tmp_path):
    """Three widths halve it twice, where the latent is 8 times smaller."""
    config = dict(golden_cases.MODELS["controlnet_sd1"][1], conditioning_embedding_out_channels=[4, 6, 8])
    shapes = {n: s for n, s in Golden("controlnet_sd1").about["shapes"].items() if ".blocks.4." not in n and ".blocks.5." not in n}
    shapes["controlnet_cond_embedding.conv_out.weight"] = [32, 8, 3, 3]
    with pytest.raises(CheckpointError, match="its control picture is 4 times as large as the latent, this model's pictures 8 times"):
        minisd.load(sd1_folder, controlnet=drawn_models.write_network(tmp_path / "c", "controlnet", config, shapes))


def test_a_vae_of_other_latents(sd1_folder, tmp_path):
    vae = drawn_models.write_network(tmp_path / "v", "vae", golden_cases.MODELS["vae_upscaler"][1], Golden("vae_upscaler").about["shapes"])
    with pytest.raises(CheckpointError, match="a vae of 4 channels, 4 pixels a position; this model's latents have 4, 8 pixels wide"):
        minisd.load(sd1_folder, vae=vae)


def test_a_vae_in_the_place_of_taesd_is_scaled_as_the_unets_family(tmp_path, files):
    folder = golden_checks.write_family(tmp_path / "taesd", "taesd")
    save_file({k: v for k, v in files("SD 1").items() if k.startswith("first_stage_model.")}, tmp_path / "vae.safetensors")
    assert minisd.load(folder, vae=tmp_path / "vae.safetensors").model.vae_config.scaling_factor == 0.18215


def test_tokenizers_of_different_lengths(tmp_path):
    folder = golden_checks.write_family(tmp_path / "xl", "xl")
    path = folder / "tokenizer_2" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 40}))
    with pytest.raises(CheckpointError, match="its text encoders read .* tokens: they are parts of different models"):
        minisd.load(folder)


def test_a_taesd_with_a_missing_weight_is_told_before_the_work(sd1, tmp_path):
    from minisd.probe.preview import Preview
    folder = drawn_models.write_network(tmp_path / "taesd", "vae", golden_cases.MODELS["taesd"][1], Golden("taesd").about["shapes"])
    arrays = load_file(folder / "diffusion_pytorch_model.safetensors")
    del arrays["decoder.layers.3.conv.2.weight"]
    save_file(arrays, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="1 missing: decoder.layers.3.conv.2.weight"):
        Preview(sd1, folder)


# ---- values ------------------------------------------------------------------------------------------------------------


def test_pictures_and_depths_that_are_none(sd1):
    from minisd.image import pixels as image
    from minisd.image.canny import canny
    for wrong in (np.full((16, 16, 3), np.nan), np.zeros((0, 4, 3))):
        with pytest.raises(InputError, match="NaN or infinity, or nothing"):
            sd1.img2img("a fox", wrong, **{k: v for k, v in HOW.items() if k not in ("width", "height")})
    for wrong in (np.zeros((0, 5)), np.eye(3) * 1e39, np.full((4, 4), np.inf)):
        with pytest.raises(InputError, match="depth_map holds NaN or infinity, or nothing"):
            image.depth(wrong, 2, 2)
    with pytest.raises(InputError, match="the same everywhere"):
        image.depth(np.eye(4), 1, 1)
    for low, high in (("a", 3), (None, 3), (float("nan"), 3)):
        with pytest.raises(InputError, match="canny's low"):
            canny(golden_checks.a_picture()[0], low, high)


@pytest.mark.parametrize("how, message", [
    (dict(controlnet_conditioning_scale="x"), "there is no ControlNet"), (dict(guess_mode=True), "there is no ControlNet"),
    (dict(control_guidance_end=0.5), "there is no ControlNet")])
def test_what_does_nothing_is_refused(sd1, how, message):
    with pytest.raises(InputError, match=message):
        sd1.txt2img("a fox", **HOW, **how)


def test_a_margin_is_never_cut_away(sd1):
    """A canvas of 78x62 becomes 80x64, not 72x56."""
    found = sd1.inpaint("a fox", golden_checks.a_picture()[0], pad=(3, 3, 3, 3), num_inference_steps=1, seed=1, output="array")
    assert found.shape == (1, 64, 80, 3)


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_a_saved_picture_says_how_it_was_made(sd1, tmp_path, ending):
    from minisd.image.metadata import read_parameters
    picture = sd1.txt2img("a fox, 東京", **{**HOW, "output": "pil"})
    minisd.save(tmp_path / f"a.{ending}", picture)
    prompt, _, settings = read_parameters(tmp_path / f"a.{ending}")
    assert prompt == "a fox, 東京" and settings["Steps"] == "1"
    with Image.open(tmp_path / f"a.{ending}") as opened:
        assert opened.size == picture.size and opened.format == {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}.get(ending, "PNG")


@pytest.mark.parametrize("options, message", [
    (["--canny"], "--canny does nothing without --controlnet"), (["--control-scale", "2"],
                                                                 "--control-scale does nothing without --controlnet"),
    (["--guess-mode"], "--guess-mode does nothing without"), (["--refiner-start", "0.5"], "--refiner-start does nothing without --refiner"),
    (["--steps", "0"], "--steps is 0"), (["--ema"], "--ema is for single files"), (["--refiner", "no"], "no: no such file or folder"),
    (["--control", "a.png"], "--control does nothing without --controlnet")])
def test_options_are_called_by_their_names(options, message, sd1_folder, tmp_path, capsys):
    assert cli.main(["txt2img", "a fox", "-m", str(sd1_folder), "-o", str(tmp_path / "a.png"), "--quiet", *options]) == 1
    assert message in capsys.readouterr().err


def test_a_refiner_is_looked_at_before_the_work(sd1_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(minisd.Pipeline, "txt2img", lambda *a, **k: pytest.fail("the base has begun"))
    xl, sd2 = golden_checks.write_family(tmp_path / "xl", "xl"), golden_checks.write_pipeline(tmp_path / "sd2", "sd2")
    p2p = golden_checks.write_pipeline(tmp_path / "p2p", "sd1", channels=8)
    for base, refiner, more, message in ((xl, sd2, [], "its latents are not this model's"), (sd2, p2p, [], "conv_in takes 8 channels"),
                                         (sd2, sd1_folder, ["--refiner-start", "1"], "--refiner-start is 1.0"),
                                         (sd2, sd1_folder, ["--steps", "1", "--sampler", "ddim", "--spacing", "trailing", "--refiner-start",
                                                            "0.9999"], "leaves no step of 1")):
        assert cli.main(["txt2img", "a fox", "-m", str(base), "--refiner", str(refiner), "-o", str(tmp_path / "a.png"), "--quiet",
                         *more]) == 1
        assert message in capsys.readouterr().err


def test_a_prompts_file_with_a_mark_at_its_beginning(sd1_folder, tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfa fox\n")
    assert cli.main(["txt2img", "--prompts", str(tmp_path / "p.txt"), "-m", str(sd1_folder), "-o", str(tmp_path / "a.png"), "--quiet",
                     "--steps", "1", "--size", "64x64"]) == 0
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info["parameters"].startswith("a fox\n")


def test_a_picture_does_not_depend_on_what_else_is_made(sd1_folder, tmp_path):
    """A short prompt beside one of two chunks is the picture that --from makes of it."""
    (tmp_path / "p.txt").write_text("a fox\n" + "a cat, " * 40 + "\n")
    common = ["-m", str(sd1_folder), "--quiet", "--steps", "2", "--seed", "3", "--size", "64x64"]
    assert cli.main(["txt2img", "--prompts", str(tmp_path / "p.txt"), "-o", str(tmp_path / "m.png"), *common]) == 0
    assert cli.main(["txt2img", "--from", str(tmp_path / "m-1.png"), "-m", str(sd1_folder), "--quiet", "-o",
                     str(tmp_path / "again.png")]) == 0
    with Image.open(tmp_path / "m-1.png") as a, Image.open(tmp_path / "again.png") as b:
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_profiling_a_refined_picture(tmp_path, capsys):
    xl, refiner = golden_checks.write_family(tmp_path / "xl", "xl"), golden_checks.write_family(tmp_path / "fine", "refiner")
    assert cli.main(["txt2img", "a fox", "-m", str(xl), "--refiner", str(refiner), "--steps", "5", "--size", "64x64", "--quiet",
                     "--profile",
                     "-o", str(tmp_path / "a.png")]) == 0
    assert "norm_conv2d" in capsys.readouterr().out
    from minisd.probe.profile import profile
    with profile():
        minisd.load(xl)


def test_controlled_pictures_are_made_again(sd1_folder, tmp_path):
    """Every setting of a ControlNet is in the picture, and read from it."""
    net = golden_checks.write_controlnet(tmp_path, "controlnet_sd1")
    golden_checks.a_picture()[0].save(tmp_path / "in.png")
    common = ["-m", str(sd1_folder), "--quiet", "--controlnet", str(net), "--control", str(tmp_path / "in.png")]
    for more in (["--control-scale", "9"], ["--guess-mode", "--control-end", "0.5"], ["--canny", "--control-start", "0.3"]):
        assert cli.main(["txt2img", "a fox", *common, *more, "--steps", "2", "--seed", "3", "--size", "64x64", "-o",
                         str(tmp_path / "a.png")]) == 0
        assert cli.main(["txt2img", "--from", str(tmp_path / "a.png"), *common, "-o", str(tmp_path / "b.png")]) == 0
        with Image.open(tmp_path / "a.png") as a, Image.open(tmp_path / "b.png") as b:
            assert np.array_equal(np.asarray(a), np.asarray(b)) and a.info["parameters"] == b.info["parameters"]


def test_a_refined_picture_says_what_steered_its_beginning(tmp_path):
    xl, fine = golden_checks.write_family(tmp_path / "xl", "xl"), golden_checks.write_family(tmp_path / "fine", "refiner")
    net = golden_checks.write_controlnet(tmp_path, "controlnet_xl")
    golden_checks.a_picture()[0].save(tmp_path / "in.png")
    common = ["-m", str(xl), "--refiner", str(fine), "--steps", "5", "--quiet", "-o", str(tmp_path / "a.png")]
    assert cli.main(["txt2img", "a fox", *common, "--controlnet", str(net), "--control", str(tmp_path / "in.png"), "--guess-mode",
                     "--control-scale", "0.5", "--size", "64x64"]) == 0
    with Image.open(tmp_path / "a.png") as picture:
        assert "Guess mode: True" in picture.info["parameters"] and "ControlNet weight: 0.5" in picture.info["parameters"]
    assert cli.main(["img2img", str(tmp_path / "in.png"), "a fox", *common, "--strength", "0.7"]) == 0
    with Image.open(tmp_path / "a.png") as picture:
        assert "Denoising strength: 0.7" in picture.info["parameters"]
    assert cli.main(["txt2img", "--from", str(tmp_path / "a.png"), *common]) == 1


def test_other_files_than_a_picture_was_made_with(sd1_folder, tmp_path, capsys):
    taesd = drawn_models.write_network(tmp_path / "taesd", "vae", golden_cases.MODELS["taesd"][1], Golden("taesd").about["shapes"])
    golden_checks.inversion_files(tmp_path)
    loras = [golden_checks.lora_file(name, tmp_path / f"{name}.safetensors") for name in ("kohya", "peft")]
    common = ["-m", str(sd1_folder), "--quiet", "--size", "64x64", "--steps", "1"]
    for more, key in ((["--vae", str(taesd)], "VAE taesd"), (["--prediction-type", "v_prediction"], "Prediction type v_prediction"),
                      (["--lora", f"{loras[0]}:0.5", "--lora", str(loras[1])], "LoRA kohya: 0.5, peft: 1"),
                      (["--embedding", str(tmp_path / "learned_embeds.safetensors")], "Embeddings <my-cat>")):
        assert cli.main(["txt2img", "a fox", *common, *more, "-o", str(tmp_path / "a.png")]) == 0
        again = ["txt2img", "--from", str(tmp_path / "a.png"), *common, "-o", str(tmp_path / "b.png")]
        assert cli.main(again) == 1 and f"made with {key}" in capsys.readouterr().err
        assert cli.main([*again, *more]) == 0
    shutil.rmtree(taesd)
