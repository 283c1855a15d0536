"""Several pictures, lists of prompts, and a picture made again from what it says of itself."""
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import minisd
from minisd.cli import main as cli
from minisd.cli import repeat
from minisd.errors import InputError
from minisd.image.metadata import read_parameters


@pytest.fixture
def run(sd1_folder, tmp_path, capsys):
    def run(*arguments, out="out.png"):
        code = cli.main(["txt2img", *map(str, arguments), "-m", str(sd1_folder), "-o", str(tmp_path / out), "--quiet"])
        return code, *capsys.readouterr()
    return run


QUICK = ["--steps", "2", "--size", "64x64"]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_picture_k_has_the_seed_s_plus_k(run, tmp_path):
    code, out, _ = run("a fox", "-n", 3, "--seed", 7, "--sampler", "euler_a", *QUICK)
    assert code == 0 and [line.rpartition(" ")[2] for line in out.splitlines()] == ["7", "8", "9"]
    run("a fox", "--seed", 9, "--sampler", "euler_a", *QUICK, out="alone.png")
    np.testing.assert_array_equal(pixels(tmp_path / "out-3.png"), pixels(tmp_path / "alone.png"))
    with Image.open(tmp_path / "out-3.png") as picture:
        assert "Seed: 9" in picture.info["parameters"] and "Batch" not in picture.info["parameters"]


def test_a_file_of_prompts(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("a fox\n\n  a cat  \n", encoding="utf-8")
    code, out, _ = run("--prompts", tmp_path / "prompts.txt", "--seed", 1, *QUICK)
    assert code == 0 and len(out.splitlines()) == 2
    with Image.open(tmp_path / "out-2.png") as picture:
        assert picture.info["parameters"].startswith("a cat\n")
    assert run("--from", tmp_path / "out-2.png", out="again.png")[0] == 0
    np.testing.assert_array_equal(pixels(tmp_path / "again.png"), pixels(tmp_path / "out-2.png"))


def test_a_picture_of_several_chunks_among_others(run, tmp_path):
    """Whatever else is made, to the bit."""
    (tmp_path / "prompts.txt").write_text("a fox\n" + "a (red:1.2) cat, " * 30 + "\na dog", encoding="utf-8")
    run("--prompts", tmp_path / "prompts.txt", "--seed", 1, *QUICK)
    for k in (1, 2, 3):
        assert run("--from", tmp_path / f"out-{k}.png", out="again.png")[0] == 0
        np.testing.assert_array_equal(pixels(tmp_path / "again.png"), pixels(tmp_path / f"out-{k}.png"))


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_other_formats_are_made_again_too(run, tmp_path, ending):
    run("a fox", "--seed", 3, *QUICK, out=f"out.{ending}")
    run("a fox", "--seed", 3, *QUICK)
    assert run("--from", tmp_path / f"out.{ending}", out="again.png")[0] == 0
    np.testing.assert_array_equal(pixels(tmp_path / "again.png"), pixels(tmp_path / "out.png"))


def test_a_grid_of_all(run, tmp_path):
    assert run("a fox", "-n", 3, "--seed", 1, "--grid", tmp_path / "sheet.png", *QUICK)[0] == 0
    assert pixels(tmp_path / "sheet.png").shape == (128, 128, 3)
    np.testing.assert_array_equal(pixels(tmp_path / "sheet.png")[64:, :64], pixels(tmp_path / "out-3.png"))
    assert "end the name in .png" in run("a fox", "--grid", tmp_path / "sheet.bmp")[2]


@pytest.mark.parametrize("arguments, message", [
    (["a fox", "--prompts", "x.txt"], "give one of them"), (["--prompts", "missing.txt"], "No such file"),
    (["--from", "missing.png"], "No such file")])
def test_what_cannot_be_drawn(run, arguments, message):
    code, _, err = run(*arguments)
    assert code == 1 and message in err


def test_an_empty_file_of_prompts(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n \n")
    assert "holds no prompt" in run("--prompts", tmp_path / "prompts.txt")[2]
    (tmp_path / "prompts.txt").write_bytes(b"\xff\xfe")
    assert "not text in UTF-8" in run("--prompts", tmp_path / "prompts.txt")[2]


@pytest.mark.parametrize("how", [["--sampler", "dpmpp_2m", "--sigmas", "karras"], ["--sampler", "ddim", "--eta", "0.5", "--clip-skip", "2"],
                                 ["--spacing", "trailing", "--rng", "cuda", "--guidance", "1"]])
def test_a_picture_made_again(run, tmp_path, how):
    prompt = 'a "fox", with: (all:1.2)\nkinds of, signs'
    assert run(prompt, "--seed", 3, *(["--negative", "blur, dark: noise"] if "1" not in how else []), *QUICK, *how)[0] == 0
    assert run("--from", tmp_path / "out.png", out="again.png")[0] == 0
    np.testing.assert_array_equal(pixels(tmp_path / "again.png"), pixels(tmp_path / "out.png"))
    assert read_parameters(tmp_path / "again.png") == read_parameters(tmp_path / "out.png")
    assert read_parameters(tmp_path / "out.png")[0] == prompt


@pytest.mark.parametrize("prompt, negative", [
    ("a fox\nNegative prompt: a cat", "red"), ("a fox\nSteps: 5, Sampler: Euler, Seed: 1, Size: 512x512", None),
    ("  a fox \n\n", "\n red\n"),
    ("a fox\nSteps: 2", "Steps: 3, Sampler: DDIM"), ('"', "'"),
    ("日本 \u0007 [a|b:2]", "\\"), ("Negative prompt: ", None)])
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_prompts_like_the_settings_text_are_made_again(sd1, tmp_path, prompt, negative, ending):
    picture = sd1.txt2img(prompt, negative, seed=2**63 + 5, num_inference_steps=1, width=16, height=16)
    minisd.save(tmp_path / f"a.{ending}", picture)
    found, _ = repeat.options(tmp_path / f"a.{ending}")
    assert (found["prompt"], found["negative"], found["seed"]) == (prompt, negative, 2**63 + 5)


def test_what_is_given_goes_before(run, tmp_path):
    run("a fox", "--seed", 3, "--sampler", "euler", *QUICK)
    run("a cat", "--from", tmp_path / "out.png", "--seed", 4, "--steps", 1, out="again.png")
    prompt, _, stored = read_parameters(tmp_path / "again.png")
    assert (prompt, stored["Seed"], stored["Steps"], stored["Sampler"], stored["Size"]) == ("a cat", "4", "1", "Euler", "64x64")


def saying(path, text):
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info if text else None)
    return path


def test_the_web_uis_own_text(tmp_path):
    text = ("masterpiece, (fox:1.2)\nNegative prompt: bad hands, \nblurry\nSteps: 25, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 12, "
            'Size: 512x768, Model hash: 6ce0161689, Model: v1-5, Clip skip: 2, Lora hashes: "a: 1, b: 2", Version: v1.6.0')
    found, _ = repeat.options(saying(tmp_path / "a.png", text))
    assert found == dict(prompt="masterpiece, (fox:1.2)", negative="bad hands, \nblurry", sampler="dpmpp_2m", sigmas="karras", steps=25,
                         guidance=6.5, seed=12, size="512x768", clip_skip=2)
    assert read_parameters(tmp_path / "a.png")[2]["Lora hashes"] == "a: 1, b: 2"


@pytest.mark.parametrize("text, message", [
    ("", "does not say how it was made"), ("a fox", "does not say how it was made"),
    ("a\nSteps: 2, Denoising strength: 0.5", "made from another image"), ("a\nSteps: 2, Batch pos: 1", "shared a generator"),
    ("a\nSteps: 2, Sampler: Restart", "'Restart', which minisd does not have"), ("a\nSteps: many", "Steps is 'many'")])
def test_pictures_that_cannot_be_made_again(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        repeat.options(saying(tmp_path / "a.png", text))
