"""What the command line writes to a terminal, a file or a pipe, whatever is there."""
import os
import sys
from contextlib import contextmanager

from ..errors import printable


class Messages:
    """Standard error: what cannot be written is dropped, for a full disk behind it is no reason to lose a picture."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        try:
            return self.stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self):
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self.stream = open(os.devnull, "w")

    def __getattr__(self, name):                             # isatty, encoding, fileno, which tqdm asks for
        return getattr(self.stream, name)


@contextmanager
def prepared():
    """Meanwhile there are streams, which take any text."""
    before = sys.stderr
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:                       # closed by whoever started this; a file opened next would take its place
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = Messages(sys.stderr)
    try:
        yield
    finally:
        sys.stderr = before or sys.stderr


def show(text):
    """A line on standard output."""
    print(printable(text))


def silence():
    """After an error of standard output: what is left of it goes nowhere, so that the interpreter's end is quiet."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")
