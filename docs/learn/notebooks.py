"""The course as notebooks, one a chapter: `python docs/learn/notebooks.py FOLDER`.  With --run each is run as well, from top to bottom."""
import argparse
import re
import shutil
from pathlib import Path

import jupytext

HERE = Path(__file__).parent


def notebook(page):
    """A chapter -> its notebook; solutions are unfolded, since a cell cannot be folded away within a text."""
    text = page.read_text(encoding="utf-8").replace("<details><summary>Solution</summary>", "*Solution*").replace("</details>\n", "")
    text = re.sub(r"```py\n", "```text\n", text)             # the package's own lines are to be read, not run
    text = re.sub(r"<!-- source:.*?-->\n", "", text)
    text = re.sub(r"\]\((\d\d-[\w-]+)\.md\)", r"](\1.ipynb)", text)
    return jupytext.reads(text, fmt="md")


def run(book, folder):
    from nbclient import NotebookClient
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", action="store_true")
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(HERE / "pictures", a.folder / "pictures", dirs_exist_ok=True)
    for page in sorted(HERE.glob("[0-9]*.md")):
        book = notebook(page)
        if a.run:
            run(book, a.folder)
        place = a.folder / f"{page.stem}.ipynb"
        jupytext.write(book, place, fmt="ipynb")
        print(place)


if __name__ == "__main__":
    main()
