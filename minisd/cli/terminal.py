"""What the command line writes to a terminal, a file or a pipe, whatever is there."""
import os
import signal
import sys
import threading
from contextlib import contextmanager

from ..errors import printable


class Terminated(SystemExit):
    """SIGTERM arrived; raised so that what is half done is cleaned up.  One that comes too late to be caught ends the program quietly."""


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
    """Meanwhile there are streams, which take any text, and SIGTERM is an exception."""
    before = sys.stderr
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:                       # closed by whoever started this; a file opened next would take its place
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = Messages(sys.stderr)
    ours = threading.current_thread() is threading.main_thread()       # signals are the main thread's
    handler = signal.signal(signal.SIGTERM, terminate) if ours else None
    try:
        yield
    finally:
        sys.stderr = before or sys.stderr
        if ours:
            signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)


def terminate(number, frame):
    raise Terminated(128 + number)


def show(text):
    """A line on standard output."""
    print(printable(text))


def silence():
    """After an error of standard output: what is left of it goes nowhere, so that the interpreter's end is quiet."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")
