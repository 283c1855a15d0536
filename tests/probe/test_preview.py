"""Previews: what the picture is to be, after each step."""
import drawn_models
import golden_cases
import golden_checks
import numpy as np
import pytest
from golden_checks import Golden
from PIL import Image

import minisd
from minisd.cli import main as cli
from minisd.errors import InputError
from minisd.networks import taesd
from minisd.networks.vae_config import TinyConfig
from minisd.probe import preview


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """TAESD's folder, for latents of 4 channels, 8 pixels wide each."""
    return drawn_models.write_network(tmp_path_factory.mktemp("tiny") / "taesd", "vae", golden_cases.MODELS["taesd"][1],
                                      Golden("taesd").about["shapes"])


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_colours_of_the_latents_are_those_of_the_picture():
    """At the shipped model's end the preview, averaged over each latent position, is nearly the picture."""
    pipe, seen = minisd.load(), []
    made = preview.Preview(pipe)
    picture = pipe.txt2img("a red apple on a blue background", seed=1, progress=lambda step: seen.append(made.image(step)))
    small = [np.asarray(p.resize((16, 16), Image.Resampling.BOX), float) for p in (picture, seen[-1])]
    assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.97


def test_the_matrix_is_that_of_a_linear_decoder(sd1, monkeypatch):
    """Least squares finds a decoder that is linear, exactly."""
    true = np.random.default_rng(1).uniform(-0.02, 0.02, (5, 3))

    def decode(z):
        pixels = np.concatenate([z, np.full_like(z[..., :1], 20)], axis=-1) @ true
        return pixels.repeat(8, axis=1).repeat(8, axis=2)

    monkeypatch.setattr(sd1.model, "decode", decode)
    found = preview.colours(sd1.model)
    np.testing.assert_allclose(found, np.concatenate([true[:4], 20 * true[4:]]), atol=1e-5)


def test_by_taesd(sd1, tiny):
    steps = []
    made = preview.Preview(sd1, tiny)
    sd1.txt2img(["a fox", "a cat"], num_inference_steps=2, seed=1, width=64, height=48, output="latent", sampler="ddim",
                progress=steps.append)
    p, config = golden_checks.weights_of("taesd"), TinyConfig()
    pixels = (taesd.decode(p, steps[-1].x0, config) / 2 + 0.5).clip(0, 1)
    expected = (np.concatenate(list(pixels), axis=1) * 255).round()
    assert np.abs(np.asarray(made.image(steps[-1])).astype(int) - expected).max() <= 1, "pictures stand beside each other"


def test_another_vae_is_no_taesd(sd1, sd1_folder):
    with pytest.raises(InputError, match="not a TAESD but another vae.*--vae"):
        preview.Preview(sd1, sd1_folder / "vae")


def test_command_line(sd1_folder, tmp_path, capsys, tiny):
    common = ["txt2img", "a fox", "-m", str(sd1_folder), "--steps", "2", "--size", "64x64", "--quiet", "-o", str(tmp_path / "out.png")]
    for more in ([], ["--taesd", str(tiny)]):
        assert cli.main([*common, "--preview", str(tmp_path / "preview.png"), *more]) == 0
        assert read(tmp_path / "preview.png").shape == (64, 64, 3)
    assert cli.main([*common, "--save-steps", str(tmp_path / "steps.gif")]) == 0
    with Image.open(tmp_path / "steps.gif") as animation:
        assert (animation.n_frames, animation.size) == (3, (64, 64)), "pndm calls the unet three times in two steps"
    for more, message in ((["--preview", "none/a.png"], "there is no folder"), (["--preview", "a.bmp"], "end the name in .png"),
                          (["--save-steps", "a.png"], "end the name in .gif"),
                          (["--taesd", str(tiny)], "--taesd does nothing without --preview")):
        assert cli.main([*common, *more]) == 1 and message in capsys.readouterr().err
