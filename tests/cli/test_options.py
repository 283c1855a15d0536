"""What the command line takes, and what it says of what it does not."""
import sys

import pytest

from minisd.cli import main as cli
from minisd.cli import options
from minisd.errors import InputError


@pytest.mark.parametrize("text, size", [("512x768", (512, 768)), (" 8X16 ", (8, 16))])
def test_sizes(text, size):
    assert options.size(text) == size


@pytest.mark.parametrize("text", ["512", "512x", "axb", "-8x8", "8x8x8", ""])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="WIDTHxHEIGHT"):
        options.size(text)


@pytest.mark.parametrize("given, meant", [("--cfg", "--guidance"), ("--sampling-method", "--sampler"), ("--stepz", "--steps"),
                                          ("--guidanc", "--guidance"), ("--negative-prompt", "--negative")])
def test_an_unknown_option_tells_the_nearest(given, meant, capsys):
    with pytest.raises(SystemExit):
        cli.main(["txt2img", "a cat", given, "3"])
    assert f"did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["txt2img", "explain", "img2img", "inpaint", "upscale", "pix2pix", "depth2img", "batch", "inspect",
                                     "record", "compare", "selftest", "completion"])
def test_help(command, capsys):
    """Every argument has a line; none of them ends the program that formats it."""
    with pytest.raises(SystemExit) as done:
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0 and "usage: minisd" in text and "%" not in text


def test_defaults_of_what_is_imported_late():
    """The help says them without importing what they belong to."""
    from minisd.probe import compare, record
    assert (options.PROMPT, options.FACTOR) == (record.PROMPT, compare.FACTOR)


def test_completion(capsys, monkeypatch):
    pytest.importorskip("shtab", reason="pip install '.[completion]' brings shtab, which CI has")
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--guidance-rescale" in script and "complete -o bashdefault -F" in script


def test_completion_without_shtab(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 1
    assert "pip install 'minisd[completion]'" in capsys.readouterr().err
