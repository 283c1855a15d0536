"""Every layer against the reference's activations."""
import golden_cases
import golden_checks
import numpy as np
import pytest
from golden_checks import Golden

import minisd
from minisd.backend import convolution
from minisd.image import pixels as image
from minisd.networks.unet_config import UNetConfig


def test_every_layer(model):
    for case, errors in golden_checks.compare_model(model).items():
        off = golden_checks.first_off(errors)
        assert off is None, f"{model}, {case}: the first layer that is off is {off[0]}, by {off[1]:.1e} of its largest value"


def test_untraced_output_is_the_same(model):
    """A trace takes fused operations apart; without one the output must not differ."""
    p, expected = golden_checks.weights_of(model), Golden(model)
    for case in golden_checks.model_inputs(model):
        y, seen = golden_checks.run_model(model, case, p, trace=False)
        assert not seen
        assert golden_checks.relative(y, golden_checks.channels_last(expected[f"{case}.output"])) <= golden_checks.BOUND


def test_untraced_output_with_winograd_everywhere(model, monkeypatch):
    """The goldens' pictures are small, and by themselves would leave most convolutions to the other way."""
    monkeypatch.setattr(convolution, "TILES", 1)
    test_untraced_output_is_the_same(model)


def test_no_weight_is_ignored(model):
    p = golden_checks.weights_of(model)
    for case in golden_checks.model_inputs(model):
        golden_checks.run_model(model, case, p)
    assert p.unread() == []


def test_in_float64_the_error_is_the_references_own():
    """The definitions hold no constant or cast that is less exact than float32."""
    p = golden_checks.weights_of("unet_sd1", "float64")
    x, t, context, _ = golden_checks.model_inputs("unet_sd1")["wide"]
    from minisd.networks.unet import unet
    y = unet(p, golden_checks.channels_last(x).astype(float), t, context.astype(float), UNetConfig.read(golden_cases.MODELS["unet_sd1"][1]))
    assert y.dtype == np.float64
    assert golden_checks.relative(y, golden_checks.channels_last(Golden("unet_sd1")["wide.output"])) <= golden_checks.BOUND


@pytest.mark.parametrize("case", list(golden_cases.sampler_cases()))
def test_sampler(case):
    error = golden_checks.compare_sampler(case, Golden("samplers"))
    assert error <= golden_checks.BOUND, f"{case}: {error:.1e}"


def test_noise():
    assert golden_checks.compare_noise(Golden("noise")) <= 1e-6


@pytest.mark.parametrize("name", list(golden_cases.PIPELINES))
@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_pipeline(name, prefix, tmp_path):
    """From a folder on disk to PIL pictures; the text encoder's names in both spellings."""
    expected, how = Golden("pipelines"), golden_checks.one_generator(golden_cases.PIPELINES[name][3])
    pipe = minisd.load(golden_checks.write_pipeline(tmp_path / name, name, prefix))
    assert golden_checks.relative(pipe.txt2img(**how, output="latent"),
                                  golden_checks.channels_last(expected[f"{name}.latent"])) <= golden_checks.BOUND
    pictures = pipe.txt2img(**how)
    pictures = pictures if isinstance(pictures, list) else [pictures]
    found = np.array([np.asarray(picture) for picture in pictures]).astype(int)
    off = np.abs(found - expected[f"{name}.pixels"])
    assert off.max() <= 1 and (off > 0).mean() < 1e-3, "pixels must be rounded as the reference rounds them"


def test_encoder_samples_with_the_same_stream(sd1):
    """An encoded picture, drawn from the encoder's distribution with a seed."""
    pixels = golden_checks.channels_last(golden_checks.model_inputs("vae")["encode wide"]) / 2 + 0.5
    expected = golden_checks.channels_last(Golden("pipelines")["sd1.encoded"])
    assert golden_checks.relative(golden_checks.encoded(sd1, pixels, 42), expected) <= golden_checks.BOUND


def test_goldens_say_which_versions_made_them(model):
    assert set(Golden(model).about["versions"]) == {"torch", "diffusers", "transformers", "numpy"}


def test_rounding_not_truncation():
    levels = np.arange(256)
    picture = image.to_pil((levels / 255 + 0.4 / 255).clip(0, 1).reshape(1, 16, 16, 1).repeat(3, -1))[0]
    assert np.asarray(picture)[..., 0].reshape(-1).tolist() == levels.tolist()
    picture = image.to_pil(np.full((1, 8, 8, 3), 0.6 / 255))[0]
    assert np.asarray(picture).max() == 1
