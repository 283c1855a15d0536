"""SIGINT and SIGTERM, which end a command after what is half done is cleaned up."""
import signal
import sys
import threading
from contextlib import contextmanager


class Terminated(SystemExit):
    """SIGTERM arrived; where nobody catches it, the program ends quietly."""


@contextmanager
def signals():
    """Meanwhile SIGINT raises KeyboardInterrupt and SIGTERM raises Terminated, and once one has arrived nothing else leaves the block.
    What they interrupt may turn them into an error of its own, as numpy does while it is imported (ImportError) and a class with a
    cached_property before Python 3.12 (RuntimeError), or lose them, as a callback does."""
    arrived = []

    def arrive(number, frame):
        arrived.append(KeyboardInterrupt() if number == signal.SIGINT else Terminated(128 + number))
        raise arrived[-1]

    main = threading.current_thread() is threading.main_thread()       # which alone may set them
    taken = [n for n in (signal.SIGINT, signal.SIGTERM) if main and signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before, hook = [(n, signal.signal(n, arrive)) for n in taken], sys.unraisablehook
    sys.unraisablehook = lambda lost: lost.exc_value in arrived or hook(lost)        # a callback's: raised below
    try:
        yield
    except BaseException:
        if not arrived:
            raise
    finally:
        sys.unraisablehook = hook
        for number, handler in before:
            signal.signal(number, handler)
    if arrived:
        raise arrived[0]
