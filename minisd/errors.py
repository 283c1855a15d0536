"""What can go wrong because of what was passed in.  A message says what was found, what was expected, what to do."""
import os
import sys
import unicodedata
import warnings
from pathlib import Path

PACKAGE = f"{Path(__file__).parent}{os.sep}"


def printable(text):
    """A text that does nothing to a terminal: control characters, and those that turn the direction of writing, as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\u3000\xa0" or c in JOINERS or unicodedata.category(c) not in SHOWN else ascii(c)[1:-1]
                   for c in text)


JOINERS, SHOWN = "\u200c\u200d", ("Cc", "Cf", "Cs", "Zl", "Zp")            # within words and emoji; categories of characters that act
LONGEST = 2000


def brief(text):
    """A message of a length that is read: the middle of a longer one left out."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST // 2]} [...] {text[-LONGEST // 2:]}"


class MinisdError(Exception):
    """The base of them all; the command line prints it and exits with 1.  Its message may quote a prompt or a file: see printable()."""

    def __init__(self, message=""):
        super().__init__(brief(printable(str(message))))


class InputError(MinisdError, ValueError):
    """An argument that cannot be served: a size, a step count, a sampler's name."""


class CheckpointError(MinisdError):
    """A model that is damaged, incomplete, of an unknown kind, or unlike its own config.json."""


class MissingWeight(CheckpointError, AttributeError):
    """A layer asked for a weight that the checkpoint does not hold."""


class NumericalError(MinisdError, ArithmeticError):
    """NaN or infinity in a latent: the picture would be wrong."""


class SizeWarning(UserWarning):
    """A picture is far smaller or larger than those that the model was trained on."""


def warn(message, category=UserWarning):
    """A warning at the line of the caller's program that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(brief(printable(message)), category, stacklevel=level)


def listed(names, most=5):
    """The first few of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
