"""Stable Diffusion XL and its refiner, Turbo, latent consistency models, ControlNet, TAESD, the upscaler, depth: against diffusers."""

import drawn_models
import golden_cases
import golden_checks
import numpy as np
import pytest
from edited_files import change_json
from golden_checks import Golden
from safetensors.numpy import load_file, save_file

import minisd
from minisd import conditioning, tasks
from minisd.diffusion import samplers
from minisd.errors import CheckpointError, InputError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


@pytest.mark.parametrize("name", list(golden_cases.RUNS))
def test_run(name, folders):
    """From folders on disk to the latent after all steps; and from the reference's latent to pixels."""
    latent, pixels = golden_checks.compare_run(name, Golden("families"), folders)
    assert latent <= golden_checks.BOUND and pixels <= golden_checks.BOUND, f"{latent:.1e} {pixels:.1e}"


@pytest.mark.parametrize("what", ["lora", "inversion", "handoff"])
def test_xl(what, folders):
    """A LoRA with LDM's names for places, a word in both text encoders, the base's latent handed to the refiner."""
    assert golden_checks.compare_xl(what, Golden("families"), folders) <= golden_checks.BOUND


QUICK = dict(num_inference_steps=2, seed=1, width=64, height=64, output="latent")


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory):
    return golden_checks.write_family(tmp_path_factory.mktemp("xl") / "xl", "xl")


@pytest.fixture(scope="module")
def xl(xl_folder):
    return minisd.load(xl_folder)


def copied(folder, to):
    import shutil
    return shutil.copytree(folder, to)


# ---- Stable Diffusion XL ---------------------------------------------------------------------------------------------


def test_no_negative_prompt_is_not_an_empty_one(xl, xl_folder, tmp_path):
    """None is zeros, as the model was trained; "" is read as a prompt; where the folder does not ask for zeros they are the same."""
    none, empty = (xl.txt2img("a fox", negative, **QUICK) for negative in (None, ""))
    assert np.abs(none - empty).max() > 1e-3
    folder = copied(xl_folder, tmp_path / "xl")
    change_json(folder / "model_index.json", force_zeros_for_empty_prompt=False)
    np.testing.assert_array_equal(minisd.load(folder).txt2img("a fox", **QUICK), empty)


def test_a_prompt_is_read_by_both_encoders(xl):
    found = xl.model.encode_prompts(["a fox", "a (red:1.5) fox BREAK a cat"])
    assert found["context"].shape == (2, 154, 88) and found["text_embeds"].shape == (2, 32)
    alone = xl.model.encode_prompts(["a red fox"], prompt_syntax="plain")
    assert np.abs(found["text_embeds"][1] - alone["text_embeds"][0]).max() < 1e-5, "weights do not touch the pooled vector of chunk 1"
    assert np.abs(found["context"][1, :77] - alone["context"][0]).max() > 1e-2
    np.testing.assert_allclose(xl.txt2img(["a fox", "a (red:1.5) fox BREAK a cat"], **{**QUICK, "seed": [1, 2]}, guidance_scale=1)[0],
                               xl.txt2img("a fox BREAK ", **QUICK, guidance_scale=1)[0], atol=0.5)


def test_sizes_are_told(xl):
    plain = xl.txt2img("a fox", **QUICK)
    np.testing.assert_array_equal(plain, xl.txt2img("a fox", **QUICK, original_size=(64, 64), target_size=(64, 64)))
    for how in (dict(original_size=(512, 64)), dict(target_size=(64, 512)), dict(crops_coords_top_left=(0, 100))):
        assert np.abs(plain - xl.txt2img("a fox", **QUICK, **how)).max() > 1e-3
    picture = xl.txt2img("a fox", **{**QUICK, "output": "pil"}, original_size=(512, 64))
    assert 'Original size: "(512, 64)"' in picture.info["parameters"]


@pytest.mark.parametrize("how, message", [
    (dict(original_size=(1, 2, 3)), "original_size is"), (dict(target_size=64), "target_size is 64"),
    (dict(crops_coords_top_left=(0.5, 1)), "two whole numbers"), (dict(denoising_end=1.5), "from 0 to 1"),
    (dict(guidance_rescale=-1), "guidance_rescale is -1"), (dict(aesthetic_score="high"), "aesthetic_score"),
    (dict(clip_skip=4), "has 3 layers")])
def test_what_cannot_be_told(xl, how, message):
    with pytest.raises(InputError, match=message):
        xl.txt2img("a fox", **QUICK, **how)


def test_every_step_is_the_bases_or_the_refiners():
    """A share of the training's timesteps; a method of two stages is not cut within a step."""
    for name in ("ddim", "euler", "heun", "dpm2"):
        method = samplers.sampler(name, golden_cases.SCHEDULE, 10)
        for share in (0.15, 0.25, 0.5, 0.8, 0.9):
            stop, start = tasks.stop(method, share), tasks.resume(method, share)
            assert start <= stop < start + method.calls_per_step and start % method.calls_per_step == 0
            assert all(t >= 1000 - 1000 * share for t in method.timesteps[:stop]) and 0 <= stop <= len(method.timesteps)
    assert [tasks.stop(samplers.sampler("ddim", golden_cases.SCHEDULE, 10), s) for s in (0.15, 0.8, 1.0)] == [1, 8, 10]


def test_the_whole_way_or_none_of_it(xl):
    with pytest.raises(InputError, match="denoising_end 0.* leaves no step"):
        xl.txt2img("a fox", **QUICK, denoising_end=0.0)
    np.testing.assert_array_equal(xl.txt2img("a fox", **QUICK, denoising_end=1.0), xl.txt2img("a fox", **QUICK))
    latents = xl.txt2img("a fox", **QUICK)
    for wrong in (0, 1.0, -1, "x", [0.5], float("nan"), True):
        with pytest.raises(InputError, match="denoising_start is .*above 0 and below 1"):
            xl.img2img("a fox", latents, denoising_start=wrong)
    with pytest.raises(InputError, match="denoising_start 0.999 leaves no step of 2"):
        xl.img2img("a fox", latents, denoising_start=0.999, sampler="ddim", num_inference_steps=2, timestep_spacing="trailing")
    for how in (dict(strength=0.2, denoising_end=0.5), dict(denoising_start=0.8, denoising_end=0.5)):
        with pytest.raises(InputError, match="denoising_end 0.5 is before the step that this picture starts with"):
            xl.img2img("a fox", latents, num_inference_steps=10, **how)
    with pytest.raises(InputError, match="width and height are 512 and 64; these latents are of a picture 64x64"):
        xl.img2img("a fox", latents, denoising_start=0.5, width=512)
    for wrong in (0, np.zeros(3), "64"):
        with pytest.raises(InputError, match="width is .*; it must be a positive multiple of 8"):
            xl.img2img("a fox", latents, denoising_start=0.5, width=wrong)
    with pytest.raises(InputError, match=r"latents are floats of shape \(B,h,w,4\)"):
        xl.img2img("a fox", latents[..., :3], denoising_start=0.5)
    with pytest.raises(InputError, match="latents of 1 pictures for 2 prompts|give one for each"):
        xl.img2img(["a", "b", "c"], np.concatenate([latents, latents]), denoising_start=0.5)


def test_parts_of_different_models(xl_folder, tmp_path):
    folder = copied(xl_folder, tmp_path / "a")
    drawn_models.write_network(folder / "text_encoder", "text_encoder", dict(golden_cases.MODELS["text_sd1"][1],
                                                                               hidden_size=48, num_attention_heads=3),
                         Golden("text_xl").about["shapes"])
    with pytest.raises(CheckpointError, match="the text encoder gives 96 numbers a token, the unet reads 88"):
        minisd.load(folder)
    folder = copied(xl_folder, tmp_path / "b")
    change_json(folder / "text_encoder_2" / "config.json", architectures=["CLIPTextModel"])
    with pytest.raises(CheckpointError, match="no text encoder with a projection"):
        minisd.load(folder)
    folder = copied(xl_folder, tmp_path / "c")
    change_json(folder / "unet" / "config.json", addition_time_embed_dim=24)
    with pytest.raises(CheckpointError, match="reads 128 numbers besides the prompt, 24 for each of 5 or 6"):
        minisd.load(folder)


def test_a_word_ends_where_the_prompt_does(xl_folder, tmp_path):
    """The pooled vector is the end token's, though a new word's number is larger (which misleads the reference)."""
    taught = minisd.load(xl_folder, textual_inversion=(golden_checks.xl_inversion_file(tmp_path / "w.safetensors"), "<tower>"))
    second = taught.model.text_encoders[1]
    assert second.tokenizer(["a <tower> hill"])[0].max() > 49407 and second.config.eos == 49407
    found = taught.model.encode_prompts(["a <tower> hill"])
    assert np.abs(found["text_embeds"] - taught.model.encode_prompts(["a <tower>"])["text_embeds"]).max() > 1e-3


def test_words_for_another_family(xl_folder, sd1_folder, tmp_path):
    file = golden_checks.xl_inversion_file(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="made for Stable Diffusion XL, with 2 text encoders; this model has 1"):
        minisd.load(sd1_folder, textual_inversion=file)
    golden_checks.inversion_files(tmp_path)
    with pytest.raises(CheckpointError, match="made for Stable Diffusion 1 or 2, with 1 text encoders; this model has 2"):
        minisd.load(xl_folder, textual_inversion=tmp_path / "hats.safetensors")
    save_file({"clip_l": np.zeros((1, 40), np.float32), "clip_g": np.zeros((2, 48), np.float32)}, file)
    with pytest.raises(CheckpointError, match="of 1 and 2 vectors|of 2 and 1 vectors"):
        minisd.load(xl_folder, textual_inversion=file)


# ---- latent consistency models ---------------------------------------------------------------------------------------


def test_lcm_is_conditioned_on_the_guidance_and_called_once(folders, monkeypatch):
    place = folders / "family lcm 4"
    pipe = minisd.load(place if place.exists() else golden_checks.write_family(place, "lcm"))
    rows, call = [], pipe.model.predict_noise
    monkeypatch.setattr(pipe.model, "predict_noise", lambda x, *given: rows.append(len(x)) or call(x, *given))
    found = [pipe.txt2img("a fox", **QUICK, guidance_scale=g) for g in (1.0, 8.5)]
    assert set(rows) == {1} and np.abs(found[0] - found[1]).max() > 1e-3
    with pytest.warns(UserWarning, match="a negative prompt has no effect"):
        pipe.txt2img("a fox", "a dog", **QUICK, guidance_scale=8.5)
    with pytest.raises(InputError, match="lcm knows 50 noise levels and cannot make 51 steps"):
        pipe.txt2img("a fox", **{**QUICK, "num_inference_steps": 51})


def test_guidance_embedding():
    """Sines, then cosines, of 1000 (w - 1) at frequencies from 1 down to 1/10000."""
    found = conditioning.guidance_embedding(2.25, 64, "float32")
    angles = 1250 * 10000.0 ** (-np.arange(32) / 31)
    np.testing.assert_allclose(found[0], np.concatenate([np.sin(angles), np.cos(angles)]), atol=3e-4)


# ---- single files ----------------------------------------------------------------------------------------------------


def test_ema_weights(tmp_path):
    """Under their flattened names; by themselves they are what the unet would be."""
    import ldm_files
    arrays = ldm_files.arrays()
    unet = {k: v for k, v in arrays.items() if k.startswith("model.diffusion_model.")}
    mean = {"model_ema." + k.removeprefix("model.").replace(".", ""): v for k, v in unet.items()}
    save_file({**arrays, **{k: v * np.float32(0.9) for k, v in unet.items()}, **mean}, tmp_path / "both.safetensors")
    save_file(arrays, tmp_path / "plain.safetensors")
    plain = minisd.load(tmp_path / "plain.safetensors").txt2img("a fox", **QUICK)
    np.testing.assert_array_equal(minisd.load(tmp_path / "both.safetensors", extract_ema=True).txt2img("a fox", **QUICK), plain)
    assert np.abs(minisd.load(tmp_path / "both.safetensors").txt2img("a fox", **QUICK) - plain).max() > 1e-2
    with pytest.raises(CheckpointError, match="holds no EMA weights"):
        minisd.load(tmp_path / "plain.safetensors", extract_ema=True)


def test_marks_of_v_prediction(tmp_path):
    import ldm_files
    marks = {"v_pred": np.zeros(0, np.float32), "ztsnr": np.zeros(0, np.float32)}
    save_file({**ldm_files.arrays("XL"), **marks}, tmp_path / "v.safetensors")
    scheduler = minisd.load(tmp_path / "v.safetensors").model.scheduler
    assert scheduler["prediction_type"] == "v_prediction" and scheduler["rescale_betas_zero_snr"]


def test_a_vaes_file_takes_the_models_scale(tmp_path):
    """A vae's file does not say how its latents are scaled; the unet's family does."""
    import ldm_files
    arrays = ldm_files.arrays("XL")
    save_file(arrays, tmp_path / "xl.safetensors")
    save_file({k.removeprefix("first_stage_model."): v for k, v in arrays.items() if k.startswith("first_stage_model.")},
              tmp_path / "vae.safetensors")
    z = np.ones((1, 2, 2, 4), np.float32)
    own, other = (minisd.load(tmp_path / "xl.safetensors", **how) for how in ({}, dict(vae=tmp_path / "vae.safetensors")))
    assert own.model.vae_config.scaling_factor == other.model.vae_config.scaling_factor == 0.13025
    np.testing.assert_array_equal(own.model.decode(z), other.model.decode(z))


# ---- TAESD, depth ----------------------------------------------------------------------------------------------------


def test_taesd_in_the_place_of_a_vae(sd1_folder, tmp_path):
    folder = drawn_models.write_network(tmp_path / "taesd", "vae", golden_cases.MODELS["taesd"][1], Golden("taesd").about["shapes"])
    found = minisd.load(sd1_folder, vae=folder)
    pixels = golden_checks.channels_last(golden_checks.model_inputs("taesd")["encode wide"]) / 2 + 0.5
    np.testing.assert_array_equal(*(golden_checks.encoded(found, pixels, seed) for seed in (1, 2)))                  # nothing is drawn
    expected = golden_checks.channels_last(Golden("taesd")["encode wide.output"])
    assert golden_checks.relative(found.model.encode(pixels), expected) <= golden_checks.BOUND
    by_file = minisd.load(sd1_folder, vae=folder / "diffusion_pytorch_model.safetensors")
    np.testing.assert_array_equal(by_file.model.decode(expected), found.model.decode(expected))
    broken = load_file(folder / "diffusion_pytorch_model.safetensors")
    del broken["decoder.layers.3.conv.2.weight"]
    save_file(broken, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="1 missing: decoder.layers.3.conv.2.weight"):
        minisd.load(sd1_folder, vae=folder)


def test_depth_maps(folders):
    from PIL import Image

    from minisd.image import pixels as image
    ramp = np.linspace(0, 5, 63).reshape(7, 9)
    np.testing.assert_allclose(image.depth(ramp, 9, 7)[0, ..., 0], ramp / 2.5 - 1, atol=1e-6)
    np.testing.assert_allclose(image.depth((ramp * 51).astype(np.uint8), 9, 7), image.depth(ramp, 9, 7), atol=0.02)
    picture = Image.fromarray((ramp * 51).astype(np.uint8))
    np.testing.assert_array_equal(image.depth(picture, 9, 7), image.depth((ramp * 51).astype(np.uint8), 9, 7))
    assert image.depth(ramp, 18, 14).shape == (1, 14, 18, 1)
    for wrong in (np.zeros((3, 3)), np.full((3, 3), np.nan)):
        with pytest.raises(InputError, match="depth_map"):
            image.depth(wrong, 3, 3)
