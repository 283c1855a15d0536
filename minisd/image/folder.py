"""A folder for many files, on this machine or elsewhere."""
import os
import secrets
import tempfile

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ..errors import InputError


class Folder:
    """A folder by name, on this machine or wherever fsspec reaches, such as s3://bucket/pictures; made if it is not there.

    Raises InputError where it cannot be made, or fsspec lacks what it needs to reach it."""

    def __init__(self, name):
        try:
            self.files, self.path = fsspec.core.url_to_fs(str(name))
            self.files.makedirs(self.path, exist_ok=True)
        except (OSError, ImportError, ValueError) as e:
            raise InputError(f"{name}: no folder to write to: {getattr(e, 'strerror', None) or e}") from e

    def open(self, name):
        """The file of this name in it, for reading.  Raises FileNotFoundError."""
        return self.files.open(f"{self.path}/{name}", "rb")

    def put(self, name, write):
        """Make what write(path) writes, whole or not at all, appear as the file of this name -> the file's whole name"""
        place = f"{self.path}/{name}"
        if isinstance(self.files, LocalFileSystem):
            write(place)
        else:
            with tempfile.TemporaryDirectory() as here:
                write(os.path.join(here, name))
                part = f"{self.path}/.minisd-{secrets.token_hex(6)}.part"
                self.files.put_file(os.path.join(here, name), part)
                self.files.mv(part, place)
        return place
