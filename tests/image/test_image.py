"""What a picture says of how it was made."""
from minisd.image import metadata


def test_parameters_text_quotes_what_would_be_misread():
    text = metadata.parameters_text("a\nb", "", {"Steps": 3, "Model": 'x, "y": z', "Eta": None})
    assert text == 'a\nb\nSteps: 3, Model: "x, \\"y\\": z"'
