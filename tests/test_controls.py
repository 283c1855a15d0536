"""ControlNets: their files, when and how much they count, what cannot be; and Canny's edges."""
import drawn_models
import golden_cases
import golden_checks
import ldm_files
import numpy as np
import pytest
from golden_checks import Golden
from PIL import Image
from safetensors.numpy import save_file

import minisd
from minisd.checkpoint import ldm as names_of
from minisd.errors import CheckpointError, InputError
from minisd.image.canny import canny

HOW = dict(num_inference_steps=2, seed=1, width=64, height=64, output="latent", guidance_scale=3.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return golden_checks.write_controlnet(tmp_path_factory.mktemp("controlnets"), "controlnet_sd1")


@pytest.fixture(scope="module")
def pipe(sd1_folder, folder):
    return minisd.load(sd1_folder, controlnet=folder)


def picture():
    return golden_checks.a_picture()[0]


def test_weight_0_is_none_and_more_is_more(pipe, sd1):
    plain = sd1.txt2img("a fox", **HOW)
    found = [pipe.txt2img("a fox", **HOW, control_image=picture(), controlnet_conditioning_scale=s) for s in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(found[0], plain, atol=1e-5)
    assert 0.01 < np.abs(found[1] - plain).max() < np.abs(found[2] - plain).max()


def test_it_counts_from_start_to_end(pipe, sd1, monkeypatch):
    """Outside of that part of the way its network is not even run."""
    from minisd.networks import controlnet
    calls, run = [], controlnet.controlnet
    monkeypatch.setattr(controlnet, "controlnet", lambda p, x, t, *a, **k: calls.append(float(t[0])) or run(p, x, t, *a, **k))
    pipe.txt2img("a fox", **{**HOW, "num_inference_steps": 4}, sampler="ddim", control_image=picture(), control_guidance_start=0.25,
                 control_guidance_end=0.75)
    assert calls == [501.0, 251.0]
    pipe.img2img("a fox", picture(), strength=0.5, num_inference_steps=4, seed=1, output="latent", sampler="ddim", control_image=picture(),
                 control_guidance_end=0.5)
    assert calls[2:] == [251.0], "half of the steps that img2img walks"


def test_the_picture_matters_and_its_size_does_not(pipe):
    small = picture().resize((64, 64))
    images = small, small.resize((128, 128), 0), Image.new("L", (30, 99), 200)
    found = [pipe.txt2img("a fox", **HOW, control_image=image) for image in images]
    assert np.abs(found[0] - found[1]).max() < np.abs(found[0] - found[2]).max() / 2 and np.abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize("how, message", [
    ({}, "0 control images for 1 ControlNets"), (dict(control_image=[1, 2]), "2 control images for 1"),
    (dict(control_image="no.png"), "no.png: No such file"), (dict(controlnet_conditioning_scale=[1, 2]), "one for each of 1"),
    (dict(controlnet_conditioning_scale="1"), "must be a number"), (dict(control_guidance_start=-0.1), "from 0 to 1"),
    (dict(control_guidance_end=float("nan")), "from 0 to 1")])
def test_what_cannot_be(pipe, how, message):
    with pytest.raises(InputError, match=message):
        pipe.txt2img("a fox", **HOW, **({"control_image": picture()} if how and "control_image" not in how else {}), **how)


def test_a_control_image_without_a_controlnet(sd1):
    with pytest.raises(InputError, match="1 control images for 0 ControlNets.*controlnet="):
        sd1.txt2img("a fox", **HOW, control_image=picture())


def test_files_that_are_none_or_of_another_family(sd1_folder, tmp_path, folder):
    with pytest.raises(InputError, match="no such file or folder"):
        minisd.load(sd1_folder, controlnet=tmp_path / "none")
    (tmp_path / "a.pth").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="pickle"):
        minisd.load(sd1_folder, controlnet=tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="it is a vae"):
        save_file({"decoder.conv_in.weight": np.zeros(1, np.float32)}, tmp_path / "a.safetensors")
        minisd.load(sd1_folder, controlnet=tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"for another family: its text, first level and transformers are \(88, 32, \[0, 2, 3\]\)"):
        minisd.load(sd1_folder, controlnet=golden_checks.write_controlnet(tmp_path, "controlnet_xl"))
    shapes = dict(Golden("controlnet_sd1").about["shapes"])
    del shapes["controlnet_down_blocks.5.bias"]
    broken = drawn_models.write_network(tmp_path / "broken", "controlnet", golden_cases.MODELS["controlnet_sd1"][1], shapes)
    with pytest.raises(CheckpointError, match="1 missing: controlnet_down_blocks.5.bias"):
        minisd.load(sd1_folder, controlnet=broken)


def test_a_file_with_ldm_names_is_the_same(tmp_path):
    """From a folder, from a file with LDM names, and from one with diffusers' names: the same numbers."""
    keys = ldm_files.unet(channels=(32, 64, 64, 64), layers=2, attention=(1, 1, 1, 0), context=64, linear=False, control=True)
    found, odd = names_of.unet_names(list(keys))
    assert odd == []
    arrays = {name: drawn_models.weight(name, keys[key]) for name, (key, _) in found.items()}
    save_file({f"control_model.{key}": arrays[name] for name, (key, _) in found.items()}, tmp_path / "ldm_files.safetensors")
    save_file(arrays, tmp_path / "diffusers.safetensors")
    config = dict(golden_cases.MODELS["controlnet_sd1"][1], block_out_channels=[32, 64, 64, 64], cross_attention_dim=64, norm_num_groups=32,
                  attention_head_dim=8, conditioning_embedding_out_channels=[16, 32, 96, 256])
    folder = drawn_models.write_network(tmp_path / "folder", "controlnet", config, {n: a.shape for n, a in arrays.items()})
    model = ldm_files.write(tmp_path / "model.safetensors", "SD 1")
    latents = [minisd.load(model, controlnet=path).txt2img("a fox", **HOW, control_image=picture())
               for path in (folder, tmp_path / "ldm_files.safetensors", tmp_path / "diffusers.safetensors")]
    np.testing.assert_array_equal(latents[1], latents[0])
    np.testing.assert_array_equal(latents[2], latents[0])
    plain = minisd.load(model).txt2img("a fox", **HOW)
    assert np.abs(plain - latents[0]).max() > 0.01


def test_blue_before_red(sd1_folder, tmp_path, folder, pipe):
    """A ControlNet that was trained on pictures with their colours in the other order says so: in its folder's config.json, which counts as
    well where the file beside it is named."""
    config = dict(golden_cases.MODELS["controlnet_sd1"][1], controlnet_conditioning_channel_order="bgr")
    other = drawn_models.write_network(tmp_path / "bgr", "controlnet", config, Golden("controlnet_sd1").about["shapes"])
    turned = Image.fromarray(np.asarray(picture())[..., ::-1].copy())
    expected = pipe.txt2img("a fox", **HOW, control_image=picture())
    for path in other, other / "diffusion_pytorch_model.safetensors":
        found = minisd.load(sd1_folder, controlnet=path).txt2img("a fox", **HOW, control_image=turned)
        np.testing.assert_array_equal(found, expected)


# ---- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low, high", golden_checks.CANNY)
def test_canny_is_opencvs(low, high):
    for k, pixels in enumerate(golden_checks.edgy_pictures()):
        expected = Golden("families")[f"canny {k} {low} {high}"]
        assert 0 < expected.mean() < 200
        np.testing.assert_array_equal(np.asarray(canny(Image.fromarray(pixels), low, high)), expected[..., None].repeat(3, -1))


def test_canny_finds_the_edges_of_a_square():
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[5:15, 5:15] = 255
    found = np.asarray(canny(pixels))[..., 0] > 0
    rows, columns = np.nonzero(found)
    assert {rows.min(), columns.min()} <= {4, 5} and {rows.max(), columns.max()} <= {14, 15} and not found[8:12, 8:12].any()
    assert not np.asarray(canny(np.full((9, 9, 3), 80, np.uint8))).any()


def test_canny_refuses():
    for low, high in ((200, 100), (-1, 5)):
        with pytest.raises(InputError, match="canny's low"):
            canny(picture(), low, high)
