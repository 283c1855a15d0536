"""Pixels: arrays <-> PIL images, masks, depth maps, and the sizes that latents can have."""
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..settings import is_whole

DRAWN = "EPS", "WMF"                                         # kinds of file that Pillow has other programs draw


def to_unit(pixels):
    """The decoder's pixels, about [-1,1] -> float32 in [0,1]."""
    return (pixels / 2 + 0.5).clip(0, 1).astype(np.float32)


def to_pil(array):
    """(B,H,W,3) in [0,1] -> list of B pictures.  Rounds, as diffusers does; others truncate and are one level darker."""
    return [Image.fromarray(a) for a in (array * 255).round().astype(np.uint8)]


def read(picture, behind="white"):
    """A PIL picture of any mode, an array (H,W,3) of floats in [0,1] or of bytes, or a file's name -> a PIL picture in RGB, turned as
    its EXIF data says, on white, or what is to be `behind`, where it is transparent.  Raises InputError for what is no picture."""
    if isinstance(picture, (str, Path)):
        with opened(picture) as found:
            return read(found, behind)
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 and picture.dtype.kind != "f":
            raise InputError(f"a picture is {picture.dtype} of shape {picture.shape}; it must be (H,W,3), floats in [0,1] or bytes")
        if not np.isfinite(picture).all() or picture.size == 0:
            raise InputError("a picture holds NaN or infinity, or nothing at all")
        if picture.dtype != np.uint8 and (picture.min() < -0.01 or picture.max() > 1.01):
            raise InputError(f"its values run from {picture.min():g} to {picture.max():g}; it must be in [0,1]: divide bytes by 255")
        picture = Image.fromarray(picture if picture.dtype == np.uint8 else (picture.clip(0, 1) * 255).round().astype(np.uint8))
    if not isinstance(picture, Image.Image):
        raise InputError(f"a picture is a {type(picture).__name__}; give a PIL picture, an array (H,W,3), or a file's name")
    picture = upright(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = of_bytes(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, behind), picture)
    return picture.convert("RGB")


def upright(picture):
    """Turned as its EXIF data says.  Raises InputError for data that cannot be read."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as e:                                   # Pillow raises what it meets: ValueError, struct.error, KeyError, ...
        raise InputError(f"the picture's EXIF data is damaged ({type(e).__name__}: {e}); save it without") from e


def of_bytes(picture):
    """A picture in grey of whole numbers to 65535, or of floats to 1 or, where any is more, to 255 or 65535 -> of bytes.

    Raises InputError for NaN or infinity."""
    x = np.asarray(picture, np.float64)
    if not np.isfinite(x).all():
        raise InputError("the picture holds NaN or infinity")
    most = 65535 if picture.mode != "F" or x.max() > 255 else 255 if x.max() > 1 else 1
    return Image.fromarray((x.clip(0, most) * (255 / most)).round().astype(np.uint8))


@contextmanager
def opened(path):
    """A picture's file, decoded.  Raises InputError for what cannot be read: a damaged one, one of a kind that only another program can
    draw (EPS, WMF), or one of more pixels than a picture has."""
    with ExitStack() as files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")              # of metadata that is not used; what counts is an error
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                Image.init()
                # as a file, not by its name: of a name, Pillow 13 maps some TIFFs into memory in rows of the turned picture's length
                file = files.enter_context(open(path, "rb"))
                picture = files.enter_context(Image.open(file, formats=[kind for kind in Image.OPEN if kind not in DRAWN]))
                picture.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
            raise InputError(f"{path}: more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller first") from e
        except Exception as e:                               # decoders raise what they meet: OSError, SyntaxError, MemoryError, ...
            raise InputError(f"{path}: {getattr(e, 'strerror', None) or 'no picture that Pillow can read, or a damaged one'}") from e
        try:
            yield picture
        except InputError as e:
            raise InputError(f"{path}: {e}") from e


def read_mask(mask, picture):
    """As read(), in grey and of the picture's size; black for None, and where it is transparent."""
    if mask is None:
        return Image.new("L", picture.size)
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        mask = np.repeat(mask.astype(np.float32 if mask.dtype == bool else mask.dtype)[..., None], 3, axis=-1)
    grey = read(mask, "black").convert("L")
    return grey if grey.size == picture.size else grey.resize(picture.size, Image.Resampling.LANCZOS)


def padded(picture, mask, pad):
    """The picture on a larger grey canvas, and its mask with the new margin white.  pad: (left, top, right, bottom) pixels."""
    if not isinstance(pad, (list, tuple)) or len(pad) != 4 or not all(is_whole(n) and n >= 0 for n in pad):
        raise InputError(f"pad is {pad!r}; it must be four whole numbers of pixels, 0 or more: left, top, right, bottom")
    left, top, right, bottom = pad
    size = picture.width + left + right, picture.height + top + bottom
    canvas, wider = Image.new("RGB", size, (128, 128, 128)), Image.new("L", size, 255)
    canvas.paste(picture, (left, top))
    wider.paste(mask, (left, top))
    return canvas, wider


def pixels(picture, width, height):
    """A PIL picture in RGB -> (1,height,width,3) float32 in [0,1], resized as diffusers does."""
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture, np.float32)[None] / 255


def mask_pixels(mask, width, height):
    """A PIL picture in grey -> (1,height,width,1), 1 where it is to be painted and 0 elsewhere."""
    if mask.size != (width, height):
        mask = mask.resize((width, height), Image.Resampling.LANCZOS)
    return (np.asarray(mask, np.float32)[None, ..., None] >= 127.5).astype(np.float32)


def depth(depth_map, width, height):
    """An array (H,W), larger where nearer, or a picture, white where nearest -> (1,height,width,1) from -1 to 1.

    Raises InputError for anything else, and for a map that is the same everywhere."""
    if not (isinstance(depth_map, np.ndarray) and depth_map.ndim == 2 and depth_map.dtype.kind in "fiu"):
        depth_map = np.asarray(read(depth_map).convert("L"))
    if depth_map.size == 0 or not np.abs(depth_map.astype(np.float64)).max() < np.finfo(np.float32).max:
        raise InputError("depth_map holds NaN or infinity, or nothing; it must be larger where the picture is nearer")
    found = bicubic(bicubic(depth_map.astype(np.float32), height).T, width).T
    low, high = found.min(), found.max()
    if low == high:
        raise InputError("depth_map is the same everywhere; it must be larger where the picture is nearer")
    return (2 * (found - low) / (high - low) - 1)[None, ..., None]


def bicubic(x, size):
    """(n,m) -> (size,m): four neighbours of each place, weighed by a cubic with a = -3/4, as torch resizes; Pillow blurs besides.
    Keys 1981, eq. 4 and 8."""
    if len(x) == size:
        return x
    at = (np.arange(size) + 0.5) * (len(x) / size) - 0.5
    base = np.floor(at).astype(int)
    found, a = 0.0, -0.75
    for k in (-1, 0, 1, 2):
        d = np.abs(at - (base + k))
        near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        found = found + np.where(d <= 1, near, far)[:, None].astype(np.float32) * x[(base + k).clip(0, len(x) - 1)]
    return found


def check_size(width, height, multiple):
    """Raises InputError unless both sides are whole positive multiples of `multiple`, the pixels of a latent position, to a million."""
    for side, value in (("width", width), ("height", height)):
        whole = is_whole(value)
        if whole and value > 1_000_000:
            found = value if value < 10**12 else "a number of many digits"
            raise InputError(f"{side} is {found}; a picture's sides are a million pixels at most")
        if not whole or value < multiple or value % multiple:
            near = max(multiple, (value + multiple // 2 - 1) // multiple * multiple) if whole else 64
            raise InputError(f"{side} is {value!r:.80}; it must be a positive multiple of {multiple}, such as {near}")
