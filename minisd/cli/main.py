"""The command line's commands.  Exit codes: 0 done, 1 an error said in words, 2 bad usage, 130 interrupted,
143 terminated."""
import argparse
import os
import sys
import warnings

from ..errors import InputError, MinisdError
from . import terminal
from .options import in_options, parser, size
from .signals import Terminated, signals


def painted(a):
    from .paint import paint  # here, so that --help does not wait for it
    return paint(a)


def batch(a):
    from .many import batch
    return batch(a)


def inspect(a):
    from ..checkpoint import hub
    from ..probe import describe
    lines, whole = describe.inspect(hub.find_folder(a.model, a.variant), a.variant)
    terminal.show("\n".join(lines))
    return 0 if whole else 1


def record(a):
    from ..loading import load
    from ..probe.record import record
    width, height = size(a.size) if a.size else (None, None)
    only = a.only and a.only.split(",")
    found = record(load(a.model, variant=a.variant), a.output, a.prompt, width, height, a.seed, a.scale, only, a.fingerprints, a.channels,
                   a.steps, a.sampler, a.guidance, not a.quiet)
    terminal.show(f"{found.folder}: {len(found.manifest['layers'])} layers of {found.manifest['name']}")
    return 0


def compare(a):
    """Its exit codes: 0 no fault, 1 faults, 2 what cannot be compared."""
    from ..loading import load
    from ..probe.compare import compare, model_of
    try:
        if a.device != "cpu" and a.theirs is not None:
            raise InputError("--device is for minisd itself, without another engine's activations")
        model = load(model_of(a.recording) if a.model is None else a.model, variant=a.variant, device=a.device)
        found = compare(a.recording, a.theirs, model, a.names, a.layout, a.precision, a.factor)
    except MinisdError as e:
        print(f"minisd: error: {said(e)}", file=sys.stderr)
        return 2
    terminal.show(found.json() if a.json else f"{found.table(not a.faults)}\n{found.verdict}")
    return found.exit_code


def selftest(a):
    from ..probe.selftest import selftest
    rows = selftest(device=a.device)
    if a.verbose or a.device != "cpu":
        for name, shapes, version, error, ok in rows:
            print(f"{name:<18}{'kernel' if version == 'fast' and a.device != 'cpu' else version:<12}{error:.1e}  "
                  f"{'ok' if ok else 'NOT OK'}  {shapes}")
    off = sorted({name for name, *_, ok in rows if not ok})
    worst = max(error for *_, error, _ in rows)
    fine = f"OK: {len(rows)} cases of {len({r[0] for r in rows})} operations, worst error {worst:.1e}"
    print(f"NOT OK: {', '.join(off)}" if off else fine)
    return 1 if off else 0


def completion(a):
    try:
        import shtab
    except ImportError:
        raise InputError("completion needs shtab: pip install 'minisd[completion]'") from None
    print(shtab.complete(parser(), a.shell))
    return 0


COMMANDS = {"batch": batch, "inspect": inspect, "record": record, "compare": compare, "selftest": selftest, "completion": completion}


def main(argv=None):
    """Run one command -> its exit code.  With MINISD_DEBUG set, errors show where they come from."""
    with terminal.prepared():
        return command(sys.argv[1:] if argv is None else list(argv))


def command(argv):
    a, shown = parser().parse_args(argv), set()

    def show(message, *_, **__):
        text = f"minisd: warning: {in_options(str(message))}"
        if text not in shown:                                # once, however many images it is about
            shown.add(text)
            print(text, file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        a.given = argv
        return run(a)


def run(a):
    try:
        with signals():
            if getattr(a, "origin", None) is not None:       # what stands on the command line goes before the image's settings
                from .repeat import options
                found, stored = options(a.origin)
                a.parser.set_defaults(**found)
                a = a.parser.parse_args(a.given[1:], argparse.Namespace(command=a.command, stored=stored, given=a.given))
            code = COMMANDS.get(a.command, painted)(a)
            sys.stdout.flush()                               # here, so that a closed pipe is met inside the try
        return code
    except (MinisdError, MemoryError, OSError) as e:
        if os.environ.get("MINISD_DEBUG"):
            raise
        if isinstance(e, OSError):                           # files' are errors of ours: this is standard output, closed or full
            terminal.silence()
        if not isinstance(e, BrokenPipeError):               # that is `minisd inspect ... | head`
            print(f"minisd: error: {said(e)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("minisd: interrupted; no half-written file is left", file=sys.stderr)
        return 130
    except Terminated:
        print("minisd: terminated; no half-written file is left", file=sys.stderr)
        return 143


def said(e):
    """An error in words."""
    if isinstance(e, OSError):
        return f"standard output: {e.strerror}"
    if isinstance(e, MemoryError):
        return f"not enough memory: {e}"
    return in_options(str(e)) if isinstance(e, InputError) else str(e)
