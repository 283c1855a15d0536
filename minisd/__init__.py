"""minisd: Stable Diffusion in NumPy, written to be read.   `minisd.load(folder).txt2img("a prompt")`"""
from .errors import CheckpointError, InputError, MinisdError, NumericalError
from .loading import load
from .networks.nn import trace
from .pipeline import Pipeline, Step

__version__ = "0.1.0"
__all__ = ["CheckpointError", "InputError", "MinisdError", "NumericalError", "Pipeline", "Step", "load", "trace"]
