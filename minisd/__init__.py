"""minisd: Stable Diffusion in NumPy, written to be read.   `minisd.load(folder).txt2img("a prompt")`

What a program imports is here; everything below is how it works, and may change.  first.py is where to start reading."""
from .denoising import Step
from .diffusion.samplers import SAMPLERS
from .errors import CheckpointError, InputError, MinisdError, NumericalError
from .image.canny import canny
from .image.grid import grid
from .image.saving import save
from .loading import load
from .networks.nn import trace
from .pipeline import Pipeline

__version__ = "0.1.0"
__all__ = ["CheckpointError", "InputError", "MinisdError", "NumericalError", "Pipeline", "Step", "canny", "grid", "load", "samplers",
           "save", "trace"]


def samplers() -> dict[str, str]:
    """{name: what it is}, of every sampler that `sampler=` takes."""
    return {name: registered.help for name, registered in SAMPLERS.items()}
