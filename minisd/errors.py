"""What can go wrong because of what was passed in.  A message says what was found, what was expected, what to do."""


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
