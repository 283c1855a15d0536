"""minisd: Stable Diffusion in NumPy, written to be read.   `minisd.load(folder).txt2img("a prompt")`

What a program imports is here; everything below is how it works, and may change.  first.py is where to start reading."""
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:                                            # what each name is; imported when it is first used, below
    from .denoising import Step as Step
    from .diffusion.samplers import samplers as samplers
    from .errors import CheckpointError as CheckpointError
    from .errors import InputError as InputError
    from .errors import MinisdError as MinisdError
    from .errors import NumericalError as NumericalError
    from .image.canny import canny as canny
    from .image.grid import grid as grid
    from .image.saving import save as save
    from .loading import load as load
    from .networks.nn import trace as trace
    from .pipeline import Pipeline as Pipeline
    from .probe.compare import compare as compare
    from .probe.explain import explain as explain
    from .probe.record import record as record

__version__ = "0.1.0"
HOME = {"CheckpointError": "errors", "InputError": "errors", "MinisdError": "errors", "NumericalError": "errors", "Pipeline": "pipeline",
        "Step": "denoising", "canny": "image.canny", "compare": "probe.compare", "explain": "probe.explain", "grid": "image.grid",
        "load": "loading", "record": "probe.record", "samplers": "diffusion.samplers", "save": "image.saving", "trace": "networks.nn"}
__all__ = list(HOME)


def __getattr__(name):
    if name not in HOME:
        raise AttributeError(f"module 'minisd' has no attribute {name!r}")
    found = getattr(import_module(f".{HOME[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__():
    return sorted({*globals(), *__all__})
