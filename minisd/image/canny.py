"""Edges of an image, for a ControlNet that was trained on them.   Canny 1986, with OpenCV's choices, as in that training."""
import numpy as np
from PIL import Image

from ..errors import InputError
from ..settings import is_number
from . import pixels as images

TAN_22 = 13573                                               # tan(22.5 degrees), times 2^15


def canny(image, low: float = 100, high: float = 200) -> Image.Image:
    """An image, as img2img takes it -> its edges, white on black, a PIL image.   Canny 1986

    low, high: thresholds of the gradient |dx| + |dy|, 0 .. 2040: an edge extends as far as its gradient is above low, if it is above high
    anywhere.  Raises InputError for other thresholds, or what is no image."""
    if not (is_number(low) and is_number(high) and 0 <= low <= high):
        raise InputError(f"canny's low is {low!r} and high {high!r}; both must be numbers, 0 or more, and low at most high")
    x = np.asarray(images.read(image)).astype(np.int32)
    dx, dy = sobel(x), sobel(x.swapaxes(0, 1)).swapaxes(0, 1)
    steepest = (np.abs(dx) + np.abs(dy)).argmax(-1)[..., None]                       # of the three colours
    dx, dy = (np.take_along_axis(d, steepest, -1)[..., 0].astype(np.int64) for d in (dx, dy))
    slope = np.abs(dx) + np.abs(dy)
    found = ridge(slope, dx, dy) & (slope > low)
    return Image.fromarray((connected(found & (slope > high), found) * 255).astype(np.uint8)).convert("RGB")


def sobel(x):
    """(H,W,C) -> how steeply it rises to the right: differences of neighbours, weighed 1 2 1 over the rows."""
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)), "edge")
    d = x[:, 2:] - x[:, :-2]
    return d[:-2] + 2 * d[1:-1] + d[2:]


def ridge(slope, dx, dy):
    """Where a slope (H,W) is steeper than its neighbours on both sides, along the direction in which it rises, to an eighth of a turn."""
    H, W = slope.shape
    padded = np.pad(slope, 1)

    def neighbour(down, right):
        return padded[1 + down:1 + down + H, 1 + right:1 + right + W]

    x, y = np.abs(dx), np.abs(dy) << 15
    flat, steep, along = y < x * TAN_22, y > x * TAN_22 + (x << 16), (dx ^ dy) < 0                # tan 67.5 = 2 + tan 22.5
    before = np.where(flat, neighbour(0, -1), np.where(steep, neighbour(-1, 0), np.where(along, neighbour(-1, 1), neighbour(-1, -1))))
    after = np.where(flat, neighbour(0, 1), np.where(steep, neighbour(1, 0), np.where(along, neighbour(1, -1), neighbour(1, 1))))
    return (slope > before) & np.where(flat | steep, slope >= after, slope > after)


def connected(seeds, found):
    """Those of `found` (H,W) that hang together with a seed, corners too."""
    while True:
        p = np.pad(seeds, 1)
        rows = p[:, :-2] | p[:, 1:-1] | p[:, 2:]
        grown = found & (rows[:-2] | rows[1:-1] | rows[2:])
        if (grown == seeds).all():
            return seeds
        seeds = grown
