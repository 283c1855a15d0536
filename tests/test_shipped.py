"""The model that comes with minisd: it is there, it is small, it draws what it is asked for, as diffusers would."""
import golden_checks
import numpy as np
import pytest
from safetensors.numpy import save_file

import minisd
from minisd.checkpoint.hub import SHIPPED
from minisd.cli import main as cli

SIZE = 128


@pytest.fixture(scope="module")
def pipe():
    return minisd.load()


def colours(pipe, prompt, seed=1):
    """(median of the border, median of the middle) in RGB"""
    a = pipe.txt2img(prompt, seed=seed, output="array")[0]
    middle = np.s_[3 * len(a) // 8:11 * len(a) // 16, 3 * len(a) // 8:5 * len(a) // 8]
    border = np.concatenate([a[:2].reshape(-1, 3), a[-2:].reshape(-1, 3), a[:, :2].reshape(-1, 3), a[:, -2:].reshape(-1, 3)])
    return np.median(border, 0), np.median(a[middle].reshape(-1, 3), 0)


def test_pictures_are_diffusers_own():
    assert golden_checks.compare_shipped(golden_checks.Golden("shipped")) <= 1


def test_a_red_apple_on_a_blue_background(pipe):
    border, middle = colours(pipe, "a red apple on a blue background")
    assert border.argmax() == 2 and border[2] > 1.6 * border[0], "the border is blue"
    assert middle.argmax() == 0 and middle[0] > 1.5 * middle[2], "the middle is red"


@pytest.mark.parametrize("name, rgb", [("yellow", (252, 214, 50)), ("black", (12, 12, 14)), ("purple", (136, 62, 200))])
def test_backgrounds(pipe, name, rgb):
    border, _ = colours(pipe, f"a dog on a {name} background")
    assert np.abs(border * 255 - rgb).max() < 40


def test_size_and_notices():
    files = [f for f in SHIPPED.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 25e6
    notice = (SHIPPED / "NOTICE").read_text()
    assert all(name in notice for name in ("Microsoft", "Google", "emojibase", "Permission is hereby granted", "Apache"))


def test_unknown_words_are_said(pipe):
    with pytest.warns(UserWarning, match="does not know 'wizard', 'riding'; `minisd inspect` lists the words"):
        pipe.txt2img("a wizard riding a horse", num_inference_steps=1, seed=0, output="latent")
    pipe.txt2img("a horse, cartoon style on a light blue background", num_inference_steps=1, seed=0, output="latent")


def test_a_word_that_was_taught_is_known(tmp_path):
    save_file({"cat-toy": np.zeros((2, 160), np.float32)}, tmp_path / "toy.safetensors")
    taught = minisd.load(textual_inversion=tmp_path / "toy.safetensors")
    taught.txt2img("a cat-toy", num_inference_steps=1, seed=0, output="latent")
    with pytest.warns(UserWarning, match="does not know 'toys';"):
        taught.txt2img("cat-toys", num_inference_steps=1, seed=0, output="latent")


def test_inspect_lists_its_words(capsys):
    assert cli.main(["inspect"]) == 0
    out = capsys.readouterr().out
    assert all(word in out.split() for word in SHIPPED.joinpath("words.txt").read_text().split())


def test_without_a_model_the_command_line_draws_with_it(tmp_path, capsys):
    assert cli.main(["txt2img", "a red apple on a blue background", "-o", str(tmp_path / "apple.png"), "--seed", "1", "--quiet"]) == 0
    assert f"{SIZE}x{SIZE}, seed 1" in capsys.readouterr().out
