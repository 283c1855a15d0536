"""Writes minisd/pipeline.pyi: the tasks with every setting in their signatures, for editors and type checkers, which do not run the
decorator that makes them (settings.takes_settings).

    python tests/write_stubs.py          write it
    python tests/write_stubs.py --check  exit with 1 if it is not what would be written"""
import inspect
import sys
import textwrap
from pathlib import Path

from minisd.pipeline import Pipeline

STUB = Path(__file__).parent.parent / "minisd" / "pipeline.pyi"
HEAD = '''# Written by tests/write_stubs.py from pipeline.py and settings.py.
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .checkpoint.weights import Weights
from .denoising import Step
from .model import Model
from .prompt.tokenizer import Tokenizer

Picture = Image.Image | np.ndarray | str | Path
Pictures = Any
Report = bool | Callable[[Step], object] | None

class Pipeline:
    model: Model
    provenance: dict[str, Any]
    unet: Weights
    vae: Weights
    text_encoder: Weights
    tokenizer: Tokenizer
    def __init__(self, model: Model, provenance: dict[str, Any] | None = None) -> None: ...
'''


def typed(annotation):
    """As source text."""
    if isinstance(annotation, str):
        return annotation
    return annotation.__name__ if type(annotation) is type else str(annotation).replace("typing.", "")


def written(parameter):
    if parameter.name == "self":
        return "self"
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    return f"{parameter.name}: {typed(parameter.annotation)}{default}"


def stub():
    lines = [HEAD]
    for name, method in vars(Pipeline).items():
        if not hasattr(method, "__wrapped__"):               # not a task
            continue
        signature, parts, keyword_only = inspect.signature(method), [], False
        for p in signature.parameters.values():
            if p.kind is p.KEYWORD_ONLY and not keyword_only:
                keyword_only = True
                parts.append("*")
            parts.append(written(p))
        lines.append(f"    def {name}(\n        {(chr(44) + chr(10) + '        ').join(parts)},\n"
                     f"    ) -> {typed(signature.return_annotation)}:\n"
                     + textwrap.indent(f'"""{inspect.cleandoc(method.__doc__)}"""', "        ") + "\n")
    return "\n".join(line.rstrip(" ") for line in "\n".join(lines).split("\n"))


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(STUB.read_text(encoding="utf-8") != stub())
    STUB.write_text(stub(), encoding="utf-8")
