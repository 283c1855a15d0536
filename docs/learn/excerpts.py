"""Keeps the lines of minisd's source that the course shows what they are in the package: `python docs/learn/excerpts.py` draws them in.

    <!-- source: minisd.diffusion.guidance:by_prompt "without, with_text" -->
    ```py
    ...
    ```

shows the function from the first line that holds the text to its end; a second text names the last line."""
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).parent
PLACE = re.compile(r'(<!-- source: ([\w.]+):([\w.]+)(?: "(.+?)")?(?: "(.+?)")? -->\n```py\n)(.*?)(```)', re.S)


def lines_of(module, name, first, last):
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    source = inspect.getsource(getattr(found, "definition", found))
    lines = source.splitlines()
    start = next((i for i, line in enumerate(lines) if first in line), None) if first else 0
    assert start is not None, f"{module}:{name} has no line with {first!r}"
    end = next((i for i, line in enumerate(lines) if i >= start and last in line), None) if last else len(lines) - 1
    assert end is not None, f"{module}:{name} has no line with {last!r} after that"
    return textwrap.dedent("\n".join(lines[start:end + 1])) + "\n"


def renewed(text):
    """A page with its excerpts as they are in the package now."""
    return PLACE.sub(lambda m: m[1] + lines_of(m[2], m[3], m[4], m[5]) + m[7], text)


if __name__ == "__main__":
    for page in sorted(HERE.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (now := renewed(text)) != text:
            page.write_text(now, encoding="utf-8")
            print(f"{page.name}: drawn in anew", file=sys.stderr)
