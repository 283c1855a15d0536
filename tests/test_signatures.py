"""What a user sees of the package: signatures, help, completion, reprs, warnings at the right line, errors that tell the nearest name."""
import inspect
import warnings
from dataclasses import fields

import numpy as np
import pytest
import write_stubs
from PIL import Image

import minisd
from minisd.errors import InputError, SizeWarning
from minisd.image.grid import Images
from minisd.settings import Settings

SMALL = dict(num_inference_steps=2, seed=1, width=64, height=64)
TASKS = ["txt2img", "txt2img_steps", "img2img", "inpaint", "instruct_pix2pix", "depth2img", "upscale"]


@pytest.mark.parametrize("task", TASKS)
def test_every_setting_is_in_the_signature_and_in_the_help(task):
    method = getattr(minisd.Pipeline, task)
    parameters, text = inspect.signature(method).parameters, inspect.getdoc(method)
    for f in fields(Settings):
        if task == "upscale" and f.name in ("width", "height"):
            assert f.name not in parameters and f"\n    {f.name}:" not in text
        else:
            assert parameters[f.name].default == f.default and f"\n    {f.name}: {f.metadata['meaning']} ({f.default!r})" in text
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, p in parameters.items():
        assert name == "self" or p.annotation is not p.empty and f"{name}" in text


def test_each_setting_has_one_line_of_meaning():
    assert all(0 < len(f.metadata["meaning"]) < 110 and "\n" not in f.metadata["meaning"] for f in fields(Settings))


def test_the_stub_is_up_to_date():
    assert write_stubs.STUB.read_text(encoding="utf-8") == write_stubs.stub(), "python tests/write_stubs.py writes it anew"


@pytest.mark.parametrize("given, meant", [("steps", "num_inference_steps"), ("sigma", "sigmas"), ("cfg", "guidance_scale"),
                                          ("guidance_scal", "guidance_scale"), ("generator", "seed"), ("output_type", "output")])
def test_an_unknown_argument_tells_the_nearest(sd1, given, meant):
    with pytest.raises(InputError, match=f"txt2img takes no '{given}'; did you mean '{meant}'"):
        sd1.txt2img("a fox", **{given: 3})


def test_what_is_like_nothing_and_what_is_missing(sd1):
    with pytest.raises(InputError, match="takes no 'zzzzz'$"):
        sd1.txt2img("a fox", zzzzz=1)
    with pytest.raises(InputError, match="missing a required argument: 'prompt'"):
        sd1.txt2img()
    with pytest.raises(InputError, match="upscale takes no 'width'"):
        sd1.upscale("a fox", np.zeros((8, 8, 3)), width=512)


def test_reprs(sd1):
    assert repr(sd1) == ("<Pipeline 'sd1': a latent diffusion model of its own size, 128x128, sampler pndm, cpu in float32, "
                         "0.022 GB of weights>")
    assert repr(next(sd1.txt2img_steps("a fox", **SMALL))) == "Step(1 of 3, t=501, sigma=1.624, latent 1x8x8x4)"
    assert repr(sd1.unet).startswith("<Weights of a network: conv_in, conv_norm_out, conv_out, down_blocks[4], mid_block,")
    assert repr(sd1.unet.conv_in) == "<Weights conv_in: bias 32, weight 3x3x4x32>"


def test_completion_of_weights(sd1):
    assert {"mid_block", "conv_in", "names", "unread"} <= set(dir(sd1.unet))
    assert "0" not in dir(sd1.unet.down_blocks), "an index is no attribute to complete"


def test_a_list_of_pictures_shows_as_a_contact_sheet(sd1):
    pictures = sd1.txt2img("a fox", **SMALL, num_images=3)
    assert isinstance(pictures, Images) and len(pictures) == 3
    png = pictures._repr_png_()
    assert png.startswith(b"\x89PNG") and Images()._repr_png_() is None


def test_grid():
    cells = [Image.new("RGB", (4, 2), (k, 0, 0)) for k in range(1, 6)]
    sheet = minisd.grid(cells)
    assert sheet.size == (12, 4)
    assert [sheet.getpixel(at)[0] for at in ((0, 0), (4, 0), (8, 0), (0, 2), (4, 2), (8, 2))] == [1, 2, 3, 4, 5, 255]
    assert minisd.grid(cells, columns=1).size == (4, 10) and minisd.grid(cells, columns=9).size == (20, 2)
    assert minisd.grid([np.zeros((4, 6, 3)), cells[0]]).size == (12, 4)
    for wrong, message in (([], "one or more"), ([1], "a picture is a int")):
        with pytest.raises(InputError, match=message):
            minisd.grid(wrong)
    with pytest.raises(InputError, match="columns is 0"):
        minisd.grid(cells, columns=0)


def test_progress(sd1, capsys):
    sd1.txt2img("a fox", **SMALL, output="latent", progress=True)
    assert "3/3" in capsys.readouterr().err
    with pytest.raises(InputError, match="progress is 'yes'"):
        sd1.txt2img("a fox", **SMALL, progress="yes")


def test_samplers():
    assert list(minisd.samplers())[:2] == ["ddim", "euler"] and len(minisd.samplers()) >= 13
    assert all(minisd.samplers().values())


def test_a_warning_points_at_the_callers_line(sd1):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        sd1.txt2img("a fox", **SMALL, guidance_scale=0.5, output="latent")
        list(sd1.txt2img_steps("cat " * 80, **SMALL, prompt_syntax="plain"))
    assert len(seen) == 4 and {w.filename for w in seen} == {__file__}, [str(w.message) for w in seen]


@pytest.mark.parametrize("width, height, warned", [(128, 128, False), (128, 96, False), (192, 160, False), (64, 64, True), (256, 256, True),
                                                   (512, 8, True), (8, 64, True)])
def test_a_size_far_from_the_trained_one_is_warned_of_before_the_work(sd1, width, height, warned):
    """The trained size is 128x128."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        sd1.txt2img_steps("a fox", width=width, height=height)
    assert [w.category for w in seen] == [SizeWarning] * warned
    if width == 256:
        assert "takes 4 times the time and memory of that size, attention 16 times" in str(seen[0].message)


def test_saving_what_is_no_picture(tmp_path):
    with pytest.raises(InputError, match=r"a list; it must be a PIL image.*grid"):
        minisd.save(tmp_path / "a.png", [])
    with pytest.raises(InputError, match=r"end the name in .png or .jpg"):
        minisd.save(tmp_path / "a.tiff", Image.new("RGB", (8, 8)))
