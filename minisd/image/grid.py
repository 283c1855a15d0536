"""Several pictures in one: a contact sheet."""
import io
import math
from collections.abc import Iterable
from typing import Any

from PIL import Image

from ..errors import InputError
from ..settings import is_whole
from .pixels import read


def grid(images: Iterable[Any], columns: int | None = None) -> Image.Image:
    """Several images in one, in rows, each in a cell as large as the largest.

    images: PIL images, or arrays (H,W,3) of floats in [0,1] or of bytes, or files' names, one or more
    columns: how many stand side by side, None for as square a sheet as can be.  Raises InputError for what is no image."""
    if isinstance(images, (str, Image.Image)) or not isinstance(images, Iterable) or getattr(images, "shape", None) == ():
        raise InputError(f"what to lay out is a {type(images).__name__}; it must be several images, a list of them")
    cells = [read(image) for image in images]
    if not cells:
        raise InputError("a grid is made of images, one or more; there is none")
    columns = math.ceil(math.sqrt(len(cells))) if columns is None else columns
    if not is_whole(columns) or columns < 1:
        raise InputError(f"columns is {columns!r}; it must be a whole number, 1 or more")
    width, height = (max(sides) for sides in zip(*(i.size for i in cells)))
    columns = min(columns, len(cells))
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    for k, image in enumerate(cells):
        sheet.paste(image, (k % columns * width, k // columns * height))
    return sheet


class Images(list):
    """A list of PIL images that Jupyter shows as a contact sheet."""

    def _repr_png_(self):
        if not self:
            return None
        memory = io.BytesIO()
        grid(self).save(memory, format="PNG")
        return memory.getvalue()
