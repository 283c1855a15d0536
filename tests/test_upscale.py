"""The x4 upscaler, and large pictures in pieces."""
import golden_checks
import numpy as np
import pytest
from PIL import Image

import minisd
from minisd.errors import CheckpointError, InputError
from minisd.image import tiles

QUICK = dict(num_inference_steps=2, seed=1)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return minisd.load(golden_checks.write_family(tmp_path_factory.mktemp("upscaler") / "x4", "upscaler", channels=7))


def test_four_times_as_large(pipe):
    picture = pipe.upscale("a fox", Image.new("L", (21, 13), 90), **QUICK)
    assert picture.size == (84, 52) and "Noise level: 20" in picture.info["parameters"] and "Size: 84x52" in picture.info["parameters"]


def test_the_noise_level_matters(pipe):
    found = [pipe.upscale("a fox", golden_checks.a_picture()[0], noise_level=n, output="latent", **QUICK) for n in (0, 20, 350)]
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(found, found[1:]))


def test_a_small_picture_is_not_cut_up(pipe):
    image = golden_checks.a_picture()[0]
    found = [pipe.upscale("a fox", image, output="array", tile=tile, **QUICK) for tile in (72, 256)]
    np.testing.assert_array_equal(*found)


def test_a_large_picture_in_pieces(pipe, monkeypatch):
    """Every piece is as large as asked for, and together they are near what one would be."""
    sizes, call = set(), pipe.model.predict_noise
    monkeypatch.setattr(pipe.model, "predict_noise", lambda x, *a, **given: sizes.add(x.shape[1:3]) or call(x, *a, **given))
    image = golden_checks.a_picture()[0]
    found = pipe.upscale("a fox", image, output="array", tile=32, **QUICK)
    assert sizes == {(32, 32)} and found.shape == (1, 4 * 56, 4 * 72, 3)
    whole = pipe.upscale("a fox", image, output="array", **QUICK)
    assert 0 < np.abs(found - whole).mean() < 0.1


@pytest.mark.parametrize("how, message", [(dict(noise_level=351), "0 to 350"), (dict(noise_level=-1), "0 to 350"),
                                          (dict(noise_level=1.5), "whole number"),
                                          (dict(tile=8), "16 or more"), (dict(tile=None), "tile is None")])
def test_what_cannot_be(pipe, how, message):
    with pytest.raises(InputError, match=message):
        pipe.upscale("a fox", golden_checks.a_picture()[0], **how)


def test_pieces_and_a_controlnet(pipe, monkeypatch):
    """A ControlNet's image is of the whole picture; it was passed over for pieces, without a word."""
    monkeypatch.setattr(pipe.model, "controlnets", [golden_checks.weights_of("controlnet_sd1")])
    image = golden_checks.a_picture()[0]
    with pytest.raises(InputError, match="a ControlNet is for pictures that are made whole; this one is made in pieces, .* tile=32"):
        pipe.upscale("a fox", image, tile=32, control_image=image, **QUICK)


def test_models_for_other_tasks(pipe, sd1, tmp_path):
    with pytest.raises(CheckpointError, match="conv_in takes 4 channels, upscale's latents have 7"):
        sd1.upscale("a fox", golden_checks.a_picture()[0])
    with pytest.raises(CheckpointError, match="this is an upscaler; use 'minisd upscale'"):
        pipe.txt2img("a fox", num_inference_steps=1, width=32, height=32)
    folder = golden_checks.write_family(tmp_path / "x4", "upscaler", channels=7)
    (folder / "low_res_scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(CheckpointError, match="no low_res_scheduler"):
        minisd.load(folder).upscale("a fox", golden_checks.a_picture()[0])


# ---- pieces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, side, overlap", [(100, 32, 8), (33, 32, 4), (32, 32, 4), (5, 32, 4), (1000, 64, 16), (57, 16, 2)])
def test_pieces_cover_and_overlap(size, side, overlap):
    starts = tiles.windows(size, side, overlap)
    assert starts[0] == 0 and starts[-1] + min(side, size) == size
    assert all(a + side - b >= overlap for a, b in zip(starts, starts[1:]))


@pytest.mark.parametrize("factor", [1, 4])
def test_what_is_done_pixel_by_pixel_is_the_same_in_pieces(factor):
    """Weights add up to one: a function of each position alone comes out whole."""
    x = np.random.default_rng(0).standard_normal((2, 37, 50, 3))

    def run(piece):
        return np.sin(piece).repeat(factor, axis=1).repeat(factor, axis=2)

    expected = np.sin(x).repeat(factor, axis=1).repeat(factor, axis=2)
    np.testing.assert_allclose(tiles.tiled(run, x, 16, 4, factor), expected, atol=1e-12)


def test_a_piece_fades_where_it_overlaps():
    """Two pieces of 6 that share 2 of 10 positions, one all 0 and one all 1: from one to the other in even steps."""
    x = np.broadcast_to(np.arange(10.0)[:, None], (1, 6, 10, 1))
    found = tiles.tiled(lambda piece: np.full((1, 6, 6, 1), float(piece[0, 0, 0, 0] > 0)), x, 6, 2)
    np.testing.assert_allclose(found[0, 0, :, 0], [0, 0, 0, 0, 0.25, 0.75, 1, 1, 1, 1])


def test_decoding_in_pieces(sd1):
    z = np.random.default_rng(0).standard_normal((1, 12, 20, 4)).astype(np.float32)
    whole, pieces = sd1.model.decode(z), sd1.model.decode(z, tile=8)
    assert pieces.shape == whole.shape and 0 < np.abs(pieces - whole).mean() < 0.2
    np.testing.assert_array_equal(sd1.model.decode(z, tile=20), whole)
