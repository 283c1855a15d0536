"""Writing pictures: PNG, JPEG or WebP, with the settings that made them, whole or not at all."""
import errno
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError, warn

MOST_EXIF = 65_000                                           # bytes that a JPEG takes
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
PICTURES = tuple(FORMATS)
OPTIONS: dict[str, dict] = {"PNG": {}, "JPEG": dict(quality=95, subsampling=0), "WEBP": dict(quality=95)}


def save(path: str | Path, image: Image.Image, parameters: str | None = None) -> None:
    """Write a PIL image, with its settings: in a PNG as AUTOMATIC1111's `parameters`, in a JPEG or WebP as the EXIF user comment; and once
    more as JSON, in a chunk `minisd` or the EXIF description, which `--from` reads first.

    path: ends in .png, .jpg, .jpeg or .webp, which decides the format
    parameters: the text of its settings; None is what is in its .info, as a Pipeline's pictures have it, with the JSON
    It is written to a temporary file in the same folder, then renamed, so that no half-written file is ever there.
    Raises InputError for another ending, if the folder is absent or cannot be written, or the disk is full."""
    if not isinstance(image, Image.Image):
        raise InputError(f"what to save is a {type(image).__name__}; it must be a PIL image.  For several, save minisd.grid(images)")
    check_place(path)
    path = Path(path)
    kind = FORMATS[path.suffix.lower()]
    own = image.info.get("minisd") if parameters is None else None
    parameters = image.info.get("parameters") if parameters is None else parameters
    for name, text in (("parameters", parameters), ("minisd", own)):
        if not isinstance(text, (str, type(None))):
            raise InputError(f"{name} are a {type(text).__name__}; they must be a text")
    options = dict(OPTIONS[kind])
    if parameters is not None and kind == "PNG":
        options["pnginfo"] = png_info(parameters, own)
    elif parameters is not None:
        options["exif"] = next((e for e in (exif(parameters, own), exif(parameters)) if len(e) < MOST_EXIF), b"")
        if not options["exif"]:
            warn(f"{path}: the settings are longer than its format takes, and left out; a PNG takes any")
    write(path, lambda file: image.save(file, format=kind, **options))


def png_info(parameters, own=None):
    """A PNG's chunks of the settings' text and its JSON."""
    found = PngInfo()
    found.add_text("parameters", storable(parameters))       # Pillow: tEXt for Latin-1, iTXt for anything else
    if own is not None:
        found.add_text("minisd", own)
    return found


def storable(text):
    """Text that a file can hold: a model's folder may have a name that is no UTF-8, whose bytes become "?"."""
    return text.encode("utf-8", "replace").decode()


def exif(parameters, own=None):
    """EXIF data of the settings' text and its JSON, bytes."""
    found = Image.Exif()
    found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + storable(parameters).encode("utf-16-be")
    if own is not None:
        found[ExifTags.Base.ImageDescription] = own
    return found.tobytes()


def save_animation(path, images, seconds):
    """Write PIL images of one size as a GIF that repeats, each shown for so many seconds.  Raises what save() does."""
    check_place(path, (".gif",))
    first, *rest = [image.convert("P", palette=Image.Palette.ADAPTIVE) for image in images]
    options = dict(save_all=True, append_images=rest, duration=round(1000 * seconds), loop=0)
    write(Path(path), lambda file: first.save(file, format="GIF", **options))


def write(path, save):
    """save(file) into a temporary file in the same folder, then renamed to `path`, or where that is a link, to what it leads to.

    A temporary file is left where a process is killed outright; those of an hour ago are removed by the next that writes there."""
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".minisd-{secrets.token_hex(6)}.part")
    try:
        for old in path.parent.glob(".minisd-*.part"):
            with suppress(OSError):                          # another process may be quicker, or it is another user's
                if time.time() - old.stat().st_mtime > 3600:
                    old.unlink()
        with open(temporary, "xb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as e:
        full = e.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        raise InputError(f"{path}: {'the disk is full' if full else e.strerror or e}; nothing was written") from e
    except ValueError as e:                                  # Pillow's, of sizes that a format cannot have
        raise InputError(f"{path}: {e}; nothing was written: choose another format") from e
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path, endings=PICTURES):
    """Raises InputError unless a file with one of these `endings` can be put at `path`: called before the work, not after it."""
    if not isinstance(path, (str, Path)) or "\0" in str(path):
        raise InputError(f"{path!r:.80} is no name of a file to write")
    path = Path(path)
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)                                   # a name that is too long is an error here
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; make it first, or choose another place")
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file in it, such as {path / ('out' + endings[0])}")
    except (OSError, UnicodeEncodeError) as e:               # a name that is too long, or no text
        raise InputError(f"{str(path)[:80]}...: {getattr(e, 'strerror', None) or e}") from e
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent.resolve()} may not be written to; choose another place")
    if path.suffix.lower() not in endings:
        raise InputError(f"{path}: minisd cannot write that kind of file here; end the name in {' or '.join(endings)}")
