"""img2img and inpaint: against diffusers, and what a person may hand to them."""
import golden_cases
import golden_checks
import numpy as np
import pytest
from golden_checks import Golden
from PIL import Image

import minisd
from minisd.cli import main as cli
from minisd.errors import CheckpointError, InputError
from minisd.image import pixels as image

QUICK = dict(num_inference_steps=2, seed=1, output="array")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("name", list(golden_cases.TASKS))
def test_task(name, folders):
    error = golden_checks.compare_task(name, Golden("tasks"), folders)
    assert error <= golden_checks.BOUND, f"{error:.1e}"


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """A model whose unet reads a mask."""
    return minisd.load(golden_checks.write_pipeline(tmp_path_factory.mktemp("nine") / "sd1", "sd1", channels=9))


def noisy(width, height, mode="RGB"):
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


# ---- pictures of any kind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"])
def test_every_mode_is_read(mode):
    base = noisy(9, 7, "L") if mode in ("LA", "I", "F") else noisy(9, 7)
    found = image.read(base.convert(mode))
    assert found.mode == "RGB" and found.size == (9, 7)


def test_transparency_is_white():
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    picture.putpixel((0, 0), (255, 0, 0, 255))
    found = np.asarray(image.read(picture))
    assert found[0, 0].tolist() == [255, 0, 0] and found[3, 3].tolist() == [255, 255, 255]
    palette = noisy(4, 4).convert("P")
    palette.info["transparency"] = palette.getpixel((2, 2))
    assert np.asarray(image.read(palette))[2, 2].tolist() == [255, 255, 255]


def test_sixteen_bits_are_brought_to_eight():
    grey = Image.fromarray(np.array([[0, 257 * 100], [65535, 257]], np.uint16))
    assert np.asarray(image.read(grey))[..., 0].tolist() == [[0, 100], [255, 1]]


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    picture, exif = noisy(30, 20), Image.Exif()
    exif[0x0112] = 6                                         # turn by 90 degrees to the right
    picture.save(tmp_path / "photo.png", exif=exif)
    found = image.read(tmp_path / "photo.png")
    assert found.size == (20, 30)
    np.testing.assert_array_equal(np.asarray(found), np.rot90(np.asarray(picture), -1))


def test_arrays_and_files_are_pictures(tmp_path):
    picture = noisy(12, 10)
    picture.save(tmp_path / "a.png")
    array = np.asarray(picture)
    for given in (str(tmp_path / "a.png"), tmp_path / "a.png", array, array / 255, array.astype(np.float32) / 255):
        np.testing.assert_array_equal(np.asarray(image.read(given)), array)


@pytest.mark.parametrize("what, message", [
    ("missing.png", "No such file"), ("broken.png", "no picture that Pillow can read"), (np.zeros((4, 4)), r"shape \(4, 4\)"),
    (np.zeros((4, 4, 3), int), "int64"), (5, "is a int"), (None, "NoneType")])
def test_what_is_no_picture(what, message, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(InputError, match=message):
        image.read(tmp_path / what if isinstance(what, str) else what)


# ---- tasks ---------------------------------------------------------------------------------------------------------


def test_a_picture_of_any_size_is_cut_to_whole_latents(sd1):
    assert sd1.img2img("a fox", noisy(75, 93), strength=0.5, **QUICK).shape == (1, 88, 72, 3)
    assert sd1.img2img("a fox", noisy(5, 5), strength=0.5, **QUICK).shape == (1, 8, 8, 3)
    assert sd1.img2img("a fox", noisy(75, 93), strength=0.5, width=64, height=32, **QUICK).shape == (1, 32, 64, 3)
    with pytest.raises(InputError, match="multiple of 8"):
        sd1.img2img("a fox", noisy(75, 93), width=70, **QUICK)


def test_resizing_is_diffusers():
    """By Lanczos' filter, to the very size; a mask is cut at a half afterwards."""
    picture, mask = noisy(75, 93), noisy(75, 93, "L")
    expected = np.asarray(picture.resize((64, 80), Image.Resampling.LANCZOS), np.float32)[None] / 255
    np.testing.assert_array_equal(image.pixels(picture, 64, 80), expected)
    np.testing.assert_array_equal(image.pixels(picture, 75, 93)[0], np.asarray(picture, np.float32) / 255)
    grey = np.asarray(mask.resize((64, 80), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(image.mask_pixels(mask, 64, 80)[0, ..., 0], grey >= 128)


def test_strength_is_the_part_of_the_steps_that_is_walked(sd1):
    for strength, walked in ((1.0, 10), (0.5, 5), (0.19, 1)):
        count = []
        sd1.img2img("a fox", noisy(64, 64), strength, num_inference_steps=10, seed=1, sampler="euler", output="latent",
                    progress=lambda step: count.append((step.i, step.total)))                 # noqa: B023
        assert count == [(i, walked) for i in range(walked)]


@pytest.mark.parametrize("strength", [0, -0.1, 1.1, float("nan"), "1", True, None, 0.1])
def test_a_strength_that_cannot_be(sd1, strength):
    with pytest.raises(InputError, match="strength"):
        sd1.img2img("a fox", noisy(64, 64), strength=strength, num_inference_steps=5)


def test_pndm_with_runge_kutta_does_not_begin_in_the_middle(sd1, monkeypatch):
    monkeypatch.setitem(sd1.model.scheduler, "skip_prk_steps", False)
    with pytest.raises(InputError, match="cannot start in the middle"):
        sd1.img2img("a fox", noisy(64, 64), strength=0.5, num_inference_steps=10)


def test_each_picture_from_its_own_seed(sd1):
    """A list of seeds gives what each gives alone: the encoder's sample and the noise come from the same generator."""
    how = dict(strength=0.6, num_inference_steps=3, output="latent", sampler="euler_a")
    both = sd1.img2img(["a fox", "a fox"], noisy(64, 64), seed=[3, 4], **how)
    for k, seed in enumerate((3, 4)):
        np.testing.assert_allclose(both[k], sd1.img2img("a fox", noisy(64, 64), seed=[seed], **how)[0], atol=1e-4)


def test_what_is_not_painted_stays(sd1):
    """In the latent, exactly: black of the mask is the encoded picture."""
    mask = np.zeros((64, 64), np.float32)
    mask[:, :32] = 1
    found = sd1.inpaint("a fox", noisy(64, 64), mask, num_inference_steps=3, seed=1, output="latent")
    pixels = np.asarray(noisy(64, 64), np.float32)[None] / 255
    np.testing.assert_allclose(found[:, :, 4:], golden_checks.encoded(sd1, pixels, 1)[:, :, 4:], atol=1e-5)
    assert np.abs(found[:, :, :4] - golden_checks.encoded(sd1, pixels, 1)[:, :, :4]).max() > 0.01


def test_a_margin_is_painted(sd1, nine):
    for pipe in (sd1, nine):
        found = pipe.inpaint("a fox", noisy(40, 48), pad=(8, 0, 16, 24), **QUICK)
        assert found.shape == (1, 72, 64, 3)
    canvas, mask = image.padded(noisy(40, 48), Image.new("L", (40, 48)), (8, 0, 16, 24))
    assert canvas.size == mask.size == (64, 72)
    inside = np.zeros((72, 64), bool)
    inside[:48, 8:48] = True
    np.testing.assert_array_equal(np.asarray(mask) == 0, inside)
    np.testing.assert_array_equal(np.asarray(canvas)[:48, 8:48], np.asarray(noisy(40, 48)))


@pytest.mark.parametrize("how, message", [(dict(), "nothing is to be painted"),
                                          (dict(mask_image=np.zeros((64, 64))), "nothing is to be painted"),
                                          (dict(pad=(1, 2, 3)), "four whole numbers"), (dict(pad=(0, 0, 0, -1)), "four whole numbers"),
                                          (dict(mask_image="no.png"), "No such file")])
def test_masks_that_cannot_be(sd1, how, message):
    with pytest.raises(InputError, match=message):
        sd1.inpaint("a fox", noisy(64, 64), **how)


def test_the_right_task_for_a_model(nine):
    for task, args in (("txt2img", ()), ("img2img", (noisy(64, 64),))):
        with pytest.raises(CheckpointError, match="conv_in takes 9 channels.*this is an inpainting model; use 'minisd inpaint'"):
            getattr(nine, task)("a fox", *args, **QUICK)


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """A model whose unet reads a picture."""
    return golden_checks.write_pipeline(tmp_path_factory.mktemp("eight") / "sd1", "sd1", channels=8)


def test_pix2pix(eight, sd1, tmp_path):
    pipe = minisd.load(eight)
    for scale in (0.5, "1", True, float("nan"), float("inf")):
        with pytest.raises(InputError, match="image_guidance_scale"):
            pipe.instruct_pix2pix("winter", noisy(64, 64), image_guidance_scale=scale)
    with pytest.raises(CheckpointError, match="conv_in takes 8 channels.*use 'minisd pix2pix'"):
        pipe.txt2img("a fox", **QUICK)
    with pytest.raises(CheckpointError, match="conv_in takes 4 channels, instruct_pix2pix's latents have 8: this is a model for txt2img"):
        sd1.instruct_pix2pix("winter", noisy(64, 64), **QUICK)
    alone = pipe.instruct_pix2pix("winter", noisy(64, 64), guidance_scale=1, **QUICK)        # no guidance at all
    assert alone.shape == (1, 64, 64, 3) and not np.array_equal(alone, pipe.instruct_pix2pix("winter", noisy(64, 64), **QUICK))
    noisy(70, 64).save(tmp_path / "in.png")
    assert cli.main(["pix2pix", str(tmp_path / "in.png"), "winter", "-m", str(eight), "--steps", "2", "--quiet", "--image-guidance", "2",
                     "-o", str(tmp_path / "out.png")]) == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (64, 64) and "Image CFG scale: 2.0" in picture.info["parameters"]


# ---- the command line ----------------------------------------------------------------------------------------------


def test_commands(sd1_folder, tmp_path, capsys):
    noisy(70, 64).save(tmp_path / "in.png")
    Image.new("L", (20, 20), 255).save(tmp_path / "mask.png")
    common = ["-m", str(sd1_folder), "--steps", "2", "--seed", "5", "--quiet", "-o", str(tmp_path / "out.png")]
    for command, more, size in (("img2img", ["--strength", "0.5"], (64, 64)), ("inpaint", ["--mask", str(tmp_path / "mask.png")], (64, 64)),
                                ("inpaint", ["--pad", "0,8,2,0"], (72, 72)), ("inpaint", ["--pad", "8", "--size", "64x64"], (64, 64))):
        assert cli.main([command, str(tmp_path / "in.png"), "a fox", *more, *common]) == 0
        with Image.open(tmp_path / "out.png") as picture:
            assert picture.size == size and "Denoising strength: " in picture.info["parameters"]
    capsys.readouterr()
    assert cli.main(["img2img", str(tmp_path / "nothing.png"), "a fox", *common]) == 1
    assert "nothing.png: No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["inpaint", str(tmp_path / "in.png"), "a fox", "--pad", "1,2", *common])
