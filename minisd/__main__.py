"""The command `minisd`, and `python -m minisd`."""
import sys


def main():
    try:
        from .cli.signals import signals  # here, so that Ctrl-C is answered while it is imported, too
        with signals():
            from .cli.main import main as command
        return command()
    except KeyboardInterrupt:
        print("minisd: interrupted; no half-written file is left", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
