"""What can go wrong because of what was passed in.  A message says what was found, what was expected, what to do."""
import os
import sys
import warnings
from pathlib import Path

PACKAGE = f"{Path(__file__).parent}{os.sep}"


class MinisdError(Exception):
    """The base of them all; the command line prints it and exits with 1."""


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
    warnings.warn(message, category, stacklevel=level)


def listed(names, most=5):
    """The first few of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
