"""The command line's other tasks, each from files to a PNG."""
import golden_checks
import numpy as np
import pytest
from PIL import Image

import minisd
from minisd.cli import main as cli


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("commands")
    picture, mask = golden_checks.a_picture()
    picture.save(place / "in.png")
    mask.save(place / "depth.png")
    return place


@pytest.fixture
def run(place, capsys):
    """run(*arguments) -> (exit code, the picture or None, standard error)"""
    def run(*arguments):
        out = place / "out.png"
        out.unlink(missing_ok=True)
        code = cli.main([*map(str, arguments), "--steps", "2", "--seed", "5", "--quiet", "-o", str(out)])
        picture = None
        if out.exists():
            with Image.open(out) as picture:
                picture.load()
        return code, picture, capsys.readouterr().err
    return run


def test_upscale(run, place, tmp_path):
    model = golden_checks.write_family(tmp_path / "x4", "upscaler", channels=7)
    code, picture, _ = run("upscale", place / "in.png", "a fox", "-m", model, "--noise-level", 30, "--tile", 64)
    expected = minisd.load(model).upscale(["a fox"], place / "in.png", noise_level=30, tile=64, num_inference_steps=2, seed=[5],
                                          guidance_scale=9.0)[0]
    assert code == 0 and picture.size == (288, 224) and np.array_equal(np.asarray(picture), np.asarray(expected))
    assert "CFG scale: 9," in picture.info["parameters"] and "Noise level: 30" in picture.info["parameters"]


def test_depth2img(run, place, tmp_path):
    model = golden_checks.write_family(tmp_path / "depth", "depth", channels=5)
    code, picture, _ = run("depth2img", place / "in.png", "a fox", "-m", model, "--depth", place / "depth.png")
    assert code == 0 and picture.size == (72, 56)
    code, _, err = run("txt2img", "a fox", "-m", model)
    assert code == 1 and "this is a model for depth2img" in err


def test_controlnet(run, place, tmp_path, sd1_folder):
    net = golden_checks.write_controlnet(tmp_path, "controlnet_sd1")
    common = ["txt2img", "a fox", "-m", sd1_folder, "--size", "72x56", "--controlnet", net]
    code, plain, _ = run(*common, "--control", place / "in.png")
    assert code == 0 and "ControlNet: controlnet_sd1" in plain.info["parameters"]
    code, edges, _ = run(*common, "--control", place / "in.png", "--canny", "--control-scale", 3.5, "--control-end", 0.5)
    assert code == 0 and "ControlNet weight: 3.5" in edges.info["parameters"] and "Guidance end: 0.5" in edges.info["parameters"]
    assert not np.array_equal(np.asarray(plain), np.asarray(edges))
    for more, message in (([], "0 control images for 1 ControlNets"), (["--control", "no.png"], "no.png: No such file")):
        code, picture, err = run(*common, *more)
        assert code == 1 and picture is None and message in err
    run(*common, "--control", place / "in.png")
    (place / "out.png").rename(place / "controlled.png")
    code, _, err = run("txt2img", "--from", place / "controlled.png", "-m", sd1_folder)
    assert code == 1 and "made with ControlNet controlnet_sd1; this has none; give the same by --controlnet" in err


def test_the_refiner_ends_what_the_base_began(run, place, tmp_path):
    base, refiner = golden_checks.write_family(tmp_path / "base", "xl"), golden_checks.write_family(tmp_path / "fine", "refiner")
    arguments = ["txt2img", "a castle", "-m", base, "--size", "72x56", "--refiner", refiner, "--refiner-start", 0.6, "--sampler", "ddim"]
    code, picture, _ = run(*arguments)
    how = dict(num_inference_steps=2, seed=[5], sampler="ddim")
    latent = minisd.load(base).txt2img(["a castle"], width=72, height=56, denoising_end=0.6, output="latent", **how)
    expected = minisd.load(refiner).img2img(["a castle"], latent, denoising_start=0.6, **how)[0]
    assert code == 0 and np.array_equal(np.asarray(picture), np.asarray(expected))
    said = picture.info["parameters"]
    assert "Model: base, Refiner: fine" in said and "Denoising start: 0.6" in said
    (place / "out.png").rename(place / "fine.png")
    code, _, err = run("txt2img", "--from", place / "fine.png", "-m", base)
    assert code == 1 and "made with Refiner fine; this has none; give the same by --refiner" in err
    code, again, _ = run("txt2img", "--from", place / "fine.png", "-m", base, "--refiner", refiner)
    assert code == 0 and np.array_equal(np.asarray(again), np.asarray(expected))
    code, _, err = run("upscale", place / "in.png", "a fox", "--refiner", refiner)
    assert code == 1 and "--refiner is for txt2img and img2img alone" in err


def test_from_with_another_model_warns(run, place, sd1_folder, tmp_path):
    other = golden_checks.write_pipeline(tmp_path / "other", "sd1")
    run("txt2img", "a fox", "-m", sd1_folder, "--size", "64x64")
    (place / "out.png").rename(place / "fox.png")
    code, _, err = run("txt2img", "--from", place / "fox.png", "-m", other)
    assert code == 0 and "was made with the model sd1, this is other" in err


def test_a_lora_is_asked_for_again(run, place, sd1_folder, tmp_path):
    lora = golden_checks.lora_file("kohya", tmp_path / "kohya.safetensors")
    run("txt2img", "a fox", "-m", sd1_folder, "--size", "64x64", "--lora", lora)
    (place / "out.png").rename(place / "styled.png")
    code, _, err = run("txt2img", "--from", place / "styled.png", "-m", sd1_folder)
    assert code == 1 and "made with LoRA kohya: 1; this has none; give the same by --lora" in err
    assert run("txt2img", "--from", place / "styled.png", "-m", sd1_folder, "--lora", lora)[0] == 0


def test_pictures_from_pictures_are_not_made_again(run, place, tmp_path):
    model = golden_checks.write_family(tmp_path / "x4", "upscaler", channels=7)
    run("upscale", place / "in.png", "a fox", "-m", model)
    (place / "out.png").rename(place / "large.png")
    code, _, err = run("txt2img", "--from", place / "large.png")
    assert code == 1 and "made from another image" in err
