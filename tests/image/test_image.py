import pytest

from minisd.errors import InputError
from minisd.image import metadata
from minisd.image import pixels as image


def test_parameters_text_quotes_what_would_be_misread():
    text = metadata.parameters_text("a\nb", "", {"Steps": 3, "Model": 'x, "y": z', "Eta": None})
    assert text == 'a\nb\nSteps: 3, Model: "x, \\"y\\": z"'


@pytest.mark.parametrize("text, size", [("512x768", (512, 768)), (" 8X16 ", (8, 16))])
def test_sizes(text, size):
    assert image.parse_size(text) == size


@pytest.mark.parametrize("text", ["512", "512x", "axb", "-8x8", "8x8x8", ""])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="WIDTHxHEIGHT"):
        image.parse_size(text)


def test_every_sampler_has_a_name_that_viewers_know():
    from minisd.diffusion.samplers import SAMPLERS
    assert set(metadata.A1111_NAMES) == set(SAMPLERS)
