"""Writes docs/explain/apple.html, an explanation's page, and docs/pictures/explain.png, how a browser shows it.

    python docs/pictures/explain.py          needs pip install '.[browser]' and a Chromium"""
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from minisd.cli.main import main

DOCS = Path(__file__).parent.parent
PAGE, PICTURE = DOCS / "explain" / "apple.html", DOCS / "pictures" / "explain.png"


def screenshot():
    """The top of the page, with the apple's attention at a step on the way over the picture as it is by then."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=dict(width=1360, height=1500))
        page.goto(PAGE.as_uri())
        page.locator("#token-list button").nth(3).click()
        page.locator('#views button[data-value="final"]').click()
        page.wait_for_timeout(300)
        page.screenshot(path=PICTURE)
        browser.close()
    with Image.open(PICTURE) as image:
        image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(PICTURE, optimize=True)


if __name__ == "__main__":
    os.chdir(PAGE.parent)                                    # the page shows the command, which is to have no path of this machine
    main(["explain", "a red apple on a blue background", "--seed", "1", "-o", PAGE.name])
    screenshot()
